/* SPDX-License-Identifier: MIT */
/*
 * back.c - slots come back.
 *
 * Invariant: a slot that is idle and not sick is pristine; the one step in which it becomes idle is
 * ms_pool_settle, under the lock, after its reset. Release claims a slot by one compare-and-swap on
 * its place and ticket: of two releases one is late, and told so. After settling, release touches
 * the pool no more: another thread may have destroyed it.
 */
#include "pool/pool.h"

#include "base/fork.h"

#include <errno.h>

#define ADD(field) pool->stats.slots.field += slot->stats.field - seat->counted.field

/* What the slot did since it was last counted. */
static void count_stats(struct memslot_pool *pool, uint32_t name)
{
	struct memslot_slot *slot = ms_pool_slot(pool, name);
	struct ms_seat *seat = ms_pool_seat(pool, name);

	ADD(resets_known);
	ADD(resets_scan);
	ADD(resets_drop);
	ADD(copy_fallbacks);
	ADD(syscalls);
	ADD(faults);
	ADD(bytes_restored);
	ADD(bytes_dropped);
	ADD(scan_failures);
	ADD(remakes);
	seat->counted = slot->stats;
	pool->stats.verify_failures += slot->verify_failures;
	slot->verify_failures = 0;
}

/* Idle, by the way it came back. */
static void put_on_shelf(struct memslot_pool *pool, uint32_t name, enum ms_return how)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	struct memslot_slot *slot = ms_pool_slot(pool, name);

	seat->image = slot->target;
	seat->last = ms_counter_thread();
	seat->resident = how == MS_RETURN_CLEAN ? (uint32_t)slot->retained.count : 0;
	seat->droppable = how == MS_RETURN_CLEAN ? (uint32_t)ms_lend_droppable_pages(slot) : 0;
	if (pool->max_age_ns != UINT64_MAX && ms_pool_place(seat) == MS_PLACE_TRANSIT)
		seat->since_ns = ms_os_clock_ns();
	switch (how) {
	case MS_RETURN_CLEAN:
		ms_shelf_put_warm(pool, name, seat->demoted);
		break;
	case MS_RETURN_COLD:
		ms_shelf_put_cold(pool, name);
		break;
	case MS_RETURN_DROP:
		pool->queued_pages += ms_slot_drop_end(slot);
		ms_shelf_put(pool, name, MS_PLACE_QUEUED);
		break;
	case MS_RETURN_HELD:
		ms_shelf_put(pool, name, MS_PLACE_HELD);
		break;
	case MS_RETURN_SICK:
		ms_shelf_put(pool, name, MS_PLACE_SICK);
		break;
	case MS_RETURN_LOST:
		ms_shelf_put(pool, name, MS_PLACE_LOST);
	}
}

struct ms_wake ms_pool_settle(struct memslot_pool *pool, uint32_t name, enum ms_return how)
{
	struct ms_seat *seat = ms_pool_seat(pool, name);
	bool flushed = ms_pool_place(seat) == MS_PLACE_FLUSHING;

	if (seat->placed)
		count_stats(pool, name);
	if (how == MS_RETURN_HELD && seat->unheld) {
		ms_state_lose(ms_pool_slot(pool, name));
		how = MS_RETURN_SICK;
	}
	seat->unheld = seat->forgotten = false;
	seat->demoted &= flushed;
	if (pool->first_waiter && how != MS_RETURN_HELD && how != MS_RETURN_LOST) {
		pool->flushing -= flushed;
		pool->live += flushed;
		return ms_waiters_serve(pool, name);
	}
	*(flushed ? &pool->flushing : &pool->live) -= 1;
	put_on_shelf(pool, name, how);
	return (struct ms_wake){NULL, -1};
}

/* Under the lock: the slot that gives up its pages for another one's; or 0. */
static uint32_t take_victim(struct memslot_pool *pool)
{
	uint32_t name = pool->resident.last;

	if (name)
		ms_shelf_take_away(pool, name);
	return name;
}

int ms_pool_put_back(struct memslot_pool *pool, uint32_t name, enum ms_return how)
{
	struct ms_wake wake;
	int error = ms_pool_enter(pool);

	if (error)
		return error;
	wake = ms_pool_settle(pool, name, how);
	ms_pool_leave(pool);
	ms_pool_wake(pool, wake);
	return 0;
}

static void drop_victim(struct memslot_pool *pool, uint32_t name)
{
	int error = ms_lend_drop(ms_pool_slot(pool, name));

	(void)ms_pool_put_back(pool, name, error ? MS_RETURN_SICK : MS_RETURN_CLEAN);
}

#define VICTIMS_MAX 64 /* locked pages do not go away: not for ever */

/* Under the lock: was there something to do for the slot before it may be idle? Then it has left
 * the lock. */
