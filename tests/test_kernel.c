/* SPDX-License-Identifier: MIT */
/*
 * test_kernel.c - what lib/base promises about the kernel: which pages are private, in which process
 * and thread we are, what the fault counter proves, what is true again after mapping over.
 */
#define _GNU_SOURCE
#include "common.h"

#include "base/counter.h"
#include "base/feature.h"
#include "base/fork.h"
#include "base/os.h"
#include "base/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

static unsigned char *pages(size_t count)
{
	void *address;

	ck_assert_int_eq(ms_os_reserve(NULL, count * test_page(), RW, &address), 0);
	ck_assert_int_eq(ms_os_advise(address, count * test_page(), MADV_NOHUGEPAGE), 0);
	return address;
}

static void dirty(unsigned char *base, size_t page)
{
	((volatile unsigned char *)base)[page * test_page()] = 1;
}

/* The pages that a walk reports, one character each: '.' or '#'. */
static int walk(const void *base, size_t count, char *ret_map)
{
	struct ms_pagemap_walk walk;
	int regions, error = ms_pagemap_begin(&walk, base, count * test_page());

	memset(ret_map, '.', count);
	ret_map[count] = '\0';
	while (!error && (regions = ms_pagemap_next(&walk)) != 0) {
		if (regions < 0)
			return regions;
		for (int i = 0; i < regions; i++) {
			size_t first = (walk.regions[i].start - (uintptr_t)base) / test_page();
			size_t end = (walk.regions[i].end - (uintptr_t)base) / test_page();
			ck_assert_uint_le(end, count);
			memset(ret_map + first, '#', end - first);
		}
	}
	return error;
}

/* --- pagemap --- */

START_TEST(a_walk_reports_written_pages_and_no_others)
{
	unsigned char *base = pages(8);
	char map[9];

	NEED_FEATURE("pagemap_scan");
	ck_assert_int_eq(walk(base, 8, map), 0);
	ck_assert_str_eq(map, "........");
	dirty(base, 0);
	dirty(base, 3);
	dirty(base, 4);
	dirty(base, 7);
	ck_assert_int_eq(walk(base, 8, map), 0);
	ck_assert_str_eq(map, "#..##..#");
	ck_assert_int_eq(walk(base + test_page(), 3, map), 0);
	ck_assert_str_eq(map, "..#");
}
END_TEST

START_TEST(a_page_that_was_only_read_is_not_private)
{
	unsigned char *base = pages(4);
	char map[5];

	NEED_FEATURE("pagemap_scan");
	for (size_t i = 0; i < 4; i++)
		ck_assert_uint_eq(((volatile unsigned char *)base)[i * test_page()], 0);
	dirty(base, 2);
	ck_assert_int_eq(walk(base, 4, map), 0);
	ck_assert_str_eq(map, "..#.");
}
END_TEST

START_TEST(pages_of_a_file_are_private_once_copied)
{
	size_t page = test_page();
	int fd = ms_os_memfd("test");
	void *base;
	char map[5];

	NEED_FEATURE("pagemap_scan");
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ms_os_truncate(fd, 4 * page), 0);
	ck_assert_int_eq(ms_os_map_private(fd, 4 * page, RW, &base), 0);
	ck_assert_uint_eq(((volatile unsigned char *)base)[page], 0);
	dirty(base, 2);
	ck_assert_int_eq(walk(base, 4, map), 0);
	ck_assert_str_eq(map, "..#.");
	close(fd);
}
END_TEST

/* KERNEL.md: a scan stops when its array is full; what follows must not be lost. */
START_TEST(a_walk_goes_on_when_its_array_is_full)
{
	enum { COUNT = 2000 };
	unsigned char *base = pages(COUNT);
	static char map[COUNT + 1], expected[COUNT + 1];

	NEED_FEATURE("pagemap_scan");
	memset(expected, '.', COUNT);
	for (size_t i = 1; i < COUNT; i += 2) {
		dirty(base, i);
		expected[i] = '#';
	}
	ck_assert_int_eq(walk(base, COUNT, map), 0);
	ck_assert_str_eq(map, expected);
}
END_TEST

