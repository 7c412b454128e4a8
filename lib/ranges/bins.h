/* SPDX-License-Identifier: MIT */
/* bins.h - which ranges of which regions are free: see bins.c. */
#ifndef MS_BINS_H
#define MS_BINS_H

#include "base/util.h"

#define MS_BINS_ROWS 28u
#define MS_BINS_COLUMNS 32u
#define MS_BINS_CLASSES (MS_BINS_ROWS * MS_BINS_COLUMNS)
#define MS_BINS_NONE UINT32_MAX
/* A region has fewer units than this; so has a range. */
#define MS_BINS_UNITS_MAX (1u << 31)
/* A freed node rests until so many others were freed: its generation does not come back soon. */
#define MS_BINS_REST 256u

/* Nodes and bins may lie where a guest writes, on another thread while a call runs: each access in
 * the code is one of the machine (volatile), and what is checked is the copy that is used. */
struct ms_node {
	volatile uint32_t offset;      /* units, from the start of the region */
	volatile uint32_t size;	       /* units, and MS_BINS_USED */
	volatile uint32_t left, right; /* neighbours in the region */
	volatile uint32_t next, prev;  /* free: in the bin; resting: next rests; used: next counts
					* guards */
	volatile uint32_t generation;  /* moves when it is freed */
	volatile uint32_t region;
};
#define MS_BINS_USED (1u << 31)

/* Names no address: it may lie in a slot, and be rewound with it. */
struct ms_bins {
	volatile uint32_t rows;			 /* bit r: columns[r] is not 0 */
	volatile uint32_t columns[MS_BINS_ROWS]; /* bit c: head[r * COLUMNS + c] is a node */
	volatile uint32_t head[MS_BINS_CLASSES]; /* or MS_BINS_NONE */
	volatile uint32_t node_count;		 /* ever used */
	volatile uint32_t rest_first, rest_last, resting;
	volatile uint32_t live; /* used nodes */
	volatile uint64_t free_units, live_units;
};

/* Bins and nodes, and what is known of them for certain: the two may lie where a guest writes. */
struct ms_arena {
	struct ms_bins *bins;
	struct ms_node *nodes;
	uint32_t node_max;
	const uint32_t *bias; /* of each region: its start in units, as far as alignment goes */
	volatile uint32_t *first, *last; /* of each region: its outermost nodes */
	uint32_t region_max;
};

MS_HIDDEN void ms_bins_init(struct ms_bins *bins);
/* A region of free units: its node, or MS_BINS_NONE when there is no node left. */
MS_HIDDEN uint32_t ms_bins_add(const struct ms_arena *arena, uint32_t region, uint32_t units);
/* A region that is one free node goes. */
MS_HIDDEN void ms_bins_remove(const struct ms_arena *arena, uint32_t node);
/* More free units at the end of a region. False: no node left. */
MS_HIDDEN bool ms_bins_extend(const struct ms_arena *arena, uint32_t region, uint32_t units);

/* Units of at least `size` that begin at a multiple of `align` (a power of two): a node, or
 * MS_BINS_NONE. Exact: there is none only when there is none. `best`: the tightest of a few. */
MS_HIDDEN uint32_t ms_bins_alloc(
	const struct ms_arena *arena, uint32_t size, uint32_t align, bool best);
/* The same in one region: the first that fits. O(nodes). */
MS_HIDDEN uint32_t ms_bins_alloc_in(
	const struct ms_arena *arena, uint32_t region, uint32_t size, uint32_t align);
/* These units of a region, that lie in a free node: the same. */
MS_HIDDEN uint32_t ms_bins_alloc_at(
	const struct ms_arena *arena, uint32_t node, uint32_t offset, uint32_t size);
/* Never fails, never needs memory. */
MS_HIDDEN void ms_bins_free(const struct ms_arena *arena, uint32_t node);
/* In place, at its end. False: it does not fit, or no node is left for what is cut off. */
MS_HIDDEN bool ms_bins_resize(const struct ms_arena *arena, uint32_t node, uint32_t size);
/* Is there a node for one more cut? */
MS_HIDDEN bool ms_bins_has_node(const struct ms_arena *arena);
/* Units of the largest free node. */
MS_HIDDEN uint32_t ms_bins_largest(const struct ms_arena *arena);
/* Walk everything: true when all of it fits together. */
MS_HIDDEN bool ms_bins_check(const struct ms_arena *arena);

static inline uint32_t ms_bins_size(const struct ms_node *node)
{
	return node->size & ~MS_BINS_USED;
}

static inline bool ms_bins_used(const struct ms_node *node)
{
	return node->size & MS_BINS_USED;
}

#endif
