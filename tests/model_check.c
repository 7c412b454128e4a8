/* SPDX-License-Identifier: MIT */
/* model_check.c - slot against array: every byte, the edge, both guards, the dirty list, the
 * counts. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void tell_difference(const struct model_slot *slot, size_t from, size_t to)
{
	for (size_t at = from; at < to; at++) {
		if (slot->base[at] != slot->now[at])
			model_fail(
				"slot %p, page %zu, offset %#zx (size %#zx, image end %#zx): %#x, "
				"expected %#x",
				(void *)slot->base, at / test_page(), at, slot->size,
				slot->image ? slot->image->end : 0, slot->base[at], slot->now[at]);
	}
	model_fail(
		"slot %p: differed and then did not, in %#zx-%#zx", (void *)slot->base, from, to);
}

/* Compare what may be read; where the first stretch lies that differs. */
static bool find_difference(const struct model_slot *slot, size_t *ret_from, size_t *ret_to)
{
	size_t reach = model_reach(slot), step = test_page(), from = 0, to;

	while (from < reach) {
		for (to = from; to < reach && slot->pages[to / step] & PROT_READ;)
			to += step;
		if (to > from && memcmp(slot->base + from, slot->now + from, to - from) != 0) {
			*ret_from = from;
			*ret_to = to;
			return true;
		}
		from = to + step;
	}
	return false;
}

bool model_quiet, model_blind;

struct comparison {
	const struct model_slot *slot;
	size_t from, to;
	bool differs;
};

static void *compare_in_thread(void *context)
{
	struct comparison *work = context;

	work->differs = find_difference(work->slot, &work->from, &work->to);
	return NULL;
}

/*
 * Looking at every page faults many in, which moves the fault counter of the thread that looks: the
 * next reset would scan and so repair what the last one did wrong. In a quiet life another thread
 * looks (it only reads, so no page becomes private by it).
 */
static void compare_bytes(const struct model_slot *slot)
{
	struct comparison work = {.slot = slot};
	pthread_t thread;

	if (model_quiet && pthread_create(&thread, NULL, compare_in_thread, &work) == 0)
		pthread_join(thread, NULL);
	else
		compare_in_thread(&work);
	if (work.differs)
		tell_difference(slot, work.from, work.to);
}

void model_compare(const struct model_slot *slot)
{
	struct memslot_image *shown = memslot_slot_image(slot->slot);

	if (slot->unknown || slot->dead || model_blind)
		return;
	if (memslot_slot_size(slot->slot) != slot->size)
		model_fail("size %#zx, expected %#zx", memslot_slot_size(slot->slot), slot->size);
	if (slot->image ? slot->image->image && shown != slot->image->image : shown != NULL)
		model_fail("shows image %p", (void *)shown);
	compare_bytes(slot);
}

static void expect_closed(const struct model_slot *slot, const unsigned char *at)
{
	if (!model_faults(at, TEST_READ) || !model_faults(at, TEST_WRITE))
		model_fail("slot %p: offset %td is accessible (size %#zx)", (void *)slot->base,
			at - slot->base, slot->size);
}

static void probe_around(const struct model_slot *slot)
{
	unsigned char *end = slot->base + slot->reserve;

	if (slot->guard_before) {
		expect_closed(slot, slot->base - 1);
		expect_closed(slot, slot->base - slot->guard_before);
	}
	if (slot->reserve > slot->capacity) {
		expect_closed(slot, slot->base + slot->capacity);
		expect_closed(slot, end - 1);
	}
	if (slot->guard_after) {
		expect_closed(slot, end);
		expect_closed(slot, end + slot->guard_after - 1);
	}
}

void model_probe(const struct model_slot *slot)
{
	size_t reach = model_reach(slot);

	if (!test_faults_allowed() || slot->unknown || slot->dead || model_blind)
		return;
	probe_around(slot);
	if (reach < slot->capacity) {
		expect_closed(slot, slot->base + reach);
		expect_closed(slot, slot->base + slot->capacity - 1);
	}
	if (reach && slot->pages[reach / test_page() - 1] == MODEL_OPEN &&
		model_faults(slot->base + reach - 1, TEST_WRITE))
		model_fail("slot %p: the last byte faults (size %#zx)", (void *)slot->base, reach);
}

/* Which bytes does the image say? */
static bool page_differs(const struct model_slot *slot, size_t at)
{
	size_t end = slot->image ? slot->image->end : 0;

	if (at < end)
		return memcmp(slot->now + at, slot->image->bytes + at, test_page()) != 0;
	for (size_t i = 0; i < test_page(); i++) {
		if (slot->now[at + i])
			return true;
	}
	return false;
}

void model_check_runs(const struct model_slot *slot, const struct memslot_run *runs, size_t count)
{
	uint64_t at = 0;

	for (size_t i = 0; i <= count; i++) {
		uint64_t start = i < count ? runs[i].offset : slot->size;
		uint64_t end = i < count ? start + runs[i].size : slot->size;
		if (i < count && (start % test_page() || end % test_page() || end <= start ||
					 (i && start < at) || end > model_reach(slot)))
			model_fail("written: run %zu of %zu is %#zx-%#zx", i, count, (size_t)start,
				(size_t)end);
		for (; at < start && at < slot->size; at += test_page()) {
			if (page_differs(slot, at))
				model_fail("written misses page %zu", (size_t)at / test_page());
		}
		at = end > at ? end : at;
	}
}

void model_check_written(struct model_slot *slot)
{
	struct memslot_run *runs;
	size_t count = 12345, again = 12345;
	int answer = memslot_slot_written(slot->slot, NULL, 0, &count);

	if (answer == 0 ? count != 0 : count == 0 || count == 12345)
		model_fail("written: %d and count %zu", answer, count);
	model_expect(answer, count ? -ENOSPC : 0);
	runs = calloc(count + 1, sizeof *runs);
	ck_assert_ptr_nonnull(runs);
	answer = memslot_slot_written(slot->slot, runs, count, &again);
	if (answer || again != count)
		model_fail("written: %d, %zu runs after %zu", answer, again, count);
	model_check_runs(slot, runs, count);
	free(runs);
}

void model_check_stats(const struct model_slot *slot)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};
	uint64_t budget = slot->opts.copy_budget ? slot->opts.copy_budget : 16u << 20;
	uint64_t bytes,
		past = slot->opts.flags & MEMSLOT_SLOT_NO_EDGE ? 0 : slot->capacity - slot->size;

	model_expect(memslot_slot_stats(slot->slot, &stats), 0);
	bytes = stats.retained_pages * test_page();
	if (bytes > slot->capacity)
		model_fail("%#zx bytes retained of %#zx", (size_t)bytes, slot->capacity);
	if (budget == MEMSLOT_NONE)
		budget = 0;
	/* Hidden pages beyond the edge count as idle, exempt and pinned ones are kept whatever they
	 * cost. */
	if (budget != MEMSLOT_UNLIMITED && !model_is_held(slot) && !slot->locked &&
		!memchr(slot->pages, MODEL_OPEN | MODEL_EXEMPT, slot->capacity / test_page()) &&
		bytes > budget + past)
		model_fail("%#zx bytes retained, budget %#zx", (size_t)bytes, (size_t)budget);
}
