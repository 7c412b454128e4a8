/* SPDX-License-Identifier: MIT */
/*
 * sections.c - what churn --pool measures besides the workloads.
 *
 *   nothing     acquire and release beside the reset of a slot, with nothing written
 *   threads     1 to N threads that share one pool, or the references' allocator
 *   rotation    more and more images by turns, of which 16 may stay warm
 *   pressure    64 tenants, and an idle budget for the pages of 8
 *   growth      the guest that grows in every run
 *   cold, queue cold.c, queue.c
 *
 * Invariant: a section is a churn of its own: its variants run by turns, and its ratios are of what
 * was measured in it.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENANTS 64u
#define WARM 16u
#define BUDGET_FOR 8u /* tenants' pages */
#define FAVOURED 4u   /* have nine of ten runs */
#define PAGES 16u     /* that each run writes */

struct churn *section_new(struct churn *churn, const char *name, const char *title, size_t results)
{
	struct churn *section = calloc(1, sizeof(*section)), **last = &churn->next;

	if (section)
		section->results = calloc(results, sizeof(*section->results));
	if (!section || !section->results) {
		complain(-ENOMEM, "churn");
		free(section);
		return NULL;
	}
	section->settings = churn->settings;
	section->image = churn->image;
	section->clock_cost = churn->clock_cost;
	section->name = name;
	section->title = title;
	while (*last)
		last = &(*last)->next;
	*last = section;
	if (!churn->settings.json)
		report_section(section);
	return section;
}

/* --- variants --- */

static struct variant *add_variant(struct churn *section, const struct variant *variant)
{
	struct variant *own = &section->own[section->variant_count];

	*own = *variant;
	section->variants[section->variant_count++] = own;
	return own;
}

/* One of those that are only there with --pool. */
static void add_ours(struct churn *section, const char *name)
{
	for (size_t i = 0; i < variant_count; i++) {
		if (variants[i].pool && strcmp(variants[i].name, name) == 0)
			add_variant(section, &variants[i]);
	}
}

/* The references of all workloads; `shared`: through their allocator. */
static void add_references(struct churn *section, const struct churn *churn, bool shared)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		const struct variant *variant = churn->variants[i];

		if (!variant->reference || (shared && variant->backend != &pooled_backend))
			continue;
		variant = add_variant(section, variant);
		if (shared)
			section->own[section->variant_count - 1].backend = &allocator_backend;
	}
}

/* --- galleries --- */

/* What a gallery's images are, at most: 64 of them are in memory at once. */
static size_t gallery_image_size(const struct settings *settings)
{
	return settings->image_size < MIB ? settings->image_size : MIB;
}

static void gallery_free(struct churn *section, struct gallery *gallery)
{
	section->settings.gallery = NULL;
	section->image = NULL;
	for (unsigned i = 0; gallery && i < TENANTS; i++)
		memslot_image_unref(gallery->images[i]);
	free(gallery);
}

/* Of all tenants; the section shows it from now on. NULL: said why. */
static struct gallery *gallery_make(struct churn *section)
{
	struct gallery *gallery = calloc(1, sizeof(*gallery));
	int error = gallery ? 0 : -ENOMEM;

	section->settings.image_size = gallery_image_size(&section->settings);
	for (unsigned i = 0; i < TENANTS && !error; i++) {
		struct settings *settings = &gallery->settings[i];

		*settings = section->settings;
		settings->image_start = i * page_size();
		settings->contents += settings->image_start;
		error = memslot_image_from_bytes(
			settings->contents, settings->image_size, NULL, &gallery->images[i]);
	}
	if (error) {
		complain(error, "cannot make %u images", TENANTS);
		gallery_free(section, gallery);
		return NULL;
	}
	section->settings.gallery = gallery;
	section->image = gallery->images[0];
	return gallery;
}

/* --- the sections --- */

/* One more result, of a workload by name. */
static int measure(struct churn *section, const char *workload_, const char *name,
	const char *title, double seconds)
{
	struct result *result = &section->results[section->result_count];
	struct workload workload;
	int error = workload_find(workload_, &section->settings, &workload);

	if (error)
		return error;
	error = measure_workload(section, &workload, seconds, result);
	workload_free(&workload);
	if (error)
		return error < 0 ? EXIT_FAILED : error;
	section->result_count++;
	result->name = name;
	result->title = title;
	if (!section->settings.json)
		report_result(section, result);
	return 0;
}

static int measure_nothing(struct churn *churn, double seconds)
{
	struct churn *section =
		section_new(churn, "nothing", "Acquire and release, beside the reset of a slot", 1);
	int error;

	if (!section)
		return EXIT_FAILED;
	add_ours(section, "auto");
	add_ours(section, "slot");
	error = measure(section, "0", "nothing", "nothing written", seconds);
	if (error)
		return error;
	section->compared = true;
	section->difference =
		section->results[0].cells[0].median - section->results[0].cells[1].median;
	if (!section->settings.json)
		printf("  acquire and release less the reset: %.3f us\n",
			section->difference / 1000);
	return 0;
}

