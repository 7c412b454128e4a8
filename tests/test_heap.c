/* SPDX-License-Identifier: MIT */
/*
 * test_heap.c - a heap in a slot: beside a list of what was allocated, rewound, saved and reopened, and
 * with nonsense written over its state.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#define CAPACITY ((size_t)16 << 20)
#define OBJECTS 600u

struct object {
	unsigned char *at;
	size_t size;
	unsigned tag;
};

struct bench {
	struct memslot_slot *slot;
	struct memslot_heap *heap;
	struct object object[OBJECTS];
	unsigned count, tag;
	struct test_rng rng;
};

static void bench_begin(struct bench *bench, size_t capacity, uint32_t flags)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .flags = flags);

	memset(bench, 0, sizeof *bench);
	bench->rng = test_rng(6);
	bench->slot = slot_new(capacity, &opts);
	ck_assert_int_eq(memslot_heap_create(bench->slot, NULL, &bench->heap), 0);
}

static void bench_end(struct bench *bench)
{
	memslot_heap_close(bench->heap);
	destroy(bench->slot);
}

static struct memslot_heap_stats stats(const struct memslot_heap *heap)
{
	struct memslot_heap_stats now = {.size = sizeof now};

	ck_assert_int_eq(memslot_heap_stats(heap, &now), 0);
	return now;
}

static size_t some_size(struct bench *bench)
{
	switch (test_below(&bench->rng, 6)) {
	case 0:
		return test_below(&bench->rng, 600);
	case 1:
		return test_below(&bench->rng, 40000);
	default:
		return 1 + test_below(&bench->rng, 128);
	}
}

static void check_object(const struct bench *bench, const struct object *object)
{
	ck_assert(test_filled(object->at, object->size, object->tag));
	ck_assert_uint_ge(memslot_heap_usable_size(bench->heap, object->at), object->size);
	ck_assert_uint_eq((uintptr_t)object->at % 16, 0);
}

static void new_object(struct bench *bench)
{
	struct object *object = &bench->object[bench->count];
	size_t align = test_below(&bench->rng, 5) ? 0 : 1ull << test_below(&bench->rng, 14);
	bool zeroed = test_below(&bench->rng, 4) == 0;

	object->size = some_size(bench);
	object->tag = ++bench->tag;
	object->at = zeroed ? memslot_heap_alloc_zeroed(bench->heap, 1, object->size)
			    : memslot_heap_alloc(bench->heap, object->size, align);
	ck_assert_ptr_ne(object->at, NULL);
	ck_assert(!zeroed || test_zero(object->at, object->size));
	ck_assert(zeroed || align < 2 || (uintptr_t)object->at % align == 0);
	test_fill(object->at, object->size, object->tag);
	bench->count++;
}

static void old_object(struct bench *bench)
{
	unsigned which = (unsigned)test_below(&bench->rng, bench->count);
	struct object *object = &bench->object[which];

	check_object(bench, object);
	if (test_below(&bench->rng, 3)) {
		memslot_heap_free(bench->heap, object->at);
		*object = bench->object[--bench->count];
	} else {
		size_t size = 1 + some_size(bench), kept = size < object->size ? size : object->size;
		unsigned char *moved = memslot_heap_realloc(bench->heap, object->at, size);
		ck_assert_ptr_ne(moved, NULL);
		ck_assert(test_filled(moved, kept, object->tag));
		*object = (struct object){moved, size, ++bench->tag};
		test_fill(moved, size, object->tag);
	}
}

static void live(struct bench *bench, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++) {
		if (bench->count == 0 || (bench->count < OBJECTS && test_below(&bench->rng, 9) < 5))
			new_object(bench);
		else
			old_object(bench);
		if (i % 256 == 0)
			ck_assert_int_eq(memslot_heap_check(bench->heap), 0);
	}
	for (unsigned i = 0; i < bench->count; i++)
		check_object(bench, &bench->object[i]);
	ck_assert_uint_eq(stats(bench->heap).live, bench->count);
	ck_assert_uint_eq(stats(bench->heap).misuse, 0);
	ck_assert_int_eq(memslot_heap_check(bench->heap), 0);
}

START_TEST(objects_are_disjoint_and_keep_what_is_in_them)
{
	struct bench bench;

	bench_begin(&bench, CAPACITY, 0);
	live(&bench, test_rounds(20000));
	while (bench.count)
		memslot_heap_free(bench.heap, bench.object[--bench.count].at);
	ck_assert_uint_eq(stats(bench.heap).live, 0);
	ck_assert_uint_eq(stats(bench.heap).live_bytes, 0);
	ck_assert_int_eq(memslot_heap_check(bench.heap), 0);
	bench_end(&bench);
}
END_TEST

START_TEST(a_rewound_heap_is_as_booted_generation_after_generation)
{
	struct memslot_heap_stats booted;
	struct bench bench, copy;
	size_t size;

	bench_begin(&bench, CAPACITY, _i ? MEMSLOT_SLOT_CONFINED : 0);
	live(&bench, 2000);
	memslot_heap_set_root(bench.heap, bench.object[0].at);
	ck_assert_int_eq(memslot_slot_checkpoint(bench.slot, NULL), 0);
	booted = stats(bench.heap);
	size = memslot_slot_size(bench.slot);
	for (unsigned i = 0; i < test_rounds(60); i++) {
		copy = bench;
		copy.rng = test_rng(i);
		live(&copy, (unsigned)test_below(&copy.rng, 800));
		memslot_heap_set_root(bench.heap, &copy);
		if (i % 10 == 0) { /* everything there is */
			while (memslot_heap_alloc(bench.heap, 100000, 0))
				;
			while (memslot_heap_alloc(bench.heap, 24, 0))
				;
			ck_assert_ptr_eq(memslot_heap_alloc_zeroed(bench.heap, 1, 70000), NULL);
			ck_assert_int_eq(memslot_heap_check(bench.heap), 0);
		}
		reset(bench.slot);
		ck_assert_uint_eq(memslot_slot_size(bench.slot), size);
		ck_assert_ptr_eq(memslot_heap_root(bench.heap), bench.object[0].at);
		ck_assert_uint_eq(stats(bench.heap).live, booted.live);
		ck_assert_uint_eq(stats(bench.heap).live_bytes, booted.live_bytes);
		ck_assert_int_eq(memslot_heap_check(bench.heap), 0);
		for (unsigned j = 0; j < bench.count; j++)
			check_object(&bench, &bench.object[j]);
	}
	bench_end(&bench);
}
END_TEST

