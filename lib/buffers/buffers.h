/* SPDX-License-Identifier: MIT */
/*
 * buffers.h - a pool of buffers, and who in this room does what.
 *
 *   buffers.c  create, close, the budget, stats, the lock    hand.c  acquire, ref, release;
 * magazines areas.c    where buffers lie: growth, free ones, back    line.c  who waits, and who is
 * next
 *
 * An *area* is a slot cut into buffers. Each buffer has a *cell*, whose one atomic word says who
 * has it; of adjacent buffers that were acquired together the first one's cell speaks for all.
 */
#ifndef MS_BUFFERS_H
#define MS_BUFFERS_H

#include "base/fork.h"
#include "base/lock.h"
#include "base/os.h"

#include <errno.h>

#include <memslot/buffers.h>

/*
 * The word of a cell: generation << 32 | owner | references | operations in flight. Buffers are the
 * pool's again when the last two are zero. Who gives the only reference back, with no operation in
 * flight, is alone with the word: load and store. Everybody else changes it atomically: a value may
 * be copied, and two threads may prepare operations on it at once.
 */
#define MS_CELL_OP 1ull
#define MS_CELL_OPS 0x3fffull
#define MS_CELL_REF (1ull << 14)
#define MS_CELL_REFS (0x3fffull << 14)
#define MS_CELL_OWNER (7ull << 28)
#define MS_CELL_FREE (0ull << 28)
#define MS_CELL_MAGAZINE (1ull << 28)
#define MS_CELL_OUT (2ull << 28)
#define MS_CELL_SELECTED (3ull << 28) /* out, and counted as in hand by its group */
#define MS_CELL_GROUP (4ull << 28)    /* in a group: the kernel may choose it */
#define MS_CELL_USER (2ull << 28)     /* a bit of OUT and SELECTED */
#define MS_CELL_LOST                                                                               \
	(1ull << 31) /* the kernel may write there for ever: never handed out again                \
		      */
#define MS_CELL_GENERATION (1ull << 32)

struct ms_cell {
	_Atomic(uint64_t) word;
	uint32_t count; /* of the acquisition that it is the first of */
	uint32_t group; /* SELECTED: which */
};

#define MS_AREAS_MAX 256u

struct ms_area {
	_Alignas(64) unsigned char *base;
	uintptr_t origin; /* where index 0 would lie, if all areas were in a row (it may wrap) */
	struct memslot_slot *slot;
	size_t bytes;
	uint32_t buffers; /* 0: no area */
	uint32_t free;	  /* of them */
	uint32_t pins;	  /* rings that have registered it */
	uint32_t serial;  /* of the slot: a ring tries each anew */
	uint32_t hint;	  /* words of `bits` below it are 0 */
	bool sick;	  /* busy until no ring has it registered: it could not be cleared */
	bool busy;	  /* on its way in or out, or in a reset: nobody else may look at it */
	uint64_t *bits;	  /* 1: free */
};

/* Free buffers that a thread finds again without the pool's lock. Their credits are taken. */
#define MS_MAGAZINES 16u
#define MS_MAGAZINE_ROOM 30u
struct ms_magazine {
	_Alignas(128) _Atomic(uint32_t) lock;
	_Atomic(uint32_t) count;
	uint32_t index[MS_MAGAZINE_ROOM];
};

/* In memslot_buffer_waiter.state. */
struct ms_in_line {
	struct memslot_buffer_waiter *next, *prev;
	struct memslot_buffers *buffers; /* where it waits, or was served */
	_Atomic(uint32_t) word;		 /* MS_LINE_* */
	uint32_t late;			 /* it had to wait */
	uint64_t since_ns;
	uint64_t epoch;
};
enum { MS_LINE_WAITING = 1, MS_LINE_SERVED, MS_LINE_TOO_LARGE, MS_LINE_SHUT };

#define MS_RINGS_MAX 64u
#define MS_GROUPS_MAX 256u

struct memslot_buffers {
	struct ms_magazine magazines[MS_MAGAZINES];

	/* fixed at creation */
	uint32_t flags;
	unsigned size_shift; /* of a buffer */
	unsigned area_shift; /* of the buffers that an area can have */
	uint64_t handle;     /* the upper half of every handle */
	uint64_t most;	     /* buffers in the largest area */
	uint64_t step;	     /* in the first ones */
	struct memslot_pool *pool, *own_pool;
	struct ms_cell *cells;
	uint32_t cell_count;
	size_t bookkeeping_bytes;

	_Atomic(uint64_t) epoch;
	_Atomic(uint32_t) magazine_room;

