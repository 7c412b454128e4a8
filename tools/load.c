/* SPDX-License-Identifier: MIT */
/*
 * load.c - memslot load: a client that talks to memslot serve (or another server) over many
 * connections at once, and checks every byte of what comes back.
 *
 * Invariant: each visit says all it has to say, then shuts its side down and waits for the end of
 * the other: only what came until then counts, and all of it has to be right.
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MOST 1000
#define SILENCE_MS 20000

enum { OPT_BYTES = 256 };

static const struct argp_option options[] = {
	{"files", 'f', "DIRECTORY", 0, "Ask for these files by HTTP; default: echo", 0},
	{"connections", 'c', "N", 0, "At once (default 16)", 0},
	{"visits", 'n', "N", 0, "Connections in all (default 200)", 0},
	{"pipeline", 'p', "N", 0, "Requests in one connection, at most (default 16)", 0},
	{"bytes", OPT_BYTES, "BYTES", 0, "Echo: in one connection, on average (default 256K)", 0},
	{"seed", 's', "N", 0, "Of everything (default 1)", 0},
	{"json", 'j', NULL, 0, "Print a JSON object", 0},
	{0},
};

static const char text[] =
	"A client of memslot serve that checks every byte: what it sent, in random pieces, or "
	"files "
	"that it asks for, with bad requests in between; in the same order as it asked.\v"
	"The exit status is 3 after a wrong byte, 1 when something else is not as it should be.";

/* --- the command line --- */

static uint64_t take_number(struct argp_state *state, const char *name, const char *argument,
	uint64_t low, uint64_t high)
{
	uint64_t number = 0;

	if (parse_number(argument, low, high, &number))
		refuse(state, "--%s: '%s' is no number from %llu to %llu", name, argument,
			(unsigned long long)low, (unsigned long long)high);
	return number;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct load *load = state->input;

	if (key == 'f')
		load->root = argument;
	else if (key == 'c')
		load->connections =
			(unsigned)take_number(state, "connections", argument, 1, CONNECTIONS_MOST);
	else if (key == 'n')
		load->visits = take_number(state, "visits", argument, 1, UINT32_MAX);
	else if (key == 'p')
		load->pipeline = take_number(state, "pipeline", argument, 1, REQUESTS_MOST);
	else if (key == OPT_BYTES && parse_size(argument, &load->bytes))
		refuse(state, "--bytes: '%s' is no size", argument);
	else if (key == 's')
		load->seed = take_number(state, "seed", argument, 0, UINT32_MAX);
	else if (key == 'j')
		load->json = true;
	else if (key == ARGP_KEY_ARG && !load->host)
		load->host = argument;
	else if (key == ARGP_KEY_ARG && !load->port)
		load->port = argument;
	else if (key == ARGP_KEY_END && !load->port)
		refuse(state, "ADDRESS and PORT of the server are missing");
	else if (key != OPT_BYTES && key != ARGP_KEY_END)
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* --- a visit --- */

uint64_t visit_draw(struct visit *visit, uint64_t below)
{
	visit->random = visit->random * 6364136223846793005u + 1442695040888963407u;
	return (visit->random >> 32) % below;
}

int visit_wrong(
	const struct visit *visit, int status, const char *what, uint64_t found, uint64_t expected)
{
	complain(0, "visit %llu (seed %llu), %llu bytes in: %s: %llu, not %llu",
		(unsigned long long)visit->number, (unsigned long long)visit->load->seed,
		(unsigned long long)visit->received, what, (unsigned long long)found,
		(unsigned long long)expected);
	return status;
}

static int dial(const struct load *load)
{
	const struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct addrinfo *found;
	int fd;

	if (getaddrinfo(load->host, load->port, &hints, &found))
		return -EINVAL;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen)) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd < 0 ? -errno : fd;
}

static int begin(struct load *load, struct visit *visit)
{
	int fd = dial(load);

	*visit = (struct visit){.load = load, .fd = fd, .number = load->begun};
	visit->random = (load->seed + 1) * 0x9e3779b97f4a7c15u + load->begun * 0xbf58476d1ce4e5b9u;
	if (fd < 0) {
		complain(fd, "%s, port %s", load->host, load->port);
		return EXIT_FAILED;
	}
	load->begun++;
	return load->protocol->begin(visit);
}

static void forget(struct visit *visit)
{
	visit->load->protocol->forget(visit);
	close(visit->fd);
	visit->fd = -1;
}

