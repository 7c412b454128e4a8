/* SPDX-License-Identifier: MIT */
/* preload_rules_process.c - forks, clones, signal handlers and jumps out of them. */
#define _GNU_SOURCE
#include "preload_rules.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* --- forks --- */

static void child_of_live(char *memory)
{
	say("mine %d, behind %s", memory[0], read_at(memory + MIB));
	memory[0] = 9;
	say_result("grow", open_part(memory, 2 * MIB));
	say_zero("grown", memory + MIB, MIB);
	say_result("munmap", munmap(memory, SIZE));
	say("gone %s", read_at(memory));
	for (int i = 0; i < 3; i++) {
		char *own = reserve(SIZE);
		open_part(own, MIB);
		say_zero("own", own, MIB);
		memset(own, 2, MIB);
		munmap(own, SIZE);
	}
}

static void child_of_freed(char *memory)
{
	say("freed %s", read_at(memory));
	say_result("freed", mprotect(memory, MIB, PROT_READ | PROT_WRITE));
	say_result("freed", munmap(memory, SIZE));
	tenant(MIB);
	child_of_live(filled(MIB, 3));
}

static void child_of_trimmed(char *memory)
{
	say("trimmed %s, mine %d", read_at(memory), memory[MIB]);
	say_result("trimmed", mprotect(memory, PAGE, PROT_READ));
	say_result("munmap", munmap(memory, SIZE));
}

static void forks(void (*fork_into)(void (*run)(char *memory), char *memory))
{
	char *memory, *freed;

	tenant(2 * MIB);
	freed = tenant(2 * MIB);
	fork_into(child_of_freed, freed);
	memory = filled(MIB, 7);
	fork_into(child_of_live, memory);
	say("still %d", memory[0]);
	munmap(memory, SIZE);
	memory = reserve(SIZE);
	munmap(memory, MIB);
	open_part(memory + MIB, MIB);
	memory[MIB] = 5;
	fork_into(child_of_trimmed, memory);
	say("still %d", memory[MIB]);
	munmap(memory, SIZE);
	memory = reserve(SIZE);
	open_part(memory, 2 * MIB);
	say_zero("after forks", memory, 2 * MIB);
}

static void a_fork_copies(void)
{
	forks(in_child);
}

static void a_raw_clone_copies(void)
{
	forks(in_raw_child);
}

static void child_opens(char *memory)
{
	say_result("in the child", open_part(memory, MIB));
	say("%s", read_at(memory));
	munmap(memory, SIZE);
}

static void ranges_kept_from_children_are_not_inherited(void)
{
	for (int i = 0; i < 6; i++) {
		char *memory = reserve(SIZE);
		if (i % 2 == 0)
			say_result("keep", madvise(memory, SIZE, MADV_DONTFORK));
		if (i == 3 || i == 4)
			in_child(child_opens, memory); /* before it is opened */
		open_part(memory, MIB);
		memory[0] = 1;
		say_flags("advised", memory);
		in_child(child_opens, memory);
		if (i == 4)
			say_result("give", madvise(memory, SIZE, MADV_DOFORK));
		in_child(child_opens, memory);
		munmap(memory, SIZE);
	}
}

static char *inherited;

/* What the child maps where its parent has something else is not taken away again. */
static void child_maps_there(char *memory)
{
	char *at = (char *)syscall(SYS_mmap, memory, SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0L);

	*at = 'c';
	tenant(MIB);
	tenant(MIB);
	say("there %d, %s", at == memory, read_at(at));
	say("inherited %s", read_at(inherited));
}

static void children_may_map_what_was_kept_from_them(void)
{
	char *memory = NULL;

	inherited = filled(MIB, 3);
	for (int i = 0; i < 3; i++) {
		memory = reserve(SIZE);
		madvise(memory, SIZE, MADV_DONTFORK);
		open_part(memory, MIB);
		memory[0] = 1;
		munmap(memory, SIZE);
	}
	in_raw_child(child_maps_there, memory);
	in_child(child_maps_there, memory);
	munmap(inherited, SIZE);
	tenant(MIB);
}

