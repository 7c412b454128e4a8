/* SPDX-License-Identifier: MIT */
/*
 * layout.c - where the slots are.
 *
 *   piece: [ guard_before | reserve | guard_after | reserve | guard_after | .. ]
 *
 * Invariant: the table of pieces is complete before create returns and never changes (INVARIANTS
 * 27), so that locate reads it without a lock, in a signal handler too. A slot's guard behind is
 * the next one's guard in front. Small windows are one readable and writable mapping full of guard
 * markers, large ones PROT_NONE (INVARIANTS 14): either way the pool costs a mapping a piece until
 * slots open.
 */
#include "pool/pool.h"

#include "base/feature.h"
#include "base/opts.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD_CHUNK (1ull << 30)   /* markers installed by one call */
#define ADDRESS_SPACE (1ull << 47) /* of a process, without asking for more */
#define SLACK (64ull << 30) /* of it: programs, libraries, stacks, and what they want to grow */

static size_t piece_bytes(const struct memslot_pool *pool, uint32_t count)
{
	return ms_pages_to_bytes(pool->plan.before_pages + count * pool->stride_pages);
}

/* --- planning --- */

int ms_layout_plan(uint32_t count, size_t capacity, const struct memslot_pool_opts *opts,
	struct memslot_pool *ret_pool)
{
	struct memslot_slot_opts slot = MEMSLOT_OPTS(memslot_slot_opts,
		.flags = opts->flags & MS_SLOT_FLAGS, .reserve = opts->reserve,
		.guard_before = opts->guard_before, .guard_after = opts->guard_after,
		.copy_budget = opts->copy_budget, .base_address = opts->base_address,
		.reset_method = opts->reset_method, .reserved = opts->reserved,
		.on_reset = opts->on_reset, .context = opts->context, );
	uint64_t bytes;
	int error;

	if (count == 0 || count > 1u << 31 || capacity == 0)
		return -EINVAL;
	error = ms_slot_plan(capacity, &slot, &ret_pool->plan);
	if (error)
		return error;
	ret_pool->count = count;
	ret_pool->stride_pages = ret_pool->plan.reserve_pages + ret_pool->plan.after_pages;
	if (__builtin_mul_overflow(ret_pool->stride_pages, (uint64_t)count, &bytes) ||
		__builtin_add_overflow(bytes, ret_pool->plan.before_pages, &bytes) ||
		bytes > (uint64_t)INT64_MAX / ms_page_size())
		return -EMSGSIZE;
	ret_pool->plan.edge = ms_edge_kind(&ret_pool->plan);
	return 0;
}

/* Mappings that one slot adds when it is out at its full size. */
static uint64_t vmas_of(const struct memslot_pool *pool, const struct memslot_image *image)
{
	bool copied = image && image->bytes && image->extent_pages <= pool->plan.retained.max &&
		      ms_pages_to_bytes(image->extent_pages) <= MS_SLOT_COPY_BYTES;
	uint64_t extents = image && !copied ? image->extent_count : 0;

	if (pool->plan.edge == MS_EDGE_MARKER)
		return 2 * extents;
	/* Accessible and not, and a cut before and behind each extent. */
	return 2 + 2 * extents;
}

static uint64_t mappings_left(void)
{
	uint64_t limit = ms_os_proc_number("/proc/sys/vm/max_map_count", 65530);

	return limit > 1024 ? limit - 1024 : 0; /* the process has some already */
}

