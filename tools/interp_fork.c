/* SPDX-License-Identifier: MIT */
/*
 * interp_fork.c - a process that does nothing but boot an interpreter and fork, for comparison.
 *
 * Invariant: it is made before anything else has been measured, so that there is nothing in it that
 * a fork would have to copy but the interpreter; it times its forks itself. It ends when its parent
 * closes its end of the socket.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Nanoseconds, or -errno. */
static int64_t fork_once(struct guest *guest)
{
	uint64_t began = clock_ns();
	pid_t child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (child == 0)
		_exit(guest_right(guest, 1) ? 0 : 1);
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return status ? -EPROTO : (int64_t)(clock_ns() - began);
}

static void serve(int socket, struct interp_run *run)
{
	struct guest guest;
	int64_t answer = guest_boot(&guest, run, NULL);
	char ask;

	while (send(socket, &answer, sizeof(answer), MSG_NOSIGNAL) == sizeof(answer) &&
		recv(socket, &ask, 1, 0) == 1)
		answer = fork_once(&guest);
}

static int await(const struct forker *forker, uint64_t *ret_ns)
{
	int64_t answer;

	if (recv(forker->socket, &answer, sizeof(answer), 0) != sizeof(answer))
		return -EPIPE;
	*ret_ns = (uint64_t)answer;
	return answer < 0 ? (int)answer : 0;
}

int forker_start(struct forker *forker, struct interp_run *run)
{
	int ends[2];
	uint64_t booted;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	forker->process = fork();
	if (forker->process == 0) {
		close(ends[0]);
		serve(ends[1], run);
		_exit(0);
	}
	close(ends[1]);
	forker->socket = ends[0];
	return forker->process < 0 ? -EAGAIN : await(forker, &booted);
}

int forker_ask(const struct forker *forker, uint64_t *ret_ns)
{
	if (send(forker->socket, "", 1, MSG_NOSIGNAL) != 1)
		return -errno;
	return await(forker, ret_ns);
}

void forker_stop(struct forker *forker)
{
	if (forker->socket > 0)
		close(forker->socket);
	if (forker->process > 0)
		waitpid(forker->process, NULL, 0);
}
