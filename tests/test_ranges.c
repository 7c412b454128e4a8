/* SPDX-License-Identifier: MIT */
/*
 * test_ranges.c - ranges of many regions: what each call promises, and the defects of others replayed
 * (../shared/design: R). Arenas are PROT_NONE unless a test needs the memory: a touch is a crash.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MB ((uint64_t)1 << 20)

/* What opts.release was told. */
struct returned {
	unsigned calls;
	void *base;
	uint64_t size, offset, tag, sum;
};

static void take_back(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag)
{
	struct returned *returned = context;

	returned->calls++;
	returned->base = base;
	returned->size = size;
	returned->offset = offset;
	returned->tag = tag;
	returned->sum += tag;
}

static struct memslot_ranges *ranges_new(uint32_t flags, uint64_t unit, struct returned *returned)
{
	struct memslot_ranges_opts opts = MEMSLOT_OPTS(memslot_ranges_opts, .flags = flags,
			.unit = unit, .release = returned ? take_back : NULL, .context = returned);
	struct memslot_ranges *ranges = NULL;

	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	return ranges;
}

static uint64_t add_region(struct memslot_ranges *ranges, void *base, uint64_t size, uint64_t tag)
{
	struct memslot_expansion *expansion = NULL;
	uint64_t offset;

	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, size, &expansion), 0);
	offset = memslot_expansion_offset(expansion);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base, tag), 0);
	return offset;
}

static void *untouchable(size_t size)
{
	void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ck_assert_ptr_ne(at, MAP_FAILED);
	return at;
}

static struct memslot_range alloc(struct memslot_ranges *ranges, uint64_t size, uint64_t align)
{
	struct memslot_range range = {0};

	ck_assert_int_eq(memslot_ranges_alloc(ranges, size, align, NULL, &range), 0);
	ck_assert_uint_ge(range.size, size);
	return range;
}

static int alloc_error(struct memslot_ranges *ranges, uint64_t size, uint64_t align, uint32_t flags,
		uint64_t fixed)
{
	struct memslot_range_opts opts =
			MEMSLOT_OPTS(memslot_range_opts, .flags = flags, .fixed_offset = fixed);
	struct memslot_range range = {.handle = 99};
	int error = memslot_ranges_alloc(ranges, size, align, &opts, &range);

	if (error)
		ck_assert_uint_eq(range.handle, 99);
	return error;
}

static struct memslot_ranges_stats stats(const struct memslot_ranges *ranges)
{
	struct memslot_ranges_stats now = {.size = sizeof now};

	ck_assert_int_eq(memslot_ranges_stats(ranges, &now), 0);
	ck_assert_int_eq(memslot_ranges_check(ranges), 0);
	return now;
}

static void close_ranges(struct memslot_ranges *ranges)
{
	ck_assert_int_eq(memslot_ranges_close(ranges, NULL), 0);
}

/* --- one region --- */

START_TEST(a_range_is_where_it_says_and_as_large)
{
	struct memslot_ranges *ranges = ranges_new((uint32_t)_i, 0, NULL);
	unsigned char *base = untouchable(MB);
	uint64_t offset = add_region(ranges, base, MB, 7);
	struct memslot_region region = {.size = sizeof region};
	struct memslot_range range, found;

	for (uint64_t align = 16; align <= 4096; align *= 2) {
		range = alloc(ranges, 100, align);
		ck_assert_uint_eq(range.size, 112);
		ck_assert_uint_eq((uintptr_t)range.base % align, 0);
		ck_assert_uint_eq(range.offset - offset, (uint64_t)((unsigned char *)range.base - base));
		ck_assert_int_eq(memslot_ranges_find(ranges, (char *)range.base + 111, &found), 0);
		ck_assert_mem_eq(&found, &range, sizeof range);
	}
	ck_assert_int_eq(memslot_ranges_region(ranges, &range, &region), 0);
	ck_assert(region.base == base && region.offset == offset && region.bytes == MB &&
			region.tag == 7 && region.slot == NULL);
	ck_assert_int_eq(memslot_ranges_find(ranges, base + MB, &found), -ENOENT);
	ck_assert_int_eq(memslot_ranges_find(ranges, base - 1, &found), -ENOENT);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_find(ranges, range.base, &found), -ENOENT);
	close_ranges(ranges);
}
END_TEST

