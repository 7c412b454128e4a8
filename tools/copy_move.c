/* SPDX-License-Identifier: MIT */
/*
 * copy_move.c - memslot copy: operations, by io_uring on registered buffers, with --plain on memory
 * from malloc, and by calls where io_uring is missing or forbidden.
 *
 * Invariant: after an error nothing new begins, but everything that was begun is waited for before
 * a buffer is given back.
 */
#define _GNU_SOURCE
#include "copy.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct mover {
	struct copy *copy;
	struct memslot_buffers *buffers; /* NULL: plain */
	struct io_uring uring;
	struct memslot_ring *ring; /* NULL: plain, or calls */
	unsigned parts, in_flight;
	struct part part[DEPTH_MOST];
};

/* --- buffers --- */

static int take_plain(struct copy *copy, struct memslot_buffer *ret_buffer)
{
	*ret_buffer = (struct memslot_buffer){.size = copy->buffer_size, .count = 1};
	return -posix_memalign(&ret_buffer->base, page_size(), copy->buffer_size);
}

static int take_buffers(struct mover *mover)
{
	struct copy *copy = mover->copy;
	uint64_t all = copy->size / copy->buffer_size + 1;
	unsigned wanted = (unsigned)(all < copy->depth ? all : copy->depth);
	struct memslot_buffers_opts opts = {.size = sizeof(opts),
		.buffer_size = copy->buffer_size,
		.budget = wanted * copy->buffer_size};
	int error = copy->plain ? 0 : memslot_buffers_create(&opts, &mover->buffers);

	while (!error && mover->parts < wanted) {
		struct memslot_buffer *buffer = &mover->part[mover->parts].buffer;
		error = copy->plain ? take_plain(copy, buffer)
				    : memslot_buffers_acquire(mover->buffers, 1, 0, buffer);
		mover->parts += !error;
	}
	return error;
}

static int give_buffers(struct mover *mover)
{
	struct memslot_buffers_stats stats = {.size = sizeof(stats)};
	int error = 0;

	for (unsigned i = 0; i < mover->parts; i++) {
		if (!mover->buffers)
			free(mover->part[i].buffer.base);
		else if (!error)
			error = memslot_buffers_release(mover->buffers, &mover->part[i].buffer);
	}
	if (!mover->buffers || error)
		return error;
	error = memslot_buffers_stats(mover->buffers, &stats);
	mover->copy->plain_fallbacks = stats.plain_fallbacks;
	return error ? error : memslot_buffers_close(mover->buffers, 0, NULL);
}

/* --- by calls --- */

static int move_by_calls(struct mover *mover)
{
	struct part *part = &mover->part[0];
	struct step step;
	int more = 0;

	while (more == 0 && part_next(mover->copy, part)) {
		do {
			part_step(mover->copy, part, &step);
			char *bytes = (char *)part->buffer.base + step.start;
			ssize_t done =
				step.write ? pwrite(step.fd, bytes, step.size, (off_t)step.offset)
					   : pread(step.fd, bytes, step.size, (off_t)step.offset);
			more = part_done(mover->copy, part, done < 0 ? -errno : (int)done);
		} while (more == 1);
	}
	return more;
}

/* --- by io_uring --- */

static int submit_step(struct mover *mover, struct part *part)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&mover->uring);
	uint64_t index = (uint64_t)(part - mover->part);
	struct step step;
	char *bytes;
	int error = 0;

	part_step(mover->copy, part, &step);
	bytes = (char *)part->buffer.base + step.start;
	if (mover->ring && step.write)
		error = memslot_ring_prep_write(mover->ring, sqe, step.fd, &part->buffer,
			step.start, step.size, step.offset, index);
	else if (mover->ring)
		error = memslot_ring_prep_read(mover->ring, sqe, step.fd, &part->buffer, step.start,
			step.size, step.offset, index);
	else if (step.write)
		io_uring_prep_write(sqe, step.fd, bytes, (unsigned)step.size, step.offset);
	else
		io_uring_prep_read(sqe, step.fd, bytes, (unsigned)step.size, step.offset);
	if (error)
		io_uring_prep_nop(sqe);
	if (error || !mover->ring)
		io_uring_sqe_set_data64(sqe, error ? DEPTH_MOST : index);
	mover->in_flight += !error;
	return error;
}

