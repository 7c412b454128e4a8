/* SPDX-License-Identifier: MIT */
/*
 * test_buffers_group.c - buffers that the kernel chooses: every byte arrives, in order, once; every
 * buffer comes back. The same where the kernel has no provided-buffer rings.
 */
#define _GNU_SOURCE
#include "buffers_ring.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUPS() (memslot_feature("uring_groups") == 1)
#define MULTISHOT MEMSLOT_GROUP_MULTISHOT

static struct memslot_group *group_new(struct bench *bench, uint64_t count)
{
	struct memslot_group_opts opts = MEMSLOT_OPTS(memslot_group_opts, .count = count);
	struct memslot_group *group = NULL;

	ck_assert_int_eq(memslot_ring_group_create(bench->ring, 7, &opts, &group), 0);
	return group;
}

static struct memslot_group_stats group_stats(struct memslot_group *group)
{
	struct memslot_group_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_ring_group_stats(group, &stats), 0);
	return stats;
}

/* --- streams --- */

struct stream {
	int ends[2];
	size_t size, have;	     /* to be sent; received and compared */
	struct test_rng rng, writes; /* the reader's, the writer's */
	unsigned char *bytes;
	pthread_t writer;
};

static void *write_all(void *argument)
{
	struct stream *stream = argument;

	for (size_t at = 0; at < stream->size;) {
		size_t part = 1 + test_below(&stream->writes, 20000);
		ssize_t done = write(stream->ends[0], stream->bytes + at,
			part < stream->size - at ? part : stream->size - at);
		if (done <= 0)
			break;
		at += (size_t)done;
	}
	close(stream->ends[0]);
	return NULL;
}

static void stream_begin(struct stream *stream, size_t size, bool is_pipe)
{
	*stream = (struct stream){.size = size,
		.bytes = malloc(size),
		.rng = test_rng(size),
		.writes = test_rng(size + 1)};
	test_fill(stream->bytes, size, 1);
	if (is_pipe) {
		int ends[2];
		ck_assert_int_eq(pipe(ends), 0);
		stream->ends[0] = ends[1];
		stream->ends[1] = ends[0];
	} else {
		tcp_pair(stream->ends);
	}
	ck_assert_int_eq(pthread_create(&stream->writer, NULL, write_all, stream), 0);
}

static void stream_end(struct stream *stream)
{
	pthread_join(stream->writer, NULL);
	ck_assert_uint_eq(stream->have, stream->size);
	close(stream->ends[1]);
	free(stream->bytes);
}

static void stream_take(struct stream *stream, const struct memslot_completion *done)
{
	ck_assert_uint_eq(done->bytes, (uint64_t)done->result);
	ck_assert_uint_le(stream->have + done->bytes, stream->size);
	ck_assert_mem_eq(done->buffer.base, stream->bytes + stream->have, done->bytes);
	stream->have += done->bytes;
}

static int prep(
	struct bench *bench, struct memslot_group *group, int fd, bool is_pipe, uint32_t flags)
{
	struct io_uring_sqe sqe;
	int error = is_pipe ? memslot_ring_group_prep_read(group, &sqe, fd, flags, UINT64_MAX, 5)
			    : memslot_ring_group_prep_recv(group, &sqe, fd, flags, 0, 5);

	if (error == 0) {
		*bench_sqe(bench) = sqe;
		bench_submit(bench);
	}
	return error;
}

