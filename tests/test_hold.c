/* SPDX-License-Identifier: MIT */
/* test_hold.c - holds: who is told -EBUSY, what still works, from which thread. Invariant 15. */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct memslot_slot *slot_with_image(int kind)
{
	struct memslot_slot *slot = slot_of_kind(kind, PAGES(50));
	struct memslot_image *image = image_of(10, 20, 4);

	instantiate(slot, image, PAGES(40));
	memslot_image_unref(image);
	return slot;
}

static void hold(struct memslot_slot *slot, uint32_t kind)
{
	ck_assert_int_eq(memslot_slot_hold(slot, kind), 0);
}

static void unhold(struct memslot_slot *slot, uint32_t kind)
{
	ck_assert_int_eq(memslot_slot_unhold(slot, kind), 0);
}

/* What both kinds of hold forbid, and what none does. */
static void assert_common(struct memslot_slot *slot)
{
	struct memslot_image *other = image_of(0, 10, 6), *image = (struct memslot_image *)1;
	struct memslot_slot_stats stats = {.size = sizeof stats};
	struct memslot_run runs[64];
	size_t count;

	ck_assert_int_eq(memslot_slot_instantiate(slot, other, PAGES(40)), -EBUSY);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, PAGES(40)), -EBUSY);
	ck_assert_int_eq(memslot_slot_instantiate(slot, memslot_slot_image(slot), PAGES(39)), -EBUSY);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), -EBUSY);
	ck_assert_int_eq(memslot_slot_resize(slot, memslot_slot_size(slot) - 4096), -EBUSY);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(2)), -EBUSY);
	ck_assert_int_eq(memslot_slot_destroy(slot), -EBUSY);
	ck_assert_ptr_eq(image, (struct memslot_image *)1);
	ck_assert_int_eq(memslot_slot_written(slot, runs, 64, &count), 0);
	ck_assert_int_eq(memslot_slot_stats(slot, &stats), 0);
	memslot_image_unref(other);
}

START_TEST(invariant_15_under_hold_io_nothing_is_reset)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_image *image = (struct memslot_image *)1;

	dirty_pages(slot, 0, 40, 1);
	hold(slot, MEMSLOT_HOLD_IO);
	assert_common(slot);
	ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
	ck_assert_int_eq(memslot_slot_instantiate(slot, memslot_slot_image(slot), PAGES(40)), -EBUSY);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), -EBUSY);
	ck_assert_ptr_eq(image, (struct memslot_image *)1);
	for (size_t page = 0; page < 40; page++)
		ck_assert_uint_eq(base_of(slot)[PAGES(page) + page], 0xdd);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(45)), 0);
	unhold(slot, MEMSLOT_HOLD_IO);
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	destroy(slot);
}
END_TEST

START_TEST(invariant_15_under_hold_pin_reset_copies_in_place)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_image *image = memslot_slot_image(slot), *captured;

	hold(slot, MEMSLOT_HOLD_PIN);
	for (unsigned round = 0; round < 6; round++) {
		uint64_t dropped = stats_of(slot).bytes_dropped;
		dirty_pages(slot, round, 30, round + 1);
		assert_common(slot);
		if (round % 2)
			reset(slot);
		else
			instantiate(slot, image, PAGES(40));
		assert_shows(slot, 10, 20, 4, PAGES(40));
		ck_assert_uint_eq(stats_of(slot).bytes_dropped, dropped);
	}
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &captured), 0);
	memslot_image_unref(captured);
	/* Growing is no reset; but the reset would have to lower the edge again. */
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(45)), 0);
	dirty_pages(slot, 40, 5, 1);
	ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, PAGES(40)), -EBUSY);
	ck_assert_uint_eq(base_of(slot)[PAGES(42) + 2], 0xdd);
	instantiate(slot, image, PAGES(45));
	assert_shows(slot, 10, 20, 4, PAGES(45));
	unhold(slot, MEMSLOT_HOLD_PIN);
	dirty_all(slot);
	instantiate(slot, image, PAGES(40));
	assert_shows(slot, 10, 20, 4, PAGES(40));
	destroy(slot);
}
END_TEST

START_TEST(holds_count)
{
	struct memslot_slot *slot = slot_with_image(_i);

	for (int i = 0; i < 100; i++) {
		hold(slot, MEMSLOT_HOLD_IO);
		hold(slot, MEMSLOT_HOLD_PIN);
	}
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
		unhold(slot, MEMSLOT_HOLD_IO);
	}
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), -EINVAL);
	for (int i = 0; i < 100; i++) {
		reset(slot);
		ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(1)), -EBUSY);
		unhold(slot, MEMSLOT_HOLD_PIN);
	}
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(1)), 0);
	destroy(slot);
}
END_TEST

