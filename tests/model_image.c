/* SPDX-License-Identifier: MIT */
/*
 * model_image.c - images of every kind, each with the bytes that it must hold.
 *
 * Sizes are drawn so that some images are small enough to be copied, most are mapped, some have
 * gaps that become holes and some end within a page.
 */
#define _GNU_SOURCE
#include "model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXTENTS 6

size_t model_round(size_t bytes)
{
	return (bytes + test_page() - 1) & ~(test_page() - 1);
}

bool model_chance(struct test_rng *rng, unsigned percent)
{
	return test_below(rng, 100) < percent;
}

static struct model_image *new_image(size_t end)
{
	struct model_image *made = calloc(1, sizeof *made);

	ck_assert_ptr_nonnull(made);
	made->bytes = calloc(1, end + 1);
	ck_assert_ptr_nonnull(made->bytes);
	made->end = end;
	made->refs = 1;
	return made;
}

struct model_image *model_image_ref(struct model_image *image)
{
	image->refs++;
	return image;
}

void model_image_give_up(struct model_image *image)
{
	memslot_image_unref(image->image);
	image->image = NULL;
}

void model_image_unref(struct model_image *image)
{
	if (--image->refs)
		return;
	model_image_give_up(image);
	free(image->bytes);
	free(image);
}

static void fill_page(struct test_rng *rng, unsigned char *bytes, size_t size)
{
	unsigned kind = (unsigned)test_below(rng, 4);

	for (size_t i = 0; kind > 1 && i < size; i += 8) {
		uint64_t word = test_next(rng);
		memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
	}
	if (kind == 1)
		bytes[test_below(rng, size)] = (unsigned char)(1 + test_below(rng, 255));
}

void model_random_bytes(struct test_rng *rng, unsigned char *bytes, size_t size)
{
	bool dense = model_chance(rng, 50);
	size_t page = test_page();

	/* Long stretches of zero pages become gaps, short ones are filled. */
	for (size_t at = 0, left = 0; at<size; at += page, left -= left> 0) {
		if (!dense && left == 0 && model_chance(rng, 5))
			left = test_below(rng, 40);
		if (left == 0)
			fill_page(rng, bytes + at, size - at < page ? size - at : page);
	}
}

/* What a fresh image says of itself must agree with what it was made of. */
static struct model_image *check_range(struct model_image *made)
{
	uint64_t start = memslot_image_offset(made->image),
		 end = start + memslot_image_size(made->image);

	if (start % test_page() || end % test_page() || end > made->end)
		model_fail("image %#zx-%#zx of %#zx bytes", (size_t)start, (size_t)end, made->end);
	if (!test_zero(made->bytes, start) || !test_zero(made->bytes + end, made->end - end))
		model_fail("image %#zx-%#zx leaves out bytes", (size_t)start, (size_t)end);
	made->end = end;
	made->base_address = memslot_image_base_address(made->image);
	return made;
}

struct model_image *model_image_of(
	struct memslot_image *image, const unsigned char *bytes, size_t size)
{
	struct model_image *made = new_image(size);

	made->image = image;
	if (size)
		memcpy(made->bytes, bytes, size);
	return check_range(made);
}

static size_t some_size(struct test_rng *rng, size_t limit)
{
	size_t small = model_chance(rng, 40) ? 5 * test_page() : limit;

	return 1 + test_below(rng, small < limit ? small : limit);
}

static struct model_image *from_bytes(struct test_rng *rng, size_t limit)
{
	size_t size = some_size(rng, limit),
	       offset = model_chance(rng, 40) ? 0 : test_below(rng, limit - size + 1);
	struct model_image *made = new_image(model_round(offset + size));
	struct memslot_image_opts opts = {.size = sizeof opts, .slot_offset = offset};

	model_random_bytes(rng, made->bytes + offset, size);
	model_log("image from %#zx bytes at %#zx", size, offset);
	model_expect(memslot_image_from_bytes(made->bytes + offset, size, &opts, &made->image), 0);
	return check_range(made);
}

/* Extents that do not overlap but may share pages; in any order. */
static struct model_image *from_extents(struct test_rng *rng, size_t limit)
{
	struct memslot_extent extents[EXTENTS];
	struct model_image *made = new_image(model_round(limit));
	size_t at = 0, count = 0, first = 1 + test_below(rng, EXTENTS);
	struct memslot_image_opts opts = {.size = sizeof opts};

