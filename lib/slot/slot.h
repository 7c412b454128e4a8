/* SPDX-License-Identifier: MIT */
/*
 * slot.h - the slot, and who in this room does what.
 *
 *   slot.c      create, destroy, accessors          reset.c     make the contents pristine
 *   state.c     who may do what now: holds, fork    inspect.c   what AUTO looks at, and evicts
 *   edge.c      where the accessible part ends      policy.c    which way to reset is cheapest
 *   show.c      instantiate, remake, resize         price.c     what this machine charges
 *   scan.c      which pages are private             release.c   give pages back, whatever it takes
 *   restore.c   copy image or zeros into place      capture.c   capture, checkpoint
 *   view.c      protect, exempt, discard, written      lend.c    hand-outs of a pool's slots
 *   verify.c    does it show what it should?
 *
 * Everything inside counts in pages of the slot: page 0 is the first page behind guard_before.
 */
#ifndef MS_SLOT_H
#define MS_SLOT_H

#include "base/counter.h"
#include "base/fork.h"
#include "base/os.h"
#include "image/image.h"
#include "slot/policy.h"
#include "slot/retained.h"
#include "slot/runs.h"

#include <stdatomic.h>

#include <memslot/slot.h>

/* Images of at most this many bytes are copied into anonymous memory: no VMA, and cheaper than
 * mapping; the price is that every reset copies them whole (INVARIANTS 4). */
#define MS_SLOT_COPY_BYTES (16u << 10)
/* reserve + guard_after up to here: guards and edge are markers (INVARIANTS 14). */
#define MS_SLOT_MARKER_BYTES (2u << 20)

enum ms_edge {
	MS_EDGE_NONE,	 /* not enforced up to capacity */
	MS_EDGE_MARKER,	 /* guard markers: no VMA; what they cover is dropped */
	MS_EDGE_PROTECT, /* mprotect: clean pages stay hidden beyond the edge */
};

struct memslot_slot {
	/* fixed at creation */
	unsigned char *base;
	size_t capacity_pages, reserve_pages, before_pages, after_pages;
	uint32_t flags, reset_method;
	enum ms_edge edge;
	struct ms_os_attrs attrs;
	size_t bookkeeping_bytes; /* of the mapping that this struct lies in */
	int (*on_reset)(struct memslot_slot *slot, void *context);
	void *context;

	/* a pool's slot: see lend.c */
	struct ms_lender *lender; /* NULL: a slot of its own */
	uint32_t index;
	_Atomic(uint64_t) ticket;

	/* any thread: see state.c */
	_Atomic(uint64_t) word;
	_Atomic(uint64_t) epoch;
	uint64_t callback_thread; /* whose on_reset is running */

	/* what it shows */
	struct memslot_image *image;		/* NULL: zeros */
	_Atomic(struct memslot_image *) target; /* a reference: what a reset comes back to; image is
						 * the same but in the middle of a change, where a
						 * fork may come */
	size_t target_pages;			/* the size a reset comes back to */
	_Atomic(size_t) size_pages; /* where the edge is now; read by locate on other threads */
	size_t reach;		    /* where it was at most since everything was dropped */
	bool copied;		    /* the image lies in anonymous memory */
	bool mixed; /* mappings show something else than image (a checkpoint failed):
		       nothing may be dropped, only copied or mapped over */
	bool populated;

	/* what may differ from it */
	struct ms_retained retained;
	bool exact;		  /* every private page below the edge or hidden is in the set */
	struct ms_reading seen;	  /* no later than the hand-out; thread 0: none */
	bool confined;		  /* this hand-out's promise */
	bool given_drop;	  /* given unseen to another affinity key */
	uint32_t verify_failures; /* not yet counted by the pool */
	bool no_counter;	  /* NOHUGEPAGE is not to be had: the counter proves nothing */
	uint8_t spoilt;		  /* readings in a row that moved for nothing */
	uint8_t own_readings;	  /* hand-outs for which the thread's last reading will not do */
	uint16_t pause;		  /* resets for which not to ask at all */
	struct ms_runs exempt, protects;

