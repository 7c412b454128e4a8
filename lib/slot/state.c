/* SPDX-License-Identifier: MIT */
/*
 * state.c - who may do what with the slot now.
 *
 * Invariant: holds, pins and the busy bit are one atomic word, so that a hold either comes before a
 * call that must be alone, which then sees it and answers -EBUSY, or after it has begun, and is
 * refused itself (INVARIANTS 15). The word alone is touched by other threads; everything else of a
 * slot belongs to the thread that uses it.
 *
 * In a child (the fork epoch differs) a slot that may be used is adopted, by one thread: nothing
 * known about its pages is true any more. One that may not (DONTFORK, or held at the fork) is dead
 * for good; one that another thread was changing at the fork is unknown (INVARIANTS 18-20).
 */
#include "slot/slot.h"

#include <errno.h>

#define STALE (MS_STATE_DEAD | MS_STATE_UNKNOWN | MS_STATE_GIVEN)

static uint64_t hold_one(uint32_t kind)
{
	return kind == MEMSLOT_HOLD_IO ? 1 : 1ull << 24;
}

static uint64_t hold_mask(uint32_t kind)
{
	return kind == MEMSLOT_HOLD_IO ? MS_STATE_IO_MASK : MS_STATE_PIN_MASK;
}

static bool hold_valid(const struct memslot_slot *slot, uint32_t kind)
{
	return slot && (kind == MEMSLOT_HOLD_IO || kind == MEMSLOT_HOLD_PIN);
}

static bool survives_fork(const struct memslot_slot *slot, uint64_t word)
{
	return !(slot->flags & MEMSLOT_SLOT_DONTFORK) &&
	       !(word & (MS_STATE_IO_MASK | MS_STATE_PIN_MASK));
}

#define ADOPTING (1ull << 63) /* in slot->epoch: a thread of that process is at it */

/* Is it ours to adopt? If not, another thread has done it when this returns. */
static bool first_to_adopt(struct memslot_slot *slot, uint64_t epoch)
{
	uint64_t seen = atomic_load(&slot->epoch);

	while (seen != epoch) {
		if (seen == (epoch | ADOPTING)) {
			ms_os_yield();
			seen = atomic_load(&slot->epoch);
		} else if (atomic_compare_exchange_weak(&slot->epoch, &seen, epoch | ADOPTING)) {
			return true;
		}
	}
	return false;
}

/* First use in a child. */
static void adopt(struct memslot_slot *slot, uint64_t epoch)
{
	uint64_t word;

	if (!first_to_adopt(slot, epoch))
		return;
	word = atomic_load(&slot->word);
	if (!survives_fork(slot, word))
		atomic_fetch_or(&slot->word, MS_STATE_DEAD);
	if ((word & (MS_STATE_BUSY | MS_STATE_CHANGING)) ||
		((word & MS_STATE_CALLBACK) && slot->callback_thread != ms_counter_thread())) {
		atomic_fetch_or(&slot->word, MS_STATE_UNKNOWN);
		atomic_fetch_and(
			&slot->word, ~(MS_STATE_BUSY | MS_STATE_CALLBACK | MS_STATE_CHANGING));
	}
	slot->exact = false;
	slot->seen.thread = 0;
	atomic_store(&slot->epoch, epoch);
}

static uint64_t word_now(struct memslot_slot *slot)
{
	uint64_t epoch = ms_fork_epoch();

	if (MS_UNLIKELY(atomic_load_explicit(&slot->epoch, memory_order_acquire) != epoch))
		adopt(slot, epoch);
	return atomic_load_explicit(&slot->word, memory_order_acquire);
}

int ms_state_usable(struct memslot_slot *slot)
{
	uint64_t word = word_now(slot);

	if (word & STALE)
		return -ESTALE;
	return word & MS_STATE_AWAY ? -EBUSY : 0;
}

bool ms_state_dead(const struct memslot_slot *slot)
{
	uint64_t word = atomic_load(&slot->word);
	bool child = atomic_load(&slot->epoch) != ms_fork_epoch();

	return (word & MS_STATE_DEAD) || (child && !survives_fork(slot, word));
}

