/* SPDX-License-Identifier: MIT */
/*
 * tally.c - the statistics page: numbers that outlive the program.
 *
 * Invariant: there is always a page: without a file it is our own, which nobody reads. Numbers are
 * added atomically, so threads and processes share it; it is a file's mapping, so a program that is
 * killed leaves what it counted.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <fcntl.h>
#include <sys/mman.h>

_Static_assert(sizeof(struct memslot_preload_stats) <= MEMSLOT_PRELOAD_BYTES, "it fits its page");

static struct memslot_preload_stats own;
struct memslot_preload_stats *ms_tally = &own;

void ms_tally_start(const char *path)
{
	struct stat state;
	void *page;
	int fd = ms_os_open(path, O_RDWR, 0);

	if (fd < 0)
		return;
	/* A file that could not hold it would be a SIGBUS later. */
	if (ms_os_stat(fd, &state) == 0 && state.st_size == MEMSLOT_PRELOAD_BYTES &&
		ms_os_map_shared(fd, 0, MEMSLOT_PRELOAD_BYTES, PROT_READ | PROT_WRITE, &page) ==
			0) {
		struct memslot_preload_stats *stats = page;
		if (stats->magic == MEMSLOT_PRELOAD_MAGIC)
			ms_tally = stats;
		else
			ms_os_unmap(page, MEMSLOT_PRELOAD_BYTES);
	}
	ms_os_close(fd);
}

void ms_tally_max(uint64_t *number, uint64_t value)
{
	uint64_t seen = __atomic_load_n(number, __ATOMIC_RELAXED);

	while (seen < value && !__atomic_compare_exchange_n(number, &seen, value, true,
				       __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

struct memslot_preload_shape *ms_tally_shape(uint64_t key)
{
	struct memslot_preload_shape *row = ms_tally->shapes;

	for (; row < ms_tally->shapes + MEMSLOT_PRELOAD_SHAPES; row++) {
		uint64_t seen = 0;
		if (__atomic_compare_exchange_n(
			    &row->key, &seen, key, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||
			seen == key)
			return row;
	}
	return NULL;
}
