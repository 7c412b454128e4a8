/* SPDX-License-Identifier: MIT */
/*
 * plan.c - memslot plan: what a pool would cost, before there is one.
 *
 * Invariant: nothing is reserved and nothing is asked of the kernel but its limits. The JSON object
 * is built first and the text is printed from it, so both say the same.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <memslot.h>

struct arguments {
	uint64_t count, capacity;
	const char *image_path;
	struct memslot_pool_opts opts;
	int positional; /* how many were given */
	bool json;
};

enum { OPT_RESERVE = 256, OPT_BEFORE, OPT_AFTER, OPT_COPY, OPT_NO_EDGE };

static const struct argp_option options[] = {
	{"reserve", OPT_RESERVE, "BYTES", 0, "Address space of each slot (default: CAPACITY)", 0},
	{"guard-before", OPT_BEFORE, "BYTES", 0,
		"Inaccessible bytes in front of the first slot (default none)", 0},
	{"guard-after", OPT_AFTER, "BYTES", 0,
		"Inaccessible bytes behind each slot (default 64K; 0 or none: none)", 0},
	{"copy-budget", OPT_COPY, "BYTES", 0,
		"What a reset may keep resident in each slot (default 16M; none; unlimited)", 0},
	{"no-edge", OPT_NO_EDGE, NULL, 0, "Sizes are not enforced by page protection", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{0},
};

static const char text[] =
	"What a pool of COUNT slots of CAPACITY bytes costs, before it is made: how many of them "
	"fit, and what they take.\v"
	"IMAGE is what all of them would show: an image file, or any other file for its contents "
	"(default: zeros).\n"
	"BYTES and CAPACITY are decimal or hexadecimal (0x) and may end in K, M, G or T.";

/* --- the command line --- */

/* In the library's options 0 is a default: what somebody says is none. */
static uint64_t take_size(struct argp_state *state, const char *name, const char *argument)
{
	uint64_t size;

	if (strcmp(argument, "none") == 0)
		return MEMSLOT_NONE;
	if (strcmp(argument, "unlimited") == 0)
		return MEMSLOT_UNLIMITED;
	if (parse_size(argument, &size) || size > INT64_MAX)
		refuse(state, "--%s: '%s' is no size", name, argument);
	return size ? size : MEMSLOT_NONE;
}

/* A size, and nothing else. */
static uint64_t take_bytes(struct argp_state *state, const char *name, const char *argument)
{
	uint64_t size = take_size(state, name, argument);

	if (size == MEMSLOT_UNLIMITED || (size == MEMSLOT_NONE && argument[0] == 'n'))
		refuse(state, "--%s: '%s' is no size", name, argument);
	return size;
}

static void take_argument(struct argp_state *state, const char *argument)
{
	struct arguments *arguments = state->input;

	switch (arguments->positional++) {
	case 0:
		if (parse_number(argument, 1, 1u << 31, &arguments->count))
			refuse(state, "COUNT: '%s' is no number from 1 to %u", argument, 1u << 31);
		break;
	case 1:
		if (parse_size(argument, &arguments->capacity) || arguments->capacity == 0 ||
			arguments->capacity > INT64_MAX)
			refuse(state, "CAPACITY: '%s' is no size above 0", argument);
		break;
	case 2:
		arguments->image_path = argument;
		break;
	default:
		refuse(state, "'%s' is one argument too many", argument);
	}
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct arguments *arguments = state->input;
	struct memslot_pool_opts *opts = &arguments->opts;

	if (key == OPT_RESERVE)
		opts->reserve = take_bytes(state, "reserve", argument);
	else if (key == OPT_BEFORE)
		opts->guard_before = take_size(state, "guard-before", argument);
	else if (key == OPT_AFTER)
		opts->guard_after = take_size(state, "guard-after", argument);
	else if (key == OPT_COPY)
		opts->copy_budget = take_size(state, "copy-budget", argument);
	else if (key == OPT_NO_EDGE)
		opts->flags |= MEMSLOT_SLOT_NO_EDGE;
	else if (key == 'j')
		arguments->json = true;
	else if (key == ARGP_KEY_ARG)
		take_argument(state, argument);
	else if (key == ARGP_KEY_END && arguments->positional < 2)
		refuse(state, "plan: say how many slots, and of what capacity");
	else
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* --- the bill --- */

static json_t *limit_of(__rlimit_resource_t resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return json_null();
	return json_integer((json_int_t)limit.rlim_cur);
}

static json_t *max_map_count(void)
{
	uint64_t number;
	char line[32];

	if (!read_line("/proc/sys/vm/max_map_count", line, sizeof(line)) ||
		parse_number(line, 0, INT64_MAX, &number))
		return json_null();
	return json_integer((json_int_t)number);
}

/* null: the library's default; 0: none; -1: unlimited. */
static json_t *describe_option(uint64_t value)
{
	if (value == 0)
		return json_null();
	if (value == MEMSLOT_NONE)
		return json_integer(0);
	return json_integer(value == MEMSLOT_UNLIMITED ? -1 : (json_int_t)value);
}

static json_t *describe_asked(const struct arguments *arguments, const struct memslot_image *image)
{
	const struct memslot_pool_opts *opts = &arguments->opts;
	json_t *name = arguments->image_path ? json_string(arguments->image_path) : json_null();
	json_t *edge = json_boolean(!(opts->flags & MEMSLOT_SLOT_NO_EDGE));

	return json_pack("{s:I, s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "count",
		(json_int_t)arguments->count, "capacity", (json_int_t)arguments->capacity, "image",
		name ? name : json_null(), "image_offset", (json_int_t)memslot_image_offset(image),
		"image_size", (json_int_t)memslot_image_size(image), "reserve",
		describe_option(opts->reserve), "guard_before", describe_option(opts->guard_before),
		"guard_after", describe_option(opts->guard_after), "copy_budget",
		describe_option(opts->copy_budget), "edge", edge);
}

static json_t *describe(const struct arguments *arguments, const struct memslot_image *image,
	const struct memslot_plan *plan)
{
	return json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:o, s:o}}", "version",
		memslot_version(), "asked", describe_asked(arguments, image), "count",
		(json_int_t)plan->count, "stride", (json_int_t)plan->stride, "address_space",
		(json_int_t)plan->address_space, "vmas", (json_int_t)plan->vmas, "page_table_bytes",
		(json_int_t)plan->page_table_bytes, "worst_resident_bytes",
		(json_int_t)plan->worst_resident_bytes, "limits", "vm.max_map_count",
		max_map_count(), "RLIMIT_AS", limit_of(RLIMIT_AS));
}

