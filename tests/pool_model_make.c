/* SPDX-License-Identifier: MIT */
/* pool_model_make.c - pools of every kind. */
#define _GNU_SOURCE
#include "pool_model.h"

#include <errno.h>
#include <stdlib.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)

struct pool_seat *pool_seat_of(struct pool_life *life, const struct memslot_slot *slot)
{
	uint32_t index = memslot_slot_index(slot);

	if (index >= life->count)
		model_fail("slot %p has index %u of %u", (const void *)slot, index, life->count);
	return &life->seats[index];
}

/* The last step of each hand-out and in-hand reset: its writes are the new tenant's. */
static int on_reset(struct memslot_slot *slot, void *context)
{
	struct pool_life *life = context;
	struct model_slot *model = &pool_seat_of(life, slot)->model;
	int answer = memslot_pool_release(life->pool, slot);

	model->callbacks++;
	life->called_on = memslot_slot_index(slot);
	if (memslot_slot_reset(slot) != -EBUSY || memslot_slot_discard(slot, 0, 0) != -EBUSY ||
		memslot_slot_destroy(slot) != -EINVAL || (answer != -EBUSY && answer != -ESTALE))
		return -EPROTO;
	if (model->fail_reset || life->fail_reset)
		return -ECANCELED;
	model_callback_bytes(memslot_slot_base(slot), memslot_slot_size(slot), model->callbacks);
	return 0;
}

/* --- options --- */

static size_t some_capacity(struct test_rng *rng)
{
	switch (test_below(rng, 10)) {
	case 0:
		return 1 + test_below(rng, 4 * test_page());
	case 1:
	case 2:
		return 64 * KIB;
	case 3:
		return 1 * MIB;
	default:
		return 16 * KIB + test_below(rng, 300 * KIB);
	}
}

static uint32_t some_flags(struct test_rng *rng)
{
	static const struct {
		uint32_t flag;
		unsigned percent;
	} wishes[] = {
		{MEMSLOT_SLOT_NO_EDGE, 15},
		{MEMSLOT_SLOT_HUGEPAGE, 8},
		{MEMSLOT_SLOT_POPULATE, 12},
		{MEMSLOT_SLOT_DONTFORK, 10},
		{MEMSLOT_SLOT_DONTDUMP, 15},
		{MEMSLOT_SLOT_CONFINED, 40},
		{MEMSLOT_SLOT_BOUND, 10},
	};
	uint32_t flags = 0;

	for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++)
		flags |= model_chance(rng, wishes[i].percent) ? wishes[i].flag : 0;
	return flags;
}

static void set_limits(struct test_rng *rng, struct memslot_pool_opts *opts)
{
	static const uint64_t budgets[] = {0, 0, 0, MEMSLOT_NONE, MEMSLOT_UNLIMITED, 1, 20};
	static const uint64_t copies[] = {0, 0, 0, 0, 0, MEMSLOT_NONE, MEMSLOT_UNLIMITED, 1, 16};
	static const uint64_t warm[] = {0, 0, 0, MEMSLOT_NONE, 1, 2, 3, MEMSLOT_UNLIMITED};
	static const uint64_t batches[] = {0, 0, 1, 2, 3, 5, MEMSLOT_UNLIMITED};
	static const uint32_t methods[] = {MEMSLOT_RESET_AUTO, MEMSLOT_RESET_AUTO,
		MEMSLOT_RESET_AUTO, MEMSLOT_RESET_RESTORE, MEMSLOT_RESET_SCAN, MEMSLOT_RESET_DROP,
		MEMSLOT_RESET_DROP};

	opts->idle_budget = budgets[test_below(rng, 7)];
	if (opts->idle_budget && opts->idle_budget <= 20)
		opts->idle_budget *= test_page() * (1 + test_below(rng, 5));
	opts->copy_budget = copies[test_below(rng, 9)];
	if (opts->copy_budget && opts->copy_budget <= 16)
		opts->copy_budget *= test_page() * (1 + test_below(rng, 5));
	opts->max_warm = warm[test_below(rng, 8)];
	opts->drop_batch_count = batches[test_below(rng, 7)];
	opts->drop_batch_bytes = model_chance(rng, 20) ? 1 + test_below(rng, MIB) : 0;
	opts->max_age_ms = model_chance(rng, 25) ? 1 : 0;
	opts->reset_method = methods[test_below(rng, 7)];
}

