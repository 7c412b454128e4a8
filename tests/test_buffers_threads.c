/* SPDX-License-Identifier: MIT */
/*
 * test_buffers_threads.c - threads that share a pool of buffers: no buffer is two threads', none is
 * lost, no wake-up either (a test that hangs). Counts are those that make a million with
 * MEMSLOT_TEST_ROUNDS=50. Invariant 31.
 */
#define _GNU_SOURCE
#include "buffers.h"
#include "pool_threads.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TAKERS 4
#define SIZE 512u

struct taker {
	struct memslot_buffers *buffers;
	uint32_t count; /* how many it takes at most; 0: just one */
	unsigned rounds;
	int event_fd;
	struct test_rng rng;
};

/* Nobody else writes there while we have it. */
static void use(struct memslot_buffers *buffers, const struct memslot_buffer *buffer, unsigned tag)
{
	size_t size = buffer->count * buffer->size;

	memset(buffer->base, (int)tag, size);
	sched_yield();
	for (size_t i = 0; i < size; i += 64)
		note(((unsigned char *)buffer->base)[i] == (unsigned char)tag);
	note(memslot_buffers_release(buffers, buffer) == 0);
}

static void run(struct memslot_buffers *buffers, unsigned rounds, void *(*work)(void *argument),
	uint32_t large)
{
	struct taker takers[TAKERS];

	for (unsigned i = 0; i < TAKERS; i++)
		takers[i] = (struct taker){.buffers = buffers,
			.count = i == 0 ? large : 1,
			.rounds = rounds / TAKERS + 1,
			.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			.rng = test_rng(i)};
	threads_run(TAKERS, work, takers, sizeof takers[0]);
	for (unsigned i = 0; i < TAKERS; i++)
		close(takers[i].event_fd);
	buffers_end(buffers);
}

static void *take_blocking(void *context)
{
	struct taker *taker = context;
	struct memslot_buffer buffer;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		uint64_t timeout = i % 2 ? MEMSLOT_UNLIMITED : UINT64_MAX / 4;
		if (note(memslot_buffers_acquire(taker->buffers, taker->count, timeout, &buffer) ==
			    0))
			use(taker->buffers, &buffer, i);
	}
	return NULL;
}

/* Defect of F: lost wake-up at one release a round. With one thread on sizes of its own: two
 * waiters of different sizes are both served. */
START_TEST(no_wake_up_is_lost)
{
	run(buffers_new(SIZE, (_i ? 4 : 1) * SIZE), test_rounds(20000), take_blocking, _i ? 3 : 1);
}
END_TEST

static void *take_timed(void *context)
{
	struct taker *taker = context;
	struct memslot_buffer buffer;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		uint64_t timeout = 1 + test_below(&taker->rng, i % 2 ? 6000 : 60000);
		int answer =
			memslot_buffers_acquire(taker->buffers, taker->count, timeout, &buffer);
		note(answer == 0 || answer == -ETIMEDOUT);
		if (answer == 0)
			use(taker->buffers, &buffer, i);
	}
	return NULL;
}

START_TEST(a_buffer_that_comes_too_late_is_not_lost)
{
	run(buffers_new(SIZE, (_i ? 4 : 1) * SIZE), test_rounds(20000), take_timed, _i ? 3 : 1);
}
END_TEST

/* Who cancels either never gets a buffer, or has one, and its event has come. */
static void *wait_and_cancel(void *context)
{
	struct taker *taker = context;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		struct memslot_buffer_waiter waiter = buffer_waiter(taker->event_fd, taker->count);
		int answer;
		note(memslot_buffers_wait(taker->buffers, &waiter) == 0);
		for (uint64_t pause = test_below(&taker->rng, 4); pause; pause--)
			sched_yield();
		answer = memslot_buffers_wait_cancel(taker->buffers, &waiter);
		note(answer == 0 || answer == -EALREADY);
		note(event_came(taker->event_fd) == (answer != 0));
		if (answer)
			use(taker->buffers, &waiter.buffer, i);
	}
	return NULL;
}

