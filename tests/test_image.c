/* SPDX-License-Identifier: MIT */
/*
 * test_image.c - <memslot/image.h>, lib/image: images of bytes and extents, counting, notes.
 * Raw files are in image_raw.c, saved images in image_saved.c, files written by an enemy in
 * image_hostile.c, failing calls in image_inject.c.
 */
#define _GNU_SOURCE
#include "image.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct memslot_image *from_bytes(const void *bytes, size_t size, uint64_t slot_offset)
{
	struct memslot_image *image = NULL;
	int error = memslot_image_from_bytes(
		bytes, size, IMAGE_OPTS(.slot_offset = slot_offset), &image);

	ck_assert_int_eq(error, 0);
	image_check(image);
	return image;
}

/* --- bytes --- */

START_TEST(bytes_become_an_image_of_whole_pages)
{
	unsigned char *bytes = calloc(2, PAGE);
	struct memslot_image *image;

	test_fill(bytes, PAGE + 100, 1);
	image = from_bytes(bytes, PAGE + 100, 0);
	ck_assert_uint_eq(memslot_image_offset(image), 0);
	ck_assert_uint_eq(memslot_image_size(image), 2 * PAGE);
	ck_assert_ptr_null(memslot_image_base_address(image));
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

START_TEST(an_offset_inside_a_page_is_padded_with_zeros)
{
	unsigned char *bytes = calloc(3, PAGE);
	struct memslot_image *image;

	test_fill(bytes + 10, 2 * PAGE, 1);
	image = from_bytes(bytes + 10, 2 * PAGE, 7 * PAGE + 10);
	ck_assert_uint_eq(memslot_image_offset(image), 7 * PAGE);
	ck_assert_uint_eq(memslot_image_size(image), 3 * PAGE);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

START_TEST(an_image_is_a_copy)
{
	unsigned char bytes[100], before[100];
	struct memslot_image *image;

	test_fill(bytes, sizeof bytes, 1);
	memcpy(before, bytes, sizeof bytes);
	image = from_bytes(bytes, sizeof bytes, 0);
	memset(bytes, 0, sizeof bytes);
	ck_assert(test_same(image->bytes, before, sizeof before));
	memslot_image_unref(image);
}
END_TEST

START_TEST(null_and_no_bytes_are_invalid)
{
	struct memslot_image *image = UNTOUCHED;

	ck_assert_int_eq(memslot_image_from_bytes(NULL, 1, NULL, &image), -EINVAL);
	ck_assert_int_eq(memslot_image_from_bytes("x", 0, NULL, &image), -EINVAL);
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, NULL, NULL), -EINVAL);
	ck_assert_ptr_eq(image, UNTOUCHED);
}
END_TEST

START_TEST(options_of_other_calls_and_of_newer_headers_are_refused)
{
	const uint32_t flags[] = {
		MEMSLOT_IMAGE_MAP_FILE, MEMSLOT_IMAGE_VERIFY, MEMSLOT_IMAGE_STRICT, 1u << 31};
	const struct memslot_extent extent = {0, "x", 1};
	struct {
		struct memslot_image_opts known;
		uint64_t more;
	} newer = {{.size = sizeof newer}, 1};
	struct memslot_image_opts small = {.size = sizeof small - 1};
	struct memslot_image *image = UNTOUCHED;

	for (unsigned i = 0; i < 4; i++) {
		const struct memslot_image_opts *opts = IMAGE_OPTS(.flags = flags[i]);
		ck_assert_int_eq(memslot_image_from_bytes("x", 1, opts, &image), -EINVAL);
		ck_assert_int_eq(memslot_image_from_extents(&extent, 1, opts, &image), -EINVAL);
	}
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, &newer.known, &image), -E2BIG);
	ck_assert_int_eq(memslot_image_from_extents(&extent, 1, &newer.known, &image), -E2BIG);
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, &small, &image), -EINVAL);
	ck_assert_ptr_eq(image, UNTOUCHED);
	newer.more = 0;
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, &newer.known, &image), 0);
	memslot_image_unref(image);
}
END_TEST

