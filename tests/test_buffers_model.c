/* SPDX-License-Identifier: MIT */
/*
 * test_buffers_model.c - random lives of a pool of buffers, its rings and the slots under it,
 * beside plain arrays: what was written is read, no read byte is lost, and no byte of a buffer, of
 * a slot's tenant or of the kernel's is ever seen by the next.
 */
#define _GNU_SOURCE
#include "buffers_ring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (4 * KB)
#define SLOTS 6
#define PER_SLOT 16
#define RINGS 3
#define HELD 80
#define OPS 40
#define TENANTS 2
#define FILE_SIZE (64 * KB)

/* A buffer of ours, and what is in it. */
struct held {
	struct memslot_buffer buffer;
	unsigned refs, ops;
	unsigned char bytes[6 * SIZE];
};

enum kind { NONE, FROM_PIPE, FROM_FILE, TO_FILE, CHOSEN };

struct pending {
	enum kind kind;
	unsigned ring;
	struct held *held;
	size_t start, size;
	uint64_t at;
	int pipe[2];
	unsigned char sent[512]; /* into the pipe, so far not read */
	size_t sent_size;
};

struct model {
	struct memslot_pool *pool;
	struct memslot_buffers *buffers;
	struct bench rings[RINGS];
	bool attached[RINGS], clears;
	struct memslot_group *groups[RINGS];
	struct held *held[HELD];
	struct pending ops[OPS];
	struct memslot_slot *tenants[TENANTS];
	struct memslot_buffer lost[OPS];
	unsigned lost_count;
	int file;
	unsigned char file_bytes[FILE_SIZE];
	struct test_rng rng;
};

static unsigned below(struct model *model, uint64_t limit)
{
	return (unsigned)test_below(&model->rng, limit);
}

/* --- buffers --- */

static bool overlaps(const struct memslot_buffer *buffer, const void *base, size_t size)
{
	const unsigned char *a = buffer->base, *b = base;

	return a < b + size && b < a + buffer->count * buffer->size;
}

/* What is handed out is nobody's: no other holder's, no dead ring's. */
static void check_alone(struct model *model, const void *base, size_t size)
{
	for (unsigned i = 0; i < HELD; i++)
		ck_assert(!model->held[i] || !overlaps(&model->held[i]->buffer, base, size));
	for (unsigned i = 0; i < model->lost_count; i++)
		ck_assert(!overlaps(&model->lost[i], base, size));
}

static struct held *hold(struct model *model, const struct memslot_buffer *buffer)
{
	struct held *held = calloc(1, sizeof *held);
	unsigned i = 0;

	check_alone(model, buffer->base, buffer->count * buffer->size);
	held->buffer = *buffer;
	held->refs = 1;
	memcpy(held->bytes, buffer->base, buffer->count * buffer->size);
	while (i < HELD && model->held[i])
		i++;
	ck_assert_uint_lt(i, HELD);
	model->held[i] = held;
	return held;
}

static void forget(struct model *model, struct held *held)
{
	for (unsigned i = 0; i < HELD; i++) {
		if (model->held[i] == held)
			model->held[i] = NULL;
	}
	free(held);
}

static unsigned count_held(const struct model *model)
{
	unsigned count = 0;

	for (unsigned i = 0; i < HELD; i++)
		count += model->held[i] != NULL;
	return count;
}

/* One that we have a reference to, or NULL. */
static struct held *any_held(struct model *model)
{
	struct held *held = model->held[below(model, HELD)];

	return held && held->refs ? held : NULL;
}

static void acquire(struct model *model)
{
	struct memslot_buffer buffer;
	struct held *held;
	int answer;

	if (count_held(model) >= HELD - OPS) /* room for what groups choose */
		return;
	answer = memslot_buffers_acquire(model->buffers, 1 + below(model, 6), 0, &buffer);
	ck_assert(answer == 0 || answer == -EAGAIN || answer == -EMSGSIZE);
	if (answer)
		return;
	held = hold(model, &buffer);
	ck_assert(!model->clears || test_zero(held->bytes, buffer.count * SIZE));
}

static void release(struct model *model)
{
	struct held *held = any_held(model);

	if (!held)
		return;
	if (below(model, 4) == 0) {
		ck_assert_int_eq(memslot_buffers_ref(model->buffers, &held->buffer), 0);
		held->refs++;
		return;
	}
	if (!held->ops)
		ck_assert(test_same(held->buffer.base, held->bytes, held->buffer.count * SIZE));
	buffer_put(model->buffers, &held->buffer);
	if (--held->refs == 0 && held->ops == 0)
		forget(model, held);
}

