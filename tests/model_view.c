/* SPDX-License-Identifier: MIT */
/* model_view.c - protect, exempt, written, bad calls, and a slot that became unknown. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>

static void set_pages(
	struct model_slot *slot, size_t offset, size_t size, unsigned char keep, unsigned char set)
{
	for (size_t page = offset / test_page(); page < (offset + size) / test_page(); page++)
		slot->pages[page] = (unsigned char)((slot->pages[page] & keep) | set);
}

static void probe_protected(const struct model_slot *slot, size_t offset, uint32_t prot)
{
	if (!test_faults_allowed())
		return;
	if (model_faults(slot->base + offset, TEST_READ) == (prot != PROT_NONE))
		model_fail("page %zu: reading it with protection %u", offset / test_page(), prot);
	if (model_faults(slot->base + offset, TEST_WRITE) == (prot == MODEL_OPEN))
		model_fail("page %zu: writing it with protection %u", offset / test_page(), prot);
}

void model_op_protect(struct model_life *life, struct model_slot *slot)
{
	static const uint32_t prots[] = {PROT_NONE, PROT_READ, PROT_READ, MODEL_OPEN};
	uint32_t prot = prots[test_below(&life->rng, 4)];
	size_t offset, size;

	if (!model_pick(&life->rng, slot, 0, &offset, &size))
		return;
	model_log("slot %p: protect %#zx+%#zx to %u", (void *)slot->base, offset, size, prot);
	model_expect(memslot_slot_protect(slot->slot, offset, size, prot), 0);
	set_pages(slot, offset, size, MODEL_EXEMPT, (unsigned char)prot);
	probe_protected(slot, offset, prot);
	probe_protected(slot, offset + size - test_page(), prot);
	model_compare(slot);
}

void model_op_exempt(struct model_life *life, struct model_slot *slot)
{
	size_t offset, size;

	if (!model_pick(&life->rng, slot, 0, &offset, &size))
		return;
	if (size > 8 * test_page())
		size = test_page() * (1 + test_below(&life->rng, 8));
	model_log("slot %p: exempt %#zx+%#zx", (void *)slot->base, offset, size);
	model_expect(memslot_slot_exempt(slot->slot, offset, size), 0);
	set_pages(slot, offset, size, 0xff, MODEL_EXEMPT);
}

void model_op_written(struct model_life *life, struct model_slot *slot)
{
	(void)life;
	model_log("slot %p: written", (void *)slot->base);
	model_check_written(slot);
	model_compare(slot);
}

/* Nothing that a call refuses may change anything. */
void model_op_bad_calls(struct model_life *life, struct model_slot *slot)
{
	size_t page = test_page();

	(void)life;
	model_log("slot %p: bad calls", (void *)slot->base);
	model_expect(memslot_slot_hold(slot->slot, 3), -EINVAL);
	if (!slot->io_holds)
		model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO), -EINVAL);
	if (!slot->pins)
		model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_PIN), -EINVAL);
	model_expect(memslot_slot_protect(slot->slot, 1, page, PROT_READ), -EINVAL);
	model_expect(memslot_slot_protect(slot->slot, slot->size, page, PROT_READ), -EINVAL);
	model_expect(memslot_slot_protect(slot->slot, 0, 0, 1u << 30), -EINVAL);
	model_expect(memslot_slot_exempt(slot->slot, 0, slot->size + page), -EINVAL);
	model_expect(memslot_slot_exempt(slot->slot, page, SIZE_MAX - page + 1), -EINVAL);
	model_expect(memslot_slot_resize(slot->slot, SIZE_MAX), -EMSGSIZE);
	model_expect(memslot_slot_written(slot->slot, NULL, 1, NULL), -EINVAL);
	if (!model_is_held(slot)) {
		model_expect(memslot_slot_discard(slot->slot, SIZE_MAX, 2), -EINVAL);
		model_expect(memslot_slot_discard(slot->slot, 0, slot->size + 1), -EINVAL);
		model_expect(memslot_slot_instantiate(slot->slot, NULL, SIZE_MAX), -EMSGSIZE);
	}
	model_compare(slot);
	model_probe(slot);
}

void model_expect_unknown(struct model_slot *slot)
{
	struct memslot_image *image;
	size_t count;

	model_expect(memslot_slot_resize(slot->slot, slot->capacity), -ESTALE);
	model_expect(memslot_slot_discard(slot->slot, 0, 0), -ESTALE);
	model_expect(memslot_slot_checkpoint(slot->slot, NULL), -ESTALE);
	model_expect(memslot_slot_capture(slot->slot, NULL, &image), -ESTALE);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO), -ESTALE);
	model_expect(memslot_slot_protect(slot->slot, 0, 0, PROT_READ), -ESTALE);
	model_expect(memslot_slot_exempt(slot->slot, 0, 0), -ESTALE);
	model_expect(memslot_slot_written(slot->slot, NULL, 0, &count), -ESTALE);
}

/* on_reset refuses: the slot is unknown until it is remade. */
void model_op_failing_reset(struct model_life *life, struct model_slot *slot)
{
	struct model_image *image = model_some_image(life);

	if (!slot->opts.on_reset || model_is_held(slot))
		return;
	if (image && (image->end > slot->capacity || image->base_address))
		image = NULL;
	slot->fail_reset = true;
	model_log("slot %p: on_reset fails", (void *)slot->base);
	if (model_chance(&life->rng, 50))
		model_expect(memslot_slot_reset(slot->slot), -ECANCELED);
	else
		model_expect(memslot_slot_instantiate(
				     slot->slot, image ? image->image : NULL, slot->capacity),
			-ECANCELED);
	slot->fail_reset = false;
	slot->unknown = true;
	model_expect_unknown(slot);
	for (size_t page = 0; page < slot->capacity / test_page(); page++)
		slot->pages[page] = MODEL_OPEN;
	if (model_chance(&life->rng, 50))
		model_reset(slot, life->coverage);
	else
		model_instantiate(slot, image, slot->capacity);
}
