/* SPDX-License-Identifier: MIT */
/*
 * hand.c - buffers go out and come back.
 *
 *   FREE -> OUT -> FREE        FREE -> MAGAZINE -> OUT -> MAGAZINE (its credit stays taken)
 *
 * Invariant: whose word says OUT, with a reference or an operation, is with a user or with the
 * kernel; who takes the last of both away, and nobody else, puts the buffer back. A generation is
 * drawn at each hand-out, so that a handle from the past is told.
 *
 * A magazine's lock is taken by one exchange and given back by a store, for a few instructions.
 * While somebody waits magazines stay empty: who is about to wait takes their room away, and then
 * opens each; who puts something in asks for the room with the magazine open. Of the two, the
 * second to open it sees what the first did (INVARIANTS 31).
 */
#include "buffers/buffers.h"

#include <errno.h>
#include <string.h>

#define relaxed memory_order_relaxed
#define SPINS 100
#define NAP_NS 50000

/* --- magazines --- */

static struct ms_magazine *own_magazine(struct memslot_buffers *buffers)
{
	return &buffers->magazines[ms_counter_thread() % MS_MAGAZINES];
}

static bool try_open(struct ms_magazine *magazine)
{
	return !atomic_exchange_explicit(&magazine->lock, 1, memory_order_acquire);
}

static void shut(struct ms_magazine *magazine)
{
	atomic_store_explicit(&magazine->lock, 0, memory_order_release);
}

/* Who has it open may have been interrupted: naps, as it may need this processor to go on. */
static void open_it(struct ms_magazine *magazine)
{
	for (unsigned i = 1; !try_open(magazine); i++) {
		if (i > SPINS)
			(void)ms_os_futex_wait(&magazine->lock, 1, ms_os_clock_ns() + NAP_NS);
	}
}

uint64_t ms_hand_magazines(const struct memslot_buffers *buffers)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < MS_MAGAZINES; i++)
		sum += atomic_load_explicit(&buffers->magazines[i].count, relaxed);
	return sum;
}

uint64_t ms_hand_live(const struct memslot_buffers *buffers)
{
	return buffers->used - ms_min(buffers->used, ms_hand_magazines(buffers));
}

static inline void set_owner(struct memslot_buffers *buffers, uint32_t index, uint64_t owner)
{
	_Atomic(uint64_t) *word = &buffers->cells[index].word;
	uint64_t generation = atomic_load_explicit(word, relaxed) & ~(MS_CELL_GENERATION - 1);

	atomic_store_explicit(word, generation | owner, memory_order_release);
}

/* Under the lock. */
static void put_in_area(struct memslot_buffers *buffers, uint32_t index)
{
	uint32_t count = buffers->cells[index].count;

	set_owner(buffers, index, MS_CELL_FREE);
	ms_areas_put(buffers, index, count);
	buffers->used -= count;
}

void ms_hand_collect(struct memslot_buffers *buffers)
{
	for (uint32_t i = 0; i < MS_MAGAZINES; i++) {
		struct ms_magazine *magazine = &buffers->magazines[i];
		uint32_t count;
		open_it(magazine);
		count = atomic_load_explicit(&magazine->count, relaxed);
		for (uint32_t k = 0; k < count; k++)
			put_in_area(buffers, magazine->index[k]);
		atomic_store_explicit(&magazine->count, 0, relaxed);
		shut(magazine);
	}
}

/* --- out --- */

void ms_hand_over(struct memslot_buffers *buffers, uint32_t index, uint64_t owner)
{
	set_owner(buffers, index, owner | (owner & MS_CELL_USER ? MS_CELL_REF : 0));
}

static inline __attribute__((always_inline)) void give(
	struct memslot_buffers *buffers, uint32_t index, struct memslot_buffer *ret_buffer)
{
	struct ms_cell *cell = &buffers->cells[index];
	uint64_t word = atomic_load_explicit(&cell->word, relaxed) | (MS_CELL_GENERATION - 1);

	word += 1; /* the next generation, and nothing else */
	atomic_store_explicit(&cell->word, word | MS_CELL_OUT | MS_CELL_REF, relaxed);
	ret_buffer->base = ms_areas_address(buffers, index);
	ret_buffer->size = (size_t)1 << buffers->size_shift;
	ret_buffer->handle = buffers->handle | word >> 32;
	ret_buffer->index = index;
	ret_buffer->count = cell->count;
}

