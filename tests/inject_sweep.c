/* SPDX-License-Identifier: MIT */
/*
 * inject_sweep.c - fail the n-th system call of a kind, for n = 1, 2, ... until a run passes.
 *
 * After each run: the call told an error or did its work; on an error the slot is as it was, or
 * unknown and says so; then, with nothing failing any more, it can be reset, holds exactly what the
 * model says, byte for byte, and works on; and destroying it leaves nothing behind.
 */
#define _GNU_SOURCE
#include "inject.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UNTOUCHED ((void *)8)
static const struct {
	const char *name;
	long number;
} kinds[] = {{"calloc", MS_INJECT_ALLOC}, {"mmap", SYS_mmap}, {"munmap", SYS_munmap},
	{"mprotect", SYS_mprotect}, {"madvise", SYS_madvise}, {"munlock", SYS_munlock},
	{"ioctl", SYS_ioctl}, {"openat", SYS_openat}, {"close", SYS_close}, {"fcntl", SYS_fcntl},
	{"fstat", SYS_fstat}, {"lseek", SYS_lseek}, {"pread", SYS_pread64},
	{"pwrite", SYS_pwrite64}, {"ftruncate", SYS_ftruncate}, {"fallocate", SYS_fallocate},
	{"memfd_create", SYS_memfd_create}, {"getrusage", SYS_getrusage}, {"prctl", SYS_prctl},
	{"prlimit", SYS_prlimit64}, {"process_madvise", SYS_process_madvise},
	{"getpid", SYS_getpid}};
#define KINDS (sizeof kinds / sizeof kinds[0])

static const struct {
	int error;
	bool partial, for_good;
} ways[] = {{ENOMEM, false, false}, {EINVAL, false, false}, {EPERM, false, false},
	{ENOMEM, true, false}, {EINVAL, true, false}, {EINVAL, false, true}, {ENOMEM, true, true}};
#define WAYS (sizeof ways / sizeof ways[0])

/* --- leaks --- */

/* A leak comes with every run. The allocator keeps the first few of each size that are freed. */
#define TRIES 10

struct world {
	size_t fds, mappings, heap;
};

static size_t count_mappings(void)
{
	static char text[1 << 16];
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	size_t lines = 0;
	ssize_t got;

	ck_assert_int_ge(fd, 0);
	while ((got = read(fd, text, sizeof text)) > 0) {
		for (ssize_t i = 0; i < got; i++)
			lines += text[i] == '\n';
	}
	close(fd);
	return lines;
}

static struct world look(void)
{
	return (struct world){test_fd_count(), count_mappings(), mallinfo2().uordblks};
}

/*
 * What failed to be given back cannot count: nobody could do better. Another allocator than the C
 * library's, a sanitizer's, makes mappings of its own, and finds leaks itself.
 */
static bool grew(const struct world *before, const struct world *after, long number)
{
	bool allocator_known = before->heap != 0;

	model_log("descriptors %zu -> %zu, mappings %zu -> %zu, heap %zu -> %zu", before->fds,
		after->fds, before->mappings, after->mappings, before->heap, after->heap);
	if (after->fds > before->fds && number != SYS_close)
		return true;
	return allocator_known && number != SYS_munmap &&
	       (after->mappings > before->mappings || after->heap > before->heap);
}

/* --- one run --- */

struct run {
	int state, call;
	struct ms_os_inject how;
	bool hit;     /* something did fail */
	bool retried; /* a reset was tried while it went on failing */
	int answer;
};

static void disarm(struct run *run)
{
	run->hit = ms_os_inject.seen >= run->how.at;
	ms_os_inject.at = 0;
}

static bool is_unknown(const struct model_slot *slot)
{
	size_t count;

	return memslot_slot_written(slot->slot, NULL, 0, &count) == -ESTALE;
}

static void forget_views(struct model_slot *slot)
{
	for (size_t page = 0; page < slot->capacity / test_page(); page++)
		slot->pages[page] = MODEL_OPEN;
}

/* Protections are as the model says, too. */
static void probe_protections(const struct model_slot *slot)
{
	for (size_t page = 0; page < slot->size / test_page(); page++) {
		unsigned prot = slot->pages[page] & MODEL_OPEN;
		const unsigned char *at = slot->base + page * test_page();
		if (model_faults(at, TEST_READ) != (prot == PROT_NONE) ||
			model_faults(at, TEST_WRITE) != (prot != MODEL_OPEN))
			model_fail("page %zu does not have protection %u", page, prot);
	}
}

/* Nothing is registered in truth: no ring is asked. */
static void unpin(struct model_slot *slot)
{
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_PIN), 0);
	slot->pins = 0;
}

