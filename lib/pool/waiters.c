/* SPDX-License-Identifier: MIT */
/*
 * waiters.c - who waits for a slot, first come first served.
 *
 * Invariant: while somebody waits no slot is idle: whoever frees one takes the first waiter out of
 * the queue and gives it the slot, in one step under the lock, so that nobody can come in between
 * and nobody is forgotten (INVARIANTS 31). A blocked thread sleeps on a word of its own. An event
 * is written after the lock is released; until it is, the pool counts it, so that cancel does not
 * return while somebody may still write to a descriptor that is about to be closed.
 */
#include "pool/pool.h"

#include "base/fork.h"
#include "base/opts.h"

#include <errno.h>

_Static_assert(sizeof(struct ms_waiting) <= sizeof((struct memslot_slot_waiter){0}.state), "room");

struct ms_waiting *ms_waiters_state(struct memslot_slot_waiter *waiter)
{
	return (struct ms_waiting *)waiter->state;
}

void ms_waiters_add(struct memslot_pool *pool, struct memslot_slot_waiter *waiter)
{
	struct ms_waiting *state = ms_waiters_state(waiter);

	*state = (struct ms_waiting){.prev = pool->last_waiter, .pool = pool};
	state->epoch = ms_fork_epoch();
	atomic_store(&state->word, MS_WAITING);
	*(state->prev ? &ms_waiters_state(state->prev)->next : &pool->first_waiter) = waiter;
	pool->last_waiter = waiter;
	pool->stats.waiters++;
	pool->stats.waits++;
}

void ms_waiters_remove(struct memslot_pool *pool, struct memslot_slot_waiter *waiter)
{
	struct ms_waiting *state = ms_waiters_state(waiter);

	*(state->next ? &ms_waiters_state(state->next)->prev : &pool->last_waiter) = state->prev;
	*(state->prev ? &ms_waiters_state(state->prev)->next : &pool->first_waiter) = state->next;
	pool->stats.waiters--;
}

/* The last thing done to the waiter: it may be gone as soon as the event is written. */
static void hand(
	struct memslot_pool *pool, uint32_t name, struct memslot_slot_waiter *waiter, bool drop)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	struct memslot_slot *slot = ms_pool_slot(pool, name);

	slot->confined = (pool->flags | waiter->opts.flags) & MEMSLOT_SLOT_CONFINED;
	ms_lend_give_unseen(slot, drop);
	ms_pool_hand(seat);
	waiter->slot = slot;
	atomic_store(&ms_waiters_state(waiter)->word, MS_SERVED);
}

struct ms_wake ms_waiters_serve(struct memslot_pool *pool, uint32_t name)
{
	struct memslot_slot_waiter *waiter = pool->first_waiter;
	struct ms_waiting *state = ms_waiters_state(waiter);
	struct ms_seat *seat = ms_pool_seat(pool, name);
	uint64_t key = waiter->opts.affinity_key, ticket = ++pool->tickets;
	bool drop = key != seat->key || (waiter->opts.flags & MEMSLOT_ACQUIRE_COLD);

	ms_waiters_remove(pool, waiter);
	seat->image = waiter->image;
	seat->key = key;
	atomic_store(&seat->where, ticket << 8 | MS_PLACE_TRANSIT);
	atomic_store(&ms_pool_slot(pool, name)->ticket, ticket);
	if (waiter->event_fd >= 0) {
		int fd = waiter->event_fd;
		atomic_fetch_add(&pool->notifying, 1);
		hand(pool, name, waiter, drop);
		return (struct ms_wake){NULL, fd};
	}
	seat->thread = waiter->slot_size; /* see ms_waiters_block */
	state->name = name;
	state->drop = drop;
	atomic_store(&state->word, MS_SERVED);
	return (struct ms_wake){&state->word, -1};
}

void ms_waiters_hand(
	struct memslot_pool *pool, uint32_t name, struct memslot_slot_waiter *waiter, bool drop)
{
	int fd = waiter->event_fd;

	ms_waiters_state(waiter)->pool = pool;
	hand(pool, name, waiter, drop);
	ms_os_signal_event(fd);
}

