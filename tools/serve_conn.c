/* SPDX-License-Identifier: MIT */
/*
 * serve_conn.c - one connection of memslot serve.
 *
 * Invariant: conn_pump alone begins operations. Chunks leave in their order, one at a time; the
 * buffer of one that is sent is released at once, whether or not the network still reads it: the
 * pool's guard sees to that. A connection that is dead is freed with its last operation, and keeps
 * until then what the kernel may be at. Nothing that was received is thrown away while the peer can
 * take an answer: who has too much on its way is not received from.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void conn_open(struct server *server, int fd)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	int on = 1;

	if (!conn) {
		close(fd);
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	server->counts.accepted++;
	if (++server->conn_count > server->most_seen)
		server->most_seen = server->conn_count;
	conn->server = server;
	conn->fd = fd;
	conn->readable = conn->writable = server->transport == &poll_transport;
	conn->reply.file = -1;
	conn->seen_ns = clock_ns();
	conn->next = server->conns;
	conn->link = &server->conns;
	if (conn->next)
		conn->next->link = &conn->next;
	server->conns = conn;
	conn_pump(conn);
}

/* --- chunks --- */

static struct chunk *append(struct conn *conn, const struct memslot_buffer *buffer)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk));

	if (!chunk)
		return NULL;
	chunk->buffer = *buffer;
	if (conn->first)
		conn->tail->next = chunk;
	else
		conn->first = chunk;
	conn->tail = chunk;
	conn->chunks++;
	return chunk;
}

static void drop_first(struct conn *conn)
{
	struct chunk *chunk = conn->first;

	conn->first = chunk->next;
	conn->chunks--;
	if (conn->server->echo)
		conn->server->counts.bytes_lost += chunk->size - chunk->sent;
	buffers_put(conn->server, &chunk->buffer);
	free(chunk);
}

/* --- the end of it --- */

static void give_granted(struct conn *conn)
{
	if (conn->has_granted)
		buffers_put(conn->server, &conn->granted);
	conn->has_granted = false;
}

void conn_kill(struct conn *conn)
{
	if (conn->dead)
		return;
	conn->dead = true;
	line_leave(conn);
	give_granted(conn);
	if (conn->reply.active || conn->first)
		conn->server->counts.cut_off++;
	(void)shutdown(conn->fd, SHUT_RDWR);
	if (conn->receiving && !conn->stopping) {
		conn->stopping = true;
		conn->server->transport->stop(conn);
	}
}

static void discard(struct conn *conn)
{
	struct server *server = conn->server;

	while (conn->first)
		drop_first(conn);
	if (conn->reply.file >= 0)
		close(conn->reply.file);
	close(conn->fd);
	*conn->link = conn->next;
	if (conn->next)
		conn->next->link = conn->link;
	server->conn_count--;
	server->counts.closed++;
	free(conn->input);
	free(conn);
}

static bool is_done(const struct conn *conn)
{
	if (conn->first || conn->reply.active)
		return false;
	return conn->ended || conn->last || conn->server->stopping;
}

/* All is said: wait until the peer has hung up, so that it is not cut off from what it was sent. */
static void finish(struct conn *conn)
{
	if (conn->ended) {
		conn_kill(conn);
	} else if (!conn->lingering) {
		conn->lingering = true;
		conn->input_size = 0;
		(void)shutdown(conn->fd, SHUT_WR);
	}
}

/* --- what can begin --- */

/* The next part of the reply, if there is a buffer. */
static bool produce(struct conn *conn)
{
	struct reply *reply = &conn->reply;
	struct memslot_buffer buffer;
	struct chunk *chunk;

	if (conn->in_line || conn->chunks >= REPLY_CHUNKS || !buffers_take(conn, false, &buffer))
		return false;
	chunk = append(conn, &buffer);
	if (!chunk) {
		buffers_put(conn->server, &buffer);
		conn_kill(conn);
		return false;
	}
	memcpy(buffer.base, reply->head, reply->head_size);
	chunk->size = reply->head_size;
	chunk->offset = reply->at;
	chunk->missing = buffer.size - chunk->size;
	if (chunk->missing > reply->end - reply->at)
		chunk->missing = reply->end - reply->at;
	reply->head_size = 0;
	reply->at += chunk->missing;
	if (chunk->missing) {
		conn->reads++;
		conn->server->transport->read(conn, chunk);
	}
	return true;
}

static void make_replies(struct conn *conn)
{
	struct reply *reply = &conn->reply;

	while (!conn->dead) {
		if (!reply->active && (conn->last || conn->server->stopping || !http_next(conn)))
			return;
		if (reply->head_size || reply->at < reply->end) {
			if (!produce(conn))
				return;
		} else if (conn->reads) {
			return; /* the file is needed still */
		} else {
			if (reply->file >= 0)
				close(reply->file);
			reply->file = -1;
			reply->active = false;
			conn->last = reply->last;
			conn->server->counts.finished++;
		}
	}
}

