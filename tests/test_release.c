/* SPDX-License-Identifier: MIT */
/*
 * test_release.c - giving pages back when the kernel refuses: lib/slot/release.c from inside.
 */
#define _GNU_SOURCE
#include "common.h"

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
	ck_assert_int_eq(ms_release_swapped(slot, 0, SIZE_PAGES, false), 0);
	memset(&ms_os_inject, 0, sizeof ms_os_inject);
	assert_pristine(slot, contents);
	memset(slot->base, 't', SIZE_PAGES * test_page());
	ck_assert_int_eq(memslot_slot_reset(slot), 0);
	assert_pristine(slot, contents);
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
	free(contents);
}
END_TEST

START_TEST(invariant_15_swapped_pages_are_not_mapped_over_under_a_pin)
{
	unsigned char *contents = malloc(IMAGE_PAGES * test_page());
	struct memslot_slot *slot;

	test_fill(contents, IMAGE_PAGES * test_page(), 1);
	slot = slot_with_copied_image(contents);
	ms_os_inject = (struct ms_os_inject){
		.at = 1, .error = ENOMEM, .for_good = true, .only = SYS_madvise};
	ck_assert_int_lt(ms_release_swapped(slot, 0, SIZE_PAGES, true), 0);
	memset(&ms_os_inject, 0, sizeof ms_os_inject);
	ck_assert_uint_eq(slot->base[0], 's');
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
	free(contents);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("release");
	TCase *refused = test_case(suite, "refused");

	tcase_add_loop_test(refused, invariant_04_swapped_pages_of_a_copied_image_are_copied_again, 0, 2);
	tcase_add_test(refused, invariant_15_swapped_pages_are_not_mapped_over_under_a_pin);
	return suite;
}
