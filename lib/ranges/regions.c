/* SPDX-License-Identifier: MIT */
/*
 * regions.c - where ranges come from: regions of the user's, in two steps, or slots of a pool.
 *
 * Invariant: a region's place in the offset space is drawn once and never used again, so that an
 * aborted expansion can overlap nothing and an offset from the past names nothing. The pool is
 * called without the lock.
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

uint32_t ms_regions_node(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region, uint64_t unit)
{
	uint32_t index = ms_region_first(ranges, region);

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
	ranges->free_region = ms_region_number(ranges, region);
}

/* Is some of the memory in a region already? It would be handed out twice. */
static bool is_taken(const struct memslot_ranges *ranges, const unsigned char *base, uint64_t bytes)
{
	uint32_t place = base_place(ranges, base);

	return base && place < ranges->base_count &&
	       (uintptr_t)ranges->regions[ranges->by_base[place]].base < (uintptr_t)base + bytes;
}

/* Under the lock: it is allocated from. */
static int publish(struct memslot_ranges *ranges, struct memslot_expansion *region, void *base,
	uint64_t tag, struct memslot_slot *slot)
{
	uint32_t number = ms_region_number(ranges, region);
	uint64_t start = base ? (uintptr_t)base : region->offset;
	uint64_t unit = 1ull << ranges->unit_shift;

	if (start & (unit - 1) || start > UINT64_MAX - region->bytes ||
		(!base && (ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE)))
		return -EINVAL;
	if (is_taken(ranges, base, region->bytes))
		return -EEXIST;
	ranges->bias[number] = (uint32_t)(start >> ranges->unit_shift);
	if (ms_bins_add(&ranges->arena, number, region->units) == MS_BINS_NONE)
		return -ENOSPC;
	region->base = base;
	region->tag = tag;
	region->slot = slot;
	region->high = ms_region_trusted(ranges, slot) ? 0 : region->units;
	region->state = MS_REGION_LIVE;
	if (base) {
		insert(ranges->by_base, ranges->base_count, base_place(ranges, base), number);
		ranges->base_count++;
	}
	ranges->pending--;
	ranges->region_bytes += region->bytes;
	return 0;
}

void ms_regions_unpublish(struct memslot_ranges *ranges, struct memslot_expansion *region,
	struct memslot_expansion *ret_region)
{
	ms_bins_remove(&ranges->arena, ms_region_first(ranges, region));
	if (region->base) {
		erase(ranges->by_base, ranges->base_count, base_place(ranges, region->base));
		ranges->base_count--;
	}
	ranges->region_bytes -= region->bytes;
	*ret_region = *region;
	forget(ranges, region);
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
