/* SPDX-License-Identifier: MIT */
/*
 * test_pool.c - one pool, one thread: who gets which slot, what it shows, what becomes of it.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define COUNT 8u
#define CAPACITY PAGES(40)

static struct memslot_pool *pool_new(uint32_t count, const struct memslot_pool_opts *opts)
{
	struct memslot_pool *pool = NULL;

	ck_assert_int_eq(memslot_pool_create(count, CAPACITY, opts, &pool), 0);
	return pool;
}

/* The same three edges as for slots (slots.h): 0 marker, 1 mprotect, 2 none. */
static struct memslot_pool_opts edge_opts(int edge)
{
	return MEMSLOT_OPTS(memslot_pool_opts, .flags = edge == 2 ? MEMSLOT_SLOT_NO_EDGE : 0,
			.reserve = edge == 1 ? BIG_RESERVE : 0);
}

/* Slots handed out in this test, for those that end with some of them out. */
static struct memslot_slot *handed[8192];
static unsigned handed_count;

static void pool_destroy_with_slots(struct memslot_pool *pool)
{
	while (handed_count)
		(void)memslot_pool_release(pool, handed[--handed_count]); /* most are back */
	ck_assert_int_eq(memslot_pool_flush(pool), 0);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}

static void pool_destroy(struct memslot_pool *pool)
{
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}

static struct memslot_slot *acquire_with(struct memslot_pool *pool, struct memslot_image *image,
		size_t size, const struct memslot_acquire_opts *opts)
{
	struct memslot_slot *slot = NULL;

	ck_assert_int_eq(memslot_pool_acquire(pool, image, size, opts, &slot), 0);
	ck_assert_uint_eq(memslot_slot_size(slot), size);
	ck_assert_ptr_eq(memslot_slot_image(slot), image);
	handed[handed_count < 8191 ? handed_count++ : handed_count] = slot;
	return slot;
}

static struct memslot_slot *acquire(struct memslot_pool *pool, struct memslot_image *image)
{
	return acquire_with(pool, image, CAPACITY, NULL);
}

static void release(struct memslot_pool *pool, struct memslot_slot *slot)
{
	ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
}

static struct memslot_pool_stats pool_stats(const struct memslot_pool *pool)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	ck_assert_int_eq(memslot_pool_stats(pool, &stats), 0);
	return stats;
}

static int try_acquire(struct memslot_pool *pool)
{
	struct memslot_slot *slot;

	return memslot_pool_acquire(pool, NULL, PAGES(1), NULL, &slot);
}

static struct memslot_location where_is(const struct memslot_pool *pool, const void *address)
{
	struct memslot_location location = {.size = sizeof location};

	ck_assert_int_eq(memslot_pool_locate(pool, address, &location), 0);
	return location;
}

/* --- out and back --- */

START_TEST(every_tenant_finds_its_image_and_nothing_else)
{
	struct memslot_image *images[] = {image_of(10, 20, 4), image_of(3, 2, 5), NULL};
	struct memslot_pool_opts opts = edge_opts(_i % 3);
	struct memslot_acquire_opts take = MEMSLOT_OPTS(memslot_acquire_opts,
			.flags = _i / 3 ? MEMSLOT_SLOT_CONFINED : 0);
	struct memslot_pool *pool;
	struct test_rng rng = test_rng(7);

	opts.drop_batch_count = 1 + (uint64_t)(_i % 4);
	pool = pool_new(4, &opts);
	for (unsigned i = 0; i < test_rounds(600); i++) {
		unsigned which = (unsigned)test_below(&rng, 3);
		size_t size = PAGES(30 + test_below(&rng, 11));
		struct memslot_slot *slot;
		take.affinity_key = test_below(&rng, 2);
		slot = acquire_with(pool, images[which], size, &take);
		if (which == 0)
			assert_shows(slot, 10, 20, 4, size);
		else
			assert_shows(slot, 3, which == 1 ? 2 : 0, 5, size);
		if (_i % 3 != 2 && size < CAPACITY)
			assert_closed(base_of(slot) + size);
		if (i % 5 == 0)
			ck_assert_int_eq(memslot_slot_resize(slot, CAPACITY), 0);
		dirty_pages(slot, test_below(&rng, 10), test_below(&rng, 20), 1);
		if (i % 5 == 0)
			dirty_pages(slot, 38, 2, 1);
		if (i % 7 == 0)
			ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(3), PROT_READ), 0);
		if (i % 11 == 0)
			ck_assert_int_eq(memslot_slot_exempt(slot, 0, PAGES(30)), 0);
		release(pool, slot);
		if (i % 13 == 0)
			ck_assert_int_eq(memslot_pool_flush(pool), 0);
	}
	ck_assert_uint_eq(pool_stats(pool).live, 0);
	ck_assert_uint_eq(pool_stats(pool).quarantined, 0);
	for (int i = 0; i < 2; i++)
		memslot_image_unref(images[i]);
	pool_destroy(pool);
}
END_TEST

START_TEST(slots_have_an_index_a_ticket_and_their_own_address)
{
	struct memslot_pool *pool = pool_new(COUNT, NULL);
	struct memslot_slot *slots[COUNT];
	uint64_t last = 0;

	for (uint32_t i = 0; i < COUNT; i++) {
		slots[i] = acquire(pool, NULL);
		ck_assert_uint_eq(memslot_slot_index(slots[i]), i);
		ck_assert_uint_gt(memslot_slot_ticket(slots[i]), last);
		last = memslot_slot_ticket(slots[i]);
		if (i)
			ck_assert_uint_ge((size_t)(base_of(slots[i]) - base_of(slots[i - 1])),
					CAPACITY + (64 << 10));
		assert_open(base_of(slots[i]));
		assert_closed(base_of(slots[i]) + CAPACITY);
		ck_assert_int_eq(memslot_slot_destroy(slots[i]), -EINVAL);
	}
	ck_assert_int_eq(memslot_pool_destroy(pool), -EBUSY);
	for (uint32_t i = 0; i < COUNT; i++)
		release(pool, slots[i]);
	pool_destroy(pool);
}
END_TEST

