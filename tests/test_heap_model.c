/* SPDX-License-Identifier: MIT */
/*
 * test_heap_model.c - random lives of heaps beside a list of objects, rewound again and again: see
 * heap_model.h.
 *
 * MEMSLOT_MODEL_LIFE=n    only this one: to see a mismatch again
 */
#define _GNU_SOURCE
#include "heap_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	void (*run)(struct heap_life *life);
	unsigned weight;
} ops[] = {
	{heap_op_alloc, 60},
	{heap_op_free, 35},
	{heap_op_realloc, 20},
	{heap_op_misuse, 3},
	{heap_op_root, 2},
	{heap_op_exhaust, 1},
	{heap_op_checkpoint, 2},
	{heap_op_reset, 6},
	{heap_op_older, 2},
	{heap_op_boot, 1},
	{heap_op_open, 1},
};
#define OPS (sizeof ops / sizeof ops[0])

static void run(struct heap_life *life, unsigned operations)
{
	static const unsigned factors[] = {0, 1, 1, 2, 4};
	unsigned weights[OPS], sum = 0;

	for (size_t i = 0; i < OPS; i++)
		sum += weights[i] =
			ops[i].weight * (i < 2 ? 2 : factors[test_below(&life->rng, 5)]);
	for (unsigned done = 0; done < operations; done++) {
		unsigned drawn = (unsigned)test_below(&life->rng, sum);
		size_t i = 0;
		while (drawn >= weights[i])
			drawn -= weights[i++];
		ops[i].run(life);
		if (done % 32 == 0)
			heap_check_all(life);
		life->coverage->operations++;
	}
	heap_check_all(life);
}

static void live(unsigned number, struct heap_coverage *coverage)
{
	struct heap_life *life = calloc(1, sizeof *life);

	ck_assert_ptr_nonnull(life);
	life->coverage = coverage;
	life->rng = test_rng(number * 16u + 99000);
	model_log_begin(number, 0);
	heap_make(life);
	run(life, 50 + (unsigned)test_below(&life->rng, 900));
	heap_unmake(life);
	free(life);
}

START_TEST(lives_of_heaps)
{
	const char *only = getenv("MEMSLOT_MODEL_LIFE");
	struct heap_coverage seen = {0};
	unsigned lives = test_rounds(80), fds = 0;

	for (unsigned number = 0; number < lives; number++) {
		if (!only || !*only || number == (unsigned)strtoul(only, NULL, 0))
			live(number, &seen);
		if (number == 20) /* the library keeps what it opened once */
			fds = test_fd_count();
	}
	ck_assert(!fds || test_fd_count() == fds);
	fprintf(stderr,
		"# heap model: %" PRIu64 " operations, %" PRIu64 " allocated, %" PRIu64
		" moved, %" PRIu64 " stayed, %" PRIu64 " refused, %" PRIu64 " misused, %" PRIu64
		" checkpoints, %" PRIu64 " rewinds, %" PRIu64 " to older ones, %" PRIu64
		" boots, %" PRIu64 " opened, %" PRIu64 " exhausted\n",
		seen.operations, seen.allocs, seen.moved, seen.stayed, seen.refused, seen.misuses,
		seen.checkpoints, seen.rewinds, seen.older, seen.boots, seen.opened,
		seen.exhausted);
	/* A model that never gets there proves nothing. */
	if (lives < 60 || (only && *only))
		return;
	ck_assert_uint_gt(seen.moved, 0);
	ck_assert_uint_gt(seen.stayed, 0);
	ck_assert_uint_gt(seen.refused, 0);
	ck_assert_uint_gt(seen.rewinds, 0);
	ck_assert_uint_gt(seen.older, 0);
	ck_assert_uint_gt(seen.exhausted, 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_model");
	TCase *tcase = test_case(suite, "lives");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_test(tcase, lives_of_heaps);
	return suite;
}