START_TEST(a_request_within_the_headroom_moves_no_edge)
{
	struct memslot_heap_opts none = MEMSLOT_OPTS(memslot_heap_opts, .headroom = MEMSLOT_NONE);
	struct bench bench;
	size_t before;

	bench_begin(&bench, CAPACITY, 0);
	before = memslot_slot_size(bench.slot);
	for (int i = 0; i < 20; i++)
		ck_assert_ptr_ne(memslot_heap_alloc(bench.heap, 10000, 0), NULL);
	ck_assert_uint_eq(memslot_slot_size(bench.slot), before);
	for (int i = 0; i < 40; i++)
		ck_assert_ptr_ne(memslot_heap_alloc(bench.heap, 10000, 0), NULL);
	ck_assert_uint_gt(memslot_slot_size(bench.slot), before);
	ck_assert_int_eq(memslot_heap_create(bench.slot, &none, &bench.heap), 0);
	ck_assert_uint_lt(memslot_slot_size(bench.slot), before);
	ck_assert_uint_eq(stats(bench.heap).live, 0);
	bench_end(&bench);
}
END_TEST

START_TEST(a_fresh_heap_touches_little)
{
	struct memslot_run runs[64];
	size_t count, bytes = 0;
	struct bench bench;

	NEED_FEATURE("pagemap_scan");
	bench_begin(&bench, (size_t)1 << 30, 0);
	for (int i = 0; i < 100; i++)
		ck_assert_ptr_ne(memslot_heap_alloc(bench.heap, 100, 0), NULL);
	ck_assert_ptr_ne(memslot_heap_alloc_zeroed(bench.heap, 1, 200000), NULL); /* not cleared again */
	ck_assert_int_eq(memslot_slot_written(bench.slot, runs, 64, &count), 0);
	for (size_t i = 0; i < count; i++)
		bytes += runs[i].size;
	ck_assert_uint_le(bytes, 100000);
	bench_end(&bench);
}
END_TEST

static void count_misuse(struct memslot_heap *heap, const void *ptr, void *context)
{
	(void)heap, (void)ptr;
	++*(unsigned *)context;
}

