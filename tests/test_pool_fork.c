/* SPDX-License-Identifier: MIT */
/*
 * test_pool_fork.c - a child's copy of a pool: by fork(2) and by raw clone(2), with slots in every
 * place, while other threads are at work, and from inside a callback. Invariants 18 to 20.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY PAGES(40)

static int (*const makers[])(int (*)(void *), void *) = {test_in_child, test_in_clone};

struct scene {
	struct memslot_pool *pool;
	struct memslot_image *image;
	struct memslot_slot *out, *held;
	struct memslot_slot_waiter waiter;
};

static struct memslot_slot *acquire(struct scene *scene)
{
	struct memslot_slot *slot = NULL;

	return memslot_pool_acquire(scene->pool, scene->image, CAPACITY, NULL, &slot) ? NULL : slot;
}

static struct memslot_pool_stats pool_stats(const struct memslot_pool *pool)
{
	struct memslot_pool_stats stats = {.size = sizeof stats};

	(void)memslot_pool_stats(pool, &stats);
	return stats;
}

/* Eight slots: one out, one held, two warm, one queued, three never used. */
static void scene_begin(struct scene *scene, uint32_t flags)
{
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts, .flags = flags);
	struct memslot_slot *warm[2];

	memset(scene, 0, sizeof *scene);
	scene->image = image_of(10, 20, 4);
	ck_assert_int_eq(memslot_pool_create(8, CAPACITY, &opts, &scene->pool), 0);
	scene->out = acquire(scene);
	scene->held = acquire(scene);
	warm[0] = acquire(scene);
	warm[1] = acquire(scene);
	dirty_all(scene->held);
	dirty_all(scene->out);
	ck_assert_int_eq(memslot_slot_hold(scene->held, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(memslot_pool_release(scene->pool, scene->held), 0);
	for (int i = 0; i < 2; i++) {
		dirty_all(warm[i]);
		ck_assert_int_eq(memslot_pool_release(scene->pool, warm[i]), 0);
	}
}

static void scene_end(struct scene *scene)
{
	ck_assert_int_eq(memslot_slot_unhold(scene->held, MEMSLOT_HOLD_IO), 0);
	ck_assert_int_eq(memslot_pool_release(scene->pool, scene->out), 0);
	ck_assert_int_eq(memslot_pool_destroy(scene->pool), 0);
	memslot_image_unref(scene->image);
}

/* All that are left: clean, and given back. */
static int use_pool(struct scene *scene, unsigned expected)
{
	struct memslot_slot *slots[16];
	unsigned count = 0;

	while (count < 16 && (slots[count] = acquire(scene)) != NULL) {
		child_check(slot_shows(slots[count], 10, 20, 4, CAPACITY));
		dirty_all(slots[count]);
		count++;
	}
	child_check(count == expected);
	for (unsigned i = 0; i < count; i++)
		child_check(memslot_pool_release(scene->pool, slots[i]) == 0);
	child_check(memslot_pool_flush(scene->pool) == 0);
	child_check(memslot_pool_maintain(scene->pool) == 0);
	return 0;
}

static int use_copy(void *argument)
{
	struct scene *scene = argument;
	struct memslot_pool_stats stats = pool_stats(scene->pool);

	child_check(stats.live == 1);
	child_check(use_pool(scene, 6) == 0);
	/* What was out stays out, and comes back; what was held never does. */
	child_check(base_of(scene->out)[0] == 0xdd);
	child_check(memslot_slot_reset(scene->out) == 0);
	child_check(slot_shows(scene->out, 10, 20, 4, CAPACITY));
	child_check(memslot_pool_release(scene->pool, scene->out) == 0);
	child_check(memslot_pool_release(scene->pool, scene->out) == -ESTALE);
	child_check(use_pool(scene, 7) == 0);
	child_check(memslot_slot_unhold(scene->held, MEMSLOT_HOLD_IO) == -ESTALE);
	child_check(pool_stats(scene->pool).quarantined == 1);
	child_check(pool_stats(scene->pool).waiters == 0);
	child_check(memslot_pool_forget(scene->pool, scene->image, NULL) == 0);
	child_check(memslot_pool_trim(scene->pool, 0, NULL) == 0);
	child_check(memslot_pool_destroy(scene->pool) == 0);
	return 0;
}

static int use_copy_and_its_copy(void *argument)
{
	struct scene *scene = argument;

	child_check(use_pool(scene, 6) == 0);
	child_check(test_in_child(use_copy, scene) == 0);
	return use_copy(scene);
}

START_TEST(invariant_19_a_childs_copy_of_a_pool_works)
{
	struct scene scene;

	scene_begin(&scene, _i / 2 ? MEMSLOT_SLOT_CONFINED : 0);
	ck_assert_int_eq(makers[_i % 2](use_copy, &scene), 0);
	ck_assert_int_eq(makers[_i % 2](use_copy_and_its_copy, &scene), 0);
	ck_assert_int_eq(use_pool(&scene, 6), 0);
	ck_assert_uint_eq(base_of(scene.out)[0], 0xdd);
	scene_end(&scene);
}
END_TEST

static int waiters_are_forgotten(void *argument)
{
	struct scene *scene = argument;
	uint64_t count;

	child_check(pool_stats(scene->pool).waiters == 0);
	child_check(memslot_pool_wait_cancel(scene->pool, &scene->waiter) == -EINVAL);
	child_check(memslot_pool_release(scene->pool, scene->out) == 0);
	child_check(read(scene->waiter.event_fd, &count, sizeof count) < 0);
	child_check(acquire(scene) == scene->out);
	return 0;
}

START_TEST(invariant_18_waiters_are_forgotten_in_a_child)
{
	struct scene scene = {.image = image_of(10, 20, 4)};

	ck_assert_int_eq(memslot_pool_create(1, CAPACITY, NULL, &scene.pool), 0);
	scene.out = acquire(&scene);
	scene.waiter = (struct memslot_slot_waiter){.size = sizeof scene.waiter,
			.event_fd = eventfd(0, EFD_NONBLOCK), .slot_size = CAPACITY};
	scene.waiter.opts.size = sizeof scene.waiter.opts;
	ck_assert_int_eq(memslot_pool_wait(scene.pool, &scene.waiter), 0);
	ck_assert_int_eq(makers[_i](waiters_are_forgotten, &scene), 0);
	ck_assert_int_eq(memslot_pool_release(scene.pool, scene.out), 0);
	ck_assert_int_eq(memslot_pool_wait_cancel(scene.pool, &scene.waiter), -EALREADY);
	ck_assert_int_eq(memslot_pool_release(scene.pool, scene.waiter.slot), 0);
	ck_assert_int_eq(memslot_pool_destroy(scene.pool), 0);
	close(scene.waiter.event_fd);
	memslot_image_unref(scene.image);
}
END_TEST

/* --- DONTFORK --- */

static int is_dead(void *argument)
{
	struct scene *scene = argument;
	struct memslot_location location = {.size = sizeof location};
	struct memslot_slot *slot;
	unsigned char *base = base_of(scene->out), *mine;

	mine = mmap(base, CAPACITY, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	child_check(mine == base);
	test_fill(mine, CAPACITY, 3);
	child_check(memslot_pool_acquire(scene->pool, NULL, CAPACITY, NULL, &slot) == -ESTALE);
	child_check(memslot_pool_release(scene->pool, scene->out) == -ESTALE);
	child_check(memslot_pool_flush(scene->pool) == -ESTALE);
	child_check(memslot_pool_maintain(scene->pool) == -ESTALE);
	child_check(memslot_pool_trim(scene->pool, 0, NULL) == -ESTALE);
	child_check(memslot_pool_forget(scene->pool, NULL, NULL) == -ESTALE);
	child_check(memslot_pool_prewarm(scene->pool, NULL, CAPACITY, 1, NULL) == -ESTALE);
	child_check(memslot_pool_locate(scene->pool, base, &location) == 0);
	child_check(pool_stats(scene->pool).capacity_count == 8);
	child_check(memslot_slot_reset(scene->out) == -ESTALE);
	child_check(memslot_slot_unhold(scene->held, MEMSLOT_HOLD_IO) == -ESTALE);
	child_check(memslot_pool_destroy(scene->pool) == 0);
	child_check(test_filled(mine, CAPACITY, 3));
	return 0;
}

START_TEST(invariant_20_a_dontfork_pool_is_dead_in_a_child)
{
	struct scene scene;

	SKIP_IF(!test_faults_allowed(), "valgrind does not know DONTFORK");
	scene_begin(&scene, MEMSLOT_SLOT_DONTFORK);
	ck_assert_int_eq(makers[_i](is_dead, &scene), 0);
	ck_assert_int_eq(use_pool(&scene, 6), 0);
	scene_end(&scene);
}
END_TEST

/* --- while other threads are at work --- */

struct crowd {
	struct scene scene;
	_Atomic(bool) stop;
};

static void *acquire_and_release(void *argument)
{
	struct crowd *crowd = argument;

	while (!atomic_load(&crowd->stop)) {
		struct memslot_slot *slot = acquire(&crowd->scene);
		if (!slot)
			continue;
		dirty_pages(slot, 0, 12, 1);
		if (memslot_pool_release(crowd->scene.pool, slot))
			return slot;
		(void)memslot_pool_trim(crowd->scene.pool, PAGES(10), NULL);
	}
	return NULL;
}

static int use_what_is_left(void *argument)
{
	struct scene *scene = argument;
	struct memslot_slot *slots[8];
	unsigned count = 0, live = (unsigned)pool_stats(scene->pool).live;

	while (count < 8 && (slots[count] = acquire(scene)) != NULL) {
		child_check(slot_shows(slots[count], 10, 20, 4, CAPACITY));
		count++;
	}
	/* What other threads had out stays out; what was on its way was quarantined, and remade. */
	child_check(count + 2 >= 8 && count <= 8);
	child_check(live <= 4);
	for (unsigned i = 0; i < count; i++)
		child_check(memslot_pool_release(scene->pool, slots[i]) == 0);
	return 0;
}

START_TEST(invariant_19_a_fork_in_the_middle_of_everything)
{
	struct crowd crowd = {.stop = false};
	pthread_t threads[2];
	void *result;

	SKIP_IF(test_sanitized(), "a sanitizer's own locks do not survive that");
	crowd.scene.image = image_of(10, 20, 4);
	ck_assert_int_eq(memslot_pool_create(8, CAPACITY, NULL, &crowd.scene.pool), 0);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, acquire_and_release, &crowd), 0);
	for (unsigned i = 0; i < test_rounds(400); i++)
		ck_assert_int_eq(test_in_child(use_what_is_left, &crowd.scene), 0);
	crowd.stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &result);
		ck_assert_ptr_eq(result, NULL);
	}
	ck_assert_uint_eq(pool_stats(crowd.scene.pool).live, 0);
	ck_assert_int_eq(memslot_pool_destroy(crowd.scene.pool), 0);
	memslot_image_unref(crowd.scene.image);
}
END_TEST

