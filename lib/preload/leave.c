/* SPDX-License-Identifier: MIT */
/*
 * leave.c - a range goes back to the kernel.
 *
 * Invariant: afterwards the kernel has exactly what the program believes: what was unmapped is
 * unmapped, what is in use has the protection and advice of this tenant. The range leaves the index
 * before anything is unmapped, so that nobody who is given the addresses next finds it there.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <sys/mman.h>
#include <sys/syscall.h>

static void *at(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static int unmap(uint64_t start, uint64_t end)
{
	return start < end ? ms_os_unmap(at(start), end - start) : 0;
}

/* A new mapping over it: the only way back from MADV_HUGEPAGE. */
static int refresh(struct ms_range *range)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
		    (ms_idle_noreserve(range->shape) ? MAP_NORESERVE : 0);
	long got = ms_os_forward(SYS_mmap, (long)range->start, (long)(range->end - range->start),
		PROT_NONE, flags, -1, 0);

	if (got < 0 && got > -4096)
		return (int)got;
	range->applied = range->cleans = 0;
	range->low = range->high = range->left = range->right = 0;
	range->late = range->until = 0;
	if (range->asked & MS_ASKED_DONTFORK) {
		range->applied = MS_ASKED_DONTFORK;
		return ms_os_advise(at(range->start), range->end - range->start, MADV_DONTFORK);
	}
	return 0;
}

int ms_leave_settle(struct ms_range *range)
{
	uint32_t stale = range->applied & ~range->asked;
	int error = 0;

	if (stale & MS_ASKED_HUGE)
		return refresh(range);
	if (stale & MS_ASKED_DONTFORK)
		error = ms_os_advise(at(range->start), range->end - range->start, MADV_DOFORK);
	if (error && !range->opened) /* this tenant has nothing in it yet */
		return refresh(range);
	if (!error)
		range->applied &= range->asked;
	if (!error && range->left < range->right)
		error = ms_os_protect(at(range->left), range->right - range->left, PROT_NONE);
	if (!error)
		range->left = range->right = 0;
	return error;
}

/* Where this tenant has opened nothing it is one mapping, which may be moved. What was opened
 * before is accounted for otherwise, and a mapping of its own. */
static void make_new(struct ms_range *range)
{
	if (!range->opened && range->cleans &&
		ms_maps_uniform(range->start, range->end, PROT_NONE) == 0)
		(void)refresh(range);
}

int ms_leave(struct ms_range *range, enum ms_range_state state, unsigned reason)
{
	uint64_t start = range->start, head = range->head, tail = range->tail, end = range->end;
	int error;

	if (state == MS_RANGE_LIVE) {
		(void)ms_leave_settle(range);
		make_new(range);
		ms_clean_unseen(range);
	}
	ms_section_lock();
	if (state == MS_RANGE_LIVE) {
		ms_idle_died(range);
		ms_idle_ended(range->shape, false);
	}
	ms_idle_drop(range->shape);
	ms_registry_remove(range);
	ms_section_unlock();
	if (reason < MEMSLOT_PRELOAD_REASONS)
		ms_tally_add(&ms_tally->left[reason], 1);
	if (state != MS_RANGE_LIVE)
		return unmap(start, end);
	error = unmap(start, head);
	return error ? error : unmap(tail, end);
}

void ms_leave_foreign(struct ms_range *range)
{
	ms_section_lock();
	ms_idle_drop(range->shape);
	ms_registry_remove(range);
	ms_section_unlock();
	ms_tally_add(&ms_tally->left[MEMSLOT_PRELOAD_TAMPERED], 1);
}

void ms_leave_all(uint64_t start, uint64_t end, unsigned reason)
{
	enum ms_range_state state;
	struct ms_range *range;

	while ((range = ms_registry_own(start, end, &state)))
		(void)ms_leave(
			range, state, state == MS_RANGE_IDLE ? MEMSLOT_PRELOAD_FREED : reason);
}

/* One surplus slot; false: there is none. */
static bool one_surplus(bool all)
{
	struct ms_range *range;
	bool only_pages;

	ms_section_lock();
	range = ms_idle_surplus(all, &only_pages);
	ms_section_unlock();
	if (!range)
		return false;
	if (!only_pages || ms_clean_drop(range)) {
		(void)ms_leave(range, MS_RANGE_IDLE, MEMSLOT_PRELOAD_SURPLUS);
		return true;
	}
	ms_section_lock();
	ms_idle_put(range);
	ms_section_unlock();
	return true;
}

bool ms_leave_idle(void)
{
	bool any = false;

	while (one_surplus(true))
		any = true;
	return any;
}

void ms_leave_surplus(void)
{
	while (one_surplus(false))
		;
}
