/* SPDX-License-Identifier: MIT */
/* test_slot.c - create, destroy, the accessors, stats, and what each call says to bad arguments. */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int create(size_t capacity, const struct memslot_slot_opts *opts)
{
	struct memslot_slot *slot = (struct memslot_slot *)1;
	int error = memslot_slot_create(capacity, opts, &slot);

	if (error)
		ck_assert_ptr_eq(slot, (struct memslot_slot *)1); /* untouched */
	else
		destroy(slot);
	return error;
}

/* --- create --- */

START_TEST(a_new_slot_has_no_image_and_size_0)
{
	struct memslot_slot *slot = slot_new(PAGES(4), NULL);

	ck_assert_uint_eq(memslot_slot_size(slot), 0);
	ck_assert_uint_eq(memslot_slot_capacity(slot), PAGES(4));
	ck_assert_ptr_null(memslot_slot_image(slot));
	ck_assert_ptr_null(memslot_slot_user(slot));
	ck_assert_uint_eq(memslot_slot_index(slot), 0);
	ck_assert_uint_eq(memslot_slot_ticket(slot), 0);
	ck_assert_ptr_nonnull(memslot_slot_base(slot));
	ck_assert_uint_eq((uintptr_t)memslot_slot_base(slot) % test_page(), 0);
	assert_closed(base_of(slot));
	destroy(slot);
}
END_TEST

START_TEST(capacity_is_rounded_up_to_pages)
{
	struct memslot_slot *slot = slot_new(PAGES(3) + 1, NULL);

	ck_assert_uint_eq(memslot_slot_capacity(slot), PAGES(4));
	instantiate(slot, NULL, PAGES(4));
	assert_open(base_of(slot) + PAGES(4) - 1);
	assert_closed(base_of(slot) + PAGES(4));
	destroy(slot);
}
END_TEST

/* W2 */
START_TEST(capacity_0_is_a_slot_without_bytes)
{
	struct memslot_slot *slot = slot_new(0, NULL);

	ck_assert_uint_eq(memslot_slot_capacity(slot), 0);
	instantiate(slot, NULL, 0);
	reset(slot);
	ck_assert_int_eq(memslot_slot_resize(slot, 0), 0);
	ck_assert_int_eq(memslot_slot_resize(slot, 1), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, 1), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, 0), 0);
	assert_closed(base_of(slot));
	destroy(slot);
}
END_TEST

/* W2 */
START_TEST(capacity_0_without_guards_works_too)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .guard_after = MEMSLOT_NONE);
	struct memslot_slot *slot = slot_new(0, &opts);

	instantiate(slot, NULL, 0);
	reset(slot);
	destroy(slot);
}
END_TEST

START_TEST(sizes_that_overflow_are_emsgsize)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts);

	ck_assert_int_eq(create(SIZE_MAX, NULL), -EMSGSIZE);
	ck_assert_int_eq(create(SIZE_MAX - PAGES(1), NULL), -EMSGSIZE);
	opts.reserve = UINT64_MAX - PAGES(1);
	ck_assert_int_eq(create(PAGES(1), &opts), -EMSGSIZE);
	opts.reserve = UINT64_MAX / 2;
	opts.guard_before = UINT64_MAX / 2;
	opts.guard_after = UINT64_MAX / 2;
	ck_assert_int_eq(create(PAGES(1), &opts), -EMSGSIZE);
	opts = (struct memslot_slot_opts)MEMSLOT_OPTS(memslot_slot_opts, .guard_before = UINT64_MAX - 2);
	ck_assert_int_eq(create(PAGES(1), &opts), -EMSGSIZE);
	opts = (struct memslot_slot_opts)MEMSLOT_OPTS(memslot_slot_opts, .guard_after = UINT64_MAX - 2);
	ck_assert_int_eq(create(PAGES(1), &opts), -EMSGSIZE);
}
END_TEST

START_TEST(more_than_the_address_space_has_is_an_error)
{
	int error = create((size_t)1 << 56, NULL);

	ck_assert_msg(error == -ENOMEM || error == -EMSGSIZE, "got %d", error);
}
END_TEST

START_TEST(reserve_below_capacity_is_emsgsize)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .reserve = PAGES(3));

	ck_assert_int_eq(create(PAGES(4), &opts), -EMSGSIZE);
	ck_assert_int_eq(create(PAGES(3), &opts), 0);
	ck_assert_int_eq(create(PAGES(2) + 1, &opts), 0);
}
END_TEST