	struct ms_policy policy;
	struct memslot_slot_stats stats;
	void *user;
	void *heap;	      /* its handle, freed with the slot */
	bool bound;	      /* it holds a heap: images carry its address */
	uint64_t heap_number; /* of the handle: never another one's */
	uint64_t heap_image;  /* the serial of the image that it was opened on */
	bool spoilt_beyond;   /* exempt pages may have kept bytes that no image has */
};

#define MS_SLOT_FLAGS                                                                              \
	(MEMSLOT_SLOT_NO_EDGE | MEMSLOT_SLOT_HUGEPAGE | MEMSLOT_SLOT_POPULATE |                    \
		MEMSLOT_SLOT_DONTFORK | MEMSLOT_SLOT_DONTDUMP | MEMSLOT_SLOT_CONFINED |            \
		MEMSLOT_SLOT_BOUND)

/* --- slot.c --- */
/* A slot as it is before it has an address: options checked, sizes laid out. */
MS_HIDDEN int ms_slot_plan(
	size_t capacity, const struct memslot_slot_opts *opts, struct memslot_slot *plan);
/* Bookkeeping of one slot: the struct and the retained set, then (rarely touched) the tables. */
MS_HIDDEN size_t ms_slot_head_bytes(const struct memslot_slot *plan);
#define MS_SLOT_TABLE_BYTES (2 * MS_RUNS_MAX * sizeof(struct ms_page_run))
/* Make the slot in its bookkeeping. */
MS_HIDDEN void ms_slot_place(
	struct memslot_slot *slot, const struct memslot_slot *plan, void *tables);

static inline unsigned char *ms_slot_address(const struct memslot_slot *slot, size_t page)
{
	return slot->base + ms_pages_to_bytes(page);
}

/* Where scans, drops and captures end: the edge, or the capacity where it is not enforced. */
static inline size_t ms_slot_end(const struct memslot_slot *slot)
{
	return slot->edge == MS_EDGE_NONE ? slot->capacity_pages : slot->size_pages;
}

/* Where a drop of everything ends: pages that were only read hide beyond the edge, too. */
static inline size_t ms_slot_drop_end(const struct memslot_slot *slot)
{
	return slot->edge == MS_EDGE_PROTECT ? ms_max(slot->size_pages, slot->reach)
					     : ms_slot_end(slot);
}

static inline size_t ms_slot_image_end(const struct memslot_image *image)
{
	return image ? image->first + image->pages : 0;
}

/* Does it show what its heap's handle was made or opened on, or an image taken of that? */
static inline bool ms_slot_shows_heap(const struct memslot_slot *slot)
{
	const struct memslot_image *image = slot->image;

	return slot->heap && (!image || image->heap_number == slot->heap_number ||
				     image->serial == slot->heap_image);
}

/* Is the image the caller's own file, which may not be read or restored from (INVARIANTS 6)? */
static inline bool ms_slot_foreign(const struct memslot_slot *slot)
{
	return slot->image && !slot->image->bytes;
}

/* --- state.c --- */
#define MS_STATE_IO_MASK 0xffffffull	      /* HOLD_IO count */
#define MS_STATE_PIN_MASK (0xffffffull << 24) /* HOLD_PIN count */
#define MS_STATE_BUSY (1ull << 48)	      /* a call that must be alone is running */
#define MS_STATE_CALLBACK (1ull << 49)	      /* on_reset is running */
#define MS_STATE_TOUCHED (1ull << 50)	      /* held or pinned at some time since the last reset */
#define MS_STATE_UNCONFINED (1ull << 51)      /* CONFINED is withdrawn until the next hand-out */
#define MS_STATE_UNKNOWN (1ull << 52)
#define MS_STATE_DEAD (1ull << 53)     /* a child's copy that may not be used */
#define MS_STATE_CHANGING (1ull << 54) /* a call that need not be alone changes the slot */
#define MS_STATE_AWAY (1ull << 55)     /* the pool has it: nobody else may begin anything */
#define MS_STATE_GIVEN (1ull << 56)    /* handed to a waiter, not yet instantiated */

