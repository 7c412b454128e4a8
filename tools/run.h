/* SPDX-License-Identifier: MIT */
/* run.h - what run, trace and their report share: see run.c. */
#ifndef MEMSLOT_RUN_H
#define MEMSLOT_RUN_H

#include "tool.h"

#include <memslot/preload.h>

/* Where libmemslot-preload.so is: beside this command, or where it was installed. 0 or -errno. */
int find_preload(char *path, size_t room);

/* The statistics as JSON; trace: with what slots would have saved. */
json_t *describe_preload(const struct memslot_preload_stats *stats, bool trace);
/* The same for people, on stderr, with a verdict. */
void print_preload(const json_t *report);

#endif
