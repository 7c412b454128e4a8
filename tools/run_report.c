/* SPDX-License-Identifier: MIT */
/*
 * run_report.c - what a program's reservations came to: as JSON, and as a table with a verdict.
 *
 * Invariant: the text is printed from the JSON object, so both say the same. What was saved is an
 * estimate and says so: what mapping, faults and unmapping cost on this machine now, less what
 * cleaning took (of a trace: would take). It may be a loss.
 */
#define _GNU_SOURCE
#include "run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memslot.h>

static const char *const reasons[MEMSLOT_PRELOAD_REASONS] = {"partial_unmap", "mapped_over",
	"protection", "advice", "locked", "moved", "used_after_unmap", "tampered", "unopened",
	"failed", "surplus", "few_pages"};

static const struct {
	uint64_t bit;
	const char *name, *text;
} offs[] = {
	{MEMSLOT_PRELOAD_OFF_KERNEL, "kernel", "MADV_DONTNEED is missing or disabled"},
	{MEMSLOT_PRELOAD_OFF_LIMIT, "rlimit_as", "RLIMIT_AS is finite"},
	{MEMSLOT_PRELOAD_OFF_LOCKED, "mlockall", "the program called mlockall"},
	{MEMSLOT_PRELOAD_OFF_OVERCOMMIT, "overcommit", "vm.overcommit_memory is 2"},
	{MEMSLOT_PRELOAD_OFF_FORK, "raw_clone", "a raw clone in the middle of a call"},
	{MEMSLOT_PRELOAD_OFF_MEMORY, "memory", "no memory for the preload's tables"},
	{MEMSLOT_PRELOAD_NOT_LAZY, "not_lazy",
		"the engine was not trusted: PROCMAP_QUERY or PAGEMAP_SCAN is missing or disabled"},
};

/* --- what things cost here --- */

#define SAMPLES 9
#define TOUCHED 64 /* pages */
#define RESERVED (8ull << 30)
/* What the preload's calls cost a life, counted and timed, in the cheapest system calls. */
#define CALLS_STRICT 36
#define CALLS_LAZY 24

/* In ns. */
struct costs {
	double fault, restore, unmap; /* a page */
	double cycle;		      /* a reservation, opened and unmapped, without a page */
	double close;		      /* a run */
	double call;		      /* a system call that does next to nothing */
};

/* 0: there is no memory for it. */
static bool measure_once(struct costs *cost)
{
	const size_t size = TOUCHED * page_size();
	uint64_t time[7];
	char *memory;

	time[0] = clock_ns();
	memory =
		mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED || mprotect(memory, size, PROT_READ | PROT_WRITE))
		return false;
	madvise(memory, size, MADV_NOHUGEPAGE);
	time[1] = clock_ns();
	for (size_t i = 0; i < TOUCHED; i++)
		((volatile char *)memory)[i * page_size()] = 1;
	time[2] = clock_ns();
	memset(memory, 0, size);
	__asm__ volatile("" : : "r"(memory) : "memory");
	time[3] = clock_ns();
	for (int i = 0; i < 64; i++)
		getppid();
	time[4] = clock_ns();
	if (mprotect(memory, size, PROT_NONE))
		return false;
	time[5] = clock_ns();
	if (munmap(memory, RESERVED))
		return false;
	time[6] = clock_ns();
	*cost = (struct costs){.fault = (double)(time[2] - time[1]) / TOUCHED,
		.restore = (double)(time[3] - time[2]) / TOUCHED,
		.unmap = (double)(time[6] - time[5]) / TOUCHED,
		.cycle = (double)(time[1] - time[0]),
		.close = (double)(time[5] - time[4]),
		.call = (double)(time[4] - time[3]) / 64};
	return true;
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

/* Medians; the first sample warms up. */
static struct costs measure(void)
{
	enum { FIELDS = sizeof(struct costs) / sizeof(double) };
	double samples[SAMPLES + 1][FIELDS] = {0}, one[SAMPLES], median[FIELDS];
	struct costs costs;

	for (int i = 0; i <= SAMPLES; i++) {
		if (measure_once(&costs))
			memcpy(samples[i], &costs, sizeof costs);
	}
	for (int field = 0; field < FIELDS; field++) {
		for (int i = 0; i < SAMPLES; i++)
			one[i] = samples[i + 1][field];
		qsort(one, SAMPLES, sizeof *one, compare);
		median[field] = one[SAMPLES / 2];
	}
	memcpy(&costs, median, sizeof costs);
	return costs;
}

