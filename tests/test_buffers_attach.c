/* SPDX-License-Identifier: MIT */
/*
 * test_buffers_attach.c - rings come and go: attach, detach, rings that are closed too early,
 * threads, children, limits, and the slots underneath.
 */
#define _GNU_SOURCE
#include "buffers_ring.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- attach --- */

START_TEST(what_cannot_be_attached_is_refused)
{
	struct bench bench;
	struct memslot_ring *ring = NULL;
	struct memslot_ring_opts opts = MEMSLOT_OPTS(memslot_ring_opts, .mark = 0x10000);
	struct io_uring none;
	int fds[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, NULL, &ring), -EALREADY);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, &opts, &ring), -EINVAL);
	opts = MEMSLOT_OPTS(memslot_ring_opts, .flags = 1);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, &opts, &ring), -EINVAL);
	ck_assert_int_eq(memslot_ring_attach(NULL, &bench.uring, NULL, &ring), -EINVAL);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, NULL, NULL, &ring), -EINVAL);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, NULL, NULL), -EINVAL);
	memset(&none, 0, sizeof none);
	none.ring_fd = -1;
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &none, NULL, &ring), -EBADF);
	ck_assert_int_eq(pipe(fds), 0);
	none.ring_fd = fds[0];
	if (memslot_feature("io_uring") == 1)
		ck_assert_int_eq(
			memslot_ring_attach(bench.buffers, &none, NULL, &ring), -EOPNOTSUPP);
	ck_assert_int_eq(memslot_buffers_close(bench.buffers, 0, NULL), -EBUSY);
	ck_assert_int_eq(memslot_ring_detach(NULL), 0);
	ck_assert_ptr_null(ring);
	close(fds[0]);
	close(fds[1]);
	bench_end(&bench);
}
END_TEST

START_TEST(a_ring_with_a_table_of_its_own_has_plain_operations)
{
	struct bench bench = {.buffers = buffers_new(4 * KB, 0)};
	struct iovec own = {malloc(4096), 4096};

	NEED_URING();
	ck_assert_int_eq(io_uring_queue_init(8, &bench.uring, 0), 0);
	ck_assert_int_eq(io_uring_register_buffers(&bench.uring, &own, 1), 0);
	ck_assert_int_eq(memslot_ring_attach(bench.buffers, &bench.uring, NULL, &bench.ring), 0);
	ck_assert_uint_eq(buffers_stats(bench.buffers).plain_fallbacks, 1);
	bench_use(&bench, 1);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	ck_assert_int_eq(io_uring_unregister_buffers(&bench.uring), 0); /* still there */
	io_uring_queue_exit(&bench.uring);
	free(own.iov_base);
	buffers_end(bench.buffers);
}
END_TEST

/* Areas come before, between and after; rings go in any order. */
START_TEST(many_rings_share_a_pool)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 4 * MB);
	struct memslot_buffer out[5];
	struct bench bench[4];

	NEED_URING();
	for (unsigned i = 0; i < 4; i++) {
		out[i] = buffer_get(buffers, 100); /* more than an area has left */
		bench_attach(&bench[i], buffers, 0);
		for (unsigned k = 0; k <= i; k++)
			bench_use(&bench[k], i + k);
	}
	out[4] = buffer_get(buffers, 400);
	for (unsigned i = 0; i < 4; i++) {
		int fd = file_of(400 * 4 * KB, i);
		ck_assert_int_eq(memslot_ring_prep_read(bench[i].ring, bench_sqe(&bench[i]), fd,
					 &out[4], 0, 400 * 4 * KB, 0, 1),
			0);
		ck_assert_int_eq(bench_run(&bench[i]).result, 400 * 4 * KB);
		ck_assert(test_filled(out[4].base, 400 * 4 * KB, i));
		close(fd);
	}
	for (unsigned i = 0; i < 4; i++) {
		bench_detach(&bench[(unsigned)_i ^ i]);
		for (unsigned k = i + 1; k < 4; k++)
			bench_use(&bench[(unsigned)_i ^ k], i + k);
	}
	if (memslot_feature("uring_fixed") == 1 && geteuid() == 0)
		ck_assert_uint_eq(buffers_stats(buffers).plain_fallbacks, 0);
	for (unsigned i = 0; i < 5; i++)
		buffer_put(buffers, &out[i]);
	buffers_end(buffers);
}
END_TEST

