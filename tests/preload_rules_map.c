/* SPDX-License-Identifier: MIT */
/* preload_rules_map.c - unmapping in part, mapping over, files inside, mremap. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#define NONE_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
#define RW (PROT_READ | PROT_WRITE)

/* The next tenant must find nothing, wherever it is put. */
static void say_next(void)
{
	char *memory = reserve(SIZE);

	say("closed %s %s", read_at(memory), read_at(memory + SIZE - 1));
	open_part(memory, 2 * MIB);
	say_zero("next", memory, 2 * MIB);
	memset(memory, 0x77, 2 * MIB);
	say_result("munmap next", munmap(memory, SIZE));
}

static void parts_may_be_unmapped(void)
{
	/* start and end of what is unmapped, in 64 KiB; 1 MiB is open at 1 MiB */
	static const size_t parts[][2] = {{0, 16}, {0, 17}, {0, 20}, {0, 32}, {0, 1023}, {20, 24},
		{32, 1024}, {31, 1024}, {16, 1024}, {1, 1024}, {512, 600}, {17, 18}, {1023, 1024}};

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		size_t start = parts[i][0] * 64 * KIB, end = parts[i][1] * 64 * KIB;
		char *memory;
		tenant(MIB);
		memory = reserve(SIZE);
		open_part(memory + MIB, MIB);
		memset(memory + MIB, 6, MIB);
		say_result("part", munmap(memory + start, end - start));
		for (size_t at = 0; at < 40; at++)
			say("%zu %s", at, read_at(memory + at * 64 * KIB));
		say_result("protect", mprotect(memory, 2 * MIB, RW));
		say("%s %s", read_at(memory), read_at(memory + 2 * MIB - 1));
		say_result("again", munmap(memory + start, end - start));
		say_result("whole", munmap(memory, SIZE));
		say("gone %s %s", read_at(memory + MIB), read_at(memory + end - 1));
		say_next();
	}
}

static void an_unmap_may_span_two(void)
{
	char *memory = reserve(SIZE), *below;

	below = mmap(memory - SIZE, SIZE, PROT_NONE, NONE_FLAGS, -1, 0);
	say("adjacent %d", below == memory - SIZE);
	open_part(memory, MIB);
	open_part(below + SIZE - MIB, MIB);
	memset(below + SIZE - MIB, 5, 2 * MIB);
	say_result("spanning", munmap(below + SIZE - 64 * KIB, 128 * KIB));
	say("%s %s %s %s", read_at(memory - 1), read_at(memory), read_at(memory + 64 * KIB),
		read_at(memory - 64 * KIB - 1));
	say_result("both", munmap(below, 2 * SIZE));
	say("%s %s", read_at(memory + 64 * KIB), read_at(memory - 64 * KIB - 1));
	say_next();
	/* Both whole, in one call; and one of them idle. */
	memory = reserve(SIZE);
	below = mmap(memory - SIZE, SIZE, PROT_NONE, NONE_FLAGS, -1, 0);
	open_part(memory, MIB);
	memory[0] = 1;
	munmap(memory, SIZE);
	say_result("one idle", munmap(below, below == memory - SIZE ? 2 * SIZE : SIZE));
	say("%s", read_at(memory));
	say_next();
}

/* V8: more than is wanted, cut to an alignment. */
static char *aligned(char **ret_raw)
{
	char *raw = reserve(SIZE + MIB);
	uintptr_t start = ((uintptr_t)raw + MIB - 1) & ~(uintptr_t)(MIB - 1);
	size_t head = start - (uintptr_t)raw;

	madvise(raw, SIZE + MIB, MADV_DONTFORK);
	if (head && munmap(raw, head))
		say_result("head", -1);
	if (head < MIB && munmap((char *)start + SIZE, MIB - head))
		say_result("tail", -1);
	*ret_raw = raw;
	return (char *)start;
}