/* One completion: the part's next step, or the next part in its buffer. 0 or -errno. */
static int completed(struct mover *mover, uint64_t index, int result, bool stop)
{
	struct part *part = &mover->part[index];
	int more;

	mover->in_flight--;
	more = part_done(mover->copy, part, result);
	if (more < 0 || stop)
		return more < 0 ? more : 0;
	if (more == 0 && !part_next(mover->copy, part))
		return 0;
	return submit_step(mover, part);
}

/* All completions that are there. The first error counts. */
static int reap(struct mover *mover, int error)
{
	struct memslot_completion done;
	struct io_uring_cqe *cqe;
	int now;

	while (io_uring_peek_cqe(&mover->uring, &cqe) == 0) {
		done = (struct memslot_completion){.size = sizeof(done)};
		if (!mover->ring || memslot_ring_complete(mover->ring, cqe, &done)) {
			done.user_data = cqe->user_data;
			done.result = cqe->res;
		} else if (!done.flags) {
			done.user_data = DEPTH_MOST;
		}
		io_uring_cqe_seen(&mover->uring, cqe);
		if (done.user_data >= DEPTH_MOST)
			continue;
		now = completed(mover, done.user_data, done.result, error != 0);
		error = error ? error : now;
	}
	return error;
}

static int pump(struct mover *mover)
{
	int error = 0, waited;

	for (unsigned i = 0; i < mover->parts && !error; i++) {
		if (!part_next(mover->copy, &mover->part[i]))
			break;
		error = submit_step(mover, &mover->part[i]);
	}
	while (mover->in_flight) {
		waited = io_uring_submit_and_wait(&mover->uring, 1);
		if (waited < 0 && waited != -EINTR && waited != -EAGAIN && waited != -EBUSY)
			abort(); /* the kernel has our buffers, and we can neither wait nor go on */
		error = reap(mover, error);
	}
	return error;
}

static int open_uring(struct mover *mover)
{
	unsigned entries = (unsigned)mover->copy->depth;
	int error = io_uring_queue_init(
		entries, &mover->uring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	if (error == -EINVAL)
		error = io_uring_queue_init(entries, &mover->uring, 0);
	return error;
}

static int move_by_ring(struct mover *mover)
{
	int error = 0, end = 0;

	if (mover->buffers)
		error = memslot_ring_attach(mover->buffers, &mover->uring, NULL, &mover->ring);
	if (!error)
		error = pump(mover);
	if (mover->ring)
		end = memslot_ring_detach(mover->ring);
	io_uring_queue_exit(&mover->uring);
	return error ? error : end;
}

/* --- a pass --- */

static double cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int move(struct mover *mover)
{
	struct pass *pass = mover->copy->pass;
	double cpu = cpu_seconds();
	uint64_t began = clock_ns();
	int error = mover->copy->ring ? move_by_ring(mover) : move_by_calls(mover);

	pass->seconds = (double)(clock_ns() - began) / 1e9;
	pass->cpu_seconds = cpu_seconds() - cpu;
	return error;
}

int copy_move(struct copy *copy, struct pass *pass)
{
	struct mover *mover = calloc(1, sizeof(*mover));
	int error = -ENOMEM, end;

	if (!mover)
		return error;
	copy->pass = pass;
	mover->copy = copy;
	error = take_buffers(mover);
	copy->ring = !error && memslot_feature("io_uring") == 1 && open_uring(mover) == 0;
	if (!error)
		error = move(mover);
	end = give_buffers(mover);
	free(mover);
	if (!error && copy_stopped)
		error = -EINTR;
	return error ? error : end;
}
