/* SPDX-License-Identifier: MIT */
/*
 * regions.c - where ranges come from, and how regions go back.
 *
 * Invariant: a region's place in the offset space is drawn once and never used again, so that an
 * aborted expansion can overlap nothing and an offset from the past names nothing. A region goes
 * back exactly once, and only when no range lies in it. The free nodes of a region that is drained
 * are *plugs*: used, by nobody, so that the bins do not know them. User code and slots are called
 * without the lock.
 */
#include "ranges/ranges.h"

#include "pool/pool.h"

#include <errno.h>
#include <string.h>

#define OFFSET_STEP 4096u /* units: where regions begin */

/* --- tables --- */

/* The first entry of by_offset that ends behind `offset`. */
static uint32_t place_of(const struct memslot_ranges *ranges, uint64_t offset)
{
	uint32_t low = 0, high = ranges->region_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		const struct memslot_expansion *region =
			&ranges->regions[ranges->by_offset[middle]];
		if (region->offset + region->bytes > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

struct memslot_expansion *ms_regions_at(const struct memslot_ranges *ranges, uint64_t offset)
{
	uint32_t place = place_of(ranges, offset);
	struct memslot_expansion *region;

	if (place == ranges->region_count)
		return NULL;
	region = &ranges->regions[ranges->by_offset[place]];
	return region->offset <= offset ? region : NULL;
}

/* The first entry of by_base that ends behind an address. */
static uint32_t base_place(const struct memslot_ranges *ranges, const unsigned char *address)
{
	uint32_t low = 0, high = ranges->base_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		const struct memslot_expansion *region = &ranges->regions[ranges->by_base[middle]];
		if (region->base + region->bytes > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

struct memslot_expansion *ms_regions_holding(
	const struct memslot_ranges *ranges, const void *address)
{
	uint32_t place = base_place(ranges, address);
	struct memslot_expansion *region;

	if (place == ranges->base_count)
		return NULL;
	region = &ranges->regions[ranges->by_base[place]];
	return region->base <= (const unsigned char *)address ? region : NULL;
}

static uint32_t number_of(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region)
{
	return (uint32_t)(region - ranges->regions);
}

static uint32_t first_of(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region)
{
	return ranges->first[number_of(ranges, region)];
}

uint32_t ms_regions_node(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region, uint64_t unit)
{
	uint32_t index = first_of(ranges, region);

	while (ms_ranges_node(ranges, index)->offset +
			ms_bins_size(ms_ranges_node(ranges, index)) <=
		unit)
		index = ms_ranges_node(ranges, index)->right;
	return index;
}

static void insert(uint32_t *table, uint32_t count, uint32_t place, uint32_t region)
{
	memmove(&table[place + 1], &table[place], (count - place) * sizeof table[0]);
	table[place] = region;
}

static void erase(uint32_t *table, uint32_t count, uint32_t place)
{
	memmove(&table[place], &table[place + 1], (count - place - 1) * sizeof table[0]);
}

/* --- adding --- */

/* Under the lock: a place in the offset space. */
static int begin(
	struct memslot_ranges *ranges, uint64_t size, struct memslot_expansion **ret_region)
{
	uint64_t units = size >> ranges->unit_shift;
	uint32_t number = ranges->free_region;
	struct memslot_expansion *region;

	uint64_t next;

	if (units == 0)
		return -EINVAL;
	if (units >= MS_BINS_UNITS_MAX)
		return -EMSGSIZE;
	if (__builtin_add_overflow(ranges->next_offset,
		    (units + OFFSET_STEP - 1) / OFFSET_STEP * OFFSET_STEP << ranges->unit_shift,
		    &next))
		return -ENOSPC;
	if (number == MS_RANGES_REGIONS) {
		if (ranges->region_high == MS_RANGES_REGIONS)
			return -ENOSPC;
		number = ranges->region_high++;
		ranges->regions[number].next_free = MS_RANGES_REGIONS;
	}
	region = &ranges->regions[number];
	ranges->free_region = region->next_free;
	*region = (struct memslot_expansion){.ranges = ranges,
		.offset = ranges->next_offset,
		.bytes = units << ranges->unit_shift,
		.units = (uint32_t)units,
		.state = MS_REGION_PENDING};
	ranges->next_offset = next;
	ranges->by_offset[ranges->region_count++] = number; /* offsets only rise */
	ranges->pending++;
	*ret_region = region;
	return 0;
}

static void forget(struct memslot_ranges *ranges, struct memslot_expansion *region)
{
	uint32_t place = place_of(ranges, region->offset);

	erase(ranges->by_offset, ranges->region_count--, place);
	region->state = MS_REGION_NONE;
	region->next_free = ranges->free_region;
	ranges->free_region = number_of(ranges, region);
}

/* A slot shows zeros when it comes, unless the pool's on_reset writes to it. */
static bool trusted(const struct memslot_ranges *ranges, const struct memslot_slot *slot)
{
	return slot && !ranges->pool->plan.on_reset;
}

/* Under the lock: it is allocated from. */
static int publish(struct memslot_ranges *ranges, struct memslot_expansion *region, void *base,
	uint64_t tag, struct memslot_slot *slot)
{
	uint32_t number = number_of(ranges, region);
	uint64_t start = base ? (uintptr_t)base : region->offset;
	uint64_t unit = 1ull << ranges->unit_shift;

	if (start & (unit - 1) || (!base && (ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE)))
		return -EINVAL;
	ranges->bias[number] = (uint32_t)(start >> ranges->unit_shift);
	if (ms_bins_add(&ranges->arena, number, region->units) == MS_BINS_NONE)
		return -ENOSPC;
	region->base = base;
	region->tag = tag;
	region->slot = slot;
	region->high = trusted(ranges, slot) ? 0 : region->units;
	region->state = MS_REGION_LIVE;
	if (base) {
		insert(ranges->by_base, ranges->base_count, base_place(ranges, base), number);
		ranges->base_count++;
	}
	ranges->pending--;
	ranges->region_bytes += region->bytes;
	return 0;
}

MS_EXPORT int memslot_ranges_expand_begin(
	struct memslot_ranges *ranges, uint64_t size, struct memslot_expansion **ret_expansion)
{
	int error;

	if (!ranges || !ret_expansion)
		return -EINVAL;
	ms_ranges_enter(ranges);
	error = begin(ranges, size, ret_expansion);
	ms_ranges_leave(ranges);
	return error;
}

MS_EXPORT uint64_t memslot_expansion_offset(const struct memslot_expansion *expansion)
{
	return expansion ? expansion->offset : 0;
}

MS_EXPORT int memslot_expansion_commit(
	struct memslot_expansion *expansion, void *base, uint64_t tag)
{
	int error = -EINVAL;

	if (!expansion || !expansion->ranges)
		return -EINVAL;
	ms_ranges_enter(expansion->ranges);
	if (expansion->state == MS_REGION_PENDING)
		error = publish(expansion->ranges, expansion, base, tag, NULL);
	ms_ranges_leave(expansion->ranges);
	return error;
}

MS_EXPORT void memslot_expansion_abort(struct memslot_expansion *expansion)
{
	struct memslot_ranges *ranges = expansion ? expansion->ranges : NULL;

	if (!ranges)
		return;
	ms_ranges_enter(ranges);
	if (expansion->state == MS_REGION_PENDING) {
		ranges->pending--;
		forget(ranges, expansion);
	}
	ms_ranges_leave(ranges);
}

/* Under the lock. */
static int publish_slot(struct memslot_ranges *ranges, struct memslot_slot *slot)
{
	struct memslot_expansion *region;
	int error = begin(ranges, ranges->region_size, &region);

	if (error)
		return error;
	error = publish(ranges, region, memslot_slot_base(slot), memslot_slot_index(slot), slot);
	if (error) {
		ranges->pending--;
		forget(ranges, region);
	}
	return error;
}

bool ms_regions_grow(struct memslot_ranges *ranges, uint64_t size, uint64_t align)
{
	struct memslot_slot *slot;
	int error = memslot_pool_acquire(ranges->pool, NULL, ranges->region_size, NULL, &slot);

	if (error)
		return false;
	/* A region that would not help is not kept, or one request could have them all. */
	if ((-(uintptr_t)memslot_slot_base(slot) & (align - 1)) + size > ranges->region_size) {
		(void)memslot_pool_release(ranges->pool, slot);
		return false;
	}
	ms_ranges_enter(ranges);
	error = publish_slot(ranges, slot);
	ms_ranges_leave(ranges);
	if (error)
		(void)memslot_pool_release(ranges->pool, slot);
	return error == 0;
}

/* --- giving back --- */

/* Under the lock: out of the tables; its only node is free. */
static void unpublish(struct memslot_ranges *ranges, struct memslot_expansion *region,
	struct memslot_expansion *ret_region)
{
	ms_bins_remove(&ranges->arena, first_of(ranges, region));
	if (region->base) {
		erase(ranges->by_base, ranges->base_count, base_place(ranges, region->base));
		ranges->base_count--;
	}
	ranges->region_bytes -= region->bytes;
	*ret_region = *region;
	forget(ranges, region);
}

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
	uint32_t index = first_of(ranges, region);

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
	unpublish(ranges, region, ret_region);
	return true;
}

/* Under the lock. */
static void start_draining(struct memslot_ranges *ranges, struct memslot_expansion *region)
{
	region->state = MS_REGION_DRAINING;
	for (uint32_t index = first_of(ranges, region); index != MS_BINS_NONE;
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
		bool wanted = region->tag == tag && (region->state == MS_REGION_LIVE ||
							    region->state == MS_REGION_DRAINING);
		place++;
		if (!wanted)
			continue;
		error = 0;
		if (region->live) {
			if (region->state == MS_REGION_LIVE)
				start_draining(ranges, region);
			continue;
		}
		unpublish(ranges, region, &gone);
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
			unpublish(ranges, region, ret_region);
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
	for (uint32_t index = first_of(ranges, region); index != MS_BINS_NONE;) {
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
		(void)plug(ranges, first_of(ranges, region));
		region->live = region->state == MS_REGION_DRAINING; /* goes back */
		region->state = MS_REGION_RESETTING;
		ranges->resetting++;
	}
}

/* Without the lock: a region's contents are as when it came. False: it has to go back. */
static bool reset_contents(struct memslot_ranges *ranges, struct memslot_expansion *region)
{
	clear_region(ranges, region);
	return !region->live && (!region->slot || memslot_slot_reset(region->slot) == 0);
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
		bool stays;
		if (region->state != MS_REGION_RESETTING) {
			place++;
			continue;
		}
		ms_ranges_leave(ranges);
		stays = reset_contents(ranges, region);
		ms_ranges_enter(ranges);
		region->live = 0;
		region->state = MS_REGION_LIVE;
		ranges->resetting--;
		unplug(ranges, first_of(ranges, region));
		place = 0;
		if (stays) {
			region->high = trusted(ranges, region->slot) ? 0 : region->units;
			continue;
		}
		unpublish(ranges, region, &gone);
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
		unpublish(ranges, region, &gone);
		ms_regions_hand_back(ranges, &gone);
	}
	ms_os_unmap(ranges, ranges->bookkeeping_bytes);
	return 0;
}
