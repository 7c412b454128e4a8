/* SPDX-License-Identifier: MIT */
/*
 * progress.c - how far a long library call is.
 *
 * Invariant: the library call runs undisturbed in a thread of its own; this thread only looks at
 * what the kernel has counted for the process (/proc/self/io) and at the clock. Where that file is
 * missing, the seconds are shown. (io_uring's operations are not in it: who uses that counts itself.)
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct job {
	int (*work)(void *context);
	bool (*moved)(void *context, uint64_t *ret_read, uint64_t *ret_written);
	void *context;
	atomic_bool done;
	int result;
};

static void *run(void *argument)
{
	struct job *job = argument;

	job->result = job->work(job->context);
	atomic_store(&job->done, true);
	return NULL;
}

/* Bytes read and written by this process so far; false: unknown. */
static bool moved(void *context, uint64_t *ret_read, uint64_t *ret_written)
{
	(void)context;
	FILE *file = fopen("/proc/self/io", "re");
	unsigned long long read = 0, written = 0;
	bool known;

	if (!file)
		return false;
	known = fscanf(file, "rchar: %llu wchar: %llu", &read, &written) == 2;
	fclose(file);
	*ret_read = read;
	*ret_written = written;
	return known;
}

static void show_line(
	const char *what, uint64_t expected, uint64_t read, uint64_t written, double seconds)
{
	char buffer[2][32];

	fprintf(stderr, "\r%s: %s read, %s written", what,
		format_size(read, buffer[0], sizeof(buffer[0])),
		format_size(written, buffer[1], sizeof(buffer[1])));
	if (expected && read + written < expected)
		fprintf(stderr, ", %.0f %%", 100.0 * (double)(read + written) / (double)expected);
	fprintf(stderr, ", %.0f s\033[K", seconds);
}

static void watch(struct job *job, const char *what, uint64_t expected)
{
	const struct timespec tick = {.tv_nsec = 100000000};
	uint64_t began = clock_ns(), read0 = 0, written0 = 0, read = 0, written = 0;
	bool known = job->moved(job->context, &read0, &written0), shown = false;

	while (!atomic_load(&job->done)) {
		nanosleep(&tick, NULL);
		if (atomic_load(&job->done))
			break;
		if (known)
			known = job->moved(job->context, &read, &written);
		show_line(what, expected, read - read0, written - written0,
			(double)(clock_ns() - began) / 1e9);
		shown = true;
	}
	if (shown)
		fputs("\r\033[K", stderr);
}

int run_with_progress(
	bool show, const char *what, uint64_t expected, int (*work)(void *context), void *context)
{
	return run_with_counts(show, what, expected, work, moved, context);
}

int run_with_counts(bool show, const char *what, uint64_t expected, int (*work)(void *context),
	bool (*count)(void *context, uint64_t *ret_read, uint64_t *ret_written), void *context)
{
	struct job job = {.work = work, .moved = count, .context = context};
	pthread_t thread;
	int error;

	if (!show)
		return work(context);
	error = pthread_create(&thread, NULL, run, &job);
	if (error)
		return work(context);
	watch(&job, what, expected);
	pthread_join(thread, NULL);
	return job.result;
}
