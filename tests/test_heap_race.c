/* SPDX-License-Identifier: MIT */
/*
 * test_heap_race.c - a thread of the guest that writes into its heap's state while calls run: they
 * may answer anything that lies in the slot, and nothing outside of it is read into an object,
 * written or crashed on. They race by intent: not under ThreadSanitizer.
 *
 * The slot lies between two others that are full of a neighbour's bytes, and of guard pages.
 */
#define _GNU_SOURCE
#include "slots.h"

#include "heap/heap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY ((size_t)4 << 20)
#define NEIGHBOUR 0x5e
#define WORDS 12

#if defined(__SANITIZE_THREAD__)
#define RACES false
#elif defined(__has_feature)
#define RACES !__has_feature(thread_sanitizer)
#else
#define RACES true
#endif

static struct memslot_pool *pool;
static struct memslot_slot *slots[3]; /* by address */
static struct memslot_heap *heap;

/* What is flipped: a word, its value, and another one. */
static volatile uint32_t *word[WORDS];
static uint32_t good[WORDS], bad[WORDS];
static unsigned words;
static _Atomic(bool) stop;

static void *guest(void *unused)
{
	(void)unused;
	while (!stop) {
		for (unsigned i = 0; i < words; i++)
			*word[i] = bad[i];
		for (unsigned k = 0; k < 3; k++) {
			for (unsigned i = 0; i < words; i++)
				*word[i] = good[i];
		}
	}
	return NULL;
}

static void flip(volatile void *where, uint32_t value)
{
	ck_assert_uint_lt(words, WORDS);
	word[words] = where;
	good[words] = *word[words];
	bad[words++] = value;
}

static int by_address(const void *left, const void *right)
{
	const struct memslot_slot *const *a = left, *const *b = right;

	return base_of(*a) < base_of(*b) ? -1 : 1;
}

