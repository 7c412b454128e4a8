/* SPDX-License-Identifier: MIT */
/*
 * feature.c - the feature table: name, the smallest real operation that proves it, cached answer.
 *
 * Invariant: an answer is "yes" only after the operation has been seen to do what we rely on, on
 * this very kernel, in this very process: a sandbox may accept a call and do nothing, or report
 * zeros. Any error means "missing". MEMSLOT_DISABLE is looked at before the probe, so a feature
 * that is switched off is not even tried. Answers are idempotent: two threads may probe at once.
 */
#define _GNU_SOURCE
#include "feature.h"

#include "os.h"
#include "uring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memslot/base.h>

#define RW (PROT_READ | PROT_WRITE)

/* Scratch for a probe: four pages of zeros, the second one written. */
static unsigned char *probe_map(void)
{
	void *pages;

	if (ms_os_reserve(NULL, 4 * ms_page_size(), RW, &pages))
		return NULL;
	(void)ms_os_advise(pages, 4 * ms_page_size(), MADV_NOHUGEPAGE);
	((volatile unsigned char *)pages)[ms_page_size()] = 7;
	return pages;
}

static void probe_unmap(unsigned char *pages)
{
	ms_os_unmap(pages, 4 * ms_page_size());
}

static unsigned char probe_read(const unsigned char *at)
{
	return *(const volatile unsigned char *)at;
}

/* Run a check over the scratch pages. */
static bool with_pages(bool (*check)(unsigned char *pages))
{
	unsigned char *pages = probe_map();
	bool yes;

	if (!pages)
		return false;
	yes = check(pages);
	probe_unmap(pages);
	return yes;
}

/* --- the probes --- */

static bool drops(unsigned char *pages)
{
	return ms_os_advise(pages, 4 * ms_page_size(), MADV_DONTNEED) == 0 &&
	       probe_read(pages + ms_page_size()) == 0;
}

/* DONTNEED of a written page of a private file mapping shows the file again. */
static bool drops_file_page(void)
{
	size_t page = ms_page_size();
	void *mapped;
	bool yes = false;
	int fd = ms_os_memfd("memslot-probe");

	if (fd < 0)
		return true; /* no such files, no such mappings */
	if (ms_os_write_at(fd, "F", 1, 0) == 0 && ms_os_map_private(fd, page, RW, &mapped) == 0) {
		*(volatile char *)mapped = 'w';
		yes = ms_os_advise(mapped, page, MADV_DONTNEED) == 0 && probe_read(mapped) == 'F';
		ms_os_unmap(mapped, page);
	}
	ms_os_close(fd);
	return yes;
}

static bool probe_dontneed(void)
{
	return with_pages(drops) && drops_file_page();
}

static bool drops_locked(unsigned char *pages)
{
	return ms_os_advise(pages, 4 * ms_page_size(), MS_MADV_DONTNEED_LOCKED) == 0 &&
	       probe_read(pages + ms_page_size()) == 0;
}

static bool probe_dontneed_locked(void)
{
	return with_pages(drops_locked);
}

/* The regions of the scratch pages that match; invert is taken away from the private pages. */
static int scan_pages(unsigned char *pages, uint64_t invert, struct ms_page_region *regions)
{
	struct ms_pm_scan_arg arg = {
		.size = sizeof arg,
		.start = (uint64_t)(uintptr_t)pages,
		.end = (uint64_t)(uintptr_t)pages + 4 * ms_page_size(),
		.vec = (uint64_t)(uintptr_t)regions,
		.vec_len = 4,
		.category_inverted = invert,
		.category_mask = invert,
		.category_anyof_mask = MS_PAGE_IS_PRESENT | MS_PAGE_IS_SWAPPED,
		.return_mask = MS_PAGE_IS_PRESENT | MS_PAGE_IS_SWAPPED,
	};
	int count, fd = ms_os_open("/proc/self/pagemap", 0, 0);

	if (fd < 0)
		return fd;
	count = ms_os_scan(fd, &arg);
	ms_os_close(fd);
	return count;
}

static bool found_second(unsigned char *pages, uint64_t invert)
{
	struct ms_page_region regions[4];
	uint64_t second = (uint64_t)(uintptr_t)pages + ms_page_size();

	return scan_pages(pages, invert, regions) == 1 && regions[0].start == second &&
	       regions[0].end == second + ms_page_size();
}

