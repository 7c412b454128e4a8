/* SPDX-License-Identifier: MIT */
/*
 * queue.c - dropping many slots by one process_madvise(2).
 *
 * Invariant: a slot in a batch is FLUSHING: nobody else takes it until it is settled. The kernel
 * may do a part (INVARIANTS 21): the bytes it returns are a prefix, the slot it ends in and those
 * behind are dropped one by one, and a slot counts as clean only then. Batches stay below 2 GiB.
 */
#include "pool/pool.h"

#include "base/feature.h"

#include <errno.h>
#include <sys/mman.h>

#define BATCH_BYTES (1ull << 30)

void ms_queue_take(struct memslot_pool *pool, struct ms_batch *batch)
{
	batch->count = 0;
	while (pool->queued.first && batch->count < MS_QUEUE_BATCH) {
		batch->name[batch->count++] = pool->queued.first;
		ms_shelf_take_away(pool, pool->queued.first);
	}
}

/* Together: how many slots, from `from` on, are clean now. */
static size_t drop_together(struct memslot_pool *pool, const struct ms_batch *batch, size_t from)
{
	struct iovec ranges[MS_QUEUE_BATCH];
	uint64_t sum = 0;
	size_t count = 0, clean = 0;
	int64_t done;

	for (; from + count < batch->count; count++) {
		struct memslot_slot *slot = ms_pool_slot(pool, batch->name[from + count]);
		size_t size = ms_pages_to_bytes(ms_slot_drop_end(slot));
		if (size == 0 || size > BATCH_BYTES || sum + size > BATCH_BYTES ||
			!ms_lend_droppable(slot))
			break;
		ranges[count] = (struct iovec){slot->base, size};
		sum += size;
	}
	if (count < 2 || !ms_feature(MS_FEATURE_PROCESS_MADVISE_SELF))
		return 0;
	for (size_t i = 0; i < count; i++)
		ms_lend_begin_drop(ms_pool_slot(pool, batch->name[from + i]));
	done = ms_os_advise_many(ranges, count, MADV_DONTNEED);
	ms_pool_slot(pool, batch->name[from])->stats.syscalls++;
	while (done > 0 && clean < count && (uint64_t)done >= ranges[clean].iov_len) {
		done -= (int64_t)ranges[clean].iov_len;
		ms_lend_dropped(ms_pool_slot(pool, batch->name[from + clean++]));
	}
	return clean;
}

/* `failed` names those that could not be dropped. */
static void drop(
	struct memslot_pool *pool, const struct ms_batch *batch, bool failed[MS_QUEUE_BATCH])
{
	size_t i = 0;

	while (i < batch->count) {
		size_t clean = drop_together(pool, batch, i);
		for (size_t end = i + clean; i < end; i++)
			failed[i] = false;
		if (i < batch->count) { /* alone, with all cures there are */
			failed[i] = ms_lend_drop(ms_pool_slot(pool, batch->name[i])) != 0;
			i++;
		}
	}
}

void ms_queue_flush(struct memslot_pool *pool, struct ms_batch *batch, bool all)
{
	while (batch->count) {
		struct ms_wake wakes[MS_QUEUE_BATCH];
		bool failed[MS_QUEUE_BATCH];
		size_t count = batch->count;
		drop(pool, batch, failed);
		if (ms_pool_enter(pool))
			return;
		for (size_t i = 0; i < count; i++) {
			/* Trimmed ones go behind the others: the oldest last of all. */
			size_t j = ms_pool_seat(pool, batch->name[0])->demoted ? count - 1 - i : i;
			wakes[i] = ms_pool_settle(
				pool, batch->name[j], failed[j] ? MS_RETURN_SICK : MS_RETURN_CLEAN);
		}
		/* Once the last one is settled the pool may be gone, unless there are more. */
		batch->count = 0;
		if (all)
			ms_queue_take(pool, batch);
		ms_pool_leave(pool);
		for (size_t i = 0; i < count; i++)
			ms_pool_wake(pool, wakes[i]);
	}
}