/* What a call that must be alone puts up with. */
#define MS_ALONE 0u
#define MS_ALONE_PINNED (1u << 0)
#define MS_ALONE_UNKNOWN (1u << 1)
#define MS_ALONE_GIVEN (1u << 2)

/* 0, or -ESTALE: the slot is dead or unknown. For calls that need not be alone. */
MS_HIDDEN int ms_state_usable(struct memslot_slot *slot);
/* The same, for certain and at once; false: ask. */
static inline bool ms_state_plain(const struct memslot_slot *slot)
{
	return ms_fork_is(atomic_load_explicit(&slot->epoch, memory_order_acquire)) &&
	       !(atomic_load_explicit(&slot->word, memory_order_acquire) &
		       (MS_STATE_DEAD | MS_STATE_UNKNOWN | MS_STATE_GIVEN | MS_STATE_AWAY));
}
/* Begin a call that must be alone; the word as it was goes to ret_word. */
MS_HIDDEN int ms_state_begin(struct memslot_slot *slot, uint32_t alone, uint64_t *ret_word);
/* The pool begins to change a slot that is away: the word as it was. */
MS_HIDDEN uint64_t ms_state_begin_away(struct memslot_slot *slot);
/* The slot goes away; held: nothing begins but that, and MS_BACK_HELD. */
MS_HIDDEN int ms_state_begin_back(struct memslot_slot *slot, uint64_t *ret_word);
/* End either of the two: the slot is away. */
MS_HIDDEN void ms_state_end_away(struct memslot_slot *slot, bool unknown);
/* Hand it out unseen. */
MS_HIDDEN void ms_state_give(struct memslot_slot *slot);
/* Away and unknown, whatever it was. */
MS_HIDDEN void ms_state_lose(struct memslot_slot *slot);
MS_HIDDEN bool ms_state_held(const struct memslot_slot *slot);
/* Handed to a waiter who has not looked at it yet: it shows somebody else's image. */
static inline bool ms_state_given(const struct memslot_slot *slot)
{
	return atomic_load(&slot->word) & MS_STATE_GIVEN;
}
/* memslot_slot_size */
static inline size_t ms_slot_size(const struct memslot_slot *slot)
{
	return ms_state_given(slot) ? 0 : ms_pages_to_bytes(slot->size_pages);
}
/* The same for destroy: a dead copy may be destroyed whatever holds it had. */
MS_HIDDEN int ms_state_begin_destroy(struct memslot_slot *slot, uint64_t *ret_word);
/* A child's copy that may not be used? For calls that change nothing. */
MS_HIDDEN bool ms_state_dead(const struct memslot_slot *slot);
/* Begin a change that need not be alone, whatever holds there are: a child forked meanwhile finds
 * the slot unknown. */
MS_HIDDEN void ms_state_begin_change(struct memslot_slot *slot);
MS_HIDDEN void ms_state_end_change(struct memslot_slot *slot, bool unknown);
/* May the edge go up now? Holds do not matter. Then the change has begun. */
MS_HIDDEN int ms_state_may_grow(struct memslot_slot *slot);
/* May the contents be read now? */
MS_HIDDEN int ms_state_may_capture(struct memslot_slot *slot);
/* End it; `unknown`: it failed midway. */
MS_HIDDEN void ms_state_end(struct memslot_slot *slot, bool unknown);
/* End a reset or instantiate: runs on_reset. Returns error, or on_reset's. */
MS_HIDDEN int ms_state_end_reset(struct memslot_slot *slot, int error, bool handed_out);

