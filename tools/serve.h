/* SPDX-License-Identifier: MIT */
/*
 * serve.h - the parts of memslot serve, a TCP echo and HTTP file server on a pool of buffers.
 *
 *   serve.c          command line, beginning, end      serve_http.c    requests, replies, files
 *   serve_conn.c     one connection, step by step      serve_buffers.c pool or malloc; who waits
 *   serve_ring.c, serve_done.c  io_uring               serve_poll.c    epoll, where that is missing
 *   serve_report.c   what happened, and does it add up
 *
 * Everything runs in one thread. A connection has chunks, in the order in which they are to leave;
 * conn_pump looks at it after each event and begins whatever can begin. Operations come back as
 * conn_received, conn_sent and conn_read, never from within the call that began them.
 */
#ifndef MEMSLOT_SERVE_H
#define MEMSLOT_SERVE_H

#include "tool.h"

#include <memslot.h>
#include <memslot/buffers.h>

#define REPLY_CHUNKS 2	      /* of a file on their way: one is read, one is sent */
#define ECHO_CHUNKS 16	      /* or less: then nothing is received until half of them are gone */
#define INPUT_MOST (64 * KIB) /* of requests not looked at, likewise */
#define HEAD_MOST (8 * KIB)   /* of a request's */
#define LINGER_NS 2000000000u /* how long a peer may take to hang up */
#define GRACE_NS 5000000000u  /* how long replies may take after SIGTERM */
#define TICK_NS 500000000u

enum {
	HTTP_OK,
	HTTP_BAD,
	HTTP_FORBIDDEN,
	HTTP_MISSING,
	HTTP_METHOD,
	HTTP_LONG,
	HTTP_BUSY,
	HTTP_VERSION,
	STATUSES
};

struct server;
struct conn;

/* Bytes on their way out, in a buffer that is ours. */
struct chunk {
	struct chunk *next;
	struct memslot_buffer buffer;
	size_t size, sent;
	size_t missing;	 /* still to be read, behind `size` */
	uint64_t offset; /* in the file, of what is missing */
};

/* A reply that is being made: its head, and then [at, end) of its file. */
struct reply {
	bool active, last; /* the last one of this connection */
	int file;	   /* or -1 */
	uint64_t at, end;
	size_t head_size;
	char head[640];
};

struct conn {
	struct conn *next, **link;
	struct server *server;
	int fd;
	unsigned ops, reads; /* in flight; files' among them */
	void *receiving;     /* the transport's, or NULL */
	bool stopping;	     /* to receive */
	bool sending;	     /* the first chunk */
	bool ended;	     /* the peer will send no more */
	bool last;	     /* no request will be looked at any more */
	bool lingering;	     /* we have sent all; the peer hangs up first */
	bool dead;	     /* only waits for its operations */
	bool has_granted;    /* what it waited for in the line */
	bool in_line;
	struct memslot_buffer granted;
	bool watched, readable, writable, queued, has_into; /* serve_poll.c's */
	struct memslot_buffer into;
	struct conn *next_in_line, *next_queued;
	uint64_t seen_ns; /* the last progress */
	struct chunk *first, *tail;
	unsigned chunks;
	char *input; /* of requests */
	size_t input_size, input_room;
	struct reply reply;
};

struct counts {
	uint64_t accepted, closed, requests, replies[STATUSES], finished, cut_off;
	uint64_t bytes_in, bytes_out, bytes_lost; /* lost: echo, the peer was gone */
	uint64_t receives, sends, reads, zero_copies, short_sends, short_reads;
	uint64_t begun, over; /* operations */
	uint64_t waits, no_buffers, stops, timeouts;
};

struct transport {
	const char *name;
	/* 0 or -errno. */
	int (*open)(struct server *server);
	/* Wait for events, until `until` at most, and handle them. 0 or -errno. */
	int (*turn)(struct server *server, uint64_t until_ns);
	void (*accept)(struct server *server, bool on);
	/* Or get in the line: there is no buffer. */
	void (*receive)(struct conn *conn);
	void (*stop)(struct conn *conn);
	void (*send)(struct conn *conn, struct chunk *chunk);
	void (*read)(struct conn *conn, struct chunk *chunk);
	/* When all connections are gone. 0 or -errno. */
	int (*close)(struct server *server);
};

struct server {
	const char *root_path, *address, *port;
	bool echo, plain, json;
	uint64_t buffer_size, budget, zero_copy, most_conns, patience_ns;

	const struct transport *transport;
	void *engine; /* the transport's */
	int listener, root, signal_fd, event_fd;
	char where[64], date[40];
	int64_t date_of;

	struct memslot_buffers *buffers; /* NULL: plain */
	void **spare;			 /* plain: a stack */
	size_t spare_count, spare_room, out;
	unsigned most_chunks; /* of an echo on their way: a quarter of all buffers */
	bool grouped;	      /* the kernel chooses buffers to receive into */
	struct memslot_buffer_waiter waiter;
	bool waiting; /* the waiter is queued */
	struct conn *line, *line_tail;

	struct conn *conns;
	uint64_t conn_count, most_seen;
	bool accepting, stopping;
	uint64_t stop_ns, swept_ns, accept_ns, began_ns, ended_ns;
	struct counts counts;
	struct memslot_buffers_stats stats; /* at the end, before close */
	struct memslot_group_stats group_stats;
	double cpu_seconds;
};

extern const struct transport ring_transport, poll_transport;

/* --- serve.c --- */

/* SIGINT or SIGTERM came: the first time what was begun is ended, the second time cut off. */
void serve_signal(struct server *server);
/* What accept answered: a descriptor or -errno. */
void serve_accepted(struct server *server, int result);

/* --- serve_conn.c --- */

/* A connection that was accepted; owns fd. */
void conn_open(struct server *server, int fd);
/* Begin what can begin, end what is over. The connection may be gone afterwards. */
void conn_pump(struct conn *conn);
void conn_kill(struct conn *conn);
/* Bytes came; the buffer is the connection's. Or none: ended (0) or failed (-errno). */
void conn_received(struct conn *conn, const struct memslot_buffer *buffer, size_t bytes);
void conn_receive_ended(struct conn *conn, int result);
void conn_sent(struct conn *conn, struct chunk *chunk, int result);
void conn_read(struct conn *conn, struct chunk *chunk, int result);
/* Who makes no progress is cut off. */
void conn_sweep(struct server *server, uint64_t now);

/* --- serve_http.c --- */

/* The next request of the input, if it is there whole: conn->reply. False: it is not. */
bool http_next(struct conn *conn);
extern const char *const http_names[STATUSES];

/* --- serve_buffers.c --- */

int buffers_open(struct server *server);
/* A buffer; false: none, and the connection is in the line. `must`: plain: beyond the budget, too.
 */
bool buffers_take(struct conn *conn, bool must, struct memslot_buffer *ret_buffer);
void buffers_put(struct server *server, const struct memslot_buffer *buffer);
void line_join(struct conn *conn);
void line_leave(struct conn *conn);
/* Whose turn it is gets a buffer; if there is none the event will tell. */
void line_serve(struct server *server);
void line_event(struct server *server);
/* 0, or -errno (said): not all came back. */
int buffers_close(struct server *server);

/* --- serve_report.c --- */

void serve_report(const struct server *server);
/* Says what does not. */
bool serve_adds_up(const struct server *server);

#endif
