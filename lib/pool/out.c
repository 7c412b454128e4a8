/* SPDX-License-Identifier: MIT */
/*
 * out.c - slots go out.
 *
 *   idle -> TRANSIT -> OUT -> TRANSIT -> idle            queued -> FLUSHING -> idle
 *
 * Invariant: who moved a slot to TRANSIT has it alone, so that mapping and resetting it need no
 * lock. It becomes the user's in ms_pool_hand, when it shows what was asked for and nothing else;
 * whatever fails before that gives it back to the pool, unknown. The key that resident pages belong
 * to changes here, and only after those pages are on their way out.
 */
#include "pool/pool.h"

#include "base/opts.h"

#include <errno.h>

#define FRESH_AT_A_TIME 256

int ms_pool_request(const struct memslot_pool *pool, struct memslot_image *image, uint64_t size,
	const struct memslot_acquire_opts *opts, struct ms_request *ret_request)
{
	struct memslot_acquire_opts taken;
	uint64_t bytes;
	int error = ms_opts_take(&taken, sizeof taken, sizeof taken,
		MEMSLOT_SLOT_CONFINED | MEMSLOT_ACQUIRE_COLD, opts);

	if (error)
		return error;
	if (!ms_round_up(size, &bytes) || ms_bytes_to_pages(bytes) > pool->plan.capacity_pages ||
		ms_slot_image_end(image) > ms_bytes_to_pages(bytes))
		return -EMSGSIZE;
	*ret_request = (struct ms_request){
		image, ms_bytes_to_pages(bytes), taken.affinity_key, taken.flags};
	return 0;
}

/* Off the shelf, and to a user. */
static void claim(
	struct memslot_pool *pool, uint32_t name, const struct ms_request *request, bool *ret_drop)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);

	ms_shelf_take(pool, name);
	*ret_drop = seat->placed &&
		    (seat->key != request->key || (request->flags & MEMSLOT_ACQUIRE_COLD));
	seat->image = request->image;
	seat->key = request->key;
	seat->thread = ms_counter_thread();
	seat->resident = seat->droppable = 0;
	seat->unheld = seat->forgotten = false;
	atomic_store_explicit(
		&seat->where, ++pool->tickets << 8 | MS_PLACE_TRANSIT, memory_order_relaxed);
	pool->live++;
}

uint32_t ms_pool_claim(struct memslot_pool *pool, const struct ms_request *request, bool *ret_drop)
{
	uint32_t name = ms_shelf_next(pool, request);

	if (!name && !pool->queued.first)
		name = pool->sick.first; /* remade when it is shown */
	if (name)
		claim(pool, name, request, ret_drop);
	return name;
}

/* The one slot at a bound image's address. */
static int claim_bound(struct memslot_pool *pool, const struct ms_request *request,
	uint32_t *ret_name, bool *ret_drop)
{
	uint32_t name = ms_layout_at(pool, request->image->base_address);
	enum ms_place place;

	if (!name)
		return -EADDRNOTAVAIL;
	/* Those before it are no longer the next: a few at a time, not to hold the lock for long.
	 */
	for (int i = 0; i < FRESH_AT_A_TIME && pool->fresh < name; i++) {
		pool->fresh++;
		ms_shelf_put_cold(pool, pool->fresh);
	}
	if (pool->fresh < name)
		return -EINPROGRESS;
	place = ms_pool_place(ms_pool_seat(pool, name));
	if (place == MS_PLACE_QUEUED)
		return -EAGAIN; /* after a flush */
	if (place != MS_PLACE_COLD && place != MS_PLACE_WARM && place != MS_PLACE_SICK)
		return -EBUSY;
	claim(pool, name, request, ret_drop);
	*ret_name = name;
	return 0;
}

int ms_pool_make(struct memslot_pool *pool, uint32_t name)
{
	struct memslot_slot *slot = ms_pool_slot(pool, name);
	struct ms_seat *seat = ms_pool_seat(pool, name);
	int error = 0;

	if (!seat->placed) {
		ms_slot_place(
			slot, &pool->plan, pool->tables + (size_t)(name - 1) * MS_SLOT_TABLE_BYTES);
		slot->base = ms_layout_address(pool, name);
		slot->index = name - 1;
		atomic_store(&slot->word, MS_STATE_AWAY);
		seat->placed = true;
		if (slot->edge == MS_EDGE_NONE)
			error = ms_edge_blank(slot);
		if (error)
			ms_state_lose(slot);
	}
	atomic_store(&slot->ticket, atomic_load(&seat->where) >> 8);
	return error;
}

enum ms_return ms_pool_failed(struct memslot_pool *pool, uint32_t name)
{
	struct memslot_slot *slot = ms_pool_slot(pool, name);

