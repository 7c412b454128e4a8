/* SPDX-License-Identifier: MIT */
/*
 * verify.c - does a slot show what it should, as far as private pages go?
 *
 * Invariant: changes nothing. Below the edge every private page is compared with the image, or with
 * zeros; beyond it a page is private only if it is in the retained set, and holds zeros: it is
 * opened to be read, and hidden again. Without a scan everything below the edge is compared.
 */
#include "slot/slot.h"

#include "base/pagemap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* The image's pages of a run that lies in one extent; the caller's own file is read, not mapped. */
static int compare_extent(const struct memslot_slot *slot, size_t first, size_t end)
{
	unsigned char page[65536];

	if (!ms_slot_foreign(slot))
		return memcmp(ms_slot_address(slot, first), ms_image_page(slot->image, first),
			       ms_pages_to_bytes(end - first))
			       ? -EUCLEAN
			       : 0;
	if (ms_page_size() > sizeof page)
		return 0;
	for (; first < end; first++) {
		int error = ms_image_read(slot->image, first, 1, page);
		if (error)
			return error;
		if (memcmp(ms_slot_address(slot, first), page, ms_page_size()))
			return -EUCLEAN;
	}
	return 0;
}

static int compare(const struct memslot_slot *slot, size_t first, size_t end)
{
	const struct memslot_image *image = slot->image;
	size_t i = image ? ms_image_extent_at(image, first) : 0;
	int error = 0;

	while (!error && first < end) {
		const struct ms_extent *extent =
			image && i < image->extent_count ? &image->extents[i] : NULL;
		size_t stop = extent ? ms_min(end, extent->first) : end;
		if (first < stop) {
			error = ms_util_is_zero(ms_slot_address(slot, first),
					ms_pages_to_bytes(stop - first))
					? 0
					: -EUCLEAN;
		} else {
			stop = ms_min(end, extent->first + extent->count);
			error = compare_extent(slot, first, stop);
			i++;
		}
		first = stop;
	}
	return error;
}

static int compare_hidden(struct memslot_slot *slot, size_t first, size_t end)
{
	void *address = ms_slot_address(slot, first);
	size_t size = ms_pages_to_bytes(end - first);
	int again, error;

	for (size_t page = first; page < end; page++) {
		if (!ms_retained_has(&slot->retained, page))
			return -EUCLEAN;
	}
	error = ms_os_protect(address, size, PROT_READ);
	if (error)
		return error;
	error = ms_util_is_zero(address, size) ? 0 : -EUCLEAN;
	again = ms_os_protect(address, size, PROT_NONE);
	return error ? error : again;
}

int ms_verify(struct memslot_slot *slot)
{
	size_t end = ms_slot_end(slot);
	size_t all = slot->edge == MS_EDGE_PROTECT ? slot->reserve_pages : end;
	uintptr_t base = (uintptr_t)slot->base;
	struct ms_pagemap_walk walk;
	int count, error = ms_pagemap_begin(&walk, slot->base, ms_pages_to_bytes(all));

	while (!error && (count = ms_pagemap_next(&walk)) != 0) {
		error = count < 0 ? count : 0;
		for (int i = 0; !error && i < count; i++) {
			size_t from = ms_bytes_to_pages(walk.regions[i].start - base);
			size_t to = ms_bytes_to_pages(walk.regions[i].end - base);
			error = from < end ? compare(slot, from, ms_min(to, end)) : 0;
			if (!error && to > end)
				error = compare_hidden(slot, ms_max(from, end), to);
		}
	}
	return error && error != -EUCLEAN ? compare(slot, 0, end) : error;
}