START_TEST(invariant_23_double_foreign_and_late_releases_harm_nobody)
{
	struct memslot_pool *pool = pool_new(2, NULL), *other = pool_new(1, NULL);
	struct memslot_slot *slot = acquire(pool, NULL), *own = slot_new(CAPACITY, NULL);
	struct memslot_slot *foreign = acquire(other, NULL);
	uint64_t ticket = memslot_slot_ticket(slot);

	ck_assert_int_eq(memslot_pool_release(pool, NULL), -EINVAL);
	ck_assert_int_eq(memslot_pool_release(NULL, slot), -EINVAL);
	ck_assert_int_eq(memslot_pool_release(pool, own), -EINVAL);
	ck_assert_int_eq(memslot_pool_release(pool, foreign), -EINVAL);
	ck_assert_int_eq(memslot_pool_release(pool, (struct memslot_slot *)((char *)slot + 8)), -EINVAL);
	ck_assert_int_eq(memslot_pool_release_ticket(pool, slot, ticket + 1), -ESTALE);
	ck_assert_int_eq(memslot_pool_release_ticket(pool, slot, 0), -ESTALE);
	ck_assert_int_eq(memslot_pool_release_ticket(pool, slot, ticket), 0);
	ck_assert_int_eq(memslot_pool_release_ticket(pool, slot, ticket), -ESTALE);
	ck_assert_int_eq(memslot_pool_release(pool, slot), -ESTALE);
	ck_assert_ptr_eq(acquire(pool, NULL), slot);
	ck_assert_int_eq(memslot_pool_release_ticket(pool, slot, ticket), -ESTALE);
	base_of(slot)[0] = 1; /* still ours */
	/* Calls on a slot that is not out are refused and change nothing. */
	release(pool, slot);
	ck_assert_int_eq(memslot_slot_reset(slot), -EBUSY);
	ck_assert_int_eq(memslot_slot_resize(slot, PAGES(1)), -EBUSY);
	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), -EBUSY);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, PAGES(1)), -EBUSY);
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(1)), -EBUSY);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), -EBUSY);
	ck_assert_int_eq(memslot_slot_protect(slot, 0, PAGES(1), PROT_READ), -EBUSY);
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), -EINVAL);
	ck_assert_uint_eq(memslot_slot_capacity(slot), CAPACITY);
	release(other, foreign);
	destroy(own);
	pool_destroy(pool);
	pool_destroy(other);
}
END_TEST

START_TEST(the_order_of_hand_outs)
{
	struct memslot_image *a = image_of(0, 20, 4), *b = image_of(0, 20, 5);
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .max_warm = 2);
	struct memslot_acquire_opts key = MEMSLOT_OPTS(memslot_acquire_opts, .affinity_key = 9);
	struct memslot_acquire_opts cold =
			MEMSLOT_OPTS(memslot_acquire_opts, .flags = MEMSLOT_ACQUIRE_COLD);
	struct memslot_pool *pool = pool_new(4, &opts);
	struct memslot_slot *s[4];

	for (int i = 0; i < 3; i++)
		s[i] = acquire(pool, i == 2 ? b : a);
	release(pool, s[0]);
	release(pool, s[1]);
	/* The most recently used one of the same image. */
	ck_assert_ptr_eq(acquire(pool, a), s[1]);
	release(pool, s[1]);
	/* Two are warm, as many as may be: the least recently used one, though one was never used. */
	ck_assert_ptr_eq(acquire(pool, b), s[0]);
	release(pool, s[2]);
	/* The same image under another key counts as another. */
	ck_assert_ptr_eq(acquire_with(pool, a, CAPACITY, &key), s[1]);
	assert_shows(s[1], 0, 20, 4, CAPACITY);
	release(pool, s[1]);
	ck_assert_uint_eq(pool_stats(pool).affinity_hits, 1);
	/* A cold one when asked for. */
	s[3] = acquire_with(pool, b, CAPACITY, &cold);
	ck_assert_uint_eq(memslot_slot_index(s[3]), 3);
	/* No cold one is left: a warm one after a drop. */
	release(pool, s[3]);
	release(pool, s[0]);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 4);
	ck_assert_ptr_eq(acquire_with(pool, b, CAPACITY, &cold), s[2]);
	ck_assert_uint_eq(stats_of(s[2]).retained_pages, 0);
	release(pool, s[2]);
	ck_assert_uint_eq(pool_stats(pool).image_bytes, PAGES(40)); /* a under key 9, b */
	memslot_image_unref(a);
	memslot_image_unref(b);
	pool_destroy(pool);
}
END_TEST

START_TEST(another_key_never_sees_which_pages_were_resident)
{
	struct memslot_acquire_opts key = MEMSLOT_OPTS(memslot_acquire_opts, .affinity_key = 1);
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool;
	struct memslot_slot *slot;
	unsigned char present[40];

	NEED_FEATURE("dontneed");
	opts.reset_method = MEMSLOT_RESET_SCAN;
	pool = pool_new(1, &opts);
	slot = acquire_with(pool, NULL, CAPACITY, &key);
	dirty_all(slot);
	release(pool, slot);
	key.affinity_key = 2;
	slot = acquire_with(pool, NULL, CAPACITY, &key);
	ck_assert_int_eq(mincore(base_of(slot), CAPACITY, present), 0);
	for (size_t i = 0; i < 40; i++)
		ck_assert_uint_eq(present[i] & 1, 0);
	release(pool, slot);
	pool_destroy(pool);
}
END_TEST

START_TEST(sizes_that_do_not_fit_are_emsgsize)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool *pool = pool_new(1, NULL);
	struct memslot_slot *slot = (struct memslot_slot *)1;

	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, CAPACITY + 1, NULL, &slot), -EMSGSIZE);
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, SIZE_MAX, NULL, &slot), -EMSGSIZE);
	ck_assert_int_eq(memslot_pool_acquire(pool, image, PAGES(29), NULL, &slot), -EMSGSIZE);
	ck_assert_int_eq(memslot_pool_acquire(pool, image, PAGES(29), NULL, NULL), -EINVAL);
	ck_assert_int_eq(memslot_pool_acquire(NULL, image, PAGES(30), NULL, &slot), -EINVAL);
	ck_assert_ptr_eq(slot, (struct memslot_slot *)1);
	ck_assert_uint_eq(pool_stats(pool).live, 0);
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .flags = 0);
	struct memslot_acquire_opts take = MEMSLOT_OPTS(memslot_acquire_opts, .flags = 1);
	struct memslot_pool *pool = (struct memslot_pool *)1;
	struct memslot_slot *slot;

	ck_assert_int_eq(memslot_pool_create(0, CAPACITY, NULL, &pool), -EINVAL);
	ck_assert_int_eq(memslot_pool_create(1, 0, NULL, &pool), -EINVAL);
	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, NULL, NULL), -EINVAL);
	ck_assert_int_eq(memslot_pool_create(UINT32_MAX, CAPACITY, NULL, &pool), -EINVAL);
	ck_assert_int_eq(memslot_pool_create(2, SIZE_MAX / 2, NULL, &pool), -EMSGSIZE);
	ck_assert_int_eq(memslot_pool_create(1u << 31, (size_t)1 << 40, NULL, &pool), -EMSGSIZE);
	opts.flags = 1u << 17;
	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, &opts, &pool), -EINVAL);
	opts.flags = 0;
	opts.reset_method = 77;
	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, &opts, &pool), -EINVAL);
	opts.reset_method = 0;
	opts.base_address = (void *)1;
	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, &opts, &pool), -EINVAL);
	opts.base_address = NULL;
	opts.reserve = PAGES(1);
	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, &opts, &pool), -EMSGSIZE);
	opts.size = 3;
	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, &opts, &pool), -EINVAL);
	ck_assert_ptr_eq(pool, (struct memslot_pool *)1);
	pool = pool_new(1, NULL);
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, PAGES(1), &take, &slot), -EINVAL);
	pool_destroy(pool);
	ck_assert_int_eq(memslot_pool_destroy(NULL), 0);
}
END_TEST

