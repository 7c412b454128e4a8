/* SPDX-License-Identifier: MIT */
/*
 * churn_options.c - the command line of memslot churn.
 *
 * Invariant: what comes out can be run: sizes are whole pages that fit one another, and every name
 * in a list exists.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_CAPACITY ((uint64_t)4096 * MIB) /* touches are 32-bit offsets */

enum {
	OPT_IMAGE_SIZE = 256,
	OPT_CAPACITY,
	OPT_SIZE,
	OPT_AT,
	OPT_CONFINED,
	OPT_NO_CONFINED,
	OPT_THREADS,
	OPT_ROUNDS,
	OPT_CYCLES,
	OPT_SECONDS,
	OPT_LIST,
	OPT_PROGRESS
};

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "What is measured:", 1},
	{"workload", 'w', "LIST", 0, "Workloads, separated by commas, or all", 1},
	{"method", 'm', "LIST", 0, "Reset methods of memslot, or all (the default)", 1},
	{"reference", 'r', "LIST", 0, "References to measure beside, or all", 1},
	{"threads", OPT_THREADS, "N", 0,
		"Also 1 to N threads with a slot each (default 2, or the processors; 1: none)", 1},
	{"list", OPT_LIST, NULL, 0, "List workloads, methods and references", 1},
	{NULL, 0, NULL, 0, "The slot:", 2},
	{"image-size", OPT_IMAGE_SIZE, "BYTES", 0,
		"Repeat or cut the image file's contents to this size (default 4M)", 2},
	{"size", OPT_SIZE, "BYTES", 0, "Accessible part (default 8M)", 2},
	{"capacity", OPT_CAPACITY, "BYTES", 0, "Largest size of the slot (default 64M)", 2},
	{"at", OPT_AT, "BYTES", 0, "Where the pages that are written begin (default 512K)", 2},
	{"confined", OPT_CONFINED, NULL, 0, "One thread uses the slot (the default)", 2},
	{"no-confined", OPT_NO_CONFINED, NULL, 0, "Promise nothing", 2},
	{NULL, 0, NULL, 0, "How long:", 3},
	{"rounds", OPT_ROUNDS, "N", 0, "Rounds that count (default 7)", 3},
	{"cycles", OPT_CYCLES, "N", 0, "Cycles of a phase (default 1000)", 3},
	{"seconds", OPT_SECONDS, "N", 0, "Aim at so many seconds in all (default 25)", 3},
	{"quick", 'q', NULL, 0, "A fifth of the time, for a first look", 3},
	{NULL, 0, NULL, 0, "Output:", 4},
	{"json", 'j', NULL, 0, "Print a JSON object", 4},
	{"progress", OPT_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 4},
	{0},
};

static const char text[] =
	"Measures the life of an instance, over and over: make its memory ready, write, put "
	"everything back. The library's reset methods run beside other ways to do it, by "
	"turns, in one process.\v"
	"IMAGE is a file whose contents the slots start from (default: the C library's own "
	"file). Every variant's contents are compared with it; a wrong byte ends the command "
	"with status 3.\n"
	"BYTES may end in K, M or G.";

static void take_size(struct argp_state *state, const char *argument, size_t *ret_size)
{
	uint64_t size;

	if (parse_size(argument, &size) || size > MOST_CAPACITY)
		argp_error(state, "'%s' is no size up to 4G", argument);
	*ret_size = (size_t)(size + page_size() - 1) / page_size() * page_size();
}

static uint64_t take_number(
	struct argp_state *state, const char *argument, uint64_t low, uint64_t high)
{
	uint64_t number = 0;

	if (parse_number(argument, low, high, &number))
		argp_error(state, "'%s' is no number from %llu to %llu", argument,
			(unsigned long long)low, (unsigned long long)high);
	return number;
}

static void list_names(void)
{
	puts("Workloads");
	for (size_t i = 0; i < workload_count(); i++)
		printf("  %-14s %s%s\n", workload_name(i), workload_title(i),
			workload_chosen(NULL, i) ? "" : "  (by option)");
	puts("Methods");
	for (size_t i = 0; i < variant_count; i++) {
		if (i && variants[i].reference && !variants[i - 1].reference)
			puts("References");
		printf("  %-14s %s%s\n", variants[i].name, variants[i].title,
			variants[i].by_default ? "" : "  (by option)");
	}
}