static void fill(struct model *model)
{
	struct held *held = any_held(model);

	if (!held || held->ops)
		return;
	ck_assert(test_same(held->buffer.base, held->bytes, held->buffer.count * SIZE));
	test_fill(held->bytes, held->buffer.count * SIZE, below(model, 1000));
	memcpy(held->buffer.base, held->bytes, held->buffer.count * SIZE);
}

/* --- operations --- */

static struct pending *new_op(struct model *model, enum kind kind, unsigned ring)
{
	for (unsigned i = 0; i < OPS; i++) {
		if (model->ops[i].kind == NONE) {
			model->ops[i] = (struct pending){.kind = kind, .ring = ring};
			return &model->ops[i];
		}
	}
	return NULL;
}

static void start(struct model *model)
{
	unsigned ring = below(model, RINGS);
	struct held *held = any_held(model);
	struct pending *op;
	struct bench *bench = &model->rings[ring];
	size_t whole;
	uint64_t tag;

	if (!model->attached[ring] || !held || held->ops) /* one at a time: contents are known */
		return;
	op = new_op(model, FROM_PIPE + below(model, 3), ring);
	if (!op)
		return;
	whole = held->buffer.count * SIZE;
	tag = (uint64_t)(op - model->ops);
	op->held = held;
	op->start = below(model, whole);
	op->size = 1 + below(model, op->kind == FROM_PIPE ? 400 : whole - op->start);
	op->size = op->size < whole - op->start ? op->size : whole - op->start;
	op->at = below(model, FILE_SIZE - op->size);
	held->ops++;
	if (op->kind == FROM_PIPE) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, op->pipe), 0);
		ck_assert_int_eq(
			below(model, 2)
				? memslot_ring_prep_recv(bench->ring, bench_sqe(bench), op->pipe[0],
					  &held->buffer, op->start, op->size, 0, tag)
				: memslot_ring_prep_read(bench->ring, bench_sqe(bench), op->pipe[0],
					  &held->buffer, op->start, op->size, UINT64_MAX, tag),
			0);
	} else if (op->kind == FROM_FILE) {
		ck_assert_int_eq(memslot_ring_prep_read(bench->ring, bench_sqe(bench), model->file,
					 &held->buffer, op->start, op->size, op->at, tag),
			0);
	} else {
		memcpy(model->file_bytes + op->at, held->bytes + op->start, op->size);
		ck_assert_int_eq(memslot_ring_prep_write(bench->ring, bench_sqe(bench), model->file,
					 &held->buffer, op->start, op->size, op->at, tag),
			0);
	}
	bench_submit(bench);
}

static void send_some(struct model *model)
{
	struct pending *op = &model->ops[below(model, OPS)];

	if ((op->kind != FROM_PIPE && op->kind != CHOSEN) || op->sent_size)
		return;
	op->sent_size = 1 + below(model, op->kind == CHOSEN ? 400 : op->size);
	test_fill(op->sent, op->sent_size, below(model, 1000));
	ck_assert_int_eq(send(op->pipe[1], op->sent, op->sent_size, 0), (ssize_t)op->sent_size);
}

static void choose(struct model *model)
{
	unsigned ring = below(model, RINGS);
	struct bench *bench = &model->rings[ring];
	struct memslot_group_opts opts = MEMSLOT_OPTS(memslot_group_opts, .count = 4);
	struct io_uring_sqe sqe;
	struct pending *op;
	int answer;

	if (!model->attached[ring])
		return;
	if (!model->groups[ring]) {
		ck_assert_int_eq(
			memslot_ring_group_create(bench->ring, 3, &opts, &model->groups[ring]), 0);
		return;
	}
	if (count_held(model) >= HELD - OPS)
		return;
	op = new_op(model, CHOSEN, ring);
	if (!op)
		return;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, op->pipe), 0);
	answer = memslot_ring_group_prep_recv(
		model->groups[ring], &sqe, op->pipe[0], 0, 0, (uint64_t)(op - model->ops));
	ck_assert(answer == 0 || answer == -EAGAIN);
	if (answer) {
		close(op->pipe[0]);
		close(op->pipe[1]);
		op->kind = NONE;
		return;
	}
	*bench_sqe(bench) = sqe;
	bench_submit(bench);
}

static void check_result(
	struct model *model, struct pending *op, const struct memslot_completion *done)
{
	struct held *held = op->held;
	size_t got = done->result > 0 ? (size_t)done->result : 0;

