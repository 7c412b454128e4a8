/* SPDX-License-Identifier: MIT */
/*
 * capture.c - what a slot holds now becomes an image.
 *
 * Invariant: the slot's bytes are equal at every step. They are read by write(2) into the new
 * image, so that a page that cannot be read (a mapped file that shrank) is an error and no signal.
 * A checkpoint maps the new image over the slot extent by extent; if that fails in the middle, the
 * slot is `mixed`: bytes as they were, the old image as the target, and the next reset maps
 * everything anew (INVARIANTS 25).
 */
#include "slot/slot.h"

#include "base/opts.h"
#include "base/pagemap.h"

#include <errno.h>

static int gather_pages(struct memslot_slot *slot, struct ms_build *build, size_t first, size_t end)
{
	int error;

	if (first >= end)
		return 0;
	error = ms_build_write(build, ms_pages_to_bytes(first), ms_slot_address(slot, first),
		ms_pages_to_bytes(end - first));
	return error == -EFAULT ? -EIO : error;
}

/* A private run: what lies in the image's extents has been gathered with them. */
static int gather_run(struct memslot_slot *slot, struct ms_build *build, size_t first, size_t end)
{
	const struct memslot_image *image = slot->image;
	size_t i = image ? ms_image_extent_at(image, first) : 0;
	int error = 0;

	for (; !error && image && i < image->extent_count && image->extents[i].first < end; i++) {
		error = gather_pages(slot, build, first, image->extents[i].first);
		first = ms_max(first, image->extents[i].first + image->extents[i].count);
	}
	return error ? error : gather_pages(slot, build, first, end);
}

static int gather(
	struct memslot_slot *slot, struct ms_build *build, struct ms_pagemap_walk *walk, int count)
{
	const struct memslot_image *image = slot->image;
	uintptr_t base = (uintptr_t)slot->base;
	int error = 0;

	if (count) /* no scan, or mixed mappings: read everything */
		return gather_pages(slot, build, 0, build->pages);
	for (size_t i = 0; !error && image && i < image->extent_count; i++)
		error = gather_pages(slot, build, image->extents[i].first,
			image->extents[i].first + image->extents[i].count);
	while (!error && (count = ms_pagemap_next(walk)) > 0) {
		for (int i = 0; !error && i < count; i++)
			error = gather_run(slot, build,
				ms_bytes_to_pages(walk->regions[i].start - base),
				ms_bytes_to_pages(walk->regions[i].end - base));
	}
	return error || count == 0 ? error : gather_pages(slot, build, 0, build->pages);
}

/* The end of the last page of [first, end) that is not zero; at most `first` when all are. */
static size_t last_written(const struct memslot_slot *slot, size_t first, size_t end)
{
	while (first < end && ms_util_is_zero(ms_slot_address(slot, end - 1), ms_page_size()))
		end--;
	return end;
}

/* Without an enforced edge contents may lie beyond the size: up to the last page written. */
static size_t pages_held(struct memslot_slot *slot)
{
	size_t end = ms_max(slot->size_pages, ms_slot_image_end(slot->image));
	uintptr_t base = (uintptr_t)slot->base;
	struct ms_pagemap_walk walk;
	int count;

	if (slot->edge != MS_EDGE_NONE || end == slot->capacity_pages)
		return end;
	if (slot->mixed ||
		ms_pagemap_begin(&walk, slot->base, ms_pages_to_bytes(slot->capacity_pages)))
		return last_written(slot, end, slot->capacity_pages);
	while ((count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++) {
			size_t last = ms_bytes_to_pages(walk.regions[i].end - base);
			size_t first = ms_bytes_to_pages(walk.regions[i].start - base);
			size_t from = ms_max(first, end), to = last_written(slot, from, last);
			if (to > from)
				end = to;
		}
	}
	return count ? last_written(slot, end, slot->capacity_pages) : end;
}

/* What the image of a bound slot points into is compared before it is used elsewhere. */
static int record_program(
	const struct memslot_slot *slot, struct memslot_image *image, uint32_t flags)
{
	uint64_t strays;
	int error;

	if (!image->base_address && !(flags & MEMSLOT_IMAGE_STRICT))
		return 0;
	error = ms_program_record(image, slot->base, ms_pages_to_bytes(slot->capacity_pages));
	if (!error && (flags & MEMSLOT_IMAGE_STRICT)) {
		strays = image->program->strays;
		error = strays == MEMSLOT_NONE ? -EOPNOTSUPP : strays ? -ENOTUNIQ : 0;
	}
	/* Pointers of another program's do not become this one's by being copied. */
	if (!error && slot->image && ms_program_check(slot->image))
		error = ms_program_inherit(image, slot->image);
	return error;
}

