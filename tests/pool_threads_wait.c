/* SPDX-License-Identifier: MIT */
/*
 * pool_threads_wait.c - waiting, being woken, and giving up: one slot that everybody wants.
 *
 * A wake-up that is lost is a test that hangs. Counts are those that make a million with
 * MEMSLOT_TEST_ROUNDS=50.
 */
#define _GNU_SOURCE
#include "pool_threads.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TAKERS 4

struct taker {
	struct memslot_pool *pool;
	unsigned rounds;
	int event_fd;
	struct test_rng rng;
};

static void use(struct memslot_pool *pool, struct memslot_slot *slot)
{
	unsigned char *base = memslot_slot_base(slot);

	note(base[0] == 0 && base[PAGES(2) - 1] == 0);
	base[0] = base[PAGES(2) - 1] = 'x';
	note(memslot_pool_release(pool, slot) == 0);
}

/* For ever, or for so long that it never ends before. */
static void *take_blocking(void *context)
{
	struct taker *taker = context;
	struct memslot_acquire_opts opts = MEMSLOT_OPTS(memslot_acquire_opts, .flags = 0);
	struct memslot_slot *slot;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		opts.timeout_ns = i % 2 ? MEMSLOT_UNLIMITED : UINT64_MAX / 4;
		if (note(memslot_pool_acquire(taker->pool, NULL, PAGES(2), &opts, &slot) == 0))
			use(taker->pool, slot);
	}
	return NULL;
}

START_TEST(no_wake_up_is_lost)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(
		memslot_pool_opts, .reset_method = _i ? MEMSLOT_RESET_DROP : MEMSLOT_RESET_AUTO);
	struct memslot_pool *pool = threads_pool(1, &opts);
	struct taker takers[TAKERS];

	for (unsigned i = 0; i < TAKERS; i++)
		takers[i] = (struct taker){.pool = pool, .rounds = test_rounds(20000) / 4 + 1};
	threads_run(TAKERS, take_blocking, takers, sizeof takers[0]);
	threads_end(pool, 1);
}
END_TEST

/* Timeouts that end about when the slot comes. */
static void *take_timed(void *context)
{
	struct taker *taker = context;
	struct memslot_acquire_opts opts = MEMSLOT_OPTS(memslot_acquire_opts, .flags = 0);
	struct memslot_slot *slot;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		int answer;
		opts.timeout_ns = 1 + test_below(&taker->rng, i % 2 ? 6000 : 60000);
		answer = memslot_pool_acquire(taker->pool, NULL, PAGES(2), &opts, &slot);
		note(answer == 0 || answer == -ETIMEDOUT);
		if (answer == 0)
			use(taker->pool, slot);
	}
	return NULL;
}

START_TEST(a_slot_that_comes_too_late_is_not_lost)
{
	struct memslot_pool *pool = threads_pool(1, NULL);
	struct taker takers[TAKERS];

	for (unsigned i = 0; i < TAKERS; i++)
		takers[i] = (struct taker){
			.pool = pool, .rounds = test_rounds(20000) / 4 + 1, .rng = test_rng(i)};
	threads_run(TAKERS, take_timed, takers, sizeof takers[0]);
	threads_end(pool, 1);
}
END_TEST

/* --- events --- */

static struct memslot_slot_waiter waiter_new(int event_fd)
{
	return (struct memslot_slot_waiter){.size = sizeof(struct memslot_slot_waiter),
		.event_fd = event_fd,
		.slot_size = PAGES(2),
		.opts = {.size = sizeof(struct memslot_acquire_opts)}};
}

static bool event_came(int event_fd)
{
	uint64_t count = 0;

	return read(event_fd, &count, sizeof count) == sizeof count && note(count == 1);
}

/* Who cancels either never gets a slot, or has one, and its event has come. */
static void *wait_and_cancel(void *context)
{
	struct taker *taker = context;

	for (unsigned i = 0; i < taker->rounds && !threads_failed(); i++) {
		struct memslot_slot_waiter waiter = waiter_new(taker->event_fd);
		int answer;
		note(memslot_pool_wait(taker->pool, &waiter) == 0);
		for (uint64_t pause = test_below(&taker->rng, 40); pause; pause--)
			sched_yield();
		answer = memslot_pool_wait_cancel(taker->pool, &waiter);
		note(answer == 0 || answer == -EALREADY);
		note(event_came(taker->event_fd) == (answer != 0));
		if (answer == 0)
			continue;
		if (i % 2)
			note(memslot_slot_instantiate(waiter.slot, NULL, PAGES(2)) == 0);
		if (i % 2)
			use(taker->pool, waiter.slot);
		else
			note(memslot_pool_release(taker->pool, waiter.slot) == 0);
	}
	return NULL;
}

