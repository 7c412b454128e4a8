/* SPDX-License-Identifier: MIT */
/*
 * util.h - arithmetic that cannot overflow silently, and the trap.
 *
 * Invariant: every size that came from outside is rounded and added through these.
 */
#ifndef MS_UTIL_H
#define MS_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MS_HIDDEN __attribute__((visibility("hidden")))
#define MS_EXPORT __attribute__((visibility("default")))
#define MS_LIKELY(x) __builtin_expect(!!(x), 1)
#define MS_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Checks that guard tenants stay in release builds (INVARIANTS 30). */
#define MS_TRAP_UNLESS(condition)                                                                  \
	do {                                                                                       \
		if (MS_UNLIKELY(!(condition)))                                                     \
			__builtin_trap();                                                          \
	} while (0)

/* Set once before main by util.c; a power of two. */
extern MS_HIDDEN size_t ms_util_page_size;
extern MS_HIDDEN unsigned ms_util_page_shift;

static inline size_t ms_page_size(void)
{
	return ms_util_page_size;
}

static inline size_t ms_pages_to_bytes(size_t pages)
{
	return pages << ms_util_page_shift;
}

static inline size_t ms_bytes_to_pages(size_t bytes)
{
	return bytes >> ms_util_page_shift;
}

static inline bool ms_page_aligned(uint64_t value)
{
	return (value & (ms_util_page_size - 1)) == 0;
}

static inline uint64_t ms_round_down(uint64_t value)
{
	return value & ~(uint64_t)(ms_util_page_size - 1);
}

/* Round up to whole pages; false when that overflows. */
static inline bool ms_round_up(uint64_t value, uint64_t *ret)
{
	uint64_t sum;
	if (__builtin_add_overflow(value, ms_util_page_size - 1, &sum))
		return false;
	*ret = ms_round_down(sum);
	return true;
}

static inline uint64_t ms_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t ms_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Are all `size` bytes zero? */
MS_HIDDEN bool ms_util_is_zero(const void *bytes, size_t size);

#endif
