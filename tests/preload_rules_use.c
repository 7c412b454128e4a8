/* SPDX-License-Identifier: MIT */
/* preload_rules_use.c - what a tenant finds: zeros, guards, its own bytes and nobody else's. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void fresh_memory_reads_zero(void)
{
	for (int i = 0; i < 5; i++) {
		char *memory = reserve(SIZE);
		say_result("open", open_part(memory, MIB));
		say_zero("fresh", memory, MIB);
		memset(memory, 0xa5, MIB);
		say_result("munmap", munmap(memory, SIZE));
	}
}

static void nothing_is_accessible_until_it_is_opened(void)
{
	char *memory;

	tenant(MIB);
	memory = reserve(SIZE);
	say("first %s %s, last %s", read_at(memory), write_at(memory), read_at(memory + SIZE - 1));
	open_part(memory, 64 * KIB);
	say("last byte %s, next %s", write_at(memory + 64 * KIB - 1), read_at(memory + 64 * KIB));
	munmap(memory, SIZE);
}

static void use_after_unmap_faults(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory = tenant(MIB);
		say("read %s write %s", read_at(memory), write_at(memory));
		say("last %s, end %s", read_at(memory + MIB - 1), read_at(memory + SIZE - 1));
	}
}

static void a_smaller_successor_is_guarded(void)
{
	char *memory;

	tenant(4 * MIB);
	memory = reserve(SIZE);
	open_part(memory, 64 * KIB);
	say_zero("small", memory, 64 * KIB);
	for (size_t at = 64 * KIB; at < 5 * MIB; at += 300 * KIB)
		say("at %zu: %s %s", at, read_at(memory + at), write_at(memory + at));
	open_part(memory, 4 * MIB);
	say_zero("grown", memory, 4 * MIB);
	munmap(memory, SIZE);
}

static void growth_reads_zero(void)
{
	char *memory;

	tenant(3 * MIB);
	memory = reserve(SIZE);
	for (size_t end = 64 * KIB; end <= 4 * MIB; end *= 2) {
		say_result("grow", open_part(memory, end));
		say_zero("new half", memory + end / 2, end / 2);
		memset(memory, 1, end);
		say("behind %s", read_at(memory + end));
	}
	munmap(memory, SIZE);
	tenant(4 * MIB);
	memory = reserve(SIZE);
	for (size_t at = 0; at < MIB; at += 64 * KIB) {
		say_result("delta", mprotect(memory + at, 64 * KIB, PROT_READ | PROT_WRITE));
		say_zero("delta", memory + at, 64 * KIB);
		memset(memory + at, 2, 64 * KIB);
	}
	munmap(memory, SIZE);
	tenant(PAGE);
}

static void a_header_page_comes_first(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory = reserve(SIZE);
		open_part(memory, PAGE + 64 * KIB);
		say_zero("with header", memory, PAGE + 64 * KIB);
		memset(memory, 3, PAGE + 64 * KIB);
		mprotect(memory + PAGE + 64 * KIB, 64 * KIB, PROT_READ | PROT_WRITE);
		say_zero("grown", memory + PAGE + 64 * KIB, 64 * KIB);
		memset(memory + PAGE + 64 * KIB, 4, 64 * KIB);
		munmap(memory, SIZE);
	}
}

static void a_guard_may_lie_in_front(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory = reserve(SIZE), *middle = memory + 16 * MIB;
		open_part(middle, MIB);
		say("before %s, first %s, last %s, behind %s", read_at(middle - 1), read_at(middle),
			read_at(middle + MIB - 1), read_at(middle + MIB));
		say_zero("middle", middle, MIB);
		memset(middle, 7, MIB);
		munmap(memory, SIZE);
		say("after %s", read_at(middle));
	}
	tenant(20 * MIB);
}

static void a_later_opening_closes_what_lies_before(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory;
		tenant(i == 1 ? 20 * MIB : MIB);
		memory = reserve(SIZE);
		open_part(memory + 16 * MIB, MIB);
		say("%s %s %s %s", read_at(memory), read_at(memory + 16 * MIB - 1),
			read_at(memory + 16 * MIB), read_at(memory + 17 * MIB));
		say_zero("later", memory + 16 * MIB, MIB);
		memset(memory + 16 * MIB, 1, MIB);
		munmap(memory, SIZE);
	}
}

static void memory_may_be_read_only(void)
{
	char *memory;

	tenant(MIB);
	memory = reserve(SIZE);
	say_result("read only", mprotect(memory, MIB, PROT_READ));
	say("read %s write %s", read_at(memory), write_at(memory));
	say_zero("read only", memory, MIB);
	open_part(memory, MIB);
	memset(memory, 9, MIB);
	say_result("read only again", mprotect(memory, 64 * KIB, PROT_READ));
	say("first is %d, write %s, behind %s", memory[0], write_at(memory),
		write_at(memory + 64 * KIB));
	munmap(memory, SIZE);
	memory = reserve(SIZE);
	open_part(memory, MIB);
	say("write %s", write_at(memory));
	say_zero("next", memory, MIB);
	say_result("write only", mprotect(memory, PAGE, PROT_WRITE));
	munmap(memory, SIZE);
}

static void two_runs_may_be_open(void)
{
	char *memory;

	for (int i = 0; i < 3; i++) {
		tenant(2 * MIB);
		memory = reserve(SIZE);
		open_part(memory, 64 * KIB);
		open_part(memory + MIB, 64 * KIB);
		say("gap %s, second %s, behind %s", read_at(memory + 64 * KIB),
			write_at(memory + MIB), read_at(memory + MIB + 64 * KIB));
		memset(memory, 1, 64 * KIB);
		memset(memory + MIB, 2, 64 * KIB);
		munmap(memory, SIZE);
		say("after %s %s", read_at(memory), read_at(memory + MIB));
	}
	memory = reserve(SIZE);
	open_part(memory, 2 * MIB);
	say_zero("next", memory, 2 * MIB);
}

static void what_is_closed_keeps_its_bytes(void)
{
	char *memory;

	tenant(MIB);
	memory = filled(MIB, 8);
	mprotect(memory + 512 * KIB, 512 * KIB, PROT_NONE);
	say("closed %s", read_at(memory + 512 * KIB));
	open_part(memory, MIB);
	say("kept %d", memory[MIB - 1]);
	mprotect(memory, 512 * KIB, PROT_NONE);
	say("head closed %s, tail %s", read_at(memory), read_at(memory + 512 * KIB));
	munmap(memory, SIZE);
	memory = reserve(SIZE);
	open_part(memory, MIB);
	say_zero("next", memory, MIB);
	memset(memory, 8, MIB);
	mprotect(memory, MIB, PROT_NONE);
	munmap(memory, SIZE);
	memory = reserve(SIZE);
	open_part(memory, MIB);
	say_zero("after all was closed", memory, MIB);
	memset(memory, 8, MIB);
	mprotect(memory + 256 * KIB, 256 * KIB, PROT_NONE);
	say("hole %s", read_at(memory + 256 * KIB));
	munmap(memory, SIZE);
	memory = reserve(SIZE);
	open_part(memory, MIB);
	say_zero("after a hole", memory, MIB);
}

static void kinds_do_not_mix(void)
{
	for (int i = 0; i < 4; i++) {
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | (i & 1 ? MAP_NORESERVE : 0);
		size_t size = i & 2 ? SIZE : SIZE + 60 * KIB;
		char *memory = mmap(NULL, size, PROT_NONE, flags, -1, 0);
		say_flags("new", memory);
		say("end %s", read_at(memory + size - 1));
		open_part(memory, MIB);
		say_zero("new", memory, MIB);
		memset(memory, 1, MIB);
		say_result("munmap", munmap(memory, size));
	}
	tenant(MIB);
	tenant(MIB);
}

static void sizes_are_rounded_to_pages(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory = reserve(SIZE - 100);
		say_result("open", mprotect(memory, 64 * KIB - 5, PROT_READ | PROT_WRITE));
		say("last %s, next %s", read_at(memory + 64 * KIB - 1), read_at(memory + 64 * KIB));
		say_zero("opened", memory, 64 * KIB);
		memset(memory, 1, 64 * KIB);
		say_result("munmap", munmap(memory, SIZE - 200));
		say("after %s", read_at(memory));
	}
}

static void errno_is_kept_on_success(void)
{
	for (int i = 0; i < 3; i++) {
		char *memory;
		errno = 77;
		memory = reserve(SIZE);
		say("mmap %d", errno);
		open_part(memory, MIB);
		say("mprotect %d", errno);
		memory[0] = 1;
		madvise(memory, SIZE, MADV_DONTFORK);
		say("madvise %d", errno);
		munmap(memory, SIZE);
		say("munmap %d", errno);
	}
}

static void huge_pages_leave_nothing_behind(void)
{
	for (int i = 0; i < 70; i++) {
		char *memory = reserve(SIZE);
		if (i % 5 != 4)
			madvise(memory, SIZE, MADV_HUGEPAGE);
		open_part(memory, 4 * MIB);
		say_zero("huge", memory, 4 * MIB);
		memset(memory, 1, i % 7 == 6 ? PAGE : 4 * MIB);
		say("behind %s", read_at(memory + 4 * MIB));
		munmap(memory, SIZE);
	}
}

static void a_hint_is_a_hint(void)
{
	char *hint = tenant(MIB), *memory;

	memory = mmap(hint, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	say("mapped %d", memory != MAP_FAILED);
	open_part(memory, MIB);
	say_zero("there", memory, MIB);
	memory[0] = 1;
	munmap(memory, SIZE);
	/* Looking for a place that suits: each try must find another. */
	hint -= 1ull << 40;
	memory = NULL;
	for (int i = 0; i < 10 && memory != hint; i++) {
		memory = mmap(
			hint, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory != hint)
			munmap(memory, SIZE);
	}
	say("found %d", memory == hint);
}

