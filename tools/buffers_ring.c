/* SPDX-License-Identifier: MIT */
/*
 * buffers_ring.c - what buffers cost with the kernel at them: receives, direct reads, a second
 * ring, forks.
 *
 * Invariant: both ways move the same bytes through rings of the same size; what was received or
 * read is looked at.
 */
#define _GNU_SOURCE
#include "buffers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PART (64 * KIB)
#define RECEIVES 1000u
#define DIRECT_FILE (32 * MIB)
#define DEPTH 32u
#define FORKS 20u
#define FORK_BYTES (128 * MIB)

static struct set set;

/* --- 64 KiB at a time from a socket --- */

static int ends[2];
static char *bytes;
static struct memslot_group *group;
static struct memslot_buffer single;

static int open_receive(void)
{
	int size = 4 * PART;
	int error = set_open(&set, PART, 16 * MIB, 8);

	bytes = malloc(PART);
	if (error || !bytes || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -1;
	memset(bytes, 'b', PART);
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	error = memslot_ring_group_create(
		set.ring, 1, &MEMSLOT_OPTS(memslot_group_opts, .count = 128), &group);
	return error ? error : memslot_buffers_acquire(set.buffers, 1, 0, &single);
}

static void close_receive(void)
{
	memslot_ring_group_destroy(group);
	memslot_buffers_release(set.buffers, &single);
	set_close(&set);
	close(ends[0]);
	close(ends[1]);
	free(bytes);
}

/* One receive, and a look at the first and last byte. */
static bool receive(bool chosen)
{
	struct memslot_completion done = {.size = sizeof(done)};
	struct io_uring_sqe *sqe = io_uring_get_sqe(&set.uring);
	const char *base;
	bool fine;
	int error = chosen ? memslot_ring_group_prep_recv(group, sqe, ends[1], 0, 0, 1)
			   : memslot_ring_prep_recv(set.ring, sqe, ends[1], &single, 0, PART, 0, 1);

	if (error || io_uring_submit(&set.uring) != 1 || set_next(&set, &done))
		return false;
	base = done.buffer.base;
	fine = done.result == (int)PART && base[0] == 'b' && base[PART - 1] == 'b';
	if (chosen)
		fine = memslot_buffers_release(set.buffers, &done.buffer) == 0 && fine;
	return fine;
}

static double receives(bool chosen)
{
	uint64_t took = 0, start;

	for (unsigned i = 0; i < RECEIVES; i++) {
		if (write(ends[0], bytes, PART) != (ssize_t)PART)
			return -1;
		start = clock_ns();
		if (!receive(chosen))
			return -1;
		took += clock_ns() - start;
	}
	return (double)took / RECEIVES;
}

static double receive_group(void)
{
	return receives(true);
}

static double receive_plain(void)
{
	return receives(false);
}

/* --- O_DIRECT, 64 KiB, 32 at a time: processor time --- */

static int file = -1;
static struct memslot_buffer direct[DEPTH];
static void *plain[DEPTH];

static int make_file(void)
{
	char *block = aligned_alloc(4096, MIB);
	int error = 0;

	file = open(buffers_folder, O_RDWR | O_TMPFILE | O_DIRECT | O_CLOEXEC, 0600);
	if (file < 0 || !block)
		error = -errno;
	for (size_t at = 0; at < DIRECT_FILE && !error; at += MIB) {
		memset(block, 'a' + (int)(at / MIB) % 26, MIB);
		error = pwrite(file, block, MIB, (off_t)at) == (ssize_t)MIB ? 0 : -EIO;
	}
	free(block);
	return error;
}

static int open_direct(void)
{
	int error = set_open(&set, PART, DEPTH * PART, DEPTH);

	for (unsigned i = 0; i < DEPTH && !error; i++) {
		error = memslot_buffers_acquire(set.buffers, 1, 0, &direct[i]);
		plain[i] = mmap(
			NULL, PART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (plain[i] == MAP_FAILED)
			return -ENOMEM;
		madvise(plain[i], PART, MADV_NOHUGEPAGE);
		memset(plain[i], 0, PART);
	}
	return error ? error : make_file();
}

static void close_direct(void)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		memslot_buffers_release(set.buffers, &direct[i]);
		munmap(plain[i], PART);
	}
	set_close(&set);
	if (file >= 0)
		close(file);
	file = -1;
}

static int prep_direct(unsigned i, uint64_t at, bool fixed)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&set.uring);

	if (fixed)
		return memslot_ring_prep_read(set.ring, sqe, file, &direct[i], 0, PART, at, i);
	io_uring_prep_read(sqe, file, plain[i], PART, at);
	io_uring_sqe_set_data64(sqe, i);
	return 0;
}

