/* SPDX-License-Identifier: MIT */
/* interp_saved.c - guests for saved.c: an interpreter in a file. */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <string.h>

/* The interpreter's context is its address, which is the same in every process that opens it. */
static struct guest guest;

static int boot(void *run, struct memslot_slot *slot, struct memslot_image **ret_image)
{
	return guest_checkpoint(&guest, run, slot, ret_image);
}

static int open_heap(void *run, struct memslot_slot *slot)
{
	int error;

	guest.run = run;
	guest.slot = slot;
	error = memslot_heap_open(slot, &guest.heap);
	guest.state = memslot_heap_root(guest.heap);
	return error;
}

static int answer(void *run, char *text, size_t room, size_t *ret_size)
{
	struct request request = {0};
	enum interp_end end = guest_answer(&guest, &request);

	(void)run;
	if (end != ANSWERED) {
		guest_complain(&guest, end);
		return -EPROTO;
	}
	*ret_size = request.answer_size < room ? request.answer_size : room;
	memcpy(text, request.answer, *ret_size);
	return 0;
}

int interp_saved(struct interp_run *run, const char *command)
{
	const struct saved saved = {.mode = run->mode,
		.file = run->file,
		.script = run->path,
		.command = command,
		.json = run->json,
		.boot = boot,
		.open = open_heap,
		.answer = answer,
		.context = run};

	return saved_run(&saved);
}
