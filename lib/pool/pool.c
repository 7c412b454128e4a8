/* SPDX-License-Identifier: MIT */
/*
 * pool.c - making and unmaking pools, and their lock.
 *
 * Invariant: everything a pool will ever need is reserved in one mapping and in its pieces before
 * create returns. The lock is taken by ms_pool_enter alone, which also notices that this is a
 * child.
 */
#include "pool/pool.h"

#include "base/fork.h"
#include "base/opts.h"

#include <errno.h>
#include <sys/mman.h>

#define IDLE_BUDGET (256ull << 20)
#define BATCH_BYTES (64ull << 20)
#define BATCH_COUNT 32
#define NS_IN_MS 1000000u

/* --- create, destroy --- */

/* A limit that may be 0 (a default), NONE or UNLIMITED. */
uint64_t ms_pool_limit(uint64_t value, uint64_t by_default)
{
	if (value == MEMSLOT_NONE)
		return 0;
	return value ? value : by_default;
}

static void configure(struct memslot_pool *pool, const struct memslot_pool_opts *opts)
{
	uint64_t age = ms_pool_limit(opts->max_age_ms, MEMSLOT_UNLIMITED);

	pool->flags = opts->flags;
	pool->idle_budget_pages = ms_bytes_to_pages(ms_pool_limit(opts->idle_budget, IDLE_BUDGET));
	pool->max_warm = ms_pool_limit(opts->max_warm, MEMSLOT_UNLIMITED);
	pool->batch_pages = ms_bytes_to_pages(ms_pool_limit(opts->drop_batch_bytes, BATCH_BYTES));
	pool->batch_count = ms_pool_limit(opts->drop_batch_count, BATCH_COUNT);
	if (__builtin_mul_overflow(age, (uint64_t)NS_IN_MS, &pool->max_age_ns))
		pool->max_age_ns = UINT64_MAX;
	pool->lender.unheld = ms_manage_unheld;
	pool->lender.verifies = opts->flags & MEMSLOT_POOL_VERIFY;
	/* Slots are made from this; whether a hand-out is confined is asked each time. */
	pool->plan.confined = false;
}

static bool add(uint64_t *sum, uint64_t count, uint64_t size, uint64_t *ret_offset)
{
	uint64_t bytes;

	*ret_offset = *sum;
	return !__builtin_mul_overflow(count, size, &bytes) &&
	       !__builtin_add_overflow(bytes, 63, &bytes) &&
	       !__builtin_add_overflow(*sum, bytes & ~63ull, sum) && *sum < INT64_MAX;
}

/* One mapping for all there is to know, as large as the worst case; touched where it is used. */
static int allocate(const struct memslot_pool *plan, struct memslot_pool **ret_pool)
{
	uint64_t sum = 0, at[6], buckets = 1;
	struct memslot_pool *pool;
	unsigned char *memory;
	void *mapping;
	int error;

	while (buckets < plan->count)
		buckets *= 2;
	if (!add(&sum, 1, sizeof *pool, &at[0]) ||
		!add(&sum, MS_PIECES_MAX, sizeof(struct ms_piece), &at[1]) ||
		!add(&sum, buckets, sizeof(uint32_t), &at[2]) ||
		!add(&sum, plan->count, sizeof(struct ms_seat), &at[3]) ||
		!add(&sum, plan->count, ms_slot_head_bytes(&plan->plan), &at[4]) ||
		!add(&sum, plan->count, MS_SLOT_TABLE_BYTES, &at[5]))
		return -EMSGSIZE;
	error = ms_os_reserve(NULL, sum, PROT_READ | PROT_WRITE, &mapping);
	if (error)
		return error;
	memory = mapping;
	pool = mapping;
	*pool = *plan;
	pool->bookkeeping_bytes = sum;
	pool->pieces = (struct ms_piece *)(memory + at[1]);
	pool->buckets = (uint32_t *)(memory + at[2]);
	pool->bucket_mask = (uint32_t)(buckets - 1);
	pool->seats = (struct ms_seat *)(memory + at[3]);
	pool->heads = memory + at[4];
	pool->head_bytes = ms_slot_head_bytes(&plan->plan);
	pool->tables = memory + at[5];
	*ret_pool = pool;
	return 0;
}

MS_EXPORT int memslot_pool_create(uint32_t count, size_t capacity,
	const struct memslot_pool_opts *opts, struct memslot_pool **ret_pool)
{
	struct memslot_pool plan = {.count = 0}, *pool;
	struct memslot_pool_opts taken;
	int error;

	if (!ret_pool)
		return -EINVAL;
	error = ms_opts_take(
		&taken, sizeof taken, sizeof taken, MS_SLOT_FLAGS | MEMSLOT_POOL_VERIFY, opts);
	if (!error)
		error = ms_layout_plan(count, capacity, &taken, &plan);
	if (error)
		return error;
	configure(&plan, &taken);
	error = allocate(&plan, &pool);
	if (error)
		return error;
	pool->plan.lender = &pool->lender;
	atomic_store(&pool->epoch, ms_fork_epoch());
	error = ms_layout_create(pool, taken.base_address);
	if (error) {
		ms_os_unmap(pool, pool->bookkeeping_bytes);
		return error;
	}
	ms_family_add(pool);
	*ret_pool = pool;
	return 0;
}

MS_EXPORT int memslot_pool_destroy(struct memslot_pool *pool)
{
	bool busy;

	if (!pool)
		return 0;
	if (ms_pool_enter(pool) == 0) {
		busy = pool->live || pool->flushing || pool->held.count || pool->first_waiter ||
		       atomic_load(&pool->notifying);
		ms_pool_leave(pool);
		if (busy)
			return -EBUSY;
	}
	ms_family_remove(pool);
	for (uint32_t name = 1; name <= pool->fresh; name++) {
		if (!ms_pool_seat(pool, name)->placed)
			continue;
		memslot_image_unref(ms_pool_slot(pool, name)->target);
		ms_os_free(ms_pool_slot(pool, name)->heap);
	}
	/* In a child a DONTFORK pool is not there: something else may be (INVARIANTS 20). */
	if (!(pool->dead && (pool->flags & MEMSLOT_SLOT_DONTFORK)))
		ms_layout_destroy(pool);
	ms_os_unmap(pool, pool->bookkeeping_bytes);
	return 0;
}

/* --- the lock --- */

int ms_pool_enter(struct memslot_pool *pool)
{
	if (MS_UNLIKELY(atomic_load(&pool->epoch) != ms_fork_epoch()))
		ms_family_adopt(pool);
	if (pool->dead)
		return -ESTALE;
	ms_lock_take(&pool->lock);
	return 0;
}

void ms_pool_leave(struct memslot_pool *pool)
{
	ms_lock_release(&pool->lock);
}

void ms_pool_wake(struct memslot_pool *pool, struct ms_wake wake)
{
	if (wake.word)
		ms_os_futex_wake(wake.word);
	if (wake.event_fd >= 0) {
		ms_os_signal_event(wake.event_fd);
		atomic_fetch_sub(&pool->notifying, 1); /* destroy has waited for it */
	}
}
