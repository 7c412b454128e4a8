/* SPDX-License-Identifier: MIT */
/*
 * info.c - memslot info: what this kernel, this machine and this process's limits allow.
 *
 * Invariant: works without /proc; what cannot be learnt is shown as unknown (JSON null), never
 * guessed. The JSON object is built first and the text is printed from it, so both say the same.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <memslot.h>

/* What a feature is for, and the kernel that brought it. */
static const struct {
	const char *name, *since, *purpose;
} notes[] = {
	{"dontneed", "2.4", "drop written pages; without it a slot is mapped anew"},
	{"dontneed_locked", "5.18", "drop locked pages too"},
	{"pagemap_scan", "6.7", "find the written pages of a slot"},
	{"guard_install", "6.13", "guards and edges that cost no mapping"},
	{"guard_category", "6.16", "tell guards from swapped pages in a scan"},
	{"fault_counter", "2.6.26",
		"skip the scan of a confined slot (pays only with pagemap_scan)"},
	{"process_madvise_self", "6.14", "drop many slots of a pool in one call"},
	{"memfd_seal", "3.17", "images that nobody can change"},
	{"populate", "5.14", "prefault without writing"},
	{"anon_name", "5.17", "names in /proc/PID/maps"},
	{"wipe_on_fork", "4.14", "notice a fork without a system call"},
	{"procmap_query", "6.11", "the preload asks what a slot's range looks like"},
	{"pkeys", "4.9", "protection keys (not used yet)"},
	{"io_uring", "5.1", "asynchronous I/O into buffers"},
	{"uring_fixed", "5.19", "buffers stay registered, operations cost less"},
	{"uring_clone", "6.12", "a second ring takes over what the first has registered"},
	{"uring_groups", "5.19", "the kernel chooses buffers when data is there"},
	{"uring_sync_cancel", "6.0", "a ring that detaches cancels what is in flight"},
	{"uring_send_zc", "6.0", "sends without a copy"},
	{"uring_recv_multishot", "6.0", "one receive, many completions"},
	{"uring_read_multishot", "6.7", "one read of a pipe, many completions"},
	{"proc_maps", "2.6", "count pointers out of the slot in images of heaps"},
};

/* A feature whose probe is made only if two others are there. */
static const char dependent[] = "guard_category";
static const char *const needs[2] = {"pagemap_scan", "guard_install"};

static const struct {
	const char *name;
	__rlimit_resource_t resource;
} limits[] = {
	{"RLIMIT_AS", RLIMIT_AS},
	{"RLIMIT_DATA", RLIMIT_DATA},
	{"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
	{"RLIMIT_FSIZE", RLIMIT_FSIZE},
};

static bool is_feature(const char *word, size_t length)
{
	const char *name;

	if (length == 0 || (length == 3 && memcmp(word, "all", 3) == 0))
		return true;
	for (uint32_t i = 0; (name = memslot_feature_name(i)); i++) {
		if (strlen(name) == length && memcmp(name, word, length) == 0)
			return true;
	}
	return false;
}

static json_t *unknown_names(void)
{
	const char *list = secure_getenv("MEMSLOT_DISABLE");
	json_t *names = json_array();
	size_t part;

	for (; list && *list; list += part + (list[part] == ',')) {
		part = strcspn(list, ",");
		if (!is_feature(list, part))
			json_array_append_new(names, json_stringn(list, part));
	}
	return names;
}

static bool is_disabled(const char *name)
{
	const char *list = secure_getenv("MEMSLOT_DISABLE");

	return list_has(list, name) || list_has(list, "all");
}

/* Which of the features that `dependent` needs is absent, and why; NULL: neither. */
static json_t *why_needs(void)
{
	const char *reasons[2] = {NULL, NULL};

	for (size_t i = 0; i < 2; i++) {
		if (memslot_feature(needs[i]) != 1)
			reasons[i] =
				is_disabled(needs[i]) ? "disabled by MEMSLOT_DISABLE" : "missing";
	}
	if (!reasons[0] && !reasons[1])
		return NULL;
	if (!reasons[0] || !reasons[1])
		return json_sprintf("needs %s and %s; %s is %s", needs[0], needs[1],
			needs[reasons[0] ? 0 : 1], reasons[reasons[0] ? 0 : 1]);
	if (strcmp(reasons[0], reasons[1]) == 0)
		return json_sprintf(
			"needs %s and %s, which are %s", needs[0], needs[1], reasons[0]);
	return json_sprintf("needs %s, which is %s, and %s, which is %s", needs[0], reasons[0],
		needs[1], reasons[1]);
}

static json_t *why_not(const char *name)
{
	json_t *why = NULL;

	if (memslot_feature(name) == 1)
		return json_null();
	if (is_disabled(name))
		return json_string("disabled by MEMSLOT_DISABLE");
	if (strcmp(name, dependent) == 0)
		why = why_needs();
	return why ? why : json_string("the kernel lacks it, or its probe failed");
}

static json_t *describe_feature(const char *name)
{
	const char *since = NULL, *purpose = NULL;

	for (size_t i = 0; i < sizeof(notes) / sizeof(*notes); i++) {
		if (strcmp(notes[i].name, name) == 0) {
			since = notes[i].since;
			purpose = notes[i].purpose;
		}
	}
	return json_pack("{s:s, s:b, s:o, s:s?, s:s?}", "name", name, "present",
		memslot_feature(name) == 1, "why_not", why_not(name), "linux", since, "purpose",
		purpose);
}

static json_t *describe_features(void)
{
	json_t *features = json_array();
	const char *name;

	for (uint32_t i = 0; (name = memslot_feature_name(i)); i++)
		json_array_append_new(features, describe_feature(name));
	return features;
}

/* A number from /proc/sys, or null. */
static json_t *read_number(const char *path)
{
	char line[64];
	uint64_t number;

	if (!read_line(path, line, sizeof(line)) || parse_number(line, 0, INT64_MAX, &number))
		return json_null();
	return json_integer((json_int_t)number);
}

static json_t *describe_limits(void)
{
	json_t *object = json_object();
	struct sysinfo system;

	json_object_set_new(object, "vm.max_map_count", read_number("/proc/sys/vm/max_map_count"));
	json_object_set_new(
		object, "vm.overcommit_memory", read_number("/proc/sys/vm/overcommit_memory"));
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		struct rlimit limit;
		json_t *value = json_null();

		if (getrlimit(limits[i].resource, &limit) == 0)
			value = limit.rlim_cur == RLIM_INFINITY
					? json_string("unlimited")
					: json_integer((json_int_t)limit.rlim_cur);
		json_object_set_new(object, limits[i].name, value);
	}
	json_object_set_new(object, "swap",
		sysinfo(&system) ? json_null() : json_boolean(system.totalswap > 0));
	return object;
}

