/* SPDX-License-Identifier: MIT */
/*
 * edge.c - the slot's address space: guards, the accessible part, what is mapped into it.
 *
 *   [ before | 0 .. size: RW .. | .. capacity .. reserve: faults | after ]
 *
 * Invariant: the first byte beyond the edge and every guard byte faults. How is fixed at creation
 * (INVARIANTS 14): small slots are one readable and writable mapping with guard markers, large ones
 * a PROT_NONE reservation opened by mprotect. The two are never mixed: markers survive mprotect.
 * Beyond the edge lies nothing but clean retained pages (INVARIANTS 1): a marker drops what it
 * covers, mprotect hides it, so the caller has made it pristine before.
 */
#include "slot/slot.h"

#include "base/feature.h"

#include <errno.h>
#include <sys/mman.h>

#define RW (PROT_READ | PROT_WRITE)
_Static_assert(MS_EDGE_RW == (PROT_READ | PROT_WRITE), "the header's constant");

static size_t total_pages(const struct memslot_slot *slot)
{
	size_t pages = slot->before_pages + slot->reserve_pages + slot->after_pages;

	return pages ? pages : 1; /* a slot of nothing has an address too */
}

static size_t total_bytes(const struct memslot_slot *slot)
{
	return ms_pages_to_bytes(total_pages(slot));
}

static unsigned char *mapping_start(const struct memslot_slot *slot)
{
	return slot->base - ms_pages_to_bytes(slot->before_pages);
}

static int guard(struct memslot_slot *slot, size_t first, size_t end)
{
	if (first >= end)
		return 0;
	return ms_os_guard(ms_slot_address(slot, first), ms_pages_to_bytes(end - first));
}

static int protect(struct memslot_slot *slot, size_t first, size_t end, int prot)
{
	if (first >= end)
		return 0;
	return ms_os_protect(ms_slot_address(slot, first), ms_pages_to_bytes(end - first), prot);
}

/* --- creation --- */

static int reserve(struct memslot_slot *slot, void *base_address, int prot)
{
	size_t before = ms_pages_to_bytes(slot->before_pages);
	void *at = NULL, *got;
	int error;

	if (base_address) {
		if ((uintptr_t)base_address <= before)
			return -EADDRNOTAVAIL;
		at = (unsigned char *)base_address - before;
	}
	error = ms_os_reserve(at, total_bytes(slot), prot, &got);
	if (error)
		return at && error != -EAGAIN ? -EADDRNOTAVAIL : error;
	slot->base = (unsigned char *)got + before;
	error = ms_os_apply(got, total_bytes(slot), &slot->attrs);
	if (error == -ENODATA) {
		slot->no_counter = true;
		error = 0;
	}
	if (error)
		ms_os_unmap(got, total_bytes(slot));
	return error;
}

/* The guard in front: markers when it is a small window, else a mapping of its own. */
static int guard_before(struct memslot_slot *slot)
{
	size_t bytes = ms_pages_to_bytes(slot->before_pages);

	if (bytes == 0)
		return 0;
	if (bytes <= MS_SLOT_MARKER_BYTES)
		return ms_os_guard(mapping_start(slot), bytes);
	return ms_os_protect(mapping_start(slot), bytes, PROT_NONE);
}

static int create_markers(struct memslot_slot *slot, void *base_address)
{
	int error = reserve(slot, base_address, RW);

	if (error)
		return error;
	error = guard_before(slot);
	if (!error)
		error = guard(slot, 0, total_pages(slot) - slot->before_pages);
	if (error)
		ms_edge_destroy(slot);
	return error;
}

static int create_protected(struct memslot_slot *slot, void *base_address)
{
	int error = reserve(slot, base_address, PROT_NONE);

	if (error || slot->edge != MS_EDGE_NONE)
		return error;
	error = protect(slot, 0, slot->capacity_pages, RW);
	if (error)
		ms_edge_destroy(slot);
	return error;
}

static bool wants_markers(const struct memslot_slot *slot)
{
	size_t bytes = ms_pages_to_bytes(slot->reserve_pages + slot->after_pages);

	return bytes <= MS_SLOT_MARKER_BYTES && ms_feature(MS_FEATURE_GUARD_INSTALL);
}

enum ms_edge ms_edge_kind(const struct memslot_slot *slot)
{
	if (slot->flags & MEMSLOT_SLOT_NO_EDGE)
		return MS_EDGE_NONE;
	return wants_markers(slot) ? MS_EDGE_MARKER : MS_EDGE_PROTECT;
}

