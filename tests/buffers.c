/* SPDX-License-Identifier: MIT */
/* buffers.c - what tests of buffers share. */
#define _GNU_SOURCE
#include "buffers.h"

#include <unistd.h>

struct memslot_buffers *buffers_new(uint64_t buffer_size, uint64_t budget)
{
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = buffer_size, .budget = budget);
	struct memslot_buffers *buffers = NULL;

	ck_assert_int_eq(memslot_buffers_create(&opts, &buffers), 0);
	return buffers;
}

struct memslot_buffers *buffers_in_pool(uint64_t buffer_size, uint64_t budget, uint32_t slots,
	uint64_t per_slot, struct memslot_pool **ret_pool)
{
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = buffer_size, .budget = budget);
	struct memslot_buffers *buffers = NULL;

	ck_assert_int_eq(memslot_pool_create(slots, per_slot * buffer_size, NULL, &opts.pool), 0);
	ck_assert_int_eq(memslot_buffers_create(&opts, &buffers), 0);
	*ret_pool = opts.pool;
	return buffers;
}

struct memslot_buffers_stats buffers_stats(const struct memslot_buffers *buffers)
{
	struct memslot_buffers_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_buffers_stats(buffers, &stats), 0);
	return stats;
}

struct memslot_buffer buffer_get(struct memslot_buffers *buffers, uint32_t count)
{
	struct memslot_buffer buffer;

	ck_assert_int_eq(memslot_buffers_acquire(buffers, count, 0, &buffer), 0);
	ck_assert_uint_eq(buffer.count, count);
	return buffer;
}

void buffer_put(struct memslot_buffers *buffers, const struct memslot_buffer *buffer)
{
	ck_assert_int_eq(memslot_buffers_release(buffers, buffer), 0);
}

void buffers_end(struct memslot_buffers *buffers)
{
	struct memslot_buffers_stats stats = buffers_stats(buffers);

	ck_assert_uint_eq(stats.live, 0);
	ck_assert_uint_eq(stats.waiters, 0);
	ck_assert_uint_eq(stats.in_flight, 0);
	ck_assert_int_eq(memslot_buffers_close(buffers, 0, NULL), 0);
}

struct memslot_buffer_waiter buffer_waiter(int event_fd, uint32_t count)
{
	return MEMSLOT_OPTS(memslot_buffer_waiter, .event_fd = event_fd, .count = count);
}

bool event_came(int event_fd)
{
	uint64_t count = 0;

	return read(event_fd, &count, sizeof count) == sizeof count && count == 1;
}
