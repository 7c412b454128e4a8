/* SPDX-License-Identifier: MIT */
/* preload_rules_limits.c - limits that idle slots must not use up. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define MOST 3000
#define NONE_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* So many alive at once, and all of them freed. */
static void many(int count, size_t size, size_t opened)
{
	static char *memory[MOST];

	for (int i = 0; i < count; i++) {
		memory[i] = reserve(size);
		open_part(memory[i], opened);
		memset(memory[i], 1, 64 * KIB);
	}
	for (int i = 0; i < count; i++)
		munmap(memory[i], size);
}

static size_t address_space(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	size_t pages = 0;

	if (!file || fscanf(file, "%zu", &pages) != 1)
		say("no /proc");
	fclose(file);
	return pages * PAGE;
}

static void say_room(const char *what, size_t size)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, NONE_FLAGS, -1, 0);

	say_result(what, memory == MAP_FAILED ? -1 : 0);
	if (memory != MAP_FAILED)
		munmap(memory, size);
}

static void address_space_may_be_limited(void)
{
	struct rlimit limit;
	size_t before = address_space();

	many(24, 256 * MIB, 64 * KIB);
	getrlimit(RLIMIT_AS, &limit);
	limit.rlim_cur = before + 1024 * MIB;
	say_result("limit", setrlimit(RLIMIT_AS, &limit));
	say_room("within", 900 * MIB);
	say_room("beyond", 1100 * MIB);
	tenant(MIB);
	for (int i = 0; i < 3; i++) {
		char *memory = reserve(900 * MIB);
		open_part(memory, MIB);
		say_zero("limited", memory, MIB);
		memory[0] = 1;
		munmap(memory, 900 * MIB);
	}
	say_room("within", 900 * MIB);
	limit.rlim_cur = limit.rlim_max;
	say_result("no limit", prlimit(0, RLIMIT_AS, &limit, NULL));
	say_room("beyond", 1100 * MIB);
	tenant(MIB);
}

static void address_space_may_run_out(void)
{
	const size_t tera = 1024ull * 1024 * MIB;
	char *memory;

	for (int i = 0; i < 3; i++) {
		many(12, 4 * tera, 64 * KIB);
		memory = mmap(NULL, 80 * tera, PROT_NONE, NONE_FLAGS, -1, 0);
		say_result("most of it", memory == MAP_FAILED ? -1 : 0);
		munmap(memory, 80 * tera);
		memory = mmap(NULL, 80 * tera, PROT_READ, NONE_FLAGS, -1, 0);
		say_result("not as a reservation", memory == MAP_FAILED ? -1 : 0);
		munmap(memory, 80 * tera);
		memory = mmap(NULL, 300 * tera, PROT_NONE, NONE_FLAGS, -1, 0);
		say_result("more than there is", memory == MAP_FAILED ? -1 : 0);
		tenant(MIB);
		tenant(MIB);
	}
}

static void mappings_may_run_out(void)
{
	static char *memory[70000];
	int made = 0;

	many(MOST, 16 * MIB, 64 * KIB);
	/* Each of them splits its reservation in two mappings. */
	for (; made < 70000; made++) {
		memory[made] = mmap(NULL, 64 * KIB, PROT_NONE, NONE_FLAGS, -1, 0);
		if (memory[made] == MAP_FAILED || mprotect(memory[made], 2 * PAGE, PROT_READ))
			break;
	}
	say("all there are: %d", made > 32000);
	for (int i = 0; i < made; i++)
		munmap(memory[i], 64 * KIB);
	if (memory[made] != MAP_FAILED)
		munmap(memory[made], 64 * KIB);
	many(24, SIZE, 64 * KIB);
	memory[0] = reserve(SIZE);
	open_part(memory[0], MIB);
	say_zero("after", memory[0], MIB);
}

static void data_may_be_limited(void)
{
	struct rlimit limit;
	char *memory;

	tenant(MIB);
	tenant(MIB);
	many(6, SIZE, 8 * MIB);
	getrlimit(RLIMIT_DATA, &limit);
	limit.rlim_cur = 64 * MIB;
	say_result("limit", setrlimit(RLIMIT_DATA, &limit));
	for (int i = 0; i < 3; i++) {
		memory = reserve(256 * MIB);
		say_result("within", open_part(memory, MIB));
		say_zero("within", memory, MIB);
		memset(memory, 1, MIB);
		say_result("beyond", open_part(memory, 128 * MIB));
		say("%s %s", read_at(memory), read_at(memory + 127 * MIB));
		say_result("munmap", munmap(memory, 256 * MIB));
	}
	many(6, SIZE, 8 * MIB);
	memory = reserve(256 * MIB);
	say_result("most of it", open_part(memory, 40 * MIB));
	say_result("munmap", munmap(memory, 256 * MIB));
	many(6, SIZE, 8 * MIB);
	say_room("most of it", 40 * MIB);
	tenant(MIB);
}

const struct rule rules_limits[] = {
	{"address_space_may_be_limited", address_space_may_be_limited},
	{"address_space_may_run_out", address_space_may_run_out},
	{"mappings_may_run_out", mappings_may_run_out},
	{"data_may_be_limited", data_may_be_limited},
	{0},
};
