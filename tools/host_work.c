/* SPDX-License-Identifier: MIT */
/*
 * host_work.c - the queue of requests, and the threads that serve them.
 *
 * Invariant: slots that others handed over are taken before new requests, and a worker that finds
 * no slot for a request goes on with any of those before it waits: so there is always somebody who
 * can give one back. All counts are a worker's own until it has ended.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENANTS 3		 /* affinity keys */
#define WAIT_NS 5000000u	 /* for a slot, before looking for work again */
#define FULL_COMPARISONS 32	 /* one of so many slots is compared whole */
#define UPKEEP 1024		 /* requests between two looks after the pool */
#define IDLE_AT_UPKEEP (4 * MIB) /* resident in idle slots */

/* --- the queue --- */

static void push(struct host *host, const struct request *request)
{
	pthread_mutex_lock(&host->lock);
	while (host->count == QUEUE_SIZE)
		pthread_cond_wait(&host->emptied, &host->lock);
	host->queue[(host->first + host->count++) % QUEUE_SIZE] = *request;
	pthread_cond_signal(&host->filled);
	pthread_mutex_unlock(&host->lock);
}

/* There is a place for every slot. */
static void hand_over(struct host *host, const struct request *request)
{
	pthread_mutex_lock(&host->lock);
	host->handed[host->handed_count++] = *request;
	pthread_cond_signal(&host->filled);
	pthread_mutex_unlock(&host->lock);
}

/* Under the lock: one that was handed over; `others`: not by this worker. */
static bool find_handed(
	struct host *host, const struct worker *worker, bool others, struct request *ret_request)
{
	for (unsigned i = 0; i < host->handed_count; i++) {
		if (others && host->handed[i].worker == worker->number)
			continue;
		*ret_request = host->handed[i];
		host->handed[i] = host->handed[--host->handed_count];
		return true;
	}
	return false;
}

static bool take_handed(struct worker *worker, struct request *ret_request)
{
	struct host *host = worker->host;
	bool found;

	pthread_mutex_lock(&host->lock);
	found = find_handed(host, worker, false, ret_request);
	pthread_mutex_unlock(&host->lock);
	return found;
}

/* Under the lock: what others handed over, what is new, what this worker itself handed over. */
static bool find_work(struct host *host, const struct worker *worker, struct request *ret_request)
{
	if (find_handed(host, worker, true, ret_request))
		return true;
	if (host->count == 0)
		return find_handed(host, worker, false, ret_request);
	*ret_request = host->queue[host->first];
	host->first = (host->first + 1) % QUEUE_SIZE;
	host->count--;
	pthread_cond_signal(&host->emptied);
	return true;
}

/* The next one; false: there will be none, for the queue is closed and nobody can hand over. */
static bool take(struct worker *worker, struct request *ret_request)
{
	struct host *host = worker->host;
	bool found;

	pthread_mutex_lock(&host->lock);
	while (!(found = find_work(host, worker, ret_request)) &&
		!(host->closed && host->busy == 0))
		pthread_cond_wait(&host->filled, &host->lock);
	host->busy += found;
	pthread_mutex_unlock(&host->lock);
	return found;
}

static void done(struct host *host)
{
	pthread_mutex_lock(&host->lock);
	host->busy--;
	if (host->closed && host->busy == 0)
		pthread_cond_broadcast(&host->filled);
	pthread_mutex_unlock(&host->lock);
}

static void close_queue(struct host *host)
{
	pthread_mutex_lock(&host->lock);
	host->closed = true;
	pthread_cond_broadcast(&host->filled);
	pthread_mutex_unlock(&host->lock);
}

/* --- one request --- */

/* The slot goes back; whoever releases it once more, by its ticket, is told that he is late. */
static int give_back(struct worker *worker, const struct request *request)
{
	struct memslot_pool *pool = worker->host->pool;
	uint64_t ticket = memslot_slot_ticket(request->slot);
	int error = memslot_pool_release(pool, request->slot);

	if (!error) {
		worker->counts.released++;
		worker->counts.released_elsewhere += request->worker != worker->number;
		error = memslot_pool_release_ticket(pool, request->slot, ticket);
		worker->counts.late_releases += error == -ESTALE;
		error = error == -ESTALE ? 0 : error ? error : -EUCLEAN;
	}
	if (!error)
		return 0;
	worker->counts.failed++;
	complain(error, "request %llu: release", (unsigned long long)request->number);
	return EXIT_FAILED;
}

static int misbehave(struct worker *worker, const struct request *request)
{
	switch (request->kind) {
	case RUN_OFF:
		return guest_run_off(worker, request);
	case FILL:
		return guest_fill(worker, request);
	case FORK:
		return guest_fork(worker, request);
	case FOREIGN:
		return guest_foreign(worker, request);
	default:
		return 0;
	}
}

/* What another worker began. */
static int go_on(struct worker *worker, const struct request *request)
{
	int status;

	guest_work(worker, request, 1);
	status = guest_agrees(worker, request, 2) ? 0 : EXIT_WRONG_BYTE;
	worker->counts.done[HAND_OVER] += status == 0;
	return status ? status : give_back(worker, request);
}

