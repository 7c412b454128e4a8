/* SPDX-License-Identifier: MIT */
/*
 * pool_model_life.c - the life of a pool: a random sequence of calls on it and on what is out.
 *
 * Each life draws anew how likely every operation is; some it never does.
 */
#define _GNU_SOURCE
#include "pool_model.h"

#include <stdlib.h>

static const struct {
	void (*run)(struct pool_life *life);
	unsigned weight;
} calls[] = {
	{pool_op_acquire, 40},
	{pool_op_release, 35},
	{pool_op_failing_acquire, 2},
	{pool_op_bad_acquire, 1},
	{pool_op_wait, 6},
	{pool_op_cancel, 2},
	{pool_op_given, 8},
	{pool_op_forget, 3},
	{pool_op_trim, 3},
	{pool_op_prewarm, 3},
	{pool_op_flush, 3},
	{pool_op_maintain, 3},
	{pool_op_unhold, 5},
	{pool_op_device, 3},
	{pool_op_late, 4},
	{pool_op_pending, 1},
	{pool_op_pin, 2},
	{pool_op_fork, 1},
};
#define CALLS (sizeof calls / sizeof calls[0])

/* What can be done to a slot that is out. */
static const struct {
	void (*run)(struct model_life *life, struct model_slot *slot);
	unsigned weight;
} uses[] = {
	{model_op_write, 50},
	{model_op_scatter, 20},
	{model_op_same_bytes, 5},
	{model_op_read, 5},
	{model_op_populate, 3},
	{model_op_page_out, 2},
	{model_op_lock, 1},
	{model_op_reset, 15},
	{model_op_rogue, 5},
	{model_op_instantiate, 8},
	{model_op_failing_reset, 3},
	{model_op_resize, 10},
	{model_op_discard, 6},
	{model_op_protect, 6},
	{model_op_exempt, 4},
	{model_op_written, 3},
	{model_op_capture, 2},
	{model_op_checkpoint, 4},
	{model_op_make_image, 3},
	{model_op_give_up_image, 2},
	{model_op_hold, 4},
	{model_op_unhold, 6},
	{model_op_bad_calls, 1},
	{model_op_other_thread, 1},
};
#define USES (sizeof uses / sizeof uses[0])

static unsigned factor(struct test_rng *rng)
{
	static const unsigned factors[] = {0, 1, 1, 2, 2, 6};

	return factors[test_below(rng, 6)];
}

static void draw_weights(struct pool_life *life)
{
	unsigned *weights = life->life.weights;

	for (size_t i = 0; i < CALLS; i++)
		weights[i] = calls[i].weight * (i < 2 ? 1 : factor(&life->life.rng));
	for (size_t i = 0; i < USES; i++)
		weights[CALLS + i] = uses[i].weight * factor(&life->life.rng);
}

static size_t draw(struct test_rng *rng, const unsigned *weights, size_t count)
{
	unsigned sum = 0, drawn;
	size_t i = 0;

	for (size_t j = 0; j < count; j++)
		sum += weights[j];
	if (sum == 0)
		return 0;
	drawn = (unsigned)test_below(rng, sum);
	while (drawn >= weights[i])
		drawn -= weights[i++];
	return i;
}

static void use_slot(struct pool_life *life)
{
	struct pool_seat *seat = pool_some(life, POOL_OUT);
	size_t use = draw(&life->life.rng, life->life.weights + CALLS, USES);

	if (!seat || seat->given || seat->model.dead)
		return;
	uses[use].run(&life->life, &seat->model);
	life->locked = life->locked || seat->model.locked;
}

void pool_run(struct pool_life *life, unsigned operations)
{
	struct test_rng *rng = &life->life.rng;

	while (operations--) {
		if (model_chance(rng, 60))
			use_slot(life);
		else
			calls[draw(rng, life->life.weights, CALLS)].run(life);
		pool_locate_all(life);
		life->life.coverage->operations++;
	}
}

/* Everything comes back, and is handed out once more. */
void pool_end(struct pool_life *life)
{
	struct memslot_acquire_opts opts = {.size = sizeof opts};
	struct pool_seat *seat;

	pool_stop_waiting(life, false);
	while ((seat = pool_some(life, POOL_HELD)))
		pool_unhold(life, seat);
	while ((seat = pool_some(life, POOL_OUT))) {
		if (!seat->model.dead)
			model_release_holds(&seat->model);
		pool_release(life, seat);
	}
	while (pool_has_idle(life))
		pool_acquire(life, NULL, life->seats[0].model.capacity, &opts);
	while ((seat = pool_some(life, POOL_OUT)))
		pool_release(life, seat);
	pool_unmake(life);
}

static void make_images(struct pool_life *life)
{
	for (unsigned i = 0; i < 4; i++)
		model_op_make_image(&life->life, &life->seats[0].model);
}

void pool_live(unsigned number, uint32_t flags, struct pool_coverage *coverage)
{
	static struct model_coverage unused;
	struct pool_life *life = calloc(1, sizeof *life);

	ck_assert_ptr_nonnull(life);
	life->coverage = coverage;
	life->life = (struct model_life){.number = number, .coverage = &unused};
	life->life.rng = test_rng(number * 8u + 77000);
	model_log_begin(number, flags);
	model_quiet = model_chance(&life->life.rng, 40);
	pool_make(life, flags);
	make_images(life);
	draw_weights(life);
	pool_run(life, 60 + (unsigned)test_below(&life->life.rng, 180));
	pool_end(life);
	for (unsigned i = 0; i < MODEL_IMAGES; i++) {
		if (life->life.images[i])
			model_image_unref(life->life.images[i]);
	}
	free(life);
}
