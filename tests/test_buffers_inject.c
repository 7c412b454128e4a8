/* SPDX-License-Identifier: MIT */
/*
 * test_buffers_inject.c - one system call of a whole life fails, each in its turn: calls answer
 * with an error and work when they are made again, or do without; no byte is wrong, nothing is left
 * behind.
 */
#define _GNU_SOURCE
#include "buffers_ring.h"

#include "base/feature.h"
#include "base/os.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Only one call fails, so that the second try works. -EBUSY: not yet. */
#define again(call)                                                                                \
	({                                                                                         \
		int answer_ = (call);                                                              \
		if (answer_)                                                                       \
			answer_ = (call);                                                          \
		ck_assert_msg(answer_ == 0, "%s: %d after call %llu", #call, answer_,              \
			(unsigned long long)ms_os_inject.at);                                      \
	})

static struct memslot_buffers *shared; /* with a child */

static void read_file(struct bench *bench, int fd, uint32_t count)
{
	struct memslot_buffer buffer;

	again(memslot_buffers_acquire(bench->buffers, count, 0, &buffer));
	memset(buffer.base, 0, count * buffer.size);
	again(memslot_ring_prep_read(
		bench->ring, bench_sqe(bench), fd, &buffer, 0, count * buffer.size, 0, 1));
	ck_assert_int_eq(bench_run(bench).result, (int)(count * buffer.size));
	ck_assert(test_filled(buffer.base, count * buffer.size, 3));
	again(memslot_buffers_release(bench->buffers, &buffer));
}

static void receive(struct bench *bench, int ends[2])
{
	struct memslot_completion done;
	struct memslot_group *group;

	again(memslot_ring_group_create(bench->ring, 1, NULL, &group));
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_int_eq(send(ends[0], "packet", 6, 0), 6);
		again(memslot_ring_group_prep_recv(group, bench_sqe(bench), ends[1], 0, 0, 1));
		bench_submit(bench);
		done = bench_next(bench);
		ck_assert_int_eq(done.result, 6);
		ck_assert_mem_eq(done.buffer.base, "packet", 6);
		again(memslot_buffers_release(bench->buffers, &done.buffer));
	}
	again(memslot_ring_group_destroy(group));
}

static void begin(struct bench *bench, struct memslot_buffers *buffers)
{
	bench->buffers = buffers;
	ck_assert_int_eq(io_uring_queue_init(8, &bench->uring, 0), 0);
	again(memslot_ring_attach(buffers, &bench->uring, NULL, &bench->ring));
}

static void end(struct bench *bench)
{
	again(memslot_ring_detach(bench->ring));
	io_uring_queue_exit(&bench->uring);
}

static int file, sockets[2];

static void live(struct memslot_pool *pool)
{
	struct memslot_buffers_opts opts = MEMSLOT_OPTS(
		memslot_buffers_opts, .buffer_size = 4 * KB, .budget = MB, .pool = pool);
	struct memslot_buffers *buffers;
	struct memslot_buffer kept;
	struct bench first, second;

	again(memslot_buffers_create(&opts, &buffers));
	again(memslot_buffers_acquire(buffers, 1, 0, &kept));
	begin(&first, buffers);
	read_file(&first, file, 2);
	begin(&second, buffers);
	read_file(&second, file, 16);
	receive(&second, sockets);
	read_file(&first, file, 16);
	again(memslot_buffers_set_budget(buffers, MB));
	read_file(&second, file, 3);
	end(&first);
	read_file(&second, file, 3);
	end(&second);
	again(memslot_buffers_set_budget(buffers, MB));
	again(memslot_buffers_release(buffers, &kept));
	again(memslot_buffers_close(buffers, 0, NULL));
}

/* How many calls of a number were seen. A hundred runs that saw nothing fail end it. */
static uint64_t sweep(long only, int error)
{
	uint64_t at = 0, seen;
	unsigned fds;

	do {
		struct memslot_pool *pool = NULL;
		struct memslot_slot *slot;
		if (at % 2)
			ck_assert_int_eq(memslot_pool_create(3, 64 * KB, NULL, &pool), 0);
		fds = test_fd_count();
		ms_os_inject = (struct ms_os_inject){.at = ++at, .error = error, .only = only};
		live(pool);
		seen = ms_os_inject.seen;
		ms_os_inject = (struct ms_os_inject){.at = 0};
		ck_assert_uint_eq(test_fd_count(), fds);
		if (pool) { /* who is next in the slots sees nothing */
			ck_assert_int_eq(memslot_pool_acquire(pool, NULL, 64 * KB, NULL, &slot), 0);
			ck_assert(test_zero(memslot_slot_base(slot), 64 * KB));
			ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
			ck_assert_int_eq(memslot_pool_destroy(pool), 0);
		}
	} while (seen >= at);
	return seen;
}

