/* SPDX-License-Identifier: MIT */
/*
 * file.c - saved images: write one, open one. The layout is in format.h.
 *
 * Invariant: nothing read from a file is believed before it has been checked, also when the
 * header's checksum is right: whoever wrote the file could compute that too. The header is read
 * once and used as it was checked; contents are copied into a sealed image, so that the file may be
 * cut short or rewritten later. At the path there is the old file or the whole new one, never a
 * part of it.
 *
 * Images do not change, so nothing here locks. Two savers to one path: the last rename wins.
 */
#define _GNU_SOURCE
#include "image/format.h"

#include "base/opts.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <xxhash.h>

#define CHUNK (64u << 10) /* no 64-bit Linux has larger pages */

/* --- both ways: go through the contents --- */

struct contents {
	const struct memslot_image *image;
	XXH3_state_t *hash;
	void *buffer; /* a chunk; NULL when the image's bytes may be read where they are */
	int fd;	      /* written to, from header_size on; -1: hash alone */
	uint64_t header_size;
};

/* Zero pages do not count, so that gaps and zeros are the same. */
static void hash_pages(
	XXH3_state_t *hash, uint64_t number, const unsigned char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++, number++, bytes += ms_page_size()) {
		if (ms_util_is_zero(bytes, ms_page_size()))
			continue;
		XXH3_64bits_update(hash, &number, sizeof number);
		XXH3_64bits_update(hash, bytes, ms_page_size());
	}
}

static int visit_chunk(struct contents *contents, size_t page, size_t count)
{
	const struct memslot_image *image = contents->image;
	size_t number = page - image->first, size = ms_pages_to_bytes(count);
	const void *bytes = contents->buffer ? contents->buffer : ms_image_page(image, page);
	int error = 0;

	if (contents->buffer)
		error = ms_image_read(image, page, count, contents->buffer);
	if (error)
		return error;
	hash_pages(contents->hash, number, bytes, count);
	if (contents->fd < 0 || ms_util_is_zero(bytes, size))
		return 0;
	return ms_os_write_at(
		contents->fd, bytes, size, contents->header_size + ms_pages_to_bytes(number));
}

static int visit_extents(struct contents *contents)
{
	const struct memslot_image *image = contents->image;
	size_t chunk = ms_bytes_to_pages(CHUNK);
	int error = 0;

	for (size_t i = 0; !error && i < image->extent_count; i++) {
		size_t page = image->extents[i].first, end = page + image->extents[i].count;
		for (; !error && page < end; page += chunk)
			error = visit_chunk(contents, page, ms_min(chunk, end - page));
	}
	return error;
}

/* Hash an image's contents, and write them to fd unless it is -1. */
static int visit(
	const struct memslot_image *image, int fd, uint64_t header_size, uint64_t *ret_hash)
{
	struct contents contents = {.image = image, .fd = fd, .header_size = header_size};
	int error = -ENOMEM;

	contents.hash = XXH3_createState();
	contents.buffer = image->bytes ? NULL : ms_os_alloc(CHUNK);
	if (contents.hash && (contents.buffer || image->bytes)) {
		XXH3_64bits_reset(contents.hash);
		error = visit_extents(&contents);
		*ret_hash = XXH3_64bits_digest(contents.hash);
	}
	ms_os_free(contents.buffer);
	XXH3_freeState(contents.hash);
	return error;
}

/* --- save --- */

static int write_image(const struct memslot_image *image, int fd, uint64_t size)
{
	uint64_t checksum;
	struct ms_format_head *header = ms_os_alloc(size);
	int error = header ? ms_os_truncate(fd, size + memslot_image_size(image)) : -ENOMEM;

	if (!error)
		error = visit(image, fd, size, &checksum);
	if (!error) {
		ms_format_fill(header, image, checksum);
		error = ms_os_write_at(fd, header, size, 0);
	}
	if (!error)
		error = ms_os_sync(fd);
	ms_os_free(header);
	return error;
}

/* A file beside `path`, renamed to it when it is whole. */
static int write_beside(const struct memslot_image *image, const char *path, uint64_t size)
{
	char name[PATH_MAX];
	int error, fd = ms_os_temporary(path, name, sizeof name);

	if (fd < 0)
		return fd;
	error = write_image(image, fd, size);
	ms_os_close(fd);
	if (!error)
		error = ms_os_rename(name, path);
	if (error)
		ms_os_unlink(name);
	return error;
}

static int open_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) + 1 : 0;
	char name[PATH_MAX];

	if (length >= sizeof name)
		return -ENAMETOOLONG;
	memcpy(name, path, length);
	name[length] = 0;
	return ms_os_open(length ? name : ".", O_RDONLY | O_DIRECTORY, 0);
}

MS_EXPORT int memslot_image_save(const struct memslot_image *image, const char *path)
{
	uint64_t size, total, program_size;
	int folder, error;

	if (!image || !path)
		return -EINVAL;
	program_size = image->program ? ms_program_size(image->program->count) : 0;
	size = ms_format_size(image->extent_count, image->note_size, program_size);
	if (size == 0)
		return -EMSGSIZE;
	total = size + memslot_image_size(image);
	if (total > INT64_MAX || total > ms_os_file_limit())
		return -EFBIG;
	folder = open_folder(path); /* first: once renamed there is no way back */
	if (folder < 0)
		return folder;
	error = write_beside(image, path, size);
	if (!error) {
		error = ms_os_sync(folder); /* failed: the file is there, until the power fails */
		error = error == -EINVAL ? 0 : error; /* a file system that cannot sync folders */
	}
	ms_os_close(folder);
	return error;
}

