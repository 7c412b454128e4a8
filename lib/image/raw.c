/* SPDX-License-Identifier: MIT */
/*
 * raw.c - images of a file that is not ours: copied, or mapped in place (MAP_FILE).
 *
 * Invariant: the bytes of a file that the library did not seal are never dereferenced, since the
 * file may be cut short at any moment; they are read by read(2) alone (INVARIANTS 6). The caller's
 * file position is never moved.
 *
 * Images do not change, so nothing here locks. Another process may change the file meanwhile: what
 * is missing then is -EIO, what is different is the caller's promise broken.
 */
#define _GNU_SOURCE
#include "image/image.h"

#include "base/opts.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* How many bytes of these pages the file holds: all, but for the image's last page. */
static int held_bytes(
	const struct memslot_image *image, size_t page, size_t count, size_t *ret_size)
{
	uint64_t offset = ms_image_file_offset(image, page), size = ms_pages_to_bytes(count), held;
	bool is_last = page + count == image->first + image->pages;
	struct stat now;
	int error = ms_os_stat(image->fd, &now);

	if (error)
		return error;
	held = (uint64_t)now.st_size > offset ? ms_min((uint64_t)now.st_size - offset, size) : 0;
	if (held < size && (!is_last || size - held >= ms_page_size()))
		return -EIO;
	*ret_size = held;
	return 0;
}

int ms_image_read(const struct memslot_image *image, size_t page, size_t count, void *to)
{
	size_t held, size = ms_pages_to_bytes(count);
	int error;

	if (image->bytes) {
		memcpy(to, ms_image_page(image, page), size);
		return 0;
	}
	error = held_bytes(image, page, count, &held);
	if (!error)
		error = ms_os_read_at(image->fd, to, held, ms_image_file_offset(image, page));
	if (!error)
		memset((char *)to + held, 0, size - held);
	return error;
}

int ms_image_check_file(int fd, struct stat *ret_stat)
{
	int error = ms_os_stat(fd, ret_stat);

	if (error)
		return error;
	if (S_ISDIR(ret_stat->st_mode))
		return -EISDIR;
	return S_ISREG(ret_stat->st_mode) ? 0 : -ESPIPE;
}

/* Does what a slot will do, at an address where no huge page may begin. */
static int try_map(int fd, uint64_t offset)
{
	const struct ms_os_attrs none = {0};
	size_t page = ms_page_size();
	void *pages;
	uintptr_t at;
	int error = ms_os_reserve(NULL, 2 * page, PROT_NONE, &pages);

	if (error)
		return error;
	at = (uintptr_t)pages | page;
	error = ms_os_map_over((void *)at, page, PROT_READ | PROT_WRITE, fd, offset, &none);
	ms_os_unmap(pages, 2 * page);
	if (error == -ENODEV || error == -EINVAL || error == -EACCES || error == -EPERM)
		return -EOPNOTSUPP;
	return error;
}

int ms_image_keep_file(struct memslot_image *image, int fd, uint64_t offset)
{
	int error = try_map(fd, offset);

	if (error)
		return error;
	image->file_offset = offset;
	image->fd = ms_os_dup(fd);
	return image->fd < 0 ? image->fd : 0;
}

/* The same file with a file position of its own: looking for holes moves it, and the caller's may
 * be in use. */
static int reopen(int fd, const struct stat *file)
{
	char path[32];
	struct stat now;
	int own;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	own = ms_os_open(path, O_RDONLY | O_NONBLOCK, 0);
	if (own < 0)
		return own;
	if (ms_os_stat(own, &now) == 0 && now.st_dev == file->st_dev && now.st_ino == file->st_ino)
		return own;
	ms_os_close(own);
	return -ENOENT;
}

static int copy_file(struct ms_build *build, int fd, const struct stat *file, uint64_t file_offset,
	uint64_t size, uint64_t slot_offset)
{
	int error, own = reopen(fd, file);

	if (own < 0)
		return ms_build_copy_all(build, slot_offset, fd, file_offset, size);
	error = ms_build_copy(build, slot_offset, own, file_offset, size);
	ms_os_close(own);
	return error;
}

static int check_readable(int fd, struct stat *ret_file)
{
	int mode = ms_os_access_mode(fd);

	if (mode < 0)
		return mode;
	if (mode != O_RDONLY && mode != O_RDWR)
		return -EBADF;
	return ms_image_check_file(fd, ret_file);
}

/* The part of the file that is meant: size 0 is all that is left. */
static int file_span(const struct stat *file, uint64_t file_offset, uint64_t *size)
{
	uint64_t length = (uint64_t)file->st_size, end;

	if (__builtin_add_overflow(file_offset, *size, &end))
		return -EMSGSIZE;
	if (end > length || file_offset == length)
		return -EINVAL;
	if (*size == 0)
		*size = length - file_offset;
	return 0;
}

static int copied(int fd, const struct stat *file, uint64_t file_offset, uint64_t size,
	const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	struct ms_build build;
	size_t first, pages;
	int error = ms_image_span(opts->slot_offset, size, &first, &pages);

	if (!error)
		error = ms_build_begin(&build, first, pages);
	if (error)
		return error;
	error = copy_file(&build, fd, file, file_offset, size, opts->slot_offset);
	if (!error)
		return ms_build_finish(&build, opts->note, opts->note_size, NULL, ret_image);
	ms_build_abort(&build);
	return error;
}

static int mapped(int fd, const struct stat *file, uint64_t file_offset, uint64_t size,
	const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	bool to_end = file_offset + size == (uint64_t)file->st_size;
	struct memslot_image *image;
	size_t first, pages;
	int error;

	if (!ms_page_aligned(file_offset) || !ms_page_aligned(opts->slot_offset) ||
		(!ms_page_aligned(size) && !to_end))
		return -EINVAL;
	error = ms_image_span(opts->slot_offset, size, &first, &pages);
	if (!error)
		error = ms_image_new(first, pages, opts->note, opts->note_size, &image);
	if (error)
		return error;
	error = ms_image_add_extent(image, first, pages);
	if (!error)
		error = ms_image_keep_file(image, fd, file_offset);
	if (error)
		memslot_image_unref(image);
	else
		*ret_image = image;
	return error;
}

MS_EXPORT int memslot_image_from_fd(int fd, uint64_t file_offset, size_t size,
	const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	struct memslot_image_opts taken;
	struct stat file;
	uint64_t span = size;
	int error = ms_opts_take(&taken, sizeof taken, sizeof taken, MEMSLOT_IMAGE_MAP_FILE, opts);

	if (error)
		return error;
	if (!ret_image)
		return -EINVAL;
	error = check_readable(fd, &file);
	if (!error)
		error = file_span(&file, file_offset, &span);
	if (error)
		return error;
	if (taken.flags & MEMSLOT_IMAGE_MAP_FILE)
		return mapped(fd, &file, file_offset, span, &taken, ret_image);
	return copied(fd, &file, file_offset, span, &taken, ret_image);
}
