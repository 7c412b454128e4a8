/* SPDX-License-Identifier: MIT */
/*
 * test_edge.c - which bytes are accessible, exact to the page: the edge, its moves, the guards.
 *
 * Slots with reserve + guard_after up to 2 MiB have an edge of guard markers, larger ones one of
 * mprotect; where the kernel has no markers, all have the second. The tests are the same for both.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The edges of slots.h that are edges: 0 marker, 1 mprotect. */
#define EDGES 2

static struct memslot_slot *slot_with_guards(int edge, size_t capacity, uint64_t before, uint64_t after)
{
	struct memslot_slot_opts opts = kind_opts(edge);

	opts.guard_before = before;
	opts.guard_after = after;
	return slot_new(capacity, &opts);
}

/* All of [from, to) faults; looks at the first and last byte of each page. */
static void assert_all_closed(const unsigned char *from, const unsigned char *to)
{
	for (; from < to; from += test_page()) {
		assert_closed(from);
		assert_closed(from + test_page() - 1);
	}
}

static void assert_all_open(const unsigned char *from, const unsigned char *to)
{
	for (; from < to; from += test_page()) {
		assert_open(from);
		assert_open(from + test_page() - 1);
	}
}

static void assert_edge(struct memslot_slot *slot, size_t pages, size_t reserve_pages)
{
	unsigned char *base = base_of(slot);

	ck_assert_uint_eq(memslot_slot_size(slot), PAGES(pages));
	assert_all_open(base, base + PAGES(pages));
	assert_all_closed(base + PAGES(pages), base + PAGES(reserve_pages));
}

/* W4 */
START_TEST(the_last_byte_works_and_the_next_one_faults)
{
	static const size_t sizes[] = {1, 4095, 4096, 4097, 30000, 40 * 4096};

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));
		size_t pages = (sizes[i] + test_page() - 1) / test_page();
		instantiate(slot, NULL, sizes[i]);
		assert_edge(slot, pages, 40);
		destroy(slot);
	}
}
END_TEST

/* W2 */
START_TEST(size_0_leaves_nothing_accessible)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(8));

	instantiate(slot, NULL, 0);
	assert_edge(slot, 0, 8);
	instantiate(slot, NULL, PAGES(3));
	dirty_all(slot);
	instantiate(slot, NULL, 0);
	assert_edge(slot, 0, 8);
	reset(slot);
	assert_edge(slot, 0, 8);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(2)), 0);
	assert_zeros(slot, PAGES(2));
	assert_edge(slot, 2, 8);
	destroy(slot);
}
END_TEST

START_TEST(the_guard_behind_begins_where_reserve_ends)
{
	struct memslot_slot *slot = slot_with_guards(_i, PAGES(4), 0, PAGES(3));
	size_t reserve = kind_opts(_i).reserve ? BIG_RESERVE : PAGES(4);

	instantiate(slot, NULL, PAGES(4));
	assert_edge(slot, 4, reserve / test_page() < 64 ? reserve / test_page() : 64);
	assert_all_closed(base_of(slot) + reserve, base_of(slot) + reserve + PAGES(3));
	destroy(slot);
}
END_TEST

START_TEST(the_default_guard_is_64_kib_behind_and_none_in_front)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(4));
	size_t reserve = kind_opts(_i).reserve ? BIG_RESERVE : PAGES(4);

	instantiate(slot, NULL, PAGES(4));
	assert_all_closed(base_of(slot) + reserve, base_of(slot) + reserve + (64u << 10));
	destroy(slot);
}
END_TEST

START_TEST(the_guard_in_front_ends_where_the_slot_begins)
{
	struct memslot_slot *slot = slot_with_guards(_i, PAGES(4), PAGES(2) + 1, 0);

	instantiate(slot, NULL, PAGES(4));
	assert_all_closed(base_of(slot) - PAGES(3), base_of(slot));
	assert_open(base_of(slot));
	destroy(slot);
}
END_TEST

