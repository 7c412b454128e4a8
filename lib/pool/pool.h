/* SPDX-License-Identifier: MIT */
/*
 * pool.h - the pool, and who in this room does what.
 *
 *   pool.c     create, destroy, the lock                layout.c   addresses, plan, locate
 *   out.c      acquire                                  shelf.c    which idle slot is next
 *   back.c     release                                  waiters.c  who is served next
 *   manage.c   prewarm, forget, trim, maintain, stats   queue.c    dropping many slots at once
 *   family.c   all pools of the process, and children
 *
 * Each slot has a *seat*, where the pool keeps what it knows of it. Seats and all that is said to
 * be "under the lock" belong to who holds the pool's lock; the slot itself belongs to who has it:
 * the user while it is out, the thread that moved it to MS_PLACE_TRANSIT or MS_PLACE_FLUSHING,
 * nobody while it is idle. Nothing that takes long is done under the lock, and no system call.
 */
#ifndef MS_POOL_H
#define MS_POOL_H

#include "base/lock.h"
#include "slot/slot.h"

#include <memslot/pool.h>

/* Where a slot is. Zero: never used. */
enum ms_place {
	MS_PLACE_FRESH,
	MS_PLACE_COLD,
	MS_PLACE_WARM,
	MS_PLACE_QUEUED,   /* to be dropped, with others */
	MS_PLACE_HELD,	   /* released while held */
	MS_PLACE_SICK,	   /* quarantined until it is remade */
	MS_PLACE_LOST,	   /* quarantined for good */
	MS_PLACE_OUT,	   /* the user has it */
	MS_PLACE_TRANSIT,  /* in acquire, prewarm or release */
	MS_PLACE_FLUSHING, /* in flush, trim, forget or maintain */
};

/* Seats are named by index + 1; 0: none. */
struct ms_seat {
	_Atomic(uint64_t) where;	 /* enum ms_place | ticket << 8 */
	struct memslot_image *image;	 /* shown when idle; asked for when out. Not a reference */
	uint64_t key;			 /* whose resident pages these are */
	uint64_t since_ns;		 /* idle since; only with max_age */
	uint64_t last;			 /* the thread that released it: in whose caches it is */
	uint64_t thread;		 /* TRANSIT, FLUSHING: who is at it */
	uint32_t resident;		 /* pages counted in the pool's sum */
	uint32_t droppable;		 /* of them; a copied image's stay */
	uint32_t next, prev;		 /* in the list of its place */
	uint32_t group_next, group_prev; /* warm: same image and key, last used first */
	uint32_t bucket_next, bucket_prev;     /* warm, first of its group */
	uint32_t resident_next, resident_prev; /* warm with droppable pages, last used first */
	_Atomic(bool) placed;		       /* the slot has been made */
	bool forgotten;			       /* goes cold when it comes back */
	bool unheld;  /* the last hold ended before it got to the held list */
	bool demoted; /* warm, and taken away for its memory: comes back last */
	struct memslot_slot_stats counted; /* of its stats, in the pool's sums */
};

struct ms_list {
	uint32_t first, last, count;
};

/* A reservation: slots first .. first + count - 1. */
struct ms_piece {
	unsigned char *base; /* of the guard in front */
	uint32_t first, count;
};
#define MS_PIECES_MAX 4096

struct memslot_pool {
	/* fixed at creation */
	struct memslot_slot plan; /* what slots are made from */
	struct ms_lender lender;
	uint32_t count, flags;
	size_t stride_pages, head_bytes, bookkeeping_bytes;
	struct ms_seat *seats;
	unsigned char *heads, *tables;
	uint32_t *buckets, bucket_mask;
	struct ms_piece *pieces; /* by address */
	uint32_t piece_count;
	uint64_t idle_budget_pages, max_warm, batch_pages, batch_count, max_age_ns;

	/* see family.c */
	struct memslot_pool *next; /* of all pools, by address */
	_Atomic(uint64_t) epoch;
	bool dead;	  /* in this child */
	bool fork_locked; /* by the thread that is forking */