/* --- open --- */

static int read_head(int fd, uint64_t length, struct ms_format_head *head)
{
	int error;

	memset(head, 0, sizeof *head);
	if (length < sizeof head->magic)
		return -EBADMSG;
	error = ms_os_read_at(fd, head, ms_min(length, sizeof *head), 0);
	if (error)
		return error;
	if (memcmp(head->magic, MS_FORMAT_MAGIC, sizeof head->magic))
		return -EBADMSG;
	if (length < sizeof *head)
		return -EUCLEAN;
	if (head->byte_order != MS_FORMAT_BYTE_ORDER || head->version < 1 ||
		head->version > MS_FORMAT_VERSION || head->page_size != ms_page_size())
		return -EBADMSG;
	return 0;
}

/* The whole header, checked. */
static int read_header(int fd, uint64_t length, struct ms_format_head **ret_header)
{
	struct ms_format_head head, *header;
	int error = read_head(fd, length, &head);

	if (error)
		return error;
	if (!ms_format_head_is_sane(&head, length))
		return -EUCLEAN;
	header = ms_os_alloc(head.header_size);
	if (!header)
		return -ENOMEM;
	error = ms_os_read_at(fd, header, head.header_size, 0);
	/* Compared, since somebody may have written to the file between the two reads. */
	if (!error && (memcmp(header, &head, sizeof head) || !ms_format_header_is_sane(header)))
		error = -EUCLEAN;
	if (error)
		ms_os_free(header);
	else
		*ret_header = header;
	return error;
}

static int open_mapped(int fd, const struct ms_format_head *head, struct memslot_image **ret_image)
{
	const struct ms_format_extent *extents = ms_format_extents(head);
	size_t first = ms_bytes_to_pages(head->slot_offset);
	struct memslot_image *image;
	int error = ms_image_new(first, ms_bytes_to_pages(head->size), ms_format_note(head),
		head->note_size, &image);

	if (error)
		return error;
	for (uint64_t i = 0; !error && i < head->extent_count; i++)
		error = ms_image_add_extent(image, first + ms_bytes_to_pages(extents[i].offset),
			ms_bytes_to_pages(extents[i].size));
	image->base_address = (void *)(uintptr_t)head->base_address;
	if (!error)
		error = ms_image_keep_file(image, fd, head->header_size);
	if (error)
		memslot_image_unref(image);
	else
		*ret_image = image;
	return error;
}

static int open_copied(int fd, const struct ms_format_head *head, struct memslot_image **ret_image)
{
	const struct ms_format_extent *extents = ms_format_extents(head);
	struct ms_build build;
	int error = ms_build_begin(
		&build, ms_bytes_to_pages(head->slot_offset), ms_bytes_to_pages(head->size));

	if (error)
		return error;
	for (uint64_t i = 0; !error && i < head->extent_count; i++)
		error = ms_build_copy(&build, head->slot_offset + extents[i].offset, fd,
			head->header_size + extents[i].offset, extents[i].size);
	if (!error)
		return ms_build_finish(&build, ms_format_note(head), head->note_size,
			(void *)(uintptr_t)head->base_address, ret_image);
	ms_build_abort(&build);
	return error;
}

/* Looks at the sealed copy: the file may have changed since it was made. */
static int verify(const struct memslot_image *image, const struct ms_format_head *head)
{
	uint64_t checksum;
	int error = visit(image, -1, 0, &checksum);

	return !error && checksum != head->contents_checksum ? -EUCLEAN : error;
}

static int take_program(struct memslot_image *image, const struct ms_format_head *head)
{
	size_t size = ms_format_program_size(head);

	if (size == 0)
		return 0;
	image->program = ms_os_alloc(size);
	if (!image->program)
		return -ENOMEM;
	memcpy(image->program, ms_format_program(head), size);
	return 0;
}

static int open_file(int fd, uint32_t flags, struct memslot_image **ret_image)
{
	struct ms_format_head *header;
	struct memslot_image *image;
	struct stat file;
	int error = ms_image_check_file(fd, &file);

	if (!error)
		error = read_header(fd, (uint64_t)file.st_size, &header);
	if (error)
		return error;
	if (flags & MEMSLOT_IMAGE_MAP_FILE)
		error = open_mapped(fd, header, &image);
	else
		error = open_copied(fd, header, &image);
	if (!error) {
		error = take_program(image, header);
		if (!error && flags & MEMSLOT_IMAGE_VERIFY)
			error = verify(image, header);
		if (error)
			memslot_image_unref(image);
	}
	ms_os_free(header);
	if (!error)
		*ret_image = image;
	return error;
}

MS_EXPORT int memslot_image_open(
	const char *path, const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	const uint32_t both = MEMSLOT_IMAGE_VERIFY | MEMSLOT_IMAGE_MAP_FILE;
	struct memslot_image_opts taken;
	int fd, error = ms_opts_take(&taken, sizeof taken, sizeof taken, both, opts);

	if (error)
		return error;
	if (!path || !ret_image || (taken.flags & both) == both || taken.slot_offset ||
		taken.note || taken.note_size)
		return -EINVAL;
	fd = ms_os_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return fd;
	error = open_file(fd, taken.flags, ret_image);
	ms_os_close(fd);
	return error;
}
