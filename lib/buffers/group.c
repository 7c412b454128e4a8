/* SPDX-License-Identifier: MIT */
/*
 * group.c - groups of buffers begin and end.
 *
 * Invariant: a group ends when no operation on it is left: one in a worker may have chosen its
 * buffer before it sleeps, and one that waits would find another group under the number. Only then
 * are the buffers in its ring ours again; where the ring was closed with operations pending they
 * never are. The ring's memory is our own and lies in no slot. What counts buffers in hand outlives
 * the group.
 */
#include "buffers/group.h"

#include "base/feature.h"
#include "base/opts.h"

#include <sys/mman.h>

#define COUNT_DEFAULT 64u
#define COUNT_MOST 32768u
#define PART_OF_CACHE 8 /* at first: what is being filled shares it with where it comes from */
#define HOT_LEAST 2u

/* A number for the pool's count of what is in hand, which outlives the group. */
static int draw_id(struct memslot_buffers *buffers, uint32_t *ret_id)
{
	int error = -ENOSPC;

	ms_lock_take(&buffers->lock);
	for (uint32_t id = 0; id < MS_GROUPS_MAX && error; id++) {
		uint64_t bit = 1ull << (id % 64);
		if ((buffers->groups[id / 64] & bit) || atomic_load(&buffers->in_hand[id]))
			continue;
		buffers->groups[id / 64] |= bit;
		*ret_id = id;
		error = 0;
	}
	ms_lock_release(&buffers->lock);
	return error;
}

static void put_id(struct memslot_buffers *buffers, uint32_t id)
{
	ms_lock_take(&buffers->lock);
	buffers->groups[id / 64] &= ~(1ull << (id % 64));
	ms_lock_release(&buffers->lock);
}

static int allocate(struct memslot_ring *ring, uint32_t count, struct memslot_group **ret_group)
{
	size_t bytes = sizeof(struct memslot_group) + count * (sizeof(uint32_t) + sizeof(uint16_t));
	struct memslot_group *group;
	void *memory;
	int error = ms_os_reserve(NULL, bytes, PROT_READ | PROT_WRITE, &memory);

	if (error)
		return error;
	group = memory;
	group->bytes = bytes;
	group->ring = ring;
	group->count = count;
	group->buffer = (uint32_t *)(group + 1);
	group->free_ids = (uint16_t *)(group->buffer + count);
	group->free_count = count;
	for (uint32_t id = 0; id < count; id++) {
		group->buffer[id] = MS_OP_NONE;
		group->free_ids[id] = (uint16_t)(count - 1 - id);
	}
	group->hot = (uint32_t)(ms_os_cache_size() / PART_OF_CACHE >> ring->buffers->size_shift);
	group->hot = (uint32_t)ms_min(ms_max(group->hot, HOT_LEAST), count);
	group->window = group->hot;
	*ret_group = group;
	return 0;
}

/* -EEXIST: the number is used. Refused for another reason: the group works without a ring. */
static int enrol(struct memslot_group *group)
{
	struct io_uring_buf_reg ring = {
		.ring_entries = group->count, .bgid = (uint16_t)group->number};
	void *memory;
	int error;

	group->entry_bytes = group->count * sizeof(struct io_uring_buf);
	if (!ms_feature(MS_FEATURE_URING_GROUPS) || !ms_ring_alive(group->ring) ||
		ms_os_reserve(NULL, group->entry_bytes, PROT_READ | PROT_WRITE, &memory))
		return 0;
	error = ms_os_advise(memory, group->entry_bytes, MADV_DONTFORK);
	ring.ring_addr = (uint64_t)(uintptr_t)memory;
	if (!error)
		error = ms_os_uring_register(group->ring->fd, IORING_REGISTER_PBUF_RING, &ring, 1);
	if (error)
		ms_os_unmap(memory, group->entry_bytes);
	else
		group->entries = memory;
	return error == -EEXIST ? error : 0;
}

static void unmap(struct memslot_group *group)
{
	if (group->entries)
		ms_os_unmap(group->entries, group->entry_bytes);
	ms_os_unmap(group, group->bytes);
}

