/* SPDX-License-Identifier: MIT */
/* pagemap.h - which pages of a range does this process own? See pagemap.c. */
#ifndef MS_PAGEMAP_H
#define MS_PAGEMAP_H

#include "os.h"

/* A walk over the private pages of a range, in address order. */
struct ms_pagemap_walk {
	uint64_t at, end;
	uint64_t epoch; /* of the process that began it */
	int fd;
	struct ms_page_region regions[128]; /* categories: MS_PAGE_IS_PRESENT, MS_PAGE_IS_SWAPPED */
};

/* The descriptor goes as high as it can: in a program that knows nothing of us. */
extern MS_HIDDEN bool ms_pagemap_high;

/* 0, or -errno where there is no scan (missing, switched off, /proc gone). */
MS_HIDDEN int ms_pagemap_begin(struct ms_pagemap_walk *walk, const void *address, size_t size);
/* The next regions: how many are in walk->regions, 0 at the end of the range, or -errno. -ESTALE: a
 * signal handler has forked, and this is the child: the answers were about the parent. */
MS_HIDDEN int ms_pagemap_next(struct ms_pagemap_walk *walk);

#endif