/* --- from inside a callback --- */

static struct memslot_pool *forking;

static int fork_in_callback(struct memslot_slot *slot, void *context)
{
	pid_t *child = context;

	(void)slot;
	if (*child < 0)
		*child = fork();
	if (*child == 0) /* the child's first call of the pool comes while the slot is on its way */
		(void)memslot_pool_flush(forking);
	return 0;
}

START_TEST(a_child_forked_in_on_reset_goes_on_with_its_slot)
{
	pid_t child = -1;
	struct memslot_pool_opts opts = MEMSLOT_OPTS(memslot_pool_opts,
			.on_reset = fork_in_callback, .context = &child);
	struct memslot_slot *slot = NULL;
	struct memslot_pool *pool;
	int status = -1, error;

	ck_assert_int_eq(memslot_pool_create(2, CAPACITY, &opts, &pool), 0);
	forking = pool;
	error = memslot_pool_acquire(pool, NULL, CAPACITY, NULL, &slot);
	if (child == 0) {
		error = error ? 1 : !slot_shows(slot, 0, 0, 0, CAPACITY);
		error |= memslot_slot_reset(slot) != 0;
		error |= pool_stats(pool).quarantined != 0 || pool_stats(pool).live != 1;
		error |= memslot_pool_release(pool, slot) != 0;
		_exit(error | (memslot_pool_destroy(pool) != 0));
	}
	ck_assert_int_eq(error, 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(memslot_pool_release(pool, slot), 0);
	ck_assert_int_eq(memslot_pool_destroy(pool), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("pool_fork");
	TCase *copies = test_case(suite, "copies"), *threads = test_case(suite, "threads");

	tcase_add_loop_test(copies, invariant_19_a_childs_copy_of_a_pool_works, 0, 4);
	tcase_add_loop_test(copies, invariant_18_waiters_are_forgotten_in_a_child, 0, 2);
	tcase_add_loop_test(copies, invariant_20_a_dontfork_pool_is_dead_in_a_child, 0, 2);
	tcase_add_test(copies, a_child_forked_in_on_reset_goes_on_with_its_slot);
	tcase_add_test(threads, invariant_19_a_fork_in_the_middle_of_everything);
	return suite;
}