/* Hold up to `keep` buffers back for a while; when the budget is spent, wait for the event. */
static void receive_all(struct bench *bench, struct memslot_group *group, struct stream *stream,
	bool is_pipe, uint32_t flags, unsigned keep)
{
	struct memslot_buffer kept[64];
	unsigned count = 0, limit = keep;
	bool armed = false, ended = false;

	while (!ended) {
		struct memslot_completion done;
		if (!armed) {
			int error = prep(bench, group, stream->ends[1], is_pipe, flags);
			ck_assert(error == 0 || error == -EAGAIN);
			if (error) /* what we hold back is what is missing */
				ck_assert_uint_gt(count, 0);
			while (error && count)
				buffer_put(bench->buffers, &kept[--count]);
			armed = error == 0;
			continue;
		}
		done = bench_next(bench);
		ck_assert_uint_eq(done.user_data, 5);
		armed = !(done.flags & MEMSLOT_COMPLETION_TERMINAL);
		ck_assert(done.result >= 0 || done.result == -ENOBUFS);
		ended = done.result == 0;
		if (flags && !armed)
			ck_assert_int_eq(!!(done.flags & MEMSLOT_COMPLETION_REARM), !ended);
		if (!(done.flags & MEMSLOT_COMPLETION_SELECTED)) {
			ck_assert_int_le(done.result, 0);
			continue;
		}
		stream_take(stream, &done);
		kept[count++] = done.buffer;
		while (count > limit)
			buffer_put(bench->buffers, &kept[--count]);
		limit = test_below(&stream->rng, 50) ? limit
						     : (unsigned)test_below(&stream->rng, keep + 1);
	}
	while (count)
		buffer_put(bench->buffers, &kept[--count]);
}

static void run(uint64_t budget, uint64_t count, bool is_pipe, uint32_t flags, unsigned keep,
	unsigned ring_flags)
{
	struct bench bench;
	struct memslot_group *group;
	struct stream stream;

	bench_attach(&bench, buffers_new(4 * KB, budget), ring_flags);
	group = group_new(&bench, count);
	stream_begin(&stream, (size_t)test_rounds(40) * 100000, is_pipe);
	receive_all(&bench, group, &stream, is_pipe, flags, keep);
	stream_end(&stream);
	ck_assert_uint_eq(group_stats(group).in_hand, 0);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	bench_end(&bench);
}

START_TEST(a_stream_arrives_whole_and_in_order)
{
	NEED_URING();
	run(4 * MB, 64, false, _i ? MULTISHOT : 0, 0, 0);
}
END_TEST

START_TEST(a_stream_arrives_when_buffers_are_held_back)
{
	NEED_URING();
	run(4 * MB, 64, false, _i ? MULTISHOT : 0, 40, 0);
}
END_TEST

/* Backpressure: the budget is spent, the operation ends, and is armed again when there are buffers.
 */
START_TEST(a_stream_arrives_when_the_budget_is_spent)
{
	NEED_URING();
	run(20 * 4 * KB, 64, false, _i ? MULTISHOT : 0, 30, 0);
	run(4 * KB, 1, false, _i ? MULTISHOT : 0, 1, 0);
}
END_TEST

START_TEST(pipes_are_read_through_groups)
{
	uint32_t flags =
		_i && memslot_feature("uring_read_multishot") == 1 && GROUPS() ? MULTISHOT : 0;

	NEED_URING();
	run(20 * 4 * KB, 64, true, flags, 30, 0);
}
END_TEST

