/* SPDX-License-Identifier: MIT */
/*
 * test_heap_hostile.c - every byte of a heap's state overwritten by the guest it belongs to, then
 * every call: see heap_enemy.h. tests/fuzz_heap.c replays what was found once.
 */
#define _GNU_SOURCE
#include "common.h"
#include "heap_enemy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* A commit of which the bins cannot be told is taken back. */
START_TEST(what_could_not_be_used_is_not_committed)
{
	struct memslot_heap *heap = enemy_heap();
	size_t size = memslot_slot_size(heap->slot);
	uint32_t last = heap->state->last;
	void *at;

	heap->state->last = MS_BINS_NONE;
	ck_assert_ptr_eq(memslot_heap_alloc(heap, size / 2, 0), NULL);
	ck_assert_uint_eq(memslot_slot_size(heap->slot), size);
	heap->state->last = last;
	ck_assert_int_eq(memslot_heap_check(heap), 0);
	at = memslot_heap_alloc(heap, size / 2, 0);
	ck_assert_ptr_nonnull(at);
	ck_assert_uint_gt(memslot_slot_size(heap->slot), size);
	memset(at, 1, size / 2);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
}
END_TEST

/* --- out of a file --- */

static char path[] = "/tmp/memslot-hostile-XXXXXX";

/* Some bytes of the contents change: of the heap's state, mostly. */
static void damage(struct test_rng *rng)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	off_t size = lseek(fd, 0, SEEK_END), first = (off_t)test_page();

	ck_assert_int_gt(size, 2 * first);
	for (uint64_t i = 1 + test_below(rng, 5); i; i--) {
		uint64_t room = test_below(rng, 3) ? 6000 : (uint64_t)(size - first);
		uint8_t byte = (uint8_t)(test_below(rng, 2) ? test_next(rng) : 0xff);
		ck_assert_int_eq(pwrite(fd, &byte, 1, first + (off_t)test_below(rng, room)), 1);
	}
	close(fd);
}

/* A heap, or one of the errors that open may tell. */
static bool open_damaged(struct memslot_slot *slot)
{
	struct memslot_image *image = NULL;
	struct memslot_heap *heap = NULL;
	int error = memslot_image_open(path, NULL, &image);

	ck_assert(error == 0 || error == -EUCLEAN || error == -EBADMSG);
	if (error)
		return false;
	error = memslot_slot_instantiate(slot, image, memslot_image_size(image));
	memslot_image_unref(image);
	ck_assert_int_eq(error, 0);
	error = memslot_heap_open(slot, &heap);
	ck_assert(error == 0 || error == -EUCLEAN || error == -ESTALE || error == -EADDRNOTAVAIL ||
		  error == -EMSGSIZE);
	ck_assert_int_eq(error == 0, heap != NULL);
	if (error)
		return false;
	for (size_t size = 1; size < 100000; size *= 3)
		memslot_heap_free(
			heap, memslot_heap_realloc(heap, memslot_heap_alloc(heap, size, 0), 77));
	memslot_heap_close(heap);
	return true;
}

START_TEST(a_damaged_file_is_refused_or_works)
{
	struct memslot_heap *heap = enemy_heap();
	struct test_rng rng = test_rng(33);
	struct memslot_image *image;
	unsigned rounds = test_rounds(300), worked = 0;

	ck_assert_int_eq(memslot_slot_capture(heap->slot, NULL, &image), 0);
	close(mkstemp(path));
	for (unsigned i = 0; i < rounds; i++) {
		ck_assert_int_eq(memslot_image_save(image, path), 0);
		if (i)
			damage(&rng);
		worked += open_damaged(heap->slot);
		ck_assert(i || worked);
	}
	ck_assert(rounds < 100 || (worked > 1 && worked < rounds));
	unlink(path);
	memslot_image_unref(image);
}
END_TEST

/* --- check sees it --- */

/* One word is changed, looked at, and put back. */
static void assert_seen(const char *what, volatile void *where, uint32_t value)
{
	void *word = (void *)where;
	struct memslot_heap *heap = enemy_heap(), *again;
	uint32_t before;

	ck_assert_int_eq(memslot_heap_check(heap), 0);
	memcpy(&before, word, sizeof before);
	memcpy(word, &value, sizeof value);
	ck_assert_msg(memslot_heap_check(heap) == -EUCLEAN, "not seen: %s", what);
	ck_assert_int_eq(memslot_heap_open(heap->slot, &again), -EUCLEAN);
	memcpy(word, &before, sizeof before);
	ck_assert_int_eq(memslot_heap_check(heap), 0);
}

