/* SPDX-License-Identifier: MIT */
/*
 * serve_http.c - requests and replies of memslot serve: HTTP/1.1, GET and HEAD of files.
 *
 * Invariant: a path never leaves the folder that is served: no "..", no link is followed, each part
 * is opened in the one before. A request that is not understood for certain ends its connection, so
 * that nobody takes its rest for a request.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH_MOST 1024

const char *const http_names[STATUSES] = {"200 OK", "400 Bad Request", "403 Forbidden",
	"404 Not Found", "405 Method Not Allowed", "431 Request Header Fields Too Large",
	"503 Service Unavailable", "505 HTTP Version Not Supported"};

struct request {
	unsigned status;
	bool head, keep, old; /* HTTP/1.0 */
	unsigned hosts;
	char *target; /* NUL behind it */
};

/* --- reading a request; its text is cut up in place --- */

static bool is_token(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++) {
		if (!isalnum((unsigned char)*text) && !strchr("!#$%&'*+-.^_`|~", *text))
			return false;
	}
	return true;
}

static void parse_first_line(struct request *request, char *line)
{
	char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;

	request->status = HTTP_BAD;
	if (!version)
		return;
	*target++ = '\0';
	*version++ = '\0';
	request->target = target;
	request->old = strcmp(version, "HTTP/1.0") == 0;
	if (strncmp(version, "HTTP/", 5) != 0 || !is_token(line))
		return;
	request->keep = !request->old;
	request->head = strcmp(line, "HEAD") == 0;
	request->status = HTTP_OK;
	if (!request->old && strcmp(version, "HTTP/1.1") != 0)
		request->status = HTTP_VERSION;
	else if (!request->head && strcmp(line, "GET") != 0)
		request->status = HTTP_METHOD;
}

static bool list_has_token(const char *list, const char *token)
{
	size_t length = strlen(token);

	while (*list) {
		list += strspn(list, " \t,");
		size_t part = strcspn(list, " \t,");
		if (part == length && strncasecmp(list, token, length) == 0)
			return true;
		list += part;
	}
	return false;
}

static void parse_field(struct request *request, char *line)
{
	char *colon = strchr(line, ':'), *value;

	if (!colon) {
		request->status = HTTP_BAD;
		return;
	}
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	if (!is_token(line))
		request->status = HTTP_BAD;
	else if (strcasecmp(line, "Host") == 0)
		request->hosts++;
	else if (strcasecmp(line, "Connection") == 0 && list_has_token(value, "close"))
		request->keep = false;
	else if (strcasecmp(line, "Connection") == 0 && list_has_token(value, "keep-alive"))
		request->keep = true;
	else if (strcasecmp(line, "Transfer-Encoding") == 0 ||
		 (strcasecmp(line, "Content-Length") == 0 && strcmp(value, "0") != 0))
		request->status = request->status == HTTP_METHOD ? HTTP_METHOD : HTTP_BAD;
}

/* The head of a request, NUL behind it in place of its last line's end. */
static void parse_head(struct request *request, char *text, size_t size)
{
	char *line = text, *next;

	if (strlen(text) != size) {
		request->status = HTTP_BAD;
		return;
	}
	next = strstr(line, "\r\n");
	if (next)
		*next = '\0';
	parse_first_line(request, line);
	while (next && request->status != HTTP_BAD) {
		line = next + 2;
		next = strstr(line, "\r\n");
		if (next)
			*next = '\0';
		parse_field(request, line);
	}
	if (request->hosts != 1 && !(request->old && request->hosts == 0) &&
		request->status != HTTP_VERSION)
		request->status = HTTP_BAD;
}

/* --- the file --- */

static int hex(char digit)
{
	const char *digits = "0123456789abcdef", *at = strchr(digits, tolower(digit));

	return digit && at ? (int)(at - digits) : -1;
}

/* %XX is replaced, what is behind '?' cut off. False: it is no path. */
static bool decode(const char *target, char *path, size_t room)
{
	size_t size = 0;

	if (strncasecmp(target, "http://", 7) == 0) {
		target = strchr(target + 7, '/');
		target = target ? target : "/";
	}
	if (*target != '/')
		return false;
	for (; *target && *target != '?' && *target != '#'; target++) {
		char byte = *target;
		if (byte == '%') {
			if (hex(target[1]) < 0 || hex(target[2]) < 0)
				return false;
			byte = (char)(16 * hex(target[1]) + hex(target[2]));
			target += 2;
		}
		if (byte == '\0' || size + 1 >= room)
			return false;
		path[size++] = byte;
	}
	path[size] = '\0';
	return true;
}