START_TEST(a_ring_that_defers_its_work_is_as_good)
{
	NEED_URING();
	run(20 * 4 * KB, 64, false, MULTISHOT, 30,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}
END_TEST

START_TEST(files_are_read_through_groups)
{
	struct bench bench;
	struct memslot_group *group;
	int fd;

	NEED_URING();
	fd = file_of(10 * KB, 3);
	bench_begin(&bench, 4 * KB, 0);
	group = group_new(&bench, 4);
	for (uint64_t at = 0; at < 10 * KB; at += 4 * KB) {
		struct memslot_completion done;
		unsigned char bytes[4096];
		ssize_t size = pread(fd, bytes, sizeof bytes, (off_t)at);
		ck_assert_int_eq(
			memslot_ring_group_prep_read(group, bench_sqe(&bench), fd, 0, at, at), 0);
		bench_submit(&bench);
		done = bench_next(&bench);
		ck_assert_uint_eq(done.user_data, at);
		ck_assert_int_eq(done.result, (int)size);
		ck_assert_mem_eq(done.buffer.base, bytes, (size_t)size);
		buffer_put(bench.buffers, &done.buffer);
	}
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	close(fd);
	bench_end(&bench);
}
END_TEST

/* --- the window --- */

/* Without a completion of its own, if it finds it. */
static void cancel(struct bench *bench, uint64_t token)
{
	struct io_uring_sqe *sqe = bench_sqe(bench);

	io_uring_prep_cancel64(sqe, token, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 0x6d73ull << 48 | 0xfffff; /* if it comes too late: housekeeping */
	bench_submit(bench);
}

/* A worker on its way to wait may miss it: again, until it has come to something. */
static struct memslot_completion cancelled(struct bench *bench, uint64_t token)
{
	struct memslot_completion done = {.flags = 0};
	struct __kernel_timespec soon = {.tv_nsec = 10000000};
	struct io_uring_cqe *cqe;

	while (!done.flags) {
		cancel(bench, token);
		while (!done.flags && io_uring_wait_cqe_timeout(&bench->uring, &cqe, &soon) == 0)
			done = bench_next(bench);
	}
	return done;
}

START_TEST(many_that_find_the_window_empty_at_once_double_it_once)
{
	enum { SOCKETS = 24 };
	struct bench bench;
	struct memslot_group *group;
	struct memslot_completion done;
	struct memslot_buffer kept[SOCKETS];
	int ends[SOCKETS][2];
	uint64_t first, over = 0;
	unsigned count = 0;

	NEED_URING();
	SKIP_IF(!GROUPS(), "no rings of buffers here");
	bench_begin(&bench, 64 * KB, 64 * 64 * KB);
	group = group_new(&bench, 64);
	first = group_stats(group).window;
	ck_assert_uint_lt(2 * first, SOCKETS);
	for (unsigned i = 0; i < SOCKETS; i++) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends[i]), 0);
		ck_assert_int_eq(
			memslot_ring_group_prep_recv(group, bench_sqe(&bench), ends[i][1], 0, 0, i),
			0);
		bench_submit(&bench);
	}
	for (unsigned i = 0; i < SOCKETS; i++)
		ck_assert_int_eq(send(ends[i][0], "datagram", 8, 0), 8);
	while (over < SOCKETS) {
		done = bench_next(&bench);
		over += (done.flags & MEMSLOT_COMPLETION_TERMINAL) != 0;
		if (done.flags & MEMSLOT_COMPLETION_SELECTED)
			kept[count++] = done.buffer;
	}
	ck_assert_uint_eq(count + group_stats(group).enobufs, SOCKETS);
	if (group_stats(group).enobufs > SOCKETS / 2)
		ck_assert_uint_eq(group_stats(group).window, 2 * first);
	while (count)
		buffer_put(bench.buffers, &kept[--count]);
	for (unsigned i = 0; i < SOCKETS; i++) {
		close(ends[i][0]);
		close(ends[i][1]);
	}
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	bench_end(&bench);
}
END_TEST

