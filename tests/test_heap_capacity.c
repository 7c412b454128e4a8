/* SPDX-License-Identifier: MIT */
/*
 * test_heap_capacity.c - heaps in slots of another capacity than they were made in, and slots that
 * hold no heap.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY ((size_t)16 << 20)
#define ROOM ((size_t)256 << 20) /* of addresses: the next slot finds them free */
#define AT_CAPACITY 16		 /* where the state keeps it */

static struct memslot_slot *slot_at(void *base, size_t capacity)
{
	struct memslot_slot_opts opts =
		MEMSLOT_OPTS(memslot_slot_opts, .reserve = ROOM, .base_address = base);

	return slot_new(capacity, &opts);
}

/* An image of a heap with a text in it; its slot is gone. */
static struct memslot_image *boot(void)
{
	struct memslot_slot *slot = slot_at(NULL, CAPACITY);
	struct memslot_image *image;
	struct memslot_heap *heap;
	char *text;

	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	text = memslot_heap_alloc(heap, 20, 0);
	strcpy(text, "booted");
	memslot_heap_set_root(heap, text);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	destroy(slot);
	return image;
}

static struct memslot_slot *slot_for(struct memslot_image *image, size_t capacity)
{
	struct memslot_slot *slot = slot_at(memslot_image_base_address(image), capacity);

	instantiate(slot, image, memslot_image_size(image));
	return slot;
}

/* Large objects, then small ones, until there is no more. */
static void fill(struct memslot_heap *heap)
{
	unsigned char *at;

	for (size_t size = 1u << 20; size; size /= 4) {
		while ((at = memslot_heap_alloc(heap, size, 0)))
			memset(at, 0xee, size);
	}
}

