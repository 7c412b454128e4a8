/* SPDX-License-Identifier: MIT */
/*
 * test_pool_threads.c - one pool, many threads, all calls at once (fork apart).
 *
 * Each thread takes slots, looks whether they are as new, writes, and gives them back itself or by
 * another thread; now and then it does to the pool what timers and operators do. For
 * ThreadSanitizer; and for lost slots, stale bytes and lost wake-ups in every build.
 */
#define _GNU_SOURCE
#include "pool_threads.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WORKERS 4
#define COUNT 6
#define PARCELS 3

/* Slots on their way from one thread to another. */
struct parcel {
	struct memslot_slot *slot;
	uint64_t ticket;
	uint32_t hold; /* to be ended, of a slot that was released; 0: to be released */
};

static pthread_mutex_t parcel_lock = PTHREAD_MUTEX_INITIALIZER;
static struct parcel parcels[PARCELS];
static unsigned parcel_count;

static bool send(struct parcel parcel)
{
	bool room;

	pthread_mutex_lock(&parcel_lock);
	room = parcel_count < PARCELS;
	if (room)
		parcels[parcel_count++] = parcel;
	pthread_mutex_unlock(&parcel_lock);
	return room;
}

static bool receive(struct parcel *ret_parcel)
{
	bool any;

	pthread_mutex_lock(&parcel_lock);
	any = parcel_count > 0;
	if (any) {
		*ret_parcel = parcels[0];
		memmove(parcels, parcels + 1, --parcel_count * sizeof parcels[0]);
	}
	pthread_mutex_unlock(&parcel_lock);
	return any;
}

struct worker {
	struct memslot_pool *pool;
	struct test_rng rng;
	int event_fd;
	unsigned rounds;
};

static bool chance(struct worker *worker, unsigned percent)
{
	return test_below(&worker->rng, 100) < percent;
}

/* --- slots --- */

static void open_parcel(struct worker *worker)
{
	struct parcel parcel;

	if (!receive(&parcel))
		return;
	if (parcel.hold) {
		note(memslot_slot_unhold(parcel.slot, parcel.hold) == 0);
		return;
	}
	note(memslot_pool_release_ticket(worker->pool, parcel.slot, parcel.ticket) == 0);
	note(memslot_pool_release_ticket(worker->pool, parcel.slot, parcel.ticket) == -ESTALE);
}

/* What a tenant does. */
static void live_in(struct worker *worker, struct memslot_slot *slot)
{
	unsigned image = (unsigned)test_below(&worker->rng, THREADS_IMAGES);
	size_t first = test_below(&worker->rng, 20), count = test_below(&worker->rng, 4);

	dirty_pages(slot, first, count, 1);
	if (chance(worker, 15))
		note(memslot_slot_reset(slot) == 0);
	if (chance(worker, 10) &&
		note(memslot_slot_instantiate(slot, threads_image[image], THREADS_CAPACITY) == 0))
		note(threads_shows(slot, image));
	if (chance(worker, 10))
		note(memslot_slot_resize(slot, PAGES(20)) == 0 &&
			memslot_slot_resize(slot, THREADS_CAPACITY) == 0);
	if (chance(worker, 5))
		note(memslot_slot_protect(slot, 0, PAGES(2), PROT_READ) == 0);
	if (chance(worker, 5))
		note(memslot_slot_checkpoint(slot, NULL) == 0);
	if (chance(worker, 5))
		note(memslot_slot_discard(slot, 0, PAGES(10)) == 0);
	memset((unsigned char *)memslot_slot_base(slot) + PAGES(3), 0xd1, PAGES(1));
}

static void release_held(struct worker *worker, struct parcel parcel)
{
	parcel.hold = chance(worker, 50) ? MEMSLOT_HOLD_IO : MEMSLOT_HOLD_PIN;
	note(memslot_slot_hold(parcel.slot, parcel.hold) == 0);
	note(memslot_pool_release(worker->pool, parcel.slot) == 0);
	/* Still ours: a device would write to it now. */
	memset((unsigned char *)memslot_slot_base(parcel.slot) + PAGES(4), 0xd2, PAGES(1));
	if (!send(parcel))
		note(memslot_slot_unhold(parcel.slot, parcel.hold) == 0);
}

static void give_away(struct worker *worker, struct memslot_slot *slot)
{
	struct parcel parcel = {slot, memslot_slot_ticket(slot), 0};

	if (chance(worker, 15)) {
		release_held(worker, parcel);
		return;
	}
	if (chance(worker, 40)) {
		memslot_slot_unconfine(slot);
		if (send(parcel))
			return;
	}
	note(memslot_pool_release(worker->pool, slot) == 0);
}

static void take(struct worker *worker)
{
	static const uint64_t timeouts[] = {0, 0, 50000, 2000000};
	unsigned image = (unsigned)test_below(&worker->rng, THREADS_IMAGES);
	struct memslot_acquire_opts opts = MEMSLOT_OPTS(memslot_acquire_opts, .flags = 0);
	struct memslot_slot *slot;
	int answer;

	opts.flags = (chance(worker, 50) ? MEMSLOT_SLOT_CONFINED : 0) |
		     (chance(worker, 10) ? MEMSLOT_ACQUIRE_COLD : 0);
	opts.affinity_key = test_below(&worker->rng, 2);
	opts.timeout_ns = timeouts[test_below(&worker->rng, 4)];
	answer = memslot_pool_acquire(
		worker->pool, threads_image[image], THREADS_CAPACITY, &opts, &slot);
	if (answer) {
		note(answer == (opts.timeout_ns ? -ETIMEDOUT : -EAGAIN));
		return;
	}
	note(threads_shows(slot, image));
	live_in(worker, slot);
	give_away(worker, slot);
}

