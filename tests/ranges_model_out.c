/* SPDX-License-Identifier: MIT */
/* ranges_model_out.c - ranges go out, change, and come back. */
#define _GNU_SOURCE
#include "ranges_model.h"

#include <errno.h>
#include <string.h>

void ranges_own(struct ranges_life *life, const struct model_range *range, bool owns)
{
	uint16_t mine = (uint16_t)(range - life->range + 1);
	uint16_t *owner = &life->regions[range->region].owner[range->first];

	for (uint32_t i = 0; i < range->units; i++) {
		if (owner[i] != (owns ? 0 : mine))
			model_fail("unit %u of the region at %zu has another owner",
				range->first + i, (size_t)life->regions[range->region].offset);
		owner[i] = owns ? mine : 0;
	}
}

void ranges_forget(struct ranges_life *life, struct model_range *range)
{
	ranges_own(life, range, false);
	life->stale[life->stale_count++ % STALE] = range->range;
	range->live = false;
}

/* --- a range is there --- */

static uint64_t option(uint64_t value, uint64_t otherwise)
{
	return value ? value : otherwise;
}

static uint64_t real_align(const struct ranges_life *life, uint64_t align)
{
	uint64_t least = option(life->opts.min_align, life->unit);

	least = least > life->unit ? least : life->unit;
	return align > least ? align : least;
}

/* It may lie in a slot that has just come. */
static struct model_region *region_of(struct ranges_life *life, const struct memslot_range *range)
{
	struct model_region *region = ranges_region_at(life, range->offset);
	struct memslot_region told = {.size = sizeof told};

	if (region)
		return region;
	model_expect(memslot_ranges_region(life->ranges, range, &told), 0);
	region = ranges_new_region(life, told.bytes);
	if (!region || !told.slot || told.bytes != life->capacity / life->unit * life->unit)
		model_fail("a range in no region: offset %zu", (size_t)range->offset);
	region->state = REGION_LIVE;
	region->memory = MEMORY_SLOT;
	region->offset = told.offset;
	region->base = told.base;
	region->tag = memslot_slot_index(told.slot);
	life->coverage->grown++;
	return region;
}

static void check_place(struct ranges_life *life, const struct memslot_range *range,
	const struct model_region *region, uint32_t units, uint64_t align)
{
	uint64_t start = region->base ? (uintptr_t)range->base : range->offset;
	const unsigned char *base =
		region->base ? region->base + (range->offset - region->offset) : NULL;

	if (region->state != REGION_LIVE || range->size != units * life->unit ||
		range->offset - region->offset + range->size > ranges_bytes(life, region) ||
		(start & (align - 1)) || range->base != base)
		model_fail("a range lies wrong: offset %zu size %zu", (size_t)range->offset,
			(size_t)range->size);
}

static struct model_range *new_range(struct ranges_life *life, const struct memslot_range *range,
	uint32_t units, uint64_t align, uint32_t flags)
{
	struct model_region *region = region_of(life, range);
	struct model_range *made = life->range;

	check_place(life, range, region, units, align);
	while (made->live)
		made++;
	*made = (struct model_range){.live = true,
		.range = *range,
		.region = (unsigned)(region - life->regions),
		.guards = flags & MEMSLOT_RANGE_GUARDED ? 1 : 0,
		.first = (uint32_t)((range->offset - region->offset) / life->unit),
		.units = units};
	ranges_own(life, made, true);
	if ((flags & MEMSLOT_RANGE_ZERO) && !test_zero(range->base, range->size))
		model_fail("ZERO gave other bytes: offset %zu", (size_t)range->offset);
	ranges_fill(life, made);
	life->allocs++;
	life->coverage->allocs++;
	return made;
}

/* --- alloc --- */

static int check_size(const struct ranges_life *life, uint64_t size)
{
	if (size == 0 || size < option(life->opts.min_size, 1) ||
		size > option(life->opts.max_size, UINT64_MAX))
		return -EINVAL;
	if (size > UINT64_MAX - (life->unit - 1) ||
		(size + life->unit - 1) / life->unit >= 1u << 31)
		return -EMSGSIZE;
	return 0;
}

static bool could_grow(const struct ranges_life *life, uint32_t units, uint32_t flags)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	if (!life->pool || (flags & MEMSLOT_RANGE_NO_GROW) ||
		units * life->unit > life->capacity / life->unit * life->unit)
		return false;
	model_expect(memslot_pool_stats(life->pool, &stats), 0);
	return stats.live < life->slots;
}

