/* SPDX-License-Identifier: MIT */
/*
 * registry.c - the ranges, found by address.
 *
 * Invariant: ranges do not overlap; the index is sorted by address and changed under the lock only,
 * between two steps of `version`: a reader that saw the same even version before and after has seen
 * an index that was. The table lies in a mapping of its own, nothing is kept inside the ranges, and
 * its size is fixed: a reservation that finds no room is simply not ours.
 *
 * A range belongs to whoever moved its state from LIVE to WORK (by compare and swap) or from IDLE
 * to BUSY (under the lock, with the list). An owner works with the lock free.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <sys/mman.h>

_Atomic(uint64_t) ms_registry_low, ms_registry_high;

static struct table {
	struct ms_range ranges[MS_PRELOAD_RANGES];
	_Atomic(uint64_t) starts[MS_PRELOAD_RANGES]; /* of the index, in order */
	_Atomic(uint32_t) numbers[MS_PRELOAD_RANGES];
} * table;
static _Atomic(uint32_t) version, count;
static uint32_t unused, first_free = MS_NONE; /* of ranges: never used from here; list by next */

int ms_registry_start(void)
{
	void *memory;
	int error = ms_os_reserve(NULL, sizeof *table, PROT_READ | PROT_WRITE, &memory);

	if (!error)
		table = memory;
	return error;
}

struct ms_range *ms_registry_at(uint32_t number)
{
	return &table->ranges[number];
}

uint32_t ms_registry_number(const struct ms_range *range)
{
	return (uint32_t)(range - table->ranges);
}

uint32_t ms_registry_count(void)
{
	return atomic_load_explicit(&count, memory_order_relaxed);
}

struct ms_range *ms_registry_nth(uint32_t n)
{
	return &table->ranges[atomic_load_explicit(&table->numbers[n], memory_order_relaxed)];
}

/* How many entries of the index start below `address`. */
static uint32_t below(uint64_t address)
{
	uint32_t first = 0, end = ms_registry_count();

	while (first < end) {
		uint32_t middle = (first + end) / 2;
		if (atomic_load_explicit(&table->starts[middle], memory_order_relaxed) < address)
			first = middle + 1;
		else
			end = middle;
	}
	return first;
}

static struct ms_range *overlap(uint64_t start, uint64_t end)
{
	uint32_t n = below(end);
	struct ms_range *range;

	if (n == 0)
		return NULL;
	/* The last that starts below the end is the only one to overlap, or a neighbour of the
	 * first. */
	range = ms_registry_nth(n - 1);
	if (__atomic_load_n(&range->end, __ATOMIC_RELAXED) <= start)
		return NULL;
	n = below(start + 1);
	if (n) {
		struct ms_range *before = ms_registry_nth(n - 1);
		if (__atomic_load_n(&before->end, __ATOMIC_RELAXED) > start)
			return before;
	}
	return ms_registry_nth(n);
}

struct ms_range *ms_registry_find(uint64_t start, uint64_t end)
{
	struct ms_range *found;
	uint32_t before;

	do {
		before = atomic_load_explicit(&version, memory_order_acquire);
		/* Cloned in the middle of a change: whoever asks shall get inside and find out. */
		if (MS_UNLIKELY(before & 1) && ms_section_lost())
			return table->ranges;
		found = before & 1 ? NULL : overlap(start, end);
		atomic_thread_fence(memory_order_acquire);
	} while ((before & 1) || atomic_load_explicit(&version, memory_order_relaxed) != before);
	return found;
}

static void begin_change(void)
{
	atomic_fetch_add_explicit(&version, 1, memory_order_acq_rel);
	atomic_thread_fence(memory_order_release);
}

static void end_change(void)
{
	uint32_t n = ms_registry_count();

	atomic_store_explicit(
		&ms_registry_low, n ? ms_registry_nth(0)->start : 0, memory_order_relaxed);
	atomic_store_explicit(
		&ms_registry_high, n ? ms_registry_nth(n - 1)->end : 0, memory_order_relaxed);
	atomic_fetch_add_explicit(&version, 1, memory_order_release);
}

