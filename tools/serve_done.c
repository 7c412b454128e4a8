/* SPDX-License-Identifier: MIT */
/*
 * serve_done.c - memslot serve on io_uring: what operations came to.
 *
 * Invariant: every CQE passes memslot_ring_complete; what is not the pool's is told by its
 * user_data, the op, and 0 is nobody's.
 */
#define _GNU_SOURCE
#include "serve_ring.h"

#include <errno.h>

static void accepted(struct server *server, struct op *op, int result, bool over)
{
	struct engine *engine = engine_of(server);

	if (over) {
		engine->once = engine->once || result == -EINVAL;
		engine->accept = NULL;
		server->accepting = false;
		ring_end(server, op);
	}
	if (result != -EINVAL && result != -ECANCELED)
		serve_accepted(server, result);
}

static void received(struct conn *conn, struct op *op, const struct memslot_completion *done)
{
	struct server *server = conn->server;
	bool over = done->flags & MEMSLOT_COMPLETION_TERMINAL;

	server->counts.receives++;
	if (done->flags & MEMSLOT_COMPLETION_SELECTED)
		conn_received(conn, &done->buffer, done->bytes);
	else if (!engine_of(server)->group && done->result > 0)
		conn_received(conn, &op->buffer, (size_t)done->result);
	else if (!engine_of(server)->group)
		buffers_put(server, &op->buffer);
	if (over) {
		ring_end(server, op);
		conn->readable = false;
		conn_receive_ended(conn, done->result > 0 ? -ECANCELED : done->result);
	}
	conn_pump(conn);
}

/* There is something to receive. */
static void arrived(struct conn *conn, struct op *op, int result)
{
	ring_end(conn->server, op);
	conn->readable = result >= 0;
	conn_receive_ended(conn, result < 0 ? result : -ECANCELED);
	conn_pump(conn);
}

static void sent(struct conn *conn, struct op *op, const struct memslot_completion *done)
{
	bool over = done->flags & MEMSLOT_COMPLETION_TERMINAL, answered = op->answered;

	op->answered = true;
	if (over)
		ring_end(conn->server, op);
	if (!answered)
		conn_sent(conn, op->chunk, done->result);
	conn_pump(conn);
}

static void read_done(struct conn *conn, struct op *op, int result)
{
	ring_end(conn->server, op);
	conn_read(conn, op->chunk, result);
	conn_pump(conn);
}

static void watched(struct server *server, struct op *op, int result)
{
	struct engine *engine = engine_of(server);
	bool event = op->kind == EVENT;

	ring_end(server, op);
	if (result == -ECANCELED) {
		*(event ? &engine->event : &engine->signal) = NULL;
	} else if (event) {
		engine->event = ring_watch(server, EVENT, NULL, server->event_fd);
		line_event(server);
	} else {
		engine->signal = ring_watch(server, SIGNAL, NULL, server->signal_fd);
		serve_signal(server);
	}
}

static void handle(struct server *server, const struct memslot_completion *done)
{
	struct op *op = (struct op *)(uintptr_t)done->user_data;

	switch (op->kind) {
	case ACCEPT:
		accepted(server, op, done->result, done->flags & MEMSLOT_COMPLETION_TERMINAL);
		break;
	case RECEIVE:
		received(op->conn, op, done);
		break;
	case ARRIVAL:
		arrived(op->conn, op, done->result);
		break;
	case SEND:
		sent(op->conn, op, done);
		break;
	case READ:
		read_done(op->conn, op, done->result);
		break;
	default:
		watched(server, op, done->result);
	}
}

/* All that is there. */
static void reap(struct server *server)
{
	struct engine *engine = engine_of(server);
	struct memslot_completion done;
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&engine->uring, &cqe) == 0) {
		done = (struct memslot_completion){.size = sizeof(done)};
		if (!engine->ring || memslot_ring_complete(engine->ring, cqe, &done) == -ENOENT) {
			done.user_data = cqe->user_data;
			done.result = cqe->res;
			done.flags =
				cqe->flags & IORING_CQE_F_MORE ? 0 : MEMSLOT_COMPLETION_TERMINAL;
		} else if (!done.flags) {
			done.user_data = 0;
		}
		io_uring_cqe_seen(&engine->uring, cqe);
		if (done.user_data && done.user_data != LIBURING_UDATA_TIMEOUT)
			handle(server, &done);
	}
}

int ring_turn(struct server *server, uint64_t until_ns)
{
	uint64_t now = clock_ns(), wait = until_ns > now ? until_ns - now : 0;
	struct __kernel_timespec timeout = {
		.tv_sec = (int64_t)(wait / 1000000000), .tv_nsec = (int64_t)(wait % 1000000000)};
	struct io_uring_cqe *cqe;
	int error;

	error = io_uring_submit_and_wait_timeout(
		&engine_of(server)->uring, &cqe, 1, &timeout, NULL);
	reap(server);
	return error < 0 && error != -ETIME && error != -EINTR && error != -EAGAIN &&
			       error != -EBUSY
		       ? error
		       : 0;
}
