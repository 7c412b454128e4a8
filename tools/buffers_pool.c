/* SPDX-License-Identifier: MIT */
/*
 * buffers_pool.c - what taking, guarding and resetting buffers costs, beside the plain ways.
 *
 * Invariant: both ways do the same work on the same bytes; contents are compared after every reset.
 */
#define _GNU_SOURCE
#include "buffers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CYCLES 300000u
#define LIST 512
#define RESETS 2000u
#define SLOT (64 * KIB)

/* --- acquire and release, beside a list under a mutex --- */

static struct memslot_buffers *buffers;
static struct {
	pthread_mutex_t lock;
	void *items[LIST];
	unsigned count;
} list = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *nothing(void *argument)
{
	return argument;
}

/* Mutexes are cheaper in a process that never had a second thread. */
static int open_list(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, nothing, NULL))
		return -1;
	pthread_join(thread, NULL);
	for (list.count = 0; list.count < LIST; list.count++)
		list.items[list.count] = malloc(64);
	return memslot_buffers_create(NULL, &buffers);
}

static void close_list(void)
{
	while (list.count)
		free(list.items[--list.count]);
	memslot_buffers_close(buffers, 0, NULL);
}

static void cycle_ours(void)
{
	struct memslot_buffer buffer;

	for (unsigned i = 0; i < CYCLES; i++) {
		if (memslot_buffers_acquire(buffers, 1, 0, &buffer) == 0) {
			*(volatile char *)buffer.base = 1;
			(void)memslot_buffers_release(buffers, &buffer);
		}
	}
}

static void cycle_theirs(void)
{
	for (unsigned i = 0; i < CYCLES; i++) {
		void *item;
		pthread_mutex_lock(&list.lock);
		item = list.items[--list.count];
		pthread_mutex_unlock(&list.lock);
		*(volatile char *)item = 1;
		pthread_mutex_lock(&list.lock);
		list.items[list.count++] = item;
		pthread_mutex_unlock(&list.lock);
	}
}

/* By the thread's own clock: what else runs here is not counted. */
static uint64_t thread_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double timed(void (*cycle)(void), uint64_t (*clock)(void))
{
	uint64_t start = clock();

	cycle();
	return (double)(clock() - start) / CYCLES;
}

static double one_ours(void)
{
	return timed(cycle_ours, thread_ns);
}

static double one_theirs(void)
{
	return timed(cycle_theirs, thread_ns);
}

struct half {
	pthread_barrier_t *start;
	void (*cycle)(void);
	double took;
};

static void *run_half(void *argument)
{
	struct half *half = argument;

	half->cycle(); /* first, alone or not, to warm up */
	pthread_barrier_wait(half->start);
	half->took = timed(half->cycle, clock_ns);
	return NULL;
}

static double two(void (*cycle)(void))
{
	pthread_barrier_t start;
	struct half halves[2] = {{&start, cycle, 0}, {&start, cycle, 0}};
	pthread_t threads[2];

	pthread_barrier_init(&start, NULL, 2);
	for (int i = 0; i < 2; i++) {
		if (pthread_create(&threads[i], NULL, run_half, &halves[i]))
			abort();
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&start);
	return (halves[0].took + halves[1].took) / 2;
}

static double two_ours(void)
{
	return two(cycle_ours);
}

static double two_theirs(void)
{
	return two(cycle_theirs);
}

/* --- a guard --- */

static struct set set;
static struct memslot_buffer guarded;

static int open_guard(void)
{
	int error = set_open(&set, 16 * KIB, 0, 8);

	return error ? error : memslot_buffers_acquire(set.buffers, 1, 0, &guarded);
}

static void close_guard(void)
{
	memslot_buffers_release(set.buffers, &guarded);
	set_close(&set);
}

/* What guards cost beyond filling an SQE and reading a CQE, in which the kernel has no part: the
 * completion is made up. */
