/* SPDX-License-Identifier: MIT */
/* preload_rules_odd.c - arguments and orders of calls that no engine has, and whose answers hold.
 */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define RW (PROT_READ | PROT_WRITE)
#define NONE_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static void offsets_are_looked_at(void)
{
	static const off_t offsets[] = {0, 1, 64 * KIB, -1, -4096, 4095};

	for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
		char *memory;
		tenant(MIB);
		memory = mmap(NULL, SIZE, PROT_NONE, NONE_FLAGS, 99, offsets[i]);
		say_result("mapped", memory == MAP_FAILED ? -1 : 0);
		if (memory != MAP_FAILED)
			munmap(memory, SIZE);
	}
}

/* A place that the program has unmapped is free: a hint that names it is taken. */
static void freed_places_may_be_asked_for(void)
{
	for (int i = 0; i < 4; i++) {
		char *memory = tenant(MIB), *at = memory + (i & 1 ? MIB : 0), *got;
		got = mmap(at, i & 2 ? SIZE - MIB : PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		say("there %d, %s", got == at, write_at(got));
		munmap(got, i & 2 ? SIZE - MIB : PAGE);
		memory = reserve(SIZE);
		munmap(memory + SIZE - MIB, MIB);
		open_part(memory, MIB);
		at = memory + SIZE - MIB;
		got = mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		say("trimmed there %d, %s", got == at, write_at(got));
		munmap(memory, SIZE);
	}
	tenant(MIB);
	tenant(MIB);
}

static void child_reads(char *memory)
{
	say("%s %s", read_at(memory), read_at(memory + MIB));
}

/* Mapping over takes the advice away that the reservation has. */
static void what_is_mapped_over_has_no_advice(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory;
		tenant(MIB);
		memory = reserve(SIZE);
		if (i != 1)
			madvise(memory, SIZE, MADV_DONTFORK);
		mmap(memory, MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		memory[0] = 1;
		say_flags("over", memory);
		say_flags("behind", memory + MIB);
		in_child(child_reads, memory);
		in_raw_child(child_reads, memory);
		munmap(memory, SIZE);
	}
}

static void limits_may_lie_nowhere(void)
{
	void *volatile nowhere = (void *)8;

	tenant(MIB);
	tenant(MIB);
	say_result("set", setrlimit(RLIMIT_AS, nowhere));
	say_result("exchange", prlimit(0, RLIMIT_AS, nowhere, nowhere));
	tenant(MIB);
}

static void what_is_not_open_may_be_moved(void)
{
	for (int i = 0; i < 4; i++) {
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | (i & 1 ? MAP_NORESERVE : 0);
		char *memory, *moved;

		memory = mmap(NULL, SIZE, PROT_NONE, flags, -1, 0);
		open_part(memory, MIB);
		memory[0] = 1;
		munmap(memory, SIZE);
		memory = mmap(NULL, SIZE, PROT_NONE, flags, -1, 0);
		if (i & 2)
			munmap(memory, MIB / 2);
		moved = mremap(memory + MIB / 2, MIB, 2 * SIZE, MREMAP_MAYMOVE);
		say_result("moved", moved == MAP_FAILED ? -1 : 0);
		munmap(moved, 2 * SIZE);
		munmap(memory, SIZE);
	}
}

const struct rule rules_odd[] = {
	{"offsets_are_looked_at", offsets_are_looked_at},
	{"freed_places_may_be_asked_for", freed_places_may_be_asked_for},
	{"what_is_mapped_over_has_no_advice", what_is_mapped_over_has_no_advice},
	{"what_is_not_open_may_be_moved", what_is_not_open_may_be_moved},
	{"limits_may_lie_nowhere", limits_may_lie_nowhere},
	{0},
};
