/* SPDX-License-Identifier: MIT */
/*
 * preload_rules.h - what mmap promises, one rule a function: see preload_rules.c.
 *
 * A rule says what it sees; preload.py runs it plainly, so the kernel answers, and under the
 * preload, and compares. Nothing that is said may depend on addresses.
 */
#ifndef PRELOAD_RULES_H
#define PRELOAD_RULES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define SIZE (64 * MIB) /* of a reservation */
#define PAGE ((size_t)4096)

struct rule {
	const char *name;
	void (*run)(void);
};

extern const struct rule rules_use[], rules_map[], rules_calls[], rules_process[], rules_raw[],
	rules_limits[], rules_odd[], rules_random[], rules_threads[]; /* each ends with a NULL name */

/* A line of what the program sees. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The result of a call: 0, or the name of errno. */
void say_result(const char *what, long result);
/* "ok", or the signal that an access raises. */
const char *read_at(const volatile void *at);
const char *write_at(volatile void *at);
/* Where is the first byte that is not zero? */
void say_zero(const char *what, const void *memory, size_t size);

/* PROT_NONE address space; ends the program where there is none. */
char *reserve(size_t size);
int open_part(char *memory, size_t size);
/* A tenant: reserve SIZE, open so much, write all of it, unmap. Where it was. */
char *tenant(size_t opened);
/* Reserve, open and fill with a byte. */
char *filled(size_t opened, int byte);
/* The flags of a mapping that a tenant could have left behind, and its permissions and name. */
void say_flags(const char *what, const void *at);
/* Run in a child, wait, say how it ended. */
void in_child(void (*run)(char *memory), char *memory);
void in_raw_child(void (*run)(char *memory), char *memory);
/* A life that complains, in `wrong`, only when it sees what it must not see. */
void quiet_life(size_t opened);
extern atomic_uint wrong;
extern _Atomic(char *) current; /* the memory of the last such life of any thread */
uint64_t random_below(uint64_t *state, uint64_t limit);
unsigned rounds(unsigned count);

#endif
