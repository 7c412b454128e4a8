/* SPDX-License-Identifier: MIT */
/*
 * small.c - objects of up to 512 bytes, in runs of one size.
 *
 *   run, 16 KiB, aligned: [ class, free, map of free objects | object | object | .. ]
 *
 * Invariant: a bit of the map is set when its object is free, so that a second free is noticed, and
 * nothing in a free object is ever read. A run with room hangs in its class's list; the last empty
 * one of a class stays. Everything in a run may be nonsense: class, links and numbers are compared
 * before they are used, and a run that makes no sense is left alone.
 */
#include "heap/heap.h"

#define HEADER ((sizeof(struct ms_heap_run) + MS_HEAP_UNIT - 1) & ~(size_t)(MS_HEAP_UNIT - 1))
#define WORDS (MS_HEAP_RUN / MS_HEAP_UNIT / 64)

static uint32_t objects_in(uint32_t class)
{
	return (uint32_t)((MS_HEAP_RUN - HEADER) / ms_heap_class_bytes(class));
}

/* Runs are numbered by address, so that they are aligned wherever the slot lies. */
static size_t number_at(const struct memslot_heap *heap, uintptr_t address)
{
	return (address >> MS_HEAP_RUN_SHIFT) - ((uintptr_t)heap->base >> MS_HEAP_RUN_SHIFT);
}

static struct ms_heap_run *run_numbered(const struct memslot_heap *heap, size_t number)
{
	uintptr_t address = (((uintptr_t)heap->base >> MS_HEAP_RUN_SHIFT) + number)
			    << MS_HEAP_RUN_SHIFT;
	uintptr_t first = (uintptr_t)heap->base + heap->data;
	uintptr_t end = (uintptr_t)heap->base + ms_heap_committed(heap);
	struct ms_heap_run *run = (struct ms_heap_run *)address;

	if (number > heap->capacity >> MS_HEAP_RUN_SHIFT || address < first ||
		address + MS_HEAP_RUN > end || heap->run_map[number] == 0)
		return NULL;
	return run->class < MS_HEAP_CLASSES && heap->run_map[number] == run->class + 1 ? run : NULL;
}

struct ms_heap_run *ms_small_at(const struct memslot_heap *heap, size_t offset)
{
	return run_numbered(heap, number_at(heap, (uintptr_t)heap->base + offset));
}

uint32_t ms_small_object(
	const struct memslot_heap *heap, const struct ms_heap_run *run, size_t offset)
{
	size_t within = (uintptr_t)heap->base + offset - (uintptr_t)run - HEADER;
	size_t bytes = ms_heap_class_bytes(run->class), object = within / bytes;

	if (within % bytes || object >= objects_in(run->class) ||
		(run->map[object / 64] >> object % 64 & 1))
		return MS_HEAP_NONE;
	return (uint32_t)object;
}

/* --- the list of runs with room --- */

static uint32_t number_of(const struct memslot_heap *heap, const struct ms_heap_run *run)
{
	return (uint32_t)number_at(heap, (uintptr_t)run);
}

static void link_run(struct memslot_heap *heap, struct ms_heap_run *run)
{
	uint32_t *head = &heap->state->partial[run->class];
	struct ms_heap_run *next = run_numbered(heap, *head);

	run->prev = MS_HEAP_NONE;
	run->next = next ? *head : MS_HEAP_NONE;
	if (next)
		next->prev = number_of(heap, run);
	*head = number_of(heap, run);
}

static void unlink_run(struct memslot_heap *heap, struct ms_heap_run *run)
{
	struct ms_heap_run *next = run_numbered(heap, run->next);
	struct ms_heap_run *prev = run_numbered(heap, run->prev);

	if (next)
		next->prev = run->prev;
	if (prev)
		prev->next = run->next;
	else
		heap->state->partial[run->class] = next ? run->next : MS_HEAP_NONE;
}

static struct ms_heap_run *run_new(struct memslot_heap *heap, uint32_t class)
{
	uint64_t units = MS_HEAP_RUN >> MS_HEAP_UNIT_SHIFT, fresh;
	uint32_t node = ms_blocks_take(heap, units, units, &fresh), count = objects_in(class);
	struct ms_heap_run *run;

	if (node == MS_BINS_NONE)
		return NULL;
	run = (struct ms_heap_run *)(heap->base + heap->data +
				     ((size_t)heap->arena.nodes[node].offset
					     << MS_HEAP_UNIT_SHIFT));
	if ((uintptr_t)run & (MS_HEAP_RUN - 1))
		return NULL; /* nonsense; and runs that overlap could change each other's class */
	*run = (struct ms_heap_run){.class = class, .free = count, .node = node};
	for (uint32_t i = 0; i < count; i += 64)
		run->map[i / 64] = count - i >= 64 ? ~0ull : (1ull << (count - i)) - 1;
	heap->run_map[number_of(heap, run)] = (uint8_t)(class + 1);
	link_run(heap, run);
	return run;
}

