/* SPDX-License-Identifier: MIT */
/*
 * main.c - the memslot command: picks the subcommand.
 *
 * Invariant: everything behind the subcommand's name is the subcommand's own; wrong arguments end
 * with exit status 2.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memslot.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"info", command_info},
	{"image", command_image},
	{"churn", command_churn},
	{"plan", command_plan},
	{"host", command_host},
	{"lua", command_lua},
	{"duk", command_duk},
	{"ranges", command_ranges},
	{"buffers", command_buffers},
	{"serve", command_serve},
	{"load", command_load},
	{"copy", command_copy},
	{"run", command_run},
	{"doctor", command_doctor},
	{"engines", command_engines},
	{"trace", command_trace},
};

static const char text[] =
	"Memory slots that start from an image and are reset in about a "
	"microsecond."
	"\v"
	"Commands:\n"
	"  info     what this kernel and machine can do\n"
	"  image    build, show and verify image files\n"
	"  churn    measure instantiate, write, reset, beside other ways to do it\n"
	"  plan     what a pool of slots would cost\n"
	"  host     a worked example: a host of plug-ins, well and badly behaved\n"
	"  lua      Lua booted once: boot, fork and rewind by turns\n"
	"  duk      the same with JavaScript: Duktape\n"
	"  ranges   the range allocator beside mimalloc and jemalloc\n"
	"  buffers  the pool of I/O buffers beside plain ways\n"
	"  serve    a server on such buffers: echo, or files by HTTP\n"
	"  load     its client, which checks every byte\n"
	"  copy     copy a file by fixed buffers and O_DIRECT\n"
	"  run      a program whose address-space reservations come from slots\n"
	"  doctor   whether that would work for a program, and why not\n"
	"  trace    what it would save\n"
	"  engines  measure it on the calls that engines make\n"
	"\n"
	"'memslot COMMAND --help' tells more.";

struct choice {
	int (*run)(int argc, char **argv);
	int first; /* index of the command's name in argv */
	char name[32];
};

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "memslot %s\n", memslot_version());
}

static int choose(struct argp_state *state, const char *name)
{
	struct choice *choice = state->input;

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(name, commands[i].name) == 0)
			choice->run = commands[i].run;
	}
	if (!choice->run)
		refuse(state, "no command '%s'", name);
	choice->first = state->next - 1;
	snprintf(choice->name, sizeof(choice->name), "memslot %s", name);
	state->next = state->argc; /* the rest is not ours to look at */
	return 0;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_ARG:
		return choose(state, argument);
	case ARGP_KEY_NO_ARGS:
		refuse(state, "a command is missing: info, image, churn, plan, host, lua, duk, "
			      "ranges, buffers, serve, load, copy, run, doctor, trace or engines");
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse, .args_doc = "COMMAND [ARGUMENT...]", .doc = text};
	static char name[] = "memslot"; /* what getopt's messages begin with */
	struct choice choice = {0};
	int status;

	argp_err_exit_status = EXIT_USAGE;
	argp_program_version_hook = print_version;
	if (argc > 0)
		argv[0] = name;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &choice))
		return EXIT_USAGE;
	argv[choice.first] = choice.name;
	status = choice.run(argc - choice.first, argv + choice.first);
	if (fflush(stdout) || ferror(stdout)) {
		complain(0, "cannot write to standard output");
		return EXIT_FAILED;
	}
	return status;
}
