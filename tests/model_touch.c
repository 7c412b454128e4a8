/* SPDX-License-Identifier: MIT */
/* model_touch.c - what tenants do with the memory: write, read, lock; and what the kernel does to
 * it. */
#define _GNU_SOURCE
#include "model.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#define POPULATE_WRITE 23

static size_t some_source(struct test_rng *rng, size_t size)
{
	size_t source = test_below(rng, MODEL_SCRATCH - size + 1);

	return model_chance(rng, 40) ? source & ~(test_page() - 1) : source;
}

/* A byte, a few around the border of a page, a page, a run. */
void model_op_write(struct model_life *life, struct model_slot *slot)
{
	size_t page = test_page(), offset, size;

	if (!model_pick(&life->rng, slot, MODEL_OPEN, &offset, &size))
		return;
	switch (test_below(&life->rng, 5)) {
	case 0:
		offset += test_below(&life->rng, size);
		size = 1;
		break;
	case 1:
		if (size > page)
			offset += page - 4;
		size = size > page ? 8 : 3;
		break;
	case 2:
		size = page;
		break;
	case 3:
		offset += test_below(&life->rng, page);
		size -= offset % page;
		break;
	default:
		break;
	}
	size = size < MODEL_SCRATCH / 4 ? size : MODEL_SCRATCH / 4;
	model_write(life, slot, offset, size, some_source(&life->rng, size));
}

void model_op_scatter(struct model_life *life, struct model_slot *slot)
{
	size_t count = 1 + test_below(&life->rng, 40), offset, size;

	model_log("slot %p: %zu scattered bytes", (void *)slot->base, count);
	for (; count; count--) {
		if (!model_pick(&life->rng, slot, MODEL_OPEN, &offset, &size))
			return;
		offset += test_below(&life->rng, size);
		model_write_cpu(slot, offset, 1, test_below(&life->rng, MODEL_SCRATCH));
	}
}

/* Written, and yet the same as before. */
void model_op_same_bytes(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;

	if (!model_pick(&life->rng, slot, MODEL_OPEN, &offset, &size))
		return;
	model_log("slot %p: same bytes %#zx+%#zx", (void *)slot->base, offset, size);
	memcpy(slot->base + offset, slot->now + offset, size);
}

/* Read one byte of each page: zero pages and page cache get mapped, nothing becomes private. */
void model_op_read(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;
	unsigned sum = 0;

	if (!model_pick(&life->rng, slot, PROT_READ, &offset, &size))
		return;
	model_log("slot %p: read %#zx+%#zx", (void *)slot->base, offset, size);
	for (size_t at = offset; at < offset + size; at += test_page()) {
		sum += ((volatile unsigned char *)slot->base)[at];
		sum -= slot->now[at];
	}
	if (sum)
		model_fail("reading every page shows other bytes");
}

/* Nobody but the slot's thread may do these while it is confined. */
static bool pick_shared(
	struct model_life *life, struct model_slot *slot, size_t *ret_offset, size_t *ret_size)
{
	if (slot->confined && model_chance(&life->rng, 60))
		return false;
	if (!model_pick(&life->rng, slot, MODEL_OPEN, ret_offset, ret_size))
		return false;
	if (slot->confined) {
		model_log("slot %p: unconfine", (void *)slot->base);
		memslot_slot_unconfine(slot->slot);
		slot->confined = false;
	}
	return true;
}

void model_op_populate(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;

	if (!pick_shared(life, slot, &offset, &size))
		return;
	model_log("slot %p: populate %#zx+%#zx", (void *)slot->base, offset, size);
	(void)madvise(slot->base + offset, size, POPULATE_WRITE);
}

static void write_image_byte(struct model_life *life, struct model_slot *slot)
{
	size_t offset =
		slot->image && slot->image->end ? test_below(&life->rng, slot->image->end) : 0;

	if (offset < slot->size && (slot->pages[offset / test_page()] & MODEL_OPEN) == MODEL_OPEN)
		model_write_cpu(slot, offset, 1, test_below(&life->rng, MODEL_SCRATCH));
}

void model_op_page_out(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;

	if (!model_pick(&life->rng, slot, PROT_READ, &offset, &size))
		return;
	if (model_chance(&life->rng, 50)) {
		offset = 0;
		size = slot->size;
	}
	model_log("slot %p: page out %#zx+%#zx", (void *)slot->base, offset, size);
	(void)madvise(slot->base + offset, size, MADV_PAGEOUT);
	/* Pages that come back, pages that a scan finds swapped out, and what later runs make of
	 * it. */
	for (size_t runs = test_below(&life->rng, 6); runs && !model_is_held(slot); runs--) {
		if (runs & 1)
			model_op_write(life, slot);
		else
			write_image_byte(life, slot);
		model_reset(slot, life->coverage);
	}
}

void model_op_lock(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;

	if (!pick_shared(life, slot, &offset, &size))
		return;
	size = size < 256 * test_page() ? size : 256 * test_page();
	if (model_chance(&life->rng, 30)) {
		model_log("slot %p: unlock", (void *)slot->base);
		munlock(slot->base, slot->size);
		return;
	}
	model_log("slot %p: lock %#zx+%#zx", (void *)slot->base, offset, size);
	slot->locked |= mlock(slot->base + offset, size) == 0;
}

/* --- a whole run by another thread: writes, reset, writes, reset --- */

#define VISIT_WRITES 8

struct visit {
	struct model_slot *slot;
	size_t offset[VISIT_WRITES];
	int answers[2];
};

static void *visit(void *context)
{
	struct visit *work = context;

	for (unsigned run = 0; run < 2; run++) {
		for (unsigned i = run; i < VISIT_WRITES; i += 2)
			work->slot->base[work->offset[i]] ^= 0x5a;
		work->answers[run] = memslot_slot_reset(work->slot->slot);
	}
	return NULL;
}

void model_op_other_thread(struct model_life *life, struct model_slot *slot)
{
	struct visit work = {.slot = slot};
	pthread_t thread;

	if (model_is_held(slot) || slot->reset_size == 0)
		return;
	model_reset(slot, life->coverage); /* from this hand-out on it is the other thread's */
	for (unsigned i = 0; i < VISIT_WRITES; i++)
		work.offset[i] = test_below(&life->rng, slot->size);
	model_log("slot %p: two runs by another thread", (void *)slot->base);
	ck_assert_int_eq(pthread_create(&thread, NULL, visit, &work), 0);
	pthread_join(thread, NULL);
	for (unsigned run = 0; run < 2; run++) {
		model_expect(work.answers[run], 0);
		for (unsigned i = run; i < VISIT_WRITES; i += 2)
			slot->now[work.offset[i]] ^= 0x5a; /* which exempt pages keep */
		model_apply_reset(slot);
		if (slot->opts.on_reset)
			model_callback_bytes(slot->now, slot->size, slot->callbacks - 1 + run);
	}
	model_compare(slot);
	model_probe(slot);
}
