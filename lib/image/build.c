/* SPDX-License-Identifier: MIT */
/*
 * build.c - builds a sealed image: begin, write or copy, finish.
 *
 * The image lies in a memfd as long as the image is. finish looks at what was written:
 *
 *   written    XXXX0000000XX0000000000000000000X000       0 a page of zeros, or never written
 *   extents    [           ]                   []         gaps of 16 pages and more are holes
 *
 * Invariant: inside an extent every page is allocated, outside none is, and nobody reads outside:
 * so the memfd never grows again (INVARIANTS 5). After finish nobody can write to it or shrink it,
 * so reading it never raises a signal.
 *
 * A build belongs to one thread. Sources are read by the kernel, never here: what cannot be read is
 * -EFAULT or -EIO.
 */
#define _GNU_SOURCE
#include "image/image.h"

#include "base/feature.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK (64u << 10)

static bool refused(int error)
{
	return error == -ENOSYS || error == -EPERM || error == -EACCES || error == -EINVAL;
}

/* A private memory file. Where memfd_create is forbidden, one in /dev/shm that never had a name. */
static int memory_file(bool *ret_sealable)
{
	int file, fd = ms_os_memfd("memslot-image");

	*ret_sealable = fd >= 0 && ms_feature(MS_FEATURE_MEMFD_SEAL);
	if (fd >= 0 || !refused(fd))
		return fd;
	file = ms_os_open("/dev/shm", O_TMPFILE | O_RDWR | O_EXCL, 0600);
	return file < 0 ? fd : file;
}

int ms_build_begin(struct ms_build *build, size_t first, size_t pages)
{
	uint64_t size = ms_pages_to_bytes(pages);
	int error;

	if (size > ms_os_file_limit())
		return -EFBIG;
	build->fd = memory_file(&build->sealable);
	if (build->fd < 0)
		return build->fd;
	build->first = first;
	build->pages = pages;
	error = ms_os_truncate(build->fd, size);
	if (error)
		ms_build_abort(build);
	return error;
}

void ms_build_abort(struct ms_build *build)
{
	ms_os_close(build->fd);
	build->fd = -1;
}

/* Where a byte of the slot lies in the memfd. */
static uint64_t place(const struct ms_build *build, uint64_t slot_offset, uint64_t size)
{
	uint64_t offset = slot_offset - ms_pages_to_bytes(build->first);

	MS_TRAP_UNLESS(slot_offset >= ms_pages_to_bytes(build->first) &&
		       offset <= ms_pages_to_bytes(build->pages) &&
		       size <= ms_pages_to_bytes(build->pages) - offset);
	return offset;
}

int ms_build_write(struct ms_build *build, uint64_t slot_offset, const void *bytes, size_t size)
{
	return ms_os_write_at(build->fd, bytes, size, place(build, slot_offset, size));
}

int ms_build_copy_all(
	struct ms_build *build, uint64_t slot_offset, int fd, uint64_t offset, uint64_t size)
{
	uint64_t to = place(build, slot_offset, size);
	size_t room = ms_min(size, CHUNK);
	void *buffer = ms_os_alloc(room);
	int error = buffer ? 0 : -ENOMEM;

	while (!error && size) {
		size_t part = ms_min(size, room);
		error = ms_os_read_at(fd, buffer, part, offset);
		if (!error && !ms_util_is_zero(buffer, part))
			error = ms_os_write_at(build->fd, buffer, part, to);
		offset += part;
		to += part;
		size -= part;
	}
	ms_os_free(buffer);
	return error;
}

/* The next stretch of data in [at, end) of a file; false: none. A file system that does not say
 * where its holes are has none. */
static bool next_data(int fd, uint64_t at, uint64_t end, uint64_t *ret_from, uint64_t *ret_to)
{
	int64_t from = ms_os_seek(fd, (int64_t)at, SEEK_DATA), to;

	if (from == -ENXIO)
		return false;
	*ret_from = from < (int64_t)at ? at : (uint64_t)from;
	if (*ret_from >= end)
		return false;
	to = ms_os_seek(fd, (int64_t)*ret_from, SEEK_HOLE);
	*ret_to = to <= (int64_t)*ret_from ? end : ms_min((uint64_t)to, end);
	return true;
}

