/* SPDX-License-Identifier: MIT */
/* policy.h - AUTO: which way to reset is cheapest. See policy.c. */
#ifndef MS_POLICY_H
#define MS_POLICY_H

#include "base/util.h"

/* What this machine charges, in ns; measured once per process (price.c). */
struct ms_prices {
	float fault;	 /* first write to a dropped page */
	float drop_call; /* madvise(DONTNEED), base */
	float drop_page; /* and for each page it drops */
	float restore;	 /* copy one retained page */
	float scan;	 /* one scan that finds little */
};

MS_HIDDEN const struct ms_prices *ms_price_list(void);

struct memslot_slot;

struct ms_policy {
	bool drop;	     /* DROP mode; else KEEP */
	bool inspecting;     /* compare every retained page */
	bool trial;	     /* KEEP on probation after DROP */
	bool useful;	     /* this inspection evicted a good part */
	bool scanned;	     /* once at least */
	uint8_t clean_tries; /* cleanings in a row that did not help, up to 6 */
	uint32_t looks;	     /* inspected runs of this inspection */
	uint32_t drops;	     /* dropping runs until the next trial */
	uint32_t drops_left;
	uint32_t since_trial; /* runs */
	uint32_t clean_pause; /* scans until the stretches may be cleaned again */
	uint32_t timed;	      /* restores since the last one that was timed */
	float credit;	      /* sampler: retained pages copied, not yet paid with a look */
	float waste;	      /* rents that samples say were paid for nothing */
	float doubt;	      /* how much waste it takes to inspect */
	float loss;	      /* CUSUM of what keeping cost beyond dropping */
	float restore_ns; /* one retained page, measured */
	float scan_ns;	  /* one scan, measured */
	float scan_floor; /* the cheapest scan seen, less what it found */
	float cleaned_ns; /* scan_ns before a cleaning that is not judged yet; or 0 */
	float failed_ns;  /* scan_ns when a cleaning did not help */
	float found;	  /* pages that the last scan found */
	float judged;	  /* retained pages at the last judgement */
	float idle, back; /* looks at pages of age >= 1, and how many were written again */
	uint64_t random;
};

/* What one inspected run saw. */
struct ms_look {
	size_t pages; /* retained, not exempt, not hidden */
	size_t hits;  /* of them written */
	size_t fresh; /* newcomers found by the scan */
	size_t suspects;
	bool scanned;
};

enum ms_verdict { MS_VERDICT_GO_ON, MS_VERDICT_GIVE_UP };

MS_HIDDEN void ms_policy_init(struct ms_policy *policy, uint64_t seed);
/* What a slot that shows the same should start with, in one word; 0: nothing to tell. */
MS_HIDDEN uint64_t ms_policy_pack(const struct ms_policy *policy);
MS_HIDDEN void ms_policy_unpack(struct ms_policy *policy, uint64_t learnt);
/* Before anything is read: drop this time? Counts down to the next trial. */
MS_HIDDEN bool ms_policy_drops(struct ms_policy *policy);
/* How many retained pages to look at in this run (not inspecting), `pages` being restored. */
MS_HIDDEN unsigned ms_policy_samples(struct ms_policy *policy, size_t pages);
/* A sample was clean or not. */
MS_HIDDEN void ms_policy_sampled(struct ms_policy *policy, size_t pages, bool clean);
MS_HIDDEN uint64_t ms_policy_random(struct ms_policy *policy);
/* Age from which a page is cold. */
MS_HIDDEN unsigned ms_policy_cold_age(const struct ms_policy *policy);
/* Below this age a page is no suspect. */
MS_HIDDEN unsigned ms_policy_suspect_age(const struct ms_policy *policy);
MS_HIDDEN enum ms_verdict ms_policy_look(struct ms_policy *policy, const struct ms_look *look);
/* Is it worth evicting `cold` pages by `calls` drops? */
MS_HIDDEN bool ms_policy_evicts(
	const struct ms_policy *policy, size_t cold, size_t calls, bool scanned);
MS_HIDDEN void ms_policy_evicted(struct ms_policy *policy, size_t cold, size_t before);
/* The end of an inspected run that did not give up. */
MS_HIDDEN void ms_policy_judge(struct ms_policy *policy, size_t pages, size_t suspects);
/* Measurements. */
MS_HIDDEN bool ms_policy_times_restore(struct ms_policy *policy, size_t pages);
MS_HIDDEN void ms_policy_restored(struct ms_policy *policy, size_t pages, uint64_t ns);
MS_HIDDEN void ms_policy_scanned(struct ms_policy *policy, size_t found, uint64_t ns);
/* Scans cost more than what they find explains: look whether cleaning would help. */
MS_HIDDEN bool ms_policy_cleans_soon(const struct ms_policy *policy);
/* Is one drop over `stretches` clean stretches worth what it takes off later scans? */
MS_HIDDEN bool ms_policy_cleans(struct ms_policy *policy, size_t stretches);

#endif
