/* SPDX-License-Identifier: MIT */
/*
 * release.c - giving pages back to the kernel.
 *
 * Invariant: a page leaves the retained set in the step that releases it, and only after that step
 * succeeded (INVARIANTS 2); afterwards it shows the image or zeros. madvise may do part of its work
 * and fail (locked pages), so a failure is cured in an order: drop locked pages too, copy in place,
 * map over (INVARIANTS 21). Pages of a copied image are copied again instead of released
 * (INVARIANTS 4). Nothing here is called with a pin outstanding.
 */
#include "slot/slot.h"

#include "base/feature.h"
#include "base/pagemap.h"

#include <errno.h>
#include <sys/mman.h>

static int drop(struct memslot_slot *slot, size_t first, size_t end)
{
	unsigned char *address = ms_slot_address(slot, first);
	size_t size = ms_pages_to_bytes(end - first);
	int error;

	/* With mixed mappings a dropped page would show the wrong contents. */
	if (slot->mixed || !ms_feature(MS_FEATURE_DONTNEED))
		return -EOPNOTSUPP;
	error = ms_os_advise(address, size, MADV_DONTNEED);
	if (error == -EINVAL && ms_feature(MS_FEATURE_DONTNEED_LOCKED))
		error = ms_os_advise(address, size, MS_MADV_DONTNEED_LOCKED);
	return error;
}

/* Where the kernel holds on to pages (mlock), put their bytes back instead. They stay private. */
static int copy_in_place(struct memslot_slot *slot, size_t first, size_t end)
{
	struct ms_pagemap_walk walk;
	size_t size = ms_pages_to_bytes(end - first);
	uintptr_t base = (uintptr_t)slot->base;
	int count, error;

	if (end > ms_slot_end(slot))
		return -EOPNOTSUPP;
	error = ms_pagemap_begin(&walk, ms_slot_address(slot, first), size);
	if (error)
		return error;
	slot->exact = false; /* what stays private here is in no set */
	while ((count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++) {
			const struct ms_page_region *region = &walk.regions[i];
			if (region->categories & MS_PAGE_IS_SWAPPED)
				return -EOPNOTSUPP; /* it may only look so (INVARIANTS 3) */
			error = ms_restore(slot, ms_bytes_to_pages(region->start - base),
				ms_bytes_to_pages(region->end - base));
			if (error)
				return error;
		}
	}
	if (count == 0)
		slot->stats.copy_fallbacks++;
	return count;
}

/* A stretch without pages of a copied image. */
static int release_stretch(struct memslot_slot *slot, size_t first, size_t end)
{
	int error = drop(slot, first, end);

	if (!error) {
		ms_retained_clip(&slot->retained, first, end);
		slot->stats.bytes_dropped += ms_pages_to_bytes(end - first);
		return 0;
	}
	if (error != -EOPNOTSUPP && copy_in_place(slot, first, end) == 0)
		return 0;
	return ms_edge_map_over(slot, first, end);
}

int ms_release(struct memslot_slot *slot, size_t first, size_t end)
{
	const struct memslot_image *image = slot->copied ? slot->image : NULL;
	size_t i = image ? ms_image_extent_at(image, first) : 0;
	int error = 0;

	while (!error && first < end) {
		const struct ms_extent *extent =
			image && i < image->extent_count ? &image->extents[i++] : NULL;
		size_t stop = extent ? ms_min(end, extent->first) : end;
		if (first < stop)
			error = release_stretch(slot, first, stop);
		first = ms_max(first, stop);
		if (!error && extent && first < end) {
			stop = ms_min(end, extent->first + extent->count);
			error = ms_restore(slot, first, stop);
			first = stop;
		}
	}
	return error;
}

/* Pages of a copied image that something was mapped over: into the set again, and copied. */
static int copy_again(struct memslot_slot *slot, size_t first, size_t end)
{
	const struct memslot_image *image = slot->copied ? slot->image : NULL;
	size_t i = image ? ms_image_extent_at(image, first) : 0;
	int error = 0;

	for (; !error && image && i < image->extent_count; i++) {
		size_t from = ms_max(image->extents[i].first, first);
		size_t to = ms_min(image->extents[i].first + image->extents[i].count, end);
		if (from >= to)
			break;
		ms_retained_insert(&slot->retained, from, to);
		error = ms_restore(slot, from, to);
	}
	return error;
}

int ms_release_swapped(struct memslot_slot *slot, size_t first, size_t end)
{
	int error = drop(slot, first, end);

	if (!error)
		return ms_release(slot, first, end);
	error = ms_edge_map_over(slot, first, end);
	return error ? error : copy_again(slot, first, end);
}

int ms_release_all(struct memslot_slot *slot)
{
	const struct ms_runs *exempt = &slot->exempt;
	size_t end = ms_slot_drop_end(slot), first = 0;
	struct ms_page_run stretch;
	int error = 0;

	slot->exact = exempt->count == 0; /* until a page has to be copied in place */
	while (!error && ms_runs_outside(exempt, first, end, &stretch)) {
		error = ms_release(slot, stretch.first, stretch.end);
		first = stretch.end;
	}
	if (!error)
		slot->reach = slot->size_pages;
	return error;
}
