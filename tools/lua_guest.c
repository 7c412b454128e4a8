/* SPDX-License-Identifier: MIT */
/*
 * lua_guest.c - a Lua interpreter with its libraries, and one request of it.
 *
 * Invariant: everything that can fail in the interpreter runs in protected calls; nothing that a
 * guest reaches opens anything behind the host's back, or loads anything but text. A request that
 * takes too long is left by longjmp, so that no pcall of the guest's catches it: its interpreter is
 * good for a rewind only.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#define STEP 2000000 /* instructions of the interpreter's until it has taken too long */
#define SCRIPT "memslot.script"
#define READ_MOST 4096

static const char *const folders[] = {"/usr/share/lua/5.4", "/usr/share/lua/5.1"};

/* What a request is by default: a little of this and that from the library. */
static const char script[] = "local List, stringx = require 'pl.List', require 'pl.stringx'\n"
			     "local tablex = require 'pl.tablex'\n"
			     "local line = 'the quick brown fox jumps over the lazy dog'\n"
			     "local words = List(stringx.split(line))\n"
			     "local counts = tablex.reduce(function(all, word)\n"
			     "	all[word] = (all[word] or 0) + 1\n"
			     "	return all\n"
			     "end, words, {})\n"
			     "local names = List(tablex.keys(counts)):sort()\n"
			     "last = names:map(stringx.title):join(' ')\n"
			     "return last .. ' ' .. counts.the\n";

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

/* Three files, of which one is closed, and none would be if an error came in between. */
static const char opener[] = "local first, second = open('/dev/zero'), open('/dev/zero')\n"
			     "close(first)\n"
			     "local third = open('/dev/zero')\n"
			     "return #(read(second, 1) .. read(third, 1))\n";

/* --- files, which the host knows of --- */

static struct guest *guest_of(lua_State *lua)
{
	void *guest;

	(void)lua_getallocf(lua, &guest);
	return guest;
}

static int open_file(lua_State *lua)
{
	int file = guest_open(guest_of(lua), luaL_checkstring(lua, 1));

	if (file < 0)
		return luaL_error(lua, "open: %s", strerror(-file));
	lua_pushinteger(lua, file);
	return 1;
}

static int read_file(lua_State *lua)
{
	lua_Integer file = luaL_checkinteger(lua, 1), size = luaL_optinteger(lua, 2, READ_MOST);
	char bytes[READ_MOST];
	ssize_t got;

	luaL_argcheck(lua, size > 0 && size <= READ_MOST, 2, "out of range");
	got = guest_read(guest_of(lua), file, bytes, (size_t)size);
	if (got < 0)
		return luaL_error(lua, "read: %s", strerror((int)-got));
	lua_pushlstring(lua, bytes, (size_t)got);
	return 1;
}

static int close_file(lua_State *lua)
{
	int error = guest_close(guest_of(lua), luaL_checkinteger(lua, 1));

	return error ? luaL_error(lua, "close: %s", strerror(-error)) : 0;
}

static const luaL_Reg files[] = {{"open", open_file}, {"read", read_file}, {"close", close_file}};

/* --- boot --- */

/* How the guest's require finds a library: the host reads it. */
static int search(lua_State *lua)
{
	const char *name = luaL_checkstring(lua, 1), *part = luaL_gsub(lua, name, ".", "/");

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		char path[256];
		size_t size = 0;
		char *text;
		int status;

		snprintf(path, sizeof(path), "%s/%s.lua", folders[i], part);
		text = strstr(path, "..") ? NULL : guest_source(path, &size);
		if (!text)
			continue;
		status = luaL_loadbufferx(lua, text, size, name, "t");
		free(text);
		return status ? lua_error(lua) : 1;
	}
	lua_pushfstring(lua, "no file '%s.lua'", part);
	return 1;
}

static void open_libraries(lua_State *lua)
{
	static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},
		{LUA_LOADLIBNAME, luaopen_package}, {LUA_COLIBNAME, luaopen_coroutine},
		{LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
		{LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8},
		{LUA_DBLIBNAME, luaopen_debug}};

	for (size_t i = 0; i < sizeof(libraries) / sizeof(*libraries); i++) {
		luaL_requiref(lua, libraries[i].name, libraries[i].func, 1);
		lua_pop(lua, 1);
	}
}

static int boot(lua_State *lua)
{
	struct guest *guest = guest_of(lua);
	const struct interp_run *run = guest->run;

	open_libraries(lua);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		lua_register(lua, files[i].name, files[i].func);
	if (luaL_loadbufferx(lua, prelude, sizeof(prelude) - 1, "=prelude", "t"))
		return lua_error(lua);
	lua_pushcfunction(lua, search);
	lua_call(lua, 1, 1);
	snprintf(guest->library, sizeof(guest->library), "Penlight's %d modules",
		(int)lua_tointeger(lua, -1));
	if (luaL_loadbufferx(lua, run->script, run->script_size, "=script", "t"))
		return lua_error(lua);
	lua_setfield(lua, LUA_REGISTRYINDEX, SCRIPT);
	return 0;
}

