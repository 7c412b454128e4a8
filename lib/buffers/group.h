/* SPDX-License-Identifier: MIT */
/* group.h - buffers that the kernel chooses: choose.c, and how their groups begin and end: group.c.
 */
#ifndef MS_GROUP_H
#define MS_GROUP_H

#include "buffers/buffers.h"

#include "base/uring.h"

struct memslot_group {
	struct memslot_ring *ring;
	struct memslot_group *next;
	struct io_uring_buf_ring *entries; /* NULL: the kernel has none */
	size_t bytes, entry_bytes;
	uint32_t number; /* the application's */
	uint32_t id;	 /* the pool's */
	uint32_t count, hot, window, available, calm, ops;
	bool ending;	   /* destroy has begun */
	uint64_t provided; /* since the window grew */
	uint16_t tail;
	uint64_t enobufs;
	uint32_t free_count;
	uint16_t *free_ids; /* of entries not in the ring */
	uint32_t *buffer;   /* by id; MS_OP_NONE: not in the ring */
};

#endif
