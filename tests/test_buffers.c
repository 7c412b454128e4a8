/* SPDX-License-Identifier: MIT */
/*
 * test_buffers.c - the pool of buffers without rings: what each call promises, rows F1 to F4 of the
 * reference, and its defects replayed.
 */
#define _GNU_SOURCE
#include "buffers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- create --- */

START_TEST(every_size_of_buffer_works)
{
	for (uint64_t size = 512; size <= 16 * MB; size *= 2) {
		struct memslot_buffers *buffers = buffers_new(size, 0);
		struct memslot_buffer one = buffer_get(buffers, 1), three = buffer_get(buffers, 3);
		ck_assert_uint_eq(one.size, size);
		ck_assert_uint_eq(
			(uintptr_t)one.base % (size < test_page() ? size : test_page()), 0);
		memset(one.base, 1, size);
		memset(three.base, 3, 3 * size);
		ck_assert(((unsigned char *)one.base)[size - 1] == 1);
		buffer_put(buffers, &one);
		buffer_put(buffers, &three);
		buffers_end(buffers);
	}
}
END_TEST

START_TEST(bad_options_are_refused)
{
	static const struct {
		uint32_t flags;
		uint64_t size, budget;
	} bad[] = {{0, 256, 0}, {0, 32 * MB, 0}, {0, 3000, 0}, {0, 4096, 4095}, {2, 0, 0},
		{0, 0, MEMSLOT_NONE}, {0, MEMSLOT_UNLIMITED, 0}};
	struct memslot_buffers *buffers = NULL;
	struct {
		struct memslot_buffers_opts opts;
		uint64_t tail;
	} newer = {{.size = sizeof newer}, 1};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct memslot_buffers_opts opts = MEMSLOT_OPTS(memslot_buffers_opts,
			.flags = bad[i].flags, .buffer_size = bad[i].size, .budget = bad[i].budget);
		ck_assert_int_eq(memslot_buffers_create(&opts, &buffers), -EINVAL);
	}
	ck_assert_int_eq(memslot_buffers_create(&newer.opts, &buffers), -E2BIG);
	ck_assert_int_eq(memslot_buffers_create(NULL, NULL), -EINVAL);
	ck_assert_ptr_null(buffers);
}
END_TEST

START_TEST(a_buffer_that_does_not_fit_into_the_slots_is_refused)
{
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = 64 * KB);
	struct memslot_buffers *buffers = NULL;

	ck_assert_int_eq(memslot_pool_create(2, 32 * KB, NULL, &opts.pool), 0);
	ck_assert_int_eq(memslot_buffers_create(&opts, &buffers), -EMSGSIZE);
	ck_assert_int_eq(memslot_pool_destroy(opts.pool), 0);
}
END_TEST

START_TEST(null_is_refused_everywhere)
{
	struct memslot_buffers *buffers = buffers_new(0, 0);
	struct memslot_buffer buffer = buffer_get(buffers, 1);
	struct memslot_buffer_waiter waiter = buffer_waiter(-1, 1);
	struct memslot_buffers_stats stats = {.size = 4};

	ck_assert_int_eq(memslot_buffers_acquire(NULL, 1, 0, &buffer), -EINVAL);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, NULL), -EINVAL);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 0, 0, &buffer), -EINVAL);
	ck_assert_int_eq(memslot_buffers_release(NULL, &buffer), -EINVAL);
	ck_assert_int_eq(memslot_buffers_release(buffers, NULL), -EINVAL);
	ck_assert_int_eq(memslot_buffers_ref(NULL, &buffer), -EINVAL);
	ck_assert_int_eq(memslot_buffers_ref(buffers, NULL), -EINVAL);
	ck_assert_int_eq(memslot_buffers_wait(NULL, &waiter), -EINVAL);
	ck_assert_int_eq(memslot_buffers_wait(buffers, NULL), -EINVAL);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &waiter), -EINVAL); /* no event */
	waiter.event_fd = STDIN_FILENO; /* forgotten */
	ck_assert_int_eq(memslot_buffers_wait(buffers, &waiter), -EINVAL);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, NULL), -EINVAL);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &waiter), -EINVAL);
	ck_assert_int_eq(memslot_buffers_set_budget(NULL, MB), -EINVAL);
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, 1), -EINVAL);
	ck_assert_int_eq(memslot_buffers_stats(NULL, &stats), -EINVAL);
	ck_assert_int_eq(memslot_buffers_stats(buffers, &stats), -EINVAL);
	ck_assert_int_eq(memslot_buffers_close(NULL, 0, NULL), 0);
	buffer_put(buffers, &buffer);
	buffers_end(buffers);
}
END_TEST

