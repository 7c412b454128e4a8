/* SPDX-License-Identifier: MIT */
/* lua_report.c - what memslot lua found, as text and as JSON. */
#define _GNU_SOURCE
#include "lua_host.h"

#include <stdio.h>

static double ratio(const struct lua_run *run, enum lua_what what, enum lua_what other)
{
	return run->median_ns[other] > 0 ? run->median_ns[what] / run->median_ns[other] : 0;
}

/* --- JSON --- */

static json_t *describe_times(const struct lua_run *run)
{
	static const char *const names[LUA_WHATS] = {"boot_and_request", "fork_and_request",
		"request_and_rewind", "reset", "boot_in_heap", "boot_with_malloc"};
	json_t *object = json_object();

	for (size_t i = 0; i < LUA_WHATS; i++)
		json_object_set_new(object, names[i],
			json_pack("{s:f, s:I}", "median_ns", run->median_ns[i], "samples",
				(json_int_t)run->samples[i]));
	return object;
}

static json_t *describe_booted(const struct lua_run *run)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "modules", (json_int_t)run->modules,
		"objects", (json_int_t)run->heap.live, "object_bytes",
		(json_int_t)run->heap.live_bytes, "image_bytes", (json_int_t)run->image_bytes,
		"committed_bytes", (json_int_t)run->heap.committed_bytes);
}

static json_t *describe_rogues(const struct lua_run *run)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "deadline",
		(json_int_t)run->rogues[LUA_DEADLINE], "out_of_memory",
		(json_int_t)run->rogues[LUA_NO_MEMORY], "raised",
		(json_int_t)run->rogues[LUA_RAISED], "answered",
		(json_int_t)run->rogues[LUA_ANSWERED], "right_after", (json_int_t)run->right_after);
}

static json_t *describe_resets(const struct lua_run *run)
{
	return json_pack("{s:f, s:I, s:I, s:I}", "pages_restored", run->pages_restored, "known",
		(json_int_t)run->slot.resets_known, "scan", (json_int_t)run->slot.resets_scan,
		"drop", (json_int_t)run->slot.resets_drop);
}

static void print_json(const struct lua_run *run)
{
	json_t *object = json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:{s:f, s:f, s:f}}", "version",
		memslot_version(), "requests", (json_int_t)run->requests, "booted",
		describe_booted(run), "times", describe_times(run), "resets", describe_resets(run),
		"rogues", describe_rogues(run), "ratios", "rewind_to_fork",
		ratio(run, LUA_REWIND, LUA_FORK), "rewind_to_boot",
		ratio(run, LUA_REWIND, LUA_BOOT), "heap_to_malloc",
		ratio(run, LUA_BOOT_HEAP, LUA_BOOT_MALLOC));

	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

/* --- text --- */

static void print_time(const struct lua_run *run, const char *name, enum lua_what what)
{
	printf("  %-26s %10.1f us  median of %llu\n", name, run->median_ns[what] / 1000,
		(unsigned long long)run->samples[what]);
}

static void print_times(const struct lua_run *run)
{
	puts("\nOne request");
	print_time(run, "boot + request", LUA_BOOT);
	print_time(run, "fork + request", LUA_FORK);
	print_time(run, "request + rewind", LUA_REWIND);
	print_time(run, "  the rewind alone", LUA_RESET);
	printf("  %-26s %10.4f\n", "rewind / fork", ratio(run, LUA_REWIND, LUA_FORK));
	printf("  %-26s %10.4f\n", "rewind / boot", ratio(run, LUA_REWIND, LUA_BOOT));
	printf("  %-26s %10.1f\n", "pages restored", run->pages_restored);
	puts("\nBoot");
	print_time(run, "in a heap", LUA_BOOT_HEAP);
	print_time(run, "with the system malloc", LUA_BOOT_MALLOC);
	printf("  %-26s %10.4f\n", "heap / malloc", ratio(run, LUA_BOOT_HEAP, LUA_BOOT_MALLOC));
}

static void print_rogues(const struct lua_run *run)
{
	puts("\nRequests that misbehaved, and were rewound");
	printf("  %-26s %10llu\n", "took too long", (unsigned long long)run->rogues[LUA_DEADLINE]);
	printf("  %-26s %10llu\n", "out of memory", (unsigned long long)run->rogues[LUA_NO_MEMORY]);
	printf("  %-26s %10llu\n", "raised errors", (unsigned long long)run->rogues[LUA_RAISED]);
	printf("  %-26s %10llu\n", "broke what they found",
		(unsigned long long)run->rogues[LUA_ANSWERED]);
	printf("  %-26s %10llu\n", "next one was right", (unsigned long long)run->right_after);
}

void lua_report(const struct lua_run *run)
{
	char objects[32], image[32];

	if (run->json) {
		print_json(run);
		return;
	}
	printf("Lua with %u modules: %llu objects, %s; image %s; collector stopped\n", run->modules,
		(unsigned long long)run->heap.live,
		format_size(run->heap.live_bytes, objects, sizeof(objects)),
		format_size(run->image_bytes, image, sizeof(image)));
	print_times(run);
	print_rogues(run);
}