START_TEST(the_window_doubles_when_it_was_too_small_and_shrinks_again)
{
	struct bench bench;
	struct memslot_group *group;
	struct memslot_completion done;
	struct memslot_buffer kept[64];
	struct io_uring_sqe *sqe;
	uint64_t first, token;
	unsigned count = 0;
	int ends[2];

	NEED_URING();
	SKIP_IF(!GROUPS(), "no rings of buffers here");
	bench_begin(&bench, 64 * KB, 64 * 64 * KB);
	group = group_new(&bench, 64);
	first = group_stats(group).window;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	while (group_stats(group).enobufs == 0) { /* more at once than there is room for */
		for (uint64_t i = 0; i < 4 * first; i++)
			(void)send(ends[0], "datagram", 8, MSG_DONTWAIT);
		ck_assert_int_eq(memslot_ring_group_prep_recv(
					 group, bench_sqe(&bench), ends[1], MULTISHOT, 0, 1),
			0);
		bench_submit(&bench);
		do {
			done = bench_next(&bench);
			if (done.flags & MEMSLOT_COMPLETION_SELECTED)
				kept[count++] = done.buffer;
			SKIP_IF(memslot_feature("uring_recv_multishot") != 1, "one at a time");
		} while (!(done.flags & MEMSLOT_COMPLETION_TERMINAL));
		ck_assert_int_eq(done.result, -ENOBUFS);
		ck_assert(done.flags & MEMSLOT_COMPLETION_REARM);
		ck_assert_uint_eq(group_stats(group).in_hand, count);
		while (count)
			buffer_put(bench.buffers, &kept[--count]);
	}
	ck_assert_uint_eq(group_stats(group).window, 2 * first);
	while (recv(ends[1], kept, 8, MSG_DONTWAIT) == 8)
		;
	sqe = bench_sqe(&bench);
	ck_assert_int_eq(memslot_ring_group_prep_recv(group, sqe, ends[1], MULTISHOT, 0, 1), 0);
	token = sqe->user_data;
	bench_submit(&bench);
	for (unsigned i = 0; i < 2000 && group_stats(group).window > first; i++) {
		ck_assert_int_eq(send(ends[0], "datagram", 8, 0), 8);
		done = bench_next(&bench);
		if (done.flags & MEMSLOT_COMPLETION_SELECTED)
			buffer_put(bench.buffers, &done.buffer);
	}
	ck_assert_uint_eq(group_stats(group).window, first);
	cancel(&bench, token);
	while (bench_in_flight(&bench))
		done = bench_next(&bench);
	close(ends[0]);
	close(ends[1]);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	bench_end(&bench);
}
END_TEST

START_TEST(what_is_in_a_group_counts_against_the_budget)
{
	struct bench bench;
	struct memslot_group *group;
	struct memslot_buffer all[8];
	struct io_uring_sqe sqe;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 8 * 4 * KB);
	group = group_new(&bench, 64);
	for (unsigned i = 0; i < 8; i++)
		all[i] = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_group_prep_recv(group, &sqe, 0, 0, 0, 0), -EAGAIN);
	buffer_put(bench.buffers, &all[0]);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	ck_assert_int_eq(write(ends[0], "x", 1), 1);
	ck_assert_int_eq(
		memslot_ring_group_prep_recv(group, bench_sqe(&bench), ends[1], 0, 0, 0), 0);
	ck_assert_int_eq(memslot_buffers_acquire(bench.buffers, 1, 0, &all[0]), -EAGAIN);
	bench_submit(&bench);
	all[0] = bench_next(&bench).buffer;
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0); /* what is in hand stays ours */
	ck_assert_int_eq(*(char *)all[0].base, 'x');
	for (unsigned i = 0; i < 8; i++)
		buffer_put(bench.buffers, &all[i]);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

/* --- ends --- */

