/* SPDX-License-Identifier: MIT */
/*
 * clean.c - a range that the program has unmapped becomes as good as new.
 *
 * Invariant: after a success every byte of the range reads zero for the next tenant, pages are
 * resident inside the run that was open only, and (strict) nothing is accessible. Zeros are written
 * while the run is still open, and only after the kernel has confirmed that it is; what lies
 * outside it is given back unseen: a raw call may have opened and closed it past us. In lazy mode
 * the engine is trusted not to do that. Every failure means that the range goes back to the kernel.
 */
#define _GNU_SOURCE
#include "preload.h"

#include "base/feature.h"
#include "base/pagemap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define INSPECT 64 /* each so many cleanings of a slot look which pages the tenant wrote */

static void *at(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static int drop(uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	return ms_os_advise(at(start), end - start, MADV_DONTNEED);
}

/* What lies outside the open run. */
static int drop_rest(const struct ms_range *range)
{
	bool strict = ms_config.mode == MS_MODE_STRICT;
	uint64_t low = strict ? range->start : range->low;
	uint64_t high = strict ? range->end : range->high;
	int error = drop(low, ms_min(high, range->open));

	return error ? error : drop(ms_max(low, range->shut), high);
}

struct cleaning {
	uint64_t kept, pages;	/* bytes, pages found */
	uint64_t looked, dirty; /* pages, when inspecting */
	uint64_t drop_from;	/* the budget is used up here */
	bool inspect;
};

static void zero(struct cleaning *cleaning, uint64_t start, uint64_t end)
{
	size_t page = ms_page_size();

	if (!cleaning->inspect) {
		memset(at(start), 0, end - start);
		return;
	}
	for (; start < end; start += page) {
		bool clean = ms_util_is_zero(at(start), page);
		cleaning->looked++;
		if (clean)
			continue;
		cleaning->dirty++;
		memset(at(start), 0, page);
	}
}

static int clean_region(struct cleaning *cleaning, const struct ms_page_region *region)
{
	uint64_t size = region->end - region->start, room = ms_config.keep - cleaning->kept;

	cleaning->pages += ms_bytes_to_pages(size);
	if (cleaning->drop_from)
		return 0;
	if (region->categories & MS_PAGE_IS_SWAPPED)
		return drop(region->start, region->end);
	size = ms_min(size, ms_round_down(room));
	zero(cleaning, region->start, region->start + size);
	cleaning->kept += size;
	if (region->start + size < region->end)
		cleaning->drop_from = region->start + size;
	return 0;
}

static int clean_run(struct cleaning *cleaning, const struct ms_range *range)
{
	struct ms_pagemap_walk walk;
	int count, error = ms_pagemap_begin(&walk, at(range->open), range->shut - range->open);

	while (!error && (count = ms_pagemap_next(&walk)) != 0) {
		error = count < 0 ? count : 0;
		for (int i = 0; !error && i < count; i++)
			error = clean_region(cleaning, &walk.regions[i]);
	}
	return error;
}

/* Most pages are not what the tenants write: start over. */
static bool overgrown(const struct cleaning *cleaning)
{
	return cleaning->inspect && cleaning->dirty * 2 < cleaning->looked;
}

static int restore_run(struct ms_range *range)
{
	struct cleaning cleaning = {.inspect = range->cleans % INSPECT == 0};
	int error = clean_run(&cleaning, range);

	ms_tally_add(&ms_idle_row(range->shape)->pages, cleaning.pages);
	ms_idle_learn(range->shape, cleaning.pages, ms_bytes_to_pages(range->shut - range->open));
	if (error)
		return error;
	if (overgrown(&cleaning))
		return ms_clean_drop(range);
	if (cleaning.drop_from)
		error = drop(cleaning.drop_from, range->shut);
	range->low = range->open;
	range->high = cleaning.drop_from ? cleaning.drop_from : range->shut;
	range->resident = cleaning.kept;
	ms_tally_add(&ms_tally->bytes_restored, cleaning.kept);
	ms_tally_add(&ms_tally->bytes_dropped, ms_pages_to_bytes(cleaning.pages) - cleaning.kept);
	return error;
}

/* Is the run the kernel's, too? Zeros may be written there then. */
static int run_is_open(const struct ms_range *range)
{
	int error = ms_maps_uniform(range->open, range->shut, PROT_READ | PROT_WRITE);

	return error == -EOPNOTSUPP ? 0 : error;
}

static int close_range(struct ms_range *range)
{
	uint64_t start = range->start, end = range->end;
	int error;

	if (ms_config.mode == MS_MODE_LAZY) {
		range->left = range->open;
		range->right = range->shut;
		return 0;
	}
	error = ms_os_protect(at(start), end - start, PROT_NONE);
	if (!error)
		error = ms_maps_uniform(start, end, PROT_NONE);
	return error == -EOPNOTSUPP ? 0 : error;
}

int ms_clean_drop(struct ms_range *range)
{
	int error = drop(range->low, range->high);

	if (error)
		return error;
	ms_tally_add(&ms_tally->bytes_dropped, range->high - range->low);
	range->low = range->high = range->resident = 0;
	return 0;
}

/* glibc 2.32: no other thread can write while we clean. (One that raw clone(2) made can.) */
extern char __libc_single_threaded __attribute__((weak));

static bool alone(void)
{
	return &__libc_single_threaded && __libc_single_threaded;
}

int ms_clean(struct ms_range *range)
{
	bool by_scan = ms_feature(MS_FEATURE_PAGEMAP_SCAN) && range->open < range->shut &&
		       !(range->applied & MS_ASKED_HUGE);
	uint64_t begun = ms_os_clock_ns();
	int error = run_is_open(range);

	range->cleans++;
	range->late = range->until = 0;
	if (ms_config.mode == MS_MODE_STRICT && !alone()) {
		range->late = range->open;
		range->until = range->shut;
	}
	if (!error)
		error = drop_rest(range);
	if (!error)
		error = by_scan ? restore_run(range) : ms_clean_drop(range);
	if (!error)
		error = close_range(range);
	ms_tally_add(&ms_tally->clean_ns, ms_os_clock_ns() - begun);
	range->open = range->shut = 0;
	return error;
}

/* Closed since then: what it has come to is final. */
static int clean_again(uint64_t start, uint64_t end)
{
	struct ms_pagemap_walk walk;
	int count = 0, error = ms_pagemap_begin(&walk, at(start), end - start);

	while (!error && (count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++)
			memset(at(walk.regions[i].start), 0,
				walk.regions[i].end - walk.regions[i].start);
	}
	return error || count < 0 ? drop(start, end) : 0;
}

int ms_clean_late(struct ms_range *range, uint64_t start, uint64_t end)
{
	uint64_t from = ms_max(start, range->late), to = ms_min(end, range->until);
	int error;

	if (from >= to)
		return 0;
	error = clean_again(from, to);
	if (!error && from > range->late && to < range->until)
		error = drop(to, range->until);
	if (error)
		return error;
	if (from > range->late)
		range->until = from;
	else
		range->late = to;
	return 0;
}

void ms_clean_unseen(const struct ms_range *range)
{
	(void)drop(range->late, range->until);
}

uint64_t ms_clean_count(const struct ms_range *range)
{
	struct ms_pagemap_walk walk;
	uint64_t pages = 0;
	int count;

	if (ms_pagemap_begin(&walk, at(range->low), range->high - range->low))
		return 0;
	while ((count = ms_pagemap_next(&walk)) > 0) {
		for (int i = 0; i < count; i++)
			pages += ms_bytes_to_pages(walk.regions[i].end - walk.regions[i].start);
	}
	return pages;
}
