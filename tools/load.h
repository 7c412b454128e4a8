/* SPDX-License-Identifier: MIT */
/*
 * load.h - the parts of memslot load, a client that checks every byte of what a server answers.
 *
 *   load.c  command line, connections, report    load_echo.c  what is sent comes back
 *   load_http.c  requests and what has to come of them
 *
 * A visit is one connection, from its beginning to its end. Everything in it is drawn from the seed
 * and the visit's number.
 */
#ifndef MEMSLOT_LOAD_H
#define MEMSLOT_LOAD_H

#include "tool.h"

#include <memslot.h>
#include <xxhash.h>

#define WRITE_MOST (128 * KIB)
#define REQUESTS_MOST 64 /* in a visit */
#define TEXT_MOST (32 * KIB)

struct file {
	char *path; /* as a request names it */
	uint64_t size;
	XXH128_hash_t sum;
};

/* What a request has to be answered with. */
struct expected {
	unsigned status;
	const struct file *file; /* or NULL: no matter what */
	bool head;
};

struct visit {
	struct load *load;
	int fd;
	uint64_t number, random;
	uint64_t sent, received;
	bool shut; /* all is sent, and said so */

	uint64_t total; /* echo: bytes */

	char *text; /* HTTP: all requests */
	size_t text_size;
	unsigned asked, answered;
	struct expected expected[REQUESTS_MOST];
	char head[4096];
	size_t head_size;
	bool in_body;
	uint64_t left; /* of the body */
	unsigned status;
	XXH3_state_t *sum;
};

/* What a visit says and hears. All but output: 0 or an exit status (said). */
struct protocol {
	const char *name;
	int (*begin)(struct visit *visit);
	/* What to send next, at most `room` bytes; 0: nothing is left. */
	size_t (*output)(struct visit *visit, char *bytes, size_t room);
	int (*input)(struct visit *visit, const char *bytes, size_t size);
	int (*end)(struct visit *visit);
	void (*forget)(struct visit *visit);
};

struct load {
	const char *host, *port, *root;
	const struct protocol *protocol;
	uint64_t visits, seed, bytes, pipeline;
	unsigned connections;
	bool json;

	struct file *files;
	size_t file_count;
	uint64_t begun, over, requests, bytes_in, bytes_out;
	double seconds;
};

extern const struct protocol echo_protocol, http_protocol;

/* A random number of the visit, below `below`. */
uint64_t visit_draw(struct visit *visit, uint64_t below);
/* Says that a visit found something wrong; returns `status`. */
int visit_wrong(
	const struct visit *visit, int status, const char *what, uint64_t found, uint64_t expected);
/* load_http.c: all files below root, with their sums. 0 or an exit status (said). */
int load_files(struct load *load);
void load_forget_files(struct load *load);

#endif
