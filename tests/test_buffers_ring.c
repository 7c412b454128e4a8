/* SPDX-License-Identifier: MIT */
/*
 * test_buffers_ring.c - buffers that the kernel reads and writes: guards, fixed and plain
 * operations, rings that come and go. What is prepared is the same with every feature off.
 */
#define _GNU_SOURCE
#include "buffers_ring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- operations --- */

START_TEST(files_are_written_and_read_from_any_start)
{
	struct bench bench;
	struct memslot_buffer out, in;
	struct memslot_completion done;
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct io_uring_sqe *sqe;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	out = buffer_get(bench.buffers, 3);
	in = buffer_get(bench.buffers, 3);
	test_fill(out.base, 12 * KB, 1);
	memset(in.base, 0, 12 * KB);
	sqe = bench_sqe(&bench);
	ck_assert_int_eq(
		memslot_ring_prep_write(bench.ring, sqe, fd, &out, 100, 9000, 50, UINT64_MAX), 0);
	ck_assert_uint_eq(sqe->opcode,
		bench_is_fixed(bench.buffers) ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE);
	ck_assert_uint_eq(sqe->user_data >> 48, 0x6d73);
	done = bench_run(&bench);
	ck_assert_uint_eq(done.user_data, UINT64_MAX);
	ck_assert_int_eq(done.result, 9000);
	ck_assert_uint_eq(done.bytes, 9100);
	ck_assert_uint_eq(done.buffer.handle, out.handle);
	ck_assert_ptr_eq(done.buffer.base, out.base);
	sqe = bench_sqe(&bench);
	ck_assert_int_eq(
		memslot_ring_prep_read(bench.ring, sqe, fd, &in, 100, 12 * KB - 100, 50, 7), 0);
	ck_assert_uint_eq(
		sqe->opcode, bench_is_fixed(bench.buffers) ? IORING_OP_READ_FIXED : IORING_OP_READ);
	done = bench_run(&bench);
	ck_assert_int_eq(done.result, 9000);
	ck_assert_mem_eq((char *)in.base + 100, (char *)out.base + 100, 9000);
	ck_assert(test_zero(in.base, 100));
	ck_assert(test_zero((char *)in.base + 9100, 12 * KB - 9100));
	buffer_put(bench.buffers, &out);
	buffer_put(bench.buffers, &in);
	close(fd);
	bench_end(&bench);
}
END_TEST

START_TEST(short_operations_continue_where_they_ended)
{
	struct bench bench;
	struct memslot_buffer in;
	unsigned char bytes[1000];
	size_t have = 0;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	in = buffer_get(bench.buffers, 1);
	test_fill(bytes, sizeof bytes, 3);
	ck_assert_int_eq(pipe(ends), 0);
	for (size_t i = 0; i < 4; i++) {
		struct memslot_completion done;
		ck_assert_int_eq(write(ends[1], bytes + 250 * i, 250), 250);
		ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), ends[0], &in,
					 have, 1000 - have, UINT64_MAX, i),
			0);
		done = bench_run(&bench);
		ck_assert_int_eq(done.result, 250);
		have = done.bytes;
	}
	ck_assert_uint_eq(have, 1000);
	ck_assert_mem_eq(in.base, bytes, 1000);
	buffer_put(bench.buffers, &in);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

typedef int (*prep_message)(struct memslot_ring *, struct io_uring_sqe *, int,
	const struct memslot_buffer *, size_t, size_t, int, uint64_t);

START_TEST(messages_go_through_sockets)
{
	prep_message send = _i ? memslot_ring_prep_send_zc : memslot_ring_prep_send;
	struct bench bench;
	struct memslot_buffer out, in;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 16 * KB, 0);
	tcp_pair(ends);
	for (unsigned round = 0; round < 50; round++) {
		struct memslot_completion done;
		uint32_t size = 1 + round * 300;
		out = buffer_get(bench.buffers, 1);
		in = buffer_get(bench.buffers, 1);
		test_fill(out.base, 16 * KB, round);
		ck_assert_int_eq(
			send(bench.ring, bench_sqe(&bench), ends[0], &out, 10, size, 0, 1), 0);
		buffer_put(bench.buffers, &out); /* the kernel is still at it */
		ck_assert_int_eq(memslot_ring_prep_recv(bench.ring, bench_sqe(&bench), ends[1], &in,
					 20, size, MSG_WAITALL, 2),
			0);
		bench_submit(&bench);
		for (unsigned over = 0; over < 2;) {
			done = bench_next(&bench);
			over += !!(done.flags & MEMSLOT_COMPLETION_TERMINAL);
			if (done.result) /* the second of a zero-copy send: 0 */
				ck_assert_int_eq(done.result, (int)size);
			ck_assert_uint_eq(done.bytes, size + (done.user_data == 1 ? 10 : 20));
		}
		ck_assert_int_eq(memslot_buffers_release(bench.buffers, &out), -ESTALE);
		ck_assert(memcmp((char *)in.base + 20, (char *)out.base + 10, size) == 0);
		buffer_put(bench.buffers, &in);
	}
	ck_assert_uint_eq(bench_in_flight(&bench), 0);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