static int build_image(struct memslot_slot *slot, const struct memslot_image_opts *opts,
	struct memslot_image **ret_image)
{
	/* What descends from a bound image holds its pointers too (INVARIANTS 32). */
	bool bound = (slot->flags & MEMSLOT_SLOT_BOUND) || slot->bound ||
		     memslot_image_base_address(slot->image);
	void *base_address = bound ? slot->base : NULL;
	struct memslot_image *image;
	struct ms_pagemap_walk walk;
	struct ms_build build;
	size_t pages = pages_held(slot);
	int count, error = ms_build_begin(&build, 0, pages);

	if (error)
		return error;
	count = slot->mixed ? -EOPNOTSUPP
			    : ms_pagemap_begin(&walk, slot->base, ms_pages_to_bytes(pages));
	error = gather(slot, &build, &walk, count);
	if (error) {
		ms_build_abort(&build);
		return error;
	}
	error = ms_build_finish(&build, opts->note, opts->note_size, base_address, &image);
	if (error)
		return error;
	image->heap_number = ms_slot_shows_heap(slot) ? slot->heap_number : 0;
	error = record_program(slot, image, opts->flags);
	if (error)
		memslot_image_unref(image);
	else
		*ret_image = image;
	return error;
}

/* With protections lifted meanwhile. *ret_unknown: they could not be put back. */
static int capture(struct memslot_slot *slot, const struct memslot_image_opts *opts,
	struct memslot_image **ret_image, bool *ret_unknown)
{
	struct memslot_image *image = NULL;
	int again, error;

	if (slot->protects.count)
		ms_state_begin_change(slot);
	error = ms_view_lift(slot, 0, slot->size_pages);
	if (!error)
		error = build_image(slot, opts, &image);
	again = ms_view_put_back(slot, 0, slot->size_pages);
	*ret_unknown = again != 0;
	if (!error && again) {
		memslot_image_unref(image);
		error = again;
	}
	if (!error)
		*ret_image = image;
	return error;
}

MS_EXPORT int memslot_slot_capture(struct memslot_slot *slot, const struct memslot_image_opts *opts,
	struct memslot_image **ret_image)
{
	struct memslot_image_opts taken;
	uint64_t calls = ms_os_calls;
	bool unknown;
	int error;

	if (!slot || !ret_image)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken, MEMSLOT_IMAGE_STRICT, opts);
	if (error)
		return error;
	if (taken.slot_offset || (taken.note_size && !taken.note))
		return -EINVAL;
	if (taken.note_size > MS_IMAGE_NOTE_MAX)
		return -EMSGSIZE;
	error = ms_state_may_capture(slot);
	if (error)
		return error;
	error = capture(slot, &taken, ret_image, &unknown);
	ms_state_end_change(slot, unknown);
	slot->stats.syscalls += ms_os_calls - calls;
	return error;
}

/* The bytes stay equal: the new image is mapped first, then zeros where only something else was. */
static int map_checkpoint(struct memslot_slot *slot, struct memslot_image *image)
{
	/* After a checkpoint that failed anything may be mapped anywhere. */
	struct ms_extent everywhere = {0, ms_slot_end(slot)};
	const struct memslot_image whole = {.extents = &everywhere, .extent_count = 1};
	const struct memslot_image *old = slot->mixed ? &whole : slot->copied ? NULL : slot->image;
	int error;

	slot->mixed = true;
	slot->exempt.count = 0;
	error = ms_show_map_image(slot, image);
	if (!error && old)
		error = ms_show_unmap_image(slot, old, image);
	if (error)
		return error;
	slot->mixed = slot->copied = false;
	slot->image = image;
	slot->target = slot->image;
	slot->target_pages = slot->size_pages;
	return 0;
}

static int checkpoint(
	struct memslot_slot *slot, struct memslot_image **ret_image, bool *ret_unknown)
{
	const struct memslot_image_opts plain = {.size = sizeof plain};
	struct memslot_image *image, *old = slot->image;
	size_t old_pages = slot->target_pages;
	int again, error = capture(slot, &plain, &image, ret_unknown);

	if (error)
		return error;
	error = map_checkpoint(slot, image);
	again = ms_view_put_back(slot, 0, slot->size_pages);
	if (again) {
		*ret_unknown = true;
		error = error ? error : again;
	}
	if (error) {
		slot->image = old;
		slot->target = slot->image;
		slot->target_pages = old_pages;
	}
	memslot_image_unref(error ? image : old);
	if (!error && ret_image)
		*ret_image = memslot_image_ref(image);
	return error;
}

MS_EXPORT int memslot_slot_checkpoint(struct memslot_slot *slot, struct memslot_image **ret_image)
{
	uint64_t word, calls = ms_os_calls;
	bool unknown = false;
	int error;

	if (!slot)
		return -EINVAL;
	error = ms_state_begin(slot, MS_ALONE, &word);
	if (error)
		return error;
	error = checkpoint(slot, ret_image, &unknown);
	slot->stats.syscalls += ms_os_calls - calls;
	ms_state_end_change(slot, unknown); /* capture's */
	ms_state_end(slot, unknown);
	return error;
}
