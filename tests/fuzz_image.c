/* SPDX-License-Identifier: MIT */
/*
 * fuzz_image.c - a saved image written by an enemy, opened in every way.
 *
 * Input: a control byte, then the file. So that the fuzzer gets past the first checks, bits of the
 * control byte ask for help: the fixed fields of the head are filled in, sizes are made to fit, the
 * header's checksum is made right. What follows the header's natural end in the input is contents.
 *
 * Beyond not crashing: whatever opens has extents that are sorted, apart and inside, and the copy
 * holds what the file holds.
 */
#define _GNU_SOURCE
#include "image/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HELP_FIELDS 1u	 /* magic, byte order, version, page size */
#define HELP_HEADER 2u	 /* header_size fits counts */
#define HELP_LENGTH 4u	 /* the file is as long as the header says */
#define HELP_CHECKSUM 8u /* of the header */
#define LOOK_PAGES 64u	 /* of each extent are compared */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "fuzz_image: line %d: %s\n", __LINE__, #condition);        \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void help_fields(struct ms_format_head *head)
{
	memcpy(head->magic, MS_FORMAT_MAGIC, sizeof head->magic);
	head->byte_order = MS_FORMAT_BYTE_ORDER;
	head->version = head->version == 2 ? 2 : 1;
	head->page_size = ms_page_size();
}

static void put(int fd, const void *bytes, size_t size, uint64_t offset)
{
	if (offset < INT64_MAX - size && pwrite(fd, bytes, size, (off_t)offset) < 0)
		MUST(errno == EFBIG || errno == EINVAL);
}

/* Write the file that the input describes. */
static void write_helped(int fd, uint8_t help, const uint8_t *data, size_t size)
{
	struct ms_format_head head;
	uint64_t natural;
	uint8_t *header;

	memcpy(&head, data, sizeof head);
	if (help & HELP_FIELDS)
		help_fields(&head);
	natural = ms_format_size(head.extent_count % 64, head.note_size % 4096,
		ms_format_program_size(&head) % 512);
	if (help & HELP_HEADER) {
		head.extent_count %= 64;
		head.note_size %= 4096;
		if (head.version == 2)
			head.program_size %= 512;
		head.header_size = natural;
	}
	header = calloc(1, natural);
	MUST(header);
	memcpy(header, data, ms_min(size, natural));
	memcpy(header, &head, sizeof head);
	if (help & HELP_CHECKSUM && head.header_size <= natural && head.header_size >= sizeof head)
		((struct ms_format_head *)(void *)header)->header_checksum =
			ms_format_checksum((void *)header);
	put(fd, header, natural, 0);
	free(header);
	if (size > natural)
		put(fd, data + natural, size - natural, natural);
	if (help & HELP_LENGTH && head.header_size + head.size <= INT64_MAX)
		(void)!ftruncate(fd, (off_t)(head.header_size + head.size));
}

static void write_file(int fd, const uint8_t *data, size_t size)
{
	MUST(ftruncate(fd, 0) == 0);
	if (size > sizeof(struct ms_format_head) && data[0] & 15)
		write_helped(fd, data[0], data + 1, size - 1);
	else if (size > 1)
		put(fd, data + 1, size - 1, 0);
}

static void check(const struct memslot_image *image)
{
	size_t least = image->first, pages = 0;

	for (size_t i = 0; i < image->extent_count; i++) {
		const struct ms_extent *extent = &image->extents[i];
		MUST(extent->count > 0 && extent->first >= least);
		MUST(extent->first + extent->count <= image->first + image->pages);
		least = extent->first + extent->count + MS_IMAGE_GAP_PAGES;
		pages += extent->count;
	}
	MUST(pages == image->extent_pages);
}

static struct memslot_image *opened(int fd, uint32_t flags)
{
	struct memslot_image_opts opts = {.size = sizeof opts, .flags = flags};
	struct memslot_image *image = NULL;
	char path[32];
	int error;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	error = memslot_image_open(path, &opts, &image);
	MUST(error <= 0 && !image == (error < 0));
	MUST(error == 0 || error == -EBADMSG || error == -EUCLEAN || error == -ENOMEM ||
		error == -EFBIG || error == -EINVAL);
	if (image)
		check(image);
	return image;
}

static bool same_page(const struct memslot_image *copy, size_t page, const void *bytes)
{
	size_t i = ms_image_extent_at(copy, page);

	if (i < copy->extent_count && copy->extents[i].first <= page)
		return memcmp(ms_image_page(copy, page), bytes, ms_page_size()) == 0;
	return ms_util_is_zero(bytes, ms_page_size());
}

static void compare(const struct memslot_image *copy, const struct memslot_image *mapped)
{
	void *bytes = malloc(ms_page_size());

	for (size_t i = 0; i < mapped->extent_count; i++) {
		const struct ms_extent *extent = &mapped->extents[i];
		for (size_t k = 0; k < extent->count && k < LOOK_PAGES; k++) {
			MUST(ms_image_read(mapped, extent->first + k, 1, bytes) == 0);
			MUST(same_page(copy, extent->first + k, bytes));
		}
	}
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memslot_image *copy, *verified, *mapped;
	static int fd = -1;

	if (size == 0)
		return 0;
	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	MUST(fd >= 0);
	write_file(fd, data, size);
	copy = opened(fd, 0);
	verified = opened(fd, MEMSLOT_IMAGE_VERIFY);
	mapped = opened(fd, MEMSLOT_IMAGE_MAP_FILE);
	MUST(!verified || copy);
	if (copy && mapped)
		compare(copy, mapped);
	memslot_image_unref(copy);
	memslot_image_unref(verified);
	memslot_image_unref(mapped);
	return 0;
}
