/* SPDX-License-Identifier: MIT */
/* heap_model_objects.c - objects are made, moved and freed, rightly and wrongly. */
#define _GNU_SOURCE
#include "heap_model.h"

#include <errno.h>
#include <string.h>

bool heap_chance(struct heap_life *life, unsigned percent)
{
	return test_below(&life->rng, 100) < percent;
}

struct memslot_heap_stats heap_stats(const struct heap_life *life)
{
	struct memslot_heap_stats stats = {.size = sizeof stats};

	model_expect(memslot_heap_stats(life->heap, &stats), 0);
	return stats;
}

/* --- comparing --- */

void heap_compare(const struct heap_life *life, const struct heap_object *object)
{
	if (memslot_heap_usable_size(life->heap, object->at) != object->usable)
		model_fail(
			"object %p of %zu bytes is not known", (void *)object->at, object->usable);
	if (!test_filled(object->at, object->usable, object->tag))
		model_fail(
			"object %p of %zu bytes has changed", (void *)object->at, object->usable);
}

static void check_number(const char *name, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		model_fail("%s is %zu, expected %zu", name, (size_t)got, (size_t)wanted);
}

void heap_check_all(struct heap_life *life)
{
	struct memslot_heap_stats stats = heap_stats(life);

	model_expect(memslot_heap_check(life->heap), 0);
	for (unsigned i = 0; i < life->now.count; i++)
		heap_compare(life, &life->now.object[i]);
	check_number("live", stats.live, life->now.count);
	check_number("live_bytes", stats.live_bytes, life->now.live_bytes);
	check_number("committed_bytes", stats.committed_bytes, memslot_slot_size(life->slot));
	check_number("misuse", stats.misuse, life->misuses);
	check_number("misuses told", life->told, life->opts.on_misuse ? life->misuses : 0);
	if (memslot_heap_root(life->heap) != life->now.root)
		model_fail("the root is another one");
}

/* --- alloc --- */

static size_t some_size(struct heap_life *life)
{
	static const size_t most[] = {17, 130, 130, 520, 1100, 20000, 300000};

	return test_below(&life->rng, most[test_below(&life->rng, 7)]);
}

/* Refused: all was committed, or it could never fit. */
static void check_refused(struct heap_life *life, size_t size, size_t align)
{
	life->coverage->refused++;
	if (size + align < life->capacity / 2 && memslot_slot_size(life->slot) != life->capacity)
		model_fail(
			"%zu bytes, align %zu refused though more could be committed", size, align);
}

static void keep(
	struct heap_life *life, struct heap_object *object, void *at, size_t size, size_t align)
{
	unsigned char *base = base_of(life->slot);
	size_t usable = memslot_heap_usable_size(life->heap, at);

	*object = (struct heap_object){at, usable, ++life->tags};
	if (usable < size || object->at < base ||
		object->at + usable > base + memslot_slot_size(life->slot) || (uintptr_t)at % 16 ||
		(align && (uintptr_t)at % align))
		model_fail("%p is no place for %zu bytes, align %zu", at, size, align);
	test_fill(at, usable, object->tag);
	life->now.live_bytes += usable;
}

void heap_op_alloc(struct heap_life *life)
{
	size_t size = some_size(life),
	       align = heap_chance(life, 80) ? 0 : 1ull << test_below(&life->rng, 15);
	bool zeroed = heap_chance(life, 30);
	unsigned char *at;

	if (life->now.count == OBJECTS)
		return;
	align = zeroed ? 0 : align;
	at = zeroed ? memslot_heap_alloc_zeroed(
			      life->heap, size % 7 ? 1 : 7, size % 7 ? size : size / 7)
		    : memslot_heap_alloc(life->heap, size, align);
	model_log("alloc %zu align %zu%s: %p", size, align, zeroed ? " zeroed" : "", (void *)at);
	life->coverage->allocs++;
	if (!at) {
		check_refused(life, size, align);
		return;
	}
	if (zeroed && !test_zero(at, size))
		model_fail("%zu bytes are not zero", size);
	keep(life, &life->now.object[life->now.count++], at, size, align);
}

/* --- realloc and free --- */

static struct heap_object *some_object(struct heap_life *life)
{
	return life->now.count ? &life->now.object[test_below(&life->rng, life->now.count)] : NULL;
}

static void drop(struct heap_life *life, struct heap_object *object)
{
	life->now.live_bytes -= object->usable;
	*object = life->now.object[--life->now.count];
}