START_TEST(an_offset_that_overflows_is_too_large)
{
	const uint64_t last = UINT64_MAX - 2 * PAGE + 1;
	struct memslot_image *image = UNTOUCHED;
	unsigned char *bytes = calloc(1, PAGE + 1);

	ck_assert_int_eq(memslot_image_from_bytes(
				 bytes, 2, IMAGE_OPTS(.slot_offset = UINT64_MAX - 1), &image),
		-EMSGSIZE);
	ck_assert_int_eq(
		memslot_image_from_bytes(bytes, 1, IMAGE_OPTS(.slot_offset = UINT64_MAX), &image),
		-EMSGSIZE);
	ck_assert_int_eq(
		memslot_image_from_bytes(bytes, PAGE + 1, IMAGE_OPTS(.slot_offset = last), &image),
		-EMSGSIZE);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, SIZE_MAX, NULL, &image), -EMSGSIZE);
	ck_assert_ptr_eq(image, UNTOUCHED);
	image = from_bytes(bytes, PAGE, last);
	ck_assert_uint_eq(memslot_image_offset(image), last);
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

START_TEST(bytes_that_cannot_be_read_are_an_error_and_no_signal)
{
	unsigned char *bytes =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memslot_image *image = UNTOUCHED;
	unsigned fds = test_fd_count();

	NEED_FAULTS();
	bytes[0] = 1;
	munmap(bytes + PAGE, PAGE);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, 2 * PAGE, NULL, &image), -EFAULT);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_uint_eq(test_fd_count(), fds);
	munmap(bytes, PAGE);
}
END_TEST

START_TEST(nobody_can_write_to_an_image_or_cut_it_short)
{
	struct memslot_image *image;

	NEED_FEATURE("memfd_seal");
	image = from_bytes("x", 1, 0);
	ck_assert(pwrite(image->fd, "y", 1, 0) < 0 && errno == EPERM);
	ck_assert(ftruncate(image->fd, 0) < 0 && errno == EPERM);
	ck_assert(ftruncate(image->fd, 1 << 20) < 0 && errno == EPERM);
	ck_assert(fallocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1) < 0);
	ck_assert_ptr_eq(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, image->fd, 0), MAP_FAILED);
	ck_assert_int_ne(fcntl(image->fd, F_GETFD) & FD_CLOEXEC, 0);
	memslot_image_unref(image);
}
END_TEST

START_TEST(without_memfd_create_a_nameless_file_in_shm_serves)
{
	struct memslot_image *image;
	struct stat file;

	memslot_feature("memfd_seal"); /* its probe is not what shall fail */
	SKIP_IF(access("/dev/shm", W_OK), "no /dev/shm");
	ms_os_inject = (struct ms_os_inject){
		.at = 1, .error = ENOSYS, .for_good = true, .only = SYS_memfd_create};
	image = image_sample();
	ms_os_inject.at = 0;
	image_check(image);
	ck_assert_int_eq(fstat(image->fd, &file), 0);
	ck_assert_uint_eq(file.st_nlink, 0);
	ck_assert_uint_eq(file.st_mode & 0777, 0600);
	memslot_image_unref(image);
}
END_TEST

START_TEST(without_any_memory_file_the_first_refusal_is_the_error)
{
	struct memslot_image *image = UNTOUCHED;

	memslot_feature("memfd_seal");
	ms_os_inject = (struct ms_os_inject){.at = 1, .error = ENOSYS, .for_good = true};
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, NULL, &image), -ENOSYS);
	ms_os_inject.at = 0;
	ck_assert_ptr_eq(image, UNTOUCHED);
}
END_TEST

START_TEST(over_the_file_size_limit_is_an_error_and_no_signal)
{
	const struct memslot_extent extent = {5 * PAGE, "x", 1};
	struct memslot_image *image = UNTOUCHED;
	struct rlimit before, low;
	unsigned char *bytes = calloc(3, PAGE);

	getrlimit(RLIMIT_FSIZE, &before);
	low = (struct rlimit){2 * PAGE, before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &low);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, 2 * PAGE + 1, NULL, &image), -EFBIG);
	ck_assert_ptr_eq(image, UNTOUCHED);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, 2 * PAGE, NULL, &image), 0);
	memslot_image_unref(image);
	/* The image's length counts, not its place. */
	ck_assert_int_eq(memslot_image_from_extents(&extent, 1, NULL, &image), 0);
	memslot_image_unref(image);
	setrlimit(RLIMIT_FSIZE, &before);
	free(bytes);
}
END_TEST

/* --- zeros --- */

static void check_zeros_between(size_t zeros, size_t expected_extents)
{
	size_t pages = 5 + zeros + 2;
	unsigned char *bytes = calloc(pages, PAGE);
	struct memslot_image *image;

	test_fill(bytes + 3 * PAGE, 2 * PAGE, 1);
	test_fill(bytes + (5 + zeros) * PAGE, PAGE, 2);
	image = from_bytes(bytes, pages * PAGE, 0);
	ck_assert_uint_eq(image->extent_count, expected_extents);
	ck_assert_uint_eq(image->extents[0].first, 3);
	ck_assert_uint_eq(image->pages, pages);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	free(bytes);
}