/* --- handles --- */

/* Defect: foreign or double free returning success. Invariant 23. */
START_TEST(a_handle_from_the_past_is_stale)
{
	struct memslot_buffers *buffers = buffers_new(0, 0), *other = buffers_new(0, 0);
	struct memslot_buffer old = buffer_get(buffers, (uint32_t)_i), again, forged;

	(void)buffer_get(other, (uint32_t)_i);
	ck_assert_int_eq(memslot_buffers_release(other, &old), -ESTALE);
	buffer_put(buffers, &old);
	ck_assert_int_eq(memslot_buffers_release(buffers, &old), -ESTALE);
	ck_assert_int_eq(memslot_buffers_ref(buffers, &old), -ESTALE);
	again = buffer_get(buffers, (uint32_t)_i);
	ck_assert_ptr_eq(again.base, old.base); /* the one used last */
	ck_assert_int_eq(memslot_buffers_release(buffers, &old), -ESTALE);
	forged = again;
	forged.index = UINT32_MAX;
	ck_assert_int_eq(memslot_buffers_release(buffers, &forged), -ESTALE);
	forged.index = again.index + 1;
	ck_assert_int_eq(memslot_buffers_release(buffers, &forged), -ESTALE);
	memset(&forged, 0, sizeof forged);
	ck_assert_int_eq(memslot_buffers_release(buffers, &forged), -ESTALE);
	buffer_put(buffers, &again);
	buffers_end(buffers);
}
END_TEST

/* Not the index alone says which buffer: with another's it is nobody's. */
START_TEST(a_handle_names_one_acquisition)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, MB);
	struct memslot_buffer one = buffer_get(buffers, 1), two = buffer_get(buffers, 1),
			      forged = one;

	ck_assert_uint_ne(one.handle, two.handle);
	forged.index = two.index;
	ck_assert_int_eq(memslot_buffers_release(buffers, &forged), -ESTALE);
	ck_assert_int_eq(memslot_buffers_ref(buffers, &forged), -ESTALE);
	forged.index = UINT32_MAX;
	ck_assert_int_eq(memslot_buffers_release(buffers, &forged), -ESTALE);
	buffer_put(buffers, &two);
	buffer_put(buffers, &one);
	buffers_end(buffers);
}
END_TEST

START_TEST(references_count)
{
	struct memslot_buffers *buffers = buffers_new(0, 0);
	struct memslot_buffer buffer = buffer_get(buffers, (uint32_t)_i);
	unsigned count = 1;

	while (memslot_buffers_ref(buffers, &buffer) == 0)
		count++;
	ck_assert_uint_eq(count, 16383);
	ck_assert_int_eq(memslot_buffers_ref(buffers, &buffer), -EMSGSIZE);
	while (count--) {
		ck_assert_uint_eq(buffers_stats(buffers).live, (unsigned)_i);
		buffer_put(buffers, &buffer);
	}
	ck_assert_int_eq(memslot_buffers_release(buffers, &buffer), -ESTALE);
	buffers_end(buffers);
}
END_TEST

/* --- contents --- */

START_TEST(with_zero_nobody_sees_what_was_there)
{
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .flags = MEMSLOT_BUFFERS_ZERO, .budget = 4 * MB);
	struct memslot_buffers *buffers = NULL;

	ck_assert_int_eq(memslot_buffers_create(&opts, &buffers), 0);
	for (unsigned round = 0; round < 60; round++) {
		uint32_t count = round % 5 + 1;
		struct memslot_buffer buffer = buffer_get(buffers, count);
		ck_assert(test_zero(buffer.base, count * buffer.size));
		memset(buffer.base, 's', count * buffer.size);
		buffer_put(buffers, &buffer);
	}
	buffers_end(buffers);
}
END_TEST

