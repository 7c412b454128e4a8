/* SPDX-License-Identifier: MIT */
/* pool_model_out.c - slots go out and come back. */
#define _GNU_SOURCE
#include "pool_model.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define UNTOUCHED ((struct memslot_slot *)8)

/* --- what to ask for --- */

struct model_image *pool_some_image(struct pool_life *life)
{
	return model_some_image(&life->life);
}

size_t pool_some_size(struct pool_life *life, const struct model_image *image)
{
	size_t capacity = life->seats[0].model.capacity, least = image ? image->end : 0;
	struct test_rng *rng = &life->life.rng;

	if (least > capacity)
		return capacity;
	switch (test_below(rng, 8)) {
	case 0:
		return least;
	case 1:
		return least + test_below(rng, capacity - least + 1);
	case 2:
		return capacity / 2 > least ? capacity / 2 : least;
	default:
		return capacity;
	}
}

struct memslot_acquire_opts pool_some_opts(struct pool_life *life)
{
	struct memslot_acquire_opts opts = {.size = sizeof opts};
	struct test_rng *rng = &life->life.rng;

	opts.flags = (model_chance(rng, 50) ? MEMSLOT_SLOT_CONFINED : 0) |
		     (model_chance(rng, 10) ? MEMSLOT_ACQUIRE_COLD : 0);
	opts.affinity_key = model_chance(rng, 75) ? 0 : test_below(rng, 3);
	opts.timeout_ns = model_chance(rng, 90) ? 0 : 1000;
	return opts;
}

/* --- out --- */

/* Which pages were resident is no business of another tenant's. */
static void check_residence(const struct pool_life *life, const struct pool_seat *seat)
{
	size_t pages = seat->model.size / test_page();
	unsigned char *present;

	if (life->locked || seat->model.image || life->opts.on_reset || !pages ||
		memslot_feature("dontneed") != 1 ||
		life->opts.flags & (MEMSLOT_SLOT_POPULATE | MEMSLOT_POOL_VERIFY))
		return;
	present = malloc(pages);
	ck_assert_ptr_nonnull(present);
	ck_assert_int_eq(mincore(seat->model.base, seat->model.size, present), 0);
	for (size_t page = 0; page < pages; page++) {
		if (present[page] & 1)
			model_fail("slot %td, page %zu was resident under another key",
				seat - life->seats, page);
	}
	free(present);
}

static void check_identity(
	struct pool_life *life, struct pool_seat *seat, struct memslot_slot *slot)
{
	struct model_slot *model = &seat->model;
	uint64_t ticket = memslot_slot_ticket(slot);

	if (model->slot && (model->slot != slot || model->base != memslot_slot_base(slot)))
		model_fail("slot %td is another one now", seat - life->seats);
	if (memslot_slot_capacity(slot) != model->capacity)
		model_fail("capacity %#zx", memslot_slot_capacity(slot));
	if (ticket <= life->last_ticket)
		model_fail("ticket %zu again", (size_t)ticket);
	model->slot = slot;
	model->base = memslot_slot_base(slot);
	life->last_ticket = ticket;
	seat->old_ticket = seat->ticket;
	seat->ticket = ticket;
}

/* What is true of every hand-out, seen or unseen. */
void pool_hand_out(struct pool_life *life, struct pool_seat *seat, struct memslot_slot *slot,
	struct model_image *image, const struct memslot_acquire_opts *opts)
{
	struct model_image *old = seat->asked;

	check_identity(life, seat, slot);
	seat->place = POOL_OUT;
	seat->key = opts->affinity_key;
	seat->asked = image ? model_image_ref(image) : NULL;
	seat->forgotten = false;
	if (old)
		model_image_unref(old);
	seat->model.opts.flags =
		(life->opts.flags & 0xffff) | (opts->flags & MEMSLOT_SLOT_CONFINED);
}

static void handed_out(struct pool_life *life, struct pool_seat *seat, struct memslot_slot *slot,
	struct model_image *image, size_t size, const struct memslot_acquire_opts *opts)
{
	/* Prewarmed is under key 0. */
	bool known = seat->model.slot && seat->place != POOL_MAYBE;
	bool other =
		known && (seat->key != opts->affinity_key || (opts->flags & MEMSLOT_ACQUIRE_COLD));
	unsigned callbacks = seat->model.callbacks;

	pool_hand_out(life, seat, slot, image, opts);
	model_apply_instantiate(&seat->model, image, model_round(size));
	if (other)
		check_residence(life, seat);
	if (life->opts.on_reset) {
		if (callbacks == 0 || life->called_on != seat - life->seats)
			model_fail("on_reset ran for slot %u", life->called_on);
		model_callback_bytes(seat->model.now, seat->model.size, callbacks);
	}
	model_compare(&seat->model);
	model_probe(&seat->model);
	model_check_stats(&seat->model);
	life->coverage->acquires++;
}

/* The error that it must be. */
static int answer_for(struct pool_life *life, const struct model_image *image, size_t size,
	const struct memslot_acquire_opts *opts)
{
	size_t rounded = model_round(size);

	if (size > SIZE_MAX - test_page() || rounded > life->seats[0].model.capacity ||
		(image && image->end > rounded))
		return -EMSGSIZE;
	for (uint32_t i = 0; image && image->base_address && i <= life->count; i++) {
		const struct pool_seat *seat = &life->seats[i];
		if (i == life->count)
			return -EADDRNOTAVAIL;
		if (seat->model.base == image->base_address)
			return seat->place > POOL_SICK ? -EBUSY : 0;
	}
	if (life->waiting || !pool_has_idle(life))
		return opts->timeout_ns ? -ETIMEDOUT : -EAGAIN;
	return 0;
}

