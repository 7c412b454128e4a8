/* SPDX-License-Identifier: MIT */
/*
 * choose.c - buffers that the kernel chooses when data is there.
 *
 *   pool -> in the group's ring (GROUP) -> in hand (SELECTED) -> pool
 *
 * Invariant: a buffer in the ring is the kernel's: it comes out by a CQE that names it, or when the
 * group ends. The ring is a queue, so a long one walks through the cache: few are kept in it, a
 * *window*, refilled with what this thread released last. Found empty, the window doubles, once for
 * all operations that found it so; after a while without that it halves, by not replacing what is
 * chosen, never by taking from the ring.
 *
 * Where the kernel has no such rings, an operation takes its buffer when it is prepared.
 */
#include "buffers/group.h"

#include "base/feature.h"

#define CALM 16u /* windows without an ENOBUFS, until it halves */

/* --- the ring --- */

static void provide(struct memslot_group *group, uint16_t id, uint32_t index)
{
	struct memslot_buffers *buffers = group->ring->buffers;
	struct io_uring_buf *entry = &group->entries->bufs[group->tail & (group->count - 1)];

	ms_hand_over(buffers, index, MS_CELL_GROUP);
	group->buffer[id] = index;
	entry->addr = (uint64_t)(uintptr_t)ms_areas_address(buffers, index);
	entry->len = 1u << buffers->size_shift;
	entry->bid = id;
	group->available++;
	group->provided++;
	__atomic_store_n(&group->entries->tail, ++group->tail, __ATOMIC_RELEASE);
}

static void refill(struct memslot_group *group)
{
	struct memslot_buffer buffer;

	while (group->available < group->window &&
		memslot_buffers_acquire(group->ring->buffers, 1, 0, &buffer) == 0)
		provide(group, group->free_ids[--group->free_count], buffer.index);
}

/* Out of the ring, to the application. */
static void hand_over(struct memslot_group *group, uint32_t index)
{
	struct memslot_buffers *buffers = group->ring->buffers;

	buffers->cells[index].group = group->id;
	atomic_fetch_add(&buffers->in_hand[group->id], 1);
	ms_hand_over(buffers, index, MS_CELL_SELECTED);
}

/* What a CQE names. Without data it goes straight back. */
static uint32_t chosen(struct memslot_group *group, const struct io_uring_cqe *cqe)
{
	uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
	uint32_t index = id < group->count ? group->buffer[id] : MS_OP_NONE;

	if (index == MS_OP_NONE)
		return MS_OP_NONE;
	group->available--;
	if (cqe->res <= 0) {
		provide(group, id, index);
		return MS_OP_NONE;
	}
	group->buffer[id] = MS_OP_NONE;
	group->free_ids[group->free_count++] = id;
	hand_over(group, index);
	return index;
}

static void adapt(struct memslot_group *group, int result)
{
	if (result == -ENOBUFS) {
		group->enobufs++;
		group->calm = 0;
		/* One of many that met the same empty window says nothing of the next. */
		if (group->provided < group->window)
			return;
		group->window = (uint32_t)ms_min(group->count, 2 * group->window);
		group->provided = 0;
	} else if (++group->calm >= CALM * group->window) {
		group->window = (uint32_t)ms_max(group->hot, group->window / 2);
		group->calm = 0;
	}
}

/* --- completions --- */

void ms_choose_completed(
	struct ms_op *op, const struct io_uring_cqe *cqe, struct memslot_completion *done)
{
	struct memslot_group *group = op->group;
	uint32_t index = op->buffer;

	if (index != MS_OP_NONE)
		op->delivered = cqe->res > 0;
	else if (cqe->flags & IORING_CQE_F_BUFFER)
		index = chosen(group, cqe);
	if (index != MS_OP_NONE && cqe->res > 0) {
		done->flags |= MEMSLOT_COMPLETION_SELECTED;
		done->buffer = ms_hand_value(group->ring->buffers, index);
		done->bytes = ms_min((uint64_t)cqe->res, done->buffer.size); /* MSG_TRUNC */
	}
	if (op->multishot && !(cqe->flags & IORING_CQE_F_MORE) &&
		(cqe->res > 0 || cqe->res == -ENOBUFS))
		done->flags |= MEMSLOT_COMPLETION_REARM;
	if (group->entries) {
		adapt(group, cqe->res);
		refill(group);
	}
}

