/* SPDX-License-Identifier: MIT */
/*
 * common.c - the main() of every test program, and helpers.
 *
 * Prints TAP. libcheck writes it to a temporary file first, so that tests that found they cannot run
 * here are marked `# SKIP`: a skip must never look like a pass. Fails when no test ran at all (a
 * mistyped CK_RUN_CASE would pass otherwise), and when MEMSLOT_DISABLE names an unknown feature (the
 * run would test something else than it says).
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- skips: shared with the children that libcheck runs tests in --- */

struct skip {
	char test[120], reason[120];
};

static struct {
	unsigned count;
	struct skip entries[400];
} *skips;

static const char *skip_all_reason;

void test_skip_all(const char *reason)
{
	skip_all_reason = reason;
}

void test_skip(const char *test, const char *reason)
{
	struct skip *skip = &skips->entries[skips->count];
	size_t length = strlen(test);

	if (skips->count + 1 == sizeof skips->entries / sizeof skips->entries[0])
		abort();
	if (length > 3 && strcmp(test + length - 3, "_fn") == 0)
		length -= 3; /* what libcheck appends to the function of a test */
	snprintf(skip->test, sizeof skip->test, "%.*s", (int)length, test);
	snprintf(skip->reason, sizeof skip->reason, "%s", reason);
	skips->count++;
}

/* `ok 3 - file.c:case:test: Passed`: is it a test that skipped itself? */
static const char *skip_reason(const char *line)
{
	char key[124];

	for (unsigned i = 0; i < skips->count; i++) {
		snprintf(key, sizeof key, ":%s:", skips->entries[i].test);
		if (strncmp(line, "ok ", 3) == 0 && strstr(line, key))
			return skips->entries[i].reason;
	}
	return NULL;
}

static void print_tap(const char *path)
{
	FILE *tap = fopen(path, "r");
	char *line = NULL;
	size_t room = 0;
	ssize_t length;

	while (tap && (length = getline(&line, &room, tap)) > 0) {
		const char *reason = skip_reason(line);
		if (reason)
			printf("%.*s # SKIP %s\n", (int)length - 1, line, reason);
		else
			fputs(line, stdout);
	}
	free(line);
	if (tap)
		fclose(tap);
}

TCase *test_case(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, 120);
	suite_add_tcase(suite, tcase);
	return tcase;
}

/* --- main --- */

static bool known_feature(const char *word, size_t length)
{
	const char *name;

	if (length == 0 || (length == 3 && memcmp(word, "all", 3) == 0))
		return true;
	for (uint32_t i = 0; (name = memslot_feature_name(i)); i++) {
		if (strlen(name) == length && memcmp(word, name, length) == 0)
			return true;
	}
	return false;
}

static bool disable_list_is_known(void)
{
	const char *list = getenv("MEMSLOT_DISABLE");

	while (list && *list) {
		size_t length = strcspn(list, ",");
		if (!known_feature(list, length)) {
			printf("Bail out! MEMSLOT_DISABLE has an unknown name: %.*s\n", (int)length,
					list);
			return false;
		}
		list += length + (list[length] == ',');
	}
	return true;
}

static int run_suite(Suite *suite)
{
	char path[] = "/tmp/memslot-tap-XXXXXX";
	SRunner *runner = srunner_create(suite);
	int failed, run, fd = mkstemp(path);

	if (fd < 0) {
		printf("Bail out! no temporary file: %s\n", strerror(errno));
		return EXIT_FAILURE;
	}
	close(fd);
	srunner_set_tap(runner, path);
	fflush(stdout);
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	run = srunner_ntests_run(runner);
	srunner_free(runner);
	print_tap(path);
	unlink(path);
	if (run == 0)
		printf("Bail out! no test ran\n");
	return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

__attribute__((weak)) int test_again(const char *word)
{
	printf("Bail out! unknown argument: %s\n", word);
	return 2;
}

__attribute__((weak)) int test_program(int argc, char **argv)
{
	(void)argc;
	return test_again(argv[1]);
}

int main(int argc, char **argv)
{
	Suite *suite;

	if (argc > 1)
		return test_program(argc, argv);
	skips = mmap(NULL, sizeof *skips, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (skips == MAP_FAILED || !disable_list_is_known())
		return EXIT_FAILURE;
	suite = test_suite();
	if (!suite && skip_all_reason) {
		printf("1..0 # SKIP %s\n", skip_all_reason);
		return EXIT_SUCCESS;
	}
	printf("# MEMSLOT_TEST_SEED=%" PRIu64 " MEMSLOT_DISABLE=%s\n", test_seed(),
			getenv("MEMSLOT_DISABLE") ? getenv("MEMSLOT_DISABLE") : "");
	return run_suite(suite);
}

/* --- faults --- */

static sigjmp_buf fault_back;
static void *volatile fault_address;
static volatile sig_atomic_t fault_signal;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = number;
	fault_address = info->si_addr;
	siglongjmp(fault_back, 1);
}

bool test_faults_allowed(void)
{
	const char *no = getenv("MEMSLOT_TEST_NO_FAULTS");

	return !no || strcmp(no, "1") != 0;
}

static void touch(const void *at, enum test_access how)
{
	volatile unsigned char *byte = (volatile unsigned char *)(uintptr_t)at;
	unsigned char value = *byte;

	if (how == TEST_WRITE)
		*byte = value;
}

int fault_at(const void *at, enum test_access how, void **ret_address)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER}, segv, bus;

	action.sa_sigaction = on_fault;
	sigemptyset(&action.sa_mask);
	sigaction(SIGSEGV, &action, &segv);
	sigaction(SIGBUS, &action, &bus);
	fault_signal = 0;
	fault_address = NULL;
	if (sigsetjmp(fault_back, 1) == 0)
		touch(at, how);
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	if (ret_address)
		*ret_address = fault_address;
	return fault_signal;
}

