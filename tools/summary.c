/* SPDX-License-Identifier: MIT */
/*
 * summary.c - ratios: the learning method against the references and against the forced methods.
 *
 * Invariant: both sides of a ratio were measured in the same run, by turns. A ratio below 1 says
 * that the learning method is faster.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double value_of(const struct cell *cell, bool mean)
{
	return cell && cell->measured ? (mean ? cell->mean : cell->median) : 0;
}

const struct cell *cell_of(const struct churn *churn, const struct result *result, const char *name)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		if (strcmp(churn->variants[i]->name, name) == 0)
			return &result->cells[i];
	}
	return NULL;
}

static double least(double a, double b)
{
	return a > 0 && (b <= 0 || a < b) ? a : b;
}

double best_reference(const struct churn *churn, const struct result *result, bool mean)
{
	double best = 0;

	for (size_t i = 0; i < churn->variant_count; i++) {
		if (churn->variants[i]->reference)
			best = least(value_of(&result->cells[i], mean), best);
	}
	return best;
}

static bool is_forced(const struct variant *variant)
{
	return !variant->reference && variant->method != MEMSLOT_RESET_AUTO;
}

double best_forced(const struct churn *churn, const struct result *result, bool mean)
{
	double best = 0;

	for (size_t i = 0; i < churn->variant_count; i++) {
		if (is_forced(churn->variants[i]))
			best = least(value_of(&result->cells[i], mean), best);
	}
	return best;
}

/* The first cycles of a phase, of the best forced method. */
static double best_first(const struct churn *churn, const struct result *result, size_t phase)
{
	double best = 0;

	for (size_t i = 0; i < churn->variant_count; i++) {
		if (is_forced(churn->variants[i]))
			best = least(result->cells[i].first_mean[phase], best);
	}
	return best;
}

/* The geometric mean is kept as a sum of logarithms until finish(). */
static void add(struct ratios *ratios, const char *name, double ours, double other)
{
	double ratio;

	if (ours <= 0 || other <= 0)
		return;
	ratio = ours / other;
	ratios->count++;
	ratios->geomean += log(ratio);
	if (ratio > ratios->worst) {
		ratios->worst = ratio;
		snprintf(ratios->worst_name, sizeof(ratios->worst_name), "%s", name);
	}
}

static void finish(struct ratios *ratios)
{
	if (ratios->count)
		ratios->geomean = exp(ratios->geomean / (double)ratios->count);
}

/* Against one reference everywhere. */
static struct ratios against(const struct churn *churn, size_t variant, unsigned most_pages)
{
	struct ratios ratios = {0};

	for (size_t i = 0; i < churn->result_count; i++) {
		const struct result *result = &churn->results[i];

		if (most_pages && (result->pages == 0 || result->pages > most_pages))
			continue;
		add(&ratios, result->name, value_of(cell_of(churn, result, "auto"), false),
			value_of(&result->cells[variant], false));
	}
	finish(&ratios);
	return ratios;
}

/* Through a pool against a slot without one. */
static void find_slot(const struct churn *churn, struct summary *summary)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		if (strcmp(churn->variants[i]->name, "slot") == 0)
			summary->slot = against(churn, i, 0);
	}
}

/* The single reference setting that is best over all workloads: our ratio to it is the highest. */
static void find_single(const struct churn *churn, struct summary *summary)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		struct ratios ratios;

		if (!churn->variants[i]->reference)
			continue;
		ratios = against(churn, i, 0);
		if (ratios.geomean > summary->single.geomean) {
			summary->single = ratios;
			summary->single_name = churn->variants[i]->name;
		}
		if (strcmp(churn->variants[i]->name, "dontneed") == 0) {
			summary->dontneed = ratios;
			summary->dontneed_small = against(churn, i, 64);
		}
	}
}

static void add_result(
	const struct churn *churn, const struct result *result, struct summary *summary)
{
	const struct cell *cell = cell_of(churn, result, "auto");
	double median = value_of(cell, false), mean = value_of(cell, true);

	add(&summary->best, result->name, median, best_reference(churn, result, false));
	add(&summary->best_mean, result->name, mean, best_reference(churn, result, true));
	add(&summary->forced, result->name, median, best_forced(churn, result, false));
	add(&summary->forced_mean, result->name, mean, best_forced(churn, result, true));
	for (size_t i = 0; cell && i < result->phase_count; i++) {
		char name[48];

		snprintf(name, sizeof(name), "%s: %s", result->name, result->phase_names[i]);
		add(&summary->forced_first, name, cell->first_mean[i],
			best_first(churn, result, i));
	}
}

void summarise(const struct churn *churn, struct summary *ret_summary)
{
	struct ratios *all[] = {&ret_summary->best, &ret_summary->best_mean, &ret_summary->forced,
		&ret_summary->forced_mean, &ret_summary->forced_first};

	memset(ret_summary, 0, sizeof(*ret_summary));
	for (size_t i = 0; i < churn->result_count; i++)
		add_result(churn, &churn->results[i], ret_summary);
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		finish(all[i]);
	find_single(churn, ret_summary);
	find_slot(churn, ret_summary);
}
