/* SPDX-License-Identifier: MIT */
/*
 * image.c - images: made from bytes or extents; counted; asked.
 *
 * Invariant: an image never changes once a constructor has returned it, so nothing here locks; only
 * the reference count is written, atomically. Whoever drops the last reference frees it.
 */
#include "image/image.h"

#include "base/opts.h"
#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- the object --- */

static _Atomic(uint64_t) serials;

int ms_image_new(size_t first, size_t pages, const void *note, size_t note_size,
	struct memslot_image **ret_image)
{
	struct memslot_image *image;

	if (note_size > MS_IMAGE_NOTE_MAX)
		return -EMSGSIZE;
	if (note_size && !note)
		return -EINVAL;
	image = ms_os_alloc(sizeof *image);
	if (!image)
		return -ENOMEM;
	atomic_init(&image->refs, 1);
	image->serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) + 1;
	image->fd = -1;
	image->first = first;
	image->pages = pages;
	if (note_size) {
		image->note = ms_os_alloc(note_size);
		if (!image->note) {
			ms_os_free(image);
			return -ENOMEM;
		}
		memcpy(image->note, note, note_size);
		image->note_size = note_size;
	}
	*ret_image = image;
	return 0;
}

/* The array has room for the next power of two of its count. */
static int extents_grow(struct memslot_image *image)
{
	size_t count = image->extent_count;
	struct ms_extent *grown;

	if (count & (count - 1))
		return 0;
	grown = ms_os_alloc((count ? 2 * count : 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	if (count)
		memcpy(grown, image->extents, count * sizeof *grown);
	ms_os_free(image->extents);
	image->extents = grown;
	return 0;
}

int ms_image_add_extent(struct memslot_image *image, size_t first, size_t count)
{
	struct ms_extent *last = NULL;
	int error;

	if (image->extent_count)
		last = &image->extents[image->extent_count - 1];
	if (last && first < last->first + last->count + MS_IMAGE_GAP_PAGES) {
		size_t more = first + count - (last->first + last->count);
		last->count += more;
		image->extent_pages += more;
		return 0;
	}
	error = extents_grow(image);
	if (error)
		return error;
	image->extents[image->extent_count++] = (struct ms_extent){first, count};
	image->extent_pages += count;
	return 0;
}

size_t ms_image_extent_at(const struct memslot_image *image, size_t page)
{
	size_t low = 0, high = image->extent_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (image->extents[middle].first + image->extents[middle].count > page)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

MS_EXPORT struct memslot_image *memslot_image_ref(struct memslot_image *image)
{
	if (image)
		atomic_fetch_add_explicit(&image->refs, 1, memory_order_relaxed);
	return image;
}

MS_EXPORT void memslot_image_unref(struct memslot_image *image)
{
	if (!image || atomic_fetch_sub_explicit(&image->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (image->bytes && image->pages)
		ms_os_unmap((void *)(uintptr_t)image->bytes, ms_pages_to_bytes(image->pages));
	if (image->fd >= 0)
		ms_os_close(image->fd);
	ms_os_free(image->extents);
	ms_os_free(image->note);
	ms_os_free(image->program);
	ms_os_free(image);
}

MS_EXPORT uint64_t memslot_image_offset(const struct memslot_image *image)
{
	return image ? ms_pages_to_bytes(image->first) : 0;
}

MS_EXPORT size_t memslot_image_size(const struct memslot_image *image)
{
	return image ? ms_pages_to_bytes(image->pages) : 0;
}

MS_EXPORT void *memslot_image_base_address(const struct memslot_image *image)
{
	return image ? image->base_address : NULL;
}

MS_EXPORT int memslot_image_note(
	const struct memslot_image *image, const void **ret_note, size_t *ret_size)
{
	if (!image || !ret_note || !ret_size)
		return -EINVAL;
	if (!image->note)
		return -ENOENT;
	*ret_note = image->note;
	*ret_size = image->note_size;
	return 0;
}

MS_EXPORT int memslot_image_stats(
	const struct memslot_image *image, struct memslot_image_stats *ret_stats)
{
	struct memslot_image_stats stats = {.strays = MEMSLOT_NONE};

	if (!image || !ret_stats)
		return -EINVAL;
	if (image->program) {
		stats.objects = image->program->count;
		stats.strays = image->program->strays;
	}
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}

/* --- constructors --- */

static int take_opts(
	struct memslot_image_opts *taken, uint32_t flags, const struct memslot_image_opts *opts)
{
	return ms_opts_take(taken, sizeof *taken, sizeof *taken, flags, opts);
}

int ms_image_span(uint64_t offset, uint64_t size, size_t *ret_first, size_t *ret_pages)
{
	uint64_t end;

	if (__builtin_add_overflow(offset, size, &end) || !ms_round_up(end, &end) ||
		end - ms_round_down(offset) > INT64_MAX)
		return -EMSGSIZE;
	*ret_first = ms_bytes_to_pages(offset);
	*ret_pages = ms_bytes_to_pages(end) - *ret_first;
	return 0;
}

/* An image of 1 or more pieces, sorted, disjoint, none empty, which do not overflow. */
static int from_pieces(const struct memslot_extent *pieces, size_t count,
	const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	const struct memslot_extent *last = &pieces[count - 1];
	uint64_t start, size = last->slot_offset + last->size - pieces[0].slot_offset;
	struct ms_build build;
	size_t first, pages;
	int error;

	if (__builtin_add_overflow(pieces[0].slot_offset, opts->slot_offset, &start))
		return -EMSGSIZE;
	error = ms_image_span(start, size, &first, &pages);
	if (!error)
		error = ms_build_begin(&build, first, pages);
	if (error)
		return error;
	for (size_t i = 0; !error && i < count; i++)
		error = ms_build_write(&build, pieces[i].slot_offset + opts->slot_offset,
			pieces[i].bytes, pieces[i].size);
	if (!error)
		return ms_build_finish(&build, opts->note, opts->note_size, NULL, ret_image);
	ms_build_abort(&build);
	return error;
}

MS_EXPORT int memslot_image_from_bytes(const void *bytes, size_t size,
	const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	const struct memslot_extent piece = {.bytes = bytes, .size = size};
	struct memslot_image_opts taken;
	int error = take_opts(&taken, 0, opts);

	if (error)
		return error;
	if (!bytes || !size || !ret_image)
		return -EINVAL;
	return from_pieces(&piece, 1, &taken, ret_image);
}

static int by_offset(const void *left, const void *right)
{
	const struct memslot_extent *a = left, *b = right;

	return (a->slot_offset > b->slot_offset) - (a->slot_offset < b->slot_offset);
}

/* Copy the extents that are not empty to `sorted`, in order. How many, or -errno. */
static int sort_pieces(const struct memslot_extent *extents, size_t count,
	struct memslot_extent *sorted, size_t *ret_count)
{
	size_t kept = 0;
	uint64_t end;

	for (size_t i = 0; i < count; i++) {
		if (extents[i].size == 0)
			continue;
		if (!extents[i].bytes)
			return -EINVAL;
		if (__builtin_add_overflow(extents[i].slot_offset, extents[i].size, &end))
			return -EMSGSIZE;
		sorted[kept++] = extents[i];
	}
	qsort(sorted, kept, sizeof *sorted, by_offset);
	for (size_t i = 1; i < kept; i++) {
		if (sorted[i - 1].slot_offset + sorted[i - 1].size > sorted[i].slot_offset)
			return -EINVAL;
	}
	*ret_count = kept;
	return kept ? 0 : -EINVAL;
}

MS_EXPORT int memslot_image_from_extents(const struct memslot_extent *extents, size_t count,
	const struct memslot_image_opts *opts, struct memslot_image **ret_image)
{
	struct memslot_image_opts taken;
	struct memslot_extent *sorted;
	size_t size;
	int error = take_opts(&taken, 0, opts);

	if (error)
		return error;
	if (!extents || !count || !ret_image)
		return -EINVAL;
	if (__builtin_mul_overflow(count, sizeof *sorted, &size))
		return -EMSGSIZE;
	sorted = ms_os_alloc(size);
	if (!sorted)
		return -ENOMEM;
	error = sort_pieces(extents, count, sorted, &count);
	if (!error)
		error = from_pieces(sorted, count, &taken, ret_image);
	ms_os_free(sorted);
	return error;
}
