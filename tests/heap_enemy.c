/* SPDX-License-Identifier: MIT */
/*
 * heap_enemy.c - bytes become calls of a heap, and nonsense written into its state.
 *
 * Invariant, whatever the slot holds: the library returns; what it hands out lies in the slot's
 * objects, all of it; the handle, which lies outside, changes by its count of misuse only. Outside
 * lie guards: one byte beyond is a crash. A reset then brings back the heap as booted.
 */
#define _GNU_SOURCE
#include "heap_enemy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY ((size_t)2 << 20)
#define OBJECTS 64u
#define CALLS_MAX 200u

#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "heap_enemy: line %d: %s\n", __LINE__, #condition);        \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static struct memslot_slot *slot;
static struct memslot_heap *heap;
static struct memslot_heap_stats booted;
static void *object[OBJECTS], *now[OBJECTS];

/* Bytes that are left. */
struct input {
	const uint8_t *at, *end;
};

static uint32_t take(struct input *input, unsigned bytes)
{
	uint32_t value = 0;

	while (bytes--)
		value = value << 8 | (input->at < input->end ? *input->at++ : 0);
	return value;
}

/* --- the heap as booted --- */

static struct memslot_heap_stats stats(void)
{
	struct memslot_heap_stats read = {.size = sizeof read};

	MUST(memslot_heap_stats(heap, &read) == 0);
	return read;
}

static void end(void)
{
	memslot_heap_close(heap);
	(void)memslot_slot_destroy(slot);
}

static void boot(void)
{
	static const size_t sizes[] = {16, 24, 100, 512, 513, 3000, 64, 20000};
	struct memslot_heap_opts opts = MEMSLOT_OPTS(memslot_heap_opts, .headroom = 64u << 10);

	MUST(memslot_slot_create(CAPACITY, NULL, &slot) == 0);
	MUST(memslot_heap_create(slot, &opts, &heap) == 0);
	for (unsigned i = 0; i < OBJECTS; i++)
		object[i] = memslot_heap_alloc(heap, sizes[i % 8], i % 5 ? 0 : 256);
	for (unsigned i = 0; i < OBJECTS; i += 3)
		memslot_heap_free(heap, object[i]); /* some pointers are from the past */
	MUST(memslot_slot_checkpoint(slot, NULL) == 0);
	booted = stats();
	atexit(end);
}

struct memslot_heap *enemy_heap(void)
{
	if (!heap)
		boot();
	return heap;
}

/* --- spoiling --- */

static unsigned char *spoilt(unsigned place, uint32_t number, size_t *ret_room)
{
	unsigned char *base = heap->base;
	size_t size = memslot_slot_size(slot), run = number % 16;

	switch (place) {
	case ENEMY_STATE:
		*ret_room = sizeof *heap->state;
		return base;
	case ENEMY_BINS:
		*ret_room = sizeof heap->state->bins;
		return (unsigned char *)&heap->state->bins;
	case ENEMY_NODES: /* those that are used, mostly */
		*ret_room = (number % 8 ? 150 : heap->arena.node_max) * sizeof(struct ms_node);
		return (unsigned char *)heap->arena.nodes;
	case ENEMY_GRAINS:
		*ret_room = size >> MS_HEAP_GRAIN_SHIFT << 2;
		return (unsigned char *)heap->grain_map;
	case ENEMY_RUNS:
		*ret_room = (CAPACITY >> MS_HEAP_RUN_SHIFT) + 2;
		return (unsigned char *)heap->run_map;
	case ENEMY_RUN_HEADS:
		*ret_room = sizeof(struct ms_heap_run);
		return base + heap->data + run * MS_HEAP_RUN;
	default:
		*ret_room = size;
		return base;
	}
}

/* A node that is in use or free rests, too, and is the next to be had: two in one. */
static void spoil_rest(uint32_t number, uint32_t value)
{
	struct ms_bins *bins = &heap->state->bins;

	bins->resting = value % 2000;
	bins->rest_first = number % 4 ? number % 100 : bins->head[number / 4 % MS_BINS_CLASSES];
}

void enemy_spoil(unsigned place, uint32_t number, uint32_t value, unsigned size)
{
	size_t room, at;
	unsigned char *start = spoilt(place % ENEMY_PLACES, number, &room);

	if (place % ENEMY_PLACES == ENEMY_REST) {
		spoil_rest(number, value);
		return;
	}
	at = number % room & ~(size_t)(size - 1);
	if (at + size <= room && start + room <= heap->base + memslot_slot_size(slot))
		memcpy(start + at, &value, size);
}

/* Numbers that mean something to what reads them. */
static uint32_t telling(uint32_t chosen)
{
	static const uint32_t special[] = {0, 1, 2, 31, 32, 33, UINT32_MAX, UINT32_MAX - 1,
		MS_BINS_USED, MS_BINS_USED | 1, INT32_MAX, 1u << 30, 1024, 1023};

	return chosen < 64    ? special[chosen % (sizeof special / sizeof special[0])]
	       : chosen < 192 ? chosen - 64
			      : chosen * 0x01010101u;
}

