/* SPDX-License-Identifier: MIT */
/*
 * test_limits.c - what the system may forbid: single calls (seccomp), memory, files, mappings, /proc.
 * Nothing may be stale after it, whatever fails. Everything runs in children.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- a life under a limit --- */

#define IMAGE_FIRST 10
#define IMAGE_COUNT 20

/* Which calls may answer with an error. Never a wrong byte, and never another state than told. */
enum { NOTHING = 0, CAPTURE = 1, CHANGES = 2, ALL = 3 };

/* What the last instantiate that succeeded showed: a reset comes back to it. */
static struct memslot_image *shown;
static size_t shown_size;

static int answered(int error, int may)
{
	if (error && !may)
		fprintf(stderr, "# error %d\n", error);
	return error == 0 || may;
}

static int try_instantiate(struct memslot_slot *slot, struct memslot_image *image, size_t size, int may)
{
	int error = memslot_slot_instantiate(slot, image, size);

	child_check(answered(error, may & CHANGES));
	if (error)
		return 0;
	shown = image;
	shown_size = size;
	child_check(slot_shows(slot, IMAGE_FIRST, image ? IMAGE_COUNT : 0, 4, size));
	return 0;
}

static int try_reset(struct memslot_slot *slot, int may)
{
	int error = memslot_slot_reset(slot);

	child_check(answered(error, may & CHANGES));
	if (error)
		return 0;
	child_check(memslot_slot_image(slot) == shown);
	child_check(slot_shows(slot, IMAGE_FIRST, shown ? IMAGE_COUNT : 0, 4, shown_size));
	return 0;
}

/* An unknown slot may not be touched. */
static bool usable(struct memslot_slot *slot)
{
	return memslot_slot_hold(slot, MEMSLOT_HOLD_IO) == 0 &&
			memslot_slot_unhold(slot, MEMSLOT_HOLD_IO) == 0;
}

static int live_once(struct memslot_slot *slot, struct memslot_image *image, unsigned round, int may)
{
	struct memslot_image *captured = NULL;

	if (usable(slot) && memslot_slot_size(slot) == PAGES(40)) {
		dirty_pages(slot, round, 30, round % 3 + 1);
		child_check(try_reset(slot, may) == 0);
	}
	if (usable(slot))
		dirty_all(slot);
	child_check(answered(memslot_slot_resize(slot, PAGES(45)), may & CHANGES));
	child_check(answered(memslot_slot_resize(slot, PAGES(35)), may & CHANGES));
	child_check(answered(memslot_slot_discard(slot, 0, PAGES(20)), may & CHANGES));
	child_check(answered(memslot_slot_capture(slot, NULL, &captured), may & CAPTURE || !image || !usable(slot)));
	memslot_image_unref(captured);
	child_check(try_reset(slot, may) == 0);
	child_check(try_instantiate(slot, NULL, PAGES(20), may) == 0);
	if (usable(slot))
		dirty_all(slot);
	return try_instantiate(slot, image, PAGES(40), may);
}

static int live(struct memslot_slot *slot, struct memslot_image *image, int may)
{
	shown = memslot_slot_image(slot);
	shown_size = memslot_slot_size(slot);
	child_check(try_instantiate(slot, image, PAGES(40), may) == 0);
	for (unsigned round = 0; round < 6; round++)
		child_check(live_once(slot, image, round, may) == 0);
	return 0;
}

static struct memslot_image *image_or_null(void)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts,
			.slot_offset = PAGES(IMAGE_FIRST));
	unsigned char *bytes = malloc(PAGES(IMAGE_COUNT));
	struct memslot_image *image = NULL;

	test_fill(bytes, PAGES(IMAGE_COUNT), 4);
	if (memslot_image_from_bytes(bytes, PAGES(IMAGE_COUNT), &opts, &image))
		image = NULL;
	free(bytes);
	return image;
}

/* --- seccomp --- */

struct denied {
	const char *name;
	long call;
	int argument; /* which must have value, -1: any */
	uint32_t value;
	int may, may_late; /* what cannot be done without it: from the start, once it was used */
};