/* Large guards are no markers: a marker needs page tables. */
START_TEST(a_guard_of_gigabytes_is_as_exact)
{
	struct memslot_slot *slot = slot_with_guards(_i, PAGES(4), UINT64_C(2) << 30, UINT64_C(4) << 30);
	unsigned char *base = base_of(slot);

	instantiate(slot, NULL, PAGES(4));
	assert_open(base);
	assert_closed(base - 1);
	assert_closed(base - (UINT64_C(2) << 30));
	assert_open(base + PAGES(4) - 1);
	assert_closed(base + PAGES(4));
	assert_closed(base + (UINT64_C(4) << 30));
	destroy(slot);
}
END_TEST

START_TEST(guards_survive_every_change)
{
	struct memslot_slot *slot = slot_with_guards(_i, PAGES(40), PAGES(1), PAGES(1));
	struct memslot_image *mapped = image_of(2, 30, 1), *copied = image_of(3, 2, 2);
	size_t reserve = kind_opts(_i).reserve ? BIG_RESERVE : PAGES(40);

	for (int round = 0; round < 12; round++) {
		struct memslot_image *images[] = {mapped, copied, NULL};
		instantiate(slot, images[round % 3], PAGES(round % 4 ? 34 : 40));
		dirty_all(slot);
		if (round % 5 == 1)
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(39)), 0);
		if (round % 2)
			reset(slot);
		if (round % 4 == 2)
			ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(34)), 0);
		if (round % 6 == 3)
			ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
		assert_closed(base_of(slot) - 1);
		assert_closed(base_of(slot) - PAGES(1));
		assert_closed(base_of(slot) + reserve);
		assert_closed(base_of(slot) + reserve + PAGES(1) - 1);
		assert_open(base_of(slot) + memslot_slot_size(slot) - 1);
		assert_closed(base_of(slot) + memslot_slot_size(slot));
	}
	memslot_image_unref(mapped);
	memslot_image_unref(copied);
	destroy(slot);
}
END_TEST

START_TEST(what_lies_between_capacity_and_reserve_never_opens)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_slot *slot;

	opts.reserve = opts.reserve ? opts.reserve : PAGES(32);
	slot = slot_new(PAGES(8), &opts);
	instantiate(slot, NULL, PAGES(8));
	assert_edge(slot, 8, 32);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(9)), -EMSGSIZE);
	assert_edge(slot, 8, 32);
	destroy(slot);
}
END_TEST

/* --- resize --- */

START_TEST(growing_opens_pages_of_zeros)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));

	instantiate(slot, NULL, PAGES(2));
	for (size_t pages = 3; pages <= 40; pages += pages / 3 + 1) {
		dirty_all(slot);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(pages) - 5), 0);
		assert_edge(slot, pages, 40);
		ck_assert(test_zero(base_of(slot) + PAGES(pages - 1), PAGES(1)));
		ck_assert_uint_eq(base_of(slot)[0], 0xdd);
	}
	destroy(slot);
}
END_TEST

/* W4: a shipped data leak elsewhere. */
START_TEST(bytes_lost_by_shrinking_never_come_back)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));

	instantiate(slot, NULL, PAGES(40));
	for (size_t pages = 39; pages > 0; pages -= pages / 4 + 1) {
		size_t before = memslot_slot_size(slot);
		dirty_all(slot);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(pages)), 0);
		if (kind_has_edge(_i))
			assert_edge(slot, pages, 40);
		ck_assert_uint_eq(base_of(slot)[PAGES(pages) - 1], 0xdd);
		ck_assert_int_eq(memslot_slot_resize(slot, before), 0);
		ck_assert(test_zero(base_of(slot) + PAGES(pages), before - PAGES(pages)));
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(pages)), 0);
	}
	destroy(slot);
}
END_TEST

