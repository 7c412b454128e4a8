/* SPDX-License-Identifier: MIT */
/*
 * test_reset.c - every byte that was written is put back, whoever wrote it and whatever became of the
 * page since. The traps of the kernel, each a test here or where it says:
 *
 *   a scan stops when its array is full      more_runs_than_any_array_holds
 *   a swapped page is not present            invariant_03_swapped_pages_are_dropped
 *   markers look swapped                     the whole of test_edge with guard_category off
 *   locked pages make DONTNEED fail          locked_pages_are_cleaned_too
 *   pagemap speaks for who opened it         a_foreign_pagemap_is_not_believed, test_fork
 *   pagemap gone, /proc missing              a_closed_pagemap_is_opened_again, test_limits
 *   faults by others move no counter of ours test_confined
 *   mapping over loses attributes            invariant_13_* in test_instantiate, test_kernel
 *   DONTNEED that does nothing               invariant_09 in test_kernel, fallback runs
 */
#define _GNU_SOURCE
#include "slots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* W5, W6 */
START_TEST(random_writes_are_put_back)
{
	struct test_rng rng = test_rng((uint64_t)_i);
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(300));
	struct memslot_image *image = image_of(40, 100, 5);

	instantiate(slot, image, PAGES(250));
	for (unsigned round = test_rounds(60); round; round--) {
		size_t writes = test_below(&rng, round % 10 ? 20 : 1000);
		while (writes--)
			base_of(slot)[test_below(&rng, PAGES(250))] = (unsigned char)test_next(&rng);
		reset(slot);
		assert_shows(slot, 40, 100, 5, PAGES(250));
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(a_steady_set_is_put_back_every_time)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(300));
	struct memslot_image *image = image_of(40, 100, 5);

	instantiate(slot, image, PAGES(250));
	for (unsigned round = 0; round < 200; round++) {
		/* A phase change, and a page of its own now and then. */
		dirty_pages(slot, round < 100 ? 30 : 100, 64, 1);
		if (round % 17 == 0)
			dirty_pages(slot, round, 1, 1);
		reset(slot);
		assert_shows(slot, 40, 100, 5, PAGES(250));
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* W6: more than 32 runs, more than 128, more than 1024. */
START_TEST(more_runs_than_any_array_holds)
{
	static const size_t steps[] = {2, 3, 7, 20};
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(4096));
	struct memslot_image *image = image_of(1000, 1000, 5);

	instantiate(slot, image, PAGES(4096));
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		dirty_pages(slot, i, 4090, steps[i]);
		reset(slot);
		assert_shows(slot, 1000, 1000, 5, PAGES(4096));
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(writing_the_images_own_bytes_is_harmless)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(300));
	struct memslot_image *image = image_of(40, 100, 5);

	instantiate(slot, image, PAGES(250));
	for (unsigned round = 0; round < 60; round++) {
		for (size_t page = 0; page < 250; page++)
			base_of(slot)[PAGES(page)] = ((volatile unsigned char *)base_of(slot))[PAGES(page)];
		base_of(slot)[PAGES(50) + round] ^= 1;
		base_of(slot)[PAGES(200) + round] ^= 1;
		reset(slot);
		assert_shows(slot, 40, 100, 5, PAGES(250));
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* --- who writes --- */

static char source[64 << 10];

static void by_hand(unsigned char *to, size_t size)
{
	memcpy(to, source, size);
}

static void by_read(unsigned char *to, size_t size)
{
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	for (size_t done = 0; done < size; done += PAGES(1)) {
		ck_assert_int_eq(write(ends[1], source, PAGES(1)), (ssize_t)PAGES(1));
		ck_assert_int_eq(read(ends[0], to + done, PAGES(1)), (ssize_t)PAGES(1));
	}
	close(ends[0]);
	close(ends[1]);
}

static void by_preadv(unsigned char *to, size_t size)
{
	struct iovec parts[2] = {{to, size / 2}, {to + size / 2, size - size / 2}};
	int fd = memfd_create("test", 0);

	ck_assert_int_eq(write(fd, source, size), (ssize_t)size);
	ck_assert_int_eq(preadv(fd, parts, 2, 0), (ssize_t)size);
	close(fd);
}

static void by_direct_io(unsigned char *to, size_t size)
{
	char path[] = "memslot-direct-XXXXXX";
	int plain = mkstemp(path), fd = open(path, O_RDONLY | O_DIRECT);

	ck_assert_int_eq(write(plain, source, size), (ssize_t)size);
	unlink(path);
	if (fd < 0 || read(fd, to, size) != (ssize_t)size)
		by_hand(to, size); /* a file system without it */
	close(fd);
	close(plain);
}

static unsigned char *signal_to;
static size_t signal_size;

static void on_signal(int number)
{
	(void)number;
	by_hand(signal_to, signal_size);
}

static void by_signal_handler(unsigned char *to, size_t size)
{
	signal_to = to;
	signal_size = size;
	signal(SIGUSR1, on_signal);
	raise(SIGUSR1);
}

/* Only these may touch a confined slot. */
#define WAYS_OF_OWN 5

struct job {
	unsigned char *to;
	size_t size;
};

static void *thread_job(void *job)
{
	by_hand(((struct job *)job)->to, ((struct job *)job)->size);
	return NULL;
}

static void by_thread(unsigned char *to, size_t size)
{
	struct job job = {to, size};
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, thread_job, &job), 0);
	pthread_join(thread, NULL);
}