static const struct denied denials[] = {
		{"pagemap_scan", SYS_ioctl, 1, 0xc0606610u, NOTHING, NOTHING},
		{"getrusage", SYS_getrusage, -1, 0, NOTHING, NOTHING},
		{"guard_install", SYS_madvise, 2, 102, NOTHING, CHANGES},
		{"guard_remove", SYS_madvise, 2, 103, NOTHING, CHANGES},
		{"dontneed", SYS_madvise, 2, MADV_DONTNEED, NOTHING, NOTHING},
		{"dontneed_locked", SYS_madvise, 2, 24, NOTHING, NOTHING},
		{"nohugepage", SYS_madvise, 2, MADV_NOHUGEPAGE, NOTHING, NOTHING},
		{"populate", SYS_madvise, 2, 23, NOTHING, NOTHING},
		{"memfd_create", SYS_memfd_create, -1, 0, NOTHING, CAPTURE},
		{"add_seals", SYS_fcntl, 1, 1033, NOTHING, CAPTURE},
		{"process_madvise", 440, -1, 0, NOTHING, NOTHING},
		{"io_uring_setup", 425, -1, 0, NOTHING, NOTHING},
		{"mlock", SYS_mlock, -1, 0, NOTHING, NOTHING},
		{"munlock", SYS_munlock, -1, 0, NOTHING, NOTHING},
		{"anon_name", SYS_prctl, 0, 0x53564d41, NOTHING, NOTHING},
		{"pkey_alloc", SYS_pkey_alloc, -1, 0, NOTHING, NOTHING},
		{"sigprocmask", SYS_rt_sigprocmask, -1, 0, NOTHING, NOTHING},
		{"every_madvise", SYS_madvise, -1, 0, NOTHING, CHANGES},
		{"mprotect", SYS_mprotect, -1, 0, ALL, ALL},
		{"fstat", SYS_fstat, -1, 0, ALL, ALL},
};
#define DENIALS ((int)(sizeof denials / sizeof denials[0]))

/* PAGEMAP_SCAN is _IOWR('f', 16, 96 bytes): the number above. */

static int deny(const struct denied *denied, uint32_t error)
{
	uint32_t at = denied->argument < 0 ? 0
					   : (uint32_t)offsetof(struct seccomp_data, args) +
					8 * (uint32_t)denied->argument;
	struct sock_filter code[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)denied->call, 0, 3),
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
					denied->argument < 0 ? (uint32_t)denied->call : denied->value, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof code / sizeof code[0], code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
			prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

struct seccomp_run {
	const struct denied *denied;
	uint32_t error;
	bool late; /* forbidden once slot and image are there, and the features are known */
	int kind;
};

static int live_denied(void *argument)
{
	const struct seccomp_run *run = argument;
	struct memslot_slot *slot = NULL, *second = NULL;
	struct memslot_image *image = NULL;
	int error, may = run->late ? run->denied->may_late : run->denied->may;

	if (run->late) {
		slot = slot_of_kind(run->kind, PAGES(50));
		image = image_or_null();
		child_check(live(slot, image, NOTHING) == 0);
	}
	child_check(deny(run->denied, run->error) == 0);
	if (!run->late) {
		struct memslot_slot_opts opts = kind_opts(run->kind);
		error = memslot_slot_create(PAGES(50), &opts, &slot);
		child_check(answered(error, may & CHANGES));
		image = image_or_null();
		if (error) {
			child_check(slot == NULL);
			return 0;
		}
	}
	child_check(live(slot, image, may) == 0);
	error = memslot_slot_create(PAGES(50), NULL, &second);
	child_check(answered(error, may & CHANGES));
	if (!error) {
		child_check(live(second, image, may) == 0);
		child_check(memslot_slot_destroy(second) == 0);
	}
	child_check(memslot_slot_destroy(slot) == 0);
	memslot_image_unref(image);
	return 0;
}

START_TEST(whatever_call_is_forbidden_no_byte_is_wrong)
{
	static const uint32_t errors[] = {EPERM, ENOSYS};

	/* AUTO, and one forced method for each denial in turn. */
	for (int loop = 0; loop < 4 * SLOT_EDGES; loop++) {
		int half = 2 * SLOT_EDGES, kind = loop < half ? loop : loop + half * (_i % 3);
		for (int late = 0; late < 2; late++) {
			struct seccomp_run run = {&denials[_i], errors[(kind + late) % 2], late, kind};
			int status = test_in_child(live_denied, &run);
			ck_assert_msg(status == 0, "%s, error %u, %s, kind %d: %d", run.denied->name,
					run.error, run.late ? "late" : "from the start", kind, status);
		}
	}
}
END_TEST

/* Without NOHUGEPAGE khugepaged may make pages private without a fault of ours. */
static int live_without_nohugepage(void *unused)
{
	const struct denied denied = {"nohugepage", SYS_madvise, 2, MADV_NOHUGEPAGE, NOTHING, NOTHING};
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.flags = MEMSLOT_SLOT_CONFINED, .reset_method = MEMSLOT_RESET_RESTORE);
	struct memslot_slot *slot;
	uint64_t known;

	(void)unused;
	child_check(deny(&denied, EINVAL) == 0);
	slot = slot_new(PAGES(50), &opts);
	child_check(memslot_slot_instantiate(slot, NULL, PAGES(40)) == 0);
	known = stats_of(slot).resets_known;
	for (unsigned round = 0; round < 10; round++) {
		dirty_pages(slot, 0, 10, 1);
		child_check(memslot_slot_reset(slot) == 0);
	}
	child_check(stats_of(slot).resets_known == known);
	return memslot_slot_destroy(slot);
}

