/* SPDX-License-Identifier: MIT */
/* model_calls.c - the calls that change what a slot shows, each with the answer it must give. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <string.h>

/* The errors that a call may choose from; none: it must succeed. */
struct answers {
	int list[4];
	unsigned count;
};

static void may(struct answers *answers, bool condition, int error)
{
	if (condition)
		answers->list[answers->count++] = error;
}

/* Does the call succeed as it must? */
static bool judge(const struct answers *answers, int got)
{
	if (answers->count)
		model_expect_any(got, answers->list, answers->count);
	else
		model_expect(got, 0);
	return got == 0;
}

static struct memslot_slot_stats stats_of(const struct model_slot *slot)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};

	model_expect(memslot_slot_stats(slot->slot, &stats), 0);
	return stats;
}

/* After a call that ran on_reset, or failed by it. */
static void after_callback(struct model_slot *slot, unsigned callbacks)
{
	if (slot->opts.on_reset && slot->callbacks != callbacks + 1)
		model_fail("on_reset ran %u times", slot->callbacks - callbacks);
	if (slot->opts.on_reset)
		model_callback_bytes(slot->now, slot->size, slot->callbacks);
	model_compare(slot);
	model_probe(slot);
	model_check_stats(slot);
}

static void cover_reset(struct model_slot *slot, struct model_coverage *coverage,
	const struct memslot_slot_stats *before, bool lower)
{
	struct memslot_slot_stats after = stats_of(slot);
	bool whole = after.resets_drop != before->resets_drop;

	if (after.resets_known + after.resets_scan + after.resets_drop !=
			before->resets_known + before->resets_scan + before->resets_drop + 1 &&
		after.remakes == before->remakes)
		model_fail("a reset counted as %d",
			(int)(after.resets_known + after.resets_scan + after.resets_drop -
				before->resets_known - before->resets_scan - before->resets_drop));
	if (!whole && !lower && !slot->locked && slot->opts.copy_budget == 0 &&
		after.bytes_dropped > before->bytes_dropped)
		coverage->evictions++;
	if (before->last_method == MEMSLOT_RESET_DROP && after.last_method == MEMSLOT_RESET_SCAN &&
		slot->opts.reset_method == MEMSLOT_RESET_AUTO)
		coverage->trials++;
	coverage->hides += after.retained_pages > slot->size / test_page();
	coverage->compared++;
}

void model_reset(struct model_slot *slot, struct model_coverage *coverage)
{
	struct memslot_slot_stats before = stats_of(slot);
	struct answers answers = {.count = 0};
	unsigned callbacks = slot->callbacks;
	bool lower = slot->size > slot->reset_size;

	may(&answers, slot->dead, -ESTALE);
	may(&answers, slot->io_holds || (slot->pins && (lower || slot->unknown)), -EBUSY);
	model_log("slot %p: reset, %#zx -> %#zx", (void *)slot->base, slot->size, slot->reset_size);
	if (judge(&answers, memslot_slot_reset(slot->slot))) {
		model_apply_reset(slot);
		cover_reset(slot, coverage, &before, lower);
		after_callback(slot, callbacks);
	}
}

static bool bound_elsewhere(const struct model_slot *slot, const struct model_image *image)
{
	return image && image->base_address && image->base_address != slot->base;
}

void model_instantiate(struct model_slot *slot, struct model_image *image, size_t size)
{
	size_t end = image ? image->end : 0, rounded = model_round(size);
	struct answers answers = {.count = 0};
	unsigned callbacks = slot->callbacks;
	bool other = slot->image ? image != slot->image : image != NULL;

	may(&answers, slot->dead, -ESTALE);
	may(&answers, slot->io_holds || (slot->pins && (other || rounded < slot->size)), -EBUSY);
	may(&answers, rounded > slot->capacity || end > rounded, -EMSGSIZE);
	may(&answers, bound_elsewhere(slot, image), -EADDRNOTAVAIL);
	model_log("slot %p: instantiate %s of %#zx bytes, size %#zx -> %#zx", (void *)slot->base,
		other ? "another image" : "its image", end, slot->size, size);
	if (judge(&answers,
		    memslot_slot_instantiate(slot->slot, image ? image->image : NULL, size))) {
		model_apply_instantiate(slot, image, rounded);
		after_callback(slot, callbacks);
	} else {
		model_compare(slot);
	}
}

void model_op_reset(struct model_life *life, struct model_slot *slot)
{
	model_reset(slot, life->coverage);
	if (!model_is_held(slot) && model_chance(&life->rng, 20))
		model_reset(slot, life->coverage); /* of a clean slot */
}

