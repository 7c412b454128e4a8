/* SPDX-License-Identifier: MIT */
/*
 * interp_rogue.c - requests that misbehave or leave files open: each is rewound, and the next one
 * finds nothing of it.
 *
 * Invariant: after every one that misbehaves the heap is whole, and a request is right.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <string.h>

static int one_rogue(struct guest *guest, const struct rogue *rogue, struct interp_counts *counts)
{
	struct request request = {.text = rogue->text, .size = strlen(rogue->text)};
	enum interp_end end = guest_answer(guest, &request);
	int error = guest_rewind(guest);

	counts->rogues[end]++;
	if (!error)
		error = memslot_heap_check(guest->heap);
	if (error)
		complain(error, "after a request that %s", rogue->name);
	else if (end != rogue->end)
		complain(0, "a request that %s ended another way: %d", rogue->name, end);
	else if (guest_right(guest, 1))
		return guest_rewind(guest);
	else
		complain(0, "it came after one that %s", rogue->name);
	return error ? error : -EPROTO;
}

int interp_rogues(struct guest *guest, struct interp_counts *counts)
{
	const struct interp *interp = guest->run->interp;

	for (size_t i = 0; i < interp->rogue_count; i++) {
		int error = one_rogue(guest, &interp->rogues[i], counts);

		if (error)
			return error;
		counts->right_after++;
	}
	return 0;
}

static int one_opener(struct guest *guest, struct interp_counts *counts)
{
	const struct interp *interp = guest->run->interp;
	struct request request = {.text = interp->opener, .size = strlen(interp->opener)};
	uint64_t opened = guest->opened;
	enum interp_end end = guest_answer(guest, &request);

	counts->openers++;
	counts->opened += guest->opened - opened;
	counts->left_open += guest_files(guest);
	if (end != ANSWERED)
		guest_complain(guest, end);
	else if (request.count == 1 && request.answer_size == 1 && *request.answer == '2')
		return guest_rewind(guest);
	else
		complain(0, "a request that opens files answered '%.*s'", (int)request.answer_size,
			request.answer);
	return -EPROTO;
}

int interp_openers(struct guest *guest, uint64_t requests, struct interp_counts *counts)
{
	int error = 0;

	for (uint64_t i = 0; i < requests && !error; i++)
		error = one_opener(guest, counts);
	return error;
}
