/* SPDX-License-Identifier: MIT */
/* image_raw.c - images of raw files, copied and mapped in place: memslot_image_from_fd. */
#define _GNU_SOURCE
#include "image.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (5 * PAGE + 123)
/* A regular file that claims to be a page long, ends sooner and cannot be mapped. */
#define SYSFS_FILE "/sys/kernel/mm/transparent_hugepage/enabled"

static unsigned char *bytes; /* what the file "raw" holds, and zeros up to a whole page */
static int raw;

static void begin(void)
{
	image_folder_begin();
	bytes = calloc(6, PAGE);
	test_fill(bytes, SIZE, 1);
	image_write_file("raw", bytes, SIZE);
	raw = open("raw", O_RDWR | O_CLOEXEC);
}

static void end(void)
{
	close(raw);
	free(bytes);
	image_folder_end();
}

static int from_fd(int fd, uint64_t file_offset, size_t size, uint64_t slot_offset, uint32_t flags,
	struct memslot_image **ret_image)
{
	int error = memslot_image_from_fd(fd, file_offset, size,
		IMAGE_OPTS(.slot_offset = slot_offset, .flags = flags), ret_image);

	if (error == 0)
		image_check(*ret_image);
	return error;
}

/* The error of a call that must fail both ways. */
static void check_error(int fd, uint64_t file_offset, size_t size, int expected)
{
	struct memslot_image *image = UNTOUCHED;
	unsigned fds = test_fd_count();

	ck_assert_int_eq(from_fd(fd, file_offset, size, 0, 0, &image), expected);
	ck_assert_int_eq(
		from_fd(fd, file_offset, size, 0, MEMSLOT_IMAGE_MAP_FILE, &image), expected);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_uint_eq(test_fd_count(), fds);
}

/* --- copied --- */

START_TEST(a_file_is_copied_from_an_offset_to_its_end)
{
	struct memslot_image *image;

	ck_assert_int_eq(from_fd(raw, 0, 0, 0, 0, &image), 0);
	ck_assert_uint_eq(memslot_image_size(image), 6 * PAGE);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	ck_assert_int_eq(from_fd(raw, PAGE, 0, 7 * PAGE, 0, &image), 0);
	ck_assert_uint_eq(memslot_image_offset(image), 7 * PAGE);
	ck_assert(image_holds(image, bytes + PAGE));
	memslot_image_unref(image);
}
END_TEST

START_TEST(any_part_of_a_file_can_be_copied_to_any_place)
{
	unsigned char *expected = calloc(3, PAGE);
	struct memslot_image *image;

	memcpy(expected + 500, bytes + 77, 2 * PAGE);
	ck_assert_int_eq(from_fd(raw, 77, 2 * PAGE, PAGE + 500, 0, &image), 0);
	ck_assert_uint_eq(memslot_image_offset(image), PAGE);
	ck_assert(image_holds(image, expected));
	memslot_image_unref(image);
	free(expected);
}
END_TEST

START_TEST(the_copy_does_not_change_with_the_file)
{
	struct memslot_image *image;

	ck_assert_int_eq(from_fd(raw, 0, 0, 0, 0, &image), 0);
	ck_assert_int_eq(ftruncate(raw, 0), 0);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
}
END_TEST

START_TEST(the_file_position_of_the_caller_stays)
{
	const uint32_t flags[] = {0, MEMSLOT_IMAGE_MAP_FILE};
	struct memslot_image *image;

	ck_assert_int_eq(lseek(raw, 1234, SEEK_SET), 1234);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(from_fd(raw, 0, 0, 0, flags[i], &image), 0);
		ck_assert_int_eq(memslot_image_save(image, "saved"), 0);
		memslot_image_unref(image);
		ck_assert_int_eq(lseek(raw, 0, SEEK_CUR), 1234);
	}
}
END_TEST

