/* SPDX-License-Identifier: MIT */
/*
 * lua_guest.c - a Lua interpreter with its libraries, and one request of it.
 *
 * Invariant: everything that can fail in the interpreter runs in protected calls; nothing that a
 * guest reaches opens anything, or loads anything but text. A request that takes too long is left
 * by longjmp, so that no pcall of the guest's catches it: its interpreter is good for a rewind
 * only.
 */
#define _GNU_SOURCE
#include "lua_host.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#define DEADLINE 2000000 /* instructions of the interpreter's */
#define SCRIPT "memslot.script"
#define SOURCE_MOST MIB

static const char *const folders[] = {"/usr/share/lua/5.4", "/usr/share/lua/5.1"};

/* Penlight looks for the tables io and os when it is loaded; there is nothing in them. */
static const char prelude[] =
	"local load_any = load\n"
	"load = function(chunk, name, mode, ...) return load_any(chunk, name, 't', ...) end\n"
	"io, os, dofile, loadfile = {}, {}, nil, nil\n"
	"package.loadlib, debug.sethook = nil, nil\n"
	"package.searchers = {package.searchers[1], (...)}\n"
	"local count = 0\n"
	"for name in ([[class compat types utils tablex List Map MultiMap OrderedMap Set array2d\n"
	"	comprehension data func input lapp lexer luabalanced operator permute pretty seq\n"
	"	sip stringio stringx template text url xml import_into]]):gmatch('%S+') do\n"
	"	require('pl.' .. name)\n"
	"	count = count + 1\n"
	"end\n"
	"requests = 0\n"
	"return count\n";

static jmp_buf deadline;

/* --- memory --- */

void *lua_heap_allocator(void *context, void *ptr, size_t old_size, size_t size)
{
	struct memslot_heap *heap = *(struct memslot_heap **)context;

	(void)old_size;
	if (size)
		return memslot_heap_realloc(heap, ptr, size);
	memslot_heap_free(heap, ptr); /* which may be NULL */
	return NULL;
}

void *lua_malloc_allocator(void *context, void *ptr, size_t old_size, size_t size)
{
	(void)context;
	(void)old_size;
	if (size)
		return realloc(ptr, size);
	free(ptr);
	return NULL;
}

/* --- boot --- */

/* A file's contents, to be freed, or NULL. */
static char *read_source(const char *path, size_t *ret_size)
{
	FILE *file = fopen(path, "re");
	char *text = file ? malloc(SOURCE_MOST) : NULL;

	if (text)
		*ret_size = fread(text, 1, SOURCE_MOST, file);
	if (file)
		fclose(file);
	return text;
}

/* How the guest's require finds a library: the host reads it. */
static int search(lua_State *guest)
{
	const char *name = luaL_checkstring(guest, 1), *part = luaL_gsub(guest, name, ".", "/");

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		char path[256];
		size_t size = 0;
		char *text;
		int status;

		snprintf(path, sizeof(path), "%s/%s.lua", folders[i], part);
		text = strstr(path, "..") ? NULL : read_source(path, &size);
		if (!text)
			continue;
		status = luaL_loadbufferx(guest, text, size, name, "t");
		free(text);
		return status ? lua_error(guest) : 1;
	}
	lua_pushfstring(guest, "no file '%s.lua'", part);
	return 1;
}

static void open_libraries(lua_State *guest)
{
	static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},
		{LUA_LOADLIBNAME, luaopen_package}, {LUA_COLIBNAME, luaopen_coroutine},
		{LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
		{LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8},
		{LUA_DBLIBNAME, luaopen_debug}};

	for (size_t i = 0; i < sizeof(libraries) / sizeof(*libraries); i++) {
		luaL_requiref(guest, libraries[i].name, libraries[i].func, 1);
		lua_pop(guest, 1);
	}
}

