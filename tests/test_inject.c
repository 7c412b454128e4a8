/* SPDX-License-Identifier: MIT */
/*
 * test_inject.c - every call of slot.h in many states, with every system call and allocation in it
 * failing once, or from then on: see inject.h. Images have image_inject.c.
 */
#define _GNU_SOURCE
#include "inject.h"

#include <errno.h>
#include <sys/syscall.h>

/*
 * One round: every pair of state and call with one of the edges, by turns. Two rounds: with every
 * edge. Less than one: some of the pairs.
 */
static bool takes_part(int state, int call)
{
	struct test_rng rng = test_rng((uint64_t)(state * 64 + call));
	unsigned percent = test_rounds(100);
	bool first = (state / INJECT_EDGES + call) % INJECT_EDGES == state % INJECT_EDGES;

	if (!first)
		percent = percent > 100 ? percent - 100 : 0;
	return test_below(&rng, 100) < percent;
}

START_TEST(a_call_that_fails_leaves_no_stale_byte_and_no_leak)
{
	for (int call = 0; call < inject_calls(); call++) {
		if (takes_part(_i, call))
			inject_sweep(_i, call);
	}
}
END_TEST

START_TEST(a_slot_that_cannot_be_created_leaves_nothing)
{
	inject_sweep_create();
}
END_TEST

/* The pinned pages are what a device writes to: mapping over them would lose what it writes. */
START_TEST(a_checkpoint_that_failed_midway_is_not_mapped_over_under_a_pin)
{
	struct memslot_slot_stats before = {.size = sizeof before}, after = {.size = sizeof after};
	struct model_slot *slot;
	int answer, state = _i;

	while (!inject_state_has(state, "mixed"))
		state += INJECT_EDGES;
	model_log_begin((unsigned)state, 0);
	slot = inject_state(state);
	model_expect(memslot_slot_stats(slot->slot, &before), 0);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_PIN), 0);
	answer = memslot_slot_reset(slot->slot);
	model_expect(memslot_slot_stats(slot->slot, &after), 0);
	ck_assert_uint_eq(after.remakes, before.remakes);
	ck_assert(answer == 0 || answer == -EBUSY);
	if (answer == 0) {
		model_apply_reset(slot);
		model_compare(slot);
	}
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_PIN), 0);
	model_reset(slot, &inject_coverage);
	model_slot_destroy(slot, &inject_coverage);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("inject");
	TCase *tcase = test_case(suite, "injection");

	tcase_set_timeout(tcase, 3600);
	tcase_add_unchecked_fixture(tcase, inject_images_begin, inject_images_end);
	tcase_add_test(tcase, a_slot_that_cannot_be_created_leaves_nothing);
	tcase_add_loop_test(tcase, a_checkpoint_that_failed_midway_is_not_mapped_over_under_a_pin,
		0, INJECT_EDGES);
	tcase_add_loop_test(
		tcase, a_call_that_fails_leaves_no_stale_byte_and_no_leak, 0, inject_states());
	return suite;
}