static void begin(void)
{
	struct memslot_pool_opts opts =
		MEMSLOT_OPTS(memslot_pool_opts, .guard_after = MEMSLOT_NONE);
	struct memslot_heap_opts all = MEMSLOT_OPTS(memslot_heap_opts, .headroom = CAPACITY);

	words = 0;
	ck_assert_int_eq(memslot_pool_create(3, CAPACITY, &opts, &pool), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(memslot_pool_acquire(pool, NULL, CAPACITY, NULL, &slots[i]), 0);
	qsort(slots, 3, sizeof slots[0], by_address);
	memset(base_of(slots[0]), NEIGHBOUR, CAPACITY);
	memset(base_of(slots[2]), NEIGHBOUR, CAPACITY);
	ck_assert_int_eq(memslot_heap_create(slots[1], &all, &heap), 0);
}

static bool neighbours(const unsigned char *bytes)
{
	for (size_t i = 0; i < CAPACITY; i++) {
		if (bytes[i] != NEIGHBOUR)
			return false;
	}
	return true;
}

static void end(void)
{
	ck_assert(neighbours(base_of(slots[0])));
	ck_assert(neighbours(base_of(slots[2])));
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(memslot_pool_release(pool, slots[i]), 0);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}

/* Inside, and nothing of the neighbours has come into it. */
static void look_at(const unsigned char *at, size_t size, bool is_new)
{
	const unsigned char *base = base_of(slots[1]);

	if (!at || size == 0)
		return;
	ck_assert(at >= base && size <= CAPACITY && at + size <= base + CAPACITY);
	if (is_new)
		ck_assert_ptr_null(memchr(at, NEIGHBOUR, size));
}

/* The block at the end of the slot. */
static unsigned char *last_block(size_t bytes)
{
	unsigned char *last = NULL, *at;

	while ((at = memslot_heap_alloc(heap, bytes, 0)))
		last = at > last ? at : last;
	for (unsigned char *b = heap->base + heap->data; b < last; b += MS_HEAP_UNIT) {
		if (memslot_heap_usable_size(heap, b))
			memslot_heap_free(heap, b);
	}
	return last;
}

static uint32_t node_of(const void *block)
{
	return heap->grain_map[(size_t)((const unsigned char *)block - heap->base) >>
			       MS_HEAP_GRAIN_SHIFT] -
	       1;
}

static struct ms_heap_run *run_of(const void *object)
{
	return (struct ms_heap_run *)((uintptr_t)object & ~(uintptr_t)(MS_HEAP_RUN - 1));
}

/* A block whose size or place is another one at each look; and the fields that bins follow. */
static unsigned char *spoil_block(unsigned how)
{
	unsigned char *block = last_block(1024);
	struct ms_node *node = &heap->arena.nodes[node_of(block)];

	if (how & 1)
		flip(&node->size, INT32_MAX | MS_BINS_USED);
	if (how & 2)
		flip(&node->offset, 0xfffffff0u);
	if (how & 4) {
		flip(&node->left, 0x7ffffff0u);
		flip(&node->right, 0x7ffffff0u);
		flip(&node->region, 0x00fffff0u);
		flip(&node->next, 0x7ffffff0u);
		flip(&heap->state->bins.rest_first, 0x7ffffff0u);
		flip(&heap->state->bins.node_count, 0x7ffffff0u);
		flip(&heap->state->bins.resting, 999);
		flip(&heap->state->last, 0x7ffffff0u);
		flip(&heap->grain_map[(size_t)(block - heap->base) >> MS_HEAP_GRAIN_SHIFT],
			0x7ffffff0u);
	}
	return block;
}

static unsigned char *spoil_run(void)
{
	unsigned char *object = memslot_heap_alloc(heap, 64, 0);
	struct ms_heap_run *run = run_of(object);

	flip(&run->class, UINT32_MAX);
	flip(&run->hint, 0x00fffff0u);
	flip(&run->next, 0x7ffffff0u);
	flip(&run->prev, 0x0000fff0u);
	flip(&run->node, 0x7ffffff0u);
	flip(&run->free, 0);
	flip(&heap->state->partial[3], 0x7ffffff0u);
	return object;
}

/* One round of everything about an object; the heap is put back behind it. */
static void calls(unsigned char *object, size_t larger)
{
	unsigned char *moved, *at;

	for (int i = 0; i < 3000; i++) /* the shortest way to the words, so that they meet */
		look_at(object, memslot_heap_usable_size(heap, object), false);
	moved = memslot_heap_realloc(heap, object, larger);
	look_at(moved, larger, moved != object);
	at = memslot_heap_alloc(heap, 64, 0);
	look_at(at, 64, true);
	at = memslot_heap_alloc_zeroed(heap, 1, 3000);
	look_at(at, 3000, true);
	memslot_heap_free(heap, at);
	memslot_heap_free(heap, object);
	(void)memslot_heap_check(heap);
}

static void race(unsigned char *object, size_t larger)
{
	unsigned rounds = test_rounds(40);
	unsigned char *kept = malloc(CAPACITY);
	pthread_t thread;

	memcpy(kept, heap->base, heap->data);
	if (larger < 1024)
		memcpy(kept + heap->data, heap->base + heap->data, CAPACITY - heap->data);
	stop = false;
	ck_assert_int_eq(pthread_create(&thread, NULL, guest, NULL), 0);
	for (unsigned i = 0; i < rounds; i++) {
		calls(object, larger);
		memcpy(heap->base, kept, heap->data);
		if (larger < 1024)
			memcpy(run_of(object),
				kept + ((unsigned char *)run_of(object) - heap->base),
				sizeof(struct ms_heap_run));
	}
	stop = true;
	pthread_join(thread, NULL);
	free(kept);
}

START_TEST(a_block_that_changes_while_it_is_looked_at)
{
	SKIP_IF(!RACES, "it races by intent");
	begin();
	race(spoil_block((unsigned)_i + 1), 200000);
	end();
}
END_TEST

START_TEST(a_run_that_changes_while_it_is_looked_at)
{
	SKIP_IF(!RACES, "it races by intent");
	begin();
	race(spoil_run(), 400);
	end();
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_race");
	TCase *tcase = test_case(suite, "races");

	tcase_set_timeout(tcase, 600);
	tcase_add_loop_test(tcase, a_block_that_changes_while_it_is_looked_at, 0, 7);
	tcase_add_test(tcase, a_run_that_changes_while_it_is_looked_at);
	return suite;
}
