/* SPDX-License-Identifier: MIT */
/* pool_threads.c - what the tests with threads share. */
#define _GNU_SOURCE
#include "pool_threads.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what went wrong --- */

static atomic_bool failed;
static char first_failure[300];

bool threads_note(bool fine, const char *file, int line, const char *condition)
{
	if (!fine && !atomic_exchange(&failed, true))
		snprintf(first_failure, sizeof first_failure, "%s:%d: %s", file, line, condition);
	return fine;
}

bool threads_failed(void)
{
	return atomic_load(&failed);
}

void threads_assert_fine(void)
{
	ck_assert_msg(!threads_failed(), "%s", first_failure);
}

/* --- pools --- */

struct memslot_pool *threads_pool(uint32_t count, const struct memslot_pool_opts *opts)
{
	struct memslot_pool *pool = NULL;

	ck_assert_int_eq(memslot_pool_create(count, THREADS_CAPACITY, opts, &pool), 0);
	return pool;
}

struct memslot_pool_stats threads_stats(const struct memslot_pool *pool)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	note(memslot_pool_stats(pool, &stats) == 0);
	return stats;
}

void threads_end(struct memslot_pool *pool, uint32_t count)
{
	struct memslot_pool_stats stats;

	threads_assert_fine();
	ck_assert_int_eq(memslot_pool_flush(pool), 0);
	stats = threads_stats(pool);
	ck_assert_uint_eq(stats.live, 0);
	ck_assert_uint_eq(stats.held, 0);
	ck_assert_uint_eq(stats.queued, 0);
	ck_assert_uint_eq(stats.waiters, 0);
	ck_assert_uint_eq(stats.quarantined, 0);
	ck_assert_uint_eq(stats.verify_failures, 0);
	ck_assert_uint_eq(stats.idle_warm + stats.idle_cold, count);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}

/* --- images --- */

struct memslot_image *threads_image[THREADS_IMAGES];
static unsigned char *expected[THREADS_IMAGES];

/*
 * What the library measures once, it measures here: ThreadSanitizer does not see its mmap and
 * munmap, so that two threads' scratch memory at one address would look like a race.
 */
static void warm_up(void)
{
	struct memslot_slot *slot = slot_new(THREADS_CAPACITY, NULL);

	for (uint32_t i = 0; memslot_feature_name(i); i++)
		(void)memslot_feature(memslot_feature_name(i));
	for (unsigned i = 0; i < 30; i++) {
		instantiate(slot, threads_image[i / 10], THREADS_CAPACITY);
		dirty_pages(slot, i % 8, 4, 1);
		reset(slot);
	}
	destroy(slot);
}

void threads_images_begin(void)
{
	static const size_t first[] = {0, 3, 5}, count[] = {0, 12, 2};

	for (unsigned i = 0; i < THREADS_IMAGES; i++) {
		expected[i] = calloc(1, THREADS_CAPACITY);
		ck_assert_ptr_nonnull(expected[i]);
		if (i == 0)
			continue;
		threads_image[i] = image_of(first[i], count[i], i);
		test_fill(expected[i] + PAGES(first[i]), PAGES(count[i]), i);
	}
	warm_up();
}

void threads_images_end(void)
{
	for (unsigned i = 0; i < THREADS_IMAGES; i++) {
		memslot_image_unref(threads_image[i]);
		free(expected[i]);
	}
}

bool threads_shows(const struct memslot_slot *slot, unsigned image)
{
	return memslot_slot_size(slot) == THREADS_CAPACITY &&
	       memcmp(memslot_slot_base(slot), expected[image], THREADS_CAPACITY) == 0;
}

/* --- threads --- */

void threads_run(unsigned count, void *(*run)(void *argument), void *arguments, size_t size)
{
	pthread_t threads[THREADS_MAX];

	ck_assert_uint_le(count, THREADS_MAX);
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, run, (char *)arguments + i * size), 0);
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	threads_assert_fine();
}