	if (op->kind == CHOSEN && (done->flags & MEMSLOT_COMPLETION_SELECTED))
		held = hold(model, &done->buffer);
	if (op->kind == FROM_PIPE)
		memcpy(held->bytes + op->start, op->sent, got);
	else if (op->kind == FROM_FILE)
		memcpy(held->bytes + op->start, model->file_bytes + op->at, got);
	ck_assert(done->result == -ECANCELED || done->result == -EINTR ||
		  done->result == -ENOBUFS || got > 0);
	if (op->kind == FROM_PIPE || op->kind == CHOSEN) {
		ck_assert_uint_eq(
			got, done->result > 0 ? op->sent_size : 0); /* no read byte is lost */
		if (got && op->kind == CHOSEN)
			ck_assert_mem_eq(done->buffer.base, op->sent, got);
		close(op->pipe[0]);
		close(op->pipe[1]);
	} else {
		ck_assert_uint_eq(got, op->size);
	}
}

/* One completion, if there is one. Files are compared at the end: operations on them are not
 * ordered, but each has ended before the next begins. */
static bool reap(struct model *model, unsigned ring)
{
	struct bench *bench = &model->rings[ring];
	struct memslot_completion done = {.size = sizeof done};
	struct io_uring_cqe *cqe;
	struct pending *op;
	struct held *held;

	io_uring_get_events(&bench->uring);
	if (io_uring_peek_cqe(&bench->uring, &cqe))
		return false;
	ck_assert_int_eq(memslot_ring_complete(bench->ring, cqe, &done), 0);
	io_uring_cqe_seen(&bench->uring, cqe);
	ck_assert(done.flags & MEMSLOT_COMPLETION_TERMINAL);
	op = &model->ops[done.user_data];
	held = op->held;
	check_result(model, op, &done);
	op->kind = NONE;
	if (held && --held->ops == 0) {
		if (held->refs == 0) /* it is back already */
			forget(model, held);
		else
			ck_assert(test_same(
				held->buffer.base, held->bytes, held->buffer.count * SIZE));
	}
	return true;
}

/* Everything on files ends before contents are looked at. */
static void settle(struct model *model)
{
	for (unsigned ring = 0; ring < RINGS; ring++) {
		for (unsigned i = 0; i < OPS; i++) {
			while (model->attached[ring] && model->ops[i].ring == ring &&
				(model->ops[i].kind == FROM_FILE || model->ops[i].kind == TO_FILE))
				(void)reap(model, ring);
		}
	}
}

/* --- rings --- */

static void attach(struct model *model)
{
	unsigned ring = below(model, RINGS);

	if (model->attached[ring])
		return;
	bench_attach(&model->rings[ring], model->buffers, 0);
	model->attached[ring] = true;
}

static void detach(struct model *model)
{
	unsigned ring = below(model, RINGS);
	struct bench *bench = &model->rings[ring];
	bool chosen = false;
	int answer;

	for (unsigned i = 0; i < OPS; i++)
		chosen |= model->ops[i].kind == CHOSEN && model->ops[i].ring == ring;
	if (!model->attached[ring] || memslot_feature("uring_sync_cancel") != 1)
		return;
	if (model->groups[ring]) {
		ck_assert_int_eq(memslot_ring_detach(bench->ring), -EBUSY);
		answer = memslot_ring_group_destroy(model->groups[ring]);
		ck_assert_int_eq(answer, chosen ? -EBUSY : 0);
		for (; answer == -EBUSY; answer = memslot_ring_group_destroy(model->groups[ring]))
			(void)reap(model, ring);
		ck_assert_int_eq(answer, 0);
		model->groups[ring] = NULL;
	}
	while (memslot_ring_detach(bench->ring) == -EAGAIN)
		(void)reap(model, ring);
	io_uring_queue_exit(&bench->uring);
	model->attached[ring] = false;
}

/* Closed under us: what was pending is never seen again. */
static void crash(struct model *model)
{
	unsigned ring = below(model, RINGS);

	if (!model->attached[ring] || model->groups[ring] || model->lost_count)
		return;
	io_uring_queue_exit(&model->rings[ring].uring);
	ck_assert_int_eq(memslot_ring_detach(model->rings[ring].ring), 0);
	for (unsigned i = 0; i < OPS; i++) {
		struct pending *op = &model->ops[i];
		if (op->kind == NONE || op->ring != ring)
			continue;
		model->lost[model->lost_count++] = op->held->buffer;
		while (op->held->refs--)
			buffer_put(model->buffers, &op->held->buffer);
		forget(model, op->held);
		close(op->pipe[0]);
		close(op->pipe[1]);
		op->kind = NONE;
	}
	model->attached[ring] = false;
}

/* --- the slots underneath --- */

