/* SPDX-License-Identifier: MIT */
/*
 * report.c - what was measured, for people: a table and bars for each workload, then the ratios.
 *
 * Invariant: colours only on a terminal; everything fits the terminal's width, the bars get what
 * the figures leave. Times are microseconds a cycle.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FIGURES 75 /* columns before the bars */

enum colour { PLAIN, BOLD, OURS, OTHERS };

static const char *const codes[] = {"\033[0m", "\033[1m", "\033[32m", "\033[36m"};

static void colour(const struct churn *churn, enum colour which)
{
	if (churn->settings.colour)
		fputs(codes[which], stdout);
}

/* Three significant digits. */
static const char *format_us(double ns, char *buffer, size_t room)
{
	double us = ns / 1000;

	snprintf(buffer, room,
		us < 0.9995  ? "%.3f"
		: us < 9.995 ? "%.2f"
		: us < 99.95 ? "%.1f"
			     : "%.0f",
		us);
	return buffer;
}

static void print_us(double ns)
{
	char buffer[32];

	printf("%9s", ns < 0 ? "-" : format_us(ns, buffer, sizeof(buffer)));
}

/* Of one cycle; negative: not known. */
static void print_count(double count)
{
	if (count < 0)
		printf("%8s", "-");
	else
		printf("%8.2f", count);
}

/* A bar of eighths of a column. */
static void print_bar(double value, double most, unsigned columns)
{
	static const char *const parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
	unsigned eighths = most > 0 ? (unsigned)(value / most * columns * 8 + 0.5) : 0;

	if (eighths == 0)
		eighths = 1;
	for (; eighths >= 8; eighths -= 8)
		fputs("█", stdout);
	fputs(parts[eighths], stdout);
}

static double slowest(const struct churn *churn, const struct result *result)
{
	double most = 0;

	for (size_t i = 0; i < churn->variant_count; i++) {
		if (result->cells[i].median > most)
			most = result->cells[i].median;
	}
	return most;
}

static void print_ratio(double ours, double other)
{
	if (other > 0)
		printf("%8.2f", ours / other);
	else
		printf("%8s", "-");
}

static void print_cell(
	const struct churn *churn, const struct result *result, size_t index, unsigned bar_columns)
{
	const struct variant *variant = churn->variants[index];
	const struct cell *cell = &result->cells[index];

	printf("  %-8s%-11s", variant_prefix(variant), variant->name);
	print_us(cell->median);
	print_us(cell->mean);
	print_us(cell->p99);
	print_us(cell->p999);
	print_count(cell->faults);
	print_count(cell->calls);
	print_ratio(cell->median, best_reference(churn, result, false));
	if (bar_columns > 4) {
		fputs("  ", stdout);
		colour(churn, variant->reference ? OTHERS : OURS);
		print_bar(cell->median, slowest(churn, result), bar_columns);
		colour(churn, PLAIN);
	}
	putchar('\n');
}

/* Means of a phase, and of its first cycles: ours one by one, of the references the best. */
static void print_phase(const struct churn *churn, const struct result *result, size_t phase)
{
	double best = 0, best_first = 0;

	printf("  %-17s", result->phase_names[phase]);
	for (size_t i = 0; i < churn->variant_count; i++) {
		const struct cell *cell = &result->cells[i];

		if (!churn->variants[i]->reference) {
			print_us(cell->first_mean[phase]);
			print_us(cell->phase_mean[phase]);
			continue;
		}
		if (best <= 0 || cell->phase_mean[phase] < best)
			best = cell->phase_mean[phase];
		if (best_first <= 0 || cell->first_mean[phase] < best_first)
			best_first = cell->first_mean[phase];
	}
	print_us(best_first);
	print_us(best);
	putchar('\n');
}

static void print_phases(const struct churn *churn, const struct result *result)
{
	printf("\n  mean of the first %d, and of all:", FIRST_CYCLES);
	for (size_t i = 0; i < churn->variant_count; i++) {
		if (!churn->variants[i]->reference)
			printf(" %s,", churn->variants[i]->name);
	}
	puts(" best reference");
	for (size_t i = 0; i < result->phase_count; i++) {
		if (!result->phase_once[i])
			print_phase(churn, result, i);
	}
}

