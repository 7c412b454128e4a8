/* SPDX-License-Identifier: MIT */
/* test_view.c - discard, protect, exempt, written: parts of a slot. */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Pages 10 .. 30 of the 40 show an image. */
static struct memslot_slot *slot_with_image(int kind)
{
	struct memslot_slot *slot = slot_of_kind(kind, PAGES(50));
	struct memslot_image *image = image_of(10, 20, 4);

	instantiate(slot, image, PAGES(40));
	memslot_image_unref(image);
	return slot;
}

/* --- discard --- */

/* W16: discard. */
START_TEST(discard_makes_whole_pages_pristine_and_leaves_the_rest)
{
	static const size_t ranges[][2] = {{0, 40}, {5, 10}, {12, 3}, {29, 2}, {35, 5}, {39, 1}};
	struct memslot_slot *slot = slot_with_image(_i);
	unsigned char *pristine = malloc(PAGES(40));

	memcpy(pristine, base_of(slot), PAGES(40));
	for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
		size_t from = PAGES(ranges[i][0]), size = PAGES(ranges[i][1]);
		dirty_all(slot);
		ck_assert_int_eq(memslot_slot_discard(slot, from, size), 0);
		ck_assert(test_same(base_of(slot) + from, pristine + from, size));
		for (size_t at = 0; at < PAGES(40); at += test_page() / 2)
			ck_assert(base_of(slot)[at] == 0xdd || (at >= from && at < from + size));
	}
	reset(slot);
	ck_assert(test_same(base_of(slot), pristine, PAGES(40)));
	destroy(slot);
	free(pristine);
}
END_TEST

START_TEST(discard_leaves_pages_that_are_only_partly_inside)
{
	struct memslot_slot *slot = slot_with_image(_i);

	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_discard(slot, 1, PAGES(3)), 0);
	ck_assert_uint_eq(base_of(slot)[PAGES(1) - 1], 0xdd);
	ck_assert(test_zero(base_of(slot) + PAGES(1), PAGES(2)));
	ck_assert_uint_eq(base_of(slot)[PAGES(3)], 0xdd);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(5) + 1, PAGES(1)), 0);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(5), PAGES(1) - 1), 0);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(5) + 7, 0), 0);
	ck_assert_uint_eq(base_of(slot)[PAGES(5)], 0xdd);
	ck_assert_uint_eq(base_of(slot)[PAGES(7) - 1], 0xdd);
	destroy(slot);
}
END_TEST

START_TEST(discard_beyond_the_size_is_einval)
{
	struct memslot_slot *slot = slot_with_image(_i);

	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(40) + 1), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(40), 1), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(41), 0), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(slot, 1, SIZE_MAX), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(slot, SIZE_MAX, 2), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(40), 0), 0);
	ck_assert_uint_eq(base_of(slot)[0], 0xdd);
	destroy(slot);
}
END_TEST

static uint64_t retained(const struct memslot_slot *slot)
{
	return stats_of(slot).retained_pages;
}

/* What is dropped and stays in the set would be written into again: into a guard, if the edge has
 * come down over it. */
START_TEST(invariant_02_dropped_pages_leave_the_retained_set)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *image = image_of(10, 20, 4), *other = image_of(5, 30, 5);
	struct memslot_slot *slot;

	opts.reset_method = MEMSLOT_RESET_SCAN; /* retains whatever was written */
	slot = slot_new(PAGES(50), &opts);
	for (unsigned round = 0; round < 4; round++) {
		bool exact = memslot_feature("pagemap_scan") == 1;
		instantiate(slot, image, PAGES(40));
		dirty_all(slot);
		reset(slot);
		ck_assert_uint_eq(retained(slot), exact ? 40 : 0);
		ck_assert_int_eq(memslot_slot_discard(slot, PAGES(8), PAGES(4)), 0);
		ck_assert_uint_eq(retained(slot), exact ? 36 : 0);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(35)), 0);
		ck_assert_uint_eq(retained(slot), exact ? 31 : 0);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
		dirty_pages(slot, 0, 40, 1);
		instantiate(slot, other, PAGES(40));
		ck_assert_uint_eq(retained(slot), exact ? 10 : 0); /* the rest was mapped over */
		dirty_pages(slot, 0, 40, 1);
		instantiate(slot, NULL, PAGES(40));
		ck_assert_uint_le(retained(slot), exact ? 10 : 0);
		assert_zeros(slot, PAGES(40));
	}
	memslot_image_unref(image);
	memslot_image_unref(other);
	destroy(slot);
}
END_TEST