/* KERNEL.md: markers look swapped. */
START_TEST(guard_markers_are_not_private_pages)
{
	unsigned char *base = pages(6);
	char map[7];

	NEED_FEATURE("guard_category");
	dirty(base, 1);
	ck_assert_int_eq(ms_os_guard(base + 2 * test_page(), 3 * test_page()), 0);
	ck_assert_int_eq(walk(base, 6, map), 0);
	ck_assert_str_eq(map, ".#....");
}
END_TEST

START_TEST(a_swapped_page_is_still_private)
{
	unsigned char *base = pages(4);
	char map[5];

	NEED_FEATURE("pagemap_scan");
	SKIP_IF(!test_has_swap(), "no swap here and none can be made");
	dirty(base, 1);
	ck_assert_int_eq(ms_os_advise(base, 4 * test_page(), MADV_PAGEOUT), 0);
	SKIP_IF(test_swapped(base + test_page(), test_page()) != 1, "the kernel would not page it out");
	ck_assert_int_eq(walk(base, 4, map), 0);
	ck_assert_str_eq(map, ".#..");
}
END_TEST

/* In children: they close descriptors that libcheck needs. */
static int walk_in_child(void *unused)
{
	unsigned char *base;
	void *address;
	char map[5];

	(void)unused;
	child_check(ms_os_reserve(NULL, 4 * test_page(), RW, &address) == 0);
	base = address;
	ms_os_advise(base, 4 * test_page(), MADV_NOHUGEPAGE);
	dirty(base, 3);
	child_check(walk(base, 4, map) == 0);
	child_check(strcmp(map, "...#") == 0);
	return 0;
}

static int close_and_walk(void *unused)
{
	child_check(walk_in_child(unused) == 0);
	child_check(close_range(3, ~0u, 0) == 0);
	return walk_in_child(unused);
}

START_TEST(a_closed_descriptor_is_opened_again)
{
	NEED_FEATURE("pagemap_scan");
	ck_assert_int_eq(test_in_child(close_and_walk, NULL), 0);
}
END_TEST

/* The application may close what it does not know, and get the number for a file of its own. */
static int reuse_and_walk(void *unused)
{
	child_check(walk_in_child(unused) == 0);
	child_check(close_range(3, ~0u, 0) == 0);
	for (int fd = 3; fd < 40; fd++)
		child_check(open("/dev/null", O_RDONLY) == fd);
	child_check(walk_in_child(unused) == 0);
	for (int fd = 3; fd < 40; fd++)
		child_check(fcntl(fd, F_GETFD) >= 0);
	return 0;
}

START_TEST(a_descriptor_that_became_another_file_is_left_alone)
{
	NEED_FEATURE("pagemap_scan");
	ck_assert_int_eq(test_in_child(reuse_and_walk, NULL), 0);
}
END_TEST

START_TEST(a_child_walks_its_own_pages)
{
	unsigned char *base = pages(4);
	char map[5];

	NEED_FEATURE("pagemap_scan");
	dirty(base, 1);
	ck_assert_int_eq(walk(base, 4, map), 0);
	ck_assert_int_eq(test_in_child(walk_in_child, NULL), 0);
	ck_assert_int_eq(test_in_clone(walk_in_child, NULL), 0);
	ck_assert_int_eq(walk(base, 4, map), 0);
	ck_assert_str_eq(map, ".#..");
}
END_TEST

START_TEST(without_the_feature_a_walk_does_not_begin)
{
	struct ms_pagemap_walk walk;
	unsigned char *base = pages(1);

	if (memslot_feature("pagemap_scan") == 1)
		ck_assert_int_eq(ms_pagemap_begin(&walk, base, test_page()), 0);
	else
		ck_assert_int_eq(ms_pagemap_begin(&walk, base, test_page()), -EOPNOTSUPP);
}
END_TEST

/* --- fork epoch --- */

static int other_epoch(void *parents)
{
	uint64_t mine = ms_fork_epoch();

	child_check(mine != 0 && mine != *(uint64_t *)parents);
	child_check(mine == ms_fork_epoch());
	return 0;
}

static int other_epoch_twice(void *grandparents)
{
	uint64_t mine = ms_fork_epoch(); /* asked before its own child is made */

	child_check(other_epoch(grandparents) == 0);
	child_check(test_in_clone(other_epoch, &mine) == 0);
	child_check(test_in_child(other_epoch, &mine) == 0);
	return 0;
}

