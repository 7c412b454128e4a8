/* SPDX-License-Identifier: MIT */
/* preload_rules_calls.c - calls on freed ranges, and what a tenant must not leave behind. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#define RW (PROT_READ | PROT_WRITE)

static long ask(int which, char *at, size_t size)
{
	static unsigned char vector[SIZE / PAGE];

	switch (which) {
	case 0:
		return mprotect(at, size, RW);
	case 1:
		return mprotect(at, size, PROT_NONE);
	case 2:
		return madvise(at, size, MADV_DONTNEED);
	case 3:
		return madvise(at, size, MADV_DONTFORK);
	case 4:
		return mincore(at, size, vector);
	case 5:
		return msync(at, size, MS_ASYNC);
	case 6:
		return mlock(at, size);
	case 7:
		return munlock(at, size);
	case 8:
		return mremap(at, size, size, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0;
	case 9:
		return madvise(at, size, MADV_HUGEPAGE);
	case 10:
		return mlock2(at, size, 0);
	case 11:
		errno = posix_madvise(at, size, POSIX_MADV_RANDOM);
		return errno ? -1 : 0;
	case 12:
		return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, size, "rule");
	case 13:
		return madvise(at, size, MADV_POPULATE_WRITE);
	case 14:
		return mremap(at, size, 2 * size, 0) == MAP_FAILED ? -1 : 0;
	default:
		return munmap(at, size);
	}
}
#define ASKED 16

static void say_next(void)
{
	char *memory = reserve(SIZE);

	say("closed %s", read_at(memory));
	open_part(memory, 2 * MIB);
	say_flags("next", memory);
	say_flags("inside", memory + 96 * KIB);
	say_zero("next", memory, 2 * MIB);
	memset(memory, 0x77, 2 * MIB);
	munmap(memory, SIZE);
}

static void freed_ranges_are_not_there(void)
{
	for (int which = 0; which < ASKED; which++) {
		char *memory = tenant(MIB), line[32] = "whole", part[32] = "part";
		line[5] = part[4] = (char)('a' + which);
		say_result(line, ask(which, memory, SIZE));
		say("%s", read_at(memory));
		memory = tenant(MIB);
		say_result(part, ask(which, memory + 64 * KIB, 128 * KIB));
		say("%s", read_at(memory + 64 * KIB));
		say_next();
	}
}

static void trimmed_parts_are_not_there(void)
{
	for (int which = 0; which < ASKED; which++) {
		char *memory, line[32] = "head", over[32] = "over";
		tenant(MIB);
		memory = reserve(SIZE);
		munmap(memory, MIB);
		open_part(memory + MIB, MIB);
		memory[MIB] = 'x';
		line[4] = over[4] = (char)('a' + which);
		say_result(line, ask(which, memory, 64 * KIB));
		say("%s %c", read_at(memory), memory[MIB]);
		if (which != 8 && which != 14 && which != 15)
			say_result(over, ask(which, memory + 512 * KIB, MIB));
		munmap(memory, SIZE);
		say_next();
	}
}

static void live_ranges_answer(void)
{
	for (int which = 0; which < ASKED; which++) {
		char *memory, line[32] = "open", closed[32] = "closed";
		tenant(2 * MIB);
		memory = filled(MIB, 3);
		line[4] = closed[6] = (char)('a' + which);
		say_result(line, ask(which, memory + 64 * KIB, 64 * KIB));
		say("%s", read_at(memory + 64 * KIB));
		say_result(closed, ask(which, memory + 2 * MIB, 64 * KIB));
		say("%s %s", read_at(memory), read_at(memory + 2 * MIB));
		munmap(memory, SIZE);
		say_next();
	}
}

static void advice_is_not_inherited(void)
{
	static const int advice[] = {MADV_DONTFORK, MADV_DONTDUMP, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_SEQUENTIAL, MADV_RANDOM, MADV_MERGEABLE, MADV_WIPEONFORK, MADV_FREE, MADV_COLD,
		MADV_DONTNEED, MADV_WILLNEED, MADV_NORMAL, 102 /* guard markers */, 9999};

	for (size_t i = 0; i < sizeof advice / sizeof *advice; i++) {
		char *memory = reserve(SIZE);
		open_part(memory, 2 * MIB);
		memset(memory, 3, 2 * MIB);
		say_result("part", madvise(memory + MIB, MIB, advice[i]));
		munmap(memory, SIZE);
		say_next();
		memory = reserve(SIZE);
		say_result("whole, before", madvise(memory, SIZE, advice[i]));
		open_part(memory, 3 * MIB);
		say("%s", write_at(memory + 2 * MIB));
		munmap(memory, SIZE);
		say_next();
		memory = reserve(SIZE);
		open_part(memory, MIB);
		memset(memory, 3, MIB);
		say_result("whole, after", madvise(memory, SIZE, advice[i]));
		if (advice[i] != MADV_HUGEPAGE) /* which the preload puts off */
			say_flags("advised", memory);
		munmap(memory, SIZE);
		say_next();
	}
}

