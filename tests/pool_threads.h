/* SPDX-License-Identifier: MIT */
/*
 * pool_threads.h - threads that share a pool: see test_pool_threads.c.
 *
 *   test_pool_threads.c   all calls at once          pool_threads_wait.c   waiting and being woken
 *   pool_threads_hold.c   holds, releases, the end   pool_threads.c        what they share
 *
 * libcheck's assertions are for the main thread: what goes wrong in another one is noted.
 */
#ifndef TESTS_POOL_THREADS_H
#define TESTS_POOL_THREADS_H

#include "slots.h"

#include <stdatomic.h>

#define THREADS_CAPACITY PAGES(24)

/* The first thing that was wrong, in any thread. */
#define note(condition) threads_note(condition, __FILE__, __LINE__, #condition)
bool threads_note(bool fine, const char *file, int line, const char *condition);
bool threads_failed(void);
void threads_assert_fine(void);

struct memslot_pool *threads_pool(uint32_t count, const struct memslot_pool_opts *opts);
struct memslot_pool_stats threads_stats(const struct memslot_pool *pool);
/* Nothing is out, held, queued or waiting; the pool can be destroyed. */
void threads_end(struct memslot_pool *pool, uint32_t count);

/* Images 0 (zeros), 1 (mapped), 2 (copied); the slot shows one and nothing else. */
#define THREADS_IMAGES 3
extern struct memslot_image *threads_image[THREADS_IMAGES];
void threads_images_begin(void);
void threads_images_end(void);
bool threads_shows(const struct memslot_slot *slot, unsigned image);

/* Run so many threads to their end. */
#define THREADS_MAX 8
void threads_run(unsigned count, void *(*run)(void *argument), void *arguments, size_t size);

void threads_add_wait(Suite *suite);
void threads_add_hold(Suite *suite);

#endif