START_TEST(invariant_18_every_child_has_an_epoch_of_its_own)
{
	uint64_t epoch = ms_fork_epoch();

	ck_assert_uint_ne(epoch, 0);
	ck_assert_int_eq(test_in_child(other_epoch, &epoch), 0);
	ck_assert_int_eq(test_in_clone(other_epoch, &epoch), 0);
	ck_assert_int_eq(test_in_child(other_epoch_twice, &epoch), 0);
	ck_assert_int_eq(test_in_clone(other_epoch_twice, &epoch), 0);
	ck_assert_uint_eq(ms_fork_epoch(), epoch);
}
END_TEST

/* --- the fault counter --- */

static void *number_of_thread(void *number)
{
	*(uint64_t *)number = ms_counter_thread();
	return NULL;
}

START_TEST(invariant_07_thread_numbers_are_never_used_again)
{
	uint64_t numbers[20];
	pthread_t thread;

	for (size_t i = 0; i < 20; i++) {
		/* One after the other: the system recycles its own names for them. */
		ck_assert_int_eq(pthread_create(&thread, NULL, number_of_thread, &numbers[i]), 0);
		pthread_join(thread, NULL);
		ck_assert_uint_ne(numbers[i], 0);
		ck_assert_uint_ne(numbers[i], ms_counter_thread());
		for (size_t j = 0; j < i; j++)
			ck_assert_uint_ne(numbers[i], numbers[j]);
	}
	ck_assert_uint_eq(ms_counter_thread(), ms_counter_thread());
}
END_TEST

START_TEST(invariant_09_a_new_page_moves_the_counter)
{
	struct ms_reading before, after;
	unsigned char *base = pages(200);

	NEED_FEATURE("fault_counter");
	ck_assert_int_eq(ms_counter_read(&before), 0);
	for (size_t i = 0; i < 200; i++) {
		dirty(base, i);
		ck_assert_int_eq(ms_counter_read(&after), 0);
		ck_assert_uint_gt(after.faults, before.faults);
		before = after;
	}
}
END_TEST

START_TEST(the_last_reading_is_kept_and_names_its_thread)
{
	struct ms_reading reading, last;

	NEED_FEATURE("fault_counter");
	ck_assert_int_eq(ms_counter_read(&reading), 0);
	last = ms_counter_last();
	ck_assert_uint_eq(last.thread, ms_counter_thread());
	ck_assert_uint_eq(last.faults, reading.faults);
	ck_assert_uint_eq(last.epoch, ms_fork_epoch());
}
END_TEST

static int no_reading_yet(void *unused)
{
	struct ms_reading reading;

	(void)unused;
	child_check(ms_counter_last().thread == 0);
	child_check(ms_counter_read(&reading) == 0);
	child_check(ms_counter_last().thread == ms_counter_thread());
	return 0;
}

START_TEST(invariant_07_a_child_has_no_reading)
{
	struct ms_reading reading;

	NEED_FEATURE("fault_counter");
	ck_assert_int_eq(ms_counter_read(&reading), 0);
	ck_assert_int_eq(test_in_child(no_reading_yet, NULL), 0);
	ck_assert_int_eq(test_in_clone(no_reading_yet, NULL), 0);
}
END_TEST

START_TEST(without_the_feature_the_counter_says_nothing)
{
	struct ms_reading reading = {1, 2, 3};

	SKIP_IF(memslot_feature("fault_counter") == 1, "the counter works here");
	ck_assert_int_lt(ms_counter_read(&reading), 0);
	ck_assert(reading.thread == 1 && reading.epoch == 2 && reading.faults == 3);
}
END_TEST

/* --- os.c --- */

START_TEST(a_taken_address_is_never_replaced)
{
	unsigned char *base = pages(4);
	void *got = NULL;

	dirty(base, 2);
	ck_assert_int_eq(ms_os_reserve(base, test_page(), RW, &got), -EEXIST);
	ck_assert_int_eq(ms_os_reserve(base - test_page(), 2 * test_page(), RW, &got), -EEXIST);
	ck_assert_ptr_null(got);
	ck_assert_uint_eq(base[2 * test_page()], 1);
	ck_assert_int_eq(ms_os_unmap(base, 4 * test_page()), 0);
	ck_assert_int_eq(ms_os_reserve(base, test_page(), RW, &got), 0);
	ck_assert_ptr_eq(got, base);
}
END_TEST

