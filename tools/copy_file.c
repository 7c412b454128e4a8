/* SPDX-License-Identifier: MIT */
/*
 * copy_file.c - memslot copy: the two files.
 *
 * Invariant: TO is what it was, or the whole copy: the copy is made beside it and renamed when all
 * of it is on the medium, and removed when anything fails.
 */
#define _GNU_SOURCE
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGN_MOST (64 * KIB)

static int fail(const char *path, int error)
{
	complain(error, "%s", path);
	return EXIT_FAILED;
}

/* The same file, past the page cache; -1: refused. By its descriptor, so that it is the same. */
static int open_direct(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_DIRECT | O_CLOEXEC);
}

/* What O_DIRECT wants to be a multiple of. 0 where it cannot be had. */
static uint64_t alignment_of(int fd)
{
	uint64_t align = 4 * KIB;
#ifdef STATX_DIOALIGN
	struct statx about;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &about) == 0 &&
		(about.stx_mask & STATX_DIOALIGN)) {
		if (about.stx_dio_offset_align > align)
			align = about.stx_dio_offset_align;
		if (about.stx_dio_mem_align > align)
			align = about.stx_dio_mem_align;
		if (about.stx_dio_offset_align == 0)
			align = 0;
	}
#endif
	return align > ALIGN_MOST ? 0 : align;
}

/* Buffers are aligned to a page; who wants more does without. */
static void try_direct(struct copy *copy, struct side *side, int flags)
{
	uint64_t align = alignment_of(side->cached);

	if (copy->cached || align == 0 || align > page_size() || align > copy->buffer_size)
		return;
	side->direct = open_direct(side->cached, flags);
	if (side->direct >= 0 && align > copy->align)
		copy->align = align;
}

static int open_from(struct copy *copy, struct stat *about)
{
	struct side *side = &copy->from;

	side->cached = open(side->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (side->cached < 0 || fstat(side->cached, about))
		return fail(side->path, -errno);
	if (!S_ISREG(about->st_mode))
		return fail(side->path, -ESPIPE);
	copy->size = (uint64_t)about->st_size;
	try_direct(copy, side, O_RDONLY);
	return 0;
}

static int open_to(struct copy *copy, const struct stat *from)
{
	struct side *side = &copy->to;
	struct stat about;

	if (stat(side->path, &about) == 0) {
		if (!S_ISREG(about.st_mode))
			return fail(side->path, -ESPIPE);
		if (about.st_dev == from->st_dev && about.st_ino == from->st_ino) {
			complain(0, "%s and %s are the same file", copy->from.path, side->path);
			return EXIT_FAILED;
		}
	}
	if (asprintf(&copy->temp, "%s.XXXXXX", side->path) < 0) {
		copy->temp = NULL;
		return fail(side->path, -ENOMEM);
	}
	side->cached = mkostemp(copy->temp, O_CLOEXEC);
	if (side->cached < 0) {
		int error = -errno;
		free(copy->temp);
		copy->temp = NULL;
		return fail(side->path, error);
	}
	if (fchmod(side->cached, from->st_mode & 0777))
		return fail(copy->temp, -errno);
	try_direct(copy, side, O_RDWR);
	return 0;
}

int files_open(struct copy *copy)
{
	struct stat about;
	int status;

	copy->align = 1;
	copy->from.direct = copy->from.cached = copy->to.direct = copy->to.cached = -1;
	status = open_from(copy, &about);
	return status ? status : open_to(copy, &about);
}

int files_reserve(struct copy *copy)
{
	int fd = copy->to.cached, from = copy->from.cached;
	off_t at = 0, end;

	if (copy->to.direct < 0)
		return 0; /* the page cache sees to it */
	if (ftruncate(fd, (off_t)copy->size))
		return fail(copy->to.path, -errno);
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		if (end <= at)
			break;
		if (end > (off_t)copy->size)
			end = (off_t)copy->size;
		if (at < end && fallocate(fd, 0, at, end - at) && errno != EOPNOTSUPP)
			return fail(copy->to.path, -errno);
		at = end;
	}
	return 0;
}

int files_keep(struct copy *copy)
{
	uint64_t began = clock_ns();

	if (fsync(copy->to.cached) || rename(copy->temp, copy->to.path))
		return fail(copy->to.path, -errno);
	copy->sync_seconds = (double)(clock_ns() - began) / 1e9;
	free(copy->temp);
	copy->temp = NULL;
	return 0;
}

static void close_side(struct side *side)
{
	if (side->direct >= 0)
		close(side->direct);
	if (side->cached >= 0)
		close(side->cached);
	side->direct = side->cached = -1;
}

void files_close(struct copy *copy)
{
	if (copy->temp)
		(void)unlink(copy->temp);
	free(copy->temp);
	copy->temp = NULL;
	close_side(&copy->from);
	close_side(&copy->to);
}

int files_explain(const struct copy *copy, int error)
{
	if (error == -EINTR)
		complain(0, "interrupted: %s is as it was", copy->to.path);
	else if (error == -ESTALE)
		complain(0, "%s became shorter while it was copied", copy->from.path);
	else
		complain(error, "%s to %s", copy->from.path, copy->to.path);
	return EXIT_FAILED;
}
