/* SPDX-License-Identifier: MIT */
/*
 * ranges.c - ranges go out and come back.
 *
 *   handle: salt 16 | generation 20 | node 28
 *
 * Invariant: a handle names a node, the node's generation when the range was made, and a number of
 * this allocator's; base and offset must match the node too. A range that is about to be cleared is
 * made stale first, so that of two frees one is told -ESTALE, and is cleared outside the lock while
 * nobody else can have it.
 */
#include "ranges/ranges.h"

#include "base/opts.h"
#include "pool/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_RANGES (1ull << 20)
#define MAX_MAX_RANGES (1ull << 26)
#define MAX_REGION_UNITS (MS_BINS_UNITS_MAX - 1)
#define NODE_BITS 28
#define GENERATION_BITS 20
#define PREFAULT 2048u /* nodes: 64 KiB at a time */

/* --- create --- */

static bool is_power(uint64_t value)
{
	return value && !(value & (value - 1));
}

static uint64_t option(uint64_t value, uint64_t by_default)
{
	return value ? value : by_default;
}

static uint64_t unlimited(uint64_t value)
{
	return value == MEMSLOT_UNLIMITED ? UINT64_MAX : value;
}

static int configure(struct memslot_ranges *ranges, const struct memslot_ranges_opts *opts)
{
	uint64_t unit = option(opts->unit, 16), capacity = 0;

	ranges->flags = opts->flags;
	ranges->min_align = option(opts->min_align, unit);
	ranges->max_align = unlimited(option(opts->max_align, MEMSLOT_UNLIMITED));
	ranges->min_size = option(opts->min_size, 1);
	ranges->max_size = unlimited(option(opts->max_size, MEMSLOT_UNLIMITED));
	ranges->max_ranges = option(opts->max_ranges, MAX_RANGES);
	ranges->pool = opts->pool;
	ranges->release = opts->release;
	ranges->context = opts->context;
	if (opts->max_size == MEMSLOT_NONE || opts->max_align == MEMSLOT_NONE)
		return -EINVAL;
	if (!is_power(unit) || unit > 1u << 30 || !is_power(ranges->min_align) ||
		(ranges->max_align != UINT64_MAX && !is_power(ranges->max_align)) ||
		ms_max(ranges->min_align, unit) > ranges->max_align ||
		(opts->pool && unit > ms_page_size()) ||
		/* slots begin at pages */ ranges->min_size > ranges->max_size ||
		(opts->region_size && !opts->pool))
		return -EINVAL;
	if (ranges->max_ranges > MAX_MAX_RANGES)
		return -EMSGSIZE;
	ranges->unit_shift = (unsigned)__builtin_ctzll(unit);
	ranges->min_align = ms_max(ranges->min_align, unit);
	if (opts->pool)
		capacity = ms_pages_to_bytes(opts->pool->plan.capacity_pages);
	ranges->region_size =
		option(opts->region_size, ms_min(capacity, MAX_REGION_UNITS << ranges->unit_shift));
	if (opts->pool && ranges->region_size < unit)
		return -EINVAL;
	return ranges->region_size > capacity ? -EMSGSIZE : 0;
}

