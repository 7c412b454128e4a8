/* SPDX-License-Identifier: MIT */
/*
 * test_retained.c - the retained set and the table of runs, against a plain array of flags.
 */
#include "common.h"

#include "slot/retained.h"
#include "slot/runs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 200
#define ROOM 64

struct model {
	struct ms_retained set;
	void *memory;
	bool in[PAGES]; /* what the set should hold */
};

static void model_begin(struct model *model)
{
	memset(model, 0, sizeof *model);
	model->memory = calloc(1, ms_retained_bytes(ROOM));
	ck_assert_ptr_nonnull(model->memory);
	ms_retained_init(&model->set, model->memory, ROOM);
}

static void model_compare(const struct model *model)
{
	size_t next = 0;

	for (size_t page = 0; page < PAGES; page++) {
		ck_assert_int_eq(ms_retained_has(&model->set, page), model->in[page]);
		ck_assert_uint_eq(ms_retained_below(&model->set, page), next);
		next += model->in[page];
	}
	ck_assert_uint_eq(model->set.count, next);
}

static void clip(struct model *model, size_t first, size_t end)
{
	ms_retained_clip(&model->set, first, end);
	for (size_t page = first; page < end; page++)
		model->in[page] = false;
}

/* A scan of [0, end) that finds each page with some probability; the model is told what fits. */
static void scan(struct model *model, struct test_rng *rng, size_t end)
{
	bool found[PAGES] = {false}, was[PAGES];
	size_t kept = 0, fresh = 0;
	struct ms_merge merge;

	memcpy(was, model->in, sizeof was);
	for (size_t page = 0; page < end; page++)
		found[page] = test_below(rng, 4) == 0 || (model->in[page] && test_below(rng, 8));
	ms_retained_merge_begin(&merge, &model->set, end);
	for (size_t first = 0; first < end;) {
		size_t stop = first;
		while (stop < end && found[stop])
			stop++;
		while (first < stop) {
			size_t taken = ms_retained_merge_add(&merge, first, stop);
			for (size_t i = 0; i < taken; i++)
				model->in[first + i] = true;
			first += taken;
			if (first < stop) {
				/* Refused: only a newcomer may be. */
				ck_assert(!was[first]);
				model->in[first++] = false;
			}
		}
		first++;
	}
	ms_retained_merge_end(&merge);
	for (size_t page = 0; page < PAGES; page++) {
		if (page < end && !found[page])
			model->in[page] = false;
		if (page >= end)
			ck_assert_int_eq(model->in[page], was[page]);
		kept += model->in[page];
		fresh += model->in[page] && !was[page];
	}
	ck_assert_uint_le(kept, ROOM);
	ck_assert_uint_eq(merge.fresh, fresh);
}

START_TEST(the_set_is_what_scans_and_releases_say)
{
	struct test_rng rng = test_rng(1);
	struct model model;

	model_begin(&model);
	for (unsigned i = 0; i < test_rounds(3000); i++) {
		size_t first = test_below(&rng, PAGES), end = first + test_below(&rng, PAGES - first + 1);
		if (test_below(&rng, 3))
			scan(&model, &rng, test_below(&rng, PAGES + 1));
		else
			clip(&model, first, end);
		model_compare(&model);
	}
	free(model.memory);
}
END_TEST

START_TEST(inserted_pages_are_in_the_set_once)
{
	struct model model;

	model_begin(&model);
	for (size_t first = 0; first < 20; first += 3) {
		ms_retained_insert(&model.set, first, first + 5);
		for (size_t page = first; page < first + 5; page++)
			model.in[page] = true;
		model_compare(&model);
	}
	free(model.memory);
}
END_TEST

START_TEST(a_scan_that_fails_leaves_the_set_as_it_was)
{
	struct model model;
	struct ms_merge merge;

	model_begin(&model);
	ms_retained_insert(&model.set, 5, 10);
	for (size_t page = 5; page < 10; page++)
		model.in[page] = true;
	ms_retained_merge_begin(&merge, &model.set, PAGES);
	ck_assert_uint_eq(ms_retained_merge_add(&merge, 1, 4), 3);
	ck_assert_uint_eq(ms_retained_merge_add(&merge, 20, 24), 4);
	/* no ms_retained_merge_end */
	model_compare(&model);
	free(model.memory);
}
END_TEST

