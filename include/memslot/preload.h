/* SPDX-License-Identifier: MIT */
/*
 * preload.h - what libmemslot-preload.so counts: the page that `memslot run` shares with a program.
 *
 * No function is declared here: the preload is no library to call. The page is a file of
 * MEMSLOT_PRELOAD_BYTES bytes that MEMSLOT_PRELOAD=stats=PATH names; whoever maps it may read it at
 * any time, also after the program was killed. All processes of the program add to the same page.
 * Every number is a plain 64-bit word that only grows, unless said otherwise. See memslot-preload(7).
 *
 * Since: 0.1
 */
#ifndef MEMSLOT_PRELOAD_H
#define MEMSLOT_PRELOAD_H

#include <stdint.h>

#define MEMSLOT_PRELOAD_MAGIC 0x31746c73706d656dull
#define MEMSLOT_PRELOAD_BYTES 16384
#define MEMSLOT_PRELOAD_SHAPES 64

/* Why a reservation left our care: it is the kernel's alone from then on. */
#define MEMSLOT_PRELOAD_PARTIAL 0    /* unmapped in part, or together with something else */
#define MEMSLOT_PRELOAD_MAPPED 1     /* something was mapped over it or into it */
#define MEMSLOT_PRELOAD_PROTECTION 2 /* neither none nor read and write, or in two places */
#define MEMSLOT_PRELOAD_ADVICE 3     /* advice that cannot be taken back, or a name */
#define MEMSLOT_PRELOAD_LOCKED 4     /* locked into memory */
#define MEMSLOT_PRELOAD_MOVED 5	     /* mremap */
#define MEMSLOT_PRELOAD_FREED 6	     /* used after it was unmapped */
#define MEMSLOT_PRELOAD_TAMPERED 7   /* the kernel shows something else than we know */
#define MEMSLOT_PRELOAD_UNOPENED 8   /* unmapped without having been opened */
#define MEMSLOT_PRELOAD_FAILED 9     /* cleaning, or a call on it, failed */
#define MEMSLOT_PRELOAD_SURPLUS 10   /* more idle ones than wanted, or address space ran out */
#define MEMSLOT_PRELOAD_FEW 11	     /* tenants of this shape write too few pages to gain */
#define MEMSLOT_PRELOAD_REASONS 12

/* Why the preload stands aside in a process; bits. */
#define MEMSLOT_PRELOAD_OFF_KERNEL 1u	  /* the kernel lacks what is needed */
#define MEMSLOT_PRELOAD_OFF_LIMIT 2u	  /* RLIMIT_AS is finite */
#define MEMSLOT_PRELOAD_OFF_LOCKED 4u	  /* mlockall */
#define MEMSLOT_PRELOAD_OFF_OVERCOMMIT 8u /* vm.overcommit_memory is 2 */
#define MEMSLOT_PRELOAD_OFF_FORK 16u	  /* a raw clone in the middle of a call of ours */
#define MEMSLOT_PRELOAD_OFF_MEMORY 32u	  /* no room for our own tables */
#define MEMSLOT_PRELOAD_NOT_LAZY 64u	  /* trust was asked for, but PROCMAP_QUERY is missing */

/* Reservations of one size and kind. */
struct memslot_preload_shape {
	uint64_t key;	   /* bytes, a multiple of the page size, and 1 with MAP_NORESERVE */
	uint64_t requests; /* mmap calls */
	uint64_t hits;	   /* answered by a slot */
	uint64_t freed;	   /* unmapped whole after use */
	uint64_t live;	   /* now; falls again */
	uint64_t peak;	   /* of live */
	uint64_t opened;   /* the most bytes that were open in one */
	uint64_t pages;	   /* private pages found in those that were freed */
	uint64_t life_ns;  /* from mmap to munmap, all of them */
};

struct memslot_preload_stats {
	uint64_t magic;
	uint64_t processes; /* that began to count here */
	uint64_t off;	    /* MEMSLOT_PRELOAD_OFF_*, of any of them */
	uint64_t requests, hits;
	uint64_t misses_empty; /* no idle slot of this shape */
	uint64_t misses_other; /* the tables were full */
	uint64_t kept;	       /* slots cleaned and kept on munmap */
	uint64_t left[MEMSLOT_PRELOAD_REASONS];
	uint64_t bytes_restored;
	uint64_t bytes_dropped;
	uint64_t pages_lent;  /* resident pages in slots when they were handed out: faults avoided */
	uint64_t calls_saved; /* system calls that were not made */
	uint64_t clean_ns;
	uint64_t held_bytes; /* resident in idle slots now; falls again */
	uint64_t peak_bytes; /* of held_bytes */
	uint64_t idle;	     /* idle slots now; falls again */
	struct memslot_preload_shape shapes[MEMSLOT_PRELOAD_SHAPES];
};

#endif
