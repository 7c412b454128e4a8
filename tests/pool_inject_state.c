/* SPDX-License-Identifier: MIT */
/* pool_inject_state.c - what a pool may look like when something fails. */
#define _GNU_SOURCE
#include "pool_inject.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct memslot_image *stage_image[STAGE_IMAGES];

static const struct {
	size_t first, count;
} ranges[STAGE_IMAGES] = {{0, 0}, {10, 20}, {5, 28}, {3, 2}, {2, 16}};

static char story[300];

const char *stage_story(void)
{
	return story;
}

void stage_tell(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(story, sizeof story, format, arguments);
	va_end(arguments);
}

/* --- images --- */

static struct memslot_image *foreign_image(size_t first, size_t count, unsigned tag)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(
		memslot_image_opts, .flags = MEMSLOT_IMAGE_MAP_FILE, .slot_offset = PAGES(first));
	struct memslot_image *image = NULL;
	unsigned char *bytes = malloc(PAGES(count));
	char path[] = "/tmp/memslot-inject-XXXXXX";
	int fd = mkstemp(path);

	ck_assert(fd >= 0 && bytes);
	unlink(path);
	test_fill(bytes, PAGES(count), tag);
	ck_assert_int_eq(write(fd, bytes, PAGES(count)), (ssize_t)PAGES(count));
	ck_assert_int_eq(memslot_image_from_fd(fd, 0, 0, &opts, &image), 0);
	close(fd);
	free(bytes);
	return image;
}

bool stage_shows(const struct memslot_slot *slot, int image)
{
	return slot_shows(
		slot, ranges[image].first, ranges[image].count, (unsigned)image, STAGE_CAPACITY);
}

/* What the library asks and measures once must not fail. */
void stage_images_begin(void)
{
	struct stage stage;

	for (uint32_t i = 0; memslot_feature_name(i); i++)
		(void)memslot_feature(memslot_feature_name(i));
	for (int i = MAPPED; i <= COPIED; i++)
		stage_image[i] = image_of(ranges[i].first, ranges[i].count, (unsigned)i);
	stage_image[FOREIGN] = foreign_image(ranges[FOREIGN].first, ranges[FOREIGN].count, FOREIGN);
	for (int state = 0; state < stage_states(); state++) {
		stage_begin(&stage, state);
		stage_live_on(&stage);
		stage_end(&stage);
	}
}

void stage_images_end(void)
{
	for (int i = MAPPED; i < STAGE_IMAGES; i++)
		memslot_image_unref(stage_image[i]);
}

/* --- what happened before --- */

static struct memslot_slot *take(struct stage *stage, int image)
{
	struct memslot_acquire_opts opts =
		MEMSLOT_OPTS(memslot_acquire_opts, .flags = MEMSLOT_SLOT_CONFINED);
	struct memslot_slot *slot = NULL;

	ck_assert_int_eq(
		memslot_pool_acquire(stage->pool, stage_image[image], STAGE_CAPACITY, &opts, &slot),
		0);
	stage->out[stage->out_count++] = slot;
	return slot;
}

/* Secrets all over: in the image, beside it, at the end. */
static void soil(struct memslot_slot *slot)
{
	for (size_t page = 0; page < 40; page += 3)
		memset(base_of(slot) + PAGES(page), 0xdd, test_page());
}

static void give(struct stage *stage)
{
	ck_assert_int_eq(memslot_pool_release(stage->pool, stage->out[--stage->out_count]), 0);
}

static void out_mapped(struct stage *stage)
{
	soil(take(stage, MAPPED));
}

static void out_copied(struct stage *stage)
{
	soil(take(stage, COPIED));
}

static void out_zeros(struct stage *stage)
{
	soil(take(stage, ZEROS));
}

static void out_foreign(struct stage *stage)
{
	soil(take(stage, FOREIGN));
}

static void out_grown(struct stage *stage)
{
	struct memslot_slot *slot = NULL;

	ck_assert_int_eq(memslot_pool_acquire(stage->pool, NULL, PAGES(10), NULL, &slot), 0);
	stage->out[stage->out_count++] = slot;
	ck_assert_int_eq(memslot_slot_resize(slot, STAGE_CAPACITY), 0);
	soil(slot);
}

static void out_changed(struct stage *stage)
{
	struct memslot_slot *slot = take(stage, COPIED);

	soil(slot);
	instantiate(slot, stage_image[OTHER], STAGE_CAPACITY);
	soil(slot);
	ck_assert_int_eq(memslot_slot_protect(slot, PAGES(4), PAGES(9), PROT_READ), 0);
	ck_assert_int_eq(memslot_slot_exempt(slot, PAGES(20), PAGES(9)), 0);
}

static void out_checkpointed(struct stage *stage)
{
	struct memslot_slot *slot = take(stage, MAPPED);

	soil(slot);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	dirty_pages(slot, 1, 30, 2);
}

static void warm_one(struct stage *stage)
{
	out_mapped(stage);
	give(stage);
}

static void warm_copied(struct stage *stage)
{
	out_copied(stage);
	give(stage);
}

static void warm_small(struct stage *stage)
{
	out_grown(stage);
	give(stage);
}

static void warm_all(struct stage *stage)
{
	for (int image = ZEROS; image <= COPIED; image++)
		soil(take(stage, image));
	while (stage->out_count)
		give(stage);
}

static void warm_some(struct stage *stage)
{
	warm_all(stage);
	out_mapped(stage);
	out_zeros(stage);
}

