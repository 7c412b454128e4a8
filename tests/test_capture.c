/* SPDX-License-Identifier: MIT */
/* test_capture.c - images taken from slots: capture, checkpoint, bound ones. */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Writes that leave some pages of the image alone, some bytes outside, and some pages of zeros. */
static unsigned char *scribble(struct memslot_slot *slot, unsigned tag)
{
	size_t size = memslot_slot_size(slot);
	unsigned char *copy = malloc(size);

	for (size_t page = tag % 3; page < size / test_page(); page += 3)
		test_fill(base_of(slot) + PAGES(page) + tag, 300, tag);
	memset(base_of(slot) + size - PAGES(2), 0, PAGES(1));
	memcpy(copy, base_of(slot), size);
	return copy;
}

static struct memslot_slot *slot_with_image(int kind)
{
	struct memslot_slot *slot = slot_of_kind(kind, PAGES(50));
	struct memslot_image *image = image_of(10, 20, 4);

	instantiate(slot, image, PAGES(40));
	memslot_image_unref(image);
	return slot;
}

/* --- capture --- */

/* W16: images captured after warm-up. */
START_TEST(a_capture_holds_what_the_slot_holds)
{
	struct memslot_slot *slot = slot_with_image(_i), *other = slot_of_kind(_i, PAGES(50));
	unsigned char *copy = scribble(slot, 7);
	struct memslot_image *image = NULL;

	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	ck_assert(test_same(base_of(slot), copy, PAGES(40)));
	ck_assert_uint_le(memslot_image_offset(image) + memslot_image_size(image), PAGES(40));
	ck_assert_ptr_null(memslot_image_base_address(image));
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	for (int round = 0; round < 3; round++) {
		instantiate(other, image, PAGES(40));
		ck_assert(test_same(base_of(other), copy, PAGES(40)));
		dirty_all(other);
	}
	instantiate(slot, image, PAGES(40));
	ck_assert(test_same(base_of(slot), copy, PAGES(40)));
	memslot_image_unref(image);
	destroy(slot);
	destroy(other);
	free(copy);
}
END_TEST

START_TEST(a_capture_keeps_its_note)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts, .note = "abc", .note_size = 3);
	struct memslot_slot *slot = slot_with_image(0);
	struct memslot_image *image;
	const void *note;
	size_t size;

	ck_assert_int_eq(memslot_slot_capture(slot, &opts, &image), 0);
	ck_assert_int_eq(memslot_image_note(image, &note, &size), 0);
	ck_assert_uint_eq(size, 3);
	ck_assert_mem_eq(note, "abc", 3);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_capture_of_zeros_shows_zeros)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(50));
	struct memslot_image *image = NULL;

	instantiate(slot, NULL, PAGES(30));
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	ck_assert_ptr_nonnull(image);
	instantiate(slot, image, PAGES(30));
	assert_zeros(slot, PAGES(30));
	dirty_all(slot);
	reset(slot);
	assert_zeros(slot, PAGES(30));
	memslot_image_unref(image);
	instantiate(slot, NULL, 0);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	instantiate(slot, image, 0);
	instantiate(slot, image, PAGES(3));
	assert_zeros(slot, PAGES(3));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(capture_takes_a_note_and_nothing_else)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts);
	struct {
		struct memslot_image_opts opts;
		uint64_t newer;
	} newer = {{.size = sizeof newer}, 1};
	struct memslot_slot *slot = slot_with_image(0);
	struct memslot_image *image = (struct memslot_image *)1;

	opts.slot_offset = 4096;
	ck_assert_int_eq(memslot_slot_capture(slot, &opts, &image), -EINVAL);
	opts.slot_offset = 0;
	opts.flags = MEMSLOT_IMAGE_MAP_FILE;
	ck_assert_int_eq(memslot_slot_capture(slot, &opts, &image), -EINVAL);
	opts.flags = MEMSLOT_IMAGE_VERIFY;
	ck_assert_int_eq(memslot_slot_capture(slot, &opts, &image), -EINVAL);
	opts.flags = 0;
	opts.note_size = 4;
	ck_assert_int_eq(memslot_slot_capture(slot, &opts, &image), -EINVAL);
	ck_assert_int_eq(memslot_slot_capture(slot, &newer.opts, &image), -E2BIG);
	ck_assert_ptr_eq(image, (struct memslot_image *)1);
	destroy(slot);
}
END_TEST

