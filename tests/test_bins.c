/* SPDX-License-Identifier: MIT */
/*
 * test_bins.c - the arithmetic of lib/ranges/bins.c, beside a plain array of units.
 */
#define _GNU_SOURCE
#include "common.h"

#include "ranges/bins.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NODES 4096u
#define UNITS 3000u
#define REGIONS 3u

struct bench {
	struct ms_bins bins;
	struct ms_node nodes[NODES];
	uint32_t bias[REGIONS], first[REGIONS], last[REGIONS];
	struct ms_arena arena;
	uint32_t owner[REGIONS][UNITS]; /* node + 1 of each unit; 0: free */
	uint32_t live[NODES], live_count;
	struct test_rng rng;
};

static struct bench *bench_new(uint32_t nodes)
{
	struct bench *bench = calloc(1, sizeof *bench);

	bench->rng = test_rng(5);
	ms_bins_init(&bench->bins);
	bench->arena = (struct ms_arena){&bench->bins, bench->nodes, nodes, bench->bias, bench->first,
			bench->last, REGIONS};
	return bench;
}

static void bench_regions(struct bench *bench)
{
	for (uint32_t region = 0; region < REGIONS; region++) {
		bench->bias[region] = (uint32_t)test_below(&bench->rng, 100);
		ck_assert_uint_ne(ms_bins_add(&bench->arena, region, UNITS), MS_BINS_NONE);
	}
}

/* Is there a place for it, by the array? */
static bool has_room(const struct bench *bench, uint32_t size, uint32_t align)
{
	for (uint32_t region = 0; region < REGIONS; region++) {
		uint32_t run = 0;
		for (uint32_t at = UNITS; at-- > 0;) {
			run = bench->owner[region][at] ? 0 : run + 1;
			if (run >= size && (bench->bias[region] + at) % align == 0)
				return true;
		}
	}
	return false;
}

static void paint(struct bench *bench, uint32_t index, uint32_t expected, uint32_t owner)
{
	const struct ms_node *node = &bench->nodes[index];

	ck_assert_uint_le(node->offset + ms_bins_size(node), UNITS);
	for (uint32_t i = 0; i < ms_bins_size(node); i++) {
		ck_assert_uint_eq(bench->owner[node->region][node->offset + i], expected);
		bench->owner[node->region][node->offset + i] = owner;
	}
}

static void do_alloc(struct bench *bench)
{
	uint32_t size = 1 + (uint32_t)test_below(&bench->rng, test_below(&bench->rng, 4) ? 40 : 900);
	uint32_t align = 1u << test_below(&bench->rng, test_below(&bench->rng, 3) ? 1 : 8);
	bool best = test_below(&bench->rng, 4) == 0, room = has_room(bench, size, align);
	uint32_t index = ms_bins_alloc(&bench->arena, size, align, best);
	const struct ms_node *node;

	/* Exact: it fails only when there is no room. */
	ck_assert_int_eq(index != MS_BINS_NONE, room);
	if (!room)
		return;
	node = &bench->nodes[index];
	ck_assert_uint_ge(ms_bins_size(node), size);
	ck_assert_uint_eq((bench->bias[node->region] + node->offset) % align, 0);
	paint(bench, index, 0, index + 1);
	bench->live[bench->live_count++] = index;
}

static void do_free(struct bench *bench)
{
	uint64_t which = test_below(&bench->rng, bench->live_count);
	uint32_t index = bench->live[which];

	paint(bench, index, index + 1, 0);
	ms_bins_free(&bench->arena, index);
	bench->live[which] = bench->live[--bench->live_count];
}

static void do_resize(struct bench *bench)
{
	uint32_t index = bench->live[test_below(&bench->rng, bench->live_count)];
	uint32_t now = ms_bins_size(&bench->nodes[index]);
	uint32_t size = 1 + (uint32_t)test_below(&bench->rng, 2 * now);

	paint(bench, index, index + 1, 0);
	if (ms_bins_resize(&bench->arena, index, size))
		ck_assert_uint_eq(ms_bins_size(&bench->nodes[index]), size);
	else
		ck_assert_uint_eq(ms_bins_size(&bench->nodes[index]), now);
	paint(bench, index, 0, index + 1);
}

