/* SPDX-License-Identifier: MIT */
/*
 * interp_measure.c - boot, fork and rewind by turns, each with the same request.
 *
 * Invariant: every request that is timed is checked: its answer, and that it is the nth of its
 * interpreter. No collector runs anywhere.
 */
#define _GNU_SOURCE
#include "churn.h"
#include "interp.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define FORKS_MOST 30 /* a round */
#define BOOTS 2	      /* the same, in a heap and not, by turns */
#define REPLAYS 2     /* the same */
#define ROGUES 2      /* of each kind, at the end: what they write is not what others do */

struct bench {
	struct interp_run *run;
	struct memslot_slot *slot, *other; /* booted once; booted again and again */
	struct memslot_image *image;
	struct guest guest; /* in the slot */
	struct forker forker;
	struct trace *trace;
	double *times[INTERP_WHATS];
};

static void record(struct bench *bench, enum interp_what what, uint64_t from, uint64_t to)
{
	bench->times[what][bench->run->samples[what]++] = (double)(to - from);
}

static int wrong(bool right)
{
	return right ? 0 : -EPROTO;
}

/* Requests upon the first one, each on what those before it left. */
static bool run_on(struct bench *bench, enum interp_what what, struct guest *guest)
{
	uint64_t began = clock_ns();
	bool right = true;

	for (int i = 0; i < INTERP_IN_A_ROW && right; i++)
		right = guest_right(guest, 2 + i);
	record(bench, what, began, clock_ns());
	return right;
}

static int boot_once(struct bench *bench)
{
	uint64_t began = clock_ns(), booted;
	struct guest guest;
	int error = guest_boot(&guest, bench->run, NULL);
	bool right;

	if (error)
		return error;
	booted = clock_ns();
	right = guest_right(&guest, 1);
	record(bench, BOOT, began, clock_ns());
	record(bench, BOOT_MALLOC, began, booted);
	right = right && run_on(bench, RUN_MALLOC, &guest);
	if (right)
		bench->run->interp->close(&guest);
	return wrong(right);
}

static int boot_heap_once(struct bench *bench)
{
	uint64_t began = clock_ns();
	struct guest guest;
	int error = guest_boot(&guest, bench->run, bench->other);

	if (error)
		return error;
	record(bench, BOOT_HEAP, began, clock_ns());
	/* The next boot takes all of it away. */
	return wrong(guest_right(&guest, 1) && run_on(bench, RUN_HEAP, &guest));
}

static int fork_once(struct bench *bench)
{
	uint64_t took;
	int error = forker_ask(&bench->forker, &took);

	if (!error)
		record(bench, FORK, 0, took);
	return error;
}

static int rewind_once(struct bench *bench)
{
	uint64_t began = clock_ns(), answered, reset;
	bool right = guest_right(&bench->guest, 1);
	int error;

	answered = clock_ns();
	error = guest_rewind(&bench->guest);
	reset = clock_ns();
	record(bench, REWIND, began, reset);
	record(bench, RESET, answered, reset);
	return error ? error : wrong(right);
}

/* Allocators without an interpreter: one after the other, and the other way round next time. */
static int replay_once(struct bench *bench, enum interp_what what)
{
	struct guest guest = {.run = bench->run};
	uint64_t took;
	int error = 0;

	if (what == CALLS_HEAP)
		error = memslot_heap_create(bench->other, NULL, &guest.heap);
	if (!error)
		error = trace_replay(bench->trace, &guest, &took);
	if (!error)
		record(bench, what, 0, took);
	return error;
}

static int replay_both(struct bench *bench)
{
	bool swap = bench->run->samples[CALLS_HEAP] % 2;
	int error = replay_once(bench, swap ? CALLS_MALLOC : CALLS_HEAP);

	return error ? error : replay_once(bench, swap ? CALLS_HEAP : CALLS_MALLOC);
}

static int boot_both(struct bench *bench)
{
	int error = boot_once(bench);

	return error ? error : boot_heap_once(bench);
}

static int repeat(struct bench *bench, uint64_t times, int (*once)(struct bench *bench))
{
	int error = 0;

	for (uint64_t i = 0; i < times && !error; i++)
		error = once(bench);
	return error;
}

/* --- the run --- */

/* The first interpreter says what is right; the script must not depend on where it lies. */
static int first_answer(struct interp_run *run)
{
	struct request request = {0};
	struct guest guest;
	int error = guest_boot(&guest, run, NULL);
	enum interp_end end;

	if (error)
		return error;
	end = guest_answer(&guest, &request);
	if (end != ANSWERED) {
		guest_complain(&guest, end);
		return -EPROTO;
	}
	memcpy(run->answer, request.answer, request.answer_size);
	run->answer_size = request.answer_size;
	memcpy(run->library, guest.library, sizeof(run->library));
	run->interp->close(&guest);
	return 0;
}