static void be_held(struct stage *stage)
{
	out_mapped(stage);
	stage->held = stage->out[stage->out_count - 1];
	ck_assert_int_eq(memslot_slot_hold(stage->held, MEMSLOT_HOLD_IO), 0);
	give(stage);
}

static void be_sick(struct stage *stage)
{
	be_held(stage);
	ck_assert_int_eq(memslot_slot_unhold(stage->held, MEMSLOT_HOLD_IO), 0);
	stage->held = NULL;
}

/* The second one of those to be dropped together holds on to a page. */
static void be_locked(struct stage *stage)
{
	for (int i = 0; i < 3; i++)
		out_mapped(stage);
	(void)mlock(base_of(stage->out[1]) + PAGES(6), PAGES(1));
	while (stage->out_count)
		give(stage);
}

static void all_out(struct stage *stage)
{
	for (int i = 0; i < STAGE_SLOTS; i++)
		soil(take(stage, MAPPED + i % 3));
}

static void wait_for_one(struct stage *stage)
{
	all_out(stage);
	ck_assert_int_eq(memslot_pool_wait(stage->pool, &stage->waiter), 0);
	stage->waiting = true;
}

static void be_given(struct stage *stage)
{
	wait_for_one(stage);
	give(stage);
	ck_assert_int_eq(memslot_pool_wait_cancel(stage->pool, &stage->waiter), -EALREADY);
	stage->out[stage->out_count++] = stage->waiter.slot;
	stage->waiting = false;
}

/* --- the table --- */

#define SCAN MEMSLOT_RESET_SCAN
#define DROP MEMSLOT_RESET_DROP

static const struct {
	const char *name;
	void (*be)(struct stage *stage);
	uint32_t method, flags;
	uint64_t idle_pages, batch, warm;
} states[] = {
	{"fresh", NULL, 0, 0, 0, 0, 0},
	{"warm", warm_one, 0, 0, 0, 0, 0},
	{"warm copied", warm_copied, SCAN, 0, 0, 0, 0},
	{"warm small", warm_small, MEMSLOT_RESET_RESTORE, 0, 0, 0, 0},
	{"warm all", warm_all, SCAN, 0, 0, 0, 0},
	{"warm all, few allowed", warm_all, SCAN, 0, 0, 0, 1},
	{"warm, verified", warm_all, 0, MEMSLOT_POOL_VERIFY, 0, 0, 0},
	{"warm, populated", warm_one, 0, MEMSLOT_SLOT_POPULATE, 0, 0, 0},
	{"some out", warm_some, SCAN, 0, 0, 0, 0},
	{"over budget", warm_some, SCAN, 0, 15, 0, 0},
	{"no budget", warm_some, SCAN, 0, UINT64_MAX, 0, 0},
	{"mapped out", out_mapped, 0, 0, 0, 0, 0},
	{"copied out", out_copied, 0, 0, 0, 0, 0},
	{"zeros out", out_zeros, SCAN, 0, 0, 0, 0},
	{"foreign out", out_foreign, 0, 0, 0, 0, 0},
	{"grown out", out_grown, SCAN, 0, 0, 0, 0},
	{"changed out", out_changed, 0, 0, 0, 0, 0},
	{"checkpointed out", out_checkpointed, 0, 0, 0, 0, 0},
	{"held", be_held, 0, 0, 0, 0, 0},
	{"quarantined", be_sick, 0, 0, 0, 0, 0},
	{"queued", warm_all, DROP, 0, 0, 64, 0},
	{"queued, locked", be_locked, DROP, 0, 0, 64, 0},
	{"queue about to be full", warm_some, DROP, 0, 0, 3, 0},
	{"dropping", out_mapped, DROP, 0, 0, 1, 0},
	{"all out", all_out, 0, 0, 0, 0, 0},
	{"waited for", wait_for_one, 0, 0, 0, 0, 0},
	{"waited for, dropping", wait_for_one, DROP, 0, 0, 0, 0},
	{"given", be_given, 0, 0, 0, 0, 0},
};

int stage_states(void)
{
	return (int)(sizeof states / sizeof states[0]) * STAGE_EDGES;
}

const char *stage_state_name(int state)
{
	return states[state / STAGE_EDGES].name;
}

void stage_begin(struct stage *stage, int state)
{
	int row = state / STAGE_EDGES;
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .guard_before = PAGES(1));

	*stage = (struct stage){.edge = state % STAGE_EDGES};
	opts.reserve = stage->edge == 1 ? BIG_RESERVE : 0;
	opts.flags = states[row].flags | (stage->edge == 2 ? MEMSLOT_SLOT_NO_EDGE : 0);
	opts.reset_method = states[row].method;
	opts.max_warm = states[row].warm;
	opts.drop_batch_count = states[row].batch;
	opts.idle_budget =
		states[row].idle_pages == UINT64_MAX ? MEMSLOT_NONE : PAGES(states[row].idle_pages);
	ck_assert_int_eq(memslot_pool_create(STAGE_SLOTS, STAGE_CAPACITY, &opts, &stage->pool), 0);
	stage->waiter = (struct memslot_slot_waiter){.size = sizeof stage->waiter,
		.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.image = stage_image[MAPPED],
		.slot_size = STAGE_CAPACITY,
		.opts = {.size = sizeof stage->waiter.opts}};
	if (states[row].be)
		states[row].be(stage);
}
