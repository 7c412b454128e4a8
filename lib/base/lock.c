/* SPDX-License-Identifier: MIT */
/*
 * lock.c - the slow half of a lock of one word.
 *
 * Invariant: 0 free, 1 held, 2 held and perhaps waited for. A waiter leaves 2 behind when it gets the
 * lock, so that no wake-up is lost; one too many is harmless (U. Drepper, Futexes Are Tricky, 2011).
 * No pthread mutex: it would be a cancellation and interposition point, and a child could not be told
 * that nobody holds it.
 */
#include "lock.h"

#include "os.h"

#define SPINS 100

void ms_lock_wait(struct ms_lock *lock)
{
	for (int i = 0; i < SPINS; i++) {
		uint32_t free = 0;
		if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
			atomic_compare_exchange_weak_explicit(&lock->word, &free, 1,
				memory_order_acquire, memory_order_relaxed))
			return;
#ifdef __x86_64__
		__builtin_ia32_pause();
#endif
	}
	while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
		(void)ms_os_futex_wait(&lock->word, 2, UINT64_MAX);
}

void ms_lock_wake(struct ms_lock *lock)
{
	ms_os_futex_wake(&lock->word);
}
