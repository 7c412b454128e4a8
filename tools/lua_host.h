/* SPDX-License-Identifier: MIT */
/*
 * lua_host.h - memslot lua: an interpreter that is booted once, and requests that start there.
 *
 *   lua.c          the command line         lua_measure.c  boot, fork and rewind by turns
 *   lua_guest.c    the interpreter          lua_rogue.c    requests that misbehave
 *   lua_report.c   what came out            lua_saved.c    in a file
 *   lua_none.c     in place of those that need Lua
 */
#ifndef MEMSLOT_LUA_HOST_H
#define MEMSLOT_LUA_HOST_H

#include "saved.h"

#include <memslot.h>

#define LUA_ROUNDS 15
#define LUA_ANSWER 1024

/* How a request ended. */
enum lua_end { LUA_ANSWERED, LUA_RAISED, LUA_NO_MEMORY, LUA_DEADLINE, LUA_ENDS };

/* What is timed, in nanoseconds each. */
enum lua_what {
	LUA_BOOT,	 /* system malloc: a new interpreter and one request */
	LUA_FORK,	 /* a child of a booted process, one request, waited for */
	LUA_REWIND,	 /* one request and a reset */
	LUA_RESET,	 /* that reset alone */
	LUA_BOOT_HEAP,	 /* a new interpreter in a heap, no request */
	LUA_BOOT_MALLOC, /* the same with the system malloc */
	LUA_WHATS
};

struct lua_request {
	const char *text; /* NULL: the script that was compiled at boot */
	size_t size;
	long long count; /* of the global counter, after this request */
	char answer[LUA_ANSWER];
	size_t answer_size;
};

struct lua_run {
	uint64_t requests;
	bool json;
	enum saved_mode mode;
	const char *file; /* to save or open */
	const char *path; /* of the script, or NULL */
	char *script;
	size_t script_size;

	/* What every request has to answer, as the first interpreter did. */
	char answer[LUA_ANSWER];
	size_t answer_size;
	/* What was booted. */
	unsigned modules;
	struct memslot_heap_stats heap;
	uint64_t image_bytes;
	/* What was measured. */
	double median_ns[LUA_WHATS];
	uint64_t samples[LUA_WHATS];
	double pages_restored; /* a reset */
	struct memslot_slot_stats slot;
	/* Requests that misbehaved, by how they ended, and what came after them. */
	uint64_t rogues[LUA_ENDS], right_after;
};

/* --- lua_guest.c: the interpreter, whatever its memory is --- */
struct lua_State;
typedef void *lua_allocator(void *context, void *ptr, size_t old_size, size_t size);
/* The context is the address of a variable that holds the heap's handle, never the handle. */
void *lua_heap_allocator(void *context, void *ptr, size_t old_size, size_t size);
void *lua_malloc_allocator(void *context, void *ptr, size_t old_size, size_t size);
/* Libraries loaded, script compiled, collector stopped. NULL: complained. */
struct lua_State *lua_guest_boot(struct lua_run *run, lua_allocator *allocator, void *context);
enum lua_end lua_guest_answer(struct lua_State *guest, struct lua_request *request);
/* One that did not answer: say so. */
void lua_guest_complain(struct lua_State *guest, enum lua_end end);
/* One request of the script, and is it right? Complains. */
bool lua_guest_right(const struct lua_run *run, struct lua_State *guest);
/* Only of one whose requests all ended by themselves. */
void lua_guest_close(struct lua_State *guest);

/* --- lua_rogue.c --- */
/* Each kind once, each is rewound, and the next request is right. 0 or -errno; complains. */
int lua_rogues(struct lua_run *run, struct memslot_slot *slot, struct memslot_heap *heap);

/* --- lua_measure.c: everything; an exit status. --- */
int lua_measure(struct lua_run *run);

/* --- lua_saved.c: from and to files; an exit status. --- */
int lua_saved(struct lua_run *run);

/* --- lua_report.c --- */
void lua_report(const struct lua_run *run);

#endif
