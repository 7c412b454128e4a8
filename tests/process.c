/* SPDX-License-Identifier: MIT */
/*
 * process.c - helpers of the test programs that look at this process, make others, or compare
 * contents: see common.h.
 */
#define _GNU_SOURCE
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- what the process has --- */

size_t test_page(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

unsigned test_fd_count(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	if (!folder)
		abort();
	while (readdir(folder))
		count++;
	closedir(folder);
	return count - 3; /* . and .. and the folder itself */
}

/* Call `line` for each line of a file of /proc until it returns true. */
static bool find_line(const char *path, bool (*line)(const char *text, void *context), void *context)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t room = 0;
	bool found = false;

	if (!file)
		abort();
	while (!found && getline(&text, &room, file) > 0)
		found = line(text, context);
	free(text);
	fclose(file);
	return found;
}

struct range {
	uint64_t start, end;
	unsigned count;
	bool inside;
	const char *flag;
};

static bool count_mapping(const char *text, void *context)
{
	struct range *range = context;
	uint64_t start, end;

	if (sscanf(text, "%" SCNx64 "-%" SCNx64, &start, &end) == 2)
		range->count += start < range->end && end > range->start;
	return false;
}

unsigned test_vma_count(const void *start, size_t size)
{
	struct range range = {.start = (uint64_t)(uintptr_t)start};

	range.end = range.start + size;
	find_line("/proc/self/maps", count_mapping, &range);
	return range.count;
}

static bool find_flag(const char *text, void *context)
{
	struct range *range = context;
	uint64_t start, end;
	char word[8];

	if (sscanf(text, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, word) == 3)
		range->inside = start <= range->start && range->start < end;
	snprintf(word, sizeof word, " %s", range->flag);
	return range->inside && strncmp(text, "VmFlags:", 8) == 0 && strstr(text, word);
}

bool test_vma_flag(const void *address, const char *two_letters)
{
	struct range range = {.start = (uint64_t)(uintptr_t)address, .flag = two_letters};

	return find_line("/proc/self/smaps", find_flag, &range);
}

uint64_t test_swapped(const void *start, size_t size)
{
	uint64_t entry, count = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	for (size_t at = 0; at < size; at += test_page()) {
		uint64_t page = ((uint64_t)(uintptr_t)start + at) / test_page();
		if (pread(fd, &entry, sizeof entry, (off_t)(page * sizeof entry)) != sizeof entry)
			abort();
		count += entry >> 62 & 1;
	}
	close(fd);
	return count;
}

uint64_t test_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

/* --- swap --- */

static char swap_path[] = "memslot-swap-XXXXXX";
static pid_t swap_guard;
static int swap_pipe;

static bool is_swap(const char *text, void *context)
{
	(void)context;
	return strncmp(text, "Filename", 8) != 0;
}

bool test_has_swap(void)
{
	return access("/proc/swaps", R_OK) == 0 && find_line("/proc/swaps", is_swap, NULL);
}

/* The header that mkswap(8) writes: version 1, the last page's number, the magic at the page's end. */
static bool write_swap(int fd, size_t bytes)
{
	size_t page = test_page();
	char *zeros = calloc(1, page);
	uint32_t head[2] = {1, (uint32_t)(bytes / page - 1)};
	bool good = zeros != NULL;

	for (size_t at = 0; good && at < bytes; at += page)
		good = write(fd, zeros, page) == (ssize_t)page;
	free(zeros);
	return good && pwrite(fd, head, sizeof head, 1024) == sizeof head &&
			pwrite(fd, "SWAPSPACE2", 10, (off_t)page - 10) == 10 && fsync(fd) == 0;
}

/* Sits beside the tests until the last of them is gone, however they ended, and cleans up. */
static void swap_watchdog(int end_of_tests)
{
	char byte;

	setsid();
	close_range(0, (unsigned)end_of_tests - 1, 0);
	close_range((unsigned)end_of_tests + 1, ~0u, 0);
	while (read(end_of_tests, &byte, 1) < 0 && errno == EINTR)
		;
	swapoff(swap_path);
	unlink(swap_path);
	_exit(0);
}

