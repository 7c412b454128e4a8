/* SPDX-License-Identifier: MIT */
/*
 * interp_guest.c - what guests have in common, whichever interpreter they are.
 *
 * Invariant: what a guest opens is known outside its slot, where no rewind forgets it; before each
 * rewind all of it is closed. A guest names its files by numbers of its own.
 */
#define _GNU_SOURCE
#include "interp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOURCE_MOST MIB

void *guest_realloc(struct guest *guest, void *ptr, size_t size)
{
	void *moved;

	if (guest->trace)
		return trace_realloc(guest->trace, ptr, size);
	if (size == 0) {
		if (guest->heap)
			memslot_heap_free(guest->heap, ptr);
		else
			free(ptr);
		return NULL;
	}
	moved = guest->heap ? memslot_heap_realloc(guest->heap, ptr, size) : realloc(ptr, size);
	if (!moved && guest->refusals && --guest->refusals == 0)
		guest_leave(guest, NO_MEMORY);
	return moved;
}

void guest_leave(struct guest *guest, enum interp_end end)
{
	guest->left = end;
	longjmp(guest->leave, 1);
}

char *guest_source(const char *path, size_t *ret_size)
{
	FILE *file = fopen(path, "re");
	char *text = file ? malloc(SOURCE_MOST + 1) : NULL;
	int error = text ? 0 : errno;

	if (text)
		*ret_size = fread(text, 1, SOURCE_MOST + 1, file);
	if (text && ferror(file))
		error = EIO;
	else if (text && *ret_size > SOURCE_MOST)
		error = EFBIG;
	if (file)
		fclose(file);
	if (!error)
		return text;
	free(text);
	errno = error;
	return NULL;
}

/* --- files --- */

int guest_open(struct guest *guest, const char *path)
{
	unsigned file = 0;

	while (file < guest->file_count && guest->files[file] >= 0)
		file++;
	if (file == INTERP_FILES)
		return -EMFILE;
	guest->files[file] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (guest->files[file] < 0)
		return -errno;
	if (file == guest->file_count)
		guest->file_count++;
	guest->opened++;
	return (int)file;
}

static bool has_file(const struct guest *guest, long long file)
{
	return file >= 0 && file < guest->file_count && guest->files[file] >= 0;
}

ssize_t guest_read(struct guest *guest, long long file, void *bytes, size_t size)
{
	ssize_t got = has_file(guest, file) ? read(guest->files[file], bytes, size) : -1;

	if (got >= 0)
		return got;
	return has_file(guest, file) ? -errno : -EBADF;
}

int guest_close(struct guest *guest, long long file)
{
	if (!has_file(guest, file))
		return -EBADF;
	close(guest->files[file]);
	guest->files[file] = -1;
	return 0;
}

unsigned guest_files(const struct guest *guest)
{
	unsigned count = 0;

	for (unsigned file = 0; file < guest->file_count; file++)
		count += has_file(guest, file);
	return count;
}

int guest_rewind(struct guest *guest)
{
	for (unsigned file = 0; file < guest->file_count; file++)
		(void)guest_close(guest, file);
	guest->file_count = 0;
	return memslot_slot_reset(guest->slot);
}

/* --- an interpreter --- */

int guest_boot(struct guest *guest, struct interp_run *run, struct memslot_slot *slot)
{
	int error = 0;

	*guest = (struct guest){.run = run, .slot = slot, .trace = run->trace};
	if (slot)
		error = memslot_heap_create(slot, NULL, &guest->heap);
	if (error)
		return error;
	if (setjmp(guest->leave)) {
		complain(0, "the interpreter gave up while it booted");
		return -EPROTO;
	}
	if (!run->interp->boot(guest))
		return -EPROTO;
	if (slot)
		memslot_heap_set_root(guest->heap, guest->state);
	return 0;
}

int guest_checkpoint(struct guest *guest, struct interp_run *run, struct memslot_slot *slot,
	struct memslot_image **ret_image)
{
	int error = guest_boot(guest, run, slot);

	return error ? error : memslot_slot_checkpoint(slot, ret_image);
}

void guest_complain(struct guest *guest, enum interp_end end)
{
	static const char *const ends[] = {
		"answered", "raised an error", "ran out of memory", "took too long"};
	const char *why = end == RAISED ? guest->run->interp->raised(guest) : NULL;

	complain(0, "a request %s%s%s", ends[end], why ? ": " : "", why ? why : "");
}

enum interp_end guest_answer(struct guest *guest, struct request *request)
{
	enum interp_end end;

	guest->refusals = INTERP_REFUSALS;
	guest->interrupts = INTERP_INTERRUPTS;
	if (setjmp(guest->leave))
		end = guest->left;
	else
		end = guest->run->interp->answer(guest, request);
	guest->refusals = guest->interrupts = 0; /* there is nowhere to leave to */
	return end;
}

bool guest_right(struct guest *guest, long long nth)
{
	const struct interp_run *run = guest->run;
	struct request request = {0};
	enum interp_end end = guest_answer(guest, &request);

	if (end != ANSWERED)
		guest_complain(guest, end);
	else if (request.count != nth)
		complain(0, "a request is number %lld of its interpreter", request.count);
	else if (run->answer_size == request.answer_size &&
		 memcmp(run->answer, request.answer, request.answer_size) == 0)
		return true;
	else
		complain(0, "a request answered '%.*s'", (int)request.answer_size, request.answer);
	return false;
}