/* One mapping, as large as the worst case. */
static int allocate(const struct memslot_ranges *plan, struct memslot_ranges **ret_ranges)
{
	/* Each live range has at most one free one behind it, and each region one more. */
	uint64_t nodes = 2 * plan->max_ranges + 2 * MS_RANGES_REGIONS + MS_BINS_REST;
	size_t head = (sizeof *plan + 63) & ~(size_t)63, at = head;
	size_t regions = MS_RANGES_REGIONS * sizeof(struct memslot_expansion);
	size_t numbers = MS_RANGES_REGIONS * sizeof(uint32_t);
	struct memslot_ranges *ranges;
	void *mapping;
	int error =
		ms_os_reserve(NULL, head + regions + 5 * numbers + nodes * sizeof(struct ms_node),
			PROT_READ | PROT_WRITE, &mapping);

	if (error)
		return error;
	ranges = mapping;
	*ranges = *plan;
	ranges->bookkeeping_bytes = head + regions + 5 * numbers + nodes * sizeof(struct ms_node);
	ranges->regions = (struct memslot_expansion *)((unsigned char *)mapping + at);
	ranges->by_offset = (uint32_t *)((unsigned char *)mapping + (at += regions));
	ranges->by_base = (uint32_t *)((unsigned char *)mapping + (at += numbers));
	ranges->bias = (uint32_t *)((unsigned char *)mapping + (at += numbers));
	ranges->first = (uint32_t *)((unsigned char *)mapping + (at += numbers));
	ranges->last = (uint32_t *)((unsigned char *)mapping + (at += numbers));
	ranges->arena = (struct ms_arena){.bins = &ranges->bins,
		.nodes = (struct ms_node *)((unsigned char *)mapping + (at += numbers)),
		.node_max = (uint32_t)nodes,
		.bias = ranges->bias,
		.first = ranges->first,
		.last = ranges->last,
		.region_max = MS_RANGES_REGIONS};
	ranges->free_region = MS_RANGES_REGIONS;
	ms_bins_init(&ranges->bins);
	*ret_ranges = ranges;
	return 0;
}

/* The first 65536 allocators of a process have different ones. */
static _Atomic(uint64_t) salts;

MS_EXPORT int memslot_ranges_create(
	const struct memslot_ranges_opts *opts, struct memslot_ranges **ret_ranges)
{
	struct memslot_ranges plan = {.flags = 0};
	struct memslot_ranges_opts taken;
	int error;

	if (!ret_ranges)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken,
		MEMSLOT_RANGES_UNLOCKED | MEMSLOT_RANGES_ZERO_ON_FREE, opts);
	if (!error)
		error = configure(&plan, &taken);
	if (error)
		return error;
	plan.salt = atomic_fetch_add(&salts, 1) & 0xffff;
	return allocate(&plan, ret_ranges);
}

/* --- handles --- */

static uint64_t handle_of(const struct memslot_ranges *ranges, uint32_t index)
{
	uint64_t generation = ms_ranges_node(ranges, index)->generation;

	return ranges->salt << (NODE_BITS + GENERATION_BITS) |
	       (generation & ((1u << GENERATION_BITS) - 1)) << NODE_BITS | index;
}

struct memslot_range ms_ranges_range(const struct memslot_ranges *ranges, uint32_t index)
{
	const struct ms_node *node = ms_ranges_node(ranges, index);
	const struct memslot_expansion *region = &ranges->regions[node->region];
	uint64_t within = (uint64_t)node->offset << ranges->unit_shift;

	return (struct memslot_range){
		.base = region->base ? region->base + within : NULL,
		.offset = region->offset + within,
		.size = (uint64_t)ms_bins_size(node) << ranges->unit_shift,
		.handle = handle_of(ranges, index),
	};
}

/* Under the lock: the range's node. */
int ms_ranges_find_node(
	const struct memslot_ranges *ranges, const struct memslot_range *range, uint32_t *ret_index)
{
	uint32_t index = (uint32_t)(range->handle & ((1u << NODE_BITS) - 1));
	const struct ms_node *node;
	struct memslot_range now;

	if (index >= ranges->bins.node_count || handle_of(ranges, index) != range->handle)
		return -ESTALE;
	node = ms_ranges_node(ranges, index);
	if (!ms_bins_used(node) || node->next == MS_RANGES_PLUG)
		return -ESTALE;
	now = ms_ranges_range(ranges, index);
	if (now.base != range->base || now.offset != range->offset)
		return -ESTALE;
	*ret_index = index;
	return 0;
}

/* --- out --- */

/* A request in units. */
struct wanted {
	uint32_t units, align;
	uint32_t flags;
	uint64_t fixed_offset;
};

