/* SPDX-License-Identifier: MIT */
/*
 * pool_threads_hold.c - the last unhold against release, and destroy against both: nobody may touch
 * the pool after the step that lets destroy answer 0 (INVARIANTS 31).
 */
#define _GNU_SOURCE
#include "pool_threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

/* What one thread hands to the other; NULL: taken. */
struct pair {
	struct memslot_pool *pool;
	_Atomic(struct memslot_slot *) held;
	atomic_bool over;
	unsigned rounds;
	bool extra; /* holds that nobody asked for */
	unsigned pause;
};

/* So that the two meet at every step of a release. */
static void pause_a_little(struct pair *pair)
{
	for (unsigned i = pair->pause = (pair->pause + 37) % 1000; i; i--)
		atomic_signal_fence(memory_order_seq_cst);
}

/* The device: writes until its hold is over. */
static void *end_holds(void *context)
{
	struct pair *pair = context;
	struct memslot_slot *slot;
	unsigned idle = 0;

	while (!atomic_load(&pair->over)) {
		slot = atomic_load(&pair->held);
		if (!slot) {
			if (++idle % 1000 == 0)
				sched_yield();
			continue;
		}
		((unsigned char *)memslot_slot_base(slot))[PAGES(1)] = 'D';
		/* In the middle of a release, or of the next tenant. */
		if (pair->extra && memslot_slot_hold(slot, MEMSLOT_HOLD_PIN) == 0)
			note(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN) == 0);
		pause_a_little(pair);
		note(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO) == 0);
		atomic_store(&pair->held, NULL);
	}
	return NULL;
}

static void hold_and_release(struct pair *pair)
{
	struct memslot_acquire_opts opts =
		MEMSLOT_OPTS(memslot_acquire_opts, .timeout_ns = MEMSLOT_UNLIMITED);
	struct memslot_slot *slot;
	unsigned char *base;

	if (!note(memslot_pool_acquire(pair->pool, NULL, PAGES(2), &opts, &slot) == 0))
		return;
	base = memslot_slot_base(slot);
	note(base[0] == 0 && base[PAGES(1)] == 0);
	base[0] = 'x';
	while (atomic_load(&pair->held))
		sched_yield(); /* it unheld this very slot, and is about to say so */
	note(memslot_slot_hold(slot, MEMSLOT_HOLD_IO) == 0);
	atomic_store(&pair->held, slot);
	note(memslot_pool_release(pair->pool, slot) == 0);
}

START_TEST(the_last_unhold_races_release)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
		.reserve = _i == 2 ? BIG_RESERVE : 0, .reset_method = MEMSLOT_RESET_AUTO);
	struct pair pair = {.pool = threads_pool(_i == 1 ? 2 : 1, &opts), .extra = _i == 2};
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, end_holds, &pair), 0);
	for (unsigned i = 0; i < test_rounds(20000) && !threads_failed(); i++)
		hold_and_release(&pair);
	while (atomic_load(&pair.held) && !threads_failed())
		sched_yield();
	atomic_store(&pair.over, true);
	pthread_join(thread, NULL);
	threads_end(pair.pool, _i == 1 ? 2 : 1);
}
END_TEST

/* --- the end of a pool --- */

struct last {
	struct memslot_pool *pool;
	_Atomic(struct memslot_slot *) slot;
	atomic_bool over, held;
};

/* The last call on a pool that another thread waits to destroy. */
static void *let_go(void *context)
{
	struct last *last = context;

	while (!atomic_load(&last->over)) {
		struct memslot_slot *slot = atomic_exchange(&last->slot, NULL);
		if (!slot)
			sched_yield();
		else if (atomic_load(&last->held))
			note(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO) == 0);
		else
			note(memslot_pool_release(last->pool, slot) == 0);
	}
	return NULL;
}

static void one_pool(struct last *last, unsigned round)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
		.reset_method = round % 3 ? MEMSLOT_RESET_DROP : MEMSLOT_RESET_AUTO,
		.drop_batch_count = 1 + round % 2);
	struct memslot_slot *slot;
	int answer;

	last->pool = threads_pool(2, &opts);
	ck_assert_int_eq(memslot_pool_acquire(last->pool, NULL, PAGES(2), NULL, &slot), 0);
	dirty_pages(slot, 0, 2, 1);
	atomic_store(&last->held, round % 4 == 0);
	if (round % 4 == 0) {
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
		ck_assert_int_eq(memslot_pool_release(last->pool, slot), 0);
	}
	atomic_store(&last->slot, slot);
	while ((answer = memslot_pool_destroy(last->pool)) == -EBUSY)
		sched_yield();
	ck_assert_int_eq(answer, 0);
}

START_TEST(nobody_touches_a_pool_that_may_be_destroyed)
{
	struct last last = {.pool = NULL};
	size_t mappings;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, let_go, &last), 0);
	one_pool(&last, 0);
	mappings = test_vma_count(NULL, SIZE_MAX);
	for (unsigned i = 0; i < test_rounds(3000) && !threads_failed(); i++)
		one_pool(&last, i);
	if (!test_sanitized())
		ck_assert_uint_le(test_vma_count(NULL, SIZE_MAX), mappings + 4);
	atomic_store(&last.over, true);
	pthread_join(thread, NULL);
	threads_assert_fine();
}
END_TEST

void threads_add_hold(Suite *suite)
{
	TCase *tcase = test_case(suite, "hold");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_loop_test(tcase, the_last_unhold_races_release, 0, 3);
	tcase_add_test(tcase, nobody_touches_a_pool_that_may_be_destroyed);
}
