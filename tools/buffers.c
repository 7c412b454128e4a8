/* SPDX-License-Identifier: MIT */
/*
 * buffers.c - memslot buffers: the buffer pool beside the plain ways, by turns.
 *
 * Invariant: the two ways of a duel take turns within one run, and the ratio is taken within each
 * turn, so that a noisy minute spoils a turn and not the comparison; medians are printed.
 */
#define _GNU_SOURCE
#include "buffers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#define TURNS_MAX 101

const char *buffers_folder = ".";

static const struct argp_option options[] = {
	{"folder", 'f', "PATH", 0, "Where a file for O_DIRECT is made (default .)", 0},
	{"only", 'o', "NAME,..", 0, "Only these measurements", 0},
	{"rounds", 'r', "N", 0, "So many turns (default 9)", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{0},
};

static const char text[] =
	"Measures the pool of I/O buffers beside the plain way to do the same, by turns: taking "
	"and "
	"giving back, guards, receives into chosen buffers, direct reads, resets of registered "
	"memory, a second ring, forks.\v"
	"The exit status is 1 when a measurement failed.";

struct line {
	uint64_t rounds;
	const char *only;
	bool json;
};

struct outcome {
	double ours, theirs, ratio;
	int error;
	bool here; /* else it could not begin: no io_uring, no O_DIRECT */
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct line *line = state->input;

	if (key == 'f')
		buffers_folder = argument;
	else if (key == 'o')
		line->only = argument;
	else if (key == 'r' && parse_number(argument, 1, TURNS_MAX, &line->rounds))
		refuse(state, "--rounds: '%s' is no number from 1 to %d", argument, TURNS_MAX);
	else if (key == 'j')
		line->json = true;
	else if (key == ARGP_KEY_ARG)
		refuse(state, "too many arguments");
	else if (key != 'r')
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* --- what the measurements share --- */

int set_open(struct set *set, uint64_t buffer_size, uint64_t budget, unsigned entries)
{
	int error = io_uring_queue_init(entries, &set->uring, 0);

	if (error)
		return error;
	error = memslot_buffers_create(
		&MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = buffer_size, .budget = budget),
		&set->buffers);
	if (!error)
		error = memslot_ring_attach(set->buffers, &set->uring, NULL, &set->ring);
	return error;
}

void set_close(struct set *set)
{
	struct memslot_completion done = {.size = sizeof(done)};

	while (memslot_ring_detach(set->ring) == -EAGAIN && set_next(set, &done) == 0)
		;
	io_uring_queue_exit(&set->uring);
	(void)memslot_buffers_close(set->buffers, 0, NULL);
}

int set_next(struct set *set, struct memslot_completion *ret_done)
{
	struct io_uring_cqe *cqe;
	int error = io_uring_wait_cqe(&set->uring, &cqe);

	if (!error) {
		error = memslot_ring_complete(set->ring, cqe, ret_done);
		io_uring_cqe_seen(&set->uring, cqe);
	}
	return error;
}

uint64_t process_cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

/* --- turns --- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare);
	return values[count / 2];
}

static struct outcome fight(const struct duel *duel, size_t rounds)
{
	double ours[TURNS_MAX], theirs[TURNS_MAX], ratios[TURNS_MAX];
	struct outcome outcome = {.error = duel->open()};

	if (outcome.error)
		return outcome;
	outcome.here = true;
	for (size_t i = 0; i < rounds && !outcome.error; i++) {
		ours[i] = duel->ours();
		theirs[i] = duel->theirs ? duel->theirs() : 1;
		ratios[i] = ours[i] / theirs[i];
		outcome.error = ours[i] < 0 || theirs[i] < 0 ? -EIO : 0;
	}
	duel->close();
	if (outcome.error)
		return outcome;
	outcome.ours = median(ours, rounds);
	outcome.theirs = median(theirs, rounds);
	outcome.ratio = median(ratios, rounds);
	return outcome;
}

static void print(const struct duel *duel, const struct outcome *outcome)
{
	if (outcome->error)
		printf("%-44s %s: %s\n", duel->what, outcome->here ? "failed" : "not here",
			strerror(-outcome->error));
	else if (!duel->against)
		printf("%-44s %10.1f ns%29s goal %.0f ns\n", duel->what, outcome->ours, "",
			duel->goal);
	else
		printf("%-44s %10.1f ns %10.1f ns  ratio %6.3f  goal %.2f  (%s)\n", duel->what,
			outcome->ours, outcome->theirs, outcome->ratio, duel->goal, duel->against);
	fflush(stdout);
}

static json_t *describe(const struct duel *duel, const struct outcome *outcome)
{
	if (outcome->error)
		return json_pack(
			"{s:s, s:s}", "name", duel->name, "failed", strerror(-outcome->error));
	if (!duel->against)
		return json_pack("{s:s, s:s, s:f, s:f}", "name", duel->name, "what", duel->what,
			"ns", outcome->ours, "goal_ns", duel->goal);
	return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "name", duel->name, "what",
		duel->what, "against", duel->against, "ns", outcome->ours, "against_ns",
		outcome->theirs, "ratio", outcome->ratio, "goal", duel->goal);
}

static int run(const struct duel *duels, const struct line *line, json_t *results)
{
	int status = EXIT_DONE;

	for (; duels->name; duels++) {
		struct outcome outcome;
		if (line->only && !list_has(line->only, duels->name))
			continue;
		outcome = fight(duels, line->rounds);
		if (outcome.error && outcome.here)
			status = EXIT_FAILED;
		if (results)
			json_array_append_new(results, describe(duels, &outcome));
		else
			print(duels, &outcome);
	}
	return status;
}

int command_buffers(int argc, char **argv)
{
	static const struct argp argp = {.options = options, .parser = parse, .doc = text};
	struct line line = {.rounds = 9};
	struct utsname system;
	json_t *results;
	int status, more;

	if (argp_parse(&argp, argc, argv, 0, NULL, &line))
		return EXIT_USAGE;
	uname(&system);
	results = line.json ? json_array() : NULL;
	if (!results)
		printf("medians of %llu turns; Linux %s, %s; libmemslot %s\n",
			(unsigned long long)line.rounds, system.release, system.machine,
			memslot_version());
	status = run(pool_duels, &line, results);
	more = run(ring_duels, &line, results);
	if (results) {
		json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:o}", "version",
			memslot_version(), "kernel", system.release, "machine", system.machine,
			"rounds", (json_int_t)line.rounds, "results", results);
		json_dumpf(object, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(object);
	}
	return status ? status : more;
}