START_TEST(a_heap_works_in_a_larger_slot_up_to_its_own_capacity)
{
	static const size_t more[] = {0, 1, 3, 4096, 12 * 4096};
	struct memslot_image *image = boot();
	struct memslot_slot *slot = slot_for(image, CAPACITY + PAGES(more[_i]));
	struct memslot_heap *heap;

	ck_assert_int_eq(memslot_heap_open(slot, &heap), 0);
	for (int round = 0; round < 3; round++) {
		ck_assert_str_eq(memslot_heap_root(heap), "booted");
		fill(heap);
		ck_assert_uint_eq(memslot_slot_size(slot), CAPACITY);
		ck_assert_int_eq(memslot_heap_check(heap), 0);
		reset(slot);
		ck_assert_int_eq(memslot_heap_check(heap), 0);
		ck_assert_uint_eq(memslot_slot_size(slot), memslot_image_size(image));
	}
	/* One that is made here has all of the slot. */
	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	fill(heap);
	ck_assert_uint_eq(memslot_slot_size(slot), memslot_slot_capacity(slot));
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_smaller_slot_is_refused)
{
	struct memslot_image *image = boot();
	struct memslot_slot *slot = slot_for(image, CAPACITY - PAGES(1));
	struct memslot_heap *heap = (struct memslot_heap *)1;

	ck_assert_int_eq(memslot_heap_open(slot, &heap), -EMSGSIZE);
	ck_assert_ptr_eq(heap, (struct memslot_heap *)1);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* What is more than its size is room for the heap, as far as its capacity goes. */
START_TEST(an_image_may_be_shown_larger_than_it_is)
{
	struct memslot_image *image = boot();
	size_t size = memslot_image_size(image),
	       sizes[] = {size, size + PAGES(1), CAPACITY, CAPACITY + PAGES(5), 2 * CAPACITY};
	struct memslot_slot *slot = slot_for(image, 2 * CAPACITY);
	size_t end = sizes[_i] > CAPACITY ? sizes[_i] : CAPACITY;
	struct memslot_heap *heap;

	instantiate(slot, image, sizes[_i]);
	ck_assert_int_eq(memslot_heap_open(slot, &heap), 0);
	ck_assert_str_eq(memslot_heap_root(heap), "booted");
	fill(heap);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	ck_assert_uint_eq(memslot_slot_size(slot), end);
	ck_assert(test_zero((unsigned char *)memslot_slot_base(slot) + CAPACITY, end - CAPACITY));
	reset(slot);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	ck_assert_str_eq(memslot_heap_root(heap), "booted");
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_smaller_size_than_the_heaps_is_refused)
{
	struct memslot_image *image = boot();
	struct memslot_slot *slot = slot_for(image, CAPACITY);
	struct memslot_heap *heap, *again = (struct memslot_heap *)1;

	ck_assert_int_lt(
		memslot_slot_instantiate(slot, image, memslot_image_size(image) - PAGES(1)), 0);
	ck_assert_int_eq(memslot_heap_open(slot, &heap), 0);
	fill(heap);
	ck_assert_int_eq(memslot_slot_resize(slot, CAPACITY - PAGES(1)), 0);
	ck_assert_int_eq(memslot_heap_open(slot, &again), -EUCLEAN);
	ck_assert_ptr_eq(again, (struct memslot_heap *)1);
	reset(slot);
	ck_assert_int_eq(memslot_heap_open(slot, &again), 0);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* Shown, and not opened, it is none for a handle that knows another layout. */
START_TEST(a_heap_of_another_capacity_has_to_be_opened)
{
	struct memslot_image *image = boot();
	struct memslot_slot *slot = slot_at(memslot_image_base_address(image), 3 * CAPACITY);
	struct memslot_heap *heap, *again;

	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	ck_assert_ptr_nonnull(memslot_heap_alloc(heap, 100, 0));
	instantiate(slot, image, memslot_image_size(image));
	ck_assert_ptr_null(memslot_heap_root(heap));
	ck_assert_ptr_null(memslot_heap_alloc(heap, 100, 0));
	ck_assert_int_eq(memslot_heap_check(heap), -EUCLEAN);
	ck_assert_int_eq(memslot_heap_open(slot, &again), 0);
	ck_assert_ptr_eq(again, heap);
	ck_assert_str_eq(memslot_heap_root(heap), "booted");
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* Guests write it: each value an error, the handle as it was. */
START_TEST(a_capacity_that_cannot_be_is_refused)
{
	struct memslot_image *image = boot();
	struct memslot_slot *slot = slot_for(image, 2 * CAPACITY);
	unsigned char *base = base_of(slot);
	struct memslot_heap *heap, *other = (struct memslot_heap *)1;
	struct test_rng rng = test_rng(41);
	uint64_t capacity;

	ck_assert_int_eq(memslot_heap_open(slot, &heap), 0);
	memcpy(&capacity, base + AT_CAPACITY, sizeof capacity);
	ck_assert_uint_eq(capacity, CAPACITY);
	for (unsigned round = test_rounds(3000); round; round--) {
		uint64_t wrong = test_next(&rng) >> test_below(&rng, 64);
		int error;
		if (test_below(&rng, 2))
			wrong = test_below(&rng, 2 * CAPACITY);
		if (wrong == CAPACITY)
			continue;
		memcpy(base + AT_CAPACITY, &wrong, sizeof wrong);
		error = memslot_heap_open(slot, &other);
		ck_assert_msg(error == (wrong > 2 * CAPACITY ? -EMSGSIZE : -EUCLEAN),
			"capacity %#llx: %d", (unsigned long long)wrong, error);
		ck_assert_ptr_null(memslot_heap_alloc(heap, 100000, 0));
	}
	ck_assert_ptr_eq(other, (struct memslot_heap *)1);
	reset(slot);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	ck_assert_str_eq(memslot_heap_root(heap), "booted");
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_slot_without_a_heap_has_no_root)
{
	static const size_t sizes[] = {0, 1, 4u << 20};
	struct memslot_image *image = boot();
	struct memslot_slot *slot = slot_for(image, CAPACITY);
	struct memslot_heap *heap;

	ck_assert_int_eq(memslot_heap_open(slot, &heap), 0);
	instantiate(slot, NULL, sizes[_i]);
	ck_assert_ptr_null(memslot_heap_root(heap));
	memslot_heap_set_root(heap, heap);
	instantiate(slot, image, memslot_image_size(image));
	ck_assert_str_eq(memslot_heap_root(heap), "booted");
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_capacity");
	TCase *other = test_case(suite, "another capacity"), *none = test_case(suite, "no heap");

	tcase_add_loop_test(other, a_heap_works_in_a_larger_slot_up_to_its_own_capacity, 0, 5);
	tcase_add_test(other, a_smaller_slot_is_refused);
	tcase_add_loop_test(other, an_image_may_be_shown_larger_than_it_is, 0, 5);
	tcase_add_test(other, a_smaller_size_than_the_heaps_is_refused);
	tcase_add_test(other, a_heap_of_another_capacity_has_to_be_opened);
	tcase_add_test(other, a_capacity_that_cannot_be_is_refused);
	tcase_add_loop_test(none, a_slot_without_a_heap_has_no_root, 0, 3);
	return suite;
}
