/* SPDX-License-Identifier: MIT */
/*
 * reset.c - putting every byte that was written back.
 *
 * Invariant: after ms_reset_contents every byte below the edge equals the image (or zero), exempt
 * pages of a slot in hand excepted. Which pages may differ is known for certain in one of two ways:
 * the fault counter proves that the retained set is still exact (INVARIANTS 7), or a scan says so
 * now. Where neither can be had, everything is dropped. When in doubt, the next weaker evidence.
 */
#include "slot/slot.h"

#include "base/feature.h"

#include <errno.h>

#include "slot/inspect.h"

/* After this many readings in a row that moved though nothing new was written, stop asking. */
#define SPOILT_MAX 8
#define SPOILT_PAUSE 64
#define OWN_READINGS 64

static int restore_unless_exempt(struct memslot_slot *slot, size_t first, size_t end)
{
	struct ms_page_run stretch;
	int error = 0;

	if (slot->exempt.count == 0)
		return ms_restore(slot, first, end);
	while (!error && ms_runs_outside(&slot->exempt, first, end, &stretch)) {
		error = ms_restore(slot, stretch.first, stretch.end);
		first = stretch.end;
	}
	return error;
}

int ms_reset_retained(struct memslot_slot *slot)
{
	const struct ms_retained *set = &slot->retained;
	size_t visible = ms_retained_below(set, ms_slot_end(slot));
	int error = 0;

	for (size_t i = 0; !error && i < visible;) {
		size_t length = ms_retained_run(set, i, visible), first = set->page[i];
		error = restore_unless_exempt(slot, first, first + length);
		i += length;
	}
	return error;
}

/* --- evidence --- */

static bool is_confined(const struct memslot_slot *slot, uint64_t word)
{
	return slot->confined && !(slot->flags & MEMSLOT_SLOT_HUGEPAGE) &&
	       !(word & MS_STATE_UNCONFINED) && !slot->no_counter;
}

/* A slot that was held is copied whole, never judged by what it costs (INVARIANTS 10). */
static bool wants_drop(struct memslot_slot *slot, const struct ms_evidence *evidence)
{
	if (evidence->touched)
		return false;
	if (slot->reset_method == MEMSLOT_RESET_DROP || slot->retained.max == 0)
		return true;
	return slot->reset_method == MEMSLOT_RESET_AUTO && ms_policy_drops(&slot->policy);
}

static void read_counter(struct memslot_slot *slot, struct ms_evidence *evidence)
{
	if (slot->pause) {
		slot->pause--; /* a promise that does not hold costs more than none */
		return;
	}
	if (ms_counter_read(&evidence->now))
		evidence->now.thread = 0;
}

/* Has no page of the slot become private since the set was exact? */
static bool nothing_new(struct memslot_slot *slot, const struct ms_evidence *evidence)
{
	const struct ms_reading *now = &evidence->now, *seen = &slot->seen;

	if (!evidence->confined || now->thread == 0 || now->thread != seen->thread ||
		now->epoch != seen->epoch)
		return false;
	slot->stats.faults += now->faults - seen->faults;
	return now->faults == seen->faults;
}

struct ms_evidence ms_reset_evidence(struct memslot_slot *slot, uint64_t word)
{
	struct ms_evidence evidence = {
		.touched = word & (MS_STATE_TOUCHED | MS_STATE_PIN_MASK),
		.pinned = word & MS_STATE_PIN_MASK,
		.confined = is_confined(slot, word),
	};

	evidence.drop = wants_drop(slot, &evidence);
	if (evidence.drop)
		return evidence;
	if (evidence.confined && slot->reset_method != MEMSLOT_RESET_SCAN)
		read_counter(slot, &evidence);
	evidence.known = slot->exact && !evidence.touched &&
			 (ms_slot_end(slot) == 0 || nothing_new(slot, &evidence));
	return evidence;
}

bool ms_reset_nothing_written(struct memslot_slot *slot, struct ms_evidence *evidence)
{
	if (slot->retained.count || !slot->exact || evidence->touched)
		return false;
	if (ms_slot_end(slot) == 0)
		return true;
	if (evidence->confined && evidence->now.thread == 0)
		read_counter(slot, evidence);
	return nothing_new(slot, evidence);
}

