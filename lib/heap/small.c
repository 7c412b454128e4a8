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

/* A 65536th of what divides by the units of a class, rounded up: exact for numbers of units in a
 * run, as these times the largest class are less than 65536. A division takes as long as all the
 * rest. */
#define PART(class) ((65536 + (class)) / ((class) + 1))
#define PARTS(class) PART(class), PART((class) + 1), PART((class) + 2), PART((class) + 3)
static const uint32_t parts[MS_HEAP_CLASSES] = {
	PARTS(0), PARTS(4), PARTS(8), PARTS(12), PARTS(16), PARTS(20), PARTS(24), PARTS(28)};
_Static_assert(MS_HEAP_CLASSES == 32 && WORDS * 64 * MS_HEAP_CLASSES < 65536, "parts");

/* Objects of the class in so many units. */
static uint32_t objects_of(uint32_t class, uint32_t units)
{
	return units * parts[class] >> 16;
}

static uint32_t objects_in(uint32_t class)
{
	return objects_of(class, (MS_HEAP_RUN - HEADER) >> MS_HEAP_UNIT_SHIFT);
}

/* Runs are numbered by address, so that they are aligned wherever the slot lies. */
static size_t number_at(const struct memslot_heap *heap, uintptr_t address)
{
	return (address >> MS_HEAP_RUN_SHIFT) - ((uintptr_t)heap->base >> MS_HEAP_RUN_SHIFT);
}

static bool run_numbered(const struct memslot_heap *heap, size_t number, struct ms_small *ret_small)
{
	uintptr_t address = (((uintptr_t)heap->base >> MS_HEAP_RUN_SHIFT) + number)
			    << MS_HEAP_RUN_SHIFT;
	uintptr_t first = (uintptr_t)heap->base + heap->data;
	uintptr_t end = (uintptr_t)heap->base + ms_heap_committed(heap);
	struct ms_heap_run *run = (struct ms_heap_run *)address;
	uint32_t class;

	if (number > heap->capacity >> MS_HEAP_RUN_SHIFT || address < first ||
		address + MS_HEAP_RUN > end)
		return false;
	class = heap->run_map[number] - 1u;
	if (class >= MS_HEAP_CLASSES || run->class != class)
		return false;
	*ret_small = (struct ms_small){run, (uint32_t)number, class};
	return true;
}

bool ms_small_at(const struct memslot_heap *heap, size_t offset, struct ms_small *ret_small)
{
	return run_numbered(heap, number_at(heap, (uintptr_t)heap->base + offset), ret_small);
}

uint32_t ms_small_object(
	const struct memslot_heap *heap, const struct ms_small *small, size_t offset)
{
	size_t within = (uintptr_t)heap->base + offset - (uintptr_t)small->run;
	uint32_t units = (uint32_t)(within - HEADER) >> MS_HEAP_UNIT_SHIFT, object;

	if (within < HEADER)
		return MS_HEAP_NONE;
	object = objects_of(small->class, units);
	if (object * (small->class + 1) != units || object >= objects_in(small->class) ||
		(small->run->map[object / 64] >> object % 64 & 1))
		return MS_HEAP_NONE;
	return object;
}

/* --- the list of runs with room --- */

static void link_run(struct memslot_heap *heap, const struct ms_small *small)
{
	volatile uint32_t *head = &heap->state->partial[small->class];
	struct ms_small next;
	bool linked = run_numbered(heap, *head, &next);

	small->run->prev = MS_HEAP_NONE;
	small->run->next = linked ? next.number : MS_HEAP_NONE;
	if (linked)
		next.run->prev = small->number;
	*head = small->number;
}

static void unlink_run(struct memslot_heap *heap, const struct ms_small *small)
{
	struct ms_small next, prev;
	bool before = run_numbered(heap, small->run->prev, &prev);
	bool behind = run_numbered(heap, small->run->next, &next);

	if (behind)
		next.run->prev = before ? prev.number : MS_HEAP_NONE;
	if (before)
		prev.run->next = behind ? next.number : MS_HEAP_NONE;
	else
		heap->state->partial[small->class] = behind ? next.number : MS_HEAP_NONE;
}

static bool run_new(struct memslot_heap *heap, uint32_t class, struct ms_small *ret_small)
{
	uint64_t units = MS_HEAP_RUN >> MS_HEAP_UNIT_SHIFT, fresh;
	uint32_t count = objects_in(class);
	struct ms_heap_run *run;
	struct ms_block block;

	if (!ms_blocks_take(heap, units, units, &block, &fresh))
		return false;
	run = (struct ms_heap_run *)(heap->base + block.offset);
	if ((uintptr_t)run & (MS_HEAP_RUN - 1))
		return false; /* nonsense; and runs that overlap could change each other's class */
	*run = (struct ms_heap_run){.class = class, .free = count, .node = block.node};
	for (uint32_t i = 0; i < count; i += 64)
		run->map[i / 64] = count - i >= 64 ? ~0ull : (1ull << (count - i)) - 1;
	*ret_small = (struct ms_small){run, (uint32_t)number_at(heap, (uintptr_t)run), class};
	heap->run_map[ret_small->number] = (uint8_t)(class + 1);
	link_run(heap, ret_small);
	return true;
}