void report_result(const struct churn *churn, const struct result *result)
{
	unsigned width = terminal_width();

	colour(churn, BOLD);
	printf("\n%s", result->title);
	colour(churn, PLAIN);
	printf("\n%21s%9s%9s%9s%9s%8s%8s%8s\n", "", "median", "mean", "p99", "p99.9", "faults",
		"calls", "ratio");
	for (size_t i = 0; i < churn->variant_count; i++)
		print_cell(churn, result, i, width > FIGURES + 10 ? width - FIGURES - 10 : 0);
	if (result->phase_count > 1)
		print_phases(churn, result);
	fflush(stdout);
}

void report_head(const struct churn *churn)
{
	const struct settings *settings = &churn->settings;
	struct utsname system = {0};
	char image[32], at[32], capacity[32], size[32];

	uname(&system);
	printf("libmemslot %s, Linux %s, %s, %ld processors\n", memslot_version(), system.release,
		system.machine, sysconf(_SC_NPROCESSORS_ONLN));
	printf("%s: an image of %s, %s of %s accessible; pages from %s; %s; %u rounds\n",
		settings->image_name, format_size(settings->image_size, image, sizeof(image)),
		format_size(settings->size, size, sizeof(size)),
		format_size(settings->capacity, capacity, sizeof(capacity)),
		format_size(settings->at, at, sizeof(at)),
		settings->confined ? "confined" : "not confined", settings->rounds);
	if (settings->pool)
		printf("Through a pool of %u slots: make ready is acquire, put back is release.\n",
			settings->slots);
	puts("Microseconds for one cycle: make ready, write one word in each page, put back. The "
	     "ratio\n"
	     "is to the best reference of the workload. All contents are verified.");
	if (churn->skipped[0])
		printf("Left out, for PAGEMAP_SCAN is missing here:%s\n", churn->skipped);
}

static void print_ratios(const char *what, const struct ratios *ratios)
{
	if (ratios->count == 0)
		return;
	printf("  %-52s%8.2f%8.2f  %s\n", what, ratios->geomean, ratios->worst, ratios->worst_name);
}

void report_section(const struct churn *section)
{
	putchar('\n');
	colour(section, BOLD);
	printf("== %s", section->title);
	colour(section, PLAIN);
	putchar('\n');
}

void report_threads(const struct churn *churn)
{
	if (churn->scaling_count == 0)
		return;
	printf("\nThreads %s, 16 pages: cycles a second, all together: the median of the turns\n",
		churn->settings.pool ? "that share one pool (or allocator)" : "with a slot each");
	puts("(in brackets the ratio to one thread: the median of each turn's, not the quotient "
	     "of the medians)");
	for (size_t i = 0; i < churn->scaling_count; i++) {
		const struct scaling *scaling = &churn->scaling[i];

		printf("  %-8s%-11s", variant_prefix(scaling->variant), scaling->variant->name);
		for (unsigned n = 0; n < scaling->threads; n++)
			printf("  %u: %.0f (%.2f)", n + 1, scaling->rate[n], scaling->ratio[n]);
		putchar('\n');
	}
}

void report_summary(const struct churn *churn)
{
	struct summary summary;
	char single[64];

	report_threads(churn);
	summarise(churn, &summary);
	snprintf(single, sizeof(single), "the best single reference (%s)",
		summary.single_name ? summary.single_name : "none");
	printf("\n%-7s auto against%35s%15s\n", churn->settings.pool ? "pool" : "memslot",
		"geometric", "worst");
	print_ratios("the best reference of each workload, medians", &summary.best);
	print_ratios("the same, means", &summary.best_mean);
	print_ratios(single, &summary.single);
	print_ratios("dontneed", &summary.dontneed);
	print_ratios("dontneed, 1 to 64 pages", &summary.dontneed_small);
	print_ratios("a slot without a pool, medians", &summary.slot);
	print_ratios("the best forced method of each workload, medians", &summary.forced);
	print_ratios("the same, means", &summary.forced_mean);
	print_ratios("the same, means of the first 100 in a phase", &summary.forced_first);
}
