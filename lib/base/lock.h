/* SPDX-License-Identifier: MIT */
/* lock.h - a lock of one word, held for a few instructions: see lock.c. */
#ifndef MS_LOCK_H
#define MS_LOCK_H

#include "counter.h"

#include <stdatomic.h>

/* 0: free. Else who holds it, and whether somebody waits. */
struct ms_lock {
	_Atomic(uint32_t) word;
};
#define MS_LOCK_WAITED (1u << 31)

MS_HIDDEN void ms_lock_wait(struct ms_lock *lock, uint32_t owner);
MS_HIDDEN void ms_lock_wake(struct ms_lock *lock);

/* The calling thread as an owner: never 0. */
static inline uint32_t ms_lock_owner(void)
{
	return ((uint32_t)ms_counter_thread() & (MS_LOCK_WAITED - 1)) | 1u << 30;
}

static inline void ms_lock_take(struct ms_lock *lock)
{
	uint32_t free = 0, owner = ms_lock_owner();

	if (MS_UNLIKELY(!atomic_compare_exchange_strong_explicit(
		    &lock->word, &free, owner, memory_order_acquire, memory_order_relaxed)))
		ms_lock_wait(lock, owner);
}

/* Nothing of the lock's memory is touched after the store that frees it. */
static inline void ms_lock_release(struct ms_lock *lock)
{
	if (MS_UNLIKELY(atomic_exchange_explicit(&lock->word, 0, memory_order_release) &
			MS_LOCK_WAITED))
		ms_lock_wake(lock);
}

/* Is it the calling thread's? For signal handlers. */
static inline bool ms_lock_is_own(struct ms_lock *lock)
{
	return (atomic_load(&lock->word) & ~MS_LOCK_WAITED) == ms_lock_owner();
}

#endif
