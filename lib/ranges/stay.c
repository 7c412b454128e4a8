/* SPDX-License-Identifier: MIT */
/*
 * stay.c - ranges that stay where they are: resized, guarded, asked about.
 *
 * Invariant: a range that is guarded does not become shorter, and nothing here moves one.
 */
#include "ranges/ranges.h"

#include "base/opts.h"

#include <errno.h>
#include <string.h>

/* --- in place --- */

/* May it be cut? What is cut off is cleared first, so a refusal has to come before. */
static int prepare_cut(struct memslot_ranges *ranges, uint32_t index, uint32_t units)
{
	struct ms_node *node = ms_ranges_node(ranges, index);
	struct memslot_expansion *region = &ranges->regions[node->region];
	uint32_t cut = node->offset + units;

	if (node->next)
		return -EBUSY;
	if (region->state != MS_REGION_LIVE || !ms_bins_has_node(&ranges->arena))
		return -ENOSPC; /* what is cut off could not be given out: keep it */
	if ((ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE) && region->base)
		memset(region->base + ((uint64_t)cut << ranges->unit_shift), 0,
			(uint64_t)(ms_bins_size(node) - units) << ranges->unit_shift);
	return 0;
}

static int resize(struct memslot_ranges *ranges, uint32_t index, uint32_t units)
{
	struct ms_node *node = ms_ranges_node(ranges, index);
	struct memslot_expansion *region = &ranges->regions[node->region];
	int error = units < ms_bins_size(node) ? prepare_cut(ranges, index, units) : 0;

	if (error)
		return error;
	if (!ms_bins_resize(&ranges->arena, index, units))
		return -ENOSPC;
	region->high = (uint32_t)ms_max(region->high, node->offset + ms_bins_size(node));
	return 0;
}

MS_EXPORT int memslot_ranges_resize(
	struct memslot_ranges *ranges, struct memslot_range *range, uint64_t size)
{
	uint32_t index, units;
	int error;

	if (!ranges || !range)
		return -EINVAL;
	error = ms_ranges_units(ranges, size, &units);
	if (error)
		return error;
	ms_ranges_enter(ranges);
	error = ms_ranges_find_node(ranges, range, &index);
	if (!error)
		error = resize(ranges, index, units);
	if (!error)
		*range = ms_ranges_range(ranges, index);
	ms_ranges_leave(ranges);
	return error;
}

/* --- guards --- */

MS_EXPORT int memslot_ranges_guard(struct memslot_ranges *ranges, const struct memslot_range *range)
{
	uint32_t index;
	int error;

	if (!ranges || !range)
		return -EINVAL;
	ms_ranges_enter(ranges);
	error = ms_ranges_find_node(ranges, range, &index);
	if (!error && ms_ranges_node(ranges, index)->next == MS_RANGES_PLUG - 1)
		error = -EMSGSIZE;
	if (!error && ms_ranges_node(ranges, index)->next++ == 0)
		ranges->guarded++;
	ms_ranges_leave(ranges);
	return error;
}

MS_EXPORT int memslot_ranges_unguard(
	struct memslot_ranges *ranges, const struct memslot_range *range)
{
	uint32_t index;
	int error;

	if (!ranges || !range)
		return -EINVAL;
	ms_ranges_enter(ranges);
	error = ms_ranges_find_node(ranges, range, &index);
	if (!error && ms_ranges_node(ranges, index)->next == 0)
		error = -EINVAL;
	if (!error && --ms_ranges_node(ranges, index)->next == 0)
		ranges->guarded--;
	ms_ranges_leave(ranges);
	return error;
}

/* --- questions --- */

MS_EXPORT int memslot_ranges_find(
	const struct memslot_ranges *ranges, const void *address, struct memslot_range *ret_range)
{
	struct memslot_expansion *region;
	int error = -ENOENT;

	if (!ranges || !ret_range)
		return -EINVAL;
	ms_ranges_enter(ranges);
	region = ms_regions_holding(ranges, address);
	if (region) {
		uint64_t at = (uint64_t)((const unsigned char *)address - region->base);
		uint32_t index = ms_regions_node(ranges, region, at >> ranges->unit_shift);
		const struct ms_node *node = ms_ranges_node(ranges, index);
		if (ms_bins_used(node) && node->next != MS_RANGES_PLUG) {
			*ret_range = ms_ranges_range(ranges, index);
			error = 0;
		}
	}
	ms_ranges_leave(ranges);
	return error;
}

MS_EXPORT int memslot_ranges_region(const struct memslot_ranges *ranges,
	const struct memslot_range *range, struct memslot_region *ret_region)
{
	struct memslot_region region = {.size = sizeof region};
	uint32_t index;
	int error;

	if (!ranges || !range || !ret_region)
		return -EINVAL;
	ms_ranges_enter(ranges);
	error = ms_ranges_find_node(ranges, range, &index);
	if (!error) {
		const struct memslot_expansion *of =
			&ranges->regions[ms_ranges_node(ranges, index)->region];
		region.base = of->base;
		region.offset = of->offset;
		region.bytes = of->bytes;
		region.tag = of->tag;
		region.slot = of->slot;
	}
	ms_ranges_leave(ranges);
	return error ? error : ms_opts_give(ret_region, &region, sizeof region);
}

MS_EXPORT int memslot_ranges_check(const struct memslot_ranges *ranges)
{
	bool fine;

	if (!ranges)
		return -EINVAL;
	ms_ranges_enter(ranges);
	fine = ms_bins_check(&ranges->arena);
	ms_ranges_leave(ranges);
	return fine ? 0 : -EUCLEAN;
}

MS_EXPORT int memslot_ranges_stats(
	const struct memslot_ranges *ranges, struct memslot_ranges_stats *ret_stats)
{
	struct memslot_ranges_stats stats = {.size = sizeof stats};

	if (!ranges || !ret_stats)
		return -EINVAL;
	ms_ranges_enter(ranges);
	stats.regions = ranges->region_count - ranges->pending;
	stats.region_bytes = ranges->region_bytes;
	stats.live = ranges->bins.live - ranges->plugs;
	stats.live_bytes = (ranges->bins.live_units - ranges->plugged_units) << ranges->unit_shift;
	stats.free_bytes = ranges->bins.free_units << ranges->unit_shift;
	stats.largest_free = (uint64_t)ms_bins_largest(&ranges->arena) << ranges->unit_shift;
	stats.guarded = ranges->guarded;
	stats.allocs = ranges->allocs;
	stats.failures = ranges->failures;
	ms_ranges_leave(ranges);
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}
