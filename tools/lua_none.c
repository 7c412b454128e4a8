/* SPDX-License-Identifier: MIT */
/* lua_none.c - memslot lua, where there was no Lua to build it with. */
#define _GNU_SOURCE
#include "lua_host.h"

int lua_measure(struct lua_run *run)
{
	(void)run;
	complain(0, "built without Lua (liblua5.4-dev)");
	return EXIT_FAILED;
}

int lua_saved(struct lua_run *run)
{
	return lua_measure(run);
}
