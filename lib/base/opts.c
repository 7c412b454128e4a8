/* SPDX-License-Identifier: MIT */
/*
 * opts.c - the one intake for option structs, and its mirror for output structs.
 *
 * Invariant: all-zero is the default for ever; a struct of any older or newer header is either
 * understood completely or refused. As openat2(2) and clone3(2) do it.
 */
#include "opts.h"

#include <errno.h>
#include <string.h>

#include <memslot/base.h>

/* Nothing that we will ever call options is longer; a longer tail is not looked at. */
#define OPTS_MAX 4096

struct opts_head {
	uint32_t size, flags;
};

int ms_opts_take(
	void *taken, size_t taken_size, size_t first_size, uint32_t known_flags, const void *opts)
{
	struct opts_head head = {.size = (uint32_t)taken_size};

	if (opts)
		memcpy(&head, opts, sizeof head.size);
	if (head.size < first_size)
		return -EINVAL;
	if (head.size > OPTS_MAX)
		return -E2BIG;
	if (head.size > taken_size &&
		!ms_util_is_zero((const char *)opts + taken_size, head.size - taken_size))
		return -E2BIG;
	memset(taken, 0, taken_size);
	if (opts)
		memcpy(taken, opts, ms_min(head.size, taken_size));
	memcpy(&head, taken, sizeof head);
	return head.flags & ~known_flags ? -EINVAL : 0;
}

int ms_opts_give(void *out, const void *filled, size_t filled_size)
{
	uint32_t size;

	memcpy(&size, out, sizeof size);
	if (size < sizeof(struct opts_head))
		return -EINVAL;
	/* The caller's size stays; what only a newer header knows is left as it was. */
	memcpy((char *)out + sizeof size, (const char *)filled + sizeof size,
		ms_min(size, filled_size) - sizeof size);
	return 0;
}

MS_EXPORT void memslot_opts_init(void *opts, size_t size)
{
	uint32_t stored = (uint32_t)size;

	if (!opts || size < sizeof stored)
		return;
	memset(opts, 0, size);
	memcpy(opts, &stored, sizeof stored);
}