START_TEST(invariant_13_mapping_over_applies_every_attribute_again)
{
	const struct ms_os_attrs attrs = {
			.nohugepage = true, .dontfork = true, .dontdump = true, .name = "memslot-test"};
	unsigned char *base = pages(6);
	int fd = ms_os_memfd("test");

	SKIP_IF(!test_vma_flag(base, "nh"), "no transparent huge pages in this kernel");
	ck_assert_int_eq(ms_os_truncate(fd, test_page()), 0);
	ck_assert_int_eq(ms_os_map_over(base + test_page(), test_page(), RW, fd, 0, &attrs), 0);
	ck_assert_int_eq(ms_os_map_over(base + 3 * test_page(), test_page(), RW, -1, 0, &attrs), 0);
	for (size_t page = 1; page <= 3; page += 2) {
		ck_assert(test_vma_flag(base + page * test_page(), "nh"));
		ck_assert(test_vma_flag(base + page * test_page(), "dc"));
		ck_assert(test_vma_flag(base + page * test_page(), "dd"));
	}
	ck_assert(!test_vma_flag(base + 2 * test_page(), "dc"));
	close(fd);
}
END_TEST

START_TEST(locked_memory_takes_guard_markers_too)
{
	unsigned char *base = pages(4);

	NEED_FEATURE("guard_install");
	SKIP_IF(mlock(base, 2 * test_page()) != 0, "mlock is refused");
	dirty(base, 1);
	ck_assert_int_eq(ms_os_guard(base + test_page(), test_page()), 0);
	assert_closed(base + test_page());
	assert_open(base + test_page() - 1);
	ck_assert_int_eq(ms_os_unguard(base + test_page(), test_page()), 0);
	ck_assert_uint_eq(base[test_page()], 0);
}
END_TEST

START_TEST(reading_beyond_the_end_of_a_file_is_eio)
{
	char bytes[16];
	int fd = ms_os_memfd("test");

	ck_assert_int_eq(ms_os_write_at(fd, "0123456789", 10, 0), 0);
	ck_assert_int_eq(ms_os_read_at(fd, bytes, 10, 0), 0);
	ck_assert_int_eq(memcmp(bytes, "0123456789", 10), 0);
	ck_assert_int_eq(ms_os_read_at(fd, bytes, 10, 1), -EIO);
	close(fd);
}
END_TEST

START_TEST(a_sealed_file_changes_no_more)
{
	char byte;
	int fd = ms_os_memfd("test");

	NEED_FEATURE("memfd_seal");
	ck_assert_int_eq(ms_os_write_at(fd, "a", 1, 0), 0);
	ck_assert_int_eq(ms_os_seal(fd), 0);
	ck_assert_int_lt(ms_os_write_at(fd, "b", 1, 0), 0);
	ck_assert_int_lt(ms_os_truncate(fd, 0), 0);
	ck_assert_int_lt(ms_os_truncate(fd, 2), 0);
	ck_assert_int_eq(ms_os_read_at(fd, &byte, 1, 0), 0);
	ck_assert_int_eq(byte, 'a');
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
}
END_TEST

START_TEST(probing_an_address_changes_nothing)
{
	unsigned char *base = pages(3);
	sigset_t before, after;

	dirty(base, 0);
	ck_assert_int_eq(ms_os_protect(base + test_page(), test_page(), PROT_NONE), 0);
	sigprocmask(SIG_BLOCK, NULL, &before);
	ck_assert_int_eq(ms_os_probe_read(base + 2 * test_page()), 0);
	if (test_faults_allowed())
		ck_assert_int_eq(ms_os_probe_read(base + test_page()), -EFAULT);
	sigprocmask(SIG_BLOCK, NULL, &after);
	for (int i = 1; i < 64; i++)
		ck_assert_int_eq(sigismember(&before, i), sigismember(&after, i));
}
END_TEST

