/* SPDX-License-Identifier: MIT */
/*
 * show.c - making a slot show an image and a size.
 *
 * Invariant: what differs is changed, nothing else: pages around the image stay resident. Whoever
 * maps over pages does so inside the edge and clips them out of the retained set. A failure in the
 * middle leaves the slot unknown, with the last image and size that succeeded as its target
 * (INVARIANTS 24); a remake starts from bare mappings, so that nothing of before can be left.
 */
#include "slot/slot.h"

#include "base/feature.h"

#include <errno.h>
#include <sys/mman.h>

/* Copied into anonymous memory instead of mapped? Only what fits the copy budget (INVARIANTS 4). */
static bool is_copied(const struct memslot_slot *slot, const struct memslot_image *image)
{
	return image && image->bytes && image->extent_pages <= slot->retained.max &&
	       ms_pages_to_bytes(image->extent_pages) <= MS_SLOT_COPY_BYTES;
}

int ms_show_unmap_image(struct memslot_slot *slot, const struct memslot_image *old,
	const struct memslot_image *next)
{
	int error = 0;

	for (size_t i = 0; !error && i < old->extent_count; i++) {
		size_t first = old->extents[i].first, end = first + old->extents[i].count;
		size_t j = next ? ms_image_extent_at(next, first) : 0;
		while (!error && first < end) {
			bool more = next && j < next->extent_count && next->extents[j].first < end;
			size_t stop = more ? ms_max(next->extents[j].first, first) : end;
			error = ms_edge_map_zeros(slot, first, stop, MS_EDGE_RW);
			first = more ? next->extents[j].first + next->extents[j].count : end;
			j++;
		}
	}
	return error;
}

int ms_show_map_image(struct memslot_slot *slot, const struct memslot_image *image)
{
	int error = 0;

	for (size_t i = 0; !error && i < image->extent_count; i++) {
		size_t first = image->extents[i].first;
		error = ms_edge_map_image(slot, image, first, first + image->extents[i].count);
	}
	return error;
}

/* Every page of a copied image is private and in the set from now on. */
static int copy_image(struct memslot_slot *slot, struct memslot_image *image)
{
	int error = 0;

	slot->image = image;
	slot->copied = true;
	for (size_t i = 0; !error && i < image->extent_count; i++) {
		size_t first = image->extents[i].first, end = first + image->extents[i].count;
		ms_retained_insert(&slot->retained, first, end);
		error = ms_restore(slot, first, end);
	}
	return error;
}

static bool has_room(const struct memslot_slot *slot, const struct memslot_image *image)
{
	return slot->retained.max - slot->retained.count >= image->extent_pages;
}

/* From the image that the slot shows to another one; both inside the edge. */
static int switch_image(struct memslot_slot *slot, struct memslot_image *image)
{
	const struct memslot_image *old = slot->copied ? NULL : slot->image;
	bool copied = is_copied(slot, image);
	int error = old ? ms_show_unmap_image(slot, old, copied ? NULL : image) : 0;

	/* From here on it is a slot of zeros with something written in it. */
	slot->image = NULL;
	slot->copied = false;
	if (!error && copied && !has_room(slot, image)) {
		error = ms_release_all(slot);
		copied = has_room(slot, image); /* locked pages stay */
	}
	if (!error && copied)
		return copy_image(slot, image);
	if (!error && image)
		error = ms_show_map_image(slot, image);
	slot->image = image;
	return error;
}

/* Prefault, once: what a first run would fault in. Only a wish, so errors do not matter. */
static void populate(struct memslot_slot *slot, const struct ms_evidence *evidence)
{
	size_t pages = ms_min(slot->size_pages, slot->retained.max);
	size_t fresh;

	slot->populated = true;
	if (pages == 0 || ms_slot_foreign(slot))
		return;
	if (!ms_feature(MS_FEATURE_POPULATE) ||
		ms_os_populate(slot->base, ms_pages_to_bytes(pages)))
		(void)ms_restore(slot, 0, pages);
	/* Without a scan the pages are private and in no set. */
	if (ms_scan(slot, evidence, &fresh))
		slot->exact = false;
}

