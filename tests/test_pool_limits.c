/* SPDX-License-Identifier: MIT */
/*
 * test_pool_limits.c - very many slots, very large ones, and the bill for them.
 *
 * In long runs (MEMSLOT_TEST_ROUNDS 10 and more) a million, and copied images in all of 200,000.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define SMALL ((size_t)64 << 10)

static bool is_long(void)
{
	return test_rounds(10) >= 100;
}

static struct memslot_plan plan_of(uint32_t count, size_t capacity,
		const struct memslot_image *image, const struct memslot_pool_opts *opts)
{
	struct memslot_plan plan = {.size = sizeof plan};

	ck_assert_int_eq(memslot_pool_plan(count, capacity, image, opts, &plan), 0);
	return plan;
}

static unsigned vmas_of_process(void)
{
	return test_vma_count(NULL, SIZE_MAX);
}

/* All out at once: each shows the image, ends where it should, and the kernel hardly notices. */
static void all_out(uint32_t count, struct memslot_image *image)
{
	unsigned before = vmas_of_process(), vmas;
	struct memslot_slot **slots = calloc(count, sizeof slots[0]);
	struct memslot_pool *pool;

	ck_assert_int_eq(memslot_pool_create(count, SMALL, NULL, &pool), 0);
	for (uint32_t i = 0; i < count; i++)
		ck_assert_int_eq(memslot_pool_acquire(pool, image, SMALL, NULL, &slots[i]), 0);
	vmas = vmas_of_process();
	ck_assert_msg(vmas < 2000, "%u mappings", vmas);
	for (uint32_t i = 0; i < count; i += 1 + count / 500) {
		unsigned char *base = base_of(slots[i]);
		ck_assert(slot_shows(slots[i], 0, image ? 4 : 0, 4, SMALL));
		ck_assert(syscall_faults_at(base + SMALL) && (i == 0 || syscall_faults_at(base - 1)));
		base[0] ^= 1;
	}
	for (uint32_t i = 0; i < count; i++)
		ck_assert_int_eq(memslot_pool_release(pool, slots[i]), 0);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
	ck_assert_uint_le(vmas_of_process(), before + 2);
	free(slots);
}

START_TEST(two_hundred_thousand_guarded_slots_in_few_mappings)
{
	NEED_FEATURE("guard_install");
	SKIP_IF(test_sanitized() || !test_faults_allowed(), "shadow memory for so many would not fit");
	all_out(test_is_brief() ? 20000 : is_long() ? 1000000 : 200000, NULL);
}
END_TEST

START_TEST(and_with_an_image_copied_into_each)
{
	struct memslot_image *image;
	struct sysinfo info;
	uint32_t count = is_long() ? 200000 : 20000;

	NEED_FEATURE("guard_install");
	SKIP_IF(test_sanitized() || !test_faults_allowed(), "shadow memory for so many would not fit");
	ck_assert_int_eq(sysinfo(&info), 0);
	SKIP_IF(info.freeram * info.mem_unit / 20000 < count, "not enough memory for 20 KB each");
	image = image_of(0, 4, 4);
	all_out(count, image);
	memslot_image_unref(image);
}
END_TEST

/* An engine's windows: as many as the plan says can be had. */
START_TEST(the_plan_says_how_many_large_windows_fit)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .reserve = 4ull << 30,
			.guard_after = 32u << 20);
	struct memslot_plan plan = plan_of(1u << 20, 1u << 20, NULL, &opts);
	struct memslot_pool *pool;
	struct memslot_slot *slot;

	SKIP_IF(test_sanitized() || !test_faults_allowed(), "the address space is used otherwise");
	ck_assert_uint_eq(plan.stride, (4ull << 30) + (32u << 20));
	ck_assert_uint_gt(plan.count, 30000);
	ck_assert_uint_lt(plan.count, (1ull << 47) / plan.stride);
	SKIP_IF(test_is_brief(), "once is enough");
	ck_assert_int_eq(memslot_pool_create((uint32_t)plan.count, 1u << 20, &opts, &pool), 0);
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(memslot_pool_acquire(pool, NULL, 1u << 20, NULL, &slot), 0);
		assert_open(base_of(slot));
		assert_closed(base_of(slot) + (1u << 20));
		ck_assert_int_eq(memslot_slot_resize(slot, (1u << 20) + 1), -EMSGSIZE);
		if (i % 2)
			ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
	}
	ck_assert_int_eq(memslot_pool_destroy(pool), -EBUSY);
}
END_TEST

START_TEST(the_plan_counts_mappings)
{
	struct memslot_image *small = image_of(0, 4, 4), *large = image_of(4, 100, 5);
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .reserve = BIG_RESERVE);
	struct memslot_plan plan = {.size = sizeof plan};

	NEED_FEATURE("guard_install");
	ck_assert_uint_eq(plan_of(200000, SMALL, NULL, NULL).count, 200000);
	ck_assert_uint_lt(plan_of(200000, SMALL, NULL, NULL).vmas, 10);
	ck_assert_uint_lt(plan_of(200000, SMALL, small, NULL).vmas, 10);
	ck_assert_uint_eq(plan_of(10, SMALL, NULL, NULL).worst_resident_bytes, 10 * SMALL);
	ck_assert_uint_eq(plan_of(10, SMALL, NULL, NULL).stride, SMALL + (64 << 10));
	ck_assert_uint_eq(plan_of(10, SMALL, NULL, NULL).address_space, 10 * (SMALL + (64 << 10)));
	ck_assert_uint_lt(plan_of(200000, PAGES(200), large, NULL).count, 40000);
	ck_assert_uint_lt(plan_of(200000, PAGES(200), NULL, &opts).count, 40000);
	ck_assert_int_eq(memslot_pool_plan(0, SMALL, NULL, NULL, &plan), -EINVAL);
	ck_assert_int_eq(memslot_pool_plan(1, SMALL, NULL, NULL, NULL), -EINVAL);
	ck_assert_int_eq(memslot_pool_plan(1, SMALL, large, NULL, &plan), -EMSGSIZE);
	memslot_image_unref(small);
	memslot_image_unref(large);
}
END_TEST

