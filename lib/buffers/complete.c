/* SPDX-License-Identifier: MIT */
/*
 * complete.c - operations end: what a CQE says, and whose guard it retires.
 *
 * Invariant: a guard is retired by the first CQE of its operation that does not promise more: by
 * the NOTIF of a zero-copy send, by the result of everything else. Its entry gets a new generation
 * in the same step, so that whatever still bears the token (the NOTIF of a send that its link
 * cancelled) is housekeeping. What comes for an entry of the past touches nothing. A NOP's CQE
 * bears no flags: one that does is of what was submitted before it was to become a NOP, and taken
 * as it is.
 */
#include "buffers/buffers.h"

#include "base/opts.h"
#include "base/uring.h"

/* Unused, with the next generation. */
static void put_op(struct memslot_ring *ring, struct ms_op *op)
{
	uint64_t generation = MS_OP_TOKEN_GENERATION;

	op->token = (op->token & ~generation) | ((op->token + MS_OPS_MAX) & generation);
	op->kind = MS_OP_UNUSED;
	op->next = ring->op_free;
	ring->op_free = (uint32_t)(op->token & (MS_OPS_MAX - 1));
	atomic_store_explicit(&ring->in_flight,
		atomic_load_explicit(&ring->in_flight, memory_order_relaxed) - 1,
		memory_order_relaxed);
}

static inline void retire(struct memslot_ring *ring, struct ms_op *op)
{
	if (op->buffer != MS_OP_NONE)
		(void)ms_hand_retire(ring->buffers, op->buffer);
	if (op->group)
		ms_choose_retired(op);
	put_op(ring, op);
}

void ms_complete_lose(struct memslot_ring *ring, struct ms_op *op)
{
	if (op->buffer != MS_OP_NONE)
		ms_hand_lose(ring->buffers, op->buffer);
	if (op->group)
		ms_choose_retired(op);
	put_op(ring, op);
}

/* The result may be more than what is there: with MSG_TRUNC it is a datagram's whole length. */
static void advance(struct ms_op *op, struct memslot_completion *done)
{
	uint64_t whole = (uint64_t)done->buffer.count * done->buffer.size;
	uint64_t more = done->result > 0 ? (uint64_t)done->result : 0;

	op->start = (uint32_t)ms_min(op->start + more, whole);
	done->bytes = op->start;
}

static void finish(struct memslot_ring *ring, struct ms_op *op, const struct io_uring_cqe *cqe,
	struct memslot_completion *done)
{
	bool over = !(cqe->flags & IORING_CQE_F_MORE);

	bool notif = cqe->flags & IORING_CQE_F_NOTIF;

	done->flags = MEMSLOT_COMPLETION_OURS | (over ? MEMSLOT_COMPLETION_TERMINAL : 0) |
		      (notif ? MEMSLOT_COMPLETION_NOTIF : 0);
	done->user_data = op->user_data;
	done->result = notif ? 0 : cqe->res;
	if (op->group) {
		ms_choose_completed(op, cqe, done);
	} else {
		done->buffer = ms_hand_value(ring->buffers, op->buffer);
		advance(op, done);
	}
	if (over)
		retire(ring, op);
}

static __attribute__((noinline)) int complete(struct memslot_ring *ring,
	const struct io_uring_cqe *cqe, struct memslot_completion *ret_completion)
{
	struct memslot_completion older, *done = ret_completion;
	struct ms_op *op;
	int error;

	if (!ring || !cqe || !done || done->size < 2 * sizeof(uint32_t))
		return -EINVAL;
	error = ms_ring_usable(ring);
	if (error)
		return error;
	if (cqe->user_data >> 48 != ring->mark)
		return -ENOENT;
	if (done->size < sizeof older)
		done = &older;
	*done = (struct memslot_completion){.size = ret_completion->size};
	op = ms_prep_find(ring, cqe->user_data);
	if (op && op->kind == MS_OP_NOP && !cqe->flags)
		retire(ring, op);
	else if (op)
		finish(ring, op, cqe, done);
	return done == ret_completion ? 0 : ms_opts_give(ret_completion, done, sizeof *done);
}

/* An operation with one buffer, and one CQE, is over. */
static inline int finish_plain(struct memslot_ring *ring, struct ms_op *op,
	const struct io_uring_cqe *cqe, struct memslot_completion *done)
{
	uint32_t index = op->buffer;

	*done = (struct memslot_completion){.size = done->size,
		.flags = MEMSLOT_COMPLETION_OURS | MEMSLOT_COMPLETION_TERMINAL,
		.user_data = op->user_data,
		.result = cqe->res,
		.buffer = ms_hand_value(ring->buffers, index)};
	advance(op, done);
	put_op(ring, op);
	return ms_hand_retire(ring->buffers, index);
}

/* What calls nothing needs no frame: whatever is unusual begins anew in `complete`. */
MS_EXPORT int memslot_ring_complete(struct memslot_ring *ring, const struct io_uring_cqe *cqe,
	struct memslot_completion *ret_completion)
{
	struct ms_op *op;

	if (MS_LIKELY(ring && cqe && ret_completion &&
		      ret_completion->size >= sizeof *ret_completion && ms_ring_here(ring))) {
		op = ms_prep_find(ring, cqe->user_data);
		if (MS_LIKELY(op && op->kind == MS_OP_LIVE && !op->group &&
			      !(cqe->flags & (IORING_CQE_F_MORE | IORING_CQE_F_NOTIF))))
			return finish_plain(ring, op, cqe, ret_completion);
	}
	return complete(ring, cqe, ret_completion);
}