int ms_build_copy(
	struct ms_build *build, uint64_t slot_offset, int fd, uint64_t offset, uint64_t size)
{
	uint64_t at = offset, end = offset + size, from, to;
	struct stat now;
	int error = 0;

	while (!error && at < end && next_data(fd, at, end, &from, &to)) {
		error = ms_build_copy_all(
			build, slot_offset + (from - offset), fd, from, to - from);
		at = to;
	}
	if (!error)
		error = ms_os_stat(fd, &now);
	/* What was cut off looks like a hole. */
	return !error && (uint64_t)now.st_size < end ? -EIO : error;
}

/* --- finish: from here on pages are counted from the image's first --- */

/* What lies between two extents becomes a hole; a short gap gets its pages now, since slots will
 * read it. */
static int settle_gap(int fd, size_t from, size_t to, bool is_short)
{
	uint64_t offset = ms_pages_to_bytes(from), size = ms_pages_to_bytes(to - from);

	if (from == to)
		return 0;
	if (is_short)
		return ms_os_allocate(fd, offset, size);
	(void)ms_os_punch(fd, offset, size); /* saves memory; nobody reads it anyway */
	return 0;
}

/* Pages [from, to) are not zero. */
static int add_run(struct memslot_image *image, size_t *settled, size_t from, size_t to)
{
	size_t count = image->extent_count;
	int error = ms_image_add_extent(image, image->first + from, to - from);

	if (!error)
		error = settle_gap(image->fd, *settled, from, image->extent_count == count);
	*settled = to;
	return error;
}

/* Find the runs of pages that are not zero in [page, end), which is all allocated. */
static int scan_data(struct memslot_image *image, size_t *settled, size_t page, size_t end)
{
	int error = 0;

	while (!error && page < end) {
		size_t from = page;
		while (page < end &&
			!ms_util_is_zero(image->bytes + ms_pages_to_bytes(page), ms_page_size()))
			page++;
		if (from < page)
			error = add_run(image, settled, from, page);
		page++;
	}
	return error;
}

static int find_extents(struct memslot_image *image)
{
	size_t page = 0, settled = 0;
	int error = 0;

	while (!error && page < image->pages) {
		int64_t from = ms_os_seek(image->fd, (int64_t)ms_pages_to_bytes(page), SEEK_DATA),
			to;
		if (from == -ENXIO)
			break;
		if (from < 0)
			return (int)from;
		to = ms_os_seek(image->fd, from, SEEK_HOLE);
		if (to < 0)
			return (int)to;
		page = ms_bytes_to_pages((size_t)to + ms_page_size() - 1);
		error = scan_data(image, &settled, ms_bytes_to_pages((size_t)from), page);
	}
	return error ? error : settle_gap(image->fd, settled, image->pages, false);
}

int ms_build_finish(struct ms_build *build, const void *note, size_t note_size, void *base_address,
	struct memslot_image **ret_image)
{
	struct memslot_image *image;
	void *bytes = build; /* a slot of size 0 has an image of nothing, but it is ours */
	int error = ms_image_new(build->first, build->pages, note, note_size, &image);

	if (error) {
		ms_build_abort(build);
		return error;
	}
	image->fd = build->fd;
	image->base_address = base_address;
	/* Private, since a shared mapping counts as a writer: sealing is refused while there is
	 * one, and before Linux 6.7 so is mapping after sealing. Never written, it is the same
	 * pages. */
	if (image->pages)
		error = ms_os_map_private(
			image->fd, ms_pages_to_bytes(image->pages), PROT_READ, &bytes);
	if (!error) {
		image->bytes = bytes;
		error = find_extents(image);
	}
	if (!error && build->sealable)
		error = ms_os_seal(image->fd);
	build->fd = -1;
	if (error)
		memslot_image_unref(image);
	else
		*ret_image = image;
	return error;
}