/* Part by part from the folder that is served; a folder is its index.html. An fd or -errno. */
static int open_below(int root, char *path)
{
	int folder = root, fd;
	char *part = path + 1, *slash;

	for (;;) {
		part += strspn(part, "/");
		slash = strchr(part, '/');
		if (slash)
			*slash = '\0';
		if (strcmp(part, "..") == 0)
			fd = -EINVAL;
		else if (slash)
			fd = openat(folder, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		else
			fd = openat(folder, *part ? part : "index.html",
				O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		if (fd == -1)
			fd = -errno;
		if (folder != root)
			close(folder);
		if (!slash || fd < 0)
			return fd;
		folder = fd;
		part = slash + 1;
	}
}

static unsigned status_of(int error)
{
	switch (-error) {
	case EINVAL:
		return HTTP_BAD;
	case EACCES:
	case EPERM:
		return HTTP_FORBIDDEN;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return HTTP_BUSY;
	default:
		return HTTP_MISSING;
	}
}

static unsigned open_target(struct conn *conn, const char *target)
{
	struct stat about;
	char path[PATH_MOST];
	int fd;

	if (!decode(target, path, sizeof(path)))
		return HTTP_BAD;
	fd = open_below(conn->server->root, path);
	if (fd < 0)
		return status_of(fd);
	if (fstat(fd, &about) || !S_ISREG(about.st_mode)) {
		close(fd);
		return HTTP_MISSING;
	}
	conn->reply.file = fd;
	conn->reply.end = (uint64_t)about.st_size;
	return HTTP_OK;
}

/* --- the reply --- */

static const char *type_of(const char *target)
{
	static const char *const types[][2] = {{".html", "text/html; charset=utf-8"},
		{".txt", "text/plain; charset=utf-8"}, {".css", "text/css"},
		{".js", "text/javascript"}, {".json", "application/json"},
		{".svg", "image/svg+xml"}, {".png", "image/png"}};
	const char *dot = strrchr(target, '.');

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(*types); i++) {
		if (strcmp(dot, types[i][0]) == 0)
			return types[i][1];
	}
	return "application/octet-stream";
}

static const char *date_now(struct server *server)
{
	time_t now = time(NULL);
	struct tm parts;

	if (server->date_of != now && gmtime_r(&now, &parts)) {
		server->date_of = now;
		strftime(server->date, sizeof(server->date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
	}
	return server->date;
}

static void make_reply(struct conn *conn, const struct request *request)
{
	struct reply *reply = &conn->reply;
	const char *name = http_names[request->status];
	bool good = request->status == HTTP_OK;
	int size;

	size = snprintf(reply->head, sizeof(reply->head),
		"HTTP/1.1 %s\r\nDate: %s\r\nContent-Length: %llu\r\nContent-Type: %s\r\n%s"
		"Connection: %s\r\n\r\n%s%s",
		name, date_now(conn->server),
		good ? (unsigned long long)reply->end : (unsigned long long)strlen(name) + 1,
		good ? type_of(request->target) : "text/plain; charset=utf-8",
		request->status == HTTP_METHOD ? "Allow: GET, HEAD\r\n" : "",
		reply->last ? "close" : "keep-alive", good || request->head ? "" : name,
		good || request->head ? "" : "\n");
	reply->head_size = (size_t)size;
	if (request->head)
		reply->end = 0;
	conn->server->counts.replies[request->status]++;
}

/* Where the first request's head ends, or 0; empty lines before it are skipped. */
static size_t find_head(struct conn *conn)
{
	size_t skip = 0;
	char *end;

	while (conn->input_size - skip >= 2 && memcmp(conn->input + skip, "\r\n", 2) == 0)
		skip += 2;
	conn->input_size -= skip;
	if (skip)
		memmove(conn->input, conn->input + skip, conn->input_size);
	end = conn->input_size ? memmem(conn->input, conn->input_size, "\r\n\r\n", 4) : NULL;
	return end ? (size_t)(end - conn->input) + 4 : 0;
}

bool http_next(struct conn *conn)
{
	struct reply *reply = &conn->reply;
	struct request request = {.target = (char[]){""}};
	size_t size = find_head(conn);

	if (size == 0 && conn->input_size <= HEAD_MOST)
		return false;
	reply->at = reply->end = 0;
	if (size == 0 || size > HEAD_MOST) {
		request.status = HTTP_LONG;
	} else {
		conn->input[size - 4] = '\0';
		parse_head(&request, conn->input, size - 4);
	}
	if (request.status == HTTP_OK)
		request.status = open_target(conn, request.target);
	reply->last =
		!request.keep || (request.status != HTTP_OK && request.status != HTTP_MISSING &&
					 request.status != HTTP_FORBIDDEN);
	reply->active = true;
	make_reply(conn, &request);
	conn->server->counts.requests++;
	conn->input_size -= size;
	if (size)
		memmove(conn->input, conn->input + size, conn->input_size);
	return true;
}
