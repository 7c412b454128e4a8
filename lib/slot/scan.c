/* SPDX-License-Identifier: MIT */
/*
 * scan.c - bringing the retained set up to date with what the kernel says.
 *
 * Invariant: after a scan every private page below the edge is in the set, or has been released, or
 * `exact` is false. Present pages are admitted while the copy budget has room. Swapped ones are
 * dropped: restoring what only looks swapped (markers, poison) would be a crash (INVARIANTS 3).
 * With a pin outstanding nothing is dropped: what looks swapped may be a registered page that the
 * kernel tries to migrate just now. The scan never looks beyond the edge.
 *
 * First pass: merge what is present into the set. Second pass, only when something was refused:
 * walk again over that part and release what the set does not name. Two passes, because releasing
 * clips the set, which must not change under the merge.
 */
#include "slot/slot.h"

#include "base/pagemap.h"

struct scan {
	struct memslot_slot *slot;
	const struct ms_evidence *evidence;
	size_t copied;			   /* extents of a copied image that the merge has had */
	bool full;			   /* the budget refused a page */
	size_t refused_first, refused_end; /* all refused pages lie in here; empty: none */
	size_t pending_first, pending_end; /* second pass: to be released in one call */
	bool pending_swapped;
};

static void refuse(struct scan *scan, size_t first, size_t end)
{
	if (scan->refused_first >= scan->refused_end)
		scan->refused_first = first; /* runs come in address order */
	scan->refused_end = end;
}

/* How far from `page` on pages are alike: all in an extent of an image that is special (foreign, or
 * copied), or none. */
static size_t alike(const struct memslot_slot *slot, size_t page, size_t end, bool *ret_special)
{
	const struct memslot_image *image = slot->image;
	const struct ms_extent *extent;
	size_t i;

	*ret_special = false;
	if (!ms_slot_foreign(slot) && !slot->copied)
		return end;
	i = ms_image_extent_at(image, page);
	if (i == image->extent_count)
		return end;
	extent = &image->extents[i];
	*ret_special = extent->first <= page;
	return ms_min(end, *ret_special ? extent->first + extent->count : extent->first);
}

/* Pages of a copied image never leave the set, whatever a scan says of them (INVARIANTS 4): add
 * those extents that begin before `page`, in their turn. */
static void keep_copied(struct scan *scan, struct ms_merge *merge, size_t page)
{
	const struct memslot_image *image = scan->slot->image;

	if (!scan->slot->copied)
		return;
	for (; scan->copied < image->extent_count; scan->copied++) {
		const struct ms_extent *extent = &image->extents[scan->copied];
		if (extent->first >= page)
			break;
		ms_retained_merge_add(merge, extent->first, extent->first + extent->count);
	}
}

/* Present pages that no special extent holds: into the set while there is room. */
static void admit(struct scan *scan, struct ms_merge *merge, size_t first, size_t end)
{
	while (first < end) {
		first += ms_retained_merge_add(merge, first, end);
		if (first < end) {
			scan->full = true;
			refuse(scan, first, first + 1);
			first++;
		}
	}
}

static void merge_region(
	struct scan *scan, struct ms_merge *merge, size_t first, size_t end, bool swapped)
{
	while (first < end) {
		bool special;
		size_t stop = alike(scan->slot, first, end, &special);
		bool foreign = special && !scan->slot->copied;

		keep_copied(scan, merge, stop);
		if (swapped || foreign)
			refuse(scan, first, stop);
		else if (!special)
			admit(scan, merge, first, stop);
		first = stop;
	}
}

static int merge_pass(struct scan *scan, struct ms_merge *merge)
{
	struct memslot_slot *slot = scan->slot;
	uintptr_t base = (uintptr_t)slot->base;
	struct ms_pagemap_walk walk;
	size_t private_pages = 0;
	int count = ms_pagemap_begin(&walk, slot->base, ms_pages_to_bytes(ms_slot_end(slot)));

	ms_retained_merge_begin(merge, &slot->retained, ms_slot_end(slot));
	while (count == 0 && (count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++) {
			size_t first = ms_bytes_to_pages(walk.regions[i].start - base);
			size_t end = ms_bytes_to_pages(walk.regions[i].end - base);
			private_pages += end - first;
			merge_region(scan, merge, first, end,
				walk.regions[i].categories & MS_PAGE_IS_SWAPPED);
		}
		count = 0;
	}
	if (count == 0) {
		keep_copied(scan, merge, SIZE_MAX);
		ms_retained_merge_end(merge);
		slot->stats.private_pages = private_pages;
	}
	return count;
}

