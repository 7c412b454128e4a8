/* SPDX-License-Identifier: MIT */
/*
 * retained.c - the retained set: a sorted list of page numbers with a mark each.
 *
 * Invariant: every page in the set is private (INVARIANTS 1); whoever releases a page clips it out
 * in the same step (INVARIANTS 2). Pages beyond the edge are hidden, clean, and stand at the end of
 * the list because it is sorted. A scan is authoritative for the range it covered: what it does not
 * name leaves the set. Arrays are the slot's bookkeeping, never malloc. Owned by the slot's thread.
 */
#include "retained.h"

#include <string.h>

size_t ms_retained_bytes(size_t max)
{
	size_t bytes;

	return __builtin_mul_overflow(max, 2 * (sizeof(uint32_t) + sizeof(uint16_t)), &bytes)
		       ? 0
		       : bytes;
}

void ms_retained_init(struct ms_retained *set, void *memory, size_t max)
{
	uint32_t *pages = memory;
	uint16_t *marks = (uint16_t *)(pages + 2 * max);

	*set = (struct ms_retained){pages, marks, pages + max, marks + max, 0, max};
}

size_t ms_retained_below(const struct ms_retained *set, size_t page)
{
	size_t low = 0, high = set->count;

	/* Nearly always everything is below the edge. */
	if (high == 0 || set->page[high - 1] < page)
		return high;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (set->page[middle] < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool ms_retained_has(const struct ms_retained *set, size_t page)
{
	size_t i = ms_retained_below(set, page);

	return i < set->count && set->page[i] == page;
}

void ms_retained_clip(struct ms_retained *set, size_t first, size_t end)
{
	size_t from = ms_retained_below(set, first), to = ms_retained_below(set, end);

	if (from >= to)
		return;
	memmove(set->page + from, set->page + to, (set->count - to) * sizeof set->page[0]);
	memmove(set->mark + from, set->mark + to, (set->count - to) * sizeof set->mark[0]);
	set->count -= to - from;
}

void ms_retained_insert(struct ms_retained *set, size_t first, size_t end)
{
	size_t at, count = end - first;

	ms_retained_clip(set, first, end);
	MS_TRAP_UNLESS(count <= set->max - set->count);
	at = ms_retained_below(set, first);
	memmove(set->page + at + count, set->page + at, (set->count - at) * sizeof set->page[0]);
	memmove(set->mark + at + count, set->mark + at, (set->count - at) * sizeof set->mark[0]);
	for (size_t i = 0; i < count; i++) {
		set->page[at + i] = (uint32_t)(first + i);
		set->mark[at + i] = MS_MARK_PROVEN;
	}
	set->count += count;
}

void ms_retained_merge_begin(struct ms_merge *merge, struct ms_retained *set, size_t end)
{
	*merge = (struct ms_merge){.set = set, .visible = ms_retained_below(set, end)};
}

/* The steady state: the run is exactly what the set holds next. */
static bool merge_same(struct ms_merge *merge, size_t first, size_t end)
{
	const struct ms_retained *set = merge->set;
	size_t last = merge->next + (end - first) - 1;

	return !merge->changed && last < merge->visible && set->page[merge->next] == first &&
	       set->page[last] == end - 1;
}

/* One private page: carried over, or admitted while old entries, hidden ones too, keep their room.
 */
static bool merge_page(struct ms_merge *merge, size_t page)
{
	struct ms_retained *set = merge->set;
	uint16_t mark = MS_MARK_NEW;

	while (merge->next < merge->visible && set->page[merge->next] < page)
		merge->next++;
	if (merge->next < merge->visible && set->page[merge->next] == page)
		mark = set->mark[merge->next++] & (uint16_t)~MS_MARK_NEW;
	else if (merge->out + (set->count - merge->next) >= set->max)
		return false;
	else
		merge->fresh++;
	set->spare_page[merge->out] = (uint32_t)page;
	set->spare_mark[merge->out++] = mark;
	return true;
}

size_t ms_retained_merge_add(struct ms_merge *merge, size_t first, size_t end)
{
	if (merge_same(merge, first, end)) {
		for (size_t i = merge->next; i < merge->next + (end - first); i++)
			merge->set->mark[i] &= (uint16_t)~MS_MARK_NEW;
		merge->next += end - first;
		return end - first;
	}
	if (!merge->changed) {
		merge->changed = true;
		merge->split = merge->out = merge->next;
	}
	for (size_t page = first; page < end; page++) {
		if (!merge_page(merge, page))
			return page - first;
	}
	return end - first;
}

void ms_retained_merge_end(struct ms_merge *merge)
{
	struct ms_retained *set = merge->set;
	size_t hidden = set->count - merge->visible, fresh = merge->out - merge->split;

	if (!merge->changed)
		merge->out = merge->next;
	memmove(set->page + merge->out, set->page + merge->visible, hidden * sizeof set->page[0]);
	memmove(set->mark + merge->out, set->mark + merge->visible, hidden * sizeof set->mark[0]);
	if (merge->changed) {
		memcpy(set->page + merge->split, set->spare_page + merge->split,
			fresh * sizeof set->page[0]);
		memcpy(set->mark + merge->split, set->spare_mark + merge->split,
			fresh * sizeof set->mark[0]);
	}
	set->count = merge->out + hidden;
}
