/* SPDX-License-Identifier: MIT */
/*
 * test_fork.c - a child's copy of a slot: in every state, by fork(2) and by raw clone(2). W14.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int (*const makers[])(int (*)(void *), void *) = {test_in_child, test_in_clone};
#define MAKERS 2

/* Kinds times ways to make a child. */
static int kind_of(int loop)
{
	return loop / MAKERS;
}

static int child_of(int loop, int (*run)(void *), void *argument)
{
	return makers[loop % MAKERS](run, argument);
}

/* --- a copy that works --- */

/* Use a slot that shows image_of(10, 20, 4) in 40 pages through everything. */
static int use_slot(void *argument)
{
	struct memslot_slot *slot = argument;
	struct memslot_image *image;
	struct memslot_run runs[64];
	size_t count;

	child_check(memslot_slot_written(slot, runs, 64, &count) == 0);
	for (unsigned round = 0; round < 6; round++) {
		dirty_pages(slot, round, 30, round + 1);
		child_check(memslot_slot_reset(slot) == 0);
		child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
		dirty_all(slot);
		child_check(memslot_slot_discard(slot, PAGES(5), PAGES(20)) == 0);
		child_check(memslot_slot_resize(slot, PAGES(45)) == 0);
		child_check(memslot_slot_resize(slot, PAGES(35)) == 0);
		child_check(memslot_slot_capture(slot, NULL, &image) == 0);
		memslot_image_unref(image);
		image = memslot_image_ref(memslot_slot_image(slot));
		child_check(memslot_slot_instantiate(slot, NULL, PAGES(30)) == 0);
		child_check(slot_shows(slot, 0, 0, 0, PAGES(30)));
		dirty_all(slot);
		child_check(memslot_slot_instantiate(slot, image, PAGES(40)) == 0);
		child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
		memslot_image_unref(image);
	}
	return memslot_slot_destroy(slot);
}

/* The states: what the parent did last. */
enum { FRESH, DIRTY, CLEAN, GROWN, SHRUNK, EXEMPT, PROTECTED, CHECKPOINTED, UNHELD, STATES };

static void bring_into(struct memslot_slot *slot, int state)
{
	struct memslot_image *image = image_of(10, 20, 4);

	instantiate(slot, image, PAGES(40));
	memslot_image_unref(image);
	if (state != FRESH)
		dirty_pages(slot, 0, 40, 2);
	if (state == CLEAN || state == GROWN)
		reset(slot);
	if (state == GROWN)
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
	if (state == SHRUNK)
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(35)), 0);
	if (state == EXEMPT)
		ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(5), PAGES(10)), 0);
	if (state == PROTECTED)
		ck_assert_int_eq(memslot_slot_protect(slot, PAGES(5), PAGES(10), PROT_NONE), 0);
	if (state == UNHELD) {
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
	}
}

static int instantiate_and_use(void *argument)
{
	struct memslot_slot *slot = argument;
	struct memslot_image *image = image_of(10, 20, 4);

	child_check(memslot_slot_instantiate(slot, image, PAGES(40)) == 0);
	child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
	memslot_image_unref(image);
	return use_slot(slot);
}

static int checkpointed_and_use(void *argument)
{
	struct memslot_slot *slot = argument;

	memset(base_of(slot), 9, PAGES(40));
	child_check(memslot_slot_reset(slot) == 0);
	child_check(base_of(slot)[PAGES(2) + 2] == 0xdd);
	child_check(base_of(slot)[PAGES(3)] == 0);
	return instantiate_and_use(slot);
}

START_TEST(a_childs_copy_works_in_every_state)
{
	for (int state = 0; state < STATES; state++) {
		struct memslot_slot *slot = slot_of_kind(kind_of(_i), PAGES(50));
		static unsigned char *copy; /* static: no leak in the children */
		size_t size;
		bring_into(slot, state);
		if (state == CHECKPOINTED)
			ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
		if (state == PROTECTED)
			ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(40), PROT_READ), 0);
		size = memslot_slot_size(slot);
		copy = malloc(size);
		memcpy(copy, base_of(slot), size);
		ck_assert_int_eq(child_of(_i, state == CHECKPOINTED ? checkpointed_and_use
								    : instantiate_and_use,
						 slot),
				0);
		/* The parent saw nothing of it, and goes on. */
		ck_assert(test_same(base_of(slot), copy, size));
		free(copy);
		if (state != CHECKPOINTED) {
			reset(slot);
			instantiate(slot, memslot_slot_image(slot), PAGES(40));
			assert_shows(slot, 10, 20, 4, PAGES(40));
		}
		destroy(slot);
	}
}
END_TEST