START_TEST(what_a_group_cannot_do_is_refused)
{
	struct bench bench;
	struct memslot_group *group, *other = NULL;
	struct memslot_group_opts opts = MEMSLOT_OPTS(memslot_group_opts, .count = 3);
	struct memslot_group_stats stats = {.size = 4};
	struct io_uring_sqe sqe;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 1, &opts, &other), -EINVAL);
	opts.count = 65536;
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 1, &opts, &other), -EINVAL);
	opts = MEMSLOT_OPTS(memslot_group_opts, .flags = 1);
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 1, &opts, &other), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_create(NULL, 1, NULL, &other), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 1, NULL, NULL), -EINVAL);
	group = group_new(&bench, 0);
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 7, NULL, &other), -EEXIST);
	ck_assert_ptr_null(other);
	ck_assert_int_eq(memslot_ring_group_prep_recv(group, &sqe, 0, 2, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_prep_recv(group, NULL, 0, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_prep_recv(NULL, &sqe, 0, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_prep_read(group, &sqe, 0, MULTISHOT, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_prep_read(group, &sqe, 0, 2, 0, 0), -EINVAL);
	if (memslot_feature("uring_read_multishot") != 1 || !GROUPS())
		ck_assert_int_eq(
			memslot_ring_group_prep_read(group, &sqe, 0, MULTISHOT, UINT64_MAX, 0),
			-EOPNOTSUPP);
	ck_assert_int_eq(memslot_ring_group_stats(group, NULL), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_stats(group, &stats), -EINVAL);
	ck_assert_int_eq(memslot_ring_group_destroy(NULL), 0);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), -EBUSY);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	ck_assert_uint_eq(buffers_stats(bench.buffers).live, 0);
	bench_end(&bench);
}
END_TEST

/* Facts q21: an operation may have chosen its buffer already, and the number must not be another's.
 */
START_TEST(a_group_ends_after_its_last_operation)
{
	struct bench bench;
	struct memslot_group *group;
	struct memslot_completion done;
	struct io_uring_sqe *sqe, scratch;
	uint64_t token;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	for (unsigned round = 0; round < 10; round++) {
		group = group_new(&bench, 8);
		sqe = bench_sqe(&bench);
		ck_assert_int_eq(memslot_ring_group_prep_recv(
					 group, sqe, ends[1], round % 2 ? MULTISHOT : 0, 0, 9),
			0);
		if (round % 3 == 0)
			sqe->flags |= IOSQE_ASYNC;
		token = sqe->user_data;
		bench_submit(&bench);
		ck_assert_int_eq(memslot_ring_group_destroy(group), -EBUSY); /* cancels */
		ck_assert_int_eq(
			memslot_ring_group_prep_recv(group, &scratch, ends[1], 0, 0, 9), -EBUSY);
		done = memslot_feature("uring_sync_cancel") == 1 ? bench_ours(&bench)
								 : cancelled(&bench, token);
		ck_assert_uint_eq(done.user_data, 9);
		ck_assert(done.flags & MEMSLOT_COMPLETION_TERMINAL);
		ck_assert(!(done.flags & (MEMSLOT_COMPLETION_REARM | MEMSLOT_COMPLETION_SELECTED)));
		ck_assert(done.result == -ECANCELED || done.result == -EINTR);
		ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	}
	group = group_new(&bench, 8);
	sqe = bench_sqe(&bench); /* and one that is not wanted after all */
	ck_assert_int_eq(memslot_ring_group_prep_recv(group, sqe, ends[1], 0, 0, 9), 0);
	ck_assert_int_eq(memslot_ring_unprep(bench.ring, sqe), 0);
	ck_assert_int_eq(memslot_ring_group_destroy(group), -EBUSY);
	bench_submit(&bench);
	ck_assert_uint_eq(bench_next(&bench).flags, 0);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	group = group_new(&bench, 8); /* the number again */
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

/* Facts q32: nobody reaps, the completion queue overflows: nothing is lost, each buffer is told. */
START_TEST(an_overflowing_completion_queue_loses_nothing)
{
	struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE, .cq_entries = 4};
	struct bench bench = {.buffers = buffers_new(4 * KB, 0)};
	struct memslot_group *group;
	bool armed = false;
	int ends[2];

	NEED_URING();
	ck_assert_int_eq(io_uring_queue_init_params(2, &bench.uring, &params), 0);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, NULL, &bench.ring), 0);
	group = group_new(&bench, 64);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	for (uint32_t sent = 0, seen = 0; seen < 400;) {
		struct memslot_completion done;
		if (!armed)
			ck_assert_int_eq(prep(&bench, group, ends[1], false, MULTISHOT), 0);
		armed = true;
		for (unsigned i = 0; i < 9 && sent < 400; i++)
			sent += send(ends[0], &sent, sizeof sent, MSG_DONTWAIT) == sizeof sent;
		usleep(100);
		do {
			done = bench_next(&bench);
			armed = armed && !(done.flags & MEMSLOT_COMPLETION_TERMINAL);
			if (done.flags & MEMSLOT_COMPLETION_SELECTED) {
				ck_assert_mem_eq(done.buffer.base, &seen, sizeof seen);
				seen++;
				buffer_put(bench.buffers, &done.buffer);
			} else {
				ck_assert_int_eq(done.result, -ENOBUFS);
			}
		} while (io_uring_cq_ready(&bench.uring));
	}
	close(ends[0]);
	while (bench_in_flight(&bench))
		(void)bench_next(&bench);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

