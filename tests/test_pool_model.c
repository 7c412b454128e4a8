/* SPDX-License-Identifier: MIT */
/*
 * test_pool_model.c - random lives of whole pools against plain arrays: see pool_model.h.
 *
 * MEMSLOT_MODEL_LIVES=n   so many lives for each test instead
 * MEMSLOT_MODEL_LIFE=n    only this one: to see a mismatch again
 */
#define _GNU_SOURCE
#include "pool_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned lives(unsigned count)
{
	const char *text = getenv("MEMSLOT_MODEL_LIVES");

	if (text && *text)
		return (unsigned)strtoul(text, NULL, 0);
	return test_rounds(test_faults_allowed() ? count : count / 10);
}

static void live_all(unsigned count, uint32_t flags, struct pool_coverage *coverage)
{
	const char *only = getenv("MEMSLOT_MODEL_LIFE");
	unsigned fds = 0;

	model_scratch_open();
	for (unsigned number = 0; number < count; number++) {
		if (only && *only && number != (unsigned)strtoul(only, NULL, 0))
			continue;
		pool_live(number, flags, coverage);
		if (number == 5)
			fds = test_fd_count();
		if (number > 5 && fds)
			ck_assert_uint_eq(test_fd_count(), fds);
	}
	model_scratch_close();
}

static void tell(const char *name, const struct pool_coverage *seen)
{
	fprintf(stderr,
		"# pool model %s: %" PRIu64 " hand-outs compared, %" PRIu64 " warm; %" PRIu64
		" queued, %" PRIu64 " batches, %" PRIu64 " held, %" PRIu64
		" waiters served, %" PRIu64 " cancelled, %" PRIu64 " forgotten, %" PRIu64
		" aged, %" PRIu64 " prewarmed, %" PRIu64 " healed, %" PRIu64 " exhausted, %" PRIu64
		" children\n",
		name, seen->acquires, seen->hits, seen->queued, seen->batches, seen->held,
		seen->served, seen->cancelled, seen->forgotten, seen->aged, seen->prewarmed,
		seen->healed, seen->exhausted, seen->children);
}

START_TEST(lives_of_pools)
{
	struct pool_coverage seen = {0};

	live_all(lives(200), 0, &seen);
	tell("plain", &seen);
	/* A model that never gets there proves nothing. */
	if (lives(200) < 100)
		return;
	ck_assert_uint_gt(seen.hits, 0);
	ck_assert_uint_gt(seen.held, 0);
	ck_assert_uint_gt(seen.served, 0);
	ck_assert_uint_gt(seen.healed, 0);
	ck_assert_uint_gt(seen.aged, 0);
	ck_assert_uint_gt(seen.children, 0);
	if (memslot_feature("dontneed") == 1)
		ck_assert_uint_gt(seen.batches, 0);
}
END_TEST

START_TEST(lives_of_pools_that_verify)
{
	struct pool_coverage seen = {0};

	live_all(lives(60), MEMSLOT_POOL_VERIFY, &seen);
	tell("verified", &seen);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("pool_model");
	TCase *tcase = test_case(suite, "lives");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_unchecked_fixture(tcase, test_swap_begin, test_swap_end);
	tcase_add_test(tcase, lives_of_pools);
	tcase_add_test(tcase, lives_of_pools_that_verify);
	return suite;
}
