/* SPDX-License-Identifier: MIT */
/*
 * request.c - mmap: a reservation is asked for, or something is mapped over one.
 *
 * Invariant: what is handed out is a range that nobody has, that reads zero wherever it is opened,
 * and that the kernel, asked just now, shows as we left it. Otherwise the kernel makes a new one.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define COMMIT_MAX (1ull << 30) /* more may be refused by mmap where mprotect would not */

static long forward(void *address, size_t size, int prot, int flags, int fd, long offset)
{
	return ms_os_forward(SYS_mmap, (long)address, (long)size, prot, flags, fd, offset);
}

static bool failed(long got)
{
	return got < 0 && got > -4096;
}

/* Does the kernel show it as we left it? */
static bool as_left(const struct ms_range *range)
{
	uint64_t left = range->left < range->right ? range->left : range->end;
	uint64_t right = range->left < range->right ? range->right : range->end;
	int error = ms_maps_uniform(range->start, left, PROT_NONE);

	if (!error)
		error = ms_maps_uniform(left, right, PROT_READ | PROT_WRITE);
	if (!error)
		error = ms_maps_uniform(right, range->end, PROT_NONE);
	return error == 0 || (error == -EOPNOTSUPP && ms_config.mode == MS_MODE_STRICT);
}

static void begin_tenancy(struct ms_range *range)
{
	range->head = range->start;
	range->tail = range->end;
	range->open = range->shut = 0;
	range->asked = 0;
	range->opened = range->closed = false;
	range->born_ns = ms_os_clock_ns();
	ms_idle_born(range);
}

/* Under the lock: a slot, BUSY. */
static struct ms_range *slot_of(uint32_t shape)
{
	return ms_config.mode == MS_MODE_OBSERVE ? NULL : ms_idle_take(shape);
}

static long from_slot(uint32_t shape)
{
	struct ms_range *range;

	for (;;) {
		ms_section_lock();
		range = slot_of(shape);
		ms_section_unlock();
		if (!range)
			return 0;
		if (as_left(range))
			break;
		ms_leave_foreign(range);
	}
	ms_section_lock();
	begin_tenancy(range);
	ms_section_unlock();
	ms_tally_add(&ms_tally->hits, 1);
	ms_tally_add(&ms_idle_row(shape)->hits, 1);
	ms_tally_add(&ms_tally->calls_saved, 1);
	ms_tally_add(&ms_tally->pages_lent, ms_bytes_to_pages(range->resident));
	ms_range_release(range);
	return (long)range->start;
}

static void adopt(uint32_t shape, uint64_t start, uint64_t end)
{
	struct ms_range *range;

	ms_request_placed((long)start, end - start);
	ms_section_lock();
	range = ms_registry_add(start, end);
	if (range) {
		range->shape = shape;
		ms_idle_hold(shape);
		range->low = range->high = range->left = range->right = range->resident = 0;
		range->late = range->until = 0;
		range->applied = range->cleans = 0;
		begin_tenancy(range);
		ms_range_release(range);
	}
	ms_section_unlock();
	ms_tally_add(range ? &ms_tally->misses_empty : &ms_tally->misses_other, 1);
	ms_leave_surplus();
}

/* By the kernel; for lack of address space our idle slots go first. */
static long from_kernel(void *hint, size_t size, int flags, int fd, long offset, uint32_t shape)
{
	uint64_t whole = 0;
	long got = forward(hint, size, PROT_NONE, flags, fd, offset);

	if (got == -ENOMEM && ms_leave_idle())
		got = forward(hint, size, PROT_NONE, flags, fd, offset);
	if (failed(got))
		return got;
	if (shape == MS_NONE)
		ms_request_placed(got, size);
	else if (ms_os_address_space_limit() != UINT64_MAX)
		ms_child_stop(MEMSLOT_PRELOAD_OFF_LIMIT);
	else if (ms_round_up(size, &whole))
		adopt(shape, (uint64_t)got, (uint64_t)got + whole);
	return got;
}

/* Better left to the kernel: tenants of this shape write next to nothing, or never come back. */
static bool passes(uint32_t shape)
{
	bool few = shape != MS_NONE && ms_idle_few(shape);

	if (shape == MS_NONE || !(few || ms_idle_hopeless(shape)) || ms_idle_trial(shape))
		return false;
	ms_tally_add(&ms_tally->left[few ? MEMSLOT_PRELOAD_FEW : MEMSLOT_PRELOAD_PARTIAL], 1);
	return true;
}

