/* SPDX-License-Identifier: MIT */
/*
 * interp.h - memslot lua and memslot duk: an interpreter that is booted once, and requests that
 * start there.
 *
 *   interp.c          the command lines         lua_guest.c   Lua; lua_none.c where there is none
 *   interp_measure.c  boot, fork, rewind        duk_guest.c   Duktape; duk_none.c
 *   interp_pool.c     workers on threads        interp_guest.c  what both have: memory, files,
 *   interp_rogue.c    who misbehaves, and                       rewinds
 *                     who leaves files open     interp_report.c what came out
 *   interp_replay.c   allocators alone        interp_fork.c    a process to fork
 *   interp_saved.c    in a file
 */
#ifndef MEMSLOT_INTERP_H
#define MEMSLOT_INTERP_H

#include "saved.h"

#include <setjmp.h>

#include <memslot.h>

#define INTERP_CAPACITY (16 * MIB)
#define INTERP_ROUNDS 15
#define INTERP_ANSWER 1024
#define INTERP_FILES 32 /* that a request may have open */
#define INTERP_OPENERS 10000
#define INTERP_IN_A_ROW 20
#define INTERP_THREADS 64
#define INTERP_REFUSALS 16  /* of memory to a request: collecting in vain takes long */
#define INTERP_INTERRUPTS 8 /* where an interpreter asks whether it may go on */
#define INTERP_NAME 64

/* How a request ended. */
enum interp_end { ANSWERED, RAISED, NO_MEMORY, DEADLINE, INTERP_ENDS };

/* What is timed, in nanoseconds each. */
enum interp_what {
	BOOT,	     /* system malloc: a new interpreter and one request */
	FORK,	     /* a child of a booted process, one request, waited for */
	REWIND,	     /* one request and a reset */
	RESET,	     /* that reset alone */
	BOOT_HEAP,   /* a new interpreter in a heap, no request */
	BOOT_MALLOC, /* the same with the system malloc */
	RUN_HEAP,    /* INTERP_IN_A_ROW requests of a new interpreter, one upon the other */
	RUN_MALLOC,
	CALLS_HEAP, /* what boot and those requests asked of the allocator */
	CALLS_MALLOC,
	INTERP_WHATS
};

struct request {
	const char *text; /* NULL: the script that was compiled at boot */
	size_t size;
	long long count; /* of the global counter, after this request */
	char answer[INTERP_ANSWER];
	size_t answer_size;
};

/* Requests that misbehaved, by how they ended, and what came after them; files. */
struct interp_counts {
	uint64_t rogues[INTERP_ENDS], right_after;
	uint64_t openers, opened, left_open; /* closed by the host */
};

struct interp_run {
	const struct interp *interp;
	uint64_t requests, threads;
	bool json;
	enum saved_mode mode;
	const char *file; /* to save or open */
	const char *path; /* of the script, or NULL */
	char *script;
	size_t script_size;

	/* What every request has to answer, as the first interpreter did. */
	char answer[INTERP_ANSWER];
	size_t answer_size;
	/* What was booted. */
	char library[INTERP_NAME];
	struct memslot_heap_stats heap;
	uint64_t image_bytes;
	/* What was measured. */
	double median_ns[INTERP_WHATS];
	uint64_t samples[INTERP_WHATS];
	double pages_restored; /* a reset */
	struct trace *trace;   /* guests that are booted now are recorded in it; or NULL */
	uint64_t calls;	       /* of the allocator, recorded */
	struct memslot_slot_stats slot;
	struct interp_counts counts;
	uint64_t descriptors_before, descriptors_after; /* of the openers */
	/* The pool's. */
	uint64_t slots, boots, pool_requests, pool_ns;
	struct interp_counts pool_counts;
};

/*
 * A booted interpreter. It lies outside the slot and stays where it is: its address is the
 * interpreter's context.
 */
struct guest {
	struct interp_run *run;
	struct memslot_slot *slot; /* NULL: its memory is the system malloc's */
	struct memslot_heap *heap;
	void *state;
	struct trace *trace;	   /* of its memory, or NULL */
	char library[INTERP_NAME]; /* what was loaded */
	/* Of a request, what is left; 0: not counted. */
	unsigned refusals, interrupts;
	jmp_buf leave;
	enum interp_end left;
	int files[INTERP_FILES];
	unsigned file_count;
	uint64_t opened;
};

