/* SPDX-License-Identifier: MIT */
/*
 * run_report.c - what a program's reservations came to: as JSON, and as a table with a verdict.
 *
 * Invariant: the text is printed from the JSON object, so both say the same. What was saved is an
 * estimate and says so: pages that were resident at hand-out, times what a page fault costs here.
 */
#define _GNU_SOURCE
#include "run.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static const char *const reasons[MEMSLOT_PRELOAD_REASONS] = {"partial_unmap", "mapped_over",
	"protection", "advice", "locked", "moved", "used_after_unmap", "tampered", "unopened",
	"failed", "surplus"};

static const struct {
	uint64_t bit;
	const char *text;
} offs[] = {
	{MEMSLOT_PRELOAD_OFF_KERNEL, "the kernel lacks MADV_DONTNEED"},
	{MEMSLOT_PRELOAD_OFF_LIMIT, "RLIMIT_AS is finite"},
	{MEMSLOT_PRELOAD_OFF_LOCKED, "the program called mlockall"},
	{MEMSLOT_PRELOAD_OFF_OVERCOMMIT, "vm.overcommit_memory is 2"},
	{MEMSLOT_PRELOAD_OFF_FORK, "a raw clone in the middle of a call"},
	{MEMSLOT_PRELOAD_OFF_MEMORY, "no memory for the preload's tables"},
	{MEMSLOT_PRELOAD_NOT_LAZY, "the engine cannot be trusted here: PROCMAP_QUERY is missing"},
};

/* What the first touch of a page costs here, and zeroing a resident one, in ns. */
static void measure(double *ret_fault, double *ret_restore)
{
	const size_t pages = 1024, size = pages * page_size();
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t start;

	*ret_fault = *ret_restore = 0;
	if (memory == MAP_FAILED)
		return;
	madvise(memory, size, MADV_NOHUGEPAGE);
	start = clock_ns();
	for (size_t i = 0; i < pages; i++)
		((volatile char *)memory)[i * page_size()] = 1;
	*ret_fault = (double)(clock_ns() - start) / (double)pages;
	start = clock_ns();
	memset(memory, 0, size / 16);
	__asm__ volatile("" : : "r"(memory) : "memory");
	*ret_restore = (double)(clock_ns() - start) * 16 / (double)pages;
	munmap(memory, size);
}

static json_t *describe_shapes(const struct memslot_preload_stats *stats)
{
	json_t *shapes = json_array();

	for (size_t i = 0; i < MEMSLOT_PRELOAD_SHAPES && stats->shapes[i].key; i++) {
		const struct memslot_preload_shape *shape = &stats->shapes[i];
		json_array_append_new(shapes,
			json_pack("{s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "bytes",
				(json_int_t)(shape->key & ~1ull), "noreserve",
				(int)(shape->key & 1), "requests", (json_int_t)shape->requests,
				"hits", (json_int_t)shape->hits, "freed", (json_int_t)shape->freed,
				"peak", (json_int_t)shape->peak, "opened",
				(json_int_t)shape->opened, "pages", (json_int_t)shape->pages,
				"life_ns", (json_int_t)shape->life_ns));
	}
	return shapes;
}

static json_t *describe_off(uint64_t bits)
{
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof offs / sizeof *offs; i++) {
		if (bits & offs[i].bit)
			json_array_append_new(list, json_string(offs[i].text));
	}
	return list;
}

json_t *describe_preload(const struct memslot_preload_stats *stats, bool trace)
{
	json_t *left = json_object(), *report;
	uint64_t pages = stats->pages_lent;
	double fault, restore;

	measure(&fault, &restore);
	for (size_t i = 0; i < MEMSLOT_PRELOAD_REASONS; i++)
		json_object_set_new(left, reasons[i], json_integer((json_int_t)stats->left[i]));
	for (size_t i = 0; trace && i < MEMSLOT_PRELOAD_SHAPES; i++)
		pages += stats->shapes[i].pages;
	report = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"trace", (int)trace, "processes", (json_int_t)stats->processes, "requests",
		(json_int_t)stats->requests, "hits", (json_int_t)stats->hits, "misses_empty",
		(json_int_t)stats->misses_empty, "misses_other", (json_int_t)stats->misses_other,
		"kept", (json_int_t)stats->kept, "bytes_restored",
		(json_int_t)stats->bytes_restored, "bytes_dropped",
		(json_int_t)stats->bytes_dropped, "faults_avoided", (json_int_t)stats->pages_lent,
		"calls_saved", (json_int_t)stats->calls_saved, "clean_ns",
		(json_int_t)stats->clean_ns, "peak_held_bytes", (json_int_t)stats->peak_bytes);
	json_object_set_new(report, "left", left);
	json_object_set_new(report, "off", describe_off(stats->off));
	json_object_set_new(report, "shapes", describe_shapes(stats));
	json_object_set_new(report, "fault_ns", json_real(fault));
	json_object_set_new(report, "restore_ns", json_real(restore));
	json_object_set_new(
		report, "saving_estimate_ns", json_real((double)pages * (fault - restore)));
	return report;
}

