/* SPDX-License-Identifier: MIT */
/* test_on_reset.c - the callback: when it runs, what it may call, what its failure does. */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct seen {
	unsigned calls;
	int answer; /* what it returns */
	size_t page; /* it writes there; 0: nowhere */
	bool calls_back;
	unsigned char first; /* the slot's first byte at the call */
	size_t size;
	struct memslot_slot *slot;
	int errors; /* of calls made inside that did not answer as documented */
};

static void expect(struct seen *seen, int got, int wanted)
{
	seen->errors += got != wanted;
}

/* Everything that is forbidden inside, and everything that is allowed. */
static void call_everything(struct seen *seen, struct memslot_slot *slot)
{
	struct memslot_image *image = NULL;
	struct memslot_run runs[64];
	size_t count, size = memslot_slot_size(slot);
	struct memslot_slot_stats stats = {.size = sizeof stats};

	expect(seen, memslot_slot_reset(slot), -EBUSY);
	expect(seen, memslot_slot_instantiate(slot, NULL, size), -EBUSY);
	expect(seen, memslot_slot_resize(slot, size - PAGES(1)), -EBUSY);
	expect(seen, memslot_slot_discard(slot, 0, size), -EBUSY);
	expect(seen, memslot_slot_checkpoint(slot, NULL), -EBUSY);
	expect(seen, memslot_slot_destroy(slot), -EBUSY);
	expect(seen, memslot_slot_capture(slot, NULL, &image), 0);
	memslot_image_unref(image);
	expect(seen, memslot_slot_protect(slot, PAGES(1), PAGES(1), PROT_READ), 0);
	expect(seen, memslot_slot_exempt(slot, PAGES(2), PAGES(1)), 0);
	expect(seen, memslot_slot_written(slot, runs, 64, &count), 0);
	expect(seen, memslot_slot_stats(slot, &stats), 0);
	expect(seen, memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
	expect(seen, memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
	memslot_slot_set_user(slot, seen);
	expect(seen, memslot_slot_user(slot) == seen, 1);
	memslot_slot_unconfine(slot);
}

static int on_reset(struct memslot_slot *slot, void *context)
{
	struct seen *seen = context;

	seen->calls++;
	seen->slot = slot;
	seen->size = memslot_slot_size(slot);
	seen->first = seen->size ? base_of(slot)[0] : 0;
	if (seen->page)
		memcpy(base_of(slot) + PAGES(seen->page), "seed", 4);
	if (seen->calls_back)
		call_everything(seen, slot);
	return seen->answer;
}

static struct memslot_slot *slot_calling(int kind, struct seen *seen)
{
	struct memslot_slot_opts opts = kind_opts(kind);

	memset(seen, 0, sizeof *seen);
	opts.on_reset = on_reset;
	opts.context = seen;
	return slot_new(PAGES(50), &opts);
}

static void assert_readonly(const unsigned char *at)
{
	if (test_faults_allowed())
		ck_assert_int_eq(fault_at(at, TEST_WRITE, NULL), SIGSEGV);
	ck_assert_int_eq(fault_at(at, TEST_READ, NULL), 0);
}

START_TEST(it_runs_last_in_every_instantiate_and_reset)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);
	struct memslot_image *image = image_of(0, 20, 5);

	ck_assert_uint_eq(seen.calls, 0);
	instantiate(slot, image, PAGES(30));
	ck_assert_uint_eq(seen.calls, 1);
	ck_assert_ptr_eq(seen.slot, slot);
	ck_assert_uint_eq(seen.size, PAGES(30));
	ck_assert_uint_eq(seen.first, test_byte(0, 5));
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(40)), 0);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(5)), 0);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	ck_assert_uint_eq(seen.calls, 1);
	dirty_pages(slot, 0, 40, 1);
	reset(slot);
	ck_assert_uint_eq(seen.calls, 2);
	ck_assert_uint_eq(seen.size, PAGES(40));
	instantiate(slot, NULL, 0);
	ck_assert_uint_eq(seen.calls, 3);
	ck_assert_uint_eq(seen.size, 0);
	memslot_image_unref(image);
	destroy(slot);
	ck_assert_uint_eq(seen.calls, 3);
}
END_TEST

/* What it writes comes after the counter's reading, so it is the next tenant's. Each time another
 * page: one that is in no set yet. */
START_TEST(invariant_07_what_it_writes_is_cleaned_next_time)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);

	instantiate(slot, NULL, PAGES(50));
	for (size_t page = 10; page < 50; page++) {
		dirty_pages(slot, 3, 1, 1);
		seen.page = page;
		reset(slot);
		ck_assert_mem_eq(base_of(slot) + PAGES(page), "seed", 4);
		memcpy(base_of(slot) + PAGES(page) + 100, "a tenant's secret", 17);
		dirty_pages(slot, 3, 1, 1);
		seen.page = 0;
		reset(slot);
		assert_zeros(slot, PAGES(50));
	}
	destroy(slot);
}
END_TEST