START_TEST(marks_stay_with_their_pages)
{
	struct model model;
	struct ms_merge merge;

	model_begin(&model);
	ms_retained_insert(&model.set, 10, 12);
	model.set.mark[1] = 7;
	ms_retained_merge_begin(&merge, &model.set, PAGES);
	ms_retained_merge_add(&merge, 3, 4);
	ms_retained_merge_add(&merge, 11, 12);
	ms_retained_merge_end(&merge);
	ck_assert_uint_eq(model.set.count, 2);
	ck_assert_uint_eq(model.set.page[0], 3);
	ck_assert_uint_eq(model.set.mark[0], MS_MARK_NEW);
	ck_assert_uint_eq(model.set.page[1], 11);
	ck_assert_uint_eq(model.set.mark[1], 7);
	free(model.memory);
}
END_TEST

/* --- runs --- */

static void runs_compare(const struct ms_runs *runs, const uint32_t *values)
{
	struct ms_page_run stretch;

	for (size_t page = 0; page < PAGES; page++)
		ck_assert_int_eq(ms_runs_has(runs, page), values[page] != 0);
	for (size_t i = 0; i < runs->count; i++) {
		const struct ms_page_run *run = &runs->run[i];
		ck_assert(run->first < run->end);
		ck_assert(i == 0 || run[-1].end <= run->first);
		ck_assert(i == 0 || run[-1].end < run->first || run[-1].value != run->value);
		for (size_t page = run->first; page < run->end; page++)
			ck_assert_uint_eq(values[page], run->value);
	}
	for (size_t first = 0; ms_runs_outside(runs, first, PAGES, &stretch); first = stretch.end) {
		for (size_t page = first; page < stretch.first; page++)
			ck_assert_uint_ne(values[page], 0);
		for (size_t page = stretch.first; page < stretch.end; page++)
			ck_assert_uint_eq(values[page], 0);
	}
}

START_TEST(runs_are_what_was_set_and_cleared)
{
	struct test_rng rng = test_rng(2);
	struct ms_page_run room[MS_RUNS_MAX];
	struct ms_runs runs = {0, room};
	uint32_t values[PAGES] = {0};

	for (unsigned i = 0; i < test_rounds(5000); i++) {
		size_t first = test_below(&rng, PAGES), end = first + 1 + test_below(&rng, 20);
		uint32_t value = (uint32_t)test_below(&rng, 4);
		end = end > PAGES ? PAGES : end;
		ck_assert_int_eq(value ? ms_runs_set(&runs, first, end, value) :
					 ms_runs_clear(&runs, first, end), 0);
		for (size_t page = first; page < end; page++)
			values[page] = value;
		runs_compare(&runs, values);
	}
}
END_TEST

START_TEST(a_full_table_refuses_and_stays_as_it_was)
{
	struct ms_page_run room[MS_RUNS_MAX], before[MS_RUNS_MAX];
	struct ms_runs runs = {0, room};

	for (size_t i = 0; i < MS_RUNS_MAX; i++)
		ck_assert_int_eq(ms_runs_set(&runs, 10 * i, 10 * i + 3, 1), 0);
	memcpy(before, room, sizeof before);
	ck_assert_int_eq(ms_runs_set(&runs, 10 * MS_RUNS_MAX, 10 * MS_RUNS_MAX + 1, 1), -ENOSPC);
	ck_assert_int_eq(ms_runs_clear(&runs, 1, 2), -ENOSPC);
	ck_assert_uint_eq(runs.count, MS_RUNS_MAX);
	ck_assert_int_eq(memcmp(room, before, sizeof before), 0);
	ck_assert_int_eq(ms_runs_clear(&runs, 0, 3), 0);
	ck_assert_uint_eq(runs.count, MS_RUNS_MAX - 1);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("retained");
	TCase *set = test_case(suite, "set"), *runs = test_case(suite, "runs");

	tcase_add_test(set, the_set_is_what_scans_and_releases_say);
	tcase_add_test(set, inserted_pages_are_in_the_set_once);
	tcase_add_test(set, a_scan_that_fails_leaves_the_set_as_it_was);
	tcase_add_test(set, marks_stay_with_their_pages);
	tcase_add_test(runs, runs_are_what_was_set_and_cleared);
	tcase_add_test(runs, a_full_table_refuses_and_stays_as_it_was);
	return suite;
}
