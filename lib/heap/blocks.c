/* SPDX-License-Identifier: MIT */
/*
 * blocks.c - blocks of more than 512 bytes, and the runs that small objects lie in.
 *
 * Invariant: a block is never shorter than a grain is long, so that at most one begins in a grain,
 * and the map of grains finds its node without a header in front of it. What the bins answer is
 * believed only as far as it lies inside what is committed.
 */
#include "heap/heap.h"

#define UNITS_MIN ((1u << MS_HEAP_GRAIN_SHIFT >> MS_HEAP_UNIT_SHIFT) + 1)

/* The node as it is now. False: it does not have so many units, or leaves what is committed. */
static bool look(
	const struct memslot_heap *heap, uint32_t index, uint64_t units, struct ms_block *ret_block)
{
	const struct ms_node *node = &heap->arena.nodes[index];

	*ret_block = (struct ms_block){.node = index,
		.units = ms_bins_size(node),
		.offset = heap->data + ((size_t)node->offset << MS_HEAP_UNIT_SHIFT)};
	return ret_block->units >= units &&
	       ret_block->offset + ms_block_bytes(ret_block) <= ms_heap_committed(heap);
}

/* Commit at least so many bytes more, if there are any. */
static bool commit(struct memslot_heap *heap, uint64_t bytes)
{
	size_t size = ms_heap_committed(heap), left = heap->capacity - size;
	uint64_t known = ms_heap_known(heap) << MS_HEAP_UNIT_SHIFT;
	uint64_t spare = known < size - heap->data ? size - heap->data - known : 0;
	uint64_t more, wanted = bytes + ms_min(heap->state->headroom, heap->capacity);

	/* What somebody else committed comes first. */
	if (!ms_round_up(wanted - ms_min(wanted, spare), &more))
		return false;
	more = ms_min(more, left);
	if (spare + more == 0 || (more && memslot_slot_resize(heap->slot, size + more)))
		return false;
	if (ms_bins_extend(&heap->arena, 0, (uint32_t)((spare + more) >> MS_HEAP_UNIT_SHIFT)))
		return true;
	if (more) /* nonsense: nobody knows of it */
		(void)memslot_slot_resize(heap->slot, size);
	return false;
}

/* Units before this one may hold something: somebody had them, an image has bytes there, or what a
 * reset leaves is not known. The guest's own `high` can at most take more for fresh than is. */
static uint64_t stained(const struct memslot_heap *heap)
{
	const struct memslot_image *image = heap->slot->image;
	const struct ms_extent *last;
	size_t end;

	if (heap->slot->on_reset || heap->slot->spoilt_beyond)
		return UINT64_MAX;
	if (!image || image->extent_count == 0)
		return heap->state->high;
	last = &image->extents[image->extent_count - 1];
	end = ms_pages_to_bytes(last->first + last->count);
	end -= ms_min(end, heap->data);
	return ms_max(heap->state->high, end >> MS_HEAP_UNIT_SHIFT);
}

bool ms_blocks_take(struct memslot_heap *heap, uint64_t units, uint64_t align_units,
	struct ms_block *ret_block, uint64_t *ret_fresh)
{
	uint64_t from = stained(heap), first, end;
	uint32_t index;

	if (units + align_units >= heap->capacity >> MS_HEAP_UNIT_SHIFT)
		return false;
	index = ms_bins_alloc(&heap->arena, (uint32_t)units, (uint32_t)align_units, false);
	if (index == MS_BINS_NONE && commit(heap, (units + align_units) << MS_HEAP_UNIT_SHIFT))
		index = ms_bins_alloc(&heap->arena, (uint32_t)units, (uint32_t)align_units, false);
	if (index == MS_BINS_NONE || !look(heap, index, units, ret_block))
		return false; /* no room, or nonsense */
	first = (ret_block->offset - heap->data) >> MS_HEAP_UNIT_SHIFT;
	end = first + ret_block->units;
	*ret_fresh = end > from ? end - ms_max(from, first) : 0;
	heap->state->high = (uint32_t)ms_max(heap->state->high, end);
	return true;
}

void *ms_blocks_alloc(struct memslot_heap *heap, size_t size, size_t align, size_t *ret_used)
{
	uint64_t units, fresh;
	struct ms_block block;

	if (size > heap->capacity || align > heap->capacity)
		return NULL;
	units = ms_max((size + MS_HEAP_UNIT - 1) >> MS_HEAP_UNIT_SHIFT, UNITS_MIN);
	if (!ms_blocks_take(heap, units, ms_max(align >> MS_HEAP_UNIT_SHIFT, 1), &block, &fresh))
		return NULL;
	heap->grain_map[block.offset >> MS_HEAP_GRAIN_SHIFT] = block.node + 1;
	heap->state->live++;
	heap->state->live_bytes += ms_block_bytes(&block);
	*ret_used = ms_block_bytes(&block) - (fresh << MS_HEAP_UNIT_SHIFT);
	return heap->base + block.offset;
}

bool ms_blocks_at(const struct memslot_heap *heap, size_t offset, struct ms_block *ret_block)
{
	uint32_t index = heap->grain_map[offset >> MS_HEAP_GRAIN_SHIFT] - 1;

	return index < heap->arena.node_max && ms_bins_used(&heap->arena.nodes[index]) &&
	       look(heap, index, UNITS_MIN, ret_block) && ret_block->offset == offset;
}

void ms_blocks_free(struct memslot_heap *heap, const struct ms_block *block)
{
	heap->grain_map[block->offset >> MS_HEAP_GRAIN_SHIFT] = 0;
	heap->state->live--;
	heap->state->live_bytes -= ms_block_bytes(block);
	ms_bins_free(&heap->arena, block->node);
}

bool ms_blocks_resize(struct memslot_heap *heap, const struct ms_block *block, size_t size)
{
	struct ms_block now;
	uint64_t units, end;

	if (size > heap->capacity)
		return false;
	units = ms_max((size + MS_HEAP_UNIT - 1) >> MS_HEAP_UNIT_SHIFT, UNITS_MIN);
	if (units >= heap->capacity >> MS_HEAP_UNIT_SHIFT ||
		!ms_bins_resize(&heap->arena, block->node, (uint32_t)units) ||
		!look(heap, block->node, units, &now) || now.offset != block->offset)
		return false;
	heap->state->live_bytes += ms_block_bytes(&now) - ms_block_bytes(block);
	end = ((now.offset - heap->data) >> MS_HEAP_UNIT_SHIFT) + now.units;
	heap->state->high = (uint32_t)ms_max(heap->state->high, end);
	return true;
}

bool ms_blocks_check(const struct memslot_heap *heap, struct ms_heap_count *count)
{
	size_t grains = ms_heap_committed(heap) >> MS_HEAP_GRAIN_SHIFT;

	for (size_t i = heap->data >> MS_HEAP_GRAIN_SHIFT; i < grains; i++) {
		uint32_t mapped = heap->grain_map[i];
		struct ms_block block;
		if (mapped == 0)
			continue;
		if (mapped > heap->arena.node_max || !look(heap, mapped - 1, UNITS_MIN, &block) ||
			block.offset >> MS_HEAP_GRAIN_SHIFT != i ||
			!ms_blocks_at(heap, block.offset, &block))
			return false;
		count->nodes++;
		count->live++;
		count->live_bytes += ms_block_bytes(&block);
	}
	return true;
}
