/* SPDX-License-Identifier: MIT */
/* image_hostile.c - saved images that were damaged, or written by an enemy. */
#define _GNU_SOURCE
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define VERIFY MEMSLOT_IMAGE_VERIFY
#define MAP_FILE MEMSLOT_IMAGE_MAP_FILE

static unsigned char *file; /* the sample, saved, as it should be */
static size_t file_size;
static int fd; /* the same file, to be damaged */

static void begin(void)
{
	struct memslot_image *image;

	image_folder_begin();
	image = image_sample();
	ck_assert_int_eq(memslot_image_save(image, "saved"), 0);
	memslot_image_unref(image);
	file = image_read_file("saved", &file_size);
	fd = open("saved", O_RDWR | O_CLOEXEC);
}

static void end(void)
{
	close(fd);
	free(file);
	image_folder_end();
}

static int open_with(uint32_t flags)
{
	struct memslot_image *image = UNTOUCHED;
	unsigned fds = test_fd_count();
	int error = memslot_image_open("saved", IMAGE_OPTS(.flags = flags), &image);

	if (error) {
		ck_assert_ptr_eq(image, UNTOUCHED);
	} else {
		image_check(image);
		memslot_image_unref(image);
	}
	ck_assert_uint_eq(test_fd_count(), fds);
	return error;
}

static void write_at(const void *bytes, size_t size, uint64_t offset)
{
	ck_assert_int_eq(pwrite(fd, bytes, size, (off_t)offset), (ssize_t)size);
}

static uint64_t header_size(void)
{
	return ((const struct ms_format_head *)(const void *)file)->header_size;
}

static bool not_ours(int error)
{
	return error == -EBADMSG || error == -EUCLEAN;
}

/* --- damage --- */

START_TEST(any_damaged_byte_is_found)
{
	struct test_rng rng = test_rng(3);

	for (unsigned round = test_rounds(2000); round; round--) {
		size_t at = test_below(&rng, test_below(&rng, 2) ? file_size : header_size());
		unsigned char bad = (unsigned char)(file[at] ^ (1 + test_below(&rng, 255)));
		bool contents = at >= header_size();
		write_at(&bad, 1, at);
		ck_assert_msg(contents ? open_with(0) == 0 : not_ours(open_with(0)),
			"byte %zu: %#x", at, bad);
		ck_assert_msg(contents ? open_with(MAP_FILE) == 0 : not_ours(open_with(MAP_FILE)),
			"byte %zu: %#x", at, bad);
		/* What lies in a gap is not contents. */
		if (!contents || file[at])
			ck_assert_msg(not_ours(open_with(VERIFY)), "byte %zu: %#x", at, bad);
		write_at(&file[at], 1, at);
	}
	ck_assert_int_eq(open_with(VERIFY), 0);
}
END_TEST

START_TEST(a_file_cut_short_anywhere_is_found)
{
	struct test_rng rng = test_rng(4);
	size_t length = 0;

	while (length < file_size) {
		int error;
		ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
		error = open_with(0);
		ck_assert_int_eq(error, length < 8 ? -EBADMSG : -EUCLEAN);
		ck_assert_int_eq(open_with(MAP_FILE), error);
		length += length < 200 ? 1 : test_below(&rng, PAGE / 2);
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		write_at(file, file_size, 0);
	}
	ck_assert_int_eq(open_with(VERIFY), 0);
}
END_TEST

START_TEST(a_file_that_is_too_long_is_found)
{
	ck_assert_int_eq(ftruncate(fd, (off_t)file_size + 1), 0);
	ck_assert_int_eq(open_with(0), -EUCLEAN);
}
END_TEST

/* --- an enemy: the header's checksum is always right --- */

/* Open the sample with a change in its header. */
static int open_changed(void (*change)(struct ms_format_head *head, uint64_t value), uint64_t value)
{
	struct ms_format_head *head = calloc(1, header_size());
	int error;

	memcpy(head, file, header_size());
	change(head, value);
	/* A checksum over what is not there can be computed by nobody. */
	if (head->header_size <= header_size() && head->header_size >= sizeof *head)
		head->header_checksum = ms_format_checksum(head);
	write_at(head, header_size(), 0);
	free(head);
	error = open_with(0);
	ck_assert_int_eq(open_with(MAP_FILE), error);
	if (error)
		ck_assert_int_eq(open_with(VERIFY), error);
	write_at(file, file_size, 0);
	return error;
}

#define SETTER(field)                                                                              \
	static void set_##field(struct ms_format_head *head, uint64_t value)                       \
	{                                                                                          \
		head->field = (__typeof__(head->field))value;                                      \
	}
SETTER(byte_order)
SETTER(version)
SETTER(page_size)
SETTER(header_size)
SETTER(slot_offset)
SETTER(size)
SETTER(base_address)
SETTER(extent_count)
SETTER(note_size)

static struct ms_format_extent *extents_of(struct ms_format_head *head)
{
	return (struct ms_format_extent *)(uintptr_t)ms_format_extents(head);
}

static void set_first_offset(struct ms_format_head *head, uint64_t value)
{
	extents_of(head)[0].offset = value;
}

static void set_first_size(struct ms_format_head *head, uint64_t value)
{
	extents_of(head)[0].size = value;
}

static void set_second_offset(struct ms_format_head *head, uint64_t value)
{
	extents_of(head)[1].offset = value;
}

