/* SPDX-License-Identifier: MIT */
/* lua_none.c - memslot lua, where there was no Lua to build it with. */
#define _GNU_SOURCE
#include "interp.h"

const struct interp lua_interp = {.name = "Lua", .missing = "liblua5.4-dev"};