START_TEST(stale_double_and_foreign_frees_are_estale)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL), *other = ranges_new(0, 0, NULL);
	struct memslot_range range, copy, theirs, bent;

	add_region(ranges, untouchable(MB), MB, 0);
	add_region(other, untouchable(MB), MB, 0);
	range = copy = alloc(ranges, 64, 0);
	theirs = alloc(other, 64, 0);
	theirs.base = range.base;
	theirs.offset = range.offset;
	if ((theirs.handle ^ range.handle) >> 48) /* the salts may be equal, once in 65536 */
		ck_assert_int_eq(memslot_ranges_free(ranges, &theirs), -ESTALE);
	bent = range;
	bent.offset += 16;
	ck_assert_int_eq(memslot_ranges_free(ranges, &bent), -ESTALE);
	bent = range;
	bent.base = (char *)bent.base + 16;
	ck_assert_int_eq(memslot_ranges_guard(ranges, &bent), -ESTALE);
	bent = range;
	bent.handle ^= 1u << 20;
	ck_assert_int_eq(memslot_ranges_resize(ranges, &bent, 32), -ESTALE);
	bent.handle = UINT64_MAX;
	ck_assert_int_eq(memslot_ranges_free(ranges, &bent), -ESTALE);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	for (int i = 0; i < 2000; i++) {
		ck_assert_int_eq(memslot_ranges_free(ranges, &copy), -ESTALE);
		range = alloc(ranges, 64, 0); /* at the same place, mostly */
		ck_assert_int_eq(memslot_ranges_free(ranges, &copy), -ESTALE);
		ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	}
	ck_assert_int_eq(memslot_ranges_free_at(ranges, range.offset), -ENOENT);
	close_ranges(ranges);
	close_ranges(other);
}
END_TEST

START_TEST(sizes_and_alignments_are_checked)
{
	struct memslot_ranges_opts opts = MEMSLOT_OPTS(memslot_ranges_opts, .unit = 64,
			.min_align = 128, .max_align = 1024, .min_size = 10, .max_size = 5000);
	struct memslot_ranges *ranges;

	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	add_region(ranges, untouchable(MB), MB, 0);
	ck_assert_int_eq(alloc_error(ranges, 0, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(alloc_error(ranges, 9, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(alloc_error(ranges, 5001, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(alloc_error(ranges, 100, 3, 0, 0), -EINVAL);
	ck_assert_int_eq(alloc_error(ranges, 100, 2048, 0, 0), -EINVAL);
	ck_assert_int_eq(alloc_error(ranges, 100, 0, 1u << 9, 0), -EINVAL);
	ck_assert_uint_eq((uintptr_t)alloc(ranges, 10, 0).base % 128, 0);
	ck_assert_uint_eq((uintptr_t)alloc(ranges, 10, 0).base % 128, 0);
	ck_assert_uint_eq(alloc(ranges, 65, 1024).size, 128);
	close_ranges(ranges);
	ranges = ranges_new(0, 0, NULL);
	add_region(ranges, untouchable(MB), MB, 0);
	ck_assert_int_eq(alloc_error(ranges, UINT64_MAX, 0, 0, 0), -EMSGSIZE);
	ck_assert_int_eq(alloc_error(ranges, UINT64_MAX - 4096, 4096, 0, 0), -EMSGSIZE);
	ck_assert_int_eq(alloc_error(ranges, 16, 1ull << 63, 0, 0), -EMSGSIZE);
	ck_assert_int_eq(alloc_error(ranges, 2 * MB, 0, 0, 0), -ENOSPC);
	ck_assert_uint_eq(stats(ranges).failures, 1);
	close_ranges(ranges);
}
END_TEST

START_TEST(options_out_of_order_are_refused)
{
	static const struct memslot_ranges_opts bad[] = {
		{.unit = 3}, {.unit = 1ull << 31}, {.min_align = 3}, {.max_align = 5},
		{.min_align = 64, .max_align = 32}, {.min_size = 10, .max_size = 9},
		{.region_size = 4096}, {.flags = 4}, {.max_size = MEMSLOT_NONE},
		{.max_align = MEMSLOT_NONE},
	};
	struct memslot_ranges_opts opts;
	struct memslot_ranges *ranges = (struct memslot_ranges *)1;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		opts = bad[i];
		opts.size = sizeof opts;
		ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), -EINVAL);
	}
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .max_ranges = 1ull << 40);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), -EMSGSIZE);
	ck_assert_ptr_eq(ranges, (struct memslot_ranges *)1);
	ck_assert_int_eq(memslot_ranges_create(NULL, NULL), -EINVAL);
	ck_assert_int_eq(memslot_ranges_close(NULL, NULL), 0);
}
END_TEST