START_TEST(ranges_are_disjoint_aligned_and_found_whenever_there_is_room)
{
	struct bench *bench = bench_new(NODES);

	bench_regions(bench);
	for (unsigned i = 0; i < test_rounds(40000); i++) {
		uint64_t what = test_below(&bench->rng, 10);
		if (what < 5 || bench->live_count == 0)
			do_alloc(bench);
		else if (what < 8)
			do_free(bench);
		else
			do_resize(bench);
		if (i % 50 == 0)
			ck_assert(ms_bins_check(&bench->arena));
	}
	while (bench->live_count)
		do_free(bench);
	ck_assert(ms_bins_check(&bench->arena));
	ck_assert_uint_eq(bench->bins.free_units, REGIONS * UNITS);
	ck_assert_uint_eq(ms_bins_largest(&bench->arena), UNITS);
	free(bench);
}
END_TEST

/* The defects of others: a free region of N units must give N, for every N. */
START_TEST(all_of_an_empty_region_can_be_had)
{
	for (uint32_t units = 1; units < MS_BINS_UNITS_MAX / 2; units += 1 + units / 7) {
		struct bench *bench = bench_new(8);
		uint32_t index;
		ms_bins_add(&bench->arena, 0, units);
		index = ms_bins_alloc(&bench->arena, units, 1, false);
		ck_assert_uint_ne(index, MS_BINS_NONE);
		ck_assert_uint_eq(ms_bins_size(&bench->nodes[index]), units);
		ck_assert_uint_eq(ms_bins_alloc(&bench->arena, 1, 1, false), MS_BINS_NONE);
		ms_bins_free(&bench->arena, index);
		ck_assert_uint_eq(ms_bins_largest(&bench->arena), units);
		free(bench);
	}
}
END_TEST

START_TEST(the_largest_region_works)
{
	struct bench *bench = bench_new(8);
	uint32_t index;

	ms_bins_add(&bench->arena, 0, MS_BINS_UNITS_MAX - 1);
	index = ms_bins_alloc(&bench->arena, MS_BINS_UNITS_MAX - 1, 1, false);
	ck_assert_uint_ne(index, MS_BINS_NONE);
	ms_bins_free(&bench->arena, index);
	index = ms_bins_alloc(&bench->arena, 1, 1u << 30, false);
	ck_assert_uint_ne(index, MS_BINS_NONE);
	ck_assert(ms_bins_check(&bench->arena));
	free(bench);
}
END_TEST

START_TEST(freeing_needs_no_node)
{
	struct bench *bench = bench_new(12);
	uint32_t index[16], count = 0;

	ms_bins_add(&bench->arena, 0, 100);
	while ((index[count] = ms_bins_alloc(&bench->arena, 3, 1, false)) != MS_BINS_NONE)
		count++;
	ck_assert_uint_ge(count, 6);
	for (uint32_t i = 0; i < count; i += 2)
		ms_bins_free(&bench->arena, index[i]);
	for (uint32_t i = 1; i < count; i += 2)
		ms_bins_free(&bench->arena, index[i]);
	ck_assert(ms_bins_check(&bench->arena));
	ck_assert_uint_eq(ms_bins_largest(&bench->arena), 100);
	free(bench);
}
END_TEST

START_TEST(a_freed_node_rests_and_has_another_generation)
{
	struct bench *bench = bench_new(NODES);
	uint32_t first, generation;

	ms_bins_add(&bench->arena, 0, UNITS);
	first = ms_bins_alloc(&bench->arena, 7, 1, false);
	generation = bench->nodes[first].generation;
	ms_bins_free(&bench->arena, first);
	/* once: a handle comes back after as many frees as it has generations, times the rest */
	ck_assert_uint_eq(bench->nodes[first].generation, generation + 1);
	for (unsigned i = 0; i < MS_BINS_REST / 2 - 4; i++) {
		uint32_t index = ms_bins_alloc(&bench->arena, 7, 1, false);
		uint32_t other = ms_bins_alloc(&bench->arena, 9, 1, false);
		ck_assert(index != first && other != first);
		ms_bins_free(&bench->arena, index);
		ms_bins_free(&bench->arena, other);
	}
	free(bench);
}
END_TEST

