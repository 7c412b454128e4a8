/* SPDX-License-Identifier: MIT */
/*
 * test_heap_defects.c - what was once wrong: each test has failed.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY ((size_t)8 << 20)

static struct memslot_heap *heap_new(struct memslot_slot *slot)
{
	struct memslot_heap *heap;

	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	return heap;
}

START_TEST(a_block_cannot_be_made_larger_than_memory)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_heap *heap = heap_new(slot);
	unsigned char *block = memslot_heap_alloc(heap, 100000, 0);
	size_t usable = memslot_heap_usable_size(heap, block);

	test_fill(block, 100000, 1);
	for (size_t less = 0; less < 40; less++)
		ck_assert_ptr_null(memslot_heap_realloc(heap, block, SIZE_MAX - less));
	ck_assert_ptr_null(memslot_heap_realloc(heap, block, CAPACITY));
	ck_assert_uint_eq(memslot_heap_usable_size(heap, block), usable);
	ck_assert(test_filled(block, 100000, 1));
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	destroy(slot);
}
END_TEST

/* --- zeros --- */

static void assert_zeroed(struct memslot_heap *heap)
{
	unsigned char *at;

	for (size_t size = 3000; size < 400000; size *= 2) {
		at = memslot_heap_alloc_zeroed(heap, 1, size);
		ck_assert_ptr_nonnull(at);
		ck_assert(test_zero(at, size));
		test_fill(at, size, 3);
	}
	ck_assert_int_eq(memslot_heap_check(heap), 0);
}

static size_t scribble_from, scribble_bytes;

static int scribble(struct memslot_slot *slot, void *context)
{
	(void)context;
	if (memslot_slot_size(slot) >= scribble_from + scribble_bytes)
		memset((char *)memslot_slot_base(slot) + scribble_from, 0x5e, scribble_bytes);
	return 0;
}

/* Into the heap's state, then where objects will be. */
START_TEST(zeroed_objects_are_zero_where_on_reset_writes)
{
	static const size_t places[][2] = {
		{64, 200}, {0, 150000}, {300000, 200000}, {4096, 450000}};
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .on_reset = scribble);
	struct memslot_slot *slot = slot_new(CAPACITY, &opts);
	struct memslot_heap *heap;

	scribble_from = places[_i][0];
	scribble_bytes = places[_i][1];
	heap = heap_new(slot);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	assert_zeroed(heap);
	if (_i == 2) { /* what it writes then is the heap's state */
		reset(slot);
		assert_zeroed(heap);
	}
	destroy(slot);
}
END_TEST

/* The pages are no longer exempt at the end, but what they kept is there: also in an image. */
START_TEST(zeroed_objects_are_zero_where_pages_were_exempt)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_heap *heap = heap_new(slot);
	struct memslot_image *image;
	unsigned char *at;
	size_t offset;

	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	at = memslot_heap_alloc(heap, PAGES(16), PAGES(1));
	test_fill(at, PAGES(16), 2);
	offset = (size_t)(at - base_of(slot));
	ck_assert_int_eq(memslot_slot_exempt(slot, offset, PAGES(16)), 0);
	reset(slot);
	ck_assert(test_filled(at, PAGES(16), 2));
	if (_i) {
		ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
		ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, 0), 0);
		ck_assert_int_eq(
			memslot_slot_instantiate(slot, image, memslot_image_size(image)), 0);
		memslot_image_unref(image);
	}
	assert_zeroed(heap);
	destroy(slot);
}
END_TEST

/* --- slots that may not be read --- */

static int all_refuse(struct memslot_slot *slot, struct memslot_heap *heap, void *object)
{
	struct memslot_heap_stats stats = {.size = sizeof stats};
	struct memslot_heap *again;

	memslot_heap_set_root(heap, object);
	memslot_heap_free(heap, object);
	return (memslot_heap_check(heap) != -ESTALE) |
	       (memslot_heap_stats(heap, &stats) != -ESTALE) << 1 |
	       (memslot_heap_open(slot, &again) != -ESTALE) << 2 |
	       (memslot_heap_alloc(heap, 10, 0) != NULL) << 3 |
	       (memslot_heap_alloc_zeroed(heap, 1, 9000) != NULL) << 4 |
	       (memslot_heap_realloc(heap, object, 70) != NULL) << 5 |
	       (memslot_heap_usable_size(heap, object) != 0) << 6 |
	       (memslot_heap_root(heap) != NULL) << 7;
}

