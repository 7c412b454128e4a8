/* SPDX-License-Identifier: MIT */
/*
 * model_write.c - every way there is to write into a slot.
 *
 * What a slot that is still confined allows: its own thread's instructions and system calls.
 * Anybody else writes after unconfine, or under a hold.
 */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

unsigned char *model_scratch;
int model_file = -1, model_direct = -1;

void model_scratch_open(void)
{
	char path[] = "/tmp/memslot-model-XXXXXX";
	struct test_rng rng = test_rng(77);

	model_scratch = malloc(MODEL_SCRATCH);
	ck_assert_ptr_nonnull(model_scratch);
	for (size_t i = 0; i < MODEL_SCRATCH; i++)
		model_scratch[i] = (unsigned char)(1 + test_below(&rng, 255));
	model_file = mkstemp(path);
	ck_assert_int_ge(model_file, 0);
	ck_assert_int_eq(write(model_file, model_scratch, MODEL_SCRATCH), MODEL_SCRATCH);
	ck_assert_int_eq(fsync(model_file), 0);
	model_direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
}

void model_scratch_close(void)
{
	close(model_file);
	if (model_direct >= 0)
		close(model_direct);
	free(model_scratch);
	model_ring_close();
}

/* A write by somebody: `source` is an offset in scratch and files. */
struct write {
	struct model_slot *slot;
	unsigned char *to;
	size_t size, source;
};

/* Each way returns how many bytes it wrote, or -1 when it is not to be had here. */
static ssize_t by_cpu(const struct write *write)
{
	if (write->size > MODEL_SCRATCH)
		return -1;
	memcpy(write->to, model_scratch + write->source, write->size);
	return (ssize_t)write->size;
}

static ssize_t by_read(const struct write *write)
{
	if (lseek(model_file, (off_t)write->source, SEEK_SET) < 0)
		return -1;
	return read(model_file, write->to, write->size);
}

static ssize_t by_preadv(const struct write *write)
{
	size_t half = write->size / 3;
	struct iovec parts[2] = {{write->to, half}, {write->to + half, write->size - half}};

	return preadv(model_file, parts, 2, (off_t)write->source);
}

static ssize_t by_direct(const struct write *write)
{
	if (model_direct < 0)
		return -1;
	return pread(model_direct, write->to, write->size, (off_t)write->source);
}

static ssize_t by_process_call(const struct write *write)
{
	struct iovec from = {model_scratch + write->source, write->size};
	struct iovec to = {write->to, write->size};

	return process_vm_writev(getpid(), &from, 1, &to, 1, 0);
}

static ssize_t by_mem_file(const struct write *write)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ssize_t done;

	if (fd < 0)
		return -1;
	done = pwrite(fd, model_scratch + write->source, write->size, (off_t)(uintptr_t)write->to);
	close(fd);
	return done;
}

static const struct write *signal_write;

static void write_in_handler(int number)
{
	(void)number;
	by_cpu(signal_write);
}

static ssize_t by_signal_handler(const struct write *write)
{
	struct sigaction action = {.sa_handler = write_in_handler}, old;

	sigemptyset(&action.sa_mask);
	signal_write = write;
	sigaction(SIGUSR1, &action, &old);
	raise(SIGUSR1);
	sigaction(SIGUSR1, &old, NULL);
	return (ssize_t)write->size;
}

static ssize_t by_ring(const struct write *write)
{
	return model_ring_ready() ? model_ring_read(model_file, write->to, write->size,
					    write->source, false, false)
				  : -1;
}

static ssize_t by_ring_worker(const struct write *write)
{
	return model_ring_ready() ? model_ring_read(model_file, write->to, write->size,
					    write->source, true, false)
				  : -1;
}

static ssize_t by_ring_direct(const struct write *write)
{
	if (!model_ring_ready() || model_direct < 0)
		return -1;
	return model_ring_read(model_direct, write->to, write->size, write->source, false, false);
}

static void *thread_cpu(void *context)
{
	by_cpu(context);
	return NULL;
}

