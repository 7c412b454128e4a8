/* SPDX-License-Identifier: MIT */
/*
 * duk_options.h - Debian's Duktape, built from its source (duktape-dev) so that a guest can be
 * interrupted, and no collector runs of its own accord: a rewind takes all back. What its library
 * has cannot be changed.
 */
#ifndef MEMSLOT_DUK_OPTIONS_H
#define MEMSLOT_DUK_OPTIONS_H

#include <duk_config.h>

/* Asked every 256 Ki instructions. */
duk_bool_t duk_guest_interrupt(void *guest);

#undef DUK_USE_EXEC_TIMEOUT_CHECK
#undef DUK_USE_INTERRUPT_COUNTER
#undef DUK_USE_VOLUNTARY_GC
#define DUK_USE_EXEC_TIMEOUT_CHECK(guest) duk_guest_interrupt(guest)
#define DUK_USE_INTERRUPT_COUNTER

#endif