static void names_are_not_inherited(void)
{
	char *memory;

	for (int i = 0; i < 3; i++) {
		memory = filled(MIB, 3);
		say_result("name", prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, MIB, "rule"));
		say_flags("named", memory);
		munmap(memory, SIZE);
		say_next();
	}
}

static void locks_are_not_inherited(void)
{
	char *memory;

	for (int i = 0; i < 3; i++) {
		memory = filled(MIB, 3);
		say_result("lock", mlock(memory + 64 * KIB, 64 * KIB));
		say_result("drop", madvise(memory, MIB, MADV_DONTNEED));
		munmap(memory, SIZE);
		say_next();
		memory = filled(MIB, 3);
		say_result("lock", mlock2(memory, 64 * KIB, MLOCK_ONFAULT));
		if (i == 1)
			munlock(memory, SIZE);
		munmap(memory, SIZE);
		say_next();
	}
	tenant(MIB);
	say_result("all", mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
	say_next();
	say_result("none", munlockall());
	say_next();
	say_next();
}

static void code_is_not_inherited(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory = filled(MIB, 3);
		say_result("exec", mprotect(memory, 64 * KIB, RW | PROT_EXEC));
		say_flags("code", memory);
		if (i == 1)
			open_part(memory, 64 * KIB);
		munmap(memory, SIZE);
		say_next();
		memory = reserve(SIZE);
		say_result("exec, unopened", mprotect(memory, MIB, PROT_READ | PROT_EXEC));
		munmap(memory, SIZE);
		say_next();
	}
}

static void keys_are_not_inherited(void)
{
	int key = pkey_alloc(0, 0);
	char *memory;

	for (int i = 0; i < 3; i++) {
		memory = filled(MIB, 3);
		say_result("keyed", pkey_mprotect(memory, 64 * KIB, RW, key) ? -1 : 0);
		if (key >= 0)
			pkey_set(key, i == 1 ? PKEY_DISABLE_ACCESS : 0);
		say("%s", read_at(memory));
		munmap(memory, SIZE);
		say_next();
		memory = filled(MIB, 3);
		say_result("no key", pkey_mprotect(memory, 2 * MIB, RW, -1));
		say("%s", write_at(memory + 2 * MIB - 1));
		munmap(memory, SIZE);
		say_next();
	}
}

static void advice_of_others_is_not_inherited(void)
{
	struct iovec range;
	char *memory;
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

	tenant(MIB);
	memory = filled(MIB, 3);
	range = (struct iovec){memory, MIB};
	say("advised %zd", process_madvise(self, &range, 1, MADV_COLD, 0));
	munmap(memory, SIZE);
	say_next();
	memory = tenant(MIB);
	range = (struct iovec){memory, MIB};
	say_result("freed", process_madvise(self, &range, 1, MADV_COLD, 0) < 0 ? -1 : 0);
	say_next();
}

const struct rule rules_calls[] = {
	{"freed_ranges_are_not_there", freed_ranges_are_not_there},
	{"trimmed_parts_are_not_there", trimmed_parts_are_not_there},
	{"live_ranges_answer", live_ranges_answer},
	{"advice_is_not_inherited", advice_is_not_inherited},
	{"names_are_not_inherited", names_are_not_inherited},
	{"locks_are_not_inherited", locks_are_not_inherited},
	{"code_is_not_inherited", code_is_not_inherited},
	{"keys_are_not_inherited", keys_are_not_inherited},
	{"advice_of_others_is_not_inherited", advice_of_others_is_not_inherited},
	{0},
};
