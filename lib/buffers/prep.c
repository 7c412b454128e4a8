/* SPDX-License-Identifier: MIT */
/*
 * prep.c - operations begin: the buffer is guarded, the SQE filled.
 *
 * Invariant: one operation, one token, one guard. The token in user_data names an entry of the
 * ring's table of operations and its generation, which keeps what the application gave and which
 * buffer the kernel is at; the guard, counted in the buffer's word, keeps the buffer out until the
 * operation's last CQE, whoever releases it meanwhile. Only the ring's thread is at the table.
 *
 * An SQE that was taken from the queue cannot be given back, and liburing leaves in it what it was
 * last: one that could not be prepared becomes a NOP of ours, or the kernel would do again what is
 * over, to a buffer that has another owner by now.
 */
#include "buffers/buffers.h"

#include "base/uring.h"

#include <string.h>
#include <sys/socket.h>

/* --- guards --- */

/* Who has the only reference is alone with the word. */
static inline int guard(struct memslot_ring *ring, const struct memslot_buffer *buffer)
{
	uint64_t word;
	struct ms_cell *cell = ms_hand_cell(ring->buffers, buffer, &word);

	if (MS_UNLIKELY(!cell))
		return -ESTALE;
	if (MS_UNLIKELY((word & (MS_CELL_REFS | MS_CELL_OPS)) != MS_CELL_REF))
		return ms_hand_add(cell, word, MS_CELL_OP);
	atomic_store_explicit(&cell->word, word + MS_CELL_OP, memory_order_release);
	return 0;
}

/* Is it inside what is out? Then where. */
static inline unsigned char *inside(
	struct memslot_ring *ring, const struct memslot_buffer *buffer, size_t start, size_t size)
{
	size_t whole;

	whole = (size_t)ring->buffers->cells[buffer->index].count << ring->buffers->size_shift;
	if (size == 0 || start > whole || size > whole - start)
		return NULL;
	return (unsigned char *)ms_areas_address(ring->buffers, buffer->index) + start;
}

/* What all operations have; the rest of the SQE is zero. */
static inline __attribute__((always_inline)) int begin(struct memslot_ring *ring,
	struct io_uring_sqe *sqe, int fd, const struct memslot_buffer *buffer, size_t start,
	size_t size, uint64_t user_data)
{
	unsigned char *at;
	struct ms_op *op;
	int error;

	if (!ring || !sqe || !buffer)
		return -EINVAL;
	error = ms_ring_usable(ring);
	if (MS_UNLIKELY(error))
		return error;
	if (MS_UNLIKELY(ring->ending))
		return -EBUSY;
	error = guard(ring, buffer);
	if (MS_UNLIKELY(error))
		return error;
	at = inside(ring, buffer, start, size);
	op = at ? ms_prep_op(ring, user_data) : NULL;
	if (MS_UNLIKELY(!op)) {
		(void)ms_hand_drop(ring->buffers, buffer->index,
			atomic_load(&ring->buffers->cells[buffer->index].word), MS_CELL_OP);
		return at ? -ENOSPC : -EINVAL;
	}
	op->buffer = buffer->index;
	op->start = (uint32_t)start;
	*sqe = (struct io_uring_sqe){.fd = fd,
		.addr = (uint64_t)(uintptr_t)at,
		.len = (uint32_t)size,
		.user_data = op->token};
	return 0;
}

static void set_fixed(
	struct memslot_ring *ring, struct io_uring_sqe *sqe, const struct memslot_buffer *buffer)
{
	sqe->buf_index = (uint16_t)(buffer->index >> ring->buffers->area_shift);
}

__attribute__((noinline, cold)) int ms_prep_refuse(
	struct memslot_ring *ring, struct io_uring_sqe *sqe, int error)
{
	if (!ring || !sqe || ms_buffers_usable(ring->buffers))
		return error; /* in a child the queue is the parent's */
	*sqe = (struct io_uring_sqe){.opcode = IORING_OP_NOP,
		.fd = -1,
		.user_data = ring->mark << 48 | MS_OP_HOUSEKEEPING};
	return error;
}

/* --- operations --- */

static inline __attribute__((always_inline)) int prep_rw(struct memslot_ring *ring,
	struct io_uring_sqe *sqe, int fd, const struct memslot_buffer *buffer, size_t start,
	size_t size, uint64_t file_offset, uint64_t user_data, bool write)
{
	int error = begin(ring, sqe, fd, buffer, start, size, user_data);

	if (MS_UNLIKELY(error))
		return ms_prep_refuse(ring, sqe, error);
	sqe->off = file_offset;
	if (ms_table_fixed(ring, buffer->index)) {
		sqe->opcode = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
		set_fixed(ring, sqe, buffer);
	} else {
		sqe->opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
	}
	return 0;
}

MS_EXPORT int memslot_ring_prep_read(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, uint64_t file_offset,
	uint64_t user_data)
{
	return prep_rw(ring, sqe, fd, buffer, start, size, file_offset, user_data, false);
}

MS_EXPORT int memslot_ring_prep_write(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, uint64_t file_offset,
	uint64_t user_data)
{
	return prep_rw(ring, sqe, fd, buffer, start, size, file_offset, user_data, true);
}

static int prep_message(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
	uint64_t user_data, uint8_t opcode)
{
	int error = begin(ring, sqe, fd, buffer, start, size, user_data);

	if (MS_UNLIKELY(error))
		return ms_prep_refuse(ring, sqe, error);
	sqe->opcode = opcode;
	sqe->msg_flags = (uint32_t)msg_flags;
	return 0;
}

MS_EXPORT int memslot_ring_prep_recv(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
	uint64_t user_data)
{
	return prep_message(
		ring, sqe, fd, buffer, start, size, msg_flags, user_data, IORING_OP_RECV);
}

MS_EXPORT int memslot_ring_prep_send(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
	uint64_t user_data)
{
	/* The stack would read on after the CQE, and tell the socket's error queue when it is done.
	 */
	if (msg_flags & MSG_ZEROCOPY)
		return -EINVAL;
	return prep_message(
		ring, sqe, fd, buffer, start, size, msg_flags, user_data, IORING_OP_SEND);
}

MS_EXPORT int memslot_ring_prep_send_zc(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
	uint64_t user_data)
{
	int error =
		memslot_ring_prep_send(ring, sqe, fd, buffer, start, size, msg_flags, user_data);

	if (error || !ring->zero_copy)
		return error;
	sqe->opcode = IORING_OP_SEND_ZC;
	if (ms_table_fixed(ring, buffer->index)) {
		sqe->ioprio = IORING_RECVSEND_FIXED_BUF;
		set_fixed(ring, sqe, buffer);
	}
	return 0;
}

MS_EXPORT int memslot_ring_unprep(struct memslot_ring *ring, struct io_uring_sqe *sqe)
{
	struct ms_op *op;
	int error;

	if (!ring || !sqe)
		return -EINVAL;
	error = ms_ring_usable(ring);
	if (error)
		return error;
	op = ms_prep_find(ring, sqe->user_data);
	if (!op)
		return -ENOENT;
	op->kind = MS_OP_NOP;
	*sqe = (struct io_uring_sqe){.opcode = IORING_OP_NOP,
		.flags = sqe->flags & (uint8_t)~IOSQE_BUFFER_SELECT,
		.fd = -1,
		.user_data = sqe->user_data};
	return 0;
}
