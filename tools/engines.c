/* SPDX-License-Identifier: MIT */
/*
 * engines.c - memslot engines: instances as WebAssembly engines make them, with and without the
 * preload.
 *
 * Invariant: each figure comes from a process of its own, in which nothing but the engine's calls
 * runs; plain, strict and trusted take turns, and ratios are of medians of the same run. With
 * --one this process itself lives them and prints the time of a life; with --check it looks at the
 * guards, too.
 */
#define _GNU_SOURCE
#include "engines.h"
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ROUNDS 99

struct arguments {
	const char *names; /* NULL: all */
	uint64_t pages, memory, threads, rounds, lives, keep;
	bool one, check; /* live them here; look at each */
};

enum { OPT_ROUNDS = 256, OPT_LIVES, OPT_ONE, OPT_CHECK, OPT_ALIVE };

static const struct argp_option options[] = {
	{"engine", 'e', "NAME,...", 0, "Only these (default: all)", 0},
	{"pages", 'p', "N", 0, "Pages that a life writes (default 16)", 0},
	{"memory", 'm', "BYTES", 0, "Memory of an instance (default 1M)", 0},
	{"threads", 't', "N", 0, "Threads that make instances (default 1)", 0},
	{"alive", OPT_ALIVE, "N", 0, "Instances that each thread keeps alive (default 1)", 0},
	{"rounds", OPT_ROUNDS, "N", 0, "Turns of each way (default 7)", 0},
	{"lives", OPT_LIVES, "N", 0, "Lives a turn (default 2000)", 0},
	{"one", OPT_ONE, NULL, 0, "Live the lives in this process, once", 0},
	{"check", OPT_CHECK, NULL, 0,
		"The same, with memories of several sizes that grow, and look "
		"at guards and bytes",
		0},
	{0},
};

/* --- lives --- */

struct worker {
	const struct engine *engine;
	const struct arguments *arguments;
	int error;
	const char *wrong;
};

/* Does the kernel find nothing there to read? */
static bool is_closed(const char *at)
{
	int ends[2];
	bool closed = false;

	if (pipe2(ends, O_CLOEXEC))
		return false;
	closed = write(ends[1], at, 1) < 0 && errno == EFAULT;
	close(ends[0]);
	close(ends[1]);
	return closed;
}

static void check_guards(struct worker *worker, const struct instance *instance)
{
	if (!is_closed(instance->memory + instance->size))
		worker->wrong = "the byte behind the memory is accessible";
	if (worker->engine->front && !is_closed(instance->memory - worker->engine->header - 1))
		worker->wrong = "the byte before the memory is accessible";
}

/* Write pages that nobody has written: they must be zero. */
static void use(struct worker *worker, const struct instance *instance, size_t from, uint64_t pages)
{
	for (uint64_t i = 0; i < pages && from + i * page_size() < instance->size; i++) {
		char *page = instance->memory + from + i * page_size();
		volatile uint64_t *word = (uint64_t *)(void *)page;
		if (word[0] || word[511])
			worker->wrong = "memory is not zero";
		word[0] = word[511] = i + 1;
	}
}

static int live(struct worker *worker, struct instance *instance, uint64_t number)
{
	const struct arguments *arguments = worker->arguments;
	/* Checked lives differ in size, so that smaller ones follow larger ones, and some grow. */
	size_t size = arguments->memory >> (arguments->check ? number % 3 : 0);
	int error = engine_create(worker->engine, size, instance);

	if (!error)
		use(worker, instance, 0, arguments->pages);
	if (!error && arguments->check) {
		check_guards(worker, instance);
		if (number % 4 == 1)
			error = engine_grow(worker->engine, instance, size * 2);
		if (!error && number % 4 == 1)
			use(worker, instance, size, arguments->pages);
		check_guards(worker, instance);
	}
	return error;
}

static int work_through(struct worker *worker, struct instance *alive)
{
	const struct arguments *arguments = worker->arguments;
	uint64_t keep = arguments->keep, number;
	int error = 0;

	for (number = 0; !error && !worker->wrong && number < arguments->lives; number++) {
		struct instance *place = &alive[number % keep];
		if (number >= keep)
			error = engine_destroy(worker->engine, place);
		if (!error)
			error = live(worker, place, number);
	}
	for (uint64_t i = 0; !error && i < keep && i < number; i++)
		error = engine_destroy(worker->engine, &alive[i]);
	return error;
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct instance *alive = calloc(worker->arguments->keep, sizeof *alive);

	worker->error = alive ? work_through(worker, alive) : -ENOMEM;
	if (worker->engine->leaks && worker->error == -ENOMEM)
		worker->error = 0; /* address space is used up: that is how it leaks */
	free(alive);
	return NULL;
}

