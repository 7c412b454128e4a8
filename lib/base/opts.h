/* SPDX-License-Identifier: MIT */
/* opts.h - taking option structs in and giving output structs out: see opts.c. */
#ifndef MS_OPTS_H
#define MS_OPTS_H

#include "util.h"

/*
 * Take in the caller's options. `opts` (may be NULL: all default) begins with uint32_t size, flags;
 * `taken` has `taken_size` bytes and is wholly written. -EINVAL smaller than `first_size` (the
 * struct as first released) or a flag outside `known_flags`; -E2BIG a non-zero tail from a newer
 * header.
 */
MS_HIDDEN int ms_opts_take(
	void *taken, size_t taken_size, size_t first_size, uint32_t known_flags, const void *opts);

/* Fill the caller's output struct up to the size it carries. -EINVAL below 8. */
MS_HIDDEN int ms_opts_give(void *out, const void *filled, size_t filled_size);

#endif
