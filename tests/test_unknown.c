/* SPDX-License-Identifier: MIT */
/*
 * test_unknown.c - calls of the kernel that fail, or do half of their work, in the middle of a change.
 * What becomes of a slot then: as before, or unknown and remade; never a hole, never a stale byte.
 */
#define _GNU_SOURCE
#include "slots.h"

#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void inject(uint64_t at, int error, long only, bool partial, bool for_good)
{
	ms_os_inject = (struct ms_os_inject){
			.at = at, .error = error, .only = only, .partial = partial, .for_good = for_good};
}

static void inject_nothing(void)
{
	ms_os_inject = (struct ms_os_inject){0};
}

static struct memslot_slot *slot_with_image(int kind)
{
	struct memslot_slot *slot = slot_of_kind(kind, PAGES(50));
	struct memslot_image *image = image_of(10, 20, 4);

	instantiate(slot, image, PAGES(40));
	memslot_image_unref(image);
	return slot;
}

/* Was the last injected fault reached? */
static bool injected(void)
{
	return ms_os_inject.at && ms_os_inject.seen >= ms_os_inject.at;
}

/* W7: the n-th call of a reset fails, for every n. */
START_TEST(invariant_24_a_reset_that_fails_midway_is_finished_by_the_next)
{
	static const int errors[] = {ENOMEM, EINVAL, EPERM};

	for (unsigned variant = 0; variant < 6; variant++) {
		bool more = true;
		for (uint64_t n = 1; more && n < 400; n++) {
			struct memslot_slot *slot = slot_with_image(_i);
			int error;
			dirty_pages(slot, 0, 40, 2);
			reset(slot);
			dirty_pages(slot, 0, 40, 3);
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
			dirty_pages(slot, 40, 10, 3);
			inject(n, errors[variant % 3], 0, variant >= 3, false);
			error = memslot_slot_reset(slot);
			more = injected();
			inject_nothing();
			if (error) {
				size_t count;
				ck_assert(more);
				ck_assert_int_eq(memslot_slot_written(slot, NULL, 0, &count), -ESTALE);
				reset(slot);
			}
			assert_shows(slot, 10, 20, 4, PAGES(40));
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
			assert_shows(slot, 10, 20, 4, PAGES(50));
			destroy(slot);
		}
		ck_assert(!more);
	}
}
END_TEST

/* Can a page be mapped there without replacing one? (valgrind takes the address for a hint only.) */
static bool is_hole(void *at)
{
	void *got = mmap(at, PAGES(1), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (got != MAP_FAILED)
		munmap(got, PAGES(1));
	return got == at;
}

/* W7: no call leaves a hole in the address space that another mapping could fall into. */
START_TEST(invariant_24_an_instantiate_that_fails_midway_leaves_no_hole)
{
	bool more = true;

	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_slot *slot = slot_with_image(_i);
		struct memslot_image *other = image_of(5, 30, 6);
		unsigned char *base = base_of(slot);
		int error;
		dirty_all(slot);
		inject(n, ENOMEM, 0, false, false);
		error = memslot_slot_instantiate(slot, other, PAGES(45));
		more = injected();
		inject_nothing();
		for (size_t page = 0; page < 50; page++)
			ck_assert(!is_hole(base + PAGES(page)));
		if (error) {
			reset(slot);
			assert_shows(slot, 10, 20, 4, PAGES(40));
			instantiate(slot, other, PAGES(45));
		}
		assert_shows(slot, 5, 30, 6, PAGES(45));
		destroy(slot);
		memslot_image_unref(other);
	}
	ck_assert(!more);
}
END_TEST

/* Written far apart, so that the new image has several extents: some are mapped when it fails. */
static unsigned char *write_apart(struct memslot_slot *slot)
{
	unsigned char *copy = malloc(PAGES(200));

	for (size_t first = 5; first < 190; first += 45)
		dirty_pages(slot, first, 8, 3);
	memcpy(copy, base_of(slot), PAGES(200));
	return copy;
}

