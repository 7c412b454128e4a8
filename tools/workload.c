/* SPDX-License-Identifier: MIT */
/*
 * workload.c - which words each run writes.
 *
 * Invariant: a workload is expanded to lists before anything is timed, from a fixed seed, so every
 * variant runs the same loop over the same words. Each word's value is the complement of what the
 * image (or the zeros around it) holds there, so every write differs.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum kind { FIXED, SCATTERED, RANDOM, GROW, READ };

#define RANDOM_RUNS 499 /* lists of random pages before they repeat */

/*
 * Each run writes `pages` of the pages [first, first + over), counted from --at; every `every`th
 * run the first `other` instead.
 */
struct phase_spec {
	const char *name;
	enum kind kind;
	unsigned pages, over, first, other, every;
	bool once, from_start; /* from the slot's start, whatever --at says */
};

struct spec {
	const char *name, *title;
	bool by_default;
	size_t least; /* accessible, at least */
	struct phase_spec phases[MAX_PHASES];
};

#define PHASE(name_, kind_, pages_, ...)                                                           \
	{                                                                                          \
		.name = name_, .kind = kind_, .pages = pages_, __VA_ARGS__                         \
	}
#define ONE(name_, title_, default_, kind_, pages_, ...)                                           \
	{                                                                                          \
		.name = name_, .title = title_, .by_default = default_, .phases = {                \
			PHASE("", kind_, pages_, __VA_ARGS__)                                      \
		}                                                                                  \
	}

static const struct spec specs[] = {
	ONE("1", "1 page", true, FIXED, 1, .over = 0),
	ONE("4", "4 pages", true, FIXED, 4, .over = 0),
	ONE("16", "16 pages", true, FIXED, 16, .over = 0),
	ONE("64", "64 pages", true, FIXED, 64, .over = 0),
	ONE("256", "256 pages", true, FIXED, 256, .over = 0),
	ONE("scattered", "128 pages scattered over 256", true, SCATTERED, 128, .over = 256),
	ONE("random", "16 random pages of 1024", true, RANDOM, 16, .over = 1024),
	{.name = "after2048",
		.title = "16 pages after one run of 2048",
		.by_default = true,
		.phases = {PHASE("2048", FIXED, 2048, .once = true, .from_start = true),
			PHASE("16", FIXED, 16, .over = 0)}},
	ONE("0", "nothing written", false, FIXED, 0, .over = 0),
	ONE("1024", "1024 pages", false, FIXED, 1024, .over = 0),
	ONE("grow4", "grow by 1 MiB, write 4 pages of it", false, GROW, 4, .over = 0),
	ONE("grow64", "grow by 1 MiB, write 64 pages of it", false, GROW, 64, .over = 0),
	{.name = "read",
		.title = "16 pages, before and after one run that reads 16 MiB",
		.least = 16 * MIB,
		.phases = {PHASE("before", FIXED, 16, .over = 0),
			PHASE("read", READ, 16, .once = true),
			PHASE("after", FIXED, 16, .over = 0)}},
	{.name = "phases",
		.title = "16, then 512, then 16 pages",
		.phases = {PHASE("16", FIXED, 16, .over = 0), PHASE("512", FIXED, 512, .over = 0),
			PHASE("16 again", FIXED, 16, .over = 0)}},
	{.name = "phases-ab",
		.title = "64 pages, then 64 others, then the first",
		.phases = {PHASE("A64", FIXED, 64, .first = 0),
			PHASE("B64", FIXED, 64, .first = 512),
			PHASE("A64 again", FIXED, 64, .first = 0)}},
	{.name = "phases-random",
		.title = "16 random of 1024, then 16 fixed, then random",
		.phases = {PHASE("random", RANDOM, 16, .over = 1024),
			PHASE("fixed", FIXED, 16, .over = 0),
			PHASE("random again", RANDOM, 16, .over = 1024)}},
	ONE("alternating", "8 and 256 pages by turns", false, FIXED, 8, .other = 256, .every = 2),
	ONE("mixed", "8 pages, in every tenth run 256", false, FIXED, 8, .other = 256, .every = 10),
};

size_t workload_count(void)
{
	return sizeof(specs) / sizeof(*specs);
}

const char *workload_name(size_t index)
{
	return specs[index].name;
}

const char *workload_title(size_t index)
{
	return specs[index].title;
}

bool workload_chosen(const char *list, size_t index)
{
	if (!list)
		return specs[index].by_default;
	return list_has(list, "all") || list_has(list, specs[index].name);
}

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static size_t runs_of(const struct phase_spec *phase)
{
	if (phase->kind == RANDOM)
		return RANDOM_RUNS;
	return phase->every ? phase->every : 1;
}

static size_t touches_of(const struct phase_spec *phase)
{
	return runs_of(phase) * phase->pages + phase->other;
}

