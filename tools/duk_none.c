/* SPDX-License-Identifier: MIT */
/* duk_none.c - memslot duk, where there was no Duktape to build it with. */
#define _GNU_SOURCE
#include "interp.h"

const struct interp duk_interp = {.name = "Duktape", .missing = "duktape-dev"};
