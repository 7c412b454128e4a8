/* SPDX-License-Identifier: MIT */
/*
 * test_pool_inject.c - every call of pool.h in many states, with every system call and allocation
 * in it failing once, or from then on: see pool_inject.h.
 */
#define _GNU_SOURCE
#include "pool_inject.h"

/*
 * One round: every pair of state and call with one of the edges, by turns. Two rounds: with every
 * edge. Less than one: some of the pairs.
 */
static bool takes_part(int state, int call)
{
	struct test_rng rng = test_rng((uint64_t)(state * 64 + call));
	unsigned percent = test_rounds(100);
	bool first = (state / STAGE_EDGES + call) % STAGE_EDGES == state % STAGE_EDGES;

	if (!first)
		percent = percent > 100 ? percent - 100 : 0;
	return test_below(&rng, 100) < percent;
}

START_TEST(a_call_that_fails_leaves_no_stale_byte_and_loses_no_slot)
{
	for (int call = 0; call < stage_calls(); call++) {
		if (takes_part(_i, call))
			stage_sweep(_i, call);
	}
}
END_TEST

START_TEST(a_pool_that_cannot_be_created_leaves_nothing)
{
	stage_sweep_create();
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("pool_inject");
	TCase *tcase = test_case(suite, "injection");

	tcase_set_timeout(tcase, 3600);
	tcase_add_unchecked_fixture(tcase, stage_images_begin, stage_images_end);
	tcase_add_test(tcase, a_pool_that_cannot_be_created_leaves_nothing);
	tcase_add_loop_test(
		tcase, a_call_that_fails_leaves_no_stale_byte_and_loses_no_slot, 0, stage_states());
	return suite;
}