static int begin(struct worker *worker, struct request *request)
{
	int status = 0;

	if (request->seed % FULL_COMPARISONS == 0 && !guest_is_fresh(worker, request))
		return EXIT_WRONG_BYTE;
	guest_work(worker, request, 0);
	if (request->kind == HAND_OVER) {
		memslot_slot_unconfine(request->slot); /* before anybody else touches it */
		hand_over(worker->host, request);
		return 0;
	}
	if (!guest_agrees(worker, request, 1))
		return EXIT_WRONG_BYTE;
	status = misbehave(worker, request);
	worker->counts.done[request->kind] += status == 0;
	return status ? status : give_back(worker, request);
}

/* A slot for the request; where there is none, others' work first. */
static int find_slot(struct worker *worker, struct request *request)
{
	const struct plugin *plugin = &worker->host->plugins[request->plugin];
	struct memslot_acquire_opts opts = {.size = sizeof(opts),
		.flags = MEMSLOT_SLOT_CONFINED,
		.affinity_key = request->number % TENANTS};
	struct request other;
	int error, status;

	for (;;) {
		error = memslot_pool_acquire(
			worker->host->pool, plugin->image, plugin->size, &opts, &request->slot);
		if (error != -EAGAIN && error != -ETIMEDOUT)
			break;
		worker->counts.out_of_slots++;
		if (atomic_load(&worker->host->status))
			return EXIT_FAILED; /* who failed gives no slot back */
		opts.timeout_ns = WAIT_NS;
		if (!take_handed(worker, &other))
			continue;
		status = go_on(worker, &other);
		if (status)
			return status;
	}
	worker->counts.acquired += error == 0;
	if (!error)
		return 0;
	worker->counts.failed++;
	complain(error, "request %llu: acquire", (unsigned long long)request->number);
	return EXIT_FAILED;
}

static int serve(struct worker *worker, struct request *request)
{
	int status;

	if (request->slot)
		return go_on(worker, request);
	request->worker = worker->number;
	status = find_slot(worker, request);
	return status ? status : begin(worker, request);
}

/* --- threads --- */

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct host *host = worker->host;
	struct request request;

	while (take(worker, &request)) {
		int status = serve(worker, &request), worst = atomic_load(&host->status);

		while (status > worst &&
			!atomic_compare_exchange_weak(&host->status, &worst, status)) {
		}
		done(host);
	}
	return NULL;
}

static enum kind kind_of(uint64_t random)
{
	static const struct {
		enum kind kind;
		unsigned below; /* of 1000 */
	} shares[] = {{HAND_OVER, 100}, {RUN_OFF, 150}, {FILL, 170}, {FOREIGN, 190}, {FORK, 195}};

	for (size_t i = 0; i < sizeof(shares) / sizeof(*shares); i++) {
		if (random % 1000 < shares[i].below)
			return shares[i].kind;
	}
	return ASK;
}

/* All of them, the same for the same seed; and what a host does about its pool now and then. */
static int generate(struct host *host)
{
	uint64_t random = host->seed;
	int error = 0;

	for (uint64_t i = 0; i < host->requests && !atomic_load(&host->status) && !error; i++) {
		struct request request = {.number = i};

		random = random * 6364136223846793005u + 1442695040888963407u;
		request.seed = random >> 8;
		request.kind = kind_of(random >> 33);
		request.plugin = (unsigned)((random >> 20) % host->plugin_count);
		host->asked[request.kind]++;
		push(host, &request);
		if (i % UPKEEP == UPKEEP - 1)
			error = memslot_pool_maintain(host->pool);
		if (i % UPKEEP == UPKEEP - 1 && !error)
			error = memslot_pool_trim(host->pool, IDLE_AT_UPKEEP, NULL);
	}
	if (error)
		complain(error, "looking after the pool");
	return error ? EXIT_FAILED : 0;
}

static int worker_set_up(struct host *host, struct worker *worker, unsigned number)
{
	worker->host = host;
	worker->number = number;
	for (unsigned i = 0; i < host->plugin_count; i++) {
		worker->copies[i] = malloc(host->plugins[i].size);
		if (!worker->copies[i])
			return -ENOMEM;
		memcpy(worker->copies[i], host->plugins[i].contents, host->plugins[i].size);
	}
	return fault_application_page(&worker->page);
}

static void add_counts(struct counts *sum, const struct counts *counts)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)counts;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
		to[i] += from[i];
}

static int run_workers(struct host *host, struct worker *workers)
{
	unsigned started = 0;
	int error = 0, status = 0;

	for (unsigned i = 0; i < host->workers && !error; i++)
		error = worker_set_up(host, &workers[i], i);
	for (; started < host->workers && !error; started += error == 0)
		error = -pthread_create(&workers[started].thread, NULL, work, &workers[started]);
	if (error)
		complain(error, "cannot start %u threads", host->workers);
	else
		status = generate(host);
	close_queue(host);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		add_counts(&host->counts, &workers[i].counts);
	}
	for (unsigned i = 0; i < host->workers; i++) {
		for (unsigned k = 0; k < host->plugin_count; k++)
			free(workers[i].copies[k]);
	}
	return error ? EXIT_FAILED : status;
}

int host_serve(struct host *host)
{
	struct worker *workers = calloc(host->workers, sizeof(*workers));
	uint64_t before = clock_ns();
	int status = EXIT_FAILED, worst;

	if (workers)
		status = run_workers(host, workers);
	else
		complain(-ENOMEM, "host");
	host->seconds = (double)(clock_ns() - before) / 1e9;
	free(workers);
	worst = atomic_load(&host->status);
	return worst > status ? worst : status;
}
