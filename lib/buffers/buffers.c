/* SPDX-License-Identifier: MIT */
/*
 * buffers.c - making and unmaking pools of buffers, their budget.
 *
 * Invariant: all bookkeeping is reserved in one mapping at creation and touched as it is needed;
 * the slot pool of its own is address space only. Close frees when nothing is out, nobody is
 * inside, and no event is being written: whoever puts the last buffer back touches the pool no more
 * after it has released the lock.
 */
#include "buffers/buffers.h"

#include "base/opts.h"
#include "pool/pool.h"

#include <errno.h>
#include <sys/mman.h>

#define SIZE_DEFAULT (16u << 10)
#define SIZE_LEAST 512u
#define SIZE_MOST (16u << 20)
#define BUDGET_DEFAULT (64ull << 20)
#define AREA_LEAST (4ull << 20)	  /* of the capacity: smaller slots cost a marker for each page */
#define AREA_MOST (1ull << 30)	  /* what one entry of a ring's table can hold */
#define STEP_LEAST (256ull << 10) /* of what is acquired at a time */
#define PARTS 8

/* --- create --- */

static int check(const struct memslot_buffers_opts *opts, struct memslot_buffers *plan)
{
	uint64_t size = opts->buffer_size ? opts->buffer_size : SIZE_DEFAULT;
	uint64_t budget = opts->budget ? opts->budget : BUDGET_DEFAULT;

	if (size < SIZE_LEAST || size > SIZE_MOST || (size & (size - 1)))
		return -EINVAL;
	plan->flags = opts->flags;
	plan->size_shift = (unsigned)__builtin_ctzll(size);
	plan->budget = budget == MEMSLOT_NONE ? 0 : budget >> plan->size_shift;
	return plan->budget ? 0 : -EINVAL;
}

/* How large areas are: a foreign slot whole; of our own, so much at a time that small budgets do
 * not have much more registered than they use, and as large as one request may be. */
static int plan_areas(struct memslot_pool *pool, struct memslot_buffers *plan)
{
	uint64_t size = 1ull << plan->size_shift, bytes = AREA_LEAST;

	if (pool) {
		bytes = ms_min(ms_pages_to_bytes(pool->plan.capacity_pages), AREA_MOST);
		plan->most = plan->step = bytes >> plan->size_shift;
	} else {
		while (bytes < AREA_MOST && bytes >> plan->size_shift < plan->budget)
			bytes *= 2;
		bytes = ms_max(bytes, size);
		plan->most = bytes >> plan->size_shift;
		bytes = ms_min(bytes, plan->budget << plan->size_shift);
		plan->step = ms_max(ms_max(bytes / PARTS, STEP_LEAST) >> plan->size_shift, 1);
	}
	while (plan->area_shift < 32 && (1ull << plan->area_shift) < plan->most)
		plan->area_shift++;
	return plan->most ? 0 : -EMSGSIZE;
}

void ms_buffers_set_room(struct memslot_buffers *buffers)
{
	uint64_t room = ms_min(buffers->budget / (2 * MS_MAGAZINES), MS_MAGAZINE_ROOM);

	if (buffers->closed || buffers->first)
		room = 0;
	atomic_store_explicit(&buffers->magazine_room, (uint32_t)room, memory_order_relaxed);
}

