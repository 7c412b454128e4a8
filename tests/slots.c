/* SPDX-License-Identifier: MIT */
/* slots.c - helpers for tests of slots. */
#define _GNU_SOURCE
#include "slots.h"

#include <stdlib.h>
#include <string.h>

void each_kind_times(TCase *tcase, const TTest *test, int times)
{
	int turn = 0;

	for (const char *letter = test->name; *letter; letter++)
		turn += *letter;
	for (int kind = 0; kind < SLOT_KINDS; kind++) {
		/* Of each edge some, of each method some. */
		if (!test_is_brief() || (turn + kind + kind / SLOT_EDGES) % 3 == 0)
			tcase_add_loop_test(tcase, test, kind * times, (kind + 1) * times);
	}
}

void each_kind(TCase *tcase, const TTest *test)
{
	each_kind_times(tcase, test, 1);
}

struct memslot_slot_opts kind_opts(int kind)
{
	static const uint64_t reserves[SLOT_EDGES] = {0, BIG_RESERVE, 0};
	int edge = kind % SLOT_EDGES;

	return (struct memslot_slot_opts){
			.size = sizeof(struct memslot_slot_opts),
			.flags = (edge == 2 ? MEMSLOT_SLOT_NO_EDGE : 0) |
					(kind_is_confined(kind) ? MEMSLOT_SLOT_CONFINED : 0),
			.reserve = reserves[edge],
			.reset_method = kind_method(kind),
	};
}

bool kind_has_edge(int kind)
{
	return kind % SLOT_EDGES != 2;
}

bool kind_is_confined(int kind)
{
	return kind / SLOT_EDGES % 2 == 1;
}

uint32_t kind_method(int kind)
{
	return (uint32_t)kind / SLOT_EDGES / 2;
}

struct memslot_slot *slot_of_kind(int kind, size_t capacity)
{
	struct memslot_slot_opts opts = kind_opts(kind);

	if (opts.reserve && opts.reserve < capacity)
		opts.reserve = capacity;
	return slot_new(capacity, &opts);
}

struct memslot_slot *slot_new(size_t capacity, const struct memslot_slot_opts *opts)
{
	struct memslot_slot *slot = NULL;

	ck_assert_int_eq(memslot_slot_create(capacity, opts, &slot), 0);
	ck_assert_ptr_nonnull(slot);
	return slot;
}

unsigned char *base_of(const struct memslot_slot *slot)
{
	return memslot_slot_base(slot);
}

struct memslot_slot_stats stats_of(const struct memslot_slot *slot)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_slot_stats(slot, &stats), 0);
	return stats;
}

void instantiate(struct memslot_slot *slot, struct memslot_image *image, size_t size)
{
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, size), 0);
}

void reset(struct memslot_slot *slot)
{
	ck_assert_int_eq(memslot_slot_reset(slot), 0);
}

void destroy(struct memslot_slot *slot)
{
	ck_assert_int_eq(memslot_slot_destroy(slot), 0);
}

struct memslot_image *image_of(size_t first, size_t count, unsigned tag)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts, .slot_offset = PAGES(first));
	unsigned char *bytes = malloc(PAGES(count));
	struct memslot_image *image = NULL;

	ck_assert_ptr_nonnull(bytes);
	test_fill(bytes, PAGES(count), tag);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, PAGES(count), &opts, &image), 0);
	free(bytes);
	return image;
}

void dirty_pages(struct memslot_slot *slot, size_t first, size_t count, size_t step)
{
	for (size_t i = 0; i < count; i += step)
		((volatile unsigned char *)base_of(slot))[PAGES(first + i) + i % 100] = 0xdd;
}

void dirty_all(struct memslot_slot *slot)
{
	memset(base_of(slot), 0xdd, memslot_slot_size(slot));
}

bool slot_shows(const struct memslot_slot *slot, size_t first, size_t count, unsigned tag,
		size_t size)
{
	const unsigned char *base = base_of(slot), *image = base + PAGES(first);
	size_t end = PAGES(first + count);

	if (memslot_slot_size(slot) != (size + test_page() - 1) / test_page() * test_page())
		return false;
	size = memslot_slot_size(slot);
	if (count == 0)
		return test_zero(base, size);
	return test_zero(base, PAGES(first)) && test_filled(image, PAGES(count), tag) &&
			test_zero(base + end, size - end);
}
