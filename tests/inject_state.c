/* SPDX-License-Identifier: MIT */
/*
 * inject_state.c - the states that a slot may be in when something fails.
 *
 *   page      0   2      10            30      38      48         60   64
 *   MAPPED        [extent]             [extent]        size       grown capacity
 *
 * Every dirty page holds bytes that are nowhere else: a secret.
 */
#define _GNU_SOURCE
#include "inject.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE 48
#define GROWN 60
#define CAPACITY 64

struct model_image *inject_images[INJECT_IMAGES];

static size_t pages(size_t count)
{
	return count * test_page();
}

/* --- images --- */

static struct model_image *make_image(size_t first, size_t count, size_t second, unsigned tag)
{
	unsigned char *bytes = calloc(1, pages(CAPACITY));
	struct memslot_image_opts opts = {.size = sizeof opts, .slot_offset = pages(first)};
	struct memslot_image *image;
	struct model_image *made;
	size_t end = second ? second + count : first + count;

	ck_assert_ptr_nonnull(bytes);
	test_fill(bytes + pages(first), pages(count), tag);
	if (second)
		test_fill(bytes + pages(second), pages(count), tag + 1);
	model_expect(
		memslot_image_from_bytes(bytes + pages(first), pages(end - first), &opts, &image),
		0);
	made = model_image_of(image, bytes, pages(end));
	free(bytes);
	return made;
}

static struct model_image *make_foreign(void)
{
	struct memslot_image_opts opts = {
		.size = sizeof opts, .flags = MEMSLOT_IMAGE_MAP_FILE, .slot_offset = pages(2)};
	char path[] = "/tmp/memslot-inject-XXXXXX";
	unsigned char *bytes = calloc(1, pages(10));
	struct memslot_image *image;
	struct model_image *made;
	int fd = mkstemp(path);

	ck_assert(fd >= 0 && bytes);
	unlink(path);
	test_fill(bytes + pages(2), pages(8), 9);
	ck_assert_int_eq(write(fd, bytes + pages(2), pages(8)), (int)pages(8));
	model_expect(memslot_image_from_fd(fd, 0, 0, &opts, &image), 0);
	made = model_image_of(image, bytes, pages(10));
	close(fd);
	free(bytes);
	return made;
}

/* The first AUTO slots measure what this machine charges. */
static void warm_up(void)
{
	struct memslot_slot_opts opts = {.size = sizeof opts};
	struct model_slot *slot = model_slot_new(pages(CAPACITY), &opts);

	model_instantiate(slot, inject_images[MAPPED], pages(SIZE));
	for (int i = 0; i < 3; i++) {
		inject_dirty(slot);
		model_reset(slot, &inject_coverage);
	}
	model_slot_destroy(slot, &inject_coverage);
}

void inject_images_begin(void)
{
	model_log_begin(0, 0);
	model_scratch_open();
	inject_images[MAPPED] = make_image(2, 8, 30, 1);
	inject_images[OTHER] = make_image(4, 9, 35, 3);
	inject_images[COPIED] = make_image(3, 2, 0, 5);
	inject_images[FOREIGN] = make_foreign();
	/* Probes run once, before anything fails: one that failed would switch its feature off. */
	for (uint32_t i = 0; memslot_feature_name(i); i++)
		(void)memslot_feature(memslot_feature_name(i));
	warm_up();
}

void inject_images_end(void)
{
	for (int i = 0; i < INJECT_IMAGES; i++)
		model_image_unref(inject_images[i]);
	model_scratch_close();
}

/* --- what may have happened to the slot --- */

void inject_dirty(struct model_slot *slot)
{
	static const size_t places[] = {0, 1, 3, 4, 9, 20, 21, 31, 36, 47, 55};

	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
		size_t offset = pages(places[i]);
		if (offset < slot->size && slot->pages[places[i]] & PROT_WRITE)
			model_write_cpu(slot, offset, test_page(), pages(i + slot->size % 7));
	}
}

static void be_dirty(struct model_slot *slot)
{
	inject_dirty(slot);
}

static void be_steady(struct model_slot *slot)
{
	for (int i = 0; i < 3; i++) {
		inject_dirty(slot);
		model_reset(slot, &inject_coverage);
	}
	inject_dirty(slot);
}