START_TEST(a_fixed_range_is_there_or_nowhere)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	uint64_t first, second;
	struct memslot_range_opts opts = MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_FIXED);
	struct memslot_range range;

	add_region(ranges, untouchable(MB), MB, 0);
	first = add_region(ranges, untouchable(MB), MB, 1);
	second = add_region(ranges, NULL, MB, 2);
	for (int i = 0; i < 2; i++) { /* not only in the first region */
		uint64_t at = i ? second : first;
		opts.fixed_offset = at + 4096;
		ck_assert_int_eq(memslot_ranges_alloc(ranges, 100, 0, &opts, &range), 0);
		ck_assert_uint_eq(range.offset, at + 4096);
		ck_assert_int_eq(alloc_error(ranges, 100, 0, MEMSLOT_RANGE_FIXED, at + 4096), -EEXIST);
		ck_assert_int_eq(alloc_error(ranges, 5000, 0, MEMSLOT_RANGE_FIXED, at), -EEXIST);
		ck_assert_int_eq(alloc_error(ranges, 100, 0, MEMSLOT_RANGE_FIXED, at + 8), -EINVAL);
		ck_assert_int_eq(alloc_error(ranges, 100, 0, MEMSLOT_RANGE_FIXED, at + MB - 16), -EINVAL);
		ck_assert_int_eq(alloc_error(ranges, 16, 0, MEMSLOT_RANGE_FIXED, at + MB - 16), 0);
		ck_assert_int_eq(memslot_ranges_free_at(ranges, at + 4096), 0);
		ck_assert_int_eq(memslot_ranges_free_at(ranges, at + 4096), -ENOENT);
		ck_assert_int_eq(memslot_ranges_free_at(ranges, at + MB - 16), 0);
	}
	ck_assert_int_eq(alloc_error(ranges, 100, 0, MEMSLOT_RANGE_FIXED, second + MB), -EINVAL);
	ck_assert_int_eq(alloc_error(ranges, 100, 0, MEMSLOT_RANGE_FIXED, 1ull << 60), -EINVAL);
	ck_assert_uint_eq(stats(ranges).live, 0);
	close_ranges(ranges);
}
END_TEST

START_TEST(ranges_grow_and_shrink_in_place)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	struct memslot_range a, b, before;

	add_region(ranges, untouchable(MB), MB, 0);
	a = alloc(ranges, 1000, 0);
	b = alloc(ranges, 1000, 0);
	before = a;
	ck_assert_int_eq(memslot_ranges_resize(ranges, &a, 2000), -ENOSPC);
	ck_assert_mem_eq(&a, &before, sizeof a);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &a, 500), 0);
	ck_assert_uint_eq(a.size, 512);
	ck_assert_uint_eq(a.handle, before.handle);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &a, 1000), 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &b, MB / 2), 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &b, 0), -EINVAL);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &b, UINT64_MAX), -EMSGSIZE);
	ck_assert_int_eq(memslot_ranges_guard(ranges, &b), 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &b, 16), -EBUSY);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &b, MB / 2 + 16), 0);
	ck_assert_int_eq(memslot_ranges_unguard(ranges, &b), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &b), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &a), 0);
	ck_assert_uint_eq(stats(ranges).largest_free, MB);
	close_ranges(ranges);
}
END_TEST

START_TEST(cleared_ranges_are_zero)
{
	struct memslot_ranges *ranges = ranges_new(_i ? MEMSLOT_RANGES_ZERO_ON_FREE : 0, 0, NULL);
	struct memslot_range_opts zero = MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	unsigned char *base = mmap(NULL, MB, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memslot_range range;
	struct test_rng rng = test_rng(4);

	memset(base, 0x11, MB);
	add_region(ranges, base, MB, 0);
	for (int i = 0; i < 300; i++) {
		uint64_t size = 1 + test_below(&rng, 5000);
		ck_assert_int_eq(memslot_ranges_alloc(ranges, size, 0, &zero, &range), 0);
		ck_assert(test_zero(range.base, range.size));
		memset(range.base, 0x22, range.size);
		if (i % 3 == 0)
			ck_assert_int_eq(memslot_ranges_resize(ranges, &range, 1 + size / 2), 0);
		ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
		if (_i)
			ck_assert(test_zero(range.base, range.size));
		ck_assert(!_i || !memchr(base, 0x22, MB));
	}
	if (_i) {
		struct memslot_expansion *expansion;
		ck_assert_int_eq(memslot_ranges_expand_begin(ranges, MB, &expansion), 0);
		ck_assert_int_eq(memslot_expansion_commit(expansion, NULL, 0), -EINVAL);
		memslot_expansion_abort(expansion);
	}
	close_ranges(ranges);
	munmap(base, MB);
}
END_TEST

/* --- the defects of others --- */

START_TEST(an_empty_allocator_gives_all_it_has)
{
	for (uint64_t size = 16; size < 64 * MB; size += 16 + size / 5) {
		struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
		struct memslot_range range;
		add_region(ranges, NULL, size, 0);
		range = alloc(ranges, size & ~15ull, 0);
		ck_assert_int_eq(alloc_error(ranges, 16, 0, 0, 0), -ENOSPC);
		ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
		close_ranges(ranges);
	}
}
END_TEST

START_TEST(two_ranges_may_mean_two)
{
	struct memslot_ranges_opts opts = MEMSLOT_OPTS(memslot_ranges_opts, .max_ranges = 2);
	struct memslot_range first, second;
	struct memslot_ranges *ranges;

	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	add_region(ranges, NULL, MB, 0);
	first = alloc(ranges, 16, 0);
	second = alloc(ranges, 16, 0);
	ck_assert_uint_ne(first.offset, second.offset);
	ck_assert_int_eq(alloc_error(ranges, 16, 0, 0, 0), -ENOSPC);
	ck_assert_int_eq(memslot_ranges_free(ranges, &first), 0);
	alloc(ranges, 16, 0);
	close_ranges(ranges);
}
END_TEST

START_TEST(an_aborted_expansion_in_the_middle_overlaps_nothing)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	struct memslot_expansion *e[3], *later;
	uint64_t at[3];

	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(memslot_ranges_expand_begin(ranges, MB, &e[i]), 0);
		at[i] = memslot_expansion_offset(e[i]);
		ck_assert(i == 0 || at[i] >= at[i - 1] + MB);
	}
	ck_assert_int_eq(alloc_error(ranges, 16, 0, 0, 0), -ENOSPC); /* nothing is committed */
	ck_assert_int_eq(memslot_ranges_close(ranges, NULL), -EBUSY);
	ck_assert_int_eq(memslot_ranges_reset(ranges), -EBUSY);
	memslot_expansion_abort(e[1]);
	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, 2 * MB, &later), 0);
	ck_assert_uint_ge(memslot_expansion_offset(later), at[2] + MB);
	ck_assert_int_eq(memslot_expansion_commit(e[0], (void *)8, 0), -EINVAL);
	ck_assert_int_eq(memslot_expansion_commit(e[0], NULL, 0), 0);
	ck_assert_int_eq(memslot_expansion_commit(e[2], NULL, 0), 0);
	ck_assert_int_eq(memslot_expansion_commit(later, NULL, 0), 0);
	ck_assert_uint_eq(stats(ranges).region_bytes, 4 * MB);
	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, 15, &later), -EINVAL);
	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, 16ull << 31, &later), -EMSGSIZE);
	close_ranges(ranges);
}
END_TEST