static void by_populate(unsigned char *to, size_t size)
{
	madvise(to, size, 23 /* MADV_POPULATE_WRITE */);
	by_hand(to, size);
}

/* Another process: not a fault of ours at all. */
static void by_process_vm_writev(unsigned char *to, size_t size)
{
	struct iovec local = {source, size}, remote = {to, size};
	pid_t parent = getpid(), child = fork();
	int status;

	if (child == 0)
		_exit(process_vm_writev(parent, &local, 1, &remote, 1, 0) != (ssize_t)size);
	waitpid(child, &status, 0);
	if (status != 0)
		by_hand(to, size); /* not allowed here */
}

static void (*const ways[])(unsigned char *to, size_t size) = {by_hand, by_read, by_preadv,
		by_direct_io, by_signal_handler, by_thread, by_populate, by_process_vm_writev};
#define WAYS (sizeof ways / sizeof ways[0])

START_TEST(every_way_to_write_is_noticed)
{
	size_t count = kind_is_confined(_i) ? WAYS_OF_OWN : WAYS;
	struct memslot_image *image = image_of(40, 100, 5);
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(300));

	memset(source, 'S', sizeof source);
	instantiate(slot, image, PAGES(250));
	for (size_t round = 0; round < 4 * count; round++) {
		/* Each time pages that were never written, and pages that may be retained. */
		ways[round % count](base_of(slot) + PAGES(3 + 7 * round), PAGES(4));
		ways[round % count](base_of(slot) + PAGES(30), PAGES(15));
		reset(slot);
		assert_shows(slot, 40, 100, 5, PAGES(250));
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* A child of vfork(2) writes with our page tables, another process through its own: neither moves any
 * counter of ours, RUSAGE_SELF included. Slots that are not confined allow both. */
static int write_there(void *to)
{
	*(volatile unsigned char *)to = 'S';
	return 0;
}

START_TEST(invariant_08_writes_that_move_no_counter_are_found)
{
	static _Alignas(64) unsigned char stack[64 << 10];
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_slot *slot;

	opts.flags &= ~MEMSLOT_SLOT_CONFINED;
	slot = slot_new(PAGES(300), &opts);
	memset(source, 'S', sizeof source);
	instantiate(slot, NULL, PAGES(250));
	for (size_t round = 0; round < 12; round++) {
		volatile unsigned char *to = base_of(slot) + PAGES(10 + 7 * round);
		dirty_pages(slot, 0, 5, 1);
		reset(slot);
		if (round % 2 || !test_knows_clone()) {
			by_process_vm_writev((unsigned char *)(uintptr_t)to, PAGES(2));
		} else {
			/* What vfork(2) does, on a stack of its own. */
			pid_t child = clone(write_there, stack + sizeof stack,
					CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)(uintptr_t)to);
			ck_assert_int_gt(child, 0);
			waitpid(child, NULL, 0);
		}
		ck_assert_uint_eq(*to, 'S');
		reset(slot);
		assert_zeros(slot, PAGES(250));
	}
	destroy(slot);
}
END_TEST

/* --- what becomes of pages --- */

/* Which of the first `count` pages are swapped: one flag each; how many. */
static uint64_t note_swapped(const struct memslot_slot *slot, size_t count, bool *ret_swapped)
{
	uint64_t sum = 0;

	for (size_t page = 0; page < count; page++) {
		ret_swapped[page] = test_swapped(base_of(slot) + PAGES(page), PAGES(1)) == 1;
		sum += ret_swapped[page];
	}
	return sum;
}

