/* SPDX-License-Identifier: MIT */
/* image_helpers.c - helpers of test_image: see image.h. */
#define _GNU_SOURCE
#include "image.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[PATH_MAX];

void image_folder_begin(void)
{
	const char *where = getenv("TMPDIR");

	snprintf(folder, sizeof folder, "%s/memslot-image-XXXXXX", where ? where : "/tmp");
	if (!mkdtemp(folder) || chdir(folder))
		abort();
}

static unsigned each_file(bool remove)
{
	DIR *files = opendir(folder);
	struct dirent *file;
	unsigned count = 0;

	if (!files)
		abort();
	while ((file = readdir(files))) {
		if (strcmp(file->d_name, ".") == 0 || strcmp(file->d_name, "..") == 0)
			continue;
		count++;
		if (remove && unlink(file->d_name))
			rmdir(file->d_name);
	}
	closedir(files);
	return count;
}

unsigned image_folder_count(void)
{
	return each_file(false);
}

void image_folder_end(void)
{
	each_file(true);
	if (chdir("/") || rmdir(folder))
		abort();
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED false
#endif

unsigned image_mapping_count(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	bool all = !SANITIZED && test_faults_allowed();
	unsigned count = 0;
	char line[PATH_MAX + 100];

	if (!maps)
		abort();
	while (fgets(line, sizeof line, maps))
		count += all || strstr(line, "memslot-image") || strstr(line, "(deleted)");
	fclose(maps);
	return count;
}

/* The pages of one extent, as a slot sees them. */
static bool extent_holds(const struct memslot_image *image, const struct ms_extent *extent,
	const unsigned char *expected)
{
	size_t size = extent->count * PAGE;
	void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, image->fd,
		(off_t)ms_image_file_offset(image, extent->first));
	bool same;

	ck_assert_ptr_ne(mapped, MAP_FAILED);
	same = test_same(mapped, expected, size);
	munmap(mapped, size);
	if (same && image->bytes)
		same = test_same(ms_image_page(image, extent->first), expected, size);
	return same;
}

bool image_holds(const struct memslot_image *image, const void *expected)
{
	const unsigned char *bytes = expected;
	size_t page = image->first;

	for (size_t i = 0; i < image->extent_count; i++) {
		const struct ms_extent *extent = &image->extents[i];
		const unsigned char *here = bytes + (extent->first - image->first) * PAGE;
		if (!test_zero(bytes + (page - image->first) * PAGE, (extent->first - page) * PAGE))
			return false;
		if (!extent_holds(image, extent, here))
			return false;
		page = extent->first + extent->count;
	}
	return test_zero(
		bytes + (page - image->first) * PAGE, (image->first + image->pages - page) * PAGE);
}

static void check_extent(const struct memslot_image *image, const struct ms_extent *extent)
{
	const unsigned char *bytes = ms_image_page(image, extent->first);
	size_t zeros = MS_IMAGE_GAP_PAGES;

	for (size_t i = 0; i < extent->count; i++) {
		bool zero = ms_util_is_zero(bytes + i * PAGE, PAGE);
		ck_assert_msg(!zero || (i && i + 1 < extent->count), "zeros at an extent's edge");
		zeros = zero ? zeros + 1 : 0;
		ck_assert_uint_lt(zeros, MS_IMAGE_GAP_PAGES);
	}
}

void image_check(const struct memslot_image *image)
{
	size_t least = image->first, pages = 0;

	ck_assert_uint_eq(memslot_image_offset(image), image->first * PAGE);
	ck_assert_uint_eq(memslot_image_size(image), image->pages * PAGE);
	for (size_t i = 0; i < image->extent_count; i++) {
		const struct ms_extent *extent = &image->extents[i];
		ck_assert_uint_gt(extent->count, 0);
		ck_assert_uint_ge(extent->first, least);
		least = extent->first + extent->count;
		pages += extent->count;
		ck_assert_uint_le(least, image->first + image->pages);
		ck_assert_uint_eq(ms_image_extent_at(image, extent->first), i);
		ck_assert_uint_eq(ms_image_extent_at(image, least - 1), i);
		ck_assert_uint_eq(ms_image_extent_at(image, least), i + 1);
		if (image->bytes)
			check_extent(image, extent);
		least += MS_IMAGE_GAP_PAGES;
	}
	ck_assert_uint_eq(image->extent_pages, pages);
}

uint64_t image_blocks(const struct memslot_image *image)
{
	struct stat file;

	ck_assert_int_eq(fstat(image->fd, &file), 0);
	return (uint64_t)file.st_blocks * 512;
}

unsigned char *image_sample_bytes(void)
{
	unsigned char *bytes = calloc(SAMPLE_PAGES, PAGE);

	if (!bytes)
		abort();
	test_fill(bytes + 2 * PAGE, 3 * PAGE, 1);
	test_fill(bytes + 10 * PAGE, PAGE, 2); /* 5 zero pages before it: part of the extent */
	test_fill(bytes + 40 * PAGE + 100, 200, 3);
	return bytes;
}

struct memslot_image *image_sample(void)
{
	struct memslot_image *image;
	unsigned char *bytes = image_sample_bytes();
	int error = memslot_image_from_bytes(bytes, SAMPLE_PAGES * PAGE,
		IMAGE_OPTS(.slot_offset = SAMPLE_OFFSET, .note = SAMPLE_NOTE,
			.note_size = sizeof SAMPLE_NOTE),
		&image);

	ck_assert_int_eq(error, 0);
	free(bytes);
	return image;
}

void image_write_file(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
	close(fd);
}

unsigned char *image_read_file(const char *path, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *bytes;
	struct stat file;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &file), 0);
	bytes = malloc((size_t)file.st_size + 1);
	ck_assert_int_eq(read(fd, bytes, (size_t)file.st_size), file.st_size);
	close(fd);
	*ret_size = (size_t)file.st_size;
	return bytes;
}
