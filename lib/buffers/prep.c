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

/* Is it inside what is out? Then where. */
static inline unsigned char *inside(
	struct memslot_buffers *buffers, uint32_t index, size_t start, size_t size)
{
	size_t whole = (size_t)buffers->cells[index].count << buffers->size_shift;

	if (size == 0 || start > whole || size > whole - start)
		return NULL;
	return (unsigned char *)ms_areas_address(buffers, index) + start;
}

/* An operation, as far as all have it: the rest of the SQE is zero. */
struct prep {
	int fd;
	const struct memslot_buffer *buffer;
	size_t start, size;
	uint64_t file_offset, user_data;
	uint8_t opcode, fixed; /* the opcode where the area is registered; 0: the same */
};

static inline void fill(struct io_uring_sqe *sqe, const struct prep *prep, struct ms_op *op,
	uint32_t index, const unsigned char *at, bool fixed, uint32_t area)
{
	op->buffer = index;
	op->start = (uint32_t)prep->start;
	*sqe = (struct io_uring_sqe){.opcode = fixed ? prep->fixed : prep->opcode,
		.fd = prep->fd,
		.off = prep->file_offset,
		.addr = (uint64_t)(uintptr_t)at,
		.len = (uint32_t)prep->size,
		.user_data = op->token,
		.buf_index = fixed ? (uint16_t)area : 0};
}

/* As `begin`, where all is as it mostly is: there is one reference, and no other operation. False:
 * it is not so, and nothing changed. Calls nothing, so nothing has to be saved. */
static inline __attribute__((always_inline)) bool begin_plain(
	struct memslot_ring *ring, struct io_uring_sqe *sqe, const struct prep *prep)
{
	struct memslot_buffers *buffers;
	struct ms_cell *cell;
	uint32_t index, area;
	unsigned char *at;
	uint64_t word;

	if (!ring || !sqe || !prep->buffer || !ms_ring_here(ring) || ring->ending ||
		ring->op_free == MS_OP_NONE)
		return false;
	buffers = ring->buffers;
	index = prep->buffer->index;
	cell = ms_hand_sole(buffers, prep->buffer, MS_CELL_OUT ^ MS_CELL_SELECTED, &word);
	if (!cell)
		return false;
	at = inside(buffers, index, prep->start, prep->size);
	area = index >> buffers->area_shift;
	if (!at || (prep->fixed && !ms_table_known(ring, area)))
		return false;
	if (!atomic_compare_exchange_strong_explicit(&cell->word, &word, word + MS_CELL_OP,
		    memory_order_acq_rel, memory_order_relaxed))
		return false;
	fill(sqe, prep, ms_prep_op(ring, prep->user_data), index, at,
		prep->fixed && ring->fixed[area], area);
	return true;
}

/* 0, or -errno and a NOP. */
static __attribute__((noinline)) int begin(
	struct memslot_ring *ring, struct io_uring_sqe *sqe, const struct prep *prep)
{
	struct ms_cell *cell;
	uint32_t index;
	unsigned char *at;
	struct ms_op *op;
	uint64_t word;
	int error;

	if (!ring || !sqe || !prep->buffer)
		return ms_prep_refuse(ring, sqe, -EINVAL);
	error = ms_ring_usable(ring);
	if (!error && ring->ending)
		error = -EBUSY;
	if (error)
		return ms_prep_refuse(ring, sqe, error);
	index = prep->buffer->index;
	cell = ms_hand_cell(ring->buffers, prep->buffer, &word);
	error = cell ? ms_hand_add(cell, word, MS_CELL_OP) : -ESTALE;
	if (error)
		return ms_prep_refuse(ring, sqe, error);
	at = inside(ring->buffers, index, prep->start, prep->size);
	op = at ? ms_prep_op(ring, prep->user_data) : NULL;
	if (!op) {
		(void)ms_hand_drop(ring->buffers, index, atomic_load(&cell->word), MS_CELL_OP);
		return ms_prep_refuse(ring, sqe, at ? -ENOSPC : -EINVAL);
	}
	fill(sqe, prep, op, index, at, prep->fixed && ms_table_fixed(ring, index),
		index >> ring->buffers->area_shift);
	return 0;
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

/* As many arguments as the call that ends in them: it can jump here. */
static __attribute__((noinline)) int read_slowly(struct memslot_ring *ring,
	struct io_uring_sqe *sqe, int fd, const struct memslot_buffer *buffer, size_t start,
	size_t size, uint64_t file_offset, uint64_t user_data)
{
	const struct prep prep = {fd, buffer, start, size, file_offset, user_data, IORING_OP_READ,
		IORING_OP_READ_FIXED};

	return begin(ring, sqe, &prep);
}

static __attribute__((noinline)) int write_slowly(struct memslot_ring *ring,
	struct io_uring_sqe *sqe, int fd, const struct memslot_buffer *buffer, size_t start,
	size_t size, uint64_t file_offset, uint64_t user_data)
{
	const struct prep prep = {fd, buffer, start, size, file_offset, user_data, IORING_OP_WRITE,
		IORING_OP_WRITE_FIXED};

	return begin(ring, sqe, &prep);
}

MS_EXPORT int memslot_ring_prep_read(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, uint64_t file_offset,
	uint64_t user_data)
{
	const struct prep prep = {fd, buffer, start, size, file_offset, user_data, IORING_OP_READ,
		IORING_OP_READ_FIXED};

	if (MS_LIKELY(begin_plain(ring, sqe, &prep)))
		return 0;
	return read_slowly(ring, sqe, fd, buffer, start, size, file_offset, user_data);
}

MS_EXPORT int memslot_ring_prep_write(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, uint64_t file_offset,
	uint64_t user_data)
{
	const struct prep prep = {fd, buffer, start, size, file_offset, user_data, IORING_OP_WRITE,
		IORING_OP_WRITE_FIXED};

	if (MS_LIKELY(begin_plain(ring, sqe, &prep)))
		return 0;
	return write_slowly(ring, sqe, fd, buffer, start, size, file_offset, user_data);
}

static int prep_message(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
	const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
	uint64_t user_data, uint8_t opcode)
{
	const struct prep prep = {fd, buffer, start, size, 0, user_data, opcode, 0};
	int error = begin_plain(ring, sqe, &prep) ? 0 : begin(ring, sqe, &prep);

	if (MS_LIKELY(!error))
		sqe->msg_flags = (uint32_t)msg_flags;
	return error;
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
		return ms_prep_refuse(ring, sqe, -EINVAL);
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
		sqe->buf_index = (uint16_t)(buffer->index >> ring->buffers->area_shift);
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
