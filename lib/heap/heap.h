/* SPDX-License-Identifier: MIT */
/*
 * heap.h - a heap's state, in the slot, and its handle, outside.
 *
 *   heap.c    handles: create, open, questions        small.c   objects of up to 512 bytes
 *   blocks.c  larger ones                             alloc.c   malloc, realloc, free
 *
 * Whatever is read from struct ms_heap_state, maps, runs and nodes may be nonsense, and become
 * other nonsense while a call runs: offsets, indices and classes are read once (they are volatile,
 * so that the compiler does not read them again), compared with the handle's limits, and handed on
 * by value, in struct ms_block and struct ms_small.
 */
#ifndef MS_HEAP_H
#define MS_HEAP_H

#include "ranges/bins.h"
#include "slot/slot.h"

#include <errno.h>

#include <memslot/heap.h>

#define MS_HEAP_MAGIC 0x7061656873736d32ull /* "2mssheap" */
#define MS_HEAP_UNIT_SHIFT 4
#define MS_HEAP_UNIT (1u << MS_HEAP_UNIT_SHIFT)
#define MS_HEAP_SMALL_MAX 512u
#define MS_HEAP_CLASSES                                                                            \
	(MS_HEAP_SMALL_MAX / MS_HEAP_UNIT) /* class c: objects of 16 * (c + 1) bytes */
#define MS_HEAP_RUN_SHIFT 14
#define MS_HEAP_RUN (1u << MS_HEAP_RUN_SHIFT) /* bytes, and their alignment in the slot */
#define MS_HEAP_GRAIN_SHIFT 9		      /* a block is longer: at most one begins in a grain */
#define MS_HEAP_NONE UINT32_MAX

/* At the slot's first byte. */
struct ms_heap_state {
	volatile uint64_t magic;
	volatile uint64_t address;	      /* of the slot when it was made */
	volatile uint64_t capacity, headroom; /* the capacity of the slot when it was made */
	volatile uint64_t root;
	volatile uint64_t live, live_bytes;
	volatile uint32_t first, last;		    /* nodes of the one region */
	volatile uint32_t high;			    /* units from here on nobody has had */
	volatile uint32_t partial[MS_HEAP_CLASSES]; /* a run with room, or NONE */
	struct ms_bins bins;
};

/* At the first byte of a run; then its objects. */
struct ms_heap_run {
	volatile uint32_t class, free; /* objects of 16 * (class + 1) bytes; how many are free */
	volatile uint32_t next, prev;  /* runs of the class that have room */
	volatile uint32_t node;
	volatile uint32_t hint; /* words of `map` below have no free object */
	volatile uint64_t map[MS_HEAP_RUN / MS_HEAP_UNIT / 64]; /* bit set: free */
};

/* A run and a block as they were when they were looked at. */
struct ms_small {
	struct ms_heap_run *run;
	uint32_t number, class; /* by address; below MS_HEAP_CLASSES */
};

struct ms_block {
	uint32_t node, units; /* committed up to its end */
	size_t offset;	      /* bytes, in the slot */
};

/* The handle: what is known for certain. */
struct memslot_heap {
	struct memslot_slot *slot;
	unsigned char *base;
	struct ms_heap_state *state;
	size_t capacity, data; /* the recorded one; objects lie in [data, capacity) of the slot */
	volatile uint8_t *run_map; /* of each run-sized stretch of the slot: class + 1, or 0 */
	volatile uint32_t
		*grain_map; /* of each grain: node + 1 of the block that begins there, or 0 */
	struct ms_arena arena;
	uint32_t bias;
	unsigned references;
	uint64_t misuse;
	void (*on_misuse)(struct memslot_heap *heap, const void *ptr, void *context);
	void *context;
};

/* May the slot be read, and does it show the heap that was made or opened? -ESTALE, -EUCLEAN. */
static inline int ms_heap_state(const struct memslot_heap *heap)
{
	int error = MS_LIKELY(ms_state_plain(heap->slot)) ? 0 : ms_state_usable(heap->slot);

	if (error)
		return error;
	return ms_slot_size(heap->slot) > heap->data && ms_slot_shows_heap(heap->slot) &&
			       heap->state->magic == MS_HEAP_MAGIC &&
			       heap->state->capacity == heap->capacity
		       ? 0
		       : -EUCLEAN;
}

static inline bool ms_heap_ready(const struct memslot_heap *heap)
{
	return MS_LIKELY(ms_heap_state(heap) == 0);
}

/* Bytes of the slot that are the heap's: it ends where it would in the slot that it was made in. */
static inline size_t ms_heap_committed(const struct memslot_heap *heap)
{
	return ms_min(ms_slot_size(heap->slot), heap->capacity);
}

/* Units that the bins know of: what is committed beyond was not asked for by the heap. */
static inline uint64_t ms_heap_known(const struct memslot_heap *heap)
{
	return heap->state->bins.free_units + heap->state->bins.live_units;
}

static inline size_t ms_block_bytes(const struct ms_block *block)
{
	return (size_t)block->units << MS_HEAP_UNIT_SHIFT;
}

/* What a check found: used nodes, objects, and their bytes. */
struct ms_heap_count {
	uint64_t nodes, live, live_bytes;
};

/* --- blocks.c --- */
/* A block of units, committed. *ret_fresh: units at its end that are zero. */
MS_HIDDEN bool ms_blocks_take(struct memslot_heap *heap, uint64_t units, uint64_t align_units,
	struct ms_block *ret_block, uint64_t *ret_fresh);
/* *ret_used: bytes at its start that somebody may have had. */
MS_HIDDEN void *ms_blocks_alloc(
	struct memslot_heap *heap, size_t size, size_t align, size_t *ret_used);
/* The live block that begins there. */
MS_HIDDEN bool ms_blocks_at(
	const struct memslot_heap *heap, size_t offset, struct ms_block *ret_block);
MS_HIDDEN void ms_blocks_free(struct memslot_heap *heap, const struct ms_block *block);
/* In place. */
MS_HIDDEN bool ms_blocks_resize(
	struct memslot_heap *heap, const struct ms_block *block, size_t size);
MS_HIDDEN bool ms_blocks_check(const struct memslot_heap *heap, struct ms_heap_count *count);

/* --- small.c --- */
MS_HIDDEN void *ms_small_alloc(struct memslot_heap *heap, size_t size);
/* The run that an offset lies in. False: none, or nonsense. */
MS_HIDDEN bool ms_small_at(
	const struct memslot_heap *heap, size_t offset, struct ms_small *ret_small);
/* The number of the live object that begins there, or MS_HEAP_NONE. */
MS_HIDDEN uint32_t ms_small_object(
	const struct memslot_heap *heap, const struct ms_small *small, size_t offset);
MS_HIDDEN void ms_small_free(
	struct memslot_heap *heap, const struct ms_small *small, uint32_t object);
MS_HIDDEN bool ms_small_check(const struct memslot_heap *heap, struct ms_heap_count *count);

static inline size_t ms_heap_class_bytes(uint32_t class)
{
	return (size_t)(class + 1) << MS_HEAP_UNIT_SHIFT;
}

#endif
