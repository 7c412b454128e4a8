/* SPDX-License-Identifier: MIT */
/*
 * memslot/ranges.h - a range allocator: runs of bytes out of regions that lie anywhere.
 *
 *   offsets:  0 [ region ][ region ]    [ region ] ..      one space of 64 bits
 *   memory:      slot 7     a mapping     none: a device's
 *
 * Regions come from the user, in two steps, or from the slots of a pool, one at a time as needed.
 * What the allocator knows of ranges lies apart from them: it never touches the memory it manages,
 * but for ZERO. A range is a plain value; its handle is checked in every call, so that a range from
 * the past, or of another allocator, is an error and harms nobody. One allocator is one trust domain.
 *
 * Common keys:
 * Units:   bytes. Sizes are rounded up to the allocator's unit.
 * Owner:   the caller owns allocators until close, ranges until free; regions go back once.
 * Threads: every call from any thread, one lock for each allocator; with UNLOCKED one thread at a time.
 * Fork:    a child's copy works if no other thread was in a call; slots of a pool as memslot/pool.h.
 * Memory:  all bookkeeping is reserved at creation and touched as it is needed. Free needs none.
 * Errors:  -EINVAL for NULL.
 * Since:   0.1
 * Source:  M. Masmano et al., TLSF: a New Dynamic Memory Allocator for Real-Time Systems, 2004;
 *          S. Aaltonen, OffsetAllocator, 2023; P. Wilson et al., Dynamic Storage Allocation, 1995
 */
#ifndef MEMSLOT_RANGES_H
#define MEMSLOT_RANGES_H

#include <memslot/base.h>
#include <memslot/pool.h>
#include <memslot/slot.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memslot_ranges;
struct memslot_expansion;

/*
 * base    NULL in regions without memory
 * offset  in the allocator's one space
 * size    as allocated: rounded up to the unit
 * handle  names this range, and no earlier one; it comes back after hundreds of millions of frees
 */
struct memslot_range {
	void *base;
	uint64_t offset;
	uint64_t size;
	uint64_t handle;
};

/* The region that a range lies in. slot: NULL unless it came from a pool; its index is the tag then. */
struct memslot_region {
	uint32_t size, reserved;
	void *base;
	uint64_t offset, bytes, tag;
	struct memslot_slot *slot;
};

/*
 * flags        MEMSLOT_RANGES_*
 * unit         a power of two, up to 1 GiB, with a pool up to a page; default 16
 * min_align    of every range, a power of two; default the unit
 * max_align    default unlimited; for this and max_size MEMSLOT_NONE is an error
 * min_size     default 1
 * max_size     default unlimited
 * max_ranges   live ones, up to 2^26; default 2^20
 * pool         where regions come from when an allocation finds no room; NULL: nowhere
 * region_size  of those; default the capacity of the pool's slots
 * release      called once for each region of the user's that goes back, on the calling thread,
 *              without the lock; may be NULL
 * context      handed to release
 */
struct memslot_ranges_opts {
	uint32_t size, flags;
	uint64_t unit, min_align, max_align, min_size, max_size, max_ranges;
	struct memslot_pool *pool;
	uint64_t region_size;
	void (*release)(void *context, void *base, uint64_t size, uint64_t offset, uint64_t tag);
	void *context;
};

/* One thread at a time: no lock. */
#define MEMSLOT_RANGES_UNLOCKED (1u << 0)
/* Ranges are cleared before anybody else can have their memory: by free, by a resize that cuts, by
 * reset and by close. */
#define MEMSLOT_RANGES_ZERO_ON_FREE (1u << 1)

struct memslot_range_opts {
	uint32_t size, flags;
	uint64_t fixed_offset;
};

/* The tightest of a few candidates: higher occupancy, about twice the time. */
#define MEMSLOT_RANGE_BEST (1u << 0)
/* At fixed_offset, or not at all; align is not looked at. */
#define MEMSLOT_RANGE_FIXED (1u << 1)
/* Born with one guard. */
#define MEMSLOT_RANGE_GUARDED (1u << 2)
/* Do not ask the pool for a region. */
#define MEMSLOT_RANGE_NO_GROW (1u << 3)
/* Zero bytes. In regions with memory only: those without are passed over, by a walk. */
#define MEMSLOT_RANGE_ZERO (1u << 4)

/*
 * regions, region_bytes  there are
 * live, live_bytes       ranges
 * free_bytes             that can be allocated; largest_free: at once
 * guarded                ranges with a guard
 * allocs, failures       calls that succeeded; that found no room
 */
struct memslot_ranges_stats {
	uint32_t size, reserved;
	uint64_t regions, region_bytes, live, live_bytes, free_bytes, largest_free, guarded, allocs,
		failures;
};

/*
 * Make an allocator without regions.
 *   opts        NULL: defaults
 *   ret_ranges  the allocator, the caller's
 * Errors: -EINVAL a size or alignment that is no power of two or out of order, unknown flag,
 *         region_size without pool or below the unit; -EMSGSIZE max_ranges too large, region_size
 *         beyond the pool's capacity; -E2BIG options from a newer header; -ENOMEM
 */
int memslot_ranges_create(const struct memslot_ranges_opts *opts, struct memslot_ranges **ret_ranges);

/*
 * Add a region, first step: its place in the offset space. Others allocate meanwhile.
 *   size           of the region; what is beyond the last whole unit is not used. Fewer than 2^31 units
 *   ret_expansion  until commit or abort
 * Errors: -EINVAL less than one unit; -EMSGSIZE too many units; -ENOSPC 65536 regions, or the offset
 *         space is used up: places are never used again
 */