/* Release one stretch, or leave it where it must not go. */
static int put_back(struct scan *scan, size_t first, size_t end)
{
	if (first >= end)
		return 0;
	if (scan->evidence->pinned) {
		scan->slot->exact = false; /* pristine then, but private and in no set */
		return ms_restore(scan->slot, first, end);
	}
	return scan->pending_swapped ? ms_release_swapped(scan->slot, first, end)
				     : ms_release(scan->slot, first, end);
}

static int flush_pending(struct scan *scan)
{
	int error = put_back(scan, scan->pending_first, scan->pending_end);

	scan->pending_first = scan->pending_end = 0;
	return error;
}

/* Queue a stretch; it joins the one before it when nothing that stays lies between them. */
static int queue(struct scan *scan, size_t first, size_t end, bool swapped)
{
	struct memslot_slot *slot = scan->slot;
	const struct ms_retained *set = &slot->retained;
	bool alone =
		scan->evidence->pinned || slot->exempt.count || swapped != scan->pending_swapped;
	bool joins = scan->pending_end && !alone &&
		     ms_retained_below(set, scan->pending_end) == ms_retained_below(set, first);
	int error = 0;

	if (!joins)
		error = flush_pending(scan);
	if (!joins)
		scan->pending_first = first;
	scan->pending_end = end;
	scan->pending_swapped = swapped;
	return error;
}

/* Queue what may go of a refused stretch: not the exempt pages of a slot in hand. */
static int queue_unless_exempt(struct scan *scan, size_t first, size_t end, bool swapped)
{
	const struct ms_runs *exempt = &scan->slot->exempt;
	struct ms_page_run stretch;
	size_t left = end - first;
	int error = 0;

	while (!error && ms_runs_outside(exempt, first, end, &stretch)) {
		error = queue(scan, stretch.first, stretch.end, swapped);
		left -= stretch.end - stretch.first;
		first = stretch.end;
	}
	if (left)
		scan->slot->exact = false; /* exempt pages that the set has no room for */
	return error;
}

/* A region of the second pass: swapped pages go, of the others those not in the set. */
static int settle(struct scan *scan, const struct ms_page_region *region)
{
	uintptr_t base = (uintptr_t)scan->slot->base;
	size_t first = ms_bytes_to_pages(region->start - base);
	size_t end = ms_bytes_to_pages(region->end - base);
	int error = 0;

	if (region->categories & MS_PAGE_IS_SWAPPED)
		return queue_unless_exempt(scan, first, end, true);
	while (!error && first < end) {
		const struct ms_retained *set = &scan->slot->retained;
		size_t i = ms_retained_below(set, first);
		size_t stop = i < set->count ? ms_min(end, set->page[i]) : end;
		if (first < stop)
			error = queue_unless_exempt(scan, first, stop, false);
		first = stop + 1; /* page[i] is in the set */
	}
	return error;
}

static int release_pass(struct scan *scan)
{
	struct memslot_slot *slot = scan->slot;
	size_t pages = scan->refused_end - scan->refused_first;
	struct ms_pagemap_walk walk;
	int count, error = ms_pagemap_begin(&walk, ms_slot_address(slot, scan->refused_first),
			   ms_pages_to_bytes(pages));

	while (!error && (count = ms_pagemap_next(&walk)) != 0) {
		error = count < 0 ? count : 0;
		for (int i = 0; !error && i < count; i++)
			error = settle(scan, &walk.regions[i]);
	}
	return error ? error : flush_pending(scan);
}

int ms_scan(struct memslot_slot *slot, const struct ms_evidence *evidence, size_t *ret_fresh)
{
	struct scan scan = {.slot = slot, .evidence = evidence};
	struct ms_merge merge;
	size_t count, end = ms_slot_end(slot);
	int error = merge_pass(&scan, &merge);

	if (error)
		return error;
	*ret_fresh = merge.fresh;
	slot->exact = true; /* unless the second pass has to leave something */
	if (scan.refused_first < scan.refused_end)
		error = release_pass(&scan);
	count = slot->retained.count;
	/* Hidden pages make room for the next run's. */
	if (!error && scan.full && !evidence->pinned && count &&
		slot->retained.page[count - 1] >= end)
		error = ms_release(slot, end, slot->retained.page[count - 1] + (size_t)1);
	return error;
}
