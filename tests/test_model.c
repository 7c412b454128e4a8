/* SPDX-License-Identifier: MIT */
/*
 * test_model.c - random lives of slots against plain arrays: see model.h.
 *
 * MEMSLOT_MODEL_LIVES=n   so many lives for each test instead
 * MEMSLOT_MODEL_LIFE=n    only this one: to see a mismatch again
 */
#define _GNU_SOURCE
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *disabled(void)
{
	const char *list = getenv("MEMSLOT_DISABLE");

	return list && *list ? list : NULL;
}

/* 200 under AUTO with all features and with none, else 20; 20 for each forced method. */
static unsigned lives(uint32_t method)
{
	const char *text = getenv("MEMSLOT_MODEL_LIVES");
	unsigned count = method == MEMSLOT_RESET_AUTO ? 200 : 20;

	if (text && *text)
		return (unsigned)strtoul(text, NULL, 0);
	return test_rounds(test_faults_allowed() ? count : count / 10);
}

static void live_all(uint32_t method, struct model_coverage *coverage)
{
	const char *only = getenv("MEMSLOT_MODEL_LIFE");
	unsigned count = lives(method), fds = 0;

	model_scratch_open();
	for (unsigned number = 0; number < count; number++) {
		if (only && *only && number != (unsigned)strtoul(only, NULL, 0))
			continue;
		model_live(number, method, coverage);
		if (number == 5)
			fds = test_fd_count();
		if (number > 5 && fds)
			ck_assert_uint_eq(test_fd_count(), fds);
	}
	model_scratch_close();
}

static void tell(const char *name, const struct model_coverage *seen)
{
	fprintf(stderr,
		"# model %s: %" PRIu64 " operations, %" PRIu64 " resets compared: known %" PRIu64
		", scan %" PRIu64 ", drop %" PRIu64 ", remakes %" PRIu64 "; evictions %" PRIu64
		", trials %" PRIu64 ", hidden %" PRIu64 ", copied images %" PRIu64
		", locked %" PRIu64 "; %" PRIu64 " MiB restored, %" PRIu64 " dropped\n",
		name, seen->operations, seen->compared, seen->known, seen->scan, seen->drop,
		seen->remakes, seen->evictions, seen->trials, seen->hides, seen->copied,
		seen->locked_copies, seen->restored >> 20, seen->dropped >> 20);
}

START_TEST(lives_under_auto)
{
	struct model_coverage seen = {0};

	live_all(MEMSLOT_RESET_AUTO, &seen);
	tell("auto", &seen);
	/* A model that never gets there proves nothing. */
	if (disabled() || lives(MEMSLOT_RESET_AUTO) < 100)
		return;
	ck_assert_uint_gt(seen.scan, 0);
	ck_assert_uint_gt(seen.drop, 0);
	ck_assert_uint_gt(seen.evictions, 0);
	ck_assert_uint_gt(seen.trials, 0);
	ck_assert_uint_gt(seen.hides, 0);
	ck_assert_uint_gt(seen.copied, 0);
	ck_assert_uint_gt(seen.remakes, 0);
	if (memslot_feature("fault_counter") == 1)
		ck_assert_uint_gt(seen.known, 0);
}
END_TEST

START_TEST(lives_of_forced_restore)
{
	struct model_coverage seen = {0};

	live_all(MEMSLOT_RESET_RESTORE, &seen);
	tell("restore", &seen);
}
END_TEST

START_TEST(lives_of_forced_scan)
{
	struct model_coverage seen = {0};

	live_all(MEMSLOT_RESET_SCAN, &seen);
	tell("scan", &seen);
}
END_TEST

START_TEST(lives_of_forced_drop)
{
	struct model_coverage seen = {0};

	live_all(MEMSLOT_RESET_DROP, &seen);
	tell("drop", &seen);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("model");
	TCase *tcase = test_case(suite, "lives");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_unchecked_fixture(tcase, test_swap_begin, test_swap_end);
	tcase_add_test(tcase, lives_under_auto);
	tcase_add_test(tcase, lives_of_forced_restore);
	tcase_add_test(tcase, lives_of_forced_scan);
	tcase_add_test(tcase, lives_of_forced_drop);
	return suite;
}
