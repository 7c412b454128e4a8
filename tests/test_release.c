/* SPDX-License-Identifier: MIT */
/*
 * test_release.c - giving pages back when the kernel refuses: lib/slot/release.c from inside.
 */
#define _GNU_SOURCE
#include "common.h"

#include "base/pagemap.h"
#include "slot/slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define IMAGE_PAGES 3u
#define SIZE_PAGES 8u

static struct memslot_slot *slot_with_copied_image(const unsigned char *contents)
{
	struct memslot_image *image;
	struct memslot_slot *slot;
	size_t page = test_page();

	ck_assert_int_eq(memslot_image_from_bytes(contents, IMAGE_PAGES * page, NULL, &image), 0);
	ck_assert_int_eq(memslot_slot_create(SIZE_PAGES * page, NULL, &slot), 0);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, SIZE_PAGES * page), 0);
	ck_assert(slot->copied);
	memslot_image_unref(image);
	memset(slot->base, 's', SIZE_PAGES * page);
	return slot;
}

static void assert_pristine(struct memslot_slot *slot, const unsigned char *contents)
{
	size_t image = IMAGE_PAGES * test_page();

	ck_assert(test_same(slot->base, contents, image));
	ck_assert(test_zero(slot->base + image, SIZE_PAGES * test_page() - image));
	for (size_t page = 0; page < IMAGE_PAGES; page++)
		ck_assert(ms_retained_has(&slot->retained, page));
}

/* Swapped pages are dropped before they are written; where no call drops them, they are mapped over.
 * A copied image's pages must be there again afterwards, and in the set (INVARIANTS 4). */
START_TEST(invariant_04_swapped_pages_of_a_copied_image_are_copied_again)
{
	unsigned char *contents = malloc(IMAGE_PAGES * test_page());
	struct memslot_slot *slot;

	test_fill(contents, IMAGE_PAGES * test_page(), 1);
	slot = slot_with_copied_image(contents);
	if (_i)
		ms_os_inject = (struct ms_os_inject){
			.at = 1, .error = ENOMEM, .for_good = true, .only = SYS_madvise};
	ck_assert_int_eq(ms_release_swapped(slot, 0, SIZE_PAGES), 0);
	memset(&ms_os_inject, 0, sizeof ms_os_inject);
	assert_pristine(slot, contents);
	memset(slot->base, 't', SIZE_PAGES * test_page());
	ck_assert_int_eq(memslot_slot_reset(slot), 0);
	assert_pristine(slot, contents);
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
	free(contents);
}
END_TEST

/* --- the set and the evidence follow every release --- */

static struct memslot_slot *large_slot_with_written_pages(void)
{
	struct memslot_slot *slot;

	ck_assert_int_eq(memslot_slot_create((size_t)64 << 20, NULL, &slot), 0);
	ck_assert_int_eq(slot->edge, MS_EDGE_PROTECT);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, SIZE_PAGES * test_page()), 0);
	memset(slot->base, 's', SIZE_PAGES * test_page());
	ck_assert_int_eq(memslot_slot_reset(slot), 0);
	ck_assert_uint_eq(slot->retained.count, SIZE_PAGES);
	return slot;
}

static size_t private_pages(struct memslot_slot *slot, size_t first, size_t end)
{
	struct ms_pagemap_walk walk;
	size_t pages = 0;
	int count;

	ck_assert_int_eq(ms_pagemap_begin(&walk, ms_slot_address(slot, first),
				 ms_pages_to_bytes(end - first)), 0);
	while ((count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++)
			pages += ms_bytes_to_pages(walk.regions[i].end - walk.regions[i].start);
	}
	ck_assert_int_eq(count, 0);
	return pages;
}

