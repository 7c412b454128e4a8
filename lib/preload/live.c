/* SPDX-License-Identifier: MIT */
/*
 * live.c - calls on a reservation that the program uses.
 *
 * Invariant: for the program's part of a range in use, [head, tail), the kernel's protections are
 * the program's at every return (in lazy mode from the first opening on). What it has open is one
 * run, opened readable and writable; anything else makes the range leave. What it unmaps at head
 * and tail is remembered, not carried out, and any call that reaches there makes the range leave,
 * too.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define RW (PROT_READ | PROT_WRITE)
#define HUGE_BYTES (2ull << 20) /* below it a huge page costs more than it saves */

static long forward(long number, void *address, size_t size, long third)
{
	return ms_os_forward(number, (long)address, (long)size, third, 0, 0, 0);
}

/* The whole pages that a call is about; false: the kernel will refuse it. */
static bool pages_of(const void *address, size_t size, uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t whole;

	*ret_start = (uint64_t)(uintptr_t)address;
	if (size == 0 || !ms_page_aligned(*ret_start) || !ms_round_up(size, &whole) ||
		__builtin_add_overflow(*ret_start, whole, ret_end))
		return false;
	return true;
}

/* --- munmap --- */

/* The program is done with it. */
static int retire(struct ms_range *range)
{
	struct memslot_preload_shape *row = ms_idle_row(range->shape);
	/* Never opened: the program looks for a place that suits it. */
	unsigned reason = range->opened ? MEMSLOT_PRELOAD_FAILED : MEMSLOT_PRELOAD_UNOPENED;

	if (ms_config.mode == MS_MODE_OBSERVE)
		reason = MEMSLOT_PRELOAD_REASONS;
	atomic_store(&range->state, MS_RANGE_BUSY);
	ms_section_lock();
	ms_idle_died(range);
	ms_section_unlock();
	ms_tally_add(&row->freed, range->opened);
	ms_tally_add(&row->life_ns, ms_os_clock_ns() - range->born_ns);
	if (ms_config.mode == MS_MODE_OBSERVE)
		ms_tally_add(&row->pages, ms_clean_count(range));
	if (reason == MEMSLOT_PRELOAD_FAILED && ms_config.slots == 0)
		reason = MEMSLOT_PRELOAD_SURPLUS;
	else if (reason == MEMSLOT_PRELOAD_FAILED && range->cleans && ms_idle_few(range->shape))
		reason = MEMSLOT_PRELOAD_FEW;
	if (reason != MEMSLOT_PRELOAD_FAILED || ms_clean(range))
		return ms_leave(range, MS_RANGE_IDLE, reason);
	ms_section_lock();
	ms_idle_ended(range->shape, true);
	ms_idle_put(range);
	ms_section_unlock();
	ms_tally_add(&ms_tally->kept, 1);
	ms_tally_add(&ms_tally->calls_saved, 1);
	ms_leave_surplus();
	return 0;
}

/* Observed: it is carried out. */
static void trim_now(struct ms_range *range, uint64_t start, uint64_t end)
{
	ms_section_lock();
	ms_registry_shrink(range, range->head, range->tail);
	ms_section_unlock();
	(void)ms_os_unmap((void *)(uintptr_t)start, end - start);
}

/* Unmapped at head or tail. */
static bool trim(struct ms_range *range, uint64_t start, uint64_t end)
{
	uint64_t head = start <= range->head ? end : range->head;
	uint64_t tail = start <= range->head ? range->tail : start;
	uint64_t trimmed = (head - range->start) + (range->end - tail);

	if (start > range->head && end < range->tail)
		return false;
	if (trimmed > (range->end - range->start) / 4)
		return false;
	if (range->open < range->shut && (head > range->open || tail < range->shut))
		return false;
	if (range->left < range->right && (head > range->left || tail < range->right) &&
		ms_leave_settle(range))
		return false;
	range->head = head;
	range->tail = tail;
	if (ms_config.mode == MS_MODE_OBSERVE)
		trim_now(range, start, end);
	else
		ms_tally_add(&ms_tally->calls_saved, 1);
	return true;
}

/* -EAGAIN: the kernel shall do it, the range is gone. */
static int unmap_live(struct ms_range *range, uint64_t start, uint64_t end)
{
	bool inside = start >= range->start && end <= range->end;

	if (inside && start <= range->head && end >= range->tail)
		return retire(range);
	if (inside && (end <= range->head || start >= range->tail || trim(range, start, end))) {
		ms_range_release(range);
		return 0;
	}
	(void)ms_leave(range, MS_RANGE_LIVE, MEMSLOT_PRELOAD_PARTIAL);
	return -EAGAIN;
}

