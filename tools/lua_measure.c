/* SPDX-License-Identifier: MIT */
/*
 * lua_measure.c - boot, fork and rewind by turns, each with the same request.
 *
 * Invariant: every request that is timed is checked: its answer, and that it was its interpreter's
 * first. The slots do not exist in forked children (MEMSLOT_SLOT_DONTFORK): a fork is as cheap as
 * it would be without them. No collector runs anywhere.
 */
#define _GNU_SOURCE
#include "churn.h"
#include "lua_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY (32 * MIB)
#define FORKS_MOST 30 /* a round; */
#define BOOTS 2	      /* the same */
#define ROGUES 5      /* of each kind, at the end: what they write is not what others do */

struct bench {
	struct lua_run *run;
	struct memslot_slot *slot, *other; /* booted once; booted again and again */
	struct memslot_image *image;
	struct lua_State *plain; /* booted once, with the system malloc: what is forked */
	double *times[LUA_WHATS];
};

/* The interpreters' contexts: an interpreter in an image finds its heap through these. */
static struct memslot_heap *heap, *other_heap;

static void record(struct bench *bench, enum lua_what what, uint64_t from, uint64_t to)
{
	bench->times[what][bench->run->samples[what]++] = (double)(to - from);
}

static int wrong(bool right)
{
	return right ? 0 : -EPROTO;
}

static int boot_once(struct bench *bench)
{
	uint64_t began = clock_ns(), booted;
	struct lua_State *guest = lua_guest_boot(bench->run, lua_malloc_allocator, NULL);
	bool right;

	if (!guest)
		return -EPROTO;
	booted = clock_ns();
	right = lua_guest_right(bench->run, guest);
	record(bench, LUA_BOOT, began, clock_ns());
	record(bench, LUA_BOOT_MALLOC, began, booted);
	if (right)
		lua_guest_close(guest);
	return wrong(right);
}

static int boot_heap_once(struct bench *bench)
{
	int error = memslot_heap_create(bench->other, NULL, &other_heap);
	struct lua_State *guest;
	uint64_t began;

	if (error)
		return error;
	began = clock_ns();
	guest = lua_guest_boot(bench->run, lua_heap_allocator, &other_heap);
	if (!guest)
		return -EPROTO;
	record(bench, LUA_BOOT_HEAP, began, clock_ns());
	return wrong(lua_guest_right(bench->run, guest)); /* the next create takes all of it away */
}

static int fork_once(struct bench *bench)
{
	uint64_t began = clock_ns();
	pid_t child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (child == 0)
		_exit(lua_guest_right(bench->run, bench->plain) ? 0 : 1);
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	record(bench, LUA_FORK, began, clock_ns());
	return wrong(status == 0);
}

static int rewind_once(struct bench *bench)
{
	uint64_t began = clock_ns(), answered, reset;
	bool right = lua_guest_right(bench->run, memslot_heap_root(heap));
	int error;

	answered = clock_ns();
	error = memslot_slot_reset(bench->slot);
	reset = clock_ns();
	record(bench, LUA_REWIND, began, reset);
	record(bench, LUA_RESET, answered, reset);
	return error ? error : wrong(right);
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
static int first_answer(struct lua_run *run)
{
	struct lua_request request = {0};
	struct lua_State *guest = lua_guest_boot(run, lua_malloc_allocator, NULL);
	enum lua_end end;

	if (!guest)
		return -EPROTO;
	end = lua_guest_answer(guest, &request);
	if (end != LUA_ANSWERED) {
		lua_guest_complain(guest, end);
		return -EPROTO;
	}
	memcpy(run->answer, request.answer, request.answer_size);
	run->answer_size = request.answer_size;
	lua_guest_close(guest);
	return 0;
}

/* An interpreter in the slot, and the image of it. */
static int checkpoint(struct bench *bench)
{
	struct lua_run *run = bench->run;
	int error = memslot_heap_create(bench->slot, NULL, &heap);
	struct lua_State *guest = NULL;

	if (!error) {
		guest = lua_guest_boot(run, lua_heap_allocator, &heap);
		error = guest ? 0 : -EPROTO;
	}
	if (!error) {
		memslot_heap_set_root(heap, guest);
		error = memslot_heap_stats(heap, &run->heap);
	}
	if (!error)
		error = memslot_slot_checkpoint(bench->slot, &bench->image);
	if (!error)
		run->image_bytes = memslot_image_size(bench->image);
	return error;
}

static int set_up(struct bench *bench)
{
	struct memslot_slot_opts opts = {
		.size = sizeof(opts), .flags = MEMSLOT_SLOT_CONFINED | MEMSLOT_SLOT_DONTFORK};
	int error = first_answer(bench->run);

	for (size_t i = 0; i < LUA_WHATS && !error; i++) {
		size_t most = bench->run->requests + LUA_ROUNDS * FORKS_MOST;

		bench->times[i] = calloc(most, sizeof(double));
		error = bench->times[i] ? 0 : -ENOMEM;
	}
	if (!error)
		error = memslot_slot_create(CAPACITY, &opts, &bench->slot);
	if (!error)
		error = memslot_slot_create(CAPACITY, &opts, &bench->other);
	if (!error)
		error = checkpoint(bench);
	if (!error) {
		bench->plain = lua_guest_boot(bench->run, lua_malloc_allocator, NULL);
		error = bench->plain ? 0 : -EPROTO;
	}
	return error;
}

static int one_round(struct bench *bench, uint64_t requests)
{
	uint64_t restored = 0, resets = bench->run->samples[LUA_RESET];
	struct lua_run *run = bench->run;
	int error = repeat(bench, BOOTS, boot_once);

	if (!error)
		error = repeat(bench, BOOTS, boot_heap_once);
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
		resets = run->samples[LUA_RESET] - resets;
		run->pages_restored += (double)restored / (double)resets / LUA_ROUNDS;
	}
	return error;
}

static void tear_down(struct bench *bench)
{
	lua_guest_close(bench->plain);
	memslot_image_unref(bench->image);
	memslot_heap_close(heap);
	memslot_heap_close(other_heap);
	memslot_slot_destroy(bench->slot);
	memslot_slot_destroy(bench->other);
	for (size_t i = 0; i < LUA_WHATS; i++)
		free(bench->times[i]);
}

int lua_measure(struct lua_run *run)
{
	struct bench bench = {.run = run};
	int error;

	run->heap.size = sizeof(run->heap);
	run->slot.size = sizeof(run->slot);
	error = set_up(&bench);
	for (uint64_t i = 0; i < LUA_ROUNDS && !error; i++)
		error = one_round(&bench,
			run->requests * (i + 1) / LUA_ROUNDS - run->requests * i / LUA_ROUNDS);
	for (size_t i = 0; i < ROGUES && !error; i++)
		error = lua_rogues(run, bench.slot, heap);
	for (size_t i = 0; i < LUA_WHATS && !error; i++)
		run->median_ns[i] = median_of(bench.times[i], run->samples[i]);
	tear_down(&bench);
	if (error && error != -EPROTO) /* which was told where it was found */
		complain(error, "cannot go on");
	return error ? EXIT_FAILED : 0;
}