/* Restored they would be correct as well; but so would markers be, which only look swapped, and a
 * write to those is a crash. */
static void assert_not_private(struct memslot_slot *slot, size_t count, const bool *swapped)
{
	struct memslot_run runs[250];
	size_t found = 0;

	if (memslot_feature("pagemap_scan") != 1 || memslot_feature("dontneed") != 1)
		return;
	ck_assert_int_eq(memslot_slot_written(slot, runs, 250, &found), 0);
	for (size_t i = 0; i < found; i++) {
		for (uint64_t at = runs[i].offset; at < runs[i].offset + runs[i].size; at += PAGES(1))
			ck_assert(at / test_page() >= count || !swapped[at / test_page()]);
	}
}

START_TEST(invariant_03_swapped_pages_are_dropped)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *image;
	struct memslot_slot *slot;
	bool swapped[250];
	uint64_t sum = 0;

	SKIP_IF(!test_has_swap(), "no swap here and none can be made");
	image = image_of(40, 100, 5);
	opts.flags &= ~MEMSLOT_SLOT_CONFINED;
	slot = slot_new(PAGES(300), &opts);
	instantiate(slot, image, PAGES(250));
	for (unsigned round = 0; round < 6; round++) {
		dirty_pages(slot, 20, 200, round % 2 + 1);
		madvise(base_of(slot), PAGES(250), MADV_PAGEOUT);
		if (round % 3 == 2)
			dirty_pages(slot, 50, 10, 1); /* some come back */
		sum += note_swapped(slot, 250, swapped);
		reset(slot);
		assert_not_private(slot, 250, swapped);
		assert_shows(slot, 40, 100, 5, PAGES(250));
	}
	memslot_image_unref(image);
	destroy(slot);
	SKIP_IF(sum == 0, "the kernel would not page anything out");
}
END_TEST

/* What looks swapped may be a registered page under migration: a drop would leave the device with
 * another page than the slot. */
START_TEST(invariant_15_under_a_pin_swapped_pages_are_written_in_place)
{
	struct memslot_slot *slot;
	uint64_t swapped, dropped;

	SKIP_IF(!test_has_swap(), "no swap here and none can be made");
	slot = slot_of_kind(_i, PAGES(250));
	instantiate(slot, NULL, PAGES(250));
	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_PIN), 0);
	dirty_pages(slot, 20, 200, 1);
	madvise(base_of(slot), PAGES(250), MADV_PAGEOUT);
	swapped = test_swapped(base_of(slot), PAGES(250));
	dropped = stats_of(slot).bytes_dropped;
	reset(slot);
	ck_assert_uint_eq(stats_of(slot).bytes_dropped, dropped);
	assert_zeros(slot, PAGES(250));
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), 0);
	dirty_pages(slot, 0, 250, 3);
	reset(slot);
	assert_zeros(slot, PAGES(250));
	destroy(slot);
	SKIP_IF(swapped == 0, "the kernel would not page anything out");
}
END_TEST

/* KSM (systemd's MemoryKSM=yes) may put the zero page where a tenant wrote zeros, and a scan takes
 * that for untouched: no mapping of a slot may be mergeable. */
static int is_unmergeable(void *unused)
{
	struct memslot_image *image;
	struct memslot_slot *slot;

	(void)unused;
	if (prctl(67 /* PR_SET_MEMORY_MERGE, Linux 6.4 */, 1, 0, 0, 0))
		return 77;
	image = image_of(10, 20, 4);
	for (int edge = 0; edge < SLOT_EDGES; edge++) {
		slot = slot_of_kind(edge, PAGES(50));
		child_check(memslot_slot_instantiate(slot, image, PAGES(40)) == 0);
		for (size_t page = 0; page < 40; page += 15)
			child_check(!test_vma_flag(base_of(slot) + PAGES(page), "mg"));
		child_check(memslot_slot_instantiate(slot, NULL, PAGES(40)) == 0);
		for (size_t page = 0; page < 40; page += 15)
			child_check(!test_vma_flag(base_of(slot) + PAGES(page), "mg"));
		child_check(memslot_slot_destroy(slot) == 0);
	}
	memslot_image_unref(image);
	return 0;
}

START_TEST(slots_are_no_business_of_ksm)
{
	int status = test_in_child(is_unmergeable, NULL);

	SKIP_IF(status == 77, "no KSM here, or no right to switch it on");
	ck_assert_int_eq(status, 0);
}
END_TEST

