/* SPDX-License-Identifier: MIT */
/*
 * test_ranges_zero.c - ZERO and ZERO_ON_FREE where others come between: a call in the middle of the
 * clearing, slots that somebody gave an image or exempt pages.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define BYTES (16 * test_page())

static struct memslot_ranges *ranges;

static struct memslot_ranges *ranges_new(uint32_t flags, struct memslot_pool *pool)
{
	struct memslot_ranges_opts opts =
		MEMSLOT_OPTS(memslot_ranges_opts, .flags = flags, .pool = pool);
	struct memslot_ranges *made = NULL;

	ck_assert_int_eq(memslot_ranges_create(&opts, &made), 0);
	return made;
}

static struct memslot_range zeros(size_t size)
{
	struct memslot_range_opts opts =
		MEMSLOT_OPTS(memslot_range_opts, .flags = MEMSLOT_RANGE_ZERO);
	struct memslot_range range;

	ck_assert_int_eq(memslot_ranges_alloc(ranges, size, 0, &opts, &range), 0);
	ck_assert(test_zero(range.base, range.size));
	return range;
}

/* --- in the middle --- */

static unsigned char *closed_page;
static int answers[4];
static volatile sig_atomic_t faults;

/* The clearing has come to a page that faults: what may others do now? */
static void ask(int signal, siginfo_t *info, void *context)
{
	struct memslot_range range;

	(void)signal, (void)context;
	if (info->si_addr != closed_page || faults++)
		_exit(9);
	answers[0] = memslot_ranges_reset(ranges);
	answers[1] = memslot_ranges_close(ranges, NULL);
	answers[2] = memslot_ranges_find(ranges, closed_page, &range);
	answers[3] = memslot_ranges_drain(ranges, 5);
	if (mprotect(closed_page, test_page(), PROT_READ | PROT_WRITE))
		_exit(9);
}

START_TEST(a_range_that_is_being_cleared_is_nobodys_and_its_region_stays)
{
	struct sigaction action = {.sa_sigaction = ask, .sa_flags = SA_SIGINFO}, before;
	unsigned char *base = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memslot_expansion *expansion;
	struct memslot_range range;
	uint64_t busy = 9;

	SKIP_IF(!test_faults_allowed(), "it faults");
	ck_assert_ptr_ne(base, MAP_FAILED);
	test_fill(base, BYTES, 3);
	ranges = ranges_new(0, NULL);
	ck_assert_int_eq(memslot_ranges_expand_begin(ranges, BYTES, &expansion), 0);
	ck_assert_int_eq(memslot_expansion_commit(expansion, base, 5), 0);
	closed_page = base + 4 * test_page();
	ck_assert_int_eq(mprotect(closed_page, test_page(), PROT_NONE), 0);
	ck_assert_int_eq(sigaction(SIGSEGV, &action, &before), 0);
	range = zeros(BYTES);
	ck_assert_int_eq(sigaction(SIGSEGV, &before, NULL), 0);
	ck_assert_int_eq(faults, 1);
	ck_assert_int_eq(answers[0], -EBUSY);
	ck_assert_int_eq(answers[1], -EBUSY);
	ck_assert_int_eq(answers[2], -ENOENT);
	ck_assert_int_eq(answers[3], 0); /* goes when the range has come back */
	ck_assert_int_eq(memslot_ranges_find(ranges, base, &range), 0);
	ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	ck_assert_int_eq(memslot_ranges_drain(ranges, 5), -ENOENT);
	ck_assert_int_eq(memslot_ranges_close(ranges, &busy), 0);
	munmap(base, BYTES);
}
END_TEST

/* --- slots that do not show zeros --- */

static struct memslot_slot *slot_of(const struct memslot_range *range)
{
	struct memslot_region region = {.size = sizeof region};

	ck_assert_int_eq(memslot_ranges_region(ranges, range, &region), 0);
	return region.slot;
}

static void with_image(struct memslot_slot *slot)
{
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
}

static void with_exempt_pages(struct memslot_slot *slot)
{
	ck_assert_int_eq(memslot_slot_exempt(slot, 0, 4 * test_page()), 0);
}

START_TEST(slots_that_keep_something_are_cleared)
{
	static void (*const ways[])(struct memslot_slot *slot) = {with_image, with_exempt_pages};
	static const uint32_t flags[] = {0, MEMSLOT_RANGES_ZERO_ON_FREE};
	struct memslot_pool *pool;
	struct memslot_range range;

	ck_assert_int_eq(memslot_pool_create(1, BYTES, NULL, &pool), 0);
	ranges = ranges_new(flags[_i / 2], pool);
	range = zeros(BYTES / 2);
	test_fill(range.base, range.size, 4);
	ways[_i % 2](slot_of(&range));
	ck_assert_int_eq(memslot_ranges_reset(ranges), 0);
	if (flags[_i / 2]) {
		ck_assert_int_eq(memslot_ranges_alloc(ranges, BYTES / 2, 0, NULL, &range), 0);
		ck_assert(test_zero(range.base, range.size));
		ck_assert_int_eq(memslot_ranges_free(ranges, &range), 0);
	}
	range = zeros(BYTES / 2);
	ck_assert_int_eq(memslot_ranges_close(ranges, NULL), 0);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("zeros of ranges");
	TCase *tcase = test_case(suite, "zeros");

	tcase_add_test(tcase, a_range_that_is_being_cleared_is_nobodys_and_its_region_stays);
	tcase_add_loop_test(tcase, slots_that_keep_something_are_cleared, 0, 4);
	return suite;
}
