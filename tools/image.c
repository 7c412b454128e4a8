/* SPDX-License-Identifier: MIT */
/*
 * image.c - memslot image: build an image file from a raw file, show one, verify one.
 *
 * Invariant: an output file is written by memslot_image_save alone, so it is whole or not there.
 * Raw files and image files are opened by the library; this file adds words and progress.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memslot.h>

struct arguments {
	const char *verb, *file, *output, *note;
	uint64_t offset, base;
	bool json, progress;
};

/* One library call for the worker thread. */
struct call {
	const struct arguments *arguments;
	int fd;
	const char *path;
	struct memslot_image *image;
};

/* Give an image a base address: show it in a bound slot there, and capture that. */
static int bind_image(struct call *call)
{
	const struct arguments *arguments = call->arguments;
	struct memslot_slot_opts opts = {.size = sizeof(opts), .flags = MEMSLOT_SLOT_BOUND};
	struct memslot_image_opts keep = {.size = sizeof(keep)};
	struct memslot_image *bound = NULL;
	struct memslot_slot *slot;
	size_t end;
	int error;

	opts.base_address = (void *)(uintptr_t)arguments->base;
	keep.note = arguments->note;
	keep.note_size = arguments->note ? strlen(arguments->note) : 0;
	end = (size_t)memslot_image_offset(call->image) + memslot_image_size(call->image);
	error = memslot_slot_create(end, &opts, &slot);
	if (error)
		return error;
	error = memslot_slot_instantiate(slot, call->image, end);
	if (!error)
		error = memslot_slot_capture(slot, &keep, &bound);
	memslot_slot_destroy(slot);
	if (error)
		return error;
	memslot_image_unref(call->image);
	call->image = bound;
	return 0;
}

static int build(void *context)
{
	struct call *call = context;
	const struct arguments *arguments = call->arguments;
	struct memslot_image_opts opts = {.size = sizeof(opts), .slot_offset = arguments->offset};
	int error;

	opts.note = arguments->note;
	opts.note_size = arguments->note ? strlen(arguments->note) : 0;
	error = memslot_image_from_fd(call->fd, 0, 0, &opts, &call->image);
	if (!error && arguments->base)
		error = bind_image(call);
	if (!error)
		error = memslot_image_save(call->image, call->path);
	return error;
}

static int open_verified(void *context)
{
	struct call *call = context;
	const struct memslot_image_opts opts = {
		.size = sizeof(opts), .flags = MEMSLOT_IMAGE_VERIFY};

	return memslot_image_open(call->path, &opts, &call->image);
}

/* Is it the input that is wrong, or did the work fail? */
static int status_of(int error)
{
	switch (-error) {
	case 0:
		return EXIT_DONE;
	case EINVAL:
	case ENOENT:
	case EACCES:
	case EISDIR:
	case ESPIPE:
	case EBADMSG:
	case EMSGSIZE:
		return EXIT_USAGE;
	default:
		return EXIT_FAILED;
	}
}

static const char *output_name(const struct arguments *arguments, char **ret_made)
{
	*ret_made = NULL;
	if (arguments->output)
		return arguments->output;
	if (asprintf(ret_made, "%s.memslot", arguments->file) < 0)
		*ret_made = NULL;
	return *ret_made;
}

static void print_built(const struct call *call)
{
	char size[32], disk[32];
	struct stat file = {0};

	stat(call->path, &file);
	printf("%s: image of %s at offset 0x%llx, %s on disk\n", call->path,
		format_size(memslot_image_size(call->image), size, sizeof(size)),
		(unsigned long long)memslot_image_offset(call->image),
		format_size((uint64_t)file.st_blocks * 512, disk, sizeof(disk)));
}

static int run_build(const struct arguments *arguments)
{
	struct call call = {.arguments = arguments};
	struct stat file = {0};
	char *made;
	int error;

	call.path = output_name(arguments, &made);
	call.fd = open(arguments->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (call.fd < 0 || !call.path) {
		complain(-errno, "%s", arguments->file);
		free(made);
		return EXIT_USAGE;
	}
	fstat(call.fd, &file);
	/* read once, written to memory and to the file */
	error = run_with_progress(
		arguments->progress, call.path, 3 * (uint64_t)file.st_size, build, &call);
	if (error)
		complain(error, "cannot make an image of %s in %s", arguments->file, call.path);
	else
		print_built(&call);
	memslot_image_unref(call.image);
	close(call.fd);
	free(made);
	return status_of(error);
}

/* The stretches of the file that hold data; the rest is holes. */
static json_t *file_stretches(int fd)
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

static json_t *note_of(const struct memslot_image *image)
{
	const void *note;
	json_t *text;
	size_t size;

	if (memslot_image_note(image, &note, &size))
		return json_null();
	text = json_stringn(note, size); /* NULL unless it is UTF-8 */
	return text ? text : json_sprintf("%zu bytes, not text", size);
}

static json_t *describe(const char *path, const struct memslot_image *image)
{
	uintptr_t base = (uintptr_t)memslot_image_base_address(image);
	struct stat file = {0};
	json_t *object;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &file))
		complain(-errno, "%s", path);
	object = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:o}", "file", path, "offset",
		(json_int_t)memslot_image_offset(image), "size",
		(json_int_t)memslot_image_size(image), "pages",
		(json_int_t)(memslot_image_size(image) / page_size()), "base_address",
		base ? json_sprintf("0x%zx", (size_t)base) : json_null(), "note", note_of(image),
		"file_size", (json_int_t)file.st_size, "disk_use", (json_int_t)file.st_blocks * 512,
		"file_stretches", file_stretches(fd));
	if (fd >= 0)
		close(fd);
	return object;
}

