/* SPDX-License-Identifier: MIT */
/*
 * churn.c - memslot churn: from the image file to the report.
 *
 * Invariant: all variants start from one copy of the contents, which is also what they are compared
 * with; the library's slots map an image made of it, the references a sealed memfd of it.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that every machine has: the C library's own. */
static const char *c_library(void)
{
	Dl_info info;

	return dladdr((const void *)(uintptr_t)getpid, &info) && info.dli_fname ? info.dli_fname
										: "/proc/self/exe";
}

/* Read up to `room` bytes; how many, or -errno. */
static ssize_t read_up_to(int fd, unsigned char *buffer, size_t room)
{
	size_t done = 0;
	ssize_t part;

	do {
		part = read(fd, buffer + done, room - done);
		if (part < 0 && errno != EINTR)
			return -errno;
		done += part > 0 ? (size_t)part : 0;
	} while (part && done < room);
	return (ssize_t)done;
}

static int load(struct settings *settings)
{
	const char *path = settings->image_path ? settings->image_path : c_library();
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const char *slash = strrchr(path, '/');
	ssize_t size = -errno;

	settings->image_name = slash && slash[1] ? slash + 1 : path;
	settings->contents_size =
		settings->image_size + (settings->pool ? MAX_IMAGES * page_size() : 0);
	settings->contents = calloc(1, settings->contents_size);
	if (fd >= 0)
		size = settings->contents
			       ? read_up_to(fd, settings->contents, settings->contents_size)
			       : -ENOMEM;
	if (fd >= 0)
		close(fd);
	if (size <= 0) {
		complain((int)size, "%s%s", path, size == 0 ? " is empty" : "");
		return EXIT_FAILED;
	}
	for (size_t i = (size_t)size; i < settings->contents_size; i++)
		settings->contents[i] = settings->contents[i - (size_t)size];
	return 0;
}

static void choose_variants(struct churn *churn)
{
	size_t used = 0;

	for (size_t i = 0; i < variant_count; i++) {
		if (!variant_chosen(&variants[i], &churn->settings))
			continue;
		if (variant_possible(&variants[i], &churn->settings))
			churn->variants[churn->variant_count++] = &variants[i];
		else if (used < sizeof(churn->skipped))
			used += (size_t)snprintf(churn->skipped + used,
				sizeof(churn->skipped) - used, " %s", variants[i].name);
	}
}

static int set_up(struct churn *churn)
{
	struct settings *settings = &churn->settings;
	int status = load(settings), error;

	if (status)
		return status;
	error = reference_setup(settings);
	if (!error)
		error = memslot_image_from_bytes(
			settings->contents, settings->image_size, NULL, &churn->image);
	if (error) {
		complain(error, "cannot make an image of %s", settings->image_name);
		return EXIT_FAILED;
	}
	choose_variants(churn);
	churn->clock_cost = measure_clock();
	churn->results = calloc(workload_count(), sizeof(*churn->results));
	if (churn->results)
		return 0;
	complain(-ENOMEM, "churn");
	return EXIT_FAILED;
}

static int status_of(int error)
{
	return error < 0 ? EXIT_FAILED : error;
}

/* Each workload, and the threads, get an equal part of the time; through a pool there is more. */
static double share_of(const struct settings *settings)
{
	size_t count = settings->pool ? POOL_SHARES : settings->threads > 1;

	for (size_t i = 0; i < workload_count(); i++)
		count += workload_chosen(settings->workloads, i);
	return settings->seconds / (double)count;
}

static int run_workloads(struct churn *churn, double share)
{
	for (size_t i = 0; i < workload_count(); i++) {
		struct result *result = &churn->results[churn->result_count];
		struct workload workload;
		int error;

		if (!workload_chosen(churn->settings.workloads, i))
			continue;
		error = workload_make(i, &churn->settings, &workload);
		if (error)
			return error;
		error = measure_workload(churn, &workload, share, result);
		workload_free(&workload);
		if (error)
			return status_of(error);
		churn->result_count++;
		if (!churn->settings.json)
			report_result(churn, result);
	}
	return 0;
}

/* Threads are compared on the workload of 16 pages. */
static int run_threads(struct churn *churn, double share)
{
	struct workload workload;
	int error;

	if (churn->settings.threads < 2 || churn->settings.pool)
		return 0;
	error = workload_find("16", &churn->settings, &workload);
	if (error)
		return error;
	error = measure_threads(churn, &workload, share);
	workload_free(&workload);
	return status_of(error);
}

static void print_json(const struct churn *churn)
{
	json_t *object = churn_to_json(churn);

	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

static void tear_down(struct churn *churn)
{
	while (churn->next) {
		struct churn *section = churn->next;

		churn->next = section->next;
		free(section->results);
		free(section);
	}
	memslot_image_unref(churn->image);
	free(churn->results);
	free(churn->settings.contents);
	if (churn->settings.image_fd >= 0)
		close(churn->settings.image_fd);
	if (churn->settings.pagemap_fd >= 0)
		close(churn->settings.pagemap_fd);
}

int command_churn(int argc, char **argv)
{
	struct churn churn = {0};
	int status = churn_options(argc, argv, &churn.settings);

	if (!status)
		status = set_up(&churn);
	if (!status && !churn.settings.json)
		report_head(&churn);
	if (!status)
		status = run_workloads(&churn, share_of(&churn.settings));
	if (!status)
		status = run_threads(&churn, share_of(&churn.settings));
	if (!status && churn.settings.pool)
		status = measure_pool(&churn, share_of(&churn.settings));
	if (!status && churn.settings.json)
		print_json(&churn);
	else if (!status)
		report_summary(&churn);
	tear_down(&churn);
	return status;
}
