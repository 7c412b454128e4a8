/* SPDX-License-Identifier: MIT */
/* image_program.c - what an image's pointers lead into: recorded, saved, damaged, compared. */
#define _GNU_SOURCE
#include "image.h"

#include "base/feature.h"
#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOT ((void *)(uintptr_t)0x300000000000)
#define SLOT_SIZE (8 * PAGE)

static void begin(void)
{
	image_folder_begin();
}

static void end(void)
{
	ms_os_inject = (struct ms_os_inject){0};
	image_folder_end();
}

/* Words of the second page. */
static struct memslot_image *image_of(const uint64_t *words, size_t count)
{
	struct memslot_image *image;
	int error = memslot_image_from_bytes(words, count * sizeof *words,
		IMAGE_OPTS(.slot_offset = PAGE, .note = "odd", .note_size = 3), &image);

	ck_assert_int_eq(error, 0);
	return image;
}

static struct memslot_image *recorded_image(void)
{
	const uint64_t words[] = {(uintptr_t)getppid, 8, (uintptr_t)SLOT};
	struct memslot_image *image = image_of(words, 3);

	ck_assert_int_eq(ms_program_record(image, SLOT, SLOT_SIZE), 0);
	return image;
}

static uint64_t counted(uint64_t strays)
{
	return ms_feature(MS_FEATURE_PROC_MAPS) ? strays : MEMSLOT_NONE;
}

static struct memslot_image_stats stats(const struct memslot_image *image)
{
	struct memslot_image_stats now = {.size = sizeof now};

	ck_assert_int_eq(memslot_image_stats(image, &now), 0);
	return now;
}

/* --- what is recorded --- */

START_TEST(words_are_told_by_where_they_lead)
{
	void *memory = malloc(100000);
	const struct {
		uint64_t word;
		unsigned strays;
	} cases[] = {
		{(uintptr_t)SLOT, 0},
		{(uintptr_t)SLOT + SLOT_SIZE - 1, 0},
		{0, 0},
		{77, 0},
		{UINT64_MAX, 0},
		{0xffffffffff600000u, 0},
		{0x3ff0000000000000u, 0},
		{(uintptr_t)begin, 0},
		{(uintptr_t)&ms_os_inject, 0},
		{(uintptr_t)getppid, 0},
		{(uintptr_t)&memory, 1},
		{(uintptr_t)memory, 1},
		{(uintptr_t)memory + 99999, 1},
		{(uintptr_t)&ms_os_calls, 1},
	};
	struct memslot_image *image;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const uint64_t words[] = {1, cases[i].word};
		image = image_of(words, 2);
		ck_assert_uint_eq(stats(image).strays, MEMSLOT_NONE);
		ck_assert_int_eq(ms_program_check(image), -ESTALE);
		ck_assert_int_eq(ms_program_record(image, SLOT, SLOT_SIZE), 0);
		ck_assert_msg(stats(image).strays == counted(cases[i].strays), "word %zu", i);
		ck_assert_int_eq(ms_program_check(image), 0);
		memslot_image_unref(image);
	}
	free(memory);
}
END_TEST

START_TEST(every_word_of_every_extent_is_looked_at)
{
	const size_t size = 64 * PAGE;
	uint64_t *words = calloc(1, size), here = (uintptr_t)&here;
	struct test_rng rng = test_rng(31);
	uint64_t expected = 0;
	struct memslot_image *image;

	words[0] = words[size / 8 - 1] = here;
	for (int i = 0; i < 30; i++)
		words[test_below(&rng, PAGE) + (i % 2 ? 5 * PAGE : 0)] = here;
	for (size_t i = 0; i < size / 8; i++)
		expected += words[i] == here;
	image = image_of(words, size / 8);
	ck_assert_uint_ge(image->extent_count, 2);
	ck_assert_int_eq(ms_program_record(image, SLOT, SLOT_SIZE), 0);
	ck_assert_uint_eq(stats(image).strays, counted(expected));
	memslot_image_unref(image);
	free(words);
}
END_TEST

START_TEST(objects_that_are_not_pointed_into_are_not_recorded)
{
	const uint64_t none[] = {5}, library[] = {(uintptr_t)getppid, (uintptr_t)getppid + 1};
	struct memslot_image *image = image_of(none, 1);

	ck_assert_int_eq(ms_program_record(image, SLOT, SLOT_SIZE), 0);
	ck_assert_uint_eq(stats(image).objects, 1); /* the executable always is */
	memslot_image_unref(image);
	image = image_of(library, 2);
	ck_assert_int_eq(ms_program_record(image, SLOT, SLOT_SIZE), 0);
	/* A sanitizer's own getppid may be the executable's. */
	ck_assert_uint_eq(stats(image).objects, test_sanitized() ? stats(image).objects : 2);
	memslot_image_unref(image);
}
END_TEST