/* Row F1. Every buffer that is out is somebody's alone. */
START_TEST(buffers_that_are_out_do_not_overlap)
{
	struct memslot_buffers *buffers = buffers_new(512, 4 * MB);
	struct test_rng rng = test_rng(1);
	struct memslot_buffer out[300];
	unsigned live = 0;

	for (unsigned round = test_rounds(30000); round; round--) {
		unsigned at = (unsigned)test_below(&rng, 300);
		if (at < live) {
			ck_assert(test_filled(out[at].base, out[at].count * 512, out[at].index));
			buffer_put(buffers, &out[at]);
			out[at] = out[--live];
		} else if (live < 300) {
			uint32_t count =
				test_below(&rng, 3) ? 1 : 1 + (uint32_t)test_below(&rng, 90);
			if (memslot_buffers_acquire(buffers, count, 0, &out[live]) == 0) {
				test_fill(out[live].base, count * 512, out[live].index);
				live++;
			}
		}
	}
	while (live--)
		buffer_put(buffers, &out[live]);
	buffers_end(buffers);
}
END_TEST

/* --- the budget --- */

/* Row F2; defects: max == size rejected, a request above the budget blocks for ever. */
START_TEST(the_budget_counts_what_is_out_to_the_last_buffer)
{
	struct memslot_buffers *buffers = buffers_new(16 * KB, 64 * 16 * KB);
	struct memslot_buffer all = buffer_get(buffers, 64), each[64], more;

	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 65, 0, &more), -EMSGSIZE);
	ck_assert_int_eq(
		memslot_buffers_acquire(buffers, UINT32_MAX, MEMSLOT_UNLIMITED, &more), -EMSGSIZE);
	buffer_put(buffers, &all);
	for (unsigned i = 0; i < 64; i++)
		each[i] = buffer_get(buffers, 1);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 1000, &more), -ETIMEDOUT);
	ck_assert_uint_eq(buffers_stats(buffers).live_bytes, 64 * 16 * KB);
	ck_assert_uint_eq(buffers_stats(buffers).high_water, 64 * 16 * KB);
	for (unsigned i = 0; i < 64; i++)
		buffer_put(buffers, &each[i]);
	buffers_end(buffers);
}
END_TEST

/* Row F1: also when the free ones lie scattered. */
START_TEST(scattered_buffers_make_the_pool_grow)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, MB);
	struct memslot_buffer out[256], large;

	for (unsigned i = 0; i < 256; i++)
		out[i] = buffer_get(buffers, 1);
	for (unsigned i = 0; i < 256; i += 2)
		buffer_put(buffers, &out[i]);
	large = buffer_get(buffers, 128);
	test_fill(large.base, 128 * 4 * KB, 1);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &out[0]), -EAGAIN);
	for (unsigned i = 1; i < 256; i += 2)
		buffer_put(buffers, &out[i]);
	ck_assert(test_filled(large.base, 128 * 4 * KB, 1));
	buffer_put(buffers, &large);
	buffers_end(buffers);
}
END_TEST

START_TEST(a_budget_without_limit_is_one)
{
	struct memslot_buffers *buffers = buffers_new(16 * MB, MEMSLOT_UNLIMITED);
	struct memslot_buffer out[100], large = buffer_get(buffers, 64);

	for (unsigned i = 0; i < 100; i++)
		out[i] = buffer_get(buffers, 1);
	ck_assert_uint_eq(buffers_stats(buffers).budget, MEMSLOT_UNLIMITED);
	for (unsigned i = 0; i < 100; i++)
		buffer_put(buffers, &out[i]);
	buffer_put(buffers, &large);
	buffers_end(buffers);
}
END_TEST

START_TEST(a_lower_budget_holds_from_now_on_and_a_higher_one_too)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 64 * KB);
	struct memslot_buffer out[32], more;

	for (unsigned i = 0; i < 16; i++)
		out[i] = buffer_get(buffers, 1);
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, 32 * KB), 0);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
		buffer_put(buffers, &out[i]);
	}
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, 128 * KB), 0);
	for (unsigned i = 0; i < 8; i++)
		out[i] = buffer_get(buffers, 1);
	for (unsigned i = 16; i < 32; i++)
		out[i] = buffer_get(buffers, 1);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	for (unsigned i = 0; i < 32; i++)
		buffer_put(buffers, &out[i]);
	buffers_end(buffers);
}
END_TEST