START_TEST(inside_it_changes_are_busy_and_the_rest_works)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);

	seen.calls_back = true;
	instantiate(slot, NULL, PAGES(40));
	ck_assert_int_eq(seen.errors, 0);
	dirty_pages(slot, 10, 30, 1);
	reset(slot);
	ck_assert_int_eq(seen.errors, 0);
	ck_assert_uint_eq(seen.calls, 2);
	seen.calls_back = false;
	/* What it exempted stays exempt, what it protected protected, until the next change. */
	assert_readonly(base_of(slot) + PAGES(1));
	base_of(slot)[PAGES(2)] = 7;
	reset(slot);
	ck_assert_uint_eq(base_of(slot)[PAGES(2)], 7);
	base_of(slot)[PAGES(2)] = 0;
	assert_zeros(slot, PAGES(40));
	destroy(slot);
}
END_TEST

/* --- unknown --- */

static void assert_stale(struct memslot_slot *slot)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};
	struct memslot_image *image = (struct memslot_image *)1;
	struct memslot_run run;
	size_t count = 7;

	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(30)), -ESTALE);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(1)), -ESTALE);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), -ESTALE);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), -ESTALE);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(1), PROT_READ), -ESTALE);
	ck_assert_int_eq(memslot_slot_exempt(slot, 0, PAGES(1)), -ESTALE);
	ck_assert_int_eq(memslot_slot_written(slot, &run, 1, &count), -ESTALE);
	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), -ESTALE);
	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_PIN), -ESTALE);
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), -EINVAL);
	ck_assert_int_eq(memslot_slot_stats(slot, &stats), 0);
	ck_assert(image == (struct memslot_image *)1 && count == 7);
}

/* W7 */
START_TEST(invariant_24_a_failing_callback_makes_the_slot_unknown_until_a_reset)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);
	struct memslot_image *image = image_of(2, 20, 5);

	instantiate(slot, image, PAGES(40));
	for (unsigned round = 0; round < 3; round++) {
		uint64_t remakes = stats_of(slot).remakes;
		dirty_all(slot);
		seen.answer = -EREMOTE;
		ck_assert_int_eq(memslot_slot_reset(slot), -EREMOTE);
		assert_stale(slot);
		ck_assert_int_eq(memslot_slot_reset(slot), -EREMOTE);
		assert_stale(slot);
		seen.answer = 0;
		reset(slot);
		assert_shows(slot, 2, 20, 5, PAGES(40));
		ck_assert_uint_gt(stats_of(slot).remakes, remakes);
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* W7: reset comes back to the last image and size that succeeded. */
START_TEST(invariant_24_instantiate_that_fails_so_is_remade_by_the_next)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);
	struct memslot_image *image = image_of(2, 20, 5), *other = image_of(0, 30, 6);

	instantiate(slot, image, PAGES(40));
	for (unsigned round = 0; round < 4; round++) {
		dirty_all(slot);
		seen.answer = -EREMOTE;
		ck_assert_int_eq(memslot_slot_instantiate(slot, other, PAGES(35)), -EREMOTE);
		assert_stale(slot);
		seen.answer = 0;
		if (round % 2) {
			instantiate(slot, other, PAGES(31));
			assert_shows(slot, 0, 30, 6, PAGES(31));
			instantiate(slot, image, PAGES(40));
		}
		reset(slot);
		assert_shows(slot, 2, 20, 5, PAGES(40));
	}
	memslot_image_unref(image);
	memslot_image_unref(other);
	destroy(slot);
}
END_TEST

START_TEST(an_unknown_slot_can_be_destroyed)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);

	seen.answer = -1;
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, PAGES(40)), -1);
	assert_stale(slot);
	destroy(slot);
}
END_TEST

START_TEST(a_positive_answer_is_success)
{
	struct seen seen;
	struct memslot_slot *slot = slot_calling(_i, &seen);

	seen.answer = 5;
	instantiate(slot, NULL, PAGES(40));
	dirty_all(slot);
	reset(slot);
	assert_zeros(slot, PAGES(40));
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("on_reset");
	TCase *runs = test_case(suite, "when and what"), *unknown = test_case(suite, "unknown");

	each_kind(runs, it_runs_last_in_every_instantiate_and_reset);
	each_kind(runs, invariant_07_what_it_writes_is_cleaned_next_time);
	each_kind(runs, inside_it_changes_are_busy_and_the_rest_works);
	each_kind(runs, a_positive_answer_is_success);
	each_kind(unknown, invariant_24_a_failing_callback_makes_the_slot_unknown_until_a_reset);
	each_kind(unknown, invariant_24_instantiate_that_fails_so_is_remade_by_the_next);
	each_kind(unknown, an_unknown_slot_can_be_destroyed);
	return suite;
}