/* --- regions --- */

START_TEST(the_offset_space_is_wide)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	uint64_t last = 0;

	for (int i = 0; i < 20; i++) {
		uint64_t at = add_region(ranges, NULL, 8ull << 30, (uint64_t)i);
		ck_assert(i == 0 || at >= last + (8ull << 30));
		last = at;
	}
	for (int i = 0; i < 20; i++)
		ck_assert_uint_eq(alloc(ranges, 5ull << 30, 0).size, 5ull << 30);
	ck_assert_int_eq(alloc_error(ranges, 5ull << 30, 0, 0, 0), -ENOSPC);
	ck_assert_uint_gt(last, 64ull << 30);
	ck_assert_uint_eq(stats(ranges).region_bytes, 160ull << 30);
	close_ranges(ranges);
}
END_TEST

START_TEST(a_guarded_range_blocks_free_close_and_reset)
{
	struct returned returned = {0};
	struct memslot_ranges *ranges = ranges_new(0, 0, &returned);
	struct memslot_range range, born;
	struct memslot_range_opts guarded =
			MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_GUARDED);
	uint64_t busy = 0;

	add_region(ranges, NULL, MB, 5);
	add_region(ranges, NULL, MB, 6);
	range = alloc(ranges, 100, 0);
	ck_assert_int_eq(memslot_ranges_unguard(ranges, &range), -EINVAL);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(memslot_ranges_guard(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_alloc(ranges, 100, 0, &guarded, &born), 0);
	ck_assert_uint_eq(stats(ranges).guarded, 2);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), -EBUSY);
	ck_assert_int_eq(memslot_ranges_free_at(ranges, born.offset), -EBUSY);
	ck_assert_int_eq(memslot_ranges_close(ranges, &busy), -EBUSY);
	ck_assert_uint_eq(busy, 2);
	ck_assert_int_eq(memslot_ranges_reset(ranges), -EBUSY);
	ck_assert_uint_eq(returned.calls, 0);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(memslot_ranges_unguard(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_unguard(ranges, &born), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &born), 0);
	ck_assert_int_eq(memslot_ranges_reset(ranges), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), -ESTALE);
	ck_assert_uint_eq(stats(ranges).live, 0);
	close_ranges(ranges);
	ck_assert_uint_eq(returned.calls, 2); /* each once, with its tag */
	ck_assert_uint_eq(returned.sum, 11);
}
END_TEST

START_TEST(a_drained_region_goes_back_with_its_last_range)
{
	struct returned returned = {0};
	struct memslot_ranges *ranges = ranges_new(0, 0, &returned);
	struct memslot_range kept[8];
	uint64_t at = add_region(ranges, NULL, MB, 5);

	for (int i = 0; i < 8; i++)
		kept[i] = alloc(ranges, 1000, 64);
	ck_assert_int_eq(memslot_ranges_drain(ranges, 6), -ENOENT);
	for (int i = 0; i < 8; i += 2)
		ck_assert_int_eq(memslot_ranges_free(ranges, &kept[i]), 0);
	ck_assert_int_eq(memslot_ranges_drain(ranges, 5), 0);
	ck_assert_int_eq(memslot_ranges_drain(ranges, 5), 0);
	ck_assert_int_eq(alloc_error(ranges, 16, 0, 0, 0), -ENOSPC);
	ck_assert_int_eq(alloc_error(ranges, 16, 0, MEMSLOT_RANGE_FIXED, at), -EEXIST);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &kept[1], 1000), 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &kept[1], 1009), -ENOSPC);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &kept[1], 900), -ENOSPC);
	ck_assert_uint_eq(stats(ranges).live, 4);
	ck_assert_uint_eq(stats(ranges).free_bytes, 0);
	ck_assert_uint_eq(stats(ranges).live_bytes, 4 * 1008);
	for (int i = 1; i < 8; i += 2) {
		ck_assert_uint_eq(returned.calls, 0);
		ck_assert_int_eq(memslot_ranges_free(ranges, &kept[i]), 0);
	}
	ck_assert_uint_eq(returned.calls, 1);
	ck_assert(returned.tag == 5 && returned.offset == at && returned.size == MB);
	ck_assert_uint_eq(stats(ranges).regions, 0);
	close_ranges(ranges);
	ck_assert_uint_eq(returned.calls, 1);
}
END_TEST

