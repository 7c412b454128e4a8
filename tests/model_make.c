/* SPDX-License-Identifier: MIT */
/* model_make.c - slots of every kind. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <stdlib.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)

/* The last step of each reset: its writes are the new tenant's. Nothing that must be alone works.
 */
int model_on_reset(struct memslot_slot *slot, void *context)
{
	struct model_slot *model = context;

	model->callbacks++;
	if (memslot_slot_reset(slot) != -EBUSY || memslot_slot_discard(slot, 0, 0) != -EBUSY ||
		memslot_slot_destroy(slot) != -EBUSY)
		return -EPROTO;
	if (model->fail_reset)
		return -ECANCELED;
	model_callback_bytes(model->base, memslot_slot_size(slot), model->callbacks);
	return 0;
}

static void set_geometry(struct model_slot *made, size_t capacity)
{
	const struct memslot_slot_opts *opts = &made->opts;

	made->capacity = model_round(capacity);
	made->reserve = opts->reserve ? model_round(opts->reserve) : made->capacity;
	made->guard_before =
		opts->guard_before == MEMSLOT_NONE ? 0 : model_round(opts->guard_before);
	made->guard_after = opts->guard_after ? model_round(opts->guard_after) : 64 * KIB;
	if (opts->guard_after == MEMSLOT_NONE)
		made->guard_after = 0;
	made->confined = opts->flags & MEMSLOT_SLOT_CONFINED;
}

struct model_slot *model_slot_new(size_t capacity, const struct memslot_slot_opts *opts)
{
	struct model_slot *made = calloc(1, sizeof *made);
	size_t pages = model_round(capacity) / test_page();

	ck_assert_ptr_nonnull(made);
	made->opts = *opts;
	if (opts->on_reset)
		made->opts.context = made;
	set_geometry(made, capacity);
	made->now = calloc(1, made->capacity + 1);
	made->pages = malloc(pages + 1);
	ck_assert(made->now && made->pages);
	for (size_t page = 0; page < pages; page++)
		made->pages[page] = MODEL_OPEN;
	model_log("create capacity %#zx, reserve %#zx, guards %#zx %#zx, budget %#zx, flags %#x, "
		  "method %u",
		capacity, (size_t)opts->reserve, (size_t)opts->guard_before,
		(size_t)opts->guard_after, (size_t)opts->copy_budget, opts->flags,
		opts->reset_method);
	model_expect(memslot_slot_create(capacity, &made->opts, &made->slot), 0);
	made->base = memslot_slot_base(made->slot);
	if (memslot_slot_capacity(made->slot) != made->capacity)
		model_fail("capacity %#zx", memslot_slot_capacity(made->slot));
	model_compare(made);
	model_probe(made);
	return made;
}

static size_t some_capacity(struct test_rng *rng, bool big)
{
	if (big)
		return 8 * MIB;
	switch (test_below(rng, 12)) {
	case 0:
		return test_below(rng, 4 * test_page());
	case 1:
	case 2:
		return 64 * KIB;
	case 3:
		return 1 * MIB;
	default:
		return 16 * KIB + test_below(rng, 500 * KIB);
	}
}

static uint64_t some_budget(struct test_rng *rng)
{
	switch (test_below(rng, 10)) {
	case 0:
		return MEMSLOT_NONE;
	case 1:
		return MEMSLOT_UNLIMITED;
	case 2:
		return test_page() * (1 + test_below(rng, 64));
	default:
		return 0;
	}
}

static uint32_t some_flags(struct test_rng *rng)
{
	static const struct {
		uint32_t flag;
		unsigned percent;
	} wishes[] = {
		{MEMSLOT_SLOT_NO_EDGE, 15},
		{MEMSLOT_SLOT_HUGEPAGE, 10},
		{MEMSLOT_SLOT_POPULATE, 15},
		{MEMSLOT_SLOT_DONTFORK, 8},
		{MEMSLOT_SLOT_DONTDUMP, 20},
		{MEMSLOT_SLOT_CONFINED, 60},
		{MEMSLOT_SLOT_BOUND, 8},
	};
	uint32_t flags = 0;

	for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++)
		flags |= model_chance(rng, wishes[i].percent) ? wishes[i].flag : 0;
	return flags;
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

struct model_slot *model_slot_random(struct test_rng *rng, uint32_t method, bool big)
{
	static const uint64_t after[] = {0, 0, 4096, 512 * KIB, 3 * MIB, MEMSLOT_NONE};
	static const uint64_t before[] = {0, 0, 64 * KIB, 4096};
	struct memslot_slot_opts opts = {.size = sizeof opts, .reset_method = method};
	size_t capacity = some_capacity(rng, big);

	opts.flags = some_flags(rng);
	opts.copy_budget = some_budget(rng);
	opts.guard_after = after[test_below(rng, 6)];
	opts.guard_before = before[test_below(rng, 4)];
	if (model_chance(rng, 25))
		opts.reserve = capacity + test_below(rng, 3 * MIB);
	if (model_chance(rng, 20))
		opts.on_reset = model_on_reset;
	if (model_chance(rng, 5))
		opts.base_address = free_address(capacity + (opts.reserve ? 3 * MIB : 0));
	return model_slot_new(capacity, &opts);
}

void model_slot_free(struct model_slot *slot)
{
	model_set_image(slot, NULL);
	free(slot->now);
	free(slot->pages);
	free(slot);
}

void model_slot_destroy(struct model_slot *slot, struct model_coverage *coverage)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};

	model_release_holds(slot);
	model_expect(memslot_slot_stats(slot->slot, &stats), 0);
	coverage->known += stats.resets_known;
	coverage->scan += stats.resets_scan;
	coverage->drop += stats.resets_drop;
	coverage->remakes += stats.remakes;
	coverage->locked_copies += stats.copy_fallbacks;
	coverage->faults += stats.faults;
	coverage->restored += stats.bytes_restored;
	coverage->dropped += stats.bytes_dropped;
	model_log("slot %p: destroy", (void *)slot->base);
	model_expect(memslot_slot_destroy(slot->slot), 0);
	model_slot_free(slot);
}