long ms_live_unmap(void *address, size_t size)
{
	struct ms_section section;
	enum ms_range_state state;
	struct ms_range *range;
	uint64_t start, end;
	long result = -EAGAIN;

	if (!pages_of(address, size, &start, &end) || !ms_section_enter(&section))
		return forward(SYS_munmap, address, size, 0);
	range = ms_registry_own(start, end, &state);
	if (range && state == MS_RANGE_LIVE)
		result = unmap_live(range, start, end);
	else if (range)
		(void)ms_leave(range, state, MEMSLOT_PRELOAD_FREED);
	if (result == -EAGAIN) {
		ms_leave_all(start, end, MEMSLOT_PRELOAD_PARTIAL);
		result = forward(SYS_munmap, address, size, 0);
	}
	ms_section_leave(&section);
	return result;
}

/* --- mprotect --- */

static int protect(uint64_t start, uint64_t end, int prot)
{
	void *address = (void *)(uintptr_t)start;
	int error = start < end ? ms_os_protect(address, end - start, prot) : 0;

	/* The limit of mappings: ours go first. */
	if (error == -ENOMEM && ms_leave_idle())
		error = ms_os_protect(address, end - start, prot);
	return error;
}

/* The kernel has [left, right) open from the tenant before: make it [start, end). */
static int turn_over(struct ms_range *range, uint64_t start, uint64_t end)
{
	uint64_t left = range->left, right = range->right;
	int error = protect(left, ms_min(right, start), PROT_NONE);

	if (!error)
		error = protect(ms_max(left, end), right, PROT_NONE);
	if (!error && (start < left || end > right))
		error = protect(start, end, RW);
	else if (!error)
		ms_tally_add(&ms_tally->calls_saved, 1);
	if (!error)
		range->left = range->right = 0;
	return error;
}

/* Huge pages where they pay: see ms_idle_wants_huge. */
static void apply_huge(struct ms_range *range, uint64_t opened)
{
	if (!(range->asked & MS_ASKED_HUGE) || (range->applied & MS_ASKED_HUGE) ||
		opened < HUGE_BYTES || !ms_idle_wants_huge(range->shape))
		return;
	if (ms_os_advise(
		    (void *)(uintptr_t)range->start, range->end - range->start, MADV_HUGEPAGE) == 0)
		range->applied |= MS_ASKED_HUGE;
}

long ms_live_open(struct ms_range *range, uint64_t start, uint64_t end)
{
	bool first = !range->opened, none = range->open == range->shut;
	int error = 0;

	if (!none && (start > range->shut || end < range->open))
		return -EAGAIN; /* a second run */
	if (first && (range->applied & ~range->asked))
		error = ms_leave_settle(range);
	if (error)
		return error;
	apply_huge(range, end - start + range->shut - range->open);
	error = first && range->left < range->right ? turn_over(range, start, end)
						    : protect(start, end, RW);
	if (!error)
		error = ms_clean_late(range, start, end);
	if (error)
		return error;
	range->open = none ? start : ms_min(range->open, start);
	range->shut = none ? end : ms_max(range->shut, end);
	range->low = range->low == range->high ? range->open : ms_min(range->low, range->open);
	range->high = ms_max(range->high, range->shut);
	range->opened = true;
	ms_tally_max(&ms_idle_row(range->shape)->opened, range->shut - range->open);
	return 0;
}

/* Close [start, end); -EAGAIN: that would leave two runs. */
static int close_part(struct ms_range *range, uint64_t start, uint64_t end)
{
	int error = range->left < range->right ? ms_leave_settle(range) : 0;

	if (error || range->open == range->shut || end <= range->open || start >= range->shut)
		return error ? error : protect(start, end, PROT_NONE);
	if (start > range->open && end < range->shut)
		return -EAGAIN;
	error = protect(start, end, PROT_NONE);
	if (error)
		return error;
	range->closed = true;
	if (start > range->open)
		range->shut = start;
	else
		range->open = ms_min(end, range->shut);
	return 0;
}

static long protect_live(struct ms_range *range, uint64_t start, uint64_t end, int prot)
{
	if (start < range->head || end > range->tail || (prot != RW && prot != PROT_NONE))
		return -EAGAIN;
	return prot == RW ? ms_live_open(range, start, end) : close_part(range, start, end);
}

