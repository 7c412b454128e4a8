/* SPDX-License-Identifier: MIT */
/*
 * image_inject.c - every system call and allocation of every image function fails once: the call
 * errors or succeeds, leaks nothing, and leaves outputs and files as they were.
 */
#define _GNU_SOURCE
#include "image.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct memslot_image *sample, *mapped;
static unsigned char *bytes;
static int raw;

static void begin(void)
{
	image_folder_begin();
	bytes = image_sample_bytes();
	image_write_file("raw", bytes, SAMPLE_PAGES * PAGE);
	raw = open("raw", O_RDONLY | O_CLOEXEC);
	sample = image_sample();
	ck_assert_int_eq(memslot_image_save(sample, "old"), 0);
	ck_assert_int_eq(
		memslot_image_open("old", IMAGE_OPTS(.flags = MEMSLOT_IMAGE_MAP_FILE), &mapped), 0);
}

static void end(void)
{
	memslot_image_unref(sample);
	memslot_image_unref(mapped);
	close(raw);
	free(bytes);
	image_folder_end();
}

/* --- the calls --- */

static int do_bytes(struct memslot_image **ret_image)
{
	return memslot_image_from_bytes(
		bytes, SAMPLE_PAGES * PAGE, IMAGE_OPTS(.note = "note", .note_size = 4), ret_image);
}

static int do_extents(struct memslot_image **ret_image)
{
	const struct memslot_extent extents[] = {
		{2 * PAGE, bytes + 2 * PAGE, 9 * PAGE}, {0, bytes, 10}, {50 * PAGE, "z", 1}};

	return memslot_image_from_extents(extents, 3, NULL, ret_image);
}

static int do_fd(struct memslot_image **ret_image)
{
	return memslot_image_from_fd(raw, 0, 0, NULL, ret_image);
}

static int do_fd_mapped(struct memslot_image **ret_image)
{
	return memslot_image_from_fd(raw, 0, 0,
		IMAGE_OPTS(.flags = MEMSLOT_IMAGE_MAP_FILE, .note = "note", .note_size = 4),
		ret_image);
}

static int do_open(struct memslot_image **ret_image)
{
	return memslot_image_open("old", NULL, ret_image);
}

static int do_verify(struct memslot_image **ret_image)
{
	return memslot_image_open("old", IMAGE_OPTS(.flags = MEMSLOT_IMAGE_VERIFY), ret_image);
}

static int do_open_mapped(struct memslot_image **ret_image)
{
	return memslot_image_open("old", IMAGE_OPTS(.flags = MEMSLOT_IMAGE_MAP_FILE), ret_image);
}

static int do_save(struct memslot_image **ret_image)
{
	(void)ret_image;
	return memslot_image_save(sample, "old");
}

static int do_save_mapped(struct memslot_image **ret_image)
{
	(void)ret_image;
	return memslot_image_save(mapped, "old");
}

static const struct {
	int (*run)(struct memslot_image **ret_image);
	bool saves;
} jobs[] = {{do_bytes, false}, {do_extents, false}, {do_fd, false}, {do_fd_mapped, false},
	{do_open, false}, {do_verify, false}, {do_open_mapped, false}, {do_save, true},
	{do_save_mapped, true}};

#define JOBS ((int)(sizeof jobs / sizeof *jobs))

/* close, munmap and unlink are left out: one that fails in earnest leaks. */
static const long calls[] = {MS_INJECT_ALLOC, SYS_memfd_create, SYS_openat, SYS_ftruncate,
	SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_fallocate, SYS_fcntl, SYS_fstat, SYS_fsync,
	SYS_renameat, SYS_mmap, SYS_prlimit64, SYS_madvise, SYS_ioctl};

struct world {
	unsigned fds, vmas, files;
};

static struct world look(void)
{
	return (struct world){test_fd_count(), image_mapping_count(), image_folder_count()};
}

