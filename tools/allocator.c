/* SPDX-License-Identifier: MIT */
/*
 * allocator.c - how the references share slots: the index allocator of Wasmtime's pooling
 * allocator.
 *
 *   idle slots:  by last use, all of them | by last use, those that show the same image
 *
 * An acquire takes the idle slot that showed this image last; else one never used, as long as fewer
 * than max_warm idle ones were; else the one idle for longest, and maps its own image there. A
 * release resets the slot as its variant does (reference.c) and puts it back. How much a reset
 * keeps is bounded for each slot, not for all together.
 *
 * Invariant: one mutex, as in the original, held for the lists and never for a system call.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* The two lists that an idle slot is in. */
enum order { ALL, SAME_IMAGE, ORDERS };

struct lot {
	struct instance instance; /* a slot of its own: pooled_backend */
	unsigned image;		  /* that it shows: its number in the gallery */
	struct lot *newer[ORDERS], *older[ORDERS];
};

struct list {
	struct lot *newest, *oldest;
};

struct allocator {
	pthread_mutex_t lock;
	struct list all, same[MAX_IMAGES];
	uint64_t warm, max_warm; /* idle, and used before */
	unsigned used, count;	 /* lots[used] and those behind it never were */
	struct lot lots[];
};

/* --- the lists --- */

static struct list *list_of(struct allocator *allocator, const struct lot *lot, enum order order)
{
	return order == ALL ? &allocator->all : &allocator->same[lot->image];
}

static void put(struct allocator *allocator, struct lot *lot)
{
	for (enum order order = ALL; order < ORDERS; order++) {
		struct list *list = list_of(allocator, lot, order);

		lot->newer[order] = NULL;
		lot->older[order] = list->newest;
		*(list->newest ? &list->newest->newer[order] : &list->oldest) = lot;
		list->newest = lot;
	}
	allocator->warm++;
}

static void take(struct allocator *allocator, struct lot *lot)
{
	for (enum order order = ALL; order < ORDERS; order++) {
		struct list *list = list_of(allocator, lot, order);
		struct lot *newer = lot->newer[order], *older = lot->older[order];

		*(newer ? &newer->older[order] : &list->newest) = older;
		*(older ? &older->newer[order] : &list->oldest) = newer;
	}
	allocator->warm--;
}

/* The next slot for an image; NULL: all are out. */
static struct lot *next_for(struct allocator *allocator, unsigned image)
{
	struct lot *lot = allocator->same[image].newest;
	bool cold = allocator->used < allocator->count;

	if (!lot && cold && (allocator->warm < allocator->max_warm || !allocator->all.oldest))
		return &allocator->lots[allocator->used++];
	if (!lot)
		lot = allocator->all.oldest;
	if (lot)
		take(allocator, lot);
	return lot;
}

/* --- the backend --- */

static int open_lots(struct instance *instance, struct allocator *allocator)
{
	int error = 0;

	for (unsigned i = 0; i < instance->settings->slots && !error; i++) {
		struct lot *lot = &allocator->lots[i];

		lot->instance = *instance;
		lot->instance.allocator = NULL;
		error = pooled_backend.open(&lot->instance);
		allocator->count++;
	}
	return error;
}

static int allocator_open(struct instance *instance)
{
	size_t slots = instance->settings->slots;
	uint64_t max_warm = instance->settings->max_warm;
	struct allocator *allocator;

	if (instance->owner)
		return 0;
	allocator = calloc(1, sizeof(*allocator) + slots * sizeof(struct lot));
	if (!allocator)
		return -ENOMEM;
	pthread_mutex_init(&allocator->lock, NULL);
	allocator->max_warm = max_warm ? max_warm : UINT64_MAX;
	instance->allocator = allocator;
	return open_lots(instance, allocator);
}

/* Same sizes everywhere: what differs is the image's place in the contents. */
static int show(struct lot *lot, const struct instance *instance)
{
	if (lot->image == instance->picked)
		return 0;
	lot->image = instance->picked;
	lot->instance.settings = instance->settings;
	return reference_show(&lot->instance);
}

static int allocator_begin(struct instance *instance, size_t grow)
{
	struct allocator *allocator = instance->allocator;
	struct lot *lot;
	int error;

	gallery_pick(instance);
	pthread_mutex_lock(&allocator->lock);
	lot = next_for(allocator, instance->picked);
	pthread_mutex_unlock(&allocator->lock);
	if (!lot)
		return -EAGAIN;
	instance->lot = lot;
	error = show(lot, instance);
	if (!error)
		error = pooled_backend.begin(&lot->instance, grow);
	instance->base = lot->instance.base;
	return error;
}

static int allocator_end(struct instance *instance)
{
	struct allocator *allocator = instance->allocator;
	struct lot *lot = instance->lot;
	int error = pooled_backend.end(&lot->instance);

	instance->calls += lot->instance.calls;
	lot->instance.calls = 0;
	instance->lot = NULL;
	pthread_mutex_lock(&allocator->lock);
	put(allocator, lot);
	pthread_mutex_unlock(&allocator->lock);
	return error;
}

static void allocator_close(struct instance *instance)
{
	struct allocator *allocator = instance->allocator;

	if (instance->owner || !allocator)
		return;
	for (unsigned i = 0; i < allocator->count; i++)
		pooled_backend.close(&allocator->lots[i].instance);
	pthread_mutex_destroy(&allocator->lock);
	free(allocator);
	instance->allocator = NULL;
}

const struct backend allocator_backend = {
	allocator_open, allocator_begin, allocator_end, allocator_close, true};