MS_EXPORT int memslot_pool_plan(uint32_t count, size_t capacity, const struct memslot_image *image,
	const struct memslot_pool_opts *opts, struct memslot_plan *ret_plan)
{
	struct memslot_plan plan = {.size = sizeof plan};
	struct memslot_pool_opts taken;
	struct memslot_pool pool = {.count = 0};
	uint64_t space = ms_min(ADDRESS_SPACE - SLACK, ms_os_address_space_limit()), each;
	int error;

	if (!ret_plan)
		return -EINVAL;
	error = ms_opts_take(
		&taken, sizeof taken, sizeof taken, MS_SLOT_FLAGS | MEMSLOT_POOL_VERIFY, opts);
	if (!error)
		error = ms_layout_plan(count, capacity, &taken, &pool);
	if (error)
		return error;
	if (ms_slot_image_end(image) > pool.plan.capacity_pages)
		return -EMSGSIZE;
	plan.stride = ms_pages_to_bytes(pool.stride_pages);
	plan.count = ms_min(count, space / plan.stride);
	each = vmas_of(&pool, image);
	if (each)
		plan.count = ms_min(plan.count, mappings_left() / each);
	plan.address_space = ms_pages_to_bytes(pool.plan.before_pages) + plan.count * plan.stride;
	plan.vmas = 1 + plan.count * each;
	plan.worst_resident_bytes = plan.count * ms_pages_to_bytes(pool.plan.capacity_pages);
	plan.page_table_bytes = (pool.plan.edge == MS_EDGE_MARKER ? plan.address_space
								  : plan.worst_resident_bytes) /
				ms_page_size() * sizeof(uint64_t);
	return ms_opts_give(ret_plan, &plan, sizeof plan);
}

/* --- reserving --- */

static int guard(unsigned char *address, size_t size)
{
	int error = 0;

	for (size_t done = 0; !error && done < size; done += GUARD_CHUNK)
		error = ms_os_guard(address + done, ms_min(size - done, GUARD_CHUNK));
	return error;
}

/* The guard in front: markers when it is a small window. */
static int close_piece(const struct memslot_pool *pool, unsigned char *base, size_t size)
{
	size_t before = ms_pages_to_bytes(pool->plan.before_pages);
	int error = 0;

	if (pool->plan.edge != MS_EDGE_MARKER)
		return 0;
	if (before > MS_SLOT_MARKER_BYTES) {
		error = ms_os_protect(base, before, PROT_NONE);
		base += before;
		size -= before;
	}
	return error ? error : guard(base, size);
}

static int reserve_piece(struct memslot_pool *pool, void *at, uint32_t first, uint32_t count)
{
	int prot = pool->plan.edge == MS_EDGE_MARKER ? PROT_READ | PROT_WRITE : PROT_NONE;
	size_t size = piece_bytes(pool, count);
	uint32_t i = pool->piece_count;
	void *base;
	int error = ms_os_reserve(at, size, prot, &base);

	if (error)
		return error;
	error = ms_os_apply(base, size, &pool->plan.attrs);
	if (error == -ENODATA) {
		pool->plan.no_counter = true;
		error = 0;
	}
	if (!error)
		error = close_piece(pool, base, size);
	if (error) {
		ms_os_unmap(base, size);
		return error;
	}
	for (; i > 0 && pool->pieces[i - 1].base > (unsigned char *)base; i--)
		pool->pieces[i] = pool->pieces[i - 1];
	pool->pieces[i] = (struct ms_piece){base, first, count};
	pool->piece_count++;
	return 0;
}

/* All of it, in halves where it does not fit. */
static int reserve(struct memslot_pool *pool, void *at)
{
	uint32_t first = 0, size = pool->count;

	while (first < pool->count) {
		uint32_t count = (uint32_t)ms_min(size, pool->count - first);
		int error = pool->piece_count < MS_PIECES_MAX
				    ? reserve_piece(pool, at, first, count)
				    : -ENOMEM;
		if (!error) {
			first += count;
			continue;
		}
		if (at || error != -ENOMEM || count == 1 || pool->piece_count == MS_PIECES_MAX)
			return error;
		size = (count + 1) / 2;
	}
	return 0;
}

