/* SPDX-License-Identifier: MIT */
/* interp_report.c - what memslot lua and memslot duk found, as text and as JSON. */
#define _GNU_SOURCE
#include "interp.h"

#include <stdio.h>

static double ratio(const struct interp_run *run, enum interp_what what, enum interp_what other)
{
	return run->median_ns[other] > 0 ? run->median_ns[what] / run->median_ns[other] : 0;
}

static double per_second(const struct interp_run *run)
{
	return run->pool_ns ? (double)run->pool_requests * 1e9 / (double)run->pool_ns : 0;
}

/* --- JSON --- */

static json_t *describe_times(const struct interp_run *run)
{
	static const char *const names[INTERP_WHATS] = {"boot_and_request", "fork_and_request",
		"request_and_rewind", "reset", "boot_in_heap", "boot_with_malloc", "run_in_heap",
		"run_with_malloc", "calls_of_heap", "calls_of_malloc"};
	json_t *object = json_object();

	for (size_t i = 0; i < INTERP_WHATS; i++)
		json_object_set_new(object, names[i],
			json_pack("{s:f, s:I}", "median_ns", run->median_ns[i], "samples",
				(json_int_t)run->samples[i]));
	return object;
}

static json_t *describe_booted(const struct interp_run *run)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "interpreter", run->interp->name,
		"library", run->library, "objects", (json_int_t)run->heap.live, "object_bytes",
		(json_int_t)run->heap.live_bytes, "image_bytes", (json_int_t)run->image_bytes,
		"committed_bytes", (json_int_t)run->heap.committed_bytes);
}

static json_t *describe_rogues(const struct interp_counts *counts)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "deadline",
		(json_int_t)counts->rogues[DEADLINE], "out_of_memory",
		(json_int_t)counts->rogues[NO_MEMORY], "raised", (json_int_t)counts->rogues[RAISED],
		"answered", (json_int_t)counts->rogues[ANSWERED], "right_after",
		(json_int_t)counts->right_after);
}

static json_t *describe_files(const struct interp_counts *counts)
{
	return json_pack("{s:I, s:I, s:I}", "requests", (json_int_t)counts->openers, "opened",
		(json_int_t)counts->opened, "left_open", (json_int_t)counts->left_open);
}

static json_t *describe_resets(const struct interp_run *run)
{
	return json_pack("{s:f, s:I, s:I, s:I}", "pages_restored", run->pages_restored, "known",
		(json_int_t)run->slot.resets_known, "scan", (json_int_t)run->slot.resets_scan,
		"drop", (json_int_t)run->slot.resets_drop);
}

static json_t *describe_pool(const struct interp_run *run)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:f, s:o, s:o}", "threads", (json_int_t)run->threads,
		"slots", (json_int_t)run->slots, "boots", (json_int_t)run->boots, "requests",
		(json_int_t)run->pool_requests, "requests_per_second", per_second(run), "rogues",
		describe_rogues(&run->pool_counts), "files", describe_files(&run->pool_counts));
}

static json_t *describe_ratios(const struct interp_run *run)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "rewind_to_fork", ratio(run, REWIND, FORK),
		"rewind_to_boot", ratio(run, REWIND, BOOT), "boot_heap_to_malloc",
		ratio(run, BOOT_HEAP, BOOT_MALLOC), "run_heap_to_malloc",
		ratio(run, RUN_HEAP, RUN_MALLOC), "calls_heap_to_malloc",
		ratio(run, CALLS_HEAP, CALLS_MALLOC));
}

static void print_json(const struct interp_run *run)
{
	json_t *object = json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"version", memslot_version(), "requests", (json_int_t)run->requests, "calls",
		(json_int_t)run->calls, "booted", describe_booted(run), "times",
		describe_times(run), "ratios", describe_ratios(run), "resets", describe_resets(run),
		"rogues", describe_rogues(&run->counts), "files", describe_files(&run->counts),
		"descriptors",
		json_pack("{s:I, s:I}", "before", (json_int_t)run->descriptors_before, "after",
			(json_int_t)run->descriptors_after),
		"pool", describe_pool(run));

	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

