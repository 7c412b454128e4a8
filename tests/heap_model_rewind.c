/* SPDX-License-Identifier: MIT */
/* heap_model_rewind.c - slots of every kind; checkpoint, rewind, older images, boot again. */
#define _GNU_SOURCE
#include "heap_model.h"

#include <errno.h>
#include <string.h>

/* --- a life's slot --- */

static void on_misuse(struct memslot_heap *heap, const void *ptr, void *context)
{
	struct heap_life *life = context;

	if (heap != life->heap)
		model_fail("told of another heap");
	life->told_of = ptr;
	life->told++;
}

static void forget(struct heap_moment *moment)
{
	if (moment->image)
		memslot_image_unref(moment->image);
	memset(moment, 0, sizeof *moment);
}

/* Before the heap's handle is made, or the slot is shown something else. */
static void boot(struct heap_life *life)
{
	static const uint64_t headrooms[] = {0, MEMSLOT_NONE, 4096, 70000, MEMSLOT_UNLIMITED - 1};

	life->opts =
		MEMSLOT_OPTS(memslot_heap_opts, .headroom = headrooms[test_below(&life->rng, 5)],
			.on_misuse = heap_chance(life, 70) ? on_misuse : NULL, .context = life);
	model_log("boot: headroom %zu", (size_t)life->opts.headroom);
	model_expect(memslot_heap_create(life->slot, &life->opts, &life->heap), 0);
	life->references++;
	forget(&life->now);
	life->shown = MOMENTS;
}

void heap_make(struct heap_life *life)
{
	static const size_t capacities[] = {100, 400, 1500, 4000};
	struct memslot_slot_opts opts = kind_opts((int)test_below(&life->rng, SLOT_KINDS));

	life->capacity = PAGES(capacities[test_below(&life->rng, 4)] + test_below(&life->rng, 30));
	if (opts.reserve && opts.reserve < life->capacity)
		opts.reserve = life->capacity;
	model_log("slot: %zu bytes, flags %u, reserve %zu, method %u", life->capacity, opts.flags,
		(size_t)opts.reserve, opts.reset_method);
	life->slot = slot_new(life->capacity, &opts);
	boot(life);
}

void heap_unmake(struct heap_life *life)
{
	for (unsigned i = 0; i < MOMENTS; i++)
		forget(&life->moment[i]);
	while (life->references--)
		memslot_heap_close(life->heap);
	model_expect(memslot_slot_destroy(life->slot), 0);
}

/* --- checkpoint and back --- */

void heap_op_checkpoint(struct heap_life *life)
{
	unsigned which = (unsigned)test_below(&life->rng, MOMENTS);
	struct memslot_image *image = NULL;

	model_expect(memslot_slot_checkpoint(life->slot, &image), 0);
	model_log("checkpoint %u: %u objects", which, life->now.count);
	forget(&life->moment[which]);
	life->moment[which] = life->now;
	life->moment[which].image = image;
	life->moment[which].committed = memslot_slot_size(life->slot);
	life->shown = which;
	life->coverage->checkpoints++;
}

/* All is as it was then, down to the edge. */
static void come_back(struct heap_life *life, unsigned which)
{
	life->now = life->moment[which];
	life->now.image = NULL;
	life->shown = which;
	if (memslot_slot_size(life->slot) != life->now.committed)
		model_fail("the edge is at %zu, not %zu", memslot_slot_size(life->slot),
			life->now.committed);
	heap_check_all(life);
}

void heap_op_reset(struct heap_life *life)
{
	if (life->shown == MOMENTS || !life->moment[life->shown].image)
		return;
	model_log("reset to %u", life->shown);
	model_expect(memslot_slot_reset(life->slot), 0);
	come_back(life, life->shown);
	life->coverage->rewinds++;
}

void heap_op_older(struct heap_life *life)
{
	unsigned which = (unsigned)test_below(&life->rng, MOMENTS);
	const struct heap_moment *moment = &life->moment[which];

	if (!moment->image)
		return;
	model_log("instantiate %u", which);
	model_expect(memslot_slot_instantiate(life->slot, moment->image, moment->committed), 0);
	come_back(life, which);
	life->coverage->older++;
}

void heap_op_boot(struct heap_life *life)
{
	const struct memslot_heap *before = life->heap;

	boot(life);
	if (life->heap != before)
		model_fail("another handle");
	life->told = life->opts.on_misuse ? life->misuses : 0;
	heap_check_all(life);
	life->coverage->boots++;
}

/* One handle, however often it is opened; with the last one what it knew is gone. */
void heap_op_open(struct heap_life *life)
{
	struct memslot_heap *heap = NULL;

	model_log("open, %u references", life->references);
	model_expect(memslot_heap_open(life->slot, &heap), 0);
	if (heap != life->heap)
		model_fail("another handle");
	memslot_heap_close(heap);
	if (heap_chance(life, 70))
		return;
	while (life->references--)
		memslot_heap_close(heap);
	life->misuses = life->told = 0;
	life->opts.on_misuse = NULL;
	model_expect(memslot_heap_open(life->slot, &life->heap), 0);
	life->references = 1;
	heap_check_all(life);
	life->coverage->opened++;
}