START_TEST(misuse_is_counted_and_harms_nothing)
{
	unsigned told = 0;
	struct memslot_heap_opts opts = MEMSLOT_OPTS(
			memslot_heap_opts, .on_misuse = count_misuse, .context = &told);
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_heap *heap;
	unsigned char *small, *large;
	char here;

	ck_assert_int_eq(memslot_heap_create(slot, &opts, &heap), 0);
	small = memslot_heap_alloc(heap, 40, 0);
	large = memslot_heap_alloc(heap, 5000, 0);
	memslot_heap_free(heap, NULL);
	ck_assert_uint_eq(told, 0);
	memslot_heap_free(heap, &here);
	memslot_heap_free(heap, small + 8);
	memslot_heap_free(heap, small + 16);
	memslot_heap_free(heap, large + 16);
	memslot_heap_free(heap, base_of(slot));
	memslot_heap_free(heap, base_of(slot) + CAPACITY);
	ck_assert_ptr_eq(memslot_heap_realloc(heap, &here, 9), NULL);
	ck_assert_uint_eq(told, 7);
	ck_assert_uint_eq(memslot_heap_usable_size(heap, &here), 0);
	memslot_heap_free(heap, small);
	memslot_heap_free(heap, large);
	ck_assert_uint_eq(told, 7);
	memslot_heap_free(heap, small);
	memslot_heap_free(heap, large);
	ck_assert_uint_eq(told, 9);
	ck_assert_uint_eq(stats(heap).misuse, 9);
	ck_assert_uint_eq(stats(heap).live, 0);
	ck_assert_ptr_eq(memslot_heap_alloc(heap, 10, 3), NULL);
	ck_assert_ptr_eq(memslot_heap_alloc(heap, SIZE_MAX, 0), NULL);
	ck_assert_ptr_eq(memslot_heap_alloc(heap, SIZE_MAX - 8, 4096), NULL);
	ck_assert_ptr_eq(memslot_heap_alloc(heap, 10, (size_t)1 << 63), NULL);
	ck_assert_ptr_eq(memslot_heap_alloc_zeroed(heap, SIZE_MAX / 2, 3), NULL);
	ck_assert_ptr_ne(memslot_heap_alloc(heap, 0, 0), memslot_heap_alloc(heap, 0, 0));
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	destroy(slot);
}
END_TEST

START_TEST(realloc_is_malloc_and_free_at_its_ends)
{
	struct bench bench;
	unsigned char *at;

	bench_begin(&bench, CAPACITY, 0);
	at = memslot_heap_realloc(bench.heap, NULL, 100);
	test_fill(at, 100, 1);
	ck_assert_ptr_eq(memslot_heap_realloc(bench.heap, at, SIZE_MAX / 2), NULL);
	ck_assert(test_filled(at, 100, 1));
	at = memslot_heap_realloc(bench.heap, at, 100000);
	ck_assert(test_filled(at, 100, 1));
	ck_assert_ptr_eq(memslot_heap_realloc(bench.heap, at, 150000), at); /* nothing is behind it */
	ck_assert_ptr_eq(memslot_heap_realloc(bench.heap, at, 1000), at);
	at = memslot_heap_realloc(bench.heap, at, 50);
	ck_assert(test_filled(at, 50, 1));
	ck_assert_ptr_eq(memslot_heap_realloc(bench.heap, at, 0), NULL);
	ck_assert_uint_eq(stats(bench.heap).live, 0);
	bench_end(&bench);
}
END_TEST

/* Lua and others do not expect it to fail. */
START_TEST(an_object_can_be_made_smaller_in_a_full_heap)
{
	struct bench bench;
	unsigned char *at;

	bench_begin(&bench, 1u << 20, 0);
	at = memslot_heap_alloc(bench.heap, 3000, 0);
	test_fill(at, 3000, 1);
	for (size_t size = 1u << 20; size; size /= 2) {
		while (memslot_heap_alloc(bench.heap, size, 0))
			;
	}
	at = memslot_heap_realloc(bench.heap, at, 100);
	ck_assert_ptr_ne(at, NULL);
	ck_assert(test_filled(at, 100, 1));
	ck_assert_int_eq(memslot_heap_check(bench.heap), 0);
	bench_end(&bench);
}
END_TEST