START_TEST(discard_gives_memory_back)
{
	struct memslot_slot *slot;
	struct memslot_run run;
	size_t count;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	slot = slot_with_image(0);
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(40)), 0);
	ck_assert_int_eq(memslot_slot_written(slot, &run, 1, &count), 0);
	ck_assert_uint_eq(count, 0);
	destroy(slot);
}
END_TEST

/* --- protect --- */

static void assert_prot(const unsigned char *at, int prot)
{
	if (!test_faults_allowed())
		return;
	ck_assert_int_eq(fault_at(at, TEST_READ, NULL), prot & PROT_READ ? 0 : SIGSEGV);
	ck_assert_int_eq(fault_at(at, TEST_WRITE, NULL), prot & PROT_WRITE ? 0 : SIGSEGV);
}

START_TEST(protect_holds_for_exactly_its_pages)
{
	struct memslot_slot *slot = slot_with_image(_i);

	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(5), PAGES(10), PROT_READ), 0);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(20), PAGES(1), PROT_NONE), 0);
	assert_prot(base_of(slot) + PAGES(5) - 1, RW);
	assert_prot(base_of(slot) + PAGES(5), PROT_READ);
	assert_prot(base_of(slot) + PAGES(15) - 1, PROT_READ);
	assert_prot(base_of(slot) + PAGES(15), RW);
	assert_prot(base_of(slot) + PAGES(20) - 1, RW);
	assert_prot(base_of(slot) + PAGES(20), PROT_NONE);
	assert_prot(base_of(slot) + PAGES(21), RW);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(7), PAGES(1), RW), 0);
	assert_prot(base_of(slot) + PAGES(7) - 1, PROT_READ);
	assert_prot(base_of(slot) + PAGES(7), RW);
	assert_prot(base_of(slot) + PAGES(8), PROT_READ);
	ck_assert_uint_eq(base_of(slot)[PAGES(10)], 0xdd);
	destroy(slot);
}
END_TEST

START_TEST(reset_and_instantiate_lift_protections)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_image *image = image_of(0, 25, 6);

	for (unsigned round = 0; round < 6; round++) {
		dirty_all(slot);
		ck_assert_int_eq(memslot_slot_protect(slot, PAGES(2), PAGES(30), PROT_NONE), 0);
		ck_assert_int_eq(memslot_slot_protect(slot, PAGES(35), PAGES(2), PROT_READ), 0);
		if (round % 2)
			instantiate(slot, round == 5 ? NULL : image, PAGES(38));
		else
			reset(slot);
		for (size_t page = 0; page < memslot_slot_size(slot) / test_page(); page++)
			assert_open(base_of(slot) + PAGES(page));
	}
	assert_zeros(slot, PAGES(38));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(discard_capture_and_checkpoint_work_under_protections_and_keep_them)
{
	struct memslot_slot *slot = slot_with_image(_i), *other = slot_of_kind(_i, PAGES(50));
	struct memslot_image *image;

	dirty_pages(slot, 0, 40, 1);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(4), PAGES(8), PROT_NONE), 0);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(30), PAGES(4), PROT_READ), 0);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	assert_prot(base_of(slot) + PAGES(4), PROT_NONE);
	assert_prot(base_of(slot) + PAGES(12) - 1, PROT_NONE);
	instantiate(other, image, PAGES(40));
	ck_assert_uint_eq(base_of(other)[PAGES(4) + 4], 0xdd);
	ck_assert_uint_eq(base_of(other)[PAGES(33) + 33], 0xdd);
	memslot_image_unref(image);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(6), PAGES(2)), 0);
	assert_prot(base_of(slot) + PAGES(6), PROT_NONE);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	assert_prot(base_of(slot) + PAGES(4) - 1, RW);
	assert_prot(base_of(slot) + PAGES(4), PROT_NONE);
	assert_prot(base_of(slot) + PAGES(12), RW);
	assert_prot(base_of(slot) + PAGES(33), PROT_READ);
	reset(slot);
	assert_prot(base_of(slot) + PAGES(4), RW);
	ck_assert_uint_eq(base_of(slot)[PAGES(4) + 4], 0xdd);
	ck_assert(test_zero(base_of(slot) + PAGES(6), PAGES(2)));
	destroy(slot);
	destroy(other);
}
END_TEST