static int set_up(struct bench *bench)
{
	struct memslot_slot_opts opts = {.size = sizeof(opts), .flags = MEMSLOT_SLOT_CONFINED};
	struct interp_run *run = bench->run;
	int error = first_answer(run);

	if (!error)
		error = forker_start(&bench->forker, run);
	for (size_t i = 0; i < INTERP_WHATS && !error; i++) {
		bench->times[i] =
			calloc(run->requests + INTERP_ROUNDS * FORKS_MOST, sizeof(double));
		error = bench->times[i] ? 0 : -ENOMEM;
	}
	if (!error)
		error = memslot_slot_create(INTERP_CAPACITY, &opts, &bench->slot);
	if (!error)
		error = memslot_slot_create(INTERP_CAPACITY, &opts, &bench->other);
	if (!error)
		error = guest_checkpoint(&bench->guest, run, bench->slot, &bench->image);
	if (!error)
		error = memslot_heap_stats(bench->guest.heap, &run->heap);
	if (!error)
		error = trace_record(run, &bench->trace);
	if (!error)
		run->image_bytes = memslot_image_size(bench->image);
	return error;
}

static int one_round(struct bench *bench, uint64_t requests)
{
	uint64_t restored = 0, resets = bench->run->samples[RESET];
	struct interp_run *run = bench->run;
	int error = repeat(bench, BOOTS, boot_both);

	if (!error)
		error = repeat(bench, REPLAYS, replay_both);
	if (!error)
		error = repeat(bench, requests < FORKS_MOST ? requests : FORKS_MOST, fork_once);
	if (!error)
		error = memslot_slot_stats(bench->slot, &run->slot);
	restored = run->slot.bytes_restored;
	if (!error)
		error = repeat(bench, requests, rewind_once);
	if (!error)
		error = memslot_slot_stats(bench->slot, &run->slot);
	if (!error) { /* and the mean over the rounds */
		restored = (run->slot.bytes_restored - restored) / page_size();
		resets = run->samples[RESET] - resets;
		run->pages_restored += (double)restored / (double)resets / INTERP_ROUNDS;
	}
	return error;
}

/* Open in this process, by the kernel's count. */
static int count_descriptors(uint64_t *ret_count)
{
	DIR *folder = opendir("/proc/self/fd");

	if (!folder)
		return -errno;
	*ret_count = 0;
	while (readdir(folder))
		++*ret_count;
	*ret_count -= 3; /* ".", "..", and the folder's own */
	closedir(folder);
	return 0;
}

static int misbehave(struct bench *bench)
{
	struct interp_run *run = bench->run;
	int error = count_descriptors(&run->descriptors_before);

	for (size_t i = 0; i < ROGUES && !error; i++)
		error = interp_rogues(&bench->guest, &run->counts);
	if (!error)
		error = interp_openers(&bench->guest, INTERP_OPENERS, &run->counts);
	if (!error)
		error = count_descriptors(&run->descriptors_after);
	if (!error && run->descriptors_before != run->descriptors_after) {
		complain(0, "%llu descriptors have become %llu",
			(unsigned long long)run->descriptors_before,
			(unsigned long long)run->descriptors_after);
		error = -EPROTO;
	}
	return error;
}

static void tear_down(struct bench *bench)
{
	forker_stop(&bench->forker);
	trace_free(bench->trace);
	memslot_image_unref(bench->image);
	memslot_slot_destroy(bench->slot);
	memslot_slot_destroy(bench->other);
	for (size_t i = 0; i < INTERP_WHATS; i++)
		free(bench->times[i]);
}

int interp_measure(struct interp_run *run)
{
	struct bench bench = {.run = run};
	int error;

	/* The system malloc at its best: what was freed, also at its top, is not given back. */
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	run->heap.size = sizeof(run->heap);
	run->slot.size = sizeof(run->slot);
	error = set_up(&bench);
	for (uint64_t i = 0; i < INTERP_ROUNDS && !error; i++)
		error = one_round(&bench, run->requests * (i + 1) / INTERP_ROUNDS -
						  run->requests * i / INTERP_ROUNDS);
	if (!error)
		error = misbehave(&bench);
	if (!error)
		error = interp_pool(run);
	for (size_t i = 0; i < INTERP_WHATS && !error; i++)
		run->median_ns[i] = median_of(bench.times[i], run->samples[i]);
	tear_down(&bench);
	if (error && error != -EPROTO) /* which was told where it was found */
		complain(error, "cannot go on");
	return error ? EXIT_FAILED : 0;
}