static inline bool give_from_magazine(
	struct memslot_buffers *buffers, struct memslot_buffer *ret_buffer)
{
	struct ms_magazine *magazine = own_magazine(buffers);
	uint32_t count, index;

	if (!try_open(magazine))
		return false;
	count = atomic_load_explicit(&magazine->count, relaxed);
	if (count == 0) {
		shut(magazine);
		return false;
	}
	index = magazine->index[count - 1];
	atomic_store_explicit(&magazine->count, count - 1, relaxed);
	shut(magazine);
	give(buffers, index, ret_buffer);
	return true;
}

bool ms_hand_out(struct memslot_buffers *buffers, uint32_t count, struct memslot_buffer *ret_buffer)
{
	uint32_t index;

	if (buffers->used >= buffers->budget || count > buffers->budget - buffers->used)
		return false;
	if (!ms_areas_take(buffers, count, &index))
		return false;
	buffers->used += count;
	buffers->cells[index].count = count;
	buffers->high_water = ms_max(buffers->high_water, ms_hand_live(buffers));
	give(buffers, index, ret_buffer);
	return true;
}

void ms_hand_stock(struct memslot_buffers *buffers)
{
	struct ms_magazine *magazine = own_magazine(buffers);
	uint32_t room = atomic_load_explicit(&buffers->magazine_room, relaxed) / 2, count, index;

	if (!try_open(magazine))
		return;
	count = atomic_load_explicit(&magazine->count, relaxed);
	while (count < room && buffers->used < buffers->budget &&
		ms_areas_take(buffers, 1, &index)) {
		buffers->used++;
		buffers->cells[index].count = 1;
		set_owner(buffers, index, MS_CELL_MAGAZINE);
		magazine->index[count++] = index;
	}
	atomic_store_explicit(&magazine->count, count, relaxed);
	shut(magazine);
}

static __attribute__((noinline)) int acquire(struct memslot_buffers *buffers, uint32_t count,
	uint64_t timeout_ns, struct memslot_buffer *ret_buffer)
{
	if (!buffers || !ret_buffer || count == 0)
		return -EINVAL;
	if (ms_buffers_usable(buffers))
		return -ESTALE;
	if (count == 1 && give_from_magazine(buffers, ret_buffer))
		return 0;
	return ms_line_acquire(buffers, count, timeout_ns, ret_buffer);
}

/* What calls nothing needs no frame: whatever is unusual begins anew in `acquire`. */
MS_EXPORT int memslot_buffers_acquire(struct memslot_buffers *buffers, uint32_t count,
	uint64_t timeout_ns, struct memslot_buffer *ret_buffer)
{
	if (MS_LIKELY(buffers && ret_buffer && count == 1 && ms_buffers_here(buffers) &&
		      ms_counter_number && give_from_magazine(buffers, ret_buffer)))
		return 0;
	return acquire(buffers, count, timeout_ns, ret_buffer);
}

/* --- back --- */

/* Into this thread's magazine, unless it is full, or somebody waits. */
static inline bool keep(struct memslot_buffers *buffers, uint32_t index)
{
	struct ms_magazine *magazine = own_magazine(buffers);
	uint32_t count;
	bool kept;

	if (!try_open(magazine))
		return false;
	count = atomic_load_explicit(&magazine->count, relaxed);
	kept = count < atomic_load_explicit(&buffers->magazine_room, relaxed);
	if (MS_LIKELY(kept)) {
		set_owner(buffers, index, MS_CELL_MAGAZINE);
		magazine->index[count] = index;
		atomic_store_explicit(&magazine->count, count + 1, relaxed);
	}
	shut(magazine);
	return kept;
}

/* Under the lock: the half that was used longest ago makes room for what comes next. */
static void spill(struct memslot_buffers *buffers)
{
	struct ms_magazine *magazine = own_magazine(buffers);
	uint32_t room = atomic_load_explicit(&buffers->magazine_room, relaxed), count, half;

	if (!try_open(magazine))
		return;
	count = atomic_load_explicit(&magazine->count, relaxed);
	half = count > room / 2 ? count - room / 2 : 0;
	for (uint32_t i = 0; i < half; i++)
		put_in_area(buffers, magazine->index[i]);
	memmove(magazine->index, magazine->index + half,
		(count - half) * sizeof magazine->index[0]);
	atomic_store_explicit(&magazine->count, count - half, relaxed);
	shut(magazine);
}

