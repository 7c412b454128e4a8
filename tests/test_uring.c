/* SPDX-License-Identifier: MIT */
/*
 * test_uring.c - the kernel writes into slots and reads from them behind our back: io_uring operations
 * under a hold, registered buffers under a pin, O_DIRECT, zero-copy reads of pages.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static struct io_uring ring;

static struct memslot_slot *slot_with_image(int kind)
{
	struct memslot_slot *slot = slot_of_kind(kind, PAGES(50));
	struct memslot_image *image = image_of(10, 20, 4);

	instantiate(slot, image, PAGES(40));
	memslot_image_unref(image);
	return slot;
}

static struct io_uring_sqe *sqe(void)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring);

	ck_assert_ptr_nonnull(entry);
	return entry;
}

static int finish(void)
{
	struct io_uring_cqe *cqe;
	int result;

	ck_assert_int_eq(io_uring_wait_cqe(&ring, &cqe), 0);
	result = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	return result;
}

static int run(void)
{
	ck_assert_int_eq(io_uring_submit(&ring), 1);
	return finish();
}

/* --- HOLD_IO --- */

/* Invariants 15 and 16: a pending read would write into the next tenant's pages. */
START_TEST(a_pending_read_under_a_hold_lands_before_the_reset)
{
	struct memslot_slot *slot = slot_with_image(_i);
	unsigned char *to = base_of(slot) + PAGES(12) + 100;
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	for (int round = 0; round < 5; round++) {
		dirty_pages(slot, 0, 40, 4);
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
		io_uring_prep_read(sqe(), ends[0], to, 7, 0);
		ck_assert_int_eq(io_uring_submit(&ring), 1);
		ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
		ck_assert_int_eq(memslot_slot_destroy(slot), -EBUSY);
		ck_assert_int_eq(write(ends[1], "SECRET!", 7), 7);
		ck_assert_int_eq(finish(), 7);
		ck_assert_mem_eq(to, "SECRET!", 7);
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	close(ends[0]);
	close(ends[1]);
	destroy(slot);
}
END_TEST

/* IOSQE_ASYNC: a worker of the kernel faults, not this thread. Invariant 7: the sticky bit. */
START_TEST(invariant_07_writes_by_a_kernel_worker_under_a_hold_are_found)
{
	struct memslot_slot *slot = slot_with_image(_i);
	int fd = memfd_create("test", 0);
	static char bytes[4096 * 4];

	memset(bytes, 'S', sizeof bytes);
	ck_assert_int_eq(write(fd, bytes, sizeof bytes), (ssize_t)sizeof bytes);
	for (size_t round = 0; round < 9; round++) {
		struct io_uring_sqe *entry;
		dirty_pages(slot, 0, 3, 1);
		reset(slot);
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
		entry = sqe();
		io_uring_prep_read(entry, fd, base_of(slot) + PAGES(3 + 4 * round), sizeof bytes, 0);
		entry->flags |= IOSQE_ASYNC;
		ck_assert_int_eq(run(), sizeof bytes);
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	close(fd);
	destroy(slot);
}
END_TEST

/* --- HOLD_PIN: registered buffers --- */

static void pin(struct memslot_slot *slot, size_t first, size_t count)
{
	struct iovec buffer = {base_of(slot) + PAGES(first), PAGES(count)};

	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_PIN), 0);
	ck_assert_int_eq(io_uring_register_buffers(&ring, &buffer, 1), 0);
}

static void unpin(struct memslot_slot *slot)
{
	ck_assert_int_eq(io_uring_unregister_buffers(&ring), 0);
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), 0);
}

static void read_fixed(int fd, unsigned char *to, size_t size)
{
	io_uring_prep_read_fixed(sqe(), fd, to, (unsigned)size, 0, 0);
	ck_assert_int_eq(run(), (int)size);
}

/* Invariant 10: written without a fault or a report. Dropped pages would be detached: the read would
 * report success and be lost. */
