/* SPDX-License-Identifier: MIT */
/*
 * measure.c - one workload, all variants: blocks by turns.
 *
 *   round 0 (not counted)   auto | known | scan | ... | remap
 *   round 1                 known | scan | ... | remap | auto
 *
 * Invariant: every variant keeps its memory, and what it has learnt, from round to round; what is
 * reported is the median over the rounds.
 */
#define _GNU_SOURCE
#include "block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	MEDIAN,
	MEAN,
	P99,
	P999,
	FAULTS,
	CALLS,
	PHASE_MEAN,
	FIRST_MEAN = PHASE_MEAN + MAX_PHASES,
	FIELDS = FIRST_MEAN + MAX_PHASES
};

static double *values_of(const struct lane *lane, size_t field)
{
	return lane->values + field * MAX_ROUNDS;
}

/* What the block came to, into its round's place. */
static void keep(struct lane *lane, size_t round, struct block *block)
{
	for (size_t i = 0; i < MAX_PHASES; i++) {
		values_of(lane, PHASE_MEAN + i)[round] = block->phase_mean[i];
		values_of(lane, FIRST_MEAN + i)[round] = block->first_mean[i];
	}
	values_of(lane, MEAN)[round] = block->mean;
	values_of(lane, FAULTS)[round] = (double)block->faults / (double)block->cycles;
	values_of(lane, CALLS)[round] = (double)block->calls / (double)block->cycles;
	values_of(lane, MEDIAN)[round] = median_of(block->samples, block->count); /* sorts */
	values_of(lane, P99)[round] = quantile_of(block->samples, block->count, 0.99);
	values_of(lane, P999)[round] = quantile_of(block->samples, block->count, 0.999);
	lane->cycles += block->cycles;
}

static int run_round(const struct churn *churn, struct lane *lanes, const struct workload *workload,
	size_t round, uint64_t budget_ns, struct block *block)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		struct lane *lane = &lanes[(round + i) % churn->variant_count];
		int error = block_run(churn, lane, workload, budget_ns, block);

		if (error) {
			complain(error < 0 ? error : 0, "variant %s, workload %s failed",
				lane->instance.variant->name, workload->name);
			return error;
		}
		if (round > 0)
			keep(lane, round - 1, block);
	}
	return 0;
}

/* Rounds of phases have a fixed length: at least three, and what the time allows. */
static unsigned rounds_within(const struct churn *churn, const struct workload *workload,
	double seconds, uint64_t round_ns)
{
	double affordable = seconds * 1e9 / (double)round_ns - 1;
	unsigned most = churn->settings.rounds;

	if (workload->phase_count == 1 || affordable >= most)
		return most;
	return affordable > 3 ? (unsigned)affordable : most < 3 ? most : 3;
}

static int run_rounds(const struct churn *churn, struct lane *lanes,
	const struct workload *workload, double seconds, struct block *block, unsigned *ret_rounds)
{
	double blocks = (double)churn->variant_count * (churn->settings.rounds + 1);
	uint64_t budget_ns = (uint64_t)(seconds * 1e9 / blocks), began = clock_ns();
	int error = 0;

	*ret_rounds = churn->settings.rounds;
	for (size_t round = 0; round <= *ret_rounds && !error; round++) {
		if (churn->settings.progress)
			fprintf(stderr, "\r%s: round %zu of %u\033[K", workload->title, round,
				*ret_rounds);
		error = run_round(churn, lanes, workload, round, budget_ns, block);
		if (round == 0)
			*ret_rounds = rounds_within(churn, workload, seconds, clock_ns() - began);
	}
	if (churn->settings.progress)
		fputs("\r\033[K", stderr);
	return error;
}