/* MSG_TRUNC: the result is the datagram's length, and bytes what is in the buffer. */
START_TEST(what_was_cut_off_is_not_counted)
{
	struct bench bench;
	struct memslot_group *group;
	struct memslot_buffer buffer;
	struct memslot_completion done;
	static const unsigned char datagram[5000];
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(send(ends[0], datagram, sizeof datagram, 0), sizeof datagram);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_prep_recv(bench.ring, bench_sqe(&bench), ends[1], &buffer, 96,
				 4000, MSG_TRUNC, 1),
		0);
	done = bench_run(&bench);
	ck_assert_int_eq(done.result, sizeof datagram);
	ck_assert_uint_eq(done.bytes, 4 * KB);
	buffer_put(bench.buffers, &buffer);
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 7, NULL, &group), 0);
	ck_assert_int_eq(
		memslot_ring_group_prep_recv(group, bench_sqe(&bench), ends[1], 0, MSG_TRUNC, 2),
		0);
	bench_submit(&bench);
	done = bench_next(&bench);
	ck_assert_int_eq(done.result, sizeof datagram);
	ck_assert_uint_eq(done.bytes, 4 * KB);
	buffer_put(bench.buffers, &done.buffer);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

START_TEST(what_is_not_inside_the_buffer_is_refused)
{
	static const size_t bad[][2] = {
		{0, 0}, {0, 8193}, {1, 8192}, {8192, 1}, {8193, 1}, {SIZE_MAX, 2}, {2, SIZE_MAX}};
	struct bench bench;
	struct memslot_buffer two, stale;
	struct io_uring_sqe sqe;
	struct memslot_completion done = {.size = 4};
	struct io_uring_cqe *cqe;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	two = buffer_get(bench.buffers, 2);
	memset(&sqe, 'x', sizeof sqe);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_int_eq(memslot_ring_prep_read(
					 bench.ring, &sqe, 0, &two, bad[i][0], bad[i][1], 0, 0),
			-EINVAL);
	ck_assert_uint_eq(sqe.opcode, IORING_OP_NOP);
	ck_assert_int_eq(memslot_ring_prep_send(bench.ring, NULL, 0, &two, 0, 1, 0, 0), -EINVAL);
	ck_assert_int_eq(memslot_ring_prep_send(bench.ring, &sqe, 0, NULL, 0, 1, 0, 0), -EINVAL);
	stale = buffer_get(bench.buffers, 1);
	buffer_put(bench.buffers, &stale);
	ck_assert_int_eq(memslot_ring_prep_write(bench.ring, &sqe, 0, &stale, 0, 1, 0, 0), -ESTALE);
	memset(&sqe, 'x', sizeof sqe);
	ck_assert_int_eq(memslot_ring_unprep(bench.ring, NULL), -EINVAL);
	ck_assert_int_eq(memslot_ring_unprep(bench.ring, &sqe), -ENOENT);
	ck_assert_int_eq(memslot_ring_prep_send(NULL, &sqe, 0, &two, 0, 1, 0, 0), -EINVAL);
	for (size_t i = 0; i < sizeof sqe; i++)
		ck_assert_uint_eq(((unsigned char *)&sqe)[i], 'x');
	ck_assert_uint_eq(bench_in_flight(&bench), 0);
	ck_assert_int_eq(
		memslot_ring_prep_read(bench.ring, bench_sqe(&bench), -1, &two, 0, 8192, 0, 1), 0);
	bench_submit(&bench);
	ck_assert_int_eq(io_uring_wait_cqe(&bench.uring, &cqe), 0);
	ck_assert_int_eq(memslot_ring_complete(bench.ring, cqe, &done), -EINVAL);
	ck_assert_uint_eq(bench_in_flight(&bench), 1); /* nothing was retired */
	ck_assert_int_eq(bench_next(&bench).result, -EBADF);
	buffer_put(bench.buffers, &two);
	bench_end(&bench);
}
END_TEST

