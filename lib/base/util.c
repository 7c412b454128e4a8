/* SPDX-License-Identifier: MIT */
/*
 * util.c - the page size, and looking for zeros.
 *
 * Invariant: the page size is set by a constructor, before any other code of the library can run,
 * (priority 101: before our other constructors too) and never changes; so it is read without a
 * lock.
 */
#include "util.h"

#include <string.h>
#include <sys/auxv.h>

size_t ms_util_page_size = 4096;
unsigned ms_util_page_shift = 12;

__attribute__((constructor(101))) static void util_init(void)
{
	size_t size = getauxval(AT_PAGESZ);
	if (size == 0)
		return;
	ms_util_page_size = size;
	ms_util_page_shift = (unsigned)__builtin_ctzl(size);
}

bool ms_util_is_zero(const void *bytes, size_t size)
{
	const unsigned char *at = bytes;
	/* A buffer is zero when it begins with a zero and equals itself shifted by one. */
	return size == 0 || (at[0] == 0 && memcmp(at, at + 1, size - 1) == 0);
}