START_TEST(a_lower_budget_gives_slots_back)
{
	struct memslot_pool *pool;
	struct memslot_buffers *buffers = buffers_in_pool(4 * KB, MB, 4, 16, &pool);
	struct memslot_pool_stats stats = {.size = sizeof stats};
	struct memslot_buffer a = buffer_get(buffers, 16), b = buffer_get(buffers, 16), c;

	memset(b.base, 'b', 16 * b.size);
	buffer_put(buffers, &b);
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, 2 * MB), 0); /* not lower */
	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	ck_assert_uint_eq(stats.live, 2);
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, MB), 0);
	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	ck_assert_uint_eq(stats.live, 1);
	c = buffer_get(buffers, 16); /* the slot again: nothing is left of what was there */
	ck_assert(test_zero(c.base, 16 * c.size));
	ck_assert_int_eq(memslot_buffers_release(buffers, &b), -ESTALE);
	buffer_put(buffers, &a);
	buffer_put(buffers, &c);
	buffers_end(buffers);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

/* What a pool's user does to all of its slots must not reach ours. */
START_TEST(the_slots_underneath_are_held)
{
	struct memslot_pool *pool;
	struct memslot_buffers *buffers = buffers_in_pool(4 * KB, MB, 1, 16, &pool);
	struct memslot_location location = {.size = sizeof location};
	struct memslot_buffer buffer = buffer_get(buffers, 1);

	ck_assert_int_eq(memslot_pool_locate(pool, buffer.base, &location), 0);
	ck_assert_int_eq(memslot_slot_reset(location.slot), -EBUSY);
	ck_assert_int_eq(memslot_slot_unhold(location.slot, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(memslot_slot_unhold(location.slot, MEMSLOT_HOLD_IO), -EINVAL); /* once */
	ck_assert_int_eq(memslot_slot_hold(location.slot, MEMSLOT_HOLD_IO), 0);
	buffer_put(buffers, &buffer);
	buffers_end(buffers);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

/* --- magazines --- */

static void *put_all(void *argument)
{
	struct memslot_buffer *out = argument;
	struct memslot_buffers *buffers = out[64].base;

	for (unsigned i = 0; i < 64; i++) {
		if (memslot_buffers_release(buffers, &out[i]))
			abort();
	}
	return NULL;
}

/* Row F3: released on any thread. What other threads' magazines keep is found when it is needed. */
START_TEST(what_magazines_keep_is_not_lost_to_others)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 4 * MB);
	struct memslot_buffer out[65], all;
	pthread_t thread;

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 64; i++)
			out[i] = buffer_get(buffers, 1);
		out[64].base = buffers;
		ck_assert_int_eq(pthread_create(&thread, NULL, put_all, out), 0);
		pthread_join(thread, NULL);
	}
	ck_assert_uint_gt(buffers_stats(buffers).magazines, 0);
	ck_assert_uint_eq(buffers_stats(buffers).live, 0);
	all = buffer_get(buffers, 1024);
	ck_assert_uint_eq(buffers_stats(buffers).magazines, 0);
	buffer_put(buffers, &all);
	buffers_end(buffers);
}
END_TEST

/* --- waiting --- */

static int event_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	ck_assert_int_ge(fd, 0);
	return fd;
}

START_TEST(first_come_first_served)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer all = buffer_get(buffers, 4), more;
	struct memslot_buffer_waiter waiters[4];

	for (unsigned i = 0; i < 4; i++) {
		waiters[i] = buffer_waiter(event_new(), 2);
		ck_assert_int_eq(memslot_buffers_wait(buffers, &waiters[i]), 0);
		ck_assert_int_eq(memslot_buffers_wait(buffers, &waiters[i]), -EALREADY);
	}
	ck_assert_uint_eq(buffers_stats(buffers).waiters, 4);
	buffer_put(buffers, &all);
	ck_assert(event_came(waiters[0].event_fd) && event_came(waiters[1].event_fd));
	ck_assert(!event_came(waiters[2].event_fd));
	buffer_put(buffers, &waiters[1].buffer);
	ck_assert(event_came(waiters[2].event_fd) && !event_came(waiters[3].event_fd));
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &waiters[3]), 0);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &waiters[3]), -EINVAL);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &waiters[2]), -EALREADY);
	buffer_put(buffers, &waiters[0].buffer);
	buffer_put(buffers, &waiters[2].buffer);
	ck_assert(!event_came(waiters[3].event_fd));
	ck_assert_uint_eq(buffers_stats(buffers).waits, 4);
	for (unsigned i = 0; i < 4; i++)
		close(waiters[i].event_fd);
	buffers_end(buffers);
}
END_TEST