static int live_here(const struct engine *engine, const struct arguments *arguments)
{
	struct worker *workers = calloc(arguments->threads, sizeof *workers);
	pthread_t *threads = calloc(arguments->threads, sizeof *threads);
	uint64_t start = clock_ns();
	int status = EXIT_DONE;

	for (uint64_t i = 0; workers && threads && i < arguments->threads; i++) {
		workers[i] = (struct worker){.engine = engine, .arguments = arguments};
		if (pthread_create(&threads[i], NULL, work, &workers[i]))
			abort();
	}
	for (uint64_t i = 0; workers && threads && i < arguments->threads; i++) {
		pthread_join(threads[i], NULL);
		if (workers[i].wrong) {
			complain(0, "%s: %s", engine->name, workers[i].wrong);
			status = EXIT_WRONG_BYTE;
		} else if (workers[i].error) {
			complain(workers[i].error, "%s", engine->name);
			status = EXIT_FAILED;
		}
	}
	printf("%.3f\n", (double)(clock_ns() - start) /
				 (double)(arguments->lives * arguments->threads) / 1000);
	free(workers);
	free(threads);
	return status;
}

/* --- the comparison --- */

enum { PLAIN, STRICT, TRUSTED, WAYS };

/* This command again, in one of the ways: µs a life, or negative. */
static double measure(const struct engine *engine, const struct arguments *arguments, int way)
{
	char preload[4096] = "", line[512], text[64];
	double us = -1;
	FILE *child;

	if (way != PLAIN && find_preload(preload, sizeof preload)) {
		complain(0, "no libmemslot-preload.so found");
		return -1;
	}
	setenv("MEMSLOT_ENGINES_PRELOAD", preload, 1);
	snprintf(line, sizeof line,
		"LD_PRELOAD=\"$MEMSLOT_ENGINES_PRELOAD\" MEMSLOT_PRELOAD=%s exec /proc/%d/exe "
		"engines --one --engine=%s --pages=%llu --memory=%llu --threads=%llu "
		"--lives=%llu --alive=%llu --rounds=1",
		way == TRUSTED ? "lazy" : "strict", getpid(), engine->name,
		(unsigned long long)arguments->pages, (unsigned long long)arguments->memory,
		(unsigned long long)arguments->threads, (unsigned long long)arguments->lives,
		(unsigned long long)arguments->keep);
	child = popen(line, "re");
	if (child && fgets(text, sizeof text, child))
		us = atof(text);
	if (!child || pclose(child) != 0)
		us = -1;
	return us;
}

static int compare_numbers(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

static int compare(const struct engine *engine, const struct arguments *arguments)
{
	double times[WAYS][MAX_ROUNDS], median[WAYS];

	for (uint64_t round = 0; round < arguments->rounds; round++) {
		for (int way = 0; way < WAYS; way++) {
			times[way][round] = measure(engine, arguments, way);
			if (times[way][round] < 0)
				return EXIT_FAILED;
		}
	}
	for (int way = 0; way < WAYS; way++) {
		qsort(times[way], arguments->rounds, sizeof(double), compare_numbers);
		median[way] = times[way][arguments->rounds / 2];
	}
	printf("%-14s %9.1f %9.1f %7.1fx %9.1f %7.1fx  %s\n", engine->name, median[PLAIN],
		median[STRICT], median[PLAIN] / median[STRICT], median[TRUSTED],
		median[PLAIN] / median[TRUSTED], engine->what);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

/* --- the command line --- */

static uint64_t take(struct argp_state *state, const char *argument, uint64_t low, uint64_t high)
{
	uint64_t number;

	if (parse_number(argument, low, high, &number))
		refuse(state, "'%s' is no number from %llu to %llu", argument,
			(unsigned long long)low, (unsigned long long)high);
	return number;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'e':
		arguments->names = argument;
		return 0;
	case 'p':
		arguments->pages = take(state, argument, 0, 1u << 20);
		return 0;
	case 'm':
		if (parse_size(argument, &arguments->memory) || arguments->memory < 256 * KIB ||
			arguments->memory > 8 * MIB || arguments->memory % (256 * KIB))
			refuse(state, "--memory: a multiple of 256K up to 8M");
		return 0;
	case 't':
		arguments->threads = take(state, argument, 1, 64);
		return 0;
	case OPT_ROUNDS:
		arguments->rounds = take(state, argument, 1, MAX_ROUNDS);
		return 0;
	case OPT_LIVES:
		arguments->lives = take(state, argument, 1, 1u << 30);
		return 0;
	case OPT_ALIVE:
		arguments->keep = take(state, argument, 1, 4096);
		return 0;
	case OPT_CHECK:
		arguments->check = true; /* fall through */
	case OPT_ONE:
		arguments->one = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_engines(int argc, char **argv)
{
	static const struct argp argp = {.options = options,
		.parser = parse,
		.doc = "Make instances as WebAssembly engines do, plainly, with the preload, and "
		       "with "
		       "a trusted engine, by turns: microseconds a life."};
	struct arguments arguments = {
		.pages = 16, .memory = MIB, .threads = 1, .rounds = 7, .lives = 2000, .keep = 1};
	int status = EXIT_DONE;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return EXIT_USAGE;
	if (!arguments.one)
		printf("%-14s %9s %9s %8s %9s %8s\n", "engine", "plain", "strict", "", "trusted",
			"");
	for (const struct engine *engine = engines; engine->name && status == EXIT_DONE; engine++) {
		if (arguments.names && !list_has(arguments.names, engine->name))
			continue;
		status =
			arguments.one ? live_here(engine, &arguments) : compare(engine, &arguments);
	}
	return status;
}
