/* SPDX-License-Identifier: MIT */
/*
 * serve_ring.c - memslot serve on io_uring: multishot accept and receive, provided buffers, fixed
 * reads, sends with and without a copy; with --plain the same operations on memory from malloc.
 *
 * Invariant: an SQE that was taken is filled, with a NOP if need be. The ring is detached when no
 * connection and no operation is left, and only then is its memory the pool's again.
 */
#define _GNU_SOURCE
#include "serve_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#define ENTRIES 512u
#define GROUP 1
#define GROUP_MOST 64u /* more would walk through the cache */

/* --- operations --- */

static struct op *begin(struct server *server, enum kind kind, struct conn *conn)
{
	struct engine *engine = engine_of(server);
	struct op *op = engine->spare;

	if (op)
		engine->spare = op->next;
	else
		op = malloc(sizeof(*op));
	if (!op)
		abort(); /* nothing sensible is left to do */
	*op = (struct op){.kind = kind, .conn = conn};
	server->counts.begun++;
	if (conn)
		conn->ops++;
	else
		engine->ops++;
	return op;
}

void ring_end(struct server *server, struct op *op)
{
	struct engine *engine = engine_of(server);

	server->counts.over++;
	if (op->conn)
		op->conn->ops--;
	else
		engine->ops--;
	op->next = engine->spare;
	engine->spare = op;
}

static struct io_uring_sqe *next_sqe(struct server *server)
{
	struct io_uring *uring = &engine_of(server)->uring;
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(uring)))
		(void)io_uring_submit(uring);
	return sqe;
}

static void set_op(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_sqe_set_data(sqe, op);
	op->token = sqe->user_data;
}

static void cancel(struct server *server, const struct op *op)
{
	struct io_uring_sqe *sqe = next_sqe(server);

	io_uring_prep_cancel64(sqe, op->token, 0);
	io_uring_sqe_set_data64(sqe, 0);
}

static void ring_accept(struct server *server, bool on)
{
	struct engine *engine = engine_of(server);
	struct io_uring_sqe *sqe;

	if (on && !engine->accept) {
		engine->accept = begin(server, ACCEPT, NULL);
		sqe = next_sqe(server);
		if (engine->once)
			io_uring_prep_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
		else
			io_uring_prep_multishot_accept(
				sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
		set_op(sqe, engine->accept);
	} else if (!on && engine->accept) {
		cancel(server, engine->accept);
	}
}

struct op *ring_watch(struct server *server, enum kind kind, struct conn *conn, int fd)
{
	struct op *op = begin(server, kind, conn);
	struct io_uring_sqe *sqe = next_sqe(server);

	io_uring_prep_poll_add(sqe, fd, POLLIN);
	set_op(sqe, op);
	return op;
}

/* What was asked for cannot be prepared: the SQE is nobody's. */
static void give_up(struct server *server, struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, 0);
	ring_end(server, op);
}

static void receive_plain(struct conn *conn)
{
	struct memslot_buffer buffer;
	struct io_uring_sqe *sqe;
	struct op *op;

	if (!buffers_take(conn, !conn->first, &buffer))
		return;
	op = begin(conn->server, RECEIVE, conn);
	op->buffer = buffer;
	sqe = next_sqe(conn->server);
	io_uring_prep_recv(sqe, conn->fd, buffer.base, buffer.size, 0);
	set_op(sqe, op);
	conn->receiving = op;
}

/* Where an operation takes its buffer when it is prepared, it waits for the bytes first. */
static void ring_receive(struct conn *conn)
{
	struct engine *engine = engine_of(conn->server);
	struct io_uring_sqe *sqe;
	struct op *op;
	int error;

	if (!engine->group) {
		receive_plain(conn);
		return;
	}
	if (!engine->provides && !conn->readable) {
		conn->receiving = ring_watch(conn->server, ARRIVAL, conn, conn->fd);
		return;
	}
	op = begin(conn->server, RECEIVE, conn);
	sqe = next_sqe(conn->server);
	error = memslot_ring_group_prep_recv(
		engine->group, sqe, conn->fd, MEMSLOT_GROUP_MULTISHOT, 0, (uint64_t)(uintptr_t)op);
	if (!error) {
		op->token = sqe->user_data;
		conn->receiving = op;
		return;
	}
	give_up(conn->server, sqe, op);
	if (error == -EAGAIN)
		line_join(conn);
	else
		conn_kill(conn);
}

static void ring_stop(struct conn *conn)
{
	cancel(conn->server, conn->receiving);
}