static int limit_files(void *unused)
{
	struct rlimit limit = {8192, 8192};

	(void)unused;
	child_check(ms_os_file_limit() > 8192);
	child_check(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	child_check(ms_os_file_limit() == 8192);
	return 0;
}

START_TEST(the_file_limit_is_what_setrlimit_says)
{
	ck_assert_int_eq(test_in_child(limit_files, NULL), 0);
}
END_TEST

START_TEST(a_temporary_file_lies_beside_its_target)
{
	char first[64], second[64];
	int a = ms_os_temporary("some-target", first, sizeof first);
	int b = ms_os_temporary("some-target", second, sizeof second);

	ck_assert(a >= 0 && b >= 0);
	ck_assert_str_ne(first, second);
	ck_assert_int_eq(strncmp(first, "some-target.", 12), 0);
	ck_assert_int_eq(ms_os_unlink(first), 0);
	ck_assert_int_eq(ms_os_unlink(second), 0);
	ck_assert_int_eq(ms_os_temporary("some-target", first, 19), -ENAMETOOLONG);
	close(a);
	close(b);
}
END_TEST

START_TEST(an_injected_fault_hits_the_call_it_counts_to)
{
	unsigned char *base = pages(4);

	dirty(base, 0);
	dirty(base, 3);
	ms_os_inject = (struct ms_os_inject){
			.at = 2, .error = EINVAL, .partial = true, .only = SYS_madvise};
	ck_assert_int_eq(ms_os_advise(base + test_page(), test_page(), MADV_DONTNEED), 0);
	ck_assert_int_eq(ms_os_advise(base, 4 * test_page(), MADV_DONTNEED), -EINVAL);
	ck_assert_int_eq(base[0], 0);
	ck_assert_int_eq(base[3 * test_page()], 1);
	ck_assert_int_eq(ms_os_advise(base, 4 * test_page(), MADV_DONTNEED), 0);
	ms_os_inject = (struct ms_os_inject){.at = 1, .error = ENOMEM, .only = MS_INJECT_ALLOC};
	ck_assert_ptr_null(ms_os_alloc(8));
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("kernel");
	TCase *scan = test_case(suite, "pagemap"), *epoch = test_case(suite, "fork epoch");
	TCase *counter = test_case(suite, "fault counter"), *os = test_case(suite, "os");

	tcase_add_unchecked_fixture(scan, test_swap_begin, test_swap_end);
	tcase_add_test(scan, a_walk_reports_written_pages_and_no_others);
	tcase_add_test(scan, a_page_that_was_only_read_is_not_private);
	tcase_add_test(scan, pages_of_a_file_are_private_once_copied);
	tcase_add_test(scan, a_walk_goes_on_when_its_array_is_full);
	tcase_add_test(scan, guard_markers_are_not_private_pages);
	tcase_add_test(scan, a_swapped_page_is_still_private);
	tcase_add_test(scan, a_closed_descriptor_is_opened_again);
	tcase_add_test(scan, a_descriptor_that_became_another_file_is_left_alone);
	tcase_add_test(scan, a_child_walks_its_own_pages);
	tcase_add_test(scan, without_the_feature_a_walk_does_not_begin);
	tcase_add_test(epoch, invariant_18_every_child_has_an_epoch_of_its_own);
	tcase_add_test(counter, invariant_07_thread_numbers_are_never_used_again);
	tcase_add_test(counter, invariant_09_a_new_page_moves_the_counter);
	tcase_add_test(counter, the_last_reading_is_kept_and_names_its_thread);
	tcase_add_test(counter, invariant_07_a_child_has_no_reading);
	tcase_add_test(counter, without_the_feature_the_counter_says_nothing);
	tcase_add_test(os, a_taken_address_is_never_replaced);
	tcase_add_test(os, invariant_13_mapping_over_applies_every_attribute_again);
	tcase_add_test(os, locked_memory_takes_guard_markers_too);
	tcase_add_test(os, reading_beyond_the_end_of_a_file_is_eio);
	tcase_add_test(os, a_sealed_file_changes_no_more);
	tcase_add_test(os, probing_an_address_changes_nothing);
	tcase_add_test(os, the_file_limit_is_what_setrlimit_says);
	tcase_add_test(os, a_temporary_file_lies_beside_its_target);
	tcase_add_test(os, an_injected_fault_hits_the_call_it_counts_to);
	return suite;
}