/* Wait with an event, and give up soon. */
static void wait_for(struct worker *worker)
{
	unsigned image = (unsigned)test_below(&worker->rng, THREADS_IMAGES);
	struct memslot_slot_waiter waiter = {.size = sizeof waiter,
		.event_fd = worker->event_fd,
		.image = threads_image[image],
		.slot_size = THREADS_CAPACITY,
		.opts = {.size = sizeof waiter.opts}};
	struct pollfd poller = {.fd = worker->event_fd, .events = POLLIN};
	uint64_t events = 0;

	if (!note(memslot_pool_wait(worker->pool, &waiter) == 0))
		return;
	if (chance(worker, 70))
		poll(&poller, 1, 1);
	if (memslot_pool_wait_cancel(worker->pool, &waiter) == 0) {
		note(read(worker->event_fd, &events, sizeof events) < 0);
		return;
	}
	note(read(worker->event_fd, &events, sizeof events) == sizeof events && events == 1);
	if (chance(worker, 80)) { /* or give it back as it came */
		note(memslot_slot_instantiate(
			     waiter.slot, threads_image[image], THREADS_CAPACITY) == 0);
		note(threads_shows(waiter.slot, image));
		live_in(worker, waiter.slot);
	}
	note(memslot_pool_release(worker->pool, waiter.slot) == 0);
}

/* --- the pool --- */

static void look(struct worker *worker)
{
	struct memslot_location at = {.size = sizeof at};
	struct memslot_pool_stats stats = threads_stats(worker->pool);
	struct memslot_plan plan = {.size = sizeof plan};
	struct parcel parcel = {NULL, 0, 0};

	note(stats.capacity_count == COUNT && stats.live <= COUNT);
	note(memslot_pool_plan(COUNT, THREADS_CAPACITY, threads_image[1], NULL, &plan) == 0);
	note(memslot_pool_destroy(worker->pool) == -EBUSY); /* somebody keeps one for ever */
	pthread_mutex_lock(&parcel_lock);
	if (parcel_count)
		parcel = parcels[0];
	pthread_mutex_unlock(&parcel_lock);
	if (parcel.slot)
		note(memslot_pool_locate(worker->pool, memslot_slot_base(parcel.slot), &at) == 0);
}

static void manage(struct worker *worker)
{
	struct memslot_image *image = threads_image[test_below(&worker->rng, THREADS_IMAGES)];
	uint32_t count;
	size_t left;

	switch (test_below(&worker->rng, 6)) {
	case 0:
		note(memslot_pool_forget(worker->pool, image, &count) == 0 && count <= COUNT);
		break;
	case 1:
		note(memslot_pool_trim(worker->pool, test_below(&worker->rng, PAGES(30)), &left) ==
			0);
		break;
	case 2:
		note(memslot_pool_flush(worker->pool) == 0);
		break;
	case 3:
		note(memslot_pool_maintain(worker->pool) == 0);
		break;
	case 4:
		note(memslot_pool_prewarm(worker->pool, image, THREADS_CAPACITY, 2, &count) == 0);
		break;
	default:
		look(worker);
	}
}

static void *work(void *context)
{
	struct worker *worker = context;

	for (unsigned i = 0; i < worker->rounds && !threads_failed(); i++) {
		if (chance(worker, 60))
			take(worker);
		else if (chance(worker, 30))
			wait_for(worker);
		else if (chance(worker, 40))
			manage(worker);
		open_parcel(worker);
	}
	return NULL;
}

/* By turns: three edges; copying, dropping, what AUTO finds; few warm ones; budgets, ages. */
static struct memslot_pool_opts pool_opts(int kind)
{
	static const uint32_t methods[] = {
		MEMSLOT_RESET_AUTO, MEMSLOT_RESET_DROP, MEMSLOT_RESET_SCAN};
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
		.flags = kind % 3 == 2 ? MEMSLOT_SLOT_NO_EDGE : 0,
		.reserve = kind % 3 == 1 ? BIG_RESERVE : 0, .reset_method = methods[kind / 3 % 3],
		.drop_batch_count = 3, .max_age_ms = 2);

	opts.max_warm = kind % 2 ? 2 : 0;
	opts.idle_budget = kind % 2 ? PAGES(12) : 0;
	opts.flags |= kind == 4 ? MEMSLOT_POOL_VERIFY : 0;
	return opts;
}

START_TEST(nothing_is_lost_when_all_calls_race)
{
	struct memslot_pool_opts opts = pool_opts(_i);
	struct memslot_pool *pool = threads_pool(COUNT, &opts);
	struct worker workers[WORKERS];
	struct memslot_slot *kept;

	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, 0, NULL, &kept), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.pool = pool,
			.rng = test_rng(i + 10u * (unsigned)_i),
			.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			.rounds = test_rounds(3000)};
	}
	threads_run(WORKERS, work, workers, sizeof workers[0]);
	while (parcel_count)
		open_parcel(&workers[0]);
	ck_assert_int_eq(memslot_pool_release(pool, kept), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		close(workers[i].event_fd);
	threads_end(pool, COUNT);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("pool_threads");
	TCase *tcase = test_case(suite, "race");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_unchecked_fixture(tcase, threads_images_begin, threads_images_end);
	tcase_add_loop_test(tcase, nothing_is_lost_when_all_calls_race, 0, 9);
	threads_add_wait(suite);
	threads_add_hold(suite);
	return suite;
}