START_TEST(a_base_address_is_had_in_one_piece_or_not_at_all)
{
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool = pool_new(4, &opts), *other = NULL;
	struct memslot_slot *slot = acquire(pool, NULL);
	unsigned char *at = base_of(slot);

	opts.base_address = at;
	ck_assert_int_eq(memslot_pool_create(4, CAPACITY, &opts, &other), -EADDRNOTAVAIL);
	ck_assert_ptr_eq(other, NULL);
	memset(at, 1, CAPACITY); /* nothing was replaced */
	release(pool, slot);
	pool_destroy(pool);
	ck_assert_int_eq(memslot_pool_create(4, CAPACITY, &opts, &other), 0);
	slot = acquire(other, NULL);
	ck_assert_ptr_eq(base_of(slot), at);
	release(other, slot);
	pool_destroy(other);
}
END_TEST

START_TEST(a_bound_image_gets_the_slot_at_its_address)
{
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool, *other;
	struct memslot_image *image;
	struct memslot_slot *s[3], *got = NULL;
	uint32_t count;

	opts.flags |= MEMSLOT_SLOT_BOUND;
	pool = pool_new(3, &opts);
	other = pool_new(1, NULL);
	for (int i = 0; i < 3; i++)
		s[i] = acquire(pool, NULL);
	memset(base_of(s[1]), 7, PAGES(3));
	ck_assert_int_eq(memslot_slot_capture(s[1], NULL, &image), 0);
	ck_assert_int_eq(memslot_pool_acquire(pool, image, CAPACITY, NULL, &got), -EBUSY);
	for (int i = 0; i < 3; i++)
		release(pool, s[i]);
	ck_assert_ptr_eq(acquire(pool, image), s[1]);
	ck_assert_uint_eq(base_of(s[1])[PAGES(3) - 1], 7);
	release(pool, s[1]);
	ck_assert_int_eq(memslot_pool_acquire(other, image, CAPACITY, NULL, &got), -EADDRNOTAVAIL);
	ck_assert_int_eq(memslot_pool_prewarm(pool, image, CAPACITY, 1, &count), -EINVAL);
	memslot_image_unref(image);
	pool_destroy(pool);
	pool_destroy(other);
}
END_TEST

/* --- nothing left --- */

START_TEST(exhaustion_is_eagain_and_counted)
{
	struct memslot_acquire_opts take =
			MEMSLOT_OPTS(memslot_acquire_opts, .timeout_ns = 2000000);
	struct memslot_pool *pool = pool_new(1, NULL);
	struct memslot_slot *slot = acquire(pool, NULL), *other;

	ck_assert_int_eq(try_acquire(pool), -EAGAIN);
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, PAGES(1), &take, &other), -ETIMEDOUT);
	ck_assert_uint_eq(pool_stats(pool).exhausted, 2);
	ck_assert_uint_eq(pool_stats(pool).waits, 1);
	ck_assert_uint_eq(pool_stats(pool).waiters, 0);
	release(pool, slot);
	ck_assert_ptr_eq(acquire_with(pool, NULL, PAGES(1), &take), slot);
	release(pool, slot);
	pool_destroy(pool);
}
END_TEST

static struct memslot_slot_waiter waiter_new(struct memslot_image *image, uint64_t key)
{
	struct memslot_slot_waiter waiter = {.size = sizeof waiter, .image = image,
			.slot_size = CAPACITY, .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

	waiter.opts = MEMSLOT_OPTS(memslot_acquire_opts, .affinity_key = key);
	return waiter;
}

static bool event_came(const struct memslot_slot_waiter *waiter)
{
	uint64_t count = 0;

	return read(waiter->event_fd, &count, sizeof count) == sizeof count && count == 1;
}

START_TEST(waiters_with_an_event_are_served_in_order)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool = pool_new(1, &opts);
	struct memslot_slot *slot = acquire(pool, NULL);
	struct memslot_slot_waiter w[3];

	for (int i = 0; i < 3; i++) {
		w[i] = waiter_new(image, (uint64_t)i);
		ck_assert_int_eq(memslot_pool_wait(pool, &w[i]), 0);
		ck_assert_int_eq(memslot_pool_wait(pool, &w[i]), -EALREADY);
	}
	ck_assert_int_eq(memslot_pool_destroy(pool), -EBUSY);
	dirty_all(slot);
	ck_assert_int_eq(memslot_pool_wait_cancel(pool, &w[1]), 0);
	ck_assert_int_eq(memslot_pool_wait_cancel(pool, &w[1]), -EINVAL);
	for (int i = 0; i < 3; i += 2) {
		size_t count;
		ck_assert(!event_came(&w[i]));
		release(pool, slot);
		ck_assert(event_came(&w[i]));
		ck_assert_int_eq(memslot_pool_wait_cancel(pool, &w[i]), -EALREADY);
		ck_assert_ptr_eq(w[i].slot, slot);
		ck_assert_int_eq(try_acquire(pool), -EAGAIN);
		/* Unknown until it is instantiated. */
		ck_assert_int_eq(memslot_slot_written(slot, NULL, 0, &count), -ESTALE);
		ck_assert_int_eq(memslot_slot_reset(slot), -ESTALE);
		ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), -ESTALE);
		ck_assert_int_eq(memslot_slot_instantiate(slot, image, PAGES(2)), -EMSGSIZE);
		ck_assert_int_eq(memslot_slot_instantiate(slot, image, CAPACITY), 0);
		assert_shows(slot, 10, 20, 4, CAPACITY);
		dirty_all(slot);
	}
	release(pool, slot);
	/* At once when there is one; given back as it came. */
	ck_assert_int_eq(memslot_pool_wait(pool, &w[1]), 0);
	ck_assert(event_came(&w[1]));
	ck_assert_ptr_eq(w[1].slot, slot);
	release(pool, slot);
	ck_assert_int_eq(memslot_pool_release(pool, slot), -ESTALE);
	slot = acquire(pool, NULL);
	assert_zeros(slot, CAPACITY);
	release(pool, slot);
	for (int i = 0; i < 3; i++)
		close(w[i].event_fd);
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

