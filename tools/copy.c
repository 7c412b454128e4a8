/* SPDX-License-Identifier: MIT */
/*
 * copy.c - memslot copy: copies a file by O_DIRECT and fixed buffers, and measures what that costs.
 *
 * Invariant: a file that did not become a whole copy has no name; with --check it has one only
 * after both files were read again and their sums agree.
 */
#define _GNU_SOURCE
#include "copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_MOST 1000

enum { OPT_PLAIN = 256, OPT_CHECK, OPT_COMPARE, OPT_CACHED };

static const struct argp_option options[] = {
	{"buffer-size", 'b', "BYTES", 0, "Of a buffer, and of an operation (default 64K)", 0},
	{"depth", 'd', "N", 0, "Operations at once (default 32)", 0},
	{"check", OPT_CHECK, NULL, 0, "Read both files again and compare sums", 0},
	{"plain", OPT_PLAIN, NULL, 0, "Buffers from malloc, not registered", 0},
	{"cached", OPT_CACHED, NULL, 0, "Through the page cache", 0},
	{"compare", OPT_COMPARE, "ROUNDS", OPTION_ARG_OPTIONAL,
		"Copy both ways by turns, so often (default 5), and compare", 0},
	{"progress", 'p', NULL, 0, "Show how far it is", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{0},
};

static const char text[] =
	"Copy a file: its data, not its holes, past the page cache where the file systems allow "
	"it, "
	"by io_uring from buffers that are registered. TO gets its name when it is whole.\v"
	"The exit status is 3 when the sums of --check differ, 1 when the copy failed: then TO is "
	"as "
	"it was.";

volatile sig_atomic_t copy_stopped;

/* What a copy took: the passes, and how they were done. */
struct result {
	struct pass pass, check[2];
	bool plain, ring, direct_from, direct_to;
	uint64_t plain_fallbacks;
	double sync_seconds;
};

/* --- the command line --- */

static uint64_t take(struct argp_state *state, const char *name, const char *argument, uint64_t low,
	uint64_t high)
{
	uint64_t size = 0;

	if (parse_size(argument, &size) || size < low || size > high)
		refuse(state, "--%s: '%s' is not from %llu to %llu", name, argument,
			(unsigned long long)low, (unsigned long long)high);
	return size;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct copy *copy = state->input;

	if (key == 'b')
		copy->buffer_size = take(state, "buffer-size", argument, 4 * KIB, 16 * MIB);
	else if (key == 'd')
		copy->depth = take(state, "depth", argument, 1, DEPTH_MOST);
	else if (key == OPT_COMPARE)
		copy->rounds = argument ? take(state, "compare", argument, 1, ROUNDS_MOST) : 5;
	else if (key == OPT_CHECK)
		copy->check = true;
	else if (key == OPT_CACHED)
		copy->cached = true;
	else if (key == OPT_PLAIN)
		copy->plain = true;
	else if (key == 'p')
		copy->progress = true;
	else if (key == 'j')
		copy->json = true;
	else if (key == ARGP_KEY_ARG && !copy->from.path)
		copy->from.path = argument;
	else if (key == ARGP_KEY_ARG && !copy->to.path)
		copy->to.path = argument;
	else if (key == ARGP_KEY_END && !copy->to.path)
		refuse(state, "FROM and TO are missing");
	else if (key == ARGP_KEY_END && (copy->buffer_size & (copy->buffer_size - 1)))
		refuse(state, "--buffer-size: no power of two");
	else if (key == ARGP_KEY_END && copy->rounds && copy->plain)
		refuse(state, "--compare copies both ways: not with --plain");
	else if (key != ARGP_KEY_END)
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* --- copying --- */

struct work {
	struct copy *copy;
	struct result *result;
};

static bool how_far(void *context, uint64_t *ret_read, uint64_t *ret_written)
{
	struct work *work = context;

	*ret_read = atomic_load(&work->copy->bytes_read);
	*ret_written = atomic_load(&work->copy->bytes_written);
	return true;
}

static int sum_both(struct copy *copy, struct result *result)
{
	size_t parts = (size_t)((copy->size + copy->buffer_size - 1) / copy->buffer_size);
	int error = 0;

	for (int i = 0; i < 2 && !error; i++) {
		struct pass *check = &result->check[i];
		*check = (struct pass){.from = i ? &copy->to : &copy->from};
		check->sums = calloc(parts + 1, sizeof(*check->sums));
		error = check->sums ? copy_move(copy, check) : -ENOMEM;
	}
	if (!error &&
		memcmp(result->check[0].sums, result->check[1].sums, parts * sizeof(uint64_t)) != 0)
		error = EXIT_WRONG_BYTE;
	free(result->check[0].sums);
	free(result->check[1].sums);
	return error;
}

/* 0, an exit status or -errno. */
static int move_all(void *context)
{
	struct work *work = context;
	struct copy *copy = work->copy;
	struct result *result = work->result;
	int error;

	result->pass = (struct pass){.writes = true, .from = &copy->from};
	error = copy_move(copy, &result->pass);
	if (!error && ftruncate(copy->to.cached, (off_t)copy->size))
		error = -errno;
	if (!error && copy->check)
		error = sum_both(copy, result);
	return error;
}

static int copy_once(struct copy *copy, struct result *result)
{
	struct work work = {copy, result};
	int status = files_open(copy), error;

	*result = (struct result){.plain = copy->plain};
	if (!status)
		status = files_reserve(copy);
	if (!status) {
		copy->bytes_read = copy->bytes_written = 0;
		error = run_with_counts(copy->progress, copy->from.path,
			(copy->check ? 4 : 2) * copy->size, move_all, how_far, &work);
		status = error < 0 ? files_explain(copy, error) : error;
		if (status == EXIT_WRONG_BYTE)
			complain(0, "%s: the copy differs", copy->from.path);
	}
	result->ring = copy->ring;
	result->direct_from = copy->from.direct >= 0;
	result->direct_to = copy->to.direct >= 0;
	result->plain_fallbacks = copy->plain_fallbacks;
	if (!status)
		status = files_keep(copy);
	result->sync_seconds = copy->sync_seconds;
	files_close(copy);
	return status;
}

/* --- report --- */

static double us_per_operation(const struct result *result)
{
	uint64_t count = result->pass.reads + result->pass.writes_done;

	return count ? result->pass.cpu_seconds * 1e6 / (double)count : 0;
}

static double mib_per_second(const struct copy *copy, const struct result *result)
{
	return result->pass.seconds > 0 ? (double)copy->size / (double)MIB / result->pass.seconds
					: 0;
}

static json_t *describe(const struct copy *copy, const struct result *result)
{
	const struct pass *pass = &result->pass;

	return json_pack(
		"{s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:b}",
		"engine", result->ring ? "io_uring" : "calls", "plain", result->plain,
		"direct_from", result->direct_from, "direct_to", result->direct_to, "reads",
		(json_int_t)pass->reads, "writes", (json_int_t)pass->writes_done, "short",
		(json_int_t)pass->short_ones, "not_direct", (json_int_t)pass->cached_ones,
		"plain_fallbacks", (json_int_t)result->plain_fallbacks, "seconds", pass->seconds,
		"cpu_seconds", pass->cpu_seconds, "sync_seconds", result->sync_seconds,
		"mib_per_second", mib_per_second(copy, result), "cpu_us_per_operation",
		us_per_operation(result), "checked", copy->check);
}

static void print_result(const struct copy *copy, const struct result *result)
{
	printf("%-9s %-8s %-6s -> %-6s  %8.0f MiB/s  %7.2f us of a processor each of %llu "
	       "operations  %.2f s, and %.2f s until it was stored%s\n",
		result->plain		  ? "plain"
		: result->plain_fallbacks ? "not fixed"
					  : "fixed",
		result->ring ? "io_uring" : "calls", result->direct_from ? "direct" : "cached",
		result->direct_to ? "direct" : "cached", mib_per_second(copy, result),
		us_per_operation(result),
		(unsigned long long)(result->pass.reads + result->pass.writes_done),
		result->pass.seconds, result->sync_seconds, copy->check ? "; sums agree" : "");
}

static int by_cost(const void *left, const void *right)
{
	double a = us_per_operation(left), b = us_per_operation(right);

	return (a > b) - (a < b);
}

static void print_json(const struct copy *copy, const struct result *results, size_t count)
{
	json_t *copies = json_array(), *object;

	for (size_t i = 0; i < count; i++)
		json_array_append_new(copies, describe(copy, &results[i]));
	object = json_pack("{s:s, s:I, s:I, s:I, s:o}", "version", memslot_version(), "size",
		(json_int_t)copy->size, "buffer_size", (json_int_t)copy->buffer_size, "depth",
		(json_int_t)copy->depth, "copies", copies);
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

/* fixed and plain ones, sorted: the medians. */
static void print_all(const struct copy *copy, struct result *fixed, struct result *plain)
{
	size_t rounds = copy->rounds;

	qsort(fixed, rounds, sizeof(*fixed), by_cost);
	qsort(plain, rounds, sizeof(*plain), by_cost);
	print_result(copy, &fixed[rounds / 2]);
	print_result(copy, &plain[rounds / 2]);
	printf("processor time of an operation, medians of %zu: fixed / plain %.2f\n", rounds,
		us_per_operation(&fixed[rounds / 2]) / us_per_operation(&plain[rounds / 2]));
}

static int run(struct copy *copy)
{
	size_t rounds = copy->rounds ? copy->rounds : 1, ways = copy->rounds ? 2 : 1;
	struct result *results = calloc(rounds * ways, sizeof(*results));
	int status = results ? 0 : EXIT_FAILED;

	for (size_t i = 0; i < rounds * ways && !status; i++) {
		size_t way = i % ways;
		copy->plain = ways == 2 ? way : copy->plain;
		status = copy_once(copy, &results[way * rounds + i / ways]);
	}
	if (!status && copy->json)
		print_json(copy, results, rounds * ways);
	else if (!status && ways == 1)
		print_result(copy, results);
	else if (!status)
		print_all(copy, results, results + rounds);
	free(results);
	return status;
}

static void stop(int number)
{
	(void)number;
	copy_stopped = 1;
}

int command_copy(int argc, char **argv)
{
	static const struct argp argp = {options, parse, "FROM TO", text, NULL, NULL, NULL};
	static struct copy copy = {.buffer_size = 64 * KIB, .depth = 32};
	struct sigaction action = {.sa_handler = stop};

	if (argp_parse(&argp, argc, argv, 0, NULL, &copy))
		return EXIT_USAGE;
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)signal(SIGXFSZ, SIG_IGN); /* the write says so, too */
	return run(&copy);
}