/* What an SQE was last is not done again, to a buffer that somebody else has by now. */
START_TEST(what_could_not_be_prepared_does_nothing)
{
	struct memslot_completion done = {.size = sizeof done};
	struct bench bench;
	struct memslot_buffer buffer, stale;
	struct io_uring_cqe *cqe;
	char byte;
	int ends[2], queue;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], "abc", 3), 3);
	queue = (int)*bench.uring.sq.kring_entries;
	stale = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), ends[0], &stale, 0,
				 1, UINT64_MAX, 1),
		0);
	ck_assert_int_eq(bench_run(&bench).result, 1);
	buffer_put(bench.buffers, &stale);
	buffer = buffer_get(bench.buffers, 1);
	for (int i = 0; i < queue; i++) { /* that SQE is among them */
		ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), ends[0],
					 &stale, 0, 1, UINT64_MAX, 2),
			-ESTALE);
	}
	ck_assert_int_eq(io_uring_submit(&bench.uring), queue);
	for (int i = 0; i < queue; i++) {
		ck_assert_int_eq(io_uring_wait_cqe(&bench.uring, &cqe), 0);
		ck_assert_int_eq(memslot_ring_complete(bench.ring, cqe, &done), 0);
		ck_assert_uint_eq(done.flags, 0);
		io_uring_cqe_seen(&bench.uring, cqe);
	}
	ck_assert_int_eq(read(ends[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'b');
	buffer_put(bench.buffers, &buffer);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

/* --- guards --- */

/* The budget shows when it is back. */
START_TEST(a_buffer_released_in_flight_comes_back_with_its_last_operation)
{
	struct bench bench;
	struct memslot_buffer buffer, more;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 4 * KB);
	ck_assert_int_eq(pipe(ends), 0);
	for (unsigned round = 0; round < 20; round++) {
		buffer = buffer_get(bench.buffers, 1);
		for (uint64_t i = 0; i < 2; i++)
			ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench),
						 ends[0], &buffer, 100 * i, 4, UINT64_MAX, i),
				0);
		bench_submit(&bench);
		buffer_put(bench.buffers, &buffer);
		ck_assert_int_eq(memslot_buffers_release(bench.buffers, &buffer), -ESTALE);
		ck_assert_int_eq(memslot_buffers_acquire(bench.buffers, 1, 0, &more), -EAGAIN);
		ck_assert_int_eq(write(ends[1], "data", 4), 4);
		ck_assert_int_eq(bench_next(&bench).result, 4);
		ck_assert_int_eq(memslot_buffers_acquire(bench.buffers, 1, 0, &more), -EAGAIN);
		ck_assert_int_eq(write(ends[1], "data", 4), 4);
		ck_assert_int_eq(bench_next(&bench).result, 4);
	}
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

START_TEST(completions_of_others_are_left_alone)
{
	struct bench bench;
	struct memslot_completion done = {.size = sizeof done, .user_data = 99};
	struct io_uring_cqe *cqe, copy;
	struct memslot_buffer buffer;
	struct io_uring_sqe *sqe;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	sqe = bench_sqe(&bench);
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, &bench);
	bench_submit(&bench);
	ck_assert_int_eq(io_uring_wait_cqe(&bench.uring, &cqe), 0);
	ck_assert_int_eq(memslot_ring_complete(bench.ring, cqe, &done), -ENOENT);
	ck_assert_uint_eq(done.user_data, 99);
	io_uring_cqe_seen(&bench.uring, cqe);
	/* one of the past is housekeeping */
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(
		memslot_ring_prep_read(bench.ring, bench_sqe(&bench), -1, &buffer, 0, 1, 0, 1), 0);
	bench_submit(&bench);
	ck_assert_int_eq(io_uring_wait_cqe(&bench.uring, &cqe), 0);
	copy = *cqe;
	(void)bench_next(&bench);
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &copy, &done), 0);
	ck_assert_uint_eq(done.flags, 0);
	ck_assert_ptr_null(done.buffer.base);
	copy.user_data |= 0xfffff; /* no such operation */
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &copy, &done), 0);
	ck_assert_uint_eq(done.flags, 0);
	buffer_put(bench.buffers, &buffer);
	bench_end(&bench);
}
END_TEST

