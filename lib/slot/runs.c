/* SPDX-License-Identifier: MIT */
/*
 * runs.c - a small sorted table of page ranges.
 *
 * Invariant: sorted, disjoint, merged; never more than MS_RUNS_MAX. A change that would not fit is
 * refused before anything is written, so that the table always tells the truth. Owned by its slot.
 */
#include "runs.h"

#include <errno.h>
#include <string.h>

/* The first run that ends behind `page`. */
static size_t run_behind(const struct ms_runs *runs, size_t page)
{
	size_t low = 0, high = runs->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (runs->run[middle].end > page)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Append a run to a table under construction; touching runs of one value become one. */
static void append(struct ms_page_run *to, size_t *count, struct ms_page_run run)
{
	struct ms_page_run *last = *count ? &to[*count - 1] : NULL;

	if (run.first >= run.end)
		return;
	if (last && last->end == run.first && last->value == run.value)
		last->end = run.end;
	else
		to[(*count)++] = run;
}

static int replace(struct ms_runs *runs, size_t first, size_t end, const struct ms_page_run *with)
{
	struct ms_page_run made[5]; /* head, new, tail, and the neighbours that may merge */
	size_t from = run_behind(runs, first ? first - 1 : 0), to = from, count = 0;

	while (to < runs->count && runs->run[to].first <= end)
		to++;
	for (size_t i = from; i < to; i++) {
		struct ms_page_run head = runs->run[i];
		head.end = ms_min(head.end, first);
		append(made, &count, head);
	}
	if (with)
		append(made, &count, *with);
	for (size_t i = from; i < to; i++) {
		struct ms_page_run tail = runs->run[i];
		tail.first = ms_max(tail.first, end);
		append(made, &count, tail);
	}
	if (runs->count - (to - from) + count > MS_RUNS_MAX)
		return -ENOSPC;
	memmove(&runs->run[from + count], &runs->run[to], (runs->count - to) * sizeof runs->run[0]);
	memcpy(&runs->run[from], made, count * sizeof made[0]);
	runs->count = runs->count - (to - from) + count;
	return 0;
}

int ms_runs_set(struct ms_runs *runs, size_t first, size_t end, uint32_t value)
{
	struct ms_page_run run = {first, end, value};

	return replace(runs, first, end, &run);
}

int ms_runs_clear(struct ms_runs *runs, size_t first, size_t end)
{
	return first < end ? replace(runs, first, end, NULL) : 0;
}

bool ms_runs_outside(
	const struct ms_runs *runs, size_t first, size_t end, struct ms_page_run *ret_stretch)
{
	size_t i = run_behind(runs, first);

	while (i < runs->count && runs->run[i].first <= first)
		first = runs->run[i++].end;
	if (first >= end)
		return false;
	if (i < runs->count)
		end = ms_min(end, runs->run[i].first);
	*ret_stretch = (struct ms_page_run){first, end, 0};
	return true;
}

bool ms_runs_has(const struct ms_runs *runs, size_t page)
{
	size_t i = run_behind(runs, page);

	return i < runs->count && runs->run[i].first <= page;
}
