/* SPDX-License-Identifier: MIT */
/*
 * churn_json.c - everything that was measured, as one JSON object.
 *
 * Invariant: times are nanoseconds a cycle, medians over the rounds; what was not measured is null
 * or absent, never 0.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <sys/utsname.h>
#include <unistd.h>

/* Two decimals: more is noise. Negative: not known. */
static json_t *number(double value)
{
	return value < 0 ? json_null() : json_real((double)(int64_t)(value * 100 + 0.5) / 100);
}

static json_t *ratio(double ours, double other)
{
	return other > 0 ? json_real((double)(int64_t)(ours / other * 10000 + 0.5) / 10000)
			 : json_null();
}

static json_t *describe_stats(const struct memslot_slot_stats *stats)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "resets_known",
		(json_int_t)stats->resets_known, "resets_scan", (json_int_t)stats->resets_scan,
		"resets_drop", (json_int_t)stats->resets_drop, "scan_failures",
		(json_int_t)stats->scan_failures, "remakes", (json_int_t)stats->remakes,
		"retained_pages", (json_int_t)stats->retained_pages, "last_method",
		(json_int_t)stats->last_method);
}

static json_t *describe_pool(const struct memslot_pool_stats *pool)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "idle_warm",
		(json_int_t)pool->idle_warm, "idle_cold", (json_int_t)pool->idle_cold, "queued",
		(json_int_t)pool->queued, "quarantined", (json_int_t)pool->quarantined,
		"resident_bytes", (json_int_t)pool->resident_bytes, "affinity_hits",
		(json_int_t)pool->affinity_hits, "exhausted", (json_int_t)pool->exhausted);
}

static json_t *describe_phases(const struct result *result, const struct cell *cell)
{
	json_t *phases = json_array();

	for (size_t i = 0; i < result->phase_count; i++) {
		if (!result->phase_once[i])
			json_array_append_new(
				phases, json_pack("{s:s, s:o, s:o}", "name", result->phase_names[i],
						"mean_ns", number(cell->phase_mean[i]), "first_ns",
						number(cell->first_mean[i])));
	}
	return phases;
}

static json_t *describe_cell(const struct churn *churn, const struct result *result, size_t index)
{
	const struct variant *variant = churn->variants[index];
	const struct cell *cell = &result->cells[index];
	const struct cell *dontneed = cell_of(churn, result, "dontneed");
	json_t *object = json_pack("{s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o}",
		"name", variant->name, "title", variant->title, "reference", variant->reference,
		"median_ns", number(cell->median), "mean_ns", number(cell->mean), "p99_ns",
		number(cell->p99), "p999_ns", number(cell->p999), "faults", number(cell->faults),
		"syscalls", number(cell->calls), "cycles", (json_int_t)cell->cycles,
		"to_best_reference", ratio(cell->median, best_reference(churn, result, false)),
		"to_dontneed", ratio(cell->median, dontneed ? dontneed->median : 0));

	if (result->phase_count > 1)
		json_object_set_new(object, "phases", describe_phases(result, cell));
	if (!variant->reference && cell->stats.size)
		json_object_set_new(object, "stats", describe_stats(&cell->stats));
	if (cell->pool.size)
		json_object_set_new(object, "pool", describe_pool(&cell->pool));
	return object;
}

static json_t *describe_result(const struct churn *churn, const struct result *result)
{
	json_t *variants_ = json_array();

	for (size_t i = 0; i < churn->variant_count; i++)
		json_array_append_new(variants_, describe_cell(churn, result, i));
	return json_pack("{s:s, s:s, s:i, s:o}", "name", result->name, "title", result->title,
		"rounds", (int)result->rounds, "variants", variants_);
}

static json_t *describe_settings(const struct settings *settings)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:i, s:I, s:i, s:f, s:b}", "image",
		settings->image_name, "image_size", (json_int_t)settings->image_size, "capacity",
		(json_int_t)settings->capacity, "size", (json_int_t)settings->size, "at",
		(json_int_t)settings->at, "confined", settings->confined, "rounds",
		(int)settings->rounds, "cycles", (json_int_t)settings->cycles, "threads",
		(int)settings->threads, "seconds", settings->seconds, "pool", settings->pool);
}