/* Facts q05: what is prepared cannot be taken out of the queue. */
START_TEST(what_was_prepared_becomes_a_nop_in_place)
{
	struct bench bench;
	struct memslot_buffer buffer, other;
	struct memslot_completion done;
	struct io_uring_sqe *sqe[3];
	int fd = file_of(4 * KB, 5);

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	buffer = buffer_get(bench.buffers, 1);
	other = buffer_get(bench.buffers, 1);
	memset(buffer.base, 0, 4 * KB);
	for (uint64_t i = 0; i < 3; i++) {
		sqe[i] = bench_sqe(&bench);
		ck_assert_int_eq(memslot_ring_prep_read(bench.ring, sqe[i], fd,
					 i == 1 ? &buffer : &other, 0, 4 * KB, 0, i),
			0);
		sqe[i]->flags |= i < 2 ? IOSQE_IO_LINK : 0;
	}
	ck_assert_int_eq(memslot_ring_unprep(bench.ring, sqe[1]), 0);
	ck_assert_uint_eq(sqe[1]->opcode, IORING_OP_NOP);
	ck_assert_uint_eq(sqe[1]->flags, IOSQE_IO_LINK);
	buffer_put(bench.buffers, &buffer);
	ck_assert_uint_eq(buffers_stats(bench.buffers).live, 2); /* guarded until its CQE */
	bench_submit(&bench);
	ck_assert_uint_eq(bench_next(&bench).user_data, 0);
	done = bench_next(&bench);
	ck_assert_uint_eq(done.flags, 0);
	ck_assert_uint_eq(bench_next(&bench).user_data, 2); /* the chain held */
	ck_assert(test_zero(buffer.base, 4 * KB));
	ck_assert_uint_eq(buffers_stats(bench.buffers).live, 1);
	buffer_put(bench.buffers, &other);
	close(fd);
	bench_end(&bench);
}
END_TEST

/* A mistake, as unprep is for what the kernel has not seen: the guard stays nevertheless. */
START_TEST(what_was_submitted_before_is_no_nop)
{
	struct bench bench;
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe cqe = {.res = 9, .flags = IORING_CQE_F_MORE};
	struct io_uring_sqe sqe;
	struct memslot_buffer buffer;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_prep_send_zc(bench.ring, &sqe, -1, &buffer, 0, 9, 0, 1), 0);
	cqe.user_data = sqe.user_data;
	ck_assert_int_eq(memslot_ring_unprep(bench.ring, &sqe), 0);
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
	ck_assert_uint_eq(done.flags, MEMSLOT_COMPLETION_OURS);
	ck_assert_uint_eq(bench_in_flight(&bench), 1);
	cqe.flags = IORING_CQE_F_NOTIF;
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
	ck_assert(done.flags & MEMSLOT_COMPLETION_TERMINAL);
	ck_assert_uint_eq(bench_in_flight(&bench), 0);
	buffer_put(bench.buffers, &buffer);
	bench_end(&bench);
}
END_TEST

START_TEST(guards_have_their_limits)
{
	struct bench bench;
	struct io_uring_sqe sqe;
	struct memslot_buffer buffer;
	uint64_t count = 0;
	int error = 0;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	for (unsigned i = 0; !error || error == -EMSGSIZE; i++) {
		buffer = buffer_get(bench.buffers, 1);
		unsigned mine = 0;
		while ((error = memslot_ring_prep_send(
				bench.ring, &sqe, -1, &buffer, 0, 1, 0, 0)) == 0)
			mine++;
		if (i == 0)
			ck_assert_uint_eq(mine, 16383);
		count += mine;
		buffer_put(bench.buffers, &buffer);
	}
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(count, (1 << 20) - 1);
	io_uring_queue_exit(&bench.uring); /* nothing of this was ever submitted */
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	ck_assert_uint_eq(buffers_stats(bench.buffers).quarantined, 65);
	buffers_end(bench.buffers);
}
END_TEST

/* --- chains and zero-copy sends --- */