/* The budget is used up, by pages that no image has. */
static void be_full(struct model_slot *slot)
{
	for (size_t page = 16; page < 28; page++)
		model_write_cpu(slot, pages(page), test_page(), page);
	model_reset(slot, &inject_coverage);
	inject_dirty(slot);
}

static void be_grown(struct model_slot *slot)
{
	inject_dirty(slot);
	model_resize(slot, pages(GROWN));
	inject_dirty(slot);
}

static void be_hidden(struct model_slot *slot)
{
	be_grown(slot);
	model_reset(slot, &inject_coverage);
	inject_dirty(slot);
}

static void be_shrunk(struct model_slot *slot)
{
	inject_dirty(slot);
	model_resize(slot, pages(40));
}

static void be_protected(struct model_slot *slot)
{
	inject_dirty(slot);
	model_expect(memslot_slot_protect(slot->slot, pages(3), pages(2), PROT_READ), 0);
	model_expect(memslot_slot_protect(slot->slot, pages(31), pages(9), PROT_NONE), 0);
	for (size_t page = 3; page < 40; page++) {
		if (page < 5)
			slot->pages[page] = PROT_READ;
		else if (page >= 31)
			slot->pages[page] = PROT_NONE;
	}
}

static void be_exempt(struct model_slot *slot)
{
	inject_dirty(slot);
	model_expect(memslot_slot_exempt(slot->slot, pages(3), pages(2)), 0);
	model_expect(memslot_slot_exempt(slot->slot, pages(20), pages(1)), 0);
	slot->pages[3] |= MODEL_EXEMPT;
	slot->pages[4] |= MODEL_EXEMPT;
	slot->pages[20] |= MODEL_EXEMPT;
}

static void be_pinned(struct model_slot *slot)
{
	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_PIN), 0);
	slot->pins = 1;
	inject_dirty(slot);
}

static void be_locked(struct model_slot *slot)
{
	inject_dirty(slot);
	slot->locked |= mlock(slot->base + pages(3), pages(20)) == 0;
}

static void be_unknown(struct model_slot *slot)
{
	inject_dirty(slot);
	slot->fail_reset = true;
	model_expect(memslot_slot_reset(slot->slot), -ECANCELED);
	slot->fail_reset = false;
	slot->unknown = true;
}

/* A checkpoint that failed after its first extent had been mapped. */
static void be_mixed(struct model_slot *slot)
{
	/* Two extents, and the second one cannot be mapped. */
	model_write_cpu(slot, pages(1), test_page(), 1);
	model_write_cpu(slot, pages(31), test_page(), 2);
	ms_os_inject = (struct ms_os_inject){.at = 3, .error = ENOMEM, .only = SYS_mmap};
	model_expect(memslot_slot_checkpoint(slot->slot, NULL), -ENOMEM);
	ms_os_inject = (struct ms_os_inject){.at = 0};
	inject_dirty(slot);
}

/* AUTO has given up copying. */
static void be_dropping(struct model_slot *slot)
{
	for (size_t run = 0; run < 40; run++) {
		for (size_t i = 0; i < 3; i++)
			model_write_cpu(slot, pages((run * 7 + i * 11) % SIZE), 8, run);
		model_reset(slot, &inject_coverage);
	}
	inject_dirty(slot);
}

/* --- the table --- */

#define CONFINED MEMSLOT_SLOT_CONFINED
#define NO_IMAGE (-1)