static int boot(lua_State *guest)
{
	struct lua_run *run = lua_touserdata(guest, 1);

	open_libraries(guest);
	if (luaL_loadbufferx(guest, prelude, sizeof(prelude) - 1, "=prelude", "t"))
		return lua_error(guest);
	lua_pushcfunction(guest, search);
	lua_call(guest, 1, 1);
	run->modules = (unsigned)lua_tointeger(guest, -1);
	if (luaL_loadbufferx(guest, run->script, run->script_size, "=script", "t"))
		return lua_error(guest);
	lua_setfield(guest, LUA_REGISTRYINDEX, SCRIPT);
	return 0;
}

struct lua_State *lua_guest_boot(struct lua_run *run, lua_allocator *allocator, void *context)
{
	lua_State *guest = lua_newstate(allocator, context);

	if (!guest) {
		complain(0, "no memory for an interpreter");
		return NULL;
	}
	lua_gc(guest, LUA_GCSTOP);
	lua_pushcfunction(guest, boot);
	lua_pushlightuserdata(guest, run);
	if (lua_pcall(guest, 1, 0, 0) == LUA_OK)
		return guest;
	complain(0, "%s", lua_isstring(guest, -1) ? lua_tostring(guest, -1) : "boot failed");
	return NULL;
}

void lua_guest_close(struct lua_State *guest)
{
	if (guest)
		lua_close(guest);
}

/* --- requests --- */

static void too_long(lua_State *guest, lua_Debug *where)
{
	(void)guest;
	(void)where;
	longjmp(deadline, 1);
}

static int answer(lua_State *guest)
{
	struct lua_request *request = lua_touserdata(guest, 1);
	const char *text;

	lua_getglobal(guest, "requests");
	request->count = lua_tointeger(guest, -1) + 1;
	lua_pushinteger(guest, request->count);
	lua_setglobal(guest, "requests");
	if (!request->text)
		lua_getfield(guest, LUA_REGISTRYINDEX, SCRIPT);
	else if (luaL_loadbufferx(guest, request->text, request->size, "=request", "t"))
		return lua_error(guest);
	lua_call(guest, 0, 1);
	text = luaL_tolstring(guest, -1, &request->answer_size);
	if (request->answer_size > sizeof(request->answer))
		request->answer_size = sizeof(request->answer);
	memcpy(request->answer, text, request->answer_size);
	return 0;
}

enum lua_end lua_guest_answer(struct lua_State *guest, struct lua_request *request)
{
	if (setjmp(deadline))
		return LUA_DEADLINE;
	lua_sethook(guest, too_long, LUA_MASKCOUNT, DEADLINE);
	lua_pushcfunction(guest, answer);
	lua_pushlightuserdata(guest, request);
	switch (lua_pcall(guest, 1, 0, 0)) {
	case LUA_OK:
		return LUA_ANSWERED;
	case LUA_ERRMEM:
		return LUA_NO_MEMORY;
	default: /* what was raised stays on the stack, for who wants to tell */
		return LUA_RAISED;
	}
}

void lua_guest_complain(struct lua_State *guest, enum lua_end end)
{
	static const char *const ends[] = {
		"answered", "raised an error", "ran out of memory", "took too long"};
	const char *why = end == LUA_RAISED && lua_type(guest, -1) == LUA_TSTRING
				  ? lua_tostring(guest, -1)
				  : NULL;

	complain(0, "a request %s%s%s", ends[end], why ? ": " : "", why ? why : "");
}

bool lua_guest_right(const struct lua_run *run, struct lua_State *guest)
{
	struct lua_request request = {0};
	enum lua_end end = lua_guest_answer(guest, &request);

	if (end != LUA_ANSWERED)
		lua_guest_complain(guest, end);
	else if (request.count != 1)
		complain(0, "a request is number %lld of its interpreter", request.count);
	else if (run->answer_size == request.answer_size &&
		 memcmp(run->answer, request.answer, request.answer_size) == 0)
		return true;
	else
		complain(0, "a request answered '%.*s'", (int)request.answer_size, request.answer);
	return false;
}
