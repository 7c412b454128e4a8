/* SPDX-License-Identifier: MIT */
/*
 * host_fault.c - faults of guests become errors, and faults of others go where they went before.
 *
 * The application that this host lives in has a SIGSEGV handler of its own, as garbage collectors
 * have: it opens its protected pages when they are touched. The host's handler stands in front of
 * it, asks memslot_pool_locate what lies at the address, and leaves for where the guest was
 * started.
 *
 * Invariant: a fault is the host's only if this thread runs a guest and the address is in the pool,
 * in no slot's memory; everything else is handed on to the handler before. Nothing here takes a
 * lock.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

/* The guest that this thread runs: volatile, for a handler looks at it between two instructions. */
static __thread struct visit *volatile current;
static const struct memslot_pool *pool;
static struct sigaction before_host, before_application;

static unsigned char *_Atomic pages[MAX_WORKERS];
static atomic_ullong opened;

/* --- handing on --- */

static void chain(const struct sigaction *next, int signal, siginfo_t *info, void *context)
{
	if (next->sa_flags & SA_SIGINFO)
		next->sa_sigaction(signal, info, context);
	else if (next->sa_handler == SIG_DFL || next->sa_handler == SIG_IGN)
		sigaction(signal, next, NULL); /* the instruction is tried again, and that is it */
	else
		next->sa_handler(signal);
}

/* --- the application --- */

static void on_application_fault(int signal, siginfo_t *info, void *context)
{
	const unsigned char *address = info->si_addr;

	for (size_t i = 0; i < MAX_WORKERS; i++) {
		unsigned char *page = atomic_load(&pages[i]);

		if (!page || address < page || address >= page + page_size())
			continue;
		if (mprotect(page, page_size(), PROT_READ | PROT_WRITE) == 0) {
			atomic_fetch_add(&opened, 1);
			return;
		}
	}
	chain(&before_application, signal, info, context);
}

uint64_t fault_application_count(void)
{
	return atomic_load(&opened);
}

int fault_application_page(unsigned char **ret_page)
{
	void *page = mmap(NULL, page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *none;

	if (page == MAP_FAILED)
		return -errno;
	for (size_t i = 0; i < MAX_WORKERS; i++) {
		none = NULL;
		if (atomic_compare_exchange_strong(&pages[i], &none, page)) {
			*ret_page = page;
			return 0;
		}
	}
	munmap(page, page_size());
	return -ENOSPC;
}

int fault_application_close(unsigned char *page)
{
	return mprotect(page, page_size(), PROT_NONE) ? -errno : 0;
}

/* --- the host --- */

static void on_fault(int signal, siginfo_t *info, void *context)
{
	struct visit *visit = current;
	struct memslot_location location = {.size = sizeof(location)};

	if (visit && memslot_pool_locate(pool, info->si_addr, &location) == 0 &&
		location.kind != MEMSLOT_AT_INSIDE && location.kind != MEMSLOT_AT_IDLE) {
		visit->location = location;
		siglongjmp(visit->back, 1);
	}
	chain(&before_host, signal, info, context);
}

int fault_write(struct visit *visit, unsigned char *address)
{
	if (sigsetjmp(visit->back, 1)) {
		current = NULL;
		return 1;
	}
	current = visit;
	*(volatile unsigned char *)address = 1;
	current = NULL;
	return 0;
}

static int install(void (*handler)(int, siginfo_t *, void *), struct sigaction *ret_before)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO};

	action.sa_sigaction = handler;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGSEGV, &action, ret_before) ? -errno : 0;
}

int fault_set_up(struct host *host)
{
	int error;

	pool = host->pool;
	error = install(on_application_fault, &before_application);
	return error ? error : install(on_fault, &before_host);
}

void fault_tear_down(void)
{
	sigaction(SIGSEGV, &before_application, NULL);
	for (size_t i = 0; i < MAX_WORKERS; i++) {
		unsigned char *page = atomic_exchange(&pages[i], NULL);

		if (page)
			munmap(page, page_size());
	}
}