void pool_acquire(struct pool_life *life, struct model_image *image, size_t size,
	struct memslot_acquire_opts *opts)
{
	struct memslot_slot *slot = UNTOUCHED;
	int want = answer_for(life, image, size, opts), answer;
	struct pool_seat *seat;

	model_log("acquire %s of %#zx bytes, size %#zx, key %u, flags %#x",
		image ? "image" : "zeros", image ? image->end : 0, size,
		(unsigned)opts->affinity_key, opts->flags);
	answer = memslot_pool_acquire(life->pool, image ? image->image : NULL, size, opts, &slot);
	model_expect(answer, want);
	if (answer) {
		if (slot != UNTOUCHED)
			model_fail("output touched");
		life->coverage->exhausted += answer == -EAGAIN;
	} else {
		seat = pool_seat_of(life, slot);
		model_log("it is slot %td", seat - life->seats);
		pool_check_choice(life, seat, image, opts);
		handed_out(life, seat, slot, image, size, opts);
	}
	pool_check(life);
}

void pool_op_acquire(struct pool_life *life)
{
	struct model_image *image = pool_some_image(life);
	struct memslot_acquire_opts opts = pool_some_opts(life);

	/* Who keeps all slots sees no order. */
	if (pool_count(life, POOL_OUT) > life->count / 2 && model_chance(&life->life.rng, 60))
		pool_op_release(life);
	pool_acquire(life, image, pool_some_size(life, image), &opts);
}

void pool_op_bad_acquire(struct pool_life *life)
{
	size_t capacity = life->seats[0].model.capacity;
	struct memslot_acquire_opts opts = pool_some_opts(life);
	struct memslot_slot *slot = UNTOUCHED;

	pool_acquire(life, NULL, capacity + 1, &opts);
	pool_acquire(life, NULL, SIZE_MAX, &opts);
	opts.flags = MEMSLOT_SLOT_NO_EDGE;
	model_expect(memslot_pool_acquire(life->pool, NULL, 0, &opts, &slot), -EINVAL);
	model_expect(memslot_pool_acquire(life->pool, NULL, 0, NULL, NULL), -EINVAL);
	model_expect(memslot_pool_release(life->pool, NULL), -EINVAL);
	model_expect(
		memslot_pool_release(life->pool, (struct memslot_slot *)(void *)life), -EINVAL);
	if (slot != UNTOUCHED)
		model_fail("output touched");
	pool_check(life);
}

/* on_reset refuses: the pool keeps the slot. */
void pool_op_failing_acquire(struct pool_life *life)
{
	struct memslot_acquire_opts opts = {.size = sizeof opts};
	struct memslot_slot *slot = UNTOUCHED;
	struct pool_seat *seat;

	if (!life->opts.on_reset || life->waiting || !pool_has_idle(life))
		return;
	life->fail_reset = true;
	model_log("on_reset fails in acquire");
	model_expect(memslot_pool_acquire(life->pool, NULL, 0, &opts, &slot), -ECANCELED);
	life->fail_reset = false;
	if (slot != UNTOUCHED)
		model_fail("output touched");
	seat = &life->seats[life->called_on];
	model_log("it was slot %td", seat - life->seats);
	pool_check_choice(life, seat, NULL, &opts);
	seat->place = POOL_SICK;
	pool_check(life);
}

/* --- back --- */

/* Whose hand-out is over is told so. */
static void release_again(struct pool_life *life, const struct pool_seat *seat, uint64_t ticket)
{
	struct memslot_slot *slot = seat->model.slot;

	model_expect(memslot_pool_release_ticket(life->pool, slot, ticket), -ESTALE);
	if (seat->place != POOL_OUT)
		model_expect(memslot_pool_release(life->pool, slot), -ESTALE);
}

static int give_back(struct pool_life *life, const struct pool_seat *seat)
{
	struct memslot_slot *slot = seat->model.slot;

	if (model_chance(&life->life.rng, 50))
		return memslot_pool_release(life->pool, slot);
	model_expect(memslot_pool_release_ticket(life->pool, slot, seat->ticket + 1), -ESTALE);
	if (seat->old_ticket)
		model_expect(
			memslot_pool_release_ticket(life->pool, slot, seat->old_ticket), -ESTALE);
	return memslot_pool_release_ticket(life->pool, slot, seat->ticket);
}

void pool_release(struct pool_life *life, struct pool_seat *seat)
{
	struct memslot_pool_stats before = pool_stats_of(life);
	bool held = model_is_held(&seat->model);
	uint64_t ticket = seat->ticket;

	model_log("release slot %td%s%s", seat - life->seats, held ? ", held" : "",
		seat->given ? ", as it came" : "");
	model_expect(give_back(life, seat), 0);
	life->locked = life->locked || seat->model.locked;
	if (seat->model.dead) {
		seat->place = POOL_LOST;
	} else if (held) {
		seat->place = POOL_HELD;
		seat->given = seat->forgotten = false;
		life->coverage->held++;
	} else if (life->waiting) {
		pool_expect_served(life, seat);
	} else {
		pool_place_released(life, seat, &before);
	}
	release_again(life, seat, ticket);
	pool_check(life);
}

/* Some come back unknown. */
void pool_op_release(struct pool_life *life)
{
	struct pool_seat *seat = pool_some(life, POOL_OUT);

	if (!seat)
		return;
	if (life->opts.on_reset && !model_is_held(&seat->model) && !seat->given &&
		!seat->model.dead && model_chance(&life->life.rng, 15)) {
		seat->model.fail_reset = true;
		model_expect(memslot_slot_reset(seat->model.slot), -ECANCELED);
		seat->model.fail_reset = false;
		seat->model.unknown = true;
	}
	pool_release(life, seat);
}
