/* SPDX-License-Identifier: MIT */
/*
 * cold.c - small slots that nobody has used, and pools of very many of them.
 *
 *   cold     one acquire of a slot of 64 KiB: never used; used and forgotten; with an image copied
 * in create   create and destroy of a pool of 200,000 such slots, for each slot
 *
 * Invariant: whatever was acquired is compared, every byte, after the clock was read.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CAPACITY (64 * KIB)
#define IMAGE (16 * KIB)
#define SLOTS 2048u /* acquired one by one in a round */
#define MANY 200000u
#define SINGLES 2000u /* slots without a pool, beside these */

struct cold {
	const struct settings *settings;
	struct memslot_pool *pool;
	struct memslot_image *image;
	struct memslot_slot *slots[SLOTS];
	double samples[SLOTS], clock_cost;
};

static const struct variant acquires[] = {
	{.name = "fresh", .title = "zeros, a slot never used", .backend = &lent_backend},
	{.name = "cold", .title = "zeros, a slot used and forgotten", .backend = &lent_backend},
	{.name = "cold-16K",
		.title = "an image of 16 KiB, a slot used and forgotten",
		.backend = &lent_backend},
	{.name = "mprotect", .title = "one mprotect in a reservation", .reference = true},
};

static const struct variant creates[] = {
	{.name = "200000", .title = "a pool of 200,000 slots", .backend = &lent_backend},
	{.name = "slot", .title = "slots without a pool", .backend = &slot_backend},
};

static void record(struct cold *cold, size_t i, uint64_t before, uint64_t after)
{
	double took = (double)(after - before) - cold->clock_cost;

	cold->samples[i] = took > 0 ? took : 0;
}

/* --- acquiring --- */

static int acquire_all(struct cold *cold, struct memslot_image *image)
{
	const struct memslot_acquire_opts opts = {.size = sizeof(opts),
		.flags = cold->settings->confined ? MEMSLOT_SLOT_CONFINED : 0};

	for (size_t i = 0; i < SLOTS; i++) {
		uint64_t before = clock_ns();
		int error =
			memslot_pool_acquire(cold->pool, image, CAPACITY, &opts, &cold->slots[i]);

		if (error)
			return error;
		record(cold, i, before, clock_ns());
	}
	return 0;
}

/* Is every byte right? Then one is written, so that there is something to forget. */
static int check_all(struct cold *cold, const struct memslot_image *image)
{
	size_t size = image ? IMAGE : 0;

	for (size_t i = 0; i < SLOTS; i++) {
		unsigned char *base = memslot_slot_base(cold->slots[i]);

		if (memcmp(base, cold->settings->contents, size) != 0 || base[size] != 0 ||
			memcmp(base + size, base + size + 1, CAPACITY - size - 1) != 0) {
			complain(0, "wrong byte: a cold slot, number %zu", i);
			return EXIT_WRONG_BYTE;
		}
		base[IMAGE + i % IMAGE] = 1;
	}
	return 0;
}

static int release_all(struct cold *cold)
{
	int error = 0;

	for (size_t i = 0; i < SLOTS && !error; i++)
		error = memslot_pool_release(cold->pool, cold->slots[i]);
	return error;
}

static int run_acquires(struct cold *cold, struct memslot_image *image)
{
	int error = acquire_all(cold, image);

	if (!error)
		error = check_all(cold, image);
	if (!error)
		error = release_all(cold);
	if (!error)
		error = memslot_pool_forget(cold->pool, image, NULL);
	return error;
}