static double guard_ours(void)
{
	struct memslot_completion done = {.size = sizeof(done)};
	struct io_uring_cqe cqe = {.res = 100};
	struct io_uring_sqe sqe;
	uint64_t start = thread_ns(), plain, sum = 0;

	for (unsigned i = 0; i < CYCLES; i++) {
		if (memslot_ring_prep_read(set.ring, &sqe, 0, &guarded, 0, 100, 0, i))
			return -1;
		cqe.user_data = sqe.user_data;
		__asm__ volatile("" : : "r"(&sqe), "r"(&cqe) : "memory");
		if (memslot_ring_complete(set.ring, &cqe, &done) || done.user_data != i)
			return -1;
	}
	plain = thread_ns();
	for (unsigned i = 0; i < CYCLES; i++) {
		io_uring_prep_read(&sqe, 0, guarded.base, 100, 0);
		sqe.user_data = i;
		cqe.user_data = sqe.user_data;
		__asm__ volatile("" : : "r"(&sqe), "r"(&cqe) : "memory");
		sum += cqe.user_data + (unsigned)cqe.res;
	}
	return sum ? ((double)(plain - start) - (double)(thread_ns() - plain)) / CYCLES : -1;
}

/* --- a registered slot is reset --- */

static struct io_uring uring;
static struct memslot_slot *slot;
static int file;

static int open_reset(void)
{
	struct iovec memory;
	char bytes[4096];

	file = memfd_create("buffers", MFD_CLOEXEC);
	memset(bytes, 'r', sizeof(bytes));
	if (file < 0 || write(file, bytes, sizeof(bytes)) != sizeof(bytes) ||
		io_uring_queue_init(8, &uring, 0) || memslot_slot_create(SLOT, NULL, &slot) ||
		memslot_slot_instantiate(slot, NULL, SLOT) ||
		memslot_slot_hold(slot, MEMSLOT_HOLD_PIN))
		return -1;
	memory = (struct iovec){memslot_slot_base(slot), SLOT};
	return io_uring_register_buffers(&uring, &memory, 1);
}

static void close_reset(void)
{
	io_uring_unregister_buffers(&uring);
	memslot_slot_unhold(slot, MEMSLOT_HOLD_PIN);
	memslot_slot_destroy(slot);
	io_uring_queue_exit(&uring);
	close(file);
}

/* Does what the kernel reads arrive, and in clean memory? */
static bool read_fixed(unsigned char *base)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring);
	struct io_uring_cqe *cqe;
	int result;

	for (size_t i = 0; i < SLOT; i += 8) {
		if (*(uint64_t *)(base + i))
			return false;
	}
	io_uring_prep_read_fixed(sqe, file, base + 4096, 4096, 0, 0);
	if (io_uring_submit(&uring) != 1 || io_uring_wait_cqe(&uring, &cqe))
		return false;
	result = cqe->res;
	io_uring_cqe_seen(&uring, cqe);
	return result == 4096 && base[4096] == 'r' && base[8191] == 'r';
}

static double reset_by(int (*reset)(void))
{
	unsigned char *base = memslot_slot_base(slot);
	uint64_t took = 0, start;

	for (unsigned i = 0; i < RESETS; i++) {
		for (size_t at = 0; at < SLOT; at += 4096)
			base[at] = 'd';
		start = clock_ns();
		if (reset())
			return -1;
		took += clock_ns() - start;
		if (!read_fixed(base))
			return -1;
	}
	return (double)took / RESETS;
}

static int reset_ours(void)
{
	return memslot_slot_reset(slot);
}

static int reset_theirs(void)
{
	struct iovec memory = {memslot_slot_base(slot), SLOT};
	int error = io_uring_unregister_buffers(&uring);

	if (!error)
		error = madvise(memory.iov_base, SLOT, MADV_DONTNEED);
	return error ? error : io_uring_register_buffers(&uring, &memory, 1);
}

static double restore(void)
{
	return reset_by(reset_ours);
}

static double drop_and_register(void)
{
	return reset_by(reset_theirs);
}

const struct duel pool_duels[] = {
	{"acquire", "acquire and release, one thread", "a list under a mutex", 0.8, open_list,
		one_ours, one_theirs, close_list},
	{"acquire2", "acquire and release, two threads", "a list under a mutex", 0.25, open_list,
		two_ours, two_theirs, close_list},
	{"guard", "guard and complete, beyond a plain SQE and CQE", NULL, 20, open_guard,
		guard_ours, NULL, close_guard},
	{"reset", "reset of a registered slot, 16 dirty pages", "DONTNEED and register again", 0.25,
		open_reset, restore, drop_and_register, close_reset},
	{.name = NULL},
};
