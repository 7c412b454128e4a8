/* SPDX-License-Identifier: MIT */
/*
 * shelf.c - idle slots, and which one is next.
 *
 *   buckets: hash of (image, key) -> group -> group        a group: same image and key
 *                                      |
 *                                     slot <-> slot        last used first
 *
 * Invariant: an idle slot is in the list of its place, a warm one also in its group, and in the
 * list of residents when it keeps pages that it could give up. Only the first of a group hangs in
 * its bucket, so that finding a group takes as long with a million slots as with ten. Lists are
 * names in the seats: no allocation. Everything under the pool's lock.
 */
#include "pool/pool.h"

#define OWN_LOOKS 4

/* Fibonacci hashing (D. Knuth, The Art of Computer Programming 3, 6.4). */
static uint32_t *bucket_of(const struct memslot_pool *pool, const struct ms_seat *seat)
{
	uint64_t hash = ((uint64_t)(uintptr_t)seat->image >> 4) * 0x9e3779b97f4a7c15u;

	hash = (hash ^ (hash >> 32) ^ seat->key) * 0x9e3779b97f4a7c15u;
	return &pool->buckets[hash >> 32 & pool->bucket_mask];
}

/* --- lists --- */

static void list_add(struct memslot_pool *pool, struct ms_list *list, uint32_t name, bool last)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	seat->next = last ? 0 : list->first;
	seat->prev = last ? list->last : 0;
	*(seat->next ? &ms_pool_seat(pool, seat->next)->prev : &list->last) = name;
	*(seat->prev ? &ms_pool_seat(pool, seat->prev)->next : &list->first) = name;
	list->count++;
}

static void list_remove(struct memslot_pool *pool, struct ms_list *list, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	*(seat->next ? &ms_pool_seat(pool, seat->next)->prev : &list->last) = seat->prev;
	*(seat->prev ? &ms_pool_seat(pool, seat->prev)->next : &list->first) = seat->next;
	list->count--;
}

/* --- residents --- */

static void resident_add(struct memslot_pool *pool, uint32_t name, bool last)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	struct ms_list *list = &pool->resident;

	seat->resident_next = last ? 0 : list->first;
	seat->resident_prev = last ? list->last : 0;
	*(seat->resident_next ? &ms_pool_seat(pool, seat->resident_next)->resident_prev
			      : &list->last) = name;
	*(seat->resident_prev ? &ms_pool_seat(pool, seat->resident_prev)->resident_next
			      : &list->first) = name;
	list->count++;
}

static void resident_remove(struct memslot_pool *pool, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	struct ms_list *list = &pool->resident;

	*(seat->resident_next ? &ms_pool_seat(pool, seat->resident_next)->resident_prev
			      : &list->last) = seat->resident_prev;
	*(seat->resident_prev ? &ms_pool_seat(pool, seat->resident_prev)->resident_next
			      : &list->first) = seat->resident_next;
	list->count--;
}

/* --- groups --- */

/* `name` hangs in its bucket where `old` hung; `old` 0: anew. */
static void bucket_put(struct memslot_pool *pool, uint32_t name, uint32_t old)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	uint32_t *bucket = bucket_of(pool, seat);

	seat->bucket_next = old ? ms_pool_seat(pool, old)->bucket_next : *bucket;
	seat->bucket_prev = old ? ms_pool_seat(pool, old)->bucket_prev : 0;
	if (seat->bucket_next)
		ms_pool_seat(pool, seat->bucket_next)->bucket_prev = name;
	*(seat->bucket_prev ? &ms_pool_seat(pool, seat->bucket_prev)->bucket_next : bucket) = name;
}

static void bucket_remove(struct memslot_pool *pool, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	if (seat->bucket_next)
		ms_pool_seat(pool, seat->bucket_next)->bucket_prev = seat->bucket_prev;
	*(seat->bucket_prev ? &ms_pool_seat(pool, seat->bucket_prev)->bucket_next
			    : bucket_of(pool, seat)) = seat->bucket_next;
}

/* The first of a group, or 0. */
static uint32_t group_of(
	const struct memslot_pool *pool, const struct memslot_image *image, uint64_t key)
{
	struct ms_seat wanted = {.image = (struct memslot_image *)(uintptr_t)image, .key = key};
	uint32_t name = *bucket_of(pool, &wanted);

	while (name) {
		const struct ms_seat *seat = ms_pool_seat(pool, name);
		if (seat->image == image && seat->key == key)
			return name;
		name = seat->bucket_next;
	}
	return 0;
}

static size_t image_pages(const struct ms_seat *seat)
{
	return seat->image ? seat->image->pages : 0;
}

