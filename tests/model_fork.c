/* SPDX-License-Identifier: MIT */
/*
 * model_fork.c - a child by fork(2) or raw clone(2): it sees what the parent had, goes its own way,
 * and the parent does not notice.
 */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define RAW_CLONE false
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RAW_CLONE false
#endif
#endif
#ifndef RAW_CLONE
#define RAW_CLONE true
#endif

static void expect_dead(struct model_slot *slot)
{
	struct memslot_image *image;
	size_t count;

	model_expect(memslot_slot_reset(slot->slot), -ESTALE);
	model_expect(memslot_slot_instantiate(slot->slot, NULL, 0), -ESTALE);
	model_expect(memslot_slot_resize(slot->slot, slot->capacity), -ESTALE);
	model_expect(memslot_slot_discard(slot->slot, 0, 0), -ESTALE);
	model_expect(memslot_slot_checkpoint(slot->slot, NULL), -ESTALE);
	model_expect(memslot_slot_capture(slot->slot, NULL, &image), -ESTALE);
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO), -ESTALE);
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO), -ESTALE);
	model_expect(memslot_slot_protect(slot->slot, 0, 0, PROT_READ), -ESTALE);
	model_expect(memslot_slot_exempt(slot->slot, 0, 0), -ESTALE);
	model_expect(memslot_slot_written(slot->slot, NULL, 0, &count), -ESTALE);
}

static void child_checks(struct model_life *life)
{
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		struct model_slot *slot = life->slots[i];
		if (!slot)
			continue;
		slot->dead = (slot->opts.flags & MEMSLOT_SLOT_DONTFORK) || model_is_held(slot);
		if (slot->dead)
			expect_dead(slot);
		model_compare(slot);
		model_probe(slot);
	}
}

static void child_run(struct model_life *life, struct model_slot *slot)
{
	for (size_t runs = 1 + test_below(&life->rng, 4); runs && !slot->dead; runs--) {
		model_op_write(life, slot);
		model_op_scatter(life, slot);
		if (model_chance(&life->rng, 30))
			model_op_resize(life, slot);
		if (model_chance(&life->rng, 15))
			model_op_discard(life, slot);
		if (model_chance(&life->rng, 15))
			model_op_capture(life, slot);
		if (model_chance(&life->rng, 15))
			model_op_checkpoint(life, slot);
		if (model_chance(&life->rng, 20))
			model_op_instantiate(life, slot);
		model_reset(slot, life->coverage);
	}
	if (model_chance(&life->rng, 20))
		model_op_fork(life, slot);
	model_expect(memslot_slot_destroy(slot->slot), 0);
}

static pid_t start(bool raw)
{
	return raw ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
}

static void child_main(struct model_life *life, struct model_slot *slot, const int *ends)
{
	char byte;

	model_in_child = true;
	alarm(100);
	close(ends[1]);
	if (read(ends[0], &byte, 1) < 0) /* until the parent has written and reset */
		model_fail("no pipe in the child");
	close(ends[0]);
	child_checks(life);
	child_run(life, slot);
	_exit(0);
}

void model_op_fork(struct model_life *life, struct model_slot *slot)
{
	bool raw = RAW_CLONE && model_chance(&life->rng, 40), both = model_chance(&life->rng, 50);
	int ends[2], status;
	pid_t child;

	model_log("slot %p: %s%s", (void *)slot->base, raw ? "raw clone" : "fork",
		both ? ", and the parent goes on" : "");
	ck_assert_int_eq(pipe(ends), 0);
	child = start(raw);
	if (child < 0)
		model_fail("no child: %d", errno);
	if (child == 0)
		child_main(life, slot, ends);
	if (both && !slot->dead) {
		model_op_write(life, slot);
		model_reset(slot, life->coverage);
		model_op_scatter(life, slot);
	}
	close(ends[0]);
	close(ends[1]);
	if (waitpid(child, &status, 0) != child || status != 0)
		model_fail("the child ended with %#x", (unsigned)status);
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		if (life->slots[i])
			model_compare(life->slots[i]);
	}
}