START_TEST(shrinking_keeps_the_bytes_below)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));
	struct memslot_image *image = image_of(2, 20, 1);

	instantiate(slot, image, PAGES(40));
	dirty_pages(slot, 22, 18, 1);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(25)), 0);
	ck_assert(test_filled(base_of(slot) + PAGES(2), PAGES(20), 1));
	ck_assert_uint_eq(base_of(slot)[PAGES(22)], 0xdd);
	ck_assert_uint_eq(base_of(slot)[PAGES(24) + 2], 0xdd);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_size_below_the_images_end_is_emsgsize)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));
	struct memslot_image *image = image_of(2, 20, 1);

	instantiate(slot, image, PAGES(30));
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(21)), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_resize(slot, 0), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(40) + 1), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_resize(slot, SIZE_MAX), -EMSGSIZE);
	assert_shows(slot, 2, 20, 1, PAGES(30));
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(21) + 1), 0);
	assert_shows(slot, 2, 20, 1, PAGES(22));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_reset_brings_the_size_back)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));
	struct memslot_image *image = image_of(0, 10, 1);

	instantiate(slot, image, PAGES(20));
	for (int round = 0; round < 8; round++) {
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(round % 2 ? 40 : 12)), 0);
		dirty_all(slot);
		reset(slot);
		assert_shows(slot, 0, 10, 1, PAGES(20));
		if (kind_has_edge(_i))
			assert_edge(slot, 20, 40);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(40)), 0);
		assert_shows(slot, 0, 10, 1, PAGES(40));
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* W4, and the growing guest of invariant 1: whatever was written beyond is gone or zero again. */
START_TEST(invariant_01_nothing_written_beyond_the_edge_comes_back)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(600));
	struct test_rng rng = test_rng(1);

	instantiate(slot, NULL, PAGES(20));
	for (unsigned round = 0; round < 40; round++) {
		size_t pages = 20 + test_below(&rng, 581);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(pages)), 0);
		ck_assert(test_zero(base_of(slot) + PAGES(20), PAGES(pages - 20)));
		for (size_t page = test_below(&rng, 5); page < pages; page += 1 + test_below(&rng, 30))
			base_of(slot)[PAGES(page) + test_below(&rng, test_page())] = 1;
		if (round % 3 == 2)
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(20)), 0);
		reset(slot);
		assert_zeros(slot, PAGES(20));
		if (kind_has_edge(_i)) {
			assert_closed(base_of(slot) + PAGES(20));
			assert_closed(base_of(slot) + PAGES(pages) - 1 + (pages == 20));
		}
	}
	destroy(slot);
}
END_TEST

/* The other half of invariant 1: what a growing guest wrote stays resident, hidden. */
START_TEST(invariant_01_clean_pages_stay_hidden_beyond_an_mprotect_edge)
{
	struct memslot_slot_opts opts = kind_opts(1);
	struct memslot_slot *slot;
	uint64_t faults, least = UINT64_MAX;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	opts.reset_method = MEMSLOT_RESET_SCAN;
	slot = slot_new(PAGES(300), &opts);
	instantiate(slot, NULL, PAGES(20));
	for (int round = 0; round < 5; round++) {
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(276)), 0);
		faults = test_faults();
		dirty_pages(slot, 20, 256, 4);
		faults = test_faults() - faults;
		least = round && faults < least ? faults : least;
		reset(slot);
		ck_assert_uint_ge(stats_of(slot).retained_pages, 64);
		assert_closed(base_of(slot) + PAGES(20));
	}
	ck_assert_uint_lt(least, 8);
	destroy(slot);
}
END_TEST

/* Hidden pages are inside the idle budget, not the copy budget: dropped when they are not wanted. */
START_TEST(hidden_pages_are_zero_for_the_next_image)
{
	struct memslot_slot *slot = slot_of_kind(1, PAGES(300));
	struct memslot_image *image = image_of(100, 100, 7);

	instantiate(slot, NULL, PAGES(20));
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(300)), 0);
	dirty_all(slot);
	reset(slot);
	instantiate(slot, image, PAGES(200));
	assert_shows(slot, 100, 100, 7, PAGES(200));
	dirty_all(slot);
	instantiate(slot, NULL, PAGES(10));
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(300)), 0);
	assert_zeros(slot, PAGES(300));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* Invariant 14: which edge a slot has is fixed by its size. Markers make no mappings. */
START_TEST(invariant_14_a_window_up_to_2_mib_costs_no_mappings)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .guard_after = 64u << 10);
	struct memslot_slot *small, *large;

	NEED_FEATURE("guard_install");
	small = slot_new((2u << 20) - (64u << 10), &opts);
	large = slot_new((2u << 20) - (64u << 10) + 1, &opts);
	instantiate(small, NULL, PAGES(5));
	instantiate(large, NULL, PAGES(5));
	ck_assert_uint_eq(test_vma_count(base_of(small), 2u << 20), 1);
	ck_assert_uint_ge(test_vma_count(base_of(large), 2u << 20), 2);
	destroy(small);
	destroy(large);
}
END_TEST