/* Refused: was that right? */
static void check_refused(
	struct ranges_life *life, int answer, uint32_t units, uint64_t align, uint32_t flags)
{
	bool zero = flags & MEMSLOT_RANGE_ZERO;
	bool room = ranges_has_room(life, units, align, zero ? 1 : -1);
	bool full = ranges_count(life, false) >= life->opts.max_ranges;

	if (answer == -EINVAL) {
		if (!zero || room || life->pool)
			model_fail("refused as invalid");
		return;
	}
	model_expect(answer, -ENOSPC);
	life->failures++;
	life->coverage->refused++;
	if (!full && room)
		model_fail(
			"refused though there is room: %u units, align %zu", units, (size_t)align);
	if (!full && align <= test_page() && could_grow(life, units, flags))
		model_fail("refused though a slot could be had");
}

static int try_alloc(struct ranges_life *life, uint64_t size, uint64_t align,
	const struct memslot_range_opts *opts, struct memslot_range *ret_range)
{
	struct memslot_range before = {.handle = 99, .offset = 1}, range = before;
	int answer = memslot_ranges_alloc(life->ranges, size, align, opts, &range);

	model_log("alloc %zu align %zu flags %u at %zu: %d, offset %zu", (size_t)size,
		(size_t)align, opts ? opts->flags : 0, opts ? (size_t)opts->fixed_offset : 0,
		answer, (size_t)range.offset);
	if (answer && memcmp(&range, &before, sizeof range) != 0)
		model_fail("an output was touched");
	*ret_range = range;
	return answer;
}

static uint64_t some_size(struct ranges_life *life)
{
	static const unsigned most[] = {3, 10, 40, 300, UNITS};
	uint64_t units = 1 + test_below(&life->rng, most[test_below(&life->rng, 5)]);

	return units * life->unit - test_below(&life->rng, life->unit);
}

static uint64_t some_align(struct ranges_life *life)
{
	if (ranges_chance(life, 50))
		return 0;
	return ranges_chance(life, 50) ? 1ull << test_below(&life->rng, 8)
				       : life->unit << test_below(&life->rng, 12);
}

void ranges_op_alloc(struct ranges_life *life)
{
	uint64_t size = some_size(life), align = some_align(life);
	uint64_t most = option(life->opts.max_align, UINT64_MAX);
	struct memslot_range_opts opts = MEMSLOT_OPTS(memslot_range_opts,
		.flags = (uint32_t)test_below(&life->rng, 32) &
			 (uint32_t)test_below(&life->rng, 32) &
			 (MEMSLOT_RANGE_BEST | MEMSLOT_RANGE_GUARDED | MEMSLOT_RANGE_NO_GROW |
				 (life->touches ? MEMSLOT_RANGE_ZERO : 0)));
	uint32_t units = (uint32_t)((size + life->unit - 1) / life->unit);
	struct memslot_range range;
	int answer = try_alloc(life, size, align, opts.flags ? &opts : NULL, &range);

	if (check_size(life, size) || align > most)
		model_expect(answer, check_size(life, size) ? check_size(life, size) : -EINVAL);
	else if (real_align(life, align) / life->unit >= 1u << 31)
		model_expect(answer, -EMSGSIZE);
	else if (answer)
		check_refused(life, answer, units, real_align(life, align), opts.flags);
	else if (ranges_count(life, false) >= life->opts.max_ranges)
		model_fail("more ranges than may be");
	else
		(void)new_range(life, &range, units, real_align(life, align), opts.flags);
}

/* --- at a place --- */

static int fixed_answer(struct ranges_life *life, uint64_t offset, uint32_t units)
{
	const struct model_region *region = ranges_region_at(life, offset);
	uint64_t first;

	if (ranges_count(life, false) >= life->opts.max_ranges)
		return -ENOSPC;
	if (!region || region->state == REGION_PENDING || (offset - region->offset) % life->unit)
		return -EINVAL;
	first = (offset - region->offset) / life->unit;
	if (first + units > region->units)
		return -EINVAL;
	for (uint32_t i = 0; i < units; i++) {
		if (region->state == REGION_DRAINING || region->owner[first + i])
			return -EEXIST;
	}
	return 0;
}