/* A container without /proc. */
START_TEST(without_proc_strays_are_unknown_and_the_rest_is_recorded)
{
	const long calls[] = {SYS_openat, SYS_pread64};
	const uint64_t words[] = {(uintptr_t)getppid, (uintptr_t)&words};
	struct memslot_image *image;

	(void)ms_feature(MS_FEATURE_PROC_MAPS);
	for (int i = 0; i < 2; i++) {
		image = image_of(words, 2);
		ms_os_inject = (struct ms_os_inject){.at = 1, .error = EACCES, .only = calls[i]};
		ck_assert_int_eq(ms_program_record(image, SLOT, SLOT_SIZE), 0);
		ms_os_inject = (struct ms_os_inject){0};
		ck_assert_uint_eq(stats(image).strays, MEMSLOT_NONE);
		ck_assert_uint_ge(stats(image).objects, 1);
		ck_assert_int_eq(ms_program_check(image), 0);
		memslot_image_unref(image);
	}
}
END_TEST

START_TEST(without_memory_nothing_is_recorded)
{
	struct memslot_image *image = image_of((const uint64_t[]){1}, 1);
	unsigned fds = test_fd_count(), failed = 0;
	int error = -ENOMEM;

	(void)ms_feature(MS_FEATURE_PROC_MAPS);
	for (uint64_t at = 1; error; at++) {
		ms_os_inject =
			(struct ms_os_inject){.at = at, .error = ENOMEM, .only = MS_INJECT_ALLOC};
		error = ms_program_record(image, SLOT, SLOT_SIZE);
		ms_os_inject = (struct ms_os_inject){0};
		ck_assert(error == 0 || error == -ENOMEM);
		ck_assert_int_eq(image->program == NULL, error != 0);
		ck_assert_uint_eq(test_fd_count(), fds);
		failed += error != 0;
	}
	ck_assert_uint_gt(failed, 2);
	memslot_image_unref(image);
}
END_TEST

START_TEST(stats_are_filled_up_to_their_size)
{
	struct memslot_image_stats out = {.size = 4};
	struct memslot_image *image = recorded_image();

	ck_assert_int_eq(memslot_image_stats(image, &out), -EINVAL);
	ck_assert_int_eq(memslot_image_stats(NULL, &out), -EINVAL);
	ck_assert_int_eq(memslot_image_stats(image, NULL), -EINVAL);
	out = (struct memslot_image_stats){.size = 16, .strays = 99};
	ck_assert_int_eq(memslot_image_stats(image, &out), 0);
	ck_assert_uint_ge(out.objects, 1);
	ck_assert_uint_eq(out.strays, 99);
	memslot_image_unref(image);
}
END_TEST

/* --- is it the same? --- */

START_TEST(another_build_address_or_machine_is_another_program)
{
	struct memslot_image *image = recorded_image();
	struct ms_program *program = image->program;
	uint64_t *const fields[] = {&program->machine, &program->objects[0].build,
		&program->objects[0].address, &program->objects[program->count - 1].build,
		&program->objects[program->count - 1].address};

	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		uint64_t was = *fields[i];
		*fields[i] ^= PAGE;
		ck_assert_msg(ms_program_check(image) == -ESTALE, "field %zu", i);
		*fields[i] = was;
		ck_assert_int_eq(ms_program_check(image), 0);
	}
	program->count = 0; /* nobody recorded that */
	ck_assert_int_eq(ms_program_check(image), -ESTALE);
	memslot_image_unref(image);
}
END_TEST

/* --- in a file --- */

START_TEST(a_record_is_saved_beside_the_note)
{
	const uint32_t flags[] = {0, MEMSLOT_IMAGE_VERIFY, MEMSLOT_IMAGE_MAP_FILE};
	struct memslot_image *image = recorded_image(), *again;
	size_t size = ms_program_size(image->program->count), note_size;
	const void *note;

	ck_assert_int_eq(memslot_image_save(image, "saved"), 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(
			memslot_image_open("saved", IMAGE_OPTS(.flags = flags[i]), &again), 0);
		ck_assert_ptr_nonnull(again->program);
		ck_assert(test_same(again->program, image->program, size));
		ck_assert_int_eq(memslot_image_note(again, &note, &note_size), 0);
		ck_assert_uint_eq(note_size, 3);
		ck_assert(test_same(note, "odd", 3));
		ck_assert_int_eq(ms_program_check(again), 0);
		memslot_image_unref(again);
	}
	memslot_image_unref(image);
}
END_TEST