static int measure_sharing(struct churn *churn, double seconds)
{
	struct churn *section;
	struct workload workload;
	int error;

	if (churn->settings.threads < 2)
		return 0;
	section = section_new(churn, "threads", "Threads that share one pool", 1);
	if (!section)
		return EXIT_FAILED;
	add_ours(section, "auto");
	add_ours(section, "slot");
	add_references(section, churn, true);
	if (section->settings.slots < section->settings.threads)
		section->settings.slots = section->settings.threads;
	error = workload_find("16", &section->settings, &workload);
	if (error)
		return error;
	error = measure_threads(section, &workload, seconds);
	workload_free(&workload);
	if (error)
		return error < 0 ? EXIT_FAILED : error;
	if (!section->settings.json)
		report_threads(section);
	return 0;
}

static int measure_rotation(struct churn *churn, double seconds)
{
	static const struct {
		unsigned count;
		const char *name, *title;
	} steps[] = {{1, "1", "1 image"}, {4, "4", "4 images"}, {16, "16", "16 images"},
		{64, "64", "64 images"}};
	struct churn *section = section_new(
		churn, "rotation", "Images by turns, 64 slots, of which 16 may be warm", 4);
	struct gallery *gallery;
	int error = 0;

	if (!section)
		return EXIT_FAILED;
	section->settings.slots = TENANTS;
	section->settings.max_warm = WARM;
	add_ours(section, "auto");
	add_references(section, churn, true);
	gallery = gallery_make(section);
	if (!gallery)
		return EXIT_FAILED;
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && !error; i++) {
		gallery->count = steps[i].count;
		error = measure(section, "16", steps[i].name, steps[i].title, seconds);
	}
	gallery_free(section, gallery);
	return error;
}

/* The reference bounds what each slot keeps: with as much for all together. */
static void add_bounded_references(struct churn *section, const struct settings *settings)
{
	static const struct variant dontneed = {.name = "dontneed",
		.title = "drop everything",
		.backend = &allocator_backend,
		.reference = true};
	static const struct variant scan = {.name = "scan-share",
		.title = "one scan, keep a tenant's share of the budget",
		.backend = &allocator_backend,
		.reference = true,
		.needs_scan = true};

	add_variant(section, &dontneed);
	if (variant_possible(&scan, settings))
		add_variant(section, &scan)->budget = section->settings.idle_budget / TENANTS;
}

static void report_kept(const struct churn *section)
{
	const struct result *result = &section->results[section->result_count - 1];
	char kept[32], budget[32];

	if (!section->settings.json)
		printf("  idle slots keep %s, of %s\n",
			format_size(result->cells[0].pool.resident_bytes, kept, sizeof(kept)),
			format_size(section->settings.idle_budget, budget, sizeof(budget)));
}

static int measure_pressure(struct churn *churn, double seconds)
{
	struct churn *section = section_new(churn, "pressure",
		"64 slots, 64 tenants, and an idle budget for what 8 of them write", 2);
	struct gallery *gallery;
	int error;

	if (!section)
		return EXIT_FAILED;
	section->settings.slots = TENANTS;
	section->settings.idle_budget = (uint64_t)BUDGET_FOR * PAGES * page_size();
	add_ours(section, "auto");
	add_bounded_references(section, &churn->settings);
	gallery = gallery_make(section);
	if (!gallery)
		return EXIT_FAILED;
	gallery->count = TENANTS;
	error = measure(section, "16", "turns", "all by turns", seconds);
	if (!error) {
		report_kept(section);
		gallery->favoured = FAVOURED;
		error = measure(
			section, "16", "favoured", "nine of ten runs by 4 of them", seconds);
	}
	if (!error)
		report_kept(section);
	gallery_free(section, gallery);
	return error;
}

static int measure_growth(struct churn *churn, double seconds)
{
	struct churn *section = section_new(churn, "growth", "A guest that grows in every run", 2);
	int error;

	if (!section)
		return EXIT_FAILED;
	add_ours(section, "auto");
	add_ours(section, "slot");
	add_references(section, churn, false);
	error = measure(section, "grow4", "grow4", "grow by 1 MiB, write 4 pages of it", seconds);
	if (!error)
		error = measure(section, "grow64", "grow64", "grow by 1 MiB, write 64 pages of it",
			seconds);
	return error;
}

int measure_pool(struct churn *churn, double share)
{
	int error = measure_nothing(churn, share);

	if (!error)
		error = measure_sharing(churn, 2 * share);
	if (!error)
		error = measure_rotation(churn, share);
	if (!error)
		error = measure_pressure(churn, share);
	if (!error)
		error = measure_growth(churn, share);
	if (!error)
		error = measure_cold(churn);
	if (!error)
		error = measure_queue(churn);
	return error;
}
