/* SPDX-License-Identifier: MIT */
/*
 * areas.c - where buffers lie.
 *
 *   index of a buffer:  area << area_shift | place in the area
 *
 * Invariant: a bit of an area is 1 exactly while its buffer is free: with the pool, in no magazine.
 * Buffers are equal, so that a map of bits is all there is to know: the first gap that is long
 * enough is taken, which keeps later areas empty until they can go back. An area is one slot, held
 * as long as it is ours (INVARIANTS 15): nobody else resets it. An area that is `busy` belongs to
 * the thread that made it so; slots are acquired, reset and released without the lock.
 */
#include "buffers/buffers.h"

#include "pool/pool.h"

#include <errno.h>
#include <sys/mman.h>

#define AREAS_A_STEP 16 /* then they double */

/* --- free ones --- */

/* The first gap of `count` in the words from `hint` on; UINT32_MAX: none. */
static uint32_t find(const struct ms_area *area, uint32_t count)
{
	uint32_t run = 0;

	for (uint32_t place = area->hint * 64; place < area->buffers;) {
		uint64_t word = area->bits[place / 64] >> (place % 64);
		uint32_t left = 64 - place % 64, step;
		if (word & 1) {
			step = ~word ? (uint32_t)__builtin_ctzll(~word) : 64;
			step = step < left ? step : left;
			run += step;
			if (run >= count)
				return place + step - run;
		} else {
			step = word ? (uint32_t)__builtin_ctzll(word) : left;
			run = 0;
		}
		place += step;
	}
	return UINT32_MAX;
}

/* Turn `count` bits over. */
static void flip(struct ms_area *area, uint32_t place, uint32_t count)
{
	while (count) {
		uint32_t bits = 64 - place % 64;
		bits = bits < count ? bits : count;
		area->bits[place / 64] ^= (bits == 64 ? ~0ull : (1ull << bits) - 1) << (place % 64);
		place += bits;
		count -= bits;
	}
}

bool ms_areas_take(struct memslot_buffers *buffers, uint32_t count, uint32_t *ret_index)
{
	for (uint32_t i = 0; i < MS_AREAS_MAX; i++) {
		struct ms_area *area = &buffers->areas[i];
		uint32_t place;
		if (area->free < count || area->busy)
			continue;
		while (area->bits[area->hint] == 0)
			area->hint++;
		place = find(area, count);
		if (place == UINT32_MAX)
			continue;
		flip(area, place, count);
		area->free -= count;
		*ret_index = i << buffers->area_shift | place;
		return true;
	}
	return false;
}

void ms_areas_put(struct memslot_buffers *buffers, uint32_t index, uint32_t count)
{
	struct ms_area *area = ms_areas_of(buffers, index);
	uint32_t place = index & ((1u << buffers->area_shift) - 1);

	flip(area, place, count);
	area->free += count;
	if (area->hint > place / 64)
		area->hint = place / 64;
}

/* --- in and out --- */

static struct ms_area *unused(struct memslot_buffers *buffers, uint64_t *ret_step)
{
	for (uint32_t i = 0; i < MS_AREAS_MAX; i++) {
		if (buffers->areas[i].buffers || buffers->areas[i].busy)
			continue;
		*ret_step = ms_min(buffers->most, buffers->step << ms_min(i / AREAS_A_STEP, 31));
		return &buffers->areas[i];
	}
	return NULL;
}

static int get_slot(struct memslot_buffers *buffers, size_t bytes, struct memslot_slot **ret_slot)
{
	int error = memslot_pool_acquire(buffers->pool, NULL, bytes, NULL, ret_slot);

	if (error)
		return error;
	error = memslot_slot_hold(*ret_slot, MEMSLOT_HOLD_IO);
	if (error)
		(void)memslot_pool_release(buffers->pool, *ret_slot);
	return error;
}

static void put_slot(struct memslot_buffers *buffers, struct memslot_slot *slot)
{
	(void)memslot_slot_unhold(slot, MEMSLOT_HOLD_IO);
	(void)memslot_pool_release(buffers->pool, slot);
}

int ms_areas_hide(const struct memslot_buffers *buffers, const struct ms_area *area, bool hide)
{
	if (buffers->pool->flags & MEMSLOT_SLOT_DONTFORK)
		return 0; /* they never have it */
	return ms_os_advise(area->base, area->bytes, hide ? MADV_DONTFORK : MADV_DOFORK);
}

