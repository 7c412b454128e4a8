/* SPDX-License-Identifier: MIT */
/*
 * pool_model_fork.c - a child by fork(2) or raw clone(2): its copy of the pool works, but for what
 * was held; waiters are the parent's; and the parent does not notice.
 */
#define _GNU_SOURCE
#include "pool_model.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- the child --- */

static void expect_dead_slot(const struct pool_seat *seat)
{
	struct memslot_slot *slot = seat->model.slot;
	size_t count;

	model_expect(memslot_slot_reset(slot), -ESTALE);
	model_expect(memslot_slot_instantiate(slot, NULL, 0), -ESTALE);
	model_expect(memslot_slot_resize(slot, 0), -ESTALE);
	model_expect(memslot_slot_discard(slot, 0, 0), -ESTALE);
	model_expect(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), -ESTALE);
	model_expect(memslot_slot_written(slot, NULL, 0, &count), -ESTALE);
	if (seat->model.io_holds)
		model_expect(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), -ESTALE);
}

static void expect_dead_pool(struct pool_life *life)
{
	struct memslot_slot *slot = NULL;
	size_t left;
	uint32_t out;

	model_expect(memslot_pool_acquire(life->pool, NULL, 0, NULL, &slot), -ESTALE);
	model_expect(memslot_pool_prewarm(life->pool, NULL, 0, 1, &out), -ESTALE);
	model_expect(memslot_pool_forget(life->pool, NULL, &out), -ESTALE);
	model_expect(memslot_pool_flush(life->pool), -ESTALE);
	model_expect(memslot_pool_trim(life->pool, 0, &left), -ESTALE);
	model_expect(memslot_pool_maintain(life->pool), -ESTALE);
	(void)pool_stats_of(life);
	for (uint32_t i = 0; i < life->count; i++) {
		struct pool_seat *seat = &life->seats[i];
		if (seat->place != POOL_OUT)
			continue;
		model_expect(memslot_pool_release(life->pool, seat->model.slot), -ESTALE);
		expect_dead_slot(seat);
	}
	for (unsigned i = 0; i < life->waiting; i++)
		model_expect(
			memslot_pool_wait_cancel(life->pool, &life->waiters[i]->waiter), -ESTALE);
	model_expect(memslot_pool_destroy(life->pool), 0);
	_exit(0);
}

/* What a child has of it. */
static void adopt(struct pool_life *life)
{
	for (uint32_t i = 0; i < life->count; i++) {
		struct pool_seat *seat = &life->seats[i];
		if (seat->place == POOL_HELD)
			seat->place = POOL_LOST;
		if (seat->place == POOL_OUT && model_is_held(&seat->model)) {
			seat->model.dead = true;
			expect_dead_slot(seat);
		}
		if (seat->place == POOL_LOST)
			seat->model.io_holds = seat->model.pins = 0;
	}
	pool_stop_waiting(life, true);
	pool_check(life);
}

static void child_main(struct pool_life *life, const int *ends)
{
	char byte;

	model_in_child = true;
	alarm(100);
	close(ends[1]);
	if (read(ends[0], &byte, 1) < 0) /* until the parent has gone on */
		model_fail("no pipe in the child");
	close(ends[0]);
	if (life->opts.flags & MEMSLOT_SLOT_DONTFORK)
		expect_dead_pool(life);
	for (uint32_t i = 0; i < life->count; i++) {
		struct pool_seat *seat = &life->seats[i];
		if (seat->place != POOL_OUT || model_is_held(&seat->model))
			continue;
		model_compare(&seat->model);
		model_probe(&seat->model);
	}
	adopt(life);
	pool_op_release(life);
	pool_run(life, 5 + (unsigned)test_below(&life->life.rng, 25));
	pool_end(life);
	_exit(0);
}

/* --- the parent --- */

static pid_t start(bool raw)
{
	return raw ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
}

/* What the parent does meanwhile is none of the child's business. */
static void go_on(struct pool_life *life)
{
	struct memslot_acquire_opts opts = pool_some_opts(life);

	pool_op_release(life);
	if (!life->waiting)
		pool_acquire(life, NULL, life->seats[0].model.capacity, &opts);
	pool_op_flush(life);
}

void pool_op_fork(struct pool_life *life)
{
	bool raw = test_knows_clone() && model_chance(&life->life.rng, 40);
	bool both = model_chance(&life->life.rng, 50);
	int ends[2], status;
	pid_t child;

	model_log("%s%s", raw ? "raw clone" : "fork", both ? ", and the parent goes on" : "");
	ck_assert_int_eq(pipe(ends), 0);
	child = start(raw);
	if (child < 0)
		model_fail("no child: %d", errno);
	if (child == 0)
		child_main(life, ends);
	if (both)
		go_on(life);
	close(ends[0]);
	close(ends[1]);
	if (waitpid(child, &status, 0) != child || status != 0)
		model_fail("the child ended with %#x", (unsigned)status);
	for (uint32_t i = 0; i < life->count; i++) {
		if (life->seats[i].place == POOL_OUT)
			model_compare(&life->seats[i].model);
	}
	life->coverage->children++;
	pool_check(life);
}