START_TEST(invariant_25_a_checkpoint_that_fails_midway_changes_no_byte)
{
	bool more = true;

	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_image *before = image_of(60, 40, 4), *image = (struct memslot_image *)1;
		struct memslot_slot *slot = slot_of_kind(_i, PAGES(210));
		unsigned char *copy;
		int error;
		instantiate(slot, before, PAGES(200));
		copy = write_apart(slot);
		inject(n, ENOMEM, 0, false, false);
		error = memslot_slot_checkpoint(slot, &image);
		more = injected();
		inject_nothing();
		ck_assert(test_same(base_of(slot), copy, PAGES(200)));
		if (error) {
			ck_assert_ptr_eq(image, (struct memslot_image *)1);
			ck_assert_ptr_eq(memslot_slot_image(slot), before);
			/* More writes, another try or not, then back to the old image. */
			dirty_pages(slot, 0, 200, 4);
			if (n % 3 == 0)
				ck_assert_int_eq(memslot_slot_discard(slot, PAGES(8), PAGES(50)), 0);
			if (n % 2) {
				reset(slot);
				assert_shows(slot, 60, 40, 4, PAGES(200));
			}
			memcpy(base_of(slot), copy, PAGES(200));
			ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
		}
		dirty_all(slot);
		reset(slot);
		ck_assert(test_same(base_of(slot), copy, PAGES(200)));
		memslot_image_unref(before);
		memslot_image_unref(image);
		destroy(slot);
		free(copy);
	}
	ck_assert(!more);
}
END_TEST

START_TEST(invariant_24_resize_and_discard_fail_whole_or_make_the_slot_unknown)
{
	for (int which = 0; which < 3; which++) {
		bool more = true;
		for (uint64_t n = 1; more && n < 400; n++) {
			struct memslot_slot *slot = slot_with_image(_i);
			int error;
			dirty_all(slot);
			inject(n, EINVAL, 0, n % 2, false);
			error = which == 0 ? memslot_slot_discard(slot, PAGES(5), PAGES(20))
					   : memslot_slot_resize(slot, PAGES(which == 1 ? 32 : 50));
			more = injected();
			inject_nothing();
			if (error && memslot_slot_hold(slot, MEMSLOT_HOLD_IO) == 0) {
				/* Not unknown: as before. */
				ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
				ck_assert_uint_eq(memslot_slot_size(slot), PAGES(40));
				for (size_t at = 0; at < PAGES(40); at += 999)
					ck_assert_uint_eq(base_of(slot)[at], 0xdd);
			}
			reset(slot);
			assert_shows(slot, 10, 20, 4, PAGES(40));
			destroy(slot);
		}
		ck_assert(!more);
	}
}
END_TEST

/* madvise may clean a prefix and fail: what it returned for is not clean. */
START_TEST(invariant_24_a_remake_that_fails_midway_opens_nothing)
{
	bool more = true;

	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_slot *slot = slot_with_image(_i);
		int error;
		inject(1, EPERM, 0, false, true); /* whatever it tries */
		error = memslot_slot_instantiate(slot, NULL, PAGES(39));
		inject_nothing();
		inject(n, ENOMEM, 0, false, true);
		error = error ? memslot_slot_reset(slot) : 0;
		more = injected();
		inject_nothing();
		if (error && kind_has_edge(_i))
			assert_closed(base_of(slot) + PAGES(41));
		reset(slot);
		assert_shows(slot, 10, 20, 4, memslot_slot_size(slot));
		if (kind_has_edge(_i))
			assert_closed(base_of(slot) + memslot_slot_size(slot));
		destroy(slot);
	}
	ck_assert(!more);
}
END_TEST

/* A checkpoint that failed has mapped anything anywhere: what leaves and comes back reads zero. */
START_TEST(invariant_25_after_a_failed_checkpoint_what_leaves_is_gone)
{
	bool more = true;

	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_slot *slot = slot_of_kind(_i, PAGES(200));
		int error;
		instantiate(slot, NULL, PAGES(200));
		dirty_pages(slot, 0, 200, 20);
		inject(n, ENOMEM, SYS_mmap, false, false);
		error = memslot_slot_checkpoint(slot, NULL);
		more = injected();
		inject_nothing();
		if (error) {
			ck_assert_int_eq(memslot_slot_resize(slot, 0), 0);
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(200)), 0);
			assert_zeros(slot, PAGES(200));
		}
		destroy(slot);
	}
	ck_assert(!more);
}
END_TEST

