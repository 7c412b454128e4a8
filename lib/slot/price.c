/* SPDX-License-Identifier: MIT */
/*
 * price.c - what this machine charges for a fault, a drop, a copy and a scan.
 *
 * Invariant: measured once per process, about a millisecond, at the first reset that asks; each
 * figure is the minimum of a few rounds over 64 pages, half of them mapped from a file, and is
 * never zero. One thread measures; others take usual figures meanwhile. Nothing here is about
 * correctness: with absurd figures AUTO is slow, not wrong.
 */
#define _GNU_SOURCE
#include "slot/policy.h"

#include "base/os.h"
#include "base/pagemap.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 64
#define ROUNDS 5

struct stage {
	unsigned char *pages, *source;
};

static float since(uint64_t start)
{
	return (float)(ms_os_clock_ns() - start);
}

static void lower(float *price, float measured)
{
	if (measured > 0 && measured < *price)
		*price = measured;
}

static void touch(unsigned char *pages)
{
	for (size_t i = 0; i < PAGES; i++)
		((volatile unsigned char *)pages)[ms_pages_to_bytes(i)] = 1;
}

static void round_of(const struct stage *stage, struct ms_prices *prices)
{
	size_t size = ms_pages_to_bytes(PAGES);
	struct ms_pagemap_walk walk;
	float empty, full;
	uint64_t start = ms_os_clock_ns();

	touch(stage->pages);
	lower(&prices->fault, since(start) / PAGES);
	start = ms_os_clock_ns();
	memcpy(stage->pages, stage->source, size / 2);
	memset(stage->pages + size / 2, 0, size / 2);
	lower(&prices->restore, since(start) / PAGES);
	start = ms_os_clock_ns();
	if (ms_pagemap_begin(&walk, stage->pages, size) == 0 && ms_pagemap_next(&walk) > 0)
		lower(&prices->scan, since(start));
	start = ms_os_clock_ns();
	(void)ms_os_advise(stage->pages, size, MADV_DONTNEED);
	full = since(start);
	start = ms_os_clock_ns();
	(void)ms_os_advise(stage->pages, size, MADV_DONTNEED);
	empty = since(start);
	lower(&prices->drop_call, empty);
	lower(&prices->drop_page, (full - empty) / PAGES);
}

/* Half image, half zeros, as slots are. */
static bool stage_up(struct stage *stage)
{
	size_t size = ms_pages_to_bytes(PAGES);
	struct ms_os_attrs attrs = {.nohugepage = true};
	void *pages;
	int fd;

	if (ms_os_reserve(NULL, 2 * size, PROT_READ | PROT_WRITE, &pages))
		return false;
	*stage = (struct stage){pages, (unsigned char *)pages + size};
	touch(stage->source);
	fd = ms_os_memfd("memslot-price");
	if (fd >= 0) {
		if (ms_os_write_at(fd, stage->source, size / 2, 0) == 0)
			(void)ms_os_map_over(
				pages, size / 2, PROT_READ | PROT_WRITE, fd, 0, &attrs);
		ms_os_close(fd);
	}
	return true;
}

static void measure(struct ms_prices *prices)
{
	struct stage stage;

	/* The most that is believed; in proportion, for a clock that stands still. */
	*prices = (struct ms_prices){6.5e4f, 1e5f, 1e4f, 3.5e3f, 7.5e4f};
	if (stage_up(&stage)) {
		for (int i = 0; i < ROUNDS; i++)
			round_of(&stage, prices);
		ms_os_unmap(stage.pages, 2 * ms_pages_to_bytes(PAGES));
	}
}

const struct ms_prices *ms_price_list(void)
{
	enum { EMPTY, WRITING, READY };
	static struct ms_prices prices;
	static _Atomic(int) state;
	static const struct ms_prices usual = {1300, 2000, 200, 70, 1500};
	int seen = EMPTY;

	if (MS_LIKELY(atomic_load_explicit(&state, memory_order_acquire) == READY))
		return &prices;
	/* One measures; who comes meanwhile (or in a child forked meanwhile) takes usual prices. */
	if (!atomic_compare_exchange_strong(&state, &seen, WRITING))
		return seen == READY ? &prices : &usual;
	measure(&prices);
	atomic_store_explicit(&state, READY, memory_order_release);
	return &prices;
}
