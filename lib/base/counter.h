/* SPDX-License-Identifier: MIT */
/* counter.h - this thread's number and its fault counter: see counter.c. */
#ifndef MS_COUNTER_H
#define MS_COUNTER_H

#include "util.h"

/* A reading of a thread's fault counter. thread 0: no reading. */
struct ms_reading {
	uint64_t thread, epoch, faults;
};

extern MS_HIDDEN __thread uint64_t ms_counter_number __attribute__((tls_model("initial-exec")));
MS_HIDDEN uint64_t ms_counter_draw(void);
/* The calling thread's number: drawn once, never used again by another thread of this process. */
static inline uint64_t ms_counter_thread(void)
{
	return MS_LIKELY(ms_counter_number) ? ms_counter_number : ms_counter_draw();
}
/* Read the counter now. 0, or -errno: it may not be asked here. */
MS_HIDDEN int ms_counter_read(struct ms_reading *ret_reading);
/* The calling thread's last reading in this process, without a system call; thread 0 when none. */
MS_HIDDEN struct ms_reading ms_counter_last(void);

#endif