	/* under the lock */
	struct ms_lock lock;
	bool closed, growing;
	bool attached;	       /* once: children do not have the areas */
	bool wants_trim;       /* when a ring detaches */
	uint64_t budget, used; /* buffers; used: out, and in magazines */
	uint64_t quarantined, high_water, waits, wait_ns;
	uint32_t waiters;
	uint32_t inside; /* calls that come back to the lock */
	struct memslot_buffer_waiter *first, *last;
	struct ms_area areas[MS_AREAS_MAX];
	struct memslot_ring *rings;
	uint64_t plain_fallbacks;
	uint64_t groups[MS_GROUPS_MAX / 64]; /* 1: the number is used */
	_Atomic(uint32_t) in_hand[MS_GROUPS_MAX];
	struct ms_lock tables;	     /* taken before `lock`: no ring registers or goes meanwhile */
	_Atomic(uint32_t) notifying; /* events being written */
	_Atomic(uint32_t) drained; /* moves when the last buffer came back to a pool that closes */
};

static inline struct ms_area *ms_areas_of(struct memslot_buffers *buffers, uint32_t index)
{
	return &buffers->areas[index >> buffers->area_shift];
}

static inline void *ms_areas_address(struct memslot_buffers *buffers, uint32_t index)
{
	return (void *)(ms_areas_of(buffers, index)->origin +
			((uintptr_t)index << buffers->size_shift));
}

/* --- buffers.c --- */
MS_HIDDEN int ms_buffers_adopt(struct memslot_buffers *buffers);
/* Known here, for certain and at once. */
static inline bool ms_buffers_here(const struct memslot_buffers *buffers)
{
	return ms_fork_is(atomic_load_explicit(&buffers->epoch, memory_order_acquire));
}

/* 0, or -ESTALE: dead in this child. */
static inline int ms_buffers_usable(struct memslot_buffers *buffers)
{
	return ms_buffers_here(buffers) ? 0 : ms_buffers_adopt(buffers);
}
/* Under the lock: how much magazines may keep now. */
MS_HIDDEN void ms_buffers_set_room(struct memslot_buffers *buffers);
/* After the lock was left nothing of the pool may be touched, unless `inside` or a buffer that is
 * out keeps close from freeing it. */

/* --- areas.c, under the lock --- */
/* Adjacent free buffers are taken; the first one's index. False: there are none. */
MS_HIDDEN bool ms_areas_take(struct memslot_buffers *buffers, uint32_t count, uint32_t *ret_index);
MS_HIDDEN void ms_areas_put(struct memslot_buffers *buffers, uint32_t index, uint32_t count);
/* One more, with room for `count`; the lock is left meanwhile. */
MS_HIDDEN bool ms_areas_grow(struct memslot_buffers *buffers, uint32_t count);
/* Children do not have what lies there (or do again). 0 or -errno. */
MS_HIDDEN int ms_areas_hide(
	const struct memslot_buffers *buffers, const struct ms_area *area, bool hide);
/* Areas with no buffer out go back, or are cleared if registered; the lock is left meanwhile.
 * -ENOMEM: not all. */
MS_HIDDEN int ms_areas_trim(struct memslot_buffers *buffers);

/* --- hand.c --- */
/* The user's cell, with its word; or NULL: not out. */
static inline struct ms_cell *ms_hand_cell(
	struct memslot_buffers *buffers, const struct memslot_buffer *buffer, uint64_t *ret_word)
{
	struct ms_cell *cell;

	if (buffer->index >= buffers->cell_count)
		return NULL;
	cell = &buffers->cells[buffer->index];
	*ret_word = atomic_load_explicit(&cell->word, memory_order_acquire);
	if ((buffers->handle | *ret_word >> 32) != buffer->handle || !(*ret_word & MS_CELL_USER) ||
		!(*ret_word & MS_CELL_REFS))
		return NULL;
	return cell;
}

/* Is it out, with one reference, and nobody else, user or kernel, at it? Its cell, with its word.
 * `either`: bits that do not matter. NULL: no, or it cannot be told at once. */
static inline struct ms_cell *ms_hand_sole(struct memslot_buffers *buffers,
	const struct memslot_buffer *buffer, uint64_t either, uint64_t *ret_word)
{
	uint32_t index = buffer->index;
	struct ms_cell *cell = &buffers->cells[index];

	if (index >= buffers->cell_count ||
		(buffer->handle | UINT32_MAX) != (buffers->handle | UINT32_MAX))
		return NULL;
	*ret_word = atomic_load_explicit(&cell->word, memory_order_acquire);
	return (*ret_word | either) == (buffer->handle << 32 | MS_CELL_OUT | either | MS_CELL_REF)
		       ? cell
		       : NULL;
}

/* The value of what an operation is at. */
static inline struct memslot_buffer ms_hand_value(struct memslot_buffers *buffers, uint32_t index)
{
	struct ms_cell *cell = &buffers->cells[index];
	uint64_t word = atomic_load_explicit(&cell->word, memory_order_relaxed);

	return (struct memslot_buffer){.base = ms_areas_address(buffers, index),
		.size = (size_t)1 << buffers->size_shift,
		.handle = buffers->handle | word >> 32,
		.index = index,
		.count = cell->count};
}