static int allocate(const struct memslot_buffers *plan, struct memslot_buffers **ret_buffers)
{
	size_t count = (size_t)MS_AREAS_MAX << plan->area_shift,
	       words = (1u << plan->area_shift) / 64 + 1;
	size_t cells = (sizeof *plan + 4095) & ~(size_t)4095;
	size_t bits = cells + count * sizeof(struct ms_cell);
	size_t bytes = bits + MS_AREAS_MAX * words * sizeof(uint64_t);
	struct memslot_buffers *buffers;
	void *memory;
	int error = ms_os_reserve(NULL, bytes, PROT_READ | PROT_WRITE, &memory);

	if (error)
		return error;
	buffers = memory;
	buffers->flags = plan->flags;
	buffers->size_shift = plan->size_shift;
	buffers->area_shift = plan->area_shift;
	buffers->most = plan->most;
	buffers->step = plan->step;
	buffers->budget = plan->budget;
	buffers->bookkeeping_bytes = bytes;
	buffers->cells = (struct ms_cell *)((unsigned char *)memory + cells);
	buffers->cell_count = (uint32_t)ms_min(count, UINT32_MAX);
	buffers->handle = ms_os_random() << 32;
	for (size_t i = 0; i < MS_AREAS_MAX; i++)
		buffers->areas[i].bits = (uint64_t *)((unsigned char *)memory + bits) + i * words;
	atomic_store(&buffers->epoch, ms_fork_epoch());
	ms_buffers_set_room(buffers);
	*ret_buffers = buffers;
	return 0;
}

/* Areas that went back must not keep their memory. Fewer where there is little address space. */
static int make_pool(struct memslot_buffers *buffers)
{
	struct memslot_pool_opts opts = {.size = sizeof opts, .idle_budget = MEMSLOT_NONE};
	int error = -ENOMEM;

	for (uint32_t count = MS_AREAS_MAX; error == -ENOMEM && count; count /= 2)
		error = memslot_pool_create(
			count, buffers->most << buffers->size_shift, &opts, &buffers->own_pool);
	buffers->pool = buffers->own_pool;
	return error;
}

MS_EXPORT int memslot_buffers_create(
	const struct memslot_buffers_opts *opts, struct memslot_buffers **ret_buffers)
{
	struct memslot_buffers plan = {.flags = 0}, *buffers;
	struct memslot_buffers_opts taken;
	int error;

	if (!ret_buffers)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken, MEMSLOT_BUFFERS_ZERO, opts);
	if (!error)
		error = check(&taken, &plan);
	if (!error)
		error = plan_areas(taken.pool, &plan);
	if (!error)
		error = allocate(&plan, &buffers);
	if (error)
		return error;
	buffers->pool = taken.pool;
	buffers->attached = taken.pool && (taken.pool->flags & MEMSLOT_SLOT_DONTFORK);
	if (!taken.pool)
		error = make_pool(buffers);
	if (error)
		ms_os_unmap(buffers, buffers->bookkeeping_bytes);
	else
		*ret_buffers = buffers;
	return error;
}

/* --- in a child --- */

int ms_buffers_adopt(struct memslot_buffers *buffers)
{
	uint64_t epoch = ms_fork_epoch();

	if (atomic_load(&buffers->epoch) == epoch)
		return 0;
	if (buffers->attached) /* what it was forked with; the lock may be held by nobody */
		return -ESTALE;
	ms_lock_take(&buffers->lock);
	if (atomic_load(&buffers->epoch) != epoch) {
		buffers->first = buffers->last = NULL;
		buffers->inside = 0;
		buffers->growing = false;
		buffers->waiters = 0;
		ms_buffers_set_room(buffers);
		atomic_store(&buffers->notifying, 0);
		atomic_store(&buffers->epoch, epoch);
	}
	ms_lock_release(&buffers->lock);
	return 0;
}

/* --- close --- */

/* Under the lock: nothing is out, or the time is over. */
static int drain(struct memslot_buffers *buffers, uint64_t until_ns)
{
	int error = 0;

	while (buffers->used || buffers->inside || atomic_load(&buffers->notifying)) {
		uint32_t seen = atomic_load(&buffers->drained);
		bool out = buffers->used;
		if (out && (!until_ns || error == -ETIMEDOUT))
			return -ETIMEDOUT;
		ms_lock_release(&buffers->lock);
		if (out)
			error = ms_os_futex_wait(&buffers->drained, seen, until_ns);
		else /* somebody is on the way out */
			ms_os_yield();
		ms_lock_take(&buffers->lock);
	}
	return 0;
}