/* --- NO_EDGE --- */

START_TEST(without_an_edge_all_of_capacity_is_accessible)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(8));
	uint64_t calls;

	instantiate(slot, NULL, PAGES(3));
	ck_assert_uint_eq(memslot_slot_size(slot), PAGES(3));
	assert_all_open(base_of(slot), base_of(slot) + PAGES(8));
	assert_closed(base_of(slot) + PAGES(8));
	calls = stats_of(slot).syscalls;
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(8)), 0);
	if (memslot_feature("wipe_on_fork") == 1) /* else: getpid */
		ck_assert_uint_eq(stats_of(slot).syscalls, calls);
	destroy(slot);
}
END_TEST

/* Invariant 1: with NO_EDGE the edge is the capacity for every scan and drop. */
START_TEST(invariant_01_without_an_edge_all_of_capacity_is_put_back)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(64));

	instantiate(slot, NULL, PAGES(3));
	for (int round = 0; round < 4; round++) {
		memset(base_of(slot), 1, PAGES(64));
		reset(slot);
		ck_assert(test_zero(base_of(slot), PAGES(64)));
		base_of(slot)[PAGES(63) - 1] = 1;
		instantiate(slot, NULL, PAGES(round + 2));
		ck_assert(test_zero(base_of(slot), PAGES(64)));
	}
	destroy(slot);
}
END_TEST

START_TEST(without_an_edge_what_leaves_by_shrinking_is_pristine_at_once)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(64));

	instantiate(slot, NULL, PAGES(64));
	memset(base_of(slot), 1, PAGES(64));
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(10)), 0);
	ck_assert_uint_eq(base_of(slot)[PAGES(10) - 1], 1);
	ck_assert(test_zero(base_of(slot) + PAGES(10), PAGES(54)));
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("edge");
	TCase *where = test_case(suite, "where the edge is"), *guards = test_case(suite, "guards");
	TCase *moves = test_case(suite, "resize"), *hidden = test_case(suite, "hidden pages");
	TCase *none = test_case(suite, "no edge");

	tcase_add_loop_test(where, the_last_byte_works_and_the_next_one_faults, 0, EDGES);
	tcase_add_loop_test(where, size_0_leaves_nothing_accessible, 0, EDGES);
	tcase_add_loop_test(where, what_lies_between_capacity_and_reserve_never_opens, 0, EDGES);
	tcase_add_test(where, invariant_14_a_window_up_to_2_mib_costs_no_mappings);
	tcase_add_loop_test(guards, the_guard_behind_begins_where_reserve_ends, 0, EDGES);
	tcase_add_loop_test(guards, the_default_guard_is_64_kib_behind_and_none_in_front, 0, EDGES);
	tcase_add_loop_test(guards, the_guard_in_front_ends_where_the_slot_begins, 0, EDGES);
	tcase_add_loop_test(guards, a_guard_of_gigabytes_is_as_exact, 0, EDGES);
	tcase_add_loop_test(guards, guards_survive_every_change, 0, EDGES);
	tcase_add_loop_test(moves, growing_opens_pages_of_zeros, 0, EDGES);
	each_kind(moves, bytes_lost_by_shrinking_never_come_back);
	each_kind(moves, shrinking_keeps_the_bytes_below);
	each_kind(moves, a_size_below_the_images_end_is_emsgsize);
	each_kind(moves, a_reset_brings_the_size_back);
	each_kind(hidden, invariant_01_nothing_written_beyond_the_edge_comes_back);
	tcase_add_test(hidden, invariant_01_clean_pages_stay_hidden_beyond_an_mprotect_edge);
	tcase_add_test(hidden, hidden_pages_are_zero_for_the_next_image);
	/* Kinds 2, 5, 8, ...: see slots.c. */
	for (int kind = SLOT_EDGES - 1; kind < SLOT_KINDS; kind += SLOT_EDGES) {
		tcase_add_loop_test(none, without_an_edge_all_of_capacity_is_accessible, kind, kind + 1);
		tcase_add_loop_test(none, invariant_01_without_an_edge_all_of_capacity_is_put_back, kind,
				kind + 1);
		tcase_add_loop_test(none, without_an_edge_what_leaves_by_shrinking_is_pristine_at_once,
				kind, kind + 1);
	}
	return suite;
}
