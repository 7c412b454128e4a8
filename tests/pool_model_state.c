/* SPDX-License-Identifier: MIT */
/*
 * pool_model_state.c - where each slot must be, and what the counters must say.
 *
 * Whether a reset dropped or copied, and so whether the slot was queued, is the library's choice:
 * the gauges tell, and from then on the model knows.
 */
#define _GNU_SOURCE
#include "pool_model.h"

struct memslot_pool_stats pool_stats_of(const struct pool_life *life)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	model_expect(memslot_pool_stats(life->pool, &stats), 0);
	return stats;
}

unsigned pool_count(const struct pool_life *life, enum pool_place place)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < life->count; i++)
		count += life->seats[i].place == place;
	return count;
}

bool pool_has_idle(const struct pool_life *life)
{
	return pool_count(life, POOL_COLD) + pool_count(life, POOL_WARM) +
	       pool_count(life, POOL_QUEUED) + pool_count(life, POOL_MAYBE) +
	       pool_count(life, POOL_SICK);
}

void pool_move_all(struct pool_life *life, enum pool_place from, enum pool_place to)
{
	for (uint32_t i = 0; i < life->count; i++) {
		if (life->seats[i].place == from) {
			life->seats[i].place = to;
			life->seats[i].used = 0;
		}
	}
}

struct pool_seat *pool_some(struct pool_life *life, enum pool_place place)
{
	unsigned count = pool_count(life, place);
	uint64_t drawn = count ? test_below(&life->life.rng, count) : 0;

	for (uint32_t i = 0; i < life->count; i++) {
		if (life->seats[i].place == place && drawn-- == 0)
			return &life->seats[i];
	}
	return NULL;
}

/* --- where it went --- */

void pool_place_released(
	struct pool_life *life, struct pool_seat *seat, const struct memslot_pool_stats *before)
{
	struct memslot_pool_stats after = pool_stats_of(life);
	bool queued = after.queued > before->queued;
	bool flushed = after.queued < before->queued;

	if (seat->place != POOL_OUT || after.live != before->live - 1)
		model_fail("live %zu after %zu", (size_t)after.live, (size_t)before->live);
	if (flushed)
		pool_move_all(life, POOL_QUEUED, POOL_WARM);
	seat->place = queued					? POOL_QUEUED
		      : after.idle_cold > before->idle_cold	? POOL_COLD
		      : after.quarantined > before->quarantined ? POOL_SICK
								: POOL_WARM;
	/* Dropped by a batch of its own it goes to the end, too. */
	seat->used = flushed || life->opts.drop_batch_bytes ? 0 : ++life->uses;
	/* Slots that give up pages for this one go to the end. */
	if (life->opts.idle_budget && life->opts.idle_budget != MEMSLOT_UNLIMITED)
		pool_move_all(life, POOL_WARM, POOL_WARM);
	if (seat->place == POOL_SICK && !seat->given)
		model_fail("the slot could not be reset");
	if (seat->forgotten && seat->place != POOL_COLD && !seat->given)
		model_fail("a forgotten image's slot is in place %d", (int)seat->place);
	seat->forgotten = seat->given = seat->model.unknown = false;
	life->coverage->queued += queued;
	life->coverage->batches += flushed;
}

/* --- who had to come --- */

static bool fits(const struct pool_seat *seat, const struct model_image *image,
	const struct memslot_acquire_opts *opts)
{
	return seat->place == POOL_WARM && seat->model.image == image &&
	       seat->key == opts->affinity_key && !(opts->flags & MEMSLOT_ACQUIRE_COLD);
}

/* The most recently used one of those that fit, where the order is known. */
static void check_group(struct pool_life *life, const struct pool_seat *got,
	const struct model_image *image, const struct memslot_acquire_opts *opts)
{
	uint64_t last = 0;
	bool known = true;

	for (uint32_t i = 0; i < life->count; i++) {
		const struct pool_seat *seat = &life->seats[i];
		if (!fits(seat, image, opts))
			continue;
		known = known && seat->used;
		last = seat->used > last ? seat->used : last;
	}
	if (!fits(got, image, opts))
		model_fail("slot %td came though a warm one fits", got - life->seats);
	if (known && got->used != last)
		model_fail("slot %td came, not the last one used", got - life->seats);
	life->coverage->hits++;
}

static void check_oldest(const struct pool_life *life, const struct pool_seat *got)
{
	bool known = true, oldest = true;

	for (uint32_t i = 0; i < life->count; i++) {
		const struct pool_seat *seat = &life->seats[i];
		if (seat->place != POOL_WARM)
			continue;
		known = known && seat->used;
		oldest = oldest && got->used <= seat->used;
	}
	if (known && !oldest)
		model_fail("slot %td came, not the one used longest ago", got - life->seats);
}

static enum pool_place place_to_come(
	const struct pool_life *life, const struct memslot_acquire_opts *opts)
{
	unsigned cold = pool_count(life, POOL_COLD), warm = pool_count(life, POOL_WARM);
	uint64_t max = life->opts.max_warm == MEMSLOT_NONE ? 0 : life->opts.max_warm;

	if (life->opts.max_warm == 0)
		max = UINT64_MAX;
	if (cold && ((opts->flags & MEMSLOT_ACQUIRE_COLD) || warm < max || !warm))
		return POOL_COLD;
	if (warm)
		return POOL_WARM;
	return pool_count(life, POOL_QUEUED) ? POOL_QUEUED : POOL_SICK;
}