long ms_live_protect(void *address, size_t size, int prot)
{
	struct ms_section section;
	enum ms_range_state state;
	struct ms_range *range;
	uint64_t start, end;
	long result = -EAGAIN;

	if (!pages_of(address, size, &start, &end) || !ms_section_enter(&section))
		return forward(SYS_mprotect, address, size, prot);
	range = ms_registry_own(start, end, &state);
	if (range && state == MS_RANGE_LIVE)
		result = protect_live(range, start, end, prot);
	if (range && result == 0) {
		ms_range_release(range);
	} else {
		/* Not understood, or refused: the kernel gives the answer. */
		if (range)
			(void)ms_leave(range, state, MEMSLOT_PRELOAD_PROTECTION);
		ms_leave_all(start, end, MEMSLOT_PRELOAD_PROTECTION);
		result = forward(SYS_mprotect, address, size, prot);
	}
	ms_section_leave(&section);
	return result;
}

/* --- madvise --- */

static bool harmless(int advice)
{
	return advice == MADV_DONTNEED || advice == MADV_WILLNEED || advice == MADV_FREE ||
	       advice == MADV_NORMAL || advice == MADV_COLD || advice == MADV_PAGEOUT ||
	       (advice >= 22 && advice <= MS_MADV_DONTNEED_LOCKED); /* populate */
}

static int advise_fork(struct ms_range *range, int advice)
{
	bool want = advice == MADV_DONTFORK, has = range->applied & MS_ASKED_DONTFORK;
	int error = 0;

	/* For the trimmed parts, too: a child shall know nothing of the range, or all. */
	if (want != has)
		error = ms_os_advise(
			(void *)(uintptr_t)range->start, range->end - range->start, advice);
	else
		ms_tally_add(&ms_tally->calls_saved, 1);
	if (error)
		return error;
	range->asked = want ? range->asked | MS_ASKED_DONTFORK : range->asked & ~MS_ASKED_DONTFORK;
	range->applied = (range->applied & ~MS_ASKED_DONTFORK) | (want ? MS_ASKED_DONTFORK : 0);
	return 0;
}

static int advise_huge(struct ms_range *range)
{
	range->asked |= MS_ASKED_HUGE;
	if (ms_config.thp == MS_THP_KEEP && !(range->applied & MS_ASKED_HUGE)) {
		int error = ms_os_advise(
			(void *)(uintptr_t)range->start, range->end - range->start, MADV_HUGEPAGE);
		range->applied |= error ? 0 : MS_ASKED_HUGE;
		return error;
	}
	apply_huge(range, range->shut - range->open);
	return 0;
}

/* -EAGAIN: not understood. 1: the kernel may do it, and the range stays. */
static int advise_live(struct ms_range *range, uint64_t start, uint64_t end, int advice)
{
	bool whole = start == range->head && end == range->tail;

	if (start < range->head || end > range->tail)
		return -EAGAIN;
	if (harmless(advice))
		return 1;
	if (whole && (advice == MADV_DONTFORK || advice == MADV_DOFORK))
		return advise_fork(range, advice);
	if (whole && advice == MADV_HUGEPAGE && ms_child_knows_huge())
		return advise_huge(range);
	return -EAGAIN;
}

long ms_live_advise(void *address, size_t size, int advice)
{
	struct ms_section section;
	enum ms_range_state state;
	struct ms_range *range;
	uint64_t start, end;
	long result = -EAGAIN;

	if (!pages_of(address, size, &start, &end) || !ms_section_enter(&section))
		return forward(SYS_madvise, address, size, advice);
	range = ms_registry_own(start, end, &state);
	if (range && state == MS_RANGE_LIVE)
		result = advise_live(range, start, end, advice);
	if (range && result >= 0) {
		ms_range_release(range);
	} else {
		if (range)
			(void)ms_leave(range, state, MEMSLOT_PRELOAD_ADVICE);
		ms_leave_all(start, end, MEMSLOT_PRELOAD_ADVICE);
	}
	if (result != 0)
		result = forward(SYS_madvise, address, size, advice);
	ms_section_leave(&section);
	return result;
}

/* --- anything else --- */

void ms_live_other(const void *address, size_t size, unsigned reason, bool inside)
{
	struct ms_section section;
	enum ms_range_state state;
	struct ms_range *range;
	uint64_t start = ms_round_down((uint64_t)(uintptr_t)address), end;

	if (__builtin_add_overflow((uint64_t)(uintptr_t)address, size, &end) ||
		!ms_section_enter(&section))
		return;
	range = ms_registry_own(start, end, &state);
	if (range && inside && state == MS_RANGE_LIVE && start >= range->head &&
		end <= range->tail) {
		ms_range_release(range);
	} else {
		if (range)
			(void)ms_leave(range, state, reason);
		ms_leave_all(start, end, reason);
	}
	ms_section_leave(&section);
}