struct model_image *model_some_image(struct model_life *life)
{
	struct model_image *image = life->images[test_below(&life->rng, MODEL_IMAGES)];

	return image && image->image ? image : NULL;
}

/* A size for the image, seldom one that does not fit. */
static size_t some_size(struct model_life *life, struct model_slot *slot, size_t least)
{
	size_t size, room = slot->capacity > least ? slot->capacity - least : 0;

	switch (test_below(&life->rng, 12)) {
	case 0:
		return slot->capacity + 1 + test_below(&life->rng, 9 * test_page());
	case 1:
		return test_below(&life->rng, least + 1);
	case 2:
		return least;
	case 3:
	case 4:
		return slot->capacity;
	case 5:
	case 6:
		size = slot->size + test_page() * test_below(&life->rng, 9);
		return size < slot->capacity ? size : slot->capacity;
	default:
		return least + test_below(&life->rng, room + 1);
	}
}

void model_op_instantiate(struct model_life *life, struct model_slot *slot)
{
	struct model_image *old, *image = slot->image && slot->image->image ? slot->image : NULL;
	struct memslot_slot_stats before;
	size_t size = slot->reset_size;

	if (!image || model_chance(&life->rng, 70))
		image = model_some_image(life);
	if (model_chance(&life->rng, 70))
		size = some_size(life, slot, image ? image->end : 0);
	before = stats_of(slot);
	old = slot->image;
	model_instantiate(slot, image, size);
	/* Nobody has written to it yet: pages that are private now were copied. */
	if (slot->image != old && slot->image && !slot->opts.on_reset &&
		!(slot->opts.flags & MEMSLOT_SLOT_POPULATE))
		life->coverage->copied += stats_of(slot).retained_pages > before.retained_pages;
}

void model_resize(struct model_slot *slot, size_t size)
{
	size_t end = slot->image ? slot->image->end : 0, rounded = model_round(size);
	struct answers answers = {.count = 0};

	may(&answers, rounded > slot->capacity || rounded < end, -EMSGSIZE);
	may(&answers, rounded < slot->size && model_is_held(slot), -EBUSY);
	model_log("slot %p: resize %#zx -> %#zx", (void *)slot->base, slot->size, size);
	if (judge(&answers, memslot_slot_resize(slot->slot, size)))
		model_apply_resize(slot, rounded);
	model_compare(slot);
	model_probe(slot);
}

void model_op_resize(struct model_life *life, struct model_slot *slot)
{
	model_resize(slot, some_size(life, slot, slot->image ? slot->image->end : 0));
}

void model_op_discard(struct model_life *life, struct model_slot *slot)
{
	struct answers answers = {.count = 0};
	size_t offset = test_below(&life->rng, slot->size + 1);
	size_t size = test_below(&life->rng, slot->size - offset + 1);

	if (model_chance(&life->rng, 30)) {
		offset &= ~(test_page() - 1);
		size = model_round(size);
	}
	if (model_chance(&life->rng, 5))
		size = slot->size - offset + 1;
	may(&answers, size > slot->size - offset, -EINVAL);
	may(&answers, model_is_held(slot), -EBUSY);
	may(&answers, model_is_held(slot) && size == 0, 0);
	model_log("slot %p: discard %#zx+%#zx", (void *)slot->base, offset, size);
	if (judge(&answers, memslot_slot_discard(slot->slot, offset, size)) && size)
		model_apply_discard(slot, offset, size);
	model_compare(slot);
	model_probe(slot);
}

/* Users with their own bounds checks can be wrong: what lies beyond the edge is put back all the
 * same. */
void model_op_rogue(struct model_life *life, struct model_slot *slot)
{
	size_t room = slot->capacity - slot->size, offset, size;

	if (!(slot->opts.flags & MEMSLOT_SLOT_NO_EDGE) || room == 0 || model_is_held(slot))
		return;
	for (unsigned i = 0; i < 3; i++) {
		offset = slot->size + test_below(&life->rng, room);
		size = 1 + test_below(&life->rng, slot->capacity - offset);
		size = size < MODEL_SCRATCH ? size : MODEL_SCRATCH;
		model_log("slot %p: write beyond the size, %#zx+%#zx", (void *)slot->base, offset,
			size);
		model_write_cpu(slot, offset, size, 0);
	}
	if (model_chance(&life->rng, 70))
		model_reset(slot, life->coverage);
	else
		model_instantiate(slot, NULL, slot->size);
}
