/* SPDX-License-Identifier: MIT */
/* failing.c - fail the n-th system call of a kind, for n = 1, 2, ... until a run passes. */
#define _GNU_SOURCE
#include "failing.h"

#include "base/os.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	long number;
} kinds[] = {{"calloc", MS_INJECT_ALLOC}, {"mmap", SYS_mmap}, {"munmap", SYS_munmap},
	{"mprotect", SYS_mprotect}, {"madvise", SYS_madvise}, {"munlock", SYS_munlock},
	{"ioctl", SYS_ioctl}, {"openat", SYS_openat}, {"close", SYS_close}, {"lseek", SYS_lseek},
	{"pread", SYS_pread64}, {"pwrite", SYS_pwrite64}, {"fstat", SYS_fstat},
	{"fcntl", SYS_fcntl}, {"ftruncate", SYS_ftruncate}, {"fallocate", SYS_fallocate},
	{"memfd_create", SYS_memfd_create}, {"getrandom", SYS_getrandom},
	{"getrusage", SYS_getrusage}, {"prctl", SYS_prctl}, {"prlimit", SYS_prlimit64},
	{"process_madvise", SYS_process_madvise}};
#define KINDS (sizeof kinds / sizeof kinds[0])

static const struct {
	int error;
	bool partial, for_good;
} ways[] = {{ENOMEM, false, false}, {EINVAL, false, false}, {EPERM, false, false},
	{EINVAL, true, false}, {EINVAL, false, true}, {ENOMEM, true, true}};
#define WAYS (sizeof ways / sizeof ways[0])

#define TRIES 10 /* a leak comes with every run */
#define CALLS_MAX 500

static struct {
	size_t kind, way;
	uint64_t at;
	bool hit;
} now;

const char *failing_story(void)
{
	static char story[160];

	snprintf(story, sizeof story, "%s number %u fails with %d%s%s", kinds[now.kind].name,
		(unsigned)now.at, ways[now.way].error, ways[now.way].partial ? ", half done" : "",
		ways[now.way].for_good ? ", for good" : "");
	return story;
}

void failing_begin(void)
{
	ms_os_inject = (struct ms_os_inject){.at = now.at,
		.error = ways[now.way].error,
		.partial = ways[now.way].partial,
		.for_good = ways[now.way].for_good,
		.only = kinds[now.kind].number};
}

int failing_end(void)
{
	now.hit = ms_os_inject.seen >= now.at;
	ms_os_inject.at = 0;
	return now.hit ? -ways[now.way].error : 0;
}

/* --- leaks --- */

struct world {
	size_t fds, mappings, blocks;
};

static struct world look(void)
{
	return (struct world){
		test_fd_count(), test_vma_count(NULL, SIZE_MAX), atomic_load(&ms_os_inject_blocks)};
}

/* What could not be given back cannot count. */
static bool grew(const struct world *before, const struct world *after, long number)
{
	if (after->fds > before->fds && number != SYS_close)
		return true;
	return after->blocks > before->blocks ||
	       (number != SYS_munmap && after->mappings > before->mappings);
}

static bool run_checked(void (*run)(void *context), void *context)
{
	unsigned grown = 0;

	for (unsigned tries = 0; tries == grown && tries < TRIES; tries++) {
		struct world before = look(), after;
		run(context);
		after = look();
		grown += grew(&before, &after, kinds[now.kind].number);
	}
	ck_assert_msg(grown < TRIES, "leaks: %s", failing_story());
	return now.hit;
}

/* Where it matters which error it is. */
static bool is_about_memory(long number)
{
	return number == SYS_mmap || number == SYS_mprotect || number == SYS_madvise ||
	       number == SYS_ioctl || number == SYS_process_madvise;
}

static void sweep(void (*run)(void *context), void *context)
{
	if (ways[now.way].partial && kinds[now.kind].number != SYS_madvise)
		return;
	if (now.way > 0 && !is_about_memory(kinds[now.kind].number))
		return;
	now.at = 1;
	while (now.at < CALLS_MAX && run_checked(run, context))
		now.at++;
	ck_assert_uint_lt(now.at, CALLS_MAX);
}

void failing_sweep(void (*run)(void *context), void *context)
{
	/* What the library asks and opens once must not fail. */
	now.at = UINT64_MAX;
	run(context);
	run(context);
	for (now.kind = 0; now.kind < KINDS; now.kind++) {
		for (now.way = 0; now.way < WAYS; now.way++)
			sweep(run, context);
	}
}
