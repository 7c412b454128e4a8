/* SPDX-License-Identifier: MIT */
/*
 * heap_model.h - heaps beside a list of objects: see test_heap_model.c.
 *
 *   heap_model_objects.c   what an interpreter does        heap_model_rewind.c   what its host does
 *
 * Every object is filled as far as it may be used, so that two that overlap, or that overlap with
 * what the heap keeps, are seen.
 */
#ifndef TESTS_HEAP_MODEL_H
#define TESTS_HEAP_MODEL_H

#include "model.h"
#include "slots.h"

#define OBJECTS 400
#define MOMENTS 4

struct heap_object {
	unsigned char *at;
	size_t usable;
	unsigned tag;
};

/* All that a checkpoint keeps. */
struct heap_moment {
	struct memslot_image *image; /* NULL: there is none */
	size_t committed;
	uint64_t live_bytes;
	void *root;
	unsigned count;
	struct heap_object object[OBJECTS];
};

struct heap_coverage {
	uint64_t operations, allocs, moved, stayed, refused, misuses, checkpoints, rewinds, older,
		boots, opened, exhausted;
};

struct heap_life {
	struct test_rng rng;
	struct memslot_slot *slot;
	struct memslot_heap *heap;
	struct memslot_heap_opts opts;
	size_t capacity;
	struct heap_moment now, moment[MOMENTS];
	unsigned shown; /* the moment that reset comes back to; MOMENTS: none */
	unsigned tags, references;
	uint64_t misuses, told;
	const void *told_of;
	struct heap_coverage *coverage;
};

/* --- heap_model_objects.c --- */
bool heap_chance(struct heap_life *life, unsigned percent);
struct memslot_heap_stats heap_stats(const struct heap_life *life);
void heap_compare(const struct heap_life *life, const struct heap_object *object);
void heap_check_all(struct heap_life *life);
void heap_op_alloc(struct heap_life *life);
void heap_op_realloc(struct heap_life *life);
void heap_op_free(struct heap_life *life);
void heap_op_misuse(struct heap_life *life);
void heap_op_root(struct heap_life *life);
void heap_op_exhaust(struct heap_life *life);

/* --- heap_model_rewind.c --- */
void heap_make(struct heap_life *life);
void heap_unmake(struct heap_life *life);
void heap_op_checkpoint(struct heap_life *life);
void heap_op_reset(struct heap_life *life);
void heap_op_older(struct heap_life *life);
void heap_op_boot(struct heap_life *life);
void heap_op_open(struct heap_life *life);

#endif
