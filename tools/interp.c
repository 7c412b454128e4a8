/* SPDX-License-Identifier: MIT */
/*
 * interp.c - memslot lua and memslot duk: an interpreter, booted once in a heap of a slot, that
 * answers requests.
 *
 * Invariant: which interpreters were there when the tool was built is known in lua_none.c and
 * duk_none.c alone.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct argp_option options[] = {
	{"requests", 'n', "N", 0, "Requests that are rewound (default 3000)", 0},
	{"threads", 't', "N", 0, "Threads that share a pool of interpreters (default 2)", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{"save", 's', "FILE", 0, "Boot, save it all, and time processes that open it", 0},
	{"open", 'o', "FILE", 0, "Answer one request from what was saved", 0},
	{"once", 'b', NULL, 0, "Boot and answer one request", 0},
	{0},
};

static const char text[] =
	"Boots an interpreter with its libraries in a heap of a slot, and answers requests that "
	"all "
	"start from there: each is rewound by a reset. Beside it, by turns: a new interpreter for "
	"each request, and a forked child for each. Requests that misbehave are rewound too, what "
	"they left open is closed, and threads serve requests from a pool of such slots.\v"
	"SCRIPT is a request: a program in the interpreter's language, and its answer is what a "
	"Lua "
	"program returns, or the value of the last statement of a JavaScript one; the same each "
	"time.\n"
	"The exit status is 1 when something failed, or an answer was not right.";

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct interp_run *run = state->input;

	if (key == 'n' && parse_number(argument, INTERP_ROUNDS, 100000000, &run->requests))
		refuse(state, "--requests: '%s' is no number from %d to 100000000", argument,
			INTERP_ROUNDS);
	else if (key == 't' && parse_number(argument, 1, INTERP_THREADS, &run->threads))
		refuse(state, "--threads: '%s' is no number from 1 to %d", argument,
			INTERP_THREADS);
	else if (key == 'j')
		run->json = true;
	else if (strchr("sob", key) && key && run->mode)
		refuse(state, "one of --save, --open and --once is enough");
	else if (key == 's')
		run->mode = SAVED_SAVE, run->file = argument;
	else if (key == 'o')
		run->mode = SAVED_OPEN, run->file = argument;
	else if (key == 'b')
		run->mode = SAVED_ONCE;
	else if (key == ARGP_KEY_ARG && run->path)
		refuse(state, "'%s': one script is enough", argument);
	else if (key == ARGP_KEY_ARG)
		run->path = argument;
	else if (key != 'n' && key != 't')
		return ARGP_ERR_UNKNOWN;
	return 0;
}

static int perform(struct interp_run *run, const char *name)
{
	int status;

	if (run->interp->missing) {
		complain(0, "built without %s (%s)", run->interp->name, run->interp->missing);
		return EXIT_FAILED;
	}
	if (run->path) {
		run->script = guest_source(run->path, &run->script_size);
	} else {
		run->script = strdup(run->interp->script);
		run->script_size = strlen(run->interp->script);
	}
	if (!run->script) {
		complain(-errno, "%s", run->path ? run->path : "the script");
		return EXIT_FAILED;
	}
	status = run->mode ? interp_saved(run, name) : interp_measure(run);
	if (!status && !run->mode)
		interp_report(run);
	free(run->script);
	return status;
}

static int command(const struct interp *interp, const char *name, int argc, char **argv)
{
	static const struct argp argp = {options, parse, "[SCRIPT]", text, NULL, NULL, NULL};
	struct interp_run run = {.interp = interp, .requests = 3000, .threads = 2};

	if (argp_parse(&argp, argc, argv, 0, NULL, &run))
		return EXIT_USAGE;
	return perform(&run, name);
}

int command_lua(int argc, char **argv)
{
	return command(&lua_interp, "lua", argc, argv);
}

int command_duk(int argc, char **argv)
{
	return command(&duk_interp, "duk", argc, argv);
}
