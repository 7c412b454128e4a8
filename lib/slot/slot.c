/* SPDX-License-Identifier: MIT */
/*
 * slot.c - making and unmaking slots, and reading what they are.
 *
 * Invariant: what is fixed at creation is checked before anything is mapped, and never changes.
 * Bookkeeping is one mapping of its own, with room for the worst case, never malloc
 * (INVARIANTS 28): nothing after create allocates.
 */
#include "slot/slot.h"

#include "base/feature.h"
#include "base/fork.h"
#include "base/opts.h"

#include <errno.h>
#include <sys/mman.h>

#define GUARD_AFTER (64u << 10)
#define COPY_BUDGET (16u << 20)

/* An option that may be 0 (a default), NONE or UNLIMITED, in bytes. */
static uint64_t option(uint64_t value, uint64_t by_default)
{
	if (value == MEMSLOT_NONE)
		return 0;
	return value ? value : by_default;
}

static bool pages_of(uint64_t bytes, size_t *ret_pages)
{
	uint64_t rounded;

	if (!ms_round_up(bytes, &rounded))
		return false;
	*ret_pages = ms_bytes_to_pages(rounded);
	return true;
}

/* Sizes in pages; -EMSGSIZE when they overflow, or pages could not be numbered in 32 bits. */
static int lay_out(struct memslot_slot *slot, size_t capacity, const struct memslot_slot_opts *opts)
{
	uint64_t bytes;

	if (!pages_of(capacity, &slot->capacity_pages) ||
		!pages_of(option(opts->reserve, capacity), &slot->reserve_pages) ||
		!pages_of(option(opts->guard_before, 0), &slot->before_pages) ||
		!pages_of(option(opts->guard_after, GUARD_AFTER), &slot->after_pages))
		return -EMSGSIZE;
	if (slot->reserve_pages < slot->capacity_pages || slot->capacity_pages >= UINT32_MAX)
		return -EMSGSIZE;
	if (__builtin_mul_overflow(slot->before_pages + slot->reserve_pages + slot->after_pages,
		    ms_page_size(), &bytes) ||
		bytes > INT64_MAX)
		return -EMSGSIZE;
	return 0;
}

static int check(const struct memslot_slot_opts *opts)
{
	bool aligned = ms_page_aligned((uintptr_t)opts->base_address);

	return opts->reset_method > MEMSLOT_RESET_DROP || opts->reserved || !aligned ? -EINVAL : 0;
}

static void configure(struct memslot_slot *slot, const struct memslot_slot_opts *opts)
{
	slot->flags = opts->flags;
	slot->reset_method = opts->reset_method;
	slot->on_reset = opts->on_reset;
	slot->context = opts->context;
	slot->confined = opts->flags & MEMSLOT_SLOT_CONFINED;
	slot->attrs = (struct ms_os_attrs){
		.nohugepage = !(opts->flags & MEMSLOT_SLOT_HUGEPAGE),
		.hugepage = opts->flags & MEMSLOT_SLOT_HUGEPAGE,
		.dontfork = opts->flags & MEMSLOT_SLOT_DONTFORK,
		.dontdump = opts->flags & MEMSLOT_SLOT_DONTDUMP,
		.name = ms_feature(MS_FEATURE_ANON_NAME) ? "memslot" : NULL,
	};
}

int ms_slot_plan(size_t capacity, const struct memslot_slot_opts *opts, struct memslot_slot *plan)
{
	size_t budget = ms_bytes_to_pages(option(opts->copy_budget, COPY_BUDGET));
	int error = check(opts);

	*plan = (struct memslot_slot){.exact = true};
	if (!error)
		error = lay_out(plan, capacity, opts);
	if (error)
		return error;
	configure(plan, opts);
	plan->retained.max = ms_min(budget, plan->capacity_pages);
	return 0;
}

/* The struct alone, in whole cache lines. */
static size_t struct_bytes(void)
{
	return (sizeof(struct memslot_slot) + 63) & ~(size_t)63;
}

size_t ms_slot_head_bytes(const struct memslot_slot *plan)
{
	return (struct_bytes() + ms_retained_bytes(plan->retained.max) + 63) & ~(size_t)63;
}

