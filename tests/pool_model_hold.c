/* SPDX-License-Identifier: MIT */
/* pool_model_hold.c - holds that outlive the hand-out, and calls that come too late. */
#define _GNU_SOURCE
#include "pool_model.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Nothing touches a slot that was released while held. */
static void compare_held(const struct pool_seat *seat)
{
	const struct model_slot *model = &seat->model;
	size_t reach = model_reach(model), page = test_page();

	for (size_t at = 0; at < reach; at += page) {
		if ((model->pages[at / page] & PROT_READ) &&
			memcmp(model->base + at, model->now + at, page) != 0)
			model_fail("page %zu of a held slot was changed", at / page);
	}
}

/* After its last hold was ended. */
static void came_free(struct pool_life *life, struct pool_seat *seat)
{
	if (seat->place != POOL_HELD || model_is_held(&seat->model))
		return;
	memset(seat->model.pages, MODEL_OPEN, seat->model.capacity / test_page());
	if (life->waiting)
		pool_expect_served(life, seat);
	else
		seat->place = POOL_SICK;
}

void pool_unhold(struct pool_life *life, struct pool_seat *seat)
{
	if (seat->place == POOL_HELD)
		compare_held(seat);
	if (seat->model.pins)
		model_unpin(&seat->model);
	else
		model_op_unhold(&life->life, &seat->model);
	came_free(life, seat);
	pool_check(life);
}

void pool_op_unhold(struct pool_life *life)
{
	struct pool_seat *seat = pool_some(life, POOL_HELD);

	if (seat)
		pool_unhold(life, seat);
}

/* The device writes: nobody has the slot, and yet. */
void pool_op_device(struct pool_life *life)
{
	struct pool_seat *seat = pool_some(life, POOL_HELD);
	size_t offset, size;

	if (!seat || !model_pick(&life->life.rng, &seat->model, MODEL_OPEN, &offset, &size))
		return;
	size = size < 3 * test_page() ? size : 3 * test_page();
	model_log("slot %td: written while held, %#zx+%#zx", seat - life->seats, offset, size);
	model_write_cpu(&seat->model, offset, size, 0);
	compare_held(seat);
}

/* --- late --- */

static void refuse(const char *name, int answer)
{
	if (answer != -EBUSY && answer != -ESTALE && answer != -EINVAL)
		model_fail("%s of a slot that is not out: %d", name, answer);
}

/* Whatever its last user still does changes nothing: the next hand-out tells. */
static void call_late(struct memslot_slot *slot, size_t capacity)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};
	struct memslot_image *image = NULL;
	struct memslot_run run;
	size_t count, page = test_page();

	refuse("reset", memslot_slot_reset(slot));
	refuse("instantiate", memslot_slot_instantiate(slot, NULL, capacity));
	refuse("resize", memslot_slot_resize(slot, capacity));
	refuse("shrinking", memslot_slot_resize(slot, 0));
	refuse("discard", memslot_slot_discard(slot, 0, page));
	refuse("checkpoint", memslot_slot_checkpoint(slot, NULL));
	refuse("capture", memslot_slot_capture(slot, NULL, &image));
	refuse("hold", memslot_slot_hold(slot, MEMSLOT_HOLD_IO));
	refuse("hold", memslot_slot_hold(slot, MEMSLOT_HOLD_PIN));
	refuse("protect", memslot_slot_protect(slot, 0, page, PROT_READ));
	refuse("exempt", memslot_slot_exempt(slot, 0, page));
	refuse("written", memslot_slot_written(slot, &run, 1, &count));
	refuse("destroy", memslot_slot_destroy(slot));
	model_expect(memslot_slot_stats(slot, &stats), 0);
	memslot_slot_unconfine(slot);
}

void pool_op_late(struct pool_life *life)
{
	struct pool_seat *seat = &life->seats[test_below(&life->life.rng, life->count)];
	struct memslot_slot *slot = seat->model.slot;

	if (!slot || seat->place == POOL_OUT || seat->place == POOL_LOST)
		return;
	model_log("slot %td: late calls", seat - life->seats);
	call_late(slot, seat->model.capacity);
	model_expect(memslot_pool_release(life->pool, slot), -ESTALE);
	model_expect(memslot_pool_release_ticket(life->pool, slot, seat->ticket), -ESTALE);
	if (!seat->model.io_holds)
		model_expect(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), -EINVAL);
	if (!seat->model.pins)
		model_expect(memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN), -EINVAL);
	if (memslot_slot_base(slot) != seat->model.base ||
		memslot_slot_capacity(slot) != seat->model.capacity)
		model_fail("slot %td has another base or capacity", seat - life->seats);
	if (seat->place == POOL_HELD)
		compare_held(seat);
	pool_check(life);
}

/* --- operations in flight --- */

static void finish(struct pool_life *life, struct pool_seat *seat, size_t offset, size_t size)
{
	int done = model_ring_finish();

	if (done <= 0 || (size_t)done > size)
		model_fail("the pending read itself: %d", done);
	memcpy(seat->model.now + offset, model_scratch, (size_t)done);
	while (model_is_held(&seat->model))
		pool_unhold(life, seat);
}

/* A read that waits for a pipe while the slot is released, and asked for again. */
void pool_op_pending(struct pool_life *life)
{
	struct pool_seat *seat = pool_some(life, POOL_OUT);
	struct memslot_acquire_opts opts = {.size = sizeof opts};
	size_t offset, size;
	int ends[2];

	if (!seat || seat->given || seat->model.dead || !model_ring_ready() ||
		!model_pick(&life->life.rng, &seat->model, MODEL_OPEN, &offset, &size))
		return;
	size = size < 40000 ? size : 40000;
	ck_assert_int_eq(pipe(ends), 0);
	model_log("slot %td: pending read into %#zx+%#zx", seat - life->seats, offset, size);
	model_expect(memslot_slot_hold(seat->model.slot, MEMSLOT_HOLD_IO), 0);
	seat->model.io_holds++;
	model_ring_start(ends[0], seat->model.base + offset, size);
	pool_release(life, seat);
	pool_acquire(life, NULL, seat->model.capacity, &opts);
	pool_op_flush(life);
	model_expect(memslot_pool_destroy(life->pool), -EBUSY);
	ck_assert_int_eq(write(ends[1], model_scratch, size), (int)size);
	finish(life, seat, offset, size);
	close(ends[0]);
	close(ends[1]);
}

/* Pages registered with a ring, and a few runs with them. */
void pool_op_pin(struct pool_life *life)
{
	struct pool_seat *seat = pool_some(life, POOL_OUT);

	for (uint32_t i = 0; i < life->count; i++) {
		if (life->seats[i].model.pins)
			return; /* one table, one buffer */
	}
	if (!seat || seat->given || seat->model.dead || model_in_child)
		return;
	model_op_pin(&life->life, &seat->model);
	model_op_pinned_run(&life->life, &seat->model);
	if (seat->model.pins && model_chance(&life->life.rng, 60))
		pool_release(life, seat);
}
