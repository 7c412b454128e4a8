/* SPDX-License-Identifier: MIT */
/*
 * threads.c - several threads, with a slot each or sharing a pool: how much more they do than one.
 *
 * Invariant: a thread opens (or joins the owner's), uses, verifies and closes its own instance; all
 * start together and stop at one word. Windows with 1, 2, ... N threads take turns, and the ratio
 * is taken within each turn, so that a noisy minute spoils a turn and not the comparison.
 */
#define _GNU_SOURCE
#include "churn.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TURNS 5
#define WARM_CYCLES 200

struct window {
	const struct churn *churn;
	const struct variant *variant;
	const struct workload *workload;
	struct instance owner; /* of what the threads share, if they do */
	pthread_mutex_t gate;  /* closed (locked) until all are ready */
	atomic_uint ready;
	uint64_t length_ns;
	atomic_bool stop;
};

struct worker {
	struct window *window;
	pthread_t thread;
	uint64_t cycles, took_ns;
	int error;
};

static int warm_up(const struct window *window, struct instance *instance)
{
	const struct phase *phase = &window->workload->phases[0];
	int error = 0;

	for (size_t i = 0; i < WARM_CYCLES && !error; i++) {
		const struct run *run = &phase->runs[i % phase->run_count];

		error = i < 20 ? check_cycle(instance, run, window->workload->name, false)
			       : run_cycle(instance, run);
	}
	return error;
}

static int churn_until_stopped(struct worker *worker, struct instance *instance)
{
	const struct phase *phase = &worker->window->workload->phases[0];
	uint64_t before = clock_ns();
	int error = 0;

	while (!error && !atomic_load_explicit(&worker->window->stop, memory_order_relaxed))
		error = run_cycle(instance, &phase->runs[worker->cycles++ % phase->run_count]);
	worker->took_ns = clock_ns() - before;
	if (!error)
		error = check_cycle(
			instance, &phase->runs[0], worker->window->workload->name, false);
	return error;
}

static int enter(const struct window *window, struct instance *instance)
{
	if (window->variant->backend->shared)
		return instance_join(instance, &window->owner);
	return instance_open(instance, window->variant, &window->churn->settings,
		window->churn->image, window->workload->size);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	const struct window *window = worker->window;
	struct instance instance;
	int error = enter(window, &instance);

	if (!error)
		error = warm_up(window, &instance);
	atomic_fetch_add(&worker->window->ready, 1);
	pthread_mutex_lock(&worker->window->gate);
	pthread_mutex_unlock(&worker->window->gate);
	if (!error)
		error = churn_until_stopped(worker, &instance);
	instance_close(&instance);
	worker->error = error;
	return NULL;
}

/* Start the threads up to the gate; how many there are now. */
static unsigned start(struct window *window, struct worker *workers, unsigned threads)
{
	const struct timespec tick = {.tv_nsec = 1000000};
	unsigned started = 0;

	while (started < threads) {
		workers[started].window = window;
		if (pthread_create(&workers[started].thread, NULL, work, &workers[started]))
			break;
		started++;
	}
	while (atomic_load(&window->ready) < started)
		nanosleep(&tick, NULL);
	return started;
}

/* Cycles a second of `threads` threads together. */
static int run_window(struct window *window, unsigned threads, double *ret_rate)
{
	const struct timespec time = {
		(time_t)(window->length_ns / 1000000000), (long)(window->length_ns % 1000000000)};
	struct worker workers[MAX_THREADS] = {0};
	unsigned started;
	int error = 0;

	*ret_rate = 0;
	atomic_store(&window->stop, false);
	atomic_store(&window->ready, 0);
	pthread_mutex_lock(&window->gate);
	started = start(window, workers, threads);
	if (started < threads)
		error = -EAGAIN;
	atomic_store(&window->stop, error != 0);
	pthread_mutex_unlock(&window->gate);
	nanosleep(&time, NULL);
	atomic_store(&window->stop, true);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		if (workers[i].error)
			error = workers[i].error;
		else
			*ret_rate += (double)workers[i].cycles * 1e9 / (double)workers[i].took_ns;
	}
	return error;
}

static int run_turns(struct window *window, struct scaling *scaling)
{
	double rates[MAX_THREADS][TURNS], ratios[MAX_THREADS][TURNS];

	for (size_t turn = 0; turn < TURNS; turn++) {
		for (unsigned n = 1; n <= scaling->threads; n++) {
			int error = run_window(window, n, &rates[n - 1][turn]);

			if (error)
				return error;
			ratios[n - 1][turn] = rates[n - 1][turn] / rates[0][turn];
		}
	}
	for (unsigned n = 0; n < scaling->threads; n++) {
		scaling->rate[n] = median_of(rates[n], TURNS);
		scaling->ratio[n] = median_of(ratios[n], TURNS);
	}
	return 0;
}

static int scale(const struct churn *churn, const struct workload *workload, double seconds,
	struct scaling *scaling)
{
	struct window window = {.churn = churn,
		.variant = scaling->variant,
		.workload = workload,
		.length_ns = (uint64_t)(seconds * 1e9 / (TURNS * scaling->threads)),
		.gate = PTHREAD_MUTEX_INITIALIZER};
	bool shared = scaling->variant->backend->shared;
	int error = 0;

	if (shared)
		error = instance_open(&window.owner, window.variant, &churn->settings, churn->image,
			workload->size);
	if (!error)
		error = run_turns(&window, scaling);
	if (shared)
		instance_close(&window.owner);
	return error;
}

int measure_threads(struct churn *churn, const struct workload *workload, double seconds)
{
	for (size_t i = 0; i < churn->variant_count; i++) {
		struct scaling *scaling = &churn->scaling[i];
		int error;

		scaling->variant = churn->variants[i];
		scaling->threads = churn->settings.threads;
		if (churn->settings.progress)
			fprintf(stderr, "\rthreads: %s\033[K", scaling->variant->name);
		error = scale(churn, workload, seconds / (double)churn->variant_count, scaling);
		if (error) {
			complain(error < 0 ? error : 0, "variant %s with threads failed",
				scaling->variant->name);
			return error;
		}
		churn->scaling_count = i + 1;
	}
	if (churn->settings.progress)
		fputs("\r\033[K", stderr);
	return 0;
}
