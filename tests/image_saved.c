/* SPDX-License-Identifier: MIT */
/* image_saved.c - saved images: what save writes, open reads. */
#define _GNU_SOURCE
#include "image.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERIFY MEMSLOT_IMAGE_VERIFY
#define MAP_FILE MEMSLOT_IMAGE_MAP_FILE

static int open_with(const char *path, uint32_t flags, struct memslot_image **ret_image)
{
	return memslot_image_open(path, IMAGE_OPTS(.flags = flags), ret_image);
}

static struct memslot_image *opened(const char *path, uint32_t flags)
{
	struct memslot_image *image = NULL;

	ck_assert_int_eq(open_with(path, flags, &image), 0);
	image_check(image);
	return image;
}

static void save(const struct memslot_image *image, const char *path)
{
	unsigned fds = test_fd_count();

	ck_assert_int_eq(memslot_image_save(image, path), 0);
	ck_assert_uint_eq(test_fd_count(), fds);
}

static void check_open_error(const char *path, uint32_t flags, int expected)
{
	struct memslot_image *image = UNTOUCHED;
	unsigned fds = test_fd_count();

	ck_assert_int_eq(open_with(path, flags, &image), expected);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_uint_eq(test_fd_count(), fds);
}

/* --- round trips --- */

static void check_sample(const struct memslot_image *image)
{
	unsigned char *bytes = image_sample_bytes();
	const void *note;
	size_t size;

	ck_assert_uint_eq(memslot_image_offset(image), SAMPLE_OFFSET);
	ck_assert_uint_eq(memslot_image_size(image), SAMPLE_PAGES * PAGE);
	ck_assert_uint_eq(image->extent_count, 2);
	ck_assert(image_holds(image, bytes));
	ck_assert_int_eq(memslot_image_note(image, &note, &size), 0);
	ck_assert_uint_eq(size, sizeof SAMPLE_NOTE);
	ck_assert_str_eq(note, SAMPLE_NOTE);
	free(bytes);
}

START_TEST(what_is_saved_can_be_opened_in_every_way)
{
	const uint32_t flags[] = {0, VERIFY, MAP_FILE};
	struct memslot_image *image = image_sample();

	save(image, "saved");
	memslot_image_unref(image);
	for (unsigned i = 0; i < 3; i++) {
		image = opened("saved", flags[i]);
		ck_assert((image->bytes == NULL) == (flags[i] == MAP_FILE));
		check_sample(image);
		memslot_image_unref(image);
	}
}
END_TEST

START_TEST(an_opened_image_can_be_saved_again_to_the_same_path)
{
	const uint32_t flags[] = {MAP_FILE, 0};
	unsigned char *first, *second;
	size_t first_size, second_size;
	struct memslot_image *image = image_sample();

	save(image, "saved");
	memslot_image_unref(image);
	first = image_read_file("saved", &first_size);
	for (unsigned i = 0; i < 2; i++) {
		image = opened("saved", flags[i]);
		save(image, "saved");
		check_sample(image);
		memslot_image_unref(image);
		second = image_read_file("saved", &second_size);
		ck_assert_uint_eq(first_size, second_size);
		ck_assert(test_same(first, second, first_size));
		free(second);
	}
	free(first);
}
END_TEST

START_TEST(a_bound_image_stays_bound)
{
	void *const base = (void *)(uintptr_t)0x7000000000;
	const uint32_t flags[] = {0, VERIFY, MAP_FILE};
	struct memslot_image *image;
	struct ms_build build;

	ck_assert_int_eq(ms_build_begin(&build, 0, 1), 0);
	ck_assert_int_eq(ms_build_write(&build, 0, "x", 1), 0);
	ck_assert_int_eq(ms_build_finish(&build, NULL, 0, base, &image), 0);
	save(image, "saved");
	memslot_image_unref(image);
	for (unsigned i = 0; i < 3; i++) {
		image = opened("saved", flags[i]);
		ck_assert_ptr_eq(memslot_image_base_address(image), base);
		memslot_image_unref(image);
	}
}
END_TEST