START_TEST(a_closed_ring_takes_the_buffers_of_its_groups_with_it)
{
	struct bench bench;
	struct memslot_group *group;
	uint64_t available;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	group = group_new(&bench, 8);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	ck_assert_int_eq(
		memslot_ring_group_prep_recv(group, bench_sqe(&bench), ends[1], MULTISHOT, 0, 9),
		0);
	bench_submit(&bench);
	available = GROUPS() ? group_stats(group).available : 1;
	ck_assert_uint_gt(available, 0);
	io_uring_queue_exit(&bench.uring);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	ck_assert_uint_eq(buffers_stats(bench.buffers).quarantined, available);
	buffers_end(bench.buffers);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

/* What the kernel chose and lost with its ring is in nobody's hand: the number is free again. */
START_TEST(lost_buffers_do_not_use_up_the_groups)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 4 * MB);
	int ends[2];

	NEED_URING();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	for (unsigned i = 0; i < 257; i++) {
		struct bench bench;
		struct memslot_group *group;
		struct memslot_completion done;
		bench_attach(&bench, buffers, 0);
		group = group_new(&bench, 1);
		ck_assert_int_eq(send(ends[0], "x", 1, 0), 1);
		ck_assert_int_eq(
			memslot_ring_group_prep_recv(group, bench_sqe(&bench), ends[1], 0, 0, 1),
			0);
		bench_submit(&bench);
		done = bench_next(&bench);
		ck_assert_int_eq(memslot_ring_prep_recv(bench.ring, bench_sqe(&bench), ends[1],
					 &done.buffer, 0, 1, 0, 2),
			0);
		ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
		io_uring_queue_exit(&bench.uring);
		ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
		buffer_put(buffers, &done.buffer);
	}
	ck_assert_uint_eq(buffers_stats(buffers).quarantined, 257);
	buffers_end(buffers);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers_group");
	TCase *tcase = test_case(suite, "streams");

	tcase_add_loop_test(tcase, a_stream_arrives_whole_and_in_order, 0, 2);
	tcase_add_loop_test(tcase, a_stream_arrives_when_buffers_are_held_back, 0, 2);
	tcase_add_loop_test(tcase, a_stream_arrives_when_the_budget_is_spent, 0, 2);
	tcase_add_loop_test(tcase, pipes_are_read_through_groups, 0, 2);
	tcase_add_test(tcase, a_ring_that_defers_its_work_is_as_good);
	tcase_add_test(tcase, files_are_read_through_groups);
	tcase = test_case(suite, "window");
	tcase_add_test(tcase, many_that_find_the_window_empty_at_once_double_it_once);
	tcase_add_test(tcase, the_window_doubles_when_it_was_too_small_and_shrinks_again);
	tcase_add_test(tcase, what_is_in_a_group_counts_against_the_budget);
	tcase = test_case(suite, "ends");
	tcase_add_test(tcase, what_a_group_cannot_do_is_refused);
	tcase_add_test(tcase, a_group_ends_after_its_last_operation);
	tcase_add_test(tcase, an_overflowing_completion_queue_loses_nothing);
	tcase_add_test(tcase, a_closed_ring_takes_the_buffers_of_its_groups_with_it);
	tcase_add_test(tcase, lost_buffers_do_not_use_up_the_groups);
	return suite;
}