static double saved(const struct memslot_preload_stats *stats, const struct costs *cost)
{
	return (double)stats->pages_lent * (cost->fault + cost->unmap) +
	       (double)stats->hits * cost->cycle - (double)stats->clean_ns;
}

/* Of what was traced: in strict mode, or lazy. */
static double would_save(
	const struct memslot_preload_stats *stats, const struct costs *cost, bool lazy)
{
	double calls = lazy ? CALLS_LAZY : CALLS_STRICT, sum = 0;

	for (size_t i = 0; i < MEMSLOT_PRELOAD_SHAPES; i++) {
		const struct memslot_preload_shape *shape = &stats->shapes[i];
		sum += (double)shape->pages * (cost->fault + cost->unmap - cost->restore) +
		       (double)shape->freed *
			       (cost->cycle - calls * cost->call - (lazy ? 0 : cost->close));
	}
	return sum;
}

/* --- JSON --- */

const char *preload_off(uint64_t bit)
{
	for (size_t i = 0; i < sizeof offs / sizeof *offs; i++) {
		if (bit & offs[i].bit)
			return offs[i].text;
	}
	return "";
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
			json_array_append_new(list, json_string(offs[i].name));
	}
	return list;
}

static void describe_saving(
	json_t *report, const struct memslot_preload_stats *stats, const char *mode)
{
	struct costs cost = measure();

	json_object_set_new(report, "costs",
		json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "fault_ns", cost.fault, "restore_ns",
			cost.restore, "unmap_ns", cost.unmap, "cycle_ns", cost.cycle, "close_ns",
			cost.close, "call_ns", cost.call));
	if (strcmp(mode, "observe") == 0) {
		json_object_set_new(
			report, "would_save_strict_ns", json_real(would_save(stats, &cost, false)));
		json_object_set_new(
			report, "would_save_lazy_ns", json_real(would_save(stats, &cost, true)));
	} else {
		json_object_set_new(report, "saved_ns", json_real(saved(stats, &cost)));
	}
}

json_t *describe_preload(
	const struct memslot_preload_stats *stats, const char *mode, int exit_status)
{
	json_t *left = json_object(), *report;

	for (size_t i = 0; i < MEMSLOT_PRELOAD_REASONS; i++)
		json_object_set_new(left, reasons[i], json_integer((json_int_t)stats->left[i]));
	report = json_pack("{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
			   "s:I}",
		"version", memslot_version(), "mode", mode, "exit_status", exit_status, "processes",
		(json_int_t)stats->processes, "requests", (json_int_t)stats->requests, "hits",
		(json_int_t)stats->hits, "misses_empty", (json_int_t)stats->misses_empty,
		"misses_other", (json_int_t)stats->misses_other, "kept", (json_int_t)stats->kept,
		"bytes_restored", (json_int_t)stats->bytes_restored, "bytes_dropped",
		(json_int_t)stats->bytes_dropped, "pages_lent", (json_int_t)stats->pages_lent,
		"calls_saved", (json_int_t)stats->calls_saved, "clean_ns",
		(json_int_t)stats->clean_ns, "peak_bytes", (json_int_t)stats->peak_bytes);
	json_object_set_new(report, "left", left);
	json_object_set_new(report, "off", describe_off(stats->off));
	json_object_set_new(report, "shapes", describe_shapes(stats));
	describe_saving(report, stats, mode);
	return report;
}

/* --- for people --- */

static int64_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static double real(const json_t *object, const char *name)
{
	return json_real_value(json_object_get(object, name));
}

static void print_shape(const json_t *shape)
{
	int64_t freed = number(shape, "freed");
	char size[32], opened[32];

	fprintf(stderr, "  %-9s %-9s %9" PRId64 " %9" PRId64 " %9" PRId64 " %6" PRId64 " %9s",
		format_size((uint64_t)number(shape, "bytes"), size, sizeof size),
		json_is_true(json_object_get(shape, "noreserve")) ? "noreserve" : "reserve",
		number(shape, "requests"), number(shape, "hits"), freed, number(shape, "peak"),
		format_size((uint64_t)number(shape, "opened"), opened, sizeof opened));
	if (freed)
		fprintf(stderr, " %8.1f %9.3f ms", (double)number(shape, "pages") / (double)freed,
			(double)number(shape, "life_ns") / (double)freed / 1e6);
	fputc('\n', stderr);
}

