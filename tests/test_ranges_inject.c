/* SPDX-License-Identifier: MIT */
/*
 * test_ranges_inject.c - every call of ranges.h that makes system calls, with each of them failing
 * once: an error or none, nothing lost, no stale byte, and the allocator works on.
 */
#define _GNU_SOURCE
#include "failing.h"
#include "slots.h"

#include <errno.h>
#include <string.h>

#define SLOTS 3
#define SLOT ((uint64_t)40 << 12)
#define REGION ((uint64_t)1 << 16)
#define assert_told(condition) ck_assert_msg(condition, "%s: %s", #condition, failing_story())

static unsigned returned;

static void take_back(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag)
{
	(void)context, (void)offset;
	ck_assert_uint_eq(size, REGION);
	ck_assert_uint_eq(tag, 5);
	munmap(base, size);
	returned++;
}

/* --- an allocator with two slots and a region of its own, dirty all over --- */

struct bench {
	struct memslot_pool *pool;
	struct memslot_ranges *ranges;
	struct memslot_range range[SLOTS];
};

static int create(struct bench *bench)
{
	struct memslot_ranges_opts opts = MEMSLOT_OPTS(
		memslot_ranges_opts, .pool = bench->pool, .release = take_back, .max_ranges = 1000);

	return memslot_ranges_create(&opts, &bench->ranges);
}

static void take_slot(struct bench *bench, unsigned i)
{
	ck_assert_int_eq(memslot_ranges_alloc(bench->ranges, SLOT, 0, NULL, &bench->range[i]), 0);
	assert_told(test_zero(bench->range[i].base, SLOT));
	memset(bench->range[i].base, 0xdd, SLOT);
}

static void add_region(struct bench *bench)
{
	void *base = mmap(NULL, REGION, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memslot_expansion *expansion;

	ck_assert_ptr_ne(base, MAP_FAILED);
	ck_assert_int_eq(memslot_ranges_expand_begin(bench->ranges, REGION, &expansion), 0);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base, 5), 0);
}

static void pool_begin(struct bench *bench)
{
	struct memslot_pool_opts opts =
		MEMSLOT_OPTS(memslot_pool_opts, .guard_before = test_page());

	returned = 0;
	ck_assert_int_eq(memslot_pool_create(SLOTS, SLOT, &opts, &bench->pool), 0);
}

static void begin(struct bench *bench)
{
	pool_begin(bench);
	ck_assert_int_eq(create(bench), 0);
	take_slot(bench, 0);
	take_slot(bench, 1);
	add_region(bench);
}

static uint64_t slots_out(const struct bench *bench)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_pool_stats(bench->pool, &stats), 0);
	return stats.live;
}

static void check(const struct bench *bench, uint64_t regions, uint64_t live)
{
	struct memslot_ranges_stats stats = {.size = sizeof stats};

	assert_told(memslot_ranges_check(bench->ranges) == 0);
	ck_assert_int_eq(memslot_ranges_stats(bench->ranges, &stats), 0);
	assert_told(stats.regions == regions);
	assert_told(stats.live == live);
}

/* Every slot can be had, and shows zeros; then all goes back. */
static void pool_end(struct bench *bench)
{
	struct memslot_slot *slot[SLOTS];

	assert_told(slots_out(bench) == 0);
	for (int i = 0; i < SLOTS; i++) {
		assert_told(memslot_pool_acquire(bench->pool, NULL, SLOT, NULL, &slot[i]) == 0);
		assert_told(test_zero(base_of(slot[i]), SLOT));
	}
	for (int i = 0; i < SLOTS; i++)
		ck_assert_int_eq(memslot_pool_release(bench->pool, slot[i]), 0);
	ck_assert_int_eq(memslot_pool_destroy(bench->pool), 0);
}

/* --- the calls --- */

static void run_create(void *context)
{
	struct bench bench = {.ranges = NULL};
	int answer, error;

	(void)context;
	pool_begin(&bench);
	failing_begin();
	answer = create(&bench);
	error = failing_end();
	assert_told(answer == 0 || (answer == error && !bench.ranges));
	if (answer == 0) {
		take_slot(&bench, 0);
		ck_assert_int_eq(memslot_ranges_close(bench.ranges, NULL), 0);
	}
	pool_end(&bench);
}

