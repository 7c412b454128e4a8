/* SPDX-License-Identifier: MIT */
/* ranges_model_region.c - regions come, are drained, and go back; everything at once. */
#define _GNU_SOURCE
#include "ranges_model.h"

#include <errno.h>

/* --- coming --- */

/* All slots may come, too. */
static bool table_is_full(const struct ranges_life *life)
{
	unsigned count = 0;

	for (unsigned i = 0; i < REGIONS; i++)
		count += life->regions[i].state != REGION_NONE &&
			 life->regions[i].memory != MEMORY_SLOT;
	return count + life->slots >= REGIONS;
}

void ranges_op_begin(struct ranges_life *life)
{
	uint64_t units = 1 + test_below(&life->rng, test_below(&life->rng, 2) ? 40 : 600);
	uint64_t size = units * life->unit + test_below(&life->rng, life->unit);
	struct memslot_expansion *expansion = NULL;
	struct model_region *region;

	if (table_is_full(life))
		return;
	region = ranges_new_region(life, size);
	model_expect(
		memslot_ranges_expand_begin(life->ranges, life->unit - 1, &expansion), -EINVAL);
	model_expect(memslot_ranges_expand_begin(life->ranges, size, &expansion), 0);
	region->expansion = expansion;
	region->offset = memslot_expansion_offset(expansion);
	model_log("begin: %zu bytes at %zu", (size_t)size, (size_t)region->offset);
	if (region->offset % (4096 * life->unit))
		model_fail("begins at no multiple of 4096 units");
	for (unsigned i = 0; i < REGIONS; i++) {
		const struct model_region *old = &life->regions[i];
		if (old != region && old->state != REGION_NONE &&
			region->offset < old->offset + ranges_bytes(life, old))
			model_fail("overlaps region %u", i);
	}
}

static struct model_region *some_region(struct ranges_life *life, enum region_state state)
{
	unsigned first = (unsigned)test_below(&life->rng, REGIONS);

	for (unsigned i = 0; i < REGIONS; i++) {
		struct model_region *region = &life->regions[(first + i) % REGIONS];
		if (region->state == state)
			return region;
	}
	return NULL;
}

void ranges_op_commit(struct ranges_life *life)
{
	struct model_region *region = some_region(life, REGION_PENDING);

	if (!region)
		return;
	ranges_map_region(life, region);
	region->tag = 1000 + test_below(&life->rng, 5);
	model_log("commit: the region at %zu, base %p, tag %zu", (size_t)region->offset,
		(void *)region->base, (size_t)region->tag);
	if (region->base && life->unit > 1)
		model_expect(
			memslot_expansion_commit(region->expansion, region->base + 1, 0), -EINVAL);
	if (life->opts.flags & MEMSLOT_RANGES_ZERO_ON_FREE)
		model_expect(memslot_expansion_commit(region->expansion, NULL, 0), -EINVAL);
	model_expect(memslot_expansion_commit(region->expansion, region->base, region->tag), 0);
	region->state = REGION_LIVE;
	model_expect(
		memslot_expansion_commit(region->expansion, region->base, region->tag), -EINVAL);
}

void ranges_op_abort(struct ranges_life *life)
{
	struct model_region *region = some_region(life, REGION_PENDING);

	if (!region)
		return;
	model_log("abort: the region at %zu", (size_t)region->offset);
	memslot_expansion_abort(region->expansion);
	ranges_unmap_region(region);
}

/* --- going --- */

void ranges_expect_drained(struct ranges_life *life, struct model_region *region)
{
	if (region->state == REGION_DRAINING && ranges_live_in(life, region) == 0)
		region->going = true;
}

void ranges_op_drain(struct ranges_life *life)
{
	const struct model_region *some = some_region(life, REGION_LIVE);
	uint64_t tag = some && ranges_chance(life, 80) ? some->tag : 1004;
	bool found = false;

	for (unsigned i = 0; i < REGIONS; i++) {
		struct model_region *region = &life->regions[i];
		if (region->state < REGION_LIVE || region->tag != tag)
			continue;
		found = true;
		region->state = REGION_DRAINING;
		ranges_expect_drained(life, region);
	}
	model_log("drain: tag %zu", (size_t)tag);
	model_expect(memslot_ranges_drain(life->ranges, tag), found ? 0 : -ENOENT);
	ranges_expect_returned(life);
	life->coverage->drained += found;
}

void ranges_op_shrink(struct ranges_life *life)
{
	uint64_t bytes = 0, told = 99;

	for (unsigned i = 0; i < REGIONS; i++) {
		struct model_region *region = &life->regions[i];
		if (region->state != REGION_LIVE || ranges_live_in(life, region))
			continue;
		region->going = true;
		bytes += ranges_bytes(life, region);
	}
	model_log("shrink: %zu bytes", (size_t)bytes);
	model_expect(memslot_ranges_shrink(life->ranges, &told), 0);
	if (told != bytes)
		model_fail("%zu bytes went back", (size_t)told);
	ranges_expect_returned(life);
}

/* --- everything --- */

static bool is_busy(const struct ranges_life *life)
{
	return ranges_count(life, true) || ranges_pending(life);
}

static void forget_all(struct ranges_life *life)
{
	for (unsigned i = 0; i < RANGES; i++) {
		if (life->range[i].live) {
			ranges_compare(life, &life->range[i]);
			ranges_forget(life, &life->range[i]);
		}
	}
}

/* A slot's region shows zeros again. */
static void check_slots(const struct ranges_life *life)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		const struct model_region *region = &life->regions[i];
		if (region->state == REGION_LIVE && region->memory == MEMORY_SLOT &&
			!test_zero(region->base, ranges_bytes(life, region)))
			model_fail("a slot was not reset");
	}
}

void ranges_op_reset(struct ranges_life *life)
{
	bool busy = is_busy(life);

	for (unsigned i = 0; i < REGIONS && !busy; i++)
		life->regions[i].going = life->regions[i].state == REGION_DRAINING;
	model_log("reset: %s", busy ? "busy" : "all");
	if (!busy)
		forget_all(life);
	model_expect(memslot_ranges_reset(life->ranges), busy ? -EBUSY : 0);
	if (busy)
		return;
	ranges_expect_returned(life);
	check_slots(life);
	life->coverage->resets++;
}

void ranges_op_close(struct ranges_life *life)
{
	uint64_t guarded = 99;

	if (!life->closing) {
		if (!is_busy(life))
			return;
		model_log("close, refused");
		model_expect(memslot_ranges_close(life->ranges, &guarded), -EBUSY);
		if (guarded != ranges_count(life, true))
			model_fail("%zu are said to be guarded", (size_t)guarded);
		return;
	}
	for (unsigned i = 0; i < REGIONS; i++)
		life->regions[i].going = life->regions[i].state >= REGION_LIVE;
	forget_all(life);
	model_log("close");
	model_expect(memslot_ranges_close(life->ranges, &guarded), 0);
	ranges_expect_returned(life);
}
