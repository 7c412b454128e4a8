/* SPDX-License-Identifier: MIT */
/*
 * test_saved.c - a Lua interpreter with its libraries is booted by one process and answers in
 * another; and whatever may be different there.
 *
 * The processes are this program with arguments, without address space randomization:
 *   save|open FILE ADDRESS NEEDED EXTRA
 * NEEDED: a module that the heap points into; EXTRA: one that it does not; "-": none.
 * They print an answer; the exit status is the errno value of what failed.
 */
#define _GNU_SOURCE
#include "slots.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY ((size_t)16 << 20)
#define ADDRESS "0x200000000000"
#define REFUSED_PERSONALITY 126

static struct memslot_heap *heap; /* the interpreter's context is its address */

/* --- an interpreter --- */

static void *allocate(void *context, void *ptr, size_t old, size_t size)
{
	(void)old;
	if (size)
		return memslot_heap_realloc(*(struct memslot_heap **)context, ptr, size);
	memslot_heap_free(*(struct memslot_heap **)context, ptr);
	return NULL;
}

static const char boot_script[] =
	"local found, List = pcall(require, 'pl.List')\n"
	"local words = {}\n"
	"for word in ('the quick brown fox jumps over the lazy dog'):gmatch('%a+') do\n"
	"	words[#words + 1] = word\n"
	"end\n"
	"local next_number = coroutine.wrap(function()\n"
	"	for i = 1, math.maxinteger do coroutine.yield(i * i) end\n"
	"end)\n"
	"next_number()\n"
	"count = 0\n"
	"function request(name)\n"
	"	count = count + 1\n"
	"	table.sort(words, function(a, b) return a > b end)\n"
	"	local text = table.concat(words, ' '):gsub('%a+', string.upper)\n"
	"	local sorted = found and List(words):sort():join(' ') or 'no penlight'\n"
	"	local right, why = pcall(error, {code = 7})\n"
	"	return string.format('%s %d %d %.17g %s %s %d %s', name, count, next_number(),\n"
	"		math.sin(0.5) + math.exp(1.5), text, sorted, why.code,\n"
	"		utf8.char(233, 8364))\n"
	"end\n";

static lua_State *boot(void)
{
	lua_State *lua = lua_newstate(allocate, &heap);

	if (!lua)
		return NULL;
	lua_gc(lua, LUA_GCSTOP);
	luaL_openlibs(lua);
	return luaL_dostring(lua, boot_script) ? NULL : lua;
}

static bool answer(lua_State *lua, char *text, size_t room)
{
	lua_getglobal(lua, "request");
	lua_pushstring(lua, "hello");
	if (lua_pcall(lua, 1, 1, 0))
		return false;
	snprintf(text, room, "%s", lua_tostring(lua, -1));
	return true;
}

/* --- a process --- */

/* What the heap's root leads to. */
struct root {
	lua_State *lua;
	const char *(*word)(void); /* of the module, or NULL */
};

static int load(const char *path, const char *(**ret_word)(void))
{
	void *module = strcmp(path, "-") != 0 ? dlopen(path, RTLD_NOW) : NULL, *found;

	*ret_word = NULL;
	if (!module)
		return strcmp(path, "-") != 0 ? ENOENT : 0;
	found = dlsym(module, "saved_module_word");
	memcpy(ret_word, &found, sizeof found);
	return found ? 0 : ENOENT;
}

static int save(struct memslot_slot *slot, const char *path, const char *(*word)(void))
{
	struct memslot_image *image;
	struct root *root;
	int error = memslot_heap_create(slot, NULL, &heap);

	if (error)
		return -error;
	root = memslot_heap_alloc(heap, sizeof *root, 0);
	*root = (struct root){boot(), word};
	if (!root->lua)
		return EPROTO;
	memslot_heap_set_root(heap, root);
	error = memslot_slot_checkpoint(slot, &image);
	if (error)
		return -error;
	error = memslot_image_save(image, path);
	memslot_image_unref(image);
	return -error;
}

static int open_saved(struct memslot_slot *slot, const char *path)
{
	struct memslot_image *image;
	int error = memslot_image_open(path, NULL, &image);

	if (error)
		return -error;
	error = memslot_slot_instantiate(slot, image, memslot_image_size(image));
	memslot_image_unref(image);
	if (!error)
		error = memslot_heap_open(slot, &heap);
	return -error;
}

