/* SPDX-License-Identifier: MIT */
/* pool_model_idle.c - what is done to slots while nobody has them. */
#define _GNU_SOURCE
#include "pool_model.h"

#include <errno.h>
#include <unistd.h>

/* Slots that are out and show it must be counted; those that showed it first, or were given unseen,
 * and held ones may be. */
static void forget_seat(
	struct pool_seat *seat, const struct model_image *image, uint32_t *least, uint32_t *most)
{
	bool shows = seat->model.image == image && !seat->given;

	if (shows && (seat->place == POOL_WARM || seat->place == POOL_QUEUED))
		seat->place = POOL_COLD;
	if (shows && seat->place == POOL_OUT) {
		seat->forgotten = true;
		++*least;
	}
	*most += (seat->place == POOL_OUT && (shows || seat->given || seat->asked == image)) ||
		 (seat->place == POOL_HELD && shows);
}

void pool_op_forget(struct pool_life *life)
{
	struct model_image *image = pool_some_image(life);
	uint32_t least = 0, most = 0, count = 4711;

	for (uint32_t i = 0; i < life->count; i++)
		forget_seat(&life->seats[i], image, &least, &most);
	model_log("forget %s: %u to %u out", image ? "an image" : "zeros", least, most);
	model_expect(memslot_pool_forget(life->pool, image ? image->image : NULL, &count), 0);
	if (count < least || count > most)
		model_fail("%u are out, expected %u to %u", count, least, most);
	life->coverage->forgotten++;
	pool_check(life);
}

void pool_op_trim(struct pool_life *life)
{
	struct memslot_pool_stats stats = pool_stats_of(life);
	size_t target = 0, left = 4711, copies = (size_t)life->count * (16 << 10);

	if (stats.resident_bytes && model_chance(&life->life.rng, 70))
		target = test_below(&life->life.rng, stats.resident_bytes);
	model_log("trim to %#zx of %#zx", target, (size_t)stats.resident_bytes);
	model_expect(memslot_pool_trim(life->pool, target, &left), 0);
	stats = pool_stats_of(life);
	if (left != stats.resident_bytes && !life->locked && left > target + copies)
		model_fail(
			"%#zx left, and the counter says %#zx", left, (size_t)stats.resident_bytes);
	if (stats.resident_bytes > target + copies && !life->locked)
		model_fail("%#zx are kept", (size_t)stats.resident_bytes);
	pool_move_all(life, POOL_WARM, POOL_WARM);
	pool_check(life);
}

void pool_op_prewarm(struct pool_life *life)
{
	struct memslot_pool_stats stats = pool_stats_of(life);
	struct model_image *image = pool_some_image(life);
	size_t size = pool_some_size(life, image);
	uint32_t wanted = 1 + (uint32_t)test_below(&life->life.rng, 3), made = 4711;
	uint32_t most = stats.idle_cold < wanted ? (uint32_t)stats.idle_cold : wanted;
	int answer, want = 0;

	if (image && image->end > model_round(size))
		want = -EMSGSIZE;
	if (image && image->base_address)
		want = -EINVAL;
	model_log("prewarm %u, size %#zx", wanted, size);
	answer = memslot_pool_prewarm(life->pool, image ? image->image : NULL, size, wanted, &made);
	model_expect(answer, want);
	if (made != (want ? 4711 : most))
		model_fail("%u were made warm, expected %u", made, most);
	if (!want && made) /* which ones? */
		pool_move_all(life, POOL_COLD, POOL_MAYBE);
	life->coverage->prewarmed += want ? 0 : made;
	pool_check(life);
}

void pool_op_flush(struct pool_life *life)
{
	model_log("flush");
	model_expect(memslot_pool_flush(life->pool), 0);
	life->coverage->healed += pool_count(life, POOL_SICK);
	pool_move_all(life, POOL_QUEUED, POOL_WARM);
	pool_move_all(life, POOL_SICK, POOL_COLD);
	pool_check(life);
}

void pool_op_maintain(struct pool_life *life)
{
	bool slept = life->opts.max_age_ms && model_chance(&life->life.rng, 50);

	if (slept)
		usleep(2000);
	model_log("maintain%s", slept ? " after a while" : "");
	model_expect(memslot_pool_maintain(life->pool), 0);
	pool_move_all(life, POOL_QUEUED, POOL_WARM);
	if (life->opts.max_age_ms) {
		life->coverage->aged += pool_count(life, POOL_WARM);
		pool_move_all(life, POOL_WARM, slept ? POOL_COLD : POOL_MAYBE);
		if (slept)
			pool_move_all(life, POOL_MAYBE, POOL_COLD);
	}
	life->coverage->healed += pool_count(life, POOL_SICK);
	pool_move_all(life, POOL_SICK, POOL_COLD);
	pool_check(life);
}
