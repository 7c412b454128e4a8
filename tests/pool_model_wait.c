/* SPDX-License-Identifier: MIT */
/* pool_model_wait.c - waiting with an event: in order, once, and unknown until instantiated. */
#define _GNU_SOURCE
#include "pool_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Events added since the last look; 0: none. */
static uint64_t events(const struct pool_waiter *waiter)
{
	uint64_t count = 0;

	if (read(waiter->waiter.event_fd, &count, sizeof count) != sizeof count)
		return 0;
	return count;
}

static void let_go(struct pool_waiter *waiter)
{
	close(waiter->waiter.event_fd);
	if (waiter->image)
		model_image_unref(waiter->image);
	free(waiter);
}

static void remove_waiter(struct pool_life *life, unsigned number)
{
	life->waiting--;
	memmove(&life->waiters[number], &life->waiters[number + 1],
		(life->waiting - number) * sizeof life->waiters[0]);
}

/* In a child nothing may come, and what comes to the parent is not ours to read. */
void pool_expect_waiting(const struct pool_life *life)
{
	for (unsigned i = 0; i < life->waiting && !model_in_child; i++) {
		if (events(life->waiters[i]))
			model_fail("waiter %u was woken for nothing", i);
	}
}

/* Until it is instantiated nothing works. */
static void check_given(struct pool_life *life, struct pool_seat *seat)
{
	struct model_slot *model = &seat->model;
	size_t capacity = model->capacity;

	model_expect_unknown(model);
	model_expect(memslot_slot_reset(model->slot), -ESTALE);
	model_expect(memslot_slot_instantiate(model->slot, NULL, capacity + 1), -EMSGSIZE);
	pool_locate_all(life);
}

static void served(struct pool_life *life, struct pool_seat *seat, struct pool_waiter *waiter)
{
	if (events(waiter) != 1)
		model_fail("no event for the waiter that was served");
	if (pool_seat_of(life, waiter->waiter.slot) != seat)
		model_fail("the waiter got slot %u", memslot_slot_index(waiter->waiter.slot));
	model_expect(memslot_pool_wait_cancel(life->pool, &waiter->waiter), -EALREADY);
	pool_hand_out(life, seat, waiter->waiter.slot, waiter->image, &waiter->waiter.opts);
	seat->given = seat->model.unknown = true;
	memset(seat->model.pages, MODEL_OPEN, seat->model.capacity / test_page());
	let_go(waiter);
	check_given(life, seat);
	life->coverage->served++;
}

void pool_expect_served(struct pool_life *life, struct pool_seat *seat)
{
	struct pool_waiter *first = life->waiters[0];

	model_log("slot %td goes to a waiter", seat - life->seats);
	remove_waiter(life, 0);
	served(life, seat, first);
}

static struct pool_waiter *new_waiter(
	struct pool_life *life, struct model_image *image, size_t size)
{
	struct pool_waiter *made = calloc(1, sizeof *made);

	ck_assert_ptr_nonnull(made);
	made->image = image ? model_image_ref(image) : NULL;
	made->waiter = (struct memslot_slot_waiter){.size = sizeof made->waiter,
		.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.image = image ? image->image : NULL,
		.slot_size = size,
		.opts = pool_some_opts(life)};
	ck_assert_int_ge(made->waiter.event_fd, 0);
	return made;
}

static int answer_for(const struct pool_life *life, const struct model_image *image, size_t size)
{
	size_t rounded = model_round(size);

	if (image && image->base_address)
		return -EINVAL;
	if (rounded > life->seats[0].model.capacity || (image && image->end > rounded))
		return -EMSGSIZE;
	return 0;
}

void pool_op_wait(struct pool_life *life)
{
	struct model_image *image = pool_some_image(life);
	size_t size = pool_some_size(life, image) + (model_chance(&life->life.rng, 4) ? 1 : 0);
	int want = answer_for(life, image, size);
	bool idle = !life->waiting && pool_has_idle(life);
	struct pool_waiter *waiter;
	struct pool_seat *seat;

	/* Most wait for something. */
	if (life->waiting == POOL_WAITERS || (idle && model_chance(&life->life.rng, 60)))
		return;
	waiter = new_waiter(life, image, size);
	model_log("wait, size %#zx, key %u", size, (unsigned)waiter->waiter.opts.affinity_key);
	model_expect(memslot_pool_wait(life->pool, &waiter->waiter), want);
	if (want) {
		let_go(waiter);
	} else if (idle) {
		seat = pool_seat_of(life, waiter->waiter.slot);
		pool_check_choice(life, seat, image, &waiter->waiter.opts);
		served(life, seat, waiter);
	} else {
		life->waiters[life->waiting++] = waiter;
		model_expect(memslot_pool_wait(life->pool, &waiter->waiter), -EALREADY);
		model_expect(memslot_pool_destroy(life->pool), -EBUSY);
	}
	pool_check(life);
}

static void cancel(struct pool_life *life, unsigned number)
{
	struct pool_waiter *waiter = life->waiters[number];

	model_log("cancel waiter %u of %u", number, life->waiting);
	model_expect(memslot_pool_wait_cancel(life->pool, &waiter->waiter), 0);
	model_expect(memslot_pool_wait_cancel(life->pool, &waiter->waiter), -EINVAL);
	if (!model_in_child && events(waiter))
		model_fail("a cancelled waiter was woken");
	remove_waiter(life, number);
	let_go(waiter);
	life->coverage->cancelled++;
}

void pool_op_cancel(struct pool_life *life)
{
	if (!life->waiting || model_chance(&life->life.rng, 30))
		return;
	cancel(life, (unsigned)test_below(&life->life.rng, life->waiting));
	pool_check(life);
}

/* `forgotten`: by a fork, in the child. */
void pool_stop_waiting(struct pool_life *life, bool forgotten)
{
	while (life->waiting && !forgotten)
		cancel(life, 0);
	while (life->waiting) {
		struct pool_waiter *waiter = life->waiters[0];
		model_expect(memslot_pool_wait_cancel(life->pool, &waiter->waiter), -EINVAL);
		remove_waiter(life, 0);
		let_go(waiter);
	}
}

/* on_reset refuses: nothing that this owner showed can be come back to. */
static void fail_given(struct pool_seat *seat)
{
	struct model_slot *model = &seat->model;

	model_log("on_reset fails in the first instantiate");
	model->fail_reset = true;
	model_expect(memslot_slot_instantiate(model->slot, NULL, model->capacity), -ECANCELED);
	model->fail_reset = false;
	model_expect_unknown(model);
	model_expect(memslot_slot_reset(model->slot), -ESTALE);
}

/* Whoever was served instantiates: first perhaps in vain. */
void pool_op_given(struct pool_life *life)
{
	struct model_image *image = pool_some_image(life);
	struct pool_seat *seat = pool_some(life, POOL_OUT);

	if (!seat || !seat->given || seat->model.dead)
		return;
	check_given(life, seat);
	if (life->opts.on_reset && model_chance(&life->life.rng, 40))
		fail_given(seat);
	if (model_chance(&life->life.rng, 10))
		return;
	model_instantiate(&seat->model, image, pool_some_size(life, image));
	seat->given = seat->model.unknown;
	pool_check(life);
}
