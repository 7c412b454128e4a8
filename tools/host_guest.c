/* SPDX-License-Identifier: MIT */
/*
 * host_guest.c - what guests do, well and badly.
 *
 * Invariant: a guest's work depends on its memory and its request's seed alone, so in a plain copy
 * of the plug-in's contents it has to come to the same bytes. All guests work on the same few
 * pages: what one left behind, the next would read.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOT_PAGES 24
#define GROWTH (64 * KIB) /* what a guest asks for at a time */
#define GUARD (64 * KIB)  /* a pool's by default */

static uint64_t next_random(uint64_t *state)
{
	/* splitmix64 (G. Steele, D. Lea, C. Flood, 2014) */
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* --- work --- */

/* A word in one of the pages that all guests like. */
static size_t hot_word(size_t size, uint64_t *random)
{
	size_t pages = size / page_size(), spread = pages > HOT_PAGES ? pages / HOT_PAGES : 1;
	size_t page = next_random(random) % HOT_PAGES * spread % pages;

	return page * page_size() + next_random(random) % (page_size() / 8) * 8;
}

static void store(unsigned char *memory, size_t offset, uint64_t value, struct trace *trace)
{
	memcpy(memory + offset, &value, sizeof(value));
	trace->offsets[trace->count++] = (uint32_t)offset;
}

static void work(unsigned char *memory, size_t size, uint64_t seed, struct trace *trace)
{
	uint64_t random = seed, state = seed, word;

	for (size_t i = 0; i < STEPS; i++) {
		memcpy(&word, memory + hot_word(size, &random), sizeof(word));
		state = (state ^ word) * 0x9e3779b97f4a7c15u;
		store(memory, hot_word(size, &random), state ^ (state >> 29), trace);
	}
	for (size_t i = 0; i < ANSWER; i += 8)
		store(memory, size - ANSWER + i, next_random(&state), trace);
}

/* Each part of the work has a seed of its own. */
static uint64_t seed_of(const struct request *request, unsigned part)
{
	return request->seed + part * 0x632be59bd9b4e019u;
}

void guest_work(const struct worker *worker, const struct request *request, unsigned part)
{
	struct trace trace = {0};

	work(memslot_slot_base(request->slot), worker->host->plugins[request->plugin].size,
		seed_of(request, part), &trace);
}

/* --- comparing --- */

static bool wrong_byte(struct worker *worker, const struct request *request, size_t offset,
	const unsigned char *memory, const unsigned char *expected)
{
	size_t i = 0;

	while (memory[offset + i] == expected[offset + i])
		i++;
	worker->counts.wrong++;
	complain(0,
		"wrong byte: request %llu (%s), plug-in %s, offset 0x%zx: 0x%02x instead of 0x%02x",
		(unsigned long long)request->number, kind_names[request->kind],
		worker->host->plugins[request->plugin].name, offset + i, memory[offset + i],
		expected[offset + i]);
	return false;
}

bool guest_is_fresh(struct worker *worker, const struct request *request)
{
	const struct plugin *plugin = &worker->host->plugins[request->plugin];
	const unsigned char *memory = memslot_slot_base(request->slot);

	for (size_t offset = 0; offset < plugin->size; offset += page_size()) {
		if (memcmp(memory + offset, plugin->contents + offset, page_size()) != 0)
			return wrong_byte(worker, request, offset, memory, plugin->contents);
	}
	worker->counts.compared += plugin->size;
	return true;
}

static bool agrees(struct worker *worker, const struct request *request, const struct trace *trace)
{
	const unsigned char *memory = memslot_slot_base(request->slot);
	const unsigned char *copy = worker->copies[request->plugin];

	for (size_t i = 0; i < trace->count; i++) {
		size_t offset = trace->offsets[i];

		if (memcmp(memory + offset, copy + offset, 8) != 0)
			return wrong_byte(worker, request, offset, memory, copy);
	}
	worker->counts.compared += trace->count * 8;
	return true;
}

bool guest_agrees(struct worker *worker, const struct request *request, unsigned parts)
{
	const struct plugin *plugin = &worker->host->plugins[request->plugin];
	unsigned char *copy = worker->copies[request->plugin];
	struct trace trace = {0};
	bool right;

	for (unsigned part = 0; part < parts; part++)
		work(copy, plugin->size, seed_of(request, part), &trace);
	right = agrees(worker, request, &trace);
	for (size_t i = 0; i < trace.count; i++)
		memcpy(copy + trace.offsets[i], plugin->contents + trace.offsets[i], 8);
	return right;
}

/* --- misbehaving --- */

static int blame(struct worker *worker, const struct request *request, const char *what, int error)
{
	worker->counts.failed++;
	complain(error, "request %llu (%s), plug-in %s: %s", (unsigned long long)request->number,
		kind_names[request->kind], worker->host->plugins[request->plugin].name, what);
	return EXIT_FAILED;
}

/* Does the location say what is at `offset` from this slot? It may be called a neighbour's guard.
 */
static bool is_located(struct worker *worker, const struct memslot_slot *slot, int64_t offset)
{
	const struct memslot_location *location = &worker->visit.location;
	int64_t size = (int64_t)memslot_slot_size(slot);
	int64_t capacity = (int64_t)memslot_slot_capacity(slot);

	if (offset < 0) {
		worker->counts.guard_before++;
		return location->kind == MEMSLOT_AT_GUARD_BEFORE
			       ? location->slot == slot && location->offset == offset
			       : location->kind == MEMSLOT_AT_GUARD_AFTER &&
					 location->index + 1 == memslot_slot_index(slot);
	}
	if (location->slot != slot || location->offset != offset)
		return false;
	if (offset >= capacity) {
		worker->counts.guard_after++;
		return location->kind == MEMSLOT_AT_GUARD_AFTER;
	}
	worker->counts.beyond_edge++;
	return offset >= size && location->kind == MEMSLOT_AT_BEYOND_EDGE;
}

int guest_run_off(struct worker *worker, const struct request *request)
{
	unsigned char *base = memslot_slot_base(request->slot);
	size_t size = memslot_slot_size(request->slot);
	size_t capacity = memslot_slot_capacity(request->slot);
	uint64_t random = request->seed, way = next_random(&random) % 3;
	int64_t offset = -1 - (int64_t)(next_random(&random) % page_size());

	if (way == 0)
		offset = (int64_t)(size + next_random(&random) % (capacity - size));
	else if (way == 1)
		offset = (int64_t)(capacity + next_random(&random) % GUARD);
	if (!fault_write(&worker->visit, base + offset))
		return blame(worker, request, "ran off its edge, and nothing happened", 0);
	if (!is_located(worker, request->slot, offset))
		return blame(worker, request, "ran off its edge, and was seen elsewhere", 0);
	return 0;
}

/* New memory is zero; a word of every page of it is written. */
static bool use_growth(struct worker *worker, const struct request *request, size_t from, size_t to)
{
	unsigned char *memory = memslot_slot_base(request->slot);
	static const unsigned char zeros[64];

	for (size_t offset = from; offset < to; offset += page_size()) {
		size_t word = offset + request->seed % (page_size() / 64) * 64;

		if (memcmp(memory + word, zeros, sizeof(zeros)) != 0) {
			worker->counts.wrong++;
			complain(0, "wrong byte: request %llu (fill), near offset 0x%zx: not zero",
				(unsigned long long)request->number, word);
			return false;
		}
		memory[word] = 1;
		worker->counts.compared += sizeof(zeros);
	}
	return true;
}

int guest_fill(struct worker *worker, const struct request *request)
{
	size_t size = memslot_slot_size(request->slot);
	int error;

	while ((error = memslot_slot_resize(request->slot, size + GROWTH)) == 0) {
		if (!use_growth(worker, request, size, size + GROWTH))
			return EXIT_WRONG_BYTE;
		size += GROWTH;
	}
	if (error != -EMSGSIZE || size + GROWTH <= memslot_slot_capacity(request->slot))
		return blame(worker, request, "asked for more memory", error);
	worker->counts.out_of_memory++;
	return 0;
}

int guest_foreign(struct worker *worker, const struct request *request)
{
	int error;

	if (fault_write(&worker->visit, worker->page) || worker->page[0] != 1)
		return blame(worker, request, "the application's page was not opened", 0);
	worker->page[0] = 0;
	error = fault_application_close(worker->page);
	if (error)
		return blame(worker, request, "the application's page", error);
	worker->counts.foreign++;
	return 0;
}

/* --- in a child --- */

/* The child goes on with its copy, resets it, gives it back and takes another slot. */
static int live_in_child(struct worker *worker, struct request *request)
{
	const struct plugin *plugin = &worker->host->plugins[request->plugin];
	struct memslot_pool *pool = worker->host->pool;
	int error;

	guest_work(worker, request, 1);
	if (!guest_agrees(worker, request, 2))
		return EXIT_WRONG_BYTE;
	error = memslot_slot_reset(request->slot);
	if (!error && !guest_is_fresh(worker, request))
		return EXIT_WRONG_BYTE;
	guest_work(worker, request, 0);
	if (!error)
		error = memslot_pool_release(pool, request->slot);
	if (!error)
		error = memslot_pool_acquire(
			pool, plugin->image, plugin->size, NULL, &request->slot);
	if (!error && !guest_is_fresh(worker, request))
		return EXIT_WRONG_BYTE;
	if (!error)
		error = memslot_pool_release(pool, request->slot);
	return error ? blame(worker, request, "a child failed", error) : EXIT_DONE;
}

int guest_fork(struct worker *worker, const struct request *request)
{
	struct request copy = *request;
	pid_t child = fork();
	int status;

	if (child < 0)
		return blame(worker, request, "fork", -errno);
	if (child == 0)
		_exit(live_in_child(worker, &copy));
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return blame(worker, request, "waitpid", -errno);
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_DONE)
		return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_WRONG_BYTE
			       ? EXIT_WRONG_BYTE
			       : blame(worker, request, "its child did not end well", 0);
	worker->counts.children++;
	guest_work(worker, request, 1);
	return guest_agrees(worker, request, 2) ? 0 : EXIT_WRONG_BYTE;
}
