/* SPDX-License-Identifier: MIT */
/*
 * heap.c - handles of heaps, and where things lie in the slot.
 *
 *   [ state | nodes | grain map | run map | objects .. ]
 *
 * Invariant: the layout follows from the capacity of the slot that the heap was made in, alone. The
 * heap records it, and open looks at it once: what it implies has to lie in this slot, and a heap
 * has to fit together there, before the handle takes it over. From then on a handle believes
 * nothing it reads; with another capacity in the slot than its own there is no heap for it. A slot
 * has one handle for its life; it is bound while it has a heap, because the objects point at each
 * other.
 */
#include "heap/heap.h"

#include "base/opts.h"

#include <errno.h>
#include <string.h>

#define HEADROOM (256u << 10)
#define CAPACITY_MAX (32ull << 30)

static size_t align_up(size_t value, size_t align)
{
	return (value + align - 1) & ~(align - 1);
}

/* Limits and places, from base and capacity. False: too small, or too large. */
static bool lay_out(struct memslot_heap *heap, struct memslot_slot *slot, size_t capacity)
{
	size_t at = align_up(sizeof *heap->state, 64);
	/* Each block is longer than a grain, and has at most one free neighbour of its own. */
	size_t nodes = 2 * (capacity >> MS_HEAP_GRAIN_SHIFT) + MS_BINS_REST + 64;
	uintptr_t base = (uintptr_t)memslot_slot_base(slot);

	*heap = (struct memslot_heap){.slot = slot,
		.base = (unsigned char *)base,
		.state = (struct ms_heap_state *)base,
		.capacity = capacity};
	if (capacity >= CAPACITY_MAX)
		return false;
	heap->arena = (struct ms_arena){.bins = &heap->state->bins,
		.nodes = (struct ms_node *)(base + at),
		.node_max = (uint32_t)nodes,
		.bias = &heap->bias,
		.first = &heap->state->first,
		.last = &heap->state->last,
		.region_max = 1};
	heap->grain_map = (uint32_t *)(base + (at += nodes * sizeof(struct ms_node)));
	heap->run_map = (uint8_t *)(base + (at += ((capacity >> MS_HEAP_GRAIN_SHIFT) + 1) * 4));
	at += (capacity >> MS_HEAP_RUN_SHIFT) + 2;
	heap->data = align_up(base + at, MS_HEAP_RUN) - base;
	heap->bias = (uint32_t)((base + heap->data) >> MS_HEAP_UNIT_SHIFT);
	return heap->data + 2 * MS_HEAP_RUN <= capacity;
}

static _Atomic(uint64_t) handles;

/* The slot's handle, made if it has none. */
static int handle_of(struct memslot_slot *slot, struct memslot_heap **ret_heap)
{
	struct memslot_heap *heap = slot->heap;

	if (!heap) {
		heap = ms_os_alloc(sizeof *heap);
		if (!heap)
			return -ENOMEM;
		*heap = (struct memslot_heap){.slot = slot};
		slot->heap = heap;
		slot->heap_number =
			atomic_fetch_add_explicit(&handles, 1, memory_order_relaxed) + 1;
	}
	*ret_heap = heap;
	return 0;
}

/* From here on the handle is one of the heap that lies so. */
static void settle(struct memslot_heap *heap, const struct memslot_heap *now)
{
	heap->base = now->base;
	heap->state = now->state;
	heap->capacity = now->capacity;
	heap->data = now->data;
	heap->run_map = now->run_map;
	heap->grain_map = now->grain_map;
	heap->bias = now->bias;
	heap->arena = now->arena;
	heap->arena.bias = &heap->bias;
	heap->references++;
	heap->slot->bound = true;
}

/* An empty heap over zeros. */
static void write_state(struct memslot_heap *heap, uint64_t headroom)
{
	struct ms_heap_state *state = heap->state;

	state->address = (uintptr_t)heap->base;
	state->capacity = heap->capacity;
	state->headroom = headroom;
	memset((void *)state->partial, 0xff, sizeof state->partial);
	ms_bins_init(&state->bins);
	(void)ms_bins_add(&heap->arena, 0,
		(uint32_t)((ms_heap_committed(heap) - heap->data) >> MS_HEAP_UNIT_SHIFT));
	state->magic = MS_HEAP_MAGIC; /* last: from here on there is a heap */
}

MS_EXPORT int memslot_heap_create(struct memslot_slot *slot, const struct memslot_heap_opts *opts,
	struct memslot_heap **ret_heap)
{
	struct memslot_heap_opts taken;
	struct memslot_heap *heap, now;
	uint64_t headroom, size;
	int error;

