/* SPDX-License-Identifier: MIT */
/*
 * restore.c - the copying way back: image or zeros over pages, in place.
 *
 * Invariant: afterwards the pages hold exactly what the slot's target says, whatever is mapped
 * there; they stay resident. Written by plain stores; only a foreign image, which is never
 * dereferenced (INVARIANTS 6), is read into place by the kernel.
 */
#include "slot/slot.h"

#include <string.h>

int ms_restore(struct memslot_slot *slot, size_t first, size_t end)
{
	const struct memslot_image *image = slot->image;
	size_t i = image ? ms_image_extent_at(image, first) : 0;
	size_t extents = image ? image->extent_count : 0;
	int error = 0;

	slot->stats.bytes_restored += ms_pages_to_bytes(end - first);
	while (!error && first < end) {
		const struct ms_extent *extent = i < extents ? &image->extents[i] : NULL;
		size_t stop = extent ? ms_min(end, extent->first) : end;
		if (first < stop) {
			memset(ms_slot_address(slot, first), 0, ms_pages_to_bytes(stop - first));
		} else {
			stop = ms_min(end, extent->first + extent->count);
			error = ms_image_read(
				image, first, stop - first, ms_slot_address(slot, first));
			i++;
		}
		first = stop;
	}
	return error;
}
