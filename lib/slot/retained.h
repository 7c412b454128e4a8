/* SPDX-License-Identifier: MIT */
/* retained.h - the pages that resets keep resident: see retained.c. */
#ifndef MS_RETAINED_H
#define MS_RETAINED_H

#include "base/util.h"

#define MS_MARK_AGE 0xffu     /* inspected runs in a row in which the page was not written */
#define MS_MARK_PROVEN 0x100u /* written again in a run after its admission */
#define MS_MARK_NEW 0x200u    /* admitted by the last scan */

struct ms_retained {
	uint32_t *page; /* sorted page numbers */
	uint16_t *mark;
	uint32_t *spare_page; /* where a merge writes */
	uint16_t *spare_mark;
	size_t count, max;
};

/* Bytes of bookkeeping for `max` pages; 0 on overflow. */
MS_HIDDEN size_t ms_retained_bytes(size_t max);
MS_HIDDEN void ms_retained_init(struct ms_retained *set, void *memory, size_t max);
/* How many entries lie below `page`: also the index of the first that does not. */
MS_HIDDEN size_t ms_retained_below(const struct ms_retained *set, size_t page);
MS_HIDDEN bool ms_retained_has(const struct ms_retained *set, size_t page);
/* Pages [first, end) are no longer private. */
MS_HIDDEN void ms_retained_clip(struct ms_retained *set, size_t first, size_t end);
/* Add pages [first, end), proven; the caller has made room. */
MS_HIDDEN void ms_retained_insert(struct ms_retained *set, size_t first, size_t end);
/* The run of consecutive pages that begins at entry `i` and ends before entry `limit`: its length.
 */
static inline size_t ms_retained_run(const struct ms_retained *set, size_t i, size_t limit)
{
	size_t j = i + 1;

	while (j < limit && set->page[j] == set->page[j - 1] + 1)
		j++;
	return j - i;
}

/* Merging what a scan of [0, end) found, in address order. */
struct ms_merge {
	struct ms_retained *set;
	size_t next, out; /* old entries read, new entries written */
	size_t visible;	  /* old entries below the end of the scan */
	size_t fresh;	  /* pages admitted */
	bool changed;	  /* the new entries are in the spare arrays from `split` on */
	size_t split;
};

MS_HIDDEN void ms_retained_merge_begin(struct ms_merge *merge, struct ms_retained *set, size_t end);
/* Pages [first, end) are private. Returns how many of them, from the start, are in the set now;
 * those that follow immediately are not, because there is no room: call again behind what was
 * refused. */
MS_HIDDEN size_t ms_retained_merge_add(struct ms_merge *merge, size_t first, size_t end);
/* What no run named has left the set. */
MS_HIDDEN void ms_retained_merge_end(struct ms_merge *merge);

#endif
