/* SPDX-License-Identifier: MIT */
/*
 * test_confined.c - when the fault counter may speak for a slot (invariants 7 to 9), and that every
 * doubt makes a reset scan instead.
 *
 * The tests with a twin make another thread, or a child, whose counter says exactly what the slot
 * remembers of the first: a library that compared only the number would skip the scan.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct memslot_slot *confined(size_t pages, uint32_t method)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.flags = MEMSLOT_SLOT_CONFINED, .reset_method = method);

	return slot_new(PAGES(pages), &opts);
}

/* Memory to make faults with, one a page. */
struct faults {
	volatile unsigned char *next, *end;
};

static struct faults faults_new(size_t count)
{
	unsigned char *memory = mmap(NULL, PAGES(count), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(memory, MAP_FAILED);
	madvise(memory, PAGES(count), MADV_NOHUGEPAGE);
	return (struct faults){memory, memory + PAGES(count)};
}

static void fault_once(struct faults *faults)
{
	if (faults->next == faults->end)
		abort();
	*faults->next = 1;
	faults->next += test_page();
}

/* Raise the calling thread's counter to `count`; false: it is beyond already. */
static bool fault_until(struct faults *faults, uint64_t count)
{
	while (test_faults() < count)
		fault_once(faults);
	return test_faults() == count;
}

/* --- the steady state --- */

START_TEST(a_steady_confined_slot_is_reset_without_a_fault_or_a_scan)
{
	static const uint32_t methods[] = {MEMSLOT_RESET_AUTO, MEMSLOT_RESET_RESTORE};
	uint64_t least_calls = UINT64_MAX, least_faults = UINT64_MAX;
	struct memslot_slot *slot;
	struct memslot_image *image;

	NEED_FEATURE("fault_counter");
	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("wipe_on_fork"); /* else getpid is called, too */
	slot = confined(300, methods[_i]);
	image = image_of(40, 100, 5);
	instantiate(slot, image, PAGES(250));
	for (unsigned round = 0; round < 200; round++) {
		uint64_t calls = stats_of(slot).syscalls, faults = test_faults();
		dirty_pages(slot, 30, 16, 1);
		reset(slot);
		faults = test_faults() - faults;
		calls = stats_of(slot).syscalls - calls;
		least_calls = calls < least_calls ? calls : least_calls;
		least_faults = faults < least_faults ? faults : least_faults;
	}
	ck_assert_uint_eq(least_calls, 1);
	ck_assert_uint_eq(least_faults, 0);
	ck_assert_uint_ge(stats_of(slot).resets_known, 100);
	assert_shows(slot, 40, 100, 5, PAGES(250));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_slot_that_is_not_confined_is_never_reset_by_the_counter)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.reset_method = MEMSLOT_RESET_RESTORE);
	struct memslot_slot *slot = slot_new(PAGES(100), &opts);
	uint64_t known;

	instantiate(slot, NULL, PAGES(100));
	known = stats_of(slot).resets_known;
	for (unsigned round = 0; round < 20; round++) {
		dirty_pages(slot, 0, 10, 1);
		reset(slot);
	}
	ck_assert_uint_eq(stats_of(slot).resets_known, known);
	destroy(slot);
}
END_TEST

START_TEST(invariant_07_a_new_page_is_found_though_others_are_known)
{
	struct memslot_slot *slot = confined(3000, _i ? MEMSLOT_RESET_RESTORE : MEMSLOT_RESET_AUTO);

	instantiate(slot, NULL, PAGES(3000));
	for (size_t page = 0; page < 2900; page += test_is_brief() ? 25 : 1) {
		dirty_pages(slot, 0, 8, 1);
		if (page % 3 == 1)
			base_of(slot)[PAGES(page + 10)] = 1;
		reset(slot);
		ck_assert_uint_eq(base_of(slot)[PAGES(page + 10)], 0);
		ck_assert(test_zero(base_of(slot), PAGES(8)));
	}
	assert_zeros(slot, PAGES(3000));
	destroy(slot);
}
END_TEST

/* --- twins --- */

struct twin {
	struct memslot_slot *slot;
	struct faults faults;
	uint64_t reading; /* the first one's counter when it last reset the slot */
	uint64_t inside;  /* faults expected inside the reset */
	bool equal;	  /* the second one got to the same */
	int error;
};