START_TEST(a_pool_attaches_again_and_again)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * MB);
	struct memslot_buffer all;

	NEED_URING();
	for (unsigned round = 0; round < 50; round++) {
		struct bench bench;
		bench_attach(&bench, buffers, 0);
		bench_use(&bench, round);
		if (round % 2) {
			all = buffer_get(buffers, 4096);
			buffer_put(buffers, &all);
		}
		bench_detach(&bench);
	}
	buffers_end(buffers);
}
END_TEST

/* --- detach --- */

START_TEST(detach_cancels_and_waits_for_the_completions)
{
	struct bench bench;
	struct memslot_buffer buffer;
	struct io_uring_sqe sqe;
	int ends[2], seen = 0;

	NEED_URING();
	SKIP_IF(memslot_feature("uring_sync_cancel") != 1, "cancels nothing here");
	bench_begin(&bench, 4 * KB, 0);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(pipe(ends), 0);
	for (uint64_t i = 0; i < 3; i++)
		ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), ends[0],
					 &buffer, 0, 100, UINT64_MAX, i),
			0);
	bench_submit(&bench);
	ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), ends[0], &buffer, 0,
				 100, UINT64_MAX, 3),
		0); /* not submitted yet */
	buffer_put(bench.buffers, &buffer);
	while (memslot_ring_detach(bench.ring) == -EAGAIN) {
		struct memslot_completion done;
		ck_assert_int_eq(
			memslot_ring_prep_read(bench.ring, &sqe, 0, &buffer, 0, 1, 0, 0), -EBUSY);
		io_uring_submit(&bench.uring);
		(void)memslot_ring_detach(bench.ring);
		done = bench_next(&bench);
		ck_assert_int_eq(done.result, -ECANCELED);
		seen++;
	}
	ck_assert_int_eq(seen, 4);
	io_uring_queue_exit(&bench.uring);
	close(ends[0]);
	close(ends[1]);
	buffers_end(bench.buffers);
}
END_TEST

/* q17: exit does not end what is pending while a child has the descriptor. */
static int wait_for_end(void *argument)
{
	char byte;

	return read(*(int *)argument, &byte, 1) == 0 ? 0 : 1;
}

START_TEST(a_ring_closed_with_operations_pending_has_its_buffers_quarantined)
{
	struct memslot_pool *pool;
	struct bench bench;
	struct memslot_buffer buffer, again;
	int data[2], end[2];
	pid_t child;

	NEED_URING();
	bench_attach(&bench, buffers_in_pool(4 * KB, 64 * KB, 4, 16, &pool), 0);
	buffer = buffer_get(bench.buffers, 1);
	memset(buffer.base, 0, 4 * KB);
	ck_assert_int_eq(pipe(data), 0);
	ck_assert_int_eq(pipe(end), 0);
	ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), data[0], &buffer, 0,
				 8, UINT64_MAX, 1),
		0);
	bench_submit(&bench);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		close(end[1]);
		_exit(wait_for_end(&end[0]));
	}
	io_uring_queue_exit(&bench.uring);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	ck_assert_uint_eq(buffers_stats(bench.buffers).quarantined, 1);
	ck_assert_uint_eq(bench_in_flight(&bench), 0);
	buffer_put(bench.buffers, &buffer);
	for (unsigned i = 0; i < 16;
		i++) { /* the budget is whole, but that one is never seen again */
		again = buffer_get(bench.buffers, 1);
		ck_assert_ptr_ne(again.base, buffer.base);
		if (i % 2)
			buffer_put(bench.buffers, &again);
		else
			(void)memslot_buffers_ref(bench.buffers, &again);
	}
	ck_assert_int_eq(write(data[1], "TOO LATE", 8), 8);
	usleep(20000);
	ck_assert_int_eq(memslot_buffers_close(bench.buffers, 0, NULL), -ETIMEDOUT);
	close(end[1]);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	/* Its slot is nobody's any more. */
	ck_assert_int_eq(memslot_pool_destroy(pool), -EBUSY);
	close(data[0]);
	close(data[1]);
	close(end[0]);
}
END_TEST

