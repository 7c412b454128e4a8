/* SPDX-License-Identifier: MIT */
/*
 * load_http.c - memslot load: requests, good and bad, and what has to come of them.
 *
 * Invariant: every body of a good answer is compared with the file by its XXH3 sum of 128 bits,
 * every answer by its status and length, and after a request that ends the connection nothing may
 * come.
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the files --- */

static struct load *loading; /* nftw(3) has no context */

static int sum_up(const char *path, XXH128_hash_t *ret_sum)
{
	XXH3_state_t *state = XXH3_createState();
	static char bytes[64 * KIB];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = -1;

	if (fd >= 0 && state && XXH3_128bits_reset(state) == XXH_OK) {
		while ((got = read(fd, bytes, sizeof(bytes))) > 0)
			XXH3_128bits_update(state, bytes, (size_t)got);
		*ret_sum = XXH3_128bits_digest(state);
	}
	if (fd >= 0)
		close(fd);
	XXH3_freeState(state);
	return got == 0 ? 0 : -EIO;
}

static int visit_file(const char *path, const struct stat *about, int type, struct FTW *where)
{
	struct file *file;

	(void)where;
	if (type != FTW_F || !S_ISREG(about->st_mode))
		return 0;
	file = reallocarray(loading->files, loading->file_count + 1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	loading->files = file;
	file += loading->file_count;
	file->size = (uint64_t)about->st_size;
	file->path = strdup(path + strlen(loading->root));
	if (!file->path)
		return -ENOMEM;
	loading->file_count++;
	return sum_up(path, &file->sum);
}

int load_files(struct load *load)
{
	size_t length = strlen(load->root);

	loading = load;
	while (length > 1 && load->root[length - 1] == '/')
		((char *)(uintptr_t)load->root)[--length] = '\0';
	if (nftw(load->root, visit_file, 16, FTW_PHYS)) {
		complain(-errno, "%s", load->root);
		return EXIT_FAILED;
	}
	if (load->file_count == 0)
		complain(0, "%s: no files in it", load->root);
	return load->file_count ? 0 : EXIT_FAILED;
}

void load_forget_files(struct load *load)
{
	while (load->file_count)
		free(load->files[--load->file_count].path);
	free(load->files);
}

/* --- requests --- */

__attribute__((format(printf, 2, 3))) static void say(struct visit *visit, const char *format, ...)
{
	va_list arguments;
	size_t room = TEXT_MOST - visit->text_size;

	va_start(arguments, format);
	visit->text_size +=
		(size_t)vsnprintf(visit->text + visit->text_size, room, format, arguments);
	va_end(arguments);
}

/* Some characters of a path as %XX, all others as they must be. */
static void say_path(struct visit *visit, const char *path)
{
	for (; *path; path++) {
		if (strchr(" %?#", *path) || (*path != '/' && visit_draw(visit, 8) == 0))
			say(visit, "%%%02X", (unsigned char)*path);
		else
			say(visit, "%c", *path);
	}
}

static void expect(struct visit *visit, unsigned status, const struct file *file, bool head)
{
	visit->expected[visit->asked++] =
		(struct expected){.status = status, .file = file, .head = head};
	visit->load->requests++;
}

/* One after which the connection goes on. */
static void ask(struct visit *visit)
{
	const struct file *file = &visit->load->files[visit_draw(visit, visit->load->file_count)];
	uint64_t kind = visit_draw(visit, 16);
	bool head = kind == 0;

	if (kind == 1) {
		say(visit, "GET /there-is-no-such-file-%llu HTTP/1.1\r\nHost: x\r\n\r\n",
			(unsigned long long)visit->number);
		expect(visit, 404, NULL, false);
		return;
	}
	say(visit, "%s ", head ? "HEAD" : "GET");
	say_path(visit, file->path);
	say(visit, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", kind == 2 ? "?a=b" : "",
		kind == 3 ? "X-Much: of no use\r\nAccept: */*\r\n" : "");
	expect(visit, 200, file, head);
}

/* One that ends it. */
static void ask_last(struct visit *visit)
{
	const struct file *file = &visit->load->files[visit_draw(visit, visit->load->file_count)];
	static const struct {
		const char *text;
		unsigned status;
	} bad[] = {{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405},
		{"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400}, {"GET / HTTP/1.1\r\n\r\n", 400},
		{"GET /\r\n\r\n", 400}, {"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505}};
	uint64_t kind = visit_draw(visit, sizeof(bad) / sizeof(*bad) + 3);

	if (kind < sizeof(bad) / sizeof(*bad)) {
		say(visit, "%s", bad[kind].text);
		expect(visit, bad[kind].status, NULL, false);
	} else if (kind == sizeof(bad) / sizeof(*bad)) {
		say(visit, "GET / HTTP/1.1\r\nX: %09000d\r\n", 0);
		expect(visit, 431, NULL, false);
	} else {
		bool old = visit_draw(visit, 2);
		say(visit, "GET ");
		say_path(visit, file->path);
		say(visit, old ? " HTTP/1.0\r\n\r\n"
			       : " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
		expect(visit, 200, file, false);
	}
}

static int http_begin(struct visit *visit)
{
	uint64_t count = 1 + visit_draw(visit, visit->load->pipeline);

	visit->text = malloc(TEXT_MOST);
	visit->sum = XXH3_createState();
	if (!visit->text || !visit->sum) {
		complain(-ENOMEM, "a visit");
		return EXIT_FAILED;
	}
	while (visit->asked + 1 < count && visit->text_size < TEXT_MOST / 2)
		ask(visit);
	if (visit_draw(visit, 3) == 0)
		ask_last(visit);
	else
		ask(visit);
	return 0;
}

static size_t http_output(struct visit *visit, char *bytes, size_t room)
{
	size_t left = visit->text_size - (size_t)visit->sent;
	size_t size = 1 + (size_t)visit_draw(visit, visit_draw(visit, 4) ? room : 40);

	size = size < left ? size : left;
	memcpy(bytes, visit->text + visit->sent, size);
	return size;
}

/* --- answers --- */

static int check_body(struct visit *visit)
{
	const struct expected *expected = &visit->expected[visit->answered];
	XXH128_hash_t sum;

	visit->in_body = false;
	visit->head_size = 0;
	visit->answered++;
	if (!expected->file || expected->head)
		return 0;
	sum = XXH3_128bits_digest(visit->sum);
	if (XXH128_isEqual(sum, expected->file->sum))
		return 0;
	complain(0, "%s", expected->file->path);
	return visit_wrong(
		visit, EXIT_WRONG_BYTE, "sum of a body", sum.low64, expected->file->sum.low64);
}

/* The head is there whole. */
static int check_head(struct visit *visit)
{
	const struct expected *expected = &visit->expected[visit->answered];
	const char *length = strcasestr(visit->head, "\r\nContent-Length: ");
	unsigned status = 0;
	uint64_t size;

	if (sscanf(visit->head, "HTTP/1.1 %u ", &status) != 1 || status != expected->status)
		return visit_wrong(visit, EXIT_FAILED, "status", status, expected->status);
	if (!length)
		return visit_wrong(visit, EXIT_FAILED, "Content-Length", 0, 1);
	size = strtoull(length + 18, NULL, 10);
	if (expected->file && size != expected->file->size)
		return visit_wrong(visit, EXIT_FAILED, "length", size, expected->file->size);
	visit->left = expected->head ? 0 : size;
	visit->in_body = true;
	XXH3_128bits_reset(visit->sum);
	return visit->left ? 0 : check_body(visit);
}

static int take_head(struct visit *visit, const char **bytes, size_t *size)
{
	if (visit->answered == visit->asked)
		return visit_wrong(
			visit, EXIT_WRONG_BYTE, "bytes behind the last answer", *size, 0);
	if (visit->head_size + 1 == sizeof(visit->head))
		return visit_wrong(visit, EXIT_FAILED, "size of a head", visit->head_size, 0);
	visit->head[visit->head_size++] = **bytes;
	visit->head[visit->head_size] = '\0';
	*bytes += 1;
	*size -= 1;
	if (visit->head_size >= 4 && memcmp(visit->head + visit->head_size - 4, "\r\n\r\n", 4) == 0)
		return check_head(visit);
	return 0;
}

static int http_input(struct visit *visit, const char *bytes, size_t size)
{
	int status = 0;

	while (size && !status) {
		size_t part = size < visit->left ? size : (size_t)visit->left;
		if (!visit->in_body) {
			status = take_head(visit, &bytes, &size);
			continue;
		}
		XXH3_128bits_update(visit->sum, bytes, part);
		bytes += part;
		size -= part;
		visit->left -= part;
		if (visit->left == 0)
			status = check_body(visit);
	}
	return status;
}

static int http_end(struct visit *visit)
{
	if (visit->answered == visit->asked)
		return 0;
	return visit_wrong(visit, EXIT_FAILED, "answers", visit->answered, visit->asked);
}

static void http_forget(struct visit *visit)
{
	free(visit->text);
	XXH3_freeState(visit->sum);
}

const struct protocol http_protocol = {
	"files", http_begin, http_output, http_input, http_end, http_forget};
