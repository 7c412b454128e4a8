/* SPDX-License-Identifier: MIT */
/*
 * pool_inject.h - pools in many states, calls that fail in the middle: see test_pool_inject.c.
 *
 *   pool_inject_state.c   the states            pool_inject_call.c   the calls
 *   pool_inject_sweep.c   fail the n-th system call of a call, judge what is left
 */
#ifndef TESTS_POOL_INJECT_H
#define TESTS_POOL_INJECT_H

#include "slots.h"

#include "base/os.h"

#define STAGE_SLOTS 4
#define STAGE_EDGES 3 /* marker, mprotect, none */
#define STAGE_CAPACITY PAGES(40)
#define UNTOUCHED ((void *)8)

/* The images: zeros, two that are mapped, one that is copied, one in the caller's own file. */
enum { ZEROS, MAPPED, OTHER, COPIED, FOREIGN, STAGE_IMAGES };
extern struct memslot_image *stage_image[STAGE_IMAGES];
void stage_images_begin(void);
void stage_images_end(void);
#define assert_image(slot, image)                                                                  \
	ck_assert_msg(stage_shows(slot, image), "wrong contents: %s", stage_story())
bool stage_shows(const struct memslot_slot *slot, int image);

/* A pool and whoever uses it. */
struct stage {
	struct memslot_pool *pool;
	int edge;
	struct memslot_slot *out[STAGE_SLOTS];
	unsigned out_count;
	struct memslot_slot *held; /* released while held */
	struct memslot_slot_waiter waiter;
	bool waiting;
};

int stage_states(void); /* count, each with every edge */
const char *stage_state_name(int state);
void stage_begin(struct stage *stage, int state);
/* Everybody goes home, and everybody comes back: whatever happened before, nothing of it is left.
 */
void stage_live_on(struct stage *stage);
void stage_end(struct stage *stage);
void stage_use(struct memslot_pool *pool); /* all slots, with every image */

int stage_calls(void);
const char *stage_call_name(int call);
bool stage_call_fits(int call, const struct stage *stage);
/* The answer; judged already but for which error it is. */
int stage_call(int call, struct stage *stage);
bool stage_call_ends_pool(int call);
bool stage_call_may_fail(int call);

/* What is being tried now. */
const char *stage_story(void);
void stage_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

void stage_sweep(int state, int call);
void stage_sweep_create(void);

#endif
