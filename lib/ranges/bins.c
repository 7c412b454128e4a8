/* SPDX-License-Identifier: MIT */
/*
 * bins.c - arithmetic of free ranges: two-level bins over nodes that lie apart from what they
 * manage.
 *
 *   bin = (row, column): sizes 1 .. 63 exactly, then 32 bins for each power of two
 *   region:  [node]<->[node]<->[node]    physical neighbours, fenced at the region's ends
 *
 *   node.h   nodes, links, bins        cut.c    resized in place; regions come and go
 *   bins.c   allocates, frees          walk.c   questions that look at many nodes
 *
 * Invariant: nodes of a region cover it without holes, two free ones never touch, and a free node
 * is in the bin of its size; bitmaps tell which bins hold one. Never touches the memory it manages
 * and makes no system call. Freeing needs no node. Indices are checked against the arena's own
 * bounds before they are followed, and walks are bounded, because bins and nodes may lie where a
 * guest can write, even while a call runs: then anything may be answered, but nothing outside is
 * touched. So an index is read once, into a local or an argument, and that copy is checked and
 * used.
 *
 * Source: M. Masmano et al., TLSF, 2004 (two levels, two bitmaps, good fit); S. Aaltonen,
 * OffsetAllocator, 2023 (out of band, mantissa classes); the rest against the defects of both:
 * padding and tail go back, and the last resort is exact.
 */
#include "ranges/node.h"

#define BEST_LOOKS 16u
#define BEST_STEPS (4 * BEST_LOOKS)

/* --- choosing --- */

/* A free node, and where in it the range begins. */
struct place {
	uint32_t index, units, offset;
};

/* Where in a free node the range would begin. False: it does not fit. */
MS_HOT bool fits(const struct ms_arena *arena, uint32_t index, uint32_t size, uint32_t align,
	struct place *ret_place)
{
	const struct ms_node *node = &arena->nodes[index];
	uint32_t region, bias, offset, padding, units;

	if (MS_UNLIKELY(index >= arena->node_max))
		return false;
	region = node->region;
	offset = node->offset;
	units = node->size;
	bias = region < arena->region_max ? arena->bias[region] : 0;
	padding = (0u - (bias + offset)) & (align - 1);
	*ret_place = (struct place){index, units, offset + padding};
	return !(units & MS_BINS_USED) && (uint64_t)padding + size <= units;
}

/* Nodes of one class that fit: the first, or of `looks` the one that leaves least. *steps: how many
 * nodes may be looked at yet: each is in one class. */
static struct place look_through(const struct ms_arena *arena, uint32_t class, uint32_t size,
	uint32_t align, uint32_t looks, uint32_t *steps)
{
	uint32_t index = arena->bins->head[class];
	struct place place, best = {.index = MS_BINS_NONE};

	for (; *steps && index < arena->node_max; --*steps) {
		if (best.index != MS_BINS_NONE && looks == 0)
			break;
		looks -= looks > 0;
		if (fits(arena, index, size, align, &place) &&
			(best.index == MS_BINS_NONE || place.units < best.units))
			best = place;
		index = arena->nodes[index].next;
	}
	return best;
}

/* Every node that could fit; or the first `steps`. */
static struct place choose_exact(
	const struct ms_arena *arena, uint32_t size, uint32_t align, uint32_t looks, uint32_t steps)
{
	uint64_t most = ms_min(size + (uint64_t)align - 1, MS_BINS_UNITS_MAX - 1);
	uint32_t class = ms_class_from(arena->bins, ms_class_down(size));
	uint32_t last = ms_class_up((uint32_t)most);
	struct place place = {.index = MS_BINS_NONE};

	while (class != MS_BINS_NONE && class <= last && steps && place.index == MS_BINS_NONE) {
		place = look_through(arena, class, size, align, looks, &steps);
		class = ms_class_from(arena->bins, class + 1);
	}
	return place;
}

/* Two heads did not fit: in this class everything does, or else whatever there is. */
static __attribute__((noinline)) struct place choose_slowly(
	const struct ms_arena *arena, uint32_t size, uint32_t align)
{
	uint32_t class = MS_BINS_NONE, steps = arena->node_max;
	struct place place = {.index = MS_BINS_NONE};

	if (size + (uint64_t)align <= MS_BINS_UNITS_MAX)
		class = ms_class_from(arena->bins, ms_class_up(size + align - 1));
	if (class != MS_BINS_NONE)
		place = look_through(arena, class, size, align, 0, &steps);
	return place.index != MS_BINS_NONE ? place
					   : choose_exact(arena, size, align, 0, arena->node_max);
}

/* O(1): two heads. */
MS_HOT bool choose_fast(
	const struct ms_arena *arena, uint32_t size, uint32_t align, struct place *ret_place)
{
	uint32_t class = ms_class_from(arena->bins, ms_class_up(size));

	if (class == MS_BINS_NONE)
		return false;
	if (fits(arena, arena->bins->head[class], size, align, ret_place))
		return true;
	class = ms_class_from(arena->bins, class + 1);
	return class != MS_BINS_NONE &&
	       fits(arena, arena->bins->head[class], size, align, ret_place);
}

/* --- out --- */

/* So many units of a node are a range. */
MS_HOT uint32_t use(const struct ms_arena *arena, uint32_t index, uint32_t units)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index];

	bins->live++;
	bins->live_units += units;
	bins->free_units -= units;
	node->size = units | MS_BINS_USED;
	node->next = 0;
	return index;
}