START_TEST(a_protection_beyond_the_edge_does_not_come_back)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(32), PAGES(8), PROT_READ), 0);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(35)), 0);
	assert_prot(base_of(slot) + PAGES(34), PROT_READ);
	if (kind_has_edge(_i))
		assert_prot(base_of(slot) + PAGES(35), PROT_NONE);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(40)), 0);
	assert_prot(base_of(slot) + PAGES(34), PROT_READ);
	assert_prot(base_of(slot) + PAGES(35), RW);
	destroy(slot);
}
END_TEST

START_TEST(protect_takes_whole_pages_inside_and_known_bits)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_protect(slot, 1, PAGES(1), PROT_READ), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(1) - 1, PROT_READ), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(39), PAGES(2), PROT_READ), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(41), 0, PROT_READ), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(1), SIZE_MAX - PAGES(1) + 1, PROT_READ), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(1), 8), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(1), PROT_GROWSDOWN), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, 0, PROT_READ), 0);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(40), 0, PROT_READ), 0);
	assert_prot(base_of(slot), RW);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(40), PROT_READ | PROT_EXEC), 0);
	assert_prot(base_of(slot) + PAGES(39), PROT_READ);
	destroy(slot);
}
END_TEST

START_TEST(more_than_256_protections_are_enospc)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(600));
	int error = 0;
	size_t count;

	instantiate(slot, NULL, PAGES(600));
	for (count = 0; !error && count < 300; count++)
		error = memslot_slot_protect(slot, PAGES(2 * count), PAGES(1), PROT_READ);
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(count, 257);
	assert_prot(base_of(slot) + PAGES(510), PROT_READ);
	assert_prot(base_of(slot) + PAGES(512), RW);
	/* Merged into a neighbour it needs no room. */
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(511), PAGES(1), PROT_READ), 0);
	reset(slot);
	assert_prot(base_of(slot) + PAGES(510), RW);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(510), PAGES(1), PROT_READ), 0);
	destroy(slot);
}
END_TEST

/* --- exempt --- */

START_TEST(resets_leave_exempt_pages_alone)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(8), PAGES(4)), 0); /* half of it image */
	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(38), PAGES(2)), 0);
	for (unsigned round = 0; round < 12; round++) {
		dirty_all(slot);
		memset(base_of(slot) + PAGES(8), 0x40 + (int)round, PAGES(4));
		memset(base_of(slot) + PAGES(38), 0x80 + (int)round, PAGES(2));
		for (int twice = 0; twice < 2; twice++) {
			reset(slot);
			ck_assert(test_zero(base_of(slot), PAGES(8)));
			ck_assert_uint_eq(base_of(slot)[PAGES(8)], 0x40 + round);
			ck_assert_uint_eq(base_of(slot)[PAGES(12) - 1], 0x40 + round);
			ck_assert_uint_eq(base_of(slot)[PAGES(12)], test_byte(PAGES(2), 4));
			ck_assert(test_zero(base_of(slot) + PAGES(30), PAGES(8)));
			ck_assert_uint_eq(base_of(slot)[PAGES(38)], 0x80 + round);
			ck_assert_uint_eq(base_of(slot)[PAGES(40) - 1], 0x80 + round);
		}
	}
	destroy(slot);
}
END_TEST