/* --- text --- */

static void print_time(const struct interp_run *run, const char *name, enum interp_what what)
{
	printf("  %-26s %10.1f us  median of %llu\n", name, run->median_ns[what] / 1000,
		(unsigned long long)run->samples[what]);
}

static void print_count(const char *name, uint64_t count)
{
	printf("  %-26s %10llu\n", name, (unsigned long long)count);
}

static void print_times(const struct interp_run *run)
{
	puts("\nOne request");
	print_time(run, "boot + request", BOOT);
	print_time(run, "fork + request", FORK);
	print_time(run, "request + rewind", REWIND);
	print_time(run, "  the rewind alone", RESET);
	printf("  %-26s %10.4f\n", "rewind / fork", ratio(run, REWIND, FORK));
	printf("  %-26s %10.4f\n", "rewind / boot", ratio(run, REWIND, BOOT));
	printf("  %-26s %10.1f\n", "pages restored", run->pages_restored);
	puts("\nBoot");
	print_time(run, "in a heap", BOOT_HEAP);
	print_time(run, "with the system malloc", BOOT_MALLOC);
	printf("  %-26s %10.4f\n", "heap / malloc", ratio(run, BOOT_HEAP, BOOT_MALLOC));
	printf("\nThen %d requests, nothing rewound between them\n", INTERP_IN_A_ROW);
	print_time(run, "in a heap", RUN_HEAP);
	print_time(run, "with the system malloc", RUN_MALLOC);
	printf("  %-26s %10.4f\n", "heap / malloc", ratio(run, RUN_HEAP, RUN_MALLOC));
	printf("\nThe %llu calls of the allocator in that and in boot, alone\n",
		(unsigned long long)run->calls);
	print_time(run, "of a heap", CALLS_HEAP);
	print_time(run, "of the system malloc", CALLS_MALLOC);
	printf("  %-26s %10.4f\n", "heap / malloc", ratio(run, CALLS_HEAP, CALLS_MALLOC));
}

static void print_counts(const struct interp_counts *counts)
{
	print_count("took too long", counts->rogues[DEADLINE]);
	print_count("out of memory", counts->rogues[NO_MEMORY]);
	print_count("raised errors", counts->rogues[RAISED]);
	print_count("broke what they found", counts->rogues[ANSWERED]);
	print_count("next one was right", counts->right_after);
}

static void print_pool(const struct interp_run *run)
{
	printf("\n%llu threads, %llu slots of a pool, %llu boots\n",
		(unsigned long long)run->threads, (unsigned long long)run->slots,
		(unsigned long long)run->boots);
	print_count("requests, all right", run->pool_requests);
	printf("  %-26s %10.0f\n", "requests a second", per_second(run));
	print_count("misbehaved, next was right", run->pool_counts.right_after);
	print_count("files left open, closed", run->pool_counts.left_open);
	puts("  and the pool is clean: every byte is zero");
}

void interp_report(const struct interp_run *run)
{
	char objects[32], image[32];

	if (run->json) {
		print_json(run);
		return;
	}
	printf("%s with %s: %llu objects, %s; image %s; collector stopped\n", run->interp->name,
		run->library, (unsigned long long)run->heap.live,
		format_size(run->heap.live_bytes, objects, sizeof(objects)),
		format_size(run->image_bytes, image, sizeof(image)));
	print_times(run);
	puts("\nRequests that misbehaved, and were rewound");
	print_counts(&run->counts);
	puts("\nRequests that opened files");
	print_count("requests", run->counts.openers);
	print_count("files opened", run->counts.opened);
	print_count("left open, closed by host", run->counts.left_open);
	print_count("descriptors before", run->descriptors_before);
	print_count("descriptors after", run->descriptors_after);
	print_pool(run);
}
