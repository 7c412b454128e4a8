/* SPDX-License-Identifier: MIT */
/*
 * util.c - small things that the subcommands share: messages, numbers, files of one line.
 *
 * Invariant: nothing here exits; parsers accept a whole string or refuse it.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

void complain(int error, const char *format, ...)
{
	va_list arguments;

	fputs("memslot: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	if (error)
		fprintf(stderr, ": %s", explain(error));
	fputc('\n', stderr);
}

const char *explain(int error)
{
	switch (-error) {
	case EINVAL:
		return "not acceptable: empty, misaligned or out of range";
	case EBADMSG:
		return "not an image of this format, version, byte order and page size";
	case EUCLEAN:
		return "damaged: a checksum or the length does not agree";
	case ESPIPE:
		return "not a regular file";
	case EFBIG:
		return "larger than the limit on file sizes (ulimit -f)";
	case EMSGSIZE:
		return "offset and size do not fit";
	case EADDRNOTAVAIL:
		return "the address is taken, or cannot be had";
	case EOPNOTSUPP:
		return "this kernel or build cannot do it";
	default:
		return strerror(-error);
	}
}

int parse_size(const char *text, uint64_t *ret_size)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	const char *unit;
	char *end;
	uint64_t size;

	errno = 0;
	size = strtoull(text, &end, 0);
	if (errno || end == text || strchr(text, '-'))
		return -EINVAL;
	if (*end) {
		unit = strchr(units, *end & ~0x20);
		if (!unit)
			return -EINVAL;
		shift = 10 * (unsigned)(unit - units + 1);
		if (end[1] && strcmp(end + 1, "iB") != 0)
			return -EINVAL;
	}
	if (size > UINT64_MAX >> shift)
		return -EINVAL;
	*ret_size = size << shift;
	return 0;
}

int parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number)
{
	uint64_t number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 0);
	if (errno || end == text || *end || strchr(text, '-') || number < low || number > high)
		return -EINVAL;
	*ret_number = number;
	return 0;
}

bool list_has(const char *list, const char *word)
{
	size_t length = strlen(word), part;

	for (; list && *list; list += part + (list[part] == ',')) {
		part = strcspn(list, ",");
		if (part == length && memcmp(list, word, part) == 0)
			return true;
	}
	return false;
}

const char *format_size(uint64_t size, char *buffer, size_t room)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	size_t unit = 0;
	double shown = (double)size;

	while (shown >= 1024 && unit < 4) {
		shown /= 1024;
		unit++;
	}
	snprintf(buffer, room, shown == (double)(uint64_t)shown ? "%.0f %s" : "%.1f %s", shown,
		units[unit]);
	return buffer;
}

bool read_line(const char *path, char *buffer, size_t room)
{
	FILE *file = fopen(path, "re");
	bool read;

	if (!file)
		return false;
	read = fgets(buffer, (int)room, file) != NULL;
	fclose(file);
	if (read)
		buffer[strcspn(buffer, "\n")] = '\0';
	return read;
}

size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

unsigned terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return 100;
}