void ranges_op_fixed(struct ranges_life *life)
{
	const struct model_region *region = &life->regions[test_below(&life->rng, REGIONS)];
	uint64_t offset = region->offset + life->unit * test_below(&life->rng, region->units + 3u);
	uint64_t size = some_size(life);
	struct memslot_range_opts opts =
		MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_FIXED);
	uint32_t units = (uint32_t)((size + life->unit - 1) / life->unit);
	struct memslot_range range;
	int answer, wanted;

	if (ranges_chance(life, 5))
		offset += life->unit / 2;
	opts.fixed_offset = offset;
	wanted =
		check_size(life, size) ? check_size(life, size) : fixed_answer(life, offset, units);
	answer = try_alloc(life, size, 3, &opts, &range);
	model_expect(answer, wanted);
	life->failures += wanted == -ENOSPC;
	if (answer)
		return;
	if (range.offset != offset)
		model_fail("not where it was wanted");
	(void)new_range(life, &range, units, 1, opts.flags);
	life->coverage->fixed++;
}

void ranges_op_bad_alloc(struct ranges_life *life)
{
	struct memslot_range_opts opts = MEMSLOT_OPTS(memslot_range_opts, .flags = 1u << 20);
	struct memslot_range range;
	uint64_t size = option(life->opts.min_size, 1);

	model_expect(try_alloc(life, size, 0, &opts, &range), -EINVAL);
	model_expect(try_alloc(life, size, 3 * life->unit, NULL, &range), -EINVAL);
	model_expect(try_alloc(life, 0, 0, NULL, &range), -EINVAL);
	model_expect(try_alloc(life, UINT64_MAX, 0, NULL, &range), check_size(life, UINT64_MAX));
	model_expect(memslot_ranges_alloc(life->ranges, size, 0, NULL, NULL), -EINVAL);
	model_expect(memslot_ranges_alloc(NULL, size, 0, NULL, &range), -EINVAL);
}

/* --- free --- */

void ranges_op_free(struct ranges_life *life)
{
	struct model_range *range = ranges_some(life);
	bool at = ranges_chance(life, 30);
	struct model_region *region;
	int answer;

	if (!range)
		return;
	ranges_compare(life, range);
	region = &life->regions[range->region];
	if (!range->guards) { /* or the call could not be judged while it calls back */
		ranges_forget(life, range);
		ranges_expect_drained(life, region);
	}
	model_log("free%s: offset %zu guards %u", at ? "_at" : "", (size_t)range->range.offset,
		range->guards);
	answer = at ? memslot_ranges_free_at(life->ranges, range->range.offset)
		    : memslot_ranges_free(life->ranges, &range->range);
	model_expect(answer, range->guards ? -EBUSY : 0);
	ranges_expect_returned(life);
}

/* --- resize --- */

static int resize_answer(const struct ranges_life *life, const struct model_range *range,
	uint64_t size, uint32_t units)
{
	const struct model_region *region = &life->regions[range->region];

	if (check_size(life, size))
		return check_size(life, size);
	if (units < range->units)
		return range->guards ? -EBUSY : region->state == REGION_DRAINING ? -ENOSPC : 0;
	if (range->first + units > region->units)
		return -ENOSPC;
	for (uint32_t i = range->units; i < units; i++) {
		if (region->state == REGION_DRAINING || region->owner[range->first + i])
			return -ENOSPC;
	}
	return 0;
}

void ranges_op_resize(struct ranges_life *life)
{
	struct model_range *range = ranges_some(life);
	struct memslot_range now;
	uint64_t size, kept;
	uint32_t units;
	int answer;

	if (!range)
		return;
	size = ranges_chance(life, 50) ? some_size(life)
				       : 1 + test_below(&life->rng, 2 * range->units * life->unit);
	units = (uint32_t)((size + life->unit - 1) / life->unit);
	now = range->range;
	answer = memslot_ranges_resize(life->ranges, &now, size);
	model_log("resize: offset %zu from %u to %zu: %d", (size_t)now.offset, range->units,
		(size_t)size, answer);
	model_expect(answer, resize_answer(life, range, size, units));
	if (answer)
		units = range->units;
	if (now.size != units * life->unit || now.offset != range->range.offset ||
		now.base != range->range.base || now.handle != range->range.handle)
		model_fail("a resized range says something else");
	kept = (units < range->units ? units : range->units) * life->unit;
	if (life->regions[range->region].memory >= MEMORY_OPEN &&
		!test_filled(now.base, kept, range->tag))
		model_fail("a resized range lost its bytes");
	ranges_own(life, range, false);
	range->units = units;
	range->range = now;
	ranges_own(life, range, true);
	ranges_fill(life, range);
	life->coverage->resized += answer == 0;
}