int ms_edge_create(struct memslot_slot *slot, void *base_address)
{
	slot->edge = ms_edge_kind(slot);
	if (slot->edge == MS_EDGE_MARKER) {
		int error;
		error = create_markers(slot, base_address);
		if (error == 0 || error == -EADDRNOTAVAIL)
			return error;
		/* A writable reservation or a marker was refused (RLIMIT_DATA, overcommit, locked
		 * memory): the other kind needs neither (INVARIANTS 22). */
		slot->edge = MS_EDGE_PROTECT;
	}
	return create_protected(slot, base_address);
}

int ms_edge_blank(struct memslot_slot *slot)
{
	bool open = slot->edge == MS_EDGE_NONE;
	size_t end = open ? slot->capacity_pages : slot->reserve_pages;
	int error = ms_edge_map_zeros(slot, 0, end, open ? RW : PROT_NONE);

	slot->size_pages = 0;
	if (error || slot->edge != MS_EDGE_MARKER)
		return error;
	/* Opened last, so that a failure leaves nothing accessible. */
	error = guard(slot, 0, end);
	return error ? error : protect(slot, 0, end, RW);
}

int ms_edge_destroy(struct memslot_slot *slot)
{
	return ms_os_unmap(mapping_start(slot), total_bytes(slot));
}

/* --- moving the edge --- */

int ms_edge_raise(struct memslot_slot *slot, size_t pages)
{
	unsigned char *from = ms_slot_address(slot, slot->size_pages);
	size_t bytes = ms_pages_to_bytes(pages - slot->size_pages);
	int error = 0;

	if (slot->edge == MS_EDGE_MARKER)
		error = ms_os_unguard(from, bytes);
	else if (slot->edge == MS_EDGE_PROTECT)
		error = ms_os_protect(from, bytes, RW);
	if (!error)
		slot->size_pages = pages;
	slot->reach = ms_max(slot->reach, pages);
	return error;
}

int ms_edge_lower(struct memslot_slot *slot, size_t pages)
{
	int error = 0;

	if (slot->edge == MS_EDGE_MARKER) {
		error = guard(slot, pages, slot->size_pages);
		if (!error)
			ms_retained_clip(&slot->retained, pages, slot->size_pages);
	} else if (slot->edge == MS_EDGE_PROTECT && slot->exact) {
		error = protect(slot, pages, slot->size_pages, PROT_NONE);
	} else if (slot->edge == MS_EDGE_PROTECT) {
		/* A private page that is in no set must not wait there for the edge to rise. */
		error = ms_edge_map_zeros(slot, pages, slot->size_pages, PROT_NONE);
	}
	if (!error)
		slot->size_pages = pages;
	return error;
}

/* --- mapping over --- */

static int map_over(
	struct memslot_slot *slot, size_t first, size_t end, int prot, int fd, uint64_t offset)
{
	int error = ms_os_map_over(ms_slot_address(slot, first), ms_pages_to_bytes(end - first),
		prot, fd, offset, &slot->attrs);

	if (error == -ENODATA) {
		slot->no_counter = true;
		error = 0;
	}
	if (!error)
		ms_retained_clip(&slot->retained, first, end);
	return error;
}

int ms_edge_map_zeros(struct memslot_slot *slot, size_t first, size_t end, int prot)
{
	return first < end ? map_over(slot, first, end, prot, -1, 0) : 0;
}

int ms_edge_map_image(
	struct memslot_slot *slot, const struct memslot_image *image, size_t first, size_t end)
{
	return map_over(slot, first, end, RW, image->fd, ms_image_file_offset(image, first));
}

int ms_edge_map_over(struct memslot_slot *slot, size_t first, size_t end)
{
	const struct memslot_image *image = slot->copied ? NULL : slot->image;
	size_t inside = ms_min(end, ms_slot_end(slot)), count = image ? image->extent_count : 0;
	int error = ms_edge_map_zeros(slot, first, inside, RW);

	/* Beyond the edge only hidden pages are ever mapped over: they stay inaccessible. */
	if (!error && slot->edge == MS_EDGE_PROTECT)
		error = ms_edge_map_zeros(slot, ms_max(first, inside), end, PROT_NONE);
	for (size_t i = count ? ms_image_extent_at(image, first) : 0; !error && i < count; i++) {
		const struct ms_extent *extent = &image->extents[i];
		size_t from = ms_max(extent->first, first),
		       to = ms_min(extent->first + extent->count, end);
		if (from >= to)
			break;
		error = ms_edge_map_image(slot, image, from, to);
	}
	return error;
}