static json_t *describe_machine(void)
{
	struct utsname system = {0};
	char line[128];
	bool known = read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line));

	uname(&system);
	return json_pack("{s:s, s:s, s:i, s:I, s:o}", "kernel", system.release, "machine",
		system.machine, "processors", (int)sysconf(_SC_NPROCESSORS_ONLN), "page_size",
		(json_int_t)page_size(), "transparent_hugepage",
		known ? json_string(line) : json_null());
}

static json_t *describe_ratios(const struct ratios *ratios)
{
	if (ratios->count == 0)
		return json_null();
	return json_pack("{s:o, s:o, s:s, s:I}", "geometric_mean", ratio(ratios->geomean, 1),
		"worst", ratio(ratios->worst, 1), "worst_workload", ratios->worst_name, "count",
		(json_int_t)ratios->count);
}

static json_t *describe_summary(const struct churn *churn)
{
	struct summary summary;

	summarise(churn, &summary);
	return json_pack("{s:o, s:o, s:o, s:s?, s:o, s:o, s:o, s:o, s:o, s:o}",
		"auto_to_best_reference_each", describe_ratios(&summary.best),
		"auto_to_best_reference_each_mean", describe_ratios(&summary.best_mean),
		"auto_to_best_single_reference", describe_ratios(&summary.single),
		"best_single_reference", summary.single_name, "auto_to_dontneed",
		describe_ratios(&summary.dontneed), "auto_to_dontneed_1_to_64_pages",
		describe_ratios(&summary.dontneed_small), "auto_to_best_forced",
		describe_ratios(&summary.forced), "auto_to_best_forced_mean",
		describe_ratios(&summary.forced_mean), "auto_to_best_forced_first_100",
		describe_ratios(&summary.forced_first), "pool_to_slot",
		describe_ratios(&summary.slot));
}

static json_t *describe_threads(const struct churn *churn)
{
	json_t *list = json_array();

	for (size_t i = 0; i < churn->scaling_count; i++) {
		const struct scaling *scaling = &churn->scaling[i];
		json_t *rates = json_array();

		for (unsigned n = 0; n < scaling->threads; n++)
			json_array_append_new(
				rates, json_pack("{s:i, s:o, s:o}", "threads", (int)n + 1,
					       "cycles_per_second", number(scaling->rate[n]),
					       "to_one_thread", ratio(scaling->ratio[n], 1)));
		json_array_append_new(list,
			json_pack("{s:s, s:o}", "name", scaling->variant->name, "rates", rates));
	}
	return list;
}

static json_t *describe_results(const struct churn *churn)
{
	json_t *results = json_array();

	for (size_t i = 0; i < churn->result_count; i++)
		json_array_append_new(results, describe_result(churn, &churn->results[i]));
	return results;
}

/* null: the library's default. */
static json_t *describe_limit(uint64_t limit)
{
	return limit ? json_integer((json_int_t)limit) : json_null();
}

static json_t *describe_section(const struct churn *section)
{
	const struct settings *settings = &section->settings;

	return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "name", section->name,
		"title", section->title, "slots", (json_int_t)settings->slots, "image_size",
		(json_int_t)settings->image_size, "max_warm", describe_limit(settings->max_warm),
		"idle_budget", describe_limit(settings->idle_budget), "difference_ns",
		section->compared ? json_real(section->difference) : json_null(), "results",
		describe_results(section), "threads", describe_threads(section));
}

static json_t *describe_sections(const struct churn *churn)
{
	json_t *sections = json_array();

	for (const struct churn *section = churn->next; section; section = section->next)
		json_array_append_new(sections, describe_section(section));
	return sections;
}

json_t *churn_to_json(const struct churn *churn)
{
	json_t *object = json_pack("{s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o}", "version",
		memslot_version(), "machine", describe_machine(), "settings",
		describe_settings(&churn->settings), "clock_ns", number(churn->clock_cost),
		"skipped", churn->skipped, "workloads", describe_results(churn), "threads",
		describe_threads(churn), "summary", describe_summary(churn));

	if (object && churn->settings.pool)
		json_object_set_new(object, "sections", describe_sections(churn));
	return object;
}
