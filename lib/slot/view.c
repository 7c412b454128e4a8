/* SPDX-License-Identifier: MIT */
/*
 * view.c - what a tenant or its host does to parts of the slot: protect, exempt, discard; and the
 * dirty list.
 *
 * Invariant: ranges are checked before anything changes; the tables say what was done, so that a
 * reset can undo it. Protection is no part of contents: whoever writes for the library lifts it
 * first. What cannot be undone makes the slot unknown.
 */
#include "slot/slot.h"

#include "base/pagemap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* The same protection, again and again, for the parts of the table's runs inside [first, end). */
static int apply(struct memslot_slot *slot, size_t first, size_t end, bool lift)
{
	int error = 0;

	for (size_t i = 0; !error && i < slot->protects.count; i++) {
		const struct ms_page_run *run = &slot->protects.run[i];
		size_t from = ms_max(run->first, first), to = ms_min(run->end, end);
		if (from < to)
			error = ms_os_protect(ms_slot_address(slot, from),
				ms_pages_to_bytes(to - from), lift ? MS_EDGE_RW : (int)run->value);
	}
	return error;
}

int ms_view_lift(struct memslot_slot *slot, size_t first, size_t end)
{
	return apply(slot, first, end, true);
}

int ms_view_put_back(struct memslot_slot *slot, size_t first, size_t end)
{
	return apply(slot, first, end, false);
}

/* Whole pages inside the size, else -EINVAL. */
static int whole_pages(const struct memslot_slot *slot, size_t offset, size_t size,
	size_t *ret_first, size_t *ret_end)
{
	size_t end;

	if (__builtin_add_overflow(offset, size, &end) || !ms_page_aligned(offset) ||
		!ms_page_aligned(size) || ms_bytes_to_pages(end) > slot->size_pages)
		return -EINVAL;
	*ret_first = ms_bytes_to_pages(offset);
	*ret_end = ms_bytes_to_pages(end);
	return 0;
}

static int change_protection(
	struct memslot_slot *slot, size_t first, size_t end, int prot, bool *ret_unknown)
{
	struct ms_page_run before[MS_RUNS_MAX];
	size_t count = slot->protects.count;
	int error;

	memcpy(before, slot->protects.run, count * sizeof before[0]);
	error = prot == MS_EDGE_RW ? ms_runs_clear(&slot->protects, first, end)
				       : ms_runs_set(&slot->protects, first, end, (uint32_t)prot);

	if (error)
		return error;
	error = ms_os_protect(ms_slot_address(slot, first), ms_pages_to_bytes(end - first), prot);
	if (!error)
		return 0;
	/* A part may be done: back to what it was, or nobody knows. */
	slot->protects.count = count;
	memcpy(slot->protects.run, before, count * sizeof before[0]);
	*ret_unknown = ms_os_protect(ms_slot_address(slot, first), ms_pages_to_bytes(end - first),
			       MS_EDGE_RW) ||
		       ms_view_put_back(slot, first, end);
	return error;
}

MS_EXPORT int memslot_slot_protect(
	struct memslot_slot *slot, size_t offset, size_t size, uint32_t prot)
{
	uint64_t calls = ms_os_calls;
	bool unknown = false;
	size_t first, end;
	int error;

	if (!slot || (prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC)))
		return -EINVAL;
	error = ms_state_usable(slot);
	if (!error)
		error = whole_pages(slot, offset, size, &first, &end);
	if (error || size == 0)
		return error;
	ms_state_begin_change(slot);
	error = change_protection(slot, first, end, (int)prot, &unknown);
	slot->stats.syscalls += ms_os_calls - calls;
	ms_state_end_change(slot, unknown);
	return error;
}

MS_EXPORT int memslot_slot_exempt(struct memslot_slot *slot, size_t offset, size_t size)
{
	size_t first, end;
	int error;

	if (!slot)
		return -EINVAL;
	error = ms_state_usable(slot);
	if (!error)
		error = whole_pages(slot, offset, size, &first, &end);
	if (error || size == 0)
		return error;
	ms_state_begin_change(slot);
	error = ms_runs_set(&slot->exempt, first, end, 0);
	slot->spoilt_beyond |= error == 0;
	ms_state_end_change(slot, false);
	return error;
}

static int discard(struct memslot_slot *slot, size_t first, size_t end, bool *ret_unknown)
{
	int error = ms_runs_clear(&slot->exempt, first, end);

	if (error)
		return error;
	error = ms_view_lift(slot, first, end);
	if (!error)
		error = ms_release(slot, first, end);
	if (!error)
		error = ms_view_put_back(slot, first, end);
	*ret_unknown = error;
	return error;
}

MS_EXPORT int memslot_slot_discard(struct memslot_slot *slot, size_t offset, size_t size)
{
	uint64_t word, end, first, calls = ms_os_calls;
	bool unknown = false;
	int error;

	if (!slot)
		return -EINVAL;
	error = ms_state_begin(slot, MS_ALONE, &word);
	if (error)
		return error;
	if (__builtin_add_overflow(offset, size, &end) || end > ms_pages_to_bytes(slot->size_pages))
		error = -EINVAL;
	else if (ms_round_up(offset, &first) && first < ms_round_down(end))
		error = discard(slot, ms_bytes_to_pages(first), ms_bytes_to_pages(end), &unknown);
	slot->stats.syscalls += ms_os_calls - calls;
	ms_state_end(slot, unknown);
	return error;
}

/* --- the dirty list --- */

struct listing {
	struct memslot_run *runs;
	size_t room, count;
	uint64_t end; /* of the last run: touching runs become one */
};

static void list_run(struct listing *list, uint64_t offset, uint64_t size)
{
	if (list->count && list->end == offset) {
		if (list->count <= list->room)
			list->runs[list->count - 1].size += size;
	} else {
		if (list->count < list->room)
			list->runs[list->count] = (struct memslot_run){offset, size};
		list->count++;
	}
	list->end = offset + size;
}

/* Private pages up to the edge; where nobody can tell, all. */
static void list_all(struct memslot_slot *slot, struct listing *list)
{
	uint64_t base = (uintptr_t)slot->base, size = ms_pages_to_bytes(ms_slot_end(slot));
	struct ms_pagemap_walk walk;
	int count = slot->mixed ? -EOPNOTSUPP : ms_pagemap_begin(&walk, slot->base, size);

	while (count == 0 && (count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++)
			list_run(list, walk.regions[i].start - base,
				walk.regions[i].end - walk.regions[i].start);
		count = 0;
	}
	if (count == 0)
		return;
	list->count = 0;
	if (size)
		list_run(list, 0, size);
}

MS_EXPORT int memslot_slot_written(
	struct memslot_slot *slot, struct memslot_run *runs, size_t count, size_t *ret_count)
{
	struct memslot_run few[64];
	struct listing list = {few, 64, 0, 0};
	uint64_t calls = ms_os_calls;
	int error;

	if (!slot || !ret_count || (count && !runs))
		return -EINVAL;
	error = ms_state_usable(slot);
	if (error)
		return error;
	list_all(slot, &list);
	if (list.count > list.room && list.count <= count) {
		list = (struct listing){runs, count, 0, 0};
		list_all(slot, &list);
	} else if (list.count <= count && list.count) {
		memcpy(runs, few, list.count * sizeof few[0]);
	}
	slot->stats.syscalls += ms_os_calls - calls;
	*ret_count = list.count;
	return list.count > count ? -ENOSPC : 0;
}
