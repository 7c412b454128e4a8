/* SPDX-License-Identifier: MIT */
/*
 * ranges_trace.c - what is allocated and freed: sizes as programs have them, occupancy in waves.
 *
 * Sizes are log-normal (median 4 KiB, sigma 1.6, cut to 64 B .. 1 MiB), a quarter of the requests
 * want an alignment of 64 .. 4096, what is freed is random, and the bytes asked for swing between
 * 70 and 90 % of the arena.
 *
 * Invariant: a trace depends on its seed alone, never on who runs it.
 */
#define _GNU_SOURCE
#include "ranges.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include <memslot.h>

#define SMALLEST 64.0
#define LARGEST ((uint32_t)MIB)
#define PLACES_EACH 8192u /* bytes; there are fewer ranges than arena bytes / this, twice over */
#define WAVES 4.0

struct draw {
	unsigned short state[3];
};

static uint32_t draw_below(struct draw *draw, uint64_t bound)
{
	return (uint32_t)(erand48(draw->state) * (double)bound);
}

/* G. Box, M. Muller, 1958 */
static double draw_normal(struct draw *draw)
{
	double u = 1 - erand48(draw->state), v = erand48(draw->state);

	return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

static struct ranges_step draw_request(struct draw *draw, uint32_t largest)
{
	double size = 4096 * exp(1.6 * draw_normal(draw));
	struct ranges_step step = {.align = 16};

	step.size = (uint32_t)fmax(SMALLEST, fmin(size, largest));
	if (draw_below(draw, 4) == 0)
		step.align = 64u << draw_below(draw, 7);
	return step;
}

static struct draw draw_begin(uint64_t seed)
{
	return (struct draw){{(unsigned short)seed, (unsigned short)(seed >> 16), 0x330e}};
}

/* --- the trace --- */

struct making {
	struct draw draw;
	uint32_t *places, *sizes; /* the first `live` places are taken, the others not */
	uint64_t live, bytes;
};

static struct ranges_step make_step(
	struct making *making, const struct ranges_trace *trace, double occupancy)
{
	struct ranges_step step = {0};
	uint64_t chosen;

	if ((double)making->bytes < occupancy * (double)trace->arena &&
		making->live < trace->places) {
		step = draw_request(&making->draw, LARGEST);
		step.place = making->places[making->live];
		making->sizes[making->live++] = step.size;
		making->bytes += step.size;
		return step;
	}
	chosen = draw_below(&making->draw, making->live);
	step.place = making->places[chosen];
	making->bytes -= making->sizes[chosen];
	making->live--;
	making->places[chosen] = making->places[making->live];
	making->sizes[chosen] = making->sizes[making->live];
	making->places[making->live] = step.place;
	return step;
}

int ranges_trace_make(struct ranges_trace *trace)
{
	struct making making = {.draw = draw_begin(trace->seed)};
	uint64_t room;

	trace->places = 2 * trace->arena / PLACES_EACH;
	room = trace->places + trace->operations;
	trace->steps = malloc(room * sizeof(*trace->steps));
	making.places = malloc(trace->places * sizeof(*making.places));
	making.sizes = malloc(trace->places * sizeof(*making.sizes));
	if (trace->steps && making.places && making.sizes) {
		for (uint32_t i = 0; i < trace->places; i++)
			making.places[i] = i;
		trace->fill = 0;
		while ((double)making.bytes < 0.7 * (double)trace->arena &&
			trace->fill < trace->places)
			trace->steps[trace->fill++] = make_step(&making, trace, 0.7);
		trace->count = trace->fill + trace->operations;
		for (uint64_t i = 0; i < trace->operations; i++) {
			double wave = WAVES * (double)i / (double)trace->operations;
			trace->steps[trace->fill + i] =
				make_step(&making, trace, 0.8 - 0.1 * cos(2 * M_PI * wave));
		}
	}
	free(making.places);
	free(making.sizes);
	return trace->count ? 0 : -ENOMEM;
}

/* --- until it is full --- */

int ranges_fill_up(const struct ranges_trace *trace, uint32_t largest, double *ret_occupancy)
{
	uint64_t places = 4 * trace->arena / PLACES_EACH, live = 0, bytes = 0, round = 0;
	struct memslot_range *ranges = calloc(places, sizeof(*ranges));
	struct draw draw = draw_begin(trace->seed + largest);
	struct memslot_ranges *allocator = NULL;
	int error =
		ranges ? ranges_make(trace->arena, MEMSLOT_RANGES_UNLOCKED, &allocator) : -ENOMEM;

	/* A hundredth of the arena more each time that as many steps were made as ranges live. */
	while (!error && live < places) {
		double occupancy = 0.5 + 0.01 * (double)round++ / (double)(live + 1);

		if ((double)bytes < occupancy * (double)trace->arena) {
			struct ranges_step step = draw_request(&draw, largest);
			error = memslot_ranges_alloc(
				allocator, step.size, step.align, NULL, &ranges[live]);
			bytes += error ? 0 : ranges[live].size;
			live += !error;
		} else {
			uint64_t chosen = draw_below(&draw, live);
			bytes -= ranges[chosen].size;
			error = memslot_ranges_free(allocator, &ranges[chosen]);
			ranges[chosen] = ranges[--live];
		}
	}
	*ret_occupancy = (double)bytes / (double)trace->arena;
	memslot_ranges_close(allocator, NULL);
	free(ranges);
	return error == -ENOSPC ? 0 : error ? error : -ENOSPC;
}
