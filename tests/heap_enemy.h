/* SPDX-License-Identifier: MIT */
/*
 * heap_enemy.h - a guest that writes whatever it likes into its heap's state: see heap_enemy.c.
 */
#ifndef TESTS_HEAP_ENEMY_H
#define TESTS_HEAP_ENEMY_H

#include "heap/heap.h"

#include <stddef.h>
#include <stdint.h>

/* Kinds of places that are spoilt; ENEMY_PLACES: how many. */
enum {
	ENEMY_STATE,
	ENEMY_BINS,
	ENEMY_NODES,
	ENEMY_GRAINS,
	ENEMY_RUNS,
	ENEMY_RUN_HEADS,
	ENEMY_ANYWHERE,
	ENEMY_REST,
	ENEMY_PLACES
};

/* The slot and heap that all runs have, as booted. */
struct memslot_heap *enemy_heap(void);
/* Write `size` bytes of value at the number-th place of a kind: any number, any value. */
void enemy_spoil(unsigned place, uint32_t number, uint32_t value, unsigned size);
/* Bytes are calls and spoilt places, one after the other; then the slot is reset, and its heap must
 * be as booted. Aborts when something outside was touched or an answer cannot be. */
void enemy_run(const uint8_t *bytes, size_t size);

#endif