/* A piece goes out, or a part of it. */
static int speak(struct visit *visit)
{
	static char bytes[WRITE_MOST];
	size_t size = visit->load->protocol->output(visit, bytes, sizeof(bytes));
	ssize_t gone;

	if (size == 0) {
		visit->shut = true;
		(void)shutdown(visit->fd, SHUT_WR);
		return 0;
	}
	gone = send(visit->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (gone > 0) {
		visit->sent += (uint64_t)gone;
		visit->load->bytes_out += (uint64_t)gone;
	} else if (errno == EPIPE || errno == ECONNRESET) {
		visit->shut = true; /* it was refused before it was whole: the answer tells */
	} else if (errno != EAGAIN && errno != EINTR) {
		complain(-errno, "send");
		return EXIT_FAILED;
	}
	return 0;
}

/* What came is looked at, sometimes in small pieces. `over`: it was the end. */
static int listen_to(struct visit *visit, bool *over)
{
	static char bytes[WRITE_MOST];
	size_t room = visit_draw(visit, 8) ? sizeof(bytes) : 1 + (size_t)visit_draw(visit, 3000);
	ssize_t got = recv(visit->fd, bytes, room, MSG_DONTWAIT);
	int status = 0;

	if (got > 0) {
		status = visit->load->protocol->input(visit, bytes, (size_t)got);
		visit->received += (uint64_t)got;
		visit->load->bytes_in += (uint64_t)got;
	} else if (got == 0) {
		*over = true;
		status = visit->load->protocol->end(visit);
	} else if (errno != EAGAIN && errno != EINTR) {
		complain(-errno, "receive");
		status = visit_wrong(visit, EXIT_FAILED, "errno", (uint64_t)errno, 0);
	}
	return status;
}

/* --- all of them --- */

static int handle(struct visit *visit, short events)
{
	bool over = false;
	int status = 0;

	if (events & (POLLIN | POLLHUP | POLLERR))
		status = listen_to(visit, &over);
	if (!status && !over && !visit->shut && (events & POLLOUT))
		status = speak(visit);
	if (over) {
		forget(visit);
		visit->load->over++;
	}
	return status;
}

/* Visits begin until there are enough; the descriptors to look at. */
static int fill(struct load *load, struct visit *visits, struct pollfd *polled)
{
	int status = 0;

	for (unsigned i = 0; i < load->connections && !status; i++) {
		if (visits[i].fd < 0 && load->begun < load->visits)
			status = begin(load, &visits[i]);
		polled[i].fd = visits[i].fd;
		polled[i].events = (short)(POLLIN | (visits[i].shut ? 0 : POLLOUT));
	}
	return status;
}

static int run(struct load *load, struct visit *visits)
{
	struct pollfd polled[CONNECTIONS_MOST];
	int status = 0, ready;

	while (!status && load->over < load->visits) {
		status = fill(load, visits, polled);
		ready = status ? 0 : poll(polled, load->connections, SILENCE_MS);
		if (!status && ready == 0) {
			complain(0, "the server is silent");
			status = EXIT_FAILED;
		}
		for (unsigned i = 0; i < load->connections && !status && ready > 0; i++) {
			if (polled[i].fd >= 0 && polled[i].revents)
				status = handle(&visits[i], polled[i].revents);
		}
	}
	return status;
}

static int run_all(struct load *load)
{
	struct visit *visits = calloc(load->connections, sizeof(*visits));
	uint64_t began = clock_ns();
	int status;

	if (!visits) {
		complain(-ENOMEM, "%u connections", load->connections);
		return EXIT_FAILED;
	}
	for (unsigned i = 0; i < load->connections; i++)
		visits[i].fd = -1;
	status = run(load, visits);
	load->seconds = (double)(clock_ns() - began) / 1e9;
	for (unsigned i = 0; i < load->connections; i++) {
		if (visits[i].fd >= 0)
			forget(&visits[i]);
	}
	free(visits);
	return status;
}

static void report(const struct load *load)
{
	char in[32], out[32];

	if (load->json) {
		json_t *object = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "version",
			memslot_version(), "what", load->protocol->name, "seed",
			(json_int_t)load->seed, "visits", (json_int_t)load->over, "requests",
			(json_int_t)load->requests, "bytes_in", (json_int_t)load->bytes_in,
			"bytes_out", (json_int_t)load->bytes_out, "seconds", load->seconds);
		json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(object);
		return;
	}
	printf("%s: %llu connections, %llu requests, %s sent, %s received, all of it right; %.2f "
	       "s\n",
		load->protocol->name, (unsigned long long)load->over,
		(unsigned long long)load->requests, format_size(load->bytes_out, out, sizeof(out)),
		format_size(load->bytes_in, in, sizeof(in)), load->seconds);
}

int command_load(int argc, char **argv)
{
	static const struct argp argp = {options, parse, "ADDRESS PORT", text, NULL, NULL, NULL};
	static struct load load = {
		.visits = 200, .seed = 1, .bytes = 256 * KIB, .pipeline = 16, .connections = 16};
	int status = 0;

	if (argp_parse(&argp, argc, argv, 0, NULL, &load))
		return EXIT_USAGE;
	load.protocol = load.root ? &http_protocol : &echo_protocol;
	if (load.root)
		status = load_files(&load);
	if (!status)
		status = run_all(&load);
	if (!status)
		report(&load);
	load_forget_files(&load);
	return status;
}