START_TEST(slots_that_do_not_fit_are_told)
{
	struct memslot_slot *small = slot_new(PAGES(10), NULL), *held = slot_new(CAPACITY, NULL);
	struct memslot_heap *heap = (struct memslot_heap *)1;
	struct memslot_heap_opts opts = MEMSLOT_OPTS(memslot_heap_opts, .flags = 1);

	ck_assert_int_eq(memslot_heap_create(NULL, NULL, &heap), -EINVAL);
	ck_assert_int_eq(memslot_heap_create(small, NULL, NULL), -EINVAL);
	ck_assert_int_eq(memslot_heap_create(small, NULL, &heap), -EMSGSIZE);
	ck_assert_int_eq(memslot_heap_create(held, &opts, &heap), -EINVAL);
	ck_assert_int_eq(memslot_heap_open(held, &heap), -EUCLEAN);
	ck_assert_int_eq(memslot_heap_open(small, &heap), -EUCLEAN);
	ck_assert_int_eq(memslot_slot_hold(held, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(memslot_heap_create(held, NULL, &heap), -EBUSY);
	ck_assert_int_eq(memslot_slot_unhold(held, MEMSLOT_HOLD_IO), 0);
	ck_assert_ptr_eq(heap, (struct memslot_heap *)1);
	memslot_heap_close(NULL);
	ck_assert_ptr_eq(memslot_heap_alloc(NULL, 1, 0), NULL);
	destroy(small);
	destroy(held);
}
END_TEST

/* --- images of heaps --- */

START_TEST(invariant_32_a_heaps_image_is_shown_at_its_address_only)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL), *other = slot_new(CAPACITY, NULL);
	struct memslot_image *image;
	struct memslot_heap *heap, *again;
	char *text;

	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	text = memslot_heap_alloc(heap, 20, 0);
	strcpy(text, "booted");
	memslot_heap_set_root(heap, text);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	ck_assert_ptr_eq(memslot_image_base_address(image), base_of(slot));
	ck_assert_int_eq(memslot_slot_instantiate(other, image, memslot_image_size(image)), -EADDRNOTAVAIL);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, 0), 0);
	ck_assert_int_eq(memslot_heap_open(slot, &again), -EUCLEAN);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, memslot_image_size(image)), 0);
	ck_assert_int_eq(memslot_heap_open(slot, &again), 0);
	ck_assert_ptr_eq(again, heap);
	ck_assert_ptr_eq(memslot_heap_root(again), text);
	ck_assert_str_eq(text, "booted");
	memslot_image_unref(image);
	destroy(slot);
	destroy(other);
}
END_TEST

/* Released, or released while held. */
START_TEST(the_next_tenant_of_a_pools_slot_has_a_handle_of_its_own)
{
	unsigned told = 0;
	struct memslot_heap_opts opts = MEMSLOT_OPTS(
			memslot_heap_opts, .on_misuse = count_misuse, .context = &told);
	struct memslot_heap_stats now = {.size = sizeof now};
	struct memslot_image *image;
	struct memslot_pool *pool;
	struct memslot_slot *slot;
	struct memslot_heap *heap;

	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, NULL, &pool), 0);
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, 0, NULL, &slot), 0);
	ck_assert_int_eq(memslot_heap_create(slot, &opts, &heap), 0);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
	if (_i)
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(memslot_pool_release(pool, slot), 0); /* without a close */
	if (_i)
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(memslot_pool_acquire(pool, image, memslot_image_size(image), NULL, &slot), 0);
	ck_assert_int_eq(memslot_heap_open(slot, &heap), 0);
	memslot_heap_free(heap, &told);
	ck_assert_uint_eq(told, 0);
	ck_assert_int_eq(memslot_heap_stats(heap, &now), 0);
	ck_assert_uint_eq(now.misuse, 1);
	/* Nothing is there: no crash. */
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, 0), 0);
	ck_assert_ptr_eq(memslot_heap_alloc(heap, 100, 0), NULL);
	ck_assert_ptr_eq(memslot_heap_alloc(heap, 100000, 0), NULL);
	ck_assert_ptr_eq(memslot_heap_root(heap), NULL);
	ck_assert_int_eq(memslot_heap_check(heap), -EUCLEAN);
	ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
	memslot_image_unref(image);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