static void print_left(const json_t *left)
{
	const char *reason, *comma = "";
	json_t *count;

	fputs("given back to the kernel:", stderr);
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
	char restored[32], held[32];

	fprintf(stderr,
		"faults avoided: up to %" PRId64 "; cleaning took %.1f ms, of it zeroing %s; "
		"held at most %s\n",
		number(report, "pages_lent"), (double)number(report, "clean_ns") / 1e6,
		format_size((uint64_t)number(report, "bytes_restored"), restored, sizeof restored),
		format_size((uint64_t)number(report, "peak_bytes"), held, sizeof held));
}

/* Of reservations that were handed out. */
static void judge(const json_t *report)
{
	int64_t requests = number(report, "requests"), hits = number(report, "hits");
	double ms = real(report, "saved_ns") / 1e6;

	fprintf(stderr, "%.0f %% of %" PRId64 " reservations came from slots: ",
		100.0 * (double)hits / (double)requests, requests);
	if (ms <= 0)
		fprintf(stderr, "nothing gained, about %.1f ms lost", -ms);
	else
		fprintf(stderr, "about %.1f ms saved, %.1f us each", ms, ms * 1e3 / (double)hits);
	if (2 * number(json_object_get(report, "left"), "few_pages") > requests)
		fputs("; most were left alone, for they write too few pages", stderr);
	else if (number(report, "pages_lent") == 0)
		fputs("; no page stayed resident: see --keep and --budget", stderr);
	fputc('\n', stderr);
}

static void print_verdict(const json_t *report)
{
	const json_t *off = json_object_get(report, "off");

	fputs("verdict: ", stderr);
	if (number(report, "processes") == 0)
		fputs("the preload was not loaded: see 'memslot doctor'\n", stderr);
	else if (number(report, "requests") == 0)
		fputs(json_array_size(off) ? "nothing was done\n"
					   : "no reservation was asked for: nothing to gain here\n",
			stderr);
	else if (strcmp(json_string_value(json_object_get(report, "mode")), "observe") == 0)
		fprintf(stderr,
			"slots would save about %.1f ms, or %.1f ms with --trust-engine "
			"(less than 0: lose)\n",
			real(report, "would_save_strict_ns") / 1e6,
			real(report, "would_save_lazy_ns") / 1e6);
	else if (number(report, "hits") == 0)
		fprintf(stderr, "no reservation was used twice: nothing gained, %.1f ms lost\n",
			(double)number(report, "clean_ns") / 1e6);
	else
		judge(report);
}

static void print_off(const json_t *off)
{
	const json_t *name;
	size_t i;

	json_array_foreach(off, i, name)
	{
		for (size_t j = 0; j < sizeof offs / sizeof *offs; j++) {
			if (strcmp(offs[j].name, json_string_value(name)) == 0)
				fprintf(stderr, "%s: %s\n",
					offs[j].bit == MEMSLOT_PRELOAD_NOT_LAZY ? "strict mode"
										: "stood aside",
					offs[j].text);
		}
	}
}

void print_preload(const json_t *report)
{
	const json_t *shapes = json_object_get(report, "shapes"), *shape;
	int64_t processes = number(report, "processes");
	size_t i;

	fprintf(stderr,
		"memslot: %" PRId64 " %s, %" PRId64 " reservations, %" PRId64 " from slots\n",
		processes, processes == 1 ? "process" : "processes", number(report, "requests"),
		number(report, "hits"));
	if (json_array_size(shapes))
		fprintf(stderr, "  %-9s %-9s %9s %9s %9s %6s %9s %8s %12s\n", "size", "kind",
			"requests", "hits", "freed", "peak", "opened", "pages", "life");
	json_array_foreach(shapes, i, shape) print_shape(shape);
	print_left(json_object_get(report, "left"));
	if (strcmp(json_string_value(json_object_get(report, "mode")), "observe") != 0)
		print_costs(report);
	print_off(json_object_get(report, "off"));
	print_verdict(report);
}