START_TEST(invariant_10_a_registered_buffer_works_on_after_every_reset)
{
	struct memslot_slot *slot = slot_with_image(_i);
	static char bytes[4096 * 6];
	int fd = memfd_create("test", 0);

	memset(bytes, 'S', sizeof bytes);
	ck_assert_int_eq(write(fd, bytes, sizeof bytes), (ssize_t)sizeof bytes);
	dirty_pages(slot, 0, 5, 1);
	reset(slot);
	pin(slot, 4, 30);
	for (size_t round = 0; round < 20; round++) {
		unsigned char *to = base_of(slot) + PAGES(4 + round);
		read_fixed(fd, to, sizeof bytes);
		ck_assert_mem_eq(to, bytes, sizeof bytes);
		dirty_pages(slot, 35, 5, 1);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	unpin(slot);
	for (int round = 0; round < 3; round++) {
		dirty_pages(slot, 0, 40, 2);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	close(fd);
	destroy(slot);
}
END_TEST

START_TEST(invariant_10_a_registered_buffer_sends_current_bytes)
{
	struct memslot_slot *slot = slot_with_image(_i);
	unsigned char *from = base_of(slot) + PAGES(8), got[8192];
	int fd = memfd_create("test", 0);

	pin(slot, 4, 30);
	for (unsigned round = 0; round < 10; round++) {
		dirty_pages(slot, 0, 40, 1);
		reset(slot);
		test_fill(from, sizeof got, 50 + round);
		io_uring_prep_write_fixed(sqe(), fd, from, sizeof got, 0, 0);
		ck_assert_int_eq(run(), sizeof got);
		ck_assert_int_eq(pread(fd, got, sizeof got, 0), (ssize_t)sizeof got);
		ck_assert(test_filled(got, sizeof got, 50 + round));
		reset(slot);
		/* After the reset the image's bytes are what is sent. */
		io_uring_prep_write_fixed(sqe(), fd, base_of(slot) + PAGES(10), sizeof got, 0, 0);
		ck_assert_int_eq(run(), sizeof got);
		ck_assert_int_eq(pread(fd, got, sizeof got, 0), (ssize_t)sizeof got);
		ck_assert(test_filled(got, sizeof got, 4));
	}
	unpin(slot);
	close(fd);
	destroy(slot);
}
END_TEST

/* The same where the pages were resident and retained before the pin, or were never touched. */
START_TEST(a_pin_over_pages_in_every_state_keeps_them)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *image = image_of(10, 20, 4);
	static char bytes[4096];
	int fd = memfd_create("test", 0);
	struct memslot_slot *slot;

	opts.copy_budget = PAGES(6); /* less than is pinned: a pinned slot ignores it */
	memset(bytes, 'S', sizeof bytes);
	ck_assert_int_eq(write(fd, bytes, sizeof bytes), (ssize_t)sizeof bytes);
	slot = slot_new(PAGES(50), &opts);
	for (unsigned state = 0; state < 4; state++) {
		instantiate(slot, image, PAGES(40));
		if (state >= 1)
			dirty_pages(slot, 0, 40, 3);
		if (state >= 2)
			reset(slot);
		if (state == 3)
			dirty_pages(slot, 0, 40, 2);
		pin(slot, 0, 40);
		for (size_t round = 0; round < 12; round++) {
			read_fixed(fd, base_of(slot) + PAGES(3 * round + state), sizeof bytes);
			ck_assert_mem_eq(base_of(slot) + PAGES(3 * round + state), bytes, sizeof bytes);
			reset(slot);
			assert_shows(slot, 10, 20, 4, PAGES(40));
		}
		unpin(slot);
		reset(slot);
		ck_assert_uint_le(stats_of(slot).retained_pages, 6);
	}
	close(fd);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* --- O_DIRECT --- */

START_TEST(a_direct_read_by_the_ring_under_a_hold_is_put_back)
{
	char path[] = "memslot-direct-XXXXXX";
	struct memslot_slot *slot = slot_with_image(_i);
	static char bytes[4096 * 4];
	int plain = mkstemp(path), fd = open(path, O_RDONLY | O_DIRECT), result = 0;

	memset(bytes, 'S', sizeof bytes);
	ck_assert_int_eq(write(plain, bytes, sizeof bytes), (ssize_t)sizeof bytes);
	ck_assert_int_eq(fsync(plain), 0);
	unlink(path);
	for (size_t round = 0; fd >= 0 && result >= 0 && round < 8; round++) {
		dirty_pages(slot, 0, 3, 1);
		reset(slot);
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
		io_uring_prep_read(sqe(), fd, base_of(slot) + PAGES(4 * round), sizeof bytes, 0);
		result = run();
		ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
		if (result == (int)sizeof bytes)
			ck_assert_mem_eq(base_of(slot) + PAGES(4 * round), bytes, sizeof bytes);
		reset(slot);
		assert_shows(slot, 10, 20, 4, PAGES(40));
	}
	close(plain);
	close(fd);
	destroy(slot);
	SKIP_IF(fd < 0 || result < 0, "no O_DIRECT on this file system");
}
END_TEST

/* Invariant 17: what still reads the page sends what is there when it is read. */
START_TEST(invariant_17_a_zero_copy_read_needs_a_hold)
{
	struct memslot_slot *slot = slot_with_image(_i);
	struct iovec part = {base_of(slot), 8};
	char got[8];
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	memcpy(base_of(slot), "tenant 1", 8);
	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(vmsplice(ends[1], &part, 1, 0), 8);
	ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
	ck_assert_int_eq(read(ends[0], got, 8), 8);
	ck_assert_mem_eq(got, "tenant 1", 8);
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
	reset(slot);
	assert_shows(slot, 10, 20, 4, PAGES(40));
	close(ends[0]);
	close(ends[1]);
	destroy(slot);
}
END_TEST

static void ring_up(void)
{
	ck_assert_int_eq(io_uring_queue_init(8, &ring, 0), 0);
}

static void ring_down(void)
{
	io_uring_queue_exit(&ring);
}

Suite *test_suite(void)
{
	Suite *suite;
	TCase *hold, *pins, *direct;

	if (memslot_feature("io_uring") != 1) {
		test_skip_all("feature io_uring is missing or off");
		return NULL;
	}
	suite = suite_create("uring");
	hold = test_case(suite, "hold");
	pins = test_case(suite, "pin");
	direct = test_case(suite, "direct and zero copy");
	tcase_add_checked_fixture(hold, ring_up, ring_down);
	each_kind(hold, a_pending_read_under_a_hold_lands_before_the_reset);
	each_kind(hold, invariant_07_writes_by_a_kernel_worker_under_a_hold_are_found);
	tcase_add_checked_fixture(pins, ring_up, ring_down);
	each_kind(pins, invariant_10_a_registered_buffer_works_on_after_every_reset);
	each_kind(pins, invariant_10_a_registered_buffer_sends_current_bytes);
	each_kind(pins, a_pin_over_pages_in_every_state_keeps_them);
	tcase_add_checked_fixture(direct, ring_up, ring_down);
	each_kind(direct, a_direct_read_by_the_ring_under_a_hold_is_put_back);
	each_kind(direct, invariant_17_a_zero_copy_read_needs_a_hold);
	return suite;
}