static json_t *gather(void)
{
	struct utsname system;

	if (uname(&system))
		return NULL;
	return json_pack("{s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "version", memslot_version(),
		"kernel", system.release, "machine", system.machine, "page_size",
		(json_int_t)page_size(), "features", describe_features(),
		"unknown_in_MEMSLOT_DISABLE", unknown_names(), "limits", describe_limits());
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void print_limit(const char *name, const json_t *value)
{
	char buffer[32];
	bool is_size = strncmp(name, "RLIMIT_", 7) == 0;

	printf("  %-22s ", name);
	if (json_is_integer(value) && is_size)
		puts(format_size((uint64_t)json_integer_value(value), buffer, sizeof(buffer)));
	else if (json_is_integer(value))
		printf("%lld\n", (long long)json_integer_value(value));
	else if (json_is_boolean(value))
		puts(json_is_true(value) ? "present" : "none");
	else
		puts(json_is_string(value) ? json_string_value(value) : "unknown");
}

static void print_text(const json_t *info)
{
	const json_t *feature;
	json_t *value;
	const char *name;
	char page[32];
	size_t i;

	printf("libmemslot %s on Linux %s, %s, pages of %s\n\nFeatures\n", text_of(info, "version"),
		text_of(info, "kernel"), text_of(info, "machine"),
		format_size(page_size(), page, sizeof(page)));
	json_array_foreach(json_object_get(info, "features"), i, feature)
	{
		int present = json_is_true(json_object_get(feature, "present"));

		printf("  %-22s %d  %s", text_of(feature, "name"), present,
			text_of(feature, "purpose"));
		if (!present)
			printf(": %s (Linux %s)", text_of(feature, "why_not"),
				text_of(feature, "linux"));
		putchar('\n');
	}
	puts("\nLimits");
	json_object_foreach(json_object_get(info, "limits"), name, value) print_limit(name, value);
}

static void warn_unknown(const json_t *info)
{
	const json_t *name;
	size_t i;

	json_array_foreach(json_object_get(info, "unknown_in_MEMSLOT_DISABLE"), i, name)
		complain(0, "warning: MEMSLOT_DISABLE names '%s', which is no feature",
			json_string_value(name));
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	bool *json = state->input;

	switch (key) {
	case 'j':
		*json = true;
		return 0;
	case ARGP_KEY_ARG:
		refuse(state, "'%s' is one argument too many", argument);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_info(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', NULL, 0, "Print a JSON object", 0}, {0}};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.doc = "What the library finds on this machine: its features (1 or 0, and why "
		       "not) and the limits that bound it."};
	bool json = false;
	json_t *info;

	if (argp_parse(&argp, argc, argv, 0, NULL, &json))
		return EXIT_USAGE;
	info = gather();
	if (!info) {
		complain(0, "out of memory");
		return EXIT_FAILED;
	}
	warn_unknown(info);
	if (json)
		json_dumpf(info, stdout, JSON_INDENT(2)), putchar('\n');
	else
		print_text(info);
	json_decref(info);
	return EXIT_DONE;
}
