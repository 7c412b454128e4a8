/* SPDX-License-Identifier: MIT */
/* run.h - what run, trace and their report share: see run.c. */
#ifndef MEMSLOT_RUN_H
#define MEMSLOT_RUN_H

#include "tool.h"

#include <stdio.h>

#include <memslot/preload.h>

/* As env(1), timeout(1) and the shells have them. */
#define EXIT_OURS 125 /* we failed: the program was not started */

struct run {
	bool trace, table, trust, no_aslr;
	const char *json_path;
	FILE *json;
	char words[512]; /* of MEMSLOT_PRELOAD */
	char **command;
	struct memslot_preload_stats *page;
	int page_fd;
};

__attribute__((format(printf, 2, 3))) void add_word(struct run *run, const char *format, ...);
/* Returns the exit status. */
int run_program(struct run *run);

/* Where libmemslot-preload.so is: beside this command, or where it was installed. 0 or -errno. */
int find_preload(char *path, size_t room);

/* The statistics as JSON; mode: "strict", "lazy" or "observe". */
json_t *describe_preload(
	const struct memslot_preload_stats *stats, const char *mode, int exit_status);
/* Why the preload stood aside, MEMSLOT_PRELOAD_OFF_*, in words. */
const char *preload_off(uint64_t bit);
/* The same for people, on stderr, with a verdict. */
void print_preload(const json_t *report);

#endif