int ms_ranges_units(const struct memslot_ranges *ranges, uint64_t size, uint32_t *ret_units)
{
	uint64_t units = ((size - 1) >> ranges->unit_shift) + 1;

	if (size < ranges->min_size || size > ranges->max_size)
		return -EINVAL;
	*ret_units = (uint32_t)units;
	return units < MS_BINS_UNITS_MAX ? 0 : -EMSGSIZE;
}

/* The options of a request. */
static int take_options(
	const struct memslot_range_opts *opts, struct wanted *ret_wanted, uint64_t *align)
{
	struct memslot_range_opts taken;
	int error = ms_opts_take(&taken, sizeof taken, sizeof taken,
		MEMSLOT_RANGE_BEST | MEMSLOT_RANGE_FIXED | MEMSLOT_RANGE_GUARDED |
			MEMSLOT_RANGE_NO_GROW | MEMSLOT_RANGE_ZERO,
		opts);

	if (error)
		return error;
	ret_wanted->flags = taken.flags;
	ret_wanted->fixed_offset = taken.fixed_offset;
	if (taken.flags & MEMSLOT_RANGE_FIXED)
		*align = 0;
	return 0;
}

static int check(const struct memslot_ranges *ranges, uint64_t size, uint64_t align,
	const struct memslot_range_opts *opts, struct wanted *ret_wanted)
{
	int error = ms_ranges_units(ranges, size, &ret_wanted->units);

	ret_wanted->flags = 0;
	if (!error && MS_UNLIKELY(opts != NULL))
		error = take_options(opts, ret_wanted, &align);
	if (error)
		return error;
	if (align & (align - 1) || align > ranges->max_align)
		return -EINVAL;
	align = ms_max(align, ranges->min_align) >> ranges->unit_shift;
	ret_wanted->align = (uint32_t)align;
	return align < MS_BINS_UNITS_MAX ? 0 : -EMSGSIZE;
}

static int alloc_fixed(
	struct memslot_ranges *ranges, const struct wanted *wanted, uint32_t *ret_index)
{
	struct memslot_expansion *region = ms_regions_at(ranges, wanted->fixed_offset);
	uint64_t unit;
	uint32_t index;
	const struct ms_node *node;

	if (!region || region->state == MS_REGION_PENDING ||
		(wanted->fixed_offset - region->offset) & ((1ull << ranges->unit_shift) - 1))
		return -EINVAL;
	unit = (wanted->fixed_offset - region->offset) >> ranges->unit_shift;
	if (unit + wanted->units > region->units)
		return -EINVAL;
	index = ms_regions_node(ranges, region, unit);
	node = ms_ranges_node(ranges, index);
	if (ms_bins_used(node) || unit + wanted->units > (uint64_t)node->offset + node->size)
		return -EEXIST;
	*ret_index = ms_bins_alloc_at(&ranges->arena, index, (uint32_t)unit, wanted->units);
	return *ret_index == MS_BINS_NONE ? -ENOSPC : 0;
}

/* Nodes are faulted in some hundreds ahead: a fault would be the dearest thing in an allocation. */
static void prefault(struct memslot_ranges *ranges)
{
	struct ms_node *next = &ranges->arena.nodes[ranges->prefaulted];
	uintptr_t from = ms_round_down((uintptr_t)next);

	if (MS_LIKELY(ranges->bins.node_count + PREFAULT / 4 < ranges->prefaulted) ||
		ranges->prefaulted + PREFAULT > ranges->arena.node_max)
		return;
	(void)ms_os_populate((void *)from, PREFAULT * sizeof *next); /* only a wish */
	ranges->prefaulted += PREFAULT;
}

/* The first place in a region with memory. O(nodes): for whoever has regions without, too. */
static int alloc_in_memory(
	struct memslot_ranges *ranges, const struct wanted *wanted, uint32_t *ret_index)
{
	for (uint32_t i = 0; i < ranges->base_count; i++) {
		*ret_index = ms_bins_alloc_in(
			&ranges->arena, ranges->by_base[i], wanted->units, wanted->align);
		if (*ret_index != MS_BINS_NONE)
			return 0;
	}
	return ranges->base_count || ranges->pool ? -ENOSPC : -EINVAL;
}