/* Facts q06: the head fails, the rest is cancelled: each has its CQE and its guard goes. */
START_TEST(a_chain_whose_head_fails_is_accounted_for)
{
	struct bench bench;
	struct memslot_buffer buffer;
	struct io_uring_sqe *sqe;
	int fd = file_of(4 * KB, 5), ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 4 * KB);
	tcp_pair(ends);
	for (unsigned round = 0; round < 20; round++) {
		unsigned over = 0;
		buffer = buffer_get(bench.buffers, 1);
		for (uint64_t i = 0; i < 4; i++) {
			sqe = bench_sqe(&bench);
			ck_assert_int_eq(i == 3 ? memslot_ring_prep_send_zc(bench.ring, sqe,
							  ends[0], &buffer, 0, 100, 0, i)
						: memslot_ring_prep_read(bench.ring, sqe,
							  i ? fd : -1, &buffer, 0, 4 * KB, 0, i),
				0);
			sqe->flags |= i < 3 ? IOSQE_IO_LINK : 0;
		}
		bench_submit(&bench);
		buffer_put(bench.buffers, &buffer);
		while (over < 4) {
			struct memslot_completion done = bench_next(&bench);
			if (done.flags & MEMSLOT_COMPLETION_TERMINAL) {
				ck_assert_int_eq(done.result, done.user_data ? -ECANCELED : -EBADF);
				over++;
			}
		}
		ck_assert_uint_eq(bench_in_flight(&bench), 0);
		ck_assert_uint_eq(buffers_stats(bench.buffers).live, 0);
	}
	/* A NOTIF that follows a cancelled send is housekeeping: bench_detach takes it. */
	close(ends[0]);
	close(ends[1]);
	close(fd);
	bench_end(&bench);
}
END_TEST

/* With it the network stack reads on after the CQE: what the next tenant writes would be sent. */
START_TEST(invariant_17_a_send_may_not_be_zero_copy_by_its_flags)
{
	struct bench bench;
	struct memslot_buffer buffer;
	struct io_uring_sqe sqe = {.opcode = 99};

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_prep_send(bench.ring, &sqe, 0, &buffer, 0, 9,
				 MSG_ZEROCOPY | MSG_NOSIGNAL, 1),
		-EINVAL);
	ck_assert_uint_eq(sqe.opcode, IORING_OP_NOP); /* not what the queue held there last */
	sqe.opcode = 99;
	ck_assert_int_eq(
		memslot_ring_prep_send_zc(bench.ring, &sqe, 0, &buffer, 0, 9, MSG_ZEROCOPY, 1),
		-EINVAL);
	ck_assert_uint_eq(sqe.opcode, IORING_OP_NOP);
	ck_assert_uint_eq(bench_in_flight(&bench), 0);
	buffer_put(bench.buffers, &buffer);
	bench_end(&bench);
}
END_TEST

/* A send that its link cancelled promises no more, and yet a NOTIF may come: by then the entry is
 * another operation's. Made up, as kernels differ. */
START_TEST(a_late_notif_retires_nobody_else)
{
	struct bench bench;
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe cqe = {.res = -ECANCELED}, late = {.flags = IORING_CQE_F_NOTIF};
	struct io_uring_sqe first, second;
	struct memslot_buffer buffer;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_prep_send_zc(bench.ring, &first, -1, &buffer, 0, 9, 0, 1), 0);
	late.user_data = cqe.user_data = first.user_data;
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
	ck_assert(done.flags & MEMSLOT_COMPLETION_TERMINAL);
	ck_assert_int_eq(
		memslot_ring_prep_send_zc(bench.ring, &second, -1, &buffer, 0, 9, 0, 2), 0);
	ck_assert_uint_eq(second.user_data & 0xfffff, first.user_data & 0xfffff);
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &late, &done), 0);
	ck_assert_uint_eq(done.flags, 0);
	ck_assert_uint_eq(bench_in_flight(&bench), 1);
	/* and the usual way: the result, which promises more, then the NOTIF */
	cqe = (struct io_uring_cqe){
		.user_data = second.user_data, .res = 5, .flags = IORING_CQE_F_MORE};
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
	ck_assert_uint_eq(done.flags, MEMSLOT_COMPLETION_OURS);
	ck_assert_uint_eq(done.bytes, 5);
	late.user_data = second.user_data;
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &late, &done), 0);
	ck_assert_uint_eq(done.flags, MEMSLOT_COMPLETION_OURS | MEMSLOT_COMPLETION_TERMINAL |
					      MEMSLOT_COMPLETION_NOTIF);
	ck_assert_uint_eq(done.bytes, 5);
	ck_assert_uint_eq(bench_in_flight(&bench), 0);
	buffer_put(bench.buffers, &buffer);
	bench_end(&bench);
}
END_TEST