START_TEST(invariant_13_without_nohugepage_the_counter_proves_nothing)
{
	ck_assert_int_eq(test_in_child(live_without_nohugepage, NULL), 0);
}
END_TEST

/* --- limits --- */

static void limit(int resource, rlim_t bytes)
{
	struct rlimit limit;

	/* prlimit(2) itself: compilers disagree about the C library's type of the first argument. */
	syscall(SYS_prlimit64, 0, resource, NULL, &limit);
	limit.rlim_cur = bytes;
	syscall(SYS_prlimit64, 0, resource, &limit, NULL);
}

static int live_without_files(void *kind)
{
	struct memslot_slot_opts opts = kind_opts(*(int *)kind);
	struct memslot_image *image = (struct memslot_image *)1;
	struct memslot_slot *slot;
	char byte = 1;

	limit(RLIMIT_FSIZE, 0); /* libcheck's own notes are a file too: no ck_assert from here on */
	child_check(memslot_slot_create(PAGES(50), &opts, &slot) == 0);
	child_check(memslot_image_from_bytes(&byte, 1, NULL, &image) == -EFBIG);
	child_check(image == (struct memslot_image *)1);
	child_check(live(slot, NULL, NOTHING) == 0);
	return memslot_slot_destroy(slot);
}

/* The signal would end the process: probes and price lists included. */
START_TEST(with_a_file_limit_of_0_slots_work_and_images_are_efbig)
{
	ck_assert_int_eq(test_in_child(live_without_files, &_i), 0);
}
END_TEST

static int live_without_descriptors(void *kind)
{
	struct memslot_slot *slot = slot_of_kind(*(int *)kind, PAGES(50)), *other;
	struct memslot_image *image = image_or_null(), *more = (struct memslot_image *)1;
	char byte = 1;

	limit(RLIMIT_NOFILE, 0);
	child_check(live(slot, image, CAPTURE) == 0);
	child_check(memslot_image_from_bytes(&byte, 1, NULL, &more) == -EMFILE);
	child_check(memslot_slot_create(PAGES(50), NULL, &other) == 0);
	child_check(live(other, image, CAPTURE) == 0);
	child_check(memslot_slot_destroy(other) == 0);
	memslot_image_unref(image);
	return memslot_slot_destroy(slot);
}

START_TEST(without_a_free_descriptor_slots_work)
{
	ck_assert_int_eq(test_in_child(live_without_descriptors, &_i), 0);
}
END_TEST

static rlim_t address_space(const char *field)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[200];
	unsigned long kib = 0;

	while (file && fgets(line, sizeof line, file)) {
		if (strncmp(line, field, strlen(field)) == 0)
			sscanf(line + strlen(field), ": %lu", &kib);
	}
	if (file)
		fclose(file);
	return (rlim_t)kib << 10;
}

static int live_in_little_space(void *resource_and_kind)
{
	const int *run = resource_and_kind;
	bool space = run[0] == RLIMIT_AS;
	struct memslot_slot_opts opts = kind_opts(run[1]);
	struct memslot_slot *slot = slot_of_kind(run[1], PAGES(50)), *large = (struct memslot_slot *)1;
	struct memslot_image *image = image_or_null();
	int error;

	child_check(live(slot, image, NOTHING) == 0);
	if (space)
		limit(RLIMIT_AS, address_space("VmSize") + (1u << 20));
	else
		limit(RLIMIT_DATA, address_space("VmData") + (1u << 20));
	opts.reserve = 0;
	error = memslot_slot_create(256u << 20, &opts, &large);
	child_check(!space || error == -ENOMEM);
	child_check(error == 0 || (error == -ENOMEM && large == (struct memslot_slot *)1));
	if (!error) {
		/* Of the reservation only what is accessible counts. */
		error = memslot_slot_instantiate(large, NULL, PAGES(20));
		if (!error) {
			dirty_all(large);
			child_check(memslot_slot_reset(large) == 0);
			child_check(slot_shows(large, 0, 0, 0, PAGES(20)));
		}
		child_check(memslot_slot_destroy(large) == 0);
	}
	child_check(live(slot, image, ALL) == 0);
	limit(RLIMIT_AS, RLIM_INFINITY);
	limit(RLIMIT_DATA, RLIM_INFINITY);
	child_check(memslot_slot_instantiate(slot, image, PAGES(40)) == 0);
	child_check(live(slot, image, NOTHING) == 0);
	memslot_image_unref(image);
	return memslot_slot_destroy(slot);
}

START_TEST(with_little_address_space_nothing_is_lost)
{
	int run[2] = {RLIMIT_AS, _i};

	ck_assert_int_eq(test_in_child(live_in_little_space, run), 0);
}
END_TEST

