/* SPDX-License-Identifier: MIT */
/*
 * blocks.c - blocks of more than 512 bytes, and the runs that small objects lie in.
 *
 * Invariant: a block is never shorter than a grain is long, so that at most one begins in a grain,
 * and the map of grains finds its node without a header in front of it. What the bins answer is
 * believed only as far as it lies inside what is committed.
 */
#include "heap/heap.h"

#include <errno.h>

#define UNITS_MIN ((1u << MS_HEAP_GRAIN_SHIFT >> MS_HEAP_UNIT_SHIFT) + 1)

static size_t offset_of(const struct memslot_heap *heap, const struct ms_node *node)
{
	return heap->data + ((size_t)node->offset << MS_HEAP_UNIT_SHIFT);
}

/* Does it have so many units, and lie in what is committed? */
static bool holds(const struct memslot_heap *heap, const struct ms_node *node, uint64_t units)
{
	return ms_bins_size(node) >= units &&
	       offset_of(heap, node) + ((size_t)ms_bins_size(node) << MS_HEAP_UNIT_SHIFT) <=
		       ms_heap_committed(heap);
}

/* Commit at least so many bytes more, if there are any. */
static bool commit(struct memslot_heap *heap, uint64_t bytes)
{
	size_t size = ms_heap_committed(heap), left = heap->capacity - size;
	uint64_t more, wanted = bytes + ms_min(heap->state->headroom, heap->capacity);

	if (left == 0 || !ms_round_up(wanted, &more))
		return false;
	more = ms_min(more, left);
	if (memslot_slot_resize(heap->slot, size + more))
		return false;
	if (ms_bins_extend(&heap->arena, 0, (uint32_t)(more >> MS_HEAP_UNIT_SHIFT)))
		return true;
	(void)memslot_slot_resize(heap->slot, size); /* nonsense: nobody knows of it */
	return false;
}

uint32_t ms_blocks_take(
	struct memslot_heap *heap, uint64_t units, uint64_t align_units, uint64_t *ret_fresh)
{
	struct ms_heap_state *state = heap->state;
	const struct ms_node *node;
	uint32_t index, end;

	if (units + align_units >= heap->capacity >> MS_HEAP_UNIT_SHIFT)
		return MS_BINS_NONE;
	index = ms_bins_alloc(&heap->arena, (uint32_t)units, (uint32_t)align_units, false);
	if (index == MS_BINS_NONE && commit(heap, (units + align_units) << MS_HEAP_UNIT_SHIFT))
		index = ms_bins_alloc(&heap->arena, (uint32_t)units, (uint32_t)align_units, false);
	if (index == MS_BINS_NONE)
		return index;
	node = &heap->arena.nodes[index];
	if (!holds(heap, node, units))
		return MS_BINS_NONE; /* nonsense */
	end = node->offset + ms_bins_size(node);
	*ret_fresh = end > state->high ? end - ms_max(state->high, node->offset) : 0;
	state->high = (uint32_t)ms_max(state->high, end);
	return index;
}

void *ms_blocks_alloc(struct memslot_heap *heap, size_t size, size_t align, size_t *ret_used)
{
	uint64_t units, fresh = 0;
	uint32_t index;
	size_t offset;

	if (size > heap->capacity || align > heap->capacity)
		return NULL;
	units = ms_max((size + MS_HEAP_UNIT - 1) >> MS_HEAP_UNIT_SHIFT, UNITS_MIN);
	index = ms_blocks_take(heap, units, ms_max(align >> MS_HEAP_UNIT_SHIFT, 1), &fresh);
	if (index == MS_BINS_NONE)
		return NULL;
	offset = offset_of(heap, &heap->arena.nodes[index]);
	heap->grain_map[offset >> MS_HEAP_GRAIN_SHIFT] = index + 1;
	heap->state->live++;
	heap->state->live_bytes += (uint64_t)ms_bins_size(&heap->arena.nodes[index])
				   << MS_HEAP_UNIT_SHIFT;
	*ret_used = (size_t)(ms_bins_size(&heap->arena.nodes[index]) - fresh) << MS_HEAP_UNIT_SHIFT;
	return heap->base + offset;
}

uint32_t ms_blocks_at(const struct memslot_heap *heap, size_t offset)
{
	uint32_t index = heap->grain_map[offset >> MS_HEAP_GRAIN_SHIFT] - 1;
	const struct ms_node *node;

	if (index >= heap->arena.node_max)
		return MS_BINS_NONE;
	node = &heap->arena.nodes[index];
	return ms_bins_used(node) && offset_of(heap, node) == offset && holds(heap, node, UNITS_MIN)
		       ? index
		       : MS_BINS_NONE;
}

void ms_blocks_free(struct memslot_heap *heap, uint32_t index)
{
	const struct ms_node *node = &heap->arena.nodes[index];

	heap->grain_map[offset_of(heap, node) >> MS_HEAP_GRAIN_SHIFT] = 0;
	heap->state->live--;
	heap->state->live_bytes -= (uint64_t)ms_bins_size(node) << MS_HEAP_UNIT_SHIFT;
	ms_bins_free(&heap->arena, index);
}

bool ms_blocks_resize(struct memslot_heap *heap, uint32_t index, size_t size)
{
	struct ms_node *node = &heap->arena.nodes[index];
	uint64_t before = ms_bins_size(node);
	uint64_t units =
		ms_max(((uint64_t)size + MS_HEAP_UNIT - 1) >> MS_HEAP_UNIT_SHIFT, UNITS_MIN);

	if (units >= heap->capacity >> MS_HEAP_UNIT_SHIFT ||
		!ms_bins_resize(&heap->arena, index, (uint32_t)units) || !holds(heap, node, units))
		return false;
	heap->state->live_bytes += (ms_bins_size(node) - before) << MS_HEAP_UNIT_SHIFT;
	heap->state->high =
		(uint32_t)ms_max(heap->state->high, (uint64_t)node->offset + ms_bins_size(node));
	return true;
}

bool ms_blocks_check(const struct memslot_heap *heap, struct ms_heap_count *count)
{
	size_t grains = ms_heap_committed(heap) >> MS_HEAP_GRAIN_SHIFT;

	for (size_t i = heap->data >> MS_HEAP_GRAIN_SHIFT; i < grains; i++) {
		const struct ms_node *node;
		if (heap->grain_map[i] == 0)
			continue;
		if (heap->grain_map[i] > heap->arena.node_max)
			return false;
		node = &heap->arena.nodes[heap->grain_map[i] - 1];
		if (offset_of(heap, node) >> MS_HEAP_GRAIN_SHIFT != i ||
			ms_blocks_at(heap, offset_of(heap, node)) == MS_BINS_NONE)
			return false;
		count->nodes++;
		count->live++;
		count->live_bytes += (uint64_t)ms_bins_size(node) << MS_HEAP_UNIT_SHIFT;
	}
	return true;
}
