/* SPDX-License-Identifier: MIT */
/*
 * buffers.h - memslot buffers, the measurements: buffers.c reports, buffers_pool.c measures without
 * the kernel, buffers_ring.c with it.
 */
#ifndef MEMSLOT_BUFFERS_TOOL_H
#define MEMSLOT_BUFFERS_TOOL_H

#include "tool.h"

#include <liburing.h>
#include <memslot.h>

/* What two ways cost, in nanoseconds an operation; negative: it failed, or cannot be had here. */
struct duel {
	const char *name, *what, *against; /* against: NULL: ours alone */
	double goal;			   /* of the ratio, or of ours alone in ns */
	int (*open)(void);
	double (*ours)(void);
	double (*theirs)(void);
	void (*close)(void);
};

extern const struct duel pool_duels[], ring_duels[]; /* up to a NULL name */

/* Where files for O_DIRECT are made. */
extern const char *buffers_folder;

/* A ring, and a pool attached to it. 0 or -errno. */
struct set {
	struct memslot_buffers *buffers;
	struct memslot_ring *ring;
	struct io_uring uring;
};
int set_open(struct set *set, uint64_t buffer_size, uint64_t budget, unsigned entries);
void set_close(struct set *set);
/* The next completion is passed on: its result, or -errno. */
int set_next(struct set *set, struct memslot_completion *ret_done);

uint64_t process_cpu_ns(void);

#endif