START_TEST(a_region_can_be_extended)
{
	struct bench *bench = bench_new(NODES);
	uint32_t used, next;

	ms_bins_add(&bench->arena, 0, 10);
	ck_assert(ms_bins_extend(&bench->arena, 0, 5));
	used = ms_bins_alloc(&bench->arena, 15, 1, false);
	ck_assert_uint_ne(used, MS_BINS_NONE);
	ck_assert(ms_bins_extend(&bench->arena, 0, 7));
	ck_assert(ms_bins_check(&bench->arena));
	next = ms_bins_alloc(&bench->arena, 7, 1, false);
	ck_assert_uint_eq(bench->nodes[next].offset, 15);
	ms_bins_free(&bench->arena, used);
	ms_bins_free(&bench->arena, next);
	ck_assert_uint_eq(ms_bins_largest(&bench->arena), 22);
	ck_assert(ms_bins_check(&bench->arena));
	free(bench);
}
END_TEST

START_TEST(a_range_can_be_taken_at_its_place)
{
	struct bench *bench = bench_new(NODES);
	uint32_t node = ms_bins_add(&bench->arena, 0, 100), middle;

	middle = ms_bins_alloc_at(&bench->arena, node, 40, 20);
	ck_assert_uint_eq(bench->nodes[middle].offset, 40);
	ck_assert_uint_eq(ms_bins_size(&bench->nodes[middle]), 20);
	ck_assert(ms_bins_check(&bench->arena));
	ck_assert_uint_eq(bench->bins.free_units, 80);
	ms_bins_free(&bench->arena, middle);
	ck_assert_uint_eq(ms_bins_largest(&bench->arena), 100);
	free(bench);
}
END_TEST

/* --- how many nodes are looked at --- */

#define HOLES 20000u
#define NODES_MANY (4 * HOLES)

static struct ms_node *counted;
static unsigned touched;

static void on_touch(int number, siginfo_t *info, void *context)
{
	size_t page = test_page();
	char *at = (char *)((uintptr_t)info->si_addr & ~(page - 1));

	(void)number, (void)context;
	if (++touched > HOLES || at < (char *)counted || mprotect(at, page, PROT_READ | PROT_WRITE))
		abort();
}

/* An allocation's steps, as pages of nodes: neighbours in a bin lie in different ones. */
static unsigned pages_touched(struct ms_arena *arena, uint32_t size, uint32_t align, bool best)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO}, before;
	uint32_t index;

	action.sa_sigaction = on_touch;
	sigaction(SIGSEGV, &action, &before);
	touched = 0;
	ck_assert_int_eq(mprotect(counted, NODES_MANY * sizeof *counted, PROT_NONE), 0);
	index = ms_bins_alloc(arena, size, align, best);
	ck_assert_int_eq(mprotect(counted, NODES_MANY * sizeof *counted, PROT_READ | PROT_WRITE), 0);
	sigaction(SIGSEGV, &before, NULL);
	ck_assert_uint_ne(index, MS_BINS_NONE);
	ck_assert_uint_eq(counted[index].offset % align, 0);
	return touched;
}