/* Several requests; the same answer to each. */
static int serve(struct memslot_slot *slot)
{
	const struct root *root = memslot_heap_root(heap);
	char text[2][500] = {"", ""};

	for (int i = 0; i < 3; i++) {
		if (!answer(root->lua, text[i > 0], sizeof text[0]) || memslot_slot_reset(slot) ||
				(i && strcmp(text[0], text[1]) != 0))
			return EPROTO;
	}
	printf("%s %s", text[0], root->word ? root->word() : "");
	return fflush(stdout) ? errno : 0;
}

int test_program(int argc, char **argv)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts, .flags = 0);
	const char *(*word)(void), *(*extra)(void);
	struct memslot_slot *slot;
	int error = argc == 6 ? load(argv[4], &word) : EINVAL;

	if (!error)
		error = load(argv[5], &extra);
	if (error)
		return error;
	opts.base_address = (void *)(uintptr_t)strtoull(argv[3], NULL, 0);
	error = -memslot_slot_create(CAPACITY, &opts, &slot);
	if (error)
		return error;
	error = strcmp(argv[1], "save") == 0 ? save(slot, argv[2], word) : open_saved(slot, argv[2]);
	if (!error)
		error = serve(slot);
	memslot_slot_destroy(slot);
	return error;
}

/* --- processes --- */

static char folder[4096], file[64], expected[1000];

struct life {
	const char *program, *verb, *address, *needed, *extra, *tunables; /* NULL: the usual */
	bool randomize;
};

static const char *beside(const char *name)
{
	static char path[4][4200];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[0], "%s/%s", folder, name);
	return path[turn];
}

static void become(const struct life *life)
{
	const char *program = beside(life->program ? life->program : "test_saved");
	int now = personality(0xffffffff);

	now = life->randomize ? now & ~ADDR_NO_RANDOMIZE : now | ADDR_NO_RANDOMIZE;
	if (personality((unsigned long)now) < 0)
		_exit(REFUSED_PERSONALITY);
	if (life->tunables)
		setenv("GLIBC_TUNABLES", life->tunables, 1);
	execl(program, program, life->verb ? life->verb : "open", file,
			life->address ? life->address : ADDRESS,
			life->needed ? beside(life->needed) : "-",
			life->extra ? beside(life->extra) : "-", (char *)NULL);
	_exit(127);
}

/* Its exit status; what it prints goes to text. */
static int run(struct life life, char *text, size_t room)
{
	int ends[2], status;
	ssize_t got = 0;
	pid_t child;

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		dup2(ends[1], STDOUT_FILENO);
		become(&life);
	}
	close(ends[1]);
	memset(text, 0, room);
	for (size_t at = 0; (got = read(ends[0], text + at, room - 1 - at)) > 0;)
		at += (size_t)got;
	close(ends[0]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status), "signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* false: the test is to be skipped. */
static bool saved_by(struct life life)
{
	int status;

	life.verb = "save";
	status = run(life, expected, sizeof expected);
	ck_assert_msg(status == 0 || status == REFUSED_PERSONALITY, "save: %d", status);
	return status == 0;
}

static int opened_by(struct life life)
{
	char text[1000];
	int status = run(life, text, sizeof text);

	ck_assert_str_eq(text, status ? "" : expected);
	return status;
}

#define THE_SAME .program = NULL
#define SAVED_BY(...)                                                                              \
	SKIP_IF(!test_knows_clone(), "ThreadSanitizer and valgrind want addresses for themselves"); \
	SKIP_IF(!saved_by((struct life){__VA_ARGS__}),                         \
		"address space randomization cannot be switched off")
#define OPENED_BY(...) opened_by((struct life){__VA_ARGS__})

static void begin(void)
{
	char *slash;

	if (readlink("/proc/self/exe", folder, sizeof folder - 1) < 0)
		abort();
	slash = strrchr(folder, '/');
	*slash = 0;
	strcpy(file, "/tmp/memslot-saved-XXXXXX");
	close(mkstemp(file));
}

static void end(void)
{
	unlink(file);
}

START_TEST(a_lua_state_answers_in_another_process)
{
	SAVED_BY(THE_SAME);
	ck_assert_ptr_nonnull(strstr(expected, "hello 1 4 "));
	ck_assert_ptr_nonnull(strstr(expected, "THE THE QUICK OVER LAZY"));
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(OPENED_BY(THE_SAME), 0);
}
END_TEST