/* Beyond lie markers, which look swapped, and hidden pages, which are clean. */
START_TEST(invariant_03_a_scan_ends_at_the_edge)
{
	struct memslot_slot *slot;

	NEED_FEATURE("pagemap_scan");
	ck_assert(kind_has_edge(_i) && kind_method(_i) == MEMSLOT_RESET_SCAN);
	slot = slot_of_kind(_i, PAGES(300));
	instantiate(slot, NULL, PAGES(20));
	for (unsigned round = 0; round < 4; round++) {
		dirty_pages(slot, 0, 10, 1);
		if (round == 1) {
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(300)), 0);
			dirty_all(slot);
		}
		reset(slot);
		if (round != 1)
			ck_assert_uint_le(stats_of(slot).private_pages, 20);
		assert_zeros(slot, PAGES(20));
	}
	destroy(slot);
}
END_TEST

START_TEST(swapped_pages_are_captured_discarded_and_cut_off)
{
	struct memslot_image *image, *captured;
	struct memslot_slot *slot, *other;

	SKIP_IF(!test_has_swap(), "no swap here and none can be made");
	image = image_of(40, 100, 5);
	slot = slot_of_kind(_i, PAGES(300));
	other = slot_of_kind(_i, PAGES(300));
	instantiate(slot, image, PAGES(250));
	dirty_pages(slot, 0, 250, 1);
	madvise(base_of(slot), PAGES(250), MADV_PAGEOUT);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &captured), 0);
	instantiate(other, captured, PAGES(250));
	ck_assert(test_same(base_of(other), base_of(slot), PAGES(250)));
	madvise(base_of(slot), PAGES(250), MADV_PAGEOUT);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(30), PAGES(20)), 0);
	ck_assert(test_zero(base_of(slot) + PAGES(30), PAGES(10)));
	ck_assert(test_filled(base_of(slot) + PAGES(40), PAGES(10), 5));
	madvise(base_of(slot), PAGES(250), MADV_PAGEOUT);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(160)), 0);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(300)), 0);
	ck_assert(test_zero(base_of(slot) + PAGES(160), PAGES(140)));
	memslot_image_unref(image);
	memslot_image_unref(captured);
	destroy(slot);
	destroy(other);
}
END_TEST

/* As much as these tests lock at once. */
static bool may_lock(void)
{
	void *pages = mmap(NULL, PAGES(250), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool may = mlock(pages, PAGES(250)) == 0;

	munmap(pages, PAGES(250));
	return may;
}

START_TEST(locked_pages_are_cleaned_too)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *image, *other;
	struct memslot_slot *slot;

	SKIP_IF(!may_lock(), "mlock is refused");
	image = image_of(40, 100, 5);
	other = image_of(60, 60, 6);
	opts.flags &= ~MEMSLOT_SLOT_CONFINED; /* confined slots forbid mlock */
	slot = slot_new(PAGES(300), &opts);
	for (unsigned round = 0; round < 8; round++) {
		instantiate(slot, image, PAGES(250));
		dirty_pages(slot, 0, 250, 1);
		ck_assert_int_eq(mlock(base_of(slot) + PAGES(30 * (round % 5) + 20), PAGES(60)), 0);
		dirty_pages(slot, 0, 250, 3);
		if (round % 4 == 1) {
			ck_assert_int_eq(memslot_slot_discard(slot, PAGES(20), PAGES(70)), 0);
			ck_assert(test_zero(base_of(slot) + PAGES(20), PAGES(20)));
			ck_assert(test_filled(base_of(slot) + PAGES(40), PAGES(50), 5));
		}
		if (round % 4 == 2) {
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(141)), 0);
			ck_assert_int_eq(memslot_slot_resize(slot, PAGES(250)), 0);
			ck_assert(test_zero(base_of(slot) + PAGES(141), PAGES(109)));
		}
		if (round % 4 == 3) {
			instantiate(slot, other, PAGES(200));
			assert_shows(slot, 60, 60, 6, PAGES(200));
		} else {
			reset(slot);
			assert_shows(slot, 40, 100, 5, PAGES(250));
		}
	}
	memslot_image_unref(image);
	memslot_image_unref(other);
	destroy(slot);
}
END_TEST