/* --- objects --- */

/* A run of the class that has room, or NULL: make one. */
static struct ms_heap_run *run_with_room(const struct memslot_heap *heap, uint32_t class)
{
	struct ms_heap_run *run = run_numbered(heap, heap->state->partial[class]);

	return run && run->class == class && run->free && run->hint < WORDS ? run : NULL;
}

void *ms_small_alloc(struct memslot_heap *heap, size_t size)
{
	uint32_t class = size ? (uint32_t)((size - 1) >> MS_HEAP_UNIT_SHIFT) : 0, word, object;
	struct ms_heap_run *run = run_with_room(heap, class);

	if (MS_UNLIKELY(!run))
		run = run_new(heap, class);
	if (!run)
		return NULL;
	for (word = run->hint; word < WORDS - 1 && run->map[word] == 0; word++)
		;
	if (MS_UNLIKELY(run->map[word] == 0))
		return NULL; /* nonsense */
	object = word * 64 + (uint32_t)__builtin_ctzll(run->map[word]);
	if (MS_UNLIKELY(object >= objects_in(class)))
		return NULL;
	run->map[word] &= run->map[word] - 1;
	run->hint = word;
	if (--run->free == 0)
		unlink_run(heap, run);
	heap->state->live++;
	heap->state->live_bytes += ms_heap_class_bytes(class);
	return (unsigned char *)run + HEADER + object * ms_heap_class_bytes(class);
}

/* The node of an empty run, if it makes sense. */
static bool owns_node(const struct memslot_heap *heap, const struct ms_heap_run *run)
{
	const struct ms_node *node;

	if (run->node >= heap->arena.node_max)
		return false;
	node = &heap->arena.nodes[run->node];
	return ms_bins_used(node) &&
	       heap->base + heap->data + ((size_t)node->offset << MS_HEAP_UNIT_SHIFT) ==
		       (const unsigned char *)run;
}

void ms_small_free(struct memslot_heap *heap, struct ms_heap_run *run, uint32_t object)
{
	uint32_t class = run->class;

	run->map[object / 64] |= 1ull << object % 64;
	run->hint = (uint32_t)ms_min(run->hint, object / 64);
	heap->state->live--;
	heap->state->live_bytes -= ms_heap_class_bytes(class);
	if (run->free++ == 0)
		link_run(heap, run);
	if (run->free < objects_in(class) ||
		(heap->state->partial[class] == number_of(heap, run) && run->next == MS_HEAP_NONE))
		return;
	if (!owns_node(heap, run))
		return;
	unlink_run(heap, run);
	heap->run_map[number_of(heap, run)] = 0;
	ms_bins_free(&heap->arena, run->node);
}

static bool check_run(const struct memslot_heap *heap, const struct ms_heap_run *run)
{
	uint32_t free = 0, count = objects_in(run->class);

	for (uint32_t i = 0; i < WORDS; i++)
		free += (uint32_t)__builtin_popcountll(run->map[i]);
	for (uint32_t i = count; i < WORDS * 64; i++) {
		if (run->map[i / 64] >> i % 64 & 1)
			return false;
	}
	return free == run->free && owns_node(heap, run) && run->hint < WORDS;
}

static void add_run(struct ms_heap_count *count, const struct ms_heap_run *run)
{
	uint32_t live = objects_in(run->class) - run->free;

	count->nodes++;
	count->live += live;
	count->live_bytes += live * ms_heap_class_bytes(run->class);
}

bool ms_small_check(const struct memslot_heap *heap, struct ms_heap_count *count)
{
	size_t runs = heap->capacity >> MS_HEAP_RUN_SHIFT;

	for (size_t i = 0; i <= runs; i++) {
		const struct ms_heap_run *run = run_numbered(heap, i);
		if (heap->run_map[i] && (!run || !check_run(heap, run)))
			return false;
		if (run)
			add_run(count, run);
	}
	for (uint32_t class = 0; class < MS_HEAP_CLASSES; class ++) {
		uint32_t number = heap->state->partial[class], prev = MS_HEAP_NONE;
		for (size_t steps = 0; number != MS_HEAP_NONE; steps++) {
			const struct ms_heap_run *run = run_numbered(heap, number);
			if (!run || run->class != class || run->prev != prev || !run->free ||
				steps > runs)
				return false;
			prev = number;
			number = run->next;
		}
	}
	return true;
}