/* Everything anew: mappings, edge, image. Nothing of before is left; no pin is outstanding. */
static int remake(struct memslot_slot *slot, struct memslot_image *image, size_t pages,
	const struct ms_evidence *evidence)
{
	int error;

	slot->stats.remakes++;
	slot->retained.count = slot->exempt.count = slot->protects.count = 0;
	slot->image = NULL;
	slot->copied = slot->mixed = slot->exact = false;
	error = ms_edge_blank(slot);
	if (!error && pages)
		error = ms_edge_raise(slot, pages);
	if (!error)
		error = switch_image(slot, image);
	slot->exact = !error;
	if (!error && (slot->flags & MEMSLOT_SLOT_POPULATE))
		populate(slot, evidence);
	return error;
}

/* From one known state to another. */
static int change(struct memslot_slot *slot, struct memslot_image *image, size_t pages,
	const struct ms_evidence *evidence)
{
	int error = ms_view_lift(slot, 0, slot->size_pages);

	slot->protects.count = 0;
	if (!error && pages > slot->size_pages)
		error = ms_edge_raise(slot, pages);
	if (!error && image != slot->image)
		error = switch_image(slot, image);
	/* A marker drops what it covers: no need to restore it first. */
	if (!error && slot->edge == MS_EDGE_MARKER && pages < slot->size_pages)
		error = ms_edge_lower(slot, pages);
	if (!error)
		error = ms_reset_contents(slot, evidence);
	if (!error && pages < slot->size_pages)
		error = ms_edge_lower(slot, pages);
	if (!error && (slot->flags & MEMSLOT_SLOT_POPULATE) && !slot->populated)
		populate(slot, evidence);
	return error;
}

/* It shows what it should, or the old is still the target. */
static int settle(struct memslot_slot *slot, struct memslot_image *image, size_t pages, int error)
{
	if (error) {
		slot->image = slot->target;
		return error;
	}
	slot->target = image;
	slot->target_pages = pages;
	return 0;
}

int ms_show(struct memslot_slot *slot, struct memslot_image *image, size_t pages, uint64_t word,
	const struct ms_evidence *evidence)
{
	int error;

	if ((word & MS_STATE_UNKNOWN) || (slot->mixed && !evidence->pinned))
		error = remake(slot, image, pages, evidence);
	else
		error = change(slot, image, pages, evidence);
	error = settle(slot, image, pages, error);
	if (!error)
		ms_reset_keep_reading(slot, evidence);
	return error;
}

static int change_pristine(struct memslot_slot *slot, struct memslot_image *image, size_t pages)
{
	int error = 0;

	if (pages > slot->size_pages)
		error = ms_edge_raise(slot, pages);
	if (!error && image != slot->image)
		error = switch_image(slot, image);
	/* What the old image left resident holds its bytes, or the old copied one's. */
	if (!error && image != slot->target)
		error = slot->exact ? ms_reset_retained(slot) : ms_release_all(slot);
	if (!error && pages < slot->size_pages)
		error = ms_edge_lower(slot, pages);
	return error;
}

int ms_show_pristine(struct memslot_slot *slot, struct memslot_image *image, size_t pages)
{
	struct ms_evidence evidence = {.confined = false};
	int error = change_pristine(slot, image, pages);

	if (!error && (slot->flags & MEMSLOT_SLOT_POPULATE) && !slot->populated)
		populate(slot, &evidence);
	return settle(slot, image, pages, error);
}

/* The reading comes before anything is mapped, populated or moved (INVARIANTS 7). */
static int show(struct memslot_slot *slot, struct memslot_image *image, size_t pages, uint64_t word)
{
	struct ms_evidence evidence;

	if (word & MS_STATE_GIVEN)
		return ms_lend_show_given(slot, image, pages, word);
	evidence = ms_reset_evidence(slot, word);
	return ms_show(slot, image, pages, word, &evidence);
}

/* A size in bytes that fits the slot, in pages. */
static int fits(const struct memslot_slot *slot, size_t size, size_t *ret_pages)
{
	uint64_t bytes;

	if (!slot)
		return -EINVAL;
	if (ms_state_dead(slot))
		return -ESTALE;
	if (!ms_round_up(size, &bytes) || ms_bytes_to_pages(bytes) > slot->capacity_pages)
		return -EMSGSIZE;
	*ret_pages = ms_bytes_to_pages(bytes);
	return 0;
}