static void judge_failure(const struct run *run, struct model_slot *slot)
{
	if (run->answer > 0 || run->answer < -4095)
		model_fail("answered %d", run->answer);
	if (slot->pins)
		unpin(slot);
	if (is_unknown(slot)) {
		if (!slot->unknown && !run->retried &&
			!inject_call_may_end_unknown(run->call, run->state))
			model_fail("answered %d and left the slot unknown", run->answer);
		slot->unknown = true;
		model_expect_unknown(slot);
		forget_views(slot);
	} else if (slot->unknown && run->answer) {
		model_fail("answered %d, and the slot is not unknown any more", run->answer);
	}
}

/* From whatever is left: to the image, dirty, to the image, to another one. */
static void live_on(const struct run *run, struct model_slot *slot)
{
	bool lost = run->answer && inject_state_has(run->state, "exempt");

	if (slot->pins)
		unpin(slot);
	/* A checkpoint that failed midway may have ended what was exempt. */
	if (run->how.at % 2 || lost || inject_state_has(run->state, "mixed"))
		model_instantiate(slot, slot->image, slot->reset_size);
	else
		model_reset(slot, &inject_coverage);
	inject_dirty(slot);
	model_reset(slot, &inject_coverage);
	inject_dirty(slot);
	model_instantiate(slot, inject_images[OTHER], slot->capacity);
	model_slot_destroy(slot, &inject_coverage);
}

static void log_run(const struct run *run)
{
	const char *name = "?";

	for (size_t i = 0; i < KINDS; i++)
		name = kinds[i].number == run->how.only ? kinds[i].name : name;
	model_log("%s, edge %d: %s; %s number %u fails with %d%s%s", inject_state_name(run->state),
		run->state % INJECT_EDGES, inject_call_name(run->call), name, (unsigned)run->how.at,
		run->how.error, run->how.partial ? ", half done" : "",
		run->how.for_good ? ", for good" : "");
}

/* Whoever gets an error resets, and that may fail for the same reason. */
static void reset_again(struct run *run, struct model_slot *slot)
{
	int answer;

	if (is_unknown(slot))
		forget_views(slot);
	answer = memslot_slot_reset(slot->slot);
	model_log("reset again: %d", answer);
	run->retried = true;
	if (answer)
		return;
	model_apply_reset(slot);
	if (slot->opts.on_reset)
		model_callback_bytes(slot->now, slot->size, slot->callbacks);
}

static void run_once(struct run *run)
{
	struct model_slot *slot;

	model_log_begin((unsigned)run->state, (uint32_t)run->call);
	slot = inject_state(run->state);
	model_quiet = run->how.at % 2;
	log_run(run);
	ms_os_inject = run->how;
	run->answer = inject_call(run->call, slot);
	model_log("answered %d", run->answer);
	if (run->answer && run->how.for_good && !inject_state_has(run->state, "exempt"))
		reset_again(run, slot);
	disarm(run);
	if (run->answer == 0 && inject_call_destroys(run->call)) {
		model_slot_free(slot);
		return;
	}
	if (run->answer)
		judge_failure(run, slot);
	model_compare(slot);
	model_probe(slot);
	if (!slot->unknown && test_faults_allowed() &&
		inject_is_about_protection(run->state, run->call))
		probe_protections(slot);
	live_on(run, slot);
}

static void run_checked(struct run *run)
{
	unsigned grown = 0;

	for (unsigned tries = 0; tries == grown && tries < TRIES; tries++) {
		struct world before = look(), after;
		run_once(run);
		after = look();
		grown += grew(&before, &after, run->how.only);
	}
	if (grown == TRIES)
		model_fail("leaks descriptors, mappings or memory");
}

/* --- sweeps --- */

/* How many calls of one kind are made. */
static uint64_t calls_made(int state, int call, long number)
{
	struct model_slot *slot;

	model_log_begin((unsigned)state, (uint32_t)call);
	slot = inject_state(state);
	ms_os_inject = (struct ms_os_inject){.at = UINT64_MAX, .only = number};
	if (inject_call(call, slot) == 0 && inject_call_destroys(call)) {
		ms_os_inject.at = 0;
		model_slot_free(slot);
		return ms_os_inject.seen;
	}
	ms_os_inject.at = 0;
	if (slot->pins)
		unpin(slot);
	model_slot_destroy(slot, &inject_coverage);
	return ms_os_inject.seen;
}

/* Where it matters which error it is. */
static bool is_about_memory(long number)
{
	return number == SYS_mmap || number == SYS_mprotect || number == SYS_madvise ||
	       number == SYS_ioctl;
}

static void sweep_kind(int state, int call, size_t kind, size_t way)
{
	struct run run = {.state = state, .call = call, .hit = true};

	if ((ways[way].partial && kinds[kind].number != SYS_madvise) ||
		(way > 0 && !is_about_memory(kinds[kind].number)))
		return;
	for (uint64_t at = 1; run.hit && at < 500; at++) {
		run.how = (struct ms_os_inject){.at = at,
			.error = ways[way].error,
			.partial = ways[way].partial,
			.for_good = ways[way].for_good,
			.only = kinds[kind].number};
		run_checked(&run);
	}
}