/* A descriptor may be closed, and its number another ring's: nothing is registered there. */
START_TEST(a_ring_that_has_a_closed_ones_number_is_left_alone)
{
	struct bench bench;
	struct io_uring other;
	struct memslot_buffer buffer;
	struct memslot_group *group;
	struct io_uring_sqe sqe;
	struct io_uring_cqe *cqe;
	static char memory[4096] = "kept";
	struct iovec own = {memory, sizeof memory};
	int fd = file_of(4 * KB, 8);

	NEED_URING();
	bench_begin(&bench, 4 * KB, 64 * KB);
	io_uring_queue_exit(&bench.uring);
	ck_assert_int_eq(io_uring_queue_init(8, &other, 0), 0);
	SKIP_IF(other.ring_fd != bench.uring.ring_fd, "another number");
	ck_assert_int_eq(io_uring_register_buffers(&other, &own, 1), 0);
	buffer = buffer_get(bench.buffers, 1);
	test_fill(buffer.base, buffer.size, 1);
	ck_assert_int_eq(
		memslot_ring_prep_read(bench.ring, &sqe, fd, &buffer, 0, buffer.size, 0, 1), 0);
	ck_assert_uint_eq(sqe.opcode, IORING_OP_READ);
	io_uring_prep_read_fixed(io_uring_get_sqe(&other), fd, memory, 4 * KB, 0, 0);
	ck_assert_int_eq(io_uring_submit_and_wait(&other, 1), 1);
	ck_assert_int_eq(io_uring_peek_cqe(&other, &cqe), 0);
	ck_assert_int_eq(cqe->res, 4 * KB);
	ck_assert(test_filled(memory, sizeof memory, 8));
	ck_assert(test_filled(buffer.base, buffer.size, 1));
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 7, NULL, &group), 0);
	ck_assert_int_lt(io_uring_unregister_buf_ring(&other, 7), 0);
	ck_assert_int_eq(memslot_ring_group_destroy(group), 0);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	buffer_put(bench.buffers, &buffer);
	buffers_end(bench.buffers);
	io_uring_queue_exit(&other);
	close(fd);
}
END_TEST

START_TEST(a_pool_with_a_quarantined_buffer_closes)
{
	struct memslot_pool *pool;
	struct memslot_pool_stats stats = {.size = sizeof stats};
	struct memslot_slot *slot;
	struct bench bench;
	struct memslot_buffer buffer;
	int data[2];

	NEED_URING();
	bench_attach(&bench, buffers_in_pool(4 * KB, 64 * KB, 2, 16, &pool), 0);
	buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(pipe(data), 0);
	ck_assert_int_eq(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), data[0], &buffer, 0,
				 8, UINT64_MAX, 1),
		0);
	bench_submit(&bench);
	io_uring_queue_exit(&bench.uring);
	ck_assert_int_eq(memslot_ring_detach(bench.ring), 0);
	buffer_put(bench.buffers, &buffer);
	ck_assert_int_eq(memslot_buffers_close(bench.buffers, 0, NULL), 0);
	/* One slot of two never comes back. */
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, 4 * KB, NULL, &slot), 0);
	ck_assert_ptr_ne(memslot_slot_base(slot), buffer.base);
	ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	ck_assert_uint_eq(stats.live, 1);
	close(data[0]);
	close(data[1]);
}
END_TEST

/* --- threads, children, limits --- */

struct racer {
	struct memslot_buffers *buffers;
	struct memslot_buffer buffers_given[64];
	pthread_barrier_t turn;
	unsigned rounds;
	int wrong;
};

static void *release_shared(void *argument)
{
	struct racer *racer = argument;

	for (unsigned round = 0; round < racer->rounds; round++) {
		pthread_barrier_wait(&racer->turn);
		for (unsigned i = 0; i < 64; i++)
			racer->wrong += memslot_buffers_release(
						racer->buffers, &racer->buffers_given[i]) != 0;
		pthread_barrier_wait(&racer->turn);
	}
	return NULL;
}

/* The last reference goes on another thread while guards begin and end here. */
START_TEST(guards_race_with_releases)
{
	struct bench bench;
	struct racer racer = {.rounds = test_rounds(2000)};
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe cqe = {.res = 1};
	struct io_uring_sqe sqe;
	pthread_t thread;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	racer.buffers = bench.buffers;
	ck_assert_int_eq(pthread_barrier_init(&racer.turn, NULL, 2), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, release_shared, &racer), 0);
	for (unsigned round = 0; round < racer.rounds; round++) {
		for (unsigned i = 0; i < 64; i++) {
			racer.buffers_given[i] = buffer_get(bench.buffers, 1 + i % 2);
			ck_assert_int_eq(
				memslot_buffers_ref(bench.buffers, &racer.buffers_given[i]), 0);
		}
		pthread_barrier_wait(&racer.turn);
		for (unsigned i = 64; i--;) {
			ck_assert_int_eq(memslot_ring_prep_send(bench.ring, &sqe, -1,
						 &racer.buffers_given[i], 0, 1, 0, i),
				0);
			cqe.user_data = sqe.user_data;
			if (round % 2)
				buffer_put(bench.buffers, &racer.buffers_given[i]);
			ck_assert_int_eq(memslot_ring_complete(bench.ring, &cqe, &done), 0);
			ck_assert_uint_eq(done.user_data, i);
			if (round % 2 == 0)
				buffer_put(bench.buffers, &racer.buffers_given[i]);
		}
		pthread_barrier_wait(&racer.turn);
		ck_assert_uint_eq(buffers_stats(bench.buffers).live, 0);
	}
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&racer.turn);
	ck_assert_int_eq(racer.wrong, 0);
	bench_end(&bench);
}
END_TEST

