/* SPDX-License-Identifier: MIT */
/* ranges_model_make.c - allocators of every kind, their regions, and what comes back. */
#define _GNU_SOURCE
#include "ranges_model.h"

#include <string.h>

/* --- what comes back --- */

static void take_back(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag)
{
	struct ranges_life *life = context;
	struct model_region *region = ranges_region_at(life, offset);
	struct memslot_ranges_stats stats = {.size = sizeof stats};

	if (!region || !region->going || region->returned)
		model_fail("a region came back that must not: offset %zu", (size_t)offset);
	if (region->offset != offset || region->base != base || region->tag != tag ||
		ranges_bytes(life, region) != size)
		model_fail("another region came back: offset %zu", (size_t)offset);
	region->returned = true;
	if (!life->closing) /* the lock is not held */
		model_expect(memslot_ranges_stats(life->ranges, &stats), 0);
}

void ranges_expect_returned(struct ranges_life *life)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};
	unsigned slots = 0;

	for (unsigned i = 0; i < REGIONS; i++) {
		struct model_region *region = &life->regions[i];
		if (region->going) {
			if (region->memory != MEMORY_SLOT && !region->returned)
				model_fail("region %u did not come back", i);
			ranges_unmap_region(region);
			life->coverage->returned++;
		}
		slots += region->state != REGION_NONE && region->memory == MEMORY_SLOT;
	}
	if (!life->pool)
		return;
	model_expect(memslot_pool_stats(life->pool, &stats), 0);
	if (stats.live != slots)
		model_fail("%zu slots are out, not %u", (size_t)stats.live, slots);
}

/* --- regions --- */

struct model_region *ranges_new_region(struct ranges_life *life, uint64_t size)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct model_region *region = &life->regions[i];
		if (region->state != REGION_NONE)
			continue;
		memset(region, 0, sizeof *region);
		region->state = REGION_PENDING;
		region->units = (uint32_t)(size / life->unit);
		return region;
	}
	return NULL;
}

static enum region_memory some_memory(struct ranges_life *life)
{
	if (life->opts.flags & MEMSLOT_RANGES_ZERO_ON_FREE)
		return MEMORY_OPEN;
	if (life->unit > 1u << 16 || ranges_chance(life, 20))
		return MEMORY_NONE;
	return life->touches ? MEMORY_OPEN : MEMORY_UNTOUCHABLE;
}

/* At any multiple of the unit, with what its last owner left there. */
void ranges_map_region(struct ranges_life *life, struct model_region *region)
{
	region->memory = some_memory(life);
	if (region->memory == MEMORY_NONE)
		return;
	region->mapped = ranges_bytes(life, region) + life->unit * 65;
	region->mapping =
		mmap(NULL, region->mapped, region->memory == MEMORY_OPEN ? MODEL_OPEN : PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(region->mapping, MAP_FAILED);
	region->base = region->mapping + life->unit;
	region->base -= (uintptr_t)region->base % life->unit;
	region->base += life->unit * test_below(&life->rng, 64);
	if (region->memory == MEMORY_OPEN && !(life->opts.flags & MEMSLOT_RANGES_ZERO_ON_FREE))
		memset(region->base, 0xdd, ranges_bytes(life, region));
}

void ranges_unmap_region(struct model_region *region)
{
	if (region->mapping)
		munmap(region->mapping, region->mapped);
	memset(region, 0, sizeof *region);
}

/* --- allocators --- */

static void make_pool(struct ranges_life *life)
{
	struct memslot_pool_opts opts =
		MEMSLOT_OPTS(memslot_pool_opts, .guard_before = test_page());

	life->slots = 1 + (uint32_t)test_below(&life->rng, 5);
	life->capacity = (test_below(&life->rng, 7) + 1) * test_page();
	model_expect(memslot_pool_create(life->slots, life->capacity, &opts, &life->pool), 0);
	life->opts.pool = life->pool;
	if (ranges_chance(life, 40))
		life->opts.region_size =
			life->unit + test_below(&life->rng, life->capacity - life->unit + 1);
	if (life->opts.region_size)
		life->capacity = life->opts.region_size;
}

static void draw_limits(struct ranges_life *life)
{
	if (ranges_chance(life, 20))
		life->opts.min_align = life->unit << test_below(&life->rng, 3);
	if (ranges_chance(life, 20))
		life->opts.max_align = life->unit << (3 + test_below(&life->rng, 4));
	if (ranges_chance(life, 20))
		life->opts.min_size = 1 + test_below(&life->rng, 2 * life->unit);
	if (ranges_chance(life, 20))
		life->opts.max_size = life->unit * (10 + test_below(&life->rng, 300));
	life->opts.max_ranges = 1 + test_below(&life->rng, ranges_chance(life, 50) ? RANGES : 20);
}

/* Another allocator, whose ranges are foreign here. */
static void make_other(struct ranges_life *life)
{
	struct memslot_expansion *expansion;

	model_expect(memslot_ranges_create(NULL, &life->other), 0);
	model_expect(memslot_ranges_expand_begin(life->other, 4096, &expansion), 0);
	model_expect(memslot_expansion_commit(expansion, NULL, 1), 0);
	model_expect(memslot_ranges_alloc(life->other, 16, 0, NULL, &life->foreign), 0);
}

void ranges_make(struct ranges_life *life)
{
	static const uint64_t units[] = {16, 16, 1, 64, 4096, 1u << 24, 1u << 30};

	life->unit = units[test_below(&life->rng, 7)];
	life->touches = ranges_chance(life, 60);
	life->opts = MEMSLOT_OPTS(
		memslot_ranges_opts, .unit = life->unit, .release = take_back, .context = life);
	life->opts.flags = ranges_chance(life, 50) ? MEMSLOT_RANGES_UNLOCKED : 0;
	if (life->unit <= 4096 && ranges_chance(life, 25))
		life->opts.flags |= MEMSLOT_RANGES_ZERO_ON_FREE;
	if (life->unit > 1 && life->unit <= 64 && ranges_chance(life, 50))
		make_pool(life);
	draw_limits(life);
	model_log("create: unit %zu flags %u align %zu..%zu size %zu..%zu ranges %zu pool %u",
		(size_t)life->unit, life->opts.flags, (size_t)life->opts.min_align,
		(size_t)life->opts.max_align, (size_t)life->opts.min_size,
		(size_t)life->opts.max_size, (size_t)life->opts.max_ranges, life->slots);
	model_expect(memslot_ranges_create(&life->opts, &life->ranges), 0);
	make_other(life);
}

void ranges_unmake(struct ranges_life *life)
{
	model_expect(memslot_ranges_close(life->other, NULL), 0);
	if (life->pool)
		model_expect(memslot_pool_destroy(life->pool), 0);
}
