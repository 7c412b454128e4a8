/* SPDX-License-Identifier: MIT */
/*
 * serve_ring.h - memslot serve on io_uring: serve_ring.c begins operations, serve_done.c ends them.
 *
 * Every operation has an op, which lives until the completion that says the kernel is through with
 * it: the NOTIF of a zero-copy send.
 */
#ifndef MEMSLOT_SERVE_RING_H
#define MEMSLOT_SERVE_RING_H

#include "serve.h"

#include <liburing.h>

enum kind { ACCEPT, ARRIVAL, RECEIVE, SEND, READ, EVENT, SIGNAL };

struct op {
	struct op *next; /* of spare ones */
	enum kind kind;
	bool answered;	/* a send's result has come, its NOTIF has not */
	uint64_t token; /* to cancel it by */
	struct conn *conn;
	struct chunk *chunk;
	struct memslot_buffer buffer; /* plain: to receive into */
};

struct engine {
	struct io_uring uring;
	struct memslot_ring *ring; /* NULL: plain */
	struct memslot_group *group;
	struct op *spare;
	struct op *accept, *event, *signal;
	unsigned ops;  /* of no connection */
	bool once;     /* no multishot accept */
	bool provides; /* it has provided buffers */
};

static inline struct engine *engine_of(struct server *server)
{
	return server->engine;
}

/* --- serve_ring.c --- */

/* Tell when the descriptor is readable. */
struct op *ring_watch(struct server *server, enum kind kind, struct conn *conn, int fd);
void ring_end(struct server *server, struct op *op);

/* --- serve_done.c --- */

int ring_turn(struct server *server, uint64_t until_ns);

#endif