/* Under the lock. *ret_high: units of its region from there on nobody had before. */
static int alloc(struct memslot_ranges *ranges, const struct wanted *wanted, uint32_t *ret_index,
	uint32_t *ret_high)
{
	struct memslot_expansion *region;
	struct ms_node *node;
	uint32_t index;
	int error;

	if (ranges->bins.live - ranges->plugs >= ranges->max_ranges)
		return -ENOSPC;
	prefault(ranges);
	if (MS_UNLIKELY(wanted->flags & MEMSLOT_RANGE_FIXED)) {
		error = alloc_fixed(ranges, wanted, &index);
		if (error)
			return error;
	} else {
		index = ms_bins_alloc(&ranges->arena, wanted->units, wanted->align,
			wanted->flags & MEMSLOT_RANGE_BEST);
		if (index == MS_BINS_NONE)
			return -ENOSPC;
	}
	region = &ranges->regions[ms_ranges_node(ranges, index)->region];
	if (MS_UNLIKELY(wanted->flags & MEMSLOT_RANGE_ZERO) && !region->base) {
		ms_bins_free(&ranges->arena, index);
		error = wanted->flags & MEMSLOT_RANGE_FIXED
				? -EINVAL
				: alloc_in_memory(ranges, wanted, &index);
		if (error)
			return error;
		region = &ranges->regions[ms_ranges_node(ranges, index)->region];
	}
	node = ms_ranges_node(ranges, index);
	region->live++;
	*ret_high = region->high;
	region->high = (uint32_t)ms_max(region->high, node->offset + ms_bins_size(node));
	if (MS_UNLIKELY(wanted->flags & MEMSLOT_RANGE_GUARDED)) {
		node->next = 1;
		ranges->guarded++;
	}
	*ret_index = index;
	return 0;
}

/* The same again, with regions of the pool, as long as there are any; and once more then: others
 * may have brought the last one, or given ranges back. */
static __attribute__((noinline)) int alloc_more(struct memslot_ranges *ranges,
	const struct wanted *wanted, uint32_t *ret_index, uint32_t *ret_high)
{
	uint64_t size = (uint64_t)wanted->units << ranges->unit_shift;
	bool grows = ranges->pool && size <= ranges->region_size &&
		     !(wanted->flags & (MEMSLOT_RANGE_NO_GROW | MEMSLOT_RANGE_FIXED));
	int error = -ENOSPC;

	while (error == -ENOSPC && grows &&
		ranges->bins.live - ranges->plugs < ranges->max_ranges) {
		ms_ranges_leave(ranges);
		grows = ms_regions_grow(
			ranges, size, (uint64_t)wanted->align << ranges->unit_shift);
		ms_ranges_enter(ranges);
		error = alloc(ranges, wanted, ret_index, ret_high);
	}
	return error;
}

/* Under the lock, which is left meanwhile: nobody else can have the range, and its region stays.
 * What nobody had before is zero in a slot. */
static void clear_new(struct memslot_ranges *ranges, uint32_t index, uint32_t high)
{
	const struct memslot_range range = ms_ranges_range(ranges, index);
	struct ms_node *node = ms_ranges_node(ranges, index);
	uint32_t guards = node->next, units = ms_bins_size(node), offset = node->offset;

	if (ranges->regions[node->region].slot)
		units = (uint32_t)ms_min(units, high - ms_min(high, offset));
	if (units == 0)
		return;
	node->next = MS_RANGES_PLUG;
	ranges->guarded += guards == 0;
	ms_ranges_leave(ranges);
	memset(range.base, 0, (uint64_t)units << ranges->unit_shift);
	ms_ranges_enter(ranges);
	ranges->guarded -= guards == 0;
	node->next = guards;
}

