/* SPDX-License-Identifier: MIT */
/*
 * variant.c - the ways that are measured side by side: the table, and slots of the library's own.
 *
 * Invariant: an instance is opened, used and closed by one thread; its slot is confined to it. What
 * several instances share (a pool) belongs to the one that the others joined.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <string.h>

static int slot_open(struct instance *instance)
{
	const struct settings *settings = instance->settings;
	struct memslot_slot_opts opts = {.size = sizeof(opts),
		.flags = settings->confined ? MEMSLOT_SLOT_CONFINED : 0,
		.reset_method = instance->variant->method};
	int error = memslot_slot_create(instance->capacity, &opts, &instance->slot);

	if (error)
		return error;
	instance->base = memslot_slot_base(instance->slot);
	return memslot_slot_instantiate(instance->slot, instance->image, instance->size);
}

static int slot_begin(struct instance *instance, size_t grow)
{
	return grow ? memslot_slot_resize(instance->slot, instance->size + grow) : 0;
}

static int slot_end(struct instance *instance)
{
	return memslot_slot_reset(instance->slot);
}

static void slot_close(struct instance *instance)
{
	memslot_slot_destroy(instance->slot);
}

const struct backend slot_backend = {slot_open, slot_begin, slot_end, slot_close, false};

#define OURS(name_, title_, method_)                                                               \
	{                                                                                          \
		.name = name_, .title = title_, .backend = &slot_backend, .method = method_,       \
		.by_default = true                                                                 \
	}
#define LENT(name_, title_, method_, default_)                                                     \
	{                                                                                          \
		.name = name_, .title = title_, .backend = &lent_backend, .method = method_,       \
		.pool = true, .by_default = default_                                               \
	}
#define REFERENCE(name_, title_, budget_, scan_, default_)                                         \
	{                                                                                          \
		.name = name_, .title = title_, .backend = &pooled_backend, .budget = budget_,     \
		.reference = true, .needs_scan = scan_, .by_default = default_                     \
	}

const struct variant variants[] = {
	OURS("auto", "memslot, learning", MEMSLOT_RESET_AUTO),
	OURS("known", "memslot, copy the retained pages", MEMSLOT_RESET_RESTORE),
	OURS("scan", "memslot, scan and copy", MEMSLOT_RESET_SCAN),
	OURS("drop", "memslot, drop", MEMSLOT_RESET_DROP),
	LENT("auto", "memslot, a slot of a pool, learning", MEMSLOT_RESET_AUTO, true),
	LENT("known", "memslot, of a pool, copy the retained pages", MEMSLOT_RESET_RESTORE, false),
	LENT("scan", "memslot, of a pool, scan and copy", MEMSLOT_RESET_SCAN, false),
	LENT("drop", "memslot, of a pool, drop", MEMSLOT_RESET_DROP, false),
	{.name = "slot",
		.title = "memslot, a slot without a pool, learning",
		.backend = &slot_backend,
		.pool = true,
		.by_default = true},
	REFERENCE("dontneed", "drop everything", 0, false, true),
	REFERENCE("scan-64K", "one scan, keep 64 KiB", 64 * KIB, true, true),
	REFERENCE("scan-1M", "one scan, keep 1 MiB", MIB, true, true),
	REFERENCE("scan-4M", "one scan, keep 4 MiB", 4 * MIB, true, false),
	REFERENCE("scan-16M", "one scan, keep 16 MiB", 16 * MIB, true, true),
	REFERENCE("scan-all", "one scan, keep all", UINT64_MAX, true, false),
	REFERENCE("prefix-64K", "no scan, keep the first 64 KiB", 64 * KIB, false, true),
	REFERENCE("prefix-1M", "no scan, keep the first 1 MiB", MIB, false, true),
	REFERENCE("prefix-4M", "no scan, keep the first 4 MiB", 4 * MIB, false, false),
	REFERENCE("prefix-16M", "no scan, keep the first 16 MiB", 16 * MIB, false, false),
	REFERENCE("prefix-all", "no scan, keep all", UINT64_MAX, false, false),
	{.name = "remap",
		.title = "map and unmap each time",
		.backend = &remap_backend,
		.reference = true},
};

const size_t variant_count = sizeof(variants) / sizeof(*variants);

bool variant_chosen(const struct variant *variant, const struct settings *settings)
{
	const char *list = variant->reference ? settings->references : settings->methods;

	if (!variant->reference && variant->pool != settings->pool)
		return false;
	if (!list)
		return variant->by_default;
	return list_has(list, "all") || list_has(list, variant->name);
}

bool variant_possible(const struct variant *variant, const struct settings *settings)
{
	return !(variant->reference && variant->needs_scan) || reference_can_scan(settings);
}

int instance_open(struct instance *instance, const struct variant *variant,
	const struct settings *settings, struct memslot_image *image, size_t size)
{
	memset(instance, 0, sizeof(*instance));
	instance->variant = variant;
	instance->settings = settings;
	instance->image = image;
	instance->size = size;
	instance->capacity = settings->capacity;
	instance->gallery = settings->gallery;
	return variant->backend->open(instance);
}

int instance_join(struct instance *instance, const struct instance *owner)
{
	*instance = *owner;
	instance->owner = owner;
	instance->calls = 0;
	return instance->variant->backend->open(instance);
}

void instance_close(struct instance *instance)
{
	if (instance->variant)
		instance->variant->backend->close(instance);
	instance->variant = NULL;
}

uint64_t instance_calls(const struct instance *instance)
{
	struct memslot_slot_stats stats = {.size = sizeof(stats)};
	struct memslot_pool_stats pool = {.size = sizeof(pool)};

	if (instance->pool && memslot_pool_stats(instance->pool, &pool) == 0)
		return pool.slots.syscalls;
	if (instance->slot && memslot_slot_stats(instance->slot, &stats) == 0)
		return stats.syscalls;
	return instance->calls;
}

const char *variant_prefix(const struct variant *variant)
{
	if (variant->reference)
		return "";
	return variant->backend == &lent_backend ? "pool" : "memslot";
}

void gallery_pick(struct instance *instance)
{
	const struct gallery *gallery = instance->gallery;
	uint64_t turn = instance->turn++;

	if (!gallery)
		return;
	instance->picked = (unsigned)(turn % gallery->count);
	if (gallery->favoured && turn % 10 != 0)
		instance->picked = (unsigned)(turn % gallery->favoured);
	else if (gallery->favoured)
		instance->picked = (unsigned)(turn / 10 % gallery->count);
	instance->image = gallery->images[instance->picked];
	instance->settings = &gallery->settings[instance->picked];
}
