/* SPDX-License-Identifier: MIT */
/*
 * fuzz_opts.c - bytes as option structs: the intake, and memslot_slot_create, memslot_image_from_bytes
 * and memslot_slot_stats behind it.
 *
 * The first byte says which; the rest is the struct, as long as it is: what its own `size` claims
 * beyond that is cut to the input, since a caller's memory is as long as it says.
 */
#define _GNU_SOURCE
#include "common.h"

#include "base/opts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)
#define ROOM 8192

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* A struct in memory that has all the bytes its size speaks of, up to more than the intake reads. */
static unsigned char *as_options(const uint8_t *bytes, size_t size)
{
	unsigned char *opts = calloc(1, ROOM);

	CHECK(opts);
	memcpy(opts, bytes, size < ROOM ? size : ROOM);
	return opts;
}

/* The intake against what the header promises, said another way. */
static int expected(const unsigned char *opts, size_t known, size_t first, uint32_t known_flags)
{
	uint32_t size, flags = 0;

	memcpy(&size, opts, sizeof size);
	if (size < first)
		return -EINVAL;
	for (size_t at = known; at < size; at++) {
		if (at >= 4096 || opts[at])
			return -E2BIG;
	}
	if (size > 4096)
		return -E2BIG;
	memcpy(&flags, opts + 4, sizeof flags);
	return flags & ~known_flags ? -EINVAL : 0;
}

static void fuzz_intake(const uint8_t *bytes, size_t size)
{
	unsigned char *opts = as_options(bytes, size), taken[64], filled[64];
	uint32_t claimed;
	int got;

	memcpy(&claimed, opts, sizeof claimed);
	memset(taken, 0xee, sizeof taken);
	got = ms_opts_take(taken, 48, 16, 0x7f, opts);
	CHECK(got == expected(opts, 48, 16, 0x7f));
	CHECK(taken[48] == 0xee && taken[63] == 0xee);
	for (size_t at = 0; got == 0 && at < 48; at++)
		CHECK(taken[at] == (at < claimed ? opts[at] : 0));
	memset(filled, 0x33, sizeof filled);
	got = ms_opts_give(opts, filled, 48);
	CHECK(got == (claimed < 8 ? -EINVAL : 0));
	CHECK(memcmp(opts, &claimed, sizeof claimed) == 0);
	free(opts);
}

static int never_called(struct memslot_slot *slot, void *context)
{
	(void)slot;
	(void)context;
	return 0;
}

static void fuzz_slot(const uint8_t *bytes, size_t size)
{
	struct memslot_slot *slot = (struct memslot_slot *)1;
	unsigned char *raw = as_options(bytes + 1, size ? size - 1 : 0);
	struct memslot_slot_opts opts;
	size_t capacity = size ? (size_t)bytes[0] << (bytes[0] & 15) : 0;
	uint64_t most = UINT64_C(1) << 34;
	int error;

	memcpy(&opts, raw, sizeof opts);
	/* A function pointer of random bytes is not the library's fault. */
	opts.on_reset = opts.on_reset ? never_called : NULL;
	/* Sizes that this machine would grant, but slowly. */
	if (opts.reserve > most && opts.reserve < UINT64_C(1) << 47)
		opts.reserve %= most;
	memcpy(raw, &opts, sizeof opts);
	error = memslot_slot_create(capacity, (const void *)raw, &slot);
	if (error) {
		CHECK(error < 0 && error > -4096 && slot == (struct memslot_slot *)1);
	} else {
		CHECK(memslot_slot_capacity(slot) >= capacity && memslot_slot_size(slot) == 0);
		CHECK(opts.base_address == NULL || memslot_slot_base(slot) == opts.base_address);
		CHECK(memslot_slot_instantiate(slot, NULL, capacity < 100000 ? capacity : 100000) == 0);
		if (memslot_slot_size(slot)) {
			memset(memslot_slot_base(slot), 7, memslot_slot_size(slot));
			CHECK(memslot_slot_reset(slot) == 0);
			CHECK(test_zero(memslot_slot_base(slot), memslot_slot_size(slot)));
		}
		CHECK(memslot_slot_destroy(slot) == 0);
	}
	free(raw);
}

static void fuzz_image(const uint8_t *bytes, size_t size)
{
	struct memslot_image *image = (struct memslot_image *)1;
	unsigned char *raw = as_options(bytes, size), note[64] = "a note";
	struct memslot_image_opts opts;
	int error;

	memcpy(&opts, raw, sizeof opts);
	if (opts.note) {
		opts.note = note;
		if (opts.note_size <= 1 << 20 && opts.note_size > sizeof note)
			opts.note_size %= sizeof note;
	}
	memcpy(raw, &opts, sizeof opts);
	error = memslot_image_from_bytes(note, sizeof note, (const void *)raw, &image);
	if (error) {
		CHECK(error < 0 && error > -4096 && image == (struct memslot_image *)1);
	} else {
		CHECK(memslot_image_offset(image) % test_page() == 0);
		CHECK(memslot_image_size(image) % test_page() == 0);
		CHECK(memslot_image_offset(image) <= opts.slot_offset);
		memslot_image_unref(image);
	}
	free(raw);
}

static void fuzz_stats(const uint8_t *bytes, size_t size)
{
	struct memslot_slot *slot;
	unsigned char *raw = as_options(bytes, size), *before = as_options(bytes, size);
	uint32_t claimed;
	int error;

	memcpy(&claimed, raw, sizeof claimed);
	CHECK(memslot_slot_create(0, NULL, &slot) == 0);
	error = memslot_slot_stats(slot, (void *)raw);
	CHECK(error == (claimed < 8 ? -EINVAL : 0));
	for (size_t at = 0; at < ROOM; at++) {
		if (error || at < 4 || at >= claimed || at >= sizeof(struct memslot_slot_stats))
			CHECK(raw[at] == before[at]);
	}
	memslot_slot_destroy(slot);
	free(before);
	free(raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static void (*const targets[])(const uint8_t *, size_t) = {
			fuzz_intake, fuzz_slot, fuzz_image, fuzz_stats};

	if (size)
		targets[bytes[0] & 3](bytes + 1, size - 1);
	return 0;
}