START_TEST(waiters_that_make_no_sense_are_refused)
{
	struct memslot_pool *pool = pool_new(1, NULL);
	struct memslot_slot_waiter waiter = waiter_new(NULL, 0), bad = waiter;

	ck_assert_int_eq(memslot_pool_wait(pool, NULL), -EINVAL);
	ck_assert_int_eq(memslot_pool_wait_cancel(pool, &bad), -EINVAL);
	bad.event_fd = -1;
	ck_assert_int_eq(memslot_pool_wait(pool, &bad), -EINVAL);
	bad = waiter;
	bad.slot_size = CAPACITY + 1;
	ck_assert_int_eq(memslot_pool_wait(pool, &bad), -EMSGSIZE);
	bad = waiter;
	bad.flags = 1;
	ck_assert_int_eq(memslot_pool_wait(pool, &bad), -EINVAL);
	bad = waiter;
	bad.opts.flags = 1;
	ck_assert_int_eq(memslot_pool_wait(pool, &bad), -EINVAL);
	ck_assert_uint_eq(pool_stats(pool).waiters, 0);
	close(waiter.event_fd);
	pool_destroy(pool);
}
END_TEST

/* By whom it is freed does not matter: what waits to be dropped is dropped first. */
START_TEST(a_waiter_never_gets_what_is_still_to_be_dropped)
{
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_slot_waiter waiter = waiter_new(NULL, 0);
	struct memslot_pool *pool;
	struct memslot_slot *slot;

	opts.reset_method = MEMSLOT_RESET_DROP;
	pool = pool_new(1, &opts);
	slot = acquire(pool, NULL);
	ck_assert_int_eq(memslot_pool_wait(pool, &waiter), 0);
	dirty_all(slot);
	release(pool, slot);
	ck_assert(event_came(&waiter));
	ck_assert_int_eq(memslot_slot_instantiate(waiter.slot, NULL, CAPACITY), 0);
	assert_zeros(waiter.slot, CAPACITY);
	release(pool, waiter.slot);
	close(waiter.event_fd);
	pool_destroy(pool);
}
END_TEST

static void assert_nothing_resident(const struct memslot_slot *slot)
{
	unsigned char present[40];

	ck_assert_int_eq(mincore(base_of(slot), CAPACITY, present), 0);
	for (size_t i = 0; i < 40; i++)
		ck_assert_uint_eq(present[i] & 1, 0);
}

START_TEST(a_waiter_under_another_key_finds_nothing_resident)
{
	struct memslot_pool_opts opts = edge_opts(_i % 3);
	struct memslot_slot_waiter waiter = waiter_new(NULL, _i < 3 ? 2 : 1);
	struct memslot_acquire_opts key = MEMSLOT_OPTS(memslot_acquire_opts, .affinity_key = 1);
	struct memslot_pool *pool;
	struct memslot_slot *slot;

	NEED_FEATURE("dontneed");
	opts.reset_method = MEMSLOT_RESET_SCAN;
	if (_i >= 3) /* the same key, but cold */
		waiter.opts.flags = MEMSLOT_ACQUIRE_COLD;
	pool = pool_new(1, &opts);
	for (int queued = 0; queued < 2; queued++) { /* served by release, and at once */
		slot = acquire_with(pool, NULL, CAPACITY, &key);
		if (queued)
			ck_assert_int_eq(memslot_pool_wait(pool, &waiter), 0);
		dirty_all(slot);
		release(pool, slot);
		if (!queued)
			ck_assert_int_eq(memslot_pool_wait(pool, &waiter), 0);
		ck_assert(event_came(&waiter));
		ck_assert_int_eq(memslot_slot_instantiate(waiter.slot, NULL, CAPACITY), 0);
		assert_nothing_resident(waiter.slot);
		release(pool, waiter.slot);
	}
	close(waiter.event_fd);
	pool_destroy(pool);
}
END_TEST

static void *write_secret(void *at)
{
	*(volatile unsigned char *)at = 'S';
	return NULL;
}

/* One hand-out's promise says nothing about the next. */
START_TEST(invariant_07_a_promise_ends_with_its_hand_out)
{
	struct memslot_acquire_opts confined =
			MEMSLOT_OPTS(memslot_acquire_opts, .flags = MEMSLOT_SLOT_CONFINED);
	struct memslot_pool_opts opts =
			MEMSLOT_OPTS(memslot_pool_opts, .reset_method = MEMSLOT_RESET_RESTORE);
	struct memslot_slot_waiter waiter = waiter_new(NULL, 0);
	struct memslot_pool *pool = pool_new(1, &opts);
	struct memslot_slot *slot;
	pthread_t thread;

	for (size_t round = 0; round < 30; round++) {
		for (int i = 0; i < 2; i++) {
			slot = acquire_with(pool, NULL, CAPACITY, &confined);
			assert_zeros(slot, CAPACITY);
			dirty_pages(slot, 0, 3, 1);
			release(pool, slot);
		}
		if (_i) {
			ck_assert_int_eq(memslot_pool_wait(pool, &waiter), 0);
			ck_assert(event_came(&waiter));
			ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, CAPACITY), 0);
		} else {
			acquire(pool, NULL);
		}
		ck_assert_int_eq(pthread_create(&thread, NULL, write_secret,
						 base_of(slot) + PAGES(5 + round)), 0);
		pthread_join(thread, NULL);
		release(pool, slot);
		slot = acquire_with(pool, NULL, CAPACITY, &confined);
		assert_zeros(slot, CAPACITY);
		release(pool, slot);
	}
	close(waiter.event_fd);
	pool_destroy(pool);
}
END_TEST

/* --- held --- */

