/* SPDX-License-Identifier: MIT */
/*
 * pool.c - slots go out and come back.
 *
 *   idle -> TRANSIT -> OUT -> TRANSIT -> idle            queued -> FLUSHING -> idle
 *
 * Invariant: a slot that is idle and not sick is pristine; the one step in which it becomes idle is
 * ms_pool_settle, under the lock, after its reset. Who moved a slot to TRANSIT has it alone, so resets
 * and mappings need no lock. Release claims a slot by one compare-and-swap on its place and ticket:
 * of two releases one is late, and told so. After settling, release touches the pool no more: another
 * thread may have destroyed it.
 */
#include "pool/pool.h"

#include "base/feature.h"
#include "base/fork.h"
#include "base/opts.h"

#include <errno.h>
#include <sys/mman.h>

#define IDLE_BUDGET (256ull << 20)
#define BATCH_BYTES (64ull << 20)
#define BATCH_COUNT 32
#define FRESH_AT_A_TIME 256
#define NS_IN_MS 1000000u

/* --- create, destroy --- */

/* A limit that may be 0 (a default), NONE or UNLIMITED. */
static uint64_t limit(uint64_t value, uint64_t by_default)
{
	if (value == MEMSLOT_NONE)
		return 0;
	return value ? value : by_default;
}

static void configure(struct memslot_pool *pool, const struct memslot_pool_opts *opts)
{
	uint64_t age = limit(opts->max_age_ms, MEMSLOT_UNLIMITED);

	pool->flags = opts->flags;
	pool->idle_budget_pages = ms_bytes_to_pages(limit(opts->idle_budget, IDLE_BUDGET));
	pool->max_warm = limit(opts->max_warm, MEMSLOT_UNLIMITED);
	pool->batch_pages = ms_bytes_to_pages(limit(opts->drop_batch_bytes, BATCH_BYTES));
	pool->batch_count = limit(opts->drop_batch_count, BATCH_COUNT);
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

/* --- out --- */

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
static void claim(struct memslot_pool *pool, uint32_t name, const struct ms_request *request,
	bool *ret_drop)
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
	/* Those before it are no longer the next: a few at a time, not to hold the lock for long. */
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
		ms_slot_place(slot, &pool->plan,
			pool->tables + (size_t)(name - 1) * MS_SLOT_TABLE_BYTES);
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

static int hand_out(struct memslot_pool *pool, uint32_t name, const struct ms_request *request,
	bool drop)
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

/* A slot in TRANSIT from the shelf, after a flush of the pool's own queue if that helps; -EAGAIN: none,
 * and the lock is not left. */
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
	uint64_t timeout = opts ? limit(opts->timeout_ns, 0) : 0, until;

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
	struct memslot_slot_waiter waiter = {.event_fd = -1, .image = request->image,
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

/* --- back --- */

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
		pool->queued_pages += ms_lend_end(slot);
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

static void drop_victim(struct memslot_pool *pool, uint32_t name)
{
	int error = ms_lend_drop(ms_pool_slot(pool, name));
	struct ms_wake wake;

	if (ms_pool_enter(pool))
		return;
	wake = ms_pool_settle(pool, name, error ? MS_RETURN_SICK : MS_RETURN_CLEAN);
	ms_pool_leave(pool);
	ms_pool_wake(pool, wake);
}

#define VICTIMS_MAX 64 /* locked pages do not go away: not for ever */

/* Under the lock: was there something to do for the slot before it may be idle? Then it has left the
 * lock. */
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