static struct memslot_image_stats image_stats(const struct memslot_image *image)
{
	struct memslot_image_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_image_stats(image, &stats), 0);
	return stats;
}

/* Bound (_i 1) or not. */
START_TEST(a_strict_capture_refuses_pointers_out_of_the_slot)
{
	struct memslot_image_opts strict = MEMSLOT_OPTS(
			memslot_image_opts, .flags = MEMSLOT_IMAGE_STRICT);
	struct memslot_slot_opts opts = MEMSLOT_OPTS(
			memslot_slot_opts, .flags = _i ? MEMSLOT_SLOT_BOUND : 0);
	struct memslot_slot *slot = slot_new(PAGES(50), &opts), *other = slot_new(PAGES(50), NULL);
	struct memslot_image *image = (struct memslot_image *)1;
	void *closed = mmap(NULL, PAGES(1), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *memory = malloc(8), **words;
	bool counts = memslot_feature("proc_maps") == 1;

	instantiate(slot, NULL, PAGES(40));
	instantiate(other, NULL, PAGES(40));
	words = (void **)(void *)base_of(slot);
	words[0] = (void *)UINTPTR_MAX; /* numbers */
	words[1] = (void *)1;
	words[2] = words;			 /* itself */
	words[3] = base_of(slot) + PAGES(50) - 1; /* beyond the edge */
	words[600] = (void *)(uintptr_t)test_page; /* the program */
	words[601] = (void *)(uintptr_t)malloc;	 /* a library, or a sanitizer */
	words[602] = closed; /* nobody can follow that */
	if (!counts) {
		ck_assert_int_eq(memslot_slot_capture(slot, &strict, &image), -EOPNOTSUPP);
		ck_assert_ptr_eq(image, (struct memslot_image *)1);
	} else {
		void *strays[] = {&image, memory, base_of(other) + 8, &errno};
		ck_assert_int_eq(memslot_slot_capture(slot, &strict, &image), 0);
		ck_assert_uint_eq(image_stats(image).strays, 0);
		ck_assert_uint_ge(image_stats(image).objects, 1);
		memslot_image_unref(image);
		image = (struct memslot_image *)1;
		for (size_t i = 0; i < sizeof strays / sizeof *strays; i++) {
			words[5000] = strays[i];
			ck_assert_int_eq(memslot_slot_capture(slot, &strict, &image), -ENOTUNIQ);
			ck_assert_ptr_eq(image, (struct memslot_image *)1);
		}
	}
	words[700] = memory;
	words[5000] = memory;
	for (int i = 0; i < 2; i++) { /* without STRICT it is counted */
		if (i)
			ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
		else
			ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
		ck_assert_uint_eq(image_stats(image).strays, counts && _i ? 2 : MEMSLOT_NONE);
		ck_assert_int_eq(image_stats(image).objects > 0, _i);
		memslot_image_unref(image);
	}
	free(memory);
	munmap(closed, PAGES(1));
	destroy(slot);
	destroy(other);
}
END_TEST

/* --- checkpoint --- */

START_TEST(a_checkpoint_is_what_reset_comes_back_to)
{
	struct memslot_slot *slot = slot_with_image(_i);
	unsigned char *copy = scribble(slot, 7);
	struct memslot_image *image = NULL;

	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
	ck_assert_ptr_eq(memslot_slot_image(slot), image);
	ck_assert(test_same(base_of(slot), copy, PAGES(40)));
	for (unsigned round = 0; round < 6; round++) {
		dirty_pages(slot, round, 30, round % 3 + 1);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
		dirty_pages(slot, 40, 10, 1);
		reset(slot);
		ck_assert_uint_eq(memslot_slot_size(slot), PAGES(40));
		ck_assert(test_same(base_of(slot), copy, PAGES(40)));
	}
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(5), PAGES(30)), 0);
	ck_assert(test_same(base_of(slot) + PAGES(5), copy + PAGES(5), PAGES(30)));
	memslot_image_unref(image);
	destroy(slot);
	free(copy);
}
END_TEST

