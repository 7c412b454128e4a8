/* SPDX-License-Identifier: MIT */
/*
 * serve_poll.c - memslot serve where io_uring is missing or forbidden: epoll and plain calls, on
 * the same buffers.
 *
 * Invariant: a connection that has an operation is queued, or waits for an edge, and every edge
 * queues it. One turn at it is one step of each operation, so that nobody keeps the others waiting.
 * A buffer to receive into is taken when there is something to receive. Who is queued counts
 * that as an operation, and so is not freed.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256
#define ACCEPTS 64 /* in a turn, at most */

struct engine {
	int epoll;
	struct conn *first, *last; /* queued */
};

static struct engine *engine_of(const struct server *server)
{
	return server->engine;
}

static void enqueue(struct conn *conn)
{
	struct engine *engine = engine_of(conn->server);

	if (conn->queued)
		return;
	conn->queued = true;
	conn->ops++;
	conn->next_queued = NULL;
	if (engine->first)
		engine->last->next_queued = conn;
	else
		engine->first = conn;
	engine->last = conn;
}

static void begin(struct conn *conn)
{
	conn->ops++;
	conn->server->counts.begun++;
	enqueue(conn);
}

static void end(struct conn *conn)
{
	conn->ops--;
	conn->server->counts.over++;
}

/* --- operations --- */

