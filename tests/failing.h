/* SPDX-License-Identifier: MIT */
/* failing.h - every system call and allocation of a piece of work fails once: see failing.c. */
#ifndef TESTS_FAILING_H
#define TESTS_FAILING_H

#include "common.h"

/*
 * Run again and again: with the first, second, .. call of each kind failing in each way, until a
 * run passes. A run makes its own state, calls failing_begin(), does the work, calls failing_end(),
 * judges, and leaves nothing: ten runs of which each leaves something are a leak.
 */
void failing_sweep(void (*run)(void *context), void *context);
void failing_begin(void);
/* The error that was injected, as it would be returned; 0: nothing failed. */
int failing_end(void);
/* What is being tried, for messages. */
const char *failing_story(void);

#endif
