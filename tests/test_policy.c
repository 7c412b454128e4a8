/* SPDX-License-Identifier: MIT */
/*
 * test_policy.c - AUTO: what it learns from workloads, and that the bytes are right whatever it does.
 *
 * The clock stands still, so prices are the usual ones, in proportion: what is learnt depends on the
 * workload alone.
 */
#include "common.h"

#include "slot/slot.h"

#include <stdlib.h>
#include <string.h>

#define IMAGE_PAGES 256u
#define SIZE_PAGES 4096u

struct bench {
	struct memslot_slot *slot;
	struct memslot_image *image;
	unsigned char *contents, *base;
	struct test_rng rng;
	unsigned tag;
};

static void bench_begin(struct bench *bench, uint32_t flags)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .flags = flags);

	ms_os_inject.clock_stopped = true;
	bench->rng = test_rng(3);
	bench->contents = malloc(IMAGE_PAGES * test_page());
	test_fill(bench->contents, IMAGE_PAGES * test_page(), 1);
	ck_assert_int_eq(memslot_image_from_bytes(bench->contents, IMAGE_PAGES * test_page(), NULL,
					 &bench->image), 0);
	ck_assert_int_eq(memslot_slot_create(SIZE_PAGES * test_page(), &opts, &bench->slot), 0);
	ck_assert_int_eq(memslot_slot_instantiate(bench->slot, bench->image, SIZE_PAGES * test_page()), 0);
	bench->base = memslot_slot_base(bench->slot);
}

static void bench_end(struct bench *bench)
{
	ck_assert_int_eq(memslot_slot_destroy(bench->slot), 0);
	memslot_image_unref(bench->image);
	free(bench->contents);
}

static void write_page(struct bench *bench, size_t page)
{
	bench->base[page * test_page() + 17] ^= (unsigned char)(1 + bench->tag++ % 255);
}

static void assert_pristine(const struct bench *bench)
{
	size_t image = IMAGE_PAGES * test_page(), size = SIZE_PAGES * test_page();

	ck_assert(test_same(bench->base, bench->contents, image));
	ck_assert(test_zero(bench->base + image, size - image));
}

/* One run: `count` pages, fixed or random ones below `among`. */
static void run(struct bench *bench, size_t count, size_t among)
{
	for (size_t i = 0; i < count; i++)
		write_page(bench, among ? test_below(&bench->rng, among) : i);
	ck_assert_int_eq(memslot_slot_reset(bench->slot), 0);
}

static void runs(struct bench *bench, unsigned times, size_t count, size_t among)
{
	for (unsigned i = 0; i < times; i++)
		run(bench, count, among);
	assert_pristine(bench);
}

START_TEST(a_fixed_set_is_kept_and_restored)
{
	struct bench bench;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	bench_begin(&bench, MEMSLOT_SLOT_CONFINED);
	runs(&bench, 500, 16, 0);
	ck_assert(!bench.slot->policy.drop);
	ck_assert_uint_eq(bench.slot->retained.count, 16);
	ck_assert_uint_eq(bench.slot->stats.resets_drop, 0);
	bench_end(&bench);
}
END_TEST

START_TEST(few_random_pages_of_many_are_dropped)
{
	struct bench bench;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	bench_begin(&bench, MEMSLOT_SLOT_CONFINED);
	runs(&bench, 3000, 4, SIZE_PAGES);
	ck_assert_uint_gt(bench.slot->stats.resets_drop, 1000);
	bench_end(&bench);
}
END_TEST

START_TEST(a_dropping_slot_finds_out_that_keeping_pays_again)
{
	struct bench bench;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	bench_begin(&bench, MEMSLOT_SLOT_CONFINED);
	bench.slot->policy.drop = true;
	bench.slot->policy.drops_left = 8;
	runs(&bench, 300, 16, 0);
	ck_assert(!bench.slot->policy.drop);
	ck_assert(!bench.slot->policy.trial);
	ck_assert_uint_eq(bench.slot->retained.count, 16);
	bench_end(&bench);
}
END_TEST

START_TEST(pages_that_are_no_longer_written_leave_the_set)
{
	struct bench bench;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	bench_begin(&bench, MEMSLOT_SLOT_CONFINED);
	runs(&bench, 50, 512, 0);
	runs(&bench, 300, 8, 0);
	ck_assert_uint_lt(bench.slot->retained.count, 64);
	bench_end(&bench);
}
END_TEST