/* --- for people --- */

static int64_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static void print_shape(const json_t *shape)
{
	int64_t freed = number(shape, "freed");
	char size[32], opened[32];

	fprintf(stderr, "  %-12s %-9s %9" PRId64 " %9" PRId64 " %9" PRId64 " %6" PRId64 "  %s",
		format_size((uint64_t)number(shape, "bytes"), size, sizeof size),
		json_is_true(json_object_get(shape, "noreserve")) ? "noreserve" : "reserve",
		number(shape, "requests"), number(shape, "hits"), freed, number(shape, "peak"),
		format_size((uint64_t)number(shape, "opened"), opened, sizeof opened));
	if (freed)
		fprintf(stderr, ", lives %.3f ms",
			(double)number(shape, "life_ns") / (double)freed / 1e6);
	fputc('\n', stderr);
}

static void print_left(const json_t *left)
{
	const char *reason, *comma = "";
	json_t *count;

	fputs("left to the kernel:", stderr);
	json_object_foreach((json_t *)left, reason, count)
	{
		if (json_integer_value(count) == 0)
			continue;
		fprintf(stderr, "%s %s %" JSON_INTEGER_FORMAT, comma, reason,
			json_integer_value(count));
		comma = ",";
	}
	fputs(*comma ? "\n" : " none\n", stderr);
}

static void print_costs(const json_t *report)
{
	char restored[32], dropped[32], held[32];

	fprintf(stderr,
		"faults avoided: up to %" PRId64 "; system calls saved: %" PRId64 "\n"
		"zeroed %s, dropped %s in %.1f ms; held at most %s\n",
		number(report, "faults_avoided"), number(report, "calls_saved"),
		format_size((uint64_t)number(report, "bytes_restored"), restored, sizeof restored),
		format_size((uint64_t)number(report, "bytes_dropped"), dropped, sizeof dropped),
		(double)number(report, "clean_ns") / 1e6,
		format_size((uint64_t)number(report, "peak_held_bytes"), held, sizeof held));
}

static void print_verdict(const json_t *report)
{
	double saving = json_real_value(json_object_get(report, "saving_estimate_ns")) / 1e6;
	int64_t requests = number(report, "requests"), hits = number(report, "hits");
	const json_t *off = json_object_get(report, "off");

	fputs("verdict: ", stderr);
	if (json_array_size(off))
		fprintf(stderr, "%s\n", json_string_value(json_array_get(off, 0)));
	else if (number(report, "processes") == 0)
		fputs("the preload was not loaded: see 'memslot doctor'\n", stderr);
	else if (requests == 0)
		fputs("no reservation was asked for: nothing to gain here\n", stderr);
	else if (json_is_true(json_object_get(report, "trace")))
		fprintf(stderr, "slots would save about %.1f ms of page faults\n", saving);
	else if (hits == 0)
		fputs("no reservation was used twice: nothing gained\n", stderr);
	else
		fprintf(stderr,
			"%.0f %% of %" PRId64
			" reservations came from slots, about %.1f ms of page faults saved\n",
			100.0 * (double)hits / (double)requests, requests, saving);
}

void print_preload(const json_t *report)
{
	const json_t *shapes = json_object_get(report, "shapes"), *shape;
	size_t i;

	fprintf(stderr,
		"memslot: %" PRId64 " processes, %" PRId64 " reservations, %" PRId64
		" from slots\n",
		number(report, "processes"), number(report, "requests"), number(report, "hits"));
	if (json_array_size(shapes))
		fprintf(stderr, "  %-12s %-9s %9s %9s %9s %6s  %s\n", "size", "kind", "requests",
			"hits", "freed", "peak", "open");
	json_array_foreach(shapes, i, shape) print_shape(shape);
	print_left(json_object_get(report, "left"));
	if (!json_is_true(json_object_get(report, "trace")))
		print_costs(report);
	print_verdict(report);
}
