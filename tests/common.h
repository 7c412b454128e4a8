/* SPDX-License-Identifier: MIT */
/*
 * common.h - what every test program shares: see common.c.
 *
 * A program defines test_suite(); common.c has main(). Environment:
 *   MEMSLOT_TEST_SEED       seed of all random numbers (printed at the start)
 *   MEMSLOT_TEST_ROUNDS     multiplies every count of random rounds, 1 by default; may be 0.2 or 50
 *   MEMSLOT_TEST_NO_FAULTS  1: no deliberate faults (valgrind)
 */
#ifndef TESTS_COMMON_H
#define TESTS_COMMON_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <memslot.h>

/* The program's tests. NULL after test_skip_all(): the whole program is skipped. */
Suite *test_suite(void);
void test_skip_all(const char *reason);

/* A TCase with a generous timeout (no test asserts time), added to the suite. */
TCase *test_case(Suite *suite, const char *name);

/* Say that the running test cannot run here: it counts as skipped. Return after it. */
void test_skip(const char *test, const char *reason);
#define SKIP_IF(condition, reason)                                                                 \
	do {                                                                                       \
		if (condition) {                                                                   \
			test_skip(__func__, reason);                                               \
			return;                                                                    \
		}                                                                                  \
	} while (0)
#define NEED_FEATURE(name) SKIP_IF(memslot_feature(name) != 1, "feature " name " is missing or off")
#define NEED_FAULTS() SKIP_IF(!test_faults_allowed(), "no deliberate faults in this run")
#define NEED_ROOT() SKIP_IF(geteuid() != 0, "needs root")

/* --- does this byte fault? --- */

enum test_access { TEST_READ, TEST_WRITE };

/* Access one byte (a write puts back what it read). The signal, or 0; ret_address (may be NULL):
 * the address that the kernel reported. */
int fault_at(const void *at, enum test_access how, void **ret_address);
bool test_faults_allowed(void);

/* Would a system call get EFAULT there? Works without faults. */
bool syscall_faults_at(const void *at);

/* `at` is readable, writable and answers to system calls / is none of it. In a run without faults
 * the second checks nothing. Printed with the line of the caller. */
#define assert_open(at) ck_assert_msg(test_is_open(at), "%s should be accessible", #at)
#define assert_closed(at) ck_assert_msg(test_is_closed(at), "%s should fault", #at)
bool test_is_open(const void *at);
bool test_is_closed(const void *at);

/* Built with a sanitizer, which maps and faults on its own account? */
bool test_sanitized(void);

/* --- random numbers, rounds --- */

struct test_rng {
	uint64_t state;
};

struct test_rng test_rng(uint64_t salt); /* of the seed of this run */
uint64_t test_seed(void);
uint64_t test_next(struct test_rng *rng);
uint64_t test_below(struct test_rng *rng, uint64_t limit); /* 0 .. limit - 1 */
/* `count` scaled, at least 1; a tenth of it in one of many runs that are much alike: with a single
 * feature off, under a sanitizer, under valgrind; 0.4 of it with all features off. */
unsigned test_rounds(unsigned count);
bool test_is_brief(void); /* such a run, and MEMSLOT_TEST_ROUNDS below 10 */

/* --- what the process has --- */

size_t test_page(void);
unsigned test_fd_count(void);
unsigned test_vma_count(const void *start, size_t size);	  /* mappings that touch the range */
uint64_t test_swapped(const void *start, size_t size);		  /* pages that are in swap */
bool test_vma_flag(const void *address, const char *two_letters); /* VmFlags of /proc/self/smaps */
uint64_t test_faults(void);					  /* this thread's counter */
bool test_has_swap(void);
/* A swap file for this run, where root may make one; test_swap_end undoes it. For unchecked
 * fixtures: they run once, in the parent. */
void test_swap_begin(void);
void test_swap_end(void);

/* --- other processes --- */

/* Run in a forked child (raw clone(2) with test_in_clone): its exit status, or -signal. */
int test_in_child(int (*run)(void *argument), void *argument);
int test_in_clone(int (*run)(void *argument), void *argument);
/* May clone(2) share memory with a child here? ThreadSanitizer and valgrind cannot follow that. */
bool test_knows_clone(void);
/* In a child, where ck_assert would speak for the parent. */
#define child_check(condition)                                                                     \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			test_child_failed(__FILE__, __LINE__, #condition);                         \
			return 1;                                                                  \
		}                                                                                  \
	} while (0)
void test_child_failed(const char *file, int line, const char *condition);
/* This program anew, as `PROGRAM word`: test_again() of it gets the word. Exit status or -signal. */
int test_run_again(const char *word, const char *disable);
int test_again(const char *word);
/* A program that takes arguments of its own: what main() does when there are any. */
int test_program(int argc, char **argv);

/* --- contents --- */

/* A byte that tells place and tag: what tests write and compare. Never 0. */
unsigned char test_byte(uint64_t place, unsigned tag);
void test_fill(void *memory, size_t size, unsigned tag);
bool test_filled(const void *memory, size_t size, unsigned tag);
bool test_zero(const void *memory, size_t size);
bool test_same(const void *a, const void *b, size_t size); /* prints the first difference */

#endif
