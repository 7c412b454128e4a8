/* SPDX-License-Identifier: MIT */
/*
 * image_show.c - what memslot image show tells of an image file, as JSON and as lines.
 *
 * Invariant: the lines print what is in the object, so that both tell the same.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memslot.h>

/* Where its pointers lead. */
static void describe_pointers(json_t *object, const struct memslot_image *image)
{
	struct memslot_image_stats stats = {.size = sizeof(stats)};

	memslot_image_stats(image, &stats);
	json_object_set_new(object, "objects",
		stats.objects ? json_integer((json_int_t)stats.objects) : json_null());
	json_object_set_new(object, "strays",
		stats.strays != MEMSLOT_NONE ? json_integer((json_int_t)stats.strays)
					     : json_null());
}

static void print_pointers(const json_t *object)
{
	const json_t *objects = json_object_get(object, "objects");
	const json_t *strays = json_object_get(object, "strays");

	if (json_is_null(objects))
		return;
	printf("%-14s into %" JSON_INTEGER_FORMAT " object%s of the program, ", "pointers",
		json_integer_value(objects), json_integer_value(objects) == 1 ? "" : "s");
	if (json_is_null(strays))
		printf("elsewhere: not counted\n");
	else
		printf("%" JSON_INTEGER_FORMAT " elsewhere\n", json_integer_value(strays));
}

json_t *describe_image(const char *path, const struct memslot_image *image)
{
	uintptr_t base = (uintptr_t)memslot_image_base_address(image);
	const void *note = NULL;
	size_t note_size = 0;
	struct stat file = {0};
	json_t *object, *name = json_string(path); /* NULL unless it is UTF-8 */
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &file))
		complain(-errno, "%s", path);
	object = json_pack("{s:o, s:I, s:I, s:I, s:o, s:I, s:I, s:o}", "file",
		name ? name : json_null(), "offset", (json_int_t)memslot_image_offset(image),
		"size", (json_int_t)memslot_image_size(image), "pages",
		(json_int_t)(memslot_image_size(image) / page_size()), "base_address",
		base ? json_sprintf("0x%zx", (size_t)base) : json_null(), "file_size",
		(json_int_t)file.st_size, "disk_use", (json_int_t)file.st_blocks * 512,
		"file_stretches", file_stretches(fd));
	memslot_image_note(image, &note, &note_size);
	set_note(object, note, note_size);
	describe_pointers(object, image);
	if (fd >= 0)
		close(fd);
	return object;
}

void print_image(const json_t *object)
{
	const char *base = json_string_value(json_object_get(object, "base_address"));

	printf("%-14s 0x%llx\n", "offset",
		(unsigned long long)json_integer_value(json_object_get(object, "offset")));
	print_size("size", json_object_get(object, "size"));
	printf("%-14s %s\n", "base address", base ? base : "any");
	print_note(object);
	print_pointers(object);
	print_size("file size", json_object_get(object, "file_size"));
	print_size("on disk", json_object_get(object, "disk_use"));
	print_stretches(json_object_get(object, "file_stretches"));
}