static const struct {
	const char *name;
	uint32_t flags, method;
	int image;
	uint64_t budget_pages; /* 0: default; MEMSLOT_NONE */
	void (*be)(struct model_slot *slot);
	bool on_reset;
} states[] = {
	{"fresh", CONFINED, 0, NO_IMAGE, 0, NULL, false},
	{"clean", CONFINED, 0, MAPPED, 0, NULL, false},
	{"mapped", CONFINED, 0, MAPPED, 0, be_dirty, false},
	{"mapped steady", CONFINED, 0, MAPPED, 0, be_steady, false},
	{"mapped known", CONFINED, MEMSLOT_RESET_RESTORE, MAPPED, 0, be_steady, false},
	{"mapped scan", CONFINED, MEMSLOT_RESET_SCAN, MAPPED, 0, be_steady, false},
	{"mapped drop", CONFINED, MEMSLOT_RESET_DROP, MAPPED, 0, be_dirty, false},
	{"mapped dropping", 0, 0, MAPPED, 0, be_dropping, false},
	{"copied", CONFINED, 0, COPIED, 0, be_dirty, false},
	{"copied steady", CONFINED, MEMSLOT_RESET_RESTORE, COPIED, 0, be_steady, false},
	{"copied drop", 0, MEMSLOT_RESET_DROP, COPIED, 0, be_dirty, false},
	{"zeros", CONFINED, 0, NO_IMAGE, 0, be_dirty, false},
	{"foreign", CONFINED, 0, FOREIGN, 0, be_dirty, false},
	{"shared", 0, 0, MAPPED, 0, be_dirty, false},
	{"grown", CONFINED, 0, MAPPED, 0, be_grown, false},
	{"hidden", CONFINED, MEMSLOT_RESET_RESTORE, MAPPED, 0, be_hidden, false},
	{"shrunk", CONFINED, 0, COPIED, 0, be_shrunk, false},
	{"protected", CONFINED, 0, MAPPED, 0, be_protected, false},
	{"exempt", CONFINED, 0, MAPPED, 0, be_exempt, false},
	{"exempt copied", CONFINED, 0, COPIED, 0, be_exempt, false},
	{"pinned", CONFINED, 0, MAPPED, 0, be_pinned, false},
	{"pinned foreign", CONFINED, 0, FOREIGN, 0, be_pinned, false},
	{"populated", MEMSLOT_SLOT_POPULATE, 0, MAPPED, 0, be_dirty, false},
	{"locked", 0, 0, MAPPED, 0, be_locked, false},
	{"locked drop", 0, MEMSLOT_RESET_DROP, COPIED, 0, be_locked, false},
	{"small budget", CONFINED, MEMSLOT_RESET_RESTORE, MAPPED, 4, be_steady, false},
	{"small budget zeros", CONFINED, MEMSLOT_RESET_RESTORE, NO_IMAGE, 4, be_full, false},
	{"no budget", CONFINED, 0, MAPPED, MEMSLOT_NONE, be_dirty, false},
	{"bound", MEMSLOT_SLOT_DONTFORK | MEMSLOT_SLOT_DONTDUMP | MEMSLOT_SLOT_BOUND, 0, MAPPED, 0,
		be_dirty, false},
	{"huge", MEMSLOT_SLOT_HUGEPAGE, 0, MAPPED, 0, be_dirty, false},
	{"on_reset", CONFINED, MEMSLOT_RESET_RESTORE, MAPPED, 0, be_steady, true},
	{"unknown", CONFINED, 0, MAPPED, 0, be_unknown, true},
	{"unknown copied", CONFINED, 0, COPIED, 0, be_unknown, true},
	{"mixed", CONFINED, 0, MAPPED, 0, be_mixed, false},
};

int inject_states(void)
{
	return (int)(sizeof states / sizeof states[0]) * INJECT_EDGES;
}

const char *inject_state_name(int state)
{
	return states[state / INJECT_EDGES].name;
}

bool inject_state_has(int state, const char *word)
{
	return strstr(inject_state_name(state), word) != NULL;
}

struct model_slot *inject_state(int state)
{
	int row = state / INJECT_EDGES, edge = state % INJECT_EDGES;
	struct memslot_slot_opts opts = {.size = sizeof opts,
		.flags = states[row].flags,
		.reset_method = states[row].method,
		.guard_before = pages(1)};
	struct model_slot *slot;

	opts.reserve = edge == 1 ? 4u << 20 : 0;
	opts.flags |= edge == 2 ? MEMSLOT_SLOT_NO_EDGE : 0;
	opts.copy_budget = states[row].budget_pages == MEMSLOT_NONE
				   ? MEMSLOT_NONE
				   : pages(states[row].budget_pages);
	opts.on_reset = states[row].on_reset ? model_on_reset : NULL;
	model_blind = true; /* the model test looks at that */
	slot = model_slot_new(pages(CAPACITY), &opts);
	if (states[row].image != NO_IMAGE)
		model_instantiate(slot, inject_images[states[row].image], pages(SIZE));
	else if (states[row].be)
		model_instantiate(slot, NULL, pages(SIZE));
	if (states[row].be)
		states[row].be(slot);
	model_blind = false;
	return slot;
}