START_TEST(what_is_there_comes_at_once)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer_waiter waiter = buffer_waiter(event_new(), 3);

	ck_assert_int_eq(memslot_buffers_wait(buffers, &waiter), 0);
	ck_assert(event_came(waiter.event_fd));
	ck_assert_uint_eq(waiter.buffer.count, 3);
	buffer_put(buffers, &waiter.buffer);
	ck_assert_uint_eq(buffers_stats(buffers).waits, 0);
	close(waiter.event_fd);
	buffers_end(buffers);
}
END_TEST

/* Row F4: a small waiter is not stranded behind a large one, nor the reverse. Defect: hold-and-wait
 * of two half-satisfied callers. */
START_TEST(a_large_waiter_is_not_overtaken_for_its_credits)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer out[4], more;
	struct memslot_buffer_waiter large = buffer_waiter(event_new(), 3),
				     small = buffer_waiter(event_new(), 1);

	for (unsigned i = 0; i < 4; i++)
		out[i] = buffer_get(buffers, 1);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &large), 0);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &small), 0);
	buffer_put(buffers, &out[0]);
	buffer_put(buffers, &out[2]);
	ck_assert(!event_came(large.event_fd) && !event_came(small.event_fd));
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	buffer_put(buffers, &out[1]);
	ck_assert(event_came(large.event_fd) && !event_came(small.event_fd));
	buffer_put(buffers, &large.buffer);
	ck_assert(event_came(small.event_fd));
	buffer_put(buffers, &small.buffer);
	buffer_put(buffers, &out[3]);
	close(large.event_fd);
	close(small.event_fd);
	buffers_end(buffers);
}
END_TEST

/* The head has its credits, but its buffers lie scattered, and there is no slot to grow by. */
START_TEST(who_finds_no_adjacent_run_lets_the_next_pass_and_keeps_its_place)
{
	struct memslot_pool *pool;
	struct memslot_buffers *buffers = buffers_in_pool(4 * KB, 20 * KB, 1, 4, &pool);
	struct memslot_buffer out[4], more;
	struct memslot_buffer_waiter large = buffer_waiter(event_new(), 2),
				     small = buffer_waiter(event_new(), 1);

	for (unsigned i = 0; i < 4; i++)
		out[i] = buffer_get(buffers, 1);
	buffer_put(buffers, &out[0]);
	buffer_put(buffers, &out[2]); /* credits: 3, its own included */
	ck_assert_int_eq(memslot_buffers_wait(buffers, &large), 0);
	ck_assert(!event_came(large.event_fd));
	ck_assert_int_eq(memslot_buffers_wait(buffers, &small), 0);
	ck_assert(event_came(small.event_fd)); /* with the one credit that is left */
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -EAGAIN);
	buffer_put(buffers, &out[1]);
	ck_assert(
		event_came(large.event_fd)); /* 1 and 2, or 0 and 1: whichever small did not take */
	buffer_put(buffers, &large.buffer);
	buffer_put(buffers, &small.buffer);
	buffer_put(buffers, &out[3]);
	close(large.event_fd);
	close(small.event_fd);
	buffers_end(buffers);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

START_TEST(who_gives_up_lets_those_behind_have_it)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer out = buffer_get(buffers, 2);
	struct memslot_buffer_waiter large = buffer_waiter(event_new(), 3),
				     small = buffer_waiter(event_new(), 2);

	ck_assert_int_eq(memslot_buffers_wait(buffers, &large), 0);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &small), 0);
	ck_assert(!event_came(small.event_fd));
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &large), 0);
	ck_assert(event_came(small.event_fd));
	buffer_put(buffers, &small.buffer);
	buffer_put(buffers, &out);
	close(large.event_fd);
	close(small.event_fd);
	buffers_end(buffers);
}
END_TEST