START_TEST(a_checkpoint_takes_the_size_too)
{
	struct memslot_slot *slot = slot_with_image(_i);

	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
	dirty_pages(slot, 30, 15, 1);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	dirty_all(slot);
	reset(slot);
	ck_assert_uint_eq(memslot_slot_size(slot), PAGES(50));
	ck_assert(test_filled(base_of(slot) + PAGES(10), PAGES(20), 4));
	ck_assert_uint_eq(base_of(slot)[PAGES(44) + 14], 0xdd);
	ck_assert(test_zero(base_of(slot) + PAGES(45), PAGES(5)));
	destroy(slot);
}
END_TEST

START_TEST(checkpoints_nest_and_older_images_can_be_shown_again)
{
	enum { DEPTH = 6 };
	struct memslot_slot *slot = slot_with_image(_i);
	struct memslot_image *images[DEPTH];
	unsigned char *copies[DEPTH];

	for (unsigned depth = 0; depth < DEPTH; depth++) {
		if (depth == 3)
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(45)), 0);
		copies[depth] = scribble(slot, 10 + depth);
		ck_assert_int_eq(memslot_slot_checkpoint(slot, &images[depth]), 0);
		dirty_all(slot);
		reset(slot);
		ck_assert(test_same(base_of(slot), copies[depth], memslot_slot_size(slot)));
	}
	for (unsigned depth = DEPTH; depth-- > 0;) {
		size_t size = PAGES(depth >= 3 ? 45 : 40);
		instantiate(slot, images[depth], size);
		ck_assert(test_same(base_of(slot), copies[depth], size));
		dirty_pages(slot, 0, 40, depth + 1);
	}
	for (unsigned depth = 0; depth < DEPTH; depth++) {
		memslot_image_unref(images[depth]);
		free(copies[depth]);
	}
	destroy(slot);
}
END_TEST

START_TEST(a_checkpoint_of_a_clean_slot_changes_nothing)
{
	struct memslot_slot *slot = slot_with_image(_i);

	for (int round = 0; round < 3; round++) {
		ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
		assert_shows(slot, 10, 20, 4, PAGES(40));
		dirty_all(slot);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	instantiate(slot, NULL, 0);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	reset(slot);
	ck_assert_uint_eq(memslot_slot_size(slot), 0);
	destroy(slot);
}
END_TEST

/* In a child: over RLIMIT_FSIZE the kernel would raise SIGXFSZ, which ends a process. */
static int checkpoint_over_the_limit(void *kind)
{
	struct memslot_slot *slot = slot_with_image(*(int *)kind);
	struct memslot_image *image = (struct memslot_image *)1, *before = memslot_slot_image(slot);
	struct rlimit limit = {PAGES(2), RLIM_INFINITY};
	unsigned char *copy = scribble(slot, 7);

	child_check(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	child_check(memslot_slot_checkpoint(slot, &image) == -EFBIG);
	child_check(memslot_slot_capture(slot, NULL, &image) == -EFBIG);
	child_check(image == (struct memslot_image *)1 && memslot_slot_image(slot) == before);
	child_check(test_same(base_of(slot), copy, PAGES(40)));
	child_check(memslot_slot_reset(slot) == 0);
	child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
	limit.rlim_cur = RLIM_INFINITY;
	child_check(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	child_check(memslot_slot_checkpoint(slot, NULL) == 0);
	free(copy);
	return memslot_slot_destroy(slot);
}

START_TEST(invariant_25_over_the_file_limit_everything_stays_as_it_was)
{
	ck_assert_int_eq(test_in_child(checkpoint_over_the_limit, &_i), 0);
}
END_TEST

/* --- bound images --- */

static struct memslot_slot *bound_slot(int kind)
{
	struct memslot_slot_opts opts = kind_opts(kind);

	opts.flags |= MEMSLOT_SLOT_BOUND;
	return slot_new(PAGES(50), &opts);
}

START_TEST(invariant_32_a_bound_image_is_shown_at_its_address_or_nowhere)
{
	struct memslot_slot *slot = bound_slot(_i), *other = bound_slot(_i);
	struct memslot_image *captured, *checkpointed;
	unsigned char *copy;

	instantiate(slot, NULL, PAGES(40));
	copy = scribble(slot, 3);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &captured), 0);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &checkpointed), 0);
	ck_assert_ptr_eq(memslot_image_base_address(captured), base_of(slot));
	ck_assert_ptr_eq(memslot_image_base_address(checkpointed), base_of(slot));
	instantiate(other, NULL, PAGES(45));
	dirty_pages(other, 0, 45, 2);
	ck_assert_int_eq(memslot_slot_instantiate(other, captured, PAGES(40)), -EADDRNOTAVAIL);
	ck_assert_int_eq(memslot_slot_instantiate(other, checkpointed, PAGES(40)), -EADDRNOTAVAIL);
	ck_assert_uint_eq(memslot_slot_size(other), PAGES(45));
	ck_assert_uint_eq(base_of(other)[PAGES(2) + 2], 0xdd);
	instantiate(slot, captured, PAGES(40));
	ck_assert(test_same(base_of(slot), copy, PAGES(40)));
	memslot_image_unref(captured);
	memslot_image_unref(checkpointed);
	destroy(slot);
	destroy(other);
	free(copy);
}
END_TEST