START_TEST(unknown_flags_and_methods_are_einval)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts);

	for (unsigned bit = 0; bit < 32; bit++) {
		opts.flags = 1u << bit;
		ck_assert_int_eq(create(PAGES(1), &opts), bit < 7 ? 0 : -EINVAL);
	}
	opts.flags = 0;
	for (opts.reset_method = 0; opts.reset_method < 8; opts.reset_method++)
		ck_assert_int_eq(create(PAGES(1), &opts),
				opts.reset_method <= MEMSLOT_RESET_DROP ? 0 : -EINVAL);
	opts.reset_method = UINT32_MAX;
	ck_assert_int_eq(create(PAGES(1), &opts), -EINVAL);
	opts.reset_method = 0;
	opts.reserved = 1;
	ck_assert_int_eq(create(PAGES(1), &opts), -EINVAL);
}
END_TEST

START_TEST(options_of_another_size_are_told)
{
	struct {
		struct memslot_slot_opts opts;
		uint64_t newer;
	} both = {.opts = {.size = sizeof both}};

	ck_assert_int_eq(create(PAGES(1), &both.opts), 0);
	both.newer = 1;
	ck_assert_int_eq(create(PAGES(1), &both.opts), -E2BIG);
	both.opts.size = sizeof both.opts;
	ck_assert_int_eq(create(PAGES(1), &both.opts), 0);
	both.opts.size = 0;
	ck_assert_int_eq(create(PAGES(1), &both.opts), -EINVAL);
	both.opts.size = sizeof both.opts - 1;
	ck_assert_int_eq(create(PAGES(1), &both.opts), -EINVAL);
}
END_TEST

START_TEST(create_without_a_place_for_the_slot_is_einval)
{
	ck_assert_int_eq(memslot_slot_create(PAGES(1), NULL, NULL), -EINVAL);
}
END_TEST

/* --- base_address --- */

/* An address range that was free a moment ago. */
static void *free_range(size_t size)
{
	void *address = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ck_assert_ptr_ne(address, MAP_FAILED);
	munmap(address, size);
	return address;
}

START_TEST(a_slot_starts_at_its_base_address)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .guard_before = PAGES(2));
	unsigned char *at = (unsigned char *)free_range(PAGES(64)) + PAGES(8);
	struct memslot_slot *slot;

	opts.base_address = at;
	slot = slot_new(PAGES(4), &opts);
	ck_assert_ptr_eq(memslot_slot_base(slot), at);
	instantiate(slot, NULL, PAGES(4));
	assert_open(at);
	assert_closed(at - 1);
	assert_closed(at - PAGES(2));
	destroy(slot);
}
END_TEST

/* Neither slot nor guard may replace what is there. */
START_TEST(a_taken_base_address_is_eaddrnotavail)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .guard_before = PAGES(1),
			.guard_after = PAGES(1));
	unsigned char *at = free_range(PAGES(32));
	unsigned char *taken = mmap(at + PAGES(10), PAGES(1), RW,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	ck_assert_ptr_eq(taken, at + PAGES(10));
	taken[0] = 42;
	for (size_t page = 8; page <= 12; page++) {
		/* guard 8..11, slot of one page 9..12, guard again: all but the outermost collide */
		bool collides = page + 1 >= 10 && page <= 11;
		opts.base_address = at + PAGES(page);
		ck_assert_int_eq(create(PAGES(1), &opts), collides ? -EADDRNOTAVAIL : 0);
	}
	ck_assert_uint_eq(taken[0], 42);
}
END_TEST

START_TEST(base_addresses_that_cannot_be_had_are_told)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts);

	opts.base_address = (void *)(uintptr_t)1;
	ck_assert_int_eq(create(PAGES(1), &opts), -EINVAL);
	opts.base_address = (char *)free_range(PAGES(32)) + 8;
	ck_assert_int_eq(create(PAGES(1), &opts), -EINVAL);
	opts.base_address = (void *)~(uintptr_t)(test_page() - 1);
	ck_assert_int_eq(create(PAGES(1), &opts), -EADDRNOTAVAIL);
	/* Room for the slot, none for the guard in front of it. */
	opts.base_address = (void *)(uintptr_t)PAGES(64);
	opts.guard_before = PAGES(128);
	ck_assert_int_eq(create(PAGES(1), &opts), -EADDRNOTAVAIL);
}
END_TEST

/* --- destroy --- */

START_TEST(destroying_nothing_is_fine)
{
	ck_assert_int_eq(memslot_slot_destroy(NULL), 0);
}
END_TEST