START_TEST(cancel_races_with_being_served)
{
	run(buffers_new(SIZE, (_i ? 4 : 1) * SIZE), test_rounds(20000), wait_and_cancel,
		_i ? 3 : 1);
}
END_TEST

/* Everything at once, with references that are handed to other threads. */
static struct memslot_buffer parcels[16];
static pthread_mutex_t parcel_lock = PTHREAD_MUTEX_INITIALIZER;

/* Leave a reference for somebody, and release what lay there. */
static void swap_parcel(struct taker *taker, struct memslot_buffer mine)
{
	uint64_t at = test_below(&taker->rng, 16);
	struct memslot_buffer theirs;

	pthread_mutex_lock(&parcel_lock);
	theirs = parcels[at];
	parcels[at] = mine;
	pthread_mutex_unlock(&parcel_lock);
	if (theirs.base)
		note(memslot_buffers_release(taker->buffers, &theirs) == 0);
}

static void *do_anything(void *context)
{
	struct taker *taker = context;
	struct memslot_buffer buffer;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		uint32_t count =
			test_below(&taker->rng, 3) ? 1 : 1 + (uint32_t)test_below(&taker->rng, 20);
		uint64_t timeout = test_below(&taker->rng, 3) * 20000;
		int answer = memslot_buffers_acquire(taker->buffers, count, timeout, &buffer);
		note(answer == 0 || answer == -EAGAIN || answer == -ETIMEDOUT ||
			answer == -EMSGSIZE);
		if (test_below(&taker->rng, 50) == 0)
			note(memslot_buffers_set_budget(taker->buffers,
				     (8 + test_below(&taker->rng, 120)) * SIZE) == 0);
		if (answer)
			continue;
		if (test_below(&taker->rng, 2)) {
			note(memslot_buffers_ref(taker->buffers, &buffer) == 0);
			swap_parcel(taker, buffer);
		}
		use(taker->buffers, &buffer, i);
	}
	return NULL;
}

START_TEST(nothing_is_lost_when_all_calls_race)
{
	struct memslot_pool *pool;
	struct memslot_buffers *buffers = buffers_in_pool(SIZE, 128 * SIZE, 20, 64, &pool);
	struct taker takers[TAKERS];

	for (unsigned i = 0; i < TAKERS; i++)
		takers[i] = (struct taker){
			.buffers = buffers, .rounds = test_rounds(20000), .rng = test_rng(i + 10)};
	threads_run(TAKERS, do_anything, takers, sizeof takers[0]);
	for (unsigned i = 0; i < 16; i++)
		swap_parcel(&takers[0], (struct memslot_buffer){.base = NULL});
	for (unsigned i = 0; i < 16; i++) {
		if (parcels[i].base)
			buffer_put(buffers, &parcels[i]);
	}
	memset(parcels, 0, sizeof parcels);
	buffers_end(buffers);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

/* The budget is there, and only memory is not yet: nobody is told that nothing is free. */
static void *take_at_once(void *context)
{
	struct taker *taker = context;
	struct memslot_buffer buffers[8];

	for (unsigned i = 0; i < 8; i++)
		note(memslot_buffers_acquire(taker->buffers, 4, 0, &buffers[i]) == 0);
	for (unsigned i = 0; i < 8; i++)
		note(memslot_buffers_release(taker->buffers, &buffers[i]) == 0);
	return NULL;
}

START_TEST(nobody_is_refused_while_another_adds_memory)
{
	for (unsigned i = test_rounds(300); i; i--)
		run(buffers_new(64 * KB, 128 * 64 * KB), 0, take_at_once, 1);
}
END_TEST

/* --- one waits, the other releases and sleeps --- */

struct relay {
	struct memslot_buffers *buffers;
	struct memslot_buffer buffer;
	unsigned rounds;
	sem_t go;
};

static void *release_and_sleep(void *context)
{
	struct relay *relay = context;

	for (unsigned i = 0; i < relay->rounds; i++) {
		while (sem_wait(&relay->go))
			;
		note(memslot_buffers_release(relay->buffers, &relay->buffer) == 0);
	}
	return NULL;
}

/* What it releases goes into its own magazine, and it does not come back to look. */
START_TEST(what_a_thread_releases_before_it_sleeps_reaches_the_waiter)
{
	struct relay relay = {
		.buffers = buffers_new(SIZE, 64 * SIZE), .rounds = test_rounds(20000)};
	struct memslot_buffer others[63];
	pthread_t thread;

	for (unsigned i = 0; i < 63; i++)
		others[i] = buffer_get(relay.buffers, 1);
	relay.buffer = buffer_get(relay.buffers, 1);
	ck_assert_int_eq(sem_init(&relay.go, 0, 0), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, release_and_sleep, &relay), 0);
	for (unsigned i = 0; i < relay.rounds; i++) {
		struct memslot_buffer again;
		sem_post(&relay.go);
		ck_assert_int_eq(
			memslot_buffers_acquire(relay.buffers, 1, MEMSLOT_UNLIMITED, &again), 0);
		relay.buffer = again;
	}
	pthread_join(thread, NULL);
	threads_assert_fine();
	for (unsigned i = 0; i < 63; i++)
		buffer_put(relay.buffers, &others[i]);
	buffer_put(relay.buffers, &relay.buffer);
	sem_destroy(&relay.go);
	buffers_end(relay.buffers);
}
END_TEST

