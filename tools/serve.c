/* SPDX-License-Identifier: MIT */
/*
 * serve.c - memslot serve: a TCP echo and HTTP file server on a pool of buffers, and a test of it.
 *
 * Invariant: the pool is made first and closed last; in between nobody leaves with a buffer. After
 * SIGINT or SIGTERM nobody is accepted, what was begun is ended, and then everything is counted.
 * See serve.h for the parts.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	OPT_ECHO = 256,
	OPT_PLAIN,
	OPT_LISTEN,
	OPT_BUDGET,
	OPT_ZERO_COPY,
	OPT_CONNECTIONS,
	OPT_TIMEOUT
};

static const struct argp_option options[] = {
	{"echo", OPT_ECHO, NULL, 0, "Send back whatever comes, in place of files", 0},
	{"port", 'p', "PORT", 0, "Default 8080; 0: one that is free", 0},
	{"listen", OPT_LISTEN, "ADDRESS", 0, "Default 127.0.0.1", 0},
	{"buffer-size", 'b', "BYTES", 0, "Of a buffer (default 16K)", 0},
	{"budget", OPT_BUDGET, "BYTES", 0, "Of all buffers (default 64M)", 0},
	{"connections", OPT_CONNECTIONS, "N", 0, "At most (default 4096); the others wait", 0},
	{"timeout", OPT_TIMEOUT, "SECONDS", 0,
		"Cut off connections where nothing moves for so long (default 30)", 0},
	{"zero-copy", OPT_ZERO_COPY, "BYTES", 0,
		"Send without a copy what has so many bytes (default none)", 0},
	{"plain", OPT_PLAIN, NULL, 0, "Without registered and provided buffers", 0},
	{"json", 'j', NULL, 0, "Print a JSON object at the end", 0},
	{0},
};

static const char text[] =
	"A server on a pool of buffers: HTTP/1.1, the files below DIRECTORY, or with --echo "
	"whatever "
	"comes. It ends on SIGINT or SIGTERM, and then tells what happened."
	"\v"
	"What it listens on is said on standard error when it does. Where io_uring is missing or "
	"forbidden it works with epoll and plain calls.\n"
	"The exit status is 1 when something failed or does not add up.";

/* --- the command line --- */

static uint64_t take_size(struct argp_state *state, const char *name, const char *argument,
	uint64_t low, uint64_t high)
{
	uint64_t size = 0;

	if (parse_size(argument, &size) || size < low || size > high)
		refuse(state, "--%s: '%s' is no size from %llu to %llu", name, argument,
			(unsigned long long)low, (unsigned long long)high);
	return size;
}

static uint64_t take_number(struct argp_state *state, const char *name, const char *argument,
	uint64_t low, uint64_t high)
{
	uint64_t number = 0;

	if (parse_number(argument, low, high, &number))
		refuse(state, "--%s: '%s' is no number from %llu to %llu", name, argument,
			(unsigned long long)low, (unsigned long long)high);
	return number;
}

static void check(struct argp_state *state, const struct server *server)
{
	if (server->echo == (server->root_path != NULL))
		refuse(state, "either DIRECTORY or --echo");
	if (server->buffer_size & (server->buffer_size - 1))
		refuse(state, "--buffer-size: no power of two");
	if (server->budget < 4 * server->buffer_size)
		refuse(state, "--budget: less than four buffers");
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct server *server = state->input;

	if (key == OPT_ECHO)
		server->echo = true;
	else if (key == OPT_PLAIN)
		server->plain = true;
	else if (key == 'j')
		server->json = true;
	else if (key == OPT_LISTEN)
		server->address = argument;
	else if (key == 'p' && take_number(state, "port", argument, 0, 65535) <= 65535)
		server->port = argument;
	else if (key == 'b')
		server->buffer_size = take_size(state, "buffer-size", argument, 4 * KIB, 16 * MIB);
	else if (key == OPT_BUDGET)
		server->budget = take_size(state, "budget", argument, 16 * KIB, MIB * MIB);
	else if (key == OPT_ZERO_COPY)
		server->zero_copy = take_size(state, "zero-copy", argument, 0, INT64_MAX);
	else if (key == OPT_CONNECTIONS)
		server->most_conns = take_number(state, "connections", argument, 1, 1000000);
	else if (key == OPT_TIMEOUT)
		server->patience_ns =
			1000000000 * take_number(state, "timeout", argument, 1, 86400);
	else if (key == ARGP_KEY_ARG && !server->root_path)
		server->root_path = argument;
	else if (key == ARGP_KEY_END)
		check(state, server);
	else
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* --- listening --- */

static int listen_at(struct server *server, const struct addrinfo *at)
{
	int on = 1;

	server->listener = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
	if (server->listener < 0)
		return -errno;
	(void)setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(server->listener, at->ai_addr, at->ai_addrlen) || listen(server->listener, 1024))
		return -errno;
	return 0;
}

/* Where it is, as the kernel says: the port may have been 0. */
static void name_listener(struct server *server)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	char host[40] = "?", port[8] = "?";

	if (getsockname(server->listener, (struct sockaddr *)&address, &size) == 0)
		(void)getnameinfo((struct sockaddr *)&address, size, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(server->where, sizeof(server->where), strchr(host, ':') ? "[%s]:%s" : "%s:%s",
		host, port);
}

