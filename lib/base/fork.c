/* SPDX-License-Identifier: MIT */
/*
 * fork.c - the fork epoch.
 *
 * Invariant: two processes that share history never have the same epoch, however they were made:
 * the epoch lives in a page that MADV_WIPEONFORK clears in the child (pthread_atfork(3) does not
 * run for raw clone(2), INVARIANTS 18), and a new one is drawn above all earlier ones, whose
 * largest every child inherits. Where the kernel has no such page, the process id is compared each
 * time, and an atfork handler covers the child that got its parent's number.
 *
 * Nothing here locks, so a fork at any moment leaves nothing behind.
 */
#define _GNU_SOURCE
#include "fork.h"

#include "feature.h"
#include "os.h"

#include <pthread.h>
#include <sys/mman.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static _Atomic(uint64_t) no_page; /* always 0: every question takes the slow way */
_Atomic(uint64_t) *ms_fork_page = &no_page;

static _Atomic(uint64_t) last_epoch;
static _Atomic(uint64_t) plain; /* without a wiped page: whose epoch it is << 32 | the epoch */

static void forget_plain(void)
{
	atomic_store(&plain, 0);
}

__attribute__((constructor)) static void fork_init(void)
{
	void *page;

	pthread_atfork(NULL, NULL, forget_plain);
	if (!ms_feature(MS_FEATURE_WIPE_ON_FORK))
		return;
	if (ms_os_reserve(NULL, ms_page_size(), PROT_READ | PROT_WRITE, &page))
		return;
	if (ms_os_advise(page, ms_page_size(), MADV_WIPEONFORK)) {
		ms_os_unmap(page, ms_page_size());
		return;
	}
	ms_fork_page = page;
}

static uint64_t epoch_by_pid(void)
{
	uint64_t pid = (uint32_t)ms_os_pid(), seen = atomic_load(&plain), fresh;

	/* Threads that ask for the first time at once get the same. */
	while (seen >> 32 != pid) {
		fresh = pid << 32 | (uint32_t)(atomic_fetch_add(&last_epoch, 1) + 1);
		if (atomic_compare_exchange_weak(&plain, &seen, fresh))
			seen = fresh;
	}
	return seen & UINT32_MAX;
}

uint64_t ms_fork_epoch_slow(void)
{
	uint64_t fresh, seen = 0;

	if (ms_fork_page == &no_page)
		return epoch_by_pid();
	fresh = atomic_fetch_add(&last_epoch, 1) + 1;
	return atomic_compare_exchange_strong(ms_fork_page, &seen, fresh) ? fresh : seen;
}