static void *acquire_three_for_a_while(void *argument)
{
	struct memslot_buffer buffer;

	return (void *)(intptr_t)memslot_buffers_acquire(argument, 3, 30000000, &buffer);
}

START_TEST(whose_time_is_over_lets_those_behind_have_it)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer out = buffer_get(buffers, 2);
	struct memslot_buffer_waiter small = buffer_waiter(event_new(), 2);
	pthread_t thread;
	void *answer;

	ck_assert_int_eq(pthread_create(&thread, NULL, acquire_three_for_a_while, buffers), 0);
	while (buffers_stats(buffers).waits == 0)
		sched_yield();
	ck_assert_int_eq(memslot_buffers_wait(buffers, &small), 0);
	pthread_join(thread, &answer);
	ck_assert_int_eq((int)(intptr_t)answer, -ETIMEDOUT);
	ck_assert(event_came(small.event_fd));
	buffer_put(buffers, &small.buffer);
	buffer_put(buffers, &out);
	close(small.event_fd);
	buffers_end(buffers);
}
END_TEST

START_TEST(waiting_requests_that_no_longer_fit_are_told)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer all = buffer_get(buffers, 4);
	struct memslot_buffer_waiter large = buffer_waiter(event_new(), 3),
				     small = buffer_waiter(event_new(), 1);

	ck_assert_int_eq(memslot_buffers_wait(buffers, &large), 0);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &small), 0);
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, 8 * KB), 0);
	ck_assert(event_came(large.event_fd) && !event_came(small.event_fd));
	ck_assert_ptr_null(large.buffer.base);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &large), -EMSGSIZE);
	large = buffer_waiter(large.event_fd, 3);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &large), -EMSGSIZE);
	buffer_put(buffers, &all);
	ck_assert(event_came(small.event_fd));
	buffer_put(buffers, &small.buffer);
	close(large.event_fd);
	close(small.event_fd);
	buffers_end(buffers);
}
END_TEST

/* In one line at a time: another pool does not have it, and its own line stays whole. */
START_TEST(who_waits_for_one_pool_does_not_for_another)
{
	struct memslot_buffers *one = buffers_new(4 * KB, 4 * KB),
			       *two = buffers_new(4 * KB, 4 * KB);
	struct memslot_buffer first = buffer_get(one, 1), second = buffer_get(two, 1);
	struct memslot_buffer_waiter waiter = buffer_waiter(event_new(), 1);

	ck_assert_int_eq(memslot_buffers_wait(one, &waiter), 0);
	ck_assert_int_eq(memslot_buffers_wait(two, &waiter), -EALREADY);
	ck_assert_int_eq(memslot_buffers_wait_cancel(two, &waiter), -EINVAL);
	ck_assert_uint_eq(buffers_stats(two).waiters, 0);
	buffer_put(two, &second);
	ck_assert(!event_came(waiter.event_fd));
	buffer_put(one, &first);
	ck_assert(event_came(waiter.event_fd));
	buffer_put(one, &waiter.buffer);
	ck_assert_int_eq(memslot_buffers_wait(two, &waiter), 0);
	ck_assert(event_came(waiter.event_fd));
	buffer_put(two, &waiter.buffer);
	close(waiter.event_fd);
	buffers_end(one);
	buffers_end(two);
}
END_TEST

static void *set_two(void *argument)
{
	return (void *)(intptr_t)memslot_buffers_set_budget(argument, 8 * KB);
}

/* An eventfd that is full stops the thread which tells it, on its way through the line. */
START_TEST(who_comes_after_the_budget_was_raised_again_is_not_told_of_the_old_one)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer all = buffer_get(buffers, 4);
	struct memslot_buffer_waiter old = buffer_waiter(eventfd(0, EFD_CLOEXEC), 3),
				     late = buffer_waiter(event_new(), 3);
	uint64_t full = UINT64_MAX - 1;
	pthread_t thread;
	void *answer;

	ck_assert_int_eq(write(old.event_fd, &full, sizeof full), sizeof full);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &old), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, set_two, buffers), 0);
	while (buffers_stats(buffers).waiters)
		sched_yield();
	ck_assert_int_eq(memslot_buffers_set_budget(buffers, 16 * KB), 0);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &late), 0);
	ck_assert_int_eq(read(old.event_fd, &full, sizeof full), sizeof full);
	pthread_join(thread, &answer);
	ck_assert_int_eq((int)(intptr_t)answer, 0);
	ck_assert(!event_came(late.event_fd));
	buffer_put(buffers, &all);
	ck_assert(event_came(late.event_fd));
	buffer_put(buffers, &late.buffer);
	close(old.event_fd);
	close(late.event_fd);
	buffers_end(buffers);
}
END_TEST