void ms_state_begin_change(struct memslot_slot *slot)
{
	atomic_fetch_or(&slot->word, MS_STATE_CHANGING);
}

int ms_state_may_grow(struct memslot_slot *slot)
{
	uint64_t word = word_now(slot);

	if (word & STALE)
		return -ESTALE;
	if (word & (MS_STATE_BUSY | MS_STATE_CALLBACK | MS_STATE_AWAY))
		return -EBUSY;
	ms_state_begin_change(slot);
	return 0;
}

int ms_state_may_capture(struct memslot_slot *slot)
{
	uint64_t word = word_now(slot);

	if (word & STALE)
		return -ESTALE;
	return word & (MS_STATE_BUSY | MS_STATE_AWAY | MS_STATE_IO_MASK) ? -EBUSY : 0;
}

static int refusal(uint64_t word, uint32_t alone)
{
	if (word & MS_STATE_DEAD)
		return -ESTALE;
	if (word & (MS_STATE_BUSY | MS_STATE_CALLBACK | MS_STATE_AWAY | MS_STATE_IO_MASK))
		return -EBUSY;
	if ((word & MS_STATE_GIVEN) && !(alone & MS_ALONE_GIVEN))
		return -ESTALE;
	if ((word & MS_STATE_UNKNOWN) && !(alone & MS_ALONE_UNKNOWN))
		return -ESTALE;
	/* Remaking maps over the pages: never under a pin. */
	if ((word & MS_STATE_PIN_MASK) && (!(alone & MS_ALONE_PINNED) || (word & MS_STATE_UNKNOWN)))
		return -EBUSY;
	return 0;
}

int ms_state_begin(struct memslot_slot *slot, uint32_t alone, uint64_t *ret_word)
{
	uint64_t word = word_now(slot);

	do {
		int error = refusal(word, alone);
		if (error)
			return error;
	} while (!atomic_compare_exchange_weak(&slot->word, &word, word | MS_STATE_BUSY));
	*ret_word = word;
	return 0;
}

int ms_state_begin_destroy(struct memslot_slot *slot, uint64_t *ret_word)
{
	*ret_word = word_now(slot);
	return *ret_word & MS_STATE_DEAD ? 0 : ms_state_begin(slot, MS_ALONE_UNKNOWN, ret_word);
}

uint64_t ms_state_begin_away(struct memslot_slot *slot)
{
	uint64_t word = word_now(slot);

	/* Nothing of a slot is touched while the kernel may still write to it (INVARIANTS 16). */
	MS_TRAP_UNLESS((word & MS_STATE_DEAD) || !ms_state_held(slot));
	return atomic_fetch_or(&slot->word, MS_STATE_BUSY);
}

int ms_state_begin_back(struct memslot_slot *slot, uint64_t *ret_word)
{
	uint64_t word = word_now(slot), held, next;

	do {
		held = word & (MS_STATE_IO_MASK | MS_STATE_PIN_MASK);
		if (word & MS_STATE_DEAD)
			return -ESTALE;
		if (word & (MS_STATE_BUSY | MS_STATE_CALLBACK | MS_STATE_CHANGING))
			return -EBUSY;
		next = word | MS_STATE_AWAY | (held ? 0 : MS_STATE_BUSY);
	} while (!atomic_compare_exchange_weak(&slot->word, &word, next));
	*ret_word = word;
	return held ? MS_BACK_HELD : 0;
}

static void end(struct memslot_slot *slot, uint64_t cleared, bool unknown)
{
	if (unknown) {
		slot->exact = false;
		atomic_fetch_or(&slot->word, MS_STATE_UNKNOWN);
	}
	atomic_fetch_and(&slot->word, ~cleared);
}

void ms_state_end_change(struct memslot_slot *slot, bool unknown)
{
	end(slot, MS_STATE_CHANGING, unknown);
}