/* As many as the plan says are out with a mapped image; beyond that an error, and nothing breaks. */
START_TEST(beyond_the_mappings_there_are_acquire_is_enomem)
{
	struct memslot_image *image;
	struct memslot_plan plan;
	struct memslot_slot **slots;
	struct memslot_pool *pool;
	uint32_t out = 0;
	int error = 0;

	SKIP_IF(test_is_brief() || !test_faults_allowed(), "once is enough");
	image = image_of(4, 100, 5);
	plan = plan_of(60000, PAGES(120), image, NULL);
	slots = calloc(60000, sizeof slots[0]);
	ck_assert_int_eq(memslot_pool_create(60000, PAGES(120), NULL, &pool), 0);
	while (out < 60000 && !error) {
		error = memslot_pool_acquire(pool, image, PAGES(120), NULL, &slots[out]);
		out += error == 0;
	}
	ck_assert_int_eq(error, -ENOMEM);
	ck_assert_uint_ge(out, plan.count);
	for (uint32_t i = 0; i < out; i += 997)
		ck_assert(slot_shows(slots[i], 4, 100, 5, PAGES(120)));
	for (uint32_t i = 0; i < out; i++)
		ck_assert_int_eq(memslot_pool_release(pool, slots[i]), 0);
	ck_assert_int_eq(memslot_pool_forget(pool, image, NULL), 0);
	ck_assert_int_eq(memslot_pool_acquire(pool, image, PAGES(120), NULL, &slots[0]), 0);
	ck_assert(slot_shows(slots[0], 4, 100, 5, PAGES(120)));
	ck_assert_int_eq(memslot_pool_release(pool, slots[0]), 0);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
	memslot_image_unref(image);
	free(slots);
}
END_TEST

/* Invariant 22: a limit on data refuses the writable reservation. */
static int create_under_limit(void *unused)
{
	struct rlimit limit = {64u << 20, 64u << 20};
	struct memslot_slot *slot;
	struct memslot_pool *pool;

	(void)unused;
	child_check(setrlimit(RLIMIT_DATA, &limit) == 0);
	child_check(memslot_pool_create(4000, SMALL, NULL, &pool) == 0);
	for (int i = 0; i < 50; i++) {
		child_check(memslot_pool_acquire(pool, NULL, SMALL, NULL, &slot) == 0);
		child_check(slot_shows(slot, 0, 0, 0, SMALL));
		child_check(syscall_faults_at(base_of(slot) + SMALL));
		dirty_all(slot);
		child_check(memslot_pool_release(pool, slot) == 0);
	}
	return memslot_pool_destroy(pool);
}

START_TEST(invariant_22_a_pool_works_where_writable_memory_is_limited)
{
	SKIP_IF(test_sanitized() || !test_faults_allowed(), "these need the memory themselves");
	ck_assert_int_eq(test_in_child(create_under_limit, NULL), 0);
}
END_TEST

/* In smaller pieces where one does not fit. */
static int create_in_pieces(void *argument)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .reserve = 1ull << 40);
	struct memslot_slot *slots[100];
	struct memslot_pool *pool;
	unsigned char *last = NULL;
	unsigned jumps = 0;

	(void)argument;
	child_check(memslot_pool_create(100, PAGES(4), &opts, &pool) == 0);
	for (int i = 0; i < 100; i++) {
		struct memslot_location at = {.size = sizeof at};
		child_check(memslot_pool_acquire(pool, NULL, PAGES(4), NULL, &slots[i]) == 0);
		child_check(memslot_slot_index(slots[i]) == (uint32_t)i);
		child_check(memslot_pool_locate(pool, base_of(slots[i]) + 5, &at) == 0);
		child_check(at.slot == slots[i] && at.offset == 5 && at.index == (uint32_t)i);
		jumps += last && base_of(slots[i]) - last != (ptrdiff_t)((1ull << 40) + (64 << 10));
		last = base_of(slots[i]);
	}
	child_check(jumps > 0); /* the program itself lies in the way of 100 TiB in one piece */
	for (int i = 0; i < 100; i++)
		child_check(memslot_pool_release(pool, slots[i]) == 0);
	return memslot_pool_destroy(pool);
}

START_TEST(a_pool_that_does_not_fit_in_one_piece_is_made_of_several)
{
	SKIP_IF(test_sanitized() || !test_faults_allowed(), "the address space is used otherwise");
	ck_assert_int_eq(test_in_child(create_in_pieces, NULL), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("pool_limits");
	TCase *many = test_case(suite, "many"), *plan = test_case(suite, "plan");

	tcase_add_test(many, two_hundred_thousand_guarded_slots_in_few_mappings);
	tcase_add_test(many, and_with_an_image_copied_into_each);
	tcase_add_test(many, beyond_the_mappings_there_are_acquire_is_enomem);
	tcase_add_test(many, invariant_22_a_pool_works_where_writable_memory_is_limited);
	tcase_add_test(many, a_pool_that_does_not_fit_in_one_piece_is_made_of_several);
	tcase_add_test(plan, the_plan_says_how_many_large_windows_fit);
	tcase_add_test(plan, the_plan_counts_mappings);
	return suite;
}
