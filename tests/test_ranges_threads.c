/* SPDX-License-Identifier: MIT */
/*
 * test_ranges_threads.c - eight threads allocate, resize and free while regions come, are drained
 * and go back. A region that came back is unmapped at once: who still had a range in it would
 * crash.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define THREADS 8
#define MINE 24
#define REGION ((uint64_t)256 << 10)
#define TAGS 60

struct crowd {
	struct memslot_ranges *ranges;
	_Atomic(unsigned) wrong, running, returned[TAGS];
	_Atomic(uint64_t) done, seed;
};

static void take_back(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag)
{
	struct crowd *crowd = context;

	(void)offset;
	crowd->wrong += size != REGION || munmap(base, size) != 0;
	crowd->returned[tag]++;
}

/* --- one thread --- */

struct owner {
	struct crowd *crowd;
	struct test_rng rng;
	struct memslot_range range[MINE];
	unsigned tag[MINE], count, tags;
};

/* test_fill() is for one thread. */
static bool is_mine(const struct owner *me, unsigned i, uint64_t size)
{
	const unsigned char *bytes = me->range[i].base;
	unsigned char tag = (unsigned char)(1 + me->tag[i] % 255);

	return bytes[0] == tag && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static void claim(struct owner *me, unsigned i)
{
	me->tag[i] = ++me->tags;
	memset(me->range[i].base, (int)(1 + me->tag[i] % 255), me->range[i].size);
}

static void try_alloc(struct owner *me)
{
	struct memslot_range_opts opts = MEMSLOT_OPTS(memslot_range_opts,
		.flags = test_below(&me->rng, 3) ? 0 : MEMSLOT_RANGE_ZERO | MEMSLOT_RANGE_BEST);
	struct memslot_range *range = &me->range[me->count];
	uint64_t align = 1ull << test_below(&me->rng, 8);

	if (memslot_ranges_alloc(
		    me->crowd->ranges, 1 + test_below(&me->rng, 3000), align, &opts, range))
		return;
	if (opts.flags && !test_zero(range->base, range->size))
		me->crowd->wrong++;
	claim(me, me->count++);
	me->crowd->done++;
}

static void resize(struct owner *me, unsigned i)
{
	uint64_t before = me->range[i].size, size = 1 + test_below(&me->rng, 2 * before);

	if (memslot_ranges_resize(me->crowd->ranges, &me->range[i], size))
		return;
	me->crowd->wrong +=
		!is_mine(me, i, before < me->range[i].size ? before : me->range[i].size);
	claim(me, i);
}

/* Guarded it stays; then it goes, and is stale. */
static void give_back(struct owner *me, unsigned i)
{
	struct memslot_ranges *ranges = me->crowd->ranges;
	struct memslot_range range = me->range[i], found;
	bool fine = is_mine(me, i, range.size);

	if (test_below(&me->rng, 4) == 0) {
		fine = fine && memslot_ranges_guard(ranges, &range) == 0;
		fine = fine && memslot_ranges_free(ranges, &range) == -EBUSY;
		fine = fine && memslot_ranges_find(ranges, range.base, &found) == 0 &&
		       found.handle == range.handle;
		fine = fine && memslot_ranges_unguard(ranges, &range) == 0;
	}
	fine = fine && memslot_ranges_free(ranges, &range) == 0;
	fine = fine && memslot_ranges_free(ranges, &range) == -ESTALE;
	me->crowd->wrong += !fine;
	me->count--;
	me->range[i] = me->range[me->count];
	me->tag[i] = me->tag[me->count];
}

static void *live(void *argument)
{
	struct crowd *crowd = argument;
	uint64_t salt = atomic_fetch_add(&crowd->seed, 1);
	struct owner me = {.crowd = crowd, .rng = test_rng(salt), .tags = (unsigned)salt * 29};

	for (unsigned i = test_rounds(60000); i; i--) {
		uint64_t what = test_below(&me.rng, 9);
		if (me.count < MINE && (what < 4 || me.count == 0))
			try_alloc(&me);
		else if (me.count && what < 6)
			resize(&me, (unsigned)test_below(&me.rng, me.count));
		else if (me.count)
			give_back(&me, (unsigned)test_below(&me.rng, me.count));
	}
	while (me.count)
		give_back(&me, 0);
	crowd->running--;
	return NULL;
}

/* --- the regions --- */

static void add(struct crowd *crowd, uint64_t tag)
{
	struct memslot_expansion *expansion;
	void *base = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(base, MAP_FAILED);
	ck_assert_int_eq(memslot_ranges_expand_begin(crowd->ranges, REGION, &expansion), 0);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base, tag), 0);
}