START_TEST(destroy_gives_everything_back)
{
	struct memslot_image *image = image_of(1, 64, 5);
	unsigned char *around = free_range(PAGES(2048)), *at = around + PAGES(512);
	unsigned fds;

	for (int kind = 0; kind < SLOT_KINDS; kind++) {
		struct memslot_slot_opts opts = kind_opts(kind);
		struct memslot_slot *slot;
		fds = test_fd_count();
		opts.base_address = at;
		slot = slot_new(PAGES(100), &opts);
		instantiate(slot, image, PAGES(80));
		dirty_all(slot);
		reset(slot);
		destroy(slot);
		ck_assert_uint_eq(test_vma_count(around, PAGES(2048)), 0);
		if (kind)
			ck_assert_uint_eq(test_fd_count(), fds); /* the first scan keeps pagemap open */
	}
	memslot_image_unref(image);
}
END_TEST

START_TEST(a_slot_keeps_its_image_alive)
{
	struct memslot_image *image = image_of(0, 20, 5);
	struct memslot_slot *slot = slot_new(PAGES(20), NULL);

	instantiate(slot, image, PAGES(20));
	memslot_image_unref(image);
	ck_assert_ptr_eq(memslot_slot_image(slot), image);
	dirty_all(slot);
	reset(slot);
	assert_shows(slot, 0, 20, 5, PAGES(20));
	instantiate(slot, NULL, PAGES(20));
	ck_assert_ptr_null(memslot_slot_image(slot));
	destroy(slot);
}
END_TEST

/* --- accessors --- */

START_TEST(accessors_take_null)
{
	ck_assert_ptr_null(memslot_slot_base(NULL));
	ck_assert_uint_eq(memslot_slot_size(NULL), 0);
	ck_assert_uint_eq(memslot_slot_capacity(NULL), 0);
	ck_assert_ptr_null(memslot_slot_image(NULL));
	ck_assert_uint_eq(memslot_slot_index(NULL), 0);
	ck_assert_uint_eq(memslot_slot_ticket(NULL), 0);
	ck_assert_ptr_null(memslot_slot_user(NULL));
	memslot_slot_set_user(NULL, NULL);
	memslot_slot_unconfine(NULL);
}
END_TEST

START_TEST(every_call_says_einval_to_null)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};
	struct memslot_image *image = (struct memslot_image *)1;
	struct memslot_run run;
	size_t count = 42;

	ck_assert_int_eq(memslot_slot_instantiate(NULL, NULL, 0), -EINVAL);
	ck_assert_int_eq(memslot_slot_resize(NULL, 0), -EINVAL);
	ck_assert_int_eq(memslot_slot_reset(NULL), -EINVAL);
	ck_assert_int_eq(memslot_slot_discard(NULL, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_slot_checkpoint(NULL, &image), -EINVAL);
	ck_assert_int_eq(memslot_slot_capture(NULL, NULL, &image), -EINVAL);
	ck_assert_int_eq(memslot_slot_hold(NULL, MEMSLOT_HOLD_IO), -EINVAL);
	ck_assert_int_eq(memslot_slot_unhold(NULL, MEMSLOT_HOLD_IO), -EINVAL);
	ck_assert_int_eq(memslot_slot_protect(NULL, 0, 0, PROT_READ), -EINVAL);
	ck_assert_int_eq(memslot_slot_exempt(NULL, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_slot_written(NULL, &run, 1, &count), -EINVAL);
	ck_assert_int_eq(memslot_slot_stats(NULL, &stats), -EINVAL);
	ck_assert(image == (struct memslot_image *)1 && count == 42);
}
END_TEST

START_TEST(calls_without_room_for_their_answer_are_einval)
{
	struct memslot_slot *slot = slot_new(PAGES(2), NULL);
	struct memslot_run run;
	size_t count;

	instantiate(slot, NULL, PAGES(2));
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, NULL), -EINVAL);
	ck_assert_int_eq(memslot_slot_written(slot, &run, 1, NULL), -EINVAL);
	ck_assert_int_eq(memslot_slot_written(slot, NULL, 1, &count), -EINVAL);
	ck_assert_int_eq(memslot_slot_stats(slot, NULL), -EINVAL);
	destroy(slot);
}
END_TEST

START_TEST(the_users_pointer_is_kept)
{
	struct memslot_slot *slot = slot_new(PAGES(2), NULL);
	int mine;

	memslot_slot_set_user(slot, &mine);
	instantiate(slot, NULL, PAGES(2));
	reset(slot);
	ck_assert_ptr_eq(memslot_slot_user(slot), &mine);
	memslot_slot_set_user(slot, NULL);
	ck_assert_ptr_null(memslot_slot_user(slot));
	destroy(slot);
}
END_TEST