/* --- close --- */

static void *close_for_ever(void *argument)
{
	return (void *)(intptr_t)memslot_buffers_close(argument, MEMSLOT_UNLIMITED, NULL);
}

static void *acquire_for_ever(void *argument)
{
	struct memslot_buffer buffer;

	return (void *)(intptr_t)memslot_buffers_acquire(argument, 1, MEMSLOT_UNLIMITED, &buffer);
}

/* Row F3. */
START_TEST(close_waits_for_what_is_out_and_frees_nothing_before)
{
	struct memslot_buffers *buffers = buffers_new(4 * KB, 16 * KB);
	struct memslot_buffer all = buffer_get(buffers, 4), more;
	struct memslot_buffer_waiter waiter = buffer_waiter(event_new(), 1);
	uint64_t outstanding = 0;
	pthread_t waits, closes;
	void *answer;

	ck_assert_int_eq(memslot_buffers_wait(buffers, &waiter), 0);
	ck_assert_int_eq(pthread_create(&waits, NULL, acquire_for_ever, buffers), 0);
	while (buffers_stats(buffers).waiters < 2)
		sched_yield();
	ck_assert_int_eq(memslot_buffers_close(buffers, 0, &outstanding), -ETIMEDOUT);
	ck_assert_uint_eq(outstanding, 4);
	ck_assert(event_came(waiter.event_fd));
	ck_assert_ptr_null(waiter.buffer.base);
	ck_assert_int_eq(memslot_buffers_wait_cancel(buffers, &waiter), -ESHUTDOWN);
	pthread_join(waits, &answer);
	ck_assert_int_eq((int)(intptr_t)answer, -ESHUTDOWN);
	ck_assert_int_eq(memslot_buffers_close(buffers, 100000, &outstanding), -ETIMEDOUT);
	ck_assert_int_eq(memslot_buffers_acquire(buffers, 1, 0, &more), -ESHUTDOWN);
	waiter = buffer_waiter(waiter.event_fd, 1);
	ck_assert_int_eq(memslot_buffers_wait(buffers, &waiter), -ESHUTDOWN);
	memset(all.base, 1, 4 * all.size);
	ck_assert_int_eq(pthread_create(&closes, NULL, close_for_ever, buffers), 0);
	sched_yield();
	buffer_put(buffers, &all);
	pthread_join(closes, &answer);
	ck_assert_int_eq((int)(intptr_t)answer, 0);
	close(waiter.event_fd);
}
END_TEST

/* --- children --- */

static struct memslot_buffers *shared;
static struct memslot_buffer kept;

static int use_in_child(void *argument)
{
	struct memslot_buffer mine, large;

	(void)argument;
	child_check(test_filled(kept.base, kept.size, 7));
	test_fill(kept.base, kept.size, 8);
	child_check(memslot_buffers_acquire(shared, 1, 0, &mine) == 0);
	child_check(memslot_buffers_acquire(shared, 200, 0, &large) == 0); /* a new area */
	test_fill(large.base, 200 * large.size, 1);
	child_check(memslot_buffers_release(shared, &mine) == 0);
	child_check(memslot_buffers_release(shared, &large) == 0);
	child_check(memslot_buffers_release(shared, &kept) == 0);
	child_check(memslot_buffers_set_budget(shared, MB) == 0);
	child_check(memslot_buffers_close(shared, 0, NULL) == 0);
	return 0;
}

/* Invariant 18: before a ring was attached a child has its own copy, waiters are forgotten. */
START_TEST(invariant_18_a_child_has_its_own_copy)
{
	struct memslot_buffer_waiter waiter = buffer_waiter(event_new(), 256);

	shared = buffers_new(4 * KB, MB);
	kept = buffer_get(shared, 1);
	test_fill(kept.base, kept.size, 7);
	ck_assert_int_eq(memslot_buffers_wait(shared, &waiter), 0);
	ck_assert_int_eq(test_in_child(use_in_child, NULL), 0);
	ck_assert_int_eq(test_in_clone(use_in_child, NULL), 0);
	ck_assert(test_filled(kept.base, kept.size, 7));
	buffer_put(shared, &kept);
	ck_assert(event_came(waiter.event_fd));
	buffer_put(shared, &waiter.buffer);
	close(waiter.event_fd);
	buffers_end(shared);
}
END_TEST

