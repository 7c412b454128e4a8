/* SPDX-License-Identifier: MIT */
/*
 * pagemap.c - asking the kernel which pages are private (PAGEMAP_SCAN, Linux 6.7).
 *
 * Invariant: a page is reported when this process owns it: it is no page of a file, not the zero
 * page, and present or swapped (a swapped page that were missed would be read by the next tenant).
 * Guard markers look swapped and are excluded where the kernel can tell; callers never scan beyond
 * the edge (INVARIANTS 3). A full array is no end: the walk goes on at walk_end.
 *
 * The descriptor of /proc/self/pagemap speaks for the process that opened it, and the application
 * may close it or put another file in its place, even another process's pagemap. So ours carries a
 * mark that no other has: its file position, which means nothing to the scan, is a secret of this
 * process. Each walk reads it back, the cheapest question there is about a descriptor. The lock is
 * held for the opening only and names its holder's epoch, so that a child never waits for a thread
 * that it does not have. A child that shares the descriptor table (CLONE_FILES) closes the parent's
 * descriptor: the parent's next walk finds that out by the mark.
 */
#define _GNU_SOURCE
#include "pagemap.h"

#include "feature.h"
#include "fork.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

bool ms_pagemap_high;

static _Atomic(uint64_t) lock;	 /* 0, or the epoch of the process whose thread holds it */
static _Atomic(uint64_t) opened; /* epoch << 32 | descriptor + 1; 0: never opened */
static _Atomic(uint64_t) secret; /* drawn once; children inherit it, so the epoch is added */

static void lock_take(uint64_t epoch)
{
	uint64_t seen = 0;

	while (!atomic_compare_exchange_weak(&lock, &seen, epoch)) {
		if (seen == epoch) {
			ms_os_yield();
			seen = 0;
		} /* else free, or held by a thread that only our parent has: take it over */
	}
}

/* The file position of the descriptor that was opened in an epoch. */
static int64_t mark_of(uint64_t epoch)
{
	uint64_t drawn = atomic_load(&secret), fresh;

	if (drawn == 0) {
		fresh = ms_os_random() | 1;
		drawn = atomic_compare_exchange_strong(&secret, &drawn, fresh) ? fresh : drawn;
	}
	return (int64_t)(((drawn >> 1) + epoch) & INT64_MAX);
}

/* The descriptor that was opened in that epoch, if it is still the file that we opened. 0: it is
 * not. Another error: nobody can say now. */
static int ours(uint64_t word, uint64_t epoch, int *ret_fd)
{
	int64_t at;

	if (word == 0)
		return 0;
	*ret_fd = (int)(uint32_t)word - 1;
	at = ms_os_seek(*ret_fd, 0, SEEK_CUR);
	if (at < 0 && at != -EBADF && at != -ESPIPE)
		return (int)at;
	return at == mark_of(epoch);
}

static int open_marked(uint64_t epoch)
{
	int64_t at;
	int fd = ms_os_open("/proc/self/pagemap", O_RDONLY, 0);

	if (fd < 0)
		return fd;
	if (ms_pagemap_high)
		fd = ms_os_raise_fd(fd);
	at = ms_os_seek(fd, mark_of(epoch), SEEK_SET);
	if (at != mark_of(epoch)) {
		ms_os_close(fd);
		return at < 0 ? (int)at : -EIO;
	}
	atomic_store(&opened, epoch << 32 | (uint32_t)(fd + 1));
	return fd;
}

static int reopen(uint64_t epoch)
{
	uint64_t word = atomic_load(&opened), before = word >> 32;
	int fd, error = ours(word, before, &fd);

	if (error < 0)
		return error;
	if (error && before == (uint32_t)epoch)
		return fd; /* another thread was faster */
	if (error)
		ms_os_close(fd); /* inherited: it speaks for our parent */
	atomic_store(&opened, 0);
	return open_marked(epoch);
}

static int pagemap_fd(uint64_t epoch)
{
	uint64_t word = atomic_load(&opened);
	int fd;

	if (word >> 32 == (uint32_t)epoch && ours(word, epoch, &fd) == 1)
		return fd;
	lock_take(epoch);
	fd = reopen(epoch);
	atomic_store(&lock, 0);
	return fd;
}

int ms_pagemap_begin(struct ms_pagemap_walk *walk, const void *address, size_t size)
{
	if (!ms_feature(MS_FEATURE_PAGEMAP_SCAN))
		return -EOPNOTSUPP;
	walk->at = (uint64_t)(uintptr_t)address;
	walk->end = walk->at + size;
	walk->epoch = ms_fork_epoch();
	walk->fd = pagemap_fd(walk->epoch);
	return walk->fd < 0 ? walk->fd : 0;
}

int ms_pagemap_next(struct ms_pagemap_walk *walk)
{
	uint64_t never = MS_PAGE_IS_FILE | MS_PAGE_IS_PFNZERO;
	int count = 0;

	if (ms_feature(MS_FEATURE_GUARD_CATEGORY))
		never |= MS_PAGE_IS_GUARD;
	while (count == 0 && walk->at < walk->end) {
		struct ms_pm_scan_arg arg = {
			.size = sizeof arg,
			.start = walk->at,
			.end = walk->end,
			.vec = (uint64_t)(uintptr_t)walk->regions,
			.vec_len = sizeof walk->regions / sizeof walk->regions[0],
			.category_inverted = never,
			.category_mask = never,
			.category_anyof_mask = MS_PAGE_IS_PRESENT | MS_PAGE_IS_SWAPPED,
			.return_mask = MS_PAGE_IS_PRESENT | MS_PAGE_IS_SWAPPED,
		};
		count = ms_os_scan(walk->fd, &arg);
		if (MS_UNLIKELY(ms_fork_epoch() != walk->epoch))
			return -ESTALE;
		if (count < 0)
			return count;
		if (arg.walk_end <= walk->at)
			return -EIO; /* no progress: not the call that we know */
		walk->at = arg.walk_end;
	}
	return count;
}