START_TEST(shrink_gives_wholly_free_regions_back)
{
	struct returned returned = {0};
	struct memslot_ranges *ranges = ranges_new(0, 0, &returned);
	struct memslot_range range;
	uint64_t bytes = 9;

	for (uint64_t i = 0; i < 5; i++)
		add_region(ranges, NULL, MB, i);
	range = alloc(ranges, 100, 0);
	ck_assert_int_eq(memslot_ranges_shrink(ranges, &bytes), 0);
	ck_assert_uint_eq(bytes, 4 * MB);
	ck_assert_uint_eq(returned.calls, 4);
	ck_assert_uint_eq(stats(ranges).regions, 1);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_shrink(ranges, NULL), 0);
	ck_assert_uint_eq(returned.calls, 5);
	ck_assert_uint_eq(stats(ranges).region_bytes, 0);
	close_ranges(ranges);
}
END_TEST

/* --- fed from a pool --- */

START_TEST(regions_come_from_slots_and_go_back_to_them)
{
	struct memslot_ranges_opts opts;
	struct memslot_pool_stats pool_stats = {.size = sizeof pool_stats};
	struct memslot_region region = {.size = sizeof region};
	struct memslot_range_opts zero = MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	struct memslot_range range[3], again;
	struct memslot_ranges *ranges;
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(3, MB, NULL, &pool), 0);
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .pool = pool);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	ck_assert_int_eq(alloc_error(ranges, 100, 0, MEMSLOT_RANGE_NO_GROW, 0), -ENOSPC);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(memslot_ranges_alloc(ranges, MB / 2 + 1, 4096, &zero, &range[i]), 0);
		ck_assert(test_zero(range[i].base, range[i].size));
		memset(range[i].base, 0x33, range[i].size);
		ck_assert_int_eq(memslot_ranges_region(ranges, &range[i], &region), 0);
		ck_assert_ptr_ne(region.slot, NULL);
		ck_assert_uint_eq(region.tag, memslot_slot_index(region.slot));
		ck_assert_ptr_eq(region.base, memslot_slot_base(region.slot));
	}
	ck_assert_int_eq(alloc_error(ranges, MB / 2 + 1, 0, 0, 0), -ENOSPC); /* the pool is empty */
	ck_assert_int_eq(alloc_error(ranges, MB + 1, 0, 0, 0), -ENOSPC);     /* larger than a slot */
	ck_assert_int_eq(memslot_ranges_free(ranges, &range[1]), 0);
	ck_assert_int_eq(memslot_ranges_alloc(ranges, MB / 2, 0, &zero, &again), 0);
	ck_assert(test_zero(again.base, again.size));
	ck_assert_int_eq(memslot_ranges_free(ranges, &again), 0);
	ck_assert_int_eq(memslot_ranges_reset(ranges), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range[0]), -ESTALE);
	again = alloc(ranges, MB, 0); /* slots show zeros again */
	ck_assert(test_zero(again.base, MB));
	ck_assert_int_eq(memslot_ranges_shrink(ranges, NULL), 0);
	ck_assert_int_eq(memslot_pool_stats(pool, &pool_stats), 0);
	ck_assert_uint_eq(pool_stats.live, 1);
	close_ranges(ranges);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

static int write_seed(struct memslot_slot *slot, void *context)
{
	(void)context;
	memset(memslot_slot_base(slot), 'r', memslot_slot_size(slot));
	return 0;
}

START_TEST(what_on_reset_writes_is_not_taken_for_zero)
{
	struct memslot_pool_opts pool_opts =
			MEMSLOT_OPTS(memslot_pool_opts, .on_reset = write_seed);
	struct memslot_range_opts zero = MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	struct memslot_ranges_opts opts;
	struct memslot_ranges *ranges;
	struct memslot_range range;
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(1, MB, &pool_opts, &pool), 0);
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .pool = pool);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(memslot_ranges_alloc(ranges, MB / 2, 0, &zero, &range), 0);
		ck_assert(test_zero(range.base, range.size));
		ck_assert_int_eq(memslot_ranges_reset(ranges), 0);
	}
	close_ranges(ranges);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