/* Is every call that is made of one of the kinds? What AUTO does may depend on times: ask again. */
static bool all_kinds_known(int state, int call, const uint64_t *made)
{
	uint64_t sum = 0, again = 0;

	for (size_t i = 0; i < KINDS; i++)
		sum += made[i];
	for (unsigned tries = 0; sum != calls_made(state, call, 0) && tries < 4; tries++) {
		again = 0;
		for (size_t i = 0; i < KINDS; i++)
			again += calls_made(state, call, kinds[i].number);
		sum = again;
		if (tries == 3)
			return false;
	}
	return true;
}

void inject_sweep(int state, int call)
{
	uint64_t made[KINDS];

	for (size_t i = 0; i < KINDS; i++)
		made[i] = calls_made(state, call, kinds[i].number);
	if (!inject_state_has(state, "dropping") && !all_kinds_known(state, call, made))
		model_fail("%s, %s: a system call is not in the list of kinds",
			inject_state_name(state), inject_call_name(call));
	for (size_t i = 0; i < KINDS; i++) {
		if (kinds[i].number == SYS_getpid)
			continue; /* cannot fail */
		for (size_t way = 0; made[i] && way < WAYS; way++)
			sweep_kind(state, call, i, way);
	}
}

/* --- creation: no slot before it, no slot after a failure --- */

static const struct memslot_slot_opts kinds_of_slots[] = {
	{.size = sizeof(struct memslot_slot_opts)},
	{.size = sizeof(struct memslot_slot_opts), .reserve = 4u << 20, .guard_before = 1u << 16},
	{.size = sizeof(struct memslot_slot_opts), .flags = MEMSLOT_SLOT_NO_EDGE},
	{.size = sizeof(struct memslot_slot_opts),
		.flags = MEMSLOT_SLOT_DONTFORK | MEMSLOT_SLOT_DONTDUMP | MEMSLOT_SLOT_CONFINED,
		.guard_before = 4u << 20},
	{.size = sizeof(struct memslot_slot_opts),
		.flags = MEMSLOT_SLOT_HUGEPAGE,
		.guard_after = MEMSLOT_NONE},
};

/* Whatever did not fail is a slot like any other. */
static void use_created(struct memslot_slot *slot)
{
	unsigned char *base = memslot_slot_base(slot);

	model_expect(memslot_slot_instantiate(slot, inject_images[MAPPED]->image, 1u << 18), 0);
	base[0] = base[(1u << 18) - 1] = 's';
	model_expect(memslot_slot_reset(slot), 0);
	if (memcmp(base, inject_images[MAPPED]->bytes, inject_images[MAPPED]->end) != 0 ||
		base[(1u << 18) - 1])
		model_fail("a created slot keeps what was written");
	model_expect(memslot_slot_destroy(slot), 0);
}

static bool create_once(size_t kind, long number, uint64_t at, size_t way)
{
	struct memslot_slot *slot = UNTOUCHED;
	int answer;

	model_log("create, slot %zu, kind %ld number %u, way %zu", kind, number, (unsigned)at, way);
	ms_os_inject = (struct ms_os_inject){.at = at,
		.error = ways[way].error,
		.partial = ways[way].partial,
		.for_good = ways[way].for_good,
		.only = number};
	answer = memslot_slot_create(1u << 18, &kinds_of_slots[kind], &slot);
	ms_os_inject.at = 0;
	if (answer == 0)
		use_created(slot);
	else if (answer > 0 || slot != UNTOUCHED)
		model_fail("create failed with %d", answer);
	return ms_os_inject.seen >= at;
}

static bool create_checked(size_t kind, long number, uint64_t at, size_t way)
{
	unsigned grown = 0;
	bool hit = false;

	for (unsigned tries = 0; tries == grown && tries < TRIES; tries++) {
		struct world before = look(), after;
		hit = create_once(kind, number, at, way);
		after = look();
		grown += grew(&before, &after, number);
	}
	if (grown == TRIES)
		model_fail("leaks descriptors, mappings or memory");
	return hit;
}

void inject_sweep_create(void)
{
	size_t count = sizeof kinds_of_slots / sizeof kinds_of_slots[0];

	for (size_t i = 0; i < count * KINDS * WAYS; i++) {
		uint64_t at = 1;
		if (i % (KINDS * WAYS) == 0)
			model_log_begin((unsigned)(i / (KINDS * WAYS)), 0);
		while (kinds[i / WAYS % KINDS].number != SYS_getpid &&
			create_checked(
				i / (KINDS * WAYS), kinds[i / WAYS % KINDS].number, at, i % WAYS))
			at++;
	}
}
