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
	OPT_PROGRESS,
	OPT_POOL,
	OPT_SLOTS
};

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "What is measured:", 1},
	{"workload", 'w', "LIST", 0, "Workloads, separated by commas, or all", 1},
	{"method", 'm', "LIST", 0,
		"Reset methods of memslot, separated by commas, or all (the default)", 1},
	{"reference", 'r', "LIST", 0,
		"References to measure beside, separated by commas, all, or none", 1},
	{"threads", OPT_THREADS, "N", 0,
		"Also 1 to N threads with a slot each, or sharing the pool (default 2, or the "
		"processors; 1: none)",
		1},
	{"pool", OPT_POOL, NULL, 0, "Through a pool: acquire, write, release; and what pools do",
		1},
	{"slots", OPT_SLOTS, "N", 0, "Slots of the pool (default 64)", 1},
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
	{"seconds", OPT_SECONDS, "N", 0,
		"A target for the time in all (default 25, 30 with --pool); workloads with phases "
		"need more",
		3},
	{"quick", 'q', NULL, 0,
		"A first look: 3 rounds, 300 cycles and a target of 5 seconds, where not given; "
		"workloads with phases need more",
		3},
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
	"BYTES and N are decimal or hexadecimal (0x). BYTES may end in K, M, G or T, and are "
	"rounded up to whole pages; at most 4G.";

static void take_size(struct argp_state *state, const char *name, const char *argument,
	uint64_t least, size_t *ret_size)
{
	uint64_t size;

	if (parse_size(argument, &size) || size > MOST_CAPACITY)
		refuse(state, "--%s: '%s' is no size up to 4G", name, argument);
	if (size < least)
		refuse(state, "--%s: '%s' is less than a page", name, argument);
	*ret_size = (size_t)(size + page_size() - 1) / page_size() * page_size();
}

static uint64_t take_number(
	struct argp_state *state, const char *name, const char *argument, uint64_t high)
{
	uint64_t number = 0;

	if (parse_number(argument, 1, high, &number))
		refuse(state, "--%s: '%s' is no number from 1 to %llu", name, argument,
			(unsigned long long)high);
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
		if (variants[i].pool != (i && variants[i - 1].pool))
			puts(variants[i].pool ? "Methods, with --pool" : "References");
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
			refuse(state, "no %s '%s' (--list tells the names)",
				kind == 'w'   ? "workload"
				: kind == 'm' ? "method"
					      : "reference",
				name);
	}
	free(copy);
	if (list_has(argument, "none") && strcmp(argument, "none") != 0)
		refuse(state, "--reference: 'none' stands alone");
	return argument;
}

static error_t parse_more(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case OPT_THREADS:
		settings->threads = (unsigned)take_number(state, "threads", argument, MAX_THREADS);
		return 0;
	case OPT_ROUNDS:
		settings->rounds = (unsigned)take_number(state, "rounds", argument, MAX_ROUNDS);
		return 0;
	case OPT_CYCLES:
		settings->cycles = take_number(state, "cycles", argument, 1000000);
		return 0;
	case OPT_SECONDS:
		settings->seconds = (double)take_number(state, "seconds", argument, 86400);
		return 0;
	case OPT_PROGRESS:
		settings->progress = true;
		return 0;
	case OPT_LIST:
		list_names();
		exit(EXIT_DONE);
	case ARGP_KEY_ARG:
		if (settings->image_path)
			refuse(state, "'%s' is one argument too many", argument);
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
		take_size(state, "image-size", argument, 1, &settings->image_size);
		return 0;
	case OPT_SIZE:
		take_size(state, "size", argument, 1, &settings->size);
		return 0;
	case OPT_CAPACITY:
		take_size(state, "capacity", argument, 1, &settings->capacity);
		return 0;
	case OPT_AT:
		take_size(state, "at", argument, 0, &settings->at);
		return 0;
	case OPT_CONFINED:
	case OPT_NO_CONFINED:
		settings->confined = key == OPT_CONFINED;
		return 0;
	case OPT_POOL:
		settings->pool = true;
		return 0;
	case OPT_SLOTS:
		settings->slots = (unsigned)take_number(state, "slots", argument, MAX_IMAGES * 64);
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
		settings->quick = true;
		return 0;
	case 'j':
		settings->json = true;
		return 0;
	default:
		return parse_slot(key, argument, state);
	}
}

/* Each size must fit the next; which two do not? */
static int check_sizes(const struct settings *settings)
{
	const struct {
		const char *name;
		size_t size;
	} sizes[] = {{"--image-size", settings->image_size}, {"--size", settings->size},
		{"--capacity", settings->capacity}};
	char small[32], large[32];

	for (size_t i = 0; i < 2; i++) {
		if (sizes[i].size <= sizes[i + 1].size)
			continue;
		complain(0, "%s (%s) does not fit %s (%s)", sizes[i].name,
			format_size(sizes[i].size, large, sizeof(large)), sizes[i + 1].name,
			format_size(sizes[i + 1].size, small, sizeof(small)));
		return EXIT_USAGE;
	}
	return 0;
}

/* The sections of --pool grow slots by 1 MiB and write 16 pages. */
static int check_pool(const struct settings *settings)
{
	if (!settings->pool || (settings->size + MIB <= settings->capacity &&
				       settings->at + 16 * page_size() <= settings->size))
		return 0;
	complain(0, "--pool: --capacity has to be 1 MiB above --size, --at 16 pages below it");
	return EXIT_USAGE;
}

/* What was not given depends on what was. */
static int complete(struct settings *settings)
{
	size_t least = settings->image_size > 8 * MIB ? settings->image_size : 8 * MIB;

	if (settings->size == 0)
		settings->size = least < settings->capacity ? least : settings->capacity;
	if (settings->rounds == 0)
		settings->rounds = settings->quick ? 3 : 7;
	if (settings->cycles == 0)
		settings->cycles = settings->quick ? 300 : 1000;
	if (settings->seconds <= 0)
		settings->seconds = settings->quick ? 5 : settings->pool ? 30 : 25;
	if (settings->slots && !settings->pool) {
		complain(0, "--slots: only with --pool");
		return EXIT_USAGE;
	}
	if (settings->slots == 0)
		settings->slots = 64;
	if (check_pool(settings))
		return EXIT_USAGE;
	return check_sizes(settings);
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
		.threads = processors > 1 ? 2 : 1,
		.image_fd = -1,
		.pagemap_fd = -1};
	if (argp_parse(&argp, argc, argv, 0, NULL, ret_settings))
		return EXIT_USAGE;
	return complete(ret_settings);
}