static void *allocate(void *guest, void *ptr, size_t old_size, size_t size)
{
	(void)old_size;
	return guest_realloc(guest, ptr, size);
}

static bool boot_guest(struct guest *guest)
{
	lua_State *lua = lua_newstate(allocate, guest);

	if (!lua) {
		complain(0, "no memory for an interpreter");
		return false;
	}
	guest->state = lua;
	lua_gc(lua, LUA_GCSTOP);
	lua_pushcfunction(lua, boot);
	if (lua_pcall(lua, 0, 0, 0) == LUA_OK)
		return true;
	complain(0, "%s", lua_isstring(lua, -1) ? lua_tostring(lua, -1) : "boot failed");
	return false;
}

static void close_guest(struct guest *guest)
{
	lua_close(guest->state);
}

/* --- requests --- */

static void too_long(lua_State *lua, lua_Debug *where)
{
	(void)where;
	guest_leave(guest_of(lua), DEADLINE);
}

static int answer(lua_State *lua)
{
	struct request *request = lua_touserdata(lua, 1);
	const char *answer;

	lua_getglobal(lua, "requests");
	request->count = lua_tointeger(lua, -1) + 1;
	lua_pushinteger(lua, request->count);
	lua_setglobal(lua, "requests");
	if (!request->text)
		lua_getfield(lua, LUA_REGISTRYINDEX, SCRIPT);
	else if (luaL_loadbufferx(lua, request->text, request->size, "=request", "t"))
		return lua_error(lua);
	lua_call(lua, 0, 1);
	answer = luaL_tolstring(lua, -1, &request->answer_size);
	if (request->answer_size > sizeof(request->answer))
		request->answer_size = sizeof(request->answer);
	memcpy(request->answer, answer, request->answer_size);
	return 0;
}

static enum interp_end answer_guest(struct guest *guest, struct request *request)
{
	lua_State *lua = guest->state;

	lua_sethook(lua, too_long, LUA_MASKCOUNT, STEP);
	lua_pushcfunction(lua, answer);
	lua_pushlightuserdata(lua, request);
	switch (lua_pcall(lua, 1, 0, 0)) {
	case LUA_OK:
		return ANSWERED;
	case LUA_ERRMEM:
		return NO_MEMORY;
	default: /* what was raised stays on the stack, for who wants to tell */
		return RAISED;
	}
}

static const char *raised(struct guest *guest)
{
	return lua_type(guest->state, -1) == LUA_TSTRING ? lua_tostring(guest->state, -1) : NULL;
}

/* --- requests that misbehave --- */

static const struct rogue rogues[] = {
	{"loops", DEADLINE, "while true do end"},
	{"loops, and catches errors", DEADLINE,
		"while true do pcall(function() while true do end end) end"},
	{"loops in a coroutine", DEADLINE, "coroutine.wrap(function() while true do end end)()"},
	{"allocates without end", NO_MEMORY,
		"local all = {} while true do all[#all + 1] = ('x'):rep(1000 + #all) end"},
	{"allocates everything at once", RAISED, "return ('x'):rep(1 << 40)"},
	{"catches that", ANSWERED,
		"kept = {} return pcall(function() "
		"while true do kept[#kept + 1] = ('x'):rep(1000 + #kept) end end)"},
	{"catches that again and again", NO_MEMORY,
		"kept = {} while true do pcall(function() "
		"kept[#kept + 1] = ('x'):rep(1000 + #kept) end) end"},
	{"corrupts globals", ANSWERED,
		"requests = 77 getmetatable('').__index = nil "
		"for name in next, package.loaded do package.loaded[name] = false end "
		"local all = _G for name in next, all do all[name] = nil end"},
	{"corrupts the registry", ANSWERED,
		"local registry = debug.getregistry() "
		"for key in next, registry do if key ~= 1 then registry[key] = 13 end end"},
	{"raises an error", RAISED, "error({})"},
	{"raises errors in an error", RAISED,
		"error(setmetatable({}, {__tostring = function() error('again') end}))"},
	{"recurs without end", NO_MEMORY, "local function again() return 1 + again() end again()"},
	{"recurs through C", RAISED,
		"local function again() return ('x'):gsub('x', again) end again()"},
	{"opens without end", RAISED, "while true do open('/dev/null') end"},
	{"opens, and loops", DEADLINE, "open('/dev/null') while true do end"},
	{"closes what is not its own", RAISED,
		"for file = -1000, 1000 do assert(not pcall(close, file)) end close(0)"},
	{"is no program", RAISED, "this is not Lua"},
};

const struct interp lua_interp = {
	.name = "Lua",
	.boot = boot_guest,
	.answer = answer_guest,
	.raised = raised,
	.close = close_guest,
	.script = script,
	.opener = opener,
	.rogues = rogues,
	.rogue_count = sizeof(rogues) / sizeof(*rogues),
};