/* Make the set exact, and leave with a reading. */
static void *first_thread(void *argument)
{
	struct twin *twin = argument;

	for (int i = 0; i < 400; i++)
		fault_once(&twin->faults);
	twin->error = memslot_slot_instantiate(twin->slot, NULL, PAGES(64));
	for (int i = 0; i < 3 && !twin->error; i++) {
		dirty_pages(twin->slot, 0, 4, 1);
		twin->error = memslot_slot_reset(twin->slot);
	}
	twin->reading = test_faults();
	return NULL;
}

/* Write a page that is in no set, then make the counter say what the first one's said, but for the
 * faults of the reset itself up to its reading. */
static void write_and_reset(struct twin *twin)
{
	base_of(twin->slot)[PAGES(40)] = 'S';
	twin->equal = fault_until(&twin->faults, twin->reading - twin->inside);
	twin->error = memslot_slot_reset(twin->slot);
}

static void *second_thread(void *twin)
{
	write_and_reset(twin);
	return NULL;
}

static void run_thread(void *(*run)(void *), struct twin *twin)
{
	pthread_t thread;

	twin->error = -1;
	ck_assert_int_eq(pthread_create(&thread, NULL, run, twin), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(twin->error, 0);
}

START_TEST(invariant_07_another_threads_counter_proves_nothing)
{
	unsigned equal = 0;

	for (int round = 0; round < 20 && equal < 5; round++) {
		struct twin twin = {.slot = confined(64, MEMSLOT_RESET_RESTORE),
				.faults = faults_new(4000)};
		run_thread(first_thread, &twin);
		run_thread(second_thread, &twin);
		equal += twin.equal;
		assert_zeros(twin.slot, PAGES(64));
		destroy(twin.slot);
	}
	/* Under a sanitizer a thread may start with more faults than the first one ever had. */
	SKIP_IF(equal == 0, "no two threads here have the same counter");
}
END_TEST

/* Copy what a reset writes to of this process's memory, but for the slot's epoch and evidence. */
static int warm_up(struct memslot_slot *slot)
{
	struct memslot_slot *other = confined(64, MEMSLOT_RESET_RESTORE);

	for (int i = 0; i < 3; i++) {
		child_check(memslot_slot_instantiate(other, NULL, PAGES(64)) == 0);
		dirty_pages(other, 0, 4, 1);
		child_check(memslot_slot_reset(other) == 0);
	}
	memslot_slot_set_user(slot, other);
	dirty_pages(slot, 0, 4, 1);
	return memslot_slot_destroy(other);
}

static int reset_in_child(void *argument)
{
	struct twin *twin = argument;

	child_check(warm_up(twin->slot) == 0);
	write_and_reset(twin);
	child_check(twin->error == 0);
	child_check(slot_shows(twin->slot, 0, 0, 0, PAGES(64)));
	return twin->equal ? 0 : 77;
}

START_TEST(invariant_07_a_childs_counter_proves_nothing)
{
	struct twin twin = {.slot = confined(64, MEMSLOT_RESET_RESTORE)};
	int (*const makers[])(int (*)(void *), void *) = {test_in_child, test_in_clone};
	unsigned equal = 0;

	for (unsigned round = 0; round < 24; round++) {
		int status;
		/* More than a child's own: its counter begins at 0. */
		twin.faults = faults_new(60000);
		for (int i = 0; i < 1000; i++)
			fault_once(&twin.faults);
		instantiate(twin.slot, NULL, PAGES(64));
		for (int i = 0; i < 3; i++) {
			dirty_pages(twin.slot, 0, 4, 1);
			reset(twin.slot);
		}
		twin.reading = test_faults();
		twin.inside = round / 2;
		status = makers[round % 2](reset_in_child, &twin);
		ck_assert_msg(status == 0 || status == 77, "the child says %d", status);
		equal += status == 0;
	}
	ck_assert_uint_gt(equal, 0);
	destroy(twin.slot);
}
END_TEST

/* What the library itself makes resident is in the set from the start, or the set is not exact. */
START_TEST(invariant_07_populated_pages_are_known)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.flags = MEMSLOT_SLOT_CONFINED | MEMSLOT_SLOT_POPULATE,
			.reset_method = MEMSLOT_RESET_RESTORE);

	/* More than one: at the first ones this test itself faults. */
	for (size_t page = 0; page < 40; page++) {
		struct memslot_slot *slot = slot_new(PAGES(64), &opts);
		instantiate(slot, NULL, PAGES(64));
		if (memslot_feature("pagemap_scan") == 1)
			ck_assert_uint_eq(stats_of(slot).retained_pages, 64);
		base_of(slot)[PAGES(page)] = 'S';
		reset(slot);
		assert_zeros(slot, PAGES(64));
		destroy(slot);
	}
}
END_TEST