START_TEST(sixteen_zero_pages_are_a_gap_and_fifteen_are_not)
{
	check_zeros_between(MS_IMAGE_GAP_PAGES - 1, 1);
	check_zeros_between(MS_IMAGE_GAP_PAGES, 2);
	check_zeros_between(MS_IMAGE_GAP_PAGES + 1, 2);
}
END_TEST

START_TEST(an_image_of_zeros_has_no_extents_but_its_size)
{
	unsigned char *bytes = calloc(20, PAGE);
	struct memslot_image *image = from_bytes(bytes, 20 * PAGE, PAGE);

	ck_assert_uint_eq(image->extent_count, 0);
	ck_assert_uint_eq(memslot_image_offset(image), PAGE);
	ck_assert_uint_eq(memslot_image_size(image), 20 * PAGE);
	ck_assert(image_holds(image, bytes));
	ck_assert_uint_eq(image_blocks(image), 0);
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

START_TEST(reading_an_image_never_makes_it_grow)
{
	const struct memslot_extent extents[] = {{(64u << 20) - 1, "end", 1}, {PAGE, "one", 3},
		{17 * PAGE, "short gap", 9}, {32u << 20, "two", 3}};
	unsigned char *bytes = calloc(1, 64u << 20);
	struct memslot_image *image;
	uint64_t before;

	ck_assert_int_eq(memslot_image_from_extents(extents, 4, NULL, &image), 0);
	image_check(image);
	before = image_blocks(image);
	for (unsigned i = 0; i < 4; i++)
		memcpy(bytes + extents[i].slot_offset, extents[i].bytes, extents[i].size);
	ck_assert(image_holds(image, bytes + PAGE));
	ck_assert_uint_eq(image_blocks(image), before);
	ck_assert_uint_eq(image->extent_pages, 17 + 1 + 1);
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

/* --- extents --- */

START_TEST(extents_may_come_in_any_order_and_share_pages)
{
	const struct memslot_extent extents[] = {{2 * PAGE + 50, "later", 5}, {10, "ab", 2},
		{12, "cd", 2}, {7, NULL, 0}, {0, "first", 5}};
	unsigned char *bytes = calloc(3, PAGE);
	struct memslot_image *image;

	memcpy(bytes, "first", 5);
	memcpy(bytes + 10, "abcd", 4);
	memcpy(bytes + 2 * PAGE + 50, "later", 5);
	ck_assert_int_eq(
		memslot_image_from_extents(extents, 5, IMAGE_OPTS(.slot_offset = 4 * PAGE), &image),
		0);
	image_check(image);
	ck_assert_uint_eq(memslot_image_offset(image), 4 * PAGE);
	ck_assert_uint_eq(memslot_image_size(image), 3 * PAGE);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
	free(bytes);
}
END_TEST

static void check_extents_error(
	const struct memslot_extent *extents, size_t count, uint64_t slot_offset, int expected)
{
	struct memslot_image *image = UNTOUCHED;
	int error = memslot_image_from_extents(
		extents, count, IMAGE_OPTS(.slot_offset = slot_offset), &image);

	ck_assert_int_eq(error, expected);
	ck_assert_ptr_eq(image, UNTOUCHED);
}

START_TEST(extents_that_make_no_sense_are_invalid)
{
	const struct memslot_extent overlap[] = {{100, "abc", 3}, {98, "abc", 3}};
	const struct memslot_extent inside[] = {{100, "abcdef", 6}, {101, "a", 1}};
	const struct memslot_extent twice[] = {{100, "a", 1}, {100, "a", 1}};
	const struct memslot_extent empty[] = {{100, "a", 0}, {200, NULL, 0}};
	const struct memslot_extent null[] = {{100, NULL, 1}};

	check_extents_error(overlap, 2, 0, -EINVAL);
	check_extents_error(inside, 2, 0, -EINVAL);
	check_extents_error(twice, 2, 0, -EINVAL);
	check_extents_error(empty, 2, 0, -EINVAL);
	check_extents_error(null, 1, 0, -EINVAL);
	check_extents_error(overlap, 0, 0, -EINVAL);
	check_extents_error(NULL, 1, 0, -EINVAL);
	ck_assert_int_eq(memslot_image_from_extents(twice, 1, NULL, NULL), -EINVAL);
}
END_TEST

START_TEST(extents_that_overflow_are_too_large)
{
	const struct memslot_extent itself[] = {{UINT64_MAX - 1, "abc", 3}};
	const struct memslot_extent rounded[] = {{UINT64_MAX - 10, "abc", 3}};
	const struct memslot_extent high[] = {{UINT64_MAX - 3 * PAGE, "abc", 3}};
	const struct memslot_extent apart[] = {{0, "a", 1}, {(uint64_t)INT64_MAX + 1, "b", 1}};

	check_extents_error(itself, 1, 0, -EMSGSIZE);
	check_extents_error(rounded, 1, 0, -EMSGSIZE);
	check_extents_error(high, 1, 3 * PAGE, -EMSGSIZE);
	check_extents_error(high, 1, 4 * PAGE, -EMSGSIZE);
	check_extents_error(apart, 2, 0, -EMSGSIZE);
	check_extents_error(apart, SIZE_MAX / 8, 0, -EMSGSIZE);
}
END_TEST

/* Some pieces, one after the other, of zeros or of something. */
static size_t random_pieces(struct test_rng *rng, unsigned char *bytes, size_t size,
	struct memslot_extent *extents, size_t room)
{
	size_t count = 0, at = 0;

	while (count < room) {
		size_t skip = test_below(rng, 4) ? test_below(rng, 30) * PAGE : 0;
		size_t length = test_below(rng, 3 * PAGE);
		at += skip + test_below(rng, 100);
		if (at + length > size)
			break;
		if (test_below(rng, 3))
			test_fill(bytes + at, length, (unsigned)count);
		extents[count++] = (struct memslot_extent){at, bytes + at, length};
		at += length;
	}
	for (size_t i = count; i > 1; i--) {
		size_t other = test_below(rng, i);
		struct memslot_extent kept = extents[i - 1];
		extents[i - 1] = extents[other];
		extents[other] = kept;
	}
	return count;
}

START_TEST(random_extents_give_what_a_plain_array_holds)
{
	struct test_rng rng = test_rng(1);
	struct memslot_extent extents[40];
	size_t size = 300 * PAGE;

	for (unsigned round = test_rounds(200); round; round--) {
		unsigned char *bytes = calloc(1, size);
		size_t count = random_pieces(&rng, bytes, size, extents, 1 + test_below(&rng, 40));
		struct memslot_image *image;
		int error = memslot_image_from_extents(extents, count, NULL, &image);
		if (error == 0) {
			image_check(image);
			ck_assert(image_holds(image, bytes + memslot_image_offset(image)));
			memslot_image_unref(image);
		} else {
			ck_assert_int_eq(error, -EINVAL); /* nothing but empty ones */
			ck_assert(test_zero(bytes, size));
		}
		free(bytes);
	}
}
END_TEST

/* --- references, note, accessors, fork --- */

START_TEST(the_last_unref_frees_and_no_earlier_one)
{
	unsigned fds = test_fd_count(), vmas = image_mapping_count();
	struct memslot_image *image = from_bytes("x", 1, 0);

	ck_assert_ptr_eq(memslot_image_ref(image), image);
	memslot_image_unref(image);
	ck_assert_int_eq(image->bytes[0], 'x');
	memslot_image_unref(image);
	ck_assert_uint_eq(test_fd_count(), fds);
	ck_assert_uint_eq(image_mapping_count(), vmas);
}
END_TEST

START_TEST(null_is_an_image_without_anything)
{
	ck_assert_ptr_null(memslot_image_ref(NULL));
	memslot_image_unref(NULL);
	ck_assert_uint_eq(memslot_image_offset(NULL), 0);
	ck_assert_uint_eq(memslot_image_size(NULL), 0);
	ck_assert_ptr_null(memslot_image_base_address(NULL));
}
END_TEST

START_TEST(the_note_is_kept_as_a_copy)
{
	char text[] = "note";
	const void *note = NULL;
	size_t size = 0;
	struct memslot_image *image;

	ck_assert_int_eq(memslot_image_from_bytes("x", 1,
				 IMAGE_OPTS(.note = text, .note_size = sizeof text), &image),
		0);
	text[0] = 0;
	ck_assert_int_eq(memslot_image_note(image, &note, &size), 0);
	ck_assert_uint_eq(size, sizeof text);
	ck_assert_str_eq(note, "note");
	ck_assert_int_eq(memslot_image_note(NULL, &note, &size), -EINVAL);
	ck_assert_int_eq(memslot_image_note(image, NULL, &size), -EINVAL);
	ck_assert_int_eq(memslot_image_note(image, &note, NULL), -EINVAL);
	memslot_image_unref(image);
}
END_TEST

START_TEST(an_image_without_a_note_has_none)
{
	const char untouched[] = "";
	const void *note = untouched;
	size_t size = 77;
	struct memslot_image *image = from_bytes("x", 1, 0);

	ck_assert_int_eq(memslot_image_note(image, &note, &size), -ENOENT);
	ck_assert_ptr_eq(note, untouched);
	ck_assert_uint_eq(size, 77);
	memslot_image_unref(image);
}
END_TEST

START_TEST(a_note_has_at_most_a_mebibyte)
{
	struct memslot_image_opts opts = {.size = sizeof opts, .note_size = MS_IMAGE_NOTE_MAX + 1};
	struct memslot_image *image = UNTOUCHED;
	char *note = calloc(1, opts.note_size);

	opts.note = note;
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, &opts, &image), -EMSGSIZE);
	opts.note = NULL;
	opts.note_size = 1;
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, &opts, &image), -EINVAL);
	ck_assert_ptr_eq(image, UNTOUCHED);
	opts.note = note;
	opts.note_size = MS_IMAGE_NOTE_MAX;
	ck_assert_int_eq(memslot_image_from_bytes("x", 1, &opts, &image), 0);
	memslot_image_unref(image);
	free(note);
}
END_TEST

