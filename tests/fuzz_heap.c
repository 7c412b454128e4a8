/* SPDX-License-Identifier: MIT */
/* fuzz_heap.c - bytes are calls of a heap and what a hostile guest writes into it: heap_enemy.c. */
#include "heap_enemy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enemy_run(data, size);
	return 0;
}
