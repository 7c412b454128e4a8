/* SPDX-License-Identifier: MIT */
/*
 * engines_shape.c - the calls that engines make, replayed exactly (traced from their releases).
 *
 * Invariant: sizes, flags, order and addresses of the calls are the engine's; nothing else here
 * calls mmap.
 */
#define _GNU_SOURCE
#include "engines.h"

#include <errno.h>
#include <sys/mman.h>

#define GIB (1024 * MIB)
#define RW (PROT_READ | PROT_WRITE)

const struct engine engines[] = {
	{.name = "v8-20",
		.what = "Node 20, 22",
		.reserve = 10 * GIB + 60 * KIB,
		.flags = MAP_NORESERVE,
		.align = 64 * KIB,
		.front = 2 * GIB,
		.advice = MADV_DONTFORK,
		.whole = true},
	{.name = "v8-24",
		.what = "Node 24, 26",
		.reserve = 8 * GIB + 60 * KIB,
		.flags = MAP_NORESERVE,
		.align = 64 * KIB,
		.advice = MADV_DONTFORK,
		.whole = true},
	{.name = "deno",
		.what = "Deno 2, a declared maximum",
		.reserve = 16 * MIB + 60 * KIB,
		.flags = MAP_NORESERVE,
		.align = 64 * KIB,
		.advice = MADV_DONTFORK,
		.whole = true},
	{.name = "spidermonkey",
		.what = "Firefox's engine, gjs",
		.reserve = 6 * GIB + 68 * KIB,
		.header = 4 * KIB},
	{.name = "wasmer", .what = "the wasmer crate", .reserve = 8 * GIB + 64 * KIB},
	{.name = "wamr",
		.what = "WebAssembly Micro Runtime",
		.reserve = 8 * GIB + 2 * MIB,
		.align = 2 * MIB,
		.advice = MADV_HUGEPAGE},
	{.name = "wasmedge", .what = "WasmEdge", .reserve = 12 * GIB, .commits = true},
	{.name = "wasm2c", .what = "wabt 1.0.33 and later", .reserve = 8 * GIB},
	{.name = "wasm2c-1.0.32",
		.what = "Debian 12's, which leaks",
		.reserve = 8 * GIB,
		.leaks = true},
	{0},
};

static int open_range(const struct engine *engine, char *at, size_t size)
{
	void *got;

	if (!engine->commits)
		return mprotect(at, size, RW) ? -errno : 0;
	got = mmap(at, size, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return got == at ? 0 : -errno;
}

/* Unmap what lies before and behind the aligned part. */
static int trim(const struct engine *engine, struct instance *instance)
{
	uintptr_t start = (uintptr_t)instance->reserved;
	size_t slack = engine->align == 64 * KIB ? engine->align - page_size() : engine->align;
	size_t head = (engine->align - start % engine->align) % engine->align;

	instance->unmap += head;
	instance->unmap_size = engine->reserve - slack;
	if (head && munmap(instance->reserved, head))
		return -errno;
	if (head < slack && munmap(instance->unmap + instance->unmap_size, slack - head))
		return -errno;
	return 0;
}

int engine_create(const struct engine *engine, size_t size, struct instance *ret_instance)
{
	struct instance made = {.unmap_size = engine->reserve};
	int error = 0;

	made.reserved = mmap(NULL, engine->reserve, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | engine->flags, -1, 0);
	if (made.reserved == MAP_FAILED)
		return -errno;
	made.unmap = made.reserved;
	if (engine->advice == MADV_DONTFORK &&
		madvise(made.reserved, engine->reserve, MADV_DONTFORK))
		error = -errno;
	if (!error && engine->align)
		error = trim(engine, &made);
	/* Only a wish: there may be no huge pages here. */
	if (!error && engine->advice == MADV_HUGEPAGE)
		(void)madvise(made.unmap, made.unmap_size, MADV_HUGEPAGE);
	made.memory = made.unmap + engine->front + engine->header;
	made.size = size;
	if (!error)
		error = open_range(engine, made.memory - engine->header, size + engine->header);
	if (!error)
		*ret_instance = made;
	return error;
}

int engine_grow(const struct engine *engine, struct instance *instance, size_t size)
{
	size_t from = engine->whole ? 0 : instance->size;
	int error = open_range(engine, instance->memory + from, size - from);

	if (!error)
		instance->size = size;
	return error;
}

int engine_destroy(const struct engine *engine, const struct instance *instance)
{
	size_t size = engine->leaks ? instance->size : instance->unmap_size;

	return munmap(instance->unmap, size) ? -errno : 0;
}