void heap_op_realloc(struct heap_life *life)
{
	struct heap_object *object = some_object(life), before;
	size_t size = heap_chance(life, 5) ? 0 : some_size(life), kept;
	unsigned char *at;

	if (!object)
		return;
	before = *object;
	heap_compare(life, object);
	at = memslot_heap_realloc(life->heap, before.at, size);
	model_log(
		"realloc %p of %zu to %zu: %p", (void *)before.at, before.usable, size, (void *)at);
	if (!at && size) {
		if (size <= before.usable)
			model_fail("an object could not be made smaller");
		check_refused(life, size, 0);
		heap_compare(life, object);
		return;
	}
	if (size == 0) {
		if (at)
			model_fail("an object of 0 bytes was left");
		drop(life, object);
		return;
	}
	kept = size < before.usable ? size : before.usable;
	if (!test_filled(at, kept, before.tag))
		model_fail("realloc lost bytes");
	life->now.live_bytes -= before.usable;
	keep(life, object, at, size, 0);
	*(at == before.at ? &life->coverage->stayed : &life->coverage->moved) += 1;
}

void heap_op_free(struct heap_life *life)
{
	struct heap_object *object = some_object(life);

	if (!object)
		return;
	heap_compare(life, object);
	model_log("free %p", (void *)object->at);
	memslot_heap_free(life->heap, object->at);
	drop(life, object);
}

/* --- misuse --- */

static void misuse(struct heap_life *life, unsigned char *at)
{
	model_log("misuse: %p", (void *)at);
	if (memslot_heap_usable_size(life->heap, at))
		model_fail("%p is taken for an object", (void *)at);
	if (heap_chance(life, 50))
		memslot_heap_free(life->heap, at);
	else if (memslot_heap_realloc(life->heap, at, 50))
		model_fail("%p was moved", (void *)at);
	life->misuses++;
	if (life->opts.on_misuse && life->told_of != at)
		model_fail("misuse of another pointer was told");
	life->coverage->misuses++;
}

/* Twice, inside an object, in front, foreign. */
void heap_op_misuse(struct heap_life *life)
{
	struct heap_object *object = some_object(life);
	unsigned char *base = base_of(life->slot);
	int local;

	if (!object)
		return;
	misuse(life, object->at + 1 + test_below(&life->rng, 15));
	if (object->usable > 16)
		misuse(life, object->at + 16);
	misuse(life, base + test_below(&life->rng, 4096));
	misuse(life, (unsigned char *)&local);
	misuse(life, base + life->capacity);
	memslot_heap_free(life->heap, object->at);
	misuse(life, object->at);
	drop(life, object);
	memslot_heap_free(life->heap, NULL);
}

/* --- the rest --- */

void heap_op_root(struct heap_life *life)
{
	const struct heap_object *object = some_object(life);

	life->now.root = object ? object->at : NULL;
	memslot_heap_set_root(life->heap, life->now.root);
	if (memslot_heap_alloc(life->heap, 16, 3) || memslot_heap_alloc(life->heap, SIZE_MAX, 0) ||
		memslot_heap_alloc_zeroed(life->heap, SIZE_MAX / 2, 3) ||
		memslot_heap_alloc(life->heap, life->capacity, 0) ||
		memslot_heap_alloc(life->heap, 16, (size_t)1 << 63))
		model_fail("what cannot be was given");
}

/* All there is in objects of one size, chained through their first words; how many. */
static unsigned fill_up(struct heap_life *life, size_t size, void **ret_chain)
{
	void **at, *chain = NULL;
	unsigned count = 0;

	while ((at = memslot_heap_alloc(life->heap, size, 0))) {
		*at = chain;
		chain = at;
		count++;
	}
	*ret_chain = chain;
	return count;
}

/* Every other one goes, and what is left of the chain stays: runs with room pile up. */
static void thin_out(struct heap_life *life, void *chain)
{
	for (void **at = chain; at && *at; at = *at) {
		void **next = *at;
		*at = *next;
		memslot_heap_free(life->heap, next);
	}
	model_expect(memslot_heap_check(life->heap), 0);
}

/* Full, empty again, and full again with as much: nothing is lost on the way. */
void heap_op_exhaust(struct heap_life *life)
{
	size_t size = 8 + some_size(life);
	unsigned first = 0, again;
	void *chain;

	for (int round = 0; round < 3; round++) {
		again = fill_up(life, size, &chain);
		model_expect(memslot_heap_check(life->heap), 0);
		thin_out(life, chain);
		while (chain) {
			void *next = *(void **)chain;
			memslot_heap_free(life->heap, chain);
			chain = next;
		}
		model_log("exhaust by %zu: %u", size, again);
		if (round && again != first)
			model_fail("%u objects of %zu bytes, then %u", first, size, again);
		first = again;
	}
	if (memslot_slot_size(life->slot) != life->capacity)
		model_fail("exhausted before all was committed");
	life->coverage->exhausted++;
}