START_TEST(a_child_that_has_no_slot_is_told)
{
	struct memslot_slot_opts opts =
		MEMSLOT_OPTS(memslot_slot_opts, .flags = MEMSLOT_SLOT_DONTFORK);
	struct memslot_slot *slot = slot_new(CAPACITY, &opts);
	struct memslot_heap *heap = heap_new(slot);
	void *object = memslot_heap_alloc(heap, 50, 0);
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(all_refuse(slot, heap, object));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	destroy(slot);
}
END_TEST

static int fail_now;

static int answer_now(struct memslot_slot *slot, void *context)
{
	(void)slot, (void)context;
	return fail_now;
}

START_TEST(an_unknown_slot_has_no_heap)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .on_reset = answer_now);
	struct memslot_slot *slot = slot_new(CAPACITY, &opts);
	struct memslot_heap *heap = heap_new(slot);
	void *object = memslot_heap_alloc(heap, 50, 0);

	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	fail_now = -EIO;
	ck_assert_int_eq(memslot_slot_reset(slot), -EIO);
	ck_assert_int_eq(all_refuse(slot, heap, object), 0);
	fail_now = 0;
	reset(slot);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	ck_assert_uint_ge(memslot_heap_usable_size(heap, object), 50);
	destroy(slot);
}
END_TEST

/* --- other sizes, other images --- */

static unsigned fill(struct memslot_heap *heap)
{
	unsigned count = 0;

	while (memslot_heap_alloc(heap, 100000, 0))
		count++;
	return count;
}

/* By the image's user, or by a resize. */
START_TEST(what_somebody_else_committed_is_used)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_heap *heap = heap_new(slot), *again;
	struct memslot_image *image;
	unsigned room = fill(heap);
	size_t size;

	heap = heap_new(slot);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
	size = memslot_image_size(image) + PAGES(300);
	if (_i == 0)
		ck_assert_int_eq(memslot_slot_instantiate(slot, image, size), 0);
	else
		ck_assert_int_eq(memslot_slot_resize(slot, size), 0);
	for (int round = 0; round < 3; round++) {
		ck_assert_int_eq(memslot_heap_check(heap), 0);
		ck_assert_int_eq(memslot_heap_open(slot, &again), 0);
		memslot_heap_close(again);
		ck_assert_uint_eq(fill(heap), room);
		ck_assert_int_eq(memslot_heap_check(heap), 0);
		reset(slot);
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(another_heaps_image_is_none_before_it_is_opened)
{
	static char path[] = "/tmp/memslot-defects-XXXXXX";
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_heap *heap = heap_new(slot), *again;
	struct memslot_image *image, *foreign;
	void *object = memslot_heap_alloc(heap, 50, 0);

	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
	close(mkstemp(path));
	ck_assert_int_eq(memslot_image_save(image, path), 0);
	ck_assert_int_eq(memslot_image_open(path, NULL, &foreign), 0);
	unlink(path);
	ck_assert_int_eq(memslot_slot_instantiate(slot, foreign, memslot_image_size(foreign)), 0);
	ck_assert_int_eq(memslot_heap_check(heap), -EUCLEAN);
	ck_assert_ptr_null(memslot_heap_alloc(heap, 10, 0));
	ck_assert_uint_eq(memslot_heap_usable_size(heap, object), 0);
	ck_assert_int_eq(memslot_heap_open(slot, &again), 0);
	ck_assert_ptr_eq(again, heap);
	ck_assert_uint_ge(memslot_heap_usable_size(heap, object), 50);
	memslot_image_unref(foreign);
	/* Its own older one needs no open, and what is taken now is its own, too. */
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, memslot_image_size(image)), 0);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_defects");
	TCase *tcase = test_case(suite, "defects");

	tcase_add_test(tcase, a_block_cannot_be_made_larger_than_memory);
	tcase_add_loop_test(tcase, zeroed_objects_are_zero_where_on_reset_writes, 0, 4);
	tcase_add_loop_test(tcase, zeroed_objects_are_zero_where_pages_were_exempt, 0, 2);
	tcase_add_test(tcase, a_child_that_has_no_slot_is_told);
	tcase_add_test(tcase, an_unknown_slot_has_no_heap);
	tcase_add_loop_test(tcase, what_somebody_else_committed_is_used, 0, 2);
	tcase_add_test(tcase, another_heaps_image_is_none_before_it_is_opened);
	return suite;
}
