/* SPDX-License-Identifier: MIT */
/*
 * duk_guest.c - a Duktape interpreter with lodash, and one request of it.
 *
 * Invariant: everything that can fail in the interpreter runs in protected calls; nothing that a
 * guest reaches opens anything behind the host's back. A request that takes too long, or that
 * Duktape cannot go on with, is left by longjmp, so that nothing of the guest's catches it: its
 * interpreter is good for a rewind only.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "duk_options.h"
#include <duktape.h>

#define LIBRARY "/usr/share/nodejs/lodash/lodash.js"
#define SCRIPT "memslot.script"
#define READ_MOST 4096

/* What a request is by default: a little of this and that from the library. */
static const char script[] = "var line = 'the quick brown fox jumps over the lazy dog';\n"
			     "var counts = _.countBy(_.words(line));\n"
			     "var names = _.sortBy(_.keys(counts));\n"
			     "last = _.map(names, _.capitalize).join(' ');\n"
			     "last + ' ' + counts.the;\n";

static const char opener[] = "var first = open('/dev/zero'), second = open('/dev/zero');\n"
			     "close(first);\n"
			     "var third = open('/dev/zero');\n"
			     "(read(second, 1) + read(third, 1)).length;\n";

/* --- memory --- */

static void *allocate(void *guest, duk_size_t size)
{
	return guest_realloc(guest, NULL, size);
}

static void *reallocate(void *guest, void *ptr, duk_size_t size)
{
	return guest_realloc(guest, ptr, size);
}

static void release(void *guest, void *ptr)
{
	guest_realloc(guest, ptr, 0);
}

/* --- files, which the host knows of --- */

static struct guest *guest_of(duk_context *duk)
{
	duk_memory_functions functions;

	duk_get_memory_functions(duk, &functions);
	return functions.udata;
}

static duk_ret_t open_file(duk_context *duk)
{
	int file = guest_open(guest_of(duk), duk_require_string(duk, 0));

	if (file < 0)
		return duk_generic_error(duk, "open: %s", strerror(-file));
	duk_push_int(duk, file);
	return 1;
}

static duk_ret_t read_file(duk_context *duk)
{
	int file = duk_require_int(duk, 0), size = duk_opt_int(duk, 1, READ_MOST);
	char bytes[READ_MOST];
	ssize_t got;

	if (size <= 0 || size > READ_MOST)
		return duk_range_error(duk, "read: %d bytes", size);
	got = guest_read(guest_of(duk), file, bytes, (size_t)size);
	if (got < 0)
		return duk_generic_error(duk, "read: %s", strerror((int)-got));
	duk_push_lstring(duk, bytes, (size_t)got);
	return 1;
}

static duk_ret_t close_file(duk_context *duk)
{
	int error = guest_close(guest_of(duk), duk_require_int(duk, 0));

	return error ? duk_generic_error(duk, "close: %s", strerror(-error)) : 0;
}

static const duk_function_list_entry functions[] = {
	{"open", open_file, 1}, {"read", read_file, 2}, {"close", close_file, 1}, {NULL, NULL, 0}};

/* --- boot --- */

static void load_library(duk_context *duk)
{
	size_t size;
	char *text = guest_source(LIBRARY, &size);

	if (!text)
		(void)duk_generic_error(duk, "no library: %s (node-lodash)", LIBRARY);
	duk_push_string(duk, LIBRARY);
	if (duk_pcompile_lstring_filename(duk, 0, text, size)) {
		free(text);
		(void)duk_throw(duk);
	}
	free(text);
	duk_call(duk, 0);
	duk_pop(duk);
}

static duk_ret_t boot(duk_context *duk, void *context)
{
	struct guest *guest = context;
	const struct interp_run *run = guest->run;

	duk_push_global_object(duk);
	duk_put_function_list(duk, -1, functions);
	load_library(duk);
	duk_eval_string(duk, "requests = 0; 'lodash ' + _.VERSION + ', ' + "
			     "_.functions(_).length + ' functions'");
	snprintf(guest->library, sizeof(guest->library), "%s", duk_safe_to_string(duk, -1));
	duk_push_global_stash(duk);
	duk_push_string(duk, "script");
	duk_compile_lstring_filename(duk, DUK_COMPILE_EVAL, run->script, run->script_size);
	duk_put_prop_string(duk, -2, SCRIPT);
	return 0;
}

/* Nothing is left that could be asked to go on. */
static void broken(void *guest, const char *message)
{
	(void)message;
	guest_leave(guest, NO_MEMORY); /* which is why, as far as is known */
}

