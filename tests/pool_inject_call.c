/* SPDX-License-Identifier: MIT */
/* pool_inject_call.c - the calls that are made to fail, and what each must say and leave. */
#define _GNU_SOURCE
#include "pool_inject.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* --- out and back --- */

static int acquire(struct stage *stage, int image, const struct memslot_acquire_opts *opts)
{
	struct memslot_slot *slot = UNTOUCHED;
	int answer =
		memslot_pool_acquire(stage->pool, stage_image[image], STAGE_CAPACITY, opts, &slot);

	ms_os_inject.at = 0;
	if (answer) {
		ck_assert_msg(slot == UNTOUCHED, "output touched: %s", stage_story());
		return answer;
	}
	assert_image(slot, image);
	if (stage->edge != 2)
		ck_assert_msg(
			syscall_faults_at(base_of(slot) + STAGE_CAPACITY), "%s", stage_story());
	stage->out[stage->out_count++] = slot;
	return 0;
}

static int acquire_zeros(struct stage *stage)
{
	return acquire(stage, ZEROS, NULL);
}

static int acquire_mapped(struct stage *stage)
{
	return acquire(stage, MAPPED, NULL);
}

static int acquire_other(struct stage *stage)
{
	return acquire(stage, OTHER, NULL);
}

static int acquire_copied(struct stage *stage)
{
	return acquire(stage, COPIED, NULL);
}

static int acquire_foreign(struct stage *stage)
{
	return acquire(stage, FOREIGN, NULL);
}

static int acquire_key(struct stage *stage)
{
	struct memslot_acquire_opts opts = MEMSLOT_OPTS(memslot_acquire_opts, .affinity_key = 5);

	return acquire(stage, MAPPED, &opts);
}

static int acquire_cold(struct stage *stage)
{
	struct memslot_acquire_opts opts =
		MEMSLOT_OPTS(memslot_acquire_opts, .flags = MEMSLOT_ACQUIRE_COLD);

	return acquire(stage, COPIED, &opts);
}

static int release(struct stage *stage)
{
	struct memslot_slot *slot = stage->out[stage->out_count - 1];
	uint64_t ticket = memslot_slot_ticket(slot);
	int answer = stage->out_count % 2 ? memslot_pool_release(stage->pool, slot)
					  : memslot_pool_release_ticket(stage->pool, slot, ticket);

	stage->out_count -= answer == 0;
	ck_assert_int_eq(memslot_pool_release_ticket(stage->pool, slot, ticket), -ESTALE);
	return answer;
}

static int unhold(struct stage *stage)
{
	int answer = memslot_slot_unhold(stage->held, MEMSLOT_HOLD_IO);

	stage->held = answer ? stage->held : NULL;
	return answer;
}

/* The first instantiate of a slot that was given unseen. */
static int show_given(struct stage *stage)
{
	struct memslot_slot *slot = stage->out[stage->out_count - 1];
	int answer = memslot_slot_instantiate(slot, stage_image[OTHER], STAGE_CAPACITY);
	size_t count;

	ms_os_inject.at = 0;
	if (answer == 0)
		assert_image(slot, OTHER);
	else
		ck_assert_int_eq(memslot_slot_written(slot, NULL, 0, &count), -ESTALE);
	return answer;
}

/* --- waiting --- */

static int wait_here(struct stage *stage)
{
	int answer = memslot_pool_wait(stage->pool, &stage->waiter);

	stage->waiting = answer == 0;
	return answer;
}

static int cancel(struct stage *stage)
{
	int answer = memslot_pool_wait_cancel(stage->pool, &stage->waiter);

	stage->waiting = answer == 0 ? false : stage->waiting;
	return answer;
}

/* --- idle slots --- */

static int prewarm(struct stage *stage)
{
	uint32_t count = 4711;
	int answer = memslot_pool_prewarm(
		stage->pool, stage_image[OTHER], STAGE_CAPACITY, STAGE_SLOTS, &count);

	ck_assert_uint_le(count, STAGE_SLOTS); /* also when an error ended it */
	return answer;
}