static uint64_t number_of(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

/* In the largest unit that it is a whole number of: strides differ by little. */
static const char *exact_size_of(const json_t *object, const char *key, char buffer[32])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	uint64_t size = number_of(object, key);
	size_t unit = 0;

	for (; size && size % 1024 == 0 && unit < 4; unit++)
		size /= 1024;
	snprintf(buffer, 32, "%llu %s", (unsigned long long)size, units[unit]);
	return buffer;
}

static const char *size_of(const json_t *object, const char *key, char buffer[32])
{
	return format_size(number_of(object, key), buffer, 32);
}

/* Of the mappings the library leaves the process this many, for itself. */
#define MAPPINGS_LEFT 1024

/* What one slot more would run into. */
static const char *bound_by(const json_t *bill)
{
	uint64_t count = number_of(bill, "count"), vmas = number_of(bill, "vmas");
	uint64_t most = number_of(json_object_get(bill, "limits"), "vm.max_map_count");

	if (count && vmas + (vmas - 1) / count > most - MAPPINGS_LEFT)
		return "the number of mappings (vm.max_map_count)";
	return "the address space";
}

static void print_head(const json_t *bill)
{
	const json_t *asked = json_object_get(bill, "asked");
	const char *image = json_string_value(json_object_get(asked, "image"));
	char capacity[32], size[32];

	printf("%llu slots of %s", (unsigned long long)number_of(asked, "count"),
		size_of(asked, "capacity", capacity));
	if (image)
		printf(", each showing %s (%s)\n", image, size_of(asked, "image_size", size));
	else
		puts(", of zeros");
	printf("  %-16s %llu", "fit", (unsigned long long)number_of(bill, "count"));
	if (number_of(bill, "count") < number_of(asked, "count"))
		printf(", bounded by %s", bound_by(bill));
	putchar('\n');
}

