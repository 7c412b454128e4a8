/* SPDX-License-Identifier: MIT */
/* ranges_model_ask.c - questions, guards, and handles that name nothing here. */
#define _GNU_SOURCE
#include "ranges_model.h"

#include <errno.h>
#include <string.h>

static bool same(const struct memslot_range *a, const struct memslot_range *b)
{
	return a->base == b->base && a->offset == b->offset && a->size == b->size &&
	       a->handle == b->handle;
}

/* By address, and the same place by offset. */
void ranges_op_find(struct ranges_life *life)
{
	struct model_region *region = &life->regions[test_below(&life->rng, REGIONS)];
	uint64_t bytes = ranges_bytes(life, region), at;
	struct memslot_range found;
	uint16_t owner;

	if (region->state < REGION_LIVE) { /* not yet, or never, a place */
		at = region->state == REGION_PENDING ? region->offset : UINT64_MAX - life->unit;
		model_expect(memslot_ranges_free_at(life->ranges, at), -ENOENT);
		return;
	}
	at = test_below(&life->rng, bytes);
	owner = region->owner[at / life->unit];
	model_log("find: %zu in the region at %zu", (size_t)at, (size_t)region->offset);
	if (region->base) {
		model_expect(memslot_ranges_find(life->ranges, region->base + at, &found),
			owner ? 0 : -ENOENT);
		if (owner && !same(&found, &life->range[owner - 1].range))
			model_fail("another range was found");
	}
	if (region->mapping && life->unit > 1)
		model_expect(
			memslot_ranges_find(life->ranges, region->base + bytes, &found), -ENOENT);
	if (!owner || life->range[owner - 1].range.offset != region->offset + at)
		model_expect(memslot_ranges_free_at(life->ranges, region->offset + at), -ENOENT);
	model_expect(memslot_ranges_find(life->ranges, NULL, &found), -ENOENT);
}

void ranges_op_region(struct ranges_life *life)
{
	const struct model_range *range = ranges_some(life);
	struct memslot_region told = {.size = sizeof told};
	const struct model_region *region;

	if (!range)
		return;
	region = &life->regions[range->region];
	model_expect(memslot_ranges_region(life->ranges, &range->range, &told), 0);
	if (told.base != region->base || told.offset != region->offset || told.tag != region->tag ||
		told.bytes != ranges_bytes(life, region) ||
		!told.slot != (region->memory != MEMORY_SLOT))
		model_fail("a region says something else");
}

/* --- guards --- */

void ranges_op_guard(struct ranges_life *life)
{
	struct model_range *range = ranges_some(life);

	if (!range)
		return;
	model_log("guard: offset %zu, has %u", (size_t)range->range.offset, range->guards);
	model_expect(memslot_ranges_guard(life->ranges, &range->range), 0);
	range->guards++;
}

void ranges_op_unguard(struct ranges_life *life)
{
	struct model_range *range = ranges_some(life);

	if (!range)
		return;
	model_log("unguard: offset %zu, has %u", (size_t)range->range.offset, range->guards);
	model_expect(
		memslot_ranges_unguard(life->ranges, &range->range), range->guards ? 0 : -EINVAL);
	range->guards -= range->guards > 0;
}

/* --- not valid --- */

/* Of the past, of another allocator, or of a live one all but a field. */
static struct memslot_range bad_range(struct ranges_life *life)
{
	const struct model_range *live = ranges_some(life);
	struct memslot_range range = life->foreign;
	uint64_t kind = test_below(&life->rng, 6);

	if (kind < 3 && life->stale_count)
		return life->stale[test_below(
			&life->rng, life->stale_count < STALE ? life->stale_count : STALE)];
	if (kind < 4 || !live)
		return range;
	range = live->range;
	if (kind == 4)
		range.offset ^= life->unit;
	else
		range.handle ^= 1ull << test_below(&life->rng, 64);
	return range;
}

void ranges_op_stale(struct ranges_life *life)
{
	struct memslot_range range = bad_range(life), before = range;
	struct memslot_region told = {.size = sizeof told};
	uint64_t size = life->opts.min_size ? life->opts.min_size : 1;

	model_log("stale: offset %zu handle %zx", (size_t)range.offset, (size_t)range.handle);
	model_expect(memslot_ranges_free(life->ranges, &range), -ESTALE);
	model_expect(memslot_ranges_guard(life->ranges, &range), -ESTALE);
	model_expect(memslot_ranges_unguard(life->ranges, &range), -ESTALE);
	model_expect(memslot_ranges_resize(life->ranges, &range, size), -ESTALE);
	model_expect(memslot_ranges_region(life->ranges, &range, &told), -ESTALE);
	if (!same(&range, &before) || told.base || told.bytes)
		model_fail("an output was touched");
	life->coverage->stale++;
}
