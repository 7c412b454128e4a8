/* SPDX-License-Identifier: MIT */
/*
 * pointers.c - look for words in an image that look like pointers out of its slot.
 *
 *   word in the slot              its own
 *   word in an object's segment   the object is recorded: program.c compares it later
 *   word in other mapped memory   a stray: a stack, TLS, malloc's, another slot's
 *   any other word                no pointer
 *
 * Invariant: reads the image alone, which nobody changes, so that one pass is enough. What is
 * mapped is asked once, before it: where /proc cannot be read strays are not counted, and the rest
 * is done all the same. The executable is always recorded.
 *
 * One pass costs a compare for each word; only words between the lowest and the highest mapping
 * that are not in the slot are looked up.
 */
#define _GNU_SOURCE
#include "image/program.h"

#include "base/feature.h"
#include "base/os.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

struct span {
	uintptr_t start, end;
	size_t object;
};

struct spans {
	struct span *at; /* sorted, disjoint */
	size_t count;
};

struct object {
	struct ms_program_object is;
	bool used;
};

struct search {
	struct spans inside;  /* the objects' segments */
	struct spans outside; /* whatever is mapped, the objects too */
	struct object *objects;
	size_t object_count;
	uintptr_t slot, low;	 /* where the slot begins; the lowest of all spans, */
	size_t slot_size, reach; /* and up to the highest */
	uint64_t strays;
};

/* An array with room for one more than count: it has room for the next power of two. */
static void *with_room(void *array, size_t count, size_t one)
{
	void *grown;

	if (count & (count - 1))
		return array;
	grown = ms_os_alloc((count ? 2 * count : 1) * one);
	if (grown && count)
		memcpy(grown, array, count * one);
	if (grown)
		ms_os_free(array);
	return grown;
}

static int add_span(struct spans *spans, uintptr_t start, uintptr_t end, size_t object)
{
	struct span *grown = with_room(spans->at, spans->count, sizeof *grown);

	if (!grown)
		return -ENOMEM;
	spans->at = grown;
	spans->at[spans->count++] = (struct span){start, end, object};
	return 0;
}

/* --- what is loaded --- */

static int add_segments(struct search *search, const struct dl_phdr_info *info)
{
	int error = 0;

	for (int i = 0; !error && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + header->p_vaddr;
		if (header->p_type == PT_LOAD)
			error = add_span(&search->inside, start, start + header->p_memsz,
				search->object_count - 1);
	}
	return error;
}

static int add_object(struct dl_phdr_info *info, size_t size, void *context)
{
	struct search *search = context;
	struct ms_program_object object;
	struct object *grown;

	(void)size;
	if (!ms_program_describe(info, &object))
		return 0;
	grown = with_room(search->objects, search->object_count, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	search->objects = grown;
	/* The executable comes first. */
	search->objects[search->object_count] = (struct object){object, !search->object_count};
	search->object_count++;
	return add_segments(search, info);
}

static int by_start(const void *left, const void *right)
{
	const struct span *a = left, *b = right;

	return (a->start > b->start) - (a->start < b->start);
}

/* --- what is mapped --- */

/* A line of /proc/self/maps, as far as it was read: START-END PERMISSIONS and so on. */
struct line {
	uintptr_t number[2];
	unsigned field;
	bool open;
};

static int end_line(struct spans *spans, const struct line *line)
{
	uintptr_t start = line->number[0], end = line->number[1];

	/* What nobody can follow is no pointer; nor are addresses of the kernel's. */
	if (!line->open || start > INTPTR_MAX)
		return 0;
	if (spans->count && spans->at[spans->count - 1].end == start) {
		spans->at[spans->count - 1].end = end;
		return 0;
	}
	return add_span(spans, start, end, 0);
}

static int take_character(struct spans *spans, struct line *line, char c)
{
	int error = 0, digit = c <= '9' ? c - '0' : c - 'a' + 10;

	if (c == '\n') {
		error = end_line(spans, line);
		*line = (struct line){0};
	} else if (c == (line->field == 0 ? '-' : ' ')) {
		line->field++;
	} else if (line->field < 2) {
		line->number[line->field] = line->number[line->field] << 4 | (unsigned)digit;
	} else if (line->field == 2 && (c == 'r' || c == 'w' || c == 'x')) {
		line->open = true;
	}
	return error;
}

/* Not -ENOMEM: /proc is not there. */
static int read_maps(struct spans *spans)
{
	struct line line = {0};
	char text[4096]; /* as much as the kernel gives at once */
	uint64_t at = 0;
	int64_t got = 0;
	int fd = ms_os_open("/proc/self/maps", O_RDONLY, 0), error = fd < 0 ? fd : 0;

	for (; !error && (got = ms_os_read_some(fd, text, sizeof text, at)) > 0;
		at += (uint64_t)got) {
		for (int64_t i = 0; !error && i < got; i++)
			error = take_character(spans, &line, text[i]);
	}
	if (fd >= 0)
		ms_os_close(fd);
	return error ? error : (int)got;
}

/* --- the pass --- */

static const struct span *find(const struct spans *spans, uintptr_t word)
{
	size_t low = 0, high = spans->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (spans->at[middle].end > word)
			high = middle;
		else
			low = middle + 1;
	}
	return low < spans->count && spans->at[low].start <= word ? &spans->at[low] : NULL;
}

