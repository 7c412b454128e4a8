/* SPDX-License-Identifier: MIT */
/* lua_saved.c - Lua for saved.c. */
#define _GNU_SOURCE
#include "lua_host.h"

#include <errno.h>
#include <string.h>

/* The interpreter's context is its address, which is the same in every process that opens it. */
static struct memslot_heap *heap;

static int boot(void *context, struct memslot_slot *slot, struct memslot_image **ret_image)
{
	int error = memslot_heap_create(slot, NULL, &heap);
	struct lua_State *guest = NULL;

	if (!error) {
		guest = lua_guest_boot(context, lua_heap_allocator, &heap);
		error = guest ? 0 : -EPROTO;
	}
	if (error)
		return error;
	memslot_heap_set_root(heap, guest);
	return memslot_slot_checkpoint(slot, ret_image);
}

static int open_heap(void *context, struct memslot_slot *slot)
{
	(void)context;
	return memslot_heap_open(slot, &heap);
}

static int answer(void *context, char *text, size_t room, size_t *ret_size)
{
	struct lua_State *guest = memslot_heap_root(heap);
	struct lua_request request = {0};
	enum lua_end end = lua_guest_answer(guest, &request);

	(void)context;
	if (end != LUA_ANSWERED) {
		lua_guest_complain(guest, end);
		return -EPROTO;
	}
	*ret_size = request.answer_size < room ? request.answer_size : room;
	memcpy(text, request.answer, *ret_size);
	return 0;
}

int lua_saved(struct lua_run *run)
{
	const struct saved saved = {.mode = run->mode,
		.file = run->file,
		.script = run->path,
		.command = "lua",
		.json = run->json,
		.boot = boot,
		.open = open_heap,
		.answer = answer,
		.context = run};

	return saved_run(&saved);
}
