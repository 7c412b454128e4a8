/* SPDX-License-Identifier: MIT */
/*
 * block.c - a stretch of cycles of one variant in one workload.
 *
 *   steady   lead-in | cycles timed one by one | as many timed together | everything verified
 *   phases   lead-in, as the last phase ended | each phase, timed one by one | everything verified
 *
 * The first cycles of a lead-in are verified too. Cycles timed one by one give median and p99;
 * those timed together the mean, without a clock in between.
 *
 * Invariant: nothing but begin, the run and end lies between two readings of the clock.
 */
#define _GNU_SOURCE
#include "block.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define VERIFIED_CYCLES 20
#define LEAD_CYCLES 64
#define POOL_LEAD_CYCLES 320 /* a pool takes so long to forget that verifying faulted */

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median_of(double *values, size_t count)
{
	if (count == 0)
		return 0;
	qsort(values, count, sizeof(*values), by_value);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

double quantile_of(const double *sorted, size_t count, double part)
{
	return count ? sorted[(size_t)((double)(count - 1) * part)] : 0;
}

double measure_clock(void)
{
	double costs[1001];

	for (size_t i = 0; i < 1001; i++) {
		uint64_t before = clock_ns();
		costs[i] = (double)(clock_ns() - before);
	}
	return median_of(costs, 1001);
}

static inline void play(const struct instance *instance, const struct run *run)
{
	unsigned char *base = instance->base;

	for (size_t offset = 0; offset < run->read; offset += 64)
		(void)*(volatile unsigned char *)(base + offset);
	for (size_t i = 0; i < run->count; i++)
		*(volatile uint32_t *)(base + run->touches[i].offset) = run->touches[i].value;
}

int run_cycle(struct instance *instance, const struct run *run)
{
	const struct backend *backend = instance->variant->backend;
	int error = backend->begin(instance, run->grow);

	if (error)
		return error;
	play(instance, run);
	return backend->end(instance);
}

int check_cycle(struct instance *instance, const struct run *run, const char *workload, bool all)
{
	const struct backend *backend = instance->variant->backend;
	int error = backend->begin(instance, run->grow);

	if (!error)
		error = (all ? verify_all : verify_resident)(
			instance, instance->size + run->grow, workload);
	if (error)
		return error;
	play(instance, run);
	return backend->end(instance);
}

static const struct run *next_run(struct lane *lane, const struct phase *phase)
{
	return &phase->runs[lane->next++ % phase->run_count];
}

static uint64_t thread_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

static void start_counts(const struct lane *lane, struct block *block)
{
	block->faults -= thread_faults();
	block->calls -= instance_calls(&lane->instance);
}

static void end_counts(const struct lane *lane, struct block *block)
{
	block->calls += instance_calls(&lane->instance);
	block->faults += thread_faults();
}

/* Every tenant's turn comes in a lead-in, often enough for all to be as they will be. */
static size_t tenants_of(const struct lane *lane)
{
	return lane->instance.gallery ? lane->instance.gallery->count : 1;
}

static int lead_in(
	struct lane *lane, const struct phase *phase, const char *workload, uint64_t budget_ns)
{
	bool pool = lane->instance.settings->pool;
	size_t tenants = tenants_of(lane);
	size_t lead = (pool ? POOL_LEAD_CYCLES : LEAD_CYCLES) + 2 * tenants;
	size_t verified = tenants > VERIFIED_CYCLES ? tenants : VERIFIED_CYCLES;
	uint64_t stop = clock_ns() + budget_ns;
	int error = 0;

	for (size_t i = 0; i < verified && !error; i++)
		error = check_cycle(&lane->instance, next_run(lane, phase), workload, false);
	for (size_t i = verified; i < lead && !error && clock_ns() < stop; i++)
		error = run_cycle(&lane->instance, next_run(lane, phase));
	return error;
}

/* Cycles timed one by one until `stop`, at least `least` and at most `most`. */
static int time_each(struct lane *lane, const struct phase *phase, double clock_cost, size_t least,
	size_t most, uint64_t stop, struct block *block)
{
	size_t first = block->count;
	uint64_t before, after = 0;
	double took;

	while (block->count - first < most && (block->count - first < least || after < stop)) {
		const struct run *run = next_run(lane, phase);
		int error;

		before = clock_ns();
		error = run_cycle(&lane->instance, run);
		after = clock_ns();
		if (error)
			return error;
		took = (double)(after - before) - clock_cost;
		block->samples[block->count++] = took > 0 ? took : 0;
	}
	return 0;
}

/* This thread's processor time: what others do meanwhile does not count. */
static double processor_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* As many cycles again, timed together. */
static int time_together(struct lane *lane, const struct phase *phase, struct block *block)
{
	double before = processor_ns();
	int error = 0;

	for (size_t i = 0; i < block->count && !error; i++)
		error = run_cycle(&lane->instance, next_run(lane, phase));
	block->mean = (processor_ns() - before) / (double)block->count;
	return error;
}

static int steady_block(const struct churn *churn, struct lane *lane,
	const struct workload *workload, uint64_t budget_ns, struct block *block)
{
	const struct phase *phase = &workload->phases[0];
	int error = lead_in(lane, phase, workload->name, budget_ns / 4);

	if (error)
		return error;
	start_counts(lane, block);
	error = time_each(lane, phase, churn->clock_cost, 32, MOST_SAMPLES,
		clock_ns() + budget_ns * 3 / 8, block);
	if (!error)
		error = time_together(lane, phase, block);
	end_counts(lane, block);
	block->cycles = 2 * block->count;
	return error;
}

/* `count` cycles of a phase timed one by one, and their processor time less the clock's. */
static int time_leg(struct lane *lane, const struct phase *phase, double clock_cost, size_t count,
	struct block *block, double *sum)
{
	double before = processor_ns();
	int error = time_each(lane, phase, clock_cost, count, count, 0, block);

	*sum += processor_ns() - before - 2 * clock_cost * (double)count;
	return error;
}

static int timed_phase(const struct churn *churn, struct lane *lane, const struct phase *phase,
	size_t number, struct block *block)
{
	size_t cycles = churn->settings.cycles;
	size_t first = cycles < FIRST_CYCLES ? cycles : FIRST_CYCLES;
	double sum = 0;
	int error;

	lane->next = 0;
	start_counts(lane, block);
	error = time_leg(lane, phase, churn->clock_cost, first, block, &sum);
	block->first_mean[number] = sum / (double)first;
	if (!error)
		error = time_leg(lane, phase, churn->clock_cost, cycles - first, block, &sum);
	block->phase_mean[number] = sum / (double)cycles;
	block->mean += sum;
	end_counts(lane, block);
	return error;
}

static int phased_block(const struct churn *churn, struct lane *lane,
	const struct workload *workload, struct block *block)
{
	const struct phase *last = &workload->phases[workload->phase_count - 1];
	int error = lead_in(lane, last, workload->name, 0);

	for (size_t i = 0; i < workload->phase_count && !error; i++) {
		const struct phase *phase = &workload->phases[i];

		if (phase->once)
			error = run_cycle(&lane->instance, phase->runs);
		else
			error = timed_phase(churn, lane, phase, i, block);
	}
	block->mean /= (double)block->count;
	block->cycles = block->count;
	return error;
}

int block_run(const struct churn *churn, struct lane *lane, const struct workload *workload,
	uint64_t budget_ns, struct block *block)
{
	const struct phase *last = &workload->phases[workload->phase_count - 1];
	int error;

	*block = (struct block){.samples = block->samples, .room = block->room};
	/* Verifying forked: a page fault of ours between two cycles would spoil a reading. */
	memset(block->samples, 0, block->room * sizeof(*block->samples));
	error = workload->phase_count > 1 ? phased_block(churn, lane, workload, block)
					  : steady_block(churn, lane, workload, budget_ns, block);
	if (!error)
		error = check_cycle(&lane->instance, next_run(lane, last), workload->name, true);
	for (size_t i = 1; i < tenants_of(lane) && !error; i++)
		error = check_cycle(&lane->instance, next_run(lane, last), workload->name, false);
	return error;
}