static void print_size(const char *label, const json_t *value)
{
	char buffer[32];

	printf("%-14s %s\n", label,
		format_size((uint64_t)json_integer_value(value), buffer, sizeof(buffer)));
}

static void print_description(const json_t *object)
{
	const json_t *stretches = json_object_get(object, "file_stretches"), *stretch;
	const char *base = json_string_value(json_object_get(object, "base_address"));
	const char *note = json_string_value(json_object_get(object, "note"));
	size_t i;

	printf("%-14s 0x%llx\n", "offset",
		(unsigned long long)json_integer_value(json_object_get(object, "offset")));
	print_size("size", json_object_get(object, "size"));
	printf("%-14s %s\n", "base address", base ? base : "any");
	printf("%-14s %s\n", "note", note ? note : "none");
	print_size("file size", json_object_get(object, "file_size"));
	print_size("on disk", json_object_get(object, "disk_use"));
	printf("%-14s %zu of data in the file, headers included\n", "stretches",
		json_array_size(stretches));
	json_array_foreach(stretches, i, stretch) printf("  0x%-10llx + 0x%llx\n",
		(unsigned long long)json_integer_value(json_object_get(stretch, "offset")),
		(unsigned long long)json_integer_value(json_object_get(stretch, "size")));
}

static int run_show(const struct arguments *arguments)
{
	struct memslot_image *image;
	json_t *object;
	int error = memslot_image_open(arguments->file, NULL, &image);

	if (error) {
		complain(error, "%s", arguments->file);
		return status_of(error);
	}
	object = describe(arguments->file, image);
	memslot_image_unref(image);
	if (arguments->json)
		json_dumpf(object, stdout, JSON_INDENT(2)), putchar('\n');
	else
		print_description(object);
	json_decref(object);
	return EXIT_DONE;
}

static int run_verify(const struct arguments *arguments)
{
	struct call call = {.arguments = arguments, .path = arguments->file};
	struct stat file = {0};
	char size[32];
	int error;

	stat(arguments->file, &file);
	error = run_with_progress(arguments->progress, arguments->file, 2 * (uint64_t)file.st_size,
		open_verified, &call);
	if (error) {
		complain(error, "%s", arguments->file);
		return EXIT_FAILED;
	}
	printf("%s: good, %s\n", arguments->file,
		format_size(memslot_image_size(call.image), size, sizeof(size)));
	memslot_image_unref(call.image);
	return EXIT_DONE;
}

static error_t take_number(struct argp_state *state, const char *text, uint64_t *ret)
{
	if (parse_size(text, ret))
		argp_error(state, "'%s' is no size", text);
	return 0;
}

static error_t take_argument(struct argp_state *state, const char *argument)
{
	struct arguments *arguments = state->input;

	if (!arguments->verb)
		arguments->verb = argument;
	else if (!arguments->file)
		arguments->file = argument;
	else
		argp_error(state, "'%s' is one argument too many", argument);
	return 0;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'o':
		arguments->output = argument;
		return 0;
	case 'f':
		return take_number(state, argument, &arguments->offset);
	case 'b':
		return take_number(state, argument, &arguments->base);
	case 'n':
		arguments->note = argument;
		return 0;
	case 'j':
		arguments->json = true;
		return 0;
	case 'p':
		arguments->progress = true;
		return 0;
	case ARGP_KEY_ARG:
		return take_argument(state, argument);
	case ARGP_KEY_END:
		if (!arguments->file)
			argp_error(state, "say build, show or verify, and a file");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option options[] = {
	{"output", 'o', "OUT", 0, "build: the image file to write (default: FILE.memslot)", 0},
	{"offset", 'f', "BYTES", 0, "build: where the contents begin in a slot (default 0)", 0},
	{"base", 'b', "ADDRESS", 0, "build: bind the image to slots that start at this address", 0},
	{"note", 'n', "TEXT", 0, "build: a note to keep with the image", 0},
	{"json", 'j', NULL, 0, "show: print a JSON object", 0},
	{"progress", 'p', NULL, 0, "Show progress even when stderr is no terminal", 0},
	{0},
};

static const char text[] =
	"Image files: what slots start from.\v"
	"build takes a raw file and writes an image of it; show prints what an image "
	"file holds; verify reads all of it and compares its checksum.\n"
	"BYTES and ADDRESS may be decimal, hexadecimal (0x) or end in K, M, G, T.";

int command_image(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "build FILE\nshow FILE\nverify FILE", text, NULL, NULL, NULL};
	struct arguments arguments = {.progress = isatty(STDERR_FILENO)};

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return EXIT_USAGE;
	if (strcmp(arguments.verb, "build") == 0)
		return run_build(&arguments);
	if (strcmp(arguments.verb, "show") == 0)
		return run_show(&arguments);
	if (strcmp(arguments.verb, "verify") == 0)
		return run_verify(&arguments);
	complain(0, "image: '%s' is not build, show or verify", arguments.verb);
	return EXIT_USAGE;
}