MS_EXPORT int memslot_ranges_alloc(struct memslot_ranges *ranges, uint64_t size, uint64_t align,
	const struct memslot_range_opts *opts, struct memslot_range *ret_range)
{
	struct wanted wanted;
	uint32_t index = 0, high = 0;
	int error;

	if (!ranges || !ret_range)
		return -EINVAL;
	error = check(ranges, size, align, opts, &wanted);
	if (error)
		return error;
	ms_ranges_enter(ranges);
	error = alloc(ranges, &wanted, &index, &high);
	if (MS_UNLIKELY(error == -ENOSPC))
		error = alloc_more(ranges, &wanted, &index, &high);
	if (MS_LIKELY(!error)) {
		*ret_range = ms_ranges_range(ranges, index);
		ranges->allocs++;
		if (MS_UNLIKELY(wanted.flags & MEMSLOT_RANGE_ZERO))
			clear_new(ranges, index, high);
	}
	ranges->failures += error == -ENOSPC;
	ms_ranges_leave(ranges);
	return error;
}

/* --- back --- */

static void clear(const struct memslot_range *range)
{
	if (range->base)
		memset(range->base, 0, range->size);
}

/* As give_back, when it is cleared first, or its region is on its way out. */
static __attribute__((noinline)) int give_back_slowly(struct memslot_ranges *ranges, uint32_t index)
{
	struct ms_node *node = ms_ranges_node(ranges, index);
	struct memslot_expansion *region = &ranges->regions[node->region], gone;
	bool drained;

	if (ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE) {
		struct memslot_range range = ms_ranges_range(ranges, index);
		node->next = MS_RANGES_PLUG; /* stale from here on, but nobody else's yet */
		ranges->guarded++;
		ms_ranges_leave(ranges);
		clear(&range);
		ms_ranges_enter(ranges);
		ranges->guarded--;
	}
	region->live--;
	drained = region->state == MS_REGION_DRAINING;
	ms_bins_free(&ranges->arena, index);
	if (drained)
		drained = ms_regions_drained(ranges, index, &gone);
	ms_ranges_leave(ranges);
	if (drained)
		ms_regions_hand_back(ranges, &gone);
	return 0;
}

/* Under the lock, which it leaves: free a node that is not guarded. */
static int give_back(struct memslot_ranges *ranges, uint32_t index)
{
	const struct ms_node *node = ms_ranges_node(ranges, index);
	struct memslot_expansion *region = &ranges->regions[node->region];

	if (MS_UNLIKELY(node->next)) {
		ms_ranges_leave(ranges);
		return -EBUSY;
	}
	if (MS_UNLIKELY(ranges->flags & MEMSLOT_RANGES_ZERO_ON_FREE ||
			region->state == MS_REGION_DRAINING))
		return give_back_slowly(ranges, index);
	region->live--;
	ms_bins_free(&ranges->arena, index);
	ms_ranges_leave(ranges);
	return 0;
}

MS_EXPORT int memslot_ranges_free(struct memslot_ranges *ranges, const struct memslot_range *range)
{
	uint32_t index;
	int error;

	if (!ranges || !range)
		return -EINVAL;
	ms_ranges_enter(ranges);
	error = ms_ranges_find_node(ranges, range, &index);
	if (!error)
		return give_back(ranges, index);
	ms_ranges_leave(ranges);
	return error;
}

MS_EXPORT int memslot_ranges_free_at(struct memslot_ranges *ranges, uint64_t offset)
{
	struct memslot_expansion *region;
	const struct ms_node *node;
	uint32_t index;

	if (!ranges)
		return -EINVAL;
	ms_ranges_enter(ranges);
	region = ms_regions_at(ranges, offset);
	if (region && region->state != MS_REGION_PENDING) {
		index = ms_regions_node(
			ranges, region, (offset - region->offset) >> ranges->unit_shift);
		node = ms_ranges_node(ranges, index);
		if (ms_bins_used(node) && node->next != MS_RANGES_PLUG &&
			ms_ranges_range(ranges, index).offset == offset)
			return give_back(ranges, index);
	}
	ms_ranges_leave(ranges);
	return -ENOENT;
}
