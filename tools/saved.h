/* SPDX-License-Identifier: MIT */
/* saved.h - a booted interpreter in a file: what an interpreter has to bring. See saved.c. */
#ifndef MEMSLOT_SAVED_H
#define MEMSLOT_SAVED_H

#include "tool.h"

#include <memslot.h>

enum saved_mode { SAVED_NOT, SAVED_SAVE, SAVED_OPEN, SAVED_ONCE };

struct saved {
	enum saved_mode mode;
	const char *file;
	const char *script; /* a path, or NULL */
	const char *command;
	bool json;
	/* All of it 0 or -errno; -EPROTO: has complained. Boot, and the slot's image is of that
	 * moment: one reference. */
	int (*boot)(void *context, struct memslot_slot *slot, struct memslot_image **ret_image);
	/* The slot shows such an image. */
	int (*open)(void *context, struct memslot_slot *slot);
	int (*answer)(void *context, char *text, size_t room, size_t *ret_size);
	void *context;
};

/* Returns an exit status. */
int saved_run(const struct saved *saved);

#endif