START_TEST(what_a_resized_range_reached_is_not_taken_for_fresh)
{
	struct memslot_range_opts zero = MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	struct memslot_ranges_opts opts;
	struct memslot_ranges *ranges;
	struct memslot_range range;
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(1, MB, NULL, &pool), 0);
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .pool = pool);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	range = alloc(ranges, 16, 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &range, 65536), 0);
	memset(range.base, 's', range.size);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_alloc(ranges, MB, 0, &zero, &range), 0);
	ck_assert(test_zero(range.base, MB));
	close_ranges(ranges);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

START_TEST(zeros_are_found_beside_regions_without_memory)
{
	struct memslot_range_opts zero = MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	unsigned char *base = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memslot_range range, second;

	ck_assert_ptr_ne(base, MAP_FAILED);
	memset(base, 'o', MB);
	add_region(ranges, NULL, MB / 2, 1); /* fits better */
	ck_assert_int_eq(alloc_error(ranges, MB / 2, 0, MEMSLOT_RANGE_ZERO, 0), -EINVAL);
	add_region(ranges, base, MB, 2);
	range = alloc(ranges, 100, 0);
	ck_assert_ptr_eq(range.base, NULL);
	for (size_t align = 16; align <= 65536; align *= 64) {
		ck_assert_int_eq(memslot_ranges_alloc(ranges, 5000, align, &zero, &second), 0);
		ck_assert_uint_eq((uintptr_t)second.base % align, 0);
		ck_assert(second.base >= (void *)base && test_zero(second.base, second.size));
	}
	ck_assert_int_eq(alloc_error(ranges, MB, 0, MEMSLOT_RANGE_ZERO, 0), -ENOSPC);
	ck_assert_int_eq(alloc_error(ranges, 16, 0, MEMSLOT_RANGE_ZERO | MEMSLOT_RANGE_FIXED,
				 range.offset + range.size),
		-EINVAL);
	ck_assert_int_eq(memslot_ranges_check(ranges), 0);
	close_ranges(ranges);
	munmap(base, MB);
}
END_TEST

START_TEST(memory_is_in_one_region_only)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	unsigned char *base = untouchable(4 * MB);
	struct memslot_expansion *expansion;

	add_region(ranges, base + MB, MB, 1);
	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, MB, &expansion), 0);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base + MB, 2), -EEXIST);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base + 16, 2), -EEXIST);
	ck_assert_int_eq(memslot_expansion_commit(expansion, (void *)-(uintptr_t)4096, 2), -EINVAL);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base + 2 * MB - 16, 2), -EEXIST);
	ck_assert_uint_eq(stats(ranges).regions, 1);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base, 2), 0);
	add_region(ranges, base + 2 * MB, MB, 3);
	add_region(ranges, NULL, MB, 4);
	add_region(ranges, NULL, MB, 5);
	close_ranges(ranges);
	munmap(base, 4 * MB);
}
END_TEST

static struct memslot_ranges *draining;
static int drained;

/* As another thread would, while the slot is reset. */
static int drain_meanwhile(struct memslot_slot *slot, void *context)
{
	(void)context;
	if (draining)
		drained = memslot_ranges_drain(draining, memslot_slot_index(slot));
	return 0;
}

START_TEST(a_region_may_be_drained_while_it_is_reset)
{
	struct memslot_pool_opts pool_opts =
			MEMSLOT_OPTS(memslot_pool_opts, .on_reset = drain_meanwhile);
	struct memslot_pool_stats pool_stats = {.size = sizeof pool_stats};
	struct memslot_ranges_opts opts;
	struct memslot_ranges *ranges;
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(2, MB, &pool_opts, &pool), 0);
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .pool = pool);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	alloc(ranges, MB, 0);
	draining = ranges;
	drained = 99;
	ck_assert_int_eq(memslot_ranges_reset(ranges), 0);
	draining = NULL;
	ck_assert_int_eq(drained, 0);
	ck_assert_uint_eq(stats(ranges).regions, 0);
	ck_assert_int_eq(memslot_pool_stats(pool, &pool_stats), 0);
	ck_assert_uint_eq(pool_stats.live, 0);
	close_ranges(ranges);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

static struct memslot_ranges *full;
static struct memslot_range leaving;

/* As another thread would, while the pool is asked in vain. */
static int free_meanwhile(struct memslot_slot *slot, void *context)
{
	(void)slot;
	(void)context;
	return full && memslot_ranges_free(full, &leaving) == 0 ? -EIO : 0;
}

START_TEST(what_came_free_while_the_pool_had_nothing_is_found)
{
	struct memslot_pool_opts pool_opts =
			MEMSLOT_OPTS(memslot_pool_opts, .on_reset = free_meanwhile);
	struct memslot_ranges_opts opts;
	struct memslot_ranges *ranges;
	struct memslot_range range;
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(2, MB, &pool_opts, &pool), 0);
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .pool = pool);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	leaving = alloc(ranges, MB, 0);
	full = ranges;
	range = alloc(ranges, MB, 0);
	full = NULL;
	ck_assert_ptr_eq(range.base, leaving.base);
	ck_assert_uint_eq(stats(ranges).failures, 0);
	close_ranges(ranges);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

