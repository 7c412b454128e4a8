/* SPDX-License-Identifier: MIT */
/* inject_call.c - the calls that are made to fail, and what they do to the model when they work. */
#define _GNU_SOURCE
#include "inject.h"

#include <string.h>

#define UNTOUCHED ((void *)8)

struct model_coverage inject_coverage;

static size_t pages(size_t count)
{
	return count * test_page();
}

static void callback(struct model_slot *slot)
{
	if (slot->opts.on_reset)
		model_callback_bytes(slot->now, slot->size, slot->callbacks);
}

static int do_reset(struct model_slot *slot)
{
	int answer = memslot_slot_reset(slot->slot);

	if (answer == 0) {
		model_apply_reset(slot);
		callback(slot);
	}
	return answer;
}

static int do_instantiate(struct model_slot *slot, struct model_image *image, size_t count)
{
	int answer =
		memslot_slot_instantiate(slot->slot, image ? image->image : NULL, pages(count));

	if (answer == 0) {
		model_apply_instantiate(slot, image, pages(count));
		callback(slot);
	}
	return answer;
}

static int do_same(struct model_slot *slot)
{
	return do_instantiate(slot, slot->image, 48);
}

static int do_larger(struct model_slot *slot)
{
	return do_instantiate(slot, slot->image, 63);
}

static int do_smaller(struct model_slot *slot)
{
	return do_instantiate(slot, slot->image, 39);
}

static int do_other(struct model_slot *slot)
{
	return do_instantiate(slot, inject_images[OTHER], 50);
}

static int do_copied(struct model_slot *slot)
{
	return do_instantiate(slot, inject_images[COPIED], 48);
}

static int do_foreign(struct model_slot *slot)
{
	return do_instantiate(slot, inject_images[FOREIGN], 30);
}

static int do_zeros(struct model_slot *slot)
{
	return do_instantiate(slot, NULL, 45);
}

static int do_resize(struct model_slot *slot, size_t count)
{
	int answer = memslot_slot_resize(slot->slot, pages(count));

	if (answer == 0)
		model_apply_resize(slot, pages(count));
	return answer;
}

static int do_grow(struct model_slot *slot)
{
	return do_resize(slot, 62);
}

static int do_shrink(struct model_slot *slot)
{
	return do_resize(slot, 39);
}

static int do_discard(struct model_slot *slot)
{
	int answer = memslot_slot_discard(slot->slot, 0, slot->size);

	if (answer == 0)
		model_apply_discard(slot, 0, slot->size);
	return answer;
}

static int do_discard_part(struct model_slot *slot)
{
	int answer = memslot_slot_discard(slot->slot, 100, pages(21));

	if (answer == 0)
		model_apply_discard(slot, 100, pages(21));
	return answer;
}

/* The image holds what the slot held, as another slot can see. */
static void check_image(struct model_slot *slot, struct memslot_image *image)
{
	struct memslot_slot_opts opts = {.size = sizeof opts, .reset_method = MEMSLOT_RESET_DROP};
	struct model_image *made = model_image_of(image, slot->now, slot->size);
	struct model_slot *other;

	if (!made->base_address) {
		other = model_slot_new(made->end, &opts);
		model_instantiate(other, made, made->end);
		model_slot_destroy(other, &inject_coverage);
	}
	model_image_unref(made);
}

static int do_capture(struct model_slot *slot)
{
	struct memslot_image_opts opts = {.size = sizeof opts, .note = "note", .note_size = 4};
	struct memslot_image *image = UNTOUCHED;
	int answer = memslot_slot_capture(slot->slot, &opts, &image);

	ms_os_inject.at = 0;
	if (answer && image != UNTOUCHED)
		model_fail("capture failed with %d and wrote its output", answer);
	if (answer == 0)
		check_image(slot, image);
	return answer;
}

static int do_checkpoint(struct model_slot *slot)
{
	struct memslot_image *image = UNTOUCHED;
	int answer = memslot_slot_checkpoint(slot->slot, &image);
	struct model_image *made;

	ms_os_inject.at = 0;
	if (answer && image != UNTOUCHED)
		model_fail("checkpoint failed with %d and wrote its output", answer);
	if (answer)
		return answer;
	made = model_image_of(image, slot->now, slot->size);
	model_apply_checkpoint(slot, made);
	model_image_unref(made);
	return 0;
}

