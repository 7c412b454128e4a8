/* SPDX-License-Identifier: MIT */
/*
 * ranges_run.c - one allocator's measurement, in a process of its own.
 *
 * Twice the same trace: timed as a whole, then each allocation by the time-stamp counter. The range
 * allocator manages address space that faults; the others are this process's malloc.
 *
 * Invariant: both loops do the same steps in the same order, and every range that lives at the end
 * is inside the arena, aligned, and overlaps no other.
 */
#define _GNU_SOURCE
#include "churn.h"
#include "ranges.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* --- costs of single calls --- */

#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
static inline uint64_t tick(void)
{
	unsigned processor;

	_mm_lfence();
	return __rdtscp(&processor);
}
#else
static inline uint64_t tick(void)
{
	return clock_ns();
}
#endif

/* Of this process alone: on a busy machine the time on the wall is somebody else's. */
static uint64_t processor_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

struct costs {
	double *ticks; /* NULL: the calls are not timed */
	uint64_t count, failed;
};

struct scale {
	double ns_per_tick, overhead; /* ticks that reading takes */
};

static struct scale measure_scale(void)
{
	double samples[1001];
	uint64_t ns = clock_ns(), first = tick();

	while (clock_ns() - ns < 20000000)
		continue;
	ns = clock_ns() - ns;
	first = tick() - first;
	for (size_t i = 0; i < 1001; i++) {
		uint64_t before = tick();
		samples[i] = (double)(tick() - before);
	}
	return (struct scale){(double)ns / (double)first, median_of(samples, 1001)};
}

static void note(struct costs *costs, uint64_t before)
{
	if (costs->ticks)
		costs->ticks[costs->count++] = (double)(tick() - before);
}

/* --- ours --- */

