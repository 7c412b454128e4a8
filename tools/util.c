/* SPDX-License-Identifier: MIT */
/*
 * util.c - small things that the subcommands share: messages, numbers, files of one line, and the
 * parts of a description, in JSON and from it in text.
 *
 * Invariant: nothing but refuse() exits; parsers accept a whole string or refuse it.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <memslot.h>

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

void refuse(const struct argp_state *state, const char *format, ...)
{
	va_list arguments;

	fputs("memslot: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	argp_state_help(state, stderr, ARGP_HELP_SEE);
	exit(argp_err_exit_status);
}

const char *explain(int error)
{
	switch (-error) {
	case EBADMSG:
		return "not an image of this format, version, byte order and page size";
	case EUCLEAN:
		return "damaged: a checksum or the length does not agree";
	case ESPIPE:
		return "not a regular file";
	case EFBIG:
		return "larger than the limit on file sizes (ulimit -f)";
	case EMSGSIZE:
		return "too large, or in too many pieces";
	case EADDRNOTAVAIL:
		return "the address is taken, or cannot be had";
	case EOPNOTSUPP:
		return "this kernel or build cannot do it";
	default:
		return strerror(-error);
	}
}

/* Decimal or 0x hexadecimal digits, and what comes behind them. */
static int parse_digits(const char *text, uint64_t *ret_number, const char **ret_end)
{
	bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	*ret_number = strtoull(text, &end, hexadecimal ? 16 : 10);
	*ret_end = end;
	if (!hexadecimal && text[0] == '0' && end - text > 1)
		return -EINVAL; /* octal elsewhere: leave nobody guessing */
	return errno ? -EINVAL : 0;
}

int parse_size(const char *text, uint64_t *ret_size)
{
	static const char units[] = "KkMmGgTt";
	unsigned shift = 0;
	const char *unit, *end;
	uint64_t size;

	if (parse_digits(text, &size, &end))
		return -EINVAL;
	if (*end) {
		unit = strchr(units, *end);
		if (!unit)
			return -EINVAL;
		shift = 10 * (unsigned)((unit - units) / 2 + 1);
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
	const char *end;
	uint64_t number;

	if (parse_digits(text, &number, &end) || *end || number < low || number > high)
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

	while (shown >= 1023.95 && unit < 4 && size >= 1024) {
		shown /= 1024;
		unit++;
	}
	shown = (double)(uint64_t)(shown * 10 + 0.5) / 10;
	snprintf(buffer, room, shown == (double)(uint64_t)shown ? "%.0f %s" : "%.1f %s", shown,
		units[unit]);
	return buffer;
}

int open_image(const char *path, struct memslot_image **ret_image)
{
	int error = memslot_image_open(path, NULL, ret_image), fd;

	if (error != -EBADMSG)
		return error;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	error = memslot_image_from_fd(fd, 0, 0, NULL, ret_image);
	close(fd);
	return error;
}

/* base64 of some bytes, to be freed; NULL: out of memory. */
static char *encode_base64(const void *bytes, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = bytes;
	char *text = malloc((size + 2) / 3 * 4 + 1), *out = text;

	for (size_t i = 0; text && i < size; i += 3) {
		unsigned more = size - i < 3 ? (unsigned)(size - i) : 3;
		unsigned group = (unsigned)in[i] << 16;

		group |= more > 1 ? (unsigned)in[i + 1] << 8 : 0;
		group |= more > 2 ? (unsigned)in[i + 2] : 0;
		*out++ = digits[group >> 18];
		*out++ = digits[group >> 12 & 63];
		*out++ = more > 1 ? digits[group >> 6 & 63] : '=';
		*out++ = more > 2 ? digits[group & 63] : '=';
	}
	if (out)
		*out = '\0';
	return text;
}

json_t *file_stretches(int fd)
{
	json_t *stretches = json_array();
	off_t at = 0, end;

	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		if (end <= at)
			break;
		json_array_append_new(stretches, json_pack("{s:I, s:I}", "offset", (json_int_t)at,
							 "size", (json_int_t)(end - at)));
		at = end;
	}
	return stretches;
}

void set_note(json_t *object, const void *note, size_t size)
{
	json_t *string = NULL;
	char *base64;

	if (!note || !memchr(note, 0, size))
		string = note ? json_stringn(note, size) : json_null(); /* NULL unless UTF-8 */
	if (string) {
		json_object_set_new(object, "note", string);
		return;
	}
	base64 = encode_base64(note, size);
	json_object_set_new(object, "note_base64", base64 ? json_string(base64) : json_null());
	json_object_set_new(object, "note_bytes", json_integer((json_int_t)size));
	free(base64);
}

void print_size(const char *label, const json_t *value)
{
	char buffer[32];

	printf("%-14s %s\n", label,
		format_size((uint64_t)json_integer_value(value), buffer, sizeof(buffer)));
}

void print_note(const json_t *object)
{
	const json_t *bytes = json_object_get(object, "note_bytes");
	const json_t *note = json_object_get(object, "note");
	char size[32], *quoted = NULL;

	if (json_is_string(note))
		quoted = json_dumps(note, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	if (bytes)
		printf("%-14s %s, not text\n", "note",
			format_size((uint64_t)json_integer_value(bytes), size, sizeof(size)));
	else
		printf("%-14s %s\n", "note", quoted ? quoted : "none");
	free(quoted);
}

void print_stretches(const json_t *stretches)
{
	const json_t *stretch;
	char size[32];
	size_t i;

	printf("%-14s %zu of data in the file, headers included\n", "stretches",
		json_array_size(stretches));
	json_array_foreach(stretches, i, stretch) printf("  0x%-10llx %s\n",
		(unsigned long long)json_integer_value(json_object_get(stretch, "offset")),
		format_size((uint64_t)json_integer_value(json_object_get(stretch, "size")), size,
			sizeof(size)));
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