static void print_text(const json_t *bill)
{
	const json_t *most = json_object_get(json_object_get(bill, "limits"), "vm.max_map_count");
	static const struct {
		const char *label, *key, *note;
	} rows[] = {
		{"address space", "address_space", "of all reservations"},
		{"page tables", "page_table_bytes", "of guards, and of slots written whole"},
		{"worst resident", "worst_resident_bytes", "every slot written whole"},
	};
	char size[32];

	print_head(bill);
	printf("  %-16s %-11s from one slot to the next\n", "stride",
		exact_size_of(bill, "stride", size));
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		printf("  %-16s %-11s %s\n", rows[i].label, size_of(bill, rows[i].key, size),
			rows[i].note);
	printf("  %-16s %-11llu when all are out", "mappings",
		(unsigned long long)number_of(bill, "vmas"));
	if (json_is_integer(most))
		printf("; vm.max_map_count is %lld", (long long)json_integer_value(most));
	putchar('\n');
}

/* Why there is no bill; the exit status. */
static int blame(const struct arguments *arguments, const struct memslot_image *image, int error)
{
	uint64_t end = memslot_image_offset(image) + memslot_image_size(image);
	char large[32], capacity[32];

	format_size(arguments->capacity, capacity, sizeof(capacity));
	if (error == -EMSGSIZE && image && end > arguments->capacity)
		complain(0, "%s ends at %s, beyond CAPACITY (%s)", arguments->image_path,
			format_size(end, large, sizeof(large)), capacity);
	else if (error == -EMSGSIZE && arguments->opts.reserve &&
		 (arguments->opts.reserve == MEMSLOT_NONE ||
			 arguments->opts.reserve < arguments->capacity))
		complain(0, "--reserve is below CAPACITY (%s)", capacity);
	else
		complain(error, "no such pool");
	return error == -EMSGSIZE || error == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

static int print_bill(const struct arguments *arguments, const struct memslot_image *image)
{
	struct memslot_plan plan = {.size = sizeof(plan)};
	int error = memslot_pool_plan(
		(uint32_t)arguments->count, arguments->capacity, image, &arguments->opts, &plan);
	json_t *bill;

	if (error)
		return blame(arguments, image, error);
	bill = describe(arguments, image, &plan);
	if (!bill) {
		complain(-ENOMEM, "plan");
		return EXIT_FAILED;
	}
	if (arguments->json)
		json_dumpf(bill, stdout, JSON_INDENT(2)), putchar('\n');
	else
		print_text(bill);
	json_decref(bill);
	return EXIT_DONE;
}

int command_plan(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "COUNT CAPACITY [IMAGE]", text, NULL, NULL, NULL};
	struct arguments arguments = {.opts = {.size = sizeof(arguments.opts)}};
	struct memslot_image *image = NULL;
	int error = 0, status;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return EXIT_USAGE;
	if (arguments.image_path)
		error = open_image(arguments.image_path, &image);
	if (error) {
		complain(error, "%s", arguments.image_path);
		return EXIT_FAILED;
	}
	status = print_bill(&arguments, image);
	memslot_image_unref(image);
	return status;
}