/* By a drop, and where no drop works by mapping over. */
START_TEST(invariant_02_what_is_released_leaves_the_set_in_the_same_step)
{
	struct memslot_slot *slot;

	NEED_FEATURE("pagemap_scan");
	slot = large_slot_with_written_pages();
	if (_i)
		ms_os_inject = (struct ms_os_inject){
			.at = 1, .error = ENOMEM, .for_good = true, .only = SYS_madvise};
	ck_assert_int_eq(ms_edge_map_over(slot, 5, 6), 0);
	ck_assert_int_eq(ms_release(slot, 1, 3), 0);
	memset(&ms_os_inject, 0, sizeof ms_os_inject);
	for (size_t page = 0; page < SIZE_PAGES; page++)
		ck_assert_int_eq(ms_retained_has(&slot->retained, page),
			page != 1 && page != 2 && page != 5);
	ck_assert_uint_eq(private_pages(slot, 1, 3) + private_pages(slot, 5, 6), 0);
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
}
END_TEST

START_TEST(invariant_21_what_had_to_be_copied_in_place_is_no_exact_set)
{
	struct memslot_slot *slot;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	slot = large_slot_with_written_pages();
	memset(slot->base, 't', SIZE_PAGES * test_page());
	ck_assert(slot->exact);
	ms_os_inject = (struct ms_os_inject){
		.at = 1, .error = EINVAL, .for_good = true, .only = SYS_madvise};
	ck_assert_int_eq(ms_release(slot, 1, 3), 0);
	memset(&ms_os_inject, 0, sizeof ms_os_inject);
	ck_assert_uint_eq(slot->stats.copy_fallbacks, 1);
	ck_assert(!slot->exact);
	ck_assert(test_zero(ms_slot_address(slot, 1), 2 * test_page()));
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
}
END_TEST

/* A private page that is in no set must not wait beyond the edge: it would come back unseen. */
START_TEST(invariant_01_an_inexact_set_hides_nothing_beyond_the_edge)
{
	struct memslot_slot *slot;

	NEED_FEATURE("pagemap_scan");
	slot = large_slot_with_written_pages();
	slot->exact = _i == 0;
	ck_assert_int_eq(ms_edge_lower(slot, 3), 0);
	ck_assert_uint_eq(private_pages(slot, 3, SIZE_PAGES), _i ? 0 : SIZE_PAGES - 3);
	ck_assert_uint_eq(slot->retained.count, _i ? 3 : SIZE_PAGES);
	assert_closed(ms_slot_address(slot, 3));
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
}
END_TEST

START_TEST(invariant_01_hidden_pages_that_are_mapped_over_are_gone_and_stay_closed)
{
	struct memslot_slot *slot;

	NEED_FEATURE("pagemap_scan");
	slot = large_slot_with_written_pages();
	ck_assert_int_eq(ms_edge_lower(slot, 3), 0);
	ck_assert_uint_eq(private_pages(slot, 3, SIZE_PAGES), SIZE_PAGES - 3);
	ck_assert_int_eq(ms_edge_map_over(slot, 2, SIZE_PAGES), 0);
	ck_assert_uint_eq(private_pages(slot, 2, SIZE_PAGES), 0);
	ck_assert_uint_eq(slot->retained.count, 2);
	assert_open(ms_slot_address(slot, 2));
	for (size_t page = 3; page < SIZE_PAGES; page++)
		assert_closed(ms_slot_address(slot, page));
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("release");
	TCase *refused = test_case(suite, "refused"), *set = test_case(suite, "set");

	tcase_add_loop_test(refused, invariant_04_swapped_pages_of_a_copied_image_are_copied_again, 0, 2);
	tcase_add_loop_test(set, invariant_02_what_is_released_leaves_the_set_in_the_same_step, 0, 2);
	tcase_add_test(set, invariant_21_what_had_to_be_copied_in_place_is_no_exact_set);
	tcase_add_loop_test(set, invariant_01_an_inexact_set_hides_nothing_beyond_the_edge, 0, 2);
	tcase_add_test(set, invariant_01_hidden_pages_that_are_mapped_over_are_gone_and_stay_closed);
	return suite;
}
