/* SPDX-License-Identifier: MIT */
/* model_image_calls.c - images out of running slots, and the life's table of images. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <string.h>

void model_keep_image(struct model_life *life, struct model_image *image)
{
	struct model_image **place = &life->images[test_below(&life->rng, MODEL_IMAGES)];

	if (*place)
		model_image_unref(*place);
	*place = image;
}

void model_op_make_image(struct model_life *life, struct model_slot *slot)
{
	size_t limit = slot->capacity;
	struct model_image *from = model_some_image(life), *made;

	if (limit == 0)
		return;
	if (from && model_chance(&life->rng, 15))
		made = model_image_reopened(&life->rng, from);
	else
		made = model_image_random(&life->rng, limit);
	if (made)
		model_keep_image(life, made);
}

/* Slots that show it hold a reference of their own. */
void model_op_give_up_image(struct model_life *life, struct model_slot *slot)
{
	size_t place = test_below(&life->rng, MODEL_IMAGES);

	(void)slot;
	if (!life->images[place])
		return;
	model_log("image %zu given up", place);
	model_image_give_up(life->images[place]);
	model_image_unref(life->images[place]);
	life->images[place] = NULL;
}

static void check_base(const struct model_slot *slot, const struct model_image *made)
{
	void *want = slot->opts.flags & MEMSLOT_SLOT_BOUND ? slot->base : NULL;

	if (!want && slot->image && slot->image->base_address)
		return; /* pointers into itself may have been captured again */
	if (made->base_address != want)
		model_fail("base address %p, expected %p", made->base_address, want);
}

static void check_note(const struct model_image *made, const struct memslot_image_opts *opts)
{
	const void *note;
	size_t size;
	int answer = memslot_image_note(made->image, &note, &size);

	model_expect(answer, opts->note_size ? 0 : -ENOENT);
	if (answer == 0 && (size != opts->note_size || memcmp(note, opts->note, size) != 0))
		model_fail("the note differs");
}

/* Another slot that shows the image holds the same bytes. */
static void show_elsewhere(struct model_life *life, struct model_image *image)
{
	struct memslot_slot_opts opts = {.size = sizeof opts, .reset_method = life->method};
	struct model_slot *other = model_slot_new(image->end, &opts);

	model_instantiate(other, image, image->end);
	model_slot_destroy(other, life->coverage);
}

void model_op_capture(struct model_life *life, struct model_slot *slot)
{
	struct memslot_image_opts opts = {.size = sizeof opts, .note = "a note"};
	struct memslot_image *image = (void *)slot;
	struct model_image *made;
	int answer;

	opts.note_size = test_below(&life->rng, 7);
	model_log("slot %p: capture", (void *)slot->base);
	answer = memslot_slot_capture(slot->slot, &opts, &image);
	model_expect(answer, slot->io_holds ? -EBUSY : 0);
	if (answer && image != (void *)slot)
		model_fail("output touched");
	model_compare(slot);
	if (answer)
		return;
	made = model_image_of(image, slot->now, slot->size);
	check_base(slot, made);
	check_note(made, &opts);
	if (model_chance(&life->rng, 50))
		show_elsewhere(life, made);
	model_keep_image(life, made);
}

void model_op_checkpoint(struct model_life *life, struct model_slot *slot)
{
	bool wanted = model_chance(&life->rng, 70);
	struct memslot_image *image = (void *)slot;
	struct model_image *made;
	int answer;

	model_log("slot %p: checkpoint", (void *)slot->base);
	answer = memslot_slot_checkpoint(slot->slot, wanted ? &image : NULL);
	model_expect(answer, model_is_held(slot) ? -EBUSY : 0);
	if (answer && image != (void *)slot)
		model_fail("output touched");
	if (answer == 0) {
		if (!wanted)
			image = memslot_image_ref(memslot_slot_image(slot->slot));
		made = model_image_of(image, slot->now, slot->size);
		check_base(slot, made);
		model_apply_checkpoint(slot, made);
		if (!wanted)
			model_image_give_up(made);
		model_keep_image(life, made);
	}
	model_compare(slot);
	model_probe(slot);
}