void ms_state_end(struct memslot_slot *slot, bool unknown)
{
	end(slot, MS_STATE_BUSY, unknown);
}

void ms_state_end_away(struct memslot_slot *slot, bool unknown)
{
	end(slot, MS_STATE_BUSY | MS_STATE_TOUCHED | (unknown ? 0 : MS_STATE_UNKNOWN), unknown);
}

void ms_state_give(struct memslot_slot *slot)
{
	atomic_fetch_or(&slot->word, MS_STATE_GIVEN);
	end(slot, MS_STATE_AWAY | MS_STATE_UNCONFINED, false);
}

void ms_state_lose(struct memslot_slot *slot)
{
	atomic_fetch_or(&slot->word, MS_STATE_AWAY);
	end(slot, MS_STATE_GIVEN, true);
}

bool ms_state_held(const struct memslot_slot *slot)
{
	return atomic_load(&slot->word) & (MS_STATE_IO_MASK | MS_STATE_PIN_MASK);
}

/* It is the tenant's slot now: holds are legal, but nothing that must be alone is. */
static int run_on_reset(struct memslot_slot *slot, uint64_t cleared)
{
	uint64_t given = atomic_load(&slot->word) & cleared & MS_STATE_GIVEN;
	int error;

	slot->callback_thread = ms_counter_thread();
	atomic_fetch_or(&slot->word, MS_STATE_CALLBACK);
	atomic_fetch_and(&slot->word, ~cleared);
	error = slot->on_reset(slot, slot->context);
	if (error < 0) /* what was given unseen still is: the target is somebody else's */
		atomic_fetch_or(&slot->word, MS_STATE_UNKNOWN | given);
	atomic_fetch_and(&slot->word, ~MS_STATE_CALLBACK);
	return error < 0 ? error : 0;
}

int ms_state_end_reset(struct memslot_slot *slot, int error, bool handed_out)
{
	uint64_t cleared = MS_STATE_BUSY | MS_STATE_UNKNOWN;

	if (error) {
		ms_state_end(slot, true);
		return error;
	}
	if (!(atomic_load(&slot->word) & MS_STATE_PIN_MASK))
		cleared |= MS_STATE_TOUCHED;
	if (handed_out)
		cleared |= MS_STATE_UNCONFINED | MS_STATE_AWAY | MS_STATE_GIVEN;
	if (slot->on_reset)
		return run_on_reset(slot, cleared);
	atomic_fetch_and(&slot->word, ~cleared);
	return 0;
}

MS_EXPORT int memslot_slot_hold(struct memslot_slot *slot, uint32_t kind)
{
	uint64_t word;

	if (!hold_valid(slot, kind))
		return -EINVAL;
	word = word_now(slot);
	do {
		if (word & STALE)
			return -ESTALE;
		if (word & (MS_STATE_BUSY | MS_STATE_AWAY))
			return -EBUSY;
		if ((word & hold_mask(kind)) == hold_mask(kind))
			return -EMSGSIZE;
	} while (!atomic_compare_exchange_weak(
		&slot->word, &word, (word + hold_one(kind)) | MS_STATE_TOUCHED));
	return 0;
}

MS_EXPORT int memslot_slot_unhold(struct memslot_slot *slot, uint32_t kind)
{
	uint64_t word, next;

	if (!hold_valid(slot, kind))
		return -EINVAL;
	word = word_now(slot);
	do {
		if (word & MS_STATE_DEAD)
			return -ESTALE;
		if (!(word & hold_mask(kind)))
			return -EINVAL;
		next = word - hold_one(kind);
	} while (!atomic_compare_exchange_weak(&slot->word, &word, next));
	if ((next & MS_STATE_AWAY) && !(next & (MS_STATE_IO_MASK | MS_STATE_PIN_MASK)))
		slot->lender->unheld(slot); /* the last thing done with the slot */
	return 0;
}

MS_EXPORT void memslot_slot_unconfine(struct memslot_slot *slot)
{
	if (slot)
		atomic_fetch_or(&slot->word, MS_STATE_UNCONFINED);
}