/* Invariant 21: the cure order. Locked, registered nowhere: dropped or copied, and clean. */
START_TEST(invariant_21_a_locked_prefix_does_not_hide_the_rest)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.reset_method = MEMSLOT_RESET_DROP);
	struct memslot_slot *slot;

	SKIP_IF(!may_lock(), "mlock is refused");
	slot = slot_new(PAGES(100), &opts);
	for (size_t first = 0; first < 100; first += 11) {
		instantiate(slot, NULL, PAGES(100));
		dirty_all(slot);
		ck_assert_int_eq(mlock(base_of(slot) + PAGES(first), PAGES(1)), 0);
		reset(slot);
		assert_zeros(slot, PAGES(100));
		munlockall();
	}
	destroy(slot);
}
END_TEST

START_TEST(pages_that_were_only_read_cost_no_memory_later)
{
	struct memslot_slot *slot = slot_of_kind(_i, 16u << 20);
	struct memslot_image *image = image_of(40, 100, 5);

	instantiate(slot, image, 16u << 20);
	for (unsigned round = 0; round < 6; round++) {
		if (round == 2)
			assert_shows(slot, 40, 100, 5, 16u << 20); /* reads everything */
		dirty_pages(slot, 0, 64, 1);
		reset(slot);
		ck_assert_uint_le(stats_of(slot).retained_pages, 64);
	}
	assert_shows(slot, 40, 100, 5, 16u << 20);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* --- pagemap --- */

/* The descriptor that the library keeps of /proc/self/pagemap. */
static int pagemap_fd(void)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	while (found < 0 && (entry = readdir(folder))) {
		char target[64] = "";
		if (readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) > 8 &&
				strstr(target, "/pagemap"))
			found = atoi(entry->d_name);
	}
	closedir(folder);
	return found;
}

static int dirty_and_reset(struct memslot_slot *slot, size_t page)
{
	base_of(slot)[PAGES(page)] = 1;
	base_of(slot)[PAGES(page + 50)] = 1;
	child_check(memslot_slot_reset(slot) == 0);
	child_check(slot_shows(slot, 10, 20, 5, PAGES(100)));
	return 0;
}

/* In a child: these close what libcheck needs, or lie to the library. */
static int close_pagemap(void *kind)
{
	struct memslot_slot *slot = slot_of_kind(*(int *)kind, PAGES(100));
	struct memslot_image *image = image_of(10, 20, 5);

	instantiate(slot, image, PAGES(100));
	for (size_t round = 0; round < 4; round++) {
		int fd = pagemap_fd();
		child_check(dirty_and_reset(slot, 4 * round) == 0);
		if (fd >= 0)
			close(fd);
		child_check(dirty_and_reset(slot, 4 * round + 1) == 0);
	}
	return memslot_slot_destroy(slot);
}

START_TEST(a_closed_pagemap_is_opened_again)
{
	ck_assert_int_eq(test_in_child(close_pagemap, &_i), 0);
}
END_TEST

static int foreign_pagemap(void *kind)
{
	struct memslot_slot *slot = slot_of_kind(*(int *)kind, PAGES(100));
	struct memslot_image *image = image_of(10, 20, 5);
	char path[40];
	int fd, foreign, error = 0;
	pid_t other;

	instantiate(slot, image, PAGES(100));
	child_check(dirty_and_reset(slot, 0) == 0);
	fd = pagemap_fd();
	if (fd < 0)
		return 0; /* this kind, or this kernel, never scans */
	other = fork(); /* same addresses, other pages: a scan there would miss ours */
	if (other == 0) {
		pause();
		_exit(0);
	}
	snprintf(path, sizeof path, "/proc/%d/pagemap", other);
	foreign = open(path, O_RDONLY);
	error |= foreign < 0 || dup2(foreign, fd) != fd;
	error |= dirty_and_reset(slot, 5);
	error |= dirty_and_reset(slot, 6);
	error |= fcntl(fd, F_GETFD) < 0; /* it is the application's now */
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	return error;
}

START_TEST(a_foreign_pagemap_is_not_believed)
{
	ck_assert_int_eq(test_in_child(foreign_pagemap, &_i), 0);
}
END_TEST

/* --- budgets --- */

START_TEST(the_copy_budget_bounds_what_stays_resident)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_slot *slot;

	opts.copy_budget = PAGES(16);
	slot = slot_new(PAGES(300), &opts);
	instantiate(slot, NULL, PAGES(250));
	for (unsigned round = 0; round < 30; round++) {
		dirty_pages(slot, round % 7, 240, round % 5 + 1);
		reset(slot);
		ck_assert_uint_le(stats_of(slot).retained_pages, 16);
		assert_zeros(slot, PAGES(250));
	}
	destroy(slot);
}
END_TEST