/* Which of the buffers is full now; negative: something is wrong. */
static int next_direct(bool fixed)
{
	struct memslot_completion done = {.size = sizeof(done)};
	struct io_uring_cqe *cqe;
	int index = -1;

	if (fixed)
		return set_next(&set, &done) || done.result != (int)PART ? -1 : (int)done.user_data;
	if (io_uring_wait_cqe(&set.uring, &cqe))
		return -1;
	if (cqe->res == (int)PART)
		index = (int)cqe->user_data;
	io_uring_cqe_seen(&set.uring, cqe);
	return index;
}

static double read_direct(bool fixed)
{
	uint64_t count = DIRECT_FILE / PART, begun = 0, over = 0, start = process_cpu_ns();

	for (; begun < DEPTH; begun++) {
		if (prep_direct((unsigned)begun, begun * PART, fixed))
			return -1;
	}
	while (over < count) {
		int index;
		if (io_uring_submit_and_wait(&set.uring, 1) < 0)
			return -1;
		do {
			index = next_direct(fixed);
			if (index < 0)
				return -1;
			over++;
			if (begun < count && prep_direct((unsigned)index, begun++ * PART, fixed))
				return -1;
		} while (io_uring_cq_ready(&set.uring));
	}
	return (double)(process_cpu_ns() - start) / (double)count;
}

static double direct_fixed(void)
{
	return read_direct(true);
}

static double direct_plain(void)
{
	return read_direct(false);
}

/* --- a second ring --- */

static int open_second(void)
{
	struct memslot_buffer all;
	int error = set_open(&set, PART, 64 * MIB, 8);

	if (!error)
		error = memslot_buffers_acquire(set.buffers, (uint32_t)(64 * MIB / PART), 0, &all);
	if (error)
		return error;
	memset(all.base, 1, 64 * MIB);
	return memslot_buffers_release(set.buffers, &all);
}

static void close_second(void)
{
	set_close(&set);
}

/* With the first ring attached its table is taken over; else it has to be made anew. */
static double attach(struct memslot_buffers *buffers)
{
	struct memslot_ring *ring;
	struct io_uring uring;
	uint64_t start, took;

	if (io_uring_queue_init(8, &uring, 0))
		return -1;
	start = clock_ns();
	if (memslot_ring_attach(buffers, &uring, NULL, &ring))
		return -1;
	took = clock_ns() - start;
	if (memslot_ring_detach(ring))
		return -1;
	io_uring_queue_exit(&uring);
	return (double)took;
}

static bool reattach(void)
{
	return memslot_ring_attach(set.buffers, &set.uring, NULL, &set.ring) == 0;
}

static double attach_second(void)
{
	if (memslot_ring_detach(set.ring) || !reattach()) /* now it has all areas */
		return -1;
	return attach(set.buffers);
}

static double attach_first(void)
{
	double took;

	if (memslot_ring_detach(set.ring))
		return -1;
	took = attach(set.buffers);
	return reattach() ? took : -1;
}

/* --- fork --- */

static double forks(void)
{
	uint64_t took = 0, start;

	for (unsigned i = 0; i < FORKS; i++) {
		pid_t child;
		start = clock_ns();
		child = fork();
		if (child == 0)
			_exit(0);
		took += clock_ns() - start;
		if (child < 0 || waitpid(child, NULL, 0) != child)
			return -1;
	}
	return (double)took / FORKS;
}

/* Only to see that there are rings: the pool is made for each measurement, and gone for the other.
 */
static int open_fork(void)
{
	return io_uring_queue_init(2, &set.uring, 0);
}

static void close_fork(void)
{
	io_uring_queue_exit(&set.uring);
}

static double fork_attached(void)
{
	struct memslot_buffer all;
	struct set attached;
	double took = -1;

	if (set_open(&attached, PART, FORK_BYTES, 8))
		return -1;
	if (memslot_buffers_acquire(attached.buffers, (uint32_t)(FORK_BYTES / PART), 0, &all) ==
		0) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&attached.uring);
		struct memslot_completion done = {.size = sizeof(done)};
		memset(all.base, 1, FORK_BYTES);
		/* an operation, so that it is registered */
		if (memslot_ring_prep_read(attached.ring, sqe, -1, &all, 0, PART, 0, 1) == 0 &&
			io_uring_submit(&attached.uring) == 1 && set_next(&attached, &done) == 0)
			took = forks();
		memslot_buffers_release(attached.buffers, &all);
	}
	set_close(&attached);
	return took;
}

static double fork_without(void)
{
	return forks();
}

const struct duel ring_duels[] = {
	{"receive", "64 KiB received, buffer chosen", "received into one buffer", 1.15,
		open_receive, receive_group, receive_plain, close_receive},
	{"direct", "O_DIRECT 64 KiB, depth 32, processor time", "buffers not registered", 0.65,
		open_direct, direct_fixed, direct_plain, close_direct},
	{"second", "a second ring, 64 MiB", "registered again", 0.1, open_second, attach_second,
		attach_first, close_second},
	{"fork", "fork, 128 MiB attached", "fork without", 1.15, open_fork, fork_attached,
		fork_without, close_fork},
	{.name = NULL},
};
