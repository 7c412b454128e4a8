/* SPDX-License-Identifier: MIT */
/*
 * memslot/image.h - immutable initial contents of a slot.
 *
 * An image is a sequence of pages that begins at a page-aligned offset inside the slot, held in a
 * sealed memfd (or in the caller's file with MEMSLOT_IMAGE_MAP_FILE). Slots map it copy-on-write.
 * Pages of zeros are not stored: they are gaps between the image's extents.
 *
 * Common keys:
 * Units:   bytes; offsets are uint64_t, lengths in memory size_t.
 * Owner:   what is passed in is copied before the call returns, except with MAP_FILE. An image is
 *          reference counted; constructors return one reference, which the caller drops by unref.
 * Threads: all functions may be called from any thread; an image never changes.
 * Fork:    an image works in the child as it does in the parent (raw clone(2) included).
 * Errors:  -ENOMEM, -EMSGSIZE a note of more than 1 MiB, and the kernel's own from memfd_create(2), mmap(2), read(2), write(2), besides
 *          those named at each function.
 * Since:   0.1
 */
#ifndef MEMSLOT_IMAGE_H
#define MEMSLOT_IMAGE_H

#include <memslot/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memslot_image;

/* `size` bytes at `bytes` belong at `slot_offset` from the start of the slot (or of opts.slot_offset). */
struct memslot_extent {
	uint64_t slot_offset;
	const void *bytes;
	uint64_t size;
};

/*
 * slot_offset  shifts the whole image inside the slot; any number: contents whose start or end is
 *              not page aligned are padded with zeros to whole pages (with MAP_FILE -EINVAL)
 * note         note_size bytes of the caller's own, at most 1 MiB, kept and saved with the image
 *
 * Which call takes what, else -EINVAL: from_bytes and from_extents slot_offset and note; from_fd
 * also MAP_FILE; open VERIFY and MAP_FILE only; memslot_slot_capture STRICT and note.
 */
struct memslot_image_opts {
	uint32_t size, flags;
	uint64_t slot_offset;
	const void *note;
	uint64_t note_size;
};

/* Map the caller's file itself instead of a sealed copy: shares the page cache; the caller promises
 * that the file stays as it is and as long as it is (else slots change, or get SIGBUS). */
#define MEMSLOT_IMAGE_MAP_FILE (1u << 0)
/* Check the checksum of a saved image's contents on open: of what the header declares. Bytes that
 * somebody wrote into the holes between extents are no contents and never shown. With MAP_FILE
 * -EINVAL. */
#define MEMSLOT_IMAGE_VERIFY (1u << 1)
/* Capture: -ENOTUNIQ when it holds strays (see memslot_image_stats), whether the slot is bound or
 * not; -EOPNOTSUPP where they cannot be counted. */
#define MEMSLOT_IMAGE_STRICT (1u << 2)

/*
 * An image of one piece of memory.
 *   bytes      the contents, read during the call
 *   size       how many, 1 or more
 *   opts       slot_offset, note; NULL: none
 *   ret_image  one reference, the caller's
 * Cost:   one copy of the contents.
 * Errors: -EINVAL NULL, size 0, or a flag; -EMSGSIZE offset + size overflows; -EFBIG over
 *         RLIMIT_FSIZE (the signal is not raised); -E2BIG options from a newer header
 */
int memslot_image_from_bytes(const void *bytes, size_t size, const struct memslot_image_opts *opts,
		struct memslot_image **ret_image);

/*
 * An image of several pieces, in any order; several in one page are fine. Extents of size 0 are
 * skipped.
 *   extents    count of them, read during the call
 *   count      1 or more
 *   opts       slot_offset (added to every extent's), note; NULL: none
 *   ret_image  one reference, the caller's
 * Cost:   one copy of the contents; gaps cost nothing.
 * Errors: -EINVAL NULL, no bytes at all, a flag, or extents that overlap in a byte; -EMSGSIZE
 *         offsets and sizes that overflow; -EFBIG over RLIMIT_FSIZE; -E2BIG options from a newer
 *         header
 */
int memslot_image_from_extents(const struct memslot_extent *extents, size_t count,
		const struct memslot_image_opts *opts, struct memslot_image **ret_image);