START_TEST(the_base_never_moves)
{
	struct memslot_slot *slot = slot_new(PAGES(40), NULL);
	struct memslot_image *image = image_of(2, 30, 1);
	void *base = memslot_slot_base(slot);

	instantiate(slot, image, PAGES(40));
	ck_assert_ptr_eq(memslot_slot_base(slot), base);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	ck_assert_ptr_eq(memslot_slot_base(slot), base);
	instantiate(slot, NULL, 0);
	ck_assert_ptr_eq(memslot_slot_base(slot), base);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* --- stats --- */

START_TEST(stats_are_filled_up_to_the_callers_size)
{
	struct memslot_slot *slot = slot_new(PAGES(2), NULL);
	const size_t room = offsetof(struct memslot_slot_stats, syscalls);
	struct memslot_slot_stats stats, whole;

	instantiate(slot, NULL, PAGES(2));
	whole = stats_of(slot);
	memset(&stats, 0x77, sizeof stats);
	stats.size = (uint32_t)room;
	ck_assert_int_eq(memslot_slot_stats(slot, &stats), 0);
	ck_assert_uint_eq(stats.size, room);
	ck_assert_mem_eq(&stats.reserved, &whole.reserved, room - sizeof stats.size);
	ck_assert_uint_eq(stats.syscalls, UINT64_C(0x7777777777777777));
	stats.size = 7;
	ck_assert_int_eq(memslot_slot_stats(slot, &stats), -EINVAL);
	stats.size = 0;
	ck_assert_int_eq(memslot_slot_stats(slot, &stats), -EINVAL);
	destroy(slot);
}
END_TEST

START_TEST(stats_count_what_resets_did)
{
	for (int kind = 0; kind < SLOT_KINDS; kind++) {
		struct memslot_slot *slot = slot_of_kind(kind, PAGES(40));
		struct memslot_slot_stats before, after;
		uint64_t resets;
		instantiate(slot, NULL, PAGES(40));
		before = stats_of(slot);
		for (int i = 0; i < 5; i++) {
			dirty_pages(slot, 0, 40, 2);
			reset(slot);
		}
		after = stats_of(slot);
		resets = after.resets_known + after.resets_scan + after.resets_drop -
				before.resets_known - before.resets_scan - before.resets_drop;
		ck_assert_uint_eq(resets, 5);
		ck_assert_uint_ge(after.last_method, MEMSLOT_RESET_RESTORE);
		ck_assert_uint_le(after.last_method, MEMSLOT_RESET_DROP);
		if (memslot_feature("dontneed") == 1)
			ck_assert(after.bytes_restored > before.bytes_restored ||
					after.bytes_dropped > before.bytes_dropped);
		ck_assert_uint_gt(after.syscalls, before.syscalls);
		ck_assert_uint_eq(after.remakes, before.remakes);
		destroy(slot);
	}
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("slot");
	TCase *make = test_case(suite, "create"), *address = test_case(suite, "base_address");
	TCase *end = test_case(suite, "destroy"), *look = test_case(suite, "accessors");
	TCase *stats = test_case(suite, "stats");

	tcase_add_test(make, a_new_slot_has_no_image_and_size_0);
	tcase_add_test(make, capacity_is_rounded_up_to_pages);
	tcase_add_test(make, capacity_0_is_a_slot_without_bytes);
	tcase_add_test(make, capacity_0_without_guards_works_too);
	tcase_add_test(make, sizes_that_overflow_are_emsgsize);
	tcase_add_test(make, more_than_the_address_space_has_is_an_error);
	tcase_add_test(make, reserve_below_capacity_is_emsgsize);
	tcase_add_test(make, unknown_flags_and_methods_are_einval);
	tcase_add_test(make, options_of_another_size_are_told);
	tcase_add_test(make, create_without_a_place_for_the_slot_is_einval);
	tcase_add_test(address, a_slot_starts_at_its_base_address);
	tcase_add_test(address, a_taken_base_address_is_eaddrnotavail);
	tcase_add_test(address, base_addresses_that_cannot_be_had_are_told);
	tcase_add_test(end, destroying_nothing_is_fine);
	tcase_add_test(end, destroy_gives_everything_back);
	tcase_add_test(end, a_slot_keeps_its_image_alive);
	tcase_add_test(look, accessors_take_null);
	tcase_add_test(look, every_call_says_einval_to_null);
	tcase_add_test(look, calls_without_room_for_their_answer_are_einval);
	tcase_add_test(look, the_users_pointer_is_kept);
	tcase_add_test(look, the_base_never_moves);
	tcase_add_test(stats, stats_are_filled_up_to_the_callers_size);
	tcase_add_test(stats, stats_count_what_resets_did);
	return suite;
}