void test_swap_begin(void)
{
	int ends[2], fd;

	if (geteuid() != 0 || pipe2(ends, O_CLOEXEC))
		return;
	fd = mkstemp(swap_path);
	if (fd < 0)
		return;
	fflush(NULL);
	swap_guard = fork();
	if (swap_guard == 0)
		swap_watchdog(ends[0]);
	close(ends[0]);
	swap_pipe = ends[1];
	if (write_swap(fd, 16u << 20))
		(void)!swapon(swap_path, 0); /* refused here: the tests see that there is no swap */
	close(fd);
}

void test_swap_end(void)
{
	if (swap_guard <= 0)
		return;
	close(swap_pipe);
	waitpid(swap_guard, NULL, 0);
	swap_guard = 0;
}

/* --- other processes --- */

static int wait_for(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			abort();
	}
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int test_in_child(int (*run)(void *argument), void *argument)
{
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child < 0)
		abort();
	if (child == 0)
		_exit(run(argument));
	return wait_for(child);
}

int test_in_clone(int (*run)(void *argument), void *argument)
{
	long child;

	fflush(NULL);
	child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (child < 0)
		abort();
	if (child == 0)
		_exit(run(argument));
	return wait_for((pid_t)child);
}

void test_child_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "# in a child: %s:%d: %s (errno %d)\n", file, line, condition, errno);
}

int test_run_again(const char *word, const char *disable)
{
	char program[4096] = "";
	pid_t child;

	/* Read first: under valgrind the link's text is right, the link itself is not. */
	if (readlink("/proc/self/exe", program, sizeof program - 1) < 0)
		abort();
	fflush(NULL);
	child = fork();
	if (child < 0)
		abort();
	if (child == 0) {
		if (disable)
			setenv("MEMSLOT_DISABLE", disable, 1);
		else
			unsetenv("MEMSLOT_DISABLE");
		execl(program, program, word, (char *)NULL);
		_exit(127);
	}
	return wait_for(child);
}

/* --- contents --- */

unsigned char test_byte(uint64_t place, unsigned tag)
{
	uint64_t mixed = (place + 1) * 0x9e3779b97f4a7c15u + tag * 0xc2b2ae3d27d4eb4fu;

	return (unsigned char)(mixed >> 56 | 1);
}

/* test_fill()'s bytes, kept: computing them costs more than comparing. */
static const unsigned char *pattern(size_t size, unsigned tag)
{
	static struct {
		unsigned char *bytes;
		size_t size;
		unsigned tag;
	} kept[8], *entry;

	entry = &kept[tag % 8];
	if (entry->bytes && entry->tag == tag && entry->size >= size)
		return entry->bytes;
	entry->bytes = realloc(entry->bytes, size + 1);
	if (!entry->bytes)
		abort();
	entry->size = size;
	entry->tag = tag;
	for (size_t i = 0; i < size; i++)
		entry->bytes[i] = test_byte(i, tag);
	return entry->bytes;
}

void test_fill(void *memory, size_t size, unsigned tag)
{
	memcpy(memory, pattern(size, tag), size);
}

bool test_filled(const void *memory, size_t size, unsigned tag)
{
	return test_same(memory, pattern(size, tag), size);
}

bool test_zero(const void *memory, size_t size)
{
	const unsigned char *bytes = memory;

	if (size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0))
		return true;
	for (size_t i = 0; i < size; i++) {
		if (bytes[i]) {
			fprintf(stderr, "# byte %zu of %zu is %#x, expected 0\n", i, size, bytes[i]);
			break;
		}
	}
	return false;
}

bool test_same(const void *a, const void *b, size_t size)
{
	const unsigned char *left = a, *right = b;

	if (memcmp(a, b, size) == 0)
		return true;
	for (size_t i = 0; i < size; i++) {
		if (left[i] != right[i]) {
			fprintf(stderr, "# byte %zu of %zu is %#x, expected %#x\n", i, size, left[i],
					right[i]);
			break;
		}
	}
	return false;
}