static void *take_or_cancel(void *context)
{
	struct taker *taker = context;

	return taker->event_fd < 0 ? take_blocking(taker) : wait_and_cancel(taker);
}

START_TEST(cancel_and_hand_off_agree)
{
	struct memslot_pool *pool = threads_pool(1, NULL);
	struct taker takers[TAKERS];

	for (unsigned i = 0; i < TAKERS; i++)
		takers[i] = (struct taker){.pool = pool,
			.event_fd = i < 2 ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1,
			.rounds = test_rounds(20000) / 4 + 1,
			.rng = test_rng(i)};
	threads_run(TAKERS, take_or_cancel, takers, sizeof takers[0]);
	for (unsigned i = 0; i < 2; i++)
		close(takers[i].event_fd);
	threads_end(pool, 1);
}
END_TEST

/* --- first come, first served --- */

#define QUEUE 8

struct queue {
	struct memslot_pool *pool;
	struct memslot_slot_waiter waiters[QUEUE];
	int fds[QUEUE];
	unsigned order[QUEUE], served;
	_Atomic(unsigned) cancelled;
	atomic_bool ready; /* all are in the queue */
};

/* Whoever is served gives the slot back at once: the next one is. */
static void *serve(void *context)
{
	struct queue *queue = context;

	while (queue->served + atomic_load(&queue->cancelled) < QUEUE && !threads_failed()) {
		struct pollfd poller[QUEUE];
		for (unsigned i = 0; i < QUEUE; i++)
			poller[i] = (struct pollfd){.fd = queue->fds[i], .events = POLLIN};
		if (poll(poller, QUEUE, 1) <= 0)
			continue;
		for (unsigned i = 0; i < QUEUE; i++) {
			if (!(poller[i].revents & POLLIN) || !event_came(queue->fds[i]))
				continue;
			queue->order[queue->served++] = i;
			note(memslot_pool_wait_cancel(queue->pool, &queue->waiters[i]) ==
				-EALREADY);
			note(memslot_pool_release(queue->pool, queue->waiters[i].slot) == 0);
		}
	}
	return NULL;
}

static void begin_queue(struct queue *queue)
{
	queue->served = 0;
	atomic_store(&queue->cancelled, 0);
	for (unsigned i = 0; i < QUEUE; i++) {
		queue->waiters[i] = waiter_new(queue->fds[i]);
		note(memslot_pool_wait(queue->pool, &queue->waiters[i]) == 0);
	}
}

/* Some give up while the slot goes round. */
static void cancel_some(struct queue *queue, struct test_rng *rng)
{
	for (unsigned i = 0; i < 3; i++) {
		unsigned which = (unsigned)test_below(rng, QUEUE);
		for (uint64_t pause = test_below(rng, 20); pause; pause--)
			sched_yield();
		if (memslot_pool_wait_cancel(queue->pool, &queue->waiters[which]) == 0)
			atomic_fetch_add(&queue->cancelled, 1);
	}
}

static void one_queue(struct queue *queue, struct test_rng *rng)
{
	struct memslot_slot *slot;
	pthread_t thread;

	ck_assert_int_eq(memslot_pool_acquire(queue->pool, NULL, PAGES(2), NULL, &slot), 0);
	begin_queue(queue);
	ck_assert_int_eq(pthread_create(&thread, NULL, serve, queue), 0);
	use(queue->pool, slot);
	cancel_some(queue, rng);
	pthread_join(thread, NULL);
	threads_assert_fine();
	for (unsigned i = 1; i < queue->served; i++)
		ck_assert_uint_gt(queue->order[i], queue->order[i - 1]);
	ck_assert_uint_eq(queue->served + atomic_load(&queue->cancelled), QUEUE);
}

START_TEST(waiters_are_served_in_the_order_they_came)
{
	struct queue queue = {.pool = threads_pool(1, NULL)};
	struct test_rng rng = test_rng(5);

	for (unsigned i = 0; i < QUEUE; i++)
		queue.fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < test_rounds(400); i++)
		one_queue(&queue, &rng);
	for (unsigned i = 0; i < QUEUE; i++)
		close(queue.fds[i]);
	threads_end(queue.pool, 1);
}
END_TEST

void threads_add_wait(Suite *suite)
{
	TCase *tcase = test_case(suite, "wait");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_loop_test(tcase, no_wake_up_is_lost, 0, 2);
	tcase_add_test(tcase, a_slot_that_comes_too_late_is_not_lost);
	tcase_add_test(tcase, cancel_and_hand_off_agree);
	tcase_add_test(tcase, waiters_are_served_in_the_order_they_came);
}
