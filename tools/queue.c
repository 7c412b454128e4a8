/* SPDX-License-Identifier: MIT */
/*
 * queue.c - 64 slots whose pages are dropped together, and one by one.
 *
 *   queue     64 releases to the drop queue, and one flush     flush     that flush alone
 *   each      64 releases without a queue                      madvise   64 calls, nothing else
 *
 * Alone, and while a second thread of the process runs: then the kernel has to tell its processor
 * of every page that goes. Slots as the workloads have them, and slots of 64 KiB that show zeros.
 *
 * Invariant: writing is not timed; after each round every slot is compared where it was written.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS 64u
#define SMALL (64 * KIB)
#define TIMES 24u /* in a round, and one more that is not counted */

enum way { QUEUE, FLUSH, EACH, MADVISE, WAYS };

static const struct variant ways[WAYS] = {
	{.name = "queue", .title = "64 releases and one flush", .backend = &lent_backend},
	{.name = "flush", .title = "that flush alone", .backend = &lent_backend},
	{.name = "each", .title = "64 releases without a queue", .backend = &lent_backend},
	{.name = "madvise",
		.title = "64 calls of madvise",
		.backend = &pooled_backend,
		.reference = true},
};

struct drops {
	struct churn *section;
	struct memslot_image *image;   /* NULL: zeros */
	struct memslot_pool *pools[2]; /* with a queue, and without */
	struct memslot_slot *slots[SLOTS];
	struct instance raw[SLOTS]; /* as the references have them */
	unsigned char *zeros;	    /* or all in one mapping */
	unsigned pages;		    /* written in each */
	struct tally tallies[WAYS];
	double samples[WAYS][TIMES + 1];
};

/* --- one drop of all --- */

static unsigned char *raw_base(const struct drops *drops, size_t i)
{
	return drops->zeros ? drops->zeros + i * 2 * SMALL : drops->raw[i].base;
}

static size_t offset_of(const struct drops *drops, unsigned page)
{
	return drops->section->settings.at + page * page_size();
}

static uint32_t word_at(const struct drops *drops, size_t offset)
{
	const struct settings *settings = &drops->section->settings;
	uint32_t word = 0;

	if (drops->image && offset < settings->image_size)
		memcpy(&word, settings->contents + offset, sizeof(word));
	return word;
}

static void write_to(const struct drops *drops, unsigned char *base)
{
	for (unsigned i = 0; i < drops->pages; i++) {
		size_t offset = offset_of(drops, i);

		*(volatile uint32_t *)(base + offset) = ~word_at(drops, offset);
	}
}

static int check(const struct drops *drops, const unsigned char *base)
{
	for (unsigned i = 0; i < drops->pages; i++) {
		size_t offset = offset_of(drops, i);

		if (*(const volatile uint32_t *)(base + offset) != word_at(drops, offset)) {
			complain(0, "wrong byte: a dropped slot, offset 0x%zx", offset);
			return EXIT_WRONG_BYTE;
		}
	}
	return 0;
}

static int acquire_all(struct drops *drops, struct memslot_pool *pool)
{
	const struct settings *settings = &drops->section->settings;
	const struct memslot_acquire_opts opts = {
		.size = sizeof(opts), .flags = settings->confined ? MEMSLOT_SLOT_CONFINED : 0};
	int error = 0;

	for (size_t i = 0; i < SLOTS && !error; i++)
		error = memslot_pool_acquire(
			pool, drops->image, settings->size, &opts, &drops->slots[i]);
	return error;
}

static int release_all(struct drops *drops, struct memslot_pool *pool)
{
	int error = 0;

	for (size_t i = 0; i < SLOTS && !error; i++)
		error = memslot_pool_release(pool, drops->slots[i]);
	return error;
}

static int run_pool(struct drops *drops, enum way way, unsigned time)
{
	struct memslot_pool *pool = drops->pools[way == EACH];
	uint64_t began, released;
	int error = acquire_all(drops, pool);

	if (error)
		return error;
	for (size_t i = 0; i < SLOTS; i++)
		write_to(drops, memslot_slot_base(drops->slots[i]));
	began = clock_ns();
	error = release_all(drops, pool);
	released = clock_ns();
	if (!error)
		error = memslot_pool_flush(pool);
	drops->samples[way][time] = (double)((way == EACH ? released : clock_ns()) - began);
	if (way == QUEUE)
		drops->samples[FLUSH][time] =
			drops->samples[QUEUE][time] - (double)(released - began);
	return error;
}

static int run_madvise(struct drops *drops, unsigned time)
{
	size_t size = drops->section->settings.size;
	uint64_t before;
	int error = 0;

	for (size_t i = 0; i < SLOTS; i++)
		write_to(drops, raw_base(drops, i));
	before = clock_ns();
	for (size_t i = 0; i < SLOTS && !error; i++)
		error = madvise(raw_base(drops, i), size, MADV_DONTNEED) ? -errno : 0;
	drops->samples[MADVISE][time] = (double)(clock_ns() - before);
	return error;
}

/* --- rounds --- */

static int check_pool(struct drops *drops, struct memslot_pool *pool)
{
	int error = acquire_all(drops, pool);

	for (size_t i = 0; i < SLOTS && !error; i++)
		error = check(drops, memslot_slot_base(drops->slots[i]));
	if (!error)
		error = release_all(drops, pool);
	return error ? error : memslot_pool_flush(pool);
}

