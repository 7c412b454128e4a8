/* SPDX-License-Identifier: MIT */
/*
 * section.c - inside: signals wait, one lock.
 *
 * Invariant: whoever is inside has all signals blocked but those that a fault raises, so no handler
 * runs in the middle, and none can jump out of it. A handler of those others that comes all the
 * same (somebody sends SIGSEGV) finds `inside` set and goes straight to the kernel. errno is as it
 * was when we leave: the caller sets it for an error.
 *
 * The lock word holds the fork epoch of its holder's process: after a raw clone(2) it names a
 * thread that this process does not have.
 */
#define _GNU_SOURCE
#include "preload.h"

#include "base/fork.h"

#include <errno.h>

#define WAITED (1u << 31)
#define SPINS 100

_Atomic(bool) ms_section_on;
static __thread bool inside __attribute__((tls_model("initial-exec")));
static _Atomic(uint32_t) word; /* 0: free */

bool ms_section_enter(struct ms_section *section)
{
	if (inside)
		return false;
	section->error = errno;
	ms_os_block_signals(&section->mask);
	inside = true;
	ms_child_check();
	if (atomic_load_explicit(&ms_section_on, memory_order_relaxed))
		return true;
	ms_section_leave(section);
	return false;
}

void ms_section_leave(const struct ms_section *section)
{
	inside = false;
	ms_os_restore_signals(section->mask);
	errno = section->error;
}

static uint32_t holder(void)
{
	return (uint32_t)ms_fork_epoch() & ~WAITED;
}

void ms_section_lock(void)
{
	uint32_t own = holder(), seen = 0;

	for (int i = 0; i < SPINS; i++) {
		seen = 0;
		if (atomic_compare_exchange_weak_explicit(
			    &word, &seen, own, memory_order_acquire, memory_order_relaxed))
			return;
	}
	for (;;) {
		seen = 0;
		if (atomic_compare_exchange_strong_explicit(
			    &word, &seen, own | WAITED, memory_order_acquire, memory_order_relaxed))
			return;
		if (!(seen & WAITED) &&
			!atomic_compare_exchange_strong(&word, &seen, seen | WAITED))
			continue;
		(void)ms_os_futex_wait(&word, seen | WAITED, UINT64_MAX);
	}
}

void ms_section_unlock(void)
{
	if (atomic_exchange_explicit(&word, 0, memory_order_release) & WAITED)
		ms_os_futex_wake(&word);
}

bool ms_section_lost(void)
{
	uint32_t seen = atomic_load(&word);

	return seen && (seen & ~WAITED) != holder();
}

void ms_section_unlock_child(void)
{
	atomic_store(&word, 0);
}

void ms_section_off(uint64_t why)
{
	atomic_store(&ms_section_on, false);
	__atomic_fetch_or(&ms_tally->off, why, __ATOMIC_RELAXED);
}
