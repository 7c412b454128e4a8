/* SPDX-License-Identifier: MIT */
/*
 * model_log.c - what happened in this life, told only when something is wrong.
 *
 * Every operation leaves a line in memory. A mismatch prints seed, life and lines; so does a crash,
 * before the signal goes to whoever had it before us.
 */
#define _GNU_SOURCE
#include "model.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOM (256u << 10)

bool model_in_child;

static char text[ROOM];
static size_t used;
static unsigned current_life, operation;
static uint32_t current_method;
static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGTRAP, SIGTERM};
static struct sigaction before[sizeof signals / sizeof signals[0]];

static void print_log(void)
{
	char head[160];
	int length = snprintf(head, sizeof head,
		"# model: MEMSLOT_TEST_SEED=%" PRIu64 " MEMSLOT_MODEL_LIFE=%u method %u%s\n",
		test_seed(), current_life, current_method, model_in_child ? ", in a child" : "");

	if (write(STDERR_FILENO, head, (size_t)length) < 0 || write(STDERR_FILENO, text, used) < 0)
		return;
}

static sigjmp_buf probe_back;
static volatile sig_atomic_t probing;
static void *volatile probe_address;

static void on_crash(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (probing) {
		probe_address = info->si_addr;
		siglongjmp(probe_back, 1);
	}
	print_log();
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
		if (signals[i] == number)
			sigaction(number, &before[i], NULL);
	}
	raise(number); /* or the same instruction faults again */
}

static void watch_signals(void)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER};

	action.sa_sigaction = on_crash;
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		sigaction(signals[i], &action, &before[i]);
}

void model_log_begin(unsigned life, uint32_t method)
{
	static bool watching;

	if (!watching)
		watch_signals();
	watching = true;
	used = 0;
	operation = 0;
	current_life = life;
	current_method = method;
}

/* As fault_at(), with the handler that is there anyway: these are made by the million. */
bool model_faults(const void *at, enum test_access how)
{
	volatile unsigned char *byte = (volatile unsigned char *)(uintptr_t)at;

	probing = 1;
	probe_address = NULL;
	if (sigsetjmp(probe_back, 1) == 0) {
		if (how == TEST_WRITE)
			*byte = *byte;
		else
			(void)*byte;
	}
	probing = 0;
	return probe_address == at;
}

static void append(const char *format, va_list arguments)
{
	int length;

	if (used + 300 > ROOM) { /* the older half goes */
		memmove(text, text + ROOM / 2, used - ROOM / 2);
		used -= ROOM / 2;
	}
	used += (size_t)snprintf(text + used, 32, "# %5u ", operation);
	length = vsnprintf(text + used, 250, format, arguments);
	used += length < 250 ? (size_t)length : 249;
	text[used++] = '\n';
}

void model_log(const char *format, ...)
{
	va_list arguments;

	operation++;
	va_start(arguments, format);
	append(format, arguments);
	va_end(arguments);
}

void model_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	append(format, arguments);
	va_end(arguments);
	print_log();
	if (model_in_child)
		_exit(99);
	ck_abort_msg("seed %" PRIu64 ", life %u, method %u, operation %u: see above", test_seed(),
		current_life, current_method, operation);
	abort();
}

void model_expect_any(int got, const int *wanted, unsigned count)
{
	char list[80] = "";
	size_t length = 0;

	for (unsigned i = 0; i < count; i++) {
		if (got == wanted[i])
			return;
		length += (size_t)snprintf(list + length, sizeof list - length, " %d", wanted[i]);
	}
	model_fail("returned %d, expected one of:%s", got, list);
}

void model_expect(int got, int want)
{
	if (got != want)
		model_fail("returned %d, expected %d", got, want);
}
