/* SPDX-License-Identifier: MIT */
/* runs.h - a few ranges of pages with a value each: what is exempt, what is protected. See runs.c.
 */
#ifndef MS_RUNS_H
#define MS_RUNS_H

#include "base/util.h"

#define MS_RUNS_MAX 256

struct ms_page_run {
	size_t first, end; /* pages [first, end) */
	uint32_t value;
};

/* Sorted, disjoint; neighbours that touch have different values. */
struct ms_runs {
	size_t count;
	struct ms_page_run *run; /* room for MS_RUNS_MAX */
};

/* Give [first, end) a value; what was there before is replaced. -ENOSPC: nothing changed. */
MS_HIDDEN int ms_runs_set(struct ms_runs *runs, size_t first, size_t end, uint32_t value);
/* Take [first, end) out. -ENOSPC: nothing changed (a run would become two). */
MS_HIDDEN int ms_runs_clear(struct ms_runs *runs, size_t first, size_t end);
/* The first stretch of [first, end) that no run covers; false when there is none. */
MS_HIDDEN bool ms_runs_outside(
	const struct ms_runs *runs, size_t first, size_t end, struct ms_page_run *ret_stretch);
MS_HIDDEN bool ms_runs_has(const struct ms_runs *runs, size_t page);

#endif
