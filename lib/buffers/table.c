/* SPDX-License-Identifier: MIT */
/*
 * table.c - areas in a ring's table of fixed buffers, each at the index it has in the pool.
 *
 * Invariant: an area is pinned, once for each ring, before it is registered there, and unpinned
 * only after the kernel said that it is not any more: what is pinned is restored in place and never
 * dropped, as the ring would go on with the old pages (INVARIANTS 10, 15). A refusal, as by
 * RLIMIT_MEMLOCK, whose charge can be read nowhere, is no error: operations there are plain. A
 * second ring takes over what the first one has, which charges and pins nothing anew.
 */
#include "buffers/buffers.h"

#include "base/feature.h"
#include "base/uring.h"

static bool pin(struct memslot_buffers *buffers, struct ms_area *area)
{
	if (memslot_slot_hold(area->slot, MEMSLOT_HOLD_PIN))
		return false;
	ms_lock_take(&buffers->lock);
	area->pins++;
	ms_lock_release(&buffers->lock);
	return true;
}

static void unpin(struct memslot_buffers *buffers, struct ms_area *area)
{
	(void)memslot_slot_unhold(area->slot, MEMSLOT_HOLD_PIN);
	ms_lock_take(&buffers->lock);
	area->pins--;
	ms_lock_release(&buffers->lock);
}

static void count_refusal(struct memslot_buffers *buffers)
{
	ms_lock_take(&buffers->lock);
	buffers->plain_fallbacks++;
	ms_lock_release(&buffers->lock);
}

/* Another ring that has a table, and a certain area in it. NULL: none. */
static struct memslot_ring *peer(struct memslot_ring *ring, uint32_t area)
{
	struct memslot_ring *other;

	ms_lock_take(&ring->buffers->lock);
	other = ring->buffers->rings;
	while (other &&
		(other == ring || !other->has_table ||
			(area < MS_AREAS_MAX && !other->fixed[area]) || !ms_ring_alive(other)))
		other = other->next;
	ms_lock_release(&ring->buffers->lock);
	return other;
}

/* Take over a peer's table, or one entry of it. */
static int clone(struct memslot_ring *ring, const struct memslot_ring *from, uint32_t area)
{
	struct ms_uring_clone clone = {.src_fd = (uint32_t)from->fd};

	if (area < MS_AREAS_MAX) {
		clone.flags = MS_URING_DST_REPLACE;
		clone.src_off = clone.dst_off = area;
		clone.nr = 1;
	}
	return ms_os_uring_register(ring->fd, MS_URING_CLONE_BUFFERS, &clone, 1);
}

static int enter_area(struct memslot_ring *ring, uint32_t i)
{
	struct ms_area *area = &ring->buffers->areas[i];
	struct memslot_ring *from;

	if (!ms_ring_alive(ring))
		return -EBADF; /* the number may be another ring's by now */
	from = ms_feature(MS_FEATURE_URING_CLONE) ? peer(ring, i) : NULL;
	if (from && clone(ring, from, i) == 0)
		return 0;
	return ms_uring_update(ring->fd, i, area->base, area->bytes);
}

/* With `tables`: an area that will not go meanwhile. */
static bool try_area(struct memslot_ring *ring, uint32_t i)
{
	struct ms_area *area = &ring->buffers->areas[i];

	ring->tried[i] = area->serial;
	ring->fixed[i] = false;
	if (!ring->has_table)
		return false;
	if (pin(ring->buffers, area)) {
		ring->fixed[i] = enter_area(ring, i) == 0;
		if (!ring->fixed[i])
			unpin(ring->buffers, area);
	}
	if (!ring->fixed[i])
		count_refusal(ring->buffers);
	return ring->fixed[i];
}

bool ms_table_try(struct memslot_ring *ring, uint32_t i)
{
	bool fixed;

	ms_lock_take(&ring->buffers->tables);
	fixed = try_area(ring, i);
	ms_lock_release(&ring->buffers->tables);
	return fixed;
}

/* All that a peer has. What it has stays where it is while we have `tables`. */
static bool clone_all(struct memslot_ring *ring)
{
	struct memslot_ring *from = peer(ring, MS_AREAS_MAX);

	if (!from || clone(ring, from, MS_AREAS_MAX))
		return false;
	for (uint32_t i = 0; i < MS_AREAS_MAX; i++) {
		if (from->fixed[i]) {
			ring->fixed[i] = pin(ring->buffers, &ring->buffers->areas[i]);
			ring->tried[i] = from->tried[i];
		}
	}
	return true;
}

/* Under the pool's lock: an area not tried yet, kept from going back by a pin of its own. */
static uint32_t next_area(struct memslot_ring *ring)
{
	struct memslot_buffers *buffers = ring->buffers;
	uint32_t i = 0;

	while (i < MS_AREAS_MAX && (buffers->areas[i].buffers == 0 || buffers->areas[i].busy ||
					   ring->tried[i] == buffers->areas[i].serial))
		i++;
	if (i < MS_AREAS_MAX)
		buffers->areas[i].pins++;
	return i;
}

static void try_all(struct memslot_ring *ring)
{
	struct memslot_buffers *buffers = ring->buffers;
	uint32_t i;

	ms_lock_take(&buffers->lock);
	while ((i = next_area(ring)) < MS_AREAS_MAX) {
		ms_lock_release(&buffers->lock);
		(void)try_area(ring, i);
		ms_lock_take(&buffers->lock);
		buffers->areas[i].pins--;
	}
	ms_lock_release(&buffers->lock);
}

void ms_table_open(struct memslot_ring *ring)
{
	struct memslot_buffers *buffers = ring->buffers;

	ms_lock_take(&buffers->tables);
	if (ms_feature(MS_FEATURE_URING_CLONE))
		ring->has_table = clone_all(ring);
	if (!ring->has_table && ms_feature(MS_FEATURE_URING_FIXED))
		ring->has_table = ms_uring_sparse(ring->fd, MS_AREAS_MAX) == 0;
	if (ring->has_table)
		try_all(ring);
	else
		count_refusal(buffers);
	ms_lock_release(&buffers->tables);
}

int ms_table_close(struct memslot_ring *ring, bool alive)
{
	struct memslot_buffers *buffers = ring->buffers;
	int error = 0;

	ms_lock_take(&buffers->tables);
	if (ring->has_table && alive)
		error = ms_os_uring_register(ring->fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
	if (!error) {
		ring->has_table = false;
		for (uint32_t i = 0; i < MS_AREAS_MAX; i++) {
			if (ring->fixed[i])
				unpin(buffers, &buffers->areas[i]);
			ring->fixed[i] = false;
		}
	}
	ms_lock_release(&buffers->tables);
	return error;
}
