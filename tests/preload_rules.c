/* SPDX-License-Identifier: MIT */
/*
 * preload_rules.c - `preload_rules RULE` runs one rule in this process and prints what it sees,
 * `preload_rules` lists the rules.
 */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct rule *const all[] = {rules_use, rules_map, rules_calls, rules_process,
	rules_threads, rules_raw, rules_limits, rules_odd, rules_random};

void say(const char *format, ...)
{
	char line[512];
	va_list rest;
	int length;

	va_start(rest, format);
	length = vsnprintf(line, sizeof line - 1, format, rest);
	va_end(rest);
	line[length++] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)length) != length)
		_exit(3);
}

void say_result(const char *what, long result)
{
	say("%s: %s", what, result == -1 ? strerrorname_np(errno) : "done");
}

/* --- does it fault? --- */

static sigjmp_buf back;

static void on_fault(int signal)
{
	siglongjmp(back, signal);
}

static const char *access_at(const volatile char *at, bool write)
{
	struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER}, segv, bus;
	int caught;

	sigaction(SIGSEGV, &action, &segv);
	sigaction(SIGBUS, &action, &bus);
	caught = sigsetjmp(back, 1);
	if (caught == 0) {
		char byte = *at;
		if (write)
			*(volatile char *)(uintptr_t)at = byte;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return caught == 0 ? "ok" : caught == SIGSEGV ? "SEGV" : "BUS";
}

const char *read_at(const volatile void *at)
{
	return access_at(at, false);
}

const char *write_at(volatile void *at)
{
	return access_at(at, true);
}

void say_zero(const char *what, const void *memory, size_t size)
{
	const unsigned char *bytes = memory;

	for (size_t i = 0; i < size; i++) {
		if (bytes[i]) {
			say("%s: byte %zu of %zu is %d", what, i, size, bytes[i]);
			return;
		}
	}
	say("%s: %zu zeros", what, size);
}

/* --- tenants --- */

char *reserve(size_t size)
{
	char *memory =
		mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED) {
		say_result("reserve", -1);
		_exit(1);
	}
	return memory;
}

int open_part(char *memory, size_t size)
{
	return mprotect(memory, size, PROT_READ | PROT_WRITE);
}

char *filled(size_t opened, int byte)
{
	char *memory = reserve(SIZE);

	if (open_part(memory, opened)) {
		say_result("open", -1);
		_exit(1);
	}
	memset(memory, byte, opened);
	return memory;
}

char *tenant(size_t opened)
{
	char *memory = filled(opened, 0x5a);

	if (munmap(memory, SIZE))
		say_result("munmap", -1);
	return memory;
}

/* --- what /proc tells --- */

static void say_line(const char *what, const char *line)
{
	static const char *const telling[] = {
		" lo", " dd", " dc", " hg", " nh", " mg", " wf", " sr", " rr", " um", " uw"};
	char found[128] = "";

	for (size_t i = 0; i < sizeof telling / sizeof *telling; i++) {
		if (strstr(line, telling[i]))
			strcat(found, telling[i]);
	}
	say("%s: flags%s", what, *found ? found : " none");
}

void say_flags(const char *what, const void *at)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	char line[1024], rights[8], *name;
	uint64_t start, end, address = (uint64_t)(uintptr_t)at;
	bool inside = false;

	while (maps && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, rights) == 3) {
			inside = start <= address && address < end;
			name = strchr(line, '[');
			if (inside)
				say("%s: %s %s", what, rights, name ? name : "no name");
		} else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
			say_line(what, line);
		}
	}
	if (maps)
		fclose(maps);
}

/* --- children --- */

static void wait_for(long child)
{
	int status = -1;

	while (waitpid((pid_t)child, &status, 0) < 0 && errno == EINTR)
		;
	say("child: %s %d", WIFSIGNALED(status) ? "signal" : "exit",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

void in_child(void (*run)(char *memory), char *memory)
{
	pid_t child = fork();

	if (child == 0) {
		run(memory);
		_exit(0);
	}
	wait_for(child);
}

void in_raw_child(void (*run)(char *memory), char *memory)
{
	long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (child == 0) {
		run(memory);
		_exit(0);
	}
	wait_for(child);
}

/* --- random numbers: xorshift64* (S. Vigna) --- */

uint64_t random_below(uint64_t *state, uint64_t limit)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545f4914f6cdd1dull >> 11) % limit;
}

unsigned rounds(unsigned count)
{
	const char *text = getenv("MEMSLOT_TEST_ROUNDS");
	double scaled = text ? count * atof(text) : count;

	return scaled < 1 ? 1 : (unsigned)scaled;
}

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		for (const struct rule *rule = all[i]; rule->name; rule++) {
			if (argc == 1)
				puts(rule->name);
			else if (strcmp(argv[1], rule->name) == 0)
				return rule->run(), 0;
		}
	}
	return argc > 1;
}
