/* SPDX-License-Identifier: MIT */
/*
 * saved.c - an interpreter is booted by one process, and answers in others.
 *
 *   --save   boot, save; then, by turns, the two below as processes of their own, timed
 *   --open   show the file in a slot, answer one request
 *   --once   boot, answer one request
 *
 * Invariant: all of them have the same layout, for pointers in the file lead into the program: a
 * process whose addresses are random starts itself anew without that, once. Every answer is
 * compared with the first.
 */
#define _GNU_SOURCE
#include "saved.h"

#include "churn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY (32 * MIB)
#define BASE ((void *)(uintptr_t)0x200000000000) /* far from everything */
#define ANSWER 1024
#define NOTE 64
#define ROUNDS 31

/* --- a layout without chance --- */

/* This very command line anew. */
static int start_anew(void)
{
	char *words = NULL, *argv[64];
	size_t room = 0, count = 0;
	FILE *line = fopen("/proc/self/cmdline", "re");

	if (!line)
		return -errno;
	while (count < 63 && getdelim(&words, &room, 0, line) > 0) {
		argv[count++] = words; /* exec takes them along */
		words = NULL;
		room = 0;
	}
	argv[count] = NULL;
	fclose(line);
	fflush(NULL);
	execv("/proc/self/exe", argv);
	return -errno;
}

static int fix_layout(void)
{
	int now = personality(0xffffffff);

	if (now & ADDR_NO_RANDOMIZE)
		return 0;
	if (personality((unsigned long)now | ADDR_NO_RANDOMIZE) < 0)
		return -errno;
	return start_anew();
}

/* --- one process --- */

static int make_slot(struct memslot_slot **ret_slot)
{
	const struct memslot_slot_opts opts = {
		.size = sizeof(opts), .flags = MEMSLOT_SLOT_CONFINED, .base_address = BASE};

	return memslot_slot_create(CAPACITY, &opts, ret_slot);
}

/* In the image's note: whose heap it is. Another interpreter would follow its root to nonsense. */
static int make_note(const struct saved *saved, char note[NOTE])
{
	return snprintf(note, NOTE, "memslot %s", saved->command);
}

/* Of this interpreter's --save, or told. */
static int check_origin(const struct saved *saved, const struct memslot_image *image)
{
	const void *found = NULL;
	size_t size = 0;
	char note[NOTE];

	if (memslot_image_base_address(image) == BASE &&
		memslot_image_note(image, &found, &size) == 0 &&
		size == (size_t)make_note(saved, note) && memcmp(found, note, size) == 0)
		return 0;
	complain(0, "%s: not a file of 'memslot %s --save'", saved->file, saved->command);
	return -EPROTO;
}

/* MAP_FILE: one request touches a part of it only. */
static int show_file(const struct saved *saved, struct memslot_slot *slot)
{
	const struct memslot_image_opts opts = {
		.size = sizeof(opts), .flags = MEMSLOT_IMAGE_MAP_FILE};
	struct memslot_image *image;
	int error = memslot_image_open(saved->file, &opts, &image);

	if (error)
		return error;
	error = check_origin(saved, image);
	if (!error)
		error = memslot_slot_instantiate(slot, image, memslot_image_size(image));
	memslot_image_unref(image); /* the slot has one */
	return error ? error : saved->open(saved->context, slot);
}

static int answer_once(const struct saved *saved)
{
	char text[ANSWER];
	size_t size = 0;
	int error = saved->answer(saved->context, text, sizeof(text), &size);

	if (!error)
		printf("%.*s\n", (int)size, text);
	return error;
}

/* --- processes of their own --- */

enum way { OPEN, ONCE, WAYS };

static void become(const struct saved *saved, enum way way, int output)
{
	const char *argv[6] = {"memslot", saved->command};

	argv[2] = way == OPEN ? "--open" : "--once";
	argv[3] = way == OPEN ? saved->file : saved->script;
	dup2(output, STDOUT_FILENO);
	execv("/proc/self/exe", (char **)(uintptr_t)argv);
	_exit(127);
}

/* What it prints, and how long it takes from before fork until it is gone. */
static int answer_of(
	const struct saved *saved, enum way way, char *text, size_t *ret_size, double *ret_ns)
{
	uint64_t began = clock_ns();
	int ends[2], status = 0;
	ssize_t got;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child == 0)
		become(saved, way, ends[1]);
	close(ends[1]);
	*ret_size = 0;
	while (child > 0 && (got = read(ends[0], text + *ret_size, ANSWER - *ret_size)) > 0)
		*ret_size += (size_t)got;
	close(ends[0]);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	*ret_ns = (double)(clock_ns() - began);
	if (child < 0)
		return -EAGAIN;
	return status ? -EPROTO : 0;
}