static void trims_are_unmapped(void)
{
	for (int i = 0; i < 6; i++) {
		char *raw, *memory = aligned(&raw), *tail = memory + SIZE, *over;
		open_part(memory, MIB);
		say_zero("aligned", memory, MIB);
		memset(memory, 1, MIB);
		say("trimmed %s", read_at(tail));
		if (i == 3)
			say_result("beyond", mprotect(memory + SIZE - PAGE, 2 * PAGE, PROT_READ));
		say("end %s", read_at(memory + SIZE - 1));
		say_result("unmap tail again", munmap(tail, PAGE));
		if (i == 2) {
			over = mmap(tail, PAGE, RW,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
			say_result("in the gap", over == tail ? 0 : -1);
			say("%s", write_at(tail));
			munmap(tail, PAGE);
		}
		if (i == 4) {
			over = mmap(tail, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			say_result("over the gap", over == tail ? 0 : -1);
			say("%s", write_at(tail));
			munmap(tail, PAGE);
		}
		say_result("munmap", munmap(memory, SIZE));
		say("after %s", read_at(memory));
	}
}

static void memory_may_be_committed_by_mapping_over(void)
{
	for (int i = 0; i < 4; i++) {
		char *memory = reserve(SIZE);
		for (size_t at = 0; at < MIB; at += 256 * KIB) {
			char *got = mmap(memory + at, 256 * KIB, RW,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			say("there %d", got == memory + at);
			say_zero("committed", memory + at, 256 * KIB);
			memset(memory + at, 4, 256 * KIB);
			say("behind %s", read_at(memory + at + 256 * KIB));
		}
		say("kept %d", memory[0]);
		say_result("munmap", munmap(memory, SIZE));
		say("after %s", read_at(memory));
	}
}

static void mapping_over_gives_zeros(void)
{
	char *memory;

	tenant(MIB);
	memory = filled(MIB, 3);
	say("over %d",
		mmap(memory + 64 * KIB, 64 * KIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			0) == memory + 64 * KIB);
	say_zero("over", memory + 64 * KIB, 64 * KIB);
	say("beside %d %d", memory[64 * KIB - 1], memory[128 * KIB]);
	munmap(memory, SIZE);
	say_next();
	tenant(MIB);
	memory = filled(MIB, 3);
	mprotect(memory + 512 * KIB, 512 * KIB, PROT_NONE);
	mmap(memory + 512 * KIB, 512 * KIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	say_zero("over what was closed", memory + 512 * KIB, 512 * KIB);
	munmap(memory, SIZE);
	say_next();
	tenant(MIB);
	memory = filled(MIB, 3);
	mmap(memory, SIZE, PROT_NONE, NONE_FLAGS | MAP_FIXED, -1, 0);
	say("recycled %s", read_at(memory));
	open_part(memory, MIB);
	say_zero("recycled", memory, MIB);
	munmap(memory, SIZE);
	say_next();
}

static void fixed_without_replacing(void)
{
	char *memory, *got;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

	tenant(MIB);
	memory = filled(MIB, 3);
	got = mmap(memory + MIB, PAGE, RW, flags, -1, 0);
	say_result("into a live one", got == MAP_FAILED ? -1 : 0);
	say("still %d", memory[0]);
	munmap(memory, SIZE);
	got = mmap(memory + MIB, PAGE, RW, flags, -1, 0);
	say_result("into a freed one", got == MAP_FAILED ? -1 : 0);
	say("there %d, %s, beside %s", got == memory + MIB, write_at(got), read_at(got + PAGE));
	say_next();
	say("still %s", write_at(got));
	munmap(got, PAGE);
	tenant(MIB);
	memory = tenant(MIB);
	got = mmap(memory + MIB, SIZE - MIB, PROT_NONE, NONE_FLAGS | MAP_FIXED, -1, 0);
	say("fixed into a freed one %d", got == memory + MIB);
	munmap(got, SIZE - MIB);
	say_next();
}

static int file_of(int byte)
{
	int fd = memfd_create("rule", MFD_CLOEXEC);
	char page[PAGE];

	memset(page, byte, sizeof page);
	if (fd < 0 || write(fd, page, sizeof page) != (ssize_t)sizeof page)
		say_result("file", -1);
	return fd;
}

static void files_may_be_mapped_inside(void)
{
	static const int shared[] = {MAP_PRIVATE, MAP_SHARED};

	for (int i = 0; i < 4; i++) {
		int fd = file_of('f');
		char *memory, *at;
		tenant(MIB);
		memory = i & 2 ? tenant(MIB) : filled(MIB, 3);
		at = mmap(memory + MIB, PAGE, RW, shared[i & 1] | MAP_FIXED, fd, 0);
		say("there %d, reads %c", at == memory + MIB, *at);
		*at = 'g';
		say_next();
		say("still %c", *at);
		say_result("munmap", munmap(memory, SIZE));
		say("after %s %s", read_at(memory), read_at(at));
		close(fd);
		say_next();
	}
}

static void mremap_moves_and_resizes(void)
{
	char *memory, *moved, *target;

	tenant(MIB);
	memory = filled(MIB, 3);
	moved = mremap(memory, MIB, 128 * MIB, MREMAP_MAYMOVE);
	say_result("grow", moved == MAP_FAILED ? -1 : 0);
	say("moved %d, %d, old %s", moved != memory, moved[MIB - 1], read_at(memory));
	say_zero("new", moved + MIB, MIB);
	munmap(moved, 128 * MIB);
	munmap(memory, SIZE);
	say_next();
	memory = filled(MIB, 3);
	moved = mremap(memory, MIB, 64 * KIB, 0);
	say("shrunk %d, kept %s, cut %s", moved == memory, read_at(memory),
		read_at(memory + 64 * KIB));
	munmap(memory, SIZE);
	say_next();
	memory = filled(MIB, 3);
	target = reserve(SIZE);
	moved = mremap(memory, MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED, target);
	say("fixed %d, %d, old %s", moved == target, moved[0], read_at(memory));
	munmap(target, SIZE);
	munmap(memory, SIZE);
	say_next();
	memory = filled(MIB, 3);
	moved = mremap(memory, MIB, MIB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
	say_result("without unmapping", moved == MAP_FAILED ? -1 : 0);
	say("moved %d", moved[0]);
	say_zero("left", memory, MIB);
	munmap(moved, MIB);
	munmap(memory, SIZE);
	say_next();
	memory = filled(MIB, 3);
	say_result("nothing", mremap(memory, 0, MIB, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
	say_result("all", mremap(memory, SIZE, SIZE, 0) == MAP_FAILED ? -1 : 0);
	say_result("in place", mremap(memory, SIZE, 3 * SIZE, 0) == MAP_FAILED ? -1 : 0);
	munmap(memory, SIZE);
	say_next();
}

static void odd_unmaps_are_answered(void)
{
	char *memory = tenant(MIB);

	say_result("twice", munmap(memory, SIZE));
	say_next();
	memory = filled(MIB, 3);
	say_result("unaligned", munmap(memory + 1, PAGE));
	say_result("nothing", munmap(memory, 0));
	say_result("beyond", munmap(memory, (size_t)-PAGE));
	say("still %d", memory[0]);
	say_result("unaligned protect", mprotect(memory + 1, PAGE, PROT_READ));
	say_result("wild protect", mprotect(memory, PAGE, 0x40));
	say_result("empty protect", mprotect(memory, 0, PROT_READ));
	say("still %s", write_at(memory));
	say_result("whole", munmap(memory, SIZE));
	say_next();
}

/* OpenJDK: it looks like a reservation and is never unmapped. */
static void a_heap_is_never_taken(void)
{
	char *heap = reserve(1024 * MIB), *at;
	int fd = file_of('f');

	tenant(MIB);
	for (size_t i = 0; i < 8; i++) {
		at = mmap(heap + i * 4 * MIB, MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			0);
		memset(at, 'h', MIB);
	}
	at = mmap(heap + 512 * MIB, MIB, RW | PROT_EXEC, NONE_FLAGS | MAP_FIXED, -1, 0);
	say_result("code", at == MAP_FAILED ? -1 : 0);
	at = mmap(heap + 600 * MIB, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	say("file %c", *at);
	at = mmap(heap + 4 * MIB, MIB, PROT_NONE, NONE_FLAGS | MAP_FIXED, -1, 0);
	say("uncommitted %s", read_at(at));
	for (int i = 0; i < 20; i++)
		say_next();
	for (size_t i = 0; i < 8; i++)
		say("%zu %s", i,
			i == 1				     ? "gone"
			: heap[i * 4 * MIB + MIB - 1] == 'h' ? "kept"
							     : "lost");
	say("file %c, code %s", heap[600 * MIB], write_at(heap + 512 * MIB));
	close(fd);
}

const struct rule rules_map[] = {
	{"parts_may_be_unmapped", parts_may_be_unmapped},
	{"an_unmap_may_span_two", an_unmap_may_span_two},
	{"trims_are_unmapped", trims_are_unmapped},
	{"memory_may_be_committed_by_mapping_over", memory_may_be_committed_by_mapping_over},
	{"mapping_over_gives_zeros", mapping_over_gives_zeros},
	{"fixed_without_replacing", fixed_without_replacing},
	{"files_may_be_mapped_inside", files_may_be_mapped_inside},
	{"mremap_moves_and_resizes", mremap_moves_and_resizes},
	{"a_heap_is_never_taken", a_heap_is_never_taken},
	{"odd_unmaps_are_answered", odd_unmaps_are_answered},
	{0},
};