START_TEST(holes_of_a_file_are_skipped)
{
	const off_t far = (off_t)1 << 35;
	int sparse = open("sparse", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct memslot_image *image;
	struct rlimit limit;

	getrlimit(RLIMIT_FSIZE, &limit);
	SKIP_IF(limit.rlim_cur != RLIM_INFINITY || ftruncate(sparse, far), "no file so large");
	ck_assert_int_eq(pwrite(sparse, "front", 5, 0), 5);
	ck_assert_int_eq(pwrite(sparse, "back", 4, far - 4), 4);
	ck_assert_int_eq(from_fd(sparse, 0, 0, 0, 0, &image), 0);
	ck_assert_uint_eq(image->extent_count, 2);
	ck_assert_uint_eq(image->extent_pages, 2);
	ck_assert_int_eq(memcmp(image->bytes + far - 4, "back", 4), 0);
	memslot_image_unref(image);
	close(sparse);
}
END_TEST

START_TEST(zeros_of_a_file_are_not_stored)
{
	unsigned char *file = calloc(64, PAGE);
	struct memslot_image *image;

	file[33 * PAGE] = 1;
	image_write_file("zeros", file, 64 * PAGE);
	close(raw);
	raw = open("zeros", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(from_fd(raw, 0, 0, 0, 0, &image), 0);
	ck_assert_uint_eq(image->extent_pages, 1);
	ck_assert(image_holds(image, file));
	memslot_image_unref(image);
	free(file);
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
	int ends[2], pair[2], folder = open(".", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	check_error(ends[0], 0, 1, -ESPIPE);
	check_error(pair[0], 0, 1, -ESPIPE);
	check_error(folder, 0, 1, -EISDIR);
	for (unsigned i = 0; i < 2; i++) {
		close(ends[i]);
		close(pair[i]);
	}
	close(folder);
}
END_TEST

START_TEST(what_cannot_be_read_is_no_descriptor)
{
	int writing = open("raw", O_WRONLY | O_CLOEXEC), path = open("raw", O_PATH | O_CLOEXEC);

	check_error(writing, 0, 1, -EBADF);
	check_error(path, 0, 1, -EBADF);
	check_error(-1, 0, 1, -EBADF);
	close(writing);
	check_error(writing, 0, 1, -EBADF);
	close(path);
}
END_TEST

START_TEST(nothing_and_more_than_there_is_are_invalid)
{
	check_error(raw, 6 * PAGE, 0, -EINVAL);
	check_error(raw, 0, SIZE + 1, -EINVAL);
	check_error(raw, PAGE, SIZE - PAGE + 1, -EINVAL);
	check_error(raw, SIZE, 0, -EINVAL);
	check_error(raw, UINT64_MAX, 1, -EMSGSIZE);
	check_error(raw, PAGE, SIZE_MAX, -EMSGSIZE);
	ck_assert_int_eq(ftruncate(raw, 0), 0);
	check_error(raw, 0, 0, -EINVAL);
	ck_assert_int_eq(memslot_image_from_fd(raw, 0, 0, NULL, NULL), -EINVAL);
}
END_TEST

START_TEST(a_slot_offset_that_overflows_is_too_large)
{
	const uint64_t high = UINT64_MAX - PAGE + 1;
	struct memslot_image *image = UNTOUCHED;

	ck_assert_int_eq(from_fd(raw, 0, 0, high, 0, &image), -EMSGSIZE);
	ck_assert_int_eq(from_fd(raw, 0, 0, high, MEMSLOT_IMAGE_MAP_FILE, &image), -EMSGSIZE);
	ck_assert_ptr_eq(image, UNTOUCHED);
}
END_TEST

START_TEST(options_of_open_are_refused)
{
	struct memslot_image *image = UNTOUCHED;
	struct {
		struct memslot_image_opts known;
		uint64_t more;
	} newer = {{.size = sizeof newer}, 1};

	ck_assert_int_eq(from_fd(raw, 0, 0, 0, MEMSLOT_IMAGE_VERIFY, &image), -EINVAL);
	ck_assert_int_eq(from_fd(raw, 0, 0, 0, MEMSLOT_IMAGE_STRICT, &image), -EINVAL);
	ck_assert_int_eq(memslot_image_from_fd(raw, 0, 0, &newer.known, &image), -E2BIG);
	ck_assert_ptr_eq(image, UNTOUCHED);
}
END_TEST

START_TEST(a_copy_over_the_file_size_limit_is_an_error_and_no_signal)
{
	struct memslot_image *image = UNTOUCHED;
	struct rlimit before, low;

	getrlimit(RLIMIT_FSIZE, &before);
	low = (struct rlimit){5 * PAGE, before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &low);
	ck_assert_int_eq(from_fd(raw, 0, 0, 0, 0, &image), -EFBIG);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_int_eq(from_fd(raw, 0, 0, 0, MEMSLOT_IMAGE_MAP_FILE, &image), 0);
	memslot_image_unref(image);
	setrlimit(RLIMIT_FSIZE, &before);
}
END_TEST

START_TEST(a_file_that_ends_too_soon_is_an_error)
{
	struct memslot_image *image = UNTOUCHED;
	int file = open(SYSFS_FILE, O_RDONLY | O_CLOEXEC);
	struct stat now;

	SKIP_IF(file < 0 || fstat(file, &now) || now.st_size == 0, "no " SYSFS_FILE);
	ck_assert_int_eq(from_fd(file, 0, 0, 0, 0, &image), -EIO);
	ck_assert_ptr_eq(image, UNTOUCHED);
	close(file);
}
END_TEST

START_TEST(a_file_cut_short_between_two_reads_is_an_error)
{
	struct ms_build build;

	ck_assert_int_eq(ms_build_begin(&build, 0, 8), 0);
	ck_assert_int_eq(ms_build_copy(&build, 0, raw, 0, SIZE), 0);
	ck_assert_int_eq(ms_build_copy(&build, 0, raw, 0, SIZE + 1), -EIO);
	ck_assert_int_eq(ms_build_copy(&build, 0, raw, 6 * PAGE, 1), -EIO);
	ck_assert_int_eq(ms_build_copy_all(&build, 0, raw, 0, SIZE + 1), -EIO);
	ms_build_abort(&build);
}
END_TEST

/* --- mapped in place --- */

static struct memslot_image *map_raw(void)
{
	struct memslot_image *image;

	ck_assert_int_eq(from_fd(raw, PAGE, 0, 2 * PAGE, MEMSLOT_IMAGE_MAP_FILE, &image), 0);
	return image;
}

START_TEST(a_mapped_file_is_one_extent_and_never_dereferenced)
{
	struct memslot_image *image = map_raw();
	struct stat mine, theirs;

	ck_assert_ptr_null(image->bytes);
	ck_assert_uint_eq(image->extent_count, 1);
	ck_assert_uint_eq(image->extents[0].first, 2);
	ck_assert_uint_eq(image->extents[0].count, 5);
	ck_assert(image_holds(image, bytes + PAGE));
	fstat(image->fd, &mine);
	fstat(raw, &theirs);
	ck_assert(mine.st_ino == theirs.st_ino && image->fd != raw);
	memslot_image_unref(image);
	ck_assert_int_ne(fcntl(raw, F_GETFD), -1);
}
END_TEST

START_TEST(a_mapped_file_keeps_a_note)
{
	const void *note;
	size_t size;
	struct memslot_image *image;

	ck_assert_int_eq(
		memslot_image_from_fd(raw, 0, 0,
			IMAGE_OPTS(.flags = MEMSLOT_IMAGE_MAP_FILE, .note = "n", .note_size = 1),
			&image),
		0);
	ck_assert_int_eq(memslot_image_note(image, &note, &size), 0);
	ck_assert_uint_eq(size, 1);
	memslot_image_unref(image);
}
END_TEST

START_TEST(only_whole_pages_can_be_mapped)
{
	const uint32_t map = MEMSLOT_IMAGE_MAP_FILE;
	struct memslot_image *image = UNTOUCHED;

	ck_assert_int_eq(from_fd(raw, 1, PAGE, 0, map, &image), -EINVAL);
	ck_assert_int_eq(from_fd(raw, 0, PAGE, 1, map, &image), -EINVAL);
	ck_assert_int_eq(from_fd(raw, 0, PAGE + 1, 0, map, &image), -EINVAL);
	ck_assert_int_eq(from_fd(raw, 0, SIZE - 1, 0, map, &image), -EINVAL);
	ck_assert_int_eq(from_fd(raw, 1, 0, 0, map, &image), -EINVAL);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_int_eq(from_fd(raw, 0, SIZE, 0, map, &image), 0);
	ck_assert_uint_eq(memslot_image_size(image), 6 * PAGE);
	memslot_image_unref(image);
	ck_assert_int_eq(from_fd(raw, 2 * PAGE, PAGE, 0, map, &image), 0);
	ck_assert(image_holds(image, bytes + 2 * PAGE));
	memslot_image_unref(image);
}
END_TEST

START_TEST(a_file_that_cannot_be_mapped_is_not_supported)
{
	struct memslot_image *image = UNTOUCHED;
	int file = open(SYSFS_FILE, O_RDONLY | O_CLOEXEC);
	struct stat now;

	SKIP_IF(file < 0 || fstat(file, &now) || now.st_size == 0, "no " SYSFS_FILE);
	ck_assert_int_eq(from_fd(file, 0, 0, 0, MEMSLOT_IMAGE_MAP_FILE, &image), -EOPNOTSUPP);
	ck_assert_ptr_eq(image, UNTOUCHED);
	close(file);
}
END_TEST

START_TEST(a_file_of_huge_pages_cannot_be_mapped)
{
	struct memslot_image *image = UNTOUCHED;
	int huge = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	unsigned vmas = image_mapping_count();

	SKIP_IF(huge < 0 || ftruncate(huge, 1 << 30), "no huge pages");
	ck_assert_int_eq(from_fd(huge, 0, 0, 0, MEMSLOT_IMAGE_MAP_FILE, &image), -EOPNOTSUPP);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_uint_eq(image_mapping_count(), vmas);
	close(huge);
}
END_TEST

START_TEST(a_mapped_file_is_read_with_zeros_behind_its_end)
{
	struct memslot_image *image = map_raw();
	unsigned char *read = malloc(5 * PAGE);

	memset(read, 0xff, 5 * PAGE);
	ck_assert_int_eq(ms_image_read(image, 2, 5, read), 0);
	ck_assert(test_same(read, bytes + PAGE, 5 * PAGE));
	memset(read, 0xff, PAGE);
	ck_assert_int_eq(ms_image_read(image, 6, 1, read), 0);
	ck_assert(test_same(read, bytes + 5 * PAGE, PAGE));
	memslot_image_unref(image);
	free(read);
}
END_TEST

START_TEST(a_mapped_file_that_shrank_is_an_error_for_whoever_reads_it)
{
	struct memslot_image *image = map_raw();
	unsigned char *read = malloc(5 * PAGE);

	ck_assert_int_eq(ftruncate(raw, (off_t)(3 * PAGE + 1)), 0);
	ck_assert_int_eq(ms_image_read(image, 3, 1, read), 0);
	ck_assert_int_eq(ms_image_read(image, 4, 1, read), -EIO);
	ck_assert_int_eq(ms_image_read(image, 2, 5, read), -EIO);
	ck_assert_int_eq(memslot_image_save(image, "saved"), -EIO);
	ck_assert_uint_eq(image_folder_count(), 1);
	memslot_image_unref(image);
	free(read);
}
END_TEST

void image_raw_cases(Suite *suite)
{
	TCase *tcase = test_case(suite, "copied file");

	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_test(tcase, a_file_is_copied_from_an_offset_to_its_end);
	tcase_add_test(tcase, any_part_of_a_file_can_be_copied_to_any_place);
	tcase_add_test(tcase, the_copy_does_not_change_with_the_file);
	tcase_add_test(tcase, the_file_position_of_the_caller_stays);
	tcase_add_test(tcase, holes_of_a_file_are_skipped);
	tcase_add_test(tcase, zeros_of_a_file_are_not_stored);
	tcase_add_test(tcase, what_is_no_file_is_refused);
	tcase_add_test(tcase, what_cannot_be_read_is_no_descriptor);
	tcase_add_test(tcase, nothing_and_more_than_there_is_are_invalid);
	tcase_add_test(tcase, a_slot_offset_that_overflows_is_too_large);
	tcase_add_test(tcase, options_of_open_are_refused);
	tcase_add_test(tcase, a_copy_over_the_file_size_limit_is_an_error_and_no_signal);
	tcase_add_test(tcase, a_file_that_ends_too_soon_is_an_error);
	tcase_add_test(tcase, a_file_cut_short_between_two_reads_is_an_error);
	tcase = test_case(suite, "mapped file");
	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_test(tcase, a_mapped_file_is_one_extent_and_never_dereferenced);
	tcase_add_test(tcase, a_mapped_file_keeps_a_note);
	tcase_add_test(tcase, only_whole_pages_can_be_mapped);
	tcase_add_test(tcase, a_file_that_cannot_be_mapped_is_not_supported);
	tcase_add_test(tcase, a_file_of_huge_pages_cannot_be_mapped);
	tcase_add_test(tcase, a_mapped_file_is_read_with_zeros_behind_its_end);
	tcase_add_test(tcase, a_mapped_file_that_shrank_is_an_error_for_whoever_reads_it);
}
