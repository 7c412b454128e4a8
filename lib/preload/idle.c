/* SPDX-License-Identifier: MIT */
/*
 * idle.c - which slot is handed out next, and which is one too many.
 *
 * Invariant: every IDLE range is on exactly one list, of its shape: warm (pages are resident) or
 * cold; newest first. Everything here runs under the lock and makes no call. The sum of resident
 * bytes of all warm ones is `held`.
 *
 * How many are kept: as many as the program was seen to keep alive at once (and a few more), or
 * what
 * --slots says. When there are too many the oldest goes; when they hold too many bytes the oldest
 * warm one loses its pages.
 */
#define _GNU_SOURCE
#include "preload.h"

#define FEW 8
/* Each so many tenants of a shape with huge pages one goes without; more, when that was in vain. */
#define HUGE_TRIALS 32
#define HUGE_TRIALS_MOST 1024
/* Tenants that write fewer pages are cheaper made anew than cleaned and closed; of a shape whose
 * first ones did each so many one is looked at. */
#define FEW_PAGES 3
#define FEW_FIRST 16
#define FEW_TRIALS 64
#define HOPELESS 64 /* so many were never unmapped whole, and none ever was */

struct list {
	uint32_t newest, oldest;
};

struct shape {
	uint64_t key; /* see memslot_preload_shape; 0: unused */
	struct memslot_preload_shape *row, spare;
	struct list lists[2]; /* cold, warm */
	uint32_t refs; /* of ranges, and of requests on their way: with one it keeps its key */
	uint32_t huge_tenants, huge_trials; /* since the last trial, until the next */
	bool huge;
	uint32_t looked, sixteenths, unseen; /* tenants; pages of one, times 16; since one was */
	uint32_t kept, gone;		     /* after use: cleaned, otherwise */
};

static struct shape shapes[MEMSLOT_PRELOAD_SHAPES];
static uint64_t live, peak, idle, held, clock;

/* A range of another size on its lists would be handed out for this one. */
static bool reusable(const struct shape *shape)
{
	return shape->refs == 0;
}

uint32_t ms_idle_shape(uint64_t size, bool noreserve)
{
	uint64_t key = size | noreserve;
	struct shape *found = NULL;

	for (struct shape *shape = shapes; shape < shapes + MEMSLOT_PRELOAD_SHAPES; shape++) {
		if (shape->key == key) {
			shape->refs++;
			return (uint32_t)(shape - shapes);
		}
		if (reusable(shape) && (!found || (found->key && !shape->key)))
			found = shape;
	}
	if (!found)
		return MS_NONE;
	*found = (struct shape){
		.key = key, .refs = 1, .lists = {{MS_NONE, MS_NONE}, {MS_NONE, MS_NONE}}};
	found->row = ms_tally_shape(key);
	return (uint32_t)(found - shapes);
}

void ms_idle_hold(uint32_t shape)
{
	shapes[shape].refs++;
}

void ms_idle_drop(uint32_t shape)
{
	shapes[shape].refs--;
}

bool ms_idle_noreserve(uint32_t shape)
{
	return shapes[shape].key & 1;
}

struct memslot_preload_shape *ms_idle_row(uint32_t shape)
{
	return shapes[shape].row ? shapes[shape].row : &shapes[shape].spare;
}

static struct list *list_of(const struct ms_range *range)
{
	return &shapes[range->shape].lists[range->resident > 0];
}

void ms_idle_unlink(struct ms_range *range)
{
	struct list *list = list_of(range);

	if (range->next == MS_NONE)
		list->oldest = range->prev;
	else
		ms_registry_at(range->next)->prev = range->prev;
	if (range->prev == MS_NONE)
		list->newest = range->next;
	else
		ms_registry_at(range->prev)->next = range->next;
	idle--;
	held -= range->resident;
	ms_tally_add(&ms_tally->idle, (uint64_t)-1);
	ms_tally_add(&ms_tally->held_bytes, -range->resident);
}

void ms_idle_put(struct ms_range *range)
{
	struct list *list = list_of(range);
	uint32_t number = ms_registry_number(range);

	range->stamp = ++clock;
	range->prev = MS_NONE;
	range->next = list->newest;
	if (list->newest == MS_NONE)
		list->oldest = number;
	else
		ms_registry_at(list->newest)->prev = number;
	list->newest = number;
	idle++;
	held += range->resident;
	ms_tally_add(&ms_tally->idle, 1);
	ms_tally_add(&ms_tally->held_bytes, range->resident);
	ms_tally_max(&ms_tally->peak_bytes, ms_tally->held_bytes);
	atomic_store_explicit(&range->state, MS_RANGE_IDLE, memory_order_release);
}

static struct ms_range *busy(uint32_t number)
{
	struct ms_range *range = ms_registry_at(number);

	atomic_store(&range->state, MS_RANGE_BUSY);
	ms_idle_unlink(range);
	return range;
}

struct ms_range *ms_idle_take(uint32_t number)
{
	const struct shape *shape = &shapes[number];

	for (int warm = 1; warm >= 0; warm--) {
		if (shape->lists[warm].newest != MS_NONE)
			return busy(shape->lists[warm].newest);
	}
	return NULL;
}