/* Nobody has it any more: to the pool, and to whoever waits for it. 0. */
MS_HIDDEN int ms_hand_back(struct memslot_buffers *buffers, uint32_t index);
/* One more reference (MS_CELL_REF) or operation (MS_CELL_OP). */
MS_HIDDEN int ms_hand_add(struct ms_cell *cell, uint64_t word, uint64_t what);
/* One less; after the last the buffer goes back. */
static inline int ms_hand_drop(
	struct memslot_buffers *buffers, uint32_t index, uint64_t word, uint64_t what)
{
	_Atomic(uint64_t) *at = &buffers->cells[index].word;
	uint64_t generation = word >> 32, next;

	do {
		if (word >> 32 != generation || !(word & (what * 0x3fff)))
			return -ESTALE;
		next = word - what;
	} while (!atomic_compare_exchange_weak_explicit(
		at, &word, next, memory_order_acq_rel, memory_order_acquire));
	return next & (MS_CELL_REFS | MS_CELL_OPS) ? 0 : ms_hand_back(buffers, index);
}

/* One operation less: who has been counted needs no look at the generation. 0. */
static inline int ms_hand_retire(struct memslot_buffers *buffers, uint32_t index)
{
	uint64_t before = atomic_fetch_sub_explicit(
		&buffers->cells[index].word, MS_CELL_OP, memory_order_acq_rel);

	return MS_UNLIKELY((before & (MS_CELL_REFS | MS_CELL_OPS)) == MS_CELL_OP)
		       ? ms_hand_back(buffers, index)
		       : 0;
}

/* Its operations will never end. */
MS_HIDDEN void ms_hand_lose(struct memslot_buffers *buffers, uint32_t index);
/* Change the owner of a buffer that nobody else has; its references are 1 or 0. */
MS_HIDDEN void ms_hand_over(struct memslot_buffers *buffers, uint32_t index, uint64_t owner);
/* Under the lock: so many, with their credits, to a user. False: not now. */
MS_HIDDEN bool ms_hand_out(
	struct memslot_buffers *buffers, uint32_t count, struct memslot_buffer *ret_buffer);
/* Under the lock: this thread's magazine gets what it may need next. */
MS_HIDDEN void ms_hand_stock(struct memslot_buffers *buffers);
/* Under the lock: what magazines hold is free. */
MS_HIDDEN void ms_hand_collect(struct memslot_buffers *buffers);
/* Buffers in magazines: to within what moves from one to another meanwhile. */
MS_HIDDEN uint64_t ms_hand_magazines(const struct memslot_buffers *buffers);
/* Under the lock: buffers out, as exactly as that. */
MS_HIDDEN uint64_t ms_hand_live(const struct memslot_buffers *buffers);

/* --- line.c --- */
/* Under the lock: whoever can be served now is; the lock is left in between. */
MS_HIDDEN void ms_line_serve(struct memslot_buffers *buffers);
/* Under the lock, which is left in between: who can never be served gets MS_LINE_TOO_LARGE or SHUT.
 */
MS_HIDDEN void ms_line_fail(struct memslot_buffers *buffers);
/* Take, wait, give up: an acquire that found no magazine. */
MS_HIDDEN int ms_line_acquire(struct memslot_buffers *buffers, uint32_t count, uint64_t timeout_ns,
	struct memslot_buffer *ret_buffer);
/* When to give up: a moment of CLOCK_MONOTONIC; 0: at once. */
MS_HIDDEN uint64_t ms_line_until(uint64_t timeout_ns);

/* --- rings --- */

/*
 * An operation in flight. What the kernel is given as user_data is a token:
 *   mark (16 bits) | generation (28) | index of the operation (20)
 */
#define MS_OPS_MAX (1u << 20)
#define MS_OP_TOKEN_GENERATION (((uint64_t)1 << 48) - MS_OPS_MAX)
#define MS_OP_HOUSEKEEPING (MS_OPS_MAX - 1) /* the index that no operation has */
#define MS_OP_NONE UINT32_MAX

enum ms_op_kind {
	MS_OP_UNUSED,
	MS_OP_LIVE,
	MS_OP_NOP, /* not to be seen; else as it was */
};

struct ms_op {
	uint64_t user_data;
	struct memslot_group *group; /* that a buffer comes from, or NULL */
	uint64_t token;		     /* of the operation; of an unused entry, the next one's */
	uint32_t buffer;	     /* that it is at; MS_OP_NONE: the kernel will choose */
	union {
		uint32_t start;
		uint32_t next; /* of unused ones */
	};
	uint8_t kind;
	bool multishot;
	bool cancelled;
	bool delivered; /* the group's buffer is the application's */
};

