/* SPDX-License-Identifier: MIT */
/* preload_calls.c - `preload_calls N`: calls that have nothing to do with slots, N times, while there
 * are slots around. preload_command.py counts instructions. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#define SIZE ((size_t)64 << 20)

static char *some_slot(void)
{
	char *memory = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || mprotect(memory, 4096, PROT_READ | PROT_WRITE))
		abort();
	*memory = 1;
	return memory;
}

int main(int argc, char **argv)
{
	char *below = some_slot(), *memory;

	memory = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	some_slot();
	munmap(some_slot(), SIZE);
	for (long i = argc > 1 ? atol(argv[1]) : 1; i; i--) {
		char *other = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		mprotect(memory, 4096, i & 1 ? PROT_READ : PROT_NONE);
		madvise(memory, 4096, MADV_DONTNEED);
		munmap(other, 65536);
	}
	return below == memory;
}