/* Whatever is written over the state: no crash outside the slot, and an end. */
START_TEST(nonsense_in_the_slot_is_survived)
{
	struct bench bench;
	size_t state = 5000;

	bench_begin(&bench, CAPACITY, 0);
	live(&bench, 1000);
	ck_assert_int_eq(memslot_slot_checkpoint(bench.slot, NULL), 0);
	for (unsigned round = 0; round < test_rounds(1500); round++) {
		unsigned char *base = base_of(bench.slot);
		size_t size = memslot_slot_size(bench.slot);
		struct memslot_heap *again;
		for (uint64_t i = 1 + test_below(&bench.rng, 8); i; i--)
			base[test_below(&bench.rng, i % 2 ? state : size)] =
					(unsigned char)test_below(&bench.rng, 256);
		for (int i = 0; i < 60; i++) {
			unsigned char *at = test_below(&bench.rng, 2)
					? memslot_heap_alloc(bench.heap, some_size(&bench), 0)
					: memslot_heap_alloc_zeroed(bench.heap, 1, some_size(&bench));
			ck_assert(!at || (at >= base && at < base + CAPACITY));
			memslot_heap_free(bench.heap,
					bench.object[test_below(&bench.rng, bench.count)].at);
			(void)memslot_heap_realloc(bench.heap,
					bench.object[test_below(&bench.rng, bench.count)].at,
					some_size(&bench));
		}
		(void)memslot_heap_check(bench.heap);
		if (memslot_heap_open(bench.slot, &again) == 0)
			memslot_heap_close(again);
		reset(bench.slot);
		ck_assert_int_eq(memslot_heap_check(bench.heap), 0);
	}
	bench_end(&bench);
}
END_TEST

/* --- another process --- */

static char saved[] = "/tmp/memslot-heap-XXXXXX";

int test_again(const char *path)
{
	struct memslot_image *image;
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .flags = 0);
	struct memslot_slot *slot;
	struct memslot_heap *heap;
	int error = memslot_image_open(path, NULL, &image);

	if (error)
		return 2;
	opts.base_address = memslot_image_base_address(image);
	if (memslot_slot_create(CAPACITY, &opts, &slot))
		return 3;
	error = memslot_slot_instantiate(slot, image, memslot_image_size(image));
	if (!error)
		error = memslot_heap_open(slot, &heap);
	/* With address randomization it is another program: refused, nothing worse. */
	return error == -ESTALE ? 77 : error ? 4 : strcmp(memslot_heap_root(heap), "from before") != 0;
}

/* Address space randomization: of the machine, and not switched off for this process. */
static bool libraries_move(void)
{
	FILE *file = fopen("/proc/sys/kernel/randomize_va_space", "re");
	int level = 0;

	if (file && fscanf(file, "%d", &level) != 1)
		level = 0;
	if (file)
		fclose(file);
	return level > 0 && !(personality(0xffffffff) & ADDR_NO_RANDOMIZE);
}

START_TEST(a_saved_heap_is_refused_by_another_layout)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.base_address = (void *)0x200000000000ull);
	struct memslot_image *image;
	struct memslot_slot *slot;
	struct memslot_heap *heap;
	char *text;
	int status;

	SKIP_IF(test_sanitized() || memslot_slot_create(CAPACITY, &opts, &slot), "no room at that address");
	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	text = memslot_heap_alloc(heap, 20, 0);
	strcpy(text, "from before");
	memslot_heap_set_root(heap, text);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	close(mkstemp(saved));
	ck_assert_int_eq(memslot_image_save(image, saved), 0);
	status = test_run_again(saved, "");
	ck_assert_msg(status == 77 || status == 0, "the other process says %d", status);
	if (libraries_move())
		ck_assert_int_eq(status, 77);
	unlink(saved);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap");
	TCase *objects = test_case(suite, "objects"), *rewind = test_case(suite, "rewind");
	TCase *bad = test_case(suite, "bad input"), *images = test_case(suite, "images");

	tcase_add_test(objects, objects_are_disjoint_and_keep_what_is_in_them);
	tcase_add_test(objects, realloc_is_malloc_and_free_at_its_ends);
	tcase_add_test(objects, an_object_can_be_made_smaller_in_a_full_heap);
	tcase_add_test(objects, a_fresh_heap_touches_little);
	tcase_add_loop_test(rewind, a_rewound_heap_is_as_booted_generation_after_generation, 0, 2);
	tcase_add_test(rewind, a_request_within_the_headroom_moves_no_edge);
	tcase_add_test(bad, misuse_is_counted_and_harms_nothing);
	tcase_add_test(bad, slots_that_do_not_fit_are_told);
	tcase_add_test(bad, nonsense_in_the_slot_is_survived);
	tcase_add_test(images, invariant_32_a_heaps_image_is_shown_at_its_address_only);
	tcase_add_loop_test(images, the_next_tenant_of_a_pools_slot_has_a_handle_of_its_own, 0, 2);
	tcase_add_test(images, a_saved_heap_is_refused_by_another_layout);
	return suite;
}