struct guarding {
	struct memslot_ring *ring;
	const struct memslot_buffer *buffer;
	pthread_barrier_t *start;
	unsigned rounds;
	int wrong;
};

static void *guard_and_complete(void *argument)
{
	struct guarding *guarding = argument;
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe cqe = {.res = 1};
	struct io_uring_sqe sqe;

	pthread_barrier_wait(guarding->start);
	for (unsigned i = 0; i < guarding->rounds && !guarding->wrong; i++) {
		guarding->wrong += memslot_ring_prep_read(guarding->ring, &sqe, 0, guarding->buffer,
					   0, 1, 0, i) != 0;
		cqe.user_data = sqe.user_data;
		guarding->wrong += memslot_ring_complete(guarding->ring, &cqe, &done) != 0 ||
				   done.user_data != i;
	}
	return NULL;
}

/* One reference, copied: each ring's guard counts. */
START_TEST(two_rings_guard_one_buffer_at_once)
{
	struct bench bench, second;
	struct memslot_buffer buffer;
	pthread_barrier_t start;
	struct guarding here = {.start = &start, .rounds = test_rounds(100000)}, there;
	pthread_t thread;

	NEED_URING();
	bench_begin(&bench, 4 * KB, 0);
	bench_attach(&second, bench.buffers, 0);
	buffer = buffer_get(bench.buffers, 1);
	here.buffer = &buffer;
	there = here;
	here.ring = bench.ring;
	there.ring = second.ring;
	ck_assert_int_eq(pthread_barrier_init(&start, NULL, 2), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, guard_and_complete, &there), 0);
	guard_and_complete(&here);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&start);
	ck_assert_int_eq(here.wrong + there.wrong, 0);
	buffer_put(bench.buffers, &buffer);
	ck_assert_uint_eq(buffers_stats(bench.buffers).live, 0);
	bench_detach(&second);
	bench_end(&bench);
}
END_TEST

struct foreign {
	struct bench *bench;
	struct memslot_buffer buffer;
	struct memslot_group *group;
	int wrong;
};

static void *call_everything(void *argument)
{
	struct foreign *foreign = argument;
	struct memslot_ring *ring = foreign->bench->ring, *second;
	const struct memslot_buffer *buffer = &foreign->buffer;
	struct io_uring_sqe sqe = {.user_data = 0};
	struct io_uring_cqe cqe = {.user_data = 0};
	struct memslot_completion done = {.size = sizeof done};
	struct memslot_group_stats stats = {.size = sizeof stats};
	struct memslot_group *group;
	int answers[] = {
		memslot_ring_prep_read(ring, &sqe, 0, buffer, 0, 1, 0, 0),
		memslot_ring_prep_write(ring, &sqe, 0, buffer, 0, 1, 0, 0),
		memslot_ring_prep_recv(ring, &sqe, 0, buffer, 0, 1, 0, 0),
		memslot_ring_prep_send(ring, &sqe, 0, buffer, 0, 1, 0, 0),
		memslot_ring_prep_send_zc(ring, &sqe, 0, buffer, 0, 1, 0, 0),
		memslot_ring_unprep(ring, &sqe),
		memslot_ring_complete(ring, &cqe, &done),
		memslot_ring_group_create(ring, 2, NULL, &group),
		memslot_ring_group_prep_recv(foreign->group, &sqe, 0, 0, 0, 0),
		memslot_ring_group_prep_read(foreign->group, &sqe, 0, 0, 0, 0),
		memslot_ring_group_stats(foreign->group, &stats),
		memslot_ring_group_destroy(foreign->group),
		memslot_ring_detach(ring),
	};

	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
		foreign->wrong += answers[i] != -EEXIST;
	if (memslot_feature("io_uring") == 1) {
		struct memslot_buffers *other = NULL;
		foreign->wrong += memslot_buffers_create(NULL, &other) != 0;
		foreign->wrong += memslot_ring_attach(
					  other, &foreign->bench->uring, NULL, &second) != -EEXIST;
		foreign->wrong += memslot_buffers_close(other, 0, NULL) != 0;
	}
	return NULL;
}

