/* SPDX-License-Identifier: MIT */
/* buffers_ring.h - what tests of buffers with rings share: see buffers_ring.c. */
#ifndef TESTS_BUFFERS_RING_H
#define TESTS_BUFFERS_RING_H

#include "buffers.h"

#include <errno.h>
#include <liburing.h>

#define NEED_URING() SKIP_IF(!uring_works(), "no io_uring here")
bool uring_works(void);

/* A ring, and a pool attached to it. */
struct bench {
	struct io_uring uring;
	struct memslot_buffers *buffers;
	struct memslot_ring *ring;
};

void bench_begin(struct bench *bench, uint64_t buffer_size, uint64_t budget);
void bench_attach(struct bench *bench, struct memslot_buffers *buffers, unsigned flags);
/* Detach, whatever is in flight. */
void bench_detach(struct bench *bench);
void bench_end(struct bench *bench);

struct io_uring_sqe *bench_sqe(struct bench *bench);
void bench_submit(struct bench *bench);
/* The next completion, which has to be ours or housekeeping. */
struct memslot_completion bench_next(struct bench *bench);
/* The next that is not housekeeping. */
struct memslot_completion bench_ours(struct bench *bench);
/* Submit one operation, and its only completion. */
struct memslot_completion bench_run(struct bench *bench);
uint64_t bench_in_flight(struct bench *bench);
/* One read and one write of two buffers, whatever the way. */
void bench_use(struct bench *bench, unsigned tag);
/* Is everything registered? A user's locked memory may be used up by whatever else runs. */
bool bench_is_fixed(const struct memslot_buffers *buffers);

/* Connected sockets. */
void tcp_pair(int ret_ends[2]);
/* A file in memory of `size` bytes, filled with test_fill. */
int file_of(size_t size, unsigned tag);

#endif
