/* SPDX-License-Identifier: MIT */
/* image.h - what the sources of test_image share: see test_image.c. */
#ifndef TESTS_IMAGE_H
#define TESTS_IMAGE_H

#include "common.h"

#include "image/format.h"

#define PAGE (test_page())
#define UNTOUCHED ((struct memslot_image *)(uintptr_t)0xdead)

/* Options in place, for a call that fails. */
#define IMAGE_OPTS(...) (&MEMSLOT_OPTS(memslot_image_opts, __VA_ARGS__))

/* A folder of its own for each test, and the current one. */
void image_folder_begin(void);
void image_folder_end(void);
unsigned image_folder_count(void); /* files in it */

/* Mappings of this process; only those of images where a sanitizer or valgrind makes its own. */
unsigned image_mapping_count(void);

/* Does the image hold exactly these bytes (all its pages)? Reads extents alone, as a slot would. */
bool image_holds(const struct memslot_image *image, const void *expected);
/* What every image must be: extents sorted, apart, inside, no long zeros in them. */
void image_check(const struct memslot_image *image);
uint64_t image_blocks(const struct memslot_image *image); /* bytes that its file occupies */

/* An image with a long gap, a short one, and zeros at both ends; image_sample_bytes is what it
 * holds (freed by the caller). */
#define SAMPLE_PAGES 48u
#define SAMPLE_OFFSET (3 * PAGE)
unsigned char *image_sample_bytes(void);
struct memslot_image *image_sample(void);
#define SAMPLE_NOTE "a note"

/* Whole files. */
void image_write_file(const char *path, const void *bytes, size_t size);
unsigned char *image_read_file(const char *path, size_t *ret_size);

void image_raw_cases(Suite *suite);
void image_saved_cases(Suite *suite);
void image_hostile_cases(Suite *suite);
void image_inject_cases(Suite *suite);
void image_program_cases(Suite *suite);

#endif