static int check_round(struct drops *drops)
{
	int error = check_pool(drops, drops->pools[0]);

	if (!error)
		error = check_pool(drops, drops->pools[1]);
	for (size_t i = 0; i < SLOTS && !error; i++)
		error = check(drops, raw_base(drops, i));
	return error;
}

static int run_round(struct drops *drops)
{
	int error = 0;

	for (unsigned time = 0; time <= TIMES && !error; time++) {
		error = run_pool(drops, QUEUE, time);
		if (!error)
			error = run_pool(drops, EACH, time);
		if (!error)
			error = run_madvise(drops, time);
	}
	for (size_t way = 0; way < WAYS && !error; way++)
		tally_add(&drops->tallies[way], drops->samples[way] + 1, TIMES);
	return error ? error : check_round(drops);
}

static int run_result(struct drops *drops, const char *name, const char *title)
{
	struct churn *section = drops->section;
	struct result *result = &section->results[section->result_count];
	int error = 0;

	memset(drops->tallies, 0, sizeof(drops->tallies));
	for (unsigned i = 0; i < section->settings.rounds && !error; i++)
		error = run_round(drops);
	if (error)
		return error;
	for (size_t way = 0; way < WAYS; way++)
		tally_finish(&drops->tallies[way], &result->cells[way]);
	result->name = name;
	result->title = title;
	result->rounds = section->settings.rounds;
	section->result_count++;
	if (!section->settings.json)
		report_result(section, result);
	return 0;
}

/* --- the second thread --- */

static void *spin(void *argument)
{
	atomic_bool *stop = argument;

	while (!atomic_load_explicit(stop, memory_order_relaxed)) {
	}
	return NULL;
}

static int run_all(struct drops *drops)
{
	atomic_bool stop = false;
	pthread_t thread;
	int error;

	drops->pages = 1;
	error = run_result(drops, "1-alone", "1 page written in each, alone");
	drops->pages = 4;
	if (!error)
		error = run_result(drops, "4-alone", "4 pages, alone");
	if (!error)
		error = -pthread_create(&thread, NULL, spin, &stop);
	if (error)
		return error;
	drops->pages = 1;
	error = run_result(drops, "1-threads", "1 page, a second thread running");
	drops->pages = 4;
	if (!error)
		error = run_result(drops, "4-threads", "4 pages, a second thread running");
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	return error;
}

/* --- the slots --- */

static int open_raw(struct drops *drops)
{
	const struct settings *settings = &drops->section->settings;
	int error = 0;

	if (!drops->image) {
		drops->zeros = mmap(NULL, SLOTS * 2 * SMALL, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (drops->zeros != MAP_FAILED)
			return madvise(drops->zeros, SLOTS * 2 * SMALL, MADV_NOHUGEPAGE) ? -errno
											 : 0;
		drops->zeros = NULL;
		return -errno;
	}
	for (size_t i = 0; i < SLOTS && !error; i++)
		error = instance_open(
			&drops->raw[i], &ways[MADVISE], settings, drops->image, settings->size);
	return error;
}

static int set_up(struct drops *drops)
{
	size_t capacity = drops->section->settings.capacity;
	struct memslot_pool_opts opts = {.size = sizeof(opts),
		.reset_method = MEMSLOT_RESET_DROP,
		.drop_batch_bytes = MEMSLOT_UNLIMITED,
		.drop_batch_count = MEMSLOT_UNLIMITED};
	int error = memslot_pool_create(SLOTS, capacity, &opts, &drops->pools[0]);

	opts.drop_batch_count = 1;
	if (!error)
		error = memslot_pool_create(SLOTS, capacity, &opts, &drops->pools[1]);
	return error ? error : open_raw(drops);
}

static void tear_down(struct drops *drops)
{
	for (size_t i = 0; i < SLOTS; i++)
		instance_close(&drops->raw[i]);
	if (drops->zeros)
		munmap(drops->zeros, SLOTS * 2 * SMALL);
	memslot_pool_destroy(drops->pools[0]);
	memslot_pool_destroy(drops->pools[1]);
	free(drops);
}

/* `small`: slots of 64 KiB that show zeros. */
static int measure_drops(struct churn *churn, struct churn *section, bool small)
{
	struct drops *drops = calloc(1, sizeof(*drops));
	int error = drops ? 0 : -ENOMEM;

	for (size_t way = 0; way < WAYS; way++)
		section->variants[section->variant_count++] = &ways[way];
	if (small) {
		section->settings.capacity = section->settings.size = SMALL;
		section->settings.at = 0;
	}
	if (!error) {
		drops->section = section;
		drops->image = small ? NULL : churn->image;
		error = set_up(drops);
		if (!error)
			error = run_all(drops);
		tear_down(drops);
	}
	if (error)
		complain(error < 0 ? error : 0, "the drop queue failed");
	return error < 0 ? EXIT_FAILED : error;
}

int measure_queue(struct churn *churn)
{
	struct churn *section = section_new(
		churn, "queue", "64 slots dropped together, or one by one: all of them", 4);
	int status = section ? measure_drops(churn, section, false) : EXIT_FAILED;

	if (status)
		return status;
	section = section_new(churn, "queue-64K", "The same, slots of 64 KiB that show zeros", 4);
	return section ? measure_drops(churn, section, true) : EXIT_FAILED;
}