static void set_prot(struct model_slot *slot, size_t first, size_t end, unsigned prot)
{
	for (size_t page = first; page < end; page++)
		slot->pages[page] = (unsigned char)((slot->pages[page] & MODEL_EXEMPT) | prot);
}

static int do_protect(struct model_slot *slot)
{
	int answer = memslot_slot_protect(slot->slot, pages(2), pages(3), PROT_NONE);

	if (answer == 0)
		set_prot(slot, 2, 5, PROT_NONE);
	return answer;
}

static int do_unprotect(struct model_slot *slot)
{
	int answer = memslot_slot_protect(slot->slot, pages(4), pages(30), MODEL_OPEN);

	if (answer == 0)
		set_prot(slot, 4, 34, MODEL_OPEN);
	return answer;
}

static int do_exempt(struct model_slot *slot)
{
	int answer = memslot_slot_exempt(slot->slot, pages(30), pages(4));

	for (size_t page = 30; answer == 0 && page < 34; page++)
		slot->pages[page] |= MODEL_EXEMPT;
	return answer;
}

static int do_written(struct model_slot *slot)
{
	struct memslot_run runs[64];
	size_t count = 4711;
	int answer = memslot_slot_written(slot->slot, runs, 64, &count);

	ms_os_inject.at = 0;
	if (answer && count != 4711)
		model_fail("written failed with %d and wrote its output", answer);
	if (answer == 0)
		model_check_runs(slot, runs, count);
	return answer;
}

static int do_hold(struct model_slot *slot)
{
	int answer = memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO);

	if (answer == 0)
		answer = memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO);
	return answer;
}

static int do_unconfine(struct model_slot *slot)
{
	memslot_slot_unconfine(slot->slot);
	slot->confined = false;
	return do_reset(slot);
}

static int do_stats(struct model_slot *slot)
{
	struct memslot_slot_stats stats = {.size = sizeof stats};

	return memslot_slot_stats(slot->slot, &stats);
}

static int do_destroy(struct model_slot *slot)
{
	return memslot_slot_destroy(slot->slot);
}

enum { KEEPS = 0, CHANGES = 1, VIEWS = 2, DESTROYS = 4 };

static const struct {
	const char *name;
	int (*run)(struct model_slot *slot);
	unsigned kind;
} calls[] = {
	{"reset", do_reset, CHANGES},
	{"instantiate the same", do_same, CHANGES},
	{"instantiate larger", do_larger, CHANGES},
	{"instantiate smaller", do_smaller, CHANGES},
	{"instantiate another image", do_other, CHANGES},
	{"instantiate a copied image", do_copied, CHANGES},
	{"instantiate a mapped file", do_foreign, CHANGES},
	{"instantiate zeros", do_zeros, CHANGES},
	{"grow", do_grow, CHANGES},
	{"shrink", do_shrink, CHANGES},
	{"discard", do_discard, CHANGES},
	{"discard a part", do_discard_part, CHANGES},
	{"capture", do_capture, VIEWS},
	{"checkpoint", do_checkpoint, VIEWS},
	{"protect", do_protect, CHANGES},
	{"unprotect", do_unprotect, CHANGES},
	{"exempt", do_exempt, KEEPS},
	{"written", do_written, KEEPS},
	{"hold", do_hold, KEEPS},
	{"unconfine and reset", do_unconfine, CHANGES},
	{"stats", do_stats, KEEPS},
	{"destroy", do_destroy, DESTROYS},
};

int inject_calls(void)
{
	return (int)(sizeof calls / sizeof calls[0]);
}

const char *inject_call_name(int call)
{
	return calls[call].name;
}

int inject_call(int call, struct model_slot *slot)
{
	return calls[call].run(slot);
}

/* Capture and checkpoint lift protections: only putting those back may fail so. */
bool inject_call_may_end_unknown(int call, int state)
{
	return calls[call].kind == CHANGES ||
	       (calls[call].kind == VIEWS && inject_state_has(state, "protected"));
}

bool inject_call_destroys(int call)
{
	return calls[call].kind == DESTROYS;
}

bool inject_is_about_protection(int state, int call)
{
	return inject_state_has(state, "protected") || strstr(calls[call].name, "protect");
}
