/* SPDX-License-Identifier: MIT */
/*
 * test_heap_inject.c - every call of heap.h, and of the slot below it, that makes system calls,
 * with each of them failing once: an error or none, objects as they were, and after a reset the
 * heap is as booted.
 */
#define _GNU_SOURCE
#include "failing.h"
#include "slots.h"

#include <errno.h>
#include <string.h>

#define CAPACITY ((size_t)6 << 20)
#define OBJECTS 40
#define assert_told(condition) ck_assert_msg(condition, "%s: %s", #condition, failing_story())

/* A booted heap, checkpointed, and more objects than it had then. */
struct bench {
	struct memslot_slot *slot;
	struct memslot_heap *heap;
	unsigned char *object[OBJECTS];
	size_t size;
};

static int edge; /* of this sweep's slots */

static size_t bytes_of(unsigned i)
{
	return i % 3 ? 20 + i : 1000 * i;
}

static void fill(struct bench *bench, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		bench->object[i] = memslot_heap_alloc(bench->heap, bytes_of(i), 0);
		ck_assert_ptr_nonnull(bench->object[i]);
		test_fill(bench->object[i], bytes_of(i), i);
	}
}

static void slot_begin(struct bench *bench)
{
	struct memslot_slot_opts opts = kind_opts(edge);

	if (opts.reserve && opts.reserve < CAPACITY)
		opts.reserve = CAPACITY;
	bench->slot = slot_new(CAPACITY, &opts);
}

static void begin(struct bench *bench)
{
	struct memslot_heap_opts opts = MEMSLOT_OPTS(memslot_heap_opts, .headroom = MEMSLOT_NONE);

	slot_begin(bench);
	ck_assert_int_eq(memslot_heap_create(bench->slot, &opts, &bench->heap), 0);
	fill(bench, 0, OBJECTS / 2);
	ck_assert_int_eq(memslot_slot_checkpoint(bench->slot, NULL), 0);
	bench->size = memslot_slot_size(bench->slot);
	fill(bench, OBJECTS / 2, OBJECTS);
}

static bool is_unknown(const struct bench *bench)
{
	size_t count;

	return memslot_slot_written(bench->slot, NULL, 0, &count) == -ESTALE;
}

/* A slot that is unknown has no heap until it is reset. */
static void check(const struct bench *bench, unsigned count)
{
	struct memslot_heap_stats stats = {.size = sizeof stats};
	int expected = is_unknown(bench) ? -ESTALE : 0;

	assert_told(memslot_heap_check(bench->heap) == expected);
	assert_told(memslot_heap_stats(bench->heap, &stats) == expected);
	assert_told(expected || stats.live == count);
	assert_told(stats.misuse == 0);
	for (unsigned i = 0; i < count; i++)
		assert_told(test_filled(bench->object[i], bytes_of(i), i));
}

/* As booted, and able to grow. */
static void check_booted(struct bench *bench)
{
	assert_told(memslot_slot_size(bench->slot) == bench->size);
	check(bench, OBJECTS / 2);
	fill(bench, OBJECTS / 2, OBJECTS);
	assert_told(memslot_heap_alloc(bench->heap, CAPACITY / 2, 0) != NULL);
}

static void end(struct bench *bench)
{
	assert_told(memslot_slot_reset(bench->slot) == 0);
	check_booted(bench);
	memslot_heap_close(bench->heap);
	ck_assert_int_eq(memslot_slot_destroy(bench->slot), 0);
}

/* --- the calls --- */

static void run_create(void *context)
{
	struct bench bench = {.heap = NULL};
	int answer, error;

	(void)context;
	slot_begin(&bench);
	failing_begin();
	answer = memslot_heap_create(bench.slot, NULL, &bench.heap);
	error = failing_end();
	assert_told(
		answer == 0 || (!bench.heap && (answer == error || (error && answer == -ENOMEM))));
	if (answer)
		assert_told(memslot_heap_create(bench.slot, NULL, &bench.heap) == 0);
	fill(&bench, 0, OBJECTS);
	check(&bench, OBJECTS);
	memslot_heap_close(bench.heap);
	ck_assert_int_eq(memslot_slot_destroy(bench.slot), 0);
}