static void look_up(struct search *search, uintptr_t word)
{
	const struct span *span = find(&search->inside, word);

	if (span)
		search->objects[span->object].used = true;
	else if (find(&search->outside, word))
		search->strays++;
}

static void look_at_words(struct search *search, const uintptr_t *words, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (words[i] - search->low < search->reach &&
			words[i] - search->slot >= search->slot_size)
			look_up(search, words[i]);
	}
}

static void look_at_image(struct search *search, const struct memslot_image *image)
{
	for (size_t i = 0; i < image->extent_count; i++)
		look_at_words(search, ms_image_page(image, image->extents[i].first),
			ms_pages_to_bytes(image->extents[i].count) / sizeof(uintptr_t));
}

static void set_reach(struct search *search)
{
	const struct spans *all[] = {&search->inside, &search->outside};
	uintptr_t low = UINTPTR_MAX, high = 0;

	for (int i = 0; i < 2; i++) {
		if (all[i]->count == 0)
			continue;
		low = ms_min(low, all[i]->at[0].start);
		high = ms_max(high, all[i]->at[all[i]->count - 1].end);
	}
	search->low = low;
	search->reach = high > low ? high - low : 0;
}

static int look_around(struct search *search)
{
	int error = dl_iterate_phdr(add_object, search);

	if (error)
		return error;
	qsort(search->inside.at, search->inside.count, sizeof *search->inside.at, by_start);
	error = ms_feature(MS_FEATURE_PROC_MAPS) ? read_maps(&search->outside) : -EOPNOTSUPP;
	if (error == -ENOMEM)
		return error;
	if (error) {
		search->outside.count = 0;
		search->strays = MEMSLOT_NONE;
	}
	set_reach(search);
	return 0;
}

/* --- the record --- */

static int write_record(const struct search *search, struct memslot_image *image)
{
	struct ms_program *program = ms_os_alloc(ms_program_size(search->object_count));

	if (!program)
		return -ENOMEM;
	program->machine = ms_program_machine();
	program->strays = search->strays;
	for (size_t i = 0; i < search->object_count; i++) {
		if (search->objects[i].used)
			program->objects[program->count++] = search->objects[i].is;
	}
	image->program = program;
	return 0;
}

int ms_program_record(struct memslot_image *image, const void *slot, size_t size)
{
	struct search search = {.slot = (uintptr_t)slot, .slot_size = size};
	int error = look_around(&search);

	if (!error) {
		look_at_image(&search, image);
		error = write_record(&search, image);
	}
	ms_os_free(search.inside.at);
	ms_os_free(search.outside.at);
	ms_os_free(search.objects);
	return error;
}