/* Pinned, it cannot be mapped anew: everything is copied, whatever lies below. */
START_TEST(invariant_25_after_a_failed_checkpoint_a_pinned_slot_is_copied_whole)
{
	bool more = true;

	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_slot *slot = slot_of_kind(_i, PAGES(210));
		int error;
		instantiate(slot, NULL, PAGES(200));
		free(write_apart(slot));
		inject(n, ENOMEM, SYS_mmap, false, false);
		error = memslot_slot_checkpoint(slot, NULL);
		more = injected();
		inject_nothing();
		if (error) {
			ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_PIN), 0);
			dirty_pages(slot, 100, 100, 2);
			reset(slot);
			assert_zeros(slot, PAGES(200));
			ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), 0);
		}
		destroy(slot);
	}
	ck_assert(!more);
}
END_TEST

/* Bytes beyond the size of a slot without an edge are not lost by the checkpoint that follows. */
START_TEST(invariant_25_after_a_failed_checkpoint_the_next_keeps_what_lies_beyond_the_size)
{
	bool more = true;

	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_image *image = image_of(0, 64, 4);
		struct memslot_slot *slot = slot_of_kind(_i, PAGES(400));
		instantiate(slot, image, PAGES(64));
		memset(base_of(slot) + PAGES(20), 0, PAGES(40));
		base_of(slot)[PAGES(300)] = 'B';
		inject(n, ENOMEM, SYS_mmap, false, false);
		(void)memslot_slot_checkpoint(slot, NULL);
		more = injected();
		inject_nothing();
		ck_assert_uint_eq(base_of(slot)[PAGES(300)], 'B');
		ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
		ck_assert_uint_eq(base_of(slot)[PAGES(300)], 'B');
		base_of(slot)[PAGES(300)] = 'C';
		reset(slot);
		ck_assert_uint_eq(base_of(slot)[PAGES(300)], 'B');
		memslot_image_unref(image);
		destroy(slot);
	}
	ck_assert(!more);
}
END_TEST

START_TEST(invariant_21_a_drop_that_did_half_is_finished)
{
	struct memslot_slot *slot = slot_with_image(_i);

	for (uint64_t n = 1; n < 12; n++) {
		for (int good = 0; good < 2; good++) {
			dirty_all(slot);
			inject(n, EINVAL, SYS_madvise, true, good);
			(void)memslot_slot_reset(slot);
			inject_nothing();
			reset(slot);
			assert_shows(slot, 10, 20, 4, PAGES(40));
		}
	}
	destroy(slot);
}
END_TEST

/* W6 */
START_TEST(a_scan_that_fails_at_run_time_is_a_drop)
{
	struct memslot_slot *slot;
	uint64_t failures;

	NEED_FEATURE("pagemap_scan");
	slot = slot_with_image(_i);
	failures = stats_of(slot).scan_failures;
	for (unsigned round = 0; round < 5; round++) {
		dirty_pages(slot, round, 35, round + 1);
		inject(1, EPERM, SYS_ioctl, false, true);
		reset(slot);
		inject_nothing();
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	if (kind_method(_i) == MEMSLOT_RESET_SCAN)
		ck_assert_uint_gt(stats_of(slot).scan_failures, failures);
	destroy(slot);
}
END_TEST

/* A full walk that breaks off in the middle says nothing of the rest. */
START_TEST(a_scan_that_fails_halfway_is_no_scan)
{
	struct memslot_slot *slot;

	NEED_FEATURE("pagemap_scan");
	slot = slot_of_kind(_i, PAGES(1200));
	instantiate(slot, NULL, PAGES(1200));
	for (uint64_t n = 1; n < 8; n++) {
		dirty_pages(slot, n, 1100, 2);
		inject(n, EINTR, SYS_ioctl, false, false);
		reset(slot);
		inject_nothing();
		assert_zeros(slot, PAGES(1200));
	}
	destroy(slot);
}
END_TEST

START_TEST(a_counter_that_fails_at_run_time_is_a_scan)
{
	struct memslot_slot *slot = slot_with_image(_i);

	for (size_t round = 0; round < 9; round++) {
		dirty_pages(slot, 0, 3, 1);
		base_of(slot)[PAGES(5 + 3 * round)] = 1;
		inject(1, ENOSYS, SYS_getrusage, false, true);
		reset(slot);
		inject_nothing();
		assert_shows(slot, 10, 20, 4, PAGES(40));
		base_of(slot)[PAGES(6 + 3 * round)] = 1;
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	destroy(slot);
}
END_TEST

START_TEST(invariant_28_slots_allocate_nothing_from_the_heap)
{
	struct memslot_image *image = image_of(10, 20, 4), *other = image_of(0, 2, 5);
	struct memslot_slot *slot;

	inject(1, ENOMEM, MS_INJECT_ALLOC, false, true);
	slot = slot_of_kind(_i, PAGES(50));
	for (unsigned round = 0; round < 20; round++) {
		instantiate(slot, round % 2 ? image : other, PAGES(40));
		dirty_all(slot);
		ck_assert_int_eq(memslot_slot_exempt(slot, 0, PAGES(1)), 0);
		ck_assert_int_eq(memslot_slot_protect(slot, PAGES(2), PAGES(2), PROT_READ), 0);
		ck_assert_int_eq(memslot_slot_discard(slot, PAGES(3), PAGES(8)), 0);
		reset(slot);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(50)), 0);
		ck_assert_int_eq(memslot_slot_resize(slot, PAGES(35)), 0);
		reset(slot);
	}
	instantiate(slot, image, PAGES(40));
	assert_shows(slot, 10, 20, 4, PAGES(40));
	destroy(slot);
	ck_assert_uint_eq(ms_os_inject.seen, 0);
	inject_nothing();
	memslot_image_unref(image);
	memslot_image_unref(other);
}
END_TEST

