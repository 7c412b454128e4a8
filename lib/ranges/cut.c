/* SPDX-License-Identifier: MIT */
/*
 * cut.c - ranges are resized where they are; regions come, grow and go.
 *
 * Invariant: that of bins.c, after each call; a call that answers no changed nothing.
 */
#include "ranges/node.h"

#include <string.h>

/* A new free node behind `left`, of the units that it gives up. */
static void split(const struct ms_arena *arena, uint32_t left, uint32_t made, uint32_t units)
{
	struct ms_node *node = &arena->nodes[left], *tail = &arena->nodes[made];
	uint32_t right = node->right, region = node->region, size = node->size;

	tail->region = region;
	tail->offset = node->offset + units;
	tail->size = (size & ~MS_BINS_USED) - units;
	tail->left = left;
	tail->right = right;
	node->right = made;
	node->size = units | (size & MS_BINS_USED);
	ms_link_right(arena, region, right, made);
}

/* The free node behind `left` goes, with its units. */
static uint32_t swallow(const struct ms_arena *arena, uint32_t left, uint32_t gone, uint32_t units)
{
	struct ms_node *node = &arena->nodes[left];
	uint32_t right = arena->nodes[gone].right;

	ms_bin_take(arena, gone, units);
	node->size += units;
	node->right = right;
	ms_link_right(arena, node->region, right, left);
	ms_node_rest(arena, gone);
	return units;
}

/* --- in place --- */

static bool shrink(const struct ms_arena *arena, uint32_t index, uint32_t size)
{
	struct ms_node *node = &arena->nodes[index], *tail;
	uint32_t cut = ms_bins_size(node) - size, right = node->right, free;
	uint32_t spare = ms_node_new(arena);

	if (spare == MS_BINS_NONE)
		return false;
	split(arena, index, spare, size);
	arena->bins->live_units -= cut;
	arena->bins->free_units += cut;
	free = ms_node_free_units(arena, right);
	if (free)
		swallow(arena, spare, right, free);
	tail = &arena->nodes[spare];
	ms_bin_put(arena, spare, tail->offset, tail->size);
	return true;
}

static bool grow(const struct ms_arena *arena, uint32_t index, uint32_t more)
{
	struct ms_node *node = &arena->nodes[index], *behind;
	uint32_t right = node->right, free = ms_node_free_units(arena, right);

	if (free == 0 || free < more)
		return false;
	arena->bins->live_units += more;
	arena->bins->free_units -= more;
	if (free == more) {
		swallow(arena, index, right, free);
		return true;
	}
	behind = &arena->nodes[right];
	ms_bin_take(arena, right, free);
	node->size += more;
	behind->offset += more;
	behind->size = free - more;
	ms_bin_put(arena, right, behind->offset, free - more);
	return true;
}

bool ms_bins_resize(const struct ms_arena *arena, uint32_t index, uint32_t size)
{
	uint32_t now = ms_bins_size(&arena->nodes[index]);

	if (size == now)
		return true;
	return size < now ? shrink(arena, index, size) : grow(arena, index, size - now);
}

/* --- regions --- */

void ms_bins_init(struct ms_bins *bins)
{
	memset(bins, 0, sizeof *bins);
	memset((void *)bins->head, 0xff, sizeof bins->head); /* MS_BINS_NONE */
}

uint32_t ms_bins_add(const struct ms_arena *arena, uint32_t region, uint32_t units)
{
	uint32_t index = ms_node_new(arena), generation;

	if (index == MS_BINS_NONE)
		return index;
	generation = arena->nodes[index].generation;
	arena->nodes[index] = (struct ms_node){.size = units,
		.left = MS_BINS_NONE,
		.right = MS_BINS_NONE,
		.generation = generation,
		.region = region};
	ms_link_left(arena, region, MS_BINS_NONE, index);
	ms_link_right(arena, region, MS_BINS_NONE, index);
	ms_bin_put(arena, index, 0, units);
	arena->bins->free_units += units;
	return index;
}

void ms_bins_remove(const struct ms_arena *arena, uint32_t index)
{
	uint32_t units = arena->nodes[index].size;

	ms_bin_take(arena, index, units);
	ms_node_rest(arena, index);
	arena->bins->free_units -= units;
}

bool ms_bins_extend(const struct ms_arena *arena, uint32_t region, uint32_t units)
{
	uint32_t last = arena->last[region], made, free;
	struct ms_node *node = ms_node_at(arena, last);

	if (!node)
		return false;
	free = ms_node_free_units(arena, last);
	if (free) {
		ms_bin_take(arena, last, free);
		node->size = free + units;
		ms_bin_put(arena, last, node->offset, free + units);
	} else {
		made = ms_node_new(arena);
		if (made == MS_BINS_NONE)
			return false;
		node->size += units;
		split(arena, last, made, ms_bins_size(node) - units);
		ms_bin_put(arena, made, arena->nodes[made].offset, units);
	}
	arena->bins->free_units += units;
	return true;
}