bool syscall_faults_at(const void *at)
{
	int ends[2];
	ssize_t done;

	/* By syscall(2): sanitizers would look at the buffer themselves. */
	if (pipe(ends))
		abort();
	done = syscall(SYS_write, ends[1], at, 1);
	if (done < 0 && errno != EFAULT)
		abort();
	close(ends[0]);
	close(ends[1]);
	return done < 0;
}

bool test_is_open(const void *at)
{
	if (!test_faults_allowed()) {
		touch(at, TEST_WRITE);
		return true;
	}
	return !fault_at(at, TEST_READ, NULL) && !fault_at(at, TEST_WRITE, NULL) &&
			!syscall_faults_at(at);
}

bool test_is_closed(const void *at)
{
	void *address;

	if (!test_faults_allowed())
		return true;
	if (fault_at(at, TEST_WRITE, NULL) != SIGSEGV || !syscall_faults_at(at))
		return false;
	return fault_at(at, TEST_READ, &address) == SIGSEGV && address == at;
}

/* --- random numbers, rounds --- */

uint64_t test_seed(void)
{
	const char *seed = getenv("MEMSLOT_TEST_SEED");

	return seed && *seed ? strtoull(seed, NULL, 0) : 20240817;
}

struct test_rng test_rng(uint64_t salt)
{
	return (struct test_rng){test_seed() * 0x9e3779b97f4a7c15u + salt};
}

/* splitmix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators". */
uint64_t test_next(struct test_rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t test_below(struct test_rng *rng, uint64_t limit)
{
	return test_next(rng) % limit;
}

#if defined(__has_feature)
#define HAS_SANITIZER(name) __has_feature(name##_sanitizer)
#else
#define HAS_SANITIZER(name) false
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GCC_SANITIZED true
#else
#define GCC_SANITIZED false
#endif
#define SANITIZED (GCC_SANITIZED || HAS_SANITIZER(address) || HAS_SANITIZER(thread))

bool test_sanitized(void)
{
	return SANITIZED;
}

bool test_knows_clone(void)
{
#ifdef __SANITIZE_THREAD__
	return false;
#else
	return !HAS_SANITIZER(thread) && test_faults_allowed();
#endif
}

static double rounds_wanted(void)
{
	const char *text = getenv("MEMSLOT_TEST_ROUNDS");

	return text && *text ? strtod(text, NULL) : 1.0;
}

/* One of many runs that are much alike: a single feature off, a sanitizer, valgrind. */
static bool one_of_many(void)
{
	const char *off = getenv("MEMSLOT_DISABLE");

	return SANITIZED || !test_faults_allowed() || (off && *off && strcmp(off, "all") != 0);
}

bool test_is_brief(void)
{
	return one_of_many() && rounds_wanted() < 10;
}

/* The same tests with every feature off come beside the ones with all of them. */
static double part_of_rounds(void)
{
	const char *off = getenv("MEMSLOT_DISABLE");

	return one_of_many() ? 0.1 : off && *off ? 0.4 : 1.0;
}

unsigned test_rounds(unsigned count)
{
	double rounds = rounds_wanted() * count * part_of_rounds();

	if (rounds < 1)
		return 1;
	return rounds > 1e9 ? 1000000000u : (unsigned)rounds;
}
