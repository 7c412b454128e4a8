/* SPDX-License-Identifier: MIT */
/* feature.h - what this kernel can do: see feature.c. */
#ifndef MS_FEATURE_H
#define MS_FEATURE_H

#include "util.h"

/* One line a feature: symbol, name, what it is for. feature.c holds the probes in this order. */
#define MS_FEATURES(X)                                                                             \
	X(DONTNEED, dontneed)                                                                      \
	X(DONTNEED_LOCKED, dontneed_locked)                                                        \
	X(PAGEMAP_SCAN, pagemap_scan)                                                              \
	X(GUARD_INSTALL, guard_install)                                                            \
	X(GUARD_CATEGORY, guard_category)                                                          \
	X(FAULT_COUNTER, fault_counter)                                                            \
	X(PROCESS_MADVISE_SELF, process_madvise_self)                                              \
	X(MEMFD_SEAL, memfd_seal)                                                                  \
	X(POPULATE, populate)                                                                      \
	X(ANON_NAME, anon_name)                                                                    \
	X(WIPE_ON_FORK, wipe_on_fork)                                                              \
	X(PROCMAP_QUERY, procmap_query)                                                            \
	X(PKEYS, pkeys)                                                                            \
	X(IO_URING, io_uring)                                                                      \
	X(URING_FIXED, uring_fixed)                                                                \
	X(URING_CLONE, uring_clone)                                                                \
	X(URING_GROUPS, uring_groups)                                                              \
	X(URING_SYNC_CANCEL, uring_sync_cancel)                                                    \
	X(URING_SEND_ZC, uring_send_zc)                                                            \
	X(URING_RECV_MULTISHOT, uring_recv_multishot)                                              \
	X(URING_READ_MULTISHOT, uring_read_multishot)                                              \
	X(PROC_MAPS, proc_maps)

enum ms_feature {
#define MS_FEATURE_ENUM(symbol, name) MS_FEATURE_##symbol,
	MS_FEATURES(MS_FEATURE_ENUM)
#undef MS_FEATURE_ENUM
		MS_FEATURE_COUNT
};

/* Present and enabled? The first question runs the probe. */
MS_HIDDEN bool ms_feature(enum ms_feature feature);

#endif