START_TEST(invariant_16_a_slot_released_while_held_waits_for_the_last_unhold)
{
	static const uint32_t kinds[] = {MEMSLOT_HOLD_IO, MEMSLOT_HOLD_PIN};
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool = pool_new(1, &opts);

	for (int k = 0; k < 2; k++) {
		struct memslot_slot *slot = acquire(pool, NULL);
		ck_assert_int_eq(memslot_slot_hold(slot, kinds[k]), 0);
		ck_assert_int_eq(memslot_slot_hold(slot, kinds[k]), 0);
		dirty_all(slot);
		release(pool, slot);
		ck_assert_int_eq(memslot_pool_release(pool, slot), -ESTALE);
		ck_assert_int_eq(memslot_slot_hold(slot, kinds[k]), -EBUSY);
		ck_assert_uint_eq(pool_stats(pool).held, 1);
		ck_assert_int_eq(try_acquire(pool), -EAGAIN);
		ck_assert_int_eq(memslot_pool_maintain(pool), 0);
		ck_assert_uint_eq(base_of(slot)[0], 0xdd); /* untouched */
		ck_assert_int_eq(memslot_slot_unhold(slot, kinds[k]), 0);
		ck_assert_int_eq(memslot_pool_destroy(pool), -EBUSY);
		base_of(slot)[PAGES(2)] = 'D'; /* the device, at the last moment */
		ck_assert_int_eq(memslot_slot_unhold(slot, kinds[k]), 0);
		ck_assert_uint_eq(pool_stats(pool).held, 0);
		if (k)
			ck_assert_int_eq(memslot_pool_maintain(pool), 0);
		ck_assert_ptr_eq(acquire(pool, NULL), slot);
		assert_zeros(slot, CAPACITY);
		release(pool, slot);
	}
	pool_destroy(pool);
}
END_TEST

START_TEST(the_last_unhold_serves_a_waiter)
{
	struct memslot_pool *pool = pool_new(1, NULL);
	struct memslot_slot *slot = acquire(pool, NULL);
	struct memslot_slot_waiter waiter = waiter_new(NULL, 0);

	ck_assert_int_eq(memslot_slot_hold(slot, MEMSLOT_HOLD_IO), 0);
	dirty_all(slot);
	release(pool, slot);
	ck_assert_int_eq(memslot_pool_wait(pool, &waiter), 0);
	ck_assert(!event_came(&waiter));
	ck_assert_int_eq(memslot_slot_unhold(slot, MEMSLOT_HOLD_IO), 0);
	ck_assert(event_came(&waiter));
	ck_assert_int_eq(memslot_slot_instantiate(waiter.slot, NULL, CAPACITY), 0);
	assert_zeros(waiter.slot, CAPACITY);
	release(pool, waiter.slot);
	close(waiter.event_fd);
	pool_destroy(pool);
}
END_TEST

/* --- memory of idle slots --- */

static void use_all(struct memslot_pool *pool, uint32_t count, struct memslot_image *image)
{
	struct memslot_slot *slots[64];

	for (uint32_t i = 0; i < count; i++) {
		slots[i] = acquire(pool, image);
		dirty_pages(slots[i], 0, 10, 1);
	}
	for (uint32_t i = 0; i < count; i++)
		release(pool, slots[i]);
}

START_TEST(drops_are_queued_and_flushed_together)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
			.reset_method = MEMSLOT_RESET_DROP, .drop_batch_count = 6);
	struct memslot_pool *pool = pool_new(8, &opts);
	struct memslot_slot *slot;

	NEED_FEATURE("dontneed");
	use_all(pool, 5, image);
	ck_assert_uint_eq(pool_stats(pool).queued, 5);
	use_all(pool, 3, image); /* three that were never used: none of the queued */
	ck_assert_uint_eq(pool_stats(pool).queued, 2);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 6);
	ck_assert_int_eq(memslot_pool_flush(pool), 0);
	ck_assert_uint_eq(pool_stats(pool).queued, 0);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 8);
	for (int i = 0; i < 8; i++) {
		slot = acquire(pool, image);
		assert_shows(slot, 10, 20, 4, CAPACITY);
	}
	memslot_image_unref(image);
	pool_destroy_with_slots(pool);
}
END_TEST

START_TEST(an_acquire_that_a_flush_would_satisfy_does_not_fail)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
			.reset_method = MEMSLOT_RESET_DROP, .drop_batch_count = 64);
	struct memslot_pool *pool = pool_new(2, &opts);
	struct memslot_slot *slot;

	for (int i = 0; i < 10; i++) {
		use_all(pool, 2, NULL);
		slot = acquire(pool, NULL);
		assert_zeros(slot, CAPACITY);
		release(pool, slot);
	}
	pool_destroy(pool);
}
END_TEST

START_TEST(a_slot_with_nothing_to_drop_never_queues)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
			.flags = MEMSLOT_SLOT_CONFINED, .reset_method = MEMSLOT_RESET_DROP);
	struct memslot_pool *pool = pool_new(1, &opts);
	unsigned clean = 0;

	NEED_FEATURE("fault_counter");
	NEED_FEATURE("dontneed");
	SKIP_IF(test_sanitized(), "a sanitizer faults on its own account");
	release(pool, acquire_with(pool, NULL, 0, NULL));
	ck_assert_uint_eq(pool_stats(pool).queued, 0);
	for (int i = 0; i < 20; i++) { /* at the first ones this test itself faults */
		release(pool, acquire(pool, NULL));
		clean += pool_stats(pool).queued == 0;
		ck_assert_int_eq(memslot_pool_flush(pool), 0);
	}
	ck_assert_uint_ge(clean, 10);
	pool_destroy(pool);
}
END_TEST

START_TEST(the_idle_budget_bounds_what_idle_slots_keep)
{
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool;
	struct memslot_slot *slot;

	opts.idle_budget = PAGES(25);
	opts.reset_method = MEMSLOT_RESET_SCAN;
	pool = pool_new(8, &opts);
	for (int i = 0; i < 5; i++) {
		use_all(pool, 8, NULL);
		ck_assert_uint_le(pool_stats(pool).resident_bytes, PAGES(25));
		if (memslot_feature("pagemap_scan") == 1 && memslot_feature("dontneed") == 1)
			ck_assert_uint_eq(pool_stats(pool).resident_bytes, PAGES(20));
		ck_assert_uint_eq(pool_stats(pool).idle_warm, 8);
	}
	/* More than the budget alone. */
	slot = acquire(pool, NULL);
	dirty_all(slot);
	release(pool, slot);
	ck_assert_uint_le(pool_stats(pool).resident_bytes, PAGES(25));
	pool_destroy(pool);
}
END_TEST