/* The file that was there before is whole, the old one or the new one, which are the same. */
static void check_old_file(void)
{
	struct memslot_image *image;

	ck_assert_int_eq(do_verify(&image), 0);
	image_check(image);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
}

static void check_result(int job, int result, struct memslot_image *image)
{
	if (result) {
		ck_assert_int_le(result, -1);
		ck_assert_ptr_eq(image, UNTOUCHED);
	} else if (!jobs[job].saves) {
		image_check(image);
		if (jobs[job].run != do_extents)
			ck_assert(image_holds(image, bytes));
		memslot_image_unref(image);
	}
	if (jobs[job].saves)
		check_old_file();
}

/* Fail the call number `at`. False when there are not so many. */
static bool fail_once(int job, struct ms_os_inject how)
{
	struct world before = look(), after;
	struct memslot_image *image = UNTOUCHED;
	bool reached;
	int result;

	ms_os_inject = how;
	result = jobs[job].run(&image);
	reached = ms_os_inject.seen >= how.at;
	ms_os_inject = (struct ms_os_inject){0};
	ck_assert_msg(reached || result == 0, "job %d fails without a fault: %d", job, result);
	check_result(job, result, image);
	after = look();
	ck_assert_msg(memcmp(&before, &after, sizeof before) == 0,
		"job %d call %ld number %lu: leaked fds %d, mappings %d, files %d", job, how.only,
		(unsigned long)how.at, (int)(after.fds - before.fds),
		(int)(after.vmas - before.vmas), (int)(after.files - before.files));
	return reached;
}

static void fail_each(int job, int error, bool for_good)
{
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		struct ms_os_inject how = {
			.error = error, .for_good = for_good, .only = calls[i], .at = 1};
		while (fail_once(job, how))
			how.at++;
	}
}

START_TEST(a_call_that_fails_once_leaks_nothing)
{
	memslot_feature("memfd_seal"); /* the probes are not what shall fail */
	fail_each(_i, EIO, false);
	fail_each(_i, ENOMEM, false);
	fail_each(_i, EPERM, false);
}
END_TEST

START_TEST(a_call_that_fails_for_good_leaks_nothing)
{
	memslot_feature("memfd_seal");
	fail_each(_i, EIO, true);
	fail_each(_i, ENOSYS, true);
	fail_each(_i, EINVAL, true);
}
END_TEST

/* With every kind of call: only the result can be looked at. */
START_TEST(any_call_may_fail_without_harm_to_outputs)
{
	bool reached = true;

	memslot_feature("memfd_seal");
	for (uint64_t at = 1; reached; at++) {
		struct memslot_image *image = UNTOUCHED;
		int result;
		ms_os_inject = (struct ms_os_inject){.at = at, .error = EIO};
		result = jobs[_i].run(&image);
		reached = ms_os_inject.seen >= at;
		ms_os_inject = (struct ms_os_inject){0};
		check_result(_i, result, image);
	}
}
END_TEST

START_TEST(a_source_without_proc_is_copied_whole)
{
	struct memslot_image *image;

	memslot_feature("memfd_seal");
	ms_os_inject = (struct ms_os_inject){
		.at = 1, .error = ENOENT, .for_good = true, .only = SYS_openat};
	ck_assert_int_eq(do_fd(&image), 0);
	ms_os_inject = (struct ms_os_inject){0};
	image_check(image);
	ck_assert(image_holds(image, bytes));
	memslot_image_unref(image);
}
END_TEST

void image_inject_cases(Suite *suite)
{
	TCase *tcase = test_case(suite, "inject");

	tcase_add_checked_fixture(tcase, begin, end);
	tcase_add_loop_test(tcase, a_call_that_fails_once_leaks_nothing, 0, JOBS);
	tcase_add_loop_test(tcase, a_call_that_fails_for_good_leaks_nothing, 0, JOBS);
	tcase_add_loop_test(tcase, any_call_may_fail_without_harm_to_outputs, 0, JOBS);
	tcase_add_test(tcase, a_source_without_proc_is_copied_whole);
}
