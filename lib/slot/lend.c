/* SPDX-License-Identifier: MIT */
/*
 * lend.c - a pool's slot, between one hand-out and the next.
 *
 * Invariant: a slot that is *away* belongs to the pool: every call of its last user is refused, and
 * it is pristine, or unknown, or waits to be dropped. From here it comes back to a user in one way
 * only, through ms_lend_show or ms_lend_show_given. The pool sees to it that one thread at a time
 * is at a slot that is away; nothing here knows the pool's lock.
 */
#include "slot/slot.h"

#include "base/feature.h"

#include <errno.h>

static _Atomic(uint64_t) *learnt_of(struct memslot_slot *slot, struct memslot_image *image)
{
	return image ? &image->learnt : &slot->lender->learnt;
}

/* Slots that show the same are reset the same way: learning anew costs some ten runs a slot. */
static void inherit(struct memslot_slot *slot, struct memslot_image *image)
{
	uint64_t learnt = atomic_load_explicit(learnt_of(slot, image), memory_order_relaxed);

	ms_policy_init(&slot->policy, slot->policy.random);
	ms_policy_unpack(&slot->policy, learnt);
}

static void bequeath(struct memslot_slot *slot)
{
	_Atomic(uint64_t) *learnt = learnt_of(slot, slot->target);
	uint64_t now = ms_policy_pack(&slot->policy);
	uint64_t before = atomic_load_explicit(learnt, memory_order_relaxed);

	/* Only what matters: threads that share an image should not write to it all the time. */
	if (now && (before & 0xffffff) != (now & 0xffffff))
		atomic_store_explicit(learnt, now, memory_order_relaxed);
}

/* However the last one left: by release, held, or by failing. */
static void forget_tenant(struct memslot_slot *slot)
{
	slot->bound = slot->spoilt_beyond = false;
	ms_os_free(slot->heap); /* its handle, with what that tenant told it */
	slot->heap = NULL;
}

static int show(struct memslot_slot *slot, struct memslot_image *image, size_t pages, bool drop,
	uint64_t word)
{
	struct memslot_image *old = slot->target;
	size_t old_pages = slot->target_pages;
	int error = 0;

	forget_tenant(slot);
	ms_reset_take_reading(slot);
	if (word & MS_STATE_UNKNOWN) {
		struct ms_evidence evidence = {.now = slot->seen};
		error = ms_show(slot, image, pages, word, &evidence);
	} else {
		/* Else the pages of a copied image would be copied again. */
		if (drop && slot->copied && image != old) {
			slot->image = NULL;
			slot->copied = false;
		}
		if (drop)
			error = ms_release_all(slot);
		if (!error && (image != old || pages != slot->size_pages))
			error = ms_show_pristine(slot, image, pages);
	}
	slot->target_pages = error ? old_pages : pages;
	if (!error && slot->lender->verifies) {
		error = ms_verify(slot);
		slot->verify_failures += error == -EUCLEAN;
		slot->image = error ? old : image;
		slot->target = slot->image;
	}
	if (!error && image != old)
		inherit(slot, image);
	return error;
}

int ms_lend_show(struct memslot_slot *slot, struct memslot_image *image, size_t pages, bool drop)
{
	struct memslot_image *old = slot->target;
	uint64_t word = ms_state_begin_away(slot), calls = ms_os_calls;
	int error;

	if (word & MS_STATE_DEAD) {
		ms_state_end_away(slot, false);
		return -ESTALE;
	}
	if (image != old)
		memslot_image_ref(image);
	error = show(slot, image, pages, drop, word);
	if (image != old)
		memslot_image_unref(error ? image : old);
	slot->stats.syscalls += ms_os_calls - calls;
	ms_state_end_away(slot, error != 0);
	return error;
}

int ms_lend_show_given(
	struct memslot_slot *slot, struct memslot_image *image, size_t pages, uint64_t word)
{
	int error = show(slot, image, pages, slot->given_drop, word);

	/* Nobody can be given another one: this one is made anew. */
	return error == -EUCLEAN ? show(slot, image, pages, false, word | MS_STATE_UNKNOWN) : error;
}

int ms_lend_give(struct memslot_slot *slot)
{
	return ms_state_end_reset(slot, 0, true);
}

void ms_lend_give_unseen(struct memslot_slot *slot, bool drop)
{
	slot->given_drop = drop;
	ms_state_give(slot);
}

int ms_lend_back(struct memslot_slot *slot)
{
	struct ms_evidence evidence;
	uint64_t word, calls = ms_os_calls;
	int error = ms_state_begin_back(slot, &word);

	if (error)
		return error;
	if (word & MS_STATE_GIVEN) { /* nobody looked at it: and nobody knows for which key */
		ms_state_lose(slot);
		ms_state_end_away(slot, true);
		return -ESTALE;
	}
	slot->exempt.count = 0;
	evidence = ms_reset_evidence(slot, word);
	if (evidence.drop && !(word & MS_STATE_UNKNOWN) && ms_lend_droppable(slot)) {
		bool clean = ms_reset_nothing_written(slot, &evidence);
		slot->stats.syscalls += ms_os_calls - calls;
		*(clean ? &slot->stats.resets_known : &slot->stats.resets_drop) += 1;
		slot->stats.last_method = MEMSLOT_RESET_DROP;
		ms_state_end_away(slot, false);
		return clean ? MS_BACK_CLEAN : MS_BACK_DROP;
	}
	error = ms_show(slot, slot->target,
		ms_max(slot->target_pages, ms_slot_image_end(slot->target)), word, &evidence);
	slot->stats.syscalls += ms_os_calls - calls;
	if (!error)
		bequeath(slot);
	ms_state_end_away(slot, error != 0);
	return error ? error : MS_BACK_CLEAN;
}

bool ms_lend_droppable(const struct memslot_slot *slot)
{
	return !slot->copied && !slot->mixed && slot->protects.count == 0 &&
	       slot->size_pages == slot->target_pages && ms_feature(MS_FEATURE_DONTNEED);
}

size_t ms_lend_droppable_pages(const struct memslot_slot *slot)
{
	size_t stay = slot->copied ? slot->image->extent_pages : 0;

	return slot->retained.count - ms_min(stay, slot->retained.count);
}

void ms_lend_begin_drop(struct memslot_slot *slot)
{
	(void)ms_state_begin_away(slot);
}

void ms_lend_dropped(struct memslot_slot *slot)
{
	slot->stats.private_pages = 0;
	slot->stats.bytes_dropped += ms_pages_to_bytes(ms_slot_drop_end(slot));
	slot->retained.count = 0;
	slot->reach = slot->size_pages;
	slot->exact = true;
	bequeath(slot);
	ms_state_end_away(slot, false);
}

int ms_lend_drop(struct memslot_slot *slot)
{
	uint64_t calls = ms_os_calls;
	int error;

	ms_lend_begin_drop(slot);
	error = ms_release_all(slot);
	slot->stats.syscalls += ms_os_calls - calls;
	ms_state_end_away(slot, error != 0);
	return error;
}

int ms_lend_blank(struct memslot_slot *slot)
{
	struct memslot_image *old = slot->target;
	struct ms_evidence evidence = {.drop = true};
	uint64_t word = ms_state_begin_away(slot), calls = ms_os_calls;
	int error = word & MS_STATE_DEAD ? -ESTALE : ms_show(slot, NULL, 0, word, &evidence);

	if (!error) {
		memslot_image_unref(old);
		error = ms_release_all(slot); /* hidden pages */
	}
	slot->stats.syscalls += ms_os_calls - calls;
	ms_state_end_away(slot, error != 0);
	return error;
}