	/* under the lock */
	struct ms_lock lock;
	uint32_t fresh; /* from here on never used */
	struct ms_list cold, warm, queued, held, sick, lost, resident;
	uint64_t resident_pages, queued_pages, image_pages; /* resident: of warm slots */
	uint64_t live;					    /* OUT and TRANSIT */
	uint64_t flushing;				    /* FLUSHING */
	uint64_t tickets;
	struct memslot_slot_waiter *first_waiter, *last_waiter;
	struct memslot_pool_stats stats; /* sums; the gauges are filled in when asked */
	_Atomic(uint32_t) notifying;	 /* events being written */
};

static inline struct ms_seat *ms_pool_seat(const struct memslot_pool *pool, uint32_t name)
{
	return &pool->seats[name - 1];
}

static inline struct memslot_slot *ms_pool_slot(const struct memslot_pool *pool, uint32_t name)
{
	return (struct memslot_slot *)(pool->heads + (size_t)(name - 1) * pool->head_bytes);
}

static inline enum ms_place ms_pool_place(const struct ms_seat *seat)
{
	return (enum ms_place)(atomic_load(&seat->where) & 0xff);
}

/* Move it; the ticket stays. */
static inline void ms_pool_move(struct ms_seat *seat, enum ms_place place)
{
	uint64_t where = atomic_load_explicit(&seat->where, memory_order_relaxed);

	atomic_store_explicit(&seat->where, (where & ~0xffull) | place, memory_order_release);
}

/* What somebody wants. */
struct ms_request {
	struct memslot_image *image;
	size_t pages;
	uint64_t key;
	uint32_t flags;
};

/* How a slot comes back to the pool. */
enum ms_return {
	MS_RETURN_CLEAN,
	MS_RETURN_COLD,
	MS_RETURN_DROP,
	MS_RETURN_SICK,
	MS_RETURN_LOST,
	MS_RETURN_HELD
};

/* Whom to wake after the lock is released. */
struct ms_wake {
	_Atomic(uint32_t) *word;
	int event_fd; /* or -1 */
};

/* --- pool.c --- */
/* An option that may be 0 (a default), NONE or UNLIMITED. */
MS_HIDDEN uint64_t ms_pool_limit(uint64_t value, uint64_t by_default);
/* The lock; -ESTALE: dead in this child, not taken. */
MS_HIDDEN int ms_pool_enter(struct memslot_pool *pool);
MS_HIDDEN void ms_pool_leave(struct memslot_pool *pool);
MS_HIDDEN int ms_pool_request(const struct memslot_pool *pool, struct memslot_image *image,
	uint64_t size, const struct memslot_acquire_opts *opts, struct ms_request *ret_request);
/* Under the lock: an idle slot, or 0, goes to TRANSIT for a request. *ret_drop: nothing resident in
 * it may be seen. */
MS_HIDDEN uint32_t ms_pool_claim(
	struct memslot_pool *pool, const struct ms_request *request, bool *ret_drop);
MS_HIDDEN int ms_pool_make(struct memslot_pool *pool, uint32_t name);
/* Under the lock: a slot in TRANSIT or FLUSHING becomes idle, or the first waiter's. */
MS_HIDDEN struct ms_wake ms_pool_settle(
	struct memslot_pool *pool, uint32_t name, enum ms_return how);
/* The same with the lock taken and left, and whoever waits woken. */
MS_HIDDEN int ms_pool_put_back(struct memslot_pool *pool, uint32_t name, enum ms_return how);
MS_HIDDEN void ms_pool_wake(struct memslot_pool *pool, struct ms_wake wake);
/* Give a slot in TRANSIT back, whatever it takes to stay within the budget. */
MS_HIDDEN void ms_pool_shelve(struct memslot_pool *pool, uint32_t name, enum ms_return how);

/* How a slot comes back that something failed with. */
MS_HIDDEN enum ms_return ms_pool_failed(struct memslot_pool *pool, uint32_t name);
/* A slot in TRANSIT becomes the user's. */
MS_HIDDEN void ms_pool_hand(struct ms_seat *seat);

