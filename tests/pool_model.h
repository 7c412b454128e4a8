/* SPDX-License-Identifier: MIT */
/*
 * pool_model.h - whole pools beside plain arrays: see test_pool_model.c.
 *
 *   pool_model_make.c   pools of every kind        pool_model_state.c   where each slot must be
 *   pool_model_out.c    acquire and release        pool_model_wait.c    waiters
 *   pool_model_idle.c   what idle slots undergo    pool_model_hold.c    holds, calls that come late
 *   pool_model_fork.c   children                   pool_model_life.c    a life
 *
 * A slot that is out is a slot of the model of slots (model.h), with all that one can do. Here
 * stands what the pool adds: who gets which slot, what it shows then, and what the counters say.
 */
#ifndef TESTS_POOL_MODEL_H
#define TESTS_POOL_MODEL_H

#include "model.h"

#define POOL_SLOTS 8
#define POOL_WAITERS 4

enum pool_place {
	POOL_COLD,
	POOL_WARM,
	POOL_QUEUED,
	POOL_MAYBE, /* cold or warm */
	POOL_SICK,
	POOL_LOST,
	POOL_HELD,
	POOL_OUT,
	POOL_PLACES
};

struct pool_seat {
	struct model_slot model; /* its slot is NULL until it was out once */
	enum pool_place place;
	struct model_image *asked; /* at the hand-out */
	uint64_t key, ticket, old_ticket;
	uint64_t used; /* order of releases; 0: nobody knows */
	bool given;    /* by a waiter: not instantiated yet */
	bool forgotten;
};

struct pool_waiter {
	struct memslot_slot_waiter waiter;
	struct model_image *image;
};

struct pool_coverage {
	uint64_t acquires, hits, drops, queued, batches, held, served, cancelled, forgotten, aged,
		prewarmed, healed, children, exhausted;
};

struct pool_life {
	struct model_life life;
	struct memslot_pool *pool;
	struct memslot_pool_opts opts;
	uint32_t count;
	struct pool_seat seats[POOL_SLOTS];
	struct pool_waiter *waiters[POOL_WAITERS]; /* first come, first */
	unsigned waiting;
	uint64_t last_ticket, uses;
	bool fail_reset;    /* on_reset fails at the next hand-out */
	uint32_t called_on; /* index of the slot that on_reset was called for */
	bool locked;	    /* some page was locked once */
	struct pool_coverage *coverage;
};

/* --- pool_model_make.c --- */
void pool_make(struct pool_life *life, uint32_t flags);
void pool_unmake(struct pool_life *life); /* nobody is out, held or waiting */
struct pool_seat *pool_seat_of(struct pool_life *life, const struct memslot_slot *slot);

/* --- pool_model_state.c --- */
struct memslot_pool_stats pool_stats_of(const struct pool_life *life);
unsigned pool_count(const struct pool_life *life, enum pool_place place);
bool pool_has_idle(const struct pool_life *life);
void pool_move_all(struct pool_life *life, enum pool_place from, enum pool_place to);
struct pool_seat *pool_some(struct pool_life *life, enum pool_place place); /* NULL: none */
/* Where did a slot go that was released? */
void pool_place_released(
	struct pool_life *life, struct pool_seat *seat, const struct memslot_pool_stats *before);
/* Was this the slot that had to come? `before` all that changed with it. */
void pool_check_choice(struct pool_life *life, const struct pool_seat *seat,
	const struct model_image *image, const struct memslot_acquire_opts *opts);
void pool_check(const struct pool_life *life);
void pool_locate_all(const struct pool_life *life);

/* --- pool_model_out.c --- */
void pool_hand_out(struct pool_life *life, struct pool_seat *seat, struct memslot_slot *slot,
	struct model_image *image, const struct memslot_acquire_opts *opts);
void pool_acquire(struct pool_life *life, struct model_image *image, size_t size,
	struct memslot_acquire_opts *opts);
void pool_release(struct pool_life *life, struct pool_seat *seat);
struct model_image *pool_some_image(struct pool_life *life);
size_t pool_some_size(struct pool_life *life, const struct model_image *image);
struct memslot_acquire_opts pool_some_opts(struct pool_life *life);
void pool_op_acquire(struct pool_life *life);
void pool_op_release(struct pool_life *life);
void pool_op_failing_acquire(struct pool_life *life);
void pool_op_bad_acquire(struct pool_life *life);

/* --- pool_model_wait.c --- */
/* The first waiter must have got this slot. */
void pool_expect_served(struct pool_life *life, struct pool_seat *seat);
void pool_expect_waiting(const struct pool_life *life);
void pool_stop_waiting(struct pool_life *life, bool forgotten);
void pool_op_wait(struct pool_life *life);
void pool_op_cancel(struct pool_life *life);
void pool_op_given(struct pool_life *life);

/* --- pool_model_idle.c --- */
void pool_op_forget(struct pool_life *life);
void pool_op_trim(struct pool_life *life);
void pool_op_prewarm(struct pool_life *life);
void pool_op_flush(struct pool_life *life);
void pool_op_maintain(struct pool_life *life);

/* --- pool_model_hold.c --- */
void pool_unhold(struct pool_life *life, struct pool_seat *seat);
void pool_op_unhold(struct pool_life *life);
void pool_op_device(struct pool_life *life);
void pool_op_late(struct pool_life *life);
void pool_op_pending(struct pool_life *life);
void pool_op_pin(struct pool_life *life);

/* --- pool_model_fork.c, pool_model_life.c --- */
void pool_op_fork(struct pool_life *life);
void pool_run(struct pool_life *life, unsigned operations);
void pool_end(struct pool_life *life); /* all come back */
void pool_live(unsigned number, uint32_t flags, struct pool_coverage *coverage);

#endif