/*
 * An image of a part of a raw file.
 *   fd           open for reading; not kept, except that MAP_FILE keeps a duplicate
 *   file_offset  where to begin; with MAP_FILE a multiple of the page size
 *   size         how much; 0: to the end of the file; with MAP_FILE a multiple of the page size
 *                unless it ends at the end of the file
 *   opts         slot_offset, note, MEMSLOT_IMAGE_MAP_FILE; NULL: none
 *   ret_image    one reference, the caller's
 * Cost:   one copy of what the file holds (holes are skipped); with MAP_FILE none.
 * Errors: -EINVAL an empty file, a range past its end, unaligned with MAP_FILE, or an unknown flag;
 *         -ESPIPE a pipe or socket; -EISDIR a directory; -EBADF not open for reading; -EIO the file
 *         shrank during the copy; -EMSGSIZE an overflow; -EFBIG over RLIMIT_FSIZE; -EOPNOTSUPP
 *         MAP_FILE of a file that cannot be mapped; -E2BIG options from a newer header
 */
int memslot_image_from_fd(int fd, uint64_t file_offset, size_t size,
		const struct memslot_image_opts *opts, struct memslot_image **ret_image);

/*
 * Open an image that memslot_image_save wrote.
 *   path       the file
 *   opts       VERIFY or MAP_FILE; NULL: neither. Everything else is in the file
 *   ret_image  one reference, the caller's
 * Cost:   one copy of the contents; with MAP_FILE none. The header's checksum and the file's length
 *         are always checked.
 * Errors: -EBADMSG not our format, version, byte order or page size; -EUCLEAN damaged; -EINVAL
 *         VERIFY and MAP_FILE together, or other options; -EISDIR a directory; -ESPIPE not a file;
 *         -EIO the file shrank during the copy; -EFBIG over RLIMIT_FSIZE; -E2BIG options from a
 *         newer header; -EOPNOTSUPP MAP_FILE of a file that cannot be mapped; those of open(2)
 */
int memslot_image_open(const char *path, const struct memslot_image_opts *opts,
		struct memslot_image **ret_image);

/*
 * Save an image: a sparse file, page-aligned so that it can be mapped in place. Readable by its
 * owner only: an image is memory.
 *   image  any, a MAP_FILE one included
 *   path   replaced atomically: temporary file beside it, fsync, rename, fsync of the folder
 * Cost:   one copy of the contents, and the disk.
 * Errors: -EINVAL NULL; -EFBIG over RLIMIT_FSIZE; -EIO a mapped file shrank meanwhile; -EMSGSIZE
 *         more than about 4 million extents; those of open(2), write(2), fsync(2) and rename(2).
 *         When only the folder's fsync failed the new file is in place all the same
 */
int memslot_image_save(const struct memslot_image *image, const char *path);

/* One more reference. Returns image; NULL for NULL. Cost: an atomic add. Errors: none */
struct memslot_image *memslot_image_ref(struct memslot_image *image);

/* Drop a reference; the last one frees the image. NULL is fine. A slot that shows the image holds
 * a reference of its own. Errors: none */
void memslot_image_unref(struct memslot_image *image);

/* Where the image starts inside the slot: page aligned. 0 for NULL. Errors: none */
uint64_t memslot_image_offset(const struct memslot_image *image);

/* How long it is, from memslot_image_offset on, gaps included, in whole pages. 0 for NULL. Errors: none */
size_t memslot_image_size(const struct memslot_image *image);

/* The address of the only slot that may show it (a bound image: its contents hold pointers into
 * themselves); NULL: any slot. Errors: none */
void *memslot_image_base_address(const struct memslot_image *image);

/*
 * The note given when the image was made.
 *   ret_note   its bytes, the image's own, valid as long as the image
 *   ret_size   how many
 * Errors: -EINVAL NULL; -ENOENT no note
 */
int memslot_image_note(const struct memslot_image *image, const void **ret_note, size_t *ret_size);

/*
 * What the pointers of an image lead into, as it was at the capture or checkpoint that made it. Only
 * images of bound slots are looked through, and captures with MEMSLOT_IMAGE_STRICT; the record is saved
 * with the image. A pointer is an aligned word that holds the address of mapped memory outside the
 * slot; a number may look like one.
 *   objects  the executable, and shared objects that pointers lead into: memslot_heap_open wants the
 *            same builds at the same addresses; 0: not looked through
 *   strays   words that lead elsewhere: to a stack, TLS, memory of malloc's, another slot. They
 *            are as good in another process as what they point at. MEMSLOT_NONE: not counted,
 *            because nobody looked or there is no /proc/self/maps
 */
struct memslot_image_stats {
	uint32_t size, reserved;
	uint64_t objects, strays;
};

/*
 * Read them.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL NULL, or `size` below 8
 */
int memslot_image_stats(const struct memslot_image *image, struct memslot_image_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