START_TEST(other_kinds_and_unheld_slots_are_einval)
{
	struct memslot_slot *slot = slot_with_image(0);

	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), -EINVAL);
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), -EINVAL);
	for (uint32_t kind = 0; kind < 40; kind++) {
		if (kind == MEMSLOT_HOLD_IO || kind == MEMSLOT_HOLD_PIN)
			continue;
		ck_assert_int_eq(memslot_slot_hold(slot, kind), -EINVAL);
		ck_assert_int_eq(memslot_slot_unhold(slot, kind), -EINVAL);
	}
	hold(slot, MEMSLOT_HOLD_IO);
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), -EINVAL);
	unhold(slot, MEMSLOT_HOLD_IO);
	reset(slot);
	destroy(slot);
}
END_TEST

/* A count that wrapped into the other kind's would let a reset through. */
START_TEST(too_many_holds_are_emsgsize)
{
	static const uint32_t kinds[] = {MEMSLOT_HOLD_IO, MEMSLOT_HOLD_PIN};
	struct memslot_slot *slot;
	uint64_t count = 0;
	int error = 0;

	/* Sixteen million holds. */
	SKIP_IF(test_is_brief(), "a brief run");
	SKIP_IF(memslot_feature("wipe_on_fork") != 1, "each hold is a system call here");
	slot = slot_with_image(0);
	while (!error && count <= UINT64_C(1) << 26) {
		error = memslot_slot_hold(slot, kinds[_i]);
		count += !error;
	}
	ck_assert_int_eq(error, -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_unhold(slot, kinds[!_i]), -EINVAL);
	ck_assert_int_eq(memslot_slot_destroy(slot), -EBUSY);
	while (!memslot_slot_unhold(slot, kinds[_i]))
		count--;
	ck_assert_uint_eq(count, 0);
	ck_assert_int_eq(memslot_slot_unhold(slot, kinds[_i]), -EINVAL);
	destroy(slot);
}
END_TEST

/* --- threads --- */

static void *unhold_there(void *slot)
{
	return memslot_slot_unhold(slot, MEMSLOT_HOLD_IO) == 0 ? slot : NULL;
}

START_TEST(unhold_works_from_another_thread)
{
	struct memslot_slot *slot = slot_with_image(_i);
	pthread_t thread;
	void *done;

	for (int round = 0; round < 10; round++) {
		dirty_pages(slot, 0, 30, 3);
		hold(slot, MEMSLOT_HOLD_IO);
		ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
		ck_assert_int_eq(pthread_create(&thread, NULL, unhold_there, slot), 0);
		pthread_join(thread, &done);
		ck_assert_ptr_eq(done, slot);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	destroy(slot);
}
END_TEST

/* Holds against resets: while one is believed to be there, no reset runs; and each was believed. */
static struct {
	struct memslot_slot *slot;
	_Atomic(bool) stop;
	_Atomic(unsigned) holds, refused, wrong;
} race;

static void *hold_and_write(void *unused)
{
	volatile unsigned char *byte = base_of(race.slot) + PAGES(5);

	(void)unused;
	while (!race.stop) {
		int error = memslot_slot_hold(race.slot, MEMSLOT_HOLD_IO);
		if (error) {
			race.wrong += error != -EBUSY;
			race.refused++;
			continue;
		}
		/* Nobody may reset the slot now. */
		*byte = 7;
		for (int i = 0; i < 50; i++)
			race.wrong += *byte != 7;
		*byte = 0;
		race.holds++;
		race.wrong += memslot_slot_unhold(race.slot, MEMSLOT_HOLD_IO) != 0;
	}
	return NULL;
}

START_TEST(invariant_15_a_reset_sees_every_hold_that_succeeded)
{
	pthread_t thread;
	unsigned resets = 0;

	race.slot = slot_with_image(_i);
	ck_assert_int_eq(pthread_create(&thread, NULL, hold_and_write, NULL), 0);
	for (unsigned round = test_rounds(1000); round || !race.holds || !resets; round -= round > 0) {
		int error = memslot_slot_reset(race.slot);
		ck_assert(error == 0 || error == -EBUSY);
		resets += error == 0;
	}
	race.stop = true;
	pthread_join(thread, NULL);
	ck_assert_uint_eq(race.wrong, 0);
	reset(race.slot);
	assert_shows(race.slot, 10, 20, 4, PAGES(40));
	destroy(race.slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("hold");
	TCase *busy = test_case(suite, "busy"), *counts = test_case(suite, "counts");
	TCase *threads = test_case(suite, "threads");

	each_kind(busy, invariant_15_under_hold_io_nothing_is_reset);
	each_kind(busy, invariant_15_under_hold_pin_reset_copies_in_place);
	each_kind(counts, holds_count);
	tcase_add_test(counts, other_kinds_and_unheld_slots_are_einval);
	tcase_add_loop_test(counts, too_many_holds_are_emsgsize, 0, 2);
	each_kind(threads, unhold_works_from_another_thread);
	each_kind(threads, invariant_15_a_reset_sees_every_hold_that_succeeded);
	return suite;
}