START_TEST(instantiate_ends_exemptions)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_image *image = memslot_image_ref(memslot_slot_image(slot));

	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(8), PAGES(4)), 0);
	dirty_all(slot);
	reset(slot);
	instantiate(slot, image, PAGES(40));
	assert_shows(slot, 10, 20, 4, PAGES(40));
	dirty_all(slot);
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(discard_ends_exemptions_of_what_it_discards)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(8), PAGES(4)), 0);
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(8), PAGES(4)), 0);
	ck_assert(test_zero(base_of(slot) + PAGES(8), PAGES(2)));
	ck_assert(test_filled(base_of(slot) + PAGES(10), PAGES(2), 4));
	dirty_all(slot);
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	destroy(slot);
}
END_TEST

START_TEST(checkpoint_ends_exemptions)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(8), PAGES(4)), 0);
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	memset(base_of(slot), 1, PAGES(40));
	reset(slot);
	for (size_t at = 0; at < PAGES(40); at += 512)
		ck_assert_uint_eq(base_of(slot)[at], 0xdd);
	destroy(slot);
}
END_TEST

START_TEST(an_exempt_page_that_a_reset_leaves_beyond_the_edge_is_gone)
{
	struct memslot_slot *slot = slot_with_image(_i);

	for (unsigned round = 0; round < 3; round++) {
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
		ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(38), PAGES(8)), 0);
		dirty_all(slot);
		reset(slot);
		ck_assert_uint_eq(base_of(slot)[PAGES(39)], 0xdd);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
		ck_assert(test_zero(base_of(slot) + PAGES(40), PAGES(10)));
		dirty_all(slot);
		reset(slot);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
		ck_assert(test_zero(base_of(slot) + PAGES(40), PAGES(10)));
		reset(slot);
	}
	destroy(slot);
}
END_TEST

START_TEST(exempt_takes_whole_pages_inside)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_exempt(slot, 1, PAGES(1)), -EINVAL);
	ck_assert_int_eq(memslot_slot_exempt(slot, 0, 1), -EINVAL);
	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(39), PAGES(2)), -EINVAL);
	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(1), SIZE_MAX - PAGES(1) + 1), -EINVAL);
	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(41), 0), -EINVAL);
	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(40), 0), 0);
	dirty_all(slot);
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	destroy(slot);
}
END_TEST

START_TEST(more_than_256_exemptions_are_enospc)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(600));
	int error = 0;
	size_t count;

	instantiate(slot, NULL, PAGES(600));
	for (count = 0; !error && count < 300; count++)
		error = memslot_slot_exempt(slot, PAGES(2 * count), PAGES(1));
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(count, 257);
	dirty_all(slot);
	reset(slot);
	for (size_t page = 0; page < 600; page++)
		ck_assert_uint_eq(base_of(slot)[PAGES(page)], page % 2 == 0 && page < 512 ? 0xdd : 0);
	instantiate(slot, NULL, PAGES(600));
	assert_zeros(slot, PAGES(600));
	destroy(slot);
}
END_TEST

/* --- written --- */

static bool listed(const struct memslot_run *runs, size_t count, uint64_t offset)
{
	for (size_t i = 0; i < count; i++) {
		if (offset >= runs[i].offset && offset < runs[i].offset + runs[i].size)
			return true;
	}
	return false;
}

START_TEST(written_lists_every_dirty_page_in_order)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_run runs[60];
	size_t end, count = 0;

	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(3), PAGES(1)), 0);
	dirty_pages(slot, 1, 39, 2);
	ck_assert_int_eq(memslot_slot_written(slot, runs, 60, &count), 0);
	/* Where no edge is enforced, anything up to capacity may have been written. */
	end = kind_has_edge(_i) ? PAGES(40) : PAGES(50);
	ck_assert_uint_gt(count, 0);
	for (size_t i = 0; i < count; i++) {
		ck_assert(runs[i].size > 0 && runs[i].size % test_page() == 0);
		ck_assert(runs[i].offset % test_page() == 0);
		ck_assert_uint_le(runs[i].offset + runs[i].size, end);
		if (i)
			ck_assert_uint_gt(runs[i].offset, runs[i - 1].offset + runs[i - 1].size);
	}
	for (size_t page = 1; page < 40; page += 2)
		ck_assert_msg(listed(runs, count, PAGES(page)), "page %zu is missing", page);
	if (memslot_feature("pagemap_scan") == 1)
		ck_assert_uint_eq(count, 20);
	else
		ck_assert(count == 1 && runs[0].size == end);
	destroy(slot);
}
END_TEST

