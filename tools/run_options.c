/* SPDX-License-Identifier: MIT */
/*
 * run_options.c - the command lines of memslot run and memslot trace.
 *
 * Invariant: what is refused here is refused before anything is started. The words of
 * MEMSLOT_PRELOAD say what the options say, in their order.
 */
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SLOTS_MAX 8192 /* more ranges the preload does not know at a time */

enum {
	OPT_TRUST = 256,
	OPT_SLOTS,
	OPT_KEEP,
	OPT_BUDGET,
	OPT_MIN,
	OPT_THP,
	OPT_CHILDREN,
	OPT_ASLR,
	OPT_STATS
};

static const struct argp_option run_options[] = {
	{"trust-engine", OPT_TRUST, NULL, 0,
		"Leave memory open between munmap and the next instance's first mprotect: faster, "
		"but "
		"use after munmap does not fault",
		0},
	{"slots", OPT_SLOTS, "N", 0,
		"Keep at most N (0 to 8192) idle slots (default: as many as the program keeps "
		"alive)",
		0},
	{"keep", OPT_KEEP, "BYTES", 0, "Resident in an idle slot, at most (default 8M)", 0},
	{"budget", OPT_BUDGET, "BYTES", 0, "The same in all idle slots (default 256M)", 0},
	{"min", OPT_MIN, "BYTES", 0, "Smaller reservations are left alone (default 16M)", 0},
	{"thp", OPT_THP, "auto|keep|refuse", 0, "What becomes of MADV_HUGEPAGE (default auto)", 0},
	{"children", OPT_CHILDREN, "yes|no", 0,
		"Also in programs that the program starts (default)", 0},
	{"no-aslr", OPT_ASLR, NULL, 0, "Without randomized addresses", 0},
	{"stats", OPT_STATS, "json:FILE", OPTION_ARG_OPTIONAL,
		"Print statistics on standard error at the end, or write them to FILE (-: standard "
		"output)",
		0},
	{0},
};

static const struct argp_option trace_options[] = {
	{"min", OPT_MIN, "BYTES", 0, "Smaller reservations are left alone (default 16M)", 0},
	{"stats", OPT_STATS, "json:FILE", OPTION_ARG_OPTIONAL,
		"Write what was seen to FILE (-: "
		"standard output) and print nothing",
		0},
	{0},
};

/* --- the command line --- */

static void add_size(struct argp_state *state, const char *name, const char *argument)
{
	uint64_t size;

	if (parse_size(argument, &size))
		refuse(state, "--%s: '%s' is no size", name, argument);
	if (strcmp(name, "min") == 0 && size < page_size())
		refuse(state, "--min: a page is the least");
	add_word(state->input, "%s=%llu,", name, (unsigned long long)size);
}

static void take_stats(struct argp_state *state, const char *argument)
{
	struct run *run = state->input;

	if (argument && (strncmp(argument, "json:", 5) != 0 || !argument[5]))
		refuse(state, "--stats: '%s' is not json:FILE", argument);
	if (argument)
		run->json_path = argument + 5;
	else
		run->table = true;
}

static void take_thp(struct argp_state *state, const char *argument)
{
	if (!list_has("auto,keep,refuse", argument))
		refuse(state, "--thp: '%s' is none of auto, keep, refuse", argument);
	add_word(state->input, "thp=%s,", argument);
}

static void take_number(struct argp_state *state, const char *argument)
{
	uint64_t number;

	if (parse_number(argument, 0, SLOTS_MAX, &number))
		refuse(state, "--slots: '%s' is no number from 0 to %d", argument, SLOTS_MAX);
	add_word(state->input, "slots=%llu,", (unsigned long long)number);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct run *run = state->input;

	switch (key) {
	case OPT_TRUST:
		run->trust = true;
		add_word(run, "lazy,");
		return 0;
	case OPT_SLOTS:
		take_number(state, argument);
		return 0;
	case OPT_KEEP:
		add_size(state, "keep", argument);
		return 0;
	case OPT_BUDGET:
		add_size(state, "budget", argument);
		return 0;
	case OPT_MIN:
		add_size(state, "min", argument);
		return 0;
	case OPT_THP:
		take_thp(state, argument);
		return 0;
	case OPT_CHILDREN:
		if (!list_has("yes,no", argument))
			refuse(state, "--children: '%s' is neither yes nor no", argument);
		add_word(run, "%s", argument[0] == 'n' ? "children=no," : "");
		return 0;
	case OPT_ASLR:
		run->no_aslr = true;
		return 0;
	case OPT_STATS:
		take_stats(state, argument);
		return 0;
	case ARGP_KEY_ARG: /* the program: the rest is its own */
		run->command = state->argv + state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		refuse(state, "a program is missing");
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_run(int argc, char **argv)
{
	static const struct argp argp = {.options = run_options,
		.parser = parse,
		.args_doc = "[--] PROGRAM [ARGUMENT...]",
		.doc = "Run a program whose address-space reservations come from slots."};
	struct run run = {0};

	argp_err_exit_status = EXIT_OURS;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &run))
		return EXIT_OURS;
	return run_program(&run);
}

int command_trace(int argc, char **argv)
{
	static const struct argp argp = {.options = trace_options,
		.parser = parse,
		.args_doc = "[--] PROGRAM [ARGUMENT...]",
		.doc = "Run a program as it is, and tell what slots would have saved."};
	struct run run = {.trace = true, .words = "observe,"};

	argp_err_exit_status = EXIT_OURS;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &run))
		return EXIT_OURS;
	return run_program(&run);
}