/* Address space randomization: of the machine? */
static bool libraries_move(void)
{
	FILE *number = fopen("/proc/sys/kernel/randomize_va_space", "re");
	int level = 0;

	if (number && fscanf(number, "%d", &level) != 1)
		level = 0;
	if (number)
		fclose(number);
	return level > 0;
}

START_TEST(libraries_elsewhere_are_refused)
{
	SKIP_IF(!libraries_move(), "nothing moves on this machine");
	SAVED_BY(THE_SAME);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(OPENED_BY(.randomize = true), ESTALE);
	ck_assert_int_eq(OPENED_BY(THE_SAME), 0);
}
END_TEST

START_TEST(another_program_is_refused)
{
	SAVED_BY(THE_SAME);
	ck_assert_int_eq(OPENED_BY(.program = "test_saved_other"), ESTALE);
	SAVED_BY(.program = "test_saved_other"); /* it has no build-id */
	ck_assert_int_eq(OPENED_BY(.program = "test_saved_other"), 0);
	ck_assert_int_eq(OPENED_BY(THE_SAME), ESTALE);
}
END_TEST

START_TEST(invariant_32_another_address_is_refused)
{
	SAVED_BY(THE_SAME);
	ck_assert_int_eq(OPENED_BY(.address = "0x210000000000"), EADDRNOTAVAIL);
	ck_assert_int_eq(OPENED_BY(.address = "0"), EADDRNOTAVAIL);
	ck_assert_int_eq(OPENED_BY(.address = "0x7ffffffff000"), EADDRNOTAVAIL); /* taken */
}
END_TEST

START_TEST(objects_that_are_not_pointed_into_may_come_and_go)
{
	SAVED_BY(THE_SAME);
	ck_assert_int_eq(OPENED_BY(.extra = "saved_one.so"), 0);
	SAVED_BY(.extra = "saved_one.so");
	ck_assert_int_eq(OPENED_BY(THE_SAME), 0);
	ck_assert_int_eq(OPENED_BY(.extra = "saved_two.so"), 0);
}
END_TEST

START_TEST(objects_that_are_pointed_into_must_be_there)
{
	SAVED_BY(.needed = "saved_one.so");
	ck_assert_ptr_nonnull(strstr(expected, " one"));
	ck_assert_int_eq(OPENED_BY(.needed = "saved_one.so"), 0);
	ck_assert_int_eq(OPENED_BY(.needed = "saved_one.so", .extra = "saved_two.so"), 0);
	ck_assert_int_eq(OPENED_BY(.extra = "saved_one.so"), 0);
	ck_assert_int_eq(OPENED_BY(THE_SAME), ESTALE);
	/* At the same address, of the same size, and without a build-id. */
	ck_assert_int_eq(OPENED_BY(.needed = "saved_two.so"), ESTALE);
	/* The same one elsewhere. */
	ck_assert_int_eq(OPENED_BY(.needed = "saved_two.so", .extra = "saved_one.so"), ESTALE);
}
END_TEST

START_TEST(other_tunables_are_refused)
{
	const char *some = "glibc.malloc.arena_max=3", *more = "glibc.malloc.arena_max=4";

	SAVED_BY(THE_SAME);
	ck_assert_int_eq(OPENED_BY(.tunables = some), ESTALE);
	SAVED_BY(.tunables = some);
	ck_assert_int_eq(OPENED_BY(.tunables = some), 0);
	ck_assert_int_eq(OPENED_BY(.tunables = more), ESTALE);
	ck_assert_int_eq(OPENED_BY(THE_SAME), ESTALE);
}
END_TEST

START_TEST(a_damaged_header_is_refused)
{
	unsigned char byte;
	int fd = -1;

	SAVED_BY(THE_SAME);
	fd = open(file, O_RDWR | O_CLOEXEC);
	for (off_t at = 0; at < 400; at += 7) {
		int status;
		ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
		status = OPENED_BY(THE_SAME);
		ck_assert_msg(status == EUCLEAN || status == EBADMSG, "%d: %d", (int)at, status);
		byte ^= 0x10;
		ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
	}
	ck_assert_int_eq(OPENED_BY(THE_SAME), 0);
	close(fd);
}
END_TEST

/* --- in this process --- */

static struct memslot_image *booted(struct memslot_slot *slot, void *root)
{
	struct memslot_image *image;

	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	ck_assert_ptr_nonnull(boot());
	*(void **)memslot_heap_alloc(heap, sizeof root, 0) = root;
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	return image;
}