static void ring_send(struct conn *conn, struct chunk *chunk)
{
	struct server *server = conn->server;
	struct engine *engine = engine_of(server);
	struct op *op = begin(server, SEND, conn);
	struct io_uring_sqe *sqe = next_sqe(server);
	size_t size = chunk->size - chunk->sent;
	int error = 0;

	op->chunk = chunk;
	server->counts.sends++;
	if (!engine->ring) {
		io_uring_prep_send(sqe, conn->fd, (char *)chunk->buffer.base + chunk->sent, size,
			MSG_NOSIGNAL);
		set_op(sqe, op);
	} else if (size >= server->zero_copy) {
		server->counts.zero_copies++;
		error = memslot_ring_prep_send_zc(engine->ring, sqe, conn->fd, &chunk->buffer,
			chunk->sent, size, MSG_NOSIGNAL, (uint64_t)(uintptr_t)op);
	} else {
		error = memslot_ring_prep_send(engine->ring, sqe, conn->fd, &chunk->buffer,
			chunk->sent, size, MSG_NOSIGNAL, (uint64_t)(uintptr_t)op);
	}
	if (error) {
		give_up(server, sqe, op);
		conn_sent(conn, chunk, error);
	}
}

static void ring_read(struct conn *conn, struct chunk *chunk)
{
	struct server *server = conn->server;
	struct engine *engine = engine_of(server);
	struct op *op = begin(server, READ, conn);
	struct io_uring_sqe *sqe = next_sqe(server);
	int error = 0;

	op->chunk = chunk;
	server->counts.reads++;
	if (!engine->ring) {
		io_uring_prep_read(sqe, conn->reply.file, (char *)chunk->buffer.base + chunk->size,
			(unsigned)chunk->missing, chunk->offset);
		set_op(sqe, op);
	} else {
		error = memslot_ring_prep_read(engine->ring, sqe, conn->reply.file, &chunk->buffer,
			chunk->size, chunk->missing, chunk->offset, (uint64_t)(uintptr_t)op);
	}
	if (error) {
		give_up(server, sqe, op);
		conn_read(conn, chunk, error);
	}
}

/* --- beginning and end --- */

static int make_uring(struct io_uring *uring)
{
	struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN,
		.cq_entries = 16 * ENTRIES};
	int error = io_uring_queue_init_params(ENTRIES, uring, &params);

	if (error == -EINVAL) {
		params = (struct io_uring_params){
			.flags = IORING_SETUP_CQSIZE, .cq_entries = 16 * ENTRIES};
		error = io_uring_queue_init_params(ENTRIES, uring, &params);
	}
	return error;
}

/* At most half the budget lies ready to be received into: the rest is for what is read. */
static int make_group(struct server *server)
{
	struct engine *engine = engine_of(server);
	struct memslot_group_opts opts = {.size = sizeof(opts), .count = 1};
	uint64_t half = server->budget / server->buffer_size / 2;

	while (2 * opts.count <= half && opts.count < GROUP_MOST)
		opts.count *= 2;
	server->grouped = true;
	engine->provides = memslot_feature("uring_groups") == 1;
	return memslot_ring_group_create(engine->ring, GROUP, &opts, &engine->group);
}

/* Before the first operation. 0 or -errno. */
static int attach(struct server *server)
{
	struct engine *engine = engine_of(server);
	int error;

	if (server->plain)
		return 0;
	error = memslot_ring_attach(server->buffers, &engine->uring, NULL, &engine->ring);
	return error ? error : make_group(server);
}

static int ring_open(struct server *server)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int error = engine ? make_uring(&engine->uring) : -ENOMEM;

	if (error) {
		free(engine);
		return error;
	}
	server->engine = engine;
	engine->once = server->most_conns < ENTRIES; /* many would be too many */
	error = attach(server);
	if (error) {
		(void)memslot_ring_detach(engine->ring);
		io_uring_queue_exit(&engine->uring);
		free(engine);
		server->engine = NULL;
		server->grouped = false;
		return error;
	}
	if (!server->plain)
		engine->event = ring_watch(server, EVENT, NULL, server->event_fd);
	engine->signal = ring_watch(server, SIGNAL, NULL, server->signal_fd);
	return 0;
}

static int detach(struct server *server)
{
	struct engine *engine = engine_of(server);
	int error;

	server->group_stats.size = sizeof(server->group_stats);
	error = memslot_ring_group_stats(engine->group, &server->group_stats);
	if (!error)
		error = memslot_ring_group_destroy(engine->group);
	while (!error && (error = memslot_ring_detach(engine->ring)) == -EAGAIN)
		error = ring_turn(server, clock_ns() + TICK_NS);
	return error;
}

static int ring_close(struct server *server)
{
	struct engine *engine = engine_of(server);
	struct op *op;
	int error = 0;

	if (engine->event)
		cancel(server, engine->event);
	cancel(server, engine->signal);
	ring_accept(server, false);
	while (!error && engine->ops)
		error = ring_turn(server, clock_ns() + TICK_NS);
	if (!error && engine->ring)
		error = detach(server);
	io_uring_queue_exit(&engine->uring);
	while ((op = engine->spare)) {
		engine->spare = op->next;
		free(op);
	}
	free(engine);
	return error;
}

const struct transport ring_transport = {"io_uring", ring_open, ring_turn, ring_accept,
	ring_receive, ring_stop, ring_send, ring_read, ring_close};
