/* SPDX-License-Identifier: MIT */
/* program.c - a C program as a user of the installed library writes it: see install.py. */
#include <memslot.h>
#include <stdio.h>
#include <string.h>

/* The header is the library's. */
static int versions_differ(void)
{
	char version[32];

	snprintf(version, sizeof version, "%d.%d.%d", MEMSLOT_VERSION_MAJOR, MEMSLOT_VERSION_MINOR,
			MEMSLOT_VERSION_PATCH);
	puts(version);
	return strcmp(version, memslot_version());
}

int main(void)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .reserve = 4 << 20);
	struct memslot_image *image;
	struct memslot_slot *slot;
	char *bytes;

	if (versions_differ() || memslot_image_from_bytes("image", 6, NULL, &image) ||
			memslot_slot_create(1 << 20, &opts, &slot) ||
			memslot_slot_instantiate(slot, image, 1 << 20))
		return 1;
	memslot_image_unref(image);
	bytes = memslot_slot_base(slot);
	memset(bytes, 'x', 1 << 20);
	if (memslot_slot_reset(slot) || strcmp(bytes, "image") || bytes[(1 << 20) - 1])
		return 1;
	return memslot_slot_destroy(slot) != 0;
}
