/* SPDX-License-Identifier: MIT */
/*
 * preload_rules_random.c - random lives: the same operations plainly and under the preload must
 * give the same answers and the same bytes. The seed is in MEMSLOT_TEST_SEED.
 */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LIVES 6
#define UNIT (64 * KIB)
#define UNITS 256 /* of a reservation that are looked at: the first and nothing behind */
#define BIG (32 * MIB)
#define RW (PROT_READ | PROT_WRITE)

static uint64_t state;

static size_t below(size_t limit)
{
	return random_below(&state, limit);
}

/* What each unit shows: the first byte, or that it faults. */
static void say_life(const char *memory)
{
	char line[UNITS + 1];

	for (size_t i = 0; i < UNITS; i++) {
		const char *at = memory + i * UNIT;
		bool open = strcmp(read_at(at), "ok") == 0;
		line[i] = (char)(!open ? '-' : *at == 0 ? '0' : 'a' + *at % 26);
		if (open && strcmp(write_at((char *)(uintptr_t)at), "ok") != 0)
			line[i] = (char)(*at ? 'A' + *at % 26 : 'O');
	}
	line[UNITS] = 0;
	say("%s", line);
}

static void write_what_is_open(char *memory)
{
	size_t first = below(24);

	for (size_t i = first; i < first + below(8) + 1; i++) {
		char *at = memory + i * UNIT + below(16) * PAGE;
		if (strcmp(write_at(at), "ok") == 0) {
			*at = (char)(1 + below(100));
			memory[i * UNIT] = (char)(1 + below(100));
		}
	}
}

static void one_call(char *memory)
{
	static const int prots[] = {PROT_NONE, PROT_READ, RW, RW, RW, RW};
	static const int advice[] = {MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE,
		MADV_FREE, MADV_RANDOM, MADV_COLD};
	size_t first = below(3) ? 0 : below(20), size = (below(12) + 1) * UNIT;
	char *at = memory + first * UNIT;

	switch (below(14)) {
	case 0:
		say_result("part", munmap(memory, (below(4) + 1) * UNIT));
		break;
	case 1:
		say_result("tail", munmap(memory + BIG - size, size));
		break;
	case 2:
		say_result("over", mmap(at, size, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
					   0) == MAP_FAILED
					   ? -1
					   : 0);
		break;
	case 3:
		say_result(
			"advise", madvise(at, size, advice[below(sizeof advice / sizeof *advice)]));
		break;
	case 4:
		say_result("advise all",
			madvise(memory, BIG, advice[below(sizeof advice / sizeof *advice)]));
		break;
	case 5:
		say_result("protect", mprotect(at, size, prots[below(6)]));
		break;
	default:
		say_result("open", mprotect(at, size, RW));
		write_what_is_open(memory);
	}
}

static char *begin(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (below(2) ? MAP_NORESERVE : 0);
	char *memory = mmap(NULL, BIG, PROT_NONE, flags, -1, 0);

	if (memory == MAP_FAILED)
		abort();
	return memory;
}

static void random_lives(void)
{
	const char *seed = getenv("MEMSLOT_TEST_SEED");
	char *lives[LIVES] = {0};

	state = (seed ? strtoull(seed, NULL, 0) : 1) * 2654435761u + 1;
	for (unsigned i = rounds(1500); i; i--) {
		char **life = &lives[below(LIVES)];
		if (!*life)
			*life = begin();
		for (size_t calls = below(4); calls; calls--)
			one_call(*life);
		/* MADV_FREE: the kernel may have taken it or not. */
		say_life(*life);
		if (below(2)) {
			say_result("end", munmap(*life, BIG));
			*life = NULL;
		}
	}
}

const struct rule rules_random[] = {
	{"random_lives", random_lives},
	{0},
};
