/* SPDX-License-Identifier: MIT */
/* engines.h - how WebAssembly engines make and unmake an instance's memory: see engines_shape.c. */
#ifndef MEMSLOT_ENGINES_H
#define MEMSLOT_ENGINES_H

#include "tool.h"

/* One instance's memory. */
struct instance {
	char *reserved; /* as mmap gave it */
	char *memory;	/* where the guest's memory begins */
	size_t size;	/* of it, open */
	char *unmap;	/* what the engine unmaps in the end */
	size_t unmap_size;
};

struct engine {
	const char *name, *what;
	size_t reserve; /* bytes asked for */
	int flags;	/* MAP_NORESERVE or 0 */
	size_t align;	/* trimmed to it; 0: not trimmed */
	size_t front;	/* closed in front of the memory */
	size_t header;	/* open in front of the memory */
	int advice;	/* of the whole reservation; 0: none */
	bool commits;	/* by mmap(MAP_FIXED), not by mprotect */
	bool whole;	/* grows by opening all of it again, not the new part */
	bool leaks;	/* unmaps what is open only */
};

extern const struct engine engines[]; /* ends with a NULL name */

/* All as the engine does it. 0 or -errno. */
int engine_create(const struct engine *engine, size_t size, struct instance *ret_instance);
int engine_grow(const struct engine *engine, struct instance *instance, size_t size);
int engine_destroy(const struct engine *engine, const struct instance *instance);

#endif