START_TEST(trim_gives_back_the_least_recently_used_first)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool_opts opts =
			MEMSLOT_OPTS(memslot_pool_opts, .reset_method = MEMSLOT_RESET_SCAN);
	struct memslot_pool *pool = pool_new(8, &opts);
	struct memslot_slot *slot;
	size_t left = 1;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	use_all(pool, 8, image);
	ck_assert_uint_eq(pool_stats(pool).resident_bytes, PAGES(80));
	ck_assert_int_eq(memslot_pool_trim(pool, PAGES(35), &left), 0);
	ck_assert_uint_eq(left, PAGES(30));
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 8);
	slot = acquire(pool, image); /* the last one that was used kept its pages */
	ck_assert_uint_eq(stats_of(slot).retained_pages, 10);
	release(pool, slot);
	ck_assert_int_eq(memslot_pool_trim(pool, 0, NULL), 0);
	ck_assert_uint_eq(pool_stats(pool).resident_bytes, 0);
	slot = acquire(pool, image);
	assert_shows(slot, 10, 20, 4, CAPACITY);
	release(pool, slot);
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

START_TEST(prewarmed_slots_show_the_image)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool_opts opts =
			MEMSLOT_OPTS(memslot_pool_opts, .flags = _i ? MEMSLOT_SLOT_POPULATE : 0);
	struct memslot_pool *pool = pool_new(4, &opts);
	struct memslot_slot *slot = acquire(pool, NULL);
	uint32_t made = 9;

	ck_assert_int_eq(memslot_pool_prewarm(pool, image, CAPACITY, 2, &made), 0);
	ck_assert_uint_eq(made, 2);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 2);
	ck_assert_int_eq(memslot_pool_prewarm(pool, image, CAPACITY, 9, &made), 0);
	ck_assert_uint_eq(made, 1);
	ck_assert_int_eq(memslot_pool_prewarm(pool, image, PAGES(3), 9, &made), -EMSGSIZE);
	for (int i = 0; i < 3; i++)
		assert_shows(acquire(pool, image), 10, 20, 4, CAPACITY);
	ck_assert_uint_eq(pool_stats(pool).affinity_hits, 3);
	release(pool, slot);
	memslot_image_unref(image);
	pool_destroy_with_slots(pool);
}
END_TEST

START_TEST(invariant_26_a_forgotten_image_is_shown_nowhere)
{
	struct memslot_image *image = image_of(10, 20, 4), *other = image_of(0, 20, 5);
	struct memslot_pool_opts opts = edge_opts(_i % 3);
	struct memslot_pool *pool;
	struct memslot_slot *out, *changed;
	uint32_t count = 9;

	if (_i >= 3)
		opts.reset_method = MEMSLOT_RESET_DROP; /* some are queued */
	pool = pool_new(8, &opts);
	use_all(pool, 6, image);
	use_all(pool, 2, other);
	out = acquire(pool, image);
	changed = acquire(pool, other);
	ck_assert_int_eq(memslot_slot_instantiate(changed, image, CAPACITY), 0);
	dirty_all(out);
	ck_assert_int_eq(memslot_pool_forget(pool, image, &count), 0);
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(test_vma_count(base_of(out), 1), 1);
	assert_shows(changed, 10, 20, 4, CAPACITY);
	release(pool, out);
	release(pool, changed);
	ck_assert_int_eq(memslot_pool_flush(pool), 0);
	ck_assert_uint_le(pool_stats(pool).image_bytes, PAGES(20));
	/* Later acquires are not affected. */
	out = acquire(pool, image);
	assert_shows(out, 10, 20, 4, CAPACITY);
	release(pool, out);
	if (_i < 3)
		ck_assert_ptr_eq(acquire(pool, image), out);
	memslot_image_unref(image);
	memslot_image_unref(other);
	pool_destroy_with_slots(pool);
}
END_TEST

START_TEST(maintain_makes_old_slots_cold)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .max_age_ms = 20);
	struct memslot_pool *pool = pool_new(4, &opts);

	use_all(pool, 4, image);
	ck_assert_int_eq(memslot_pool_maintain(pool), 0);
	usleep(40000);
	ck_assert_int_eq(memslot_pool_maintain(pool), 0);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 0);
	ck_assert_uint_eq(pool_stats(pool).idle_cold, 4);
	ck_assert_uint_eq(pool_stats(pool).resident_bytes, 0);
	use_all(pool, 4, image);
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

START_TEST(a_checkpoints_image_that_nobody_has_is_let_go)
{
	struct memslot_pool *pool = pool_new(1, NULL);
	struct memslot_slot *slot = acquire(pool, NULL);
	struct memslot_image *image;

	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
	release(pool, slot);
	ck_assert_uint_eq(pool_stats(pool).idle_cold, 1);
	slot = acquire(pool, NULL);
	assert_zeros(slot, CAPACITY);
	dirty_all(slot);
	ck_assert_int_eq(memslot_slot_checkpoint(slot, &image), 0);
	release(pool, slot);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 1);
	slot = acquire(pool, image);
	ck_assert_uint_eq(base_of(slot)[5], 0xdd);
	release(pool, slot);
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

START_TEST(a_fresh_slot_starts_with_what_others_learnt)
{
	struct memslot_image *image = image_of(0, 40, 4);
	struct memslot_pool_opts opts =
			MEMSLOT_OPTS(memslot_pool_opts, .flags = MEMSLOT_SLOT_CONFINED);
	struct memslot_pool *pool = NULL;
	struct test_rng rng = test_rng(3);
	struct memslot_slot *first, *second;
	uint64_t dropped;
	bool keeps;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	ck_assert_int_eq(memslot_pool_create(2, PAGES(4096), &opts, &pool), 0);
	for (int i = 0; i < 3000; i++) { /* few random pages of many: better dropped */
		first = acquire_with(pool, image, PAGES(4096), NULL);
		for (int j = 0; j < 4; j++)
			base_of(first)[PAGES(test_below(&rng, 4096))] = 1;
		release(pool, first);
	}
	keeps = stats_of(first).resets_drop < 100 ||
			stats_of(first).last_method != MEMSLOT_RESET_DROP;
	if (keeps) {
		memslot_image_unref(image);
		pool_destroy(pool);
	}
	SKIP_IF(keeps, "on this machine, or just now, keeping pays");
	first = acquire_with(pool, image, PAGES(4096), NULL);
	second = acquire_with(pool, image, PAGES(4096), NULL);
	ck_assert_ptr_ne(first, second);
	for (int i = 0; i < 20; i++) {
		base_of(second)[PAGES(test_below(&rng, 4096))] = 1;
		ck_assert_int_eq(memslot_slot_reset(second), 0);
	}
	dropped = stats_of(second).resets_drop;
	ck_assert_uint_ge(dropped, 1);
	release(pool, first);
	release(pool, second);
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

START_TEST(small_images_that_stay_do_not_hide_what_can_go)
{
	struct memslot_image *small = image_of(0, 2, 4);
	struct memslot_pool_opts opts =
			MEMSLOT_OPTS(memslot_pool_opts, .reset_method = MEMSLOT_RESET_SCAN);
	struct memslot_pool *pool = pool_new(100, &opts);
	size_t left = 0;

	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("dontneed");
	for (int i = 0; i < 2; i++) { /* the ones with little go to the end of the list */
		struct memslot_slot *slots[100];
		for (int j = 0; j < 100; j++) {
			slots[j] = acquire(pool, j < 70 ? small : NULL);
			dirty_pages(slots[j], 0, j < 70 ? 2 : 10, 1);
		}
		for (int j = 0; j < 100; j++)
			release(pool, slots[j]);
	}
	ck_assert_uint_eq(pool_stats(pool).resident_bytes, PAGES(70 * 2 + 30 * 10));
	ck_assert_int_eq(memslot_pool_trim(pool, 0, &left), 0);
	ck_assert_uint_eq(left, PAGES(70 * 2));
	ck_assert_uint_eq(pool_stats(pool).resident_bytes, PAGES(70 * 2));
	memslot_image_unref(small);
	pool_destroy(pool);
}
END_TEST

START_TEST(trimmed_slots_are_as_old_as_they_were)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .max_age_ms = 60,
			.reset_method = MEMSLOT_RESET_SCAN);
	struct memslot_pool *pool = pool_new(4, &opts);

	use_all(pool, 4, NULL);
	usleep(50000);
	ck_assert_int_eq(memslot_pool_trim(pool, 0, NULL), 0);
	usleep(50000);
	ck_assert_int_eq(memslot_pool_maintain(pool), 0);
	ck_assert_uint_eq(pool_stats(pool).idle_warm, 0);
	pool_destroy(pool);
}
END_TEST