static void run_open(void *context)
{
	struct memslot_heap *again = NULL;
	struct bench bench;
	int answer, error;

	(void)context;
	begin(&bench);
	failing_begin();
	answer = memslot_heap_open(bench.slot, &again);
	error = failing_end();
	assert_told(answer == 0 ? again == bench.heap : answer == error && !again);
	check(&bench, OBJECTS);
	if (answer == 0)
		memslot_heap_close(again);
	end(&bench);
}

/* An edge that could not be raised: no room, and all objects are there. */
static void run_grow(void *context)
{
	unsigned how = *(unsigned *)context;
	unsigned char *last, *at;
	struct bench bench;
	int error;

	begin(&bench);
	last = bench.object[OBJECTS - 1];
	failing_begin();
	at = how == 0	? memslot_heap_alloc(bench.heap, CAPACITY / 2, 4096)
	     : how == 1 ? memslot_heap_alloc_zeroed(bench.heap, 2, CAPACITY / 4)
			: memslot_heap_realloc(bench.heap, last, CAPACITY / 2);
	error = failing_end();
	assert_told(at || error);
	if (!at)
		check(&bench, OBJECTS);
	else if (how == 2)
		assert_told(test_filled(at, bytes_of(OBJECTS - 1), OBJECTS - 1));
	assert_told(memslot_heap_check(bench.heap) == (is_unknown(&bench) ? -ESTALE : 0));
	assert_told(how != 1 || !at || test_zero(at, CAPACITY / 2));
	if (!at && !is_unknown(&bench))
		assert_told(memslot_heap_alloc(bench.heap, CAPACITY / 2, 0) != NULL);
	end(&bench);
}

static void run_checkpoint(void *context)
{
	struct bench bench;
	int answer, error;

	(void)context;
	begin(&bench);
	failing_begin();
	answer = memslot_slot_checkpoint(bench.slot, NULL);
	error = failing_end();
	assert_told(answer == 0 || error);
	if (answer && is_unknown(&bench)) {
		end(&bench);
		return;
	}
	check(&bench, OBJECTS);
	assert_told(memslot_slot_reset(bench.slot) == 0);
	check(&bench, answer ? OBJECTS / 2 : OBJECTS);
	memslot_heap_close(bench.heap);
	ck_assert_int_eq(memslot_slot_destroy(bench.slot), 0);
}

static void run_reset(void *context)
{
	struct bench bench;
	int answer, error;

	(void)context;
	begin(&bench);
	failing_begin();
	answer = memslot_slot_reset(bench.slot);
	error = failing_end();
	assert_told(answer == 0 || error);
	if (answer == 0)
		check_booted(&bench);
	end(&bench);
}

START_TEST(a_heap_that_cannot_be_made_can_be_made_later)
{
	edge = _i;
	failing_sweep(run_create, NULL);
}
END_TEST

START_TEST(a_heap_that_cannot_be_opened_is_as_it_was)
{
	edge = _i;
	failing_sweep(run_open, NULL);
}
END_TEST

START_TEST(a_heap_that_cannot_grow_keeps_its_objects)
{
	unsigned how = (unsigned)_i / SLOT_EDGES;

	edge = _i % SLOT_EDGES;
	failing_sweep(run_grow, &how);
}
END_TEST

START_TEST(a_checkpoint_that_fails_leaves_the_heap)
{
	edge = _i;
	failing_sweep(run_checkpoint, NULL);
}
END_TEST

START_TEST(a_rewind_that_fails_can_be_repeated)
{
	edge = _i;
	failing_sweep(run_reset, NULL);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_inject");
	TCase *tcase = test_case(suite, "injection");

	tcase_set_timeout(tcase, 3600);
	tcase_add_loop_test(tcase, a_heap_that_cannot_be_made_can_be_made_later, 0, SLOT_EDGES);
	tcase_add_loop_test(tcase, a_heap_that_cannot_be_opened_is_as_it_was, 0, SLOT_EDGES);
	tcase_add_loop_test(tcase, a_heap_that_cannot_grow_keeps_its_objects, 0, 3 * SLOT_EDGES);
	tcase_add_loop_test(tcase, a_checkpoint_that_fails_leaves_the_heap, 0, SLOT_EDGES);
	tcase_add_loop_test(tcase, a_rewind_that_fails_can_be_repeated, 0, SLOT_EDGES);
	return suite;
}
