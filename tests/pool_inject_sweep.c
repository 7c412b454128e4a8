/* SPDX-License-Identifier: MIT */
/*
 * pool_inject_sweep.c - fail the n-th system call of a kind, for n = 1, 2, ... until a run passes.
 *
 * After each run: the call did its work or told an error that it may tell; release, flush, trim,
 * forget and maintain never do. Then, with nothing failing any more, everything comes back, every
 * slot can be had, with every image, byte for byte; the pool can be destroyed, and nothing is left.
 */
#define _GNU_SOURCE
#include "pool_inject.h"

#include <errno.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	long number;
} kinds[] = {{"calloc", MS_INJECT_ALLOC}, {"mmap", SYS_mmap}, {"munmap", SYS_munmap},
	{"mprotect", SYS_mprotect}, {"madvise", SYS_madvise}, {"munlock", SYS_munlock},
	{"ioctl", SYS_ioctl}, {"openat", SYS_openat}, {"close", SYS_close}, {"lseek", SYS_lseek},
	{"pread", SYS_pread64}, {"fstat", SYS_fstat}, {"fcntl", SYS_fcntl},
	{"getrandom", SYS_getrandom}, {"getrusage", SYS_getrusage}, {"prctl", SYS_prctl},
	{"prlimit", SYS_prlimit64}, {"process_madvise", SYS_process_madvise}};
#define KINDS (sizeof kinds / sizeof kinds[0])
/* Made, and cannot fail: or nobody could be told. */
static const long sure[] = {SYS_getpid, SYS_write, SYS_futex, SYS_sched_yield};

static const struct {
	int error;
	bool partial, for_good;
} ways[] = {{ENOMEM, false, false}, {EINVAL, false, false}, {EPERM, false, false},
	{ENOMEM, true, false}, {EINVAL, true, false}, {EINVAL, false, true}, {ENOMEM, true, true}};
#define WAYS (sizeof ways / sizeof ways[0])

/* --- everybody goes home, and comes back --- */

static void go_home(struct stage *stage)
{
	if (stage->waiting) {
		int answer = memslot_pool_wait_cancel(stage->pool, &stage->waiter);
		ck_assert_msg(answer == 0 || answer == -EALREADY, "%d: %s", answer, stage_story());
		if (answer)
			stage->out[stage->out_count++] = stage->waiter.slot;
		stage->waiting = false;
	}
	if (stage->held)
		ck_assert_int_eq(memslot_slot_unhold(stage->held, MEMSLOT_HOLD_IO), 0);
	stage->held = NULL;
	while (stage->out_count) {
		int answer = memslot_pool_release(stage->pool, stage->out[--stage->out_count]);
		ck_assert_msg(answer == 0, "release: %d: %s", answer, stage_story());
	}
}

static void check_idle(const struct memslot_pool *pool)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	ck_assert_msg(
		stats.live == 0 && stats.held == 0 && stats.waiters == 0 &&
			stats.idle_warm + stats.idle_cold + stats.queued + stats.quarantined ==
				stats.capacity_count,
		"counters: %s", stage_story());
}

void stage_use(struct memslot_pool *pool)
{
	struct memslot_slot *slots[STAGE_SLOTS];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < STAGE_SLOTS; i++) {
			int image = (i * 2 + round) % STAGE_IMAGES, answer;
			answer = memslot_pool_acquire(
				pool, stage_image[image], STAGE_CAPACITY, NULL, &slots[i]);
			ck_assert_msg(answer == 0, "acquire: %d: %s", answer, stage_story());
			assert_image(slots[i], image);
			dirty_pages(slots[i], 0, 40, 2);
		}
		for (int i = 0; i < STAGE_SLOTS; i++)
			ck_assert_int_eq(memslot_pool_release(pool, slots[i]), 0);
	}
}

void stage_live_on(struct stage *stage)
{
	go_home(stage);
	check_idle(stage->pool);
	stage_use(stage->pool);
	check_idle(stage->pool);
}