static int run_mprotect(struct cold *cold)
{
	size_t stride = 2 * CAPACITY;
	unsigned char *base = mmap(NULL, SLOTS * stride, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int error = base == MAP_FAILED ? -errno : 0;

	for (size_t i = 0; i < SLOTS && !error; i++) {
		uint64_t before = clock_ns();

		error = mprotect(base + i * stride, CAPACITY, PROT_READ | PROT_WRITE) ? -errno : 0;
		record(cold, i, before, clock_ns());
	}
	if (base != MAP_FAILED)
		munmap(base, SLOTS * stride);
	return error;
}

/* All of them once: a new pool, whose slots are cold from the second time on. */
static int acquire_round(struct cold *cold, struct tally *tallies)
{
	int error = memslot_pool_create(SLOTS, CAPACITY, NULL, &cold->pool);

	for (size_t i = 0; i < sizeof(acquires) / sizeof(*acquires) && !error; i++) {
		error = i == 3 ? run_mprotect(cold)
			       : run_acquires(cold, i == 2 ? cold->image : NULL);
		if (!error)
			tally_add(&tallies[i], cold->samples, SLOTS);
	}
	if (!error)
		error = memslot_pool_destroy(cold->pool);
	return error;
}

/* --- creating --- */

static int create_pool(struct tally *tally)
{
	struct memslot_pool *pool;
	uint64_t before = clock_ns();
	int error = memslot_pool_create(MANY, CAPACITY, NULL, &pool);
	double sample;

	if (!error)
		error = memslot_pool_destroy(pool);
	sample = (double)(clock_ns() - before) / MANY;
	if (!error)
		tally_add(tally, &sample, 1);
	return error;
}

static int create_slots(struct cold *cold, struct tally *tally)
{
	uint64_t before = clock_ns();
	double sample;
	int error = 0;

	for (size_t i = 0; i < SINGLES && !error; i++)
		error = memslot_slot_create(CAPACITY, NULL, &cold->slots[i]);
	for (size_t i = 0; i < SINGLES && !error; i++)
		error = memslot_slot_destroy(cold->slots[i]);
	sample = (double)(clock_ns() - before) / SINGLES;
	if (!error)
		tally_add(tally, &sample, 1);
	return error;
}

static int create_round(struct cold *cold, struct tally *tallies)
{
	int error = create_pool(&tallies[0]);

	return error ? error : create_slots(cold, &tallies[1]);
}

/* --- both --- */

static int run_section(struct churn *section, struct cold *cold, const struct variant *list,
	size_t count, int (*round)(struct cold *cold, struct tally *tallies))
{
	struct result *result = &section->results[0];
	struct tally *tallies = calloc(count, sizeof(*tallies));
	int error = tallies ? 0 : -ENOMEM;

	for (unsigned i = 0; i < section->settings.rounds && !error; i++)
		error = round(cold, tallies);
	for (size_t i = 0; i < count && !error; i++) {
		section->variants[section->variant_count++] = &list[i];
		tally_finish(&tallies[i], &result->cells[i]);
	}
	free(tallies);
	if (error) {
		complain(error < 0 ? error : 0, "%s failed", section->title);
		return error < 0 ? EXIT_FAILED : error;
	}
	section->result_count = 1;
	result->rounds = section->settings.rounds;
	if (!section->settings.json)
		report_result(section, result);
	return 0;
}

static int run_sections(struct churn *churn, struct cold *cold)
{
	struct churn *section = section_new(churn, "cold", "Slots of 64 KiB, a pool of 2,048", 1);
	int error;

	if (!section)
		return EXIT_FAILED;
	section->results[0].name = "acquire";
	section->results[0].title = "one acquire of a cold slot";
	error = run_section(
		section, cold, acquires, sizeof(acquires) / sizeof(*acquires), acquire_round);
	if (error)
		return error;
	section = section_new(churn, "create", "Slots of 64 KiB, pools of 200,000", 1);
	if (!section)
		return EXIT_FAILED;
	section->results[0].name = "create";
	section->results[0].title = "create and destroy, for each slot";
	return run_section(
		section, cold, creates, sizeof(creates) / sizeof(*creates), create_round);
}

int measure_cold(struct churn *churn)
{
	struct cold *cold = calloc(1, sizeof(*cold));
	int error = cold ? 0 : -ENOMEM, status = EXIT_FAILED;

	if (!error) {
		cold->settings = &churn->settings;
		cold->clock_cost = churn->clock_cost;
		error = memslot_image_from_bytes(
			churn->settings.contents, IMAGE, NULL, &cold->image);
	}
	if (error)
		complain(error, "cold slots");
	else
		status = run_sections(churn, cold);
	if (cold)
		memslot_image_unref(cold->image);
	free(cold);
	return status;
}