static void *thread_read(void *context)
{
	by_preadv(context);
	return NULL;
}

static ssize_t in_thread(const struct write *write, void *(*run)(void *))
{
	struct write copy = *write;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, run, &copy), 0);
	pthread_join(thread, NULL);
	return (ssize_t)write->size;
}

static ssize_t by_thread(const struct write *write)
{
	return in_thread(write, thread_cpu);
}

static ssize_t by_thread_read(const struct write *write)
{
	return in_thread(write, thread_read);
}

static ssize_t by_populate(const struct write *write)
{
	uintptr_t from = (uintptr_t)write->to & ~(test_page() - 1);
	size_t size = model_round((uintptr_t)write->to + write->size) - from;

	if (madvise((void *)from, size, 23)) /* MADV_POPULATE_WRITE */
		return -1;
	return by_cpu(write);
}

enum who { OWN, HELD, FOREIGN };

static const struct {
	const char *name;
	ssize_t (*run)(const struct write *write);
	enum who who;
	bool whole_pages;
} ways[] = {
	{"cpu", by_cpu, OWN, false},
	{"cpu", by_cpu, OWN, false},
	{"cpu", by_cpu, OWN, false},
	{"read", by_read, OWN, false},
	{"preadv", by_preadv, OWN, false},
	{"O_DIRECT", by_direct, OWN, true},
	{"process_vm_writev", by_process_call, OWN, false},
	{"/proc/self/mem", by_mem_file, OWN, false},
	{"signal handler", by_signal_handler, OWN, false},
	{"io_uring", by_ring, HELD, false},
	{"io_uring worker", by_ring_worker, HELD, false},
	{"io_uring O_DIRECT", by_ring_direct, HELD, true},
	{"thread", by_thread, FOREIGN, false},
	{"thread read", by_thread_read, FOREIGN, false},
	{"populate", by_populate, FOREIGN, false},
};
#define WAYS (sizeof ways / sizeof ways[0])

static void finish(struct model_slot *slot, const struct write *write, ssize_t done, size_t offset)
{
	if (done < 0)
		done = by_cpu(write);
	if (done < 0 || done != (ssize_t)write->size)
		model_fail("the write itself did %zd of %zu", done, write->size);
	memcpy(slot->now + offset, model_scratch + write->source, write->size);
}

static ssize_t run_held(struct model_slot *slot, const struct write *write, unsigned way)
{
	ssize_t done;

	model_expect(memslot_slot_hold(slot->slot, MEMSLOT_HOLD_IO), 0);
	done = ways[way].run(write);
	model_expect(memslot_slot_unhold(slot->slot, MEMSLOT_HOLD_IO), 0);
	return done;
}

/* Which way: nobody but the owner and those with a hold while the slot is confined. */
static unsigned choose(struct model_life *life, struct model_slot *slot)
{
	unsigned way = (unsigned)test_below(&life->rng, WAYS);

	if (ways[way].who != FOREIGN || !slot->confined)
		return way;
	if (model_chance(&life->rng, 50))
		return 0;
	model_log("unconfine");
	memslot_slot_unconfine(slot->slot);
	slot->confined = false;
	return way;
}

void model_write(
	struct model_life *life, struct model_slot *slot, size_t offset, size_t size, size_t source)
{
	unsigned way = choose(life, slot);
	struct write write = {slot, slot->base + offset, size, source};

	if (ways[way].whole_pages && (offset | size | source) % test_page())
		way = 0;
	model_log(
		"slot %p: write %#zx+%#zx by %s", (void *)slot->base, offset, size, ways[way].name);
	finish(slot, &write,
		ways[way].who == HELD ? run_held(slot, &write, way) : ways[way].run(&write),
		offset);
}

void model_write_cpu(struct model_slot *slot, size_t offset, size_t size, size_t source)
{
	struct write write = {slot, slot->base + offset, size, source};

	finish(slot, &write, by_cpu(&write), offset);
}