/* --- withdrawn promises --- */

static void *write_page(void *at)
{
	*(volatile unsigned char *)at = 'S';
	return NULL;
}

static void write_from_other_thread(void *at)
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, write_page, at), 0);
	pthread_join(thread, NULL);
}

/* The thread exists beforehand: making one faults, which would hide what is tested. */
static struct {
	pthread_barrier_t barrier;
	unsigned char *to;
	bool stop;
} worker;

static void *work(void *unused)
{
	(void)unused;
	for (;;) {
		pthread_barrier_wait(&worker.barrier);
		if (worker.stop)
			return NULL;
		*(volatile unsigned char *)worker.to = 'S';
		pthread_barrier_wait(&worker.barrier);
	}
}

static void worker_write(unsigned char *to)
{
	worker.to = to;
	pthread_barrier_wait(&worker.barrier);
	pthread_barrier_wait(&worker.barrier);
}

START_TEST(unconfine_withdraws_the_promise_until_the_next_hand_out)
{
	struct memslot_slot *slot = confined(64, MEMSLOT_RESET_RESTORE);
	pthread_t thread;
	uint64_t known;

	pthread_barrier_init(&worker.barrier, NULL, 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, work, NULL), 0);
	for (size_t round = 0; round < 30; round++) {
		instantiate(slot, NULL, PAGES(64));
		dirty_pages(slot, 0, 4, 1);
		reset(slot);
		memslot_slot_unconfine(slot);
		worker_write(base_of(slot) + PAGES(10 + round));
		reset(slot);
		assert_zeros(slot, PAGES(64));
		/* Still withdrawn after a reset in hand. */
		worker_write(base_of(slot) + PAGES(11 + round));
		reset(slot);
		assert_zeros(slot, PAGES(64));
	}
	worker.stop = true;
	pthread_barrier_wait(&worker.barrier);
	pthread_join(thread, NULL);
	/* instantiate gives the promise back. */
	instantiate(slot, NULL, PAGES(64));
	known = stats_of(slot).resets_known;
	for (int round = 0; round < 20; round++) {
		dirty_pages(slot, 0, 4, 1);
		reset(slot);
	}
	if (memslot_feature("fault_counter") == 1 && memslot_feature("pagemap_scan") == 1)
		ck_assert_uint_gt(stats_of(slot).resets_known, known);
	destroy(slot);
}
END_TEST

START_TEST(unconfine_works_from_another_thread)
{
	struct memslot_slot *slot = confined(64, MEMSLOT_RESET_AUTO);

	instantiate(slot, NULL, PAGES(64));
	dirty_pages(slot, 0, 4, 1);
	reset(slot);
	memslot_slot_unconfine(slot);
	for (size_t page = 10; page < 60; page++) {
		write_from_other_thread(base_of(slot) + PAGES(page));
		reset(slot);
		assert_zeros(slot, PAGES(64));
	}
	destroy(slot);
}
END_TEST

START_TEST(invariant_10_a_hold_since_the_last_reset_forces_a_scan)
{
	struct memslot_slot *slot = confined(64, MEMSLOT_RESET_RESTORE);
	pthread_t thread;

	worker.stop = false;
	pthread_barrier_init(&worker.barrier, NULL, 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, work, NULL), 0);
	instantiate(slot, NULL, PAGES(64));
	for (size_t round = 0; round < 30; round++) {
		dirty_pages(slot, 0, 4, 1);
		reset(slot);
		/* The promise allows others under a hold; the hold is over at the reset. */
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
		worker_write(base_of(slot) + PAGES(10 + round));
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
		reset(slot);
		assert_zeros(slot, PAGES(64));
	}
	worker.stop = true;
	pthread_barrier_wait(&worker.barrier);
	pthread_join(thread, NULL);
	destroy(slot);
}
END_TEST

/* The pin outlives a reset: who writes under it afterwards moves no counter of ours. */
START_TEST(invariant_10_a_pin_that_outlives_a_reset_forces_a_scan)
{
	struct memslot_slot *slot = confined(64, MEMSLOT_RESET_RESTORE);
	pthread_t thread;

	worker.stop = false;
	pthread_barrier_init(&worker.barrier, NULL, 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, work, NULL), 0);
	instantiate(slot, NULL, PAGES(64));
	for (size_t round = 0; round < 30; round++) {
		dirty_pages(slot, 0, 4, 1);
		reset(slot);
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_PIN), 0);
		reset(slot);
		reset(slot);
		worker_write(base_of(slot) + PAGES(10 + round));
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), 0);
		reset(slot);
		assert_zeros(slot, PAGES(64));
	}
	worker.stop = true;
	pthread_barrier_wait(&worker.barrier);
	pthread_join(thread, NULL);
	destroy(slot);
}
END_TEST