/* A written page is reported, a page only read is not; also when the kernel paged it out. */
static bool scans(unsigned char *pages)
{
	const uint64_t invert = MS_PAGE_IS_FILE | MS_PAGE_IS_PFNZERO;

	(void)probe_read(pages);
	if (!found_second(pages, invert))
		return false;
	(void)ms_os_advise(pages + ms_page_size(), ms_page_size(), MADV_PAGEOUT);
	return found_second(pages, invert);
}

static bool probe_pagemap_scan(void)
{
	return with_pages(scans);
}

static bool guards(unsigned char *pages)
{
	unsigned char *second = pages + ms_page_size();

	if (ms_os_guard(second, ms_page_size()) || ms_os_probe_read(second) != -EFAULT)
		return false;
	/* Markers must survive a drop, and go away on request. */
	if (ms_os_advise(pages, 4 * ms_page_size(), MADV_DONTNEED) ||
		ms_os_probe_read(second) != -EFAULT)
		return false;
	return ms_os_unguard(second, ms_page_size()) == 0 && ms_os_probe_read(second) == 0;
}

static bool probe_guard_install(void)
{
	return with_pages(guards);
}

static bool names_guards(unsigned char *pages)
{
	return ms_os_guard(pages + 2 * ms_page_size(), ms_page_size()) == 0 &&
	       found_second(pages, MS_PAGE_IS_FILE | MS_PAGE_IS_PFNZERO | MS_PAGE_IS_GUARD);
}

static bool probe_guard_category(void)
{
	return ms_feature(MS_FEATURE_GUARD_INSTALL) && ms_feature(MS_FEATURE_PAGEMAP_SCAN) &&
	       with_pages(names_guards);
}

/* Touching a new page moves the counter, touching a resident one does not (INVARIANTS 9). */
static bool counts(unsigned char *pages)
{
	uint64_t before, after, still;

	for (int tries = 0; tries < 3; tries++) {
		unsigned char *fresh = pages + 2 * ms_page_size();
		if (ms_os_advise(fresh, ms_page_size(), MADV_DONTNEED) ||
			ms_os_thread_faults(&before))
			return false;
		*(volatile unsigned char *)fresh = 1;
		if (ms_os_thread_faults(&after) || after == before)
			return false;
		*(volatile unsigned char *)fresh = 2;
		if (ms_os_thread_faults(&still))
			return false;
		if (still == after)
			return true; /* a signal or so may fault once; not three times */
	}
	return false;
}

static bool probe_fault_counter(void)
{
	return with_pages(counts);
}

static bool drops_by_process(unsigned char *pages)
{
	return ms_os_process_madvise_self(pages, 4 * ms_page_size(), MADV_DONTNEED) == 0 &&
	       probe_read(pages + ms_page_size()) == 0;
}

static bool probe_process_madvise_self(void)
{
	return with_pages(drops_by_process);
}

static bool probe_memfd_seal(void)
{
	int fd = ms_os_memfd("memslot-probe");
	bool yes;

	if (fd < 0)
		return false;
	yes = ms_os_write_at(fd, "x", 1, 0) == 0 && ms_os_seal(fd) == 0 &&
	      ms_os_write_at(fd, "y", 1, 0) == -EPERM;
	ms_os_close(fd);
	return yes;
}

static bool populates(unsigned char *pages)
{
	return ms_os_populate(pages, 4 * ms_page_size()) == 0;
}

static bool probe_populate(void)
{
	return with_pages(populates);
}

static bool names(unsigned char *pages)
{
	return ms_os_name(pages, 4 * ms_page_size(), "memslot-probe") == 0;
}

static bool probe_anon_name(void)
{
	return with_pages(names);
}

static bool wipes(unsigned char *pages)
{
	return ms_os_advise(pages, ms_page_size(), MADV_WIPEONFORK) == 0;
}

static bool probe_wipe_on_fork(void)
{
	return with_pages(wipes);
}