/* Detach ends with the last guard, but a send that its link cancelled has a NOTIF still to come:
 * the ring's next attachment must not take it for one of its own. */
START_TEST(a_late_notif_of_an_earlier_attachment_retires_nobody)
{
	struct bench bench;
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe cqe = {.res = -ECANCELED}, late = {.flags = IORING_CQE_F_NOTIF};
	struct io_uring_sqe first, second;
	struct memslot_buffer buffer;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_prep_send_zc(bench.ring, &first, -1, &buffer, 0, 9, 0, 1), 0);
	late.user_data = cqe.user_data = first.user_data;
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, NULL, &bench.ring), 0);
	ck_assert_int_eq(memslot_ring_prep_read(bench.ring, &second, -1, &buffer, 0, 9, 0, 2), 0);
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &late, &done), 0);
	ck_assert_uint_eq(done.flags, 0);
	ck_assert_uint_eq(bench_in_flight(&bench), 1);
	cqe.user_data = second.user_data;
	ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
	ck_assert_uint_eq(done.user_data, 2);
	buffer_put(bench.buffers, &buffer);
	bench_end(&bench);
}
END_TEST

/* Invariant 17: the network stack reads until the NOTIF; what it sends must be what was sent. */
START_TEST(invariant_17_a_zero_copy_send_keeps_its_buffer_until_the_notif)
{
	struct bench bench;
	struct memslot_buffer buffer, more;
	struct memslot_completion done;
	unsigned char *got = malloc(256 * KB);
	size_t have = 0;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 256 * KB, 256 * KB);
	tcp_pair(ends);
	buffer = buffer_get(bench.buffers, 1);
	test_fill(buffer.base, 256 * KB, 9);
	ck_assert_int_eq(memslot_ring_prep_send_zc(bench.ring, bench_sqe(&bench), ends[0], &buffer,
				 0, 256 * KB, MSG_WAITALL, 1),
		0);
	bench_submit(&bench);
	buffer_put(bench.buffers, &buffer);
	while (have < 256 * KB || bench_in_flight(&bench)) {
		if (bench_in_flight(&bench))
			ck_assert_int_eq(
				memslot_buffers_acquire(bench.buffers, 1, 0, &more), -EAGAIN);
		if (have < 256 * KB) {
			ssize_t part = read(ends[1], got + have, 256 * KB - have);
			ck_assert_int_gt(part, 0);
			have += (size_t)part;
		}
		while (io_uring_cq_ready(&bench.uring)) {
			done = bench_next(&bench);
			ck_assert_uint_eq(done.user_data, 1);
		}
		io_uring_get_events(&bench.uring);
	}
	ck_assert(test_filled(got, 256 * KB, 9));
	more = buffer_get(bench.buffers, 1);
	buffer_put(bench.buffers, &more);
	free(got);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers_ring");
	TCase *tcase = test_case(suite, "operations");

	tcase_add_test(tcase, files_are_written_and_read_from_any_start);
	tcase_add_test(tcase, short_operations_continue_where_they_ended);
	tcase_add_loop_test(tcase, messages_go_through_sockets, 0, 2);
	tcase_add_test(tcase, what_was_cut_off_is_not_counted);
	tcase_add_test(tcase, what_is_not_inside_the_buffer_is_refused);
	tcase_add_test(tcase, what_could_not_be_prepared_does_nothing);
	tcase = test_case(suite, "guards");
	tcase_add_test(tcase, a_buffer_released_in_flight_comes_back_with_its_last_operation);
	tcase_add_test(tcase, completions_of_others_are_left_alone);
	tcase_add_test(tcase, what_was_prepared_becomes_a_nop_in_place);
	tcase_add_test(tcase, what_was_submitted_before_is_no_nop);
	tcase_add_test(tcase, guards_have_their_limits);
	tcase_add_test(tcase, a_chain_whose_head_fails_is_accounted_for);
	tcase_add_test(tcase, invariant_17_a_send_may_not_be_zero_copy_by_its_flags);
	tcase_add_test(tcase, a_late_notif_retires_nobody_else);
	tcase_add_test(tcase, a_late_notif_of_an_earlier_attachment_retires_nobody);
	tcase_add_test(tcase, invariant_17_a_zero_copy_send_keeps_its_buffer_until_the_notif);
	return suite;
}