/* By turns; medians, in nanoseconds. */
static int compare_ways(const struct saved *saved, double medians[WAYS])
{
	char first[ANSWER], text[ANSWER];
	double times[WAYS][ROUNDS];
	size_t first_size = 0, size = 0;

	for (int i = 0; i < ROUNDS * WAYS; i++) {
		int error = answer_of(
			saved, (enum way)(i % WAYS), text, &size, &times[i % WAYS][i / WAYS]);
		if (error)
			return error;
		if (i == 0)
			memcpy(first, text, first_size = size);
		if (size != first_size || memcmp(first, text, size) != 0) {
			complain(0, "a process answered '%.*s'", (int)size, text);
			return -EPROTO;
		}
	}
	for (int way = 0; way < WAYS; way++)
		medians[way] = median_of(times[way], ROUNDS);
	return 0;
}

static void report(const struct saved *saved, uint64_t size,
	const struct memslot_image_stats *stats, const double medians[WAYS])
{
	json_t *strays = stats->strays == MEMSLOT_NONE ? json_null()
						       : json_integer((json_int_t)stats->strays);
	json_t *object = json_pack("{s:s, s:I, s:I, s:o, s:f, s:f}", "file", saved->file,
		"image_bytes", (json_int_t)size, "objects", (json_int_t)stats->objects, "strays",
		strays, "open_ms", medians[OPEN] / 1e6, "boot_ms", medians[ONCE] / 1e6);
	char bytes[32], count[32] = "an unknown number";

	if (saved->json) {
		json_dumpf(object, stdout, JSON_INDENT(2)), putchar('\n');
	} else {
		if (stats->strays != MEMSLOT_NONE)
			snprintf(count, sizeof(count), "%llu", (unsigned long long)stats->strays);
		printf("%s: %s at %p, pointers into %llu object%s of the program, %s elsewhere\n",
			saved->file, format_size(size, bytes, sizeof(bytes)), BASE,
			(unsigned long long)stats->objects, stats->objects == 1 ? "" : "s", count);
		printf("a process that boots and answers  %6.2f ms\n"
		       "a process that opens and answers  %6.2f ms  (medians of %d, by turns)\n",
			medians[ONCE] / 1e6, medians[OPEN] / 1e6, ROUNDS);
	}
	json_decref(object);
}

/* What was booted, with the note. */
static int boot_noted(
	const struct saved *saved, struct memslot_slot *slot, struct memslot_image **ret_image)
{
	struct memslot_image_opts opts = {.size = sizeof(opts)};
	char note[NOTE];
	int error = saved->boot(saved->context, slot, ret_image);

	if (error)
		return error;
	memslot_image_unref(*ret_image); /* the slot has one */
	opts.note_size = (size_t)make_note(saved, note);
	opts.note = note;
	return memslot_slot_capture(slot, &opts, ret_image);
}

static int save(const struct saved *saved, struct memslot_slot *slot)
{
	struct memslot_image_stats stats = {.size = sizeof(stats)};
	struct memslot_image *image;
	double medians[WAYS];
	int error = boot_noted(saved, slot, &image);

	if (error)
		return error;
	error = memslot_image_stats(image, &stats);
	if (!error)
		error = memslot_image_save(image, saved->file);
	if (!error)
		error = compare_ways(saved, medians);
	if (!error)
		report(saved, memslot_image_size(image), &stats, medians);
	memslot_image_unref(image);
	return error;
}

static int boot_once(const struct saved *saved, struct memslot_slot *slot)
{
	struct memslot_image *image;
	int error = saved->boot(saved->context, slot, &image);

	if (error)
		return error;
	memslot_image_unref(image);
	return answer_once(saved);
}

static void blame(const struct saved *saved, int error)
{
	if (error == -ESTALE)
		complain(0,
			"%s: saved by another program, or one with other libraries or addresses",
			saved->file);
	else if (error == -EADDRNOTAVAIL)
		complain(0, "no slot at %p", BASE);
	else if (error != -EPROTO)
		complain(error, "%s", saved->file ? saved->file : saved->command);
}

int saved_run(const struct saved *saved)
{
	struct memslot_slot *slot = NULL;
	int error = fix_layout();

	if (error) {
		complain(error, "cannot switch off address space randomization");
		return EXIT_FAILED;
	}
	error = make_slot(&slot);
	if (!error && saved->mode == SAVED_SAVE)
		error = save(saved, slot);
	else if (!error && saved->mode == SAVED_ONCE)
		error = boot_once(saved, slot);
	else if (!error)
		error = show_file(saved, slot);
	if (!error && saved->mode == SAVED_OPEN)
		error = answer_once(saved);
	if (error)
		blame(saved, error);
	memslot_slot_destroy(slot);
	return error ? EXIT_FAILED : 0;
}