	if (!slot || !ret_heap)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken, 0, opts);
	if (!error)
		error = lay_out(&now, slot, memslot_slot_capacity(slot)) ? 0 : -EMSGSIZE;
	if (!error)
		error = handle_of(slot, &heap);
	if (error)
		return error;
	headroom = taken.headroom == MEMSLOT_NONE ? 0
		   : taken.headroom		  ? ms_min(taken.headroom, now.capacity)
						  : HEADROOM;
	size = ms_min(now.data + MS_HEAP_RUN + headroom, now.capacity);
	error = memslot_slot_instantiate(slot, NULL, size);
	if (error)
		return error;
	settle(heap, &now);
	if (slot->on_reset) /* it may have written there */
		memset(slot->base, 0, heap->data);
	write_state(heap, headroom);
	heap->on_misuse = taken.on_misuse;
	heap->context = taken.context;
	*ret_heap = heap;
	return 0;
}

/* Where the heap that the slot holds lies, of which a guest may have written every byte. */
static int find_heap(struct memslot_slot *slot, struct memslot_heap *ret_now)
{
	const struct ms_heap_state *state = memslot_slot_base(slot);
	size_t capacity;

	if (memslot_slot_size(slot) < sizeof *state || state->magic != MS_HEAP_MAGIC)
		return -EUCLEAN;
	if (state->address != (uintptr_t)state)
		return -EADDRNOTAVAIL;
	capacity =
		*(const volatile uint64_t *)&state->capacity; /* what is compared is what is used */
	if (capacity > memslot_slot_capacity(slot))
		return -EMSGSIZE;
	return lay_out(ret_now, slot, capacity) ? 0 : -EUCLEAN;
}

MS_EXPORT int memslot_heap_open(struct memslot_slot *slot, struct memslot_heap **ret_heap)
{
	struct memslot_heap *heap, now;
	uint64_t before;
	int error;

	if (!slot || !ret_heap)
		return -EINVAL;
	error = ms_state_usable(slot);
	if (!error)
		error = find_heap(slot, &now);
	/* Without an image it was made here. */
	if (!error && slot->image)
		error = ms_program_check(slot->image);
	if (!error)
		error = handle_of(slot, &heap);
	if (error)
		return error;
	before = slot->heap_image;
	slot->heap_image = slot->image ? slot->image->serial : 0;
	error = memslot_heap_check(&now);
	if (error) {
		slot->heap_image = before;
		return error;
	}
	settle(heap, &now);
	*ret_heap = heap;
	return 0;
}

MS_EXPORT void memslot_heap_close(struct memslot_heap *heap)
{
	if (!heap || heap->references == 0 || --heap->references)
		return;
	heap->on_misuse = NULL; /* the slot keeps the handle, and frees it */
	heap->misuse = 0;
}

MS_EXPORT void memslot_heap_set_root(struct memslot_heap *heap, void *root)
{
	if (heap && ms_heap_ready(heap))
		heap->state->root = (uintptr_t)root;
}

MS_EXPORT void *memslot_heap_root(const struct memslot_heap *heap)
{
	return heap && ms_heap_ready(heap) ? (void *)(uintptr_t)heap->state->root : NULL;
}

MS_EXPORT int memslot_heap_check(const struct memslot_heap *heap)
{
	const struct ms_heap_state *state;
	struct ms_heap_count count = {0};
	uint64_t units;
	int error;

	if (!heap)
		return -EINVAL;
	error = ms_heap_state(heap);
	if (error)
		return error;
	state = heap->state;
	units = (ms_heap_committed(heap) - heap->data) >> MS_HEAP_UNIT_SHIFT;
	if (state->high > units || ms_heap_known(heap) > units || !ms_bins_check(&heap->arena) ||
		!ms_blocks_check(heap, &count) || !ms_small_check(heap, &count))
		return -EUCLEAN;
	return count.nodes == state->bins.live && count.live == state->live &&
			       count.live_bytes == state->live_bytes
		       ? 0
		       : -EUCLEAN;
}

MS_EXPORT int memslot_heap_stats(
	const struct memslot_heap *heap, struct memslot_heap_stats *ret_stats)
{
	struct memslot_heap_stats stats = {.size = sizeof stats};
	int error;

	if (!heap || !ret_stats)
		return -EINVAL;
	error = ms_heap_state(heap);
	if (error && error != -EUCLEAN)
		return error;
	stats.live = error ? 0 : heap->state->live;
	stats.live_bytes = error ? 0 : heap->state->live_bytes;
	stats.committed_bytes = memslot_slot_size(heap->slot);
	stats.misuse = heap->misuse;
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}
