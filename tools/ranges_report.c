/* SPDX-License-Identifier: MIT */
/* ranges_report.c - what memslot ranges found, as text and as JSON. */
#define _GNU_SOURCE
#include "ranges.h"

#include <stdio.h>

static void print_json(const struct ranges_run *run)
{
	json_t *all = json_object(), *object;

	for (int who = 0; who < RANGES_WHOS; who++) {
		const struct ranges_figures *figures = &run->figures[who];

		if (!run->measured[who]) {
			json_object_set_new(all, ranges_names[who].name, json_null());
			continue;
		}
		object = json_pack("{s:I, s:f, s:{s:f, s:f, s:f}, s:I}", "rounds",
			(json_int_t)run->measured[who], "ns_per_operation", figures->per_operation,
			"alloc_ns", "mean", figures->alloc_mean, "median", figures->alloc_median,
			"p999", figures->alloc_p999, "failed", (json_int_t)figures->failed);
		if (who == UNLOCKED)
			json_object_set_new(object, "first_failure",
				json_pack("{s:f, s:f}", "1M", figures->first_failure[0], "64K",
					figures->first_failure[1]));
		json_object_set_new(all, ranges_names[who].name, object);
	}
	object = json_pack("{s:s, s:I, s:I, s:I, s:o, s:f, s:f}", "version", memslot_version(),
		"arena_bytes", (json_int_t)run->trace.arena, "operations",
		(json_int_t)run->trace.operations, "seed", (json_int_t)run->trace.seed,
		"allocators", all, "unlocked_to_faster_peer", run->to_peer, "lock_ns",
		run->locked_ns);
	if (!run->measured[MIMALLOC] && !run->measured[JEMALLOC])
		json_object_set_new(object, "unlocked_to_faster_peer", json_null());
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(object);
}

static void print_text(const struct ranges_run *run)
{
	const struct ranges_figures *ours = &run->figures[UNLOCKED];
	char size[32];

	printf("%s arena, %llu operations, %llu round%s by turns, seed %llu; medians\n\n",
		format_size(run->trace.arena, size, sizeof(size)),
		(unsigned long long)run->trace.operations, (unsigned long long)run->rounds,
		run->rounds == 1 ? "" : "s", (unsigned long long)run->trace.seed);
	printf("%-34s %8s | %8s %8s %8s | %s\n", "", "ns a call", "alloc", "median", "p99.9",
		"failed");
	for (int who = 0; who < RANGES_WHOS; who++) {
		const struct ranges_figures *figures = &run->figures[who];

		if (run->measured[who])
			printf("%-34s %9.1f | %8.1f %8.1f %8.1f | %llu\n", ranges_names[who].title,
				figures->per_operation, figures->alloc_mean, figures->alloc_median,
				figures->alloc_p999, (unsigned long long)figures->failed);
		else
			printf("%-34s not installed\n", ranges_names[who].title);
	}
	putchar('\n');
	if (run->to_peer > 0)
		printf("unlocked to the faster of mimalloc and jemalloc: %.2f\n", run->to_peer);
	printf("locked less unlocked: %+.1f ns a call (small differences are noise)\n",
		run->locked_ns);
	printf("unlocked, p99.9 to mean: %.1f\n",
		ours->alloc_mean > 0 ? ours->alloc_p999 / ours->alloc_mean : 0);
	printf("full at the first failure: %.3f, sizes up to 64 KiB: %.3f\n",
		ours->first_failure[0], ours->first_failure[1]);
}

void ranges_report(const struct ranges_run *run)
{
	if (run->json)
		print_json(run);
	else
		print_text(run);
}
