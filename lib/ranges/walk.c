/* SPDX-License-Identifier: MIT */
/*
 * walk.c - questions to the bins that look at many nodes.
 *
 * Invariant: nothing is changed, and every walk ends, whatever the links say: see bins.c.
 */
#include "ranges/node.h"

bool ms_bins_has_node(const struct ms_arena *arena)
{
	return arena->bins->resting || arena->bins->node_count < arena->node_max;
}

uint32_t ms_bins_largest(const struct ms_arena *arena)
{
	const struct ms_bins *bins = arena->bins;
	uint32_t rows = bins->rows & ((1u << MS_BINS_ROWS) - 1), row, columns, index, largest = 0;

	if (!rows)
		return 0;
	row = 31 - (uint32_t)__builtin_clz(rows);
	columns = bins->columns[row];
	if (!columns)
		return 0;
	index = bins->head[row * MS_BINS_COLUMNS + 31 - (uint32_t)__builtin_clz(columns)];
	for (uint32_t steps = arena->node_max; steps && index < arena->node_max; steps--) {
		largest = (uint32_t)ms_max(largest, ms_bins_size(&arena->nodes[index]));
		index = arena->nodes[index].next;
	}
	return largest;
}

/* One bin: every node is free, of this class, and linked both ways. */
static bool check_bin(
	const struct ms_arena *arena, uint32_t class, uint64_t *units, uint64_t *count)
{
	uint32_t index = arena->bins->head[class], prev = MS_BINS_NONE;

	for (; index != MS_BINS_NONE; (*count)++) {
		const struct ms_node *node = ms_node_at(arena, index);
		if (!node || ms_bins_used(node) || node->prev != prev || node->size == 0 ||
			ms_class_down(node->size) != class || *count > arena->node_max)
			return false;
		*units += node->size;
		prev = index;
		index = node->next;
	}
	return true;
}

/* A node and its right neighbour fit together. */
static bool check_node(const struct ms_arena *arena, uint32_t index)
{
	const struct ms_node *node = &arena->nodes[index];
	const struct ms_node *right = ms_node_at(arena, node->right),
			     *left = ms_node_at(arena, node->left);
	uint32_t region = node->region;

	if ((node->right != MS_BINS_NONE && !right) || (node->left != MS_BINS_NONE && !left))
		return false;
	if (region >= arena->region_max)
		return false;
	if (left ? left->right != index : node->offset != 0 || arena->first[region] != index)
		return false;
	if (!right)
		return arena->last[region] == index;
	return right->left == index && right->region == region &&
	       right->offset == node->offset + ms_bins_size(node) &&
	       (ms_bins_used(node) || ms_bins_used(right));
}

bool ms_bins_check(const struct ms_arena *arena)
{
	const struct ms_bins *bins = arena->bins;
	uint64_t binned = 0, binned_count = 0, free = 0, free_count = 0, live = 0, live_count = 0;
	uint32_t nodes = bins->node_count;

	if (nodes > arena->node_max)
		return false;
	for (uint32_t class = 0; class < MS_BINS_CLASSES; class ++) {
		bool bit = bins->columns[class / MS_BINS_COLUMNS] >> class % MS_BINS_COLUMNS & 1;
		if (bit && !check_bin(arena, class, &binned, &binned_count))
			return false;
	}
	for (uint32_t i = 0; i < nodes; i++) {
		const struct ms_node *node = &arena->nodes[i];
		uint32_t size = ms_bins_size(node);
		if (size && !check_node(arena, i))
			return false;
		free += ms_bins_used(node) ? 0 : size;
		free_count += !ms_bins_used(node) && size;
		live += ms_bins_used(node) ? size : 0;
		live_count += ms_bins_used(node);
	}
	return binned == free && binned_count == free_count && free == bins->free_units &&
	       live == bins->live_units && live_count == bins->live;
}
