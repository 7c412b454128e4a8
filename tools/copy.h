/* SPDX-License-Identifier: MIT */
/*
 * copy.h - the parts of memslot copy, a file copier on a pool of buffers.
 *
 *   copy.c       command line, report         copy_part.c  what is to be read and written next
 *   copy_file.c  files: opened, named, kept   copy_move.c  who does it: io_uring, or calls
 *
 * A pass goes over a file in parts, each in one buffer; as many are on their way as there are
 * buffers. The first pass reads and writes, two more read and sum up, to compare.
 */
#ifndef MEMSLOT_COPY_H
#define MEMSLOT_COPY_H

#include "tool.h"

#include <signal.h>
#include <stdatomic.h>

#include <memslot.h>
#include <memslot/buffers.h>

#define DEPTH_MOST 256u

/* A file, open twice: for aligned parts and for others. */
struct side {
	const char *path;
	int direct, cached; /* direct: -1 where the file system has no O_DIRECT */
};

struct pass {
	bool writes; /* copy; else sum up */
	struct side *from;
	uint64_t at, data_end; /* where the next part begins; of the data there */
	uint64_t *sums;	       /* of parts of buffer_size bytes */
	uint64_t reads, writes_done, short_ones, cached_ones;
	double seconds, cpu_seconds;
};

struct part {
	struct memslot_buffer buffer;
	uint64_t offset;
	size_t size, got, gone;
	bool writing, cached; /* by the side's other descriptor */
};

struct copy {
	struct side from, to;
	char *temp; /* what TO is called until it is whole */
	bool plain, cached, json, progress, check;
	uint64_t buffer_size, depth, rounds;

	uint64_t size, align;
	struct pass *pass;
	bool ring; /* io_uring is used */
	uint64_t plain_fallbacks;
	double sync_seconds;
	_Atomic(uint64_t) bytes_read, bytes_written;
};

extern volatile sig_atomic_t copy_stopped;

/* What is next for a part. */
struct step {
	int fd;
	bool write;
	size_t start, size;
	uint64_t offset;
};

/* --- copy_file.c: 0, or an exit status, and what is wrong was said --- */

int files_open(struct copy *copy);
/* Room for all that will be written. */
int files_reserve(struct copy *copy);
/* TO is whole: it is written to the medium, and has its name. */
int files_keep(struct copy *copy);
/* What has no name yet goes. */
void files_close(struct copy *copy);
/* What a failure of the pass means. */
int files_explain(const struct copy *copy, int error);

/* --- copy_part.c --- */

/* The next part of the pass, holes left out of a copy. False: none is left. */
bool part_next(struct copy *copy, struct part *part);
void part_step(const struct copy *copy, struct part *part, struct step *ret_step);
/* What came of it. 1: there is another step; 0: the part is done; or -errno. */
int part_done(struct copy *copy, struct part *part, int result);

/* --- copy_move.c --- */

/* A whole pass. 0 or -errno. */
int copy_move(struct copy *copy, struct pass *pass);

#endif