/* Everything behind the first `hot` retained pages has not been written for long. */
static void grow_old(struct memslot_slot *slot, size_t hot)
{
	slot->policy.inspecting = true;
	slot->policy.loss = 0;
	slot->policy.idle = 1000;
	slot->policy.back = 0;
	for (size_t i = hot; i < slot->retained.count; i++)
		slot->retained.mark[i] = MS_MARK_AGE - 1;
}

/* An evicted page that were not released would be found by the next scan, which hides the mistake; so
 * look at once: evicted pages are no longer private. */
START_TEST(an_evicted_page_is_no_longer_private)
{
	struct memslot_run listed[16];
	struct bench bench;
	size_t count, pages = 0;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	bench_begin(&bench, MEMSLOT_SLOT_CONFINED);
	runs(&bench, 3, 512, 0);
	grow_old(bench.slot, 8);
	run(&bench, 8, 0);
	ck_assert_uint_lt(bench.slot->retained.count, 64);
	ck_assert_int_eq(memslot_slot_written(bench.slot, listed, 16, &count), 0);
	for (size_t i = 0; i < count; i++)
		pages += listed[i].size / test_page();
	ck_assert_uint_eq(pages, bench.slot->retained.count);
	assert_pristine(&bench);
	bench_end(&bench);
}
END_TEST

START_TEST(what_a_run_only_read_does_not_stay_in_the_way_of_scans)
{
	volatile unsigned char sum = 0;
	struct bench bench;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	bench_begin(&bench, 0);
	runs(&bench, 50, 16, 0);
	for (size_t page = IMAGE_PAGES; page < SIZE_PAGES; page++)
		sum = (unsigned char)(sum + bench.base[page * test_page()]);
	bench.slot->policy.scan_ns = 1e6f; /* as if scans had become dear */
	bench.slot->policy.scan_floor = 1e3f;
	bench.slot->policy.clean_pause = 0;
	bench.slot->stats.bytes_dropped = 0;
	for (unsigned i = 0; i < 3; i++)
		run(&bench, 16, 0);
	ck_assert_uint_ge(bench.slot->stats.bytes_dropped, (SIZE_PAGES - IMAGE_PAGES) * test_page() / 2);
	assert_pristine(&bench);
	bench_end(&bench);
}
END_TEST

START_TEST(whatever_auto_does_the_bytes_are_right)
{
	static const uint32_t flags[] = {MEMSLOT_SLOT_CONFINED, 0};
	struct bench bench;

	bench_begin(&bench, flags[_i]);
	for (unsigned i = 0; i < test_rounds(30); i++) {
		size_t count = 1 + test_below(&bench.rng, 64);
		size_t among = test_below(&bench.rng, 2) ? 0 : count + test_below(&bench.rng, 1024);
		runs(&bench, 1 + (unsigned)test_below(&bench.rng, 60), count, among);
	}
	bench_end(&bench);
}
END_TEST

START_TEST(prices_are_positive)
{
	const struct ms_prices *prices = ms_price_list();

	ck_assert(prices->fault > 0 && prices->drop_call > 0 && prices->drop_page > 0);
	ck_assert(prices->restore > 0 && prices->scan > 0);
	ck_assert_ptr_eq(prices, ms_price_list());
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("policy");
	TCase *learns = test_case(suite, "learns"), *bytes = test_case(suite, "bytes");

	tcase_add_test(learns, a_fixed_set_is_kept_and_restored);
	tcase_add_test(learns, few_random_pages_of_many_are_dropped);
	tcase_add_test(learns, a_dropping_slot_finds_out_that_keeping_pays_again);
	tcase_add_test(learns, pages_that_are_no_longer_written_leave_the_set);
	tcase_add_test(learns, an_evicted_page_is_no_longer_private);
	tcase_add_test(learns, what_a_run_only_read_does_not_stay_in_the_way_of_scans);
	tcase_add_test(learns, prices_are_positive);
	tcase_add_loop_test(bytes, whatever_auto_does_the_bytes_are_right, 0, 2);
	return suite;
}
