/* SPDX-License-Identifier: MIT */
/*
 * fuzz_main.c - replays a corpus through a fuzz target, and mutations of it. Prints TAP.
 *
 *   fuzz_TARGET FOLDER...
 *
 * Each file is one test: it as it is, every beginning of it (up to 200), and test_rounds(200) seeded
 * mutations. A target tells a failure by abort(). No file at all is a failure. To fuzz in earnest
 * link the target with clang's -fsanitize=fuzzer instead of this file.
 */
#define _GNU_SOURCE
#include "common.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LARGEST (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* From memory that ends where the input does, so that a sanitizer sees one byte too many. */
static void run_copy(const uint8_t *bytes, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, bytes, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static size_t mutate(struct test_rng *rng, uint8_t *bytes, size_t size)
{
	static const uint8_t nasty[] = {0, 1, 2, 7, 8, 0x7f, 0x80, 0xff};
	unsigned changes = 1 + (unsigned)test_below(rng, 4);

	while (size && changes--) {
		size_t at = test_below(rng, size), end = at + 1 + test_below(rng, 8);
		uint8_t value = nasty[test_below(rng, sizeof nasty)];
		for (; at < end && at < size; at++)
			bytes[at] = test_below(rng, 2) ? value : (uint8_t)test_next(rng);
	}
	if (test_below(rng, 8) == 0)
		size = test_below(rng, size + 1);
	return size;
}

/* Returns 1 when the file cannot be read; a failing target never returns. */
static int replay(const char *path)
{
	static uint8_t bytes[LARGEST], changed[LARGEST];
	struct test_rng rng = test_rng(strlen(path));
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file)
		return 1;
	size = fread(bytes, 1, sizeof bytes, file);
	fclose(file);
	run_copy(bytes, size);
	for (size_t end = 0; end < size && end < 200; end++)
		run_copy(bytes, end);
	for (unsigned round = test_rounds(200); round; round--) {
		memcpy(changed, bytes, size);
		run_copy(changed, mutate(&rng, changed, size));
	}
	return 0;
}

static int replay_in_child(void *path)
{
	exit(replay(path)); /* so that leaks are reported */
}

static unsigned replay_folder(const char *folder, unsigned *failed)
{
	static unsigned number;
	struct dirent **entries;
	char path[4096];
	int count = scandir(folder, &entries, NULL, compare_names);
	unsigned before = number;

	for (int i = 0; i < count; i++) {
		if (entries[i]->d_name[0] != '.') {
			snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
			int status = test_in_child(replay_in_child, path);
			*failed += status != 0;
			printf("%sok %u - %s (%d)\n", status ? "not " : "", ++number,
					entries[i]->d_name, status);
		}
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return number - before;
}

Suite *test_suite(void)
{
	return NULL; /* no libcheck here */
}

int test_program(int argc, char **argv)
{
	unsigned count = 0, failed = 0;

	printf("# MEMSLOT_TEST_SEED=%llu\n", (unsigned long long)test_seed());
	for (int i = 1; i < argc; i++)
		count += replay_folder(argv[i], &failed);
	printf("1..%u\n", count);
	if (count == 0)
		printf("Bail out! no corpus\n");
	return count == 0 || failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