START_TEST(invariant_32_a_slot_made_at_the_address_may_show_it)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_slot *slot = bound_slot(_i);
	struct memslot_image *image;
	unsigned char *copy;

	instantiate(slot, NULL, PAGES(40));
	copy = scribble(slot, 3);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	opts.base_address = memslot_slot_base(slot);
	destroy(slot);
	slot = slot_new(PAGES(50), &opts);
	instantiate(slot, image, PAGES(40));
	ck_assert(test_same(base_of(slot), copy, PAGES(40)));
	memslot_image_unref(image);
	destroy(slot);
	free(copy);
}
END_TEST

/* A slot that is not BOUND shows a bound image: what it captures then holds the same pointers. */
START_TEST(invariant_32_what_descends_from_a_bound_image_is_bound)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts);
	struct memslot_slot *slot = bound_slot(0);
	struct memslot_image *image, *descendant, *checkpoint;
	void *base = memslot_slot_base(slot);

	instantiate(slot, NULL, PAGES(40));
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	destroy(slot);
	opts.base_address = base;
	slot = slot_new(PAGES(50), &opts);
	instantiate(slot, image, PAGES(40));
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &descendant), 0);
	ck_assert_ptr_eq(memslot_image_base_address(descendant), base);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &checkpoint), 0);
	ck_assert_ptr_eq(memslot_image_base_address(checkpoint), base);
	memslot_image_unref(image);
	memslot_image_unref(descendant);
	memslot_image_unref(checkpoint);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("capture");
	TCase *capture = test_case(suite, "capture"), *checkpoint = test_case(suite, "checkpoint");
	TCase *bound = test_case(suite, "bound images");

	each_kind(capture, a_capture_holds_what_the_slot_holds);
	tcase_add_test(capture, a_capture_keeps_its_note);
	each_kind(capture, a_capture_of_zeros_shows_zeros);
	tcase_add_test(capture, capture_takes_a_note_and_nothing_else);
	tcase_add_loop_test(capture, a_strict_capture_refuses_pointers_out_of_the_slot, 0, 2);
	each_kind(checkpoint, a_checkpoint_is_what_reset_comes_back_to);
	each_kind(checkpoint, a_checkpoint_takes_the_size_too);
	each_kind(checkpoint, checkpoints_nest_and_older_images_can_be_shown_again);
	each_kind(checkpoint, a_checkpoint_of_a_clean_slot_changes_nothing);
	each_kind(checkpoint, invariant_25_over_the_file_limit_everything_stays_as_it_was);
	each_kind(bound, invariant_32_a_bound_image_is_shown_at_its_address_or_nowhere);
	each_kind(bound, invariant_32_a_slot_made_at_the_address_may_show_it);
	tcase_add_test(bound, invariant_32_what_descends_from_a_bound_image_is_bound);
	return suite;
}