static void fill_cell(const struct lane *lane, size_t rounds, struct cell *cell)
{
	cell->measured = true;
	cell->median = median_of(values_of(lane, MEDIAN), rounds);
	cell->mean = median_of(values_of(lane, MEAN), rounds);
	cell->p99 = median_of(values_of(lane, P99), rounds);
	cell->p999 = median_of(values_of(lane, P999), rounds);
	cell->faults = median_of(values_of(lane, FAULTS), rounds);
	cell->calls = median_of(values_of(lane, CALLS), rounds);
	for (size_t i = 0; i < MAX_PHASES; i++) {
		cell->phase_mean[i] = median_of(values_of(lane, PHASE_MEAN + i), rounds);
		cell->first_mean[i] = median_of(values_of(lane, FIRST_MEAN + i), rounds);
	}
	cell->cycles = lane->cycles;
	cell->stats.size = sizeof(cell->stats);
	if (lane->instance.slot)
		memslot_slot_stats(lane->instance.slot, &cell->stats);
	if (lane->instance.pool) {
		cell->pool.size = sizeof(cell->pool);
		memslot_pool_stats(lane->instance.pool, &cell->pool);
		cell->stats = cell->pool.slots;
		cell->stats.size = sizeof(cell->stats);
	}
}

static void describe(const struct workload *workload, struct result *result)
{
	result->name = workload->name;
	result->title = workload->title;
	result->pages = workload->pages;
	result->phase_count = workload->phase_count;
	for (size_t i = 0; i < workload->phase_count; i++) {
		result->phase_names[i] = workload->phases[i].name;
		result->phase_once[i] = workload->phases[i].once;
	}
}

static int open_lanes(
	const struct churn *churn, const struct workload *workload, struct lane *lanes)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		int error = instance_open(&lanes[i].instance, churn->variants[i], &churn->settings,
			churn->image, workload->size);

		lanes[i].values = calloc(FIELDS * MAX_ROUNDS, sizeof(double));
		if (!error && !lanes[i].values)
			error = -ENOMEM;
		if (error) {
			complain(error, "cannot set up variant %s", churn->variants[i]->name);
			return error;
		}
	}
	return 0;
}

static void close_lanes(struct lane *lanes, size_t count)
{
	for (size_t i = 0; lanes && i < count; i++) {
		instance_close(&lanes[i].instance);
		free(lanes[i].values);
	}
	free(lanes);
}

void tally_add(struct tally *tally, double *samples, size_t count)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += samples[i];
	tally->mean[tally->rounds] = sum / (double)count;
	tally->median[tally->rounds] = median_of(samples, count); /* sorts */
	tally->p99[tally->rounds] = quantile_of(samples, count, 0.99);
	tally->p999[tally->rounds++] = quantile_of(samples, count, 0.999);
	tally->count += count;
}

void tally_finish(struct tally *tally, struct cell *ret_cell)
{
	*ret_cell = (struct cell){.measured = true,
		.median = median_of(tally->median, tally->rounds),
		.mean = median_of(tally->mean, tally->rounds),
		.p99 = median_of(tally->p99, tally->rounds),
		.p999 = median_of(tally->p999, tally->rounds),
		.faults = -1,
		.calls = -1,
		.cycles = tally->count};
}

int measure_workload(const struct churn *churn, const struct workload *workload, double seconds,
	struct result *result)
{
	struct lane *lanes = calloc(churn->variant_count, sizeof(*lanes));
	size_t most = MOST_SAMPLES + churn->settings.cycles * MAX_PHASES;
	struct block block = {.samples = calloc(most, sizeof(double)), .room = most};
	int error = -ENOMEM;

	describe(workload, result);
	if (lanes && block.samples)
		error = open_lanes(churn, workload, lanes);
	if (!error)
		error = run_rounds(churn, lanes, workload, seconds, &block, &result->rounds);
	for (size_t i = 0; i < churn->variant_count && !error; i++)
		fill_cell(&lanes[i], result->rounds, &result->cells[i]);
	free(block.samples);
	close_lanes(lanes, churn->variant_count);
	return error;
}
