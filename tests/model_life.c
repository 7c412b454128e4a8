/* SPDX-License-Identifier: MIT */
/*
 * model_life.c - a life: a few slots and images, and a random sequence of operations.
 *
 * Each life draws anew how likely every operation is; some it never does. So a life that never
 * unconfines or forks can stay long on the shortest path, and another does little else.
 */
#define _GNU_SOURCE
#include "model.h"

static const struct {
	void (*run)(struct model_life *life, struct model_slot *slot);
	unsigned weight;
} operations[] = {
	{model_op_write, 30},
	{model_op_scatter, 10},
	{model_op_same_bytes, 4},
	{model_op_read, 5},
	{model_op_populate, 3},
	{model_op_page_out, 3},
	{model_op_lock, 1},
	{model_op_reset, 25},
	{model_op_rogue, 5},
	{model_op_instantiate, 12},
	{model_op_failing_reset, 3},
	{model_op_resize, 8},
	{model_op_discard, 5},
	{model_op_protect, 4},
	{model_op_exempt, 3},
	{model_op_written, 4},
	{model_op_capture, 3},
	{model_op_checkpoint, 3},
	{model_op_make_image, 3},
	{model_op_give_up_image, 1},
	{model_op_hold, 1},
	{model_op_unhold, 6},
	{model_op_pending, 1},
	{model_op_pin, 1},
	{model_op_pinned_run, 3},
	{model_op_bad_calls, 1},
	{model_op_other_thread, 1},
	{model_op_fork, 1},
	{model_op_steady, 1},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

static unsigned draw_weights(struct model_life *life)
{
	static const unsigned factors[] = {0, 1, 1, 2, 2, 6};
	unsigned sum = 0;

	for (size_t i = 0; i < OPERATIONS; i++) {
		life->weights[i] = operations[i].weight * factors[test_below(&life->rng, 6)];
		if (operations[i].run == model_op_unhold)
			life->weights[i] = operations[i].weight;
		sum += life->weights[i];
	}
	return sum;
}

static void one_operation(struct model_life *life, unsigned sum)
{
	struct model_slot *slot = life->slots[test_below(&life->rng, MODEL_SLOTS)];
	unsigned drawn = sum ? (unsigned)test_below(&life->rng, sum) : 0;
	size_t i = 0;

	while (drawn >= life->weights[i])
		drawn -= life->weights[i++];
	operations[i].run(life, slot);
	life->coverage->operations++;
}

static void begin_slots(struct model_life *life, bool big)
{
	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		life->slots[i] = model_slot_random(&life->rng, life->method, big && i == 0);
	for (unsigned i = 0; i < 3; i++)
		model_op_make_image(life, life->slots[i]);
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		struct model_image *image = model_some_image(life);
		if (image && image->end <= life->slots[i]->capacity)
			model_instantiate(life->slots[i], image, life->slots[i]->capacity);
		else
			model_op_instantiate(life, life->slots[i]);
	}
}

/* All that was written goes in the end, whatever state the life left. */
static void end_slots(struct model_life *life)
{
	for (unsigned i = 0; i < MODEL_SLOTS; i++) {
		model_release_holds(life->slots[i]);
		model_reset(life->slots[i], life->coverage);
		model_slot_destroy(life->slots[i], life->coverage);
	}
	for (unsigned i = 0; i < MODEL_IMAGES; i++) {
		if (life->images[i])
			model_image_unref(life->images[i]);
	}
}

void model_live(unsigned number, uint32_t method, struct model_coverage *coverage)
{
	struct model_life life = {.number = number, .method = method, .coverage = coverage};
	unsigned sum, count;
	bool big, steady;

	life.rng = test_rng(number * 8u + method + 1000);
	model_log_begin(number, method);
	big = model_chance(&life.rng, 7);
	steady = method == MEMSLOT_RESET_AUTO && model_chance(&life.rng, 20);
	count = big ? 40 : 30 + (unsigned)test_below(&life.rng, 120);
	model_quiet = model_chance(&life.rng, 40);
	begin_slots(&life, big);
	sum = draw_weights(&life);
	for (unsigned i = 0; i < count; i++)
		one_operation(&life, sum);
	for (unsigned i = 0; steady && i < MODEL_SLOTS; i++) {
		model_release_holds(life.slots[i]);
		model_op_steady(&life, life.slots[i]);
	}
	end_slots(&life);
}