static bool prepare(
	struct memslot_pool *pool, uint32_t name, enum ms_return *how, unsigned *victims)
{
	struct memslot_slot *slot = ms_pool_slot(pool, name);
	bool usable = *how == MS_RETURN_CLEAN || *how == MS_RETURN_DROP;
	size_t pages = *how == MS_RETURN_CLEAN ? ms_lend_droppable_pages(slot) : 0;
	uint32_t victim = 0;

	if (usable && ms_pool_seat(pool, name)->forgotten) {
		ms_pool_leave(pool);
		*how = ms_lend_blank(slot) ? MS_RETURN_SICK : MS_RETURN_COLD;
		return true;
	}
	if (*how == MS_RETURN_DROP && (pool->first_waiter || pool->batch_count <= 1)) {
		ms_pool_leave(pool);
		*how = ms_lend_drop(slot) ? MS_RETURN_SICK : MS_RETURN_CLEAN;
		return true;
	}
	if (!pages || pool->resident_pages + pages <= pool->idle_budget_pages ||
		*victims > VICTIMS_MAX)
		return false;
	if (pages <= pool->idle_budget_pages && ++*victims <= VICTIMS_MAX)
		victim = take_victim(pool);
	ms_pool_leave(pool);
	if (victim) {
		drop_victim(pool, victim);
		return true;
	}
	*victims = VICTIMS_MAX + 1;
	if (ms_lend_drop(slot))
		*how = MS_RETURN_SICK;
	return true;
}

void ms_pool_shelve(struct memslot_pool *pool, uint32_t name, enum ms_return how)
{
	struct ms_batch batch = {.count = 0};
	struct ms_wake wake;
	unsigned victims = 0;

	do {
		if (ms_pool_enter(pool))
			return; /* dead in a child that was forked meanwhile */
	} while (prepare(pool, name, &how, &victims));
	wake = ms_pool_settle(pool, name, how);
	if (pool->queued.count >= pool->batch_count || pool->queued_pages >= pool->batch_pages)
		ms_queue_take(pool, &batch);
	ms_pool_leave(pool);
	ms_pool_wake(pool, wake);
	if (batch.count)
		ms_queue_flush(pool, &batch, false);
}

/* A checkpoint's image that nobody else has will never be asked for again. */
static bool nobody_else_has(const struct memslot_image *image)
{
	return image && atomic_load(&image->refs) == 1;
}

static int take_back(struct memslot_pool *pool, uint32_t name)
{
	struct memslot_slot *slot = ms_pool_slot(pool, name);
	int back = ms_lend_back(slot);
	enum ms_return how;

	if (back == -EBUSY) {
		ms_pool_hand(ms_pool_seat(pool, name));
		return -EBUSY;
	}
	if ((back == MS_BACK_CLEAN || back == MS_BACK_DROP) && nobody_else_has(slot->target))
		how = ms_lend_blank(slot) ? MS_RETURN_SICK : MS_RETURN_COLD;
	else if (back < 0)
		how = ms_pool_failed(pool, name);
	else
		how = back == MS_BACK_CLEAN  ? MS_RETURN_CLEAN
		      : back == MS_BACK_DROP ? MS_RETURN_DROP
					     : MS_RETURN_HELD;
	ms_pool_shelve(pool, name, how);
	return 0;
}

/* The slot's name, or 0: not one of this pool. */
static uint32_t name_of(const struct memslot_pool *pool, const struct memslot_slot *slot)
{
	size_t offset = (size_t)((const unsigned char *)slot - pool->heads);

	if ((const unsigned char *)slot < pool->heads || offset % pool->head_bytes ||
		offset / pool->head_bytes >= pool->count)
		return 0;
	return (uint32_t)(offset / pool->head_bytes) + 1;
}

/* `ticket` 0: whatever it is. */
static int release(struct memslot_pool *pool, struct memslot_slot *slot, uint64_t ticket)
{
	uint32_t name = pool && slot ? name_of(pool, slot) : 0;
	struct ms_seat *seat;
	uint64_t where;

	if (!name)
		return -EINVAL;
	if (MS_UNLIKELY(atomic_load(&pool->epoch) != ms_fork_epoch()))
		ms_family_adopt(pool);
	if (pool->dead)
		return -ESTALE;
	seat = ms_pool_seat(pool, name);
	where = atomic_load(&seat->where);
	if ((where & 0xff) != MS_PLACE_OUT || (ticket && where >> 8 != ticket))
		return -ESTALE;
	if (!atomic_compare_exchange_strong(
		    &seat->where, &where, (where & ~0xffull) | MS_PLACE_TRANSIT))
		return -ESTALE;
	seat->thread = ms_counter_thread();
	return take_back(pool, name);
}

MS_EXPORT int memslot_pool_release(struct memslot_pool *pool, struct memslot_slot *slot)
{
	return release(pool, slot, 0);
}

MS_EXPORT int memslot_pool_release_ticket(
	struct memslot_pool *pool, struct memslot_slot *slot, uint64_t ticket)
{
	return ticket ? release(pool, slot, ticket) : -ESTALE;
}
