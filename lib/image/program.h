/* SPDX-License-Identifier: MIT */
/*
 * program.h - which program an image's pointers lead into.
 *
 *   program.c   what identifies objects and the machine; is it the same here?
 *   pointers.c  look for pointers in an image: which objects, and how many lead elsewhere
 */
#ifndef MS_PROGRAM_H
#define MS_PROGRAM_H

#include "base/util.h"

struct dl_phdr_info;
struct memslot_image;

/* The executable, or a shared object that a pointer leads into. */
struct ms_program_object {
	uint64_t address; /* of its first byte in memory */
	uint64_t build;
};

/* As it lies in a file, too. */
struct ms_program {
	uint64_t machine;
	uint64_t strays; /* pointers that lead elsewhere; MEMSLOT_NONE: not counted */
	uint64_t count;
	struct ms_program_object objects[];
};

static inline size_t ms_program_size(uint64_t count)
{
	return sizeof(struct ms_program) + count * sizeof(struct ms_program_object);
}

/* --- program.c --- */
/* False: the kernel's own, which is nobody's build. */
MS_HIDDEN bool ms_program_describe(
	const struct dl_phdr_info *info, struct ms_program_object *ret_object);
/* The processor's features and GLIBC_TUNABLES: libc and libm choose functions by them. */
MS_HIDDEN uint64_t ms_program_machine(void);
/* Is everything here where the image's pointers lead? 0, or -ESTALE: it does not say, or no. */
MS_HIDDEN int ms_program_check(const struct memslot_image *image);
/* An image that was taken over `from`, whose pointers lead into another program, leads there, too. */
MS_HIDDEN int ms_program_inherit(struct memslot_image *image, const struct memslot_image *from);

/* --- pointers.c --- */
/*
 * Look through an image that was just built, whose slot lies at [slot, slot + size), and record
 * what it points into. Pointers into the slot are its own.
 */
MS_HIDDEN int ms_program_record(struct memslot_image *image, const void *slot, size_t size);

#endif
