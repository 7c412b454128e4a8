/* SPDX-License-Identifier: MIT */
/*
 * child.c - when the preload begins, and when it ends: constructor, first request, forks, limits.
 *
 * Invariant: ranges are those of this process: the first call that gets inside after a fork,
 * however it was made, finds another epoch and starts anew: what was put off is carried out on the
 * copies that the child got, and nothing is known any more. Ranges with MADV_DONTFORK were not
 * copied: what lies there now is somebody else's. Where the lock is found taken by a thread that
 * the child does not have, nobody knows what the tables say: the preload is off there.
 *
 * In fork(2) the lock is held over it; and advice that a slot still has from its last tenant is
 * taken back before, for the child would miss a reservation of this one's.
 */
#define _GNU_SOURCE
#include "preload.h"

#include "base/feature.h"
#include "base/fork.h"
#include "base/pagemap.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define RESETTING UINT64_MAX

static _Atomic(uint64_t) owner; /* the epoch that the ranges belong to; 0: nobody was inside yet */
static _Atomic(bool) ready;	/* tables are there */
static bool knows_huge;
static __thread struct ms_section fork_section __attribute__((tls_model("initial-exec")));
static __thread bool fork_inside __attribute__((tls_model("initial-exec")));

bool ms_child_knows_huge(void)
{
	return knows_huge;
}

void ms_child_stop(uint64_t why)
{
	ms_leave_all(0, UINT64_MAX, MEMSLOT_PRELOAD_SURPLUS);
	ms_section_off(why);
}

/* --- the first request --- */

static bool probe_huge(void)
{
	void *page;
	bool yes;

	if (ms_os_reserve(NULL, ms_page_size(), PROT_NONE, &page))
		return false;
	yes = ms_os_advise(page, ms_page_size(), MADV_HUGEPAGE) == 0;
	ms_os_unmap(page, ms_page_size());
	return yes;
}

/* 0, or why not. */
static uint64_t begin(void)
{
	if (ms_os_address_space_limit() != UINT64_MAX)
		return MEMSLOT_PRELOAD_OFF_LIMIT;
	if (ms_os_proc_number("/proc/sys/vm/overcommit_memory", 0) == 2)
		return MEMSLOT_PRELOAD_OFF_OVERCOMMIT;
	if (!ms_feature(MS_FEATURE_DONTNEED))
		return MEMSLOT_PRELOAD_OFF_KERNEL;
	if (ms_registry_start())
		return MEMSLOT_PRELOAD_OFF_MEMORY;
	if (ms_config.mode == MS_MODE_LAZY &&
		(!ms_feature(MS_FEATURE_PROCMAP_QUERY) || !ms_feature(MS_FEATURE_PAGEMAP_SCAN))) {
		ms_config.mode = MS_MODE_STRICT;
		__atomic_fetch_or(&ms_tally->off, MEMSLOT_PRELOAD_NOT_LAZY, __ATOMIC_RELAXED);
	}
	knows_huge = probe_huge();
	return 0;
}

bool ms_child_ready(void)
{
	uint64_t why = 0;

	if (MS_LIKELY(atomic_load(&ready)))
		return true;
	ms_section_lock();
	if (!atomic_load(&ready) && atomic_load(&ms_section_on)) {
		why = begin();
		if (why)
			ms_section_off(why);
		atomic_store(&ready, why == 0);
	}
	ms_section_unlock();
	return atomic_load(&ready);
}

/* --- forks --- */

/* What was put off is carried out on this copy. */
static void settle_copy(const struct ms_range *range)
{
	uint32_t state = atomic_load(&range->state);
	bool live = state == MS_RANGE_LIVE || state == MS_RANGE_WORK;
	char *memory = (char *)(uintptr_t)range->start;
	size_t size = range->end - range->start;

	if (range->applied & MS_ASKED_DONTFORK)
		return;
	if (!live) {
		(void)ms_os_unmap(memory, size);
		return;
	}
	if (range->head > range->start)
		(void)ms_os_unmap(memory, range->head - range->start);
	if (range->tail < range->end)
		(void)ms_os_unmap((void *)(uintptr_t)range->tail, range->end - range->tail);
	ms_clean_unseen(range);
	if (range->left < range->right)
		(void)ms_os_protect(
			(void *)(uintptr_t)range->left, range->right - range->left, PROT_NONE);
}

static void start_anew(void)
{
	for (uint32_t n = 0; n < ms_registry_count(); n++)
		settle_copy(ms_registry_nth(n));
	ms_registry_clear();
	ms_idle_clear();
	ms_tally_add(&ms_tally->processes, 1);
}

void ms_child_check(void)
{
	uint64_t epoch = ms_fork_epoch(), seen = atomic_load(&owner);

	while (MS_UNLIKELY(seen != epoch)) {
		if (seen == 0) {
			if (atomic_compare_exchange_strong(&owner, &seen, epoch))
				return;
			continue;
		}
		if (seen == RESETTING) {
			ms_os_yield();
			seen = atomic_load(&owner);
			continue;
		}
		if (!atomic_compare_exchange_strong(&owner, &seen, RESETTING))
			continue;
		if (ms_section_lost()) {
			ms_section_off(MEMSLOT_PRELOAD_OFF_FORK);
			ms_section_unlock_child();
			ms_registry_clear();
		} else {
			start_anew();
		}
		atomic_store(&owner, epoch);
		return;
	}
}

/* Advice of the tenant before, on ranges that this one has not opened yet. */
static void take_back_advice(void)
{
	for (uint32_t n = 0; n < ms_registry_count(); n++) {
		struct ms_range *range = ms_registry_nth(n);
		uint32_t seen = MS_RANGE_LIVE;
		if (!(range->applied & ~range->asked & MS_ASKED_DONTFORK) ||
			!atomic_compare_exchange_strong(&range->state, &seen, MS_RANGE_WORK))
			continue;
		if (ms_os_advise((void *)(uintptr_t)range->start, range->end - range->start,
			    MADV_DOFORK) == 0)
			range->applied &= ~MS_ASKED_DONTFORK;
		ms_range_release(range);
	}
}

static void before_fork(void)
{
	fork_inside = ms_section_enter(&fork_section);
	if (!fork_inside)
		return;
	ms_section_lock();
	take_back_advice();
}

static void after_fork(void)
{
	if (!fork_inside)
		return;
	ms_section_unlock();
	ms_section_leave(&fork_section);
}

static void in_child(void)
{
	if (!fork_inside)
		return;
	ms_section_unlock_child();
	ms_child_check();
	ms_section_leave(&fork_section);
}

__attribute__((constructor)) static void child_init(void)
{
	ms_pagemap_high = true;
	if (!ms_config_read(environ))
		return;
	ms_os_widen_fds();
	ms_tally_add(&ms_tally->processes, 1);
	pthread_atfork(before_fork, after_fork, in_child);
	atomic_store(&ms_section_on, true);
}