static bool is_name(const char *name, char kind)
{
	if (strcmp(name, "all") == 0)
		return true;
	if (kind == 'w') {
		for (size_t i = 0; i < workload_count(); i++) {
			if (strcmp(workload_name(i), name) == 0)
				return true;
		}
		return false;
	}
	for (size_t i = 0; i < variant_count; i++) {
		if (variants[i].reference == (kind == 'r') && strcmp(variants[i].name, name) == 0)
			return true;
	}
	return kind == 'r' && strcmp(name, "none") == 0;
}

/* A list of names that all exist. */
static const char *take_list(struct argp_state *state, const char *argument, char kind)
{
	char *copy = strdup(argument), *rest = copy, *name;

	while (copy && (name = strsep(&rest, ","))) {
		if (!is_name(name, kind))
			argp_error(state, "no %s '%s' (--list tells the names)",
				kind == 'w'   ? "workload"
				: kind == 'm' ? "method"
					      : "reference",
				name);
	}
	free(copy);
	return argument;
}

static void make_quick(struct settings *settings)
{
	settings->rounds = 3;
	settings->cycles = 300;
	settings->seconds /= 5;
}

static error_t parse_more(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case OPT_THREADS:
		settings->threads = (unsigned)take_number(state, argument, 1, MAX_THREADS);
		return 0;
	case OPT_ROUNDS:
		settings->rounds = (unsigned)take_number(state, argument, 1, MAX_ROUNDS);
		return 0;
	case OPT_CYCLES:
		settings->cycles = take_number(state, argument, 1, 1000000);
		return 0;
	case OPT_SECONDS:
		settings->seconds = (double)take_number(state, argument, 1, 86400);
		return 0;
	case OPT_PROGRESS:
		settings->progress = true;
		return 0;
	case OPT_LIST:
		list_names();
		exit(EXIT_DONE);
	case ARGP_KEY_ARG:
		if (settings->image_path)
			argp_error(state, "'%s' is one argument too many", argument);
		settings->image_path = argument;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t parse_slot(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case OPT_IMAGE_SIZE:
		take_size(state, argument, &settings->image_size);
		return 0;
	case OPT_SIZE:
		take_size(state, argument, &settings->size);
		return 0;
	case OPT_CAPACITY:
		take_size(state, argument, &settings->capacity);
		return 0;
	case OPT_AT:
		take_size(state, argument, &settings->at);
		return 0;
	case OPT_CONFINED:
	case OPT_NO_CONFINED:
		settings->confined = key == OPT_CONFINED;
		return 0;
	default:
		return parse_more(key, argument, state);
	}
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case 'w':
		settings->workloads = take_list(state, argument, 'w');
		return 0;
	case 'm':
		settings->methods = take_list(state, argument, 'm');
		return 0;
	case 'r':
		settings->references = take_list(state, argument, 'r');
		return 0;
	case 'q':
		make_quick(settings);
		return 0;
	case 'j':
		settings->json = true;
		return 0;
	default:
		return parse_slot(key, argument, state);
	}
}

static int check(struct settings *settings)
{
	size_t least = settings->image_size > 8 * MIB ? settings->image_size : 8 * MIB;

	if (settings->size == 0)
		settings->size = least < settings->capacity ? least : settings->capacity;
	if (settings->image_size == 0 || settings->image_size > settings->size ||
		settings->size > settings->capacity) {
		complain(0, "sizes must be: 0 < image size <= size <= capacity");
		return EXIT_USAGE;
	}
	return 0;
}

int churn_options(int argc, char **argv, struct settings *ret_settings)
{
	static const struct argp argp = {options, parse, "[IMAGE]", text, NULL, NULL, NULL};
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	*ret_settings = (struct settings){.image_size = 4 * MIB,
		.capacity = 64 * MIB,
		.at = 512 * KIB,
		.confined = true,
		.colour = isatty(STDOUT_FILENO),
		.progress = isatty(STDERR_FILENO),
		.rounds = 7,
		.threads = processors > 1 ? 2 : 1,
		.cycles = 1000,
		.seconds = 25,
		.image_fd = -1,
		.pagemap_fd = -1};
	if (argp_parse(&argp, argc, argv, 0, NULL, ret_settings))
		return EXIT_USAGE;
	return check(ret_settings);
}