/* --- the end --- */

static void *release_one(void *context)
{
	struct relay *relay = context;

	note(memslot_buffers_release(relay->buffers, &relay->buffer) == 0);
	return NULL;
}

static void *wait_for_ever(void *context)
{
	struct relay *relay = context;
	struct memslot_buffer buffer;
	int answer = memslot_buffers_acquire(relay->buffers, 2, UINT64_MAX / 4, &buffer);

	note(answer == 0 || answer == -ESHUTDOWN);
	if (answer == 0)
		note(memslot_buffers_release(relay->buffers, &buffer) == 0);
	return NULL;
}

/* Defect of F: the pool freed under the last releaser; or under who is told that it closes. */
START_TEST(close_races_with_the_last_release_and_with_waiters)
{
	for (unsigned i = test_rounds(2000); i; i--) {
		struct relay relay = {.buffers = buffers_new(SIZE, 2 * SIZE)};
		pthread_t releases, waits;
		relay.buffer = buffer_get(relay.buffers, 1);
		ck_assert_int_eq(pthread_create(&waits, NULL, wait_for_ever, &relay), 0);
		while (buffers_stats(relay.buffers).waiters == 0)
			sched_yield();
		ck_assert_int_eq(pthread_create(&releases, NULL, release_one, &relay), 0);
		if (i % 2)
			sched_yield();
		ck_assert_int_eq(memslot_buffers_close(relay.buffers, MEMSLOT_UNLIMITED, NULL), 0);
		pthread_join(releases, NULL);
		pthread_join(waits, NULL);
	}
	threads_assert_fine();
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers_threads");
	TCase *tcase = test_case(suite, "threads");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_loop_test(tcase, no_wake_up_is_lost, 0, 2);
	tcase_add_loop_test(tcase, a_buffer_that_comes_too_late_is_not_lost, 0, 2);
	tcase_add_loop_test(tcase, cancel_races_with_being_served, 0, 2);
	tcase_add_test(tcase, nothing_is_lost_when_all_calls_race);
	tcase_add_test(tcase, nobody_is_refused_while_another_adds_memory);
	tcase_add_test(tcase, what_a_thread_releases_before_it_sleeps_reaches_the_waiter);
	tcase_add_test(tcase, close_races_with_the_last_release_and_with_waiters);
	return suite;
}
