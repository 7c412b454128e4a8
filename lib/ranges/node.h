/* SPDX-License-Identifier: MIT */
/*
 * node.h - nodes, their links, and the bins that hold the free ones: what bins.c and cut.c do
 * everything with.
 *
 * Invariant: an index is read once, checked against the arena's bound, and that copy is used.
 * Inline, and with few branches that depend on chance: an allocation is a hundred instructions, and
 * a branch that was guessed wrong costs as much as twenty.
 */
#ifndef MS_RANGES_NODE_H
#define MS_RANGES_NODE_H

#include "ranges/bins.h"

#define MS_HOT static inline __attribute__((always_inline))

/* --- classes --- */

/* A shift that leaves 5 bits behind the leading one; sizes that have no more are exact. */
MS_HOT uint32_t ms_class_shift(uint32_t size)
{
	return ((uint32_t)__builtin_clz(size | MS_BINS_COLUMNS) ^ 31) - 5;
}

MS_HOT uint32_t ms_class_down(uint32_t size)
{
	uint32_t shift = ms_class_shift(size);

	return shift * MS_BINS_COLUMNS + (size >> shift);
}

/* The first class all of whose sizes are at least `size`. */
MS_HOT uint32_t ms_class_up(uint32_t size)
{
	return ms_class_down(size + (1u << ms_class_shift(size)) - 1);
}

/* --- nodes --- */

MS_HOT struct ms_node *ms_node_at(const struct ms_arena *arena, uint32_t index)
{
	return MS_LIKELY(index < arena->node_max) ? &arena->nodes[index] : NULL;
}

MS_HOT uint32_t ms_node_new(const struct ms_arena *arena)
{
	struct ms_bins *bins = arena->bins;
	uint32_t index = bins->rest_first, resting = bins->resting, count = bins->node_count;
	const struct ms_node *node;

	if (MS_LIKELY(resting > MS_BINS_REST) || (resting && count >= arena->node_max)) {
		node = ms_node_at(arena, index);
		if (!node)
			return MS_BINS_NONE;
		bins->rest_first = node->next;
		bins->resting = resting - 1;
		return index;
	}
	if (count >= arena->node_max)
		return MS_BINS_NONE;
	bins->node_count = count + 1;
	return count;
}

/* It rests, behind those freed before. */
MS_HOT void ms_node_rest(const struct ms_arena *arena, uint32_t index)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index];
	uint32_t resting = bins->resting;
	struct ms_node *last = resting ? ms_node_at(arena, bins->rest_last) : NULL;

	node->size = 0;
	node->next = MS_BINS_NONE;
	if (MS_LIKELY(last != NULL))
		last->next = index;
	else
		bins->rest_first = index;
	bins->rest_last = index;
	bins->resting = resting + 1;
}

/* `index` is what comes behind `left`, which may be a region's fence. */
MS_HOT void ms_link_left(
	const struct ms_arena *arena, uint32_t region, uint32_t left, uint32_t index)
{
	struct ms_node *node = ms_node_at(arena, left);

	if (MS_LIKELY(node != NULL))
		node->right = index;
	else if (region < arena->region_max)
		arena->first[region] = index;
}

MS_HOT void ms_link_right(
	const struct ms_arena *arena, uint32_t region, uint32_t right, uint32_t index)
{
	struct ms_node *node = ms_node_at(arena, right);

	if (MS_LIKELY(node != NULL))
		node->left = index;
	else if (region < arena->region_max)
		arena->last[region] = index;
}

/* Its units, when it is free: 0 otherwise. */
MS_HOT uint32_t ms_node_free_units(const struct ms_arena *arena, uint32_t index)
{
	const struct ms_node *node = ms_node_at(arena, index);
	uint32_t size = node ? node->size : 0;

	return size & MS_BINS_USED ? 0 : size;
}

/* --- bins --- */

/* The head lies lower than whoever came after it: what is left free gathers at the other end, and
 * large ranges find room there much longer (Wilson et al., 1995: address order), for one look.
 * Which of the two it is nobody can guess: no branch. */
MS_HOT void ms_bin_put(const struct ms_arena *arena, uint32_t index, uint32_t offset, uint32_t size)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index], *head, *next, nobody;
	uint32_t class = ms_class_down(size), row = class / MS_BINS_COLUMNS, first, follows;
	volatile uint32_t *link = &bins->head[class];
	bool lower;

	first = *link;
	head = ms_node_at(arena, first);
	if (!head) {
		node->prev = node->next = MS_BINS_NONE;
		*link = index;
		bins->columns[row] |= 1u << class % MS_BINS_COLUMNS;
		bins->rows |= 1u << row;
		return;
	}
	lower = head->offset < offset;
	link = lower ? &head->next : link;
	follows = *link;
	next = follows < arena->node_max ? &arena->nodes[follows] : &nobody;
	node->prev = lower ? first : MS_BINS_NONE;
	node->next = follows;
	next->prev = index;
	*link = index;
}

/* Out of the bin of its size. */
MS_HOT void ms_bin_take(const struct ms_arena *arena, uint32_t index, uint32_t size)
{
	struct ms_bins *bins = arena->bins;
	const struct ms_node *node = &arena->nodes[index];
	uint32_t class = ms_class_down(size), row = class / MS_BINS_COLUMNS, columns;
	uint32_t prev = node->prev, next = node->next;
	struct ms_node nobody, *behind;
	volatile uint32_t *link;

	behind = next < arena->node_max ? &arena->nodes[next] : &nobody;
	link = prev < arena->node_max ? &arena->nodes[prev].next : &bins->head[class];
	behind->prev = prev;
	*link = next;
	if (bins->head[class] != MS_BINS_NONE)
		return;
	columns = bins->columns[row] & ~(1u << class % MS_BINS_COLUMNS);
	bins->columns[row] = columns;
	if (columns == 0)
		bins->rows &= ~(1u << row);
}

/* The first class from `class` on that holds a node, or MS_BINS_NONE. */
MS_HOT uint32_t ms_class_from(const struct ms_bins *bins, uint32_t class)
{
	uint32_t row = class / MS_BINS_COLUMNS, columns, rows;

	if (row >= MS_BINS_ROWS)
		return MS_BINS_NONE;
	columns = bins->columns[row] & ~0u << (class % MS_BINS_COLUMNS);
	if (columns)
		return row * MS_BINS_COLUMNS + (uint32_t)__builtin_ctz(columns);
	rows = bins->rows & (~1u << row) & ((1u << MS_BINS_ROWS) - 1);
	if (!rows)
		return MS_BINS_NONE;
	row = (uint32_t)__builtin_ctz(rows);
	columns = bins->columns[row];
	return columns ? row * MS_BINS_COLUMNS + (uint32_t)__builtin_ctz(columns) : MS_BINS_NONE;
}

#endif