static int prewarm_copied(struct stage *stage)
{
	return memslot_pool_prewarm(
		stage->pool, stage_image[COPIED], STAGE_CAPACITY, STAGE_SLOTS, NULL);
}

static int forget(struct stage *stage)
{
	uint32_t count = 4711;
	int answer = memslot_pool_forget(stage->pool, stage_image[MAPPED], &count);

	ck_assert_uint_le(count, STAGE_SLOTS);
	return answer;
}

static int flush(struct stage *stage)
{
	return memslot_pool_flush(stage->pool);
}

static int trim(struct stage *stage)
{
	return memslot_pool_trim(stage->pool, 0, NULL);
}

static int maintain(struct stage *stage)
{
	return memslot_pool_maintain(stage->pool);
}

static int ask(struct stage *stage)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};
	struct memslot_plan plan = {.size = sizeof plan};
	struct memslot_location at = {.size = sizeof at};

	ck_assert_int_eq(memslot_pool_stats(stage->pool, &stats), 0);
	ck_assert_int_eq(memslot_pool_locate(stage->pool, stage, &at), -ENOENT);
	return memslot_pool_plan(STAGE_SLOTS, STAGE_CAPACITY, stage_image[MAPPED], NULL, &plan);
}

static int destroy_pool(struct stage *stage)
{
	return memslot_pool_destroy(stage->pool);
}

/* --- the table --- */

enum { ANY, OUT, GIVEN, HELD, WAITED, UNWAITED, IDLE };

static const struct {
	const char *name;
	int (*run)(struct stage *stage);
	int needs;
	bool may_fail;
} calls[] = {
	{"acquire zeros", acquire_zeros, ANY, true},
	{"acquire a mapped image", acquire_mapped, ANY, true},
	{"acquire another image", acquire_other, ANY, true},
	{"acquire a copied image", acquire_copied, ANY, true},
	{"acquire a mapped file", acquire_foreign, ANY, true},
	{"acquire under another key", acquire_key, ANY, true},
	{"acquire cold", acquire_cold, ANY, true},
	{"release", release, OUT, false},
	{"instantiate what was given", show_given, GIVEN, true},
	{"unhold", unhold, HELD, false},
	{"wait", wait_here, UNWAITED, true},
	{"cancel", cancel, WAITED, false},
	{"prewarm", prewarm, ANY, true},
	{"prewarm a copied image", prewarm_copied, ANY, true},
	{"forget", forget, ANY, false},
	{"flush", flush, ANY, false},
	{"trim", trim, ANY, false},
	{"maintain", maintain, ANY, false},
	{"stats, locate, plan", ask, ANY, false},
	{"destroy", destroy_pool, IDLE, false},
};

int stage_calls(void)
{
	return (int)(sizeof calls / sizeof calls[0]);
}

const char *stage_call_name(int call)
{
	return calls[call].name;
}

/* Was the last slot that went out given unseen? */
static bool is_given(const struct stage *stage)
{
	size_t count;

	return stage->out_count &&
	       memslot_slot_written(stage->out[stage->out_count - 1], NULL, 0, &count) == -ESTALE;
}

bool stage_call_fits(int call, const struct stage *stage)
{
	switch (calls[call].needs) {
	case OUT:
		return stage->out_count;
	case GIVEN:
		return is_given(stage);
	case HELD:
		return stage->held;
	case WAITED:
		return stage->waiting;
	case UNWAITED:
		return !stage->waiting;
	case IDLE:
		return !stage->out_count && !stage->held && !stage->waiting;
	default:
		return true;
	}
}

int stage_call(int call, struct stage *stage)
{
	return calls[call].run(stage);
}

bool stage_call_ends_pool(int call)
{
	return calls[call].run == destroy_pool;
}

bool stage_call_may_fail(int call)
{
	return calls[call].may_fail;
}
