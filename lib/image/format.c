/* SPDX-License-Identifier: MIT */
/*
 * format.c - the header of a saved image: written, checked. The layout is in format.h.
 *
 * Invariant: a header that passes both checks can be used without another thought: every number
 * fits the others and the length of the file, nothing overflows, extents lie inside. The checksum
 * is no proof: whoever wrote the file could compute it too.
 *
 * Works on memory alone: no system calls, no locks.
 */
#include "image/format.h"

#include <stddef.h>
#include <string.h>
#include <xxhash.h>

/* Of the head, in the version that has a record of the program or not. */
static size_t head_size(uint64_t program_size)
{
	return program_size ? sizeof(struct ms_format_head)
			    : offsetof(struct ms_format_head, program_size);
}

const struct ms_format_extent *ms_format_extents(const struct ms_format_head *head)
{
	return (const void *)((const char *)head + head_size(ms_format_program_size(head)));
}

const struct ms_program *ms_format_program(const struct ms_format_head *head)
{
	return (const void *)(ms_format_extents(head) + head->extent_count);
}

const void *ms_format_note(const struct ms_format_head *head)
{
	return (const char *)ms_format_program(head) + ms_format_program_size(head);
}

uint64_t ms_format_checksum(struct ms_format_head *header)
{
	uint64_t checksum, stored = header->header_checksum;

	header->header_checksum = 0;
	checksum = XXH3_64bits(header, header->header_size);
	header->header_checksum = stored;
	return checksum;
}

uint64_t ms_format_size(uint64_t extent_count, uint64_t note_size, uint64_t program_size)
{
	const size_t one = sizeof(struct ms_format_extent);
	uint64_t size = head_size(program_size) + ms_page_size() - 1;

	if (note_size > MS_IMAGE_NOTE_MAX || extent_count > MS_FORMAT_HEADER_MAX / one ||
		program_size > MS_FORMAT_HEADER_MAX)
		return 0;
	size = ms_round_down(size + extent_count * one + program_size + note_size);
	return size > MS_FORMAT_HEADER_MAX ? 0 : size;
}

void ms_format_fill(
	struct ms_format_head *head, const struct memslot_image *image, uint64_t contents_checksum)
{
	uint64_t program_size = image->program ? ms_program_size(image->program->count) : 0;
	struct ms_format_extent *extents = (void *)((char *)head + head_size(program_size));

	*head = (struct ms_format_head){
		.magic = MS_FORMAT_MAGIC,
		.byte_order = MS_FORMAT_BYTE_ORDER,
		.version = program_size ? 2 : 1,
		.page_size = ms_page_size(),
		.header_size = ms_format_size(image->extent_count, image->note_size, program_size),
		.contents_checksum = contents_checksum,
		.slot_offset = memslot_image_offset(image),
		.size = memslot_image_size(image),
		.base_address = (uintptr_t)image->base_address,
		.extent_count = image->extent_count,
		.note_size = image->note_size,
		.program_size = program_size,
	};
	for (size_t i = 0; i < image->extent_count; i++) {
		extents[i].offset = ms_pages_to_bytes(image->extents[i].first - image->first);
		extents[i].size = ms_pages_to_bytes(image->extents[i].count);
	}
	if (program_size)
		memcpy(extents + image->extent_count, image->program, program_size);
	if (image->note_size)
		memcpy((char *)(extents + image->extent_count) + program_size, image->note,
			image->note_size);
	head->header_checksum = ms_format_checksum(head);
}

bool ms_format_head_is_sane(const struct ms_format_head *head, uint64_t length)
{
	uint64_t program_size = ms_format_program_size(head), end;
	uint64_t size = ms_format_size(head->extent_count, head->note_size, program_size);

	if (size == 0 || size != head->header_size)
		return false;
	if (head->version > 1 && program_size < sizeof(struct ms_program))
		return false;
	if (head->size > INT64_MAX || !ms_page_aligned(head->size) ||
		!ms_page_aligned(head->slot_offset) || !ms_page_aligned(head->base_address))
		return false;
	if (__builtin_add_overflow(head->slot_offset, head->size, &end))
		return false;
	return head->header_size + head->size == length;
}

static bool extents_are_sane(const struct ms_format_head *head)
{
	const struct ms_format_extent *extents = ms_format_extents(head);
	const uint64_t gap = ms_pages_to_bytes(MS_IMAGE_GAP_PAGES);
	uint64_t least = 0;

	for (uint64_t i = 0; i < head->extent_count; i++) {
		uint64_t offset = extents[i].offset, size = extents[i].size;
		if (!ms_page_aligned(offset) || !ms_page_aligned(size) || size == 0)
			return false;
		if (offset < least || offset > head->size || size > head->size - offset)
			return false;
		least = offset + size + gap;
	}
	return true;
}

static bool program_is_sane(const struct ms_format_head *head)
{
	uint64_t size = ms_format_program_size(head), count;

	if (size == 0)
		return true;
	count = (size - sizeof(struct ms_program)) / sizeof(struct ms_program_object);
	return count && ms_program_size(count) == size && ms_format_program(head)->count == count;
}

bool ms_format_header_is_sane(struct ms_format_head *header)
{
	return ms_format_checksum(header) == header->header_checksum && extents_are_sane(header) &&
	       program_is_sane(header);
}