/* --- lend.c --- */
/* What a slot knows of its pool. */
struct ms_lender {
	/* The last hold of a slot that was released while held is over. */
	void (*unheld)(struct memslot_slot *slot);
	_Atomic(uint64_t) learnt; /* by slots of zeros: ms_policy_pack */
	bool verifies;
};

enum ms_back {
	MS_BACK_CLEAN, /* pristine */
	MS_BACK_DROP,  /* everything in it is to be dropped before it is shown again */
	MS_BACK_HELD,  /* untouched: lender->unheld comes later */
};

/* An idle slot begins to show (image, size): what differs, no more. `drop`: nothing resident may
 * stay. On failure it is unknown. */
MS_HIDDEN int ms_lend_show(
	struct memslot_slot *slot, struct memslot_image *image, size_t pages, bool drop);
/* The same at the first instantiate of a slot that was given unseen. */
MS_HIDDEN int ms_lend_show_given(
	struct memslot_slot *slot, struct memslot_image *image, size_t pages, uint64_t word);
/* Hand it out: runs on_reset. */
MS_HIDDEN int ms_lend_give(struct memslot_slot *slot);
/* Hand it to a waiter: the first instantiate does the rest. */
MS_HIDDEN void ms_lend_give_unseen(struct memslot_slot *slot, bool drop);
/* Take it back and reset it: enum ms_back, or -errno: unknown then. -EBUSY: a call on it is
 * running, it is not back. -ESTALE: dead in this child. */
MS_HIDDEN int ms_lend_back(struct memslot_slot *slot);
/* Somebody is about to drop everything in an idle slot / has done so. */
MS_HIDDEN void ms_lend_begin_drop(struct memslot_slot *slot);
MS_HIDDEN void ms_lend_dropped(struct memslot_slot *slot);
/* Drop it now; on failure it is unknown. */
MS_HIDDEN int ms_lend_drop(struct memslot_slot *slot);
/* Show nothing, keep nothing; on failure it is unknown. */
MS_HIDDEN int ms_lend_blank(struct memslot_slot *slot);
/* Retained pages that a drop would give back: not a copied image's. */
MS_HIDDEN size_t ms_lend_droppable_pages(const struct memslot_slot *slot);
/* May it be dropped by somebody else's madvise, together with others? */
MS_HIDDEN bool ms_lend_droppable(const struct memslot_slot *slot);
/* --- verify.c --- */
/* Does every private page show what it should? -EUCLEAN: no. */
MS_HIDDEN int ms_verify(struct memslot_slot *slot);

/* --- edge.c --- */
/* What kind of edge: see INVARIANTS 14. */
MS_HIDDEN enum ms_edge ms_edge_kind(const struct memslot_slot *slot);
/* Reserve the address space and put the edge at 0. */
MS_HIDDEN int ms_edge_create(struct memslot_slot *slot, void *base_address);
MS_HIDDEN int ms_edge_destroy(struct memslot_slot *slot);
/* Bare mappings again, edge at 0. */
MS_HIDDEN int ms_edge_blank(struct memslot_slot *slot);
/* Open [size, pages). On failure the slot is unknown. */
MS_HIDDEN int ms_edge_raise(struct memslot_slot *slot, size_t pages);
/* Close [pages, size): what the edge covers is pristine already, or a marker drops it. */
MS_HIDDEN int ms_edge_lower(struct memslot_slot *slot, size_t pages);
/* Map zeros and the image over pages [first, end), which keep their protection. They leave the set.
 */
MS_HIDDEN int ms_edge_map_over(struct memslot_slot *slot, size_t first, size_t end);
/* Map a part of an image's extent over pages that are inside the edge. They leave the set. */
MS_HIDDEN int ms_edge_map_image(
	struct memslot_slot *slot, const struct memslot_image *image, size_t first, size_t end);
