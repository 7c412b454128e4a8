/* SPDX-License-Identifier: MIT */
/* buffers_ring.c - what tests of buffers with rings share. */
#define _GNU_SOURCE
#include "buffers_ring.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

bool uring_works(void)
{
	struct io_uring uring;

	if (io_uring_queue_init(2, &uring, 0))
		return false;
	io_uring_queue_exit(&uring);
	return true;
}

void bench_attach(struct bench *bench, struct memslot_buffers *buffers, unsigned flags)
{
	ck_assert_int_eq(io_uring_queue_init(64, &bench->uring, flags), 0);
	bench->buffers = buffers;
	ck_assert_int_eq(memslot_ring_attach(buffers, &bench->uring, NULL, &bench->ring), 0);
}

void bench_begin(struct bench *bench, uint64_t buffer_size, uint64_t budget)
{
	bench_attach(bench, buffers_new(buffer_size, budget), 0);
}

void bench_detach(struct bench *bench)
{
	int answer;

	while ((answer = memslot_ring_detach(bench->ring)) == -EAGAIN) {
		io_uring_submit(&bench->uring);
		(void)bench_next(bench);
	}
	ck_assert_int_eq(answer, 0);
	io_uring_queue_exit(&bench->uring);
}

void bench_end(struct bench *bench)
{
	bench_detach(bench);
	buffers_end(bench->buffers);
}

struct io_uring_sqe *bench_sqe(struct bench *bench)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&bench->uring);

	ck_assert_ptr_nonnull(sqe);
	return sqe;
}

void bench_submit(struct bench *bench)
{
	ck_assert_int_ge(io_uring_submit(&bench->uring), 1);
}

struct memslot_completion bench_next(struct bench *bench)
{
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe *cqe;
	int error;

	do
		error = io_uring_wait_cqe(&bench->uring, &cqe);
	while (error == -EINTR);
	ck_assert_int_eq(error, 0);
	ck_assert_int_eq(memslot_ring_complete(bench->ring, cqe, &done), 0);
	io_uring_cqe_seen(&bench->uring, cqe);
	return done;
}

struct memslot_completion bench_ours(struct bench *bench)
{
	struct memslot_completion done;

	do
		done = bench_next(bench);
	while (!(done.flags & MEMSLOT_COMPLETION_OURS));
	return done;
}

struct memslot_completion bench_run(struct bench *bench)
{
	struct memslot_completion done;

	bench_submit(bench);
	done = bench_next(bench);
	ck_assert_uint_eq(done.flags, MEMSLOT_COMPLETION_OURS | MEMSLOT_COMPLETION_TERMINAL);
	return done;
}

uint64_t bench_in_flight(struct bench *bench)
{
	return buffers_stats(bench->buffers).in_flight;
}

void tcp_pair(int ret_ends[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_ge(listener, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	ret_ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(ret_ends[0], (struct sockaddr *)&address, length), 0);
	ret_ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(ret_ends[1], 0);
	close(listener);
}

int file_of(size_t size, unsigned tag)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	unsigned char *bytes = malloc(size);

	ck_assert_int_ge(fd, 0);
	test_fill(bytes, size, tag);
	ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
	free(bytes);
	return fd;
}

bool bench_is_fixed(const struct memslot_buffers *buffers)
{
	return memslot_feature("uring_fixed") == 1 && buffers_stats(buffers).plain_fallbacks == 0;
}

void bench_use(struct bench *bench, unsigned tag)
{
	int fd = file_of(8 * KB, tag);
	struct memslot_buffer buffer = buffer_get(bench->buffers, 2);
	unsigned char bytes[8192];

	ck_assert_int_eq(memslot_ring_prep_read(bench->ring, bench_sqe(bench), fd, &buffer, 0,
				 buffer.size * 2, 0, 1),
		0);
	ck_assert_int_eq(bench_run(bench).result, 8 * KB);
	ck_assert(test_filled(buffer.base, 8 * KB, tag));
	test_fill(buffer.base, 8 * KB, tag + 1);
	ck_assert_int_eq(memslot_ring_prep_write(
				 bench->ring, bench_sqe(bench), fd, &buffer, 0, 8 * KB, 0, 1),
		0);
	ck_assert_int_eq(bench_run(bench).result, 8 * KB);
	ck_assert_int_eq(pread(fd, bytes, sizeof bytes, 0), 8 * KB);
	ck_assert(test_filled(bytes, 8 * KB, tag + 1));
	buffer_put(bench->buffers, &buffer);
	close(fd);
}