/* The one that has been idle longest; warm: of those with pages. */
static uint32_t oldest(bool warm_only)
{
	uint32_t found = MS_NONE;

	for (const struct shape *shape = shapes; shape < shapes + MEMSLOT_PRELOAD_SHAPES; shape++) {
		for (int warm = warm_only; shape->key && warm < 2; warm++) {
			uint32_t number = shape->lists[warm].oldest;
			if (number != MS_NONE &&
				(found == MS_NONE || ms_registry_at(number)->stamp <
							     ms_registry_at(found)->stamp))
				found = number;
		}
	}
	return found;
}

static bool too_many(void)
{
	if (ms_config.slots != UINT64_MAX)
		return idle > ms_config.slots;
	return idle + live > peak + peak / 4 + FEW;
}

struct ms_range *ms_idle_surplus(bool all, bool *ret_drop)
{
	uint32_t number;

	*ret_drop = !all && !too_many();
	if (*ret_drop && held <= ms_config.budget)
		return NULL;
	number = oldest(*ret_drop);
	return number == MS_NONE ? NULL : busy(number);
}

void ms_idle_born(struct ms_range *range)
{
	struct memslot_preload_shape *row = ms_idle_row(range->shape);

	live++;
	peak = ms_max(peak, live);
	ms_tally_add(&row->live, 1);
	ms_tally_max(&row->peak, row->live);
}

void ms_idle_died(struct ms_range *range)
{
	live--;
	ms_tally_add(&ms_idle_row(range->shape)->live, (uint64_t)-1);
}

void ms_idle_clear(void)
{
	for (uint32_t i = 0; i < MEMSLOT_PRELOAD_SHAPES; i++) {
		struct shape *shape = &shapes[i];
		struct memslot_preload_shape *row = shape->row;
		*shape = (struct shape){.key = shape->key,
			.row = row,
			.lists = {{MS_NONE, MS_NONE}, {MS_NONE, MS_NONE}}};
	}
	live = peak = idle = held = 0;
}

bool ms_idle_wants_huge(uint32_t number)
{
	struct shape *shape = &shapes[number];

	if (ms_config.thp != MS_THP_AUTO)
		return ms_config.thp == MS_THP_KEEP;
	if (!__atomic_load_n(&shape->huge, __ATOMIC_RELAXED))
		return false;
	/* From time to time one goes without, or nobody would know what it writes. */
	if (__atomic_add_fetch(&shape->huge_tenants, 1, __ATOMIC_RELAXED) <
		__atomic_load_n(&shape->huge_trials, __ATOMIC_RELAXED))
		return true;
	__atomic_store_n(&shape->huge_tenants, 0, __ATOMIC_RELAXED);
	return false;
}

bool ms_idle_few(uint32_t number)
{
	struct shape *shape = &shapes[number];

	return ms_config.mode == MS_MODE_STRICT &&
	       __atomic_load_n(&shape->looked, __ATOMIC_RELAXED) >= FEW_FIRST &&
	       __atomic_load_n(&shape->sixteenths, __ATOMIC_RELAXED) < 16 * FEW_PAGES;
}

bool ms_idle_hopeless(uint32_t number)
{
	const struct shape *shape = &shapes[number];

	return __atomic_load_n(&shape->gone, __ATOMIC_RELAXED) >= HOPELESS &&
	       __atomic_load_n(&shape->kept, __ATOMIC_RELAXED) == 0;
}

void ms_idle_ended(uint32_t number, bool kept)
{
	uint32_t *count = kept ? &shapes[number].kept : &shapes[number].gone;

	__atomic_store_n(count, *count + 1, __ATOMIC_RELAXED); /* under the lock */
}

bool ms_idle_trial(uint32_t number)
{
	return __atomic_add_fetch(&shapes[number].unseen, 1, __ATOMIC_RELAXED) % FEW_TRIALS == 0;
}

/* A sum of the last ones, which fade: threads that meet here lose one. */
static void learn_few(struct shape *shape, uint64_t pages)
{
	uint32_t sum = __atomic_load_n(&shape->sixteenths, __ATOMIC_RELAXED);
	uint32_t looked = __atomic_add_fetch(&shape->looked, 1, __ATOMIC_RELAXED);

	pages = ms_min(pages, UINT32_MAX / 32);
	sum = looked == 1 ? 16 * (uint32_t)pages : sum - sum / 16 + (uint32_t)pages;
	__atomic_store_n(&shape->sixteenths, sum, __ATOMIC_RELAXED);
}

void ms_idle_learn(uint32_t number, uint64_t pages, uint64_t opened_pages)
{
	struct shape *shape = &shapes[number];
	bool before = __atomic_load_n(&shape->huge, __ATOMIC_RELAXED),
	     now = pages * 4 > opened_pages;
	uint32_t trials = __atomic_load_n(&shape->huge_trials, __ATOMIC_RELAXED);

	trials = before && now ? (uint32_t)ms_min(2 * trials, HUGE_TRIALS_MOST) : HUGE_TRIALS;
	__atomic_store_n(&shape->huge_trials, trials, __ATOMIC_RELAXED);
	__atomic_store_n(&shape->huge, now, __ATOMIC_RELAXED);
	learn_few(shape, pages);
}