static uint32_t some_block(const struct memslot_heap *heap)
{
	for (uint32_t grain = 0;; grain++) {
		if (heap->grain_map[grain])
			return grain;
	}
}

static struct ms_heap_run *some_run(const struct memslot_heap *heap)
{
	uintptr_t number = (uintptr_t)heap->base >> MS_HEAP_RUN_SHIFT;

	for (const volatile uint8_t *class = heap->run_map; *class == 0; class ++)
		number++;
	return (struct ms_heap_run *)(number << MS_HEAP_RUN_SHIFT);
}

START_TEST(check_sees_what_is_wrong)
{
	struct memslot_heap *heap = enemy_heap();
	struct ms_heap_state *state = heap->state;
	uint32_t grain = some_block(heap), block = heap->grain_map[grain] - 1;
	struct ms_node *node = &heap->arena.nodes[block];
	struct ms_heap_run *run = some_run(heap);

	assert_seen("live", &state->live, (uint32_t)state->live + 1);
	assert_seen("live_bytes", &state->live_bytes, 0);
	assert_seen("capacity", &state->capacity, 4096);
	assert_seen("high", &state->high, UINT32_MAX);
	assert_seen("first", &state->first, state->last);
	assert_seen("last", &state->last, state->first);
	assert_seen("a block without its grain", &heap->grain_map[grain], 0);
	assert_seen("a grain without a block", &heap->grain_map[grain + 1], 1);
	assert_seen("another block's", &heap->grain_map[grain], block + 2);
	assert_seen("beyond the nodes", &heap->grain_map[grain], UINT32_MAX);
	assert_seen("a run's class", &run->class, run->class + 1);
	assert_seen("how many are free", &run->free, run->free + 1);
	assert_seen("a run's node", &run->node, run->node + 1);
	assert_seen("a run's map", run->map, ~(uint32_t)run->map[0]);
	assert_seen("beyond a run's objects", &run->map[15], UINT32_MAX);
	assert_seen("where to look", &run->hint, 16);
	assert_seen("a run in front", &run->prev, 0);
	assert_seen("runs with room", &state->partial[run->class], 99);
	assert_seen("runs without room", &state->partial[31], 1);
	assert_seen("a node's size", &node->size, node->size + 1);
	assert_seen("its use", &node->size, ms_bins_size(node));
	assert_seen("its place", &node->offset, node->offset + 1);
	assert_seen("its left", &node->left, MS_BINS_NONE);
	assert_seen("its right", &node->right, node->right + 1);
	assert_seen("its region", &node->region, 1);
	assert_seen("how many nodes", &state->bins.node_count, 3);
	assert_seen("no such node", &state->bins.node_count, UINT32_MAX);
	assert_seen("free units", &state->bins.free_units, 0);
	assert_seen("live units", &state->bins.live_units, 0);
	assert_seen("used nodes", &state->bins.live, 0);
}
END_TEST

/* A capacity for which there is no layout, and a state that fits what is left of one. */
START_TEST(a_heap_larger_than_any_is_refused)
{
	struct memslot_heap *heap = (struct memslot_heap *)1;
	struct ms_heap_state *state;
	struct memslot_slot *slot;

	SKIP_IF(memslot_slot_create((size_t)40 << 30, NULL, &slot),
		"no room for 40 GiB of addresses");
	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, 1u << 20), 0);
	state = memslot_slot_base(slot);
	state->magic = MS_HEAP_MAGIC;
	state->address = (uintptr_t)state;
	state->capacity = 33ull << 30;
	state->bins.free_units = (1u << 20) >> MS_HEAP_UNIT_SHIFT;
	ck_assert_int_eq(memslot_heap_open(slot, &heap), -EUCLEAN);
	ck_assert_ptr_eq(heap, (struct memslot_heap *)1);
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("heap_hostile");
	TCase *tcase = test_case(suite, "hostile");

	tcase_set_timeout(tcase, 3600);
	tcase_add_test(tcase, what_could_not_be_used_is_not_committed);
	tcase_add_test(tcase, a_damaged_file_is_refused_or_works);
	tcase_add_test(tcase, check_sees_what_is_wrong);
	tcase_add_test(tcase, a_heap_larger_than_any_is_refused);
	tcase_add_test(tcase, random_lives_of_hostile_guests);
	tcase_add_loop_test(tcase, every_word_of_the_state_is_spoilt, 0, ENEMY_PLACES);
	return suite;
}