START_TEST(images_without_a_record_are_written_as_before)
{
	struct memslot_image *image = image_of((const uint64_t[]){9}, 1);
	struct ms_format_head *head;
	size_t size;

	ck_assert_int_eq(memslot_image_save(image, "saved"), 0);
	head = (void *)image_read_file("saved", &size);
	ck_assert_uint_eq(head->version, 1);
	ck_assert_uint_eq(offsetof(struct ms_format_head, program_size), 88);
	ck_assert_uint_eq(ms_format_extents(head)[0].size, PAGE);
	free(head);
	memslot_image_unref(image);
	ck_assert_int_eq(memslot_image_open("saved", NULL, &image), 0);
	ck_assert_uint_eq(stats(image).strays, MEMSLOT_NONE);
	ck_assert_uint_eq(stats(image).objects, 0);
	memslot_image_unref(image);
}
END_TEST

static int open_as(const unsigned char *bytes, size_t size)
{
	struct memslot_image *image = UNTOUCHED;
	int error;

	image_write_file("changed", bytes, size);
	error = memslot_image_open("changed", NULL, &image);
	if (error)
		ck_assert_ptr_eq(image, UNTOUCHED);
	else
		memslot_image_unref(image);
	return error;
}

START_TEST(a_damaged_record_is_found)
{
	struct memslot_image *image = recorded_image();
	struct test_rng rng = test_rng(32);
	size_t size, used;
	unsigned char *file;

	ck_assert_int_eq(memslot_image_save(image, "saved"), 0);
	file = image_read_file("saved", &size);
	used = sizeof(struct ms_format_head) + sizeof(struct ms_format_extent) +
	       ms_program_size(image->program->count) + 3;
	for (unsigned round = test_rounds(500); round; round--) {
		size_t at = test_below(&rng, used);
		unsigned char was = file[at];
		int error;
		file[at] ^= (unsigned char)(1 + test_below(&rng, 255));
		error = open_as(file, size);
		ck_assert_msg(error == -EUCLEAN || error == -EBADMSG, "byte %zu", at);
		file[at] = was;
	}
	ck_assert_int_eq(open_as(file, size), 0);
	free(file);
	memslot_image_unref(image);
}
END_TEST

/* With a checksum that is right. */
START_TEST(a_record_that_does_not_fit_is_damage)
{
	struct memslot_image *image = recorded_image();
	struct ms_format_head *head;
	struct ms_program *program;
	uint64_t *fields[2];
	size_t size;

	ck_assert_int_eq(memslot_image_save(image, "saved"), 0);
	head = (void *)image_read_file("saved", &size);
	program = (struct ms_program *)(uintptr_t)ms_format_program(head);
	fields[0] = &head->program_size;
	fields[1] = &program->count;
	for (int i = 0; i < 2; i++) {
		const uint64_t was = *fields[i], one = sizeof(struct ms_program_object);
		const uint64_t values[] = {0, 1, was - 1, was + 1, was - one, was + one, PAGE,
			MS_FORMAT_HEADER_MAX, UINT64_MAX / one + 1, UINT64_MAX};
		for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
			*fields[i] = values[k];
			head->header_checksum = ms_format_checksum(head);
			ck_assert_msg(open_as((void *)head, size) == -EUCLEAN, "field %d value %zu",
				i, k);
		}
		*fields[i] = was;
	}
	head->header_checksum = ms_format_checksum(head);
	ck_assert_int_eq(open_as((void *)head, size), 0);
	head->program_size = ms_program_size(0); /* no object, and a size that says so */
	program->count = 0;
	head->header_checksum = ms_format_checksum(head);
	ck_assert_int_eq(open_as((void *)head, size), -EUCLEAN);
	free(head);
	memslot_image_unref(image);
}
END_TEST

void image_program_cases(Suite *suite)
{
	TCase *tcase = test_case(suite, "program");

	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_test(tcase, words_are_told_by_where_they_lead);
	tcase_add_test(tcase, every_word_of_every_extent_is_looked_at);
	tcase_add_test(tcase, objects_that_are_not_pointed_into_are_not_recorded);
	tcase_add_test(tcase, without_proc_strays_are_unknown_and_the_rest_is_recorded);
	tcase_add_test(tcase, without_memory_nothing_is_recorded);
	tcase_add_test(tcase, stats_are_filled_up_to_their_size);
	tcase_add_test(tcase, another_build_address_or_machine_is_another_program);
	tcase_add_test(tcase, a_record_is_saved_beside_the_note);
	tcase_add_test(tcase, images_without_a_record_are_written_as_before);
	tcase_add_test(tcase, a_damaged_record_is_found);
	tcase_add_test(tcase, a_record_that_does_not_fit_is_damage);
}
