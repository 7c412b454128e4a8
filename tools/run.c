/* SPDX-License-Identifier: MIT */
/*
 * run.c - memslot run and memslot trace: a program with libmemslot-preload.so, and a parent that
 * waits for it.
 *
 * Invariant: seen from outside the parent is the program: a signal that is sent to it is sent on,
 * it stops when the program stops, and it ends with the program's exit status, or 128 + n. (What
 * the terminal sends goes to both, and is not sent on.) It owns the page with the statistics: a
 * memory file, which the program opens by way of /proc and which stays when the program is killed.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_NOT_RUN 126
#define EXIT_NOT_FOUND 127

/* --- what the program gets --- */

/* One more for MEMSLOT_PRELOAD. */
void add_word(struct run *run, const char *format, ...)
{
	size_t length = strlen(run->words);
	va_list rest;

	va_start(rest, format);
	vsnprintf(run->words + length, sizeof run->words - length, format, rest);
	va_end(rest);
}

int find_preload(char *path, size_t room)
{
	static const char *const places[] = {"../lib/libmemslot-preload.so", PRELOAD_PLACE};
	char own[PATH_MAX / 2];
	ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);

	for (size_t i = 0; length > 0 && i < sizeof places / sizeof *places; i++) {
		own[length] = 0;
		*strrchr(own, '/') = 0;
		snprintf(path, room, "%s/%s", own, places[i]);
		own[strlen(own)] = '/';
		if (access(path, R_OK) == 0)
			return strpbrk(path, " :") ? -EINVAL : 0; /* LD_PRELOAD splits there */
	}
	return -ENOENT;
}

static int make_page(struct run *run)
{
	run->page_fd = memfd_create("memslot-preload", MFD_CLOEXEC);
	if (run->page_fd < 0 || ftruncate(run->page_fd, MEMSLOT_PRELOAD_BYTES))
		return -errno;
	run->page = mmap(
		NULL, MEMSLOT_PRELOAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, run->page_fd, 0);
	if (run->page == MAP_FAILED)
		return -errno;
	run->page->magic = MEMSLOT_PRELOAD_MAGIC;
	add_word(run, "stats=/proc/%d/fd/%d", getpid(), run->page_fd);
	return 0;
}

static int set_environment(const struct run *run)
{
	const char *before = getenv("LD_PRELOAD");
	char path[PATH_MAX], list[2 * PATH_MAX];
	int error = find_preload(path, sizeof path);

	if (error)
		return error;
	snprintf(list, sizeof list, "%s%s%s", path, before && *before ? ":" : "",
		before ? before : "");
	return setenv("LD_PRELOAD", list, 1) || setenv("MEMSLOT_PRELOAD", run->words, 1) ? -errno
											 : 0;
}

/* Before the program is started: hours later it would be too late to say no. */
static int open_json(struct run *run)
{
	if (!run->json_path)
		return 0;
	run->json = strcmp(run->json_path, "-") == 0 ? stdout : fopen(run->json_path, "we");
	return run->json ? 0 : -errno;
}

/* --- the parent --- */

/* Why it could not be run; for the shells, too, a script's interpreter that is not there is that.
 */
static int explain_exec(const char *name, int error)
{
	bool there = strchr(name, '/') && access(name, F_OK) == 0;

	if (error == ENOENT && there)
		fprintf(stderr, "memslot: cannot run %s: its interpreter is not there\n", name);
	else
		complain(-error, "cannot run %s", name);
	return error == ENOENT && !there ? EXIT_NOT_FOUND : EXIT_NOT_RUN;
}

/* *ret_failed: where the error can be read if the program did not start. */
static pid_t start(const struct run *run, const sigset_t *mask, bool deaf, int *ret_failed)
{
	int ends[2], error;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	child = fork();
	*ret_failed = ends[0];
	if (child != 0) {
		close(ends[1]);
		return child;
	}
	if (deaf) /* it was so for us */
		signal(SIGCHLD, SIG_IGN);
	if (run->no_aslr)
		personality(ADDR_NO_RANDOMIZE);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(run->command[0], run->command);
	error = errno;
	if (write(ends[1], &error, sizeof error) < 0)
		_exit(EXIT_OURS);
	_exit(explain_exec(run->command[0], error));
}

/* The program stopped or ended: false while it lives. */
static bool look_after(pid_t child, int *ret_status)
{
	int status;

	while (waitpid(child, &status, WNOHANG | WUNTRACED) == child) {
		if (!WIFSTOPPED(status)) {
			*ret_status =
				WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
			return true;
		}
		kill(getpid(), SIGSTOP); /* until somebody continues us both */
	}
	return false;
}

static int wait_for(pid_t child)
{
	siginfo_t info;
	sigset_t all;
	int status = 0;

	sigfillset(&all);
	for (;;) {
		int signal = sigwaitinfo(&all, &info);
		if (signal == SIGCHLD) {
			if (look_after(child, &status))
				return status;
		} else if (signal > 0 && info.si_code != SI_KERNEL && info.si_pid != child) {
			/* What the program sends to its parent is not for itself. */
			kill(child, signal);
		}
	}
}

static const char *mode_of(const struct run *run)
{
	bool lazy = run->trust && !(run->page->off & MEMSLOT_PRELOAD_NOT_LAZY);

	return run->trace ? "observe" : lazy ? "lazy" : "strict";
}

static int report(const struct run *run, int status)
{
	json_t *json = describe_preload(run->page, mode_of(run), status);
	int error = 0;

	if (run->json && (json_dumpf(json, run->json, JSON_INDENT(2)) ||
				 fputc('\n', run->json) == EOF || fflush(run->json)))
		error = -EIO;
	if (run->table || (run->trace && !run->json))
		print_preload(json);
	else if (run->trust && run->page->off & MEMSLOT_PRELOAD_NOT_LAZY)
		fprintf(stderr, "memslot: %s\n", preload_off(MEMSLOT_PRELOAD_NOT_LAZY));
	json_decref(json);
	if (error)
		complain(error, "cannot write %s", run->json_path);
	return error;
}

static int prepare(struct run *run)
{
	int error = open_json(run);

	if (error) {
		complain(error, "cannot write %s", run->json_path);
		return error;
	}
	error = make_page(run);
	if (!error)
		error = set_environment(run);
	if (error)
		complain(error, error == -ENOENT ? "no libmemslot-preload.so found"
						 : "cannot prepare the preload");
	return error;
}

int run_program(struct run *run)
{
	int status, failed, error;
	sigset_t all, before;
	pid_t child;
	bool deaf;

	if (prepare(run))
		return EXIT_OURS;
	/* An ignored one would take the exit status away. */
	deaf = signal(SIGCHLD, SIG_DFL) == SIG_IGN;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = start(run, &before, deaf, &failed);
	if (child < 0) {
		complain(-errno, "cannot start a process");
		return EXIT_OURS;
	}
	status = wait_for(child);
	if (read(failed, &error, sizeof error) == sizeof error)
		return status; /* there is nothing to tell */
	return report(run, status) && status == 0 ? EXIT_OURS : status;
}
