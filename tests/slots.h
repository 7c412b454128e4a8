/* SPDX-License-Identifier: MIT */
/* slots.h - helpers for tests of slots: every kind of slot, images of known bytes. See slots.c. */
#ifndef TESTS_SLOTS_H
#define TESTS_SLOTS_H

#include "common.h"

#include <sys/mman.h>

#define PAGES(n) ((size_t)(n) * test_page())
#define RW (PROT_READ | PROT_WRITE)

/*
 * Every kind of slot that resets differently: three edges x confined or not x four methods. Tests of
 * contents are loop tests over all of them; in a brief run (common.h) over a third, other ones for
 * each test.
 */
#define SLOT_EDGES 3   /* marker, mprotect, none */
#define SLOT_KINDS (SLOT_EDGES * 2 * 4)
#define BIG_RESERVE (4u << 20) /* more than a marker edge takes */

void each_kind(TCase *tcase, const TTest *test);
/* `times` loops a kind: _i is kind * times + 0 .. times - 1. */
void each_kind_times(TCase *tcase, const TTest *test, int times);

struct memslot_slot_opts kind_opts(int kind); /* may be changed before slot_new */
bool kind_has_edge(int kind);
bool kind_is_confined(int kind);
uint32_t kind_method(int kind);
struct memslot_slot *slot_of_kind(int kind, size_t capacity);

struct memslot_slot *slot_new(size_t capacity, const struct memslot_slot_opts *opts);
unsigned char *base_of(const struct memslot_slot *slot);
struct memslot_slot_stats stats_of(const struct memslot_slot *slot);
void instantiate(struct memslot_slot *slot, struct memslot_image *image, size_t size);
void reset(struct memslot_slot *slot);
void destroy(struct memslot_slot *slot);

/* `count` pages at page `first`, filled with test_fill(tag). */
struct memslot_image *image_of(size_t first, size_t count, unsigned tag);

/* Write one byte into each page of [first, first + count), every `step`-th. */
void dirty_pages(struct memslot_slot *slot, size_t first, size_t count, size_t step);
/* Write every byte of [0, size). */
void dirty_all(struct memslot_slot *slot);

/* Does the slot show exactly image_of(first, count, tag), and zeros around it up to `size`? */
#define assert_shows(slot, first, count, tag, size)                                                \
	ck_assert_msg(slot_shows(slot, first, count, tag, size), "wrong contents")
bool slot_shows(const struct memslot_slot *slot, size_t first, size_t count, unsigned tag,
		size_t size);
#define assert_zeros(slot, size) assert_shows(slot, 0, 0, 0, size)

#endif
