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
static void say_life(char *memory)
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

static const int advice[] = {MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE, MADV_FREE,
	MADV_RANDOM, MADV_COLD, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_REMOVE, MADV_POPULATE_READ,
	MADV_POPULATE_WRITE, MADV_MERGEABLE, MADV_DONTDUMP};
static const int prots[] = {PROT_NONE, PROT_READ, RW, RW, RW, RW | PROT_EXEC};

static char *map_over(char *at, size_t size)
{
	static const int flags[] = {MAP_PRIVATE, MAP_PRIVATE, MAP_PRIVATE, MAP_SHARED,
		MAP_PRIVATE | MAP_NORESERVE, MAP_PRIVATE | MAP_POPULATE, MAP_PRIVATE | MAP_LOCKED};

	return mmap(at, size, prots[below(6)],
		flags[below(sizeof flags / sizeof *flags)] | MAP_ANONYMOUS |
			(below(4) ? MAP_FIXED : MAP_FIXED_NOREPLACE),
		-1, 0);
}

/* Inside, or away and what comes with it. */
static void move(char *memory, char *at, size_t size)
{
	static const int ways[] = {0, MREMAP_DONTUNMAP};
	size_t resized = below(2) ? size : (below(12) + 1) * UNIT;
	int how = MREMAP_MAYMOVE | MREMAP_FIXED | ways[below(2)];
	char *away = mmap(NULL, BIG / 4, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *to = below(2) ? away : memory + (32 + below(20)) * UNIT, *moved;

	moved = mremap(at, size, resized, how, to);
	say_result("move", moved == MAP_FAILED ? -1 : 0);
	if (to == away)
		say("moved %s %d", read_at(to), strcmp(read_at(to), "ok") == 0 ? *to : 0);
	munmap(away, BIG / 4);
}

/* Calls that engines do not make. */
static void odd_call(char *memory, char *at, size_t size)
{
	static unsigned char pages[UNITS * UNIT / PAGE];
	int key = below(2) ? -1 : 0;

	switch (below(9)) {
	case 0:
		say_result("lock", mlock(at, size));
		return;
	case 1:
		say_result("unlock", munlock(at, size));
		return;
	case 2:
		say_result("resident", mincore(at, size, pages));
		return;
	case 3:
		say_result("sync", msync(at, size, MS_ASYNC));
		return;
	case 4:
		say_result("key", pkey_mprotect(at, size, prots[below(6)], key));
		return;
	case 5:
		say_result("middle", munmap(at, size));
		return;
	case 6:
		in_child(say_life, memory);
		return;
	case 7:
		in_raw_child(say_life, memory);
		return;
	default: /* what was open before is another mapping to the kernel, and cannot move along */
		if (strcmp(write_at(at), "ok") == 0)
			move(memory, at, size);
	}
}

static void one_call(char *memory)
{
	size_t first = below(3) ? 0 : below(20), size = (below(12) + 1) * UNIT;
	char *at = memory + first * UNIT;

	switch (below(15)) {
	case 0:
		say_result("part", munmap(memory, (below(4) + 1) * UNIT));
		break;
	case 1:
		say_result("tail", munmap(memory + BIG - size, size));
		break;
	case 2:
		say_result("over", map_over(at, size) == MAP_FAILED ? -1 : 0);
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
	case 6:
		odd_call(memory, at, size);
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