START_TEST(with_little_data_nothing_is_lost)
{
	int run[2] = {RLIMIT_DATA, _i};

	ck_assert_int_eq(test_in_child(live_in_little_space, run), 0);
}
END_TEST

/* --- mappings --- */

static int live_without_mappings(void *kind)
{
	enum { MOST = 70000 };
	struct memslot_slot *slot = slot_of_kind(*(int *)kind, PAGES(50));
	struct memslot_image *image = image_or_null();
	unsigned char *wall;
	size_t count = 0;

	child_check(live(slot, image, NOTHING) == 0);
	wall = mmap(NULL, PAGES(2 * MOST), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	child_check(wall != MAP_FAILED);
	while (count < MOST && mprotect(wall + PAGES(2 * count), PAGES(1), PROT_READ) == 0)
		count++;
	if (count == MOST)
		return 77;
	for (unsigned room = 0; room < 6; room++) {
		child_check(live(slot, image, ALL) == 0);
		/* Three more mappings each time: failures move through the calls. */
		munmap(wall + PAGES(2 * (count - room)) - PAGES(1), PAGES(3));
	}
	munmap(wall, PAGES(2 * MOST));
	child_check(memslot_slot_instantiate(slot, image, PAGES(40)) == 0);
	child_check(live(slot, image, NOTHING) == 0);
	memslot_image_unref(image);
	return memslot_slot_destroy(slot);
}

/* W7: nothing ever leaves a hole or a stale byte. */
START_TEST(at_the_limit_of_mappings_nothing_is_stale)
{
	int status = test_in_child(live_without_mappings, &_i);

	SKIP_IF(status == 77, "more mappings are allowed here than are worth making");
	ck_assert_int_eq(status, 0);
}
END_TEST

/* --- /proc --- */

static bool lose_proc(void)
{
	char path[] = "memslot-empty-XXXXXX";

	return mkdtemp(path) && chroot(path) == 0 && chdir("/") == 0;
}

static void remove_folders(void)
{
	/* Made by children that could not remove them from inside. */
	(void)!system("rmdir memslot-empty-?????? 2>/dev/null");
}

static int live_without_proc(void *kind)
{
	struct memslot_slot *slot;
	struct memslot_image *image;

	child_check(lose_proc());
	slot = slot_of_kind(*(int *)kind, PAGES(50));
	image = image_or_null();
	child_check(image != NULL || memslot_feature("memfd_seal") != 1);
	child_check(live(slot, image, NOTHING) == 0);
	memslot_image_unref(image);
	return memslot_slot_destroy(slot);
}

/* The descriptor is closed too, so that it has to be opened again. */
static int live_when_proc_goes(void *kind)
{
	struct memslot_slot *slot = slot_of_kind(*(int *)kind, PAGES(50));
	struct memslot_image *image = image_or_null();
	int image_fd;

	child_check(live(slot, image, NOTHING) == 0);
	child_check(lose_proc());
	child_check(live(slot, image, NOTHING) == 0);
	for (image_fd = 3; image_fd < 64; image_fd++) {
		/* Only what is no memory file: images keep those. */
		if (fcntl(image_fd, 1034 /* F_GET_SEALS */) < 0)
			close(image_fd);
	}
	child_check(live(slot, image, NOTHING) == 0);
	memslot_image_unref(image);
	return memslot_slot_destroy(slot);
}

START_TEST(without_proc_slots_work)
{
	NEED_ROOT();
	ck_assert_int_eq(test_in_child(live_without_proc, &_i), 0);
	remove_folders();
}
END_TEST

START_TEST(slots_work_on_when_proc_goes)
{
	NEED_ROOT();
	ck_assert_int_eq(test_in_child(live_when_proc_goes, &_i), 0);
	remove_folders();
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("limits");
	TCase *calls = test_case(suite, "forbidden calls"), *limits = test_case(suite, "limits");
	TCase *proc = test_case(suite, "proc");

	tcase_add_loop_test(calls, whatever_call_is_forbidden_no_byte_is_wrong, 0, DENIALS);
	tcase_add_test(calls, invariant_13_without_nohugepage_the_counter_proves_nothing);
	each_kind(limits, with_a_file_limit_of_0_slots_work_and_images_are_efbig);
	each_kind(limits, without_a_free_descriptor_slots_work);
	each_kind(limits, with_little_address_space_nothing_is_lost);
	each_kind(limits, with_little_data_nothing_is_lost);
	tcase_add_loop_test(limits, at_the_limit_of_mappings_nothing_is_stale, 0, 2 * SLOT_EDGES);
	each_kind(proc, without_proc_slots_work);
	each_kind(proc, slots_work_on_when_proc_goes);
	return suite;
}