START_TEST(written_says_how_many_when_there_is_no_room)
{
	struct memslot_slot *slot;
	struct memslot_run runs[21] = {{0, 0}};
	size_t count = 99;

	NEED_FEATURE("pagemap_scan");
	slot = slot_with_image(_i);
	dirty_pages(slot, 0, 40, 2);
	ck_assert_int_eq(memslot_slot_written(slot, NULL, 0, &count), -ENOSPC);
	ck_assert_uint_eq(count, 20);
	count = 0;
	ck_assert_int_eq(memslot_slot_written(slot, runs, 19, &count), -ENOSPC);
	ck_assert_uint_eq(count, 20);
	ck_assert_uint_eq(runs[19].size, 0);
	ck_assert_int_eq(memslot_slot_written(slot, runs, 20, &count), 0);
	ck_assert_uint_eq(count, 20);
	ck_assert_uint_eq(runs[20].size, 0);
	destroy(slot);
}
END_TEST

START_TEST(written_of_an_untouched_slot_is_empty)
{
	struct memslot_slot *slot, *empty;
	size_t count = 9;

	NEED_FEATURE("pagemap_scan");
	slot = slot_with_image(_i);
	empty = slot_of_kind(_i, 0);
	ck_assert_int_eq(memslot_slot_written(slot, NULL, 0, &count), 0);
	ck_assert_uint_eq(count, 0);
	count = 9;
	ck_assert_int_eq(memslot_slot_written(empty, NULL, 0, &count), 0);
	ck_assert_uint_eq(count, 0);
	destroy(slot);
	destroy(empty);
}
END_TEST

START_TEST(written_changes_nothing)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_run runs[40];
	unsigned char *copy = malloc(PAGES(40));
	size_t count;

	for (unsigned round = 0; round < 5; round++) {
		dirty_pages(slot, round, 30, 2);
		memcpy(copy, base_of(slot), PAGES(40));
		ck_assert_int_eq(memslot_slot_written(slot, runs, 40, &count), 0);
		ck_assert(test_same(base_of(slot), copy, PAGES(40)));
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	destroy(slot);
	free(copy);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("view");
	TCase *discard = test_case(suite, "discard"), *protect = test_case(suite, "protect");
	TCase *exempt = test_case(suite, "exempt"), *written = test_case(suite, "written");

	each_kind(discard, discard_makes_whole_pages_pristine_and_leaves_the_rest);
	each_kind(discard, discard_leaves_pages_that_are_only_partly_inside);
	each_kind(discard, discard_beyond_the_size_is_einval);
	tcase_add_loop_test(discard, invariant_02_dropped_pages_leave_the_retained_set, 0,
			2 * SLOT_EDGES);
	tcase_add_test(discard, discard_gives_memory_back);
	each_kind(protect, protect_holds_for_exactly_its_pages);
	each_kind(protect, reset_and_instantiate_lift_protections);
	each_kind(protect, discard_capture_and_checkpoint_work_under_protections_and_keep_them);
	each_kind(protect, a_protection_beyond_the_edge_does_not_come_back);
	each_kind(protect, protect_takes_whole_pages_inside_and_known_bits);
	each_kind(protect, more_than_256_protections_are_enospc);
	each_kind(exempt, resets_leave_exempt_pages_alone);
	each_kind(exempt, instantiate_ends_exemptions);
	each_kind(exempt, discard_ends_exemptions_of_what_it_discards);
	each_kind(exempt, checkpoint_ends_exemptions);
	each_kind(exempt, an_exempt_page_that_a_reset_leaves_beyond_the_edge_is_gone);
	each_kind(exempt, exempt_takes_whole_pages_inside);
	each_kind(exempt, more_than_256_exemptions_are_enospc);
	each_kind(written, written_lists_every_dirty_page_in_order);
	each_kind(written, written_says_how_many_when_there_is_no_room);
	each_kind(written, written_of_an_untouched_slot_is_empty);
	each_kind(written, written_changes_nothing);
	return suite;
}
