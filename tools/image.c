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
	const struct verb *verb;
	const char *file, *output, *note;
	uint64_t offset, base;
	bool json, progress;
	bool given[8]; /* by index in the table of options */
};

/* What a build was at. */
enum step { READING, BINDING, WRITING };

/* One library call for the worker thread. */
struct call {
	enum step step;
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
	if (!error && arguments->base) {
		call->step = BINDING;
		error = bind_image(call);
	}
	if (!error) {
		call->step = WRITING;
		error = memslot_image_save(call->image, call->path);
	}
	return error;
}

static int open_verified(void *context)
{
	struct call *call = context;
	const struct memslot_image_opts opts = {
		.size = sizeof(opts), .flags = MEMSLOT_IMAGE_VERIFY};

	return memslot_image_open(call->path, &opts, &call->image);
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

/* Say what a build failed at; the exit status. */
static int blame(const struct call *call, int error)
{
	const struct arguments *arguments = call->arguments;

	if (call->step == READING && error == -EMSGSIZE && arguments->offset) {
		complain(0, "--offset: 0x%llx and the contents of %s do not fit a slot",
			(unsigned long long)arguments->offset, arguments->file);
		return EXIT_USAGE;
	}
	if (call->step == READING)
		complain(error, "%s", arguments->file);
	else if (call->step == BINDING)
		complain(error, "--base: no slot at 0x%llx", (unsigned long long)arguments->base);
	else
		complain(error, "cannot write %s", call->path);
	return EXIT_FAILED;
}

static int build_from(struct call *call)
{
	const struct arguments *arguments = call->arguments;
	struct stat file = {0};
	int error;

	if (fstat(call->fd, &file) == 0 && S_ISREG(file.st_mode) && file.st_size == 0) {
		complain(0, "%s: the file is empty", arguments->file);
		return EXIT_FAILED;
	}
	/* read once, written to memory and to the file */
	error = run_with_progress(
		arguments->progress, call->path, 3 * (uint64_t)file.st_size, build, call);
	if (error)
		return blame(call, error);
	print_built(call);
	return EXIT_DONE;
}

static int run_build(const struct arguments *arguments)
{
	struct call call = {.arguments = arguments};
	int status = EXIT_FAILED;
	char *made;

	call.path = output_name(arguments, &made);
	call.fd = open(arguments->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (call.fd < 0 || !call.path)
		complain(call.path ? -errno : -ENOMEM, "%s", arguments->file);
	else
		status = build_from(&call);
	memslot_image_unref(call.image);
	if (call.fd >= 0)
		close(call.fd);
	free(made);
	return status;
}

static int run_show(const struct arguments *arguments)
{
	struct memslot_image *image;
	json_t *object;
	int error = memslot_image_open(arguments->file, NULL, &image);

	if (error) {
		complain(error, "%s", arguments->file);
		return EXIT_FAILED;
	}
	object = describe_image(arguments->file, image);
	memslot_image_unref(image);
	if (!object)
		complain(-ENOMEM, "%s", arguments->file);
	else if (arguments->json)
		json_dumpf(object, stdout, JSON_INDENT(2)), putchar('\n');
	else
		print_image(object);
	json_decref(object);
	return object ? EXIT_DONE : EXIT_FAILED;
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

static const struct verb {
	const char *name, *options;
	int (*run)(const struct arguments *arguments);
} verbs[] = {
	{"build", "ofbnp", run_build},
	{"show", "j", run_show},
	{"verify", "p", run_verify},
};

static const struct argp_option options[] = {
	{"output", 'o', "OUT", 0, "build: the image file to write (default: FILE.memslot)", 0},
	{"offset", 'f', "BYTES", 0, "build: where the contents begin in a slot (default 0)", 0},
	{"base", 'b', "ADDRESS", 0, "build: bind the image to slots that start at this address", 0},
	{"note", 'n', "TEXT", 0, "build: a note to keep with the image", 0},
	{"json", 'j', NULL, 0, "show: print a JSON object", 0},
	{"progress", 'p', NULL, 0, "build, verify: show progress even when stderr is no terminal",
		0},
	{0},
};

static void take_offset(struct argp_state *state, const char *text)
{
	struct arguments *arguments = state->input;

	if (parse_size(text, &arguments->offset))
		refuse(state, "--offset: '%s' is no size", text);
}

static void take_base(struct argp_state *state, const char *text)
{
	struct arguments *arguments = state->input;
	char page[32];

	if (parse_size(text, &arguments->base) || arguments->base == 0)
		refuse(state, "--base: '%s' is no address", text);
	if (arguments->base % page_size())
		refuse(state, "--base: '%s' is no multiple of the page size, %s", text,
			format_size(page_size(), page, sizeof(page)));
}

static void take_argument(struct argp_state *state, const char *argument)
{
	struct arguments *arguments = state->input;

	if (arguments->file)
		refuse(state, "'%s' is one argument too many", argument);
	if (arguments->verb)
		arguments->file = argument;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs) && !arguments->file; i++) {
		if (strcmp(verbs[i].name, argument) == 0)
			arguments->verb = &verbs[i];
	}
	if (!arguments->verb)
		refuse(state, "image: '%s' is not build, show or verify", argument);
}

/* Is everything there that the verb needs, and nothing that it does not know? */
static void check(const struct argp_state *state)
{
	const struct arguments *arguments = state->input;
	const struct verb *verb = arguments->verb;

	if (!verb)
		refuse(state, "image: say build, show or verify, and a file");
	for (size_t i = 0; options[i].name; i++) {
		if (arguments->given[i] && !strchr(verb->options, options[i].key))
			refuse(state, "'image %s' has no option --%s", verb->name, options[i].name);
	}
	if (!arguments->file)
		refuse(state, "'image %s' needs a file", verb->name);
	if (strcmp(arguments->file, "-") == 0)
		refuse(state, "'-': images are not read from standard input (a file of that name: "
			      "./-)");
	if (arguments->output && strcmp(arguments->output, "-") == 0)
		refuse(state, "--output: an image cannot be written to standard output (a file of "
			      "the name '-': ./-)");
	if (arguments->output && !*arguments->output)
		refuse(state, "--output: the name is empty");
}

static error_t take_option(struct argp_state *state, int key, const char *argument)
{
	struct arguments *arguments = state->input;

	if (key == 'o')
		arguments->output = argument;
	else if (key == 'f')
		take_offset(state, argument);
	else if (key == 'b')
		take_base(state, argument);
	else if (key == 'n')
		arguments->note = argument;
	else if (key == 'j')
		arguments->json = true;
	else if (key == 'p')
		arguments->progress = true;
	else
		return ARGP_ERR_UNKNOWN;
	for (size_t i = 0; options[i].name; i++)
		arguments->given[i] |= options[i].key == key;
	return 0;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	if (key == ARGP_KEY_ARG)
		take_argument(state, argument);
	else if (key == ARGP_KEY_END)
		check(state);
	else
		return take_option(state, key, argument);
	return 0;
}

static const char text[] =
	"Image files: what slots start from.\v"
	"build takes a raw file and writes an image of it; show prints what an image "
	"file holds; verify reads all of it and compares its checksum.\n"
	"BYTES and ADDRESS are decimal or hexadecimal (0x) and may end in K, M, G or T.";

int command_image(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "build FILE\nshow FILE\nverify FILE", text, NULL, NULL, NULL};
	struct arguments arguments = {.progress = isatty(STDERR_FILENO)};

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return EXIT_USAGE;
	return arguments.verb->run(&arguments);
}
