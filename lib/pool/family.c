/* SPDX-License-Identifier: MIT */
/*
 * family.c - all pools of the process, and what becomes of them in a child.
 *
 * Invariant: fork(2) takes every pool's lock before, in the order of their addresses, and gives
 * them back on both sides, so that a child finds lists whole (INVARIANTS 19). What the lock does
 * not cover, slots that another thread was changing, is quarantined there. After a raw clone(2),
 * which runs no handler, a lock that was held makes the pool dead in the child.
 */
#include "pool/pool.h"

#include "base/fork.h"

#include <pthread.h>

#define ADOPTING (1ull << 63) /* in pool->epoch: a thread of that process is at it */

static struct ms_lock family_lock;
static _Atomic(uint64_t) family_epoch; /* of the process that used the list last */
static bool family_fork_locked;
static struct memslot_pool *family; /* by address */

/* Not when it is the thread's own: a signal handler that interrupted a call may fork. */
static bool take(struct ms_lock *lock)
{
	bool own = ms_lock_is_own(lock);

	if (!own)
		ms_lock_take(lock);
	return !own;
}

/* The list's lock. In a child that raw clone(2) made, whoever held it is not there. */
static void take_family(void)
{
	/* Read before the epoch: a thread of this process that holds it has moved the epoch first.
	 */
	uint32_t held = atomic_load(&family_lock.word);
	uint64_t epoch = ms_fork_epoch();

	if (atomic_exchange(&family_epoch, epoch) != epoch && held)
		(void)atomic_compare_exchange_strong(&family_lock.word, &held, 0);
	family_fork_locked = take(&family_lock);
}

static void take_all(void)
{
	take_family();
	for (struct memslot_pool *pool = family; pool; pool = pool->next)
		pool->fork_locked =
			atomic_load(&pool->epoch) == ms_fork_epoch() && take(&pool->lock);
}

static void release_all(void)
{
	for (struct memslot_pool *pool = family; pool; pool = pool->next) {
		if (pool->fork_locked)
			ms_lock_release(&pool->lock);
	}
	if (family_fork_locked)
		ms_lock_release(&family_lock);
}

/* Nobody waits here: a word that says so is the parent's. */
static void release_in_child(void)
{
	for (struct memslot_pool *pool = family; pool; pool = pool->next) {
		if (pool->fork_locked)
			atomic_store(&pool->lock.word, 0);
	}
	if (family_fork_locked)
		atomic_store(&family_lock.word, 0);
}

__attribute__((constructor)) static void family_init(void)
{
	pthread_atfork(take_all, release_all, release_in_child);
}

void ms_family_add(struct memslot_pool *pool)
{
	struct memslot_pool **at = &family;

	take_family();
	while (*at && *at < pool)
		at = &(*at)->next;
	pool->next = *at;
	*at = pool;
	ms_lock_release(&family_lock);
}

void ms_family_remove(struct memslot_pool *pool)
{
	struct memslot_pool **at = &family;

	take_family();
	while (*at && *at != pool)
		at = &(*at)->next;
	if (*at)
		*at = pool->next;
	ms_lock_release(&family_lock);
}

/* --- in a child --- */

/* A slot that a thread of the parent's was at, or that is held there. */
static void adopt_seat(struct memslot_pool *pool, uint32_t name)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	enum ms_place place = ms_pool_place(seat);
	bool transit = place == MS_PLACE_TRANSIT || place == MS_PLACE_FLUSHING;
	bool held = seat->placed && ms_state_held(ms_pool_slot(pool, name));

	if (place == MS_PLACE_HELD) {
		ms_shelf_take(pool, name);
		ms_shelf_put(pool, name, MS_PLACE_LOST);
	}
	if (!transit || seat->thread == ms_counter_thread())
		return;
	*(place == MS_PLACE_FLUSHING ? &pool->flushing : &pool->live) -= 1;
	if (seat->placed)
		ms_state_lose(ms_pool_slot(pool, name));
	seat->forgotten = seat->unheld = seat->demoted = false;
	ms_shelf_put(pool, name, held ? MS_PLACE_LOST : MS_PLACE_SICK);
}

static void adopt(struct memslot_pool *pool)
{
	pool->dead = (pool->flags & MEMSLOT_SLOT_DONTFORK) || atomic_load(&pool->lock.word);
	if (pool->dead)
		return;
	pool->first_waiter = pool->last_waiter = NULL;
	pool->stats.waiters = 0;
	atomic_store(&pool->notifying, 0);
	for (uint32_t name = 1; name <= pool->fresh; name++)
		adopt_seat(pool, name);
}

void ms_family_adopt(struct memslot_pool *pool)
{
	uint64_t epoch = ms_fork_epoch(), seen = atomic_load(&pool->epoch);

	while (seen != epoch) {
		if (seen == (epoch | ADOPTING)) {
			ms_os_yield();
			seen = atomic_load(&pool->epoch);
		} else if (atomic_compare_exchange_weak(&pool->epoch, &seen, epoch | ADOPTING)) {
			adopt(pool);
			atomic_store(&pool->epoch, epoch);
			return;
		}
	}
}