static void set_second_size(struct ms_format_head *head, uint64_t value)
{
	extents_of(head)[1].size = value;
}

START_TEST(another_version_byte_order_or_page_size_is_not_our_format)
{
	ck_assert_int_eq(open_changed(set_version, MS_FORMAT_VERSION + 1), -EBADMSG);
	ck_assert_int_eq(open_changed(set_version, 0), -EBADMSG);
	ck_assert_int_eq(open_changed(set_byte_order, 0x04030201), -EBADMSG);
	ck_assert_int_eq(open_changed(set_page_size, 2 * PAGE), -EBADMSG);
	ck_assert_int_eq(open_changed(set_page_size, 0), -EBADMSG);
	ck_assert_int_eq(open_changed(set_version, 1), 0);
}
END_TEST

START_TEST(numbers_that_do_not_fit_each_other_are_damage)
{
	static const struct {
		void (*change)(struct ms_format_head *head, uint64_t value);
	} fields[] = {{set_header_size}, {set_size}, {set_first_offset}, {set_first_size},
		{set_second_offset}, {set_second_size}};
	const uint64_t page = PAGE,
		       values[] = {1, page - 1, page + 1, 3 * page + 8, page << 20,
			       MS_FORMAT_HEADER_MAX, MS_FORMAT_HEADER_MAX + page, INT64_MAX,
			       (uint64_t)INT64_MAX + 1, ~(page - 1), UINT64_MAX - 7, UINT64_MAX};

	for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
		for (unsigned k = 0; k < sizeof values / sizeof *values; k++)
			ck_assert_msg(open_changed(fields[i].change, values[k]) == -EUCLEAN,
				"field %u value %u", i, k);
	}
}
END_TEST

START_TEST(addresses_must_be_whole_pages_that_do_not_overflow)
{
	ck_assert_int_eq(open_changed(set_slot_offset, 1), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_slot_offset, 0 - PAGE), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_slot_offset, 0 - SAMPLE_PAGES * PAGE), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_slot_offset, 0 - (SAMPLE_PAGES + 1) * PAGE), 0);
	ck_assert_int_eq(open_changed(set_base_address, 8), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_base_address, 8 * PAGE), 0);
}
END_TEST

START_TEST(extents_must_be_sorted_apart_and_inside)
{
	const size_t second = 40 * PAGE, first_end = 11 * PAGE;

	ck_assert_int_eq(open_changed(set_second_size, 0), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_second_size, 9 * PAGE), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_second_offset, second + 8 * PAGE), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_second_offset, first_end), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_second_offset, 0), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_first_offset, second), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_first_size, second), -EUCLEAN);
}
END_TEST

START_TEST(counts_must_fit_the_header)
{
	const uint64_t counts[] = {PAGE / sizeof(struct ms_format_extent), PAGE,
		MS_FORMAT_HEADER_MAX / sizeof(struct ms_format_extent), UINT64_MAX / 16,
		UINT64_MAX};
	const uint64_t sizes[] = {
		PAGE, MS_IMAGE_NOTE_MAX, MS_IMAGE_NOTE_MAX + 1, INT64_MAX, 0 - PAGE, UINT64_MAX};

	for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++)
		ck_assert_int_eq(open_changed(set_extent_count, counts[i]), -EUCLEAN);
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
		ck_assert_int_eq(open_changed(set_note_size, sizes[i]), -EUCLEAN);
	ck_assert_int_eq(open_changed(set_note_size, 0), 0);
	ck_assert_int_eq(open_changed(set_extent_count, 1), 0);
}
END_TEST

START_TEST(a_huge_file_of_holes_costs_nothing)
{
	const uint64_t size = (uint64_t)1 << 35;
	struct ms_format_head *head = calloc(1, header_size());
	struct rlimit limit;

	getrlimit(RLIMIT_FSIZE, &limit);
	SKIP_IF(limit.rlim_cur != RLIM_INFINITY || ftruncate(fd, (off_t)(header_size() + size)),
		"no file so large");
	memcpy(head, file, header_size());
	head->size = size;
	extents_of(head)[1].size = size - 40 * PAGE;
	head->header_checksum = ms_format_checksum(head);
	write_at(head, header_size(), 0);
	ck_assert_int_eq(open_with(0), 0);
	ck_assert_int_eq(open_with(VERIFY), 0);
	ck_assert_int_eq(open_with(MAP_FILE), 0);
	free(head);
}
END_TEST

void image_hostile_cases(Suite *suite)
{
	TCase *tcase = test_case(suite, "damaged");

	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_test(tcase, any_damaged_byte_is_found);
	tcase_add_test(tcase, a_file_cut_short_anywhere_is_found);
	tcase_add_test(tcase, a_file_that_is_too_long_is_found);
	tcase = test_case(suite, "hostile");
	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_test(tcase, another_version_byte_order_or_page_size_is_not_our_format);
	tcase_add_test(tcase, numbers_that_do_not_fit_each_other_are_damage);
	tcase_add_test(tcase, addresses_must_be_whole_pages_that_do_not_overflow);
	tcase_add_test(tcase, extents_must_be_sorted_apart_and_inside);
	tcase_add_test(tcase, counts_must_fit_the_header);
	tcase_add_test(tcase, a_huge_file_of_holes_costs_nothing);
}