struct memslot_ring {
	struct memslot_buffers *buffers;
	struct memslot_ring *next; /* under the pool's lock */
	int fd;
	uint64_t device, inode; /* by which a ring that was closed is told */
	uint64_t thread;	/* the only one that may call, if `single` */
	bool single, ending, zero_copy;
	uint64_t mark;
	uint64_t token; /* the first ones', but for the index: no earlier attachment's */
	size_t bytes;

	struct ms_op *ops;
	uint32_t op_high, op_free;   /* used once; the first unused one */
	_Atomic(uint64_t) in_flight; /* changed by the ring's thread only */
	struct memslot_group *groups;

	/* under `tables` of the pool for others, the ring's thread may read */
	bool has_table;
	bool fixed[MS_AREAS_MAX];     /* registered */
	uint32_t tried[MS_AREAS_MAX]; /* serial of the area that it was tried with */
};

/* --- ring.c --- */
/* The caller may use it, for certain and at once. */
static inline bool ms_ring_here(const struct memslot_ring *ring)
{
	return ms_buffers_here(ring->buffers) &&
	       (!ring->single || ring->thread == ms_counter_number);
}

/* May the caller use it? 0, -ESTALE or -EEXIST. */
static inline int ms_ring_usable(struct memslot_ring *ring)
{
	int error = ms_buffers_usable(ring->buffers);

	if (MS_UNLIKELY(!error && ring->single && ring->thread != ms_counter_thread()))
		error = -EEXIST;
	return error;
}
/* Ask the kernel to end what is in flight, of a group or all; what is not submitted yet is not
 * found. */
MS_HIDDEN void ms_ring_cancel(struct memslot_ring *ring, const struct memslot_group *group);
/* False: it was closed behind our back. */
MS_HIDDEN bool ms_ring_alive(const struct memslot_ring *ring);

/* --- table.c --- */
/* Is the area of a buffer that is out registered? Tries to, the first time. */
MS_HIDDEN bool ms_table_try(struct memslot_ring *ring, uint32_t area);
static inline bool ms_table_known(const struct memslot_ring *ring, uint32_t area)
{
	return MS_LIKELY(ring->tried[area] == ring->buffers->areas[area].serial);
}
static inline bool ms_table_fixed(struct memslot_ring *ring, uint32_t buffer)
{
	uint32_t i = buffer >> ring->buffers->area_shift;

	return ms_table_known(ring, i) ? ring->fixed[i] : ms_table_try(ring, i);
}
MS_HIDDEN void ms_table_open(struct memslot_ring *ring);
/* 0, or -errno and nothing changed. A dead ring has no table any more. */
MS_HIDDEN int ms_table_close(struct memslot_ring *ring, bool alive);

/* --- prep.c --- */
/* NULL: one of the past. */
static inline struct ms_op *ms_prep_find(struct memslot_ring *ring, uint64_t user_data)
{
	uint32_t index = user_data & (MS_OPS_MAX - 1);
	struct ms_op *op = &ring->ops[index];

	if (index >= ring->op_high || op->kind == MS_OP_UNUSED || op->token != user_data)
		return NULL;
	return op;
}

/* The SQE shall do nothing; gives back the error. */
MS_HIDDEN int ms_prep_refuse(struct memslot_ring *ring, struct io_uring_sqe *sqe, int error);

/* One more in flight; NULL: too many. */
static inline struct ms_op *ms_prep_op(struct memslot_ring *ring, uint64_t user_data)
{
	uint32_t index = ring->op_free;
	struct ms_op *op;

	if (index == MS_OP_NONE) {
		if (ring->op_high == MS_OP_HOUSEKEEPING)
			return NULL;
		index = ring->op_high++;
		ring->ops[index] = (struct ms_op){.token = ring->token | index, .next = MS_OP_NONE};
	}
	op = &ring->ops[index];
	ring->op_free = op->next;
	op->user_data = user_data;
	op->group = NULL;
	op->buffer = MS_OP_NONE;
	op->start = 0;
	op->multishot = op->cancelled = op->delivered = false;
	op->kind = MS_OP_LIVE;
	atomic_store_explicit(&ring->in_flight,
		atomic_load_explicit(&ring->in_flight, memory_order_relaxed) + 1,
		memory_order_relaxed);
	return op;
}

/* --- complete.c --- */
/* It will never be over. */
MS_HIDDEN void ms_complete_lose(struct memslot_ring *ring, struct ms_op *op);

/* --- choose.c --- */
struct io_uring_cqe;
MS_HIDDEN void ms_choose_completed(
	struct ms_op *op, const struct io_uring_cqe *cqe, struct memslot_completion *done);
MS_HIDDEN void ms_choose_retired(struct ms_op *op);

#endif
