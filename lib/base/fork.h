/* SPDX-License-Identifier: MIT */
/* fork.h - in which process are we? See fork.c. */
#ifndef MS_FORK_H
#define MS_FORK_H

#include "util.h"

#include <stdatomic.h>

/* A page that the kernel clears in every child; its first word is the epoch. */
extern MS_HIDDEN _Atomic(uint64_t) *ms_fork_page;
MS_HIDDEN uint64_t ms_fork_epoch_slow(void);

/* Is it this process's epoch? Without a call: false also where that takes a system call to tell. */
static inline bool ms_fork_is(uint64_t epoch)
{
	return MS_LIKELY(atomic_load_explicit(ms_fork_page, memory_order_acquire) == epoch);
}

/* A number that no ancestor of this process has had: never 0. */
static inline uint64_t ms_fork_epoch(void)
{
	uint64_t epoch = atomic_load_explicit(ms_fork_page, memory_order_acquire);

	return MS_LIKELY(epoch) ? epoch : ms_fork_epoch_slow();
}

#endif
