/* SPDX-License-Identifier: MIT */
/* model_ring.c - one io_uring for the whole model: plain reads, reads in flight, registered
 * buffers. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <liburing.h>
#include <unistd.h>

static struct io_uring ring;
static pid_t ring_owner; /* a child may not use its parent's ring */
static bool ring_missing;

bool model_ring_ready(void)
{
	if (ring_owner == getpid())
		return true;
	if (ring_missing || ring_owner)
		return false;
	ring_missing = io_uring_queue_init(8, &ring, 0) != 0;
	if (!ring_missing)
		ring_owner = getpid();
	return !ring_missing;
}

void model_ring_close(void)
{
	if (ring_owner == getpid())
		io_uring_queue_exit(&ring);
	ring_owner = 0;
}

static struct io_uring_sqe *next_entry(void)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring);

	ck_assert_ptr_nonnull(entry);
	return entry;
}

int model_ring_finish(void)
{
	struct io_uring_cqe *event;
	int answer;

	do
		answer = io_uring_wait_cqe(&ring, &event);
	while (answer == -EINTR);
	ck_assert_int_eq(answer, 0);
	answer = event->res;
	io_uring_cqe_seen(&ring, event);
	return answer;
}

int model_ring_read(int fd, void *to, size_t size, size_t source, bool async, bool fixed)
{
	struct io_uring_sqe *entry = next_entry();

	if (fixed)
		io_uring_prep_read_fixed(entry, fd, to, (unsigned)size, source, 0);
	else
		io_uring_prep_read(entry, fd, to, (unsigned)size, source);
	if (async)
		entry->flags |= IOSQE_ASYNC;
	ck_assert_int_eq(io_uring_submit(&ring), 1);
	return model_ring_finish();
}

void model_ring_start(int fd, void *to, size_t size)
{
	io_uring_prep_read(next_entry(), fd, to, (unsigned)size, 0);
	ck_assert_int_eq(io_uring_submit(&ring), 1);
}

bool model_ring_register(void *address, size_t size)
{
	struct iovec buffer = {address, size};

	return model_ring_ready() && io_uring_register_buffers(&ring, &buffer, 1) == 0;
}

void model_ring_unregister(void)
{
	ck_assert_int_eq(io_uring_unregister_buffers(&ring), 0);
}