START_TEST(a_request_that_no_slot_could_serve_takes_none)
{
	struct memslot_pool_stats pool_stats = {.size = sizeof pool_stats};
	struct memslot_ranges_opts opts;
	struct memslot_ranges *ranges;
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(20, 65536, NULL, &pool), 0);
	opts = MEMSLOT_OPTS(memslot_ranges_opts, .pool = pool);
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), 0);
	ck_assert_int_eq(alloc_error(ranges, 65536, 1u << 30, 0, 0), -ENOSPC);
	ck_assert_int_eq(memslot_pool_stats(pool, &pool_stats), 0);
	ck_assert_uint_eq(pool_stats.live, 0);
	close_ranges(ranges);
	opts.unit = 1u << 20;
	ck_assert_int_eq(memslot_ranges_create(&opts, &ranges), -EINVAL);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

/* --- what was found by others --- */

struct asking {
	struct memslot_ranges *ranges;
	unsigned calls;
};

static void ask(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag)
{
	struct asking *asking = context;
	struct memslot_ranges_stats now = {.size = sizeof now};

	(void)base, (void)size, (void)offset, (void)tag;
	asking->calls += memslot_ranges_stats(asking->ranges, &now) == 0;
}

START_TEST(release_is_called_without_the_lock)
{
	struct asking asking = {NULL, 0};
	struct memslot_ranges_opts opts =
			MEMSLOT_OPTS(memslot_ranges_opts, .release = ask, .context = &asking);
	struct memslot_range range;

	ck_assert_int_eq(memslot_ranges_create(&opts, &asking.ranges), 0);
	for (uint64_t tag = 0; tag < 4; tag++)
		add_region(asking.ranges, NULL, MB, tag);
	range = alloc(asking.ranges, 100, 0);
	ck_assert_int_eq(memslot_ranges_drain(asking.ranges, 1), 0);
	ck_assert_int_eq(memslot_ranges_shrink(asking.ranges, NULL), 0);
	for (uint64_t tag = 0; tag < 4; tag++)
		(void)memslot_ranges_drain(asking.ranges, tag);
	ck_assert_int_eq(memslot_ranges_reset(asking.ranges), 0);
	ck_assert_uint_eq(asking.calls, 4);
	ck_assert_int_eq(memslot_ranges_free(asking.ranges, &range), -ESTALE);
	close_ranges(asking.ranges);
}
END_TEST

START_TEST(a_cut_that_is_refused_clears_nothing)
{
	struct memslot_ranges *ranges = ranges_new(MEMSLOT_RANGES_ZERO_ON_FREE, 0, NULL);
	unsigned char *base = mmap(NULL, MB, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memslot_range range;

	add_region(ranges, base, MB, 3);
	range = alloc(ranges, 4096, 0);
	memset(range.base, 'k', 4096);
	ck_assert_int_eq(memslot_ranges_drain(ranges, 3), 0);
	ck_assert_int_eq(memslot_ranges_resize(ranges, &range, 1024), -ENOSPC);
	ck_assert_uint_eq(((unsigned char *)range.base)[4095], 'k');
	/* Ranges that end without a free are cleared too. */
	ck_assert_int_eq(memslot_ranges_reset(ranges), 0);
	ck_assert(test_zero(base, MB));
	close_ranges(ranges);
	munmap(base, MB);
}
END_TEST

START_TEST(the_offset_space_ends)
{
	struct memslot_ranges *ranges = ranges_new(0, 1u << 30, NULL);
	struct memslot_expansion *expansion;
	uint64_t last = 0;
	int count = 0;

	while (memslot_ranges_expand_begin(ranges, (1ull << 61) - (1u << 30), &expansion) == 0) {
		ck_assert(count == 0 || memslot_expansion_offset(expansion) > last);
		last = memslot_expansion_offset(expansion);
		ck_assert_int_eq(memslot_expansion_commit(expansion, NULL, 0), 0);
		ck_assert_int_lt(++count, 9);
	}
	ck_assert_int_ge(count, 6);
	close_ranges(ranges);
}
END_TEST

START_TEST(holes_of_a_drained_region_are_nobodys)
{
	struct memslot_ranges *ranges = ranges_new(0, 0, NULL);
	uint64_t at = add_region(ranges, untouchable(MB), MB, 5);
	struct memslot_range a = alloc(ranges, 64, 0), hole = alloc(ranges, 64, 0), found;
	struct memslot_range b = alloc(ranges, 64, 0);

	ck_assert_int_eq(memslot_ranges_free(ranges, &hole), 0);
	ck_assert_int_eq(memslot_ranges_drain(ranges, 5), 0);
	ck_assert_int_eq(memslot_ranges_free_at(ranges, hole.offset), -ENOENT);
	ck_assert_int_eq(memslot_ranges_free_at(ranges, at + 4096), -ENOENT);
	ck_assert_int_eq(memslot_ranges_find(ranges, hole.base, &found), -ENOENT);
	ck_assert_uint_eq(stats(ranges).live, 2);
	ck_assert_int_eq(memslot_ranges_free(ranges, &a), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &b), 0);
	ck_assert_uint_eq(stats(ranges).regions, 0);
	close_ranges(ranges);
}
END_TEST