/* In a child: the areas are not there, so nothing that is mapped there now is ours. */
static int close_dead(struct memslot_buffers *buffers)
{
	while (buffers->rings) {
		struct memslot_ring *ring = buffers->rings;
		buffers->rings = ring->next;
		ms_os_unmap(ring, ring->bytes);
	}
	ms_os_unmap(buffers, buffers->bookkeeping_bytes);
	return 0;
}

MS_EXPORT int memslot_buffers_close(
	struct memslot_buffers *buffers, uint64_t timeout_ns, uint64_t *ret_outstanding)
{
	uint64_t until_ns = ms_line_until(timeout_ns);
	int error;

	if (!buffers)
		return 0;
	if (ms_buffers_usable(buffers))
		return close_dead(buffers);
	ms_lock_take(&buffers->lock);
	if (buffers->rings) {
		ms_lock_release(&buffers->lock);
		return -EBUSY;
	}
	if (!buffers->closed) {
		buffers->closed = true;
		ms_line_fail(buffers);
		ms_buffers_set_room(buffers);
		ms_hand_collect(buffers);
	}
	error = drain(buffers, until_ns);
	if (error && ret_outstanding)
		*ret_outstanding = buffers->used;
	if (!error)
		error = ms_areas_trim(buffers);
	ms_lock_release(&buffers->lock);
	if (error)
		return error;
	/* Areas that the kernel may still write to stay, and the pool around them. */
	(void)memslot_pool_destroy(buffers->own_pool);
	ms_os_unmap(buffers, buffers->bookkeeping_bytes);
	return 0;
}

/* --- budget, stats --- */

MS_EXPORT int memslot_buffers_set_budget(struct memslot_buffers *buffers, uint64_t bytes)
{
	uint64_t budget = bytes == MEMSLOT_NONE || !buffers ? 0 : bytes >> buffers->size_shift;
	bool lower;

	if (budget == 0)
		return -EINVAL;
	if (ms_buffers_usable(buffers))
		return -ESTALE;
	ms_lock_take(&buffers->lock);
	buffers->inside++;
	lower = budget <= buffers->budget;
	buffers->budget = budget;
	ms_buffers_set_room(buffers);
	ms_line_fail(buffers);
	ms_line_serve(buffers);
	if (lower) {
		ms_hand_collect(buffers);
		(void)ms_areas_trim(buffers);
	}
	buffers->inside--;
	ms_lock_release(&buffers->lock);
	return 0;
}

MS_EXPORT int memslot_buffers_stats(
	const struct memslot_buffers *buffers, struct memslot_buffers_stats *ret_stats)
{
	struct memslot_buffers_stats stats = {.size = sizeof stats};
	struct memslot_buffers *own = (struct memslot_buffers *)(uintptr_t)buffers;
	uint64_t bytes = 0;

	if (!buffers || !ret_stats)
		return -EINVAL;
	if (ms_buffers_usable(own))
		return -ESTALE;
	ms_lock_take(&own->lock);
	stats.live = ms_hand_live(own);
	stats.magazines = own->used - stats.live;
	stats.live_bytes = stats.live << own->size_shift;
	stats.budget = own->budget == MEMSLOT_UNLIMITED >> own->size_shift
			       ? MEMSLOT_UNLIMITED
			       : own->budget << own->size_shift;
	stats.high_water = ms_max(own->high_water, stats.live) << own->size_shift;
	for (uint32_t i = 0; i < MS_AREAS_MAX; i++)
		bytes += (uint64_t)own->areas[i].buffers << own->size_shift;
	stats.idle_bytes = bytes - ms_min(bytes, stats.live_bytes);
	stats.waiters = own->waiters;
	stats.waits = own->waits;
	stats.wait_ns = own->wait_ns;
	stats.quarantined = own->quarantined;
	stats.plain_fallbacks = own->plain_fallbacks;
	for (struct memslot_ring *ring = own->rings; ring; ring = ring->next)
		stats.in_flight += atomic_load(&ring->in_flight);
	ms_lock_release(&own->lock);
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}