static int use_in_child(void *argument)
{
	struct memslot_image *image = argument;

	child_check(memslot_image_size(image) == PAGE);
	child_check(image->bytes[0] == 'x');
	memslot_image_unref(image);
	child_check(memslot_image_from_bytes("y", 1, NULL, &image) == 0);
	child_check(image->bytes[0] == 'y');
	memslot_image_unref(image);
	return 0;
}

START_TEST(an_image_works_in_a_child)
{
	struct memslot_image *image = from_bytes("x", 1, 0);

	ck_assert_int_eq(test_in_child(use_in_child, image), 0);
	ck_assert_int_eq(test_in_clone(use_in_child, image), 0);
	ck_assert_int_eq(image->bytes[0], 'x');
	memslot_image_unref(image);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("image");
	TCase *tcase = test_case(suite, "bytes");

	tcase_add_test(tcase, bytes_become_an_image_of_whole_pages);
	tcase_add_test(tcase, an_offset_inside_a_page_is_padded_with_zeros);
	tcase_add_test(tcase, an_image_is_a_copy);
	tcase_add_test(tcase, null_and_no_bytes_are_invalid);
	tcase_add_test(tcase, options_of_other_calls_and_of_newer_headers_are_refused);
	tcase_add_test(tcase, an_offset_that_overflows_is_too_large);
	tcase_add_test(tcase, bytes_that_cannot_be_read_are_an_error_and_no_signal);
	tcase_add_test(tcase, nobody_can_write_to_an_image_or_cut_it_short);
	tcase_add_test(tcase, without_memfd_create_a_nameless_file_in_shm_serves);
	tcase_add_test(tcase, without_any_memory_file_the_first_refusal_is_the_error);
	tcase_add_test(tcase, over_the_file_size_limit_is_an_error_and_no_signal);
	tcase = test_case(suite, "zeros");
	tcase_add_test(tcase, sixteen_zero_pages_are_a_gap_and_fifteen_are_not);
	tcase_add_test(tcase, an_image_of_zeros_has_no_extents_but_its_size);
	tcase_add_test(tcase, reading_an_image_never_makes_it_grow);
	tcase = test_case(suite, "extents");
	tcase_add_test(tcase, extents_may_come_in_any_order_and_share_pages);
	tcase_add_test(tcase, extents_that_make_no_sense_are_invalid);
	tcase_add_test(tcase, extents_that_overflow_are_too_large);
	tcase_add_test(tcase, random_extents_give_what_a_plain_array_holds);
	tcase = test_case(suite, "object");
	tcase_add_test(tcase, the_last_unref_frees_and_no_earlier_one);
	tcase_add_test(tcase, null_is_an_image_without_anything);
	tcase_add_test(tcase, the_note_is_kept_as_a_copy);
	tcase_add_test(tcase, an_image_without_a_note_has_none);
	tcase_add_test(tcase, a_note_has_at_most_a_mebibyte);
	tcase_add_test(tcase, an_image_works_in_a_child);
	image_raw_cases(suite);
	image_saved_cases(suite);
	image_hostile_cases(suite);
	image_inject_cases(suite);
	image_program_cases(suite);
	return suite;
}