static void check_order(struct pool_life *life, const struct pool_seat *got,
	const struct model_image *image, const struct memslot_acquire_opts *opts)
{
	enum pool_place place = place_to_come(life, opts);
	bool group = false;

	for (uint32_t i = 0; i < life->count; i++)
		group = group || fits(&life->seats[i], image, opts);
	if (group)
		check_group(life, got, image, opts);
	else if (got->place != place)
		model_fail("slot %td came out of place %d, not %d", got - life->seats,
			(int)got->place, (int)place);
	else if (place == POOL_WARM)
		check_oldest(life, got);
}

void pool_check_choice(struct pool_life *life, const struct pool_seat *seat,
	const struct model_image *image, const struct memslot_acquire_opts *opts)
{
	bool bound = image && image->base_address; /* to one slot, wherever it is */

	if (seat->place > POOL_SICK)
		model_fail("slot %td came out of place %d", seat - life->seats, (int)seat->place);
	if (!bound && !pool_count(life, POOL_MAYBE))
		check_order(life, seat, image, opts);
	if (seat->place == POOL_QUEUED) /* all were dropped for it */
		pool_move_all(life, POOL_QUEUED, POOL_WARM);
}

/* --- counters --- */

static void check_gauge(const char *name, uint64_t got, uint64_t least, uint64_t most)
{
	if (got < least || got > most)
		model_fail("%s is %zu, expected %zu to %zu", name, (size_t)got, (size_t)least,
			(size_t)most);
}

/* Copied images are never dropped, and one slot may be over. */
static void check_resident(const struct pool_life *life, const struct memslot_pool_stats *stats)
{
	uint64_t budget = life->opts.idle_budget, room = life->count * (uint64_t)(16 << 10);

	if (budget == MEMSLOT_UNLIMITED || life->locked)
		return;
	if (budget == MEMSLOT_NONE)
		budget = 0;
	else if (budget == 0)
		budget = 256u << 20;
	check_gauge("resident_bytes", stats->resident_bytes, 0, budget + room);
}

void pool_check(const struct pool_life *life)
{
	struct memslot_pool_stats stats = pool_stats_of(life);
	unsigned maybe = pool_count(life, POOL_MAYBE), warm = pool_count(life, POOL_WARM),
		 cold = pool_count(life, POOL_COLD), queued = pool_count(life, POOL_QUEUED),
		 sick = pool_count(life, POOL_SICK) + pool_count(life, POOL_LOST);

	check_gauge("capacity_count", stats.capacity_count, life->count, life->count);
	check_gauge("live", stats.live, pool_count(life, POOL_OUT), pool_count(life, POOL_OUT));
	check_gauge("held", stats.held, pool_count(life, POOL_HELD), pool_count(life, POOL_HELD));
	check_gauge("waiters", stats.waiters, life->waiting, life->waiting);
	check_gauge("quarantined", stats.quarantined, sick, sick);
	check_gauge("idle_warm", stats.idle_warm, warm, warm + maybe);
	check_gauge("idle_cold", stats.idle_cold, cold, cold + maybe);
	check_gauge("queued", stats.queued, queued, queued);
	check_gauge("the sum of all",
		stats.live + stats.idle_warm + stats.idle_cold + stats.held + stats.queued +
			stats.quarantined,
		life->count, life->count);
	check_gauge("verify_failures", stats.verify_failures, 0, 0);
	check_resident(life, &stats);
	pool_expect_waiting(life);
}

/* --- where is this address? --- */

static void check_location(
	const struct pool_life *life, const struct pool_seat *seat, ptrdiff_t offset, uint32_t kind)
{
	struct memslot_location at = {.size = sizeof at};
	bool out = seat->place == POOL_OUT;

	model_expect(memslot_pool_locate(life->pool, seat->model.base + offset, &at), 0);
	if (at.kind != kind || at.index != (uint64_t)(seat - life->seats) || at.offset != offset ||
		at.slot != (out ? seat->model.slot : NULL))
		model_fail("slot %td, offset %#tx: kind %u, slot %p, index %zu, offset %#zx",
			seat - life->seats, offset, at.kind, (void *)at.slot, (size_t)at.index,
			(size_t)at.offset);
}

void pool_locate_all(const struct pool_life *life)
{
	for (uint32_t i = 0; i < life->count; i++) {
		const struct pool_seat *seat = &life->seats[i];
		const struct model_slot *model = &seat->model;
		bool out = seat->place == POOL_OUT;
		if (!model->slot || seat->given)
			continue;
		if (model->size)
			check_location(life, seat, (ptrdiff_t)model->size - 1,
				out ? MEMSLOT_AT_INSIDE : MEMSLOT_AT_IDLE);
		if (model->size < model->reserve)
			check_location(life, seat, (ptrdiff_t)model->size,
				out ? MEMSLOT_AT_BEYOND_EDGE : MEMSLOT_AT_IDLE);
		if (model->guard_after)
			check_location(
				life, seat, (ptrdiff_t)model->reserve, MEMSLOT_AT_GUARD_AFTER);
	}
}