/* The mapping of the scratch pages is told, with its protection, and no other beside them. */
static bool tells_mappings(unsigned char *pages)
{
	uint64_t start = (uint64_t)(uintptr_t)pages, rights = MS_MAP_READABLE | MS_MAP_WRITABLE;
	struct ms_map_query query;
	bool yes = false;
	int fd = ms_os_open("/proc/self/maps", 0, 0);

	if (fd < 0)
		return false;
	if (ms_os_query_map(fd, start, &query) == 0 && query.vma_start <= start &&
		query.vma_end > start && query.vma_flags == rights && query.inode == 0)
		yes = ms_os_protect(pages, ms_page_size(), PROT_NONE) == 0 &&
		      ms_os_query_map(fd, start, &query) == 0 && query.vma_flags == 0 &&
		      query.vma_end == start + ms_page_size();
	ms_os_close(fd);
	return yes;
}

static bool probe_procmap_query(void)
{
	return with_pages(tells_mappings);
}

static bool probe_pkeys(void)
{
	return ms_os_pkey_probe() == 0;
}

static bool probe_io_uring(void)
{
	int fd = ms_os_uring_setup();

	return fd >= 0 && ms_os_close(fd) == 0;
}

static bool probe_uring_fixed(void)
{
	return ms_feature(MS_FEATURE_IO_URING) && ms_uring_has_fixed();
}

static bool probe_uring_clone(void)
{
	return ms_feature(MS_FEATURE_URING_FIXED) && ms_uring_has_clone();
}

static bool probe_uring_groups(void)
{
	return ms_feature(MS_FEATURE_IO_URING) && ms_uring_has_groups();
}

static bool probe_uring_sync_cancel(void)
{
	return ms_feature(MS_FEATURE_IO_URING) && ms_uring_has_sync_cancel();
}

static bool probe_uring_send_zc(void)
{
	return ms_feature(MS_FEATURE_IO_URING) && ms_uring_has_operation(IORING_OP_SEND_ZC);
}

/* A flag of an old operation, which nobody lists: it came with Linux 6.0, as SEND_ZC did. */
static bool probe_uring_recv_multishot(void)
{
	return ms_feature(MS_FEATURE_IO_URING) && ms_uring_has_operation(IORING_OP_SEND_ZC);
}

static bool probe_uring_read_multishot(void)
{
	return ms_feature(MS_FEATURE_IO_URING) && ms_uring_has_operation(MS_URING_READ_MULTISHOT);
}

static bool probe_proc_maps(void)
{
	char first;
	int fd = ms_os_open("/proc/self/maps", O_RDONLY, 0);
	bool yes = fd >= 0 && ms_os_read_some(fd, &first, 1, 0) == 1;

	if (fd >= 0)
		ms_os_close(fd);
	return yes;
}

/* --- the table --- */

enum answer { UNKNOWN, YES, NO };

static const struct {
	const char *name;
	bool (*probe)(void);
} table[] = {
#define FEATURE_ROW(symbol, name) {#name, probe_##name},
	MS_FEATURES(FEATURE_ROW)
#undef FEATURE_ROW
};

static _Atomic(unsigned char) answers[MS_FEATURE_COUNT];

/* Is `name` one of the comma-separated words of `list`? */
static bool listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	while (list && *list) {
		size_t word = strcspn(list, ",");
		if (word == length && memcmp(list, name, word) == 0)
			return true;
		list += word + (list[word] == ',');
	}
	return false;
}

static bool disabled(const char *name)
{
	const char *list = secure_getenv("MEMSLOT_DISABLE");

	return listed(list, "all") || listed(list, name);
}

bool ms_feature(enum ms_feature feature)
{
	enum answer answer = atomic_load_explicit(&answers[feature], memory_order_relaxed);

	if (MS_UNLIKELY(answer == UNKNOWN)) {
		bool yes = !disabled(table[feature].name) && table[feature].probe();
		answer = yes ? YES : NO;
		atomic_store_explicit(
			&answers[feature], (unsigned char)answer, memory_order_relaxed);
	}
	return answer == YES;
}

MS_EXPORT int memslot_feature(const char *name)
{
	for (unsigned i = 0; name && i < MS_FEATURE_COUNT; i++) {
		if (strcmp(name, table[i].name) == 0)
			return ms_feature((enum ms_feature)i);
	}
	return -EINVAL;
}

MS_EXPORT const char *memslot_feature_name(uint32_t index)
{
	return index < MS_FEATURE_COUNT ? table[index].name : NULL;
}

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

MS_EXPORT const char *memslot_version(void)
{
	return TEXT(MEMSLOT_VERSION_MAJOR) "." TEXT(MEMSLOT_VERSION_MINOR) "." TEXT(
		MEMSLOT_VERSION_PATCH);
}
