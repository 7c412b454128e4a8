/* SPDX-License-Identifier: MIT */
/*
 * test_ranges_defects.c - what other range allocators did wrong (../shared/design: R and the list
 * of RANGES_AND_BUFFERS), replayed. Offsets only: there is no memory. Others are in test_ranges.c,
 * and in test_bins.c where steps are counted.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>

#define MB ((uint64_t)1 << 20)

static struct memslot_ranges *ranges;
static struct memslot_range unused;

static void begin(void)
{
	ck_assert_int_eq(memslot_ranges_create(NULL, &ranges), 0);
}

static void end(void)
{
	ck_assert_int_eq(memslot_ranges_check(ranges), 0);
	ck_assert_int_eq(memslot_ranges_close(ranges, NULL), 0);
}

static uint64_t add_region(uint64_t size)
{
	struct memslot_expansion *expansion;
	uint64_t offset;

	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, size, &expansion), 0);
	offset = memslot_expansion_offset(expansion);
	ck_assert_int_eq(memslot_expansion_commit(expansion, NULL, 0), 0);
	return offset;
}

static struct memslot_range alloc(uint64_t size, uint64_t align)
{
	struct memslot_range range = {0};

	ck_assert_int_eq(memslot_ranges_alloc(ranges, size, align, NULL, &range), 0);
	return range;
}

static int alloc_at(uint64_t offset, uint64_t size, struct memslot_range *ret_range)
{
	struct memslot_range_opts opts = MEMSLOT_OPTS(
		memslot_range_opts, .flags = MEMSLOT_RANGE_FIXED, .fixed_offset = offset);

	return memslot_ranges_alloc(ranges, size, 0, &opts, ret_range);
}

/* OffsetAllocator: allocate(0) gave the offset of the next range. */
START_TEST(a_request_for_nothing_aliases_nothing)
{
	struct memslot_range range = {.handle = 99}, next;

	add_region(MB);
	ck_assert_int_eq(memslot_ranges_alloc(ranges, 0, 0, NULL, &range), -EINVAL);
	ck_assert_uint_eq(range.handle, 99);
	next = alloc(16, 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &next, 0), -EINVAL);
	ck_assert_int_eq(memslot_ranges_free(ranges, &next), 0);
}
END_TEST

/* offset-allocator: grow() began with everything free. */
START_TEST(what_is_live_stays_so_when_there_is_more)
{
	uint64_t first = add_region(MB), second;
	struct memslot_range live[16], more;

	for (int i = 0; i < 16; i++)
		live[i] = alloc(MB / 16, 0);
	second = add_region(MB);
	for (int i = 0; i < 16; i++) {
		more = alloc(MB / 16, 0);
		ck_assert_uint_ge(more.offset, second);
	}
	ck_assert_int_eq(memslot_ranges_alloc(ranges, 16, 0, NULL, &more), -ENOSPC);
	for (int i = 0; i < 16; i++) {
		ck_assert_uint_lt(live[i].offset, first + MB);
		ck_assert_int_eq(memslot_ranges_free(ranges, &live[i]), 0);
	}
}
END_TEST

/* redox: a fixed place outside the first mapping, or past the end, panicked. */
START_TEST(a_fixed_place_may_be_in_any_region_and_past_none)
{
	uint64_t first = add_region(MB), second = add_region(MB);
	struct memslot_range range;

	ck_assert_int_eq(alloc_at(second + MB / 2, MB / 2, &range), 0);
	ck_assert_uint_eq(range.offset, second + MB / 2);
	ck_assert_int_eq(alloc_at(first + MB - 16, 16, &range), 0);
	ck_assert_int_eq(alloc_at(second + MB, 16, &unused), -EINVAL);
	ck_assert_int_eq(alloc_at(first + MB / 2, MB, &unused), -EINVAL);
	ck_assert_int_eq(alloc_at(UINT64_MAX - 15, 16, &unused), -EINVAL);
	ck_assert_int_eq(alloc_at(second + MB / 2 - 16, 32, &unused), -EEXIST);
}
END_TEST

/* redox: a bit was stolen from 32-bit sizes, so that 2 GiB was the end. */
START_TEST(a_range_may_be_longer_than_two_gigabytes)
{
	uint64_t at = add_region(9ull << 30);
	struct memslot_range large = alloc(6ull << 30, 0), rest = alloc(3ull << 30, 0);

	ck_assert_uint_eq(large.size, 6ull << 30);
	ck_assert_int_eq(memslot_ranges_alloc(ranges, 16, 0, NULL, &unused), -ENOSPC);
	ck_assert_int_eq(memslot_ranges_free(ranges, &large), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &rest), 0);
	ck_assert_uint_eq(alloc(9ull << 30, 0).offset, at);
}
END_TEST

/* redox: an aligned request that met a hole shorter than its padding panicked. */
START_TEST(a_hole_shorter_than_the_padding_is_passed_over)
{
	uint64_t at = add_region(MB);
	struct memslot_range range;

	ck_assert_int_eq(alloc_at(at, 80, &range), 0);
	ck_assert_int_eq(alloc_at(at + 112, MB / 2 - 112, &range), 0);
	range = alloc(32, 4096); /* a hole of 32 bytes at 80: 4096 is far */
	ck_assert_uint_eq(range.offset % 4096, 0);
	ck_assert_uint_ge(range.offset, at + MB / 2);
	ck_assert_uint_eq(alloc(32, 16).offset, at + 80);
}
END_TEST

/* redox: a second free, and that of another allocator's range, answered success. */
START_TEST(a_second_free_is_no_success)
{
	struct memslot_ranges *other = ranges;
	struct memslot_range range, foreign;

	add_region(MB);
	foreign = alloc(16, 0);
	begin();
	add_region(MB);
	range = alloc(16, 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &foreign), -ESTALE);
	ck_assert_int_eq(memslot_ranges_free(other, &range), -ESTALE);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), -ESTALE);
	ck_assert_int_eq(memslot_ranges_free_at(ranges, range.offset), -ENOENT);
	ck_assert_int_eq(memslot_ranges_close(other, NULL), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("ranges_defects");
	TCase *tcase = test_case(suite, "defects of others");

	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_test(tcase, a_request_for_nothing_aliases_nothing);
	tcase_add_test(tcase, what_is_live_stays_so_when_there_is_more);
	tcase_add_test(tcase, a_fixed_place_may_be_in_any_region_and_past_none);
	tcase_add_test(tcase, a_range_may_be_longer_than_two_gigabytes);
	tcase_add_test(tcase, a_hole_shorter_than_the_padding_is_passed_over);
	tcase_add_test(tcase, a_second_free_is_no_success);
	return suite;
}
