/* SPDX-License-Identifier: MIT */
/*
 * image.h - what the slot needs to know of an image. Public side: <memslot/image.h>.
 *
 *   slot pages   first                                            first + pages
 *                | extent |   gap: zeros, never mapped   | extent |
 *   file         file_offset + (page - first) * page size
 */
#ifndef MS_IMAGE_H
#define MS_IMAGE_H

#include "base/util.h"
#include "image/program.h"

#include <stdatomic.h>
#include <sys/stat.h>

#include <memslot/image.h>

/* Gaps shorter than this belong to the extent around them (INVARIANTS 5). */
#define MS_IMAGE_GAP_PAGES 16
#define MS_IMAGE_NOTE_MAX (1u << 20)

/* Pages [first, first + count) of the slot; sorted, at least MS_IMAGE_GAP_PAGES apart. */
struct ms_extent {
	size_t first, count;
};

struct memslot_image {
	_Atomic(uint64_t) refs;
	uint64_t serial;	   /* never 0, never another one's */
	uint64_t heap_number;	   /* of the heap's handle that it was taken under, or 0 */
	_Atomic(uint64_t) learnt;  /* how its slots were best reset: ms_policy_pack */
	int fd;			   /* slots map it, private */
	uint64_t file_offset;	   /* of the image's first page in fd; page aligned */
	size_t first, pages;	   /* in the slot */
	struct ms_extent *extents; /* what is mapped; the rest is zeros */
	size_t extent_count;
	size_t extent_pages; /* their sum */
	const unsigned char
		*bytes;	    /* all pages, mapped read-only: the restore source.
			       Only extents may be read (INVARIANTS 5). NULL: the caller's
			       own file, which the library never dereferences (INVARIANTS 6) */
	void *base_address; /* of the only slot that may show it, or NULL */
	void *note;
	size_t note_size;
	struct ms_program *program; /* what its pointers lead into; NULL: nobody looked */
};

/* The image's bytes of a page that lies in one of its extents; bytes must not be NULL. */
static inline const void *ms_image_page(const struct memslot_image *image, size_t page)
{
	return image->bytes + ms_pages_to_bytes(page - image->first);
}

/* Offset in image->fd of a page of the slot. */
static inline uint64_t ms_image_file_offset(const struct memslot_image *image, size_t page)
{
	return image->file_offset + ms_pages_to_bytes(page - image->first);
}

/*
 * Read pages that lie in one extent, by read(2) where bytes is NULL. The caller's file may end
 * inside the image's last page: the rest of it is zeros. -EIO: the file shrank.
 */
MS_HIDDEN int ms_image_read(const struct memslot_image *image, size_t page, size_t count, void *to);

/* The first extent that ends behind `page` (index), extent_count when there is none. */
MS_HIDDEN size_t ms_image_extent_at(const struct memslot_image *image, size_t page);

/*
 * Building a sealed image: begin, write what is known not to be zero, finish (or abort). Bytes
 * never written are zero. Written by write(2), so that a source the kernel cannot read is -EFAULT
 * and no signal. finish finds the zero pages, also those written, and makes them gaps; it consumes
 * the build whether it succeeds or not.
 */
struct ms_build {
	int fd;
	bool sealable;
	size_t first, pages; /* in the slot */
};

/* -EFBIG over RLIMIT_FSIZE, compared before anything is written (INVARIANTS 25). */
MS_HIDDEN int ms_build_begin(struct ms_build *build, size_t first, size_t pages);
/* `slot_offset` in bytes; within the image's pages. */
MS_HIDDEN int ms_build_write(
	struct ms_build *build, uint64_t slot_offset, const void *bytes, size_t size);
/*
 * Copy from a file; -EIO when it ends before. Holes and zeros are skipped: copy first, write over
 * it afterwards. Moves the descriptor's file position (SEEK_DATA).
 */
MS_HIDDEN int ms_build_copy(
	struct ms_build *build, uint64_t slot_offset, int fd, uint64_t offset, uint64_t size);
/* The same without asking for holes: the file position stays. */
MS_HIDDEN int ms_build_copy_all(
	struct ms_build *build, uint64_t slot_offset, int fd, uint64_t offset, uint64_t size);
MS_HIDDEN int ms_build_finish(struct ms_build *build, const void *note, size_t note_size,
	void *base_address, struct memslot_image **ret_image);
MS_HIDDEN void ms_build_abort(struct ms_build *build);

/* An image without contents, one reference: what the constructors fill in. */
MS_HIDDEN int ms_image_new(size_t first, size_t pages, const void *note, size_t note_size,
	struct memslot_image **ret_image);
/* Append pages to the last extent (with the gap between, if it is short) or make a new one;
 * ascending order. */
MS_HIDDEN int ms_image_add_extent(struct memslot_image *image, size_t first, size_t count);
/* The pages of the slot that `size` bytes from `offset` on lie in; -EMSGSIZE when that overflows.
 */
MS_HIDDEN int ms_image_span(uint64_t offset, uint64_t size, size_t *ret_first, size_t *ret_pages);
/* Is it a file: 0, -EISDIR, -ESPIPE? */
MS_HIDDEN int ms_image_check_file(int fd, struct stat *ret_stat);
/* MAP_FILE: keep a duplicate of fd; the image begins at `offset` in it. -EOPNOTSUPP: no slot could
 * map it. */
MS_HIDDEN int ms_image_keep_file(struct memslot_image *image, int fd, uint64_t offset);

#endif
