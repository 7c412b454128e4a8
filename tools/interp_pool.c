/* SPDX-License-Identifier: MIT */
/*
 * interp_pool.c - workers on several threads, whose interpreters lie in slots of one pool.
 *
 *   acquire -> boot -> checkpoint -> request, rewind, request, rewind .. -> release; and again
 *
 * Invariant: a slot is used by the thread that acquired it and by no other one, until it is
 * released (MEMSLOT_SLOT_CONFINED); an image of a heap is good at its own address only, so each
 * slot is booted for itself. What the pool is left with is zeros: every byte is looked at.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLOTS_EACH 2 /* of a worker, used in turn */
#define TERMS 2	     /* slots go from tenant to tenant between them */
#define OPENERS 100  /* a slot */

struct crew;

struct worker {
	struct crew *crew;
	pthread_t thread;
	struct guest guests[SLOTS_EACH];
	struct interp_counts counts;
	uint64_t requests, ns; /* of a term; of all terms */
	int error;
};

struct crew {
	struct interp_run *run;
	struct memslot_pool *pool;
	atomic_uint started, booted; /* workers, 0: not known yet; in all terms */
	struct worker workers[INTERP_THREADS];
};

static int first_of(int error, int other)
{
	return error ? error : other;
}

static void add_counts(struct interp_counts *sum, const struct interp_counts *counts)
{
	for (int end = 0; end < INTERP_ENDS; end++)
		sum->rogues[end] += counts->rogues[end];
	sum->right_after += counts->right_after;
	sum->openers += counts->openers;
	sum->opened += counts->opened;
	sum->left_open += counts->left_open;
}

static int take(struct worker *worker)
{
	struct crew *crew = worker->crew;
	int error = 0;

	for (int i = 0; i < SLOTS_EACH; i++)
		worker->guests[i].slot = NULL;
	for (int i = 0; i < SLOTS_EACH && !error; i++) {
		struct memslot_slot *slot;

		error = memslot_pool_acquire(crew->pool, NULL, 0, NULL, &slot);
		if (!error)
			error = guest_checkpoint(&worker->guests[i], crew->run, slot, NULL);
	}
	return error;
}

static int serve(struct worker *worker)
{
	uint64_t began = clock_ns();
	int error = 0;

	for (uint64_t i = 0; i < worker->requests && !error; i++) {
		struct guest *guest = &worker->guests[i % SLOTS_EACH];

		error = guest_right(guest, 1) ? guest_rewind(guest) : -EPROTO;
	}
	worker->ns += clock_ns() - began;
	return error;
}

static int misbehave(struct worker *worker)
{
	int error = interp_rogues(&worker->guests[0], &worker->counts);

	for (int i = 0; i < SLOTS_EACH && !error; i++)
		error = interp_openers(&worker->guests[i], OPENERS, &worker->counts);
	return error;
}

static int give_back(struct worker *worker)
{
	int error = 0;

	for (int i = 0; i < SLOTS_EACH; i++) {
		if (worker->guests[i].slot)
			error = first_of(error,
				memslot_pool_release(worker->crew->pool, worker->guests[i].slot));
	}
	return error;
}

/* The load is everybody's at once. */
static void wait_for_others(struct crew *crew, unsigned term)
{
	const struct timespec tick = {.tv_nsec = 20000};
	unsigned started;

	atomic_fetch_add(&crew->booted, 1);
	do {
		nanosleep(&tick, NULL);
		started = atomic_load(&crew->started);
	} while (started == 0 || atomic_load(&crew->booted) < started * (term + 1));
}

static void *work(void *context)
{
	struct worker *worker = context;

	for (unsigned term = 0; term < TERMS; term++) {
		int error = take(worker);

		wait_for_others(worker->crew, term);
		if (!error)
			error = serve(worker);
		if (!error)
			error = misbehave(worker);
		worker->error = first_of(worker->error, first_of(error, give_back(worker)));
	}
	return NULL;
}

/* --- the pool --- */

/* All workers have ended; how it went. */
static int employ(struct crew *crew)
{
	struct interp_run *run = crew->run;
	unsigned started = 0;
	int error = 0;

	while (started < run->threads && !error) {
		struct worker *worker = &crew->workers[started];

		worker->crew = crew;
		worker->requests = run->requests / run->threads / TERMS + 1;
		error = -pthread_create(&worker->thread, NULL, work, worker);
		started += !error;
	}
	atomic_store(&crew->started, started);
	for (unsigned i = 0; i < started; i++) {
		struct worker *worker = &crew->workers[i];

		pthread_join(worker->thread, NULL);
		error = first_of(error, worker->error);
		run->pool_requests += worker->requests * TERMS;
		run->pool_ns = worker->ns > run->pool_ns ? worker->ns : run->pool_ns;
		add_counts(&run->pool_counts, &worker->counts);
	}
	run->boots = started * SLOTS_EACH * TERMS;
	return error;
}

/* Every byte that a slot can have is zero. */
static int look_at(struct memslot_pool *pool, struct memslot_slot *slot)
{
	const char *bytes = memslot_slot_base(slot);
	bool zero = !*bytes && !memcmp(bytes, bytes + 1, memslot_slot_size(slot) - 1);
	int error = memslot_pool_release(pool, slot);

	if (!zero)
		complain(0, "a slot is not clean");
	return zero ? error : -EPROTO;
}

static int check_clean(struct crew *crew)
{
	struct memslot_pool_stats stats = {.size = sizeof(stats)};
	struct memslot_slot *slots[INTERP_THREADS * SLOTS_EACH];
	uint64_t taken = 0;
	int error = 0;

	while (taken < crew->run->slots && !error) {
		error = memslot_pool_acquire(
			crew->pool, NULL, INTERP_CAPACITY, NULL, &slots[taken]);
		taken += !error;
	}
	while (taken > 0)
		error = first_of(error, look_at(crew->pool, slots[--taken]));
	if (!error)
		error = memslot_pool_flush(crew->pool);
	if (!error)
		error = memslot_pool_stats(crew->pool, &stats);
	if (error)
		return error;
	if (stats.live || stats.held || stats.queued || stats.quarantined ||
		stats.verify_failures || stats.idle_warm + stats.idle_cold != crew->run->slots) {
		complain(0, "the pool is not clean");
		return -EPROTO;
	}
	return 0;
}

int interp_pool(struct interp_run *run)
{
	struct memslot_pool_opts opts = {
		.size = sizeof(opts), .flags = MEMSLOT_SLOT_CONFINED | MEMSLOT_POOL_VERIFY};
	struct crew *crew = calloc(1, sizeof(*crew));
	int error;

	if (!crew)
		return -ENOMEM;
	run->slots = run->threads * SLOTS_EACH;
	crew->run = run;
	error = memslot_pool_create((uint32_t)run->slots, INTERP_CAPACITY, &opts, &crew->pool);
	if (!error)
		error = employ(crew);
	if (!error)
		error = check_clean(crew);
	error = first_of(error, memslot_pool_destroy(crew->pool));
	free(crew);
	return error;
}
