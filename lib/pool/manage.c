/* SPDX-License-Identifier: MIT */
/*
 * manage.c - what happens to slots while nobody has them.
 *
 * Invariant: whatever takes a slot off the shelf here moves it to FLUSHING first (prewarm:
 * TRANSIT), works on it without the lock, and settles it, so that acquire, release and fork see it
 * as gone for a while and nothing else. Walks over all seats give the lock up every few hundred.
 */
#include "pool/pool.h"

#include "base/fork.h"
#include "base/opts.h"

#include <errno.h>
#include <stddef.h>

#define WALK 256

/* A slot that is FLUSHING becomes cold. */
static int chill(struct memslot_pool *pool, uint32_t name)
{
	int error = ms_lend_blank(ms_pool_slot(pool, name));

	return ms_pool_put_back(pool, name, error ? ms_pool_failed(pool, name) : MS_RETURN_COLD);
}

/* --- holds --- */

void ms_manage_unheld(struct memslot_slot *slot)
{
	struct memslot_pool *pool = (struct memslot_pool *)((unsigned char *)slot->lender -
							    offsetof(struct memslot_pool, lender));
	uint32_t name = slot->index + 1;
	struct ms_seat *seat = ms_pool_seat(pool, name);
	struct ms_wake wake = {NULL, -1};

	if (ms_pool_enter(pool))
		return;
	if (ms_pool_place(seat) == MS_PLACE_HELD) {
		ms_shelf_take_away(pool, name);
		ms_state_lose(slot);
		wake = ms_pool_settle(pool, name, MS_RETURN_SICK);
	} else {
		seat->unheld = true; /* release is on its way to the list */
	}
	ms_pool_leave(pool);
	ms_pool_wake(pool, wake);
}

/* --- quarantine --- */

static void heal(struct memslot_pool *pool)
{
	uint32_t name, left = 0;

	if (ms_pool_enter(pool))
		return;
	left = pool->sick.count;
	ms_pool_leave(pool);
	for (; left; left--) {
		if (ms_pool_enter(pool))
			return;
		name = pool->sick.last; /* who fails again goes to the front */
		if (name)
			ms_shelf_take_away(pool, name);
		ms_pool_leave(pool);
		if (!name)
			return;
		(void)ms_pool_make(pool, name); /* if it fails the slot is unknown, and remade */
		if (chill(pool, name))
			return;
	}
}

/* --- memory --- */

MS_EXPORT int memslot_pool_flush(struct memslot_pool *pool)
{
	struct ms_batch batch;
	int error;

	if (!pool)
		return -EINVAL;
	error = ms_pool_enter(pool);
	if (error)
		return error;
	ms_queue_take(pool, &batch);
	ms_pool_leave(pool);
	ms_queue_flush(pool, &batch, true);
	heal(pool);
	return 0;
}

/* Under the lock: the least recently used, until the rest is below the target. */
static void take_residents(struct memslot_pool *pool, size_t target_pages, struct ms_batch *batch)
{
	batch->count = 0;
	while (pool->resident_pages > target_pages && pool->resident.last &&
		batch->count < MS_QUEUE_BATCH) {
		batch->name[batch->count++] = pool->resident.last;
		ms_shelf_take_away(pool, pool->resident.last);
	}
}

MS_EXPORT int memslot_pool_trim(
	struct memslot_pool *pool, size_t resident_target, size_t *ret_resident)
{
	struct ms_batch batch;
	size_t pages, rounds = 0;
	int error;

	if (!pool)
		return -EINVAL;
	do { /* locked pages stay, so not for ever */
		error = ms_pool_enter(pool);
		if (error)
			return error;
		take_residents(pool, ms_bytes_to_pages(resident_target), &batch);
		pages = pool->resident_pages;
		ms_pool_leave(pool);
		ms_queue_flush(pool, &batch, false);
	} while (batch.count && ++rounds <= pool->count / MS_QUEUE_BATCH + 1);
	if (ret_resident)
		*ret_resident = ms_pages_to_bytes(pages);
	return 0;
}

/* A walk over all seats, a few hundred at a time: `step` says, under the lock, which go cold. */
static int chill_all(struct memslot_pool *pool,
	bool (*step)(struct memslot_pool *pool, uint32_t name, void *context), void *context)
{
	for (uint64_t from = 1; from <= pool->count; from += WALK) {
		uint32_t name[WALK], count = 0;
		uint64_t end;
		int error = ms_pool_enter(pool);
		if (error)
			return error;
		end = ms_min(from + WALK, pool->fresh + (uint64_t)1);
		for (uint64_t i = from; i < end; i++) {
			if (!step(pool, (uint32_t)i, context))
				continue;
			ms_shelf_take_away(pool, (uint32_t)i);
			name[count++] = (uint32_t)i;
		}
		ms_pool_leave(pool);
		for (uint32_t i = 0; i < count; i++) {
			error = chill(pool, name[i]);
			if (error)
				return error;
		}
		if (end < from + WALK)
			break;
	}
	return 0;
}