void stage_end(struct stage *stage)
{
	int answer = memslot_pool_destroy(stage->pool);

	ck_assert_msg(answer == 0, "destroy: %d: %s", answer, stage_story());
	close(stage->waiter.event_fd);
}

/* --- leaks --- */

#define TRIES 10 /* a leak comes with every run */

struct world {
	size_t fds, mappings, heap;
};

static struct world look(void)
{
	return (struct world){
		test_fd_count(), test_vma_count(NULL, SIZE_MAX), mallinfo2().uordblks};
}

/* What could not be given back cannot count. */
static bool grew(const struct world *before, const struct world *after, long number)
{
	bool allocator_known = before->heap != 0;

	if (after->fds > before->fds && number != SYS_close)
		return true;
	return allocator_known && number != SYS_munmap &&
	       (after->mappings > before->mappings || after->heap > before->heap);
}

/* --- one run --- */

static void arm(size_t kind, size_t way, uint64_t at)
{
	ms_os_inject = (struct ms_os_inject){.at = at,
		.error = ways[way].error,
		.partial = ways[way].partial,
		.for_good = ways[way].for_good,
		.only = kinds[kind].number};
}

/* An error of its own, or the one that was there. */
static void judge(int call, int answer, int error)
{
	static const int own[] = {-EAGAIN, -EALREADY, -ENOMEM, -EBUSY};
	bool fine = answer == 0 || (stage_call_may_fail(call) && answer == -error);

	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		fine = fine || (stage_call_may_fail(call) && answer == own[i]);
	ck_assert_msg(fine, "answered %d: %s", answer, stage_story());
}

/* Did something fail? */
static bool run_once(int state, int call, size_t kind, size_t way, uint64_t at)
{
	struct stage stage;
	int answer;

	stage_tell("%s, edge %d: %s; %s number %u fails with %d%s%s", stage_state_name(state),
		state % STAGE_EDGES, stage_call_name(call), kinds[kind].name, (unsigned)at,
		ways[way].error, ways[way].partial ? ", half done" : "",
		ways[way].for_good ? ", for good" : "");
	stage_begin(&stage, state);
	arm(kind, way, at);
	answer = stage_call(call, &stage);
	ms_os_inject.at = 0;
	judge(call, answer, ways[way].error);
	if (stage_call_ends_pool(call)) {
		close(stage.waiter.event_fd);
	} else {
		stage_live_on(&stage);
		stage_end(&stage);
	}
	return ms_os_inject.seen >= at;
}

static bool run_checked(int state, int call, size_t kind, size_t way, uint64_t at)
{
	unsigned grown = 0;
	bool hit = false;

	for (unsigned tries = 0; tries == grown && tries < TRIES; tries++) {
		struct world before = look(), after;
		hit = run_once(state, call, kind, way, at);
		after = look();
		grown += grew(&before, &after, kinds[kind].number);
	}
	ck_assert_msg(grown < TRIES, "leaks: %s", stage_story());
	return hit;
}

/* --- sweeps --- */

static uint64_t calls_made(int state, int call, long number)
{
	struct stage stage;

	stage_tell("%s, edge %d: %s", stage_state_name(state), state % STAGE_EDGES,
		stage_call_name(call));
	stage_begin(&stage, state);
	ms_os_inject = (struct ms_os_inject){.at = UINT64_MAX, .only = number};
	(void)stage_call(call, &stage);
	ms_os_inject.at = 0;
	if (stage_call_ends_pool(call)) {
		close(stage.waiter.event_fd);
	} else {
		go_home(&stage);
		stage_end(&stage);
	}
	return ms_os_inject.seen;
}

/* How many calls of the kinds, and of those that cannot fail. read(2) has number 0, which stands
 * for all here: it comes once after an open. */
static uint64_t known_calls(int state, int call, uint64_t made[KINDS])
{
	uint64_t sum = calls_made(state, call, SYS_openat);

	for (size_t i = 0; i < KINDS; i++)
		sum += made[i] = calls_made(state, call, kinds[i].number);
	for (size_t i = 0; i < sizeof sure / sizeof sure[0]; i++)
		sum += calls_made(state, call, sure[i]);
	return sum;
}