int ranges_make(uint64_t arena, uint32_t flags, struct memslot_ranges **ret_ranges)
{
	const struct memslot_ranges_opts opts = {.size = sizeof(opts), .flags = flags};
	struct memslot_expansion *expansion;
	void *base =
		mmap(NULL, arena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int error = base == MAP_FAILED ? -errno : memslot_ranges_create(&opts, ret_ranges);

	if (!error)
		error = memslot_ranges_expand_begin(*ret_ranges, arena, &expansion);
	return error ? error : memslot_expansion_commit(expansion, base, 0);
}

static void play_ranges(struct memslot_ranges *ranges, const struct memslot_range_opts *opts,
	const struct ranges_step *steps, uint64_t count, struct memslot_range *live,
	struct costs *costs)
{
	for (uint64_t i = 0; i < count; i++) {
		struct memslot_range *range = &live[steps[i].place];
		uint64_t before;

		if (!steps[i].size) {
			if (range->size)
				memslot_ranges_free(ranges, range);
			range->size = 0;
			continue;
		}
		before = costs->ticks ? tick() : 0;
		if (memslot_ranges_alloc(ranges, steps[i].size, steps[i].align, opts, range)) {
			range->size = 0;
			costs->failed++;
		}
		note(costs, before);
	}
}

static int by_offset(const void *a, const void *b)
{
	const struct memslot_range *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

static int check_ranges(const struct memslot_ranges *ranges, const struct ranges_trace *trace,
	struct memslot_range *live)
{
	uint64_t end = 0;
	int error = memslot_ranges_check(ranges);

	qsort(live, trace->places, sizeof(*live), by_offset);
	for (uint64_t i = 0; i < trace->places && !error; i++) {
		if (!live[i].size)
			continue;
		if (live[i].offset < end || (uintptr_t)live[i].base % 16)
			error = -EUCLEAN;
		end = live[i].offset + live[i].size;
	}
	return error || end > trace->arena ? -EUCLEAN : 0;
}

static int run_ranges(enum ranges_who who, const struct ranges_trace *trace, struct costs *costs,
	uint64_t *ret_ns)
{
	const struct memslot_range_opts best = {.size = sizeof(best), .flags = MEMSLOT_RANGE_BEST};
	const struct memslot_range_opts *opts = who == BEST ? &best : NULL;
	struct memslot_range *live = calloc(trace->places, sizeof(*live));
	struct costs fill = {0};
	struct memslot_ranges *ranges;
	int error = live ? ranges_make(trace->arena, who == LOCKED ? 0 : MEMSLOT_RANGES_UNLOCKED,
				   &ranges)
			 : -ENOMEM;

	if (error)
		return error;
	play_ranges(ranges, opts, trace->steps, trace->fill, live, &fill);
	*ret_ns = processor_ns();
	play_ranges(ranges, opts, trace->steps + trace->fill, trace->operations, live, costs);
	*ret_ns = processor_ns() - *ret_ns;
	return check_ranges(ranges, trace, live);
}

/* --- this process's malloc --- */

static void play_malloc(
	const struct ranges_step *steps, uint64_t count, void **live, struct costs *costs)
{
	for (uint64_t i = 0; i < count; i++) {
		void **block = &live[steps[i].place];
		uint64_t before;

		if (!steps[i].size) {
			free(*block);
			*block = NULL;
			continue;
		}
		before = costs->ticks ? tick() : 0;
		if (steps[i].align <= 16)
			*block = malloc(steps[i].size);
		else if (posix_memalign(block, steps[i].align, steps[i].size))
			*block = NULL;
		costs->failed += !*block;
		note(costs, before);
	}
}

static int run_malloc(const struct ranges_trace *trace, struct costs *costs, uint64_t *ret_ns)
{
	void **live = calloc(trace->places, sizeof(*live));
	struct costs fill = {0};

	if (!live)
		return -ENOMEM;
	play_malloc(trace->steps, trace->fill, live, &fill);
	*ret_ns = processor_ns();
	play_malloc(trace->steps + trace->fill, trace->operations, live, costs);
	*ret_ns = processor_ns() - *ret_ns;
	for (uint64_t i = 0; i < trace->places; i++)
		free(live[i]);
	free(live);
	return 0;
}

/* --- a process --- */

static int run_once(enum ranges_who who, const struct ranges_trace *trace, struct costs *costs,
	uint64_t *ret_ns)
{
	return who <= BEST ? run_ranges(who, trace, costs, ret_ns)
			   : run_malloc(trace, costs, ret_ns);
}

static void sum_up(struct ranges_figures *figures, struct costs *costs)
{
	const struct scale scale = measure_scale();
	double sum = 0;

	for (uint64_t i = 0; i < costs->count; i++) {
		double cost = costs->ticks[i] - scale.overhead;
		costs->ticks[i] = cost > 0 ? cost * scale.ns_per_tick : 0;
		sum += costs->ticks[i];
	}
	figures->alloc_mean = sum / (double)costs->count;
	figures->alloc_median = median_of(costs->ticks, costs->count); /* sorts */
	figures->alloc_p999 = quantile_of(costs->ticks, costs->count, 0.999);
}

int ranges_run(enum ranges_who who, struct ranges_trace *trace)
{
	struct ranges_figures figures = {.operations = trace->operations};
	struct costs whole = {0}, single = {0};
	uint64_t ns = 0;
	int error = ranges_names[who].symbol && !dlsym(RTLD_DEFAULT, ranges_names[who].symbol)
			    ? -ENOENT
			    : ranges_trace_make(trace);

	if (!error)
		error = run_once(who, trace, &whole, &ns);
	figures.per_operation = (double)ns / (double)trace->operations;
	single.ticks = error ? NULL : malloc(trace->operations * sizeof(*single.ticks));
	if (!error)
		error = single.ticks ? run_once(who, trace, &single, &ns) : -ENOMEM;
	if (!error)
		sum_up(&figures, &single);
	figures.allocs = single.count;
	figures.failed = whole.failed;
	if (!error && who == UNLOCKED)
		error = ranges_fill_up(trace, (uint32_t)MIB, &figures.first_failure[0]);
	if (!error && who == UNLOCKED)
		error = ranges_fill_up(trace, 64 * KIB, &figures.first_failure[1]);
	if (!error && write(STDOUT_FILENO, &figures, sizeof(figures)) != sizeof(figures))
		error = -EIO;
	return error;
}
