/* SPDX-License-Identifier: MIT */
/*
 * model_state.c - what each call does, told in plain arrays.
 *
 * No library call is made here: this is the contract of <memslot/slot.h> once more.
 */
#define _GNU_SOURCE
#include "model.h"

#include <string.h>

size_t model_reach(const struct model_slot *slot)
{
	return slot->opts.flags & MEMSLOT_SLOT_NO_EDGE ? slot->capacity : slot->size;
}

bool model_is_held(const struct model_slot *slot)
{
	return slot->io_holds || slot->pins;
}

/* Bytes [from, to) are as the image says. */
static void make_pristine(struct model_slot *slot, size_t from, size_t to)
{
	size_t end = slot->image ? slot->image->end : 0;
	size_t middle = end < from ? from : end < to ? end : to;

	if (middle > from)
		memcpy(slot->now + from, slot->image->bytes + from, middle - from);
	if (to > middle)
		memset(slot->now + middle, 0, to - middle);
}

static void lift_protection(struct model_slot *slot, size_t from, size_t to)
{
	for (size_t page = from / test_page(); page < to / test_page(); page++)
		slot->pages[page] =
			(unsigned char)((slot->pages[page] & MODEL_EXEMPT) | MODEL_OPEN);
}

static void end_exempt(struct model_slot *slot, size_t from, size_t to)
{
	for (size_t page = from / test_page(); page < to / test_page(); page++)
		slot->pages[page] &= (unsigned char)~MODEL_EXEMPT;
}

void model_set_image(struct model_slot *slot, struct model_image *image)
{
	struct model_image *old = slot->image;

	slot->image = image ? model_image_ref(image) : NULL;
	if (old)
		model_image_unref(old);
}

void model_apply_reset(struct model_slot *slot)
{
	size_t size = test_page();

	end_exempt(slot, slot->reset_size, slot->capacity);
	lift_protection(slot, 0, slot->capacity);
	for (size_t at = 0; at < slot->capacity; at += size) {
		if (!(slot->pages[at / size] & MODEL_EXEMPT))
			make_pristine(slot, at, at + size);
	}
	slot->size = slot->reset_size;
	slot->unknown = false;
}

void model_apply_instantiate(struct model_slot *slot, struct model_image *image, size_t size)
{
	model_set_image(slot, image);
	end_exempt(slot, 0, slot->capacity);
	lift_protection(slot, 0, slot->capacity);
	slot->size = slot->reset_size = size;
	slot->confined = slot->opts.flags & MEMSLOT_SLOT_CONFINED;
	slot->unknown = false;
	make_pristine(slot, 0, slot->capacity);
}

void model_apply_resize(struct model_slot *slot, size_t size)
{
	if (size < slot->size) {
		memset(slot->now + size, 0, slot->size - size);
		lift_protection(slot, size, slot->size);
		end_exempt(slot, size, slot->size);
	}
	slot->size = size;
}

void model_apply_discard(struct model_slot *slot, size_t offset, size_t size)
{
	size_t from = model_round(offset), to = (offset + size) & ~(test_page() - 1);

	if (from >= to)
		return;
	make_pristine(slot, from, to);
	end_exempt(slot, from, to);
}

void model_apply_checkpoint(struct model_slot *slot, struct model_image *image)
{
	model_set_image(slot, image);
	end_exempt(slot, 0, slot->capacity);
	slot->reset_size = slot->size;
}

void model_callback_bytes(unsigned char *memory, size_t size, unsigned callbacks)
{
	for (unsigned i = 0; i < 3 && size; i++)
		memory[(callbacks * 7919u + i * 40961u) % size] =
			(unsigned char)(0xA0 + callbacks + i);
}

/* The stretch of pages with `flags` around `page`, or behind it. */
static bool stretch_from(const struct model_slot *slot, size_t page, unsigned char flags,
	size_t *ret_first, size_t *ret_end)
{
	size_t count = slot->size / test_page(), end;

	while (page < count && (slot->pages[page] & flags) != flags)
		page++;
	for (end = page; end < count && (slot->pages[end] & flags) == flags;)
		end++;
	*ret_first = page;
	*ret_end = end;
	return end > page;
}

bool model_pick(struct test_rng *rng, const struct model_slot *slot, unsigned char flags,
	size_t *ret_offset, size_t *ret_size)
{
	size_t count = slot->size / test_page(), first, end, pages;

	if (count == 0 || !stretch_from(slot, test_below(rng, count), flags, &first, &end))
		return false;
	pages = end - first;
	if (pages > 1 && model_chance(rng, 70))
		pages = 1 + test_below(rng, pages);
	*ret_offset = first * test_page();
	*ret_size = pages * test_page();
	return true;
}