/* Under the lock. */
static int publish(struct memslot_buffers *buffers, struct ms_area *area, struct memslot_slot *slot,
	size_t bytes, uint32_t count)
{
	int error;

	area->slot = slot;
	area->base = memslot_slot_base(slot);
	area->origin =
		(uintptr_t)area->base -
		((uintptr_t)(area - buffers->areas) << (buffers->area_shift + buffers->size_shift));
	area->bytes = bytes;
	error = buffers->attached ? ms_areas_hide(buffers, area, true) : 0;
	if (error)
		return error;
	area->buffers = area->free = count;
	area->hint = 0;
	area->serial++;
	flip(area, 0, count);
	return 0;
}

/* Generations of different buffers begin far apart, so that a handle names one acquisition. */
static void number(struct memslot_buffers *buffers, const struct ms_area *area, uint64_t count)
{
	uint32_t first = (uint32_t)(area - buffers->areas) << buffers->area_shift;

	for (uint32_t i = first; i < first + count; i++) {
		_Atomic(uint64_t) *word = &buffers->cells[i].word;
		if (atomic_load_explicit(word, memory_order_relaxed) == 0)
			atomic_store_explicit(
				word, (uint64_t)(i * 2654435761u) << 32, memory_order_relaxed);
	}
}

bool ms_areas_grow(struct memslot_buffers *buffers, uint32_t count)
{
	uint64_t step, bytes;
	struct ms_area *area = unused(buffers, &step);
	struct memslot_slot *slot;
	int error;

	if (!area)
		return false;
	step = ms_max(step, count);
	/* Small buffers: whole pages of them, or a slot would be larger than what is used of it. */
	bytes = ms_round_down((step << buffers->size_shift) + ms_page_size() - 1);
	step = ms_min(bytes >> buffers->size_shift, buffers->most);
	area->busy = true;
	buffers->inside++;
	ms_lock_release(&buffers->lock);
	error = get_slot(buffers, bytes, &slot);
	number(buffers, area, error ? 0 : step);
	ms_lock_take(&buffers->lock);
	if (!error) {
		error = publish(buffers, area, slot, bytes, (uint32_t)step);
		if (error) {
			ms_lock_release(&buffers->lock);
			put_slot(buffers, slot);
			ms_lock_take(&buffers->lock);
		}
	}
	buffers->inside--;
	area->busy = false;
	return error == 0;
}

/* An area with nothing out. The lock is left meanwhile. */
static int give_back(struct memslot_buffers *buffers, struct ms_area *area)
{
	/* A slot that children do not have must not be in their pool. */
	int error = buffers->attached ? ms_areas_hide(buffers, area, false) : 0;

	if (error)
		return error;
	area->busy = true;
	area->sick = false;
	flip(area, 0, area->buffers);
	area->free = area->buffers = 0;
	buffers->inside++;
	ms_lock_release(&buffers->lock);
	put_slot(buffers, area->slot);
	ms_lock_take(&buffers->lock);
	buffers->inside--;
	area->busy = false;
	return 0;
}

/* One that is registered stays where it is: its pages are restored, never dropped, so the rings'
 * view of them and ours remain one (INVARIANTS 10). Our hold is given up for the length of the
 * reset. */
static void clear(struct memslot_buffers *buffers, struct ms_area *area)
{
	area->busy = true;
	buffers->inside++;
	ms_lock_release(&buffers->lock);
	(void)memslot_slot_unhold(area->slot, MEMSLOT_HOLD_IO);
	(void)memslot_slot_reset(area->slot);
	area->sick = memslot_slot_hold(area->slot, MEMSLOT_HOLD_IO) != 0;
	ms_lock_take(&buffers->lock);
	buffers->inside--;
	buffers->wants_trim = true; /* who detached meanwhile has passed it over */
	area->busy = area->sick;    /* unknown: until it is no longer pinned, and can be remade */
}

static bool is_idle(const struct ms_area *area)
{
	return area->buffers && area->free == area->buffers && (!area->busy || area->sick);
}

int ms_areas_trim(struct memslot_buffers *buffers)
{
	int error = 0;

	for (uint32_t i = 0; i < MS_AREAS_MAX; i++) {
		struct ms_area *area = &buffers->areas[i];
		if (is_idle(area) && area->pins && !area->sick)
			clear(buffers, area);
		if (is_idle(area) && area->pins == 0) /* now, as the lock was left */
			error = give_back(buffers, area) ? -ENOMEM : error;
	}
	return error;
}