static void send_first(struct conn *conn)
{
	if (conn->sending || !conn->first || conn->first->missing)
		return;
	conn->sending = true;
	conn->server->transport->send(conn, conn->first);
}

static bool has_room(const struct conn *conn)
{
	unsigned most = conn->server->most_chunks;

	if (conn->lingering)
		return true;
	most = conn->receiving ? most : most / 2 + 1;
	return conn->server->echo ? conn->chunks < most : conn->input_size < INPUT_MOST;
}

static void receive(struct conn *conn)
{
	const struct transport *transport = conn->server->transport;

	if (conn->receiving && !conn->stopping && !has_room(conn)) {
		conn->stopping = true;
		conn->server->counts.stops++;
		transport->stop(conn);
	} else if (!conn->receiving && !conn->ended && !conn->in_line && has_room(conn)) {
		if (conn->server->grouped)
			give_granted(conn);
		transport->receive(conn);
	}
}

void conn_pump(struct conn *conn)
{
	if (!conn->dead && !conn->server->echo && !conn->lingering)
		make_replies(conn);
	if (!conn->dead)
		send_first(conn);
	if (!conn->dead && is_done(conn))
		finish(conn);
	if (!conn->dead)
		receive(conn);
	give_granted(conn);
	if (conn->dead && conn->ops == 0)
		discard(conn);
}

/* --- what is over --- */

static int keep_input(struct conn *conn, const struct memslot_buffer *buffer, size_t bytes)
{
	size_t room = conn->input_size + bytes;
	char *input = conn->input;

	if (room > conn->input_room) {
		room = room < 2 * HEAD_MOST ? 2 * HEAD_MOST : 2 * room;
		input = realloc(conn->input, room);
		if (!input)
			return -ENOMEM;
		conn->input = input;
		conn->input_room = room;
	}
	memcpy(input + conn->input_size, buffer->base, bytes);
	conn->input_size += bytes;
	return 0;
}

void conn_received(struct conn *conn, const struct memslot_buffer *buffer, size_t bytes)
{
	struct server *server = conn->server;
	struct chunk *chunk;
	int error = 0;

	server->counts.bytes_in += bytes;
	conn->seen_ns = conn->lingering ? conn->seen_ns : clock_ns();
	if (server->echo && !conn->dead && !conn->lingering) {
		chunk = append(conn, buffer);
		if (chunk) {
			chunk->size = bytes;
			return;
		}
		error = -ENOMEM;
	} else if (!conn->dead && !conn->lingering) {
		error = keep_input(conn, buffer, bytes);
	}
	server->counts.bytes_lost += server->echo ? bytes : 0;
	buffers_put(server, buffer);
	if (error)
		conn_kill(conn);
}

void conn_receive_ended(struct conn *conn, int result)
{
	conn->receiving = NULL;
	conn->stopping = false;
	if (result == 0)
		conn->ended = true;
	else if (result == -ENOBUFS)
		conn->server->counts.no_buffers++;
	else if (result < 0 && result != -ECANCELED && result != -EINTR)
		conn_kill(conn);
}

void conn_sent(struct conn *conn, struct chunk *chunk, int result)
{
	conn->sending = false;
	if (result <= 0) {
		conn_kill(conn);
		return;
	}
	conn->seen_ns = clock_ns();
	conn->server->counts.bytes_out += (uint64_t)result;
	chunk->sent += (size_t)result;
	if (chunk->sent == chunk->size)
		drop_first(conn);
	else
		conn->server->counts.short_sends++;
}

void conn_read(struct conn *conn, struct chunk *chunk, int result)
{
	if (result <= 0) { /* the file was cut short, or cannot be read: what was promised cannot be
			      kept */
		conn->reads--;
		conn_kill(conn);
		return;
	}
	conn->seen_ns = clock_ns();
	chunk->size += (size_t)result;
	chunk->offset += (uint64_t)result;
	chunk->missing -= (size_t)result;
	if (chunk->missing == 0 || conn->dead) {
		conn->reads--;
	} else {
		conn->server->counts.short_reads++;
		conn->server->transport->read(conn, chunk);
	}
}

void conn_sweep(struct server *server, uint64_t now)
{
	struct conn *conn, *next;

	for (conn = server->conns; conn; conn = next) {
		uint64_t patience = conn->lingering ? LINGER_NS : server->patience_ns;
		next = conn->next;
		if (server->stopping && now - server->stop_ns > GRACE_NS)
			patience = 0;
		if (conn->dead || (conn->in_line && patience) || now - conn->seen_ns <= patience)
			continue;
		server->counts.timeouts++;
		conn_kill(conn);
		conn_pump(conn);
	}
}
