/* SPDX-License-Identifier: MIT */
/*
 * model.h - slots beside plain arrays: the parts of the model test, used by the injection test too.
 *
 *   model_log.c     what happened in this life; how a mismatch is told
 *   model_image.c   images, and what they hold
 *   model_state.c   what each call does to the arrays: no library call in there
 *   model_check.c   slot against array, edge and guards
 *   model_write.c   ways to write into a slot        model_ring.c   those by io_uring
 *   model_calls.c, model_image_calls.c, model_hold.c, model_fork.c    the operations
 *   model_steady.c  long repetitions, for what AUTO learns
 *   model_make.c    slots of every kind              model_life.c   a life
 *
 * Invariant: the model knows the answer of every call before it is made, success or which error.
 */
#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

#include "common.h"

#include <sys/mman.h>

#define MODEL_IMAGES 8
#define MODEL_SLOTS 3
#define MODEL_SCRATCH (1u << 20) /* bytes that files and buffers give */

/* What an image holds, counted from the start of the slot. */
struct model_image {
	struct memslot_image *image; /* our reference; NULL: given up, slots may still show it */
	unsigned char *bytes;	     /* [0, end) */
	size_t end;
	void *base_address;
	unsigned refs; /* the life's table, and each slot that shows it */
};

#define MODEL_OPEN (PROT_READ | PROT_WRITE)
#define MODEL_EXEMPT 8u

struct model_slot {
	struct memslot_slot *slot;
	unsigned char *base;
	struct memslot_slot_opts opts;
	size_t capacity, reserve, guard_before, guard_after; /* as the library rounds them */
	size_t size, reset_size;
	struct model_image *image; /* NULL: zeros */
	unsigned char *now;	   /* what [0, capacity) holds */
	unsigned char *pages;	   /* PROT_* and MODEL_EXEMPT of each page */
	unsigned io_holds, pins;
	size_t pin_offset, pin_size; /* registered with the ring, while pins */
	bool confined;		     /* the promise stands now */
	bool unknown;		     /* a change failed midway */
	bool dead;		     /* in a child: DONTFORK, or held at the fork */
	bool locked;		     /* some page was locked once */
	bool fail_reset;	     /* on_reset fails next time */
	unsigned callbacks;	     /* how often on_reset ran */
};

struct model_coverage {
	uint64_t known, scan, drop, evictions, trials, copied, remakes, locked_copies, hides,
		faults, restored, dropped, operations, compared;
};

struct model_life {
	struct test_rng rng;
	uint32_t method; /* MEMSLOT_RESET_* of its slots */
	unsigned number;
	struct model_image *images[MODEL_IMAGES];
	struct model_slot *slots[MODEL_SLOTS];
	unsigned weights[64];
	struct model_coverage *coverage;
};

/* --- model_log.c --- */

void model_log_begin(unsigned life, uint32_t method);
/* One operation, a line. */
void model_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Print the life and stop the test (in a child: that child). */
void model_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
extern bool model_in_child;
/* Does this very byte fault? After model_log_begin(). */
bool model_faults(const void *at, enum test_access how);
/* The answer of a call must be `want`, or one of two. */
void model_expect(int got, int want);
void model_expect_any(int got, const int *wanted, unsigned count);

/* --- model_image.c --- */

size_t model_round(size_t bytes); /* up to whole pages */
bool model_chance(struct test_rng *rng, unsigned percent);
/* Contents: zeros, random bytes, few bytes. */
void model_random_bytes(struct test_rng *rng, unsigned char *bytes, size_t size);
/* A random image that ends at `limit` or before. NULL: it could not be made here. */
struct model_image *model_image_random(struct test_rng *rng, size_t limit);
/* What `image` must hold: [0, size) of bytes. Takes over the reference; checks its range. */
struct model_image *model_image_of(
	struct memslot_image *image, const unsigned char *bytes, size_t size);
/* Save it, open it again in one of the ways. */
struct model_image *model_image_reopened(struct test_rng *rng, const struct model_image *from);
struct model_image *model_image_ref(struct model_image *image);
void model_image_unref(struct model_image *image);
void model_image_give_up(struct model_image *image); /* the library's reference only */

/* --- model_state.c --- */

size_t model_reach(const struct model_slot *slot); /* how far it is accessible */
bool model_is_held(const struct model_slot *slot);
void model_set_image(struct model_slot *slot, struct model_image *image);
void model_apply_reset(struct model_slot *slot);
void model_apply_instantiate(struct model_slot *slot, struct model_image *image, size_t size);
void model_apply_resize(struct model_slot *slot, size_t size);
void model_apply_discard(struct model_slot *slot, size_t offset, size_t size);
void model_apply_checkpoint(struct model_slot *slot, struct model_image *image);
/* What on_reset writes, into memory that shows `size` bytes. */
void model_callback_bytes(unsigned char *memory, size_t size, unsigned callbacks);
/* A random stretch of pages that all have `flags`; false: none. */
bool model_pick(struct test_rng *rng, const struct model_slot *slot, unsigned char flags,
	size_t *ret_offset, size_t *ret_size);

