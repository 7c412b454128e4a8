/* SPDX-License-Identifier: MIT */
/*
 * ranges.c - memslot ranges: the range allocator and other allocators on one trace, by turns.
 *
 * Invariant: every measurement has a process of its own, started the same way; an allocator that
 * cannot be loaded is not there, and never another one in its place.
 */
#define _GNU_SOURCE
#include "ranges.h"

#include "churn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

const struct ranges_name ranges_names[RANGES_WHOS] = {
	[UNLOCKED] = {"unlocked", "memslot_ranges, unlocked", NULL, NULL},
	[LOCKED] = {"locked", "memslot_ranges, locked", NULL, NULL},
	[BEST] = {"best", "memslot_ranges, unlocked, BEST", NULL, NULL},
	[MIMALLOC] = {"mimalloc", "mimalloc", "libmimalloc.so.2", "mi_malloc"},
	[JEMALLOC] = {"jemalloc", "jemalloc", "libjemalloc.so.2", "mallctl"},
	[LIBC] = {"libc", "the C library's malloc", NULL, NULL},
};

enum { KEY_AS = 256 };

static const struct argp_option options[] = {
	{"arena", 'a', "SIZE", 0, "Bytes that are managed (default 256M)", 0},
	{"operations", 'n', "N", 0, "Allocations and frees that are timed (default 1000000)", 0},
	{"rounds", 'r', "N", 0, "Each allocator so many times, by turns (default 5)", 0},
	{"seed", 's', "N", 0, "Of the steps (default 1)", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{"as", KEY_AS, "NAME", OPTION_HIDDEN, "Be that measurement", 0},
	{0},
};

static const char text[] =
	"Allocates and frees ranges of an arena that is 70 to 90 percent full, with the sizes and "
	"alignments of real programs, and does the same with mimalloc, jemalloc and the C "
	"library's "
	"malloc, as far as they are installed.\v"
	"The exit status is 1 when something failed: ranges that overlap, or a process.";

struct line {
	struct ranges_run run;
	int as; /* or -1 */
};

static void parse_count(const struct argp_state *state, const char *name, const char *argument,
	uint64_t low, uint64_t high, uint64_t *ret)
{
	if (parse_number(argument, low, high, ret))
		refuse(state, "--%s: '%s' is no number from %llu to %llu", name, argument,
			(unsigned long long)low, (unsigned long long)high);
}

static int find_name(const char *name)
{
	for (int i = 0; i < RANGES_WHOS; i++) {
		if (strcmp(ranges_names[i].name, name) == 0)
			return i;
	}
	return -1;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct line *line = state->input;
	struct ranges_run *run = &line->run;

	if (key == 'a') {
		if (parse_size(argument, &run->trace.arena) || run->trace.arena < 16 * MIB ||
			run->trace.arena > 16 * 1024 * MIB || run->trace.arena % page_size())
			refuse(state, "--arena: '%s' is no size from 16M to 16G in whole pages",
				argument);
	} else if (key == 'n') {
		parse_count(state, "operations", argument, 1000, 100000000, &run->trace.operations);
	} else if (key == 'r') {
		parse_count(state, "rounds", argument, 1, RANGES_ROUNDS, &run->rounds);
	} else if (key == 's') {
		parse_count(state, "seed", argument, 0, UINT32_MAX, &run->trace.seed);
	} else if (key == 'j') {
		run->json = true;
	} else if (key == KEY_AS) {
		line->as = find_name(argument);
		if (line->as < 0)
			refuse(state, "--as: no '%s'", argument);
	} else if (key == ARGP_KEY_ARG) {
		refuse(state, "'%s': no argument is wanted", argument);
	} else {
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* --- a process for each measurement --- */

/* In a child: become the measurement. That a library is missing is said by the exit status. */
static void become(const struct ranges_run *run, enum ranges_who who, int out)
{
	const char *program = (const char *)getauxval(AT_EXECFN); /* works without /proc */
	const struct ranges_name *name = &ranges_names[who];
	char as[32], arena[48], operations[48], seed[48];
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

	snprintf(as, sizeof(as), "--as=%s", name->name);
	snprintf(arena, sizeof(arena), "--arena=%llu", (unsigned long long)run->trace.arena);
	snprintf(operations, sizeof(operations), "--operations=%llu",
		(unsigned long long)run->trace.operations);
	snprintf(seed, sizeof(seed), "--seed=%llu", (unsigned long long)run->trace.seed);
	if ((name->library && setenv("LD_PRELOAD", name->library, 1)) ||
		dup2(out, STDOUT_FILENO) < 0 || dup2(nowhere, STDERR_FILENO) < 0)
		_exit(EXIT_FAILED);
	execl(program, "memslot", "ranges", as, arena, operations, seed, (char *)NULL);
	_exit(EXIT_FAILED);
}

/* 0, -ENOENT not installed, or -EIO. */
static int measure(
	const struct ranges_run *run, enum ranges_who who, struct ranges_figures *figures)
{
	int ends[2], status = 0;
	ssize_t got;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		become(run, who, ends[1]);
	close(ends[1]);
	got = pid > 0 ? read(ends[0], figures, sizeof(*figures)) : -1;
	close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -EIO;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_USAGE)
		return -ENOENT;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && got == sizeof(*figures) ? 0 : -EIO;
}

/* --- by turns --- */

struct samples {
	double per_operation[RANGES_ROUNDS], mean[RANGES_ROUNDS], median[RANGES_ROUNDS],
		p999[RANGES_ROUNDS];
};

static void add(struct ranges_run *run, enum ranges_who who, struct samples *samples,
	const struct ranges_figures *figures)
{
	uint64_t round = run->measured[who]++;
	uint64_t failed = run->figures[who].failed + figures->failed;

	samples->per_operation[round] = figures->per_operation;
	samples->mean[round] = figures->alloc_mean;
	samples->median[round] = figures->alloc_median;
	samples->p999[round] = figures->alloc_p999;
	run->figures[who] = *figures;
	run->figures[who].failed = failed;
}

/* The median of each round's ratio to the faster peer, and of what the lock adds. */
static void compare(struct ranges_run *run, const struct samples *all)
{
	double to_peer[RANGES_ROUNDS], lock[RANGES_ROUNDS];
	uint64_t rounds = run->measured[UNLOCKED];

	for (uint64_t i = 0; i < rounds; i++) {
		double peer = 0;
		for (int who = MIMALLOC; who <= JEMALLOC; who++) {
			double time = all[who].per_operation[i];
			if (run->measured[who] > i && (peer == 0 || time < peer))
				peer = time;
		}
		to_peer[i] = peer > 0 ? all[UNLOCKED].per_operation[i] / peer : 0;
		lock[i] = all[LOCKED].per_operation[i] - all[UNLOCKED].per_operation[i];
	}
	run->to_peer = median_of(to_peer, rounds);
	run->locked_ns = median_of(lock, rounds);
}

static int measure_all(struct ranges_run *run, struct samples *all)
{
	for (uint64_t round = 0; round < run->rounds; round++) {
		for (uint64_t turn = 0; turn < RANGES_WHOS; turn++) {
			/* Nobody is always first, or always behind the same one. */
			uint64_t place = round % 2 ? RANGES_WHOS - 1 - turn : turn;
			int who = (int)((place + round) % RANGES_WHOS);
			struct ranges_figures figures;
			int error = measure(run, (enum ranges_who)who, &figures);

			if (error == -ENOENT)
				continue;
			if (error) {
				complain(0, "%s: the measurement failed", ranges_names[who].title);
				return EXIT_FAILED;
			}
			add(run, (enum ranges_who)who, &all[who], &figures);
		}
	}
	compare(run, all);
	for (int who = 0; who < RANGES_WHOS; who++) {
		struct ranges_figures *figures = &run->figures[who];
		uint64_t count = run->measured[who];

		figures->per_operation = median_of(all[who].per_operation, count);
		figures->alloc_mean = median_of(all[who].mean, count);
		figures->alloc_median = median_of(all[who].median, count);
		figures->alloc_p999 = median_of(all[who].p999, count);
	}
	return 0;
}

int command_ranges(int argc, char **argv)
{
	static const struct argp argp = {options, parse, NULL, text, NULL, NULL, NULL};
	struct line line = {.run = {.trace = {.arena = 256 * MIB, .operations = 1000000, .seed = 1},
				    .rounds = 5},
		.as = -1};
	struct samples *samples;
	int status;

	if (argp_parse(&argp, argc, argv, 0, NULL, &line))
		return EXIT_USAGE;
	if (line.as >= 0) {
		status = ranges_run((enum ranges_who)line.as, &line.run.trace);
		return status == -ENOENT ? EXIT_USAGE : status ? EXIT_FAILED : 0;
	}
	samples = calloc(RANGES_WHOS, sizeof(*samples));
	if (!samples) {
		complain(-ENOMEM, "samples");
		return EXIT_FAILED;
	}
	status = measure_all(&line.run, samples);
	if (!status)
		ranges_report(&line.run);
	free(samples);
	return status;
}