/* Holes that are long enough, but begin at the wrong unit, in the first bins that are looked at. */
START_TEST(an_aligned_request_does_not_walk_over_holes)
{
	uint32_t bias = 0, first, last, used[2 * HOLES];
	struct ms_bins bins;
	struct ms_arena arena = {&bins, NULL, NODES_MANY, &bias, &first, &last, 1};

	NEED_FAULTS();
	counted = mmap(NULL, NODES_MANY * sizeof *counted, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(counted, MAP_FAILED);
	arena.nodes = counted;
	ms_bins_init(&bins);
	ms_bins_add(&arena, 0, 1u << 24);
	for (uint32_t i = 0; i < 2 * HOLES; i++) /* 63 and 65 units: no hole is aligned to 64 */
		used[i] = ms_bins_alloc(&arena, i % 2 ? 64 + i / 2 % 8 : i ? 64 - i / 2 % 8 : 63, 1, false);
	for (uint32_t i = 0; i < HOLES; i++) /* each page of nodes has 128 of them */
		ms_bins_free(&arena, used[1 + 2 * (i * 7919u % HOLES)]);
	ck_assert(ms_bins_check(&arena));
	ck_assert_uint_le(pages_touched(&arena, 64, 4096, false), 40);
	ck_assert_uint_le(pages_touched(&arena, 64, 4096, true), 120);
	munmap(counted, NODES_MANY * sizeof *counted);
}
END_TEST

/* Each bin leads into one ring: whatever is wanted, it is walked round once, not once for each bin.
 * (Many times would take hours: the test's time is its judge.) */
START_TEST(a_ring_of_nodes_is_walked_once)
{
	uint32_t bias = 0, first = 0, last = 0, count = 1u << 27;
	struct ms_node *nodes = mmap(NULL, count * sizeof *nodes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct ms_bins bins;
	struct ms_arena arena = {&bins, nodes, count, &bias, &first, &last, 1};

	SKIP_IF(nodes == MAP_FAILED, "no address space");
	ms_bins_init(&bins);
	memset((void *)bins.columns, 0xff, sizeof bins.columns);
	memset((void *)bins.head, 0, sizeof bins.head);
	bins.rows = UINT32_MAX;
	nodes[0].size = MS_BINS_USED; /* every head is 0, and the node's next is itself */
	for (int i = 0; i < 2; i++)
		ck_assert_uint_eq(ms_bins_alloc(&arena, 1, 1u << 30, i), MS_BINS_NONE);
	ck_assert(!ms_bins_check(&arena));
	(void)ms_bins_largest(&arena);
	munmap(nodes, count * sizeof *nodes);
}
END_TEST

/* Whatever a guest writes into bins and nodes: nothing outside is touched, and everything ends. */
START_TEST(nonsense_is_survived)
{
	struct bench *bench = bench_new(256);
	unsigned char *bytes;

	for (unsigned round = 0; round < test_rounds(3000); round++) {
		memset(&bench->bins, 0, sizeof bench->bins);
		memset(bench->nodes, 0, sizeof bench->nodes);
		ms_bins_add(&bench->arena, 0, UNITS);
		for (int i = 0; i < 40; i++)
			(void)ms_bins_alloc(&bench->arena, 1 + (uint32_t)test_below(&bench->rng, 60), 1, false);
		for (int i = 0; i < 6; i++) {
			bytes = test_below(&bench->rng, 2) ? (unsigned char *)&bench->bins
							   : (unsigned char *)bench->nodes;
			bytes[test_below(&bench->rng, bytes == (unsigned char *)&bench->bins
							? sizeof bench->bins
							: 256 * sizeof(struct ms_node))] =
					(unsigned char)test_below(&bench->rng, 256);
		}
		for (int i = 0; i < 60; i++) {
			uint32_t index = ms_bins_alloc(&bench->arena,
					1 + (uint32_t)test_below(&bench->rng, 90),
					1u << test_below(&bench->rng, 6), test_below(&bench->rng, 2));
			ck_assert(index == MS_BINS_NONE || index < 256);
			if (i % 3 == 0)
				ms_bins_free(&bench->arena, (uint32_t)test_below(&bench->rng, 256));
			if (i % 5 == 0)
				(void)ms_bins_resize(&bench->arena,
						(uint32_t)test_below(&bench->rng, 256),
						1 + (uint32_t)test_below(&bench->rng, 90));
		}
		(void)ms_bins_check(&bench->arena);
		(void)ms_bins_largest(&bench->arena);
		ck_assert(test_zero(&bench->nodes[256], (NODES - 256) * sizeof bench->nodes[0]));
	}
	free(bench);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("bins");
	TCase *exact = test_case(suite, "exact"), *hostile = test_case(suite, "hostile");

	tcase_add_test(exact, ranges_are_disjoint_aligned_and_found_whenever_there_is_room);
	tcase_add_test(exact, all_of_an_empty_region_can_be_had);
	tcase_add_test(exact, the_largest_region_works);
	tcase_add_test(exact, freeing_needs_no_node);
	tcase_add_test(exact, a_freed_node_rests_and_has_another_generation);
	tcase_add_test(exact, a_region_can_be_extended);
	tcase_add_test(exact, a_range_can_be_taken_at_its_place);
	tcase_add_test(exact, an_aligned_request_does_not_walk_over_holes);
	tcase_add_test(hostile, a_ring_of_nodes_is_walked_once);
	tcase_add_test(hostile, nonsense_is_survived);
	return suite;
}