/* --- threads --- */

struct crowd {
	struct memslot_ranges *ranges;
	_Atomic(unsigned) failures;
	_Atomic(uint64_t) seed;
};

static void *allocate_and_free(void *argument)
{
	struct crowd *crowd = argument;
	struct test_rng rng = test_rng(atomic_fetch_add(&crowd->seed, 1));
	struct memslot_range mine[32];
	unsigned count = 0;

	for (unsigned i = 0; i < test_rounds(20000); i++) {
		if (count < 32 && test_below(&rng, 2)) {
			if (memslot_ranges_alloc(crowd->ranges, 16 + test_below(&rng, 2000), 0, NULL,
					    &mine[count]))
				continue;
			memset(mine[count].base, (int)(count + 1), mine[count].size);
			count++;
		} else if (count) {
			count--;
			for (uint64_t at = 0; at < mine[count].size; at += 16)
				crowd->failures += ((unsigned char *)mine[count].base)[at] != count + 1;
			crowd->failures += memslot_ranges_free(crowd->ranges, &mine[count]) != 0;
		}
	}
	while (count)
		crowd->failures += memslot_ranges_free(crowd->ranges, &mine[--count]) != 0;
	return NULL;
}

START_TEST(eight_threads_allocate_while_regions_are_added)
{
	struct crowd crowd = {.ranges = ranges_new(0, 0, NULL), .seed = 11};
	pthread_t threads[8];
	void *maps[6];

	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, allocate_and_free, &crowd), 0);
	for (int i = 0; i < 6; i++) {
		maps[i] = mmap(NULL, MB / 4, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		add_region(crowd.ranges, maps[i], MB / 4, (uint64_t)i);
		ck_assert_int_eq(memslot_ranges_check(crowd.ranges), 0);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(crowd.failures, 0);
	ck_assert_uint_eq(stats(crowd.ranges).live, 0);
	ck_assert_uint_eq(stats(crowd.ranges).largest_free, MB / 4);
	close_ranges(crowd.ranges);
	for (int i = 0; i < 6; i++)
		munmap(maps[i], MB / 4);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("ranges");
	TCase *one = test_case(suite, "one region"), *defects = test_case(suite, "defects of others");
	TCase *regions = test_case(suite, "regions"), *threads = test_case(suite, "threads");

	tcase_add_loop_test(one, a_range_is_where_it_says_and_as_large, 0, 2);
	tcase_add_test(one, stale_double_and_foreign_frees_are_estale);
	tcase_add_test(one, sizes_and_alignments_are_checked);
	tcase_add_test(one, options_out_of_order_are_refused);
	tcase_add_test(one, a_fixed_range_is_there_or_nowhere);
	tcase_add_test(one, ranges_grow_and_shrink_in_place);
	tcase_add_loop_test(one, cleared_ranges_are_zero, 0, 2);
	tcase_add_test(defects, an_empty_allocator_gives_all_it_has);
	tcase_add_test(defects, two_ranges_may_mean_two);
	tcase_add_test(defects, an_aborted_expansion_in_the_middle_overlaps_nothing);
	tcase_add_test(regions, the_offset_space_is_wide);
	tcase_add_test(regions, a_guarded_range_blocks_free_close_and_reset);
	tcase_add_test(regions, a_drained_region_goes_back_with_its_last_range);
	tcase_add_test(regions, shrink_gives_wholly_free_regions_back);
	tcase_add_test(regions, regions_come_from_slots_and_go_back_to_them);
	tcase_add_test(regions, what_on_reset_writes_is_not_taken_for_zero);
	tcase_add_test(regions, what_a_resized_range_reached_is_not_taken_for_fresh);
	tcase_add_test(regions, zeros_are_found_beside_regions_without_memory);
	tcase_add_test(regions, memory_is_in_one_region_only);
	tcase_add_test(regions, a_region_may_be_drained_while_it_is_reset);
	tcase_add_test(regions, what_came_free_while_the_pool_had_nothing_is_found);
	tcase_add_test(regions, a_request_that_no_slot_could_serve_takes_none);
	tcase_add_test(regions, release_is_called_without_the_lock);
	tcase_add_test(regions, a_cut_that_is_refused_clears_nothing);
	tcase_add_test(regions, the_offset_space_ends);
	tcase_add_test(regions, holes_of_a_drained_region_are_nobodys);
	tcase_add_test(threads, eight_threads_allocate_while_regions_are_added);
	return suite;
}