static void set_entry(uint32_t n, uint64_t start, uint32_t number)
{
	atomic_store_explicit(&table->starts[n], start, memory_order_relaxed);
	atomic_store_explicit(&table->numbers[n], number, memory_order_relaxed);
}

static void copy_entry(uint32_t to, uint32_t from)
{
	set_entry(to, atomic_load_explicit(&table->starts[from], memory_order_relaxed),
		atomic_load_explicit(&table->numbers[from], memory_order_relaxed));
}

static struct ms_range *new_range(void)
{
	struct ms_range *range;

	if (first_free != MS_NONE) {
		range = &table->ranges[first_free];
		first_free = range->next;
		return range;
	}
	return unused < MS_PRELOAD_RANGES ? &table->ranges[unused++] : NULL;
}

struct ms_range *ms_registry_add(uint64_t start, uint64_t end)
{
	struct ms_range *range = new_range();
	uint32_t n, at;

	if (!range)
		return NULL;
	begin_change();
	__atomic_store_n(&range->start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&range->end, end, __ATOMIC_RELAXED);
	atomic_store(&range->state, MS_RANGE_WORK);
	n = ms_registry_count();
	for (at = below(start); n > at; n--)
		copy_entry(n, n - 1);
	set_entry(at, start, ms_registry_number(range));
	atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
	end_change();
	return range;
}

void ms_registry_shrink(struct ms_range *range, uint64_t start, uint64_t end)
{
	uint32_t n = below(range->start);

	begin_change();
	set_entry(n, start, ms_registry_number(range));
	__atomic_store_n(&range->start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&range->end, end, __ATOMIC_RELAXED);
	end_change();
}

void ms_registry_remove(struct ms_range *range)
{
	uint32_t n;

	begin_change();
	for (n = below(range->start); n + 1 < ms_registry_count(); n++)
		copy_entry(n, n + 1);
	atomic_fetch_sub_explicit(&count, 1, memory_order_relaxed);
	atomic_store(&range->state, MS_RANGE_FREE);
	range->next = first_free;
	first_free = ms_registry_number(range);
	end_change();
}

void ms_registry_clear(void)
{
	if (!table)
		return;
	begin_change();
	for (uint32_t i = 0; i < unused; i++)
		atomic_store(&table->ranges[i].state, MS_RANGE_FREE);
	unused = 0;
	first_free = MS_NONE;
	atomic_store(&count, 0);
	end_change();
	/* A child of a raw clone may have found a change half done. */
	atomic_store(&version, 0);
}

/* Take it if nobody owns it: false: somebody does, or it is another range now. */
static bool take(struct ms_range *range, uint64_t start, uint64_t end, uint32_t *ret_state)
{
	uint32_t seen = MS_RANGE_LIVE;
	bool taken = atomic_compare_exchange_strong(&range->state, &seen, MS_RANGE_WORK);

	*ret_state = seen;
	if (!taken && seen == MS_RANGE_IDLE) {
		ms_section_lock();
		taken = atomic_compare_exchange_strong(&range->state, &seen, MS_RANGE_BUSY);
		if (taken)
			ms_idle_unlink(range);
		ms_section_unlock();
	}
	if (!taken || (range->start < end && range->end > start))
		return taken;
	if (seen == MS_RANGE_LIVE) {
		ms_range_release(range);
		return false;
	}
	ms_section_lock();
	ms_idle_put(range);
	ms_section_unlock();
	return false;
}

struct ms_range *ms_registry_own(uint64_t start, uint64_t end, enum ms_range_state *ret_state)
{
	struct ms_range *range;
	uint32_t state;

	while ((range = ms_registry_find(start, end))) {
		if (take(range, start, end, &state)) {
			*ret_state = (enum ms_range_state)state;
			return range;
		}
		ms_os_yield(); /* its owner is at work: a few system calls */
	}
	return NULL;
}
