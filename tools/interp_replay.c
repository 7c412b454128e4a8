/* SPDX-License-Identifier: MIT */
/*
 * interp_replay.c - what an interpreter asked of its allocator, asked again: allocators alone.
 *
 *   recorded:  boot, a request, INTERP_IN_A_ROW more; each object has its number in front of it
 *   replayed:  the same calls in the same order; of each object one byte is written
 *
 * Invariant: both allocators are given the same calls, and start empty, with memory that has been
 * used before.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <stdlib.h>

struct call {
	uint32_t object, size; /* 0: free */
};

struct trace {
	struct call *calls;
	size_t count, room;
	uint32_t objects;
	bool full; /* no memory for more of it */
	void **live;
};

/* In front of a recorded object. */
struct number {
	_Alignas(16) uint32_t object;
};

static void note(struct trace *trace, uint32_t object, size_t size)
{
	if (trace->count == trace->room) {
		size_t room = trace->room ? 2 * trace->room : 65536;
		struct call *calls = realloc(trace->calls, room * sizeof(*calls));

		if (!calls) {
			trace->full = true;
			return;
		}
		trace->calls = calls;
		trace->room = room;
	}
	trace->calls[trace->count++] = (struct call){object, (uint32_t)size};
}

void *trace_realloc(struct trace *trace, void *ptr, size_t size)
{
	struct number *number = ptr ? (struct number *)ptr - 1 : NULL, *moved;
	uint32_t object = number ? number->object : trace->objects;

	if (!number && size == 0)
		return NULL;
	note(trace, object, size);
	if (size == 0) {
		free(number);
		return NULL;
	}
	moved = realloc(number, sizeof(*number) + size);
	if (!moved)
		return NULL;
	trace->objects += !number;
	moved->object = object;
	return moved + 1;
}

void trace_free(struct trace *trace)
{
	if (!trace)
		return;
	free(trace->calls);
	free(trace->live);
	free(trace);
}

int trace_record(struct interp_run *run, struct trace **ret_trace)
{
	struct trace *trace = calloc(1, sizeof(*trace));
	struct guest guest;
	bool right = true;
	int error;

	if (!trace)
		return -ENOMEM;
	run->trace = trace;
	error = guest_boot(&guest, run, NULL);
	run->trace = NULL;
	for (int i = 0; i <= INTERP_IN_A_ROW && right && !error; i++)
		right = guest_right(&guest, 1 + i);
	run->calls = trace->count;
	if (!error && right)
		run->interp->close(&guest);
	trace->count = run->calls; /* closing is not replayed */
	trace->live = calloc(trace->objects, sizeof(*trace->live));
	if (!error && !right)
		error = -EPROTO;
	if (!error && (trace->full || !trace->live))
		error = -ENOMEM;
	if (error)
		trace_free(trace);
	else
		*ret_trace = trace;
	return error;
}

int trace_replay(struct trace *trace, struct guest *guest, uint64_t *ret_ns)
{
	uint64_t began = clock_ns();
	int error = 0;

	for (size_t i = 0; i < trace->count; i++) {
		const struct call *call = &trace->calls[i];
		char *moved = guest_realloc(guest, trace->live[call->object], call->size);

		trace->live[call->object] = moved;
		if (moved)
			*moved = 1;
		else if (call->size)
			error = -ENOMEM;
	}
	*ret_ns = clock_ns() - began;
	for (uint32_t i = 0; i < trace->objects; i++) {
		guest_realloc(guest, trace->live[i], 0);
		trace->live[i] = NULL;
	}
	return error;
}
