/* SPDX-License-Identifier: MIT */
/* buffers.h - what tests of buffers share: see buffers.c. */
#ifndef TESTS_BUFFERS_H
#define TESTS_BUFFERS_H

#include "slots.h"

#define KB ((uint64_t)1 << 10)
#define MB ((uint64_t)1 << 20)

struct memslot_buffers *buffers_new(uint64_t buffer_size, uint64_t budget);
/* A slot pool of so many slots of `per_slot` buffers, and buffers in it. */
struct memslot_buffers *buffers_in_pool(uint64_t buffer_size, uint64_t budget, uint32_t slots,
	uint64_t per_slot, struct memslot_pool **ret_pool);
struct memslot_buffers_stats buffers_stats(const struct memslot_buffers *buffers);
struct memslot_buffer buffer_get(struct memslot_buffers *buffers, uint32_t count);
void buffer_put(struct memslot_buffers *buffers, const struct memslot_buffer *buffer);
/* Nothing is out or waiting; it can be closed. */
void buffers_end(struct memslot_buffers *buffers);
struct memslot_buffer_waiter buffer_waiter(int event_fd, uint32_t count);
/* Has the event come? It is taken. */
bool event_came(int event_fd);

#endif