START_TEST(a_single_issuer_ring_is_refused_to_other_threads)
{
	struct bench bench;
	struct foreign foreign = {.bench = &bench};
	pthread_t thread;

	NEED_URING();
	bench_attach(&bench, buffers_new(4 * KB, 0),
		IORING_SETUP_SINGLE_ISSUER | (_i ? IORING_SETUP_DEFER_TASKRUN : 0));
	foreign.buffer = buffer_get(bench.buffers, 1);
	ck_assert_int_eq(memslot_ring_group_create(bench.ring, 1, NULL, &foreign.group), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, call_everything, &foreign), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(foreign.wrong, 0);
	bench_use(&bench, 3);
	ck_assert_int_eq(memslot_ring_group_destroy(foreign.group), 0);
	buffer_put(bench.buffers, &foreign.buffer);
	bench_end(&bench);
}
END_TEST

static struct bench inherited;
static struct memslot_buffer kept, later; /* in an area from before and from after attach */
static struct memslot_group *inherited_group;

static int use_in_child(void *argument)
{
	struct memslot_buffers *buffers = inherited.buffers;
	struct memslot_buffers_stats stats = {.size = sizeof stats};
	struct memslot_group_stats group = {.size = sizeof group};
	struct memslot_buffer_waiter waiter = buffer_waiter(0, 1);
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe cqe = {.user_data = 0};
	struct memslot_buffer buffer;
	struct memslot_ring *ring;
	struct io_uring_sqe sqe;
	struct io_uring other = inherited.uring;

	(void)argument;
	child_check(memslot_buffers_acquire(buffers, 1, 0, &buffer) == -ESTALE);
	child_check(memslot_buffers_ref(buffers, &kept) == -ESTALE);
	child_check(memslot_buffers_release(buffers, &kept) == -ESTALE);
	child_check(memslot_buffers_wait(buffers, &waiter) == -ESTALE);
	child_check(memslot_buffers_wait_cancel(buffers, &waiter) == -ESTALE);
	child_check(memslot_buffers_set_budget(buffers, MB) == -ESTALE);
	child_check(memslot_buffers_stats(buffers, &stats) == -ESTALE);
	child_check(memslot_ring_attach(buffers, &other, NULL, &ring) == -ESTALE);
	child_check(memslot_ring_prep_read(inherited.ring, &sqe, 0, &kept, 0, 1, 0, 0) == -ESTALE);
	child_check(memslot_ring_complete(inherited.ring, &cqe, &done) == -ESTALE);
	child_check(memslot_ring_group_stats(inherited_group, &group) == -ESTALE);
	child_check(memslot_ring_group_destroy(inherited_group) == -ESTALE);
	child_check(memslot_ring_detach(inherited.ring) == -ESTALE);
	child_check(!test_faults_allowed() || test_is_closed(kept.base));
	child_check(!test_faults_allowed() || test_is_closed(later.base));
	child_check(memslot_buffers_close(buffers, 0, NULL) == 0);
	return 0;
}

START_TEST(invariant_20_from_the_first_attach_on_the_pool_is_dead_in_a_child)
{
	NEED_URING();
	inherited.buffers = buffers_new(4 * KB, 0);
	kept = buffer_get(inherited.buffers, 1);
	bench_attach(&inherited, inherited.buffers, 0);
	later = buffer_get(inherited.buffers, 10000);
	ck_assert_int_eq(memslot_ring_group_create(inherited.ring, 1, NULL, &inherited_group), 0);
	ck_assert_int_eq(test_in_child(use_in_child, NULL), 0);
	ck_assert_int_eq(test_in_clone(use_in_child, NULL), 0);
	bench_use(&inherited, 1);
	buffer_put(inherited.buffers, &kept);
	buffer_put(inherited.buffers, &later);
	ck_assert_int_eq(memslot_ring_group_destroy(inherited_group), 0);
	bench_end(&inherited);
}
END_TEST

