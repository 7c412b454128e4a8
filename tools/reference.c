/* SPDX-License-Identifier: MIT */
/*
 * reference.c - the other ways to give an instance its memory and take it back.
 *
 *   [ 0 .. accessible: read-write, the image mapped private | .. capacity, guard: PROT_NONE ]
 *
 * pooled: the algorithm of Wasmtime's MemoryImageSlot in its pooling allocator. The edge is moved
 * by mprotect and only when it differs; pages hidden beyond it stay. A reset treats [0,
 * accessible): with a scan     one PAGEMAP_SCAN of at most 32 regions and budget / page size pages;
 * the regions are copied or cleared, everything behind the end of the walk is dropped without the
 * first `budget` bytes are copied or cleared, the rest is dropped with budget 0   everything is
 * dropped: plain MADV_DONTNEED remap: every instance gets a mapping of its own.
 *
 * Invariant: what a variant is timed for is what its original does, no call more and none less;
 * only the scan also asks for swapped pages, without which the original shows them to the next
 * tenant.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD (64 * KIB)
#define MAX_REGIONS 32

/* PAGEMAP_SCAN, Linux 6.7: distribution headers may be older. */
struct page_region_ {
	uint64_t start, end, categories;
};

struct scan_ {
	uint64_t size, flags, start, end, walk_end, regions, region_room, max_pages, inverted, mask,
		any_of, returned;
};

#define SCAN_ _IOWR('f', 16, struct scan_)
#define IS_FILE (1u << 2)
#define IS_PRESENT (1u << 3)
#define IS_SWAPPED (1u << 4)
#define IS_PFNZERO (1u << 5)

int reference_setup(struct settings *settings)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	size_t done = 0;
	ssize_t part;

	settings->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	settings->image_fd = memfd_create("reference image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (settings->image_fd < 0)
		return -errno;
	for (; done < settings->contents_size; done += (size_t)part) {
		part = write(settings->image_fd, settings->contents + done,
			settings->contents_size - done);
		if (part <= 0)
			return part ? -errno : -EIO;
	}
	return fcntl(settings->image_fd, F_ADD_SEALS, seals) ? -errno : 0;
}

static int scan(const struct settings *settings, unsigned char *start, size_t size, size_t pages,
	struct page_region_ *regions, size_t room, uint64_t *ret_walk_end)
{
	struct scan_ scan = {.size = sizeof(scan),
		.start = (uintptr_t)start,
		.end = (uintptr_t)start + size,
		.regions = (uintptr_t)regions,
		.region_room = room,
		.max_pages = pages,
		.inverted = IS_PFNZERO | IS_FILE,
		.mask = IS_PFNZERO | IS_FILE,
		.any_of = IS_PRESENT | IS_SWAPPED};
	int count = ioctl(settings->pagemap_fd, SCAN_, &scan);

	*ret_walk_end = scan.walk_end;
	return count < 0 ? -errno : count;
}

bool reference_can_scan(const struct settings *settings)
{
	struct page_region_ region;
	unsigned char *page;
	uint64_t walk_end;
	int found;

	page = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return false;
	*(volatile unsigned char *)page = 1;
	found = scan(settings, page, page_size(), 1, &region, 1, &walk_end);
	munmap(page, page_size());
	return found == 1;
}

/* Put [offset, offset + size) back by copying. */
static void restore(const struct instance *instance, size_t offset, size_t size)
{
	size_t image_size = instance->settings->image_size, copied = 0;

	if (offset < image_size) {
		copied = size < image_size - offset ? size : image_size - offset;
		memcpy(instance->base + offset, instance->settings->contents + offset, copied);
	}
	memset(instance->base + offset + copied, 0, size - copied);
}

static int drop(struct instance *instance, size_t offset, size_t end)
{
	if (offset >= end)
		return 0;
	instance->calls++;
	return madvise(instance->base + offset, end - offset, MADV_DONTNEED) ? -errno : 0;
}

static int pooled_end(struct instance *instance)
{
	size_t end = instance->reference.accessible;
	size_t keep = instance->variant->budget < end ? (size_t)instance->variant->budget : end;
	struct page_region_ regions[MAX_REGIONS];
	uint64_t walk_end, base = (uintptr_t)instance->base;
	int count = -1;

	if (instance->variant->needs_scan && keep) {
		instance->calls++;
		count = scan(instance->settings, instance->base, end, keep / page_size(), regions,
			MAX_REGIONS, &walk_end);
	}
	if (count < 0) {
		restore(instance, 0, keep);
		return drop(instance, keep, end);
	}
	for (int i = 0; i < count; i++)
		restore(instance, regions[i].start - base, regions[i].end - regions[i].start);
	return drop(instance, walk_end - base, end);
}

static int protect(struct instance *instance, size_t from, size_t to, int protection)
{
	instance->calls++;
	return mprotect(instance->base + from, to - from, protection) ? -errno : 0;
}

static int move_edge(struct instance *instance, size_t to)
{
	size_t from = instance->reference.accessible;
	int error = 0;

	if (to > from)
		error = protect(instance, from, to, PROT_READ | PROT_WRITE);
	else if (to < from)
		error = protect(instance, to, from, PROT_NONE);
	if (!error)
		instance->reference.accessible = to;
	return error;
}

/* Instantiate at the initial size, then grow as the instance asks. */
static int pooled_begin(struct instance *instance, size_t grow)
{
	int error = 0;

	if (instance->reference.accessible != instance->size)
		error = move_edge(instance, instance->size);
	if (!error && grow)
		error = move_edge(instance, instance->size + grow);
	return error;
}

static int map_image(struct instance *instance)
{
	const struct settings *settings = instance->settings;

	instance->calls++;
	return mmap(instance->base, settings->image_size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED, settings->image_fd,
		       (off_t)settings->image_start) == MAP_FAILED
		       ? -errno
		       : 0;
}

/* The original first takes the old image away, then maps the new one. */
int reference_show(struct instance *instance)
{
	instance->calls++;
	if (mmap(instance->base, instance->settings->image_size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	return map_image(instance);
}

static int reserve(struct instance *instance)
{
	void *base;

	instance->calls++;
	base = mmap(NULL, instance->capacity + GUARD, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return -errno;
	instance->base = base;
	return 0;
}

static void release(struct instance *instance)
{
	if (!instance->base)
		return;
	instance->calls++;
	munmap(instance->base, instance->capacity + GUARD);
	instance->base = NULL;
}

static int pooled_open(struct instance *instance)
{
	int error = reserve(instance);

	if (!error)
		error = move_edge(instance, instance->size);
	return error ? error : map_image(instance);
}

static int remap_begin(struct instance *instance, size_t grow)
{
	size_t image_size = instance->settings->image_size, size = instance->size + grow;
	int error = reserve(instance);

	if (!error)
		error = map_image(instance);
	if (!error && size > image_size)
		error = protect(instance, image_size, size, PROT_READ | PROT_WRITE);
	return error;
}

static int remap_end(struct instance *instance)
{
	release(instance);
	return 0;
}

static int remap_open(struct instance *instance)
{
	instance->base = NULL;
	return 0;
}

const struct backend pooled_backend = {pooled_open, pooled_begin, pooled_end, release, false};
const struct backend remap_backend = {remap_open, remap_begin, remap_end, release, false};