static void op_spoil(struct input *input)
{
	unsigned place = take(input, 1), sizes = take(input, 1);
	uint32_t number = take(input, 3), chosen = take(input, 1);
	uint32_t value = sizes & 4 ? take(input, 4) : telling(chosen);

	enemy_spoil(place, number, value, 1u << sizes % 3);
}

/* --- calls --- */

static size_t some_size(struct input *input)
{
	uint32_t kind = take(input, 1), value = take(input, 2);

	if (kind < 128)
		return value % 600;
	return kind < 250 ? value * (kind % 4 + 1) : (size_t)value << (kind % 4 * 16);
}

/* A pointer of the past or present, or any at all, also beside the slot. */
static void *some_pointer(struct input *input)
{
	uint32_t which = take(input, 1);

	if (which < 3 * OBJECTS)
		return now[which % OBJECTS];
	return heap->base - 4096 + take(input, 3) % (CAPACITY + 8192);
}

/* All of it is objects' memory, and the guest uses it. */
static void use(void *ptr, size_t size, struct input *input)
{
	unsigned char *at = ptr, *end = heap->base + memslot_slot_size(slot);

	if (!ptr)
		return;
	MUST(at >= heap->base + heap->data && at < end && size <= (size_t)(end - at));
	MUST((uintptr_t)ptr % MS_HEAP_UNIT == 0);
	memset(ptr, (int)size, size);
	now[take(input, 1) % OBJECTS] = ptr;
}

static void op_alloc(struct input *input)
{
	size_t size = some_size(input), align = (size_t)1 << take(input, 1) % 16;

	use(memslot_heap_alloc(heap, size, align), size, input);
}

static void op_zeroed(struct input *input)
{
	size_t size = some_size(input);

	use(memslot_heap_alloc_zeroed(heap, 1, size), size, input);
}

static void op_realloc(struct input *input)
{
	void *ptr = some_pointer(input);
	size_t size = some_size(input);

	use(memslot_heap_realloc(heap, ptr, size), size, input);
}

static void op_free(struct input *input)
{
	memslot_heap_free(heap, some_pointer(input));
}

static void op_ask(struct input *input)
{
	unsigned char *ptr = some_pointer(input), *end = heap->base + memslot_slot_size(slot);
	size_t usable = memslot_heap_usable_size(heap, ptr);

	MUST(usable == 0 ||
		(ptr >= heap->base + heap->data && ptr < end && usable <= (size_t)(end - ptr)));
	memslot_heap_set_root(heap, ptr);
	(void)memslot_heap_root(heap);
}

static void op_check(struct input *input)
{
	struct memslot_heap *again = NULL;
	int answer = memslot_heap_check(heap);

	(void)input;
	MUST(answer == 0 || answer == -EUCLEAN);
	answer = memslot_heap_open(slot, &again);
	MUST(answer == 0 || answer == -EUCLEAN || answer == -EADDRNOTAVAIL || answer == -EMSGSIZE ||
		answer == -ESTALE);
	MUST(answer || again == heap);
	if (answer == 0)
		memslot_heap_close(again);
	(void)stats();
}

static void op_rewind(struct input *input)
{
	if (take(input, 1) < 16)
		MUST(memslot_slot_reset(slot) == 0);
}

static void (*const ops[])(struct input *input) = {op_spoil, op_spoil, op_alloc, op_alloc,
	op_zeroed, op_realloc, op_realloc, op_free, op_free, op_ask, op_check, op_rewind};

/* --- a run --- */

static void check_handle(const struct memslot_heap *before)
{
	struct memslot_heap compared = *heap;

	compared.misuse = before->misuse;
	MUST(memcmp(&compared, before, sizeof compared) == 0);
	MUST(memslot_slot_size(slot) <= CAPACITY);
}

static void check_booted(void)
{
	struct memslot_heap_stats read = stats();

	MUST(memslot_heap_check(heap) == 0);
	MUST(read.live == booted.live && read.live_bytes == booted.live_bytes &&
		read.committed_bytes == booted.committed_bytes);
	for (unsigned i = 0; i < OBJECTS; i++)
		MUST((memslot_heap_usable_size(heap, object[i]) == 0) == (i % 3 == 0));
}

void enemy_run(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, bytes + size};
	struct memslot_heap before = *enemy_heap();

	memcpy(now, object, sizeof now);
	for (unsigned calls = 0; input.at < input.end && calls < CALLS_MAX; calls++) {
		ops[take(&input, 1) % (sizeof ops / sizeof ops[0])](&input);
		check_handle(&before);
	}
	MUST(memslot_slot_reset(slot) == 0);
	check_booted();
}
