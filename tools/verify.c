/* SPDX-License-Identifier: MIT */
/*
 * verify.c - does an instance see the image and zeros, and nothing else?
 *
 * Invariant: looking changes nothing that is measured. Reading a page that is not there would map
 * it, and every later scan would walk it. So between cycles only pages that are there (present or
 * swapped, as /proc/self/pagemap says) are compared: no other page can hold a byte that somebody
 * wrote. And whole ranges are read by a forked child, whose page tables are its own.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THERE ((uint64_t)3 << 62) /* present or swapped */

static unsigned char expected_at(const struct settings *settings, size_t offset)
{
	return offset < settings->image_size ? settings->contents[offset] : 0;
}

static void complain_byte(const struct instance *instance, size_t offset, const char *workload)
{
	complain(0, "wrong byte: variant %s, workload %s, offset 0x%zx: 0x%02x instead of 0x%02x",
		instance->variant->name, workload, offset, instance->base[offset],
		expected_at(instance->settings, offset));
}

static bool is_zero(const unsigned char *bytes, size_t size)
{
	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Compare whole pages; the image ends at a page boundary. */
static int compare(
	const struct instance *instance, size_t offset, size_t size, const char *workload)
{
	const struct settings *settings = instance->settings;
	const unsigned char *bytes = instance->base + offset;
	bool same = offset < settings->image_size
			    ? memcmp(bytes, settings->contents + offset, size) == 0
			    : is_zero(bytes, size);

	if (same)
		return 0;
	while (instance->base[offset] == expected_at(settings, offset))
		offset++;
	complain_byte(instance, offset, workload);
	return EXIT_WRONG_BYTE;
}

static int compare_all(const struct instance *instance, size_t size, const char *workload)
{
	size_t page = page_size();

	for (size_t offset = 0; offset < size; offset += page) {
		int error = compare(instance, offset, page, workload);

		if (error)
			return error;
	}
	return 0;
}

int verify_resident(const struct instance *instance, size_t size, const char *workload)
{
	size_t page = page_size(), pages = size / page, count;
	uint64_t entries[512];
	off_t at;

	for (size_t first = 0; first < pages; first += count) {
		count = pages - first < 512 ? pages - first : 512;
		at = (off_t)(((uintptr_t)instance->base / page + first) * sizeof(*entries));
		if (pread(instance->settings->pagemap_fd, entries, count * sizeof(*entries), at) !=
			(ssize_t)(count * sizeof(*entries)))
			return compare_all(instance, size, workload);
		for (size_t i = 0; i < count; i++) {
			int error = entries[i] & THERE
					    ? compare(instance, (first + i) * page, page, workload)
					    : 0;
			if (error)
				return error;
		}
	}
	return 0;
}

int verify_all(const struct instance *instance, size_t size, const char *workload)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	if (child < 0)
		return compare_all(instance, size, workload);
	if (child == 0)
		_exit(compare_all(instance, size, workload) ? EXIT_WRONG_BYTE : EXIT_DONE);
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_DONE)
		return 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_WRONG_BYTE)
		complain(0, "variant %s, workload %s: memory cannot be read",
			instance->variant->name, workload);
	return EXIT_WRONG_BYTE;
}
