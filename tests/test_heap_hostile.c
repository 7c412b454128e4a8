/* SPDX-License-Identifier: MIT */
/*
 * test_heap_hostile.c - every byte of a heap's state overwritten by the guest it belongs to, then
 * every call: see heap_enemy.h. tests/fuzz_heap.c replays what was found once.
 */
#define _GNU_SOURCE
#include "common.h"
#include "heap_enemy.h"

#include <string.h>

/* What a guest does next: alloc, realloc, free and questions about old and new objects. */
static void go_on(struct test_rng *rng, uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)test_next(rng);
}

START_TEST(random_lives_of_hostile_guests)
{
	struct test_rng rng = test_rng(31);
	uint8_t bytes[900];

	for (unsigned round = test_rounds(8000); round; round--) {
		size_t size = 1 + test_below(&rng, sizeof bytes);
		go_on(&rng, bytes, size);
		enemy_run(bytes, size);
	}
}
END_TEST

/* Every word of the small tables once, each with what means something there. */
START_TEST(every_word_of_the_state_is_spoilt)
{
	static const uint32_t values[] = {
		0, 1, 5, 33, UINT32_MAX, MS_BINS_USED | 7, INT32_MAX, 1024};
	static const size_t bytes[ENEMY_PLACES] = {sizeof(struct ms_heap_state),
		sizeof(struct ms_bins), 100 * sizeof(struct ms_node), 1024, 64,
		16 * sizeof(struct ms_heap_run), 4096, 4000};
	struct test_rng rng = test_rng(32);
	unsigned every = 100 / test_rounds(10);
	uint8_t calls[200];

	enemy_heap();
	for (size_t at = 0; at < bytes[_i]; at += 4) {
		for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
			if (every && test_below(&rng, every))
				continue;
			enemy_spoil((unsigned)_i, (uint32_t)at, values[i], 4);
			go_on(&rng, calls, sizeof calls);
			for (size_t k = 0; k < sizeof calls; k += 7)
				calls[k] = (uint8_t)(calls[k] | 2); /* seldom spoil more */
			enemy_run(calls, sizeof calls);
		}
	}
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_hostile");
	TCase *tcase = test_case(suite, "hostile");

	tcase_set_timeout(tcase, 3600);
	tcase_add_test(tcase, random_lives_of_hostile_guests);
	tcase_add_loop_test(tcase, every_word_of_the_state_is_spoilt, 0, ENEMY_PLACES);
	return suite;
}