const struct rule rules_use[] = {
	{"fresh_memory_reads_zero", fresh_memory_reads_zero},
	{"nothing_is_accessible_until_it_is_opened", nothing_is_accessible_until_it_is_opened},
	{"use_after_unmap_faults", use_after_unmap_faults},
	{"a_smaller_successor_is_guarded", a_smaller_successor_is_guarded},
	{"growth_reads_zero", growth_reads_zero},
	{"a_header_page_comes_first", a_header_page_comes_first},
	{"a_guard_may_lie_in_front", a_guard_may_lie_in_front},
	{"a_later_opening_closes_what_lies_before", a_later_opening_closes_what_lies_before},
	{"memory_may_be_read_only", memory_may_be_read_only},
	{"two_runs_may_be_open", two_runs_may_be_open},
	{"what_is_closed_keeps_its_bytes", what_is_closed_keeps_its_bytes},
	{"kinds_do_not_mix", kinds_do_not_mix},
	{"sizes_are_rounded_to_pages", sizes_are_rounded_to_pages},
	{"errno_is_kept_on_success", errno_is_kept_on_success},
	{"huge_pages_leave_nothing_behind", huge_pages_leave_nothing_behind},
	{"a_hint_is_a_hint", a_hint_is_a_hint},
	{0},
};