START_TEST(what_is_queued_is_flushed_for_a_bound_image_and_for_order)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .flags = MEMSLOT_SLOT_BOUND,
			.reset_method = MEMSLOT_RESET_DROP);
	struct memslot_pool *pool = pool_new(3, &opts);
	struct memslot_image *image;
	struct memslot_slot *s[3];

	for (int i = 0; i < 3; i++)
		s[i] = acquire(pool, NULL);
	dirty_all(s[0]);
	ck_assert_int_eq(memslot_slot_capture(s[0], NULL, &image), 0);
	for (int i = 0; i < 3; i++) {
		dirty_all(s[i]);
		release(pool, s[i]);
	}
	ck_assert_ptr_eq(acquire(pool, image), s[0]);
	ck_assert_ptr_eq(acquire(pool, NULL), s[2]); /* the last one released */
	memslot_image_unref(image);
	/* Nobody else has the image: it is let go, and the slot is cold. */
	release(pool, s[0]);
	ck_assert_uint_eq(pool_stats(pool).idle_cold, 1);
	release(pool, s[2]);
	ck_assert_int_eq(memslot_pool_flush(pool), 0);
	pool_destroy(pool);
}
END_TEST

START_TEST(no_time_is_no_waiting)
{
	struct memslot_acquire_opts take =
			MEMSLOT_OPTS(memslot_acquire_opts, .timeout_ns = MEMSLOT_NONE);
	struct memslot_pool *pool = pool_new(1, NULL);
	struct memslot_slot *slot = acquire(pool, NULL), *other;

	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, PAGES(1), &take, &other), -EAGAIN);
	release(pool, slot);
	pool_destroy(pool);
}
END_TEST

/* --- where is this address? --- */

START_TEST(every_address_is_located)
{
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_location location = {.size = sizeof location};
	struct memslot_pool *pool;
	struct memslot_slot *s[2];
	unsigned char *base;
	size_t reserve = _i == 1 ? BIG_RESERVE : CAPACITY;

	opts.guard_before = PAGES(3);
	pool = pool_new(2, &opts);
	s[0] = acquire_with(pool, NULL, PAGES(5), NULL);
	s[1] = acquire_with(pool, NULL, PAGES(6), NULL);
	base = base_of(s[0]);
	ck_assert_int_eq(where_is(pool, base - 1).kind, MEMSLOT_AT_GUARD_BEFORE);
	ck_assert_int_eq(where_is(pool, base - 1).offset, -1);
	ck_assert_int_eq(where_is(pool, base - PAGES(3)).kind, MEMSLOT_AT_GUARD_BEFORE);
	ck_assert_int_eq(memslot_pool_locate(pool, base - PAGES(3) - 1, &location), -ENOENT);
	ck_assert_int_eq(where_is(pool, base).kind, MEMSLOT_AT_INSIDE);
	ck_assert_ptr_eq(where_is(pool, base).slot, s[0]);
	ck_assert_int_eq(where_is(pool, base + PAGES(5) - 1).kind, MEMSLOT_AT_INSIDE);
	ck_assert_int_eq(where_is(pool, base + PAGES(5)).kind, MEMSLOT_AT_BEYOND_EDGE);
	ck_assert_int_eq(where_is(pool, base + reserve - 1).kind, MEMSLOT_AT_BEYOND_EDGE);
	ck_assert_int_eq(where_is(pool, base + reserve).kind, MEMSLOT_AT_GUARD_AFTER);
	ck_assert_int_eq(where_is(pool, base_of(s[1]) - 1).kind, MEMSLOT_AT_GUARD_AFTER);
	ck_assert_uint_eq(where_is(pool, base_of(s[1]) - 1).index, 0);
	ck_assert_uint_eq(where_is(pool, base_of(s[1])).index, 1);
	release(pool, s[1]);
	ck_assert_int_eq(where_is(pool, base_of(s[1])).kind, MEMSLOT_AT_IDLE);
	ck_assert_ptr_eq(where_is(pool, base_of(s[1])).slot, NULL);
	ck_assert_int_eq(memslot_pool_locate(pool, base_of(s[1]) + reserve + (64 << 10), &location),
			-ENOENT);
	ck_assert_int_eq(memslot_pool_locate(pool, NULL, &location), -ENOENT);
	ck_assert_int_eq(memslot_pool_locate(pool, base, NULL), -EINVAL);
	release(pool, s[0]);
	pool_destroy(pool);
}
END_TEST

/* --- failures --- */

static int on_reset_fails(struct memslot_slot *slot, void *context)
{
	memset(memslot_slot_base(slot), 'f', PAGES(30)); /* must not be seen if it fails */
	return --*(int *)context == 0 ? -EPROTO : 0;
}

