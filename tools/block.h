/* SPDX-License-Identifier: MIT */
/* block.h - a stretch of cycles of one variant in one workload: block.c. */
#ifndef MEMSLOT_BLOCK_H
#define MEMSLOT_BLOCK_H

#include "churn.h"

#define MOST_SAMPLES 4096 /* timed one by one in a steady block */

/* One variant's way through a workload. */
struct lane {
	struct instance instance;
	size_t next;	/* which run of the phase */
	double *values; /* of each round: measure.c */
	uint64_t cycles;
};

/* What a block comes to. */
struct block {
	double *samples; /* ns */
	size_t room, count;
	uint64_t cycles, faults, calls;
	double mean; /* ns a cycle */
	double phase_mean[MAX_PHASES], first_mean[MAX_PHASES];
};

/* Run one. The samples' place is the caller's: MOST_SAMPLES, and the cycles of all phases. */
int block_run(const struct churn *churn, struct lane *lane, const struct workload *workload,
	uint64_t budget_ns, struct block *block);

#endif