static int limited(void *argument)
{
	struct rlimit limit = {8 * MB, 8 * MB};
	struct memslot_buffers *buffers = argument;
	struct memslot_buffer out[6];
	struct bench bench;
	struct memslot_buffers_stats stats;

	child_check(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	child_check(geteuid() != 0 || (setgid(65534) == 0 && setuid(65534) == 0));
	bench_attach(&bench, buffers, 0);
	for (unsigned i = 0; i < 6; i++) {
		int fd = file_of(4 * MB, i);
		out[i] = buffer_get(buffers, 256);
		child_check(memslot_ring_prep_read(bench.ring, bench_sqe(&bench), fd, &out[i], 0,
				    4 * MB, 0, i) == 0);
		child_check(bench_run(&bench).result == 4 * MB);
		child_check(test_filled(out[i].base, 4 * MB, i));
		close(fd);
	}
	stats = buffers_stats(buffers);
	child_check(stats.plain_fallbacks > 0);
	for (unsigned i = 0; i < 6; i++)
		buffer_put(buffers, &out[i]);
	bench_end(&bench);
	return 0;
}

START_TEST(a_user_with_8_mib_of_locked_memory_has_what_fits_registered)
{
	NEED_URING();
	ck_assert_int_eq(test_in_child(limited, buffers_new(16 * KB, 64 * MB)), 0);
}
END_TEST

/* A call is denied from now on, as a sandbox does it. */
static bool deny(int number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof code / sizeof code[0], code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static int use_without_register(void *argument)
{
	struct memslot_group *group;
	struct bench bench;
	int ends[2];

	(void)argument;
	child_check(io_uring_queue_init(8, &bench.uring, 0) == 0);
	child_check(deny(SYS_io_uring_register));
	bench.buffers = buffers_new(4 * KB, 0);
	child_check(memslot_ring_attach(bench.buffers, &bench.uring, NULL, &bench.ring) == 0);
	child_check(buffers_stats(bench.buffers).plain_fallbacks == 1);
	bench_use(&bench, 1);
	child_check(memslot_ring_group_create(bench.ring, 1, NULL, &group) == 0);
	child_check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && write(ends[0], "x", 1) == 1);
	child_check(memslot_ring_group_prep_recv(
			    group, bench_sqe(&bench), ends[1], MEMSLOT_GROUP_MULTISHOT, 0, 1) == 0);
	bench_submit(&bench);
	kept = bench_next(&bench).buffer;
	child_check(*(char *)kept.base == 'x');
	buffer_put(bench.buffers, &kept);
	child_check(memslot_ring_group_destroy(group) == 0);
	bench_end(&bench);
	return 0;
}

static int use_without_rings(void *argument)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 0);
	struct memslot_buffer buffer = buffer_get(buffers, 3);
	int fd = file_of(12 * KB, 3);

	(void)argument;
	child_check(deny(SYS_io_uring_setup));
	child_check(pread(fd, buffer.base, 12 * KB, 0) == 12 * KB);
	child_check(test_filled(buffer.base, 12 * KB, 3));
	buffer_put(buffers, &buffer);
	buffers_end(buffers);
	return 0;
}

START_TEST(where_io_uring_is_denied_the_pool_works)
{
	SKIP_IF(test_sanitized(), "seccomp and sanitizers do not mix");
	ck_assert_int_eq(test_in_child(use_without_rings, NULL), 0);
	NEED_URING();
	ck_assert_int_eq(test_in_child(use_without_register, NULL), 0);
}
END_TEST

struct sender {
	int fd;
	unsigned rounds;
	pthread_barrier_t turn;
};

static void *send_bytes(void *argument)
{
	struct sender *sender = argument;

	for (unsigned i = 0; i < sender->rounds; i++) {
		pthread_barrier_wait(&sender->turn);
		if (write(sender->fd, "data", 4) != 4)
			abort();
	}
	return NULL;
}