static int intake(const struct memslot_group_opts *opts, uint32_t *ret_count)
{
	struct memslot_group_opts taken;
	uint64_t count;
	int error = ms_opts_take(&taken, sizeof taken, sizeof taken, 0, opts);

	if (error)
		return error;
	count = taken.count ? taken.count : COUNT_DEFAULT;
	if (count > COUNT_MOST || (count & (count - 1)))
		return -EINVAL;
	*ret_count = (uint32_t)count;
	return 0;
}

/* Its numbers: the application's is not used on this ring, the pool's is drawn. */
static int join(struct memslot_ring *ring, struct memslot_group *group)
{
	int error;

	for (struct memslot_group *other = ring->groups; other; other = other->next) {
		if (other->number == group->number)
			return -EEXIST;
	}
	error = draw_id(ring->buffers, &group->id);
	if (error)
		return error;
	error = enrol(group);
	if (error) {
		put_id(ring->buffers, group->id);
		return error;
	}
	group->next = ring->groups;
	ring->groups = group;
	return 0;
}

MS_EXPORT int memslot_ring_group_create(struct memslot_ring *ring, uint16_t number,
	const struct memslot_group_opts *opts, struct memslot_group **ret_group)
{
	struct memslot_group *group;
	uint32_t count;
	int error;

	if (!ring || !ret_group)
		return -EINVAL;
	error = intake(opts, &count);
	if (!error)
		error = ms_ring_usable(ring);
	if (!error && ring->ending)
		error = -EBUSY;
	if (!error)
		error = allocate(ring, count, &group);
	if (error)
		return error;
	group->number = number;
	error = join(ring, group);
	if (error)
		unmap(group);
	else
		*ret_group = group;
	return error;
}

/* What the kernel did not choose. It still may, where operations of a closed ring are left. */
static void empty(struct memslot_group *group, bool lost)
{
	struct memslot_buffers *buffers = group->ring->buffers;

	for (uint32_t id = 0; id < group->count; id++) {
		uint32_t index = group->buffer[id];
		if (index == MS_OP_NONE)
			continue;
		if (lost) {
			atomic_fetch_add(&buffers->cells[index].word, MS_CELL_OP);
			ms_hand_lose(buffers, index);
		} else {
			ms_hand_over(buffers, index, MS_CELL_OUT);
			(void)ms_hand_drop(buffers, index, atomic_load(&buffers->cells[index].word),
				MS_CELL_REF);
		}
	}
}

static void lose_operations(struct memslot_group *group)
{
	struct memslot_ring *ring = group->ring;

	for (uint32_t i = 0; i < ring->op_high; i++) {
		if (ring->ops[i].kind != MS_OP_UNUSED && ring->ops[i].group == group)
			ms_complete_lose(ring, &ring->ops[i]);
	}
}

MS_EXPORT int memslot_ring_group_destroy(struct memslot_group *group)
{
	struct io_uring_buf_reg ring = {.bgid = 0};
	struct memslot_group **at;
	bool alive, lost;
	int error;

	if (!group)
		return 0;
	error = ms_ring_usable(group->ring);
	if (error)
		return error;
	alive = ms_ring_alive(group->ring);
	lost = group->ops;
	group->ending = true;
	if (alive && lost) {
		ms_ring_cancel(group->ring, group);
		return -EBUSY;
	}
	ring.bgid = (uint16_t)group->number;
	if (alive && group->entries)
		error = ms_os_uring_register(
			group->ring->fd, IORING_UNREGISTER_PBUF_RING, &ring, 1);
	if (error)
		return error;
	lose_operations(group);
	empty(group, lost);
	put_id(group->ring->buffers, group->id);
	for (at = &group->ring->groups; *at != group; at = &(*at)->next)
		;
	*at = group->next;
	unmap(group);
	return 0;
}

MS_EXPORT int memslot_ring_group_stats(
	const struct memslot_group *group, struct memslot_group_stats *ret_stats)
{
	struct memslot_group_stats stats = {.size = sizeof stats};
	int error;

	if (!group || !ret_stats)
		return -EINVAL;
	error = ms_ring_usable(group->ring);
	if (error)
		return error;
	stats.available = group->available;
	stats.in_hand = atomic_load(&group->ring->buffers->in_hand[group->id]);
	stats.window = group->window;
	stats.enobufs = group->enobufs;
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}