static int open_listener(struct server *server)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
	struct addrinfo *found;
	int error = -EINVAL;

	if (getaddrinfo(server->address, server->port, &hints, &found) == 0) {
		error = listen_at(server, found);
		freeaddrinfo(found);
	}
	if (error)
		complain(error, "cannot listen on %s, port %s", server->address, server->port);
	else
		name_listener(server);
	return error;
}

static int open_signals(struct server *server)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	server->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return server->signal_fd < 0 ? -errno : 0;
}

/* Each connection has a descriptor, and perhaps one of a file. */
static void raise_limit(struct server *server)
{
	struct rlimit limit;
	uint64_t fit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	fit = limit.rlim_cur > 64 ? (limit.rlim_cur - 32) / 2 : 16;
	if (server->most_conns > fit)
		server->most_conns = fit;
}

/* --- while it runs --- */

void serve_signal(struct server *server)
{
	struct signalfd_siginfo info;

	while (read(server->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		server->stop_ns = server->stopping ? 0 : clock_ns();
		server->stopping = true;
	}
}

void serve_accepted(struct server *server, int result)
{
	if (result >= 0)
		conn_open(server, result);
	else if (result != -ECONNABORTED && result != -EINTR)
		server->accept_ns = clock_ns() + TICK_NS; /* no descriptors: later */
}

/* Nobody new comes; who has nothing on its way goes. */
static void stop_all(struct server *server)
{
	struct conn *conn, *next;

	for (conn = server->conns; conn; conn = next) {
		next = conn->next;
		conn_pump(conn);
	}
}

static void set_accepting(struct server *server, uint64_t now)
{
	bool wanted = !server->stopping && server->conn_count < server->most_conns &&
		      now >= server->accept_ns;

	if (wanted == server->accepting)
		return;
	server->accepting = wanted;
	server->transport->accept(server, wanted);
}

static int run(struct server *server)
{
	bool stopped = false;
	uint64_t now;
	int error = 0;

	while (!error && !(server->stopping && !server->conns)) {
		now = clock_ns();
		if (now - server->swept_ns >= TICK_NS) {
			conn_sweep(server, now);
			server->swept_ns = now;
		}
		set_accepting(server, now);
		if (server->stopping && !stopped) {
			stopped = true;
			stop_all(server);
		}
		line_serve(server);
		if (!(server->stopping && !server->conns))
			error = server->transport->turn(server, now + TICK_NS);
	}
	set_accepting(server, clock_ns());
	if (error)
		complain(error, "%s", server->transport->name);
	return error;
}

/* --- beginning and end --- */

/* Forbidden, missing, or no memory that may be locked: without it. */
static int open_engine(struct server *server)
{
	int error = -EOPNOTSUPP;

	server->transport = &ring_transport;
	if (memslot_feature("io_uring") == 1)
		error = server->transport->open(server);
	if (error == -EOPNOTSUPP || error == -ENOSYS || error == -EPERM || error == -ENOMEM) {
		server->transport = &poll_transport;
		error = fcntl(server->listener, F_SETFL, O_NONBLOCK) ? -errno : 0;
		if (!error)
			error = server->transport->open(server);
	}
	return error;
}

static int set_up(struct server *server)
{
	int error = open_signals(server);

	raise_limit(server);
	if (!error && server->root_path) {
		server->root = open(server->root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		error = server->root < 0 ? -errno : 0;
		if (error)
			complain(error, "%s", server->root_path);
	}
	if (!error)
		error = open_listener(server);
	if (error)
		return error;
	error = buffers_open(server);
	if (!error)
		error = open_engine(server);
	if (error)
		complain(error, "cannot set up buffers and %s",
			server->transport ? server->transport->name : "events");
	return error;
}

static int tear_down(struct server *server)
{
	int error = 0, end;

	if (server->engine)
		error = server->transport->close(server);
	if (error)
		complain(error, "%s does not end", server->transport->name);
	end = buffers_close(server);
	for (size_t i = 0; i < 3; i++) {
		int fd = ((const int[]){server->listener, server->root, server->signal_fd})[i];
		if (fd >= 0)
			close(fd);
	}
	return error ? error : end;
}

static double cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int command_serve(int argc, char **argv)
{
	static const struct argp argp = {options, parse, "[DIRECTORY]", text, NULL, NULL, NULL};
	static struct server server = {.address = "127.0.0.1",
		.port = "8080",
		.buffer_size = 16 * KIB,
		.budget = 64 * MIB,
		.zero_copy = UINT64_MAX,
		.most_conns = 4096,
		.patience_ns = 30000000000u,
		.listener = -1,
		.root = -1,
		.signal_fd = -1,
		.event_fd = -1};
	int error;

	if (argp_parse(&argp, argc, argv, 0, NULL, &server))
		return EXIT_USAGE;
	error = set_up(&server);
	if (!error) {
		fprintf(stderr, "memslot: %s on %s (%s%s)\n",
			server.echo ? "echo" : server.root_path, server.where,
			server.transport->name, server.plain ? ", plain" : "");
		server.began_ns = clock_ns();
		server.cpu_seconds = cpu_seconds();
		error = run(&server);
		server.cpu_seconds = cpu_seconds() - server.cpu_seconds;
		server.ended_ns = clock_ns();
	}
	if (tear_down(&server) || error)
		return EXIT_FAILED;
	serve_report(&server);
	return serve_adds_up(&server) ? EXIT_DONE : EXIT_FAILED;
}