static int shown(struct memslot_slot *slot, struct memslot_image *image)
{
	instantiate(slot, NULL, 0);
	instantiate(slot, image, memslot_image_size(image));
	return memslot_heap_open(slot, &heap);
}

START_TEST(what_is_loaded_between_create_and_open_matters_only_if_pointed_into)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_image *image = booted(slot, NULL);
	void *module = dlopen(beside("saved_one.so"), RTLD_NOW);

	ck_assert_ptr_nonnull(module);
	ck_assert_int_eq(shown(slot, image), 0);
	memslot_image_unref(image);
	image = booted(slot, dlsym(module, "saved_module_word"));
	ck_assert_int_eq(shown(slot, image), 0);
	ck_assert_int_eq(dlclose(module), 0);
	ck_assert_int_eq(shown(slot, image), -ESTALE);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(an_image_that_does_not_name_its_program_is_refused)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_image *image = booted(slot, NULL), *raw;
	size_t size = memslot_image_size(image);
	void *bytes = malloc(size);

	memcpy(bytes, base_of(slot), size);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, size, NULL, &raw), 0);
	ck_assert_int_eq(shown(slot, raw), -ESTALE);
	ck_assert_int_eq(shown(slot, image), 0);
	free(bytes);
	memslot_image_unref(raw);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* What was made elsewhere is not made here by being copied here. */
START_TEST(what_another_program_made_stays_so_through_checkpoints_and_captures)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	void *module = dlopen(beside("saved_one.so"), RTLD_NOW);
	struct memslot_image *image = booted(slot, dlsym(module, "saved_module_word")), *copy, *raw;
	size_t size = memslot_image_size(image);
	void *bytes = malloc(size);

	memcpy(bytes, base_of(slot), size);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, size, NULL, &raw), 0);
	ck_assert_int_eq(dlclose(module), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(shown(slot, i ? raw : image), -ESTALE);
		ck_assert_int_eq(memslot_slot_capture(slot, NULL, &copy), 0);
		ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
		ck_assert_int_eq(memslot_heap_open(slot, &heap), -ESTALE);
		ck_assert_int_eq(shown(slot, copy), -ESTALE);
		memslot_image_unref(copy);
	}
	free(bytes);
	memslot_image_unref(raw);
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

static uint64_t strays_of(lua_State *lua, struct memslot_slot *slot)
{
	struct memslot_image_stats stats = {.size = sizeof stats};
	struct memslot_image *image;

	ck_assert_ptr_nonnull(lua);
	ck_assert_int_eq(memslot_slot_capture(slot, NULL, &image), 0);
	ck_assert_int_eq(memslot_image_stats(image, &stats), 0);
	memslot_image_unref(image);
	return stats.strays;
}

START_TEST(a_context_on_the_stack_is_a_stray)
{
	struct memslot_slot *slot = slot_new(CAPACITY, NULL);
	struct memslot_heap *local;
	uint64_t bare;

	NEED_FEATURE("proc_maps");
	ck_assert_int_eq(memslot_heap_create(slot, NULL, &heap), 0);
	bare = strays_of(lua_newstate(allocate, &heap), slot);
	ck_assert_int_eq(memslot_heap_create(slot, NULL, &local), 0);
	ck_assert_uint_eq(strays_of(lua_newstate(allocate, &local), slot), bare + 1);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("saved");
	TCase *saved = test_case(suite, "saved"), *here = test_case(suite, "here");

	tcase_add_checked_fixture(saved, begin, end);
	tcase_add_checked_fixture(here, begin, end);
	tcase_add_test(saved, a_lua_state_answers_in_another_process);
	tcase_add_test(saved, libraries_elsewhere_are_refused);
	tcase_add_test(saved, another_program_is_refused);
	tcase_add_test(saved, invariant_32_another_address_is_refused);
	tcase_add_test(saved, objects_that_are_not_pointed_into_may_come_and_go);
	tcase_add_test(saved, objects_that_are_pointed_into_must_be_there);
	tcase_add_test(saved, other_tunables_are_refused);
	tcase_add_test(saved, a_damaged_header_is_refused);
	tcase_add_test(here, what_is_loaded_between_create_and_open_matters_only_if_pointed_into);
	tcase_add_test(here, an_image_that_does_not_name_its_program_is_refused);
	tcase_add_test(here, what_another_program_made_stays_so_through_checkpoints_and_captures);
	tcase_add_test(here, a_context_on_the_stack_is_a_stray);
	return suite;
}
