/* SPDX-License-Identifier: MIT */
/* lock.h - a lock of one word, held for a few instructions: see lock.c. */
#ifndef MS_LOCK_H
#define MS_LOCK_H

#include "counter.h"

#include <stdatomic.h>

/* All zero: free. */
struct ms_lock {
	_Atomic(uint32_t) word;
	_Atomic(uint64_t) thread; /* who holds it (ms_counter_thread), for a fork by a signal handler */
};

MS_HIDDEN void ms_lock_wait(struct ms_lock *lock);
MS_HIDDEN void ms_lock_wake(struct ms_lock *lock);

static inline void ms_lock_take(struct ms_lock *lock)
{
	uint32_t free = 0;

	if (MS_UNLIKELY(!atomic_compare_exchange_strong_explicit(
		    &lock->word, &free, 1, memory_order_acquire, memory_order_relaxed)))
		ms_lock_wait(lock);
	atomic_store_explicit(&lock->thread, ms_counter_thread(), memory_order_relaxed);
}

/* Nothing of the lock's memory is touched after the store that frees it. */
static inline void ms_lock_release(struct ms_lock *lock)
{
	atomic_store_explicit(&lock->thread, 0, memory_order_relaxed);
	if (MS_UNLIKELY(atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2))
		ms_lock_wake(lock);
}

#endif