static void ready(void)
{
	for (uint32_t i = 0; memslot_feature_name(i); i++) /* probed before anything fails */
		(void)memslot_feature(memslot_feature_name(i));
	file = file_of(64 * KB, 3);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets), 0);
	live(NULL); /* what the library opens once */
}

START_TEST(every_register_call_may_fail)
{
	uint64_t calls;

	NEED_URING();
	ready();
	calls = sweep(SYS_io_uring_register, _i ? EINVAL : ENOMEM);
	if (ms_feature(MS_FEATURE_URING_FIXED) && ms_feature(MS_FEATURE_URING_GROUPS))
		ck_assert_uint_ge(calls, 9);
}
END_TEST

/* What the kernel has not let go of is not given up. */
START_TEST(a_ring_that_cannot_be_unregistered_stays_attached)
{
	struct bench bench;

	NEED_URING();
	SKIP_IF(!ms_feature(MS_FEATURE_URING_FIXED), "nothing is registered here");
	ready();
	begin(&bench, buffers_new(4 * KB, MB));
	read_file(&bench, file, 4);
	ms_os_inject =
		(struct ms_os_inject){.at = 1, .error = ENOMEM, .only = SYS_io_uring_register};
	ck_assert_int_eq(memslot_ring_detach(bench.ring), -ENOMEM);
	ck_assert_int_eq(memslot_buffers_close(bench.buffers, 0, NULL), -EBUSY);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	io_uring_queue_exit(&bench.uring);
	buffers_end(bench.buffers);
}
END_TEST

static int read_in_child(void *argument)
{
	const struct memslot_buffer *held = argument;

	for (unsigned i = 0; i < 2; i++) {
		child_check(test_filled(held[i].base, held[i].size, 5));
		child_check(memslot_buffers_release(shared, &held[i]) == 0);
	}
	return 0;
}

/* Hidden from children are all areas, or none: a pool that is not dead there has its memory. */
START_TEST(what_was_not_attached_is_still_the_childs)
{
	struct memslot_pool *pool;
	struct memslot_buffer held[2];
	struct memslot_ring *ring;
	struct io_uring uring;
	int answer = -1;

	NEED_URING();
	ready();
	shared = buffers_in_pool(4 * KB, MB, 2, 1, &pool);
	ck_assert_int_eq(io_uring_queue_init(8, &uring, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		held[i] = buffer_get(shared, 1);
		test_fill(held[i].base, held[i].size, 5);
	}
	for (unsigned at = 1; answer; at++) {
		ms_os_inject =
			(struct ms_os_inject){.at = at, .error = ENOMEM, .only = SYS_madvise};
		answer = memslot_ring_attach(shared, &uring, NULL, &ring);
		ms_os_inject = (struct ms_os_inject){.at = 0};
		ck_assert(answer == -ENOMEM || (answer == 0 && at > 2));
		if (answer)
			ck_assert_int_eq(test_in_child(read_in_child, held), 0);
	}
	ck_assert_int_eq(memslot_ring_detach(ring), 0);
	io_uring_queue_exit(&uring);
	for (unsigned i = 0; i < 2; i++)
		buffer_put(shared, &held[i]);
	buffers_end(shared);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

/* Each but getpid, write, futex and sched_yield, which cannot. */
static const long kinds[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_ioctl, SYS_openat,
	SYS_close, SYS_fstat, SYS_getrandom, SYS_getrusage, SYS_prctl, SYS_process_madvise};
#define KINDS (int)(sizeof kinds / sizeof kinds[0])

START_TEST(every_system_call_may_fail)
{
	long kind = kinds[_i / 2];
	uint64_t calls;

	NEED_URING();
	ready();
	calls = sweep(kind, _i % 2 ? EPERM : ENOMEM);
	if (kind == SYS_mmap || kind == SYS_madvise || kind == SYS_fstat)
		ck_assert_uint_ge(calls, 4);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers_inject");
	TCase *tcase = test_case(suite, "calls");

	tcase_add_loop_test(tcase, every_register_call_may_fail, 0, 2);
	tcase_add_test(tcase, a_ring_that_cannot_be_unregistered_stays_attached);
	tcase_add_test(tcase, what_was_not_attached_is_still_the_childs);
	tcase_add_loop_test(tcase, every_system_call_may_fail, 0, 2 * KINDS);
	return suite;
}