static bool boot_guest(struct guest *guest)
{
	guest->state = duk_create_heap(allocate, reallocate, release, guest, broken);
	if (!guest->state) {
		complain(0, "no memory for an interpreter");
		return false;
	}
	if (duk_safe_call(guest->state, boot, guest, 0, 1) == DUK_EXEC_SUCCESS)
		return true;
	complain(0, "%s", duk_safe_to_string(guest->state, -1));
	return false;
}

static void close_guest(struct guest *guest)
{
	duk_destroy_heap(guest->state);
}

/* --- requests --- */

duk_bool_t duk_guest_interrupt(void *context)
{
	struct guest *guest = context;

	if (guest->interrupts && --guest->interrupts == 0)
		guest_leave(guest, DEADLINE);
	return 0;
}

static duk_ret_t answer(duk_context *duk, void *context)
{
	struct request *request = context;
	const char *answer;

	duk_get_global_string(duk, "requests");
	request->count = duk_to_int(duk, -1) + 1;
	duk_push_int(duk, (int)request->count);
	duk_put_global_string(duk, "requests");
	if (request->text) {
		duk_push_string(duk, "request");
		duk_compile_lstring_filename(duk, DUK_COMPILE_EVAL, request->text, request->size);
	} else {
		duk_push_global_stash(duk);
		duk_get_prop_string(duk, -1, SCRIPT);
	}
	duk_call(duk, 0);
	answer = duk_to_lstring(duk, -1, &request->answer_size);
	if (request->answer_size > sizeof(request->answer))
		request->answer_size = sizeof(request->answer);
	memcpy(request->answer, answer, request->answer_size);
	return 0;
}

static enum interp_end answer_guest(struct guest *guest, struct request *request)
{
	duk_set_top(guest->state, 0); /* what the request before raised */
	if (duk_safe_call(guest->state, answer, request, 0, 1) == DUK_EXEC_SUCCESS)
		return ANSWERED;
	return guest->refusals < INTERP_REFUSALS ? NO_MEMORY : RAISED;
}

static const char *raised(struct guest *guest)
{
	return duk_safe_to_string(guest->state, -1);
}

/* --- requests that misbehave --- */

static const struct rogue rogues[] = {
	{"loops", DEADLINE, "while (true);"},
	{"loops, and catches errors", DEADLINE,
		"while (true) { try { while (true); } catch (e) {} finally { continue; } }"},
	{"loops in a coroutine", DEADLINE,
		"Duktape.Thread.resume(new Duktape.Thread(function () { while (true); }))"},
	{"allocates without end", NO_MEMORY,
		"var all = []; while (true) all.push(_.repeat('x', 20000) + all.length);"},
	{"allocates everything at once", NO_MEMORY, "new Uint8Array(1 << 30).length"},
	{"catches that", ANSWERED,
		"kept = []; try { while (true) kept.push(new Uint8Array(100000)); } catch (e) {} 1"},
	{"catches that again and again", NO_MEMORY,
		"kept = []; while (true) try { kept.push(new Uint8Array(100000)); } catch (e) {}"},
	{"corrupts globals", ANSWERED,
		"requests = 77; Array.prototype.map = Object.prototype.toString = null;"
		"for (var name in _) delete _[name];"
		"var all = this; Object.getOwnPropertyNames(all).forEach("
		"function (name) { try { delete all[name]; } catch (e) {} }); 1"},
	{"loops in a finalizer", DEADLINE,
		"Duktape.fin(_, function () { while (true); }); _ = null; Duktape.gc(); 1"},
	{"raises an error", RAISED, "throw {}"},
	{"raises errors in an error", RAISED, "throw {toString: function () { throw this; }}"},
	{"recurs without end", RAISED, "(function again() { return 1 + again(); })()"},
	{"recurs through C", RAISED, "(function again() { return [1].map(again); })()"},
	{"opens without end", RAISED, "while (true) open('/dev/null');"},
	{"opens, and loops", DEADLINE, "open('/dev/null'); while (true);"},
	{"closes what is not its own", RAISED,
		"for (var file = -1000; file < 1000; file++) {"
		"	var done = true; try { close(file); } catch (e) { done = false; }"
		"	if (done) break;"
		"} done || close(0);"},
	{"is no program", RAISED, "this is not JavaScript"},
};

const struct interp duk_interp = {
	.name = "Duktape",
	.boot = boot_guest,
	.answer = answer_guest,
	.raised = raised,
	.close = close_guest,
	.script = script,
	.opener = opener,
	.rogues = rogues,
	.rogue_count = sizeof(rogues) / sizeof(*rogues),
};