START_TEST(without_a_copy_budget_everything_is_dropped)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_slot_stats stats;
	struct memslot_slot *slot;

	NEED_FEATURE("dontneed");
	opts.copy_budget = MEMSLOT_NONE;
	slot = slot_new(PAGES(300), &opts);
	instantiate(slot, NULL, PAGES(250));
	for (unsigned round = 0; round < 5; round++) {
		dirty_pages(slot, 0, 250, round + 1);
		reset(slot);
		assert_zeros(slot, PAGES(250));
	}
	stats = stats_of(slot);
	ck_assert_uint_eq(stats.retained_pages, 0);
	ck_assert_uint_eq(stats.bytes_restored, 0);
	ck_assert_uint_ge(stats.resets_drop, 5);
	destroy(slot);
}
END_TEST

START_TEST(an_unlimited_budget_retains_everything)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .copy_budget = MEMSLOT_UNLIMITED,
			.reset_method = MEMSLOT_RESET_SCAN);
	struct memslot_slot *slot = slot_new(20u << 20, &opts);

	NEED_FEATURE("pagemap_scan");
	instantiate(slot, NULL, 20u << 20);
	dirty_all(slot);
	reset(slot);
	ck_assert_uint_eq(stats_of(slot).retained_pages, (20u << 20) / test_page());
	assert_zeros(slot, 20u << 20);
	destroy(slot);
}
END_TEST

/* --- methods --- */

START_TEST(forced_methods_are_taken_and_told)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(100));
	bool scans = memslot_feature("pagemap_scan") == 1;
	uint64_t method;

	instantiate(slot, NULL, PAGES(100));
	for (unsigned round = 0; round < 5; round++) {
		dirty_pages(slot, 0, 50, 1);
		reset(slot);
	}
	method = stats_of(slot).last_method;
	switch (kind_method(_i)) {
	case MEMSLOT_RESET_DROP:
		ck_assert_uint_eq(method, MEMSLOT_RESET_DROP);
		break;
	case MEMSLOT_RESET_SCAN:
		ck_assert_uint_eq(method, scans ? MEMSLOT_RESET_SCAN : MEMSLOT_RESET_DROP);
		break;
	case MEMSLOT_RESET_RESTORE:
		if (!scans)
			ck_assert_uint_eq(method, MEMSLOT_RESET_DROP);
		else if (!kind_is_confined(_i) || memslot_feature("fault_counter") != 1)
			ck_assert_uint_eq(method, MEMSLOT_RESET_SCAN);
		break;
	default:
		break;
	}
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("reset");
	TCase *contents = test_case(suite, "contents"), *pages = test_case(suite, "pages");
	TCase *pagemap = test_case(suite, "pagemap"), *budget = test_case(suite, "budgets, methods");

	each_kind(contents, random_writes_are_put_back);
	each_kind(contents, a_steady_set_is_put_back_every_time);
	each_kind(contents, more_runs_than_any_array_holds);
	each_kind(contents, writing_the_images_own_bytes_is_harmless);
	each_kind(contents, every_way_to_write_is_noticed);
	each_kind(contents, invariant_08_writes_that_move_no_counter_are_found);
	tcase_add_unchecked_fixture(pages, test_swap_begin, test_swap_end);
	each_kind(pages, invariant_03_swapped_pages_are_dropped);
	each_kind(pages, invariant_15_under_a_pin_swapped_pages_are_written_in_place);
	tcase_add_test(pages, slots_are_no_business_of_ksm);
	tcase_add_loop_test(pages, invariant_03_a_scan_ends_at_the_edge, 4 * SLOT_EDGES,
			4 * SLOT_EDGES + 2);
	each_kind(pages, swapped_pages_are_captured_discarded_and_cut_off);
	each_kind(pages, locked_pages_are_cleaned_too);
	tcase_add_test(pages, invariant_21_a_locked_prefix_does_not_hide_the_rest);
	each_kind(pages, pages_that_were_only_read_cost_no_memory_later);
	each_kind(pagemap, a_closed_pagemap_is_opened_again);
	each_kind(pagemap, a_foreign_pagemap_is_not_believed);
	each_kind(budget, the_copy_budget_bounds_what_stays_resident);
	each_kind(budget, without_a_copy_budget_everything_is_dropped);
	tcase_add_test(budget, an_unlimited_budget_retains_everything);
	each_kind(budget, forced_methods_are_taken_and_told);
	return suite;
}
