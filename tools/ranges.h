/* SPDX-License-Identifier: MIT */
/*
 * ranges.h - memslot ranges: one trace of allocations, by the range allocator and by others.
 *
 *   ranges.c         the command line, and a process for each measurement
 *   ranges_trace.c   what is allocated and freed, the same for all
 *   ranges_run.c     one allocator's measurement, in a process of its own
 *   ranges_report.c  what came out
 */
#ifndef MEMSLOT_TOOL_RANGES_H
#define MEMSLOT_TOOL_RANGES_H

#include "tool.h"

#include <memslot.h>

#define RANGES_ROUNDS 51u

/* The others are whatever malloc the dynamic linker was told to load. */
enum ranges_who { UNLOCKED, LOCKED, BEST, MIMALLOC, JEMALLOC, LIBC, RANGES_WHOS };

struct ranges_name {
	const char *name, *title;
	const char *library; /* to load first; NULL: none */
	const char *symbol;  /* that shows it was */
};
extern const struct ranges_name ranges_names[RANGES_WHOS];

/* size 0: free what the place holds. */
struct ranges_step {
	uint32_t place, size, align;
};

struct ranges_trace {
	uint64_t arena, operations, seed;
	struct ranges_step *steps;
	uint64_t fill; /* steps before the first that is timed */
	uint64_t count, places;
};

/* Of one process; times in nanoseconds, costs of the time-stamp counter's own reading taken off. */
struct ranges_figures {
	double per_operation, alloc_mean, alloc_median, alloc_p999;
	uint64_t operations, allocs, failed;
	double first_failure[2]; /* occupancy, sizes up to 1 MiB, up to 64 KiB; 0: not asked */
};

struct ranges_run {
	struct ranges_trace trace;
	uint64_t rounds;
	bool json;
	uint64_t measured[RANGES_WHOS];		    /* rounds; 0: not there */
	struct ranges_figures figures[RANGES_WHOS]; /* medians over the rounds; counts of all */
	double to_peer,
		locked_ns; /* medians of each round's: to the faster of the two; by the lock */
};

/* 0 or -ENOMEM */
int ranges_trace_make(struct ranges_trace *trace);
/* How full the arena is, as one region, when a request first finds no room. 0 or -errno */
int ranges_fill_up(const struct ranges_trace *trace, uint32_t largest, double *ret_occupancy);
/* An allocator of one region, of address space that faults. 0 or -errno */
int ranges_make(uint64_t arena, uint32_t flags, struct memslot_ranges **ret_ranges);
/* Measure here and now, in this process; figures go to standard output as they are. */
int ranges_run(enum ranges_who who, struct ranges_trace *trace);
void ranges_report(const struct ranges_run *run);

#endif
