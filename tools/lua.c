/* SPDX-License-Identifier: MIT */
/*
 * lua.c - memslot lua: a Lua interpreter, booted once in a heap of a slot, that answers requests.
 *
 * Invariant: whether Lua was there when the tool was built is known in lua_none.c alone.
 */
#define _GNU_SOURCE
#include "lua_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRIPT_MOST MIB

/* What a request is by default: a little of this and that from the library. */
static const char default_script[] =
	"local List, stringx = require 'pl.List', require 'pl.stringx'\n"
	"local tablex = require 'pl.tablex'\n"
	"local line = 'the quick brown fox jumps over the lazy dog'\n"
	"local words = List(stringx.split(line))\n"
	"local counts = tablex.reduce(function(all, word)\n"
	"	all[word] = (all[word] or 0) + 1\n"
	"	return all\n"
	"end, words, {})\n"
	"local names = List(tablex.keys(counts)):sort()\n"
	"last = names:map(stringx.title):join(' ')\n"
	"return last .. ' ' .. counts.the\n";

static const struct argp_option options[] = {
	{"requests", 'n', "N", 0, "Requests that are rewound (default 3000)", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{"save", 's', "FILE", 0, "Boot, save it all, and time processes that open it", 0},
	{"open", 'o', "FILE", 0, "Answer one request from what was saved", 0},
	{"once", 'b', NULL, 0, "Boot and answer one request", 0},
	{0},
};

static const char text[] =
	"Boots a Lua interpreter with its libraries and Penlight in a heap of a slot, and answers "
	"requests that all start from there: each is rewound by a reset. Beside it, by turns: a "
	"new "
	"interpreter for each request, and a forked child for each. Requests that misbehave are "
	"rewound too.\v"
	"SCRIPT is a request: a Lua program that returns its answer, the same each time.\n"
	"The exit status is 1 when something failed, or an answer was not right.";

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct lua_run *run = state->input;

	if (key == 'n' && parse_number(argument, LUA_ROUNDS, 100000000, &run->requests))
		refuse(state, "--requests: '%s' is no number from %d to 100000000", argument,
			LUA_ROUNDS);
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
	else if (key != 'n')
		return ARGP_ERR_UNKNOWN;
	return 0;
}

static int read_script(struct lua_run *run)
{
	FILE *file = run->path ? fopen(run->path, "re") : NULL;
	int error = run->path && !file ? -errno : 0;

	run->script = error ? NULL : malloc(SCRIPT_MOST + 1);
	if (!error && !run->script)
		error = -ENOMEM;
	if (file && run->script) {
		run->script_size = fread(run->script, 1, SCRIPT_MOST + 1, file);
		if (ferror(file))
			error = -EIO;
		if (run->script_size > SCRIPT_MOST)
			error = -EMSGSIZE;
	} else if (run->script) {
		run->script_size = sizeof(default_script) - 1;
		memcpy(run->script, default_script, run->script_size);
	}
	if (file)
		fclose(file);
	if (error)
		complain(error, "%s", run->path ? run->path : "the script");
	return error ? EXIT_FAILED : 0;
}

int command_lua(int argc, char **argv)
{
	static const struct argp argp = {options, parse, "[SCRIPT]", text, NULL, NULL, NULL};
	struct lua_run run = {.requests = 3000};
	int status;

	if (argp_parse(&argp, argc, argv, 0, NULL, &run))
		return EXIT_USAGE;
	status = read_script(&run);
	if (!status && run.mode)
		status = lua_saved(&run);
	else if (!status)
		status = lua_measure(&run);
	if (!status && !run.mode)
		lua_report(&run);
	free(run.script);
	return status;
}
