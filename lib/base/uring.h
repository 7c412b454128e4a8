/* SPDX-License-Identifier: MIT */
/* uring.h - what this kernel's io_uring can do: see uring.c. */
#ifndef MS_URING_H
#define MS_URING_H

#include "util.h"

#include <linux/io_uring.h>

/* Headers may be older than the kernel. */
#define MS_URING_READ_MULTISHOT 49 /* 6.7 */
#define MS_URING_CLONE_BUFFERS 30  /* 6.12 */
#define MS_URING_DST_REPLACE 2	   /* 6.13 */

struct ms_uring_clone {
	uint32_t src_fd, flags, src_off, dst_off, nr, pad[3];
};

/* The probes, each with a ring of its own. */
MS_HIDDEN bool ms_uring_has_fixed(void);
MS_HIDDEN bool ms_uring_has_clone(void);
MS_HIDDEN bool ms_uring_has_groups(void);
MS_HIDDEN bool ms_uring_has_sync_cancel(void);
MS_HIDDEN bool ms_uring_has_operation(unsigned operation);

/* A table of so many empty entries; 0 or -errno. */
MS_HIDDEN int ms_uring_sparse(int fd, unsigned count);
/* One entry. NULL: empty. */
MS_HIDDEN int ms_uring_update(int fd, unsigned entry, void *base, size_t size);

#endif
