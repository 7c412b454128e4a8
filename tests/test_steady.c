/* SPDX-License-Identifier: MIT */
/*
 * test_steady.c - what a confined slot asks of the kernel once it is warm: one getrusage a cycle.
 *
 * Proven by taking everything else away: a seccomp filter ends the process at the first call that
 * maps, unmaps, protects or advises, and the slot's own counters say how many calls there were.
 * Faults from elsewhere (reclaim, say) may spoil an attempt, so there are a few. The clock stands
 * still: on a busy machine AUTO may find that dropping pays, and be right.
 */
#define _GNU_SOURCE
#include "common.h"

#include "base/os.h"
#include "slot/policy.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IMAGE_PAGES 1024u
#define WARM_CYCLES 1000u
#define CYCLES 100u /* a short window: less comes from elsewhere meanwhile */
#define ATTEMPTS 100

struct workload {
	size_t first, pages, stride;
};

static const struct workload workloads[] = {{0, 1, 1}, {0, 16, 1}, {300, 64, 3}, {1020, 256, 1}};

static void run(struct memslot_slot *slot, const struct workload *workload, unsigned cycle)
{
	unsigned char *base = memslot_slot_base(slot);

	for (size_t i = 0; i < workload->pages; i++)
		base[(workload->first + i * workload->stride) * test_page()] = (unsigned char)(cycle + i);
	if (memslot_slot_reset(slot) != 0)
		_exit(2);
}

/* From here on these calls end the process with SIGSYS. */
static int forbid_memory_calls(void)
{
	struct sock_filter code[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 6, 0),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 5, 0),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 4, 0),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 3, 0),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 2, 0),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_madvise, 1, 0),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = {sizeof code / sizeof code[0], code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
			prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

static struct memslot_slot *warm_slot(const struct workload *workload, unsigned char *contents)
{
	struct memslot_slot_opts opts =
			MEMSLOT_OPTS(memslot_slot_opts, .flags = MEMSLOT_SLOT_CONFINED);
	struct memslot_image *image;
	struct memslot_slot *slot;

	ms_os_inject.clock_stopped = true;
	(void)ms_price_list(); /* measured once a process, in pages of its own */
	test_fill(contents, IMAGE_PAGES * test_page(), 1);
	if (memslot_image_from_bytes(contents, IMAGE_PAGES * test_page(), NULL, &image) ||
			memslot_slot_create(4 * IMAGE_PAGES * test_page(), &opts, &slot) ||
			memslot_slot_instantiate(slot, image, 2 * IMAGE_PAGES * test_page()))
		_exit(3);
	for (unsigned i = 0; i < WARM_CYCLES; i++)
		run(slot, workload, i);
	return slot;
}

/* 0: steady; 1: something spoilt it; worse: it is not. */
static int steady(void *argument)
{
	const struct workload *workload = argument;
	size_t image = IMAGE_PAGES * test_page();
	unsigned char *contents = malloc(image);
	struct memslot_slot *slot = warm_slot(workload, contents);
	struct memslot_slot_stats before = {.size = sizeof before}, after = {.size = sizeof after};
	unsigned char *base = memslot_slot_base(slot);

	memslot_slot_stats(slot, &before); /* the first calls of a child touch pages of its own */
	if (forbid_memory_calls())
		return 77;
	for (unsigned i = 0; i < 20; i++) /* a fault of the filter's own costs one scan */
		run(slot, workload, i);
	memslot_slot_stats(slot, &before);
	for (unsigned i = 0; i < CYCLES; i++)
		run(slot, workload, i);
	memslot_slot_stats(slot, &after);
	if (!test_same(base, contents, image) || !test_zero(base + image, image))
		return 4;
	if (after.resets_known - before.resets_known != CYCLES || after.faults != before.faults)
		return 1;
	return after.syscalls - before.syscalls == CYCLES ? 0 : 1;
}

START_TEST(a_warm_confined_slot_needs_one_getrusage_a_cycle_and_nothing_else)
{
	struct workload workload = workloads[_i];
	int status = -1;

	SKIP_IF(test_sanitized() || !test_faults_allowed(), "tools map memory on their own account");
	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("fault_counter");
	NEED_FEATURE("dontneed");
	NEED_FEATURE("wipe_on_fork"); /* else each cycle asks for the process id, too */
	for (int i = 0; i < ATTEMPTS && status != 0 && status != 77; i++) {
		status = test_in_child(steady, &workload);
		ck_assert_int_ne(status, 4);
	}
	SKIP_IF(status == 77, "seccomp is not to be had");
	ck_assert_int_eq(status, 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("steady");
	TCase *tcase = test_case(suite, "steady state");

	tcase_add_loop_test(tcase, a_warm_confined_slot_needs_one_getrusage_a_cycle_and_nothing_else, 0,
			(int)(sizeof workloads / sizeof workloads[0]));
	return suite;
}