static int use_hidden_in_child(void *argument)
{
	struct memslot_buffer buffer;

	(void)argument;
	child_check(memslot_buffers_acquire(shared, 1, 0, &buffer) == -ESTALE);
	child_check(memslot_buffers_release(shared, &kept) == -ESTALE);
	child_check(memslot_buffers_close(shared, 0, NULL) == 0);
	return 0;
}

/* Invariant 20: slots that children do not have. */
START_TEST(invariant_20_buffers_of_a_pool_without_children_are_dead_there)
{
	struct memslot_pool_opts slots =
		MEMSLOT_OPTS(memslot_pool_opts, .flags = MEMSLOT_SLOT_DONTFORK);
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .buffer_size = 4 * KB);

	ck_assert_int_eq(memslot_pool_create(2, MB, &slots, &opts.pool), 0);
	ck_assert_int_eq(memslot_buffers_create(&opts, &shared), 0);
	kept = buffer_get(shared, 1);
	ck_assert_int_eq(test_in_child(use_hidden_in_child, NULL), 0);
	buffer_put(shared, &kept);
	buffers_end(shared);
	ck_assert_int_eq(memslot_pool_destroy(opts.pool), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers");
	TCase *tcase = test_case(suite, "create");

	tcase_add_test(tcase, every_size_of_buffer_works);
	tcase_add_test(tcase, bad_options_are_refused);
	tcase_add_test(tcase, a_buffer_that_does_not_fit_into_the_slots_is_refused);
	tcase_add_test(tcase, null_is_refused_everywhere);
	tcase = test_case(suite, "handles");
	tcase_add_loop_test(tcase, a_handle_from_the_past_is_stale, 1, 3);
	tcase_add_test(tcase, a_handle_names_one_acquisition);
	tcase_add_loop_test(tcase, references_count, 1, 3);
	tcase = test_case(suite, "contents");
	tcase_add_test(tcase, with_zero_nobody_sees_what_was_there);
	tcase_add_test(tcase, buffers_that_are_out_do_not_overlap);
	tcase = test_case(suite, "budget");
	tcase_add_test(tcase, the_budget_counts_what_is_out_to_the_last_buffer);
	tcase_add_test(tcase, scattered_buffers_make_the_pool_grow);
	tcase_add_test(tcase, a_budget_without_limit_is_one);
	tcase_add_test(tcase, a_lower_budget_holds_from_now_on_and_a_higher_one_too);
	tcase_add_test(tcase, a_lower_budget_gives_slots_back);
	tcase_add_test(tcase, the_slots_underneath_are_held);
	tcase_add_test(tcase, what_magazines_keep_is_not_lost_to_others);
	tcase = test_case(suite, "waiting");
	tcase_add_test(tcase, first_come_first_served);
	tcase_add_test(tcase, what_is_there_comes_at_once);
	tcase_add_test(tcase, a_large_waiter_is_not_overtaken_for_its_credits);
	tcase_add_test(tcase, who_finds_no_adjacent_run_lets_the_next_pass_and_keeps_its_place);
	tcase_add_test(tcase, who_gives_up_lets_those_behind_have_it);
	tcase_add_test(tcase, whose_time_is_over_lets_those_behind_have_it);
	tcase_add_test(tcase, waiting_requests_that_no_longer_fit_are_told);
	tcase_add_test(tcase, who_waits_for_one_pool_does_not_for_another);
	tcase_add_test(
		tcase, who_comes_after_the_budget_was_raised_again_is_not_told_of_the_old_one);
	tcase = test_case(suite, "ends");
	tcase_add_test(tcase, close_waits_for_what_is_out_and_frees_nothing_before);
	tcase_add_test(tcase, invariant_18_a_child_has_its_own_copy);
	tcase_add_test(tcase, invariant_20_buffers_of_a_pool_without_children_are_dead_there);
	return suite;
}