/* Exempt pages that the copy budget has no room for stay private, in no set: nothing was written
 * since, and yet they must go at the next hand-out. */
START_TEST(invariant_07_exempt_pages_beyond_the_budget_are_not_forgotten)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .copy_budget = PAGES(4),
			.flags = MEMSLOT_SLOT_CONFINED, .reset_method = MEMSLOT_RESET_RESTORE);
	/* More than one: at the first ones this test itself faults. */
	for (unsigned round = 0; round < 20; round++) {
		struct memslot_slot *slot = slot_new(PAGES(64), &opts);
		instantiate(slot, NULL, PAGES(64));
		dirty_pages(slot, 0, 4, 1);
		ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(40), PAGES(1)), 0);
		base_of(slot)[PAGES(40)] = 'S';
		for (unsigned i = 0; i < 3; i++)
			reset(slot);
		ck_assert_uint_eq(base_of(slot)[PAGES(40)], 'S');
		instantiate(slot, NULL, PAGES(64));
		assert_zeros(slot, PAGES(64));
		destroy(slot);
	}
}
END_TEST

/* Invariant 7, exact: what the library itself makes private enters the set or clears the bit. */
START_TEST(invariant_07_what_calls_in_between_make_private_is_cleaned)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.flags = MEMSLOT_SLOT_CONFINED | (_i & 1 ? MEMSLOT_SLOT_POPULATE : 0),
			.reset_method = _i & 2 ? MEMSLOT_RESET_AUTO : MEMSLOT_RESET_RESTORE);
	struct memslot_slot *slot = slot_new(PAGES(300), &opts);
	struct memslot_image *mapped = image_of(40, 100, 5), *copied = image_of(10, 3, 6);

	for (unsigned round = 0; round < 60; round++) {
		struct memslot_image *images[] = {mapped, copied, NULL};
		struct memslot_image *image = images[round % 3];
		instantiate(slot, image, PAGES(200));
		for (unsigned again = 0; again < 4; again++) {
			switch ((round / 3 + again) % 5) {
			case 0:
				ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(200)), 0);
				break;
			case 1:
				ck_assert_int_eq(memslot_slot_resize(slot, PAGES(300)), 0);
				break;
			case 2:
				ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(150), PAGES(2)), 0);
				break;
			case 3:
				ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
				break;
			default:
				break;
			}
			/* Already resident pages: writing to them moves no counter. */
			dirty_pages(slot, round % 7, 140, again + 1);
			reset(slot);
			instantiate(slot, image, PAGES(200));
			if (image == mapped)
				assert_shows(slot, 40, 100, 5, PAGES(200));
			else if (image)
				assert_shows(slot, 10, 3, 6, PAGES(200));
			else
				assert_zeros(slot, PAGES(200));
		}
	}
	memslot_image_unref(mapped);
	memslot_image_unref(copied);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("confined");
	TCase *steady = test_case(suite, "steady state"), *twins = test_case(suite, "twins");
	TCase *withdrawn = test_case(suite, "withdrawn promises");

	tcase_add_loop_test(steady, a_steady_confined_slot_is_reset_without_a_fault_or_a_scan, 0, 2);
	tcase_add_test(steady, a_slot_that_is_not_confined_is_never_reset_by_the_counter);
	tcase_add_loop_test(steady, invariant_07_a_new_page_is_found_though_others_are_known, 0, 2);
	tcase_add_loop_test(steady, invariant_07_what_calls_in_between_make_private_is_cleaned, 0, 4);
	tcase_add_test(steady, invariant_07_populated_pages_are_known);
	tcase_add_test(steady, invariant_07_exempt_pages_beyond_the_budget_are_not_forgotten);
	tcase_add_test(twins, invariant_07_another_threads_counter_proves_nothing);
	tcase_add_test(twins, invariant_07_a_childs_counter_proves_nothing);
	tcase_add_test(withdrawn, unconfine_withdraws_the_promise_until_the_next_hand_out);
	tcase_add_test(withdrawn, unconfine_works_from_another_thread);
	tcase_add_test(withdrawn, invariant_10_a_hold_since_the_last_reset_forces_a_scan);
	tcase_add_test(withdrawn, invariant_10_a_pin_that_outlives_a_reset_forces_a_scan);
	return suite;
}