/* An address that is free now. */
static void *free_address(size_t size)
{
	char *at = mmap(NULL, size + 8 * MIB, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	munmap(at, size + 8 * MIB);
	return at + 1 * MIB;
}

static void set_options(struct pool_life *life, size_t capacity, uint32_t flags)
{
	static const uint64_t after[] = {0, 0, 4096, 512 * KIB, 3 * MIB, MEMSLOT_NONE};
	static const uint64_t before[] = {0, 0, 64 * KIB, 4096};
	struct memslot_pool_opts opts = {.size = sizeof opts};
	struct test_rng *rng = &life->life.rng;

	opts.flags = some_flags(rng) | flags;
	set_limits(rng, &opts);
	opts.guard_after = after[test_below(rng, 6)];
	opts.guard_before = before[test_below(rng, 4)];
	if (model_chance(rng, 25))
		opts.reserve = capacity + test_below(rng, 3 * MIB);
	if (model_chance(rng, 20))
		opts.on_reset = on_reset;
	opts.context = life;
	if (model_chance(rng, 8))
		opts.base_address = free_address(POOL_SLOTS * (capacity + 7 * MIB));
	life->opts = opts;
}

/* --- seats --- */

static size_t guard_size(uint64_t option, size_t by_default)
{
	if (option == MEMSLOT_NONE)
		return 0;
	return option ? model_round(option) : by_default;
}

/* The same for all; what a hand-out promises is set then. */
static void make_seat(struct pool_life *life, uint32_t index, size_t capacity)
{
	struct model_slot *model = &life->seats[index].model;
	const struct memslot_pool_opts *opts = &life->opts;

	model->opts = (struct memslot_slot_opts){.size = sizeof model->opts,
		.flags = opts->flags & 0xffff,
		.copy_budget = opts->copy_budget,
		.reset_method = opts->reset_method,
		.on_reset = opts->on_reset};
	model->capacity = model_round(capacity);
	model->reserve = opts->reserve ? model_round(opts->reserve) : model->capacity;
	model->guard_after = guard_size(opts->guard_after, 64 * KIB);
	model->guard_before = index ? model->guard_after : guard_size(opts->guard_before, 0);
	model->now = calloc(1, model->capacity + 1);
	model->pages = malloc(model->capacity / test_page() + 1);
	ck_assert(model->now && model->pages);
	for (size_t page = 0; page < model->capacity / test_page(); page++)
		model->pages[page] = MODEL_OPEN;
}

static void log_options(const struct pool_life *life, size_t capacity)
{
	const struct memslot_pool_opts *opts = &life->opts;

	model_log("pool of %u, capacity %#zx, reserve %#zx, guards %#zx %#zx, flags %#x, method %u",
		life->count, capacity, (size_t)opts->reserve, (size_t)opts->guard_before,
		(size_t)opts->guard_after, opts->flags, opts->reset_method);
	model_log("copy budget %#zx, idle budget %#zx, max warm %zd, batch %zd, %#zx bytes, "
		  "age %u%s",
		(size_t)opts->copy_budget, (size_t)opts->idle_budget, (ssize_t)opts->max_warm,
		(ssize_t)opts->drop_batch_count, (size_t)opts->drop_batch_bytes,
		(unsigned)opts->max_age_ms, opts->on_reset ? ", on_reset" : "");
}

void pool_make(struct pool_life *life, uint32_t flags)
{
	size_t capacity = some_capacity(&life->life.rng);

	life->count = 1 + (uint32_t)test_below(&life->life.rng, POOL_SLOTS);
	set_options(life, capacity, flags);
	log_options(life, capacity);
	model_expect(memslot_pool_create(life->count, capacity, &life->opts, &life->pool), 0);
	for (uint32_t i = 0; i < life->count; i++)
		make_seat(life, i, capacity);
	pool_check(life);
}

static void free_seat(struct pool_seat *seat)
{
	model_set_image(&seat->model, NULL);
	if (seat->asked)
		model_image_unref(seat->asked);
	free(seat->model.now);
	free(seat->model.pages);
}

void pool_unmake(struct pool_life *life)
{
	bool lost = (life->opts.flags & MEMSLOT_SLOT_DONTFORK) && model_in_child;

	model_log("destroy the pool");
	model_expect(memslot_pool_destroy(life->pool), 0);
	for (uint32_t i = 0; i < life->count; i++) {
		const struct model_slot *model = &life->seats[i].model;
		if (model->slot && !lost &&
			test_vma_count(model->base - model->guard_before,
				model->guard_before + model->reserve + model->guard_after))
			model_fail("slot %u is still mapped", i);
	}
	for (uint32_t i = 0; i < life->count; i++)
		free_seat(&life->seats[i]);
}