START_TEST(zeros_alone_and_a_large_note_can_be_saved)
{
	struct memslot_image_opts opts = {.size = sizeof opts, .note_size = MS_IMAGE_NOTE_MAX};
	unsigned char *zeros = calloc(20, PAGE), *noted = malloc(MS_IMAGE_NOTE_MAX);
	struct memslot_image *image;
	const void *note;
	size_t size;

	test_fill(noted, MS_IMAGE_NOTE_MAX, 7);
	opts.note = noted;
	ck_assert_int_eq(memslot_image_from_bytes(zeros, 20 * PAGE, &opts, &image), 0);
	save(image, "saved");
	memslot_image_unref(image);
	image = opened("saved", VERIFY);
	ck_assert_uint_eq(image->extent_count, 0);
	ck_assert_uint_eq(image->pages, 20);
	ck_assert_int_eq(memslot_image_note(image, &note, &size), 0);
	ck_assert_uint_eq(size, MS_IMAGE_NOTE_MAX);
	ck_assert(test_filled(note, size, 7));
	memslot_image_unref(image);
	free(zeros);
	free(noted);
}
END_TEST

START_TEST(a_mapped_raw_file_is_saved_with_zeros_behind_its_end)
{
	unsigned char *bytes = calloc(40, PAGE);
	struct memslot_image *image;
	int fd;

	test_fill(bytes, PAGE, 1);
	test_fill(bytes + 39 * PAGE, 5, 2);
	image_write_file("raw", bytes, 39 * PAGE + 5);
	fd = open("raw", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(memslot_image_from_fd(fd, 0, 0, IMAGE_OPTS(.flags = MAP_FILE), &image), 0);
	close(fd);
	save(image, "saved");
	memslot_image_unref(image);
	image = opened("saved", VERIFY);
	ck_assert_uint_eq(image->extent_pages, 2);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	image = opened("saved", MAP_FILE);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

START_TEST(random_images_survive_save_and_open)
{
	struct test_rng rng = test_rng(2);

	for (unsigned round = test_rounds(50); round; round--) {
		size_t pages = 1 + test_below(&rng, 120);
		unsigned char *bytes = calloc(pages, PAGE);
		struct memslot_image *image;
		for (size_t i = 0; i < pages; i++)
			if (test_below(&rng, 12) == 0)
				test_fill(
					bytes + i * PAGE, 1 + test_below(&rng, PAGE), (unsigned)i);
		ck_assert_int_eq(memslot_image_from_bytes(bytes, pages * PAGE, NULL, &image), 0);
		save(image, "saved");
		memslot_image_unref(image);
		image = opened("saved", test_below(&rng, 2) ? VERIFY : MAP_FILE);
		ck_assert(image_holds(image, bytes));
		memslot_image_unref(image);
		free(bytes);
	}
}
END_TEST

/* --- the file --- */

START_TEST(a_saved_file_is_private_sparse_and_page_aligned)
{
	const struct memslot_extent extents[] = {{0, "front", 5}, {64u << 20, "back", 4}};
	const struct ms_format_head *head;
	struct memslot_image *image;
	unsigned char *file;
	struct stat saved;
	size_t size;

	umask(0);
	ck_assert_int_eq(memslot_image_from_extents(extents, 2, NULL, &image), 0);
	save(image, "saved");
	memslot_image_unref(image);
	ck_assert_uint_eq(image_folder_count(), 1);
	ck_assert_int_eq(stat("saved", &saved), 0);
	ck_assert_uint_eq(saved.st_mode & 07777, 0600);
	ck_assert_int_lt(saved.st_blocks * 512, 8 << 20);
	file = image_read_file("saved", &size);
	head = (const void *)file;
	ck_assert_uint_eq(head->header_size % PAGE, 0);
	ck_assert_uint_eq(size, head->header_size + (64u << 20) + PAGE);
	ck_assert_int_eq(memcmp(file + head->header_size, "front", 5), 0);
	ck_assert_int_eq(memcmp(file + head->header_size + (64u << 20), "back", 4), 0);
	free(file);
}
END_TEST

START_TEST(save_replaces_the_old_file_which_stays_as_it_was_for_its_readers)
{
	struct memslot_image *image = image_sample(), *old;

	save(image, "saved");
	memslot_image_unref(image);
	old = opened("saved", MAP_FILE);
	ck_assert_int_eq(memslot_image_from_bytes("new", 3, NULL, &image), 0);
	save(image, "saved");
	memslot_image_unref(image);
	check_sample(old);
	memslot_image_unref(old);
	image = opened("saved", VERIFY);
	ck_assert_uint_eq(memslot_image_size(image), PAGE);
	memslot_image_unref(image);
	ck_assert_uint_eq(image_folder_count(), 1);
}
END_TEST

START_TEST(save_works_with_an_absolute_path)
{
	struct memslot_image *image = image_sample();
	char path[PATH_MAX + 16];

	ck_assert_ptr_nonnull(getcwd(path, PATH_MAX));
	strcat(path, "/saved");
	save(image, path);
	memslot_image_unref(image);
	image = opened("saved", VERIFY);
	check_sample(image);
	memslot_image_unref(image);
}
END_TEST

START_TEST(a_save_that_fails_leaves_nothing_behind)
{
	struct memslot_image *image = image_sample();
	char *long_path = calloc(1, PATH_MAX + 100);

	ck_assert_int_eq(mkdir("folder", 0700), 0);
	ck_assert_int_eq(memslot_image_save(NULL, "saved"), -EINVAL);
	ck_assert_int_eq(memslot_image_save(image, NULL), -EINVAL);
	ck_assert_int_eq(memslot_image_save(image, "missing/saved"), -ENOENT);
	ck_assert_int_eq(memslot_image_save(image, "folder"), -EISDIR);
	ck_assert_int_eq(memslot_image_save(image, ""), -ENOENT);
	memset(long_path, '/', PATH_MAX + 50);
	ck_assert_int_eq(memslot_image_save(image, long_path), -ENAMETOOLONG);
	memset(long_path, 'a', PATH_MAX + 50);
	ck_assert_int_eq(memslot_image_save(image, long_path), -ENAMETOOLONG);
	ck_assert_uint_eq(image_folder_count(), 1);
	memslot_image_unref(image);
	free(long_path);
}
END_TEST

START_TEST(saving_over_the_file_size_limit_keeps_the_old_file)
{
	struct memslot_image *image = image_sample();
	struct rlimit before, low;

	image_write_file("saved", "old", 3);
	getrlimit(RLIMIT_FSIZE, &before);
	low = (struct rlimit){SAMPLE_PAGES * PAGE, before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &low);
	ck_assert_int_eq(memslot_image_save(image, "saved"), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &before);
	memslot_image_unref(image);
	check_open_error("saved", 0, -EBADMSG);
	ck_assert_uint_eq(image_folder_count(), 1);
}
END_TEST

/* --- open --- */

START_TEST(a_file_cut_short_after_open_does_no_harm)
{
	struct memslot_image *image = image_sample();

	save(image, "saved");
	memslot_image_unref(image);
	image = opened("saved", 0);
	ck_assert_int_eq(truncate("saved", 0), 0);
	check_sample(image);
	memslot_image_unref(image);
}
END_TEST

START_TEST(open_says_why_it_cannot)
{
	ck_assert_int_eq(mkdir("folder", 0700), 0);
	ck_assert_int_eq(mkfifo("fifo", 0600), 0);
	image_write_file("empty", "", 0);
	image_write_file("short", MS_FORMAT_MAGIC, 7);
	image_write_file("magic", MS_FORMAT_MAGIC, 8);
	image_write_file("text", "Once upon a time there was a slot", 33);
	check_open_error("missing", 0, -ENOENT);
	check_open_error("folder", 0, -EISDIR);
	check_open_error("fifo", 0, -ESPIPE); /* and does not wait for a writer */
	check_open_error("/dev/zero", 0, -ESPIPE);
	check_open_error("empty", 0, -EBADMSG);
	check_open_error("short", 0, -EBADMSG);
	check_open_error("magic", 0, -EUCLEAN);
	check_open_error("text", MAP_FILE, -EBADMSG);
}
END_TEST

START_TEST(open_takes_verify_or_map_file_and_nothing_else)
{
	struct memslot_image *image = image_sample();
	struct {
		struct memslot_image_opts known;
		uint64_t more;
	} newer = {{.size = sizeof newer}, 1};

	save(image, "saved");
	memslot_image_unref(image);
	check_open_error("saved", VERIFY | MAP_FILE, -EINVAL);
	check_open_error("saved", MEMSLOT_IMAGE_STRICT, -EINVAL);
	image = UNTOUCHED;
	ck_assert_int_eq(
		memslot_image_open("saved", IMAGE_OPTS(.slot_offset = PAGE), &image), -EINVAL);
	ck_assert_int_eq(memslot_image_open("saved", IMAGE_OPTS(.note = "n"), &image), -EINVAL);
	ck_assert_int_eq(memslot_image_open("saved", IMAGE_OPTS(.note_size = 1), &image), -EINVAL);
	ck_assert_int_eq(memslot_image_open("saved", &newer.known, &image), -E2BIG);
	ck_assert_int_eq(memslot_image_open(NULL, NULL, &image), -EINVAL);
	ck_assert_int_eq(memslot_image_open("saved", NULL, NULL), -EINVAL);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_int_eq(memslot_image_open("saved", NULL, &image), 0);
	memslot_image_unref(image);
}
END_TEST

START_TEST(opening_over_the_file_size_limit_is_an_error_and_no_signal)
{
	struct memslot_image *image = image_sample();
	struct rlimit before, low;

	save(image, "saved");
	memslot_image_unref(image);
	getrlimit(RLIMIT_FSIZE, &before);
	low = (struct rlimit){(SAMPLE_PAGES - 1) * PAGE, before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &low);
	check_open_error("saved", 0, -EFBIG);
	image = opened("saved", MAP_FILE);
	memslot_image_unref(image);
	setrlimit(RLIMIT_FSIZE, &before);
}
END_TEST

void image_saved_cases(Suite *suite)
{
	TCase *tcase = test_case(suite, "saved");

	tcase_add_checked_fixture(tcase, image_folder_begin, image_folder_end);
	tcase_add_test(tcase, what_is_saved_can_be_opened_in_every_way);
	tcase_add_test(tcase, an_opened_image_can_be_saved_again_to_the_same_path);
	tcase_add_test(tcase, a_bound_image_stays_bound);
	tcase_add_test(tcase, zeros_alone_and_a_large_note_can_be_saved);
	tcase_add_test(tcase, a_mapped_raw_file_is_saved_with_zeros_behind_its_end);
	tcase_add_test(tcase, random_images_survive_save_and_open);
	tcase_add_test(tcase, a_saved_file_is_private_sparse_and_page_aligned);
	tcase_add_test(tcase, save_replaces_the_old_file_which_stays_as_it_was_for_its_readers);
	tcase_add_test(tcase, save_works_with_an_absolute_path);
	tcase_add_test(tcase, a_save_that_fails_leaves_nothing_behind);
	tcase_add_test(tcase, saving_over_the_file_size_limit_keeps_the_old_file);
	tcase_add_test(tcase, a_file_cut_short_after_open_does_no_harm);
	tcase_add_test(tcase, open_says_why_it_cannot);
	tcase_add_test(tcase, open_takes_verify_or_map_file_and_nothing_else);
	tcase_add_test(tcase, opening_over_the_file_size_limit_is_an_error_and_no_signal);
}