/* The worst bug there is: a byte of a previous tenant seen by the next. */
static void tenant(struct model *model)
{
	struct memslot_slot **slot = &model->tenants[below(model, TENANTS)];

	if (*slot) {
		ck_assert(test_filled(memslot_slot_base(*slot), PER_SLOT * SIZE, 9));
		ck_assert_int_eq(memslot_pool_release(model->pool, *slot), 0);
		*slot = NULL;
	} else if (memslot_pool_acquire(model->pool, NULL, PER_SLOT * SIZE, NULL, slot) == 0) {
		check_alone(model, memslot_slot_base(*slot), PER_SLOT * SIZE);
		ck_assert(test_zero(memslot_slot_base(*slot), PER_SLOT * SIZE));
		test_fill(memslot_slot_base(*slot), PER_SLOT * SIZE, 9);
	} else {
		*slot = NULL;
	}
}

static void budget(struct model *model)
{
	uint64_t bytes = (8 + below(model, 80)) * SIZE;

	settle(model);
	ck_assert_int_eq(memslot_buffers_set_budget(model->buffers, bytes), 0);
}

/* --- lives --- */

static void step(struct model *model)
{
	static void (*const steps[])(struct model *) = {acquire, acquire, acquire, release, release,
		release, fill, fill, start, start, start, send_some, send_some, choose, choose};
	unsigned which = below(model, 200);

	if (which == 0)
		attach(model);
	else if (which == 1)
		detach(model);
	else if (which == 2)
		crash(model);
	else if (which < 6)
		budget(model);
	else if (which < 16)
		tenant(model);
	else
		steps[below(model, sizeof steps / sizeof steps[0])](model);
	for (unsigned ring = 0; ring < RINGS; ring++) {
		while (model->attached[ring] && reap(model, ring))
			;
	}
	settle(model);
}

static void finish(struct model *model)
{
	unsigned char *bytes = malloc(FILE_SIZE);

	ck_assert_int_eq(pread(model->file, bytes, FILE_SIZE, 0), FILE_SIZE);
	ck_assert(test_same(bytes, model->file_bytes, FILE_SIZE));
	free(bytes);
	for (unsigned i = 0; i < TENANTS; i++) {
		if (model->tenants[i])
			ck_assert_int_eq(memslot_pool_release(model->pool, model->tenants[i]), 0);
	}
	for (unsigned ring = 0; ring < RINGS; ring++) {
		bool waits = true;
		while (model->attached[ring] && waits) {
			waits = false;
			for (unsigned i = 0; i < OPS; i++) {
				struct pending *op = &model->ops[i];
				if (op->kind == NONE || op->ring != ring)
					continue;
				op->sent_size = op->sent_size ? op->sent_size : 1;
				op->sent[0] = 'e';
				(void)send(op->pipe[1], op->sent, op->sent_size, MSG_DONTWAIT);
				waits = true;
				while (op->kind != NONE)
					(void)reap(model, ring);
			}
		}
		if (model->groups[ring])
			ck_assert_int_eq(memslot_ring_group_destroy(model->groups[ring]), 0);
		if (model->attached[ring])
			bench_detach(&model->rings[ring]);
	}
	for (unsigned i = 0; i < HELD; i++) {
		struct held *held = model->held[i];
		if (!held)
			continue;
		ck_assert(test_same(held->buffer.base, held->bytes, held->buffer.count * SIZE));
		while (held->refs--)
			buffer_put(model->buffers, &held->buffer);
		free(held);
	}
	buffers_end(model->buffers);
	ck_assert_int_eq(memslot_pool_destroy(model->pool), model->lost_count ? -EBUSY : 0);
	close(model->file);
}

START_TEST(random_lives_of_buffers_rings_and_slots)
{
	struct memslot_buffers_opts opts =
		MEMSLOT_OPTS(memslot_buffers_opts, .flags = _i % 2 ? MEMSLOT_BUFFERS_ZERO : 0,
			.buffer_size = SIZE, .budget = 60 * SIZE);
	struct model *model = calloc(1, sizeof *model);

	NEED_URING();
	model->rng = test_rng((uint64_t)_i);
	model->clears = _i % 2;
	ck_assert_int_eq(memslot_pool_create(SLOTS, PER_SLOT * SIZE, NULL, &model->pool), 0);
	opts.pool = model->pool;
	ck_assert_int_eq(memslot_buffers_create(&opts, &model->buffers), 0);
	model->file = file_of(FILE_SIZE, 1);
	test_fill(model->file_bytes, FILE_SIZE, 1);
	for (unsigned round = test_rounds(4000); round; round--)
		step(model);
	finish(model);
	free(model);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("buffers_model");
	TCase *tcase = test_case(suite, "model");

	tcase_set_timeout(tcase, 3600); /* rounds may be many */
	tcase_add_loop_test(tcase, random_lives_of_buffers_rings_and_slots, 0, 12);
	return suite;
}
