/* SPDX-License-Identifier: MIT */
/* model_hold.c - operations in flight, registered pages, and what must wait for them. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void model_op_hold(struct model_life *life, struct model_slot *slot)
{
	(void)life;
	if (slot->io_holds > 2)
		return;
	model_log("slot %p: hold", (void *)slot->base);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO), 0);
	slot->io_holds++;
}

void model_op_unhold(struct model_life *life, struct model_slot *slot)
{
	(void)life;
	if (slot->io_holds == 0)
		return;
	model_log("slot %p: unhold", (void *)slot->base);
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO), 0);
	slot->io_holds--;
}

/* Everything that has to wait says so, and does nothing. */
static void expect_busy(struct model_slot *slot)
{
	struct memslot_image *image;

	model_expect(memslot_slot_reset(slot->slot), -EBUSY);
	model_expect(memslot_slot_instantiate(slot->slot, NULL, 0), -EBUSY);
	model_expect(memslot_slot_checkpoint(slot->slot, NULL), -EBUSY);
	model_expect(memslot_slot_capture(slot->slot, NULL, &image), -EBUSY);
	model_expect(memslot_slot_discard(slot->slot, 0, slot->size), -EBUSY);
	model_expect(memslot_slot_destroy(slot->slot), -EBUSY);
	if (!slot->image && slot->size)
		model_expect(memslot_slot_resize(slot->slot, 0), -EBUSY);
	model_compare(slot);
	model_probe(slot);
}

/* A read that waits for a pipe while everybody wants the slot. */
void model_op_pending(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size, source = test_below(&life->rng, MODEL_SCRATCH / 2);
	int ends[2], done;

	if (!model_pick(&life->rng, slot, MODEL_OPEN, &offset, &size) || !model_ring_ready())
		return;
	size = size < 40000 ? size : 40000;
	ck_assert_int_eq(pipe(ends), 0);
	model_log("slot %p: pending read into %#zx+%#zx", (void *)slot->base, offset, size);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO), 0);
	model_ring_start(ends[0], slot->base + offset, size);
	expect_busy(slot);
	ck_assert_int_eq(write(ends[1], model_scratch + source, size), (int)size);
	done = model_ring_finish();
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO), 0);
	if (done <= 0 || (size_t)done > size)
		model_fail("the pending read itself: %d", done);
	memcpy(slot->now + offset, model_scratch + source, (size_t)done);
	close(ends[0]);
	close(ends[1]);
	model_compare(slot);
}

void model_op_pin(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;

	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		if (life->slots[i] && life->slots[i]->pins)
			return; /* one table, one buffer */
	}
	if (!model_pick(&life->rng, slot, MODEL_OPEN, &offset, &size))
		return;
	size = size < 64 * test_page() ? size : 64 * test_page();
	model_log("slot %p: register %#zx+%#zx", (void *)slot->base, offset, size);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_PIN), 0);
	if (!model_ring_register(slot->base + offset, size)) {
		model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_PIN), 0);
		return;
	}
	slot->pins = 1;
	slot->pin_offset = offset;
	slot->pin_size = size;
}

void model_unpin(struct model_slot *slot)
{
	model_log("slot %p: unregister", (void *)slot->base);
	model_ring_unregister();
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_PIN), 0);
	slot->pins = 0;
}

/* The device writes past page tables: no fault, no report. */
static void read_fixed(struct model_life *life, struct model_slot *slot)
{
	size_t skip = test_below(&life->rng, slot->pin_size), source = test_below(&life->rng, 4096);
	size_t offset = slot->pin_offset + skip,
	       size = 1 + test_below(&life->rng, slot->pin_size - skip);
	int done;

	model_log("slot %p: read fixed %#zx+%#zx", (void *)slot->base, offset, size);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO), 0);
	done = model_ring_read(model_file, slot->base + offset, size, source, false, true);
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO), 0);
	if (done != (int)size)
		model_fail("the fixed read itself: %d of %zu", done, size);
	memcpy(slot->now + offset, model_scratch + source, size);
}

void model_op_pinned_run(struct model_life *life, struct model_slot *slot)
{
	if (!slot->pins)
		return;
	for (size_t runs = 1 + test_below(&life->rng, 5); runs; runs--) {
		read_fixed(life, slot);
		model_compare(slot);
		if (model_chance(&life->rng, 50))
			model_op_write(life, slot);
		if (model_chance(&life->rng, 80))
			model_reset(slot, life->coverage);
		else if (!slot->image || slot->image->image)
			model_instantiate(slot, slot->image, slot->size);
	}
	if (model_chance(&life->rng, 50))
		model_unpin(slot);
}

void model_release_holds(struct model_slot *slot)
{
	while (slot->io_holds)
		model_op_unhold(NULL, slot);
	if (slot->pins)
		model_unpin(slot);
}
