/* SPDX-License-Identifier: MIT */
/*
 * host.h - the parts of memslot host, a small host of plug-ins.
 *
 *   generator -> queue -> worker: acquire -> guest -> check -> release
 *                  ^                           |
 *                  +------- handed over -------+ another worker goes on
 *
 * A plug-in is an image. A guest is a run of one in a slot of the host's pool: it reads and writes
 * its memory and leaves an answer there. Each worker keeps plain copies of all plug-ins' memory,
 * lets the same program run in them, and compares.
 */
#ifndef MEMSLOT_HOST_H
#define MEMSLOT_HOST_H

#include "tool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include <memslot.h>

#define MAX_PLUGINS 16
#define MAX_WORKERS 64
#define MAX_SLOTS 256
#define QUEUE_SIZE 64
#define ANSWER 64 /* bytes, the last ones of a guest's memory */
#define STEPS 32  /* that a guest makes in a part of its work */

/* What a request makes its guest do. */
enum kind {
	ASK,	   /* its work */
	HAND_OVER, /* the second part of it on another thread */
	RUN_OFF,   /* write where it has no memory */
	FILL,	   /* ask for more memory until there is none */
	FORK,	   /* go on in a child, too */
	FOREIGN,   /* fault somewhere that is none of the host's business */
	KINDS
};

struct plugin {
	const char *name;
	struct memslot_image *image;
	struct memslot_slot *model;    /* shows it, for good */
	const unsigned char *contents; /* there: `size` bytes */
	size_t size;		       /* a guest's memory at first */
};

struct request {
	enum kind kind;
	unsigned plugin;
	uint64_t number, seed;
	struct memslot_slot *slot; /* handed over; else NULL */
	unsigned worker;	   /* who acquired it */
};

/* What happened, and how often. */
struct counts {
	uint64_t done[KINDS];
	uint64_t acquired, released, released_elsewhere, out_of_slots;
	uint64_t beyond_edge, guard_after, guard_before; /* where guests ran off to */
	uint64_t out_of_memory, children, foreign, late_releases;
	uint64_t compared; /* bytes */
	uint64_t failed, wrong;
};

struct host {
	uint64_t requests, seed;
	unsigned workers, slots;
	bool json, verify;

	struct plugin plugins[MAX_PLUGINS];
	unsigned plugin_count;
	size_t capacity;
	struct memslot_pool *pool;

	pthread_mutex_t lock;
	pthread_cond_t filled, emptied;
	struct request queue[QUEUE_SIZE], handed[MAX_SLOTS];
	unsigned first, count, handed_count, busy;
	bool closed;
	atomic_int status; /* the worst so far */

	uint64_t asked[KINDS]; /* generated */
	struct counts counts;  /* of all workers */
	double seconds;
};

/* What a guest's step wrote, so that a plain copy can be put right again. */
struct trace {
	size_t count;
	uint32_t offsets[2 * STEPS + 2 * ANSWER / 8];
};

/* A guest that runs: where its faults lead. */
struct visit {
	sigjmp_buf back;
	struct memslot_location location;
};

struct worker {
	struct host *host;
	unsigned number;
	pthread_t thread;
	unsigned char *copies[MAX_PLUGINS]; /* plain memory, as the plug-ins' contents */
	unsigned char *page;		    /* PROT_NONE: the application's */
	struct counts counts;
	struct visit visit;
};

/* --- host_guest.c --- */

/* One part of a guest's work in its slot, from the request's random numbers. */
void guest_work(const struct worker *worker, const struct request *request, unsigned part);
/* All parts so far in the worker's plain copy, compared with the slot. False: a wrong byte (said).
 */
bool guest_agrees(struct worker *worker, const struct request *request, unsigned parts);
/* Does the slot show the plug-in's contents, every byte? False: it does not (said). */
bool guest_is_fresh(struct worker *worker, const struct request *request);
/* Guests that misbehave, after the first part of their work. 0, or an exit status (said). */
int guest_run_off(struct worker *worker, const struct request *request);
int guest_fill(struct worker *worker, const struct request *request);
int guest_fork(struct worker *worker, const struct request *request);
int guest_foreign(struct worker *worker, const struct request *request);

/* --- host_fault.c --- */

/* SIGSEGV: first the application's handler, then the host's in front of it. 0 or -errno. */
int fault_set_up(struct host *host);
void fault_tear_down(void);
/* Write a byte as the guest of this visit: 0, or 1 when it faulted and visit->location tells where.
 */
int fault_write(struct visit *visit, unsigned char *address);
/* Pages that the application protects and opens on a fault, and how often it did. */
uint64_t fault_application_count(void);
int fault_application_page(unsigned char **ret_page);
int fault_application_close(unsigned char *page);

/* --- host_work.c --- */

/* Serve all requests. 0, or an exit status. */
int host_serve(struct host *host);

/* --- host_report.c --- */

/* Is the sum right? Says what is not. */
bool host_adds_up(const struct host *host, const struct memslot_pool_stats *stats);
void host_report(const struct host *host, const struct memslot_pool_stats *stats);
extern const char *const kind_names[KINDS];

#endif