static void others_may_be_started(void)
{
	char *words[] = {(char *)"true", NULL};
	pid_t child;
	int status;

	for (int i = 0; i < 4; i++) {
		tenant(MIB);
		say_result(
			"spawn", posix_spawnp(&child, "true", NULL, NULL, words, environ) ? -1 : 0);
		waitpid(child, &status, 0);
		say("status %d", status);
	}
}

/* --- signal handlers --- */

static sigjmp_buf out;
static volatile sig_atomic_t may_jump;
static unsigned handled;

static void on_alarm(int signal)
{
	char *interrupted = current;
	int kept = errno;

	(void)signal;
	quiet_life(64 * KIB);
	current = interrupted;
	handled++;
	errno = kept;
	if (may_jump)
		siglongjmp(out, 1);
}

static void every(long microseconds)
{
	struct itimerval timer = {{0, microseconds}, {0, microseconds}};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void handlers_may_map(void)
{
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};

	sigaction(SIGALRM, &action, NULL);
	every(300);
	for (unsigned i = rounds(3000); i || handled<5; i -= i> 0)
		quiet_life((i % 8 + 1) * 32 * KIB);
	every(0);
	say("wrong: %u", wrong);
}

static sem_t jumped, tidied;

/* Another thread unmaps what the jump left behind: nobody may be in the middle of a call on it. */
static void *tidy_up(void *argument)
{
	for (;;) {
		sem_wait(&jumped);
		munmap(current, SIZE);
		sem_post(&tidied);
	}
	return argument;
}

/* It never has a signal: a handler there would jump onto this thread's stack. */
static void start_tidying(void)
{
	sigset_t signals, before;
	pthread_t thread;

	sem_init(&jumped, 0, 0);
	sem_init(&tidied, 0, 0);
	sigemptyset(&signals);
	sigaddset(&signals, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &signals, &before);
	pthread_create(&thread, NULL, tidy_up, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void handlers_may_jump(void)
{
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	volatile unsigned left = rounds(200);

	start_tidying();
	sigaction(SIGALRM, &action, NULL);
	every(500);
	while (left || handled < 5) {
		if (sigsetjmp(out, 1) == 0) {
			may_jump = 1;
			for (;;)
				quiet_life(64 * KIB);
		}
		may_jump = 0;
		every(0); /* a handler's life could be where this one was */
		sem_post(&jumped);
		while (sem_wait(&tidied))
			;
		every(500);
		left -= left > 0;
	}
	every(0);
	may_jump = 0;
	quiet_life(MIB);
	say("wrong: %u", wrong);
}

static void on_fault_map(int signal)
{
	(void)signal;
	quiet_life(64 * KIB);
	if (handled++ > 100)
		siglongjmp(out, 1);
	open_part((char *)(uintptr_t)out, 0);
	siglongjmp(out, 1);
}

static void fault_handlers_may_map(void)
{
	struct sigaction action = {.sa_handler = on_fault_map, .sa_flags = SA_NODEFER};
	char *volatile memory = tenant(MIB);
	volatile int count = 0;

	sigaction(SIGSEGV, &action, NULL);
	while (sigsetjmp(out, 1) == 0 || ++count < 20)
		((volatile char *)memory)[count] = 1;
	say("wrong: %u", wrong);
}

const struct rule rules_process[] = {
	{"a_fork_copies", a_fork_copies},
	{"a_raw_clone_copies", a_raw_clone_copies},
	{"ranges_kept_from_children_are_not_inherited",
		ranges_kept_from_children_are_not_inherited},
	{"children_may_map_what_was_kept_from_them", children_may_map_what_was_kept_from_them},
	{"others_may_be_started", others_may_be_started},
	{"handlers_may_map", handlers_may_map},
	{"handlers_may_jump", handlers_may_jump},
	{"fault_handlers_may_map", fault_handlers_may_map},
	{0},
};