/* The page, counted from --at, that touch number i of a run writes. */
static size_t page_of(const struct phase_spec *phase, size_t i, uint64_t *random)
{
	switch (phase->kind) {
	case RANDOM:
		return phase->first + next_random(random) % phase->over;
	case SCATTERED:
		return phase->first + i * phase->over / phase->pages;
	default:
		return phase->first + i;
	}
}

static void make_touch(
	const struct settings *settings, size_t page, uint64_t *random, struct touch *touch)
{
	size_t word = next_random(random) % (page_size() / sizeof(uint32_t));
	uint32_t original = 0;

	touch->offset = (uint32_t)(page * page_size() + word * sizeof(uint32_t));
	if (touch->offset < settings->image_size)
		memcpy(&original, settings->contents + touch->offset, sizeof(original));
	touch->value = ~original;
}

static size_t start_of(const struct phase_spec *phase, const struct settings *settings)
{
	return phase->from_start ? 0 : settings->at;
}

/* Fill one run; returns behind its touches. */
static struct touch *make_run(const struct phase_spec *phase, const struct settings *settings,
	const struct workload *workload, size_t pages, uint64_t *random, struct touch *touches,
	struct run *run)
{
	size_t origin = phase->kind == GROW ? workload->size : start_of(phase, settings);

	run->touches = touches;
	run->count = pages;
	run->grow = phase->kind == GROW ? MIB : 0;
	run->read = phase->kind == READ ? workload->size : 0;
	for (size_t i = 0; i < pages; i++)
		make_touch(settings, origin / page_size() + page_of(phase, i, random), random,
			touches++);
	return touches;
}

/* The last page of any run, counted from --at, in bytes. */
static size_t reach_of(const struct phase_spec *phase)
{
	size_t last = phase->pages > phase->over ? phase->pages : phase->over;

	if (phase->kind == GROW)
		return 0;
	if (phase->other > last)
		last = phase->other;
	return (phase->first + last) * page_size();
}

static bool fits(const struct spec *spec, const struct settings *settings, size_t size)
{
	size_t most = size;

	for (size_t i = 0; i < MAX_PHASES && spec->phases[i].name; i++) {
		if (start_of(&spec->phases[i], settings) + reach_of(&spec->phases[i]) > size)
			most = SIZE_MAX;
		else if (spec->phases[i].kind == GROW)
			most = size + MIB;
	}
	if (most > settings->capacity)
		complain(0, "workload %s does not fit: raise --size or --capacity, or lower --at",
			spec->name);
	return most <= settings->capacity;
}

static void fill(
	const struct spec *spec, const struct settings *settings, struct workload *workload)
{
	struct touch *touches = workload->touches;
	struct run *run = workload->runs;
	uint64_t random = 42;

	for (size_t p = 0; p < workload->phase_count; p++) {
		const struct phase_spec *phase = &spec->phases[p];
		size_t count = runs_of(phase);

		workload->phases[p] = (struct phase){phase->name, run, count, phase->once};
		for (size_t i = 0; i < count; i++) {
			bool other = phase->other && i + 1 == count;

			touches = make_run(phase, settings, workload,
				other ? phase->other : phase->pages, &random, touches, run++);
		}
	}
}

int workload_make(size_t index, const struct settings *settings, struct workload *ret_workload)
{
	const struct spec *spec = &specs[index];
	size_t touches = 0, runs = 0;

	memset(ret_workload, 0, sizeof(*ret_workload));
	ret_workload->name = spec->name;
	ret_workload->title = spec->title;
	ret_workload->size = settings->size > spec->least ? settings->size : spec->least;
	if (!fits(spec, settings, ret_workload->size))
		return EXIT_USAGE;
	for (; ret_workload->phase_count < MAX_PHASES &&
		spec->phases[ret_workload->phase_count].name;
		ret_workload->phase_count++) {
		touches += touches_of(&spec->phases[ret_workload->phase_count]);
		runs += runs_of(&spec->phases[ret_workload->phase_count]);
	}
	if (!spec->phases[1].name && spec->phases[0].kind == FIXED && !spec->phases[0].other)
		ret_workload->pages = spec->phases[0].pages;
	ret_workload->touches = calloc(touches + 1, sizeof(struct touch));
	ret_workload->runs = calloc(runs, sizeof(struct run));
	if (!ret_workload->touches || !ret_workload->runs) {
		complain(-ENOMEM, "workload %s", spec->name);
		workload_free(ret_workload);
		return EXIT_FAILED;
	}
	fill(spec, settings, ret_workload);
	return 0;
}

int workload_find(const char *name, const struct settings *settings, struct workload *ret_workload)
{
	size_t i = 0;

	while (strcmp(specs[i].name, name) != 0)
		i++;
	return workload_make(i, settings, ret_workload);
}

void workload_free(struct workload *workload)
{
	free(workload->touches);
	free(workload->runs);
	memset(workload, 0, sizeof(*workload));
}