/* --- lua_guest.c, duk_guest.c: the interpreters, whatever their memory is --- */
struct rogue {
	const char *name;
	enum interp_end end;
	const char *text;
};

struct interp {
	const char *name;
	const char *missing; /* what it was built without; then the rest is NULL */
	/* Libraries loaded, script compiled, collector stopped, names the library. Complains. */
	bool (*boot)(struct guest *guest);
	enum interp_end (*answer)(struct guest *guest, struct request *request);
	/* Of the last answer: what was raised, or NULL. */
	const char *(*raised)(struct guest *guest);
	/* Only of one whose requests all ended by themselves. */
	void (*close)(struct guest *guest);
	const char *script; /* what a request is by default */
	const char *opener; /* opens three files, closes one, and answers "2" */
	const struct rogue *rogues;
	size_t rogue_count;
};

extern const struct interp lua_interp, duk_interp;

/* --- interp_guest.c --- */
/* As realloc; size 0 frees. */
void *guest_realloc(struct guest *guest, void *ptr, size_t size);
/* Give up a request, or the boot, from wherever it is: its interpreter can only be rewound. */
void guest_leave(struct guest *guest, enum interp_end end) __attribute__((noreturn));
/* A file's contents, to be freed, or NULL and errno; of more than 1 MiB EFBIG. */
char *guest_source(const char *path, size_t *ret_size);
/* For reading. A number for the guest, or -errno. */
int guest_open(struct guest *guest, const char *path);
/* Bytes read, or -errno; -EBADF is none of the guest's. */
ssize_t guest_read(struct guest *guest, long long file, void *bytes, size_t size);
int guest_close(struct guest *guest, long long file);
/* How many it has open. */
unsigned guest_files(const struct guest *guest);
/* A new interpreter; with a slot it is in a heap there. 0 or -errno; -EPROTO: has complained. */
int guest_boot(struct guest *guest, struct interp_run *run, struct memslot_slot *slot);
/* The same, and the slot's image is of that moment. ret_image may be NULL. */
int guest_checkpoint(struct guest *guest, struct interp_run *run, struct memslot_slot *slot,
	struct memslot_image **ret_image);
enum interp_end guest_answer(struct guest *guest, struct request *request);
/* One request of the script, and is it right, and the nth of its interpreter? Complains. */
bool guest_right(struct guest *guest, long long nth);
/* One that did not answer: say so. */
void guest_complain(struct guest *guest, enum interp_end end);
/* Close what was left open, and rewind. */
int guest_rewind(struct guest *guest);

/* --- interp_rogue.c: in a booted slot; 0 or -errno; -EPROTO: has complained --- */
/* Each kind once, each is rewound, and the next request is right. */
int interp_rogues(struct guest *guest, struct interp_counts *counts);
/* Requests that leave files open. */
int interp_openers(struct guest *guest, uint64_t requests, struct interp_counts *counts);

/* --- interp_fork.c: 0 or -errno; -EPROTO: has complained --- */
struct forker {
	pid_t process;
	int socket;
};
int forker_start(struct forker *forker, struct interp_run *run);
/* One request in a child of it. */
int forker_ask(const struct forker *forker, uint64_t *ret_ns);
/* Also one that did not start. */
void forker_stop(struct forker *forker);

/* --- interp_replay.c --- */
/* 0 or -errno; -EPROTO: has complained. */
int trace_record(struct interp_run *run, struct trace **ret_trace);
void *trace_realloc(struct trace *trace, void *ptr, size_t size);
/* The same calls with the guest's memory, which is left empty. */
int trace_replay(struct trace *trace, struct guest *guest, uint64_t *ret_ns);
void trace_free(struct trace *trace);

/* --- interp_pool.c --- */
/* Workers that take slots from a pool; the pool is clean afterwards. 0 or -errno, as above. */
int interp_pool(struct interp_run *run);

/* --- interp_measure.c: everything; an exit status. --- */
int interp_measure(struct interp_run *run);

/* --- interp_saved.c: from and to files, by the command's name; an exit status. --- */
int interp_saved(struct interp_run *run, const char *command);

/* --- interp_report.c --- */
void interp_report(const struct interp_run *run);

#endif
