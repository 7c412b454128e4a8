/* SPDX-License-Identifier: MIT */
/*
 * inject.h - slots in every state, calls that fail in the middle: see test_inject.c.
 *
 *   inject_state.c   the states          inject_call.c   the calls, and what each does when it
 * works inject_sweep.c   fail the n-th system call of a call, judge what is left
 */
#ifndef TESTS_INJECT_H
#define TESTS_INJECT_H

#include "model.h"

#include "base/os.h"

#define INJECT_EDGES 3 /* marker, mprotect, none */

/* The images that states and calls use: made once, shared by all runs. */
enum { MAPPED, OTHER, COPIED, FOREIGN, INJECT_IMAGES };
extern struct model_image *inject_images[INJECT_IMAGES];
void inject_images_begin(void);
void inject_images_end(void);

/* A slot in one of inject_states() states, dirty where the state says so. */
int inject_states(void); /* count, each with every edge */
const char *inject_state_name(int state);
struct model_slot *inject_state(int state);
bool inject_state_has(int state, const char *word);
void inject_dirty(struct model_slot *slot);

/* One call. On success it tells the model. */
int inject_calls(void);
const char *inject_call_name(int call);
int inject_call(int call, struct model_slot *slot);
bool inject_call_may_end_unknown(int call, int state);
bool inject_call_destroys(int call);
bool inject_is_about_protection(int state, int call);

/* Fail everything that can fail in this call, one after the other; and know what there is. */
void inject_sweep(int state, int call);
void inject_sweep_create(void);

extern struct model_coverage inject_coverage;

#endif
