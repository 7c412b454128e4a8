/* SPDX-License-Identifier: MIT */
/*
 * churn.h - the parts of memslot churn.
 *
 *   options -> workloads x variants -> blocks (measure) -> cells -> summary -> report, JSON
 *
 * A cycle is what a runtime does for one instance: make the memory ready, let the instance write,
 * put everything back. A variant is one way to do it: the library's reset methods and the
 * references, with a slot of their own or (--pool) through a pool. A workload says which words each
 * run writes. A block is a stretch of cycles of one variant; blocks of all variants take turns, one
 * of each in a round.
 */
#ifndef MEMSLOT_CHURN_H
#define MEMSLOT_CHURN_H

#include "tool.h"

#include <jansson.h>

#include <memslot.h>

#define MAX_PHASES 4
#define MAX_VARIANTS 24
#define MAX_ROUNDS 64
#define MAX_THREADS 64
#define MAX_IMAGES 64
#define POOL_SHARES 12	 /* of the time, for what --pool measures besides the workloads */
#define FIRST_CYCLES 100 /* after a phase change these are also told apart */

struct gallery;

/* --- settings --- */

struct settings {
	const char *image_path, *image_name;
	unsigned char *contents; /* contents_size bytes, of which an image is image_size */
	size_t contents_size, image_size, capacity, size, at;
	size_t image_start; /* of the contents in image_fd */
	int image_fd;	    /* the contents again, sealed: what the references map */
	int pagemap_fd;	    /* -1: none */
	bool confined, json, colour, progress, quick;
	unsigned rounds, threads;
	size_t cycles;				      /* of a phase */
	double seconds;				      /* aimed at, in all */
	const char *workloads, *references, *methods; /* lists of names; NULL: the default */

	/* through a pool */
	bool pool;
	unsigned slots;			/* the pool's */
	uint64_t max_warm, idle_budget; /* as in memslot_pool_opts */
	const struct gallery *gallery;	/* NULL: one image */
};

/*
 * Images of many tenants: each begins a page further in the contents than the one before. They come
 * by turns, or, where some are favoured, nine of ten times one of those.
 */
struct gallery {
	unsigned count, favoured;
	struct memslot_image *images[MAX_IMAGES];
	struct settings settings[MAX_IMAGES]; /* what each one's contents are compared with */
};

/* --- workloads --- */

/* One word that the instance writes: never what the image has there. */
struct touch {
	uint32_t offset, value;
};

/* What one instance does. */
struct run {
	const struct touch *touches;
	size_t count;
	size_t grow; /* bytes added to the size before writing */
	size_t read; /* bytes read before writing */
};

/* Runs of one kind, cycled through. */
struct phase {
	const char *name;
	struct run *runs;
	size_t run_count;
	bool once; /* a single run that is not timed: what comes after it is */
};

struct workload {
	const char *name, *title;
	struct phase phases[MAX_PHASES];
	size_t phase_count;
	size_t size;	       /* accessible before growth */
	unsigned pages;	       /* the first so many, in every run; else 0 */
	struct touch *touches; /* owned: what the runs point into */
	struct run *runs;
};

/* Is it in the list? NULL: the default set; "all". */
bool workload_chosen(const char *list, size_t index);
size_t workload_count(void);
const char *workload_name(size_t index);
const char *workload_title(size_t index);
/* Expand a workload. 0, or an exit status: out of memory, or it does not fit (both said). */
int workload_make(size_t index, const struct settings *settings, struct workload *ret_workload);
/* The same for one that there is, by name. */
int workload_find(const char *name, const struct settings *settings, struct workload *ret_workload);
void workload_free(struct workload *workload);

/* --- variants --- */

struct instance;

struct backend {
	int (*open)(struct instance *instance);
	/* Make ready for a run: everything that comes before the first write. */
	int (*begin)(struct instance *instance, size_t grow);
	/* Put everything back. */
	int (*end)(struct instance *instance);
	void (*close)(struct instance *instance);
	/* Many instances can be open on what one of them has: instance_join. */
	bool shared;
};

struct variant {
	const char *name, *title;
	const struct backend *backend;
	uint64_t budget; /* references: bytes kept resident */
	uint32_t method; /* the library: MEMSLOT_RESET_* */
	bool reference;
	bool by_default;
	bool needs_scan; /* PAGEMAP_SCAN */
	bool pool;	 /* only there with --pool; of the methods only such ones are there then */
};

/* What the references need of the process: the sealed image, the page map. 0 or -errno. */
int reference_setup(struct settings *settings);
bool reference_can_scan(const struct settings *settings);

/* The state of one of the references: reference.c. */
struct reference {
	unsigned char *reservation;
	size_t accessible; /* the edge: below it read-write */
};

/* One variant's memory. */
struct instance {
	const struct variant *variant;
	const struct settings *settings;
	unsigned char *base; /* may move in begin */
	size_t size, capacity;
	uint64_t calls;		     /* system calls so far */
	struct memslot_image *image; /* borrowed */
	struct memslot_slot *slot;
	struct reference reference;
	const struct instance *owner; /* of pool and allocator; NULL: this one */
	struct memslot_pool *pool;
	struct allocator *allocator;
	struct lot *lot; /* the allocator's, from begin to end */
	const struct gallery *gallery;
	unsigned picked; /* the image's number in it */
	uint64_t turn;
};

extern const struct backend slot_backend;		   /* variant.c */
extern const struct backend pooled_backend, remap_backend; /* reference.c */
extern const struct backend lent_backend;		   /* lent.c */
extern const struct backend allocator_backend;		   /* allocator.c */
extern const struct variant variants[];
extern const size_t variant_count;