/* --- layout.c --- */
MS_HIDDEN int ms_layout_create(struct memslot_pool *pool, void *base_address);
MS_HIDDEN void ms_layout_destroy(struct memslot_pool *pool);
MS_HIDDEN unsigned char *ms_layout_address(const struct memslot_pool *pool, uint32_t name);
/* The slot that starts there, or 0. */
MS_HIDDEN uint32_t ms_layout_at(const struct memslot_pool *pool, const void *base);
/* Options to a plan of one slot and a stride; `count` is checked too. */
MS_HIDDEN int ms_layout_plan(uint32_t count, size_t capacity, const struct memslot_pool_opts *opts,
	struct memslot_pool *ret_pool);

/* --- shelf.c, all under the lock --- */
MS_HIDDEN void ms_shelf_put_cold(struct memslot_pool *pool, uint32_t name);
/* `last`: as the one used longest ago. */
MS_HIDDEN void ms_shelf_put_warm(struct memslot_pool *pool, uint32_t name, bool last);
MS_HIDDEN void ms_shelf_put(struct memslot_pool *pool, uint32_t name, enum ms_place place);
/* Out of the list it is in. */
MS_HIDDEN void ms_shelf_take(struct memslot_pool *pool, uint32_t name);
/* Off the shelf to FLUSHING: what is done to it now needs no lock. */
MS_HIDDEN void ms_shelf_take_away(struct memslot_pool *pool, uint32_t name);
/* The next for a request, still on the shelf, or 0. */
MS_HIDDEN uint32_t ms_shelf_next(struct memslot_pool *pool, const struct ms_request *request);
MS_HIDDEN uint32_t ms_shelf_next_cold(struct memslot_pool *pool);

/* --- waiters.c, under the lock --- */
struct ms_waiting { /* in memslot_slot_waiter.state */
	struct memslot_slot_waiter *next, *prev;
	struct memslot_pool *pool; /* where it waits, or was served */
	_Atomic(uint32_t) word;	   /* MS_WAITING, then MS_SERVED */
	uint32_t name;		   /* of the slot it was served */
	uint64_t drop;
	uint64_t epoch;
};
enum { MS_WAITING = 1, MS_SERVED = 2 };
MS_HIDDEN struct ms_waiting *ms_waiters_state(struct memslot_slot_waiter *waiter);
MS_HIDDEN void ms_waiters_add(struct memslot_pool *pool, struct memslot_slot_waiter *waiter);
MS_HIDDEN void ms_waiters_remove(struct memslot_pool *pool, struct memslot_slot_waiter *waiter);
/* The first waiter gets a slot in TRANSIT. */
MS_HIDDEN struct ms_wake ms_waiters_serve(struct memslot_pool *pool, uint32_t name);
/* Without the lock: a slot in TRANSIT becomes a waiter's with an event. */
MS_HIDDEN void ms_waiters_hand(
	struct memslot_pool *pool, uint32_t name, struct memslot_slot_waiter *waiter, bool drop);
/* Block until served: the slot's name; 0: the time is over. */
MS_HIDDEN uint32_t ms_waiters_block(
	struct memslot_pool *pool, struct memslot_slot_waiter *waiter, uint64_t until_ns);

/* --- queue.c --- */
#define MS_QUEUE_BATCH 64
struct ms_batch {
	uint32_t name[MS_QUEUE_BATCH];
	size_t count;
};
/* Under the lock: queued slots go to FLUSHING. */
MS_HIDDEN void ms_queue_take(struct memslot_pool *pool, struct ms_batch *batch);
/* Without it: drop a batch, settle it, and go on with what is queued when `all`. */
MS_HIDDEN void ms_queue_flush(struct memslot_pool *pool, struct ms_batch *batch, bool all);

/* --- manage.c --- */
MS_HIDDEN void ms_manage_unheld(struct memslot_slot *slot);

/* --- family.c --- */
MS_HIDDEN void ms_family_add(struct memslot_pool *pool);
MS_HIDDEN void ms_family_remove(struct memslot_pool *pool);
/* First use in a child. */
MS_HIDDEN void ms_family_adopt(struct memslot_pool *pool);

#endif
