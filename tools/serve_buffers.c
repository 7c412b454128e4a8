/* SPDX-License-Identifier: MIT */
/*
 * serve_buffers.c - where the buffers of memslot serve come from: the pool, or with --plain malloc.
 *
 * Invariant: who finds the budget spent gets in line, and nobody who comes later gets a buffer
 * before. At most one waiter is queued at the pool, for the first in the line; when its event comes
 * that one is served, and then whoever can be. Plain buffers have the same budget, except that each
 * connection may have one to receive into: such a server's idle connections keep theirs.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int buffers_open(struct server *server)
{
	struct memslot_buffers_opts opts = {
		.size = sizeof(opts), .buffer_size = server->buffer_size, .budget = server->budget};

	server->most_chunks = ECHO_CHUNKS;
	if (server->budget / server->buffer_size < 4 * ECHO_CHUNKS)
		server->most_chunks = (unsigned)(server->budget / server->buffer_size / 4);
	if (server->plain)
		return 0;
	server->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->event_fd < 0)
		return -errno;
	return memslot_buffers_create(&opts, &server->buffers);
}

/* --- plain --- */

static bool plain_take(struct server *server, bool must, struct memslot_buffer *ret_buffer)
{
	void *memory;

	if (!must && (server->out + 1) * server->buffer_size > server->budget)
		return false;
	if (server->spare_count)
		memory = server->spare[--server->spare_count];
	else if (posix_memalign(&memory, page_size(), server->buffer_size))
		return false;
	server->out++;
	*ret_buffer =
		(struct memslot_buffer){.base = memory, .size = server->buffer_size, .count = 1};
	return true;
}

static void plain_put(struct server *server, void *memory)
{
	void **more;

	server->out--;
	if (server->spare_count == server->spare_room) {
		size_t room = server->spare_room ? 2 * server->spare_room : 64;
		more = realloc(server->spare, room * sizeof(*more));
		if (!more) {
			free(memory);
			return;
		}
		server->spare = more;
		server->spare_room = room;
	}
	server->spare[server->spare_count++] = memory;
}

/* --- both --- */

static bool take(struct server *server, bool must, struct memslot_buffer *ret_buffer)
{
	if (server->plain)
		return plain_take(server, must, ret_buffer);
	return memslot_buffers_acquire(server->buffers, 1, 0, ret_buffer) == 0;
}

bool buffers_take(struct conn *conn, bool must, struct memslot_buffer *ret_buffer)
{
	struct server *server = conn->server;

	if (conn->has_granted) {
		conn->has_granted = false;
		*ret_buffer = conn->granted;
		return true;
	}
	must = must && server->plain;
	if ((must || !server->line) && take(server, must, ret_buffer))
		return true;
	line_join(conn);
	return false;
}

void buffers_put(struct server *server, const struct memslot_buffer *buffer)
{
	int error = 0;

	if (server->plain)
		plain_put(server, buffer->base);
	else
		error = memslot_buffers_release(server->buffers, buffer);
	if (error)
		complain(error, "a buffer could not be released");
}

/* --- the line --- */

void line_join(struct conn *conn)
{
	struct server *server = conn->server;

	if (conn->in_line)
		return;
	conn->in_line = true;
	conn->next_in_line = NULL;
	if (server->line)
		server->line_tail->next_in_line = conn;
	else
		server->line = conn;
	server->line_tail = conn;
	server->counts.waits++;
}

void line_leave(struct conn *conn)
{
	struct server *server = conn->server;
	struct conn *before = NULL, *at = server->line;

	if (!conn->in_line)
		return;
	for (; at != conn; at = at->next_in_line)
		before = at;
	if (before)
		before->next_in_line = conn->next_in_line;
	else
		server->line = conn->next_in_line;
	if (server->line_tail == conn)
		server->line_tail = before;
	conn->in_line = false;
}

/* The first in the line has it. */
static void grant(struct server *server, const struct memslot_buffer *buffer)
{
	struct conn *conn = server->line;

	if (!conn) {
		buffers_put(server, buffer);
		return;
	}
	line_leave(conn);
	conn->granted = *buffer;
	conn->has_granted = true;
	conn_pump(conn);
}

void line_serve(struct server *server)
{
	struct memslot_buffer buffer;
	int error;

	while (server->line && !server->waiting && take(server, false, &buffer))
		grant(server, &buffer);
	if (!server->line || server->waiting || server->plain)
		return;
	server->waiter = (struct memslot_buffer_waiter){
		.size = sizeof(server->waiter), .event_fd = server->event_fd, .count = 1};
	error = memslot_buffers_wait(server->buffers, &server->waiter);
	server->waiting = !error;
	if (error)
		complain(error, "cannot wait for buffers");
}

void line_event(struct server *server)
{
	uint64_t count;

	if (read(server->event_fd, &count, sizeof(count)) != sizeof(count) || !server->waiting)
		return;
	server->waiting = false;
	if (server->waiter.buffer.base)
		grant(server, &server->waiter.buffer);
	line_serve(server);
}

/* --- the end --- */

static int pool_close(struct server *server)
{
	uint64_t outstanding = 0;
	int error = 0;

	if (server->waiting) {
		error = memslot_buffers_wait_cancel(server->buffers, &server->waiter);
		if (error == -EALREADY)
			buffers_put(server, &server->waiter.buffer);
	}
	server->stats = (struct memslot_buffers_stats){.size = sizeof(server->stats)};
	error = memslot_buffers_stats(server->buffers, &server->stats);
	if (!error)
		error = memslot_buffers_close(server->buffers, 1000000000, &outstanding);
	if (error)
		complain(error, "the pool of buffers cannot be closed, %llu are out",
			(unsigned long long)outstanding);
	return error;
}

int buffers_close(struct server *server)
{
	int error = 0;

	if (server->buffers)
		error = pool_close(server);
	if (server->event_fd >= 0)
		close(server->event_fd);
	while (server->spare_count)
		free(server->spare[--server->spare_count]);
	free(server->spare);
	return error;
}