/* Is every call of one of the kinds? What AUTO does depends on what it learnt: ask again. */
static bool all_kinds_known(int state, int call, uint64_t made[KINDS])
{
	for (unsigned tries = 0; tries < 5; tries++) {
		if (known_calls(state, call, made) >= calls_made(state, call, 0))
			return true;
	}
	return false;
}

/* Where it matters which error it is. */
static bool is_about_memory(long number)
{
	return number == SYS_mmap || number == SYS_mprotect || number == SYS_madvise ||
	       number == SYS_ioctl || number == SYS_process_madvise;
}

static void sweep_kind(int state, int call, size_t kind)
{
	for (size_t way = 0; way < WAYS; way++) {
		uint64_t at = 1;
		if ((ways[way].partial && kinds[kind].number != SYS_madvise) ||
			(way > 0 && !is_about_memory(kinds[kind].number)))
			continue;
		while (at < 500 && run_checked(state, call, kind, way, at))
			at++;
	}
}

void stage_sweep(int state, int call)
{
	uint64_t made[KINDS];
	struct stage stage;
	bool fits;

	stage_begin(&stage, state);
	fits = stage_call_fits(call, &stage);
	go_home(&stage);
	stage_end(&stage);
	if (!fits)
		return;
	ck_assert_msg(all_kinds_known(state, call, made), "a kind is missing: %s", stage_story());
	for (size_t i = 0; i < KINDS; i++) {
		if (made[i])
			sweep_kind(state, call, i);
	}
}

/* --- creation --- */

static const struct memslot_pool_opts pools[] = {
	{.size = sizeof(struct memslot_pool_opts)},
	{.size = sizeof(struct memslot_pool_opts),
		.reserve = BIG_RESERVE,
		.guard_before = 1u << 16},
	{.size = sizeof(struct memslot_pool_opts), .flags = MEMSLOT_SLOT_NO_EDGE},
	{.size = sizeof(struct memslot_pool_opts),
		.flags = MEMSLOT_SLOT_DONTFORK | MEMSLOT_SLOT_DONTDUMP | MEMSLOT_SLOT_CONFINED,
		.guard_before = 4u << 20},
	{.size = sizeof(struct memslot_pool_opts),
		.flags = MEMSLOT_SLOT_HUGEPAGE | MEMSLOT_POOL_VERIFY,
		.guard_after = MEMSLOT_NONE},
};

static bool create_once(size_t pool_kind, size_t kind, size_t way, uint64_t at)
{
	struct memslot_pool *pool = UNTOUCHED;
	int answer;

	stage_tell("create, pool %zu; %s number %u fails, way %zu", pool_kind, kinds[kind].name,
		(unsigned)at, way);
	arm(kind, way, at);
	answer = memslot_pool_create(STAGE_SLOTS, STAGE_CAPACITY, &pools[pool_kind], &pool);
	ms_os_inject.at = 0;
	if (answer == 0) { /* whatever did not fail is a pool like any other */
		stage_use(pool);
		ck_assert_int_eq(memslot_pool_destroy(pool), 0);
	} else {
		ck_assert_msg(
			pool == UNTOUCHED && (answer == -ways[way].error || answer == -ENOMEM),
			"answered %d: %s", answer, stage_story());
	}
	return ms_os_inject.seen >= at;
}

static void sweep_create_kind(size_t pool_kind, size_t kind, size_t way)
{
	uint64_t at = 1;
	bool hit = true;

	for (; hit && at < 100; at++) {
		unsigned grown = 0;
		for (unsigned tries = 0; tries == grown && tries < TRIES; tries++) {
			struct world before = look(), after;
			hit = create_once(pool_kind, kind, way, at);
			after = look();
			grown += grew(&before, &after, kinds[kind].number);
		}
		ck_assert_msg(grown < TRIES, "leaks: %s", stage_story());
	}
}

void stage_sweep_create(void)
{
	for (size_t i = 0; i < sizeof pools / sizeof pools[0] * KINDS * WAYS; i++)
		sweep_create_kind(i / (KINDS * WAYS), i / WAYS % KINDS, i % WAYS);
}
