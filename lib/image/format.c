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

#include <string.h>
#include <xxhash.h>

uint64_t ms_format_checksum(struct ms_format_head *header)
{
	uint64_t checksum, stored = header->header_checksum;

	header->header_checksum = 0;
	checksum = XXH3_64bits(header, header->header_size);
	header->header_checksum = stored;
	return checksum;
}

uint64_t ms_format_size(uint64_t extent_count, uint64_t note_size)
{
	const size_t one = sizeof(struct ms_format_extent);
	uint64_t size = sizeof(struct ms_format_head) + ms_page_size() - 1;

	if (note_size > MS_IMAGE_NOTE_MAX || extent_count > MS_FORMAT_HEADER_MAX / one)
		return 0;
	size = ms_round_down(size + extent_count * one + note_size);
	return size > MS_FORMAT_HEADER_MAX ? 0 : size;
}

void ms_format_fill(
	struct ms_format_head *head, const struct memslot_image *image, uint64_t contents_checksum)
{
	struct ms_format_extent *extents = (struct ms_format_extent *)(head + 1);

	*head = (struct ms_format_head){
		.magic = MS_FORMAT_MAGIC,
		.byte_order = MS_FORMAT_BYTE_ORDER,
		.version = MS_FORMAT_VERSION,
		.page_size = ms_page_size(),
		.header_size = ms_format_size(image->extent_count, image->note_size),
		.contents_checksum = contents_checksum,
		.slot_offset = memslot_image_offset(image),
		.size = memslot_image_size(image),
		.base_address = (uintptr_t)image->base_address,
		.extent_count = image->extent_count,
		.note_size = image->note_size,
	};
	for (size_t i = 0; i < image->extent_count; i++) {
		extents[i].offset = ms_pages_to_bytes(image->extents[i].first - image->first);
		extents[i].size = ms_pages_to_bytes(image->extents[i].count);
	}
	if (image->note_size)
		memcpy(extents + image->extent_count, image->note, image->note_size);
	head->header_checksum = ms_format_checksum(head);
}

bool ms_format_head_is_sane(const struct ms_format_head *head, uint64_t length)
{
	uint64_t size = ms_format_size(head->extent_count, head->note_size), end;

	if (size == 0 || size != head->header_size)
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

bool ms_format_header_is_sane(struct ms_format_head *header)
{
	return ms_format_checksum(header) == header->header_checksum && extents_are_sane(header);
}
