/* SPDX-License-Identifier: MIT */
/*
 * model_steady.c - long repetitions with changes of phase: what AUTO learns from, forgets, and
 * tries again. Every run is compared whole.
 */
#define _GNU_SOURCE
#include "model.h"

#define PLACES 256

struct phase {
	size_t count;	      /* pages written in a run */
	size_t place[PLACES]; /* which ones, unless drawn anew in every run */
	bool drawn, same, grow;
	unsigned chance; /* percent of runs that write at all */
};

static void plan(struct test_rng *rng, const struct model_slot *slot, struct phase *phase)
{
	static const size_t counts[] = {1, 1, 4, 16, 16, 64, 200};
	size_t pages = slot->size / test_page(), start = test_below(rng, pages);

	phase->count = counts[test_below(rng, 7)];
	if (phase->count > pages)
		phase->count = pages;
	phase->drawn = model_chance(rng, 25);
	phase->same = model_chance(rng, 10);
	phase->grow = model_chance(rng, 20);
	phase->chance = model_chance(rng, 75) ? 100 : 20;
	for (size_t i = 0; i < phase->count; i++)
		phase->place[i] =
			model_chance(rng, 70) ? (start + i) % pages : test_below(rng, pages);
}

static void write_place(
	struct model_life *life, struct model_slot *slot, const struct phase *phase, size_t place)
{
	size_t offset = place * test_page() + test_below(&life->rng, test_page());

	if (offset >= slot->size || (slot->pages[place] & MODEL_OPEN) != MODEL_OPEN)
		return;
	if (phase->same)
		*(volatile unsigned char *)(slot->base + offset) = slot->now[offset];
	else
		model_write_cpu(slot, offset, 1, test_below(&life->rng, MODEL_SCRATCH));
}

static void run_once(struct model_life *life, struct model_slot *slot, const struct phase *phase)
{
	size_t pages = slot->size / test_page();

	if (phase->grow && slot->size + 8 * test_page() <= slot->capacity) {
		model_resize(slot, slot->size + 8 * test_page());
		for (size_t place = pages; place < pages + 8; place += 3)
			write_place(life, slot, phase, place);
	}
	for (size_t i = 0; i < phase->count && test_below(&life->rng, 100) < phase->chance; i++)
		write_place(life, slot, phase,
			phase->drawn ? test_below(&life->rng, pages) : phase->place[i]);
	model_reset(slot, life->coverage);
}

void model_op_steady(struct model_life *life, struct model_slot *slot)
{
	struct phase phases[2];
	size_t runs = 60 + test_below(&life->rng, 160);

	if (model_is_held(slot))
		return;
	model_reset(slot, life->coverage);
	if (slot->size == 0)
		return;
	plan(&life->rng, slot, &phases[0]);
	plan(&life->rng, slot, &phases[1]);
	if (slot->size > 1u << 20)
		runs /= 4;
	for (size_t part = 0; part < 3; part++) {
		const struct phase *phase = &phases[part & 1];
		model_log("slot %p: %zu runs, %zu pages%s%s%s", (void *)slot->base, runs,
			phase->count, phase->drawn ? ", drawn anew" : "",
			phase->same ? ", same bytes" : "", phase->grow ? ", growing" : "");
		for (size_t run = 0; run < runs; run++)
			run_once(life, slot, phase);
	}
}
