/* SPDX-License-Identifier: MIT */
/*
 * lent.c - the library's way through a pool: acquire, write, release.
 *
 * Invariant: between begin and end an instance has one slot, outside of them none. The pool is the
 * instance's own or that of the one it joined, and is destroyed by its owner alone.
 */
#define _GNU_SOURCE
#include "churn.h"

static int lent_open(struct instance *instance)
{
	const struct settings *settings = instance->settings;
	struct memslot_pool_opts opts = {.size = sizeof(opts),
		.reset_method = instance->variant->method,
		.max_warm = settings->max_warm,
		.idle_budget = settings->idle_budget};

	if (instance->owner)
		return 0;
	return memslot_pool_create(settings->slots, instance->capacity, &opts, &instance->pool);
}

static int lent_begin(struct instance *instance, size_t grow)
{
	const struct memslot_acquire_opts opts = {.size = sizeof(opts),
		.flags = instance->settings->confined ? MEMSLOT_SLOT_CONFINED : 0};
	int error;

	gallery_pick(instance);
	error = memslot_pool_acquire(
		instance->pool, instance->image, instance->size, &opts, &instance->slot);
	if (error)
		return error;
	instance->base = memslot_slot_base(instance->slot);
	return grow ? memslot_slot_resize(instance->slot, instance->size + grow) : 0;
}

static int lent_end(struct instance *instance)
{
	struct memslot_slot *slot = instance->slot;

	instance->slot = NULL;
	return memslot_pool_release(instance->pool, slot);
}

static void lent_close(struct instance *instance)
{
	int error;

	if (instance->slot)
		lent_end(instance);
	if (instance->owner)
		return;
	error = memslot_pool_destroy(instance->pool);
	if (error)
		complain(error, "a pool cannot be destroyed");
	instance->pool = NULL;
}

const struct backend lent_backend = {lent_open, lent_begin, lent_end, lent_close, true};