/* Nothing is left behind by a create that failed: memory, descriptors, mappings. */
START_TEST(a_create_that_fails_leaves_nothing)
{
	unsigned char *around, *at;
	struct memslot_slot_opts opts = kind_opts(_i);
	bool more = true;

	destroy(slot_of_kind(_i, PAGES(50))); /* features are known now, prices too */
	around = mmap(NULL, 64u << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	munmap(around, 64u << 20);
	at = around + (16u << 20);
	opts.base_address = at;
	opts.guard_before = PAGES(3);
	for (uint64_t n = 1; more && n < 400; n++) {
		struct memslot_slot *slot = (struct memslot_slot *)1;
		unsigned fds = test_fd_count();
		int error;
		inject(n, ENOMEM, 0, false, false);
		error = memslot_slot_create(PAGES(50), &opts, &slot);
		more = injected();
		inject_nothing();
		if (!error)
			destroy(slot);
		else
			ck_assert_ptr_eq(slot, (struct memslot_slot *)1);
		ck_assert_uint_eq(test_vma_count(at - PAGES(3), 8u << 20), 0);
		ck_assert_uint_eq(test_fd_count(), fds);
	}
	ck_assert(!more);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("unknown");
	TCase *midway = test_case(suite, "midway"), *fallback = test_case(suite, "at run time");
	TCase *memory = test_case(suite, "memory");

	each_kind(midway, invariant_24_a_reset_that_fails_midway_is_finished_by_the_next);
	each_kind(midway, invariant_24_an_instantiate_that_fails_midway_leaves_no_hole);
	each_kind(midway, invariant_24_resize_and_discard_fail_whole_or_make_the_slot_unknown);
	each_kind(midway, invariant_25_a_checkpoint_that_fails_midway_changes_no_byte);
	each_kind(midway, invariant_24_a_remake_that_fails_midway_opens_nothing);
	each_kind(midway, invariant_25_after_a_failed_checkpoint_what_leaves_is_gone);
	each_kind(midway, invariant_25_after_a_failed_checkpoint_a_pinned_slot_is_copied_whole);
	tcase_add_loop_test(midway,
			invariant_25_after_a_failed_checkpoint_the_next_keeps_what_lies_beyond_the_size,
			2, 3); /* the first kind without an edge */
	each_kind(fallback, invariant_21_a_drop_that_did_half_is_finished);
	each_kind(fallback, a_scan_that_fails_at_run_time_is_a_drop);
	each_kind(fallback, a_scan_that_fails_halfway_is_no_scan);
	each_kind(fallback, a_counter_that_fails_at_run_time_is_a_scan);
	each_kind(memory, invariant_28_slots_allocate_nothing_from_the_heap);
	each_kind(memory, a_create_that_fails_leaves_nothing);
	return suite;
}
