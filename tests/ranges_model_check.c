/* SPDX-License-Identifier: MIT */
/* ranges_model_check.c - who has which unit, what ranges hold, what the counters must say. */
#define _GNU_SOURCE
#include "ranges_model.h"

bool ranges_chance(struct ranges_life *life, unsigned percent)
{
	return test_below(&life->rng, 100) < percent;
}

uint64_t ranges_bytes(const struct ranges_life *life, const struct model_region *region)
{
	return region->units * life->unit;
}

unsigned ranges_live_in(const struct ranges_life *life, const struct model_region *region)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RANGES; i++)
		count += life->range[i].live && &life->regions[life->range[i].region] == region;
	return count;
}

unsigned ranges_count(const struct ranges_life *life, bool guarded)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RANGES; i++)
		count += life->range[i].live && (!guarded || life->range[i].guards);
	return count;
}

unsigned ranges_pending(const struct ranges_life *life)
{
	unsigned count = 0;

	for (unsigned i = 0; i < REGIONS; i++)
		count += life->regions[i].state == REGION_PENDING;
	return count;
}

/* --- room --- */

static bool fits_in(const struct ranges_life *life, const struct model_region *region,
	uint32_t units, uint64_t align)
{
	uint64_t start = region->base ? (uintptr_t)region->base : region->offset;
	uint32_t run = 0;

	for (uint32_t at = region->units; at-- > 0;) {
		run = region->owner[at] ? 0 : run + 1;
		if (run >= units && ((start + at * life->unit) & (align - 1)) == 0)
			return true;
	}
	return false;
}

bool ranges_has_room(const struct ranges_life *life, uint32_t units, uint64_t align, int memory)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		const struct model_region *region = &life->regions[i];
		if (region->state == REGION_LIVE && (memory < 0 || !region->base == !memory) &&
			fits_in(life, region, units, align))
			return true;
	}
	return false;
}

struct model_range *ranges_some(struct ranges_life *life)
{
	unsigned count = ranges_count(life, false);
	uint64_t drawn = count ? test_below(&life->rng, count) : 0;

	for (unsigned i = 0; i < RANGES; i++) {
		if (life->range[i].live && drawn-- == 0)
			return &life->range[i];
	}
	return NULL;
}

struct model_region *ranges_region_at(struct ranges_life *life, uint64_t offset)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct model_region *region = &life->regions[i];
		if (region->state != REGION_NONE && region->offset <= offset &&
			offset - region->offset < ranges_bytes(life, region))
			return region;
	}
	return NULL;
}

/* --- contents --- */

static bool has_bytes(const struct ranges_life *life, const struct model_range *range)
{
	return life->regions[range->region].memory >= MEMORY_OPEN;
}

void ranges_fill(struct ranges_life *life, struct model_range *range)
{
	range->tag = ++life->tags;
	if (has_bytes(life, range))
		test_fill(range->range.base, range->range.size, range->tag);
}

void ranges_compare(struct ranges_life *life, const struct model_range *range)
{
	if (!has_bytes(life, range))
		return;
	if (!test_filled(range->range.base, range->units * life->unit, range->tag))
		model_fail("a range's bytes changed: offset %zu", (size_t)range->range.offset);
	life->coverage->compared++;
}

/* ZERO_ON_FREE: what nobody has is zero. */
static void check_cleared(const struct ranges_life *life, const struct model_region *region)
{
	if (!(life->opts.flags & MEMSLOT_RANGES_ZERO_ON_FREE) || region->memory < MEMORY_OPEN)
		return;
	for (uint32_t at = 0; at < region->units; at++) {
		if (!region->owner[at] && !test_zero(region->base + at * life->unit, life->unit))
			model_fail("unit %u of the region at %zu is not cleared", at,
				(size_t)region->offset);
	}
}

/* --- counters --- */

static void check_number(const char *name, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		model_fail("%s is %zu, expected %zu", name, (size_t)got, (size_t)wanted);
}

static void add_region(const struct ranges_life *life, const struct model_region *region,
	struct memslot_ranges_stats *stats)
{
	uint64_t run = 0;

	if (region->state < REGION_LIVE)
		return;
	stats->regions++;
	stats->region_bytes += ranges_bytes(life, region);
	for (uint32_t at = 0; at < region->units && region->state == REGION_LIVE; at++) {
		run = region->owner[at] ? 0 : run + life->unit;
		stats->free_bytes += region->owner[at] ? 0 : life->unit;
		stats->largest_free = run > stats->largest_free ? run : stats->largest_free;
	}
}

void ranges_check_all(struct ranges_life *life)
{
	struct memslot_ranges_stats got = {.size = sizeof got}, want = {.size = sizeof want};

	model_expect(memslot_ranges_check(life->ranges), 0);
	model_expect(memslot_ranges_stats(life->ranges, &got), 0);
	for (unsigned i = 0; i < REGIONS; i++) {
		add_region(life, &life->regions[i], &want);
		check_cleared(life, &life->regions[i]);
	}
	for (unsigned i = 0; i < RANGES; i++) {
		if (!life->range[i].live)
			continue;
		want.live_bytes += life->range[i].units * life->unit;
		ranges_compare(life, &life->range[i]);
	}
	check_number("regions", got.regions, want.regions);
	check_number("region_bytes", got.region_bytes, want.region_bytes);
	check_number("live", got.live, ranges_count(life, false));
	check_number("live_bytes", got.live_bytes, want.live_bytes);
	check_number("free_bytes", got.free_bytes, want.free_bytes);
	check_number("largest_free", got.largest_free, want.largest_free);
	check_number("guarded", got.guarded, ranges_count(life, true));
	check_number("allocs", got.allocs, life->allocs);
	check_number("failures", got.failures, life->failures);
	life->coverage->wide += got.region_bytes > 64ull << 30;
}
