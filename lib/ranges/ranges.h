/* SPDX-License-Identifier: MIT */
/*
 * ranges.h - an allocator over many regions.
 *
 *   ranges.c   hands out, takes back       bins.c     which ranges are free
 *   stay.c     ranges that stay: resized, guarded, asked about
 *   regions.c  where they come from        leave.c    how regions go back
 *
 * Everything below `lock` belongs to who holds it.
 */
#ifndef MS_RANGES_H
#define MS_RANGES_H

#include "base/lock.h"
#include "base/os.h"
#include "pool/pool.h"
#include "ranges/bins.h"

#include <memslot/ranges.h>

#define MS_RANGES_REGIONS 65536u
/* In a used node's count of guards: nobody has it. A free node of a region that is not allocated
 * from just now, or a range that is being cleared. */
#define MS_RANGES_PLUG 0xffffffffu

enum ms_region_state {
	MS_REGION_NONE,
	MS_REGION_PENDING,
	MS_REGION_LIVE,
	MS_REGION_DRAINING,
	MS_REGION_RESETTING
};

/* An expansion is a region that is pending. */
struct memslot_expansion {
	struct memslot_ranges *ranges;
	unsigned char *base;
	uint64_t offset, bytes, tag;
	struct memslot_slot *slot;
	uint32_t units;
	uint32_t live;	    /* ranges in it, plugs not counted */
	uint32_t high;	    /* units below were given out once; above, a slot's are still zero */
	uint32_t next_free; /* of unused entries */
	enum ms_region_state state;
};

struct memslot_ranges {
	/* fixed at creation */
	uint32_t flags;
	unsigned unit_shift;
	uint64_t min_align, max_align, min_size, max_size, max_ranges, region_size;
	struct memslot_pool *pool;
	void (*release)(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag);
	void *context;
	uint64_t salt;
	size_t bookkeeping_bytes;
	struct memslot_expansion *regions;
	uint32_t *by_offset,
		*by_base; /* regions that are not NONE; that are LIVE or DRAINING with memory */

	/* under the lock */
	struct ms_lock lock;
	struct ms_arena arena;
	struct ms_bins bins;
	uint32_t region_count, region_high, free_region; /* in by_offset; entries ever used */
	uint32_t base_count;
	uint32_t pending, resetting; /* regions; while there are any, close and reset are refused */
	uint32_t *bias, *first, *last; /* see bins.h */
	uint32_t prefaulted;	       /* nodes */
	uint64_t next_offset, plugs, plugged_units, allocs, failures, region_bytes;
	uint64_t guarded; /* ranges with a guard, or being cleared */
};

static inline struct ms_node *ms_ranges_node(const struct memslot_ranges *ranges, uint32_t index)
{
	return &ranges->arena.nodes[index];
}

static inline uint32_t ms_region_number(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region)
{
	return (uint32_t)(region - ranges->regions);
}

static inline uint32_t ms_region_first(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region)
{
	return ranges->first[ms_region_number(ranges, region)];
}

/* A slot shows zeros when it comes and after a reset, unless the pool's on_reset writes to it or
 * who asked for it by memslot_ranges_region gave it an image or exempt pages. */
static inline bool ms_region_trusted(
	const struct memslot_ranges *ranges, const struct memslot_slot *slot)
{
	return slot && !ranges->pool->plan.on_reset && !slot->image && !slot->exempt.count;
}

/* --- ranges.c --- */
static inline void ms_ranges_enter(const struct memslot_ranges *ranges)
{
	if (!(ranges->flags & MEMSLOT_RANGES_UNLOCKED))
		ms_lock_take(&((struct memslot_ranges *)(uintptr_t)ranges)->lock);
}

static inline void ms_ranges_leave(const struct memslot_ranges *ranges)
{
	if (!(ranges->flags & MEMSLOT_RANGES_UNLOCKED))
		ms_lock_release(&((struct memslot_ranges *)(uintptr_t)ranges)->lock);
}

/* A size that can be allocated, in units. 0, -EINVAL or -EMSGSIZE. */
MS_HIDDEN int ms_ranges_units(
	const struct memslot_ranges *ranges, uint64_t size, uint32_t *ret_units);
/* Under the lock: the range of a used node; the node of a range, or -ESTALE. */
MS_HIDDEN struct memslot_range ms_ranges_range(const struct memslot_ranges *ranges, uint32_t index);
MS_HIDDEN int ms_ranges_find_node(const struct memslot_ranges *ranges,
	const struct memslot_range *range, uint32_t *ret_index);

/* --- regions.c, under the lock --- */
/* The region that an offset or an address lies in, or NULL. */
MS_HIDDEN struct memslot_expansion *ms_regions_at(
	const struct memslot_ranges *ranges, uint64_t offset);
MS_HIDDEN struct memslot_expansion *ms_regions_holding(
	const struct memslot_ranges *ranges, const void *address);
/* The node of a region that holds a unit; its index. */
MS_HIDDEN uint32_t ms_regions_node(
	const struct memslot_ranges *ranges, const struct memslot_expansion *region, uint64_t unit);
/* Without the lock: one more from the pool. False: none to be had in which so much would fit. */
MS_HIDDEN bool ms_regions_grow(struct memslot_ranges *ranges, uint64_t size, uint64_t align);
/* Out of the tables; its only node is free. */
MS_HIDDEN void ms_regions_unpublish(struct memslot_ranges *ranges, struct memslot_expansion *region,
	struct memslot_expansion *ret_region);

/* --- leave.c --- */
/* Under the lock: a range of a draining region is free now, in the node: true: the region is empty,
 * and out of the tables; hand it back without the lock. */
MS_HIDDEN bool ms_regions_drained(
	struct memslot_ranges *ranges, uint32_t node, struct memslot_expansion *ret_region);
/* Without the lock. */
MS_HIDDEN void ms_regions_hand_back(
	struct memslot_ranges *ranges, const struct memslot_expansion *region);

#endif
