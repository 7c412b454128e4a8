/* SPDX-License-Identifier: MIT */
/*
 * test_ranges_model.c - random lives of range allocators beside a bitmap of owners: see
 * ranges_model.h.
 *
 * MEMSLOT_MODEL_LIFE=n    only this one: to see a mismatch again
 */
#define _GNU_SOURCE
#include "ranges_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	void (*run)(struct ranges_life *life);
	unsigned weight;
} ops[] = {
	{ranges_op_alloc, 50},
	{ranges_op_free, 30},
	{ranges_op_fixed, 6},
	{ranges_op_resize, 12},
	{ranges_op_bad_alloc, 1},
	{ranges_op_find, 8},
	{ranges_op_region, 3},
	{ranges_op_guard, 2},
	{ranges_op_unguard, 5},
	{ranges_op_stale, 5},
	{ranges_op_begin, 4},
	{ranges_op_commit, 6},
	{ranges_op_abort, 1},
	{ranges_op_drain, 2},
	{ranges_op_shrink, 1},
	{ranges_op_reset, 1},
	{ranges_op_close, 1},
};
#define OPS (sizeof ops / sizeof ops[0])

/* Each life draws anew how likely every operation is; some it never does. */
static void draw_weights(struct ranges_life *life, unsigned *weights)
{
	static const unsigned factors[] = {0, 1, 1, 2, 2, 6};

	for (size_t i = 0; i < OPS; i++)
		weights[i] = ops[i].weight * (i < 2 ? 1 : factors[test_below(&life->rng, 6)]);
}

static void run(struct ranges_life *life, unsigned operations)
{
	unsigned weights[OPS], sum = 0;

	draw_weights(life, weights);
	for (size_t i = 0; i < OPS; i++)
		sum += weights[i];
	for (unsigned done = 0; done < operations; done++) {
		unsigned drawn = (unsigned)test_below(&life->rng, sum);
		size_t i = 0;
		while (drawn >= weights[i])
			drawn -= weights[i++];
		ops[i].run(life);
		if (done % 16 == 0)
			ranges_check_all(life);
		life->coverage->operations++;
	}
}

/* No guard and no expansion is left: everything goes back. */
static void end(struct ranges_life *life)
{
	ranges_check_all(life);
	for (unsigned i = 0; i < RANGES; i++) {
		for (; life->range[i].live && life->range[i].guards; life->range[i].guards--)
			model_expect(
				memslot_ranges_unguard(life->ranges, &life->range[i].range), 0);
	}
	while (ranges_pending(life))
		ranges_op_abort(life);
	life->closing = true;
	ranges_op_close(life);
	ranges_unmake(life);
}

static void live(unsigned number, struct ranges_coverage *coverage)
{
	struct ranges_life *life = calloc(1, sizeof *life);

	ck_assert_ptr_nonnull(life);
	life->number = number;
	life->coverage = coverage;
	life->rng = test_rng(number * 16u + 88000);
	model_log_begin(number, 0);
	ranges_make(life);
	for (uint64_t i = test_below(&life->rng, 6); i; i--) {
		ranges_op_begin(life);
		ranges_op_commit(life);
	}
	run(life, 50 + (unsigned)test_below(&life->rng, 500));
	end(life);
	free(life);
}

static void tell(const struct ranges_coverage *seen)
{
	fprintf(stderr,
		"# ranges model: %" PRIu64 " operations, %" PRIu64 " allocated, %" PRIu64
		" refused, %" PRIu64 " fixed, %" PRIu64 " slots, %" PRIu64 " resized, %" PRIu64
		" drains, %" PRIu64 " regions back, %" PRIu64 " resets, %" PRIu64 " stale, %" PRIu64
		" compared, %" PRIu64 " times beyond 64 GiB\n",
		seen->operations, seen->allocs, seen->refused, seen->fixed, seen->grown,
		seen->resized, seen->drained, seen->returned, seen->resets, seen->stale,
		seen->compared, seen->wide);
}

START_TEST(lives_of_range_allocators)
{
	const char *only = getenv("MEMSLOT_MODEL_LIFE");
	struct ranges_coverage seen = {0};
	unsigned lives = test_rounds(500), fds = 0;

	for (unsigned number = 0; number < lives; number++) {
		if (!only || !*only || number == (unsigned)strtoul(only, NULL, 0))
			live(number, &seen);
		if (number == 20) /* the library keeps what it opened once */
			fds = test_fd_count();
	}
	tell(&seen);
	ck_assert(!fds || test_fd_count() == fds);
	/* A model that never gets there proves nothing. */
	if (lives < 100 || (only && *only))
		return;
	ck_assert_uint_gt(seen.refused, 0);
	ck_assert_uint_gt(seen.fixed, 0);
	ck_assert_uint_gt(seen.grown, 0);
	ck_assert_uint_gt(seen.drained, 0);
	ck_assert_uint_gt(seen.returned, 0);
	ck_assert_uint_gt(seen.resets, 0);
	ck_assert_uint_gt(seen.stale, 0);
	ck_assert_uint_gt(seen.wide, 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("ranges_model");
	TCase *tcase = test_case(suite, "lives");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_test(tcase, lives_of_range_allocators);
	return suite;
}
