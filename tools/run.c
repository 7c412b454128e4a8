/* SPDX-License-Identifier: MIT */
/*
 * run.c - memslot run and memslot trace: a program with libmemslot-preload.so, and a parent that
 * waits for it.
 *
 * Invariant: seen from outside the parent is the program: a signal that is sent to it is sent on,
 * it stops when the program stops, and it ends with the program's exit status, or 128 + n. (What
 * the terminal sends goes to both, and is not sent on.) It owns the page with the statistics: a
 * memory file, which the program opens by way of /proc and which stays when the program is killed.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_NOT_FOUND 127
#define EXIT_NOT_RUN 126

struct run {
	bool trace, stats, no_aslr;
	const char *json_path;
	char words[512]; /* of MEMSLOT_PRELOAD */
	char **command;
	struct memslot_preload_stats *page;
	int page_fd;
};

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
		"Keep at most N idle slots (default: as many as the program keeps alive)", 0},
	{"keep", OPT_KEEP, "BYTES", 0, "Resident in an idle slot, at most (default 8M)", 0},
	{"budget", OPT_BUDGET, "BYTES", 0, "The same in all idle slots (default 256M)", 0},
	{"min", OPT_MIN, "BYTES", 0, "Smaller reservations are left alone (default 16M)", 0},
	{"thp", OPT_THP, "auto|keep|refuse", 0, "What becomes of MADV_HUGEPAGE (default auto)", 0},
	{"children", OPT_CHILDREN, "yes|no", 0,
		"Also in programs that the program starts (default)", 0},
	{"no-aslr", OPT_ASLR, NULL, 0, "Without randomized addresses", 0},
	{"stats", OPT_STATS, "json:FILE", OPTION_ARG_OPTIONAL,
		"Print statistics on standard error at the end, or write them to FILE", 0},
	{0},
};

static const struct argp_option trace_options[] = {
	{"min", OPT_MIN, "BYTES", 0, "Smaller reservations are left alone (default 16M)", 0},
	{"stats", OPT_STATS, "json:FILE", OPTION_ARG_OPTIONAL, "Write what was seen to FILE", 0},
	{0},
};

/* --- the command line --- */

static void add_word(struct run *run, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void add_word(struct run *run, const char *format, ...)
{
	size_t length = strlen(run->words);
	va_list rest;

	va_start(rest, format);
	vsnprintf(run->words + length, sizeof run->words - length, format, rest);
	va_end(rest);
}

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

	run->stats = true;
	if (argument && strncmp(argument, "json:", 5) != 0)
		refuse(state, "--stats: '%s' is not json:FILE", argument);
	run->json_path = argument ? argument + 5 : NULL;
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

	if (parse_number(argument, 0, INT32_MAX, &number))
		refuse(state, "--slots: '%s' is no number", argument);
	add_word(state->input, "slots=%llu,", (unsigned long long)number);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct run *run = state->input;

	switch (key) {
	case OPT_TRUST:
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

/* --- what the program gets --- */

int find_preload(char *path, size_t room)
{
	static const char *const places[] = {"../lib/libmemslot-preload.so", PRELOAD_PLACE};
	char own[PATH_MAX / 2];
	ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);

	for (size_t i = 0; length > 0 && i < sizeof places / sizeof *places; i++) {
		own[length] = 0;
		*strrchr(own, '/') = 0;
		snprintf(path, room, "%s/%s", own, places[i]);
		own[strlen(own)] = '/';
		if (access(path, R_OK) == 0)
			return strpbrk(path, " :") ? -EINVAL : 0; /* LD_PRELOAD splits there */
	}
	return -ENOENT;
}

static int make_page(struct run *run)
{
	run->page_fd = memfd_create("memslot-preload", MFD_CLOEXEC);
	if (run->page_fd < 0 || ftruncate(run->page_fd, MEMSLOT_PRELOAD_BYTES))
		return -errno;
	run->page = mmap(
		NULL, MEMSLOT_PRELOAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, run->page_fd, 0);
	if (run->page == MAP_FAILED)
		return -errno;
	run->page->magic = MEMSLOT_PRELOAD_MAGIC;
	add_word(run, "stats=/proc/%d/fd/%d", getpid(), run->page_fd);
	return 0;
}

static int set_environment(const struct run *run)
{
	const char *before = getenv("LD_PRELOAD");
	char path[PATH_MAX], list[2 * PATH_MAX];
	int error = find_preload(path, sizeof path);

	if (error)
		return error;
	snprintf(list, sizeof list, "%s%s%s", path, before && *before ? ":" : "",
		before ? before : "");
	return setenv("LD_PRELOAD", list, 1) || setenv("MEMSLOT_PRELOAD", run->words, 1) ? -errno
											 : 0;
}

/* --- the parent --- */

static pid_t start(const struct run *run, const sigset_t *mask)
{
	pid_t child = fork();

	if (child != 0)
		return child;
	if (run->no_aslr)
		personality(ADDR_NO_RANDOMIZE);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(run->command[0], run->command);
	complain(-errno, "cannot run %s", run->command[0]);
	_exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUN);
}

/* The program stopped or ended: false while it lives. */
static bool look_after(pid_t child, int *ret_status)
{
	int status;

	while (waitpid(child, &status, WNOHANG | WUNTRACED) == child) {
		if (!WIFSTOPPED(status)) {
			*ret_status =
				WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
			return true;
		}
		kill(getpid(), SIGSTOP); /* until somebody continues us both */
	}
	return false;
}

static int wait_for(pid_t child)
{
	siginfo_t info;
	sigset_t all;
	int status = 0;

	sigfillset(&all);
	for (;;) {
		int signal = sigwaitinfo(&all, &info);
		if (signal == SIGCHLD) {
			if (look_after(child, &status))
				return status;
		} else if (signal > 0 && info.si_code != SI_KERNEL) {
			kill(child, signal);
		}
	}
}

static int report(const struct run *run)
{
	json_t *json = describe_preload(run->page, run->trace);
	int error = 0;

	if (run->json_path)
		error = json_dump_file(json, run->json_path, JSON_INDENT(2)) ? -errno : 0;
	else if (run->stats || run->trace)
		print_preload(json);
	json_decref(json);
	if (error)
		complain(error, "cannot write %s", run->json_path);
	return error;
}

static int run_command(struct run *run)
{
	sigset_t all, before;
	pid_t child;
	int status, error = make_page(run);

	if (!error)
		error = set_environment(run);
	if (error) {
		complain(error, error == -ENOENT ? "no libmemslot-preload.so found"
						 : "cannot prepare the preload");
		return EXIT_FAILED;
	}
	signal(SIGCHLD, SIG_DFL); /* an ignored one would take the exit status away */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = start(run, &before);
	if (child < 0) {
		complain(-errno, "cannot start a process");
		return EXIT_FAILED;
	}
	status = wait_for(child);
	return report(run) && status == 0 ? EXIT_FAILED : status;
}

int command_run(int argc, char **argv)
{
	static const struct argp argp = {.options = run_options,
		.parser = parse,
		.args_doc = "[--] PROGRAM [ARGUMENT...]",
		.doc = "Run a program whose address-space reservations come from slots."};
	struct run run = {0};

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &run))
		return EXIT_USAGE;
	return run_command(&run);
}

int command_trace(int argc, char **argv)
{
	static const struct argp argp = {.options = trace_options,
		.parser = parse,
		.args_doc = "[--] PROGRAM [ARGUMENT...]",
		.doc = "Run a program as it is, and tell what slots would have saved."};
	struct run run = {.trace = true, .words = "observe,"};

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &run))
		return EXIT_USAGE;
	return run_command(&run);
}