uint32_t ms_waiters_block(
	struct memslot_pool *pool, struct memslot_slot_waiter *waiter, uint64_t until_ns)
{
	struct ms_waiting *state = ms_waiters_state(waiter);
	int error = 0;

	while (atomic_load(&state->word) == MS_WAITING && error != -ETIMEDOUT &&
		state->epoch == ms_fork_epoch())
		error = ms_os_futex_wait(&state->word, MS_WAITING, until_ns);
	if (atomic_load(&state->word) == MS_SERVED)
		return state->name;
	if (ms_pool_enter(pool))
		return 0;
	/* Who was taken out of the queue has a slot, however late. In a child nobody waits. */
	if (atomic_load(&state->word) == MS_WAITING && state->epoch == ms_fork_epoch())
		ms_waiters_remove(pool, waiter);
	pool->stats.exhausted += atomic_load(&state->word) == MS_WAITING;
	ms_pool_leave(pool);
	return atomic_load(&state->word) == MS_SERVED ? state->name : 0;
}

/* --- waiting without blocking --- */

static int check(const struct memslot_pool *pool, struct memslot_slot_waiter *waiter,
	struct ms_request *ret_request)
{
	struct memslot_slot_waiter taken;
	int error = ms_opts_take(&taken, sizeof taken, sizeof taken, 0, waiter);

	if (error)
		return error;
	if (taken.event_fd < 0 || taken.reserved || taken.opts.size != sizeof taken.opts ||
		(taken.image && taken.image->base_address))
		return -EINVAL;
	return ms_pool_request(pool, taken.image, taken.slot_size, &taken.opts, ret_request);
}

static bool waits(const struct memslot_pool *pool, struct memslot_slot_waiter *waiter)
{
	const struct ms_waiting *state = ms_waiters_state(waiter);

	return state->pool == pool && state->epoch == ms_fork_epoch() &&
	       atomic_load(&state->word) == MS_WAITING;
}

MS_EXPORT int memslot_pool_wait(struct memslot_pool *pool, struct memslot_slot_waiter *waiter)
{
	struct ms_batch batch;
	struct ms_request request;
	uint32_t name = 0;
	bool drop = false;
	int error;

	if (!pool || !waiter)
		return -EINVAL;
	error = check(pool, waiter, &request);
	if (error)
		return error;
	for (;;) {
		error = ms_pool_enter(pool);
		if (error)
			return error;
		if (waits(pool, waiter)) {
			ms_pool_leave(pool);
			return -EALREADY;
		}
		batch.count = 0;
		if (!pool->first_waiter)
			name = ms_pool_claim(pool, &request, &drop);
		if (!name && !pool->first_waiter)
			ms_queue_take(pool, &batch);
		if (!name && batch.count == 0)
			ms_waiters_add(pool, waiter);
		ms_pool_leave(pool);
		if (batch.count == 0)
			break;
		ms_queue_flush(pool, &batch, true);
	}
	if (!name)
		return 0;
	error = ms_pool_make(pool, name);
	if (error) {
		ms_pool_shelve(pool, name, ms_pool_failed(pool, name));
		return error;
	}
	ms_waiters_hand(pool, name, waiter, drop);
	return 0;
}

MS_EXPORT int memslot_pool_wait_cancel(
	struct memslot_pool *pool, struct memslot_slot_waiter *waiter)
{
	struct ms_waiting *state;
	int error;

	if (!pool || !waiter)
		return -EINVAL;
	error = ms_pool_enter(pool);
	if (error)
		return error;
	state = ms_waiters_state(waiter);
	if (waits(pool, waiter)) {
		ms_waiters_remove(pool, waiter);
		state->pool = NULL;
	} else { /* served; else never here, or forgotten in this child */
		error = state->pool == pool && atomic_load(&state->word) == MS_SERVED ? -EALREADY
										      : -EINVAL;
	}
	ms_pool_leave(pool);
	while (error == -EALREADY && atomic_load(&pool->notifying))
		ms_os_yield();
	return error;
}
