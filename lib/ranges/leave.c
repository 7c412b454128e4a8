/* SPDX-License-Identifier: MIT */
/*
 * leave.c - how regions go back: drained, shrunk away, reset, closed.
 *
 * Invariant: a region goes back exactly once, and only when no range lies in it. The free nodes of
 * a region that is not allocated from are *plugs*: used, by nobody, so that the bins do not know
 * them. User code and slots are called without the lock.
 */
#include "ranges/ranges.h"

#include "pool/pool.h"

#include <errno.h>
#include <string.h>

void ms_regions_hand_back(struct memslot_ranges *ranges, const struct memslot_expansion *region)
{
	if (region->slot)
		(void)memslot_pool_release(ranges->pool, region->slot);
	else if (ranges->release)
		ranges->release(
			ranges->context, region->base, region->bytes, region->offset, region->tag);
}

/* --- draining --- */

/* A free node becomes a plug: the node that it is then. */
static uint32_t plug(struct memslot_ranges *ranges, uint32_t index)
{
	const struct ms_node *node = ms_ranges_node(ranges, index);

	index = ms_bins_alloc_at(&ranges->arena, index, node->offset, node->size);
	ms_ranges_node(ranges, index)->next = MS_RANGES_PLUG;
	ranges->plugs++;
	ranges->plugged_units += ms_bins_size(ms_ranges_node(ranges, index));
	return index;
}

static void unplug(struct memslot_ranges *ranges, uint32_t index)
{
	ranges->plugs--;
	ranges->plugged_units -= ms_bins_size(ms_ranges_node(ranges, index));
	ms_bins_free(&ranges->arena, index);
}

/* All plugs of an empty region become its one free node. */
static void unplug_all(struct memslot_ranges *ranges, struct memslot_expansion *region)
{
	uint32_t index = ms_region_first(ranges, region);

	while (index != MS_BINS_NONE) {
		uint32_t next = ms_ranges_node(ranges, index)->right;
		if (ms_bins_used(ms_ranges_node(ranges, index)))
			unplug(ranges, index);
		index = next;
	}
}

bool ms_regions_drained(
	struct memslot_ranges *ranges, uint32_t node, struct memslot_expansion *ret_region)
{
	struct memslot_expansion *region = &ranges->regions[ms_ranges_node(ranges, node)->region];

	if (region->live) {
		(void)plug(ranges, node);
		return false;
	}
	unplug_all(ranges, region);
	ms_regions_unpublish(ranges, region, ret_region);
	return true;
}

/* Under the lock. */
static void start_draining(struct memslot_ranges *ranges, struct memslot_expansion *region)
{
	region->state = MS_REGION_DRAINING;
	for (uint32_t index = ms_region_first(ranges, region); index != MS_BINS_NONE;
		index = ms_ranges_node(ranges, index)->right) {
		if (!ms_bins_used(ms_ranges_node(ranges, index)))
			index = plug(ranges, index);
	}
}

MS_EXPORT int memslot_ranges_drain(struct memslot_ranges *ranges, uint64_t tag)
{
	int error = -ENOENT;

	if (!ranges)
		return -EINVAL;
	ms_ranges_enter(ranges);
	for (uint32_t place = 0; place < ranges->region_count;) {
		struct memslot_expansion *region = &ranges->regions[ranges->by_offset[place]], gone;
		place++;
		if (region->tag != tag || region->state < MS_REGION_LIVE)
			continue;
		error = 0;
		if (region->state == MS_REGION_RESETTING)
			region->live = 1; /* goes back when it has been reset */
		if (region->live) {
			if (region->state == MS_REGION_LIVE)
				start_draining(ranges, region);
			continue;
		}
		ms_regions_unpublish(ranges, region, &gone);
		place = 0;
		ms_ranges_leave(ranges);
		ms_regions_hand_back(ranges, &gone);
		ms_ranges_enter(ranges);
	}
	ms_ranges_leave(ranges);
	return error;
}

/* Under the lock: one region with no range in it is taken out; false: there is none. */
static bool take_empty(struct memslot_ranges *ranges, struct memslot_expansion *ret_region)
{
	for (uint32_t place = 0; place < ranges->region_count; place++) {
		struct memslot_expansion *region = &ranges->regions[ranges->by_offset[place]];
		if (region->state == MS_REGION_LIVE && region->live == 0) {
			ms_regions_unpublish(ranges, region, ret_region);
			return true;
		}
	}
	return false;
}

