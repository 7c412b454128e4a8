/* SPDX-License-Identifier: MIT */
/*
 * preload_inject.c - in the preload that is built for tests: MEMSLOT_TEST_FAIL=NUMBER,AT,ERRNO
 * makes the AT-th system call NUMBER of the preload's own fail, with a 1 behind it all that follow,
 * too.
 */
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor(102))) static void inject_init(void)
{
	const char *text = getenv("MEMSLOT_TEST_FAIL");
	int for_good = 0, error = 0;
	unsigned long at = 0;
	long only = 0;

	if (!text || sscanf(text, "%ld,%lu,%d,%d", &only, &at, &error, &for_good) < 3)
		return;
	ms_os_inject.only = only;
	ms_os_inject.error = error;
	ms_os_inject.for_good = for_good != 0;
	ms_os_inject.partial = at % 2;
	ms_os_inject.at = at;
}