static void check(const struct crowd *crowd)
{
	struct memslot_ranges_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_ranges_check(crowd->ranges), 0);
	ck_assert_int_eq(memslot_ranges_stats(crowd->ranges, &stats), 0);
	ck_assert_uint_le(stats.live_bytes + stats.free_bytes, stats.region_bytes);
}

/* Beside the first four regions others come and go, for as long as anybody runs. How many came. */
static uint64_t stir(struct crowd *crowd, struct test_rng *rng)
{
	uint64_t tags = 4;

	while (crowd->running) {
		if (tags < TAGS && test_below(rng, 3))
			add(crowd, tags++);
		if (tags < TAGS || test_below(rng, 2)) /* the last few stay, or nobody could work */
			(void)memslot_ranges_drain(crowd->ranges, test_below(rng, tags - 2));
		if (test_below(rng, 8) == 0)
			ck_assert_int_eq(memslot_ranges_shrink(crowd->ranges, NULL), 0);
		check(crowd);
		sched_yield();
	}
	return tags;
}

static void crowd_run(struct crowd *crowd, uint64_t *ret_tags)
{
	pthread_t threads[THREADS];
	struct test_rng rng = test_rng(90);

	crowd->running = THREADS;
	for (uint64_t tag = 0; tag < 4; tag++)
		add(crowd, tag);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, live, crowd), 0);
	while (crowd->done == 0 && crowd->running) /* what is empty goes: they would find nothing */
		sched_yield();
	*ret_tags = stir(crowd, &rng);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	check(crowd);
}

START_TEST(threads_allocate_while_regions_come_and_go)
{
	static struct crowd crowd;
	struct memslot_ranges_opts opts =
		MEMSLOT_OPTS(memslot_ranges_opts, .flags = _i ? MEMSLOT_RANGES_ZERO_ON_FREE : 0,
			.release = take_back, .context = &crowd);
	uint64_t tags;

	crowd.seed = 40;
	ck_assert_int_eq(memslot_ranges_create(&opts, &crowd.ranges), 0);
	crowd_run(&crowd, &tags);
	ck_assert_int_eq(memslot_ranges_close(crowd.ranges, NULL), 0);
	ck_assert_uint_eq(crowd.wrong, 0);
	ck_assert_uint_gt(crowd.done, 0);
	for (uint64_t tag = 0; tag < tags; tag++)
		ck_assert_uint_eq(crowd.returned[tag], 1);
}
END_TEST

/* Slots as well, which several threads may ask for at once. */
START_TEST(threads_make_an_allocator_grow)
{
	static struct crowd crowd;
	struct memslot_pool_stats stats = {.size = sizeof stats};
	struct memslot_ranges_opts opts;
	uint64_t tags;

	crowd.seed = 60;
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .release = take_back, .context = &crowd);
	ck_assert_int_eq(memslot_pool_create(6, 65536, NULL, &opts.pool), 0);
	ck_assert_int_eq(memslot_ranges_create(&opts, &crowd.ranges), 0);
	crowd_run(&crowd, &tags);
	ck_assert_int_eq(memslot_ranges_close(crowd.ranges, NULL), 0);
	ck_assert_uint_eq(crowd.wrong, 0);
	ck_assert_int_eq(memslot_pool_stats(opts.pool, &stats), 0);
	ck_assert_uint_eq(stats.live, 0);
	ck_assert_int_eq(memslot_pool_destroy(opts.pool), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("ranges_threads");
	TCase *tcase = test_case(suite, "threads");

	tcase_set_timeout(tcase, 600);
	tcase_add_loop_test(tcase, threads_allocate_while_regions_come_and_go, 0, 2);
	tcase_add_test(tcase, threads_make_an_allocator_grow);
	return suite;
}