void ms_reset_take_reading(struct memslot_slot *slot)
{
	struct ms_evidence evidence = {.confined = is_confined(slot, 0)};

	slot->seen.thread = 0;
	if (!evidence.confined || slot->pause || slot->reset_method == MEMSLOT_RESET_SCAN)
		return;
	/* The thread's last reading will do, unless its faults between hand-outs spoil it. */
	if (slot->spoilt)
		slot->own_readings = OWN_READINGS;
	if (slot->own_readings)
		slot->own_readings--;
	else
		slot->seen = ms_counter_last();
	if (slot->seen.thread == 0 && ms_counter_read(&slot->seen))
		slot->seen.thread = 0;
}

/* Is the reading worth its price? It moved: `fresh` tells whether for a reason. */
static void judge_reading(
	struct memslot_slot *slot, const struct ms_evidence *evidence, size_t fresh)
{
	if (evidence->now.thread == 0 || evidence->known || fresh) {
		slot->spoilt = 0;
		return;
	}
	if (slot->seen.thread == 0)
		return; /* there was nothing to compare with */
	if (++slot->spoilt < SPOILT_MAX)
		return;
	slot->spoilt = 0;
	slot->pause = SPOILT_PAUSE;
}

void ms_reset_keep_reading(struct memslot_slot *slot, const struct ms_evidence *evidence)
{
	/* Never a later one: a signal handler of the tenant's may have run during the reset, and the
	 * page that it wrote must move the counter for the next. */
	slot->seen = evidence->now;
}

/* --- the ways --- */

static int by_drop(struct memslot_slot *slot)
{
	slot->stats.resets_drop++;
	slot->stats.last_method = MEMSLOT_RESET_DROP;
	slot->stats.private_pages = 0;
	return ms_release_all(slot);
}

/* Registered pages, and no scan, or one that would not find all: everything may have been written. */
static int by_copying_all(struct memslot_slot *slot)
{
	slot->exact = false;
	slot->stats.resets_scan++;
	slot->stats.last_method = MEMSLOT_RESET_SCAN;
	return restore_unless_exempt(slot, 0, ms_slot_end(slot));
}

static int scan_timed(
	struct memslot_slot *slot, const struct ms_evidence *evidence, size_t *ret_fresh)
{
	uint64_t start = ms_os_clock_ns();
	int error = ms_scan(slot, evidence, ret_fresh);

	if (!error && slot->reset_method == MEMSLOT_RESET_AUTO)
		ms_policy_scanned(
			&slot->policy, slot->stats.private_pages, ms_os_clock_ns() - start);
	return error;
}

static int restore_timed(struct memslot_slot *slot)
{
	size_t pages = slot->retained.count;
	uint64_t start;
	int error;

	if (!ms_policy_times_restore(&slot->policy, pages))
		return ms_reset_retained(slot);
	start = ms_os_clock_ns();
	error = ms_reset_retained(slot);
	ms_policy_restored(&slot->policy, pages, ms_os_clock_ns() - start);
	return error;
}

static int by_copying(struct memslot_slot *slot, const struct ms_evidence *evidence, size_t fresh)
{
	int error;

	slot->stats.last_method = evidence->known ? MEMSLOT_RESET_RESTORE : MEMSLOT_RESET_SCAN;
	*(evidence->known ? &slot->stats.resets_known : &slot->stats.resets_scan) += 1;
	if (slot->reset_method != MEMSLOT_RESET_AUTO || evidence->touched)
		return ms_reset_retained(slot);
	if (slot->policy.inspecting)
		return ms_inspect(slot, !evidence->known, fresh);
	ms_inspect_samples(slot);
	error = restore_timed(slot);
	if (!error && !evidence->known)
		error = ms_inspect_clean_stretches(slot);
	return error;
}

int ms_reset_contents(struct memslot_slot *slot, const struct ms_evidence *evidence)
{
	size_t fresh = 0;
	int error = 0;

	if (evidence->drop)
		return by_drop(slot);
	if (slot->mixed) /* and pinned: else it would have been mapped anew */
		return by_copying_all(slot);
	if (!evidence->known) {
		error = ms_feature(MS_FEATURE_PAGEMAP_SCAN) ? scan_timed(slot, evidence, &fresh)
							    : -EOPNOTSUPP;
		if (error && error != -EOPNOTSUPP)
			slot->stats.scan_failures++;
		if (error && evidence->pinned)
			return by_copying_all(slot);
		if (error)
			return by_drop(slot);
	}
	judge_reading(slot, evidence, fresh);
	return by_copying(slot, evidence, fresh);
}
