/* SPDX-License-Identifier: MIT */
/*
 * lock.c - the slow half of a lock of one word.
 *
 * Invariant: the word names the owner, in the same store that takes the lock, so that a signal
 * handler knows at every instruction whether the lock is its own thread's. A waiter marks the word
 * before it sleeps, and leaves the mark behind when it gets the lock: no wake-up is lost, and one
 * too many is harmless (U. Drepper, Futexes Are Tricky, 2011). No pthread mutex: it would be an
 * interposition point, and a child could not be told that nobody holds it.
 */
#include "lock.h"

#include "os.h"

#define SPINS 100

void ms_lock_wait(struct ms_lock *lock, uint32_t owner)
{
	uint32_t seen;

	for (int i = 0; i < SPINS; i++) {
		seen = 0;
		if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
			atomic_compare_exchange_weak_explicit(&lock->word, &seen, owner,
				memory_order_acquire, memory_order_relaxed))
			return;
#ifdef __x86_64__
		__builtin_ia32_pause();
#endif
	}
	for (;;) {
		seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
		if (seen == 0) {
			if (atomic_compare_exchange_weak_explicit(&lock->word, &seen,
				    owner | MS_LOCK_WAITED, memory_order_acquire,
				    memory_order_relaxed))
				return;
		} else if ((seen & MS_LOCK_WAITED) ||
			   atomic_compare_exchange_weak_explicit(&lock->word, &seen,
				   seen | MS_LOCK_WAITED, memory_order_relaxed,
				   memory_order_relaxed)) {
			(void)ms_os_futex_wait(&lock->word, seen | MS_LOCK_WAITED, UINT64_MAX);
		}
	}
}

void ms_lock_wake(struct ms_lock *lock)
{
	ms_os_futex_wake(&lock->word);
}