/* Invariant 18: what the child inherits of descriptors and readings speaks for its parent. */
static int dirty_and_reset(void *argument)
{
	struct memslot_slot *slot = argument;

	for (size_t round = 0; round < 10; round++) {
		base_of(slot)[PAGES(3 + 3 * round)] = 'S'; /* new to the set */
		dirty_pages(slot, 0, 3, 1);
		child_check(memslot_slot_reset(slot) == 0);
		child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
	}
	return 0;
}

START_TEST(invariant_18_a_child_scans_its_own_pages)
{
	struct memslot_slot *slot = slot_of_kind(kind_of(_i), PAGES(50));

	bring_into(slot, CLEAN);
	dirty_pages(slot, 0, 3, 1);
	reset(slot);
	ck_assert_int_eq(child_of(_i, dirty_and_reset, slot), 0);
	ck_assert_int_eq(dirty_and_reset(slot), 0);
	ck_assert_int_eq(child_of(_i, dirty_and_reset, slot), 0);
	destroy(slot);
}
END_TEST

static int fork_again(void *argument)
{
	child_check(dirty_and_reset(argument) == 0);
	child_check(test_in_child(dirty_and_reset, argument) == 0);
	child_check(test_in_clone(dirty_and_reset, argument) == 0);
	return dirty_and_reset(argument);
}

START_TEST(grandchildren_work_too)
{
	struct memslot_slot *slot = slot_of_kind(kind_of(_i), PAGES(50));

	bring_into(slot, DIRTY);
	ck_assert_int_eq(child_of(_i, fork_again, slot), 0);
	ck_assert_int_eq(dirty_and_reset(slot), 0);
	destroy(slot);
}
END_TEST

static int make_one(void *unused)
{
	struct memslot_slot *slot = slot_new(PAGES(50), NULL);

	(void)unused;
	bring_into(slot, DIRTY);
	return use_slot(slot);
}

START_TEST(a_child_can_make_slots_of_its_own)
{
	ck_assert_int_eq(child_of(_i, make_one, NULL), 0);
}
END_TEST

/* --- two threads of a child --- */

struct pair {
	struct memslot_slot *slot;
	_Atomic(int) ready;
	unsigned delay;
	int held;
};

static void meet(struct pair *pair, unsigned delay)
{
	atomic_fetch_add(&pair->ready, 1);
	while (atomic_load(&pair->ready) < 2)
		sched_yield();
	for (volatile unsigned i = 0; i < delay; i = i + 1)
		;
}

static void *hold_once(void *argument)
{
	struct pair *pair = argument;

	meet(pair, pair->delay);
	pair->held = memslot_slot_hold(pair->slot, MEMSLOT_HOLD_IO);
	if (pair->held == 0)
		(void)memslot_slot_unhold(pair->slot, MEMSLOT_HOLD_IO);
	return NULL;
}

static int meet_in_child(void *argument)
{
	struct pair *pair = argument;
	pthread_t thread;
	size_t count;
	int error;

	child_check(pthread_create(&thread, NULL, hold_once, pair) == 0);
	meet(pair, 0);
	error = memslot_slot_reset(pair->slot);
	pthread_join(thread, NULL);
	child_check(error == 0 || error == -EBUSY);
	child_check(pair->held == 0 || pair->held == -EBUSY);
	child_check(memslot_slot_written(pair->slot, NULL, 0, &count) != -ESTALE);
	return 0;
}

/* Both meet the slot for the first time: one thread's call is no remains of the parent's. */
START_TEST(a_childs_threads_adopt_a_slot_once)
{
	struct pair pair = {.slot = slot_new(PAGES(300), NULL)};

	instantiate(pair.slot, NULL, PAGES(256));
	for (unsigned i = 0; i < test_rounds(600); i++) {
		pair.ready = 0;
		pair.delay = i % 24;
		ck_assert_int_eq(test_in_child(meet_in_child, &pair), 0);
	}
	destroy(pair.slot);
}
END_TEST

/* --- copies that do not --- */

static int is_dead(struct memslot_slot *slot)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};
	struct memslot_image *image = (struct memslot_image *)1;
	struct memslot_run run;
	size_t count = 7;

	child_check(memslot_slot_instantiate(slot, NULL, PAGES(40)) == -ESTALE);
	child_check(memslot_slot_reset(slot) == -ESTALE);
	child_check(memslot_slot_resize(slot, PAGES(45)) == -ESTALE);
	child_check(memslot_slot_resize(slot, PAGES(40)) == -ESTALE);
	child_check(memslot_slot_discard(slot, 0, PAGES(1)) == -ESTALE);
	child_check(memslot_slot_checkpoint(slot, &image) == -ESTALE);
	child_check(memslot_slot_capture(slot, NULL, &image) == -ESTALE);
	child_check(memslot_slot_hold(slot, MEMSLOT_HOLD_IO) == -ESTALE);
	child_check(memslot_slot_hold(slot, MEMSLOT_HOLD_PIN) == -ESTALE);
	child_check(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO) == -ESTALE);
	child_check(memslot_slot_protect(slot, 0, PAGES(1), PROT_READ) == -ESTALE);
	child_check(memslot_slot_exempt(slot, 0, PAGES(1)) == -ESTALE);
	child_check(memslot_slot_written(slot, &run, 1, &count) == -ESTALE);
	child_check(memslot_slot_stats(slot, &stats) == -ESTALE);
	memslot_slot_unconfine(slot);
	child_check(image == (struct memslot_image *)1 && count == 7);
	return 0;
}