long ms_request(void *hint, size_t size, int flags, int fd, long offset)
{
	struct ms_section section;
	uint32_t shape = MS_NONE;
	uint64_t whole;
	long got = 0;

	if (!ms_round_up(size, &whole) || !ms_section_enter(&section))
		return forward(hint, size, PROT_NONE, flags, fd, offset);
	if (ms_child_ready()) {
		ms_section_lock();
		shape = ms_idle_shape(whole, flags & MAP_NORESERVE);
		ms_section_unlock();
		ms_tally_add(&ms_tally->requests, 1);
	}
	if (shape != MS_NONE) {
		ms_tally_add(&ms_idle_row(shape)->requests, 1);
		got = from_slot(shape);
	}
	if (got == 0)
		got = from_kernel(hint, size, flags, fd, offset, passes(shape) ? MS_NONE : shape);
	if (shape != MS_NONE) {
		ms_section_lock();
		ms_idle_drop(shape);
		ms_section_unlock();
	}
	ms_section_leave(&section);
	return got;
}

void ms_request_placed(long address, size_t size)
{
	uint64_t start = (uint64_t)address;
	enum ms_range_state state;
	struct ms_range *range;

	while ((range = ms_registry_own(start, start + size, &state))) {
		if (state == MS_RANGE_LIVE) {
			ms_section_lock();
			ms_idle_died(range);
			ms_section_unlock();
		}
		ms_leave_foreign(range);
	}
}

/* Fresh pages inside a range in use, where the program has opened nothing yet: the same as opening
 * it. True: done, with the result in *ret_got. */
static bool commit(uint64_t start, uint64_t end, int prot, int flags, long *ret_got)
{
	const int wanted = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	enum ms_range_state state;
	struct ms_range *range;
	long got = -EAGAIN;

	if (prot != (PROT_READ | PROT_WRITE) || (flags & ~MAP_NORESERVE) != wanted ||
		end - start > COMMIT_MAX)
		return false;
	range = ms_registry_own(start, end, &state);
	if (!range)
		return false;
	if (state != MS_RANGE_LIVE) {
		(void)ms_leave(range, state, MEMSLOT_PRELOAD_FREED);
		return false;
	}
	/* Advice of this tenant's would not be that of a new mapping. */
	if (start >= range->head && end <= range->tail && !range->closed && !range->asked &&
		(start >= range->shut || end <= range->open))
		got = ms_live_open(range, start, end);
	if (got) {
		(void)ms_leave(range, state, MEMSLOT_PRELOAD_MAPPED);
		return false;
	}
	ms_range_release(range);
	*ret_got = (long)start;
	return true;
}

/* Wholly inside what the program has: the kernel answers. */
static bool inside_live(uint64_t start, uint64_t end)
{
	enum ms_range_state state;
	struct ms_range *range = ms_registry_own(start, end, &state);
	bool inside;

	if (!range)
		return false;
	inside = state == MS_RANGE_LIVE && start >= range->head && end <= range->tail;
	if (inside)
		ms_range_release(range);
	else
		(void)ms_leave(range, state,
			state == MS_RANGE_LIVE ? MEMSLOT_PRELOAD_MAPPED : MEMSLOT_PRELOAD_FREED);
	return inside;
}

long ms_request_fixed(void *address, size_t size, int prot, int flags, int fd, long offset)
{
	uint64_t start = (uint64_t)(uintptr_t)address, whole = 0;
	struct ms_section section;
	bool done = false;
	long got = 0;

	if (!ms_page_aligned(start) || !ms_round_up(size, &whole) || !ms_section_enter(&section))
		return forward(address, size, prot, flags, fd, offset);
	if (flags & MAP_FIXED_NOREPLACE)
		done = inside_live(start, start + whole);
	else if (commit(start, start + whole, prot, flags, &got)) {
		ms_section_leave(&section);
		return got;
	}
	if (!done)
		ms_leave_all(start, start + whole, MEMSLOT_PRELOAD_MAPPED);
	got = forward(address, size, prot, flags, fd, offset);
	ms_section_leave(&section);
	return got;
}