/* --- objects --- */

/* A run of the class that has room. False: make one. */
static bool run_with_room(
	const struct memslot_heap *heap, uint32_t class, struct ms_small *ret_small)
{
	return run_numbered(heap, heap->state->partial[class], ret_small) &&
	       ret_small->class == class && ret_small->run->free;
}

void *ms_small_alloc(struct memslot_heap *heap, size_t size)
{
	uint32_t class = size ? (uint32_t)((size - 1) >> MS_HEAP_UNIT_SHIFT) : 0, word, object;
	struct ms_small small;
	uint64_t map = 0;

	if (MS_UNLIKELY(!run_with_room(heap, class, &small)) && !run_new(heap, class, &small))
		return NULL;
	for (word = small.run->hint; word < WORDS; word++) {
		map = small.run->map[word];
		if (map)
			break;
	}
	if (MS_UNLIKELY(map == 0))
		return NULL; /* nonsense */
	object = word * 64 + (uint32_t)__builtin_ctzll(map);
	if (MS_UNLIKELY(object >= objects_in(class)))
		return NULL;
	small.run->map[word] = map & (map - 1);
	small.run->hint = word;
	if (--small.run->free == 0)
		unlink_run(heap, &small);
	heap->state->live++;
	heap->state->live_bytes += ms_heap_class_bytes(class);
	return (unsigned char *)small.run + HEADER + object * ms_heap_class_bytes(class);
}

/* The node of an empty run, or MS_BINS_NONE: it makes no sense. */
static uint32_t own_node(const struct memslot_heap *heap, const struct ms_heap_run *run)
{
	uint32_t index = run->node;
	const struct ms_node *node;

	if (index >= heap->arena.node_max)
		return MS_BINS_NONE;
	node = &heap->arena.nodes[index];
	return ms_bins_used(node) && heap->base + heap->data +
						     ((size_t)node->offset << MS_HEAP_UNIT_SHIFT) ==
					     (const unsigned char *)run
		       ? index
		       : MS_BINS_NONE;
}

void ms_small_free(struct memslot_heap *heap, const struct ms_small *small, uint32_t object)
{
	struct ms_heap_run *run = small->run;
	uint32_t class = small->class, free = run->free + 1, node;

	run->map[object / 64] |= 1ull << object % 64;
	run->hint = (uint32_t)ms_min(run->hint, object / 64);
	heap->state->live--;
	heap->state->live_bytes -= ms_heap_class_bytes(class);
	run->free = free;
	if (free == 1)
		link_run(heap, small);
	if (free < objects_in(class) ||
		(heap->state->partial[class] == small->number && run->next == MS_HEAP_NONE))
		return;
	node = own_node(heap, run);
	if (node == MS_BINS_NONE)
		return;
	unlink_run(heap, small);
	heap->run_map[small->number] = 0;
	ms_bins_free(&heap->arena, node);
}

static bool check_run(const struct memslot_heap *heap, const struct ms_small *small)
{
	const struct ms_heap_run *run = small->run;
	uint32_t free = 0, count = objects_in(small->class);

	for (uint32_t i = 0; i < WORDS; i++)
		free += (uint32_t)__builtin_popcountll(run->map[i]);
	for (uint32_t i = count; i < WORDS * 64; i++) {
		if (run->map[i / 64] >> i % 64 & 1)
			return false;
	}
	return free == run->free && own_node(heap, run) != MS_BINS_NONE && run->hint < WORDS;
}

static void add_run(struct ms_heap_count *count, const struct ms_small *small)
{
	uint32_t live = objects_in(small->class) - small->run->free;

	count->nodes++;
	count->live += live;
	count->live_bytes += live * ms_heap_class_bytes(small->class);
}

/* The list of a class: its runs have room, and are linked both ways. */
static bool check_class(const struct memslot_heap *heap, uint32_t class, size_t runs)
{
	uint32_t number = heap->state->partial[class], prev = MS_HEAP_NONE;

	for (size_t steps = 0; number != MS_HEAP_NONE; steps++) {
		struct ms_small small;
		if (!run_numbered(heap, number, &small) || small.class != class ||
			small.run->prev != prev || !small.run->free || steps > runs)
			return false;
		prev = number;
		number = small.run->next;
	}
	return true;
}

bool ms_small_check(const struct memslot_heap *heap, struct ms_heap_count *count)
{
	size_t runs = heap->capacity >> MS_HEAP_RUN_SHIFT;

	for (size_t i = 0; i <= runs; i++) {
		struct ms_small small;
		bool run = run_numbered(heap, i, &small);
		if (heap->run_map[i] && (!run || !check_run(heap, &small)))
			return false;
		if (run)
			add_run(count, &small);
	}
	for (uint32_t class = 0; class < MS_HEAP_CLASSES; class ++) {
		if (!check_class(heap, class, runs))
			return false;
	}
	return true;
}