bool variant_chosen(const struct variant *variant, const struct settings *settings);
/* Does this kernel have what the variant needs? */
bool variant_possible(const struct variant *variant, const struct settings *settings);
int instance_open(struct instance *instance, const struct variant *variant,
	const struct settings *settings, struct memslot_image *image, size_t size);
/* Another one on the pool or allocator of `owner`, which stays open for longer. */
int instance_join(struct instance *instance, const struct instance *owner);
void instance_close(struct instance *instance);
/* System calls so far. */
uint64_t instance_calls(const struct instance *instance);
/* What a table calls a variant in front of its name. */
const char *variant_prefix(const struct variant *variant);

/* The next tenant: its image, and what it is compared with. */
void gallery_pick(struct instance *instance);
/* A reference's slot shows another image of the same size: settings->image_start. */
int reference_show(struct instance *instance);

/* --- verifying: 0, EXIT_WRONG_BYTE (said), or -errno --- */

/* Compare what is in memory with the image: looks at no page that is not there. */
int verify_resident(const struct instance *instance, size_t size, const char *workload);
/* Compare every byte, in a child process, so that nothing here is touched. */
int verify_all(const struct instance *instance, size_t size, const char *workload);

/* --- measuring --- */

/* What the blocks of one variant in one workload came to: medians over the rounds, ns a cycle. */
struct cell {
	bool measured;
	double median, mean, p99, p999, faults, calls; /* negative: not known */
	double phase_mean[MAX_PHASES], first_mean[MAX_PHASES];
	uint64_t cycles; /* timed, in all */
	struct memslot_slot_stats stats;
	struct memslot_pool_stats pool; /* size 0: none */
};

struct result {
	const char *name, *title;
	unsigned pages, rounds;
	size_t phase_count;
	const char *phase_names[MAX_PHASES];
	bool phase_once[MAX_PHASES];
	struct cell cells[MAX_VARIANTS];
};

/* Throughput of threads with a slot each, or that share a pool. */
struct scaling {
	const struct variant *variant;
	unsigned threads;
	double rate[MAX_THREADS];  /* [n - 1]: cycles a second with n threads, all together */
	double ratio[MAX_THREADS]; /* to one thread: the median of each turn's */
};

struct churn {
	struct settings settings;
	const struct variant *variants[MAX_VARIANTS];
	size_t variant_count;
	struct result *results;
	size_t result_count;
	struct scaling scaling[MAX_VARIANTS];
	size_t scaling_count;
	struct memslot_image *image;
	double clock_cost; /* of one reading, ns */
	char skipped[256]; /* variants that this kernel cannot do */

	/* Sections: what else is measured, each a churn of its own on the same images. */
	const char *name, *title;
	struct variant own[MAX_VARIANTS]; /* variants that only a section has */
	bool compared;
	double difference; /* of two medians, where they were compared, ns */
	struct churn *next;
};

/* Are the bytes right? With `all` every one of them, at the start of a run like this. */
int check_cycle(struct instance *instance, const struct run *run, const char *workload, bool all);
/* One cycle: get ready, read and write as the run says, put back. */
int run_cycle(struct instance *instance, const struct run *run);
/* What reading the clock twice adds to a cycle. */
double measure_clock(void);
/* Fill the result. 0, EXIT_WRONG_BYTE or -errno (all said). */
int measure_workload(const struct churn *churn, const struct workload *workload, double seconds,
	struct result *result);
/* Fill churn->scaling; as above. */
int measure_threads(struct churn *churn, const struct workload *workload, double seconds);
double median_of(double *values, size_t count);
/* Of sorted values, the one that a part of them is not above. */
double quantile_of(const double *sorted, size_t count, double part);
/* What is timed without a workload: samples of each round, then the cell. */
struct tally {
	double median[MAX_ROUNDS], mean[MAX_ROUNDS], p99[MAX_ROUNDS], p999[MAX_ROUNDS];
	size_t rounds;
	uint64_t count;
};
/* One round's samples; they are sorted. */
void tally_add(struct tally *tally, double *samples, size_t count);
void tally_finish(struct tally *tally, struct cell *ret_cell);

/* --- through a pool --- */

/* A section behind the others, with its share of the time; NULL: no memory (said). */
struct churn *section_new(struct churn *churn, const char *name, const char *title, size_t results);
/* Everything but the workloads: sections at churn->next. 0 or an exit status. */
int measure_pool(struct churn *churn, double share);
/* Two of them: cold slots, and pools of many; the drop queue. */
int measure_cold(struct churn *churn);
int measure_queue(struct churn *churn);

/* --- what it comes to --- */

struct ratios {
	size_t count;
	double geomean, worst;
	char worst_name[48];
};

struct summary {
	/* AUTO against the best reference chosen for each workload, its best single one, DONTNEED
	 * (all, and 1 to 64 pages), and the best forced method (medians, means, first cycles) */
	struct ratios best, best_mean, single, dontneed, dontneed_small, forced, forced_mean,
		forced_first, slot; /* slot: without a pool */
	const char *single_name;
};

/* The best of the references, or of the forced methods, in one workload; 0: none measured. */
double best_reference(const struct churn *churn, const struct result *result, bool mean);
double best_forced(const struct churn *churn, const struct result *result, bool mean);
/* The column of a variant by name, or NULL. */
const struct cell *cell_of(
	const struct churn *churn, const struct result *result, const char *name);
void summarise(const struct churn *churn, struct summary *ret_summary);

void report_result(const struct churn *churn, const struct result *result);
/* The line above a section's results. */
void report_section(const struct churn *section);
void report_threads(const struct churn *churn);
void report_head(const struct churn *churn);
void report_summary(const struct churn *churn);
json_t *churn_to_json(const struct churn *churn);

/* --- options --- */

/* 0, or an exit status. */
int churn_options(int argc, char **argv, struct settings *ret_settings);

#endif