MS_EXPORT int memslot_ranges_shrink(struct memslot_ranges *ranges, uint64_t *ret_bytes)
{
	struct memslot_expansion gone;
	uint64_t bytes = 0;

	if (!ranges)
		return -EINVAL;
	ms_ranges_enter(ranges);
	while (take_empty(ranges, &gone)) {
		ms_ranges_leave(ranges);
		ms_regions_hand_back(ranges, &gone);
		bytes += gone.bytes;
		ms_ranges_enter(ranges);
	}
	ms_ranges_leave(ranges);
	if (ret_bytes)
		*ret_bytes = bytes;
	return 0;
}

/* --- everything at once --- */

/* Under the lock: every range of a region is stale, and the region one free node. */
static void free_all(struct memslot_ranges *ranges, struct memslot_expansion *region)
{
	for (uint32_t index = ms_region_first(ranges, region); index != MS_BINS_NONE;) {
		struct ms_node *node = ms_ranges_node(ranges, index);
		uint32_t next = node->right;
		if (ms_bins_used(node) && node->next == MS_RANGES_PLUG)
			unplug(ranges, index);
		else if (ms_bins_used(node))
			ms_bins_free(&ranges->arena, index);
		index = next;
	}
	region->live = 0;
}

static int refuse_busy(const struct memslot_ranges *ranges)
{
	return ranges->guarded || ranges->pending || ranges->resetting ? -EBUSY : 0;
}

/* What ZERO_ON_FREE promises when ranges end without a free. A slot clears itself. */
static void clear_region(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region)
{
	if ((ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE) && region->base && !region->slot)
		memset(region->base, 0, (uint64_t)region->high << ranges->unit_shift);
}

/* Under the lock: nothing is allocated from any region until it is reset; each is one plug. */
static void start_resetting(struct memslot_ranges *ranges)
{
	for (uint32_t place = 0; place < ranges->region_count; place++) {
		struct memslot_expansion *region = &ranges->regions[ranges->by_offset[place]];
		free_all(ranges, region);
		(void)plug(ranges, ms_region_first(ranges, region));
		region->live = region->state == MS_REGION_DRAINING; /* goes back */
		region->state = MS_REGION_RESETTING;
		ranges->resetting++;
	}
}

/* Without the lock: a region's contents are as when it came. False: it has to go back. */
static bool reset_contents(
	struct memslot_ranges *ranges, struct memslot_expansion *region, bool stays)
{
	clear_region(ranges, region);
	if (!stays || (region->slot && memslot_slot_reset(region->slot)))
		return false;
	if ((ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE) && region->slot &&
		!ms_region_trusted(ranges, region->slot))
		memset(region->base, 0, region->bytes);
	return true;
}

MS_EXPORT int memslot_ranges_reset(struct memslot_ranges *ranges)
{
	struct memslot_expansion gone;
	int error;

	if (!ranges)
		return -EINVAL;
	ms_ranges_enter(ranges);
	error = refuse_busy(ranges);
	if (!error)
		start_resetting(ranges);
	/* Nobody else touches these regions, so that the table may be read again after each. */
	for (uint32_t place = 0; !error && place < ranges->region_count;) {
		struct memslot_expansion *region = &ranges->regions[ranges->by_offset[place]];
		bool stays = region->live == 0;
		if (region->state != MS_REGION_RESETTING) {
			place++;
			continue;
		}
		ms_ranges_leave(ranges);
		stays = reset_contents(ranges, region, stays);
		ms_ranges_enter(ranges);
		stays = stays && region->live == 0;
		region->live = 0;
		region->state = MS_REGION_LIVE;
		ranges->resetting--;
		unplug(ranges, ms_region_first(ranges, region));
		place = 0;
		if (stays) {
			region->high = ms_region_trusted(ranges, region->slot) ? 0 : region->units;
			continue;
		}
		ms_regions_unpublish(ranges, region, &gone);
		ms_ranges_leave(ranges);
		ms_regions_hand_back(ranges, &gone);
		ms_ranges_enter(ranges);
	}
	ms_ranges_leave(ranges);
	return error;
}

MS_EXPORT int memslot_ranges_close(struct memslot_ranges *ranges, uint64_t *ret_busy)
{
	struct memslot_expansion gone;
	uint64_t busy;
	int error;

	if (!ranges)
		return 0;
	ms_ranges_enter(ranges);
	error = refuse_busy(ranges);
	busy = ranges->guarded;
	ms_ranges_leave(ranges);
	if (error) {
		if (ret_busy)
			*ret_busy = busy;
		return error;
	}
	while (ranges->region_count) {
		struct memslot_expansion *region = &ranges->regions[ranges->by_offset[0]];
		free_all(ranges, region);
		clear_region(ranges, region);
		ms_regions_unpublish(ranges, region, &gone);
		ms_regions_hand_back(ranges, &gone);
	}
	ms_os_unmap(ranges, ranges->bookkeeping_bytes);
	return 0;
}
