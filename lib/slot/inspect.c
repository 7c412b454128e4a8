/* SPDX-License-Identifier: MIT */
/*
 * inspect.c - what AUTO looks at: retained pages, compared with the image.
 *
 * Invariant: a page that compares equal needs no restore; one that does not, or that was not
 * compared, is restored. So an inspected reset leaves the same bytes as any other. Exempt pages and
 * pages of a copied image are never compared, evicted or counted; nothing here runs for a slot that
 * was held since its last reset (INVARIANTS 10). Comparing a clean page costs what restoring it
 * would, so looking at cold pages is free.
 */
#include "slot/inspect.h"

#include <string.h>

/* Shorter clean stretches are not worth a system call. */
#define STRETCH_PAGES 16

static bool in_extent(const struct memslot_image *image, size_t page)
{
	size_t i = image ? ms_image_extent_at(image, page) : 0;

	return image && i < image->extent_count && image->extents[i].first <= page;
}

/* Does this page stay in the set whatever it does? */
static bool is_fixed(const struct memslot_slot *slot, size_t page)
{
	return (slot->copied && in_extent(slot->image, page)) ||
	       (slot->exempt.count && ms_runs_has(&slot->exempt, page));
}

static bool differs(const struct memslot_slot *slot, size_t page)
{
	const void *now = ms_slot_address(slot, page);

	if (in_extent(slot->image, page))
		return memcmp(now, ms_image_page(slot->image, page), ms_page_size()) != 0;
	return !ms_util_is_zero(now, ms_page_size());
}

void ms_inspect_samples(struct memslot_slot *slot)
{
	size_t visible = ms_retained_below(&slot->retained, ms_slot_end(slot));
	unsigned samples = ms_policy_samples(&slot->policy, visible);

	while (samples--) {
		size_t page = slot->retained.page[ms_policy_random(&slot->policy) % visible];
		bool clean = !is_fixed(slot, page) && !differs(slot, page);
		ms_policy_sampled(&slot->policy, visible, clean);
	}
}

/* Look at one page: restore it if need be, and note in its mark what was seen. */
static int look_at(struct memslot_slot *slot, size_t i, struct ms_look *look)
{
	uint16_t *mark = &slot->retained.mark[i];
	size_t page = slot->retained.page[i];
	unsigned age = *mark & MS_MARK_AGE;
	bool fresh = *mark & MS_MARK_NEW;

	look->pages++;
	slot->policy.idle += age >= 1;
	if (!fresh && !differs(slot, page)) {
		*mark = (uint16_t)((*mark & ~MS_MARK_AGE) | ms_min(age + 1, MS_MARK_AGE));
		look->suspects += age + 1 >= ms_policy_suspect_age(&slot->policy);
		return 0;
	}
	slot->policy.back += age >= 1;
	look->hits += !fresh;
	*mark = (uint16_t)((*mark & MS_MARK_PROVEN) | (fresh ? 0 : MS_MARK_PROVEN));
	return ms_restore(slot, page, page + 1);
}

static bool is_cold(const struct memslot_slot *slot, size_t i)
{
	return (slot->retained.mark[i] & MS_MARK_AGE) >= ms_policy_cold_age(&slot->policy) &&
	       !is_fixed(slot, slot->retained.page[i]);
}

/* Release a span, but for the exempt pages in it. */
static int release_unless_exempt(struct memslot_slot *slot, size_t first, size_t end)
{
	struct ms_page_run stretch;
	int error = 0;

	while (!error && ms_runs_outside(&slot->exempt, first, end, &stretch)) {
		error = ms_release(slot, stretch.first, stretch.end);
		first = stretch.end;
	}
	return error;
}

/* Drop the cold pages, one call for everything between two survivors; from the top, because each
 * release clips the set. */
static int evict(struct memslot_slot *slot, size_t visible)
{
	int error = 0;

	for (size_t i = visible; !error && i > 0;) {
		size_t last = i - 1, first = i;
		while (first > 0 && is_cold(slot, first - 1))
			first--;
		if (first <= last)
			error = release_unless_exempt(slot, slot->retained.page[first],
				slot->retained.page[last] + (size_t)1);
		i = first ? first - 1 : 0;
	}
	return error;
}

/* Evict if it pays; how many left. */
static int try_to_evict(struct memslot_slot *slot, size_t visible, bool scanned)
{
	size_t cold = 0, calls = 0, before = slot->retained.count;
	bool within = false;
	int error;

	for (size_t i = 0; i < visible; i++) {
		bool now = is_cold(slot, i);
		cold += now;
		calls += now && !within;
		within = now;
	}
	if (!ms_policy_evicts(&slot->policy, cold, calls, scanned))
		return 0;
	error = evict(slot, visible);
	ms_policy_evicted(&slot->policy, before - slot->retained.count, visible);
	return error;
}

int ms_inspect(struct memslot_slot *slot, bool scanned, size_t fresh)
{
	size_t visible = ms_retained_below(&slot->retained, ms_slot_end(slot));
	struct ms_look look = {.fresh = fresh, .scanned = scanned};
	int error = 0;

	for (size_t i = 0; !error && i < visible; i++) {
		size_t page = slot->retained.page[i];
		if (!is_fixed(slot, page))
			error = look_at(slot, i, &look);
		else if (slot->exempt.count == 0 || !ms_runs_has(&slot->exempt, page))
			error = ms_restore(slot, page, page + 1);
	}
	if (error)
		return error;
	if (ms_policy_look(&slot->policy, &look) == MS_VERDICT_GIVE_UP)
		return ms_release_all(slot);
	if (!slot->policy.trial)
		error = try_to_evict(slot, visible, scanned);
	ms_policy_judge(&slot->policy, look.pages, look.suspects);
	return error;
}

/* The stretches between retained pages that are worth a call: count them, or drop them. */
static int over_stretches(struct memslot_slot *slot, bool drop, size_t *ret_count)
{
	const struct ms_retained *set = &slot->retained;
	size_t first = 0, end = ms_slot_end(slot);
	int error = 0;

	*ret_count = 0;
	for (size_t i = 0; !error && first < end; i++) {
		size_t stop = i < set->count ? ms_min(end, set->page[i]) : end;
		if (stop - first >= STRETCH_PAGES) {
			*ret_count += 1;
			if (drop)
				error = release_unless_exempt(slot, first, stop);
		}
		first = stop + 1;
	}
	return error;
}

int ms_inspect_clean_stretches(struct memslot_slot *slot)
{
	size_t count;

	if (!ms_policy_cleans_soon(&slot->policy))
		return 0;
	(void)over_stretches(slot, false, &count);
	if (!ms_policy_cleans(&slot->policy, count))
		return 0;
	return over_stretches(slot, true, &count);
}