	if (!ms_pool_seat(pool, name)->placed)
		return MS_RETURN_SICK;
	if (ms_state_dead(slot))
		return MS_RETURN_LOST;
	return ms_state_held(slot) ? MS_RETURN_HELD : MS_RETURN_SICK;
}

void ms_pool_hand(struct ms_seat *seat)
{
	/* A child forked in the first steps of release must not take it for its own. */
	seat->thread = 0;
	ms_pool_move(seat, MS_PLACE_OUT);
}

static int hand_out(
	struct memslot_pool *pool, uint32_t name, const struct ms_request *request, bool drop)
{
	struct memslot_slot *slot = ms_pool_slot(pool, name);
	int error = ms_pool_make(pool, name);

	if (!error) {
		slot->confined = (pool->flags | request->flags) & MEMSLOT_SLOT_CONFINED;
		error = ms_lend_show(slot, request->image, request->pages, drop);
	}
	if (!error) {
		error = ms_lend_give(slot);
		if (error)
			ms_state_lose(slot);
	}
	if (!error)
		ms_pool_hand(ms_pool_seat(pool, name));
	return error;
}

/* A slot in TRANSIT from the shelf, after a flush of the pool's own queue if that helps; -EAGAIN:
 * none, and the lock is not left. */
static int get_now(struct memslot_pool *pool, const struct ms_request *request, uint32_t *ret_name,
	bool *ret_drop)
{
	bool bound = request->image && request->image->base_address;
	struct ms_batch batch;
	int error;

	for (;;) {
		error = ms_pool_enter(pool);
		if (error)
			return error;
		*ret_name = 0;
		if (bound)
			error = claim_bound(pool, request, ret_name, ret_drop);
		else if (!pool->first_waiter)
			*ret_name = ms_pool_claim(pool, request, ret_drop);
		if (error == -EINPROGRESS) {
			ms_pool_leave(pool);
			continue;
		}
		if (*ret_name || (error && error != -EAGAIN)) {
			ms_pool_leave(pool);
			return error;
		}
		if (!pool->queued.first || (pool->first_waiter && !bound))
			return -EAGAIN;
		ms_queue_take(pool, &batch);
		ms_pool_leave(pool);
		ms_queue_flush(pool, &batch, true);
	}
}

/* When to give up; 0: at once. */
static uint64_t deadline(const struct memslot_acquire_opts *opts)
{
	uint64_t timeout = opts ? ms_pool_limit(opts->timeout_ns, 0) : 0, until;

	if (timeout == 0)
		return 0;
	if (timeout == MEMSLOT_UNLIMITED ||
		__builtin_add_overflow(ms_os_clock_ns(), timeout, &until))
		return UINT64_MAX;
	return until;
}

/* A slot in TRANSIT, now or before the deadline. */
static int get(struct memslot_pool *pool, const struct ms_request *request, uint64_t until,
	uint32_t *ret_name, bool *ret_drop)
{
	struct memslot_slot_waiter waiter = {.event_fd = -1,
		.image = request->image,
		.slot_size = ms_counter_thread() /* who will be at the slot, when served */};
	int error = get_now(pool, request, ret_name, ret_drop);

	if (error != -EAGAIN)
		return error;
	if (until) {
		waiter.opts.flags = request->flags;
		waiter.opts.affinity_key = request->key;
		ms_waiters_add(pool, &waiter);
	} else {
		pool->stats.exhausted++;
	}
	ms_pool_leave(pool);
	if (!until)
		return -EAGAIN;
	*ret_name = ms_waiters_block(pool, &waiter, until);
	*ret_drop = ms_waiters_state(&waiter)->drop;
	return *ret_name ? 0 : -ETIMEDOUT;
}

MS_EXPORT int memslot_pool_acquire(struct memslot_pool *pool, struct memslot_image *image,
	size_t size, const struct memslot_acquire_opts *opts, struct memslot_slot **ret_slot)
{
	struct ms_request request;
	enum ms_return how;
	uint64_t until;
	uint32_t name;
	bool drop = false;
	int error;

	if (!pool || !ret_slot)
		return -EINVAL;
	error = ms_pool_request(pool, image, size, opts, &request);
	until = deadline(opts);
	/* A slot that VERIFY finds fault with is quarantined, and another one tried. */
	for (uint32_t i = 0; !error && i <= pool->count; i++) {
		error = get(pool, &request, until, &name, &drop);
		if (error)
			return error;
		error = hand_out(pool, name, &request, drop);
		if (!error) {
			*ret_slot = ms_pool_slot(pool, name);
			return 0;
		}
		how = ms_pool_failed(pool, name);
		ms_pool_shelve(pool, name, how);
		error = error == -EUCLEAN || how == MS_RETURN_LOST ? 0 : error;
	}
	return error ? error : -EAGAIN;
}
