/* SPDX-License-Identifier: MIT */
/*
 * format.h - a saved image, versions 1 and 2.
 *
 *   0             struct ms_format_head, of its version
 *                 struct ms_format_extent, extent_count of them
 *                 version 2: struct ms_program, program_size bytes
 *                 the note, note_size bytes
 *                 zeros up to a whole page
 *   header_size   the image's pages, holes where it has gaps; size bytes, to the end of the file
 *
 * So the file offset of an image page is header_size plus its offset in the image, and the file can
 * be mapped in place. Numbers are in the byte order of the machine that wrote them. Images without
 * a record of their program are written as version 1.
 */
#ifndef MS_FORMAT_H
#define MS_FORMAT_H

#include "image/image.h"

#define MS_FORMAT_MAGIC "\211MSLOT\r\n"
#define MS_FORMAT_BYTE_ORDER 0x01020304u
#define MS_FORMAT_VERSION 2u
#define MS_FORMAT_HEADER_MAX (64u << 20)

struct ms_format_head {
	unsigned char magic[8]; /* MS_FORMAT_MAGIC, without its end */
	uint32_t byte_order, version;
	uint64_t page_size;
	uint64_t header_size;	    /* whole pages */
	uint64_t header_checksum;   /* XXH3 of the header_size bytes with this field zero */
	uint64_t contents_checksum; /* XXH3 of each page that is not zero: its number, its bytes */
	uint64_t slot_offset, size; /* whole pages */
	uint64_t base_address;	    /* page aligned; 0: not bound */
	uint64_t extent_count, note_size;
	uint64_t program_size; /* since version 2 */
};

/* Whole pages, from the image's first on; sorted, MS_IMAGE_GAP_PAGES apart. */
struct ms_format_extent {
	uint64_t offset, size;
};

_Static_assert(sizeof(struct ms_format_head) == 96, "no padding");

/* The size of a header, in whole pages; 0: larger than any may be. Without a program: version 1. */
MS_HIDDEN uint64_t ms_format_size(uint64_t extent_count, uint64_t note_size, uint64_t program_size);
/* Write the whole header of an image, ms_format_size bytes. */
MS_HIDDEN void ms_format_fill(
	struct ms_format_head *head, const struct memslot_image *image, uint64_t contents_checksum);
/* Do the numbers of the head fit each other and a file of this length? */
MS_HIDDEN bool ms_format_head_is_sane(const struct ms_format_head *head, uint64_t length);
/* Is a whole header, whose head is sane, undamaged, and are its extents possible? */
MS_HIDDEN bool ms_format_header_is_sane(struct ms_format_head *header);
/* Of header_size bytes. */
MS_HIDDEN uint64_t ms_format_checksum(struct ms_format_head *header);

static inline uint64_t ms_format_program_size(const struct ms_format_head *head)
{
	return head->version == 1 ? 0 : head->program_size;
}

/* The parts of a whole header that is sane. */
MS_HIDDEN const struct ms_format_extent *ms_format_extents(const struct ms_format_head *head);
MS_HIDDEN const struct ms_program *ms_format_program(const struct ms_format_head *head);
MS_HIDDEN const void *ms_format_note(const struct ms_format_head *head);

#endif