START_TEST(a_callback_that_fails_leaves_the_slot_with_the_pool)
{
	int left = 2;
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .on_reset = on_reset_fails,
			.context = &left);
	struct memslot_pool *pool = pool_new(1, &opts);
	struct memslot_slot *slot = acquire(pool, NULL), *got = NULL;

	dirty_all(slot);
	release(pool, slot);
	ck_assert_int_eq(memslot_pool_acquire(pool, NULL, CAPACITY, NULL, &got), -EPROTO);
	ck_assert_ptr_eq(got, NULL);
	ck_assert_uint_eq(pool_stats(pool).live, 0);
	ck_assert_uint_eq(pool_stats(pool).quarantined, 1);
	slot = acquire(pool, NULL);
	ck_assert(test_zero(base_of(slot) + PAGES(30), PAGES(10)));
	ck_assert_uint_eq(stats_of(slot).remakes, 1); /* whatever the callback left is gone */
	ck_assert_uint_eq(pool_stats(pool).quarantined, 0);
	release(pool, slot);
	pool_destroy(pool);
}
END_TEST

/* What VERIFY is for: somebody wrote to an idle slot. */
START_TEST(verify_finds_what_was_written_to_an_idle_slot)
{
	struct memslot_image *image = image_of(10, 20, 4);
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_pool *pool;
	struct memslot_slot *slot, *other;

	opts.flags |= MEMSLOT_POOL_VERIFY;
	pool = pool_new(2, &opts);
	for (unsigned round = 0; round < 4; round++) {
		slot = acquire(pool, image);
		assert_shows(slot, 10, 20, 4, CAPACITY);
		dirty_all(slot);
		release(pool, slot);
		ck_assert_int_eq(memslot_pool_flush(pool), 0);
		base_of(slot)[PAGES(10 * round) + 7] ^= 1;
		other = acquire(pool, image);
		ck_assert_ptr_ne(other, slot);
		ck_assert_uint_eq(pool_stats(pool).verify_failures, round + 1);
		ck_assert_uint_eq(pool_stats(pool).quarantined, 1);
		ck_assert_ptr_eq(acquire(pool, image), slot); /* remade */
		assert_shows(slot, 10, 20, 4, CAPACITY);
		release(pool, slot);
		release(pool, other);
	}
	memslot_image_unref(image);
	pool_destroy(pool);
}
END_TEST

/* There is no other slot to give: it is made anew. */
START_TEST(verify_remakes_a_waiters_slot)
{
	struct memslot_pool_opts opts = edge_opts(_i);
	struct memslot_slot_waiter waiter = waiter_new(NULL, 0);
	struct memslot_pool *pool;
	struct memslot_slot *slot;

	opts.flags |= MEMSLOT_POOL_VERIFY;
	pool = pool_new(1, &opts);
	slot = acquire(pool, NULL);
	dirty_all(slot);
	release(pool, slot);
	ck_assert_int_eq(memslot_pool_flush(pool), 0);
	base_of(slot)[7] ^= 1;
	ck_assert_int_eq(memslot_pool_wait(pool, &waiter), 0);
	ck_assert_int_eq(memslot_slot_instantiate(waiter.slot, NULL, CAPACITY), 0);
	assert_zeros(waiter.slot, CAPACITY);
	release(pool, waiter.slot);
	ck_assert_uint_eq(pool_stats(pool).verify_failures, 1);
	close(waiter.event_fd);
	pool_destroy(pool);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("pool");
	TCase *basic = test_case(suite, "out and back"), *full = test_case(suite, "full");
	TCase *held = test_case(suite, "held"), *memory = test_case(suite, "memory");
	TCase *locate = test_case(suite, "locate"), *failures = test_case(suite, "failures");

	tcase_add_loop_test(basic, every_tenant_finds_its_image_and_nothing_else, 0, 6);
	tcase_add_test(basic, slots_have_an_index_a_ticket_and_their_own_address);
	tcase_add_test(basic, invariant_23_double_foreign_and_late_releases_harm_nobody);
	tcase_add_test(basic, the_order_of_hand_outs);
	tcase_add_loop_test(basic, another_key_never_sees_which_pages_were_resident, 0, 3);
	tcase_add_test(basic, sizes_that_do_not_fit_are_emsgsize);
	tcase_add_test(basic, options_that_make_no_sense_are_refused);
	tcase_add_loop_test(basic, a_base_address_is_had_in_one_piece_or_not_at_all, 0, 3);
	tcase_add_loop_test(basic, a_bound_image_gets_the_slot_at_its_address, 0, 3);
	tcase_add_test(full, exhaustion_is_eagain_and_counted);
	tcase_add_loop_test(full, waiters_with_an_event_are_served_in_order, 0, 3);
	tcase_add_loop_test(full, a_waiter_never_gets_what_is_still_to_be_dropped, 0, 3);
	tcase_add_loop_test(full, a_waiter_under_another_key_finds_nothing_resident, 0, 6);
	tcase_add_loop_test(basic, invariant_07_a_promise_ends_with_its_hand_out, 0, 2);
	tcase_add_test(full, waiters_that_make_no_sense_are_refused);
	tcase_add_loop_test(held, invariant_16_a_slot_released_while_held_waits_for_the_last_unhold, 0, 3);
	tcase_add_test(held, the_last_unhold_serves_a_waiter);
	tcase_add_test(memory, drops_are_queued_and_flushed_together);
	tcase_add_test(memory, an_acquire_that_a_flush_would_satisfy_does_not_fail);
	tcase_add_test(memory, a_slot_with_nothing_to_drop_never_queues);
	tcase_add_loop_test(memory, the_idle_budget_bounds_what_idle_slots_keep, 0, 3);
	tcase_add_test(memory, trim_gives_back_the_least_recently_used_first);
	tcase_add_loop_test(memory, prewarmed_slots_show_the_image, 0, 2);
	tcase_add_loop_test(memory, invariant_26_a_forgotten_image_is_shown_nowhere, 0, 6);
	tcase_add_test(memory, small_images_that_stay_do_not_hide_what_can_go);
	tcase_add_test(memory, trimmed_slots_are_as_old_as_they_were);
	tcase_add_test(memory, what_is_queued_is_flushed_for_a_bound_image_and_for_order);
	tcase_add_test(full, no_time_is_no_waiting);
	tcase_add_loop_test(failures, verify_remakes_a_waiters_slot, 0, 3);
	tcase_add_test(memory, maintain_makes_old_slots_cold);
	tcase_add_test(memory, a_checkpoints_image_that_nobody_has_is_let_go);
	tcase_add_test(memory, a_fresh_slot_starts_with_what_others_learnt);
	tcase_add_loop_test(locate, every_address_is_located, 0, 3);
	tcase_add_test(failures, a_callback_that_fails_leaves_the_slot_with_the_pool);
	tcase_add_loop_test(failures, verify_finds_what_was_written_to_an_idle_slot, 0, 3);
	return suite;
}