/* Either the data is there or it is not; the buffer comes back both times. */
START_TEST(cancelling_races_with_completing)
{
	struct sender sender = {.rounds = test_rounds(2000)};
	struct bench bench;
	unsigned pending = 0;
	pthread_t thread;
	int ends[2];

	NEED_URING();
	bench_begin(&bench, 4 * KB, 4 * KB); /* a buffer that is lost is missed at once */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	sender.fd = ends[1];
	ck_assert_int_eq(pthread_barrier_init(&sender.turn, NULL, 2), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, send_bytes, &sender), 0);
	for (unsigned i = 0; i < sender.rounds; i++) {
		struct memslot_buffer buffer = buffer_get(bench.buffers, 1);
		struct io_uring_sqe *sqe = bench_sqe(&bench);
		struct memslot_completion done;
		uint64_t token;
		char bytes[8];
		ck_assert_int_eq(memslot_ring_prep_recv(
					 bench.ring, sqe, ends[0], &buffer, 0, 4, MSG_WAITALL, i),
			0);
		token = sqe->user_data;
		sqe->flags |= i % 3 ? 0 : IOSQE_ASYNC;
		bench_submit(&bench);
		buffer_put(bench.buffers, &buffer);
		pthread_barrier_wait(&sender.turn);
		pending += 4;
		sqe = bench_sqe(&bench);
		io_uring_prep_cancel64(sqe, token, 0);
		sqe->user_data = 0;
		bench_submit(&bench);
		for (unsigned seen = 0; seen < 2; seen++) { /* its own, and the cancellation's */
			struct io_uring_cqe *cqe;
			ck_assert_int_eq(io_uring_wait_cqe(&bench.uring, &cqe), 0);
			done.size = sizeof done;
			if (memslot_ring_complete(bench.ring, cqe, &done) == 0) {
				ck_assert_uint_eq(done.user_data, i);
				ck_assert(done.result == 4 || done.result == -ECANCELED ||
					  done.result == -EINTR);
				pending -= done.result == 4 ? 4 : 0;
			}
			io_uring_cqe_seen(&bench.uring, cqe);
		}
		ck_assert_uint_eq(bench_in_flight(&bench), 0);
		for (; pending; pending -= 4) /* nothing is lost that was not received */
			ck_assert_int_eq(recv(ends[0], bytes, 4, MSG_WAITALL), 4);
	}
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&sender.turn);
	close(ends[0]);
	close(ends[1]);
	bench_end(&bench);
}
END_TEST

/* --- slots and rings together --- */

/* Invariant 15: held once, and pinned once for each ring, clones included. */
START_TEST(invariant_15_the_slots_underneath_are_pinned_once_for_each_ring)
{
	struct memslot_location location = {.size = sizeof location};
	struct memslot_pool *pool;
	struct bench first, second;
	struct memslot_buffer buffer;
	bool fixed;

	NEED_URING();
	bench_attach(&first, buffers_in_pool(4 * KB, MB, 2, 16, &pool), 0);
	buffer = buffer_get(first.buffers, 1);
	bench_use(&first, 1);
	bench_attach(&second, first.buffers, 0);
	fixed = bench_is_fixed(first.buffers);
	if (fixed) {
		ck_assert_int_eq(memslot_pool_locate(pool, buffer.base, &location), 0);
		for (int i = 0; i < 2; i++)
			ck_assert_int_eq(memslot_slot_unhold(location.slot, MEMSLOT_HOLD_PIN), 0);
		ck_assert_int_eq(memslot_slot_unhold(location.slot, MEMSLOT_HOLD_PIN), -EINVAL);
		for (int i = 0; i < 2; i++)
			ck_assert_int_eq(memslot_slot_hold(location.slot, MEMSLOT_HOLD_PIN), 0);
	}
	bench_detach(&first);
	bench_detach(&second);
	if (fixed)
		ck_assert_int_eq(memslot_slot_unhold(location.slot, MEMSLOT_HOLD_PIN), -EINVAL);
	buffer_put(first.buffers, &buffer);
	buffers_end(first.buffers);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
	SKIP_IF(!fixed, "nothing is registered here");
}
END_TEST

/* Invariant 10: a registered area is cleared in place: what is read afterwards is not lost, what
 * was there before is not seen. It goes back when the last ring has gone. */
START_TEST(invariant_10_registered_memory_is_restored_and_never_dropped)
{
	struct memslot_pool_opts slots =
		MEMSLOT_OPTS(memslot_pool_opts, .reset_method = MEMSLOT_RESET_DROP);
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = 4 * KB, .budget = MB);
	struct memslot_pool *pool;
	struct memslot_pool_stats stats = {.size = sizeof stats};
	struct bench first, second;
	struct memslot_slot *slot;
	int fd = file_of(8 * KB, 4);

	NEED_URING();
	/* slots that would drop, if they were let */
	ck_assert_int_eq(memslot_pool_create(2, 64 * KB, &slots, &pool), 0);
	opts.pool = pool;
	ck_assert_int_eq(memslot_buffers_create(&opts, &first.buffers), 0);
	bench_attach(&first, first.buffers, 0);
	bench_attach(&second, first.buffers, 0);
	for (unsigned round = 0; round < 10; round++) {
		struct memslot_buffer buffer = buffer_get(first.buffers, 16);
		struct bench *bench = round % 2 ? &first : &second;
		if (bench_is_fixed(first.buffers) && round)
			ck_assert(test_zero(buffer.base, 16 * 4 * KB));
		ck_assert_int_eq(memslot_ring_prep_read(bench->ring, bench_sqe(bench), fd, &buffer,
					 round * KB, 8 * KB, 0, 1),
			0);
		ck_assert_int_eq(bench_run(bench).result, 8 * KB);
		ck_assert(test_filled((char *)buffer.base + round * KB, 8 * KB, 4));
		ck_assert(test_zero(
			(char *)buffer.base + (round + 8) * KB, 64 * KB - (round + 8) * KB));
		buffer_put(first.buffers, &buffer);
		ck_assert_int_eq(memslot_buffers_set_budget(first.buffers, MB), 0);
		ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
		if (bench_is_fixed(first.buffers))
			ck_assert_uint_eq(stats.live, 1);
	}
	bench_detach(&first);
	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	if (bench_is_fixed(first.buffers))
		ck_assert_uint_eq(stats.live, 1);
	bench_detach(&second);
	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	ck_assert_uint_eq(stats.live, 0);
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, 64 * KB, NULL, &slot), 0);
	ck_assert(test_zero(memslot_slot_base(slot), 64 * KB));
	ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
	buffers_end(first.buffers);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
	close(fd);
}
END_TEST