static bool is_old(struct memslot_pool *pool, uint32_t name, void *now)
{
	const struct ms_seat *seat = ms_pool_seat(pool, name);

	return ms_pool_place(seat) == MS_PLACE_WARM &&
	       *(uint64_t *)now - seat->since_ns >= pool->max_age_ns;
}

MS_EXPORT int memslot_pool_maintain(struct memslot_pool *pool)
{
	int error = memslot_pool_flush(pool);
	uint64_t now = ms_os_clock_ns();

	if (error || pool->max_age_ns == UINT64_MAX)
		return error;
	return chill_all(pool, is_old, &now);
}

/* --- images --- */

struct forgetting {
	const struct memslot_image *image;
	uint32_t out;
	bool again; /* somebody else is at a slot that shows it */
};

static bool forget_seat(struct memslot_pool *pool, uint32_t name, void *context)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	struct forgetting *forgetting = context;
	enum ms_place place = ms_pool_place(seat);
	bool asked = seat->image == forgetting->image, shown = false;

	if (place == MS_PLACE_WARM || place == MS_PLACE_QUEUED)
		return asked;
	if (place == MS_PLACE_FLUSHING)
		forgetting->again |= asked;
	if (place != MS_PLACE_OUT && place != MS_PLACE_TRANSIT && place != MS_PLACE_HELD)
		return false;
	if (seat->placed)
		shown = ms_pool_slot(pool, name)->target == forgetting->image;
	/* What acquire asked for may be long gone, but for one that is still at it. */
	if (place == MS_PLACE_TRANSIT)
		shown |= asked;
	seat->forgotten |= shown;
	forgetting->out += shown;
	return false;
}

MS_EXPORT int memslot_pool_forget(
	struct memslot_pool *pool, struct memslot_image *image, uint32_t *ret_out)
{
	struct forgetting forgetting = {.image = image};
	int error;

	if (!pool)
		return -EINVAL;
	while ((error = chill_all(pool, forget_seat, &forgetting)) == 0 && forgetting.again) {
		ms_os_yield();
		forgetting = (struct forgetting){.image = image};
	}
	if (!error && ret_out)
		*ret_out = forgetting.out;
	return error;
}

/* A cold slot, in TRANSIT; 0: none. */
static uint32_t take_cold(struct memslot_pool *pool, struct memslot_image *image)
{
	uint32_t name = ms_shelf_next_cold(pool);
	struct ms_seat *seat;

	if (!name)
		return 0;
	ms_shelf_take(pool, name);
	seat = ms_pool_seat(pool, name);
	seat->image = image;
	seat->key = 0;
	seat->thread = ms_counter_thread();
	ms_pool_move(seat, MS_PLACE_TRANSIT);
	pool->live++;
	return name;
}

static int prewarm_one(
	struct memslot_pool *pool, const struct ms_request *request, bool *ret_made, bool *ret_done)
{
	uint32_t name;
	int error = ms_pool_enter(pool);

	if (error)
		return error;
	name = take_cold(pool, request->image);
	ms_pool_leave(pool);
	*ret_done = name == 0;
	if (!name)
		return 0;
	error = ms_pool_make(pool, name);
	if (!error) {
		struct memslot_slot *slot = ms_pool_slot(pool, name);
		slot->confined = false;
		slot->populated = false;
		error = ms_lend_show(slot, request->image, request->pages, false);
	}
	ms_pool_shelve(pool, name, error ? ms_pool_failed(pool, name) : MS_RETURN_CLEAN);
	*ret_made = error == 0;
	return error == -EUCLEAN ? 0 : error; /* quarantined: others are tried */
}

MS_EXPORT int memslot_pool_prewarm(struct memslot_pool *pool, struct memslot_image *image,
	size_t size, uint32_t count, uint32_t *ret_count)
{
	struct ms_request request;
	uint32_t made = 0;
	bool done = false, one = false;
	int error;

	if (!pool || (image && image->base_address))
		return -EINVAL;
	error = ms_pool_request(pool, image, size, NULL, &request);
	if (error)
		return error;
	while (!error && made < count) {
		error = prewarm_one(pool, &request, &one, &done);
		if (error || done)
			break;
		made += one;
	}
	if (ret_count)
		*ret_count = made;
	return error;
}

/* --- counters --- */

MS_EXPORT int memslot_pool_stats(
	const struct memslot_pool *pool, struct memslot_pool_stats *ret_stats)
{
	struct memslot_pool *locked = (struct memslot_pool *)(uintptr_t)pool;
	struct memslot_pool_stats stats;
	int error;

	if (!pool || !ret_stats)
		return -EINVAL;
	error = ms_pool_enter(locked);
	stats = pool->stats;
	stats.capacity_count = pool->count;
	stats.live = pool->live;
	stats.idle_warm = pool->warm.count;
	stats.idle_cold = pool->cold.count + (pool->count - pool->fresh);
	stats.held = pool->held.count;
	stats.queued = pool->queued.count;
	stats.quarantined = (uint64_t)pool->sick.count + pool->lost.count;
	stats.resident_bytes = ms_pages_to_bytes(pool->resident_pages);
	stats.image_bytes = ms_pages_to_bytes(pool->image_pages);
	stats.slots.retained_pages = pool->resident_pages;
	if (!error)
		ms_pool_leave(locked);
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}
