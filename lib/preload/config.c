/* SPDX-License-Identifier: MIT */
/*
 * config.c - what the environment asks for.
 *
 * MEMSLOT_PRELOAD is a list of words separated by commas; sizes are bytes in decimal: `memslot run`
 * writes it. A word that is not understood switches the preload off: it is better to do nothing
 * than something else than was asked for. Runs in the constructor, by a single thread; no malloc.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <stdlib.h>
#include <string.h>

#define VARIABLE "MEMSLOT_PRELOAD="

struct ms_config ms_config = {
	.slots = UINT64_MAX,
	.keep = 8u << 20,
	.budget = 256u << 20,
	.min = 16u << 20,
};

static bool size_word(const char *text, size_t length, const char *name, uint64_t *ret_value)
{
	size_t skip = strlen(name);
	char *end;

	if (length <= skip || strncmp(text, name, skip) != 0 || text[skip] < '0' ||
		text[skip] > '9')
		return false;
	*ret_value = strtoull(text + skip, &end, 10);
	return end == text + length;
}

static bool is(const char *text, size_t length, const char *word)
{
	return strlen(word) == length && memcmp(text, word, length) == 0;
}

/* The last entry of LD_PRELOAD that names us goes; so does our own variable: children are without.
 */
static void hide(char **environment)
{
	char **to = environment;

	for (char **from = environment; *from; from++) {
		char *at = strncmp(*from, "LD_PRELOAD=", 11) == 0
				   ? strstr(*from, "libmemslot-preload.so")
				   : NULL;
		if (strncmp(*from, VARIABLE, sizeof VARIABLE - 1) == 0)
			continue;
		if (at) {
			size_t rest = strcspn(at, ": ");
			while (at > *from + 11 && at[-1] != ':' && at[-1] != ' ')
				at--, rest++;
			rest += at[rest] != 0;
			memmove(at, at + rest, strlen(at + rest) + 1);
			if ((*from)[11] == 0)
				continue;
		}
		*to++ = *from;
	}
	*to = NULL;
}

static bool one_word(const char *text, size_t length, bool *ret_hide)
{
	static char path[4096];

	if (is(text, length, "lazy"))
		ms_config.mode = MS_MODE_LAZY;
	else if (is(text, length, "observe"))
		ms_config.mode = MS_MODE_OBSERVE;
	else if (is(text, length, "thp=keep"))
		ms_config.thp = MS_THP_KEEP;
	else if (is(text, length, "thp=refuse"))
		ms_config.thp = MS_THP_REFUSE;
	else if (is(text, length, "children=no"))
		*ret_hide = true;
	else if (length > 6 && length < sizeof path && memcmp(text, "stats=", 6) == 0) {
		memcpy(path, text + 6, length - 6);
		ms_tally_start(path);
	} else
		return size_word(text, length, "slots=", &ms_config.slots) ||
		       size_word(text, length, "keep=", &ms_config.keep) ||
		       size_word(text, length, "budget=", &ms_config.budget) ||
		       size_word(text, length, "min=", &ms_config.min) ||
		       is(text, length, "strict") || is(text, length, "thp=auto");
	return true;
}

bool ms_config_read(char **environment)
{
	const char *list = secure_getenv("MEMSLOT_PRELOAD");
	bool good = true, hidden = false;

	while (list && *list) {
		size_t length = strcspn(list, ",");
		if (length)
			good = one_word(list, length, &hidden) && good;
		list += length + (list[length] == ',');
	}
	if (hidden)
		hide(environment);
	return good && ms_config.min >= ms_page_size();
}
