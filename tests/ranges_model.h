/* SPDX-License-Identifier: MIT */
/*
 * ranges_model.h - whole range allocators beside a bitmap of owners: see test_ranges_model.c.
 *
 *   ranges_model_make.c     allocators of every kind, their regions, what comes back
 *   ranges_model_check.c    who has which unit, contents, counters
 *   ranges_model_out.c      alloc, free, resize
 *   ranges_model_ask.c      find, region, guards, handles that are not valid
 *   ranges_model_region.c   expand, drain, shrink, reset, close
 *
 * Invariant: the model knows the answer of every call before it is made. Where a range comes to lie
 * is the library's choice; that it lies where nobody else does, and that there was no room when it
 * was refused, the bitmap proves.
 */
#ifndef TESTS_RANGES_MODEL_H
#define TESTS_RANGES_MODEL_H

#include "model.h"

#define REGIONS 20
#define UNITS 2100 /* of a region, at most */
#define RANGES 150
#define STALE 32

enum region_state { REGION_NONE, REGION_PENDING, REGION_LIVE, REGION_DRAINING };
enum region_memory { MEMORY_NONE, MEMORY_UNTOUCHABLE, MEMORY_OPEN, MEMORY_SLOT };

struct model_region {
	enum region_state state;
	enum region_memory memory;
	struct memslot_expansion *expansion;
	unsigned char *base, *mapping;
	size_t mapped;
	uint64_t offset, tag;
	uint32_t units;
	bool going, returned;
	uint16_t owner[UNITS]; /* range + 1; 0: free */
};

struct model_range {
	bool live;
	struct memslot_range range;
	unsigned region, guards, tag;
	uint32_t first, units;
};

struct ranges_coverage {
	uint64_t operations, allocs, refused, fixed, grown, drained, returned, resets, stale,
		resized, compared, wide;
};

struct ranges_life {
	struct test_rng rng;
	unsigned number;
	struct memslot_ranges *ranges, *other;
	struct memslot_range foreign; /* of the other */
	struct memslot_ranges_opts opts;
	uint64_t unit, capacity; /* of the pool's slots */
	struct memslot_pool *pool;
	uint32_t slots;
	bool touches; /* no region is PROT_NONE */
	bool closing;
	struct model_region regions[REGIONS];
	struct model_range range[RANGES];
	struct memslot_range stale[STALE];
	unsigned stale_count, tags;
	uint64_t allocs, failures;
	struct ranges_coverage *coverage;
};

/* --- ranges_model_make.c --- */
void ranges_make(struct ranges_life *life);
void ranges_unmake(struct ranges_life *life); /* closed already */
struct model_region *ranges_new_region(struct ranges_life *life, uint64_t size);
void ranges_map_region(struct ranges_life *life, struct model_region *region);
void ranges_unmap_region(struct model_region *region);
/* What goes must have come back by now, once, and nothing else. */
void ranges_expect_returned(struct ranges_life *life);

/* --- ranges_model_check.c --- */
bool ranges_chance(struct ranges_life *life, unsigned percent);
uint64_t ranges_bytes(const struct ranges_life *life, const struct model_region *region);
unsigned ranges_live_in(const struct ranges_life *life, const struct model_region *region);
unsigned ranges_count(const struct ranges_life *life, bool guarded);
unsigned ranges_pending(const struct ranges_life *life);
/* Is there room in what is allocated from? `memory`: only in regions that have some, or none. */
bool ranges_has_room(const struct ranges_life *life, uint32_t units, uint64_t align, int memory);
struct model_range *ranges_some(struct ranges_life *life); /* NULL: none */
struct model_region *ranges_region_at(struct ranges_life *life, uint64_t offset);
void ranges_fill(struct ranges_life *life, struct model_range *range);
void ranges_compare(struct ranges_life *life, const struct model_range *range);
void ranges_check_all(struct ranges_life *life);

/* --- ranges_model_out.c --- */
void ranges_own(struct ranges_life *life, const struct model_range *range, bool owns);
void ranges_forget(struct ranges_life *life, struct model_range *range); /* it is stale now */
void ranges_op_alloc(struct ranges_life *life);
void ranges_op_fixed(struct ranges_life *life);
void ranges_op_free(struct ranges_life *life);
void ranges_op_resize(struct ranges_life *life);
void ranges_op_bad_alloc(struct ranges_life *life);

/* --- ranges_model_ask.c --- */
void ranges_op_find(struct ranges_life *life);
void ranges_op_region(struct ranges_life *life);
void ranges_op_guard(struct ranges_life *life);
void ranges_op_unguard(struct ranges_life *life);
void ranges_op_stale(struct ranges_life *life);

/* --- ranges_model_region.c --- */
void ranges_op_begin(struct ranges_life *life);
void ranges_op_commit(struct ranges_life *life);
void ranges_op_abort(struct ranges_life *life);
void ranges_op_drain(struct ranges_life *life);
void ranges_op_shrink(struct ranges_life *life);
void ranges_op_reset(struct ranges_life *life);
void ranges_op_close(struct ranges_life *life); /* refused, unless closing */
/* The last range of a draining region is gone: so is the region, after the call. */
void ranges_expect_drained(struct ranges_life *life, struct model_region *region);

#endif
