/* SPDX-License-Identifier: MIT */
/* preload_rules_raw.c - system calls made past the C library, descriptors closed, pages swapped. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define raw_protect(at, size, prot) syscall(SYS_mprotect, at, size, prot)
#define raw_unmap(at, size) syscall(SYS_munmap, at, size)

static char *raw_map(void *at, size_t size, int prot, int flags, int fd)
{
	return (char *)syscall(SYS_mmap, at, size, prot, flags, fd, 0L); /* on the stack: all its bits */
}

static void say_next(void)
{
	char *memory = reserve(SIZE);

	say("closed %s %s", read_at(memory), read_at(memory + 8 * MIB));
	open_part(memory, 16 * MIB);
	say_flags("next", memory);
	say_zero("next", memory, 16 * MIB);
	memset(memory, 0x77, MIB);
	munmap(memory, SIZE);
	say("after %s", read_at(memory));
}

static void raw_calls_may_open_more(void)
{
	for (int i = 0; i < 6; i++) {
		char *memory;
		tenant(MIB);
		memory = filled(MIB, 3);
		raw_protect(memory + 8 * MIB, MIB, RW);
		memset(memory + 8 * MIB, 4, MIB);
		if (i % 2)
			raw_protect(memory + 8 * MIB, MIB, PROT_NONE);
		if (i % 3 == 2) { /* adjacent to what was opened */
			raw_protect(memory + MIB, MIB, RW);
			memset(memory + MIB, 4, MIB);
			raw_protect(memory + MIB, MIB, i == 2 ? PROT_READ : PROT_NONE);
		}
		munmap(memory, SIZE);
		say("after %s", read_at(memory + 8 * MIB));
		say_next();
	}
}

static void raw_calls_may_close(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory;
		tenant(MIB);
		memory = filled(MIB, 3);
		raw_protect(
			memory + (i == 1 ? 64 * KIB : 0), 64 * KIB, i == 2 ? PROT_READ : PROT_NONE);
		say_result("munmap", munmap(memory, SIZE));
		say("after %s", read_at(memory));
		say_next();
	}
}

static void raw_calls_may_unmap(void)
{
	for (int i = 0; i < 4; i++) {
		char *memory, *other, *kept;
		tenant(MIB);
		memory = filled(MIB, 3);
		raw_unmap(memory + (i & 1 ? MIB : 0), i & 1 ? MIB : SIZE);
		if (i == 0) { /* where it was is given to the next */
			other = reserve(SIZE);
			say_result("open", open_part(other, MIB));
			say_zero("other", other, MIB);
			munmap(other, SIZE);
		}
		other = mmap(memory, 4 * MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(other, 'o', 4 * MIB);
		kept = reserve(SIZE);
		open_part(kept, MIB);
		memset(kept, 'k', MIB);
		say_next();
		say("kept %c %c", other[4 * MIB - 1], kept[MIB - 1]);
		munmap(other, 4 * MIB);
		munmap(kept, SIZE);
		if (i & 2)
			say_result("whole", munmap(memory, SIZE));
		say_next();
	}
}

static void raw_calls_may_map_over(void)
{
	int fd = memfd_create("rule", MFD_CLOEXEC);

	say_result("file", ftruncate(fd, (off_t)MIB));
	for (int i = 0; i < 4; i++) {
		char *memory, *at;
		tenant(MIB);
		memory = filled(MIB, 3);
		at = raw_map(memory + (i & 1 ? 8 * MIB : 0), 64 * KIB, RW,
			MAP_FIXED | (i & 2 ? MAP_SHARED : MAP_PRIVATE), fd);
		*at = 'f';
		say_result("munmap", munmap(memory, SIZE));
		say("after %s %s", read_at(memory), read_at(at));
		say_next();
	}
	say_result("read", pread(fd, &(char){0}, 1, 0));
	close(fd);
}

/* What the program maps where it has unmapped, past us: it is never taken away again. */
static void freed_ranges_may_be_mapped_past_us(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory = tenant(MIB), *at;
		at = raw_map(memory + (i == 1 ? 8 * MIB : 0), 64 * KIB, RW,
			MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1);
		say("there %d", at == memory + (i == 1 ? 8 * MIB : 0));
		memset(at, 'r', 64 * KIB);
		say_next();
		say_next();
		say("kept %c", at[64 * KIB - 1]);
		munmap(at, 64 * KIB);
	}
}

static void descriptors_may_be_closed(void)
{
	int first = open("/dev/null", O_RDONLY), second;

	say("number %d", first);
	close(first);
	for (int i = 0; i < 4; i++) {
		tenant(MIB);
		say_next();
		first = open("/dev/null", O_RDONLY);
		say("number %d", first);
		if (i == 1)
			close_range(3, ~0u, 0);
		for (int fd = 3; i == 2 && fd < 1024; fd++)
			dup2(STDIN_FILENO, fd);
		second = open("/proc/self/maps", O_RDONLY);
		if (i == 3) {
			for (int fd = 1000; fd < 1024; fd++)
				dup2(second, fd);
		}
		tenant(MIB);
		say_next();
		close_range(3, i == 0 ? 900 : ~0u, 0);
	}
}

static void pages_may_be_swapped(void)
{
	for (int i = 0; i < 4; i++) {
		char *memory = filled(2 * MIB, 3);
		(void)madvise(memory, 2 * MIB, MADV_PAGEOUT);
		memory[MIB] = 4;
		munmap(memory, SIZE);
		say_next();
		memory = filled(2 * MIB, 3);
		(void)madvise(memory + MIB, MIB, MADV_FREE);
		memory[MIB + 5] = 4;
		munmap(memory, SIZE);
		say_next();
	}
}

const struct rule rules_raw[] = {
	{"raw_calls_may_open_more", raw_calls_may_open_more},
	{"raw_calls_may_close", raw_calls_may_close},
	{"raw_calls_may_unmap", raw_calls_may_unmap},
	{"raw_calls_may_map_over", raw_calls_may_map_over},
	{"freed_ranges_may_be_mapped_past_us", freed_ranges_may_be_mapped_past_us},
	{"descriptors_may_be_closed", descriptors_may_be_closed},
	{"pages_may_be_swapped", pages_may_be_swapped},
	{0},
};