/* Invariant 20: the address range of a DONTFORK slot may be somebody else's by now. */
static int destroy_unmaps_nothing(void *argument)
{
	struct memslot_slot *slot = argument;
	unsigned char *base = base_of(slot);
	unsigned char *mine = mmap(base, PAGES(40), RW,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	child_check(mine == base);
	test_fill(mine, PAGES(40), 3);
	child_check(is_dead(slot) == 0);
	child_check(test_filled(mine, PAGES(40), 3));
	child_check(memslot_slot_destroy(slot) == 0);
	child_check(test_filled(mine, PAGES(40), 3));
	return 0;
}

START_TEST(invariant_20_a_dontfork_slot_is_dead_in_a_child)
{
	struct memslot_slot_opts opts = kind_opts(kind_of(_i));
	struct memslot_slot *slot;

	SKIP_IF(!test_faults_allowed(), "valgrind does not know DONTFORK");
	opts.flags |= MEMSLOT_SLOT_DONTFORK;
	slot = slot_new(PAGES(50), &opts);
	bring_into(slot, DIRTY);
	ck_assert_int_eq(child_of(_i, destroy_unmaps_nothing, slot), 0);
	ck_assert_uint_eq(base_of(slot)[PAGES(2) + 2], 0xdd);
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	destroy(slot);
}
END_TEST

static int held_copy(void *argument)
{
	struct memslot_slot *slot = argument;

	child_check(is_dead(slot) == 0);
	child_check(memslot_slot_destroy(slot) == 0);
	return 0;
}

START_TEST(invariant_20_a_held_slots_copy_is_dead_for_good)
{
	static const uint32_t holds[] = {MEMSLOT_HOLD_IO, MEMSLOT_HOLD_PIN};

	for (int kind = 0; kind < 2; kind++) {
		struct memslot_slot *slot = slot_of_kind(kind_of(_i), PAGES(50));
		bring_into(slot, DIRTY);
		ck_assert_int_eq(memslot_slot_hold(slot, holds[kind]), 0);
		ck_assert_int_eq(child_of(_i, held_copy, slot), 0);
		ck_assert_int_eq(memslot_slot_unhold(slot, holds[kind]), 0);
		ck_assert_int_eq(child_of(_i, dirty_and_reset, slot), 0);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
		destroy(slot);
	}
}
END_TEST

/* --- images --- */

static int show_image(void *image)
{
	struct memslot_slot *slot = slot_new(PAGES(50), NULL);

	child_check(memslot_slot_instantiate(slot, image, PAGES(40)) == 0);
	child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
	dirty_all(slot);
	child_check(memslot_slot_reset(slot) == 0);
	child_check(slot_shows(slot, 10, 20, 4, PAGES(40)));
	memslot_image_unref(image);
	return memslot_slot_destroy(slot);
}

START_TEST(an_image_made_by_the_parent_works_in_the_child)
{
	struct memslot_image *image = image_of(10, 20, 4);

	ck_assert_int_eq(child_of(_i, show_image, image), 0);
	ck_assert_int_eq(show_image(image), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("fork");
	TCase *works = test_case(suite, "copies that work"), *dead = test_case(suite, "dead copies");
	TCase *images = test_case(suite, "images");

	each_kind_times(works, a_childs_copy_works_in_every_state, MAKERS);
	each_kind_times(works, invariant_18_a_child_scans_its_own_pages, MAKERS);
	each_kind_times(works, grandchildren_work_too, MAKERS);
	tcase_add_test(works, a_childs_threads_adopt_a_slot_once);
	tcase_add_loop_test(works, a_child_can_make_slots_of_its_own, 0, MAKERS);
	each_kind_times(dead, invariant_20_a_dontfork_slot_is_dead_in_a_child, MAKERS);
	each_kind_times(dead, invariant_20_a_held_slots_copy_is_dead_for_good, MAKERS);
	tcase_add_loop_test(images, an_image_made_by_the_parent_works_in_the_child, 0, MAKERS);
	return suite;
}
