/* SPDX-License-Identifier: MIT */
/* preload_rules_threads.c - threads that make instances, and fork beside it. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

_Atomic(char *) current;
atomic_uint wrong;
static atomic_bool over;

static bool is_zero(const char *memory, size_t size)
{
	return memory[0] == 0 && memcmp(memory, memory + 1, size - 1) == 0;
}

void quiet_life(size_t opened)
{
	char *memory =
		mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	current = memory;
	if (memory == MAP_FAILED || open_part(memory, opened) || !is_zero(memory, opened)) {
		wrong++;
		return;
	}
	memset(memory, 0x5a, opened);
	if (munmap(memory, SIZE))
		wrong++;
}

static void *lives(void *argument)
{
	uint64_t random = (uint64_t)(uintptr_t)argument;

	for (unsigned i = rounds(2000); i && !over; i--)
		quiet_life((random_below(&random, 8) + 1) * 16 * KIB);
	return NULL;
}

static void start(pthread_t *threads, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, lives, (void *)(uintptr_t)(i + 1));
}

static void join(const pthread_t *threads, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void threads_do_not_meet(void)
{
	pthread_t threads[4];

	tenant(MIB); /* all probes run now: their pages come and go unseen by ThreadSanitizer */
	start(threads, 4);
	join(threads, 4);
	say("wrong: %u", wrong);
}

/* More sizes than the preload knows at a time: nobody may get a range of another size. */
static void *lives_of_many_sizes(void *argument)
{
	uint64_t random = (uint64_t)(uintptr_t)argument;

	for (unsigned i = rounds(3000); i; i--) {
		size_t size = 16 * MIB + random_below(&random, 100) * 64 * KIB;
		char *memory = mmap(
			NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		char *last = memory + size - PAGE;
		if (memory == MAP_FAILED || open_part(last, PAGE) || !is_zero(last, PAGE)) {
			wrong++;
			break;
		}
		memset(last, 0x5a, PAGE);
		wrong += munmap(memory, size) != 0;
	}
	return NULL;
}

static void sizes_do_not_mix(void)
{
	pthread_t threads[4];

	tenant(MIB);
	tenant(MIB);
	for (size_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, lives_of_many_sizes, (void *)(uintptr_t)(i + 1));
	join(threads, 4);
	say("wrong: %u", wrong);
}

static void threads_may_fork(void)
{
	pthread_t threads[3];
	unsigned bad = 0;

	start(threads, 3);
	for (unsigned i = rounds(60); i; i--) {
		pid_t child = i % 2 ? fork() : _Fork();
		int status = 0;
		if (child == 0) {
			for (int k = 0; k < 5; k++)
				quiet_life(64 * KIB);
			_exit(wrong ? 1 : 0);
		}
		bad += waitpid(child, &status, 0) != child || status != 0;
	}
	over = true;
	join(threads, 3);
	say("wrong: %u, children: %u", wrong, bad);
}

static void *unmap_there(void *memory)
{
	munmap(memory, SIZE);
	return NULL;
}

static void another_thread_may_unmap(void)
{
	for (int i = 0; i < 20; i++) {
		pthread_t thread;
		char *memory = filled(MIB, 3);
		pthread_create(&thread, NULL, unmap_there, memory);
		pthread_join(thread, NULL);
		say("after %s", read_at(memory));
		memory = reserve(SIZE);
		open_part(memory, MIB);
		say_zero("next", memory, MIB);
		munmap(memory, SIZE);
	}
}

/* --- a thread that writes until it faults --- */

static _Atomic(char *) target;
static __thread sigjmp_buf out;

static void on_fault(int signal)
{
	siglongjmp(out, signal);
}

static void *write_on(void *argument)
{
	for (;;) {
		char *memory = target;
		if (!memory)
			continue;
		while (sigsetjmp(out, 1) == 0) {
			for (size_t i = 0;; i = (i + 1) % 16)
				((volatile char *)memory)[i * PAGE] = 0x5a;
		}
		target = NULL; /* it saw the munmap */
	}
	return argument;
}

/* Once it is unmapped nothing of what it wrote is there for the next. */
static void writes_end_with_the_unmap(void)
{
	struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
	pthread_t thread;

	sigaction(SIGSEGV, &action, NULL);
	pthread_create(&thread, NULL, write_on, NULL);
	for (unsigned i = rounds(500); i; i--) {
		char *memory = reserve(SIZE);
		open_part(memory, i % 3 ? MIB : 8 * PAGE);
		wrong += !is_zero(memory, 8 * PAGE);
		open_part(memory, MIB);
		wrong += !is_zero(memory, MIB);
		target = memory;
		while (((volatile char *)memory)[15 * PAGE] == 0)
			;
		if (i % 5 == 0)
			mprotect(memory + 8 * MIB, PAGE, PROT_READ); /* it leaves */
		munmap(memory, SIZE);
		while (target)
			;
	}
	say("wrong: %u", wrong);
}

const struct rule rules_threads[] = {
	{"threads_do_not_meet", threads_do_not_meet},
	{"sizes_do_not_mix", sizes_do_not_mix},
	{"threads_may_fork", threads_may_fork},
	{"another_thread_may_unmap", another_thread_may_unmap},
	{"writes_end_with_the_unmap", writes_end_with_the_unmap},
	{0},
};
