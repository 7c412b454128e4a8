/* SPDX-License-Identifier: MIT */
/*
 * counter.c - readings of the calling thread's page-fault counter (RUSAGE_THREAD).
 *
 * Invariant: a reading names thread, process and count. The count only grows, so any earlier
 * reading of the same thread in the same process is a lower bound of what a new one would say.
 * Threads are told apart by a 64-bit number: gettid, pthread_self and TLS addresses are recycled
 * (INVARIANTS 7). The words are initial-exec: ordinary TLS of a loaded library would call malloc
 * at a thread's first touch (INVARIANTS 28).
 */
#include "counter.h"

#include "feature.h"
#include "fork.h"
#include "os.h"

#include <errno.h>
#include <stdatomic.h>

static __thread struct ms_reading last __attribute__((tls_model("initial-exec")));
__thread uint64_t ms_counter_number;
static _Atomic(uint64_t) numbers;

uint64_t ms_counter_draw(void)
{
	ms_counter_number = atomic_fetch_add(&numbers, 1) + 1;
	return ms_counter_number;
}

int ms_counter_read(struct ms_reading *ret_reading)
{
	uint64_t faults;
	int error;

	if (!ms_feature(MS_FEATURE_FAULT_COUNTER))
		return -EOPNOTSUPP;
	error = ms_os_thread_faults(&faults);
	if (error)
		return error;
	last = (struct ms_reading){ms_counter_thread(), ms_fork_epoch(), faults};
	*ret_reading = last;
	return 0;
}

struct ms_reading ms_counter_last(void)
{
	if (last.epoch != ms_fork_epoch())
		return (struct ms_reading){0, 0, 0};
	return last;
}