MS_EXPORT int memslot_slot_instantiate(
	struct memslot_slot *slot, struct memslot_image *image, size_t size)
{
	uint64_t word, calls = ms_os_calls;
	struct memslot_image *old;
	size_t pages, old_pages;
	uint32_t pinned;
	int error = fits(slot, size, &pages);

	if (error)
		return error;
	if (ms_slot_image_end(image) > pages)
		return -EMSGSIZE;
	/* A bound image's pointers would lead into another slot's tenant (INVARIANTS 32). */
	if (image && image->base_address && image->base_address != slot->base)
		return -EADDRNOTAVAIL;
	old = slot->target;
	old_pages = slot->target_pages;
	pinned = image == old && pages >= slot->size_pages ? MS_ALONE_PINNED : 0;
	error = ms_state_begin(slot, MS_ALONE_UNKNOWN | MS_ALONE_GIVEN | pinned, &word);
	if (error)
		return error;
	memslot_image_ref(image);
	slot->exempt.count = 0;
	slot->spoilt_beyond = false;
	error = show(slot, image, pages, word);
	slot->stats.syscalls += ms_os_calls - calls;
	error = ms_state_end_reset(slot, error, true);
	if (error) { /* also on_reset's: the target is what succeeded last (INVARIANTS 24) */
		slot->image = old;
		slot->target = slot->image;
		slot->target_pages = old_pages;
	}
	memslot_image_unref(error ? image : old);
	return error;
}

MS_EXPORT int memslot_slot_reset(struct memslot_slot *slot)
{
	uint64_t word, calls = ms_os_calls;
	uint32_t pinned;
	int error;

	if (!slot)
		return -EINVAL;
	pinned = slot->target_pages >= slot->size_pages ? MS_ALONE_PINNED : 0;
	error = ms_state_begin(slot, MS_ALONE_UNKNOWN | pinned, &word);
	if (error)
		return error;
	/* What leaves cannot stay exempt. */
	if (slot->target_pages < slot->size_pages)
		(void)ms_runs_clear(&slot->exempt, slot->target_pages, slot->size_pages);
	/* A child forked between the two may have the one's image and the other's size. */
	error = show(slot, slot->target,
		ms_max(slot->target_pages, ms_slot_image_end(slot->target)), word);
	slot->stats.syscalls += ms_os_calls - calls;
	return ms_state_end_reset(slot, error, false);
}

static int shrink(struct memslot_slot *slot, size_t pages)
{
	size_t old = slot->size_pages;
	int error = ms_view_lift(slot, pages, old);

	(void)ms_runs_clear(&slot->protects, pages, old);
	(void)ms_runs_clear(&slot->exempt, pages, old);
	if (!error && slot->edge == MS_EDGE_MARKER && slot->mixed)
		error = ms_edge_map_zeros(slot, pages, old, MS_EDGE_RW);
	/* Closed first, released then: what is written in between must not wait beyond the edge. */
	if (!error)
		error = ms_edge_lower(slot, pages);
	if (!error && slot->edge != MS_EDGE_MARKER)
		error = ms_release(slot, pages, old);
	return error;
}

MS_EXPORT int memslot_slot_resize(struct memslot_slot *slot, size_t size)
{
	uint64_t word, calls = ms_os_calls;
	size_t pages;
	int error = fits(slot, size, &pages);

	if (!error)
		error = ms_state_usable(slot);
	if (error)
		return error;
	if (pages < ms_slot_image_end(slot->image))
		return -EMSGSIZE;
	if (pages >= slot->size_pages) {
		error = ms_state_may_grow(slot);
		if (error)
			return error;
		if (pages > slot->size_pages)
			error = ms_edge_raise(slot, pages);
		ms_state_end_change(slot, error != 0);
	} else {
		error = ms_state_begin(slot, MS_ALONE, &word);
		if (error)
			return error;
		error = shrink(slot, pages);
		ms_state_end(slot, error != 0);
	}
	slot->stats.syscalls += ms_os_calls - calls;
	return error;
}