/* --- model_check.c --- */

extern bool model_blind; /* compare and probe nothing: on the way to what is to be looked at */
extern bool model_quiet; /* compare without faults of this thread */
void model_compare(const struct model_slot *slot);
void model_probe(const struct model_slot *slot);
/* What written() listed. */
void model_check_runs(const struct model_slot *slot, const struct memslot_run *runs, size_t count);
void model_check_written(struct model_slot *slot);
void model_check_stats(const struct model_slot *slot);

/* --- model_write.c, model_ring.c --- */

extern unsigned char *model_scratch; /* MODEL_SCRATCH random bytes; the files hold them too */
extern int model_file, model_direct; /* model_direct: -1 without O_DIRECT */
void model_scratch_open(void);
void model_scratch_close(void);
/* Write scratch bytes [source, source + size) at `offset`, by CPU or by a way that fits. */
void model_write(struct model_life *life, struct model_slot *slot, size_t offset, size_t size,
	size_t source);
void model_write_cpu(struct model_slot *slot, size_t offset, size_t size, size_t source);
bool model_ring_ready(void);
void model_ring_close(void);
/* Read from a file by the ring and wait; fixed: through the registered buffer. Returns the result.
 */
int model_ring_read(int fd, void *to, size_t size, size_t source, bool async, bool fixed);
void model_ring_start(int fd, void *to, size_t size); /* and do not wait */
int model_ring_finish(void);
bool model_ring_register(void *address, size_t size);
void model_ring_unregister(void);

/* --- the operations --- */

void model_op_write(struct model_life *life, struct model_slot *slot);
void model_op_same_bytes(struct model_life *life, struct model_slot *slot);
void model_op_scatter(struct model_life *life, struct model_slot *slot);
void model_op_read(struct model_life *life, struct model_slot *slot);
void model_op_populate(struct model_life *life, struct model_slot *slot);
void model_op_page_out(struct model_life *life, struct model_slot *slot);
void model_op_lock(struct model_life *life, struct model_slot *slot);
void model_op_reset(struct model_life *life, struct model_slot *slot);
void model_op_rogue(struct model_life *life, struct model_slot *slot);
void model_op_instantiate(struct model_life *life, struct model_slot *slot);
void model_op_failing_reset(struct model_life *life, struct model_slot *slot);
void model_op_resize(struct model_life *life, struct model_slot *slot);
void model_op_discard(struct model_life *life, struct model_slot *slot);
void model_op_protect(struct model_life *life, struct model_slot *slot);
void model_op_exempt(struct model_life *life, struct model_slot *slot);
void model_op_written(struct model_life *life, struct model_slot *slot);
void model_op_capture(struct model_life *life, struct model_slot *slot);
void model_op_checkpoint(struct model_life *life, struct model_slot *slot);
void model_op_make_image(struct model_life *life, struct model_slot *slot);
void model_op_give_up_image(struct model_life *life, struct model_slot *slot);
void model_op_hold(struct model_life *life, struct model_slot *slot);
void model_op_unhold(struct model_life *life, struct model_slot *slot);
void model_op_pending(struct model_life *life, struct model_slot *slot);
void model_op_pin(struct model_life *life, struct model_slot *slot);
void model_op_pinned_run(struct model_life *life, struct model_slot *slot);
void model_op_bad_calls(struct model_life *life, struct model_slot *slot);
void model_op_other_thread(struct model_life *life, struct model_slot *slot);
void model_op_fork(struct model_life *life, struct model_slot *slot);
void model_op_steady(struct model_life *life, struct model_slot *slot);

/* Every call of an unknown slot says so. */
void model_expect_unknown(struct model_slot *slot);
void model_reset(struct model_slot *slot, struct model_coverage *coverage);
void model_instantiate(struct model_slot *slot, struct model_image *image, size_t size);
void model_resize(struct model_slot *slot, size_t size);
void model_unpin(struct model_slot *slot);
void model_release_holds(struct model_slot *slot);
struct model_image *model_some_image(struct model_life *life);
void model_keep_image(struct model_life *life, struct model_image *image);

/* --- model_make.c, model_life.c --- */

int model_on_reset(struct memslot_slot *slot, void *context);
struct model_slot *model_slot_random(struct test_rng *rng, uint32_t method, bool big);
struct model_slot *model_slot_new(size_t capacity, const struct memslot_slot_opts *opts);
void model_slot_destroy(struct model_slot *slot, struct model_coverage *coverage);
void model_slot_free(struct model_slot *slot); /* the model only */
void model_live(unsigned number, uint32_t method, struct model_coverage *coverage);

#endif