	opts.slot_offset = model_chance(rng, 30) ? test_below(rng, limit) : 0;
	for (at = opts.slot_offset; count < first && at < limit; count++) {
		size_t size = 1 + test_below(rng, (limit - at) / (first - count) + 1);
		size = size > limit - at ? limit - at : size;
		model_random_bytes(rng, made->bytes + at, size);
		extents[count] =
			(struct memslot_extent){at - opts.slot_offset, made->bytes + at, size};
		at += size + test_below(rng, model_chance(rng, 50) ? 9 : 30 * test_page());
	}
	for (size_t i = 0; i < count; i++) {
		size_t j = test_below(rng, count);
		struct memslot_extent swap = extents[i];
		extents[i] = extents[j];
		extents[j] = swap;
	}
	model_log("image from %zu extents at %#zx", count, (size_t)opts.slot_offset);
	model_expect(memslot_image_from_extents(extents, count, &opts, &made->image), 0);
	return check_range(made);
}

static int temporary(char *path)
{
	int fd;

	strcpy(path, "/tmp/memslot-model-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	return fd;
}

/* Pages of zeros stay holes of the file. */
static void write_unless_zero(int fd, const unsigned char *bytes, size_t size, size_t offset)
{
	if (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0)
		return;
	ck_assert_int_eq(pwrite(fd, bytes, size, (off_t)offset), (ssize_t)size);
}

/* A part of a file: copied, or the file itself mapped. */
static struct model_image *from_file(struct test_rng *rng, size_t limit, bool mapped)
{
	size_t page = test_page(), size = some_size(rng, limit);
	size_t skip = page * test_below(rng, 3),
	       offset = page * test_below(rng, (limit - size) / page + 1);
	struct model_image *made = new_image(model_round(offset + size));
	struct memslot_image_opts opts = {.size = sizeof opts, .slot_offset = offset};
	char path[40];
	int fd = temporary(path);

	unlink(path);
	model_random_bytes(rng, made->bytes + offset, size);
	ck_assert_int_eq(ftruncate(fd, (off_t)(skip + size)), 0);
	for (size_t at = 0; at < size; at += page)
		write_unless_zero(fd, made->bytes + offset + at,
			size - at < page ? size - at : page, skip + at);
	opts.flags = mapped ? MEMSLOT_IMAGE_MAP_FILE : 0;
	model_log("image %s file %#zx-%#zx at %#zx", mapped ? "mapping" : "copied from", skip,
		skip + size, offset);
	model_expect(memslot_image_from_fd(
			     fd, skip, model_chance(rng, 50) ? size : 0, &opts, &made->image),
		0);
	close(fd);
	return check_range(made);
}

struct model_image *model_image_reopened(struct test_rng *rng, const struct model_image *from)
{
	static const uint32_t flags[] = {0, MEMSLOT_IMAGE_VERIFY, MEMSLOT_IMAGE_MAP_FILE};
	struct memslot_image_opts opts = {.size = sizeof opts, .flags = flags[test_below(rng, 3)]};
	struct memslot_image *image;
	struct model_image *made;
	char path[40];

	close(temporary(path));
	model_log("image saved and opened, flags %u", opts.flags);
	model_expect(memslot_image_save(from->image, path), 0);
	model_expect(memslot_image_open(path, &opts, &image), 0);
	unlink(path);
	made = model_image_of(image, from->bytes, from->end);
	if (made->base_address != from->base_address || made->end != from->end)
		model_fail("reopened: base %p, end %#zx", made->base_address, made->end);
	return made;
}

struct model_image *model_image_random(struct test_rng *rng, size_t limit)
{
	struct model_image *made, *again;

	switch (limit ? test_below(rng, 8) : 100) {
	case 0:
	case 1:
		return from_extents(rng, limit);
	case 2:
		return from_file(rng, limit, false);
	case 3:
		return from_file(rng, limit, true);
	case 4:
		made = from_bytes(rng, limit);
		again = model_image_reopened(rng, made);
		model_image_unref(made);
		return again;
	case 100:
		return NULL;
	default:
		return from_bytes(rng, limit);
	}
}