/* The range begins where the free node does. */
MS_HOT uint32_t take_front(
	const struct ms_arena *arena, const struct place *place, uint32_t taken, uint32_t size)
{
	uint32_t index = place->index, behind = place->units - size;
	struct ms_node *node = &arena->nodes[index], *made = &arena->nodes[taken];
	uint32_t region = node->region, left = node->left, right;

	made->region = region;
	made->offset = place->offset;
	made->left = left;
	ms_link_left(arena, region, left, taken);
	if (behind) {
		made->right = index;
		node->left = taken;
		node->offset = place->offset + size;
		node->size = behind;
		ms_bin_put(arena, index, place->offset + size, behind);
	} else {
		right = node->right;
		made->right = right;
		ms_link_right(arena, region, right, taken);
		ms_node_rest(arena, index);
	}
	return use(arena, taken, size);
}

/* What is before it stays in the old node; what is behind it gets one, or stays with the range. */
MS_HOT uint32_t take_middle(const struct ms_arena *arena, const struct place *place, uint32_t taken,
	uint32_t before, uint32_t size)
{
	uint32_t index = place->index, behind = place->units - before - size;
	struct ms_node *node = &arena->nodes[index], *made = &arena->nodes[taken], *tail;
	uint32_t region = node->region, right = node->right, spare = MS_BINS_NONE;

	made->region = region;
	made->offset = place->offset;
	made->left = index;
	node->right = taken;
	node->size = before;
	ms_bin_put(arena, index, place->offset - before, before);
	if (behind)
		spare = ms_node_new(arena);
	if (spare == MS_BINS_NONE) {
		made->right = right;
		ms_link_right(arena, region, right, taken);
		return use(arena, taken, size + behind);
	}
	tail = &arena->nodes[spare];
	tail->region = region;
	tail->offset = place->offset + size;
	tail->size = behind;
	tail->left = taken;
	tail->right = right;
	made->right = spare;
	ms_link_right(arena, region, right, spare);
	ms_bin_put(arena, spare, place->offset + size, behind);
	return use(arena, taken, size);
}

/* A node that has rested becomes the range, so that no handle comes back soon. Where none is left
 * the range keeps the tail. */
MS_HOT uint32_t take(const struct ms_arena *arena, const struct place *place, uint32_t size)
{
	uint32_t before = place->offset - arena->nodes[place->index].offset;
	uint32_t taken = ms_node_new(arena);

	if (MS_UNLIKELY(taken == MS_BINS_NONE) && before)
		return MS_BINS_NONE;
	ms_bin_take(arena, place->index, place->units);
	if (MS_UNLIKELY(taken == MS_BINS_NONE))
		return use(arena, place->index, place->units);
	return before ? take_middle(arena, place, taken, before, size)
		      : take_front(arena, place, taken, size);
}

uint32_t ms_bins_alloc(
	const struct ms_arena *restrict arena, uint32_t size, uint32_t align, bool best)
{
	struct place place = {.index = MS_BINS_NONE};

	__builtin_prefetch(&arena->nodes[arena->bins->rest_first]); /* a wish, wherever it is */
	if (MS_UNLIKELY(best))
		place = choose_exact(arena, size, align, BEST_LOOKS, BEST_STEPS);
	if (place.index == MS_BINS_NONE && !choose_fast(arena, size, align, &place))
		place = choose_slowly(arena, size, align);
	return place.index == MS_BINS_NONE ? MS_BINS_NONE : take(arena, &place, size);
}

uint32_t ms_bins_alloc_in(
	const struct ms_arena *arena, uint32_t region, uint32_t size, uint32_t align)
{
	uint32_t index = arena->first[region];
	struct place place;

	for (uint32_t steps = arena->node_max; steps && index < arena->node_max; steps--) {
		if (fits(arena, index, size, align, &place))
			return take(arena, &place, size);
		index = arena->nodes[index].right;
	}
	return MS_BINS_NONE;
}

uint32_t ms_bins_alloc_at(
	const struct ms_arena *arena, uint32_t index, uint32_t offset, uint32_t size)
{
	const struct place place = {index, ms_bins_size(&arena->nodes[index]), offset};

	return take(arena, &place, size);
}

/* --- back --- */

/* Free neighbours and it become one. The freed node rests, unless it is alone. */
void ms_bins_free(const struct ms_arena *restrict arena, uint32_t index)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index], *kept = node;
	uint32_t left = node->left, right = node->right, region = node->region;
	uint32_t offset = node->offset, units = ms_bins_size(node);
	uint32_t below = ms_node_free_units(arena, left);
	uint32_t above = ms_node_free_units(arena, right);

	node->generation++;
	bins->live--;
	bins->live_units -= units;
	bins->free_units += units;
	if (below || above)
		ms_node_rest(arena, index);
	if (above) {
		ms_bin_take(arena, right, above);
		units += above;
		index = right;
		kept = &arena->nodes[right];
	}
	if (below) {
		ms_bin_take(arena, left, below);
		units += below;
		if (above) {
			right = kept->right;
			ms_node_rest(arena, index);
		}
		index = left;
		kept = &arena->nodes[left];
		offset = kept->offset;
		kept->right = right;
		ms_link_right(arena, region, right, left);
	} else if (above) {
		kept->offset = offset;
		kept->left = left;
		ms_link_left(arena, region, left, right);
	}
	kept->size = units;
	ms_bin_put(arena, index, offset, units);
}
