/* SPDX-License-Identifier: MIT */
/*
 * host.c - memslot host: a worked example of a host with a pool, and a test of it.
 *
 * Invariant: the pool is there before the first thread and goes after the last; what is printed was
 * counted by then. See host.h for the parts.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAP (64 * KIB)	   /* zeros behind a plug-in's image */
#define GROWTH (256 * KIB) /* and so much more, if a guest asks */
#define MOST (MIB * 1024)

enum { OPT_SLOTS = 256, OPT_VERIFY };

static const struct argp_option options[] = {
	{"requests", 'n', "N", 0, "Requests (default 20000)", 0},
	{"threads", 't', "N", 0, "Threads that serve them (default 4)", 0},
	{"seed", 's', "N", 0, "Of the requests (default 1)", 0},
	{"slots", OPT_SLOTS, "N", 0, "Slots of the pool (default: three for each thread)", 0},
	{"verify", OPT_VERIFY, NULL, 0, "Let the pool compare every slot at each hand-out", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{0},
};

static const char text[] =
	"A small host: serves requests by plug-ins whose memory is slots of one pool. Some of the "
	"guests run off their edge, fill their memory or fork; every answer is checked byte for "
	"byte, and everything is counted.\v"
	"IMAGE is a plug-in's memory: an image file, or any other file for its contents (default: "
	"five plug-ins that are made up).\n"
	"The exit status is 3 after a wrong byte, 1 when something failed or does not add up.";

struct arguments {
	struct host *host;
	const char *paths[MAX_PLUGINS];
	unsigned path_count;
};

/* --- the command line --- */

static uint64_t take_number(struct argp_state *state, const char *name, const char *argument,
	uint64_t low, uint64_t high)
{
	uint64_t number = 0;

	if (parse_number(argument, low, high, &number))
		refuse(state, "--%s: '%s' is no number from %llu to %llu", name, argument,
			(unsigned long long)low, (unsigned long long)high);
	return number;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct arguments *arguments = state->input;
	struct host *host = arguments->host;

	if (key == 'n')
		host->requests = take_number(state, "requests", argument, 1, UINT32_MAX);
	else if (key == 't')
		host->workers = (unsigned)take_number(state, "threads", argument, 1, MAX_WORKERS);
	else if (key == 's')
		host->seed = take_number(state, "seed", argument, 0, INT64_MAX);
	else if (key == OPT_SLOTS)
		host->slots = (unsigned)take_number(state, "slots", argument, 1, MAX_SLOTS);
	else if (key == OPT_VERIFY)
		host->verify = true;
	else if (key == 'j')
		host->json = true;
	else if (key == ARGP_KEY_ARG && arguments->path_count == MAX_PLUGINS)
		refuse(state, "'%s': more than %d plug-ins", argument, MAX_PLUGINS);
	else if (key == ARGP_KEY_ARG)
		arguments->paths[arguments->path_count++] = argument;
	else
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* --- plug-ins --- */

/* What the image holds, in a slot that nobody writes to. */
static int show_model(struct plugin *plugin)
{
	size_t end =
		(size_t)memslot_image_offset(plugin->image) + memslot_image_size(plugin->image);
	int error = end > MOST ? -EMSGSIZE : 0;

	plugin->size = end + HEAP;
	if (!error)
		error = memslot_slot_create(plugin->size, NULL, &plugin->model);
	if (!error)
		error = memslot_slot_instantiate(plugin->model, plugin->image, plugin->size);
	if (!error)
		plugin->contents = memslot_slot_base(plugin->model);
	return error;
}

/* A plug-in that is made up: its memory begins at `offset`, zeros before it. */
static int make_image(struct plugin *plugin, size_t offset, size_t size, unsigned char *bytes)
{
	struct memslot_image_opts opts = {.size = sizeof(opts), .slot_offset = offset};
	uint64_t random = (unsigned char)plugin->name[0];

	for (size_t i = 0; i < size; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		bytes[i] = (unsigned char)(random >> 56);
	}
	return memslot_image_from_bytes(bytes, size, &opts, &plugin->image);
}

static int make_plugin(struct plugin *plugin, const char *name, size_t offset, size_t size)
{
	unsigned char *bytes = malloc(size);
	int error = -ENOMEM;

	plugin->name = name;
	if (bytes)
		error = make_image(plugin, offset, size, bytes);
	if (!error)
		error = show_model(plugin);
	if (!error && memcmp(plugin->contents + offset, bytes, size) != 0) {
		complain(0, "wrong byte: plug-in %s", name);
		error = EXIT_WRONG_BYTE;
	}
	free(bytes);
	return error;
}

static int make_plugins(struct host *host)
{
	static const struct {
		const char *name;
		size_t offset, size;
	} made[] = {{"tiny", 0, 12 * KIB}, {"small", 64 * KIB, 64 * KIB},
		{"twin", 64 * KIB, 64 * KIB}, {"middle", 0, 300 * KIB}, {"large", 128 * KIB, MIB}};
	int error = 0;

	for (size_t i = 0; i < sizeof(made) / sizeof(*made) && !error; i++)
		error = make_plugin(&host->plugins[host->plugin_count++], made[i].name,
			made[i].offset, made[i].size);
	if (error < 0)
		complain(error, "cannot make plug-ins up");
	return error < 0 ? EXIT_FAILED : error;
}

static int load_plugins(struct host *host, const struct arguments *arguments)
{
	for (unsigned i = 0; i < arguments->path_count; i++) {
		struct plugin *plugin = &host->plugins[host->plugin_count++];
		const char *slash = strrchr(arguments->paths[i], '/');
		int error = open_image(arguments->paths[i], &plugin->image);

		plugin->name = slash && slash[1] ? slash + 1 : arguments->paths[i];
		if (!error)
			error = show_model(plugin);
		if (error) {
			complain(error, "%s", arguments->paths[i]);
			return EXIT_FAILED;
		}
	}
	return host->plugin_count ? 0 : make_plugins(host);
}

/* --- the host --- */

static int set_up(struct host *host)
{
	struct memslot_pool_opts opts = {.size = sizeof(opts),
		.flags = host->verify ? MEMSLOT_POOL_VERIFY : 0,
		.guard_before = 64 * KIB,
		.idle_budget = 8 * MIB,
		.drop_batch_count = 4};
	int error;

	for (unsigned i = 0; i < host->plugin_count; i++) {
		if (host->plugins[i].size + GROWTH > host->capacity)
			host->capacity = host->plugins[i].size + GROWTH;
	}
	error = memslot_pool_create(host->slots, host->capacity, &opts, &host->pool);
	if (!error)
		error = fault_set_up(host);
	if (error)
		complain(error, "cannot make a pool of %u slots", host->slots);
	return error ? EXIT_FAILED : 0;
}

static int tear_down(struct host *host)
{
	int error;

	if (host->pool)
		fault_tear_down();
	error = memslot_pool_destroy(host->pool);
	if (error)
		complain(error, "the pool cannot be destroyed");
	for (unsigned i = 0; i < host->plugin_count; i++) {
		memslot_slot_destroy(host->plugins[i].model);
		memslot_image_unref(host->plugins[i].image);
	}
	pthread_cond_destroy(&host->filled);
	pthread_cond_destroy(&host->emptied);
	pthread_mutex_destroy(&host->lock);
	return error ? EXIT_FAILED : 0;
}

static int run(struct host *host)
{
	struct memslot_pool_stats stats = {.size = sizeof(stats)};
	int status = host_serve(host), error = memslot_pool_stats(host->pool, &stats);

	if (error) {
		complain(error, "statistics of the pool");
		return EXIT_FAILED;
	}
	host_report(host, &stats);
	fflush(stdout);
	if (!status && !host_adds_up(host, &stats))
		status = EXIT_FAILED;
	return status;
}

int command_host(int argc, char **argv)
{
	static const struct argp argp = {options, parse, "[IMAGE...]", text, NULL, NULL, NULL};
	static struct host host = {.requests = 20000,
		.workers = 4,
		.seed = 1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.filled = PTHREAD_COND_INITIALIZER,
		.emptied = PTHREAD_COND_INITIALIZER};
	struct arguments arguments = {.host = &host};
	int status, end;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
		return EXIT_USAGE;
	if (host.slots == 0)
		host.slots = 3 * host.workers;
	status = load_plugins(&host, &arguments);
	if (!status)
		status = set_up(&host);
	if (!status)
		status = run(&host);
	end = tear_down(&host);
	return status ? status : end;
}