/* on_reset stands in for another thread: the lock is left while an area is cleared. */
static int detach_in_reset(struct memslot_slot *slot, void *context)
{
	struct memslot_ring **ring = context, *gone = *ring;

	(void)slot;
	*ring = NULL;
	return memslot_ring_detach(gone);
}

START_TEST(an_area_whose_last_ring_goes_while_it_is_cleared_goes_back)
{
	struct memslot_ring *going = NULL;
	struct memslot_pool_opts slots =
		MEMSLOT_OPTS(memslot_pool_opts, .on_reset = detach_in_reset, .context = &going);
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = 4 * KB, .budget = MB);
	struct memslot_pool_stats stats = {.size = sizeof stats};
	struct bench bench;
	struct memslot_buffer buffer;

	NEED_URING();
	ck_assert_int_eq(memslot_pool_create(2, 64 * KB, &slots, &opts.pool), 0);
	ck_assert_int_eq(memslot_buffers_create(&opts, &bench.buffers), 0);
	bench_attach(&bench, bench.buffers, 0);
	bench_use(&bench, 1);
	going = bench.ring;
	ck_assert_int_eq(memslot_buffers_set_budget(bench.buffers, MB), 0);
	if (going) /* plain operations: nothing was cleared */
		ck_assert_int_eq(memslot_ring_detach(going), 0);
	going = NULL;
	ck_assert_int_eq(memslot_pool_stats(opts.pool, &stats), 0);
	ck_assert_uint_eq(stats.live, 0);
	io_uring_queue_exit(&bench.uring);
	buffer = buffer_get(bench.buffers, 1);
	buffer_put(bench.buffers, &buffer);
	buffers_end(bench.buffers);
	ck_assert_int_eq(memslot_pool_destroy(opts.pool), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers_attach");
	TCase *tcase = test_case(suite, "rings");

	tcase_add_test(tcase, what_cannot_be_attached_is_refused);
	tcase_add_test(tcase, a_ring_with_a_table_of_its_own_has_plain_operations);
	tcase_add_loop_test(tcase, many_rings_share_a_pool, 0, 4);
	tcase_add_test(tcase, a_pool_attaches_again_and_again);
	tcase_add_test(tcase, detach_cancels_and_waits_for_the_completions);
	tcase_add_test(tcase, a_ring_closed_with_operations_pending_has_its_buffers_quarantined);
	tcase_add_test(tcase, a_ring_that_has_a_closed_ones_number_is_left_alone);
	tcase_add_test(tcase, a_pool_with_a_quarantined_buffer_closes);
	tcase = test_case(suite, "others");
	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_test(tcase, guards_race_with_releases);
	tcase_add_test(tcase, two_rings_guard_one_buffer_at_once);
	tcase_add_loop_test(tcase, a_single_issuer_ring_is_refused_to_other_threads, 0, 2);
	tcase_add_test(tcase, invariant_20_from_the_first_attach_on_the_pool_is_dead_in_a_child);
	tcase_add_test(tcase, a_user_with_8_mib_of_locked_memory_has_what_fits_registered);
	tcase_add_test(tcase, where_io_uring_is_denied_the_pool_works);
	tcase_add_test(tcase, cancelling_races_with_completing);
	tcase_add_test(tcase, invariant_15_the_slots_underneath_are_pinned_once_for_each_ring);
	tcase_add_test(tcase, invariant_10_registered_memory_is_restored_and_never_dropped);
	tcase_add_test(tcase, an_area_whose_last_ring_goes_while_it_is_cleared_goes_back);
	return suite;
}