static int watch(struct server *server, int fd, uint32_t events, void *data)
{
	struct epoll_event event = {.events = events, .data.ptr = data};

	return epoll_ctl(engine_of(server)->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static void poll_accept(struct server *server, bool on)
{
	if (on)
		(void)watch(server, server->listener, EPOLLIN, &server->listener);
	else
		(void)epoll_ctl(engine_of(server)->epoll, EPOLL_CTL_DEL, server->listener, NULL);
}

/* The first one: its edges are watched from now on. */
static void poll_receive(struct conn *conn)
{
	if (!conn->watched) {
		conn->watched = true;
		if (watch(conn->server, conn->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
			    conn)) {
			conn_kill(conn);
			return;
		}
	}
	conn->into = conn->granted;
	conn->has_into = conn->has_granted;
	conn->has_granted = false;
	conn->receiving = conn;
	begin(conn);
}

static void poll_stop(struct conn *conn)
{
	enqueue(conn);
}

static void poll_send(struct conn *conn, struct chunk *chunk)
{
	(void)chunk;
	conn->server->counts.sends++;
	begin(conn);
}

static void poll_read(struct conn *conn, struct chunk *chunk)
{
	(void)chunk;
	conn->server->counts.reads++;
	begin(conn);
}

/* --- steps --- */

static void received(struct conn *conn, int result)
{
	struct server *server = conn->server;

	server->counts.receives++;
	if (result > 0) {
		conn->has_into = false;
		conn_received(conn, &conn->into, (size_t)result);
	}
	end(conn);
	conn_receive_ended(conn, result > 0 ? -ECANCELED : result);
}

static void step_receive(struct conn *conn)
{
	ssize_t got = -ECANCELED;

	if (!conn->stopping && !conn->dead) {
		if (!conn->readable)
			return;
		if (!conn->has_into && !buffers_take(conn, !conn->first, &conn->into)) {
			received(conn, -ENOBUFS);
			return;
		}
		conn->has_into = true;
		got = recv(conn->fd, conn->into.base, conn->into.size, 0);
		got = got < 0 ? -errno : got;
		conn->readable = got != -EAGAIN;
	}
	if (got <= 0 && conn->has_into)
		buffers_put(conn->server, &conn->into);
	if (got <= 0)
		conn->has_into = false;
	if (got != -EAGAIN)
		received(conn, (int)got);
}

static void step_send(struct conn *conn)
{
	struct chunk *chunk = conn->first;
	ssize_t gone = -ECANCELED;

	if (!conn->dead) {
		if (!conn->writable)
			return;
		gone = send(conn->fd, (char *)chunk->buffer.base + chunk->sent,
			chunk->size - chunk->sent, MSG_NOSIGNAL);
		gone = gone < 0 ? -errno : gone;
		conn->writable = gone != -EAGAIN;
	}
	if (gone != -EAGAIN) {
		end(conn);
		conn_sent(conn, chunk, (int)gone);
	}
}

static void step_read(struct conn *conn)
{
	struct chunk *chunk = conn->first;
	ssize_t got = -ECANCELED;

	while (chunk->missing == 0)
		chunk = chunk->next;
	if (!conn->dead) {
		got = pread(conn->reply.file, (char *)chunk->buffer.base + chunk->size,
			chunk->missing, (off_t)chunk->offset);
		got = got < 0 ? -errno : got;
	}
	end(conn);
	conn_read(conn, chunk, (int)got);
}

static bool has_work(const struct conn *conn)
{
	if (conn->dead)
		return conn->ops > 0;
	return conn->reads || (conn->sending && conn->writable) ||
	       (conn->receiving && (conn->readable || conn->stopping));
}

static void step(struct conn *conn)
{
	if (conn->reads)
		step_read(conn);
	if (conn->sending)
		step_send(conn);
	if (conn->receiving)
		step_receive(conn);
	if (has_work(conn))
		enqueue(conn);
	conn_pump(conn);
}

static void run_queue(struct server *server)
{
	struct engine *engine = engine_of(server);
	struct conn *conn = engine->first, *next;

	engine->first = NULL;
	for (; conn; conn = next) {
		next = conn->next_queued;
		conn->queued = false;
		conn->ops--;
		step(conn);
	}
}

/* --- events --- */

static void accept_some(struct server *server)
{
	int fd;

	for (int i = 0; i < ACCEPTS; i++) {
		fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && errno == EAGAIN)
			return;
		serve_accepted(server, fd < 0 ? -errno : fd);
		if (fd < 0)
			return;
	}
}

/* Connections first: what the others make of it may end some. */
static void dispatch(struct server *server, const struct epoll_event *events, int count)
{
	bool accepts = false, line = false, signal = false;

	for (int i = 0; i < count; i++) {
		struct conn *conn = events[i].data.ptr;
		void *where = conn;
		accepts |= where == &server->listener;
		line |= where == &server->event_fd;
		signal |= where == &server->signal_fd;
		if (where == &server->listener || where == &server->event_fd ||
			where == &server->signal_fd)
			continue;
		conn->readable |= (events[i].events & ~(uint32_t)EPOLLOUT) != 0;
		conn->writable |= (events[i].events & ~(uint32_t)EPOLLIN) != 0;
		if (conn->ops)
			enqueue(conn);
	}
	if (accepts)
		accept_some(server);
	if (line)
		line_event(server);
	if (signal)
		serve_signal(server);
}

static int poll_turn(struct server *server, uint64_t until_ns)
{
	struct engine *engine = engine_of(server);
	struct epoll_event events[EVENTS];
	uint64_t now = clock_ns();
	int wait = 0, count;

	if (!engine->first && until_ns > now)
		wait = (int)((until_ns - now) / 1000000 + 1);
	count = epoll_wait(engine->epoll, events, EVENTS, wait);
	if (count < 0 && errno != EINTR)
		return -errno;
	dispatch(server, events, count);
	run_queue(server);
	return 0;
}

/* --- beginning and end --- */

static int poll_open(struct server *server)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int error = 0;

	if (!engine)
		return -ENOMEM;
	server->engine = engine;
	engine->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (engine->epoll < 0)
		error = -errno;
	if (!error)
		error = watch(server, server->signal_fd, EPOLLIN, &server->signal_fd);
	if (!error && server->event_fd >= 0)
		error = watch(server, server->event_fd, EPOLLIN, &server->event_fd);
	return error;
}

static int poll_close(struct server *server)
{
	close(engine_of(server)->epoll);
	free(server->engine);
	return 0;
}

const struct transport poll_transport = {"epoll", poll_open, poll_turn, poll_accept, poll_receive,
	poll_stop, poll_send, poll_read, poll_close};