int ms_layout_create(struct memslot_pool *pool, void *base_address)
{
	int error = reserve(pool, base_address);

	/* A writable reservation or a marker was refused (RLIMIT_DATA, overcommit, locked memory):
	 * the other kind needs neither (INVARIANTS 22). */
	if (error && error != -EEXIST && pool->plan.edge == MS_EDGE_MARKER) {
		ms_layout_destroy(pool);
		pool->plan.edge = MS_EDGE_PROTECT;
		error = reserve(pool, base_address);
	}
	if (error)
		ms_layout_destroy(pool);
	return error && base_address ? -EADDRNOTAVAIL : error;
}

void ms_layout_destroy(struct memslot_pool *pool)
{
	for (uint32_t i = 0; i < pool->piece_count; i++)
		ms_os_unmap(pool->pieces[i].base, piece_bytes(pool, pool->pieces[i].count));
	pool->piece_count = 0;
}

/* --- addresses --- */

unsigned char *ms_layout_address(const struct memslot_pool *pool, uint32_t name)
{
	const struct ms_piece *piece = pool->pieces;

	while (name - 1 - piece->first >= piece->count)
		piece++;
	return piece->base + ms_pages_to_bytes(pool->plan.before_pages +
					       (name - 1 - piece->first) * pool->stride_pages);
}

/* The piece that an address lies in, or NULL. */
static const struct ms_piece *piece_at(
	const struct memslot_pool *pool, const unsigned char *address)
{
	uint32_t low = 0, high = pool->piece_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		const struct ms_piece *piece = &pool->pieces[middle];
		if (address < piece->base)
			high = middle;
		else if ((size_t)(address - piece->base) >= piece_bytes(pool, piece->count))
			low = middle + 1;
		else
			return piece;
	}
	return NULL;
}

uint32_t ms_layout_at(const struct memslot_pool *pool, const void *base)
{
	const struct ms_piece *piece = piece_at(pool, base);
	size_t before = ms_pages_to_bytes(pool->plan.before_pages), offset;

	if (!piece)
		return 0;
	offset = (size_t)((const unsigned char *)base - piece->base);
	if (offset < before || (offset - before) % ms_pages_to_bytes(pool->stride_pages))
		return 0;
	return piece->first + 1 +
	       (uint32_t)((offset - before) / ms_pages_to_bytes(pool->stride_pages));
}

/* Where in the window of one slot. */
static uint32_t kind_at(const struct memslot_pool *pool, const struct memslot_slot *out, size_t at)
{
	if (at >= ms_pages_to_bytes(pool->plan.reserve_pages))
		return MEMSLOT_AT_GUARD_AFTER;
	if (!out)
		return MEMSLOT_AT_IDLE;
	return at < ms_pages_to_bytes(out->size_pages) ? MEMSLOT_AT_INSIDE : MEMSLOT_AT_BEYOND_EDGE;
}

MS_EXPORT int memslot_pool_locate(
	const struct memslot_pool *pool, const void *address, struct memslot_location *ret_location)
{
	struct memslot_location location = {.size = sizeof location};
	const struct ms_piece *piece = pool ? piece_at(pool, address) : NULL;
	size_t before, stride, offset, window;
	uint32_t name;

	if (!pool || !ret_location)
		return -EINVAL;
	if (!piece)
		return -ENOENT;
	before = ms_pages_to_bytes(pool->plan.before_pages);
	stride = ms_pages_to_bytes(pool->stride_pages);
	offset = (size_t)((const unsigned char *)address - piece->base);
	window = offset < before ? 0 : (offset - before) / stride;
	name = piece->first + 1 + (uint32_t)window;
	if (ms_pool_place(ms_pool_seat(pool, name)) == MS_PLACE_OUT)
		location.slot = ms_pool_slot(pool, name);
	location.index = name - 1;
	location.offset = (int64_t)offset - (int64_t)(before + window * stride);
	location.kind = offset < before ? MEMSLOT_AT_GUARD_BEFORE
					: kind_at(pool, location.slot, (size_t)location.offset);
	return ms_opts_give(ret_location, &location, sizeof location);
}
