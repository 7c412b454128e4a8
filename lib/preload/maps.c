/* SPDX-License-Identifier: MIT */
/*
 * maps.c - what the kernel says is mapped (PROCMAP_QUERY, Linux 6.11).
 *
 * Invariant: a yes is the kernel's about this very process: the descriptor names the epoch that it
 * was opened in. Somebody may have closed it: then any error is a no, and the next question opens
 * another. Ours is never closed here, for the number may be the program's by now.
 */
#define _GNU_SOURCE
#include "preload.h"

#include "base/feature.h"
#include "base/fork.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define RIGHTS (MS_MAP_READABLE | MS_MAP_WRITABLE | MS_MAP_EXECUTABLE | MS_MAP_SHARED)

static _Atomic(uint64_t) opened; /* epoch << 32 | descriptor + 1 */

static int maps_fd(void)
{
	uint64_t epoch = (uint32_t)ms_fork_epoch(), word = atomic_load(&opened);
	int fd;

	if (word >> 32 == epoch && (uint32_t)word)
		return (int)(uint32_t)word - 1;
	fd = ms_os_open("/proc/self/maps", O_RDONLY, 0);
	if (fd < 0)
		return fd;
	fd = ms_os_raise_fd(fd);
	/* What a parent opened is open here, too: but whose number is it by now? Close on exec. */
	if (!atomic_compare_exchange_strong(&opened, &word, epoch << 32 | (uint32_t)(fd + 1))) {
		ms_os_close(fd); /* another thread was faster */
		return (int)(uint32_t)word - 1;
	}
	return fd;
}

int ms_maps_uniform(uint64_t start, uint64_t end, int prot)
{
	uint64_t rights = (prot & PROT_READ ? MS_MAP_READABLE : 0) |
			  (prot & PROT_WRITE ? MS_MAP_WRITABLE : 0);
	struct ms_map_query query;
	int fd, error;

	if (!ms_feature(MS_FEATURE_PROCMAP_QUERY))
		return -EOPNOTSUPP;
	fd = maps_fd();
	while (fd >= 0 && start < end) {
		error = ms_os_query_map(fd, start, &query);
		if (error && error != -ENOENT)
			atomic_store(&opened, 0);
		if (error || query.vma_start > start || query.vma_end <= start ||
			(query.vma_flags & RIGHTS) != rights || query.inode)
			return -EUCLEAN;
		start = query.vma_end;
	}
	return fd < 0 ? -EUCLEAN : 0;
}
