/* SPDX-License-Identifier: MIT */
/*
 * lua_rogue.c - requests that misbehave: each is rewound, and the next one finds nothing of it.
 *
 * Invariant: after every one of them the heap is whole, and a request is right.
 */
#define _GNU_SOURCE
#include "lua_host.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name;
	enum lua_end end;
	const char *text;
} rogues[] = {
	{"loops", LUA_DEADLINE, "while true do end"},
	{"loops, and catches errors", LUA_DEADLINE,
		"while true do pcall(function() while true do end end) end"},
	{"loops in a coroutine", LUA_DEADLINE,
		"coroutine.wrap(function() while true do end end)()"},
	{"allocates without end", LUA_NO_MEMORY,
		"local all = {} while true do all[#all + 1] = ('x'):rep(1000 + #all) end"},
	{"allocates everything at once", LUA_RAISED, "return ('x'):rep(1 << 40)"},
	{"catches that", LUA_ANSWERED,
		"kept = {} return pcall(function() "
		"while true do kept[#kept + 1] = ('x'):rep(1000 + #kept) end end)"},
	{"corrupts globals", LUA_ANSWERED,
		"requests = 77 getmetatable('').__index = nil "
		"for name in next, package.loaded do package.loaded[name] = false end "
		"local all = _G for name in next, all do all[name] = nil end"},
	{"corrupts the registry", LUA_ANSWERED,
		"local registry = debug.getregistry() "
		"for key in next, registry do if key ~= 1 then registry[key] = 13 end end"},
	{"raises an error", LUA_RAISED, "error({})"},
	{"raises errors in an error", LUA_RAISED,
		"error(setmetatable({}, {__tostring = function() error('again') end}))"},
	{"recurs without end", LUA_NO_MEMORY,
		"local function again() return 1 + again() end again()"},
	{"recurs through C", LUA_RAISED,
		"local function again() return ('x'):gsub('x', again) end again()"},
	{"is no program", LUA_RAISED, "this is not Lua"},
};

static int one_rogue(
	struct lua_run *run, struct memslot_slot *slot, struct memslot_heap *heap, size_t which)
{
	struct lua_request request = {
		.text = rogues[which].text, .size = strlen(rogues[which].text)};
	enum lua_end end = lua_guest_answer(memslot_heap_root(heap), &request);
	int error = memslot_slot_reset(slot);

	run->rogues[end]++;
	if (!error)
		error = memslot_heap_check(heap);
	if (error)
		complain(error, "after a request that %s", rogues[which].name);
	else if (end != rogues[which].end)
		complain(0, "a request that %s ended another way: %d", rogues[which].name, end);
	else if (lua_guest_right(run, memslot_heap_root(heap)))
		return memslot_slot_reset(slot);
	else
		complain(0, "it came after one that %s", rogues[which].name);
	return error ? error : -EPROTO;
}

int lua_rogues(struct lua_run *run, struct memslot_slot *slot, struct memslot_heap *heap)
{
	for (size_t i = 0; i < sizeof(rogues) / sizeof(*rogues); i++) {
		int error = one_rogue(run, slot, heap, i);

		if (error)
			return error;
		run->right_after++;
	}
	return 0;
}