static void group_add(struct memslot_pool *pool, uint32_t name, bool last)
{
	struct ms_seat *seat = ms_pool_seat(pool, name), *first;
	uint32_t head = group_of(pool, seat->image, seat->key);

	seat->group_next = seat->group_prev = 0;
	if (!head) {
		pool->image_pages += image_pages(seat);
		bucket_put(pool, name, 0);
		return;
	}
	first = ms_pool_seat(pool, head);
	if (last) { /* second is near enough: what counts is that it is not the first */
		seat->group_prev = head;
		seat->group_next = first->group_next;
		if (seat->group_next)
			ms_pool_seat(pool, seat->group_next)->group_prev = name;
		first->group_next = name;
		return;
	}
	seat->group_next = head;
	first->group_prev = name;
	bucket_put(pool, name, head);
}

static void group_remove(struct memslot_pool *pool, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	if (seat->group_next)
		ms_pool_seat(pool, seat->group_next)->group_prev = seat->group_prev;
	if (seat->group_prev) {
		ms_pool_seat(pool, seat->group_prev)->group_next = seat->group_next;
	} else if (seat->group_next) {
		bucket_put(pool, seat->group_next, name);
	} else {
		bucket_remove(pool, name);
		pool->image_pages -= image_pages(seat);
	}
}

/* --- the shelf --- */

static struct ms_list *list_of(struct memslot_pool *pool, enum ms_place place)
{
	switch (place) {
	case MS_PLACE_COLD:
		return &pool->cold;
	case MS_PLACE_WARM:
		return &pool->warm;
	case MS_PLACE_QUEUED:
		return &pool->queued;
	case MS_PLACE_HELD:
		return &pool->held;
	case MS_PLACE_SICK:
		return &pool->sick;
	default:
		return &pool->lost;
	}
}

void ms_shelf_put(struct memslot_pool *pool, uint32_t name, enum ms_place place)
{
	list_add(pool, list_of(pool, place), name, place == MS_PLACE_QUEUED);
	ms_pool_move(ms_pool_seat(pool, name), place);
}

void ms_shelf_put_cold(struct memslot_pool *pool, uint32_t name)
{
	ms_shelf_put(pool, name, MS_PLACE_COLD);
}

void ms_shelf_put_warm(struct memslot_pool *pool, uint32_t name, bool last)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	list_add(pool, &pool->warm, name, last);
	group_add(pool, name, last);
	pool->resident_pages += seat->resident;
	if (seat->droppable)
		resident_add(pool, name, last);
	ms_pool_move(seat, MS_PLACE_WARM);
}

void ms_shelf_take(struct memslot_pool *pool, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	enum ms_place place = ms_pool_place(seat);

	if (place == MS_PLACE_FRESH) { /* the lowest of those: see ms_shelf_next_cold */
		pool->fresh++;
		return;
	}
	list_remove(pool, list_of(pool, place), name);
	if (place != MS_PLACE_WARM)
		return;
	group_remove(pool, name);
	pool->resident_pages -= seat->resident;
	if (seat->droppable)
		resident_remove(pool, name);
}

void ms_shelf_take_away(struct memslot_pool *pool, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	seat->demoted = ms_pool_place(seat) == MS_PLACE_WARM;
	if (ms_pool_place(seat) == MS_PLACE_QUEUED)
		pool->queued_pages -= ms_slot_drop_end(ms_pool_slot(pool, name));
	ms_shelf_take(pool, name);
	seat->thread = ms_counter_thread();
	ms_pool_move(seat, MS_PLACE_FLUSHING);
	pool->flushing++;
}

uint32_t ms_shelf_next_cold(struct memslot_pool *pool)
{
	if (pool->cold.first)
		return pool->cold.first;
	return pool->fresh < pool->count ? pool->fresh + 1 : 0;
}

/* Of the first few of a group the one that this thread released last, else the first: with one
 * thread that is the first, and threads that share a pool do not carry pages from one cache to the
 * other. */
static uint32_t own_of(const struct memslot_pool *pool, uint32_t first)
{
	uint64_t me = ms_counter_thread();
	uint32_t name = first;

	for (int looks = 0; name && looks < OWN_LOOKS; looks++) {
		if (ms_pool_seat(pool, name)->last == me)
			return name;
		name = ms_pool_seat(pool, name)->group_next;
	}
	return first;
}

uint32_t ms_shelf_next(struct memslot_pool *pool, const struct ms_request *request)
{
	bool wants_cold = request->flags & MEMSLOT_ACQUIRE_COLD;
	uint32_t name = wants_cold ? 0 : group_of(pool, request->image, request->key);
	uint32_t cold;

	if (name) {
		pool->stats.affinity_hits++;
		return own_of(pool, name);
	}
	cold = ms_shelf_next_cold(pool);
	if (cold && (wants_cold || pool->warm.count < pool->max_warm || !pool->warm.last))
		return cold;
	return pool->warm.last;
}