int memslot_ranges_expand_begin(struct memslot_ranges *ranges, uint64_t size,
		struct memslot_expansion **ret_expansion);

/* Where it will be: a multiple of 4096 units. Errors: none */
uint64_t memslot_expansion_offset(const struct memslot_expansion *expansion);

/*
 * Second step: from now on it is allocated from. On failure the expansion stays pending.
 *   base  the memory, a multiple of the unit; NULL: this process maps none, only offsets count
 *   tag   handed to opts.release, and what drain asks for
 * Errors: -EINVAL base no multiple of the unit, size bytes from there wrap, or NULL with ZERO_ON_FREE;
 *         -EEXIST some of
 *         it is in a region already; -ENOSPC no bookkeeping left
 */
int memslot_expansion_commit(struct memslot_expansion *expansion, void *base, uint64_t tag);

/* Instead: nothing was added. Errors: none */
void memslot_expansion_abort(struct memslot_expansion *expansion);

/*
 * Take a range.
 *   align      a power of two, of the address, or of the offset in regions without memory; 0: min_align
 *   opts       NULL: defaults
 *   ret_range  the range
 * Cost:   O(1); before it fails, a walk over what could have held it.
 * Errors: -EINVAL size 0, below min_size or beyond max_size, align no power of two or beyond max_align,
 *         unknown flag, FIXED in no region or no multiple of the unit, ZERO where no region has
 *         memory, or FIXED into one without; -EEXIST FIXED occupied, or in a region that is drained;
 *         -ENOSPC no room (that of a slot which another thread is bringing is not there yet), or
 *         max_ranges are live; -EMSGSIZE can never fit; -E2BIG options from a newer header
 */
int memslot_ranges_alloc(struct memslot_ranges *ranges, uint64_t size, uint64_t align,
		const struct memslot_range_opts *opts, struct memslot_range *ret_range);

/*
 * Give a range back.
 * Cost:   O(1)
 * Errors: -ESTALE freed already, or not of this allocator; -EBUSY guarded
 */
int memslot_ranges_free(struct memslot_ranges *ranges, const struct memslot_range *range);

/*
 * Give the range back that starts there.
 * Cost:   O(ranges in the region)
 * Errors: -ENOENT no range starts there; -EBUSY guarded
 */
int memslot_ranges_free_at(struct memslot_ranges *ranges, uint64_t offset);

/*
 * Longer or shorter, where it is. Its handle stays.
 *   range  updated; as many units as it has: 0, also where its region is drained
 * Errors: -ENOSPC the units behind it are not free; shorter, and its region is drained or no bookkeeping
 *         is left; -EBUSY shorter, and guarded; -ESTALE; -EINVAL, -EMSGSIZE sizes as in alloc
 */
int memslot_ranges_resize(
		struct memslot_ranges *ranges, struct memslot_range *range, uint64_t size);

/*
 * The range that holds an address.
 * Cost:   O(ranges in the region)
 * Errors: -ENOENT none does
 */
int memslot_ranges_find(const struct memslot_ranges *ranges, const void *address,
		struct memslot_range *ret_range);

/*
 * The region of a range.
 *   ret_region  with `size` set by the caller; filled up to it
 * Errors: -ESTALE; -EINVAL `size` below 8
 */
int memslot_ranges_region(const struct memslot_ranges *ranges, const struct memslot_range *range,
		struct memslot_region *ret_region);

/*
 * The kernel, or somebody else, uses it: free, close and reset answer -EBUSY. Counted.
 * Errors: -ESTALE; -EMSGSIZE too many
 */
int memslot_ranges_guard(struct memslot_ranges *ranges, const struct memslot_range *range);

/*
 * End one guard.
 * Errors: -ESTALE; -EINVAL not guarded
 */
int memslot_ranges_unguard(struct memslot_ranges *ranges, const struct memslot_range *range);

/*
 * No new ranges from any region with that tag; each goes back when it is empty, at once or with its
 * last range.
 * Errors: -ENOENT there is none
 */
int memslot_ranges_drain(struct memslot_ranges *ranges, uint64_t tag);

/*
 * Wholly free regions go back.
 *   ret_bytes  how much that was; may be NULL
 * Errors: -EINVAL
 */
int memslot_ranges_shrink(struct memslot_ranges *ranges, uint64_t *ret_bytes);

/*
 * Every range is stale, every slot is reset. A slot whose reset fails goes back, and so do regions that
 * are being drained. Nothing is allocated from a region until its turn has come.
 * Errors: -EBUSY a range is guarded, or an expansion is pending: nothing changed
 */
int memslot_ranges_reset(struct memslot_ranges *ranges);

/*
 * Every region goes back, and the allocator is freed. NULL: 0, nothing happens.
 *   ret_busy  how many ranges are guarded; may be NULL; written with -EBUSY
 * Errors: -EBUSY a range is guarded, an expansion is pending, or a reset is going on: nothing changed
 */
int memslot_ranges_close(struct memslot_ranges *ranges, uint64_t *ret_busy);

/*
 * Walk everything.
 * Errors: -EUCLEAN it does not fit together
 */
int memslot_ranges_check(const struct memslot_ranges *ranges);

/*
 * Read the counters.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL `size` below 8
 */
int memslot_ranges_stats(
		const struct memslot_ranges *ranges, struct memslot_ranges_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