/* Something came back: serve who waits, and leave the lock. */
static void leave(struct memslot_buffers *buffers)
{
	bool drained;

	ms_line_serve(buffers);
	drained = buffers->closed && buffers->used == 0;
	if (drained)
		atomic_fetch_add(&buffers->drained, 1);
	ms_lock_release(&buffers->lock);
	if (drained) /* the word may be gone: only its address is used */
		ms_os_futex_wake(&buffers->drained);
}

/* What a group counts as in hand is no more, or never will be. */
static inline void leave_group(struct memslot_buffers *buffers, const struct ms_cell *cell)
{
	if ((atomic_load_explicit(&cell->word, relaxed) & MS_CELL_OWNER) == MS_CELL_SELECTED)
		atomic_fetch_sub(&buffers->in_hand[cell->group], 1);
}

/* To the pool, and to whoever waits for it. */
__attribute__((noinline)) int ms_hand_back(struct memslot_buffers *buffers, uint32_t index)
{
	struct ms_cell *cell = &buffers->cells[index];

	leave_group(buffers, cell);
	if (buffers->flags & MEMSLOT_BUFFERS_ZERO)
		memset(ms_areas_address(buffers, index), 0,
			(size_t)cell->count << buffers->size_shift);
	if (cell->count == 1 && keep(buffers, index))
		return 0;
	ms_lock_take(&buffers->lock);
	if (cell->count == 1)
		spill(buffers);
	put_in_area(buffers, index);
	leave(buffers);
	return 0;
}

static __attribute__((noinline)) int release(
	struct memslot_buffers *buffers, const struct memslot_buffer *buffer)
{
	uint64_t word;

	if (!buffers || !buffer)
		return -EINVAL;
	if (ms_buffers_usable(buffers) || !ms_hand_cell(buffers, buffer, &word))
		return -ESTALE;
	if ((word & (MS_CELL_REFS | MS_CELL_OPS)) == MS_CELL_REF)
		return ms_hand_back(buffers, buffer->index);
	return ms_hand_drop(buffers, buffer->index, word, MS_CELL_REF);
}

/* One buffer, that goes into a magazine as it is. */
static inline bool is_simple(struct memslot_buffers *buffers, const struct memslot_buffer *buffer)
{
	uint64_t word;
	const struct ms_cell *cell = ms_hand_sole(buffers, buffer, 0, &word);

	return cell && cell->count == 1;
}

MS_EXPORT int memslot_buffers_release(
	struct memslot_buffers *buffers, const struct memslot_buffer *buffer)
{
	if (MS_LIKELY(buffers && buffer && ms_buffers_here(buffers) && !buffers->flags &&
		      ms_counter_number && is_simple(buffers, buffer) &&
		      keep(buffers, buffer->index)))
		return 0;
	return release(buffers, buffer);
}

int ms_hand_add(struct ms_cell *cell, uint64_t word, uint64_t what)
{
	uint64_t generation = word >> 32;

	do {
		if (word >> 32 != generation || !(word & MS_CELL_REFS))
			return -ESTALE;
		if ((word & (what * 0x3fff)) == what * 0x3fff)
			return -EMSGSIZE;
	} while (!atomic_compare_exchange_weak_explicit(
		&cell->word, &word, word + what, memory_order_acq_rel, memory_order_acquire));
	return 0;
}

void ms_hand_lose(struct memslot_buffers *buffers, uint32_t index)
{
	struct ms_cell *cell = &buffers->cells[index];

	if (atomic_fetch_or(&cell->word, MS_CELL_LOST) & MS_CELL_LOST)
		return;
	leave_group(buffers, cell);
	ms_lock_take(&buffers->lock);
	buffers->used -= cell->count; /* the budget is about what comes back */
	buffers->quarantined += cell->count;
	leave(buffers);
}

MS_EXPORT int memslot_buffers_ref(
	struct memslot_buffers *buffers, const struct memslot_buffer *buffer)
{
	struct ms_cell *cell;
	uint64_t word;

	if (!buffers || !buffer)
		return -EINVAL;
	if (ms_buffers_usable(buffers))
		return -ESTALE;
	cell = ms_hand_cell(buffers, buffer, &word);
	return cell ? ms_hand_add(cell, word, MS_CELL_REF) : -ESTALE;
}