/* It finds no room, or has a slot of its own. */
static void run_grow(void *context)
{
	struct memslot_range_opts zero =
		MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	struct memslot_range range = {.handle = 99};
	struct bench bench;
	int answer, error;

	(void)context;
	begin(&bench);
	failing_begin();
	answer = memslot_ranges_alloc(bench.ranges, SLOT, 0, &zero, &range);
	error = failing_end();
	assert_told(answer == 0 || (error && answer == -ENOSPC && range.handle == 99));
	assert_told(slots_out(&bench) == (answer ? 2 : 3));
	check(&bench, answer ? 3 : 4, answer ? 2 : 3);
	if (answer)
		take_slot(&bench, 2);
	else
		assert_told(test_zero(range.base, SLOT));
	ck_assert_int_eq(memslot_ranges_close(bench.ranges, NULL), 0);
	assert_told(returned == 1);
	pool_end(&bench);
}

/* Slots that could not be reset go back: fewer regions, never a byte of before. */
static void run_reset(void *context)
{
	struct bench bench;
	uint64_t out;

	(void)context;
	begin(&bench);
	failing_begin();
	assert_told(memslot_ranges_reset(bench.ranges) == 0);
	(void)failing_end();
	out = slots_out(&bench);
	check(&bench, out + 1, 0);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_told(memslot_ranges_free(bench.ranges, &bench.range[i]) == -ESTALE);
	for (unsigned i = 0; i < SLOTS; i++)
		take_slot(&bench, i);
	ck_assert_int_eq(memslot_ranges_close(bench.ranges, NULL), 0);
	assert_told(returned == 1);
	pool_end(&bench);
}

/* Freed by shrink, by drain with the last range, or by close: they never fail. */
static void run_give_back(void *context)
{
	struct bench bench;
	struct memslot_region region = {.size = sizeof region};
	unsigned how = *(unsigned *)context;

	begin(&bench);
	ck_assert_int_eq(memslot_ranges_region(bench.ranges, &bench.range[0], &region), 0);
	failing_begin();
	if (how < 2)
		assert_told(memslot_ranges_drain(bench.ranges, region.tag) == 0);
	if (how < 3)
		assert_told(memslot_ranges_free(bench.ranges, &bench.range[0]) == 0);
	if (how == 1 || how == 2)
		assert_told(memslot_ranges_shrink(bench.ranges, NULL) == 0);
	if (how == 3)
		assert_told(memslot_ranges_close(bench.ranges, NULL) == 0);
	(void)failing_end();
	assert_told(slots_out(&bench) == (how == 3 ? 0 : 1));
	if (how < 3) {
		check(&bench, how ? 1 : 2, 1);
		take_slot(&bench, 0);
		ck_assert_int_eq(memslot_ranges_close(bench.ranges, NULL), 0);
	}
	assert_told(returned == 1);
	pool_end(&bench);
}

START_TEST(an_allocator_that_cannot_be_created_leaves_nothing)
{
	failing_sweep(run_create, NULL);
}
END_TEST

START_TEST(growth_that_fails_loses_no_slot)
{
	failing_sweep(run_grow, NULL);
}
END_TEST

START_TEST(a_reset_that_fails_shows_nobody_what_was)
{
	failing_sweep(run_reset, NULL);
}
END_TEST

START_TEST(regions_go_back_whatever_fails)
{
	unsigned how = (unsigned)_i;

	failing_sweep(run_give_back, &how);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("ranges_inject");
	TCase *tcase = test_case(suite, "injection");

	tcase_set_timeout(tcase, 3600);
	tcase_add_test(tcase, an_allocator_that_cannot_be_created_leaves_nothing);
	tcase_add_test(tcase, growth_that_fails_loses_no_slot);
	tcase_add_test(tcase, a_reset_that_fails_shows_nobody_what_was);
	tcase_add_loop_test(tcase, regions_go_back_whatever_fails, 0, 4);
	return suite;
}