void ms_slot_place(struct memslot_slot *slot, const struct memslot_slot *plan, void *tables)
{
	struct ms_page_run *runs = tables;

	*slot = *plan;
	slot->exempt.run = runs;
	slot->protects.run = runs + MS_RUNS_MAX;
	ms_retained_init(
		&slot->retained, (unsigned char *)slot + struct_bytes(), plan->retained.max);
	ms_policy_init(&slot->policy, (uintptr_t)slot);
	atomic_store(&slot->epoch, ms_fork_epoch());
}

MS_EXPORT int memslot_slot_create(
	size_t capacity, const struct memslot_slot_opts *opts, struct memslot_slot **ret_slot)
{
	struct memslot_slot plan, *slot;
	struct memslot_slot_opts taken;
	uint64_t calls = ms_os_calls;
	void *memory;
	size_t head;
	int error;

	if (!ret_slot)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken, MS_SLOT_FLAGS, opts);
	if (!error)
		error = ms_slot_plan(capacity, &taken, &plan);
	if (error)
		return error;
	head = ms_slot_head_bytes(&plan);
	plan.bookkeeping_bytes = head + MS_SLOT_TABLE_BYTES;
	error = ms_os_reserve(NULL, plan.bookkeeping_bytes, PROT_READ | PROT_WRITE, &memory);
	if (error)
		return error;
	slot = memory;
	ms_slot_place(slot, &plan, (unsigned char *)memory + head);
	error = ms_edge_create(slot, taken.base_address);
	if (error) {
		ms_os_unmap(slot, slot->bookkeeping_bytes);
		return error;
	}
	slot->stats.syscalls = ms_os_calls - calls;
	*ret_slot = slot;
	return 0;
}

MS_EXPORT int memslot_slot_destroy(struct memslot_slot *slot)
{
	uint64_t word;
	int error;

	if (!slot)
		return 0;
	if (slot->lender)
		return -EINVAL;
	error = ms_state_begin_destroy(slot, &word);
	if (error)
		return error;
	/* In a child a DONTFORK slot is not there: something else may be (INVARIANTS 20). */
	if (!((word & MS_STATE_DEAD) && (slot->flags & MEMSLOT_SLOT_DONTFORK)))
		error = ms_edge_destroy(slot);
	if (error) {
		ms_state_end(slot, false);
		return error;
	}
	memslot_image_unref(slot->target);
	ms_os_free(slot->heap);
	ms_os_unmap(slot, slot->bookkeeping_bytes);
	return 0;
}

MS_EXPORT void *memslot_slot_base(const struct memslot_slot *slot)
{
	return slot ? slot->base : NULL;
}

MS_EXPORT size_t memslot_slot_size(const struct memslot_slot *slot)
{
	return slot ? ms_slot_size(slot) : 0;
}

MS_EXPORT size_t memslot_slot_capacity(const struct memslot_slot *slot)
{
	return slot ? ms_pages_to_bytes(slot->capacity_pages) : 0;
}

MS_EXPORT struct memslot_image *memslot_slot_image(const struct memslot_slot *slot)
{
	return slot && !ms_state_given(slot) ? slot->target : NULL;
}

MS_EXPORT uint32_t memslot_slot_index(const struct memslot_slot *slot)
{
	return slot ? slot->index : 0;
}

MS_EXPORT uint64_t memslot_slot_ticket(const struct memslot_slot *slot)
{
	return slot ? atomic_load(&slot->ticket) : 0;
}

MS_EXPORT void memslot_slot_set_user(struct memslot_slot *slot, void *user)
{
	if (slot)
		slot->user = user;
}

MS_EXPORT void *memslot_slot_user(const struct memslot_slot *slot)
{
	return slot ? slot->user : NULL;
}

MS_EXPORT int memslot_slot_stats(
	const struct memslot_slot *slot, struct memslot_slot_stats *ret_stats)
{
	struct memslot_slot_stats stats;

	if (!slot || !ret_stats)
		return -EINVAL;
	if (ms_state_dead(slot))
		return -ESTALE;
	stats = slot->stats;
	stats.retained_pages = slot->retained.count;
	return ms_opts_give(ret_stats, &stats, sizeof stats);
}