void ms_choose_retired(struct ms_op *op)
{
	struct memslot_buffers *buffers = op->group->ring->buffers;

	op->group->ops--;
	if (op->buffer != MS_OP_NONE && !op->delivered)
		(void)ms_hand_drop(buffers, op->buffer,
			atomic_load(&buffers->cells[op->buffer].word), MS_CELL_REF);
}

/* --- operations --- */

/* One that will have a buffer: -EAGAIN when there is none. */
static int begin(struct memslot_group *group, struct io_uring_sqe *sqe, int fd, uint64_t user_data,
	struct ms_op **ret_op)
{
	struct memslot_ring *ring = group->ring;
	struct memslot_buffer buffer = {.base = NULL, .index = MS_OP_NONE};
	struct ms_op *op;

	if (ring->ending || group->ending)
		return -EBUSY;
	if (group->entries)
		refill(group);
	if (group->entries ? !group->available
			   : memslot_buffers_acquire(ring->buffers, 1, 0, &buffer) != 0)
		return -EAGAIN;
	op = ms_prep_op(ring, user_data);
	if (!op) {
		if (!group->entries)
			(void)memslot_buffers_release(ring->buffers, &buffer);
		return -ENOSPC;
	}
	op->group = group;
	op->buffer = buffer.index;
	group->ops++;
	*sqe = (struct io_uring_sqe){.fd = fd, .user_data = op->token};
	if (group->entries) {
		sqe->flags = IOSQE_BUFFER_SELECT;
		sqe->buf_group = (uint16_t)group->number;
	} else {
		hand_over(group, buffer.index);
		atomic_fetch_add(&ring->buffers->cells[buffer.index].word, MS_CELL_OP);
		sqe->addr = (uint64_t)(uintptr_t)buffer.base;
	}
	*ret_op = op;
	return 0;
}

static int check(struct memslot_group *group, const struct io_uring_sqe *sqe, uint32_t flags)
{
	if (!group || !sqe || (flags & ~MEMSLOT_GROUP_MULTISHOT))
		return -EINVAL;
	return ms_ring_usable(group->ring);
}

MS_EXPORT int memslot_ring_group_prep_recv(struct memslot_group *group, struct io_uring_sqe *sqe,
	int fd, uint32_t flags, int msg_flags, uint64_t user_data)
{
	struct ms_op *op;
	int error = check(group, sqe, flags);

	if (!error)
		error = begin(group, sqe, fd, user_data, &op);
	if (error)
		return ms_prep_refuse(group ? group->ring : NULL, sqe, error);
	sqe->opcode = IORING_OP_RECV;
	sqe->msg_flags = (uint32_t)msg_flags;
	op->multishot = flags & MEMSLOT_GROUP_MULTISHOT;
	if (op->multishot && group->entries && ms_feature(MS_FEATURE_URING_RECV_MULTISHOT))
		sqe->ioprio = IORING_RECV_MULTISHOT;
	else
		sqe->len = 1u << group->ring->buffers->size_shift;
	return 0;
}

MS_EXPORT int memslot_ring_group_prep_read(struct memslot_group *group, struct io_uring_sqe *sqe,
	int fd, uint32_t flags, uint64_t file_offset, uint64_t user_data)
{
	struct ms_op *op;
	int error = check(group, sqe, flags);

	if (!error && flags && file_offset != UINT64_MAX)
		error = -EINVAL;
	if (!error && flags && !(group->entries && ms_feature(MS_FEATURE_URING_READ_MULTISHOT)))
		error = -EOPNOTSUPP;
	if (!error)
		error = begin(group, sqe, fd, user_data, &op);
	if (error)
		return ms_prep_refuse(group ? group->ring : NULL, sqe, error);
	op->multishot = flags;
	sqe->opcode = flags ? MS_URING_READ_MULTISHOT : IORING_OP_READ;
	sqe->off = file_offset;
	sqe->len = flags ? 0 : 1u << group->ring->buffers->size_shift;
	return 0;
}