MS_HIDDEN int ms_edge_map_zeros(struct memslot_slot *slot, size_t first, size_t end, int prot);
/* The protection of an accessible page without a protect() of the user's. */
#define MS_EDGE_RW (1 | 2) /* PROT_READ | PROT_WRITE */

/* --- show.c --- */
/* Make it show (image, size), resetting what was written. `known`: see ms_reset_evidence. */
struct ms_evidence;
MS_HIDDEN int ms_show(struct memslot_slot *slot, struct memslot_image *image, size_t pages,
	uint64_t word, const struct ms_evidence *evidence);
/* The same for a slot that is pristine. */
MS_HIDDEN int ms_show_pristine(
	struct memslot_slot *slot, struct memslot_image *image, size_t pages);
/* Map an image's extents, inside the edge. */
MS_HIDDEN int ms_show_map_image(struct memslot_slot *slot, const struct memslot_image *image);
/* Map zeros where the old image is mapped and the next one (or NULL) is not. */
MS_HIDDEN int ms_show_unmap_image(struct memslot_slot *slot, const struct memslot_image *old,
	const struct memslot_image *next);

/* --- restore.c --- */
/* Copy the image or zeros over pages [first, end), in place. */
MS_HIDDEN int ms_restore(struct memslot_slot *slot, size_t first, size_t end);

/* --- release.c --- */
/* Give pages [first, end) back; then they show the image or zeros. Pages of a copied image are
 * copied again instead. What was given back leaves the set. */
MS_HIDDEN int ms_release(struct memslot_slot *slot, size_t first, size_t end);
/* The same for pages that are swapped, or only look so: they are never written to before they are
 * dropped (INVARIANTS 3). */
MS_HIDDEN int ms_release_swapped(struct memslot_slot *slot, size_t first, size_t end);
/* All of it but the exempt pages, hidden ones too. */
MS_HIDDEN int ms_release_all(struct memslot_slot *slot);

/* --- reset.c --- */
/* What a call knows before it touches anything. */
struct ms_evidence {
	struct ms_reading now; /* thread 0: not read */
	bool drop;	       /* AUTO drops: nothing needs to be known */
	bool known;	       /* the set is exact and nothing was written outside it */
	bool touched;	       /* held or pinned since the last reset */
	bool pinned;	       /* registered pages: nothing may be dropped */
	bool confined;
};

MS_HIDDEN struct ms_evidence ms_reset_evidence(struct memslot_slot *slot, uint64_t word);
/* Copy the image or zeros over all retained pages below the edge. */
MS_HIDDEN int ms_reset_retained(struct memslot_slot *slot);
/* Make [0, edge) pristine; hidden pages may be dropped. */
MS_HIDDEN int ms_reset_contents(struct memslot_slot *slot, const struct ms_evidence *evidence);
/* Drop mode: was nothing written since everything was dropped? */
MS_HIDDEN bool ms_reset_nothing_written(struct memslot_slot *slot, struct ms_evidence *evidence);
/* At hand-out, before anything is mapped: a lower bound of the thread's fault counter. */
MS_HIDDEN void ms_reset_take_reading(struct memslot_slot *slot);
/* After the last step that maps or populates: keep the reading for the next reset. */
MS_HIDDEN void ms_reset_keep_reading(struct memslot_slot *slot, const struct ms_evidence *evidence);
/* --- scan.c --- */
/* Bring the set up to date with [0, edge). Private pages that may not be in it (no room, swapped,
 * pages of a foreign image) are released, or with a pin outstanding restored in place. */
MS_HIDDEN int ms_scan(
	struct memslot_slot *slot, const struct ms_evidence *evidence, size_t *ret_fresh);

/* --- view.c --- */
/* Pages of [first, end) that protect() changed become readable and writable; the table stays. */
MS_HIDDEN int ms_view_lift(struct memslot_slot *slot, size_t first, size_t end);
/* Protect again what the table says. */
MS_HIDDEN int ms_view_put_back(struct memslot_slot *slot, size_t first, size_t end);

#endif
