/* SPDX-License-Identifier: MIT */
/*
 * copy_part.c - memslot copy: the parts of a file, and what has to be done with each.
 *
 * Invariant: a part begins at a multiple of the alignment, behind the one before. Whatever a file
 * system does not take directly is done by the other descriptor. Behind the end of the file a
 * direct write is filled up with zeros, never with what the buffer held before; the file is cut to
 * its size afterwards. A short operation goes on where it ended.
 */
#define _GNU_SOURCE
#include "copy.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* Where the data goes on from pass->at; false: nowhere. All is data where it cannot be asked. */
static bool find_data(struct copy *copy, struct pass *pass)
{
	off_t data = (off_t)pass->at, end = (off_t)copy->size;

	if (pass->writes) {
		data = lseek(pass->from->cached, (off_t)pass->at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return false;
		if (data >= 0)
			end = lseek(pass->from->cached, data, SEEK_HOLE);
		if (data < 0 || end <= data) {
			data = (off_t)pass->at;
			end = (off_t)copy->size;
		}
	}
	pass->at = (uint64_t)data / copy->align * copy->align;
	pass->data_end = round_up((uint64_t)end, copy->align);
	if (pass->data_end > copy->size)
		pass->data_end = copy->size;
	return pass->at < copy->size;
}

bool part_next(struct copy *copy, struct part *part)
{
	struct pass *pass = copy->pass;
	uint64_t size;

	if (pass->at >= copy->size || copy_stopped)
		return false;
	if (pass->at >= pass->data_end && !find_data(copy, pass))
		return false;
	size = pass->data_end - pass->at;
	if (size > copy->buffer_size)
		size = copy->buffer_size;
	part->offset = pass->at;
	part->size = (size_t)size;
	part->got = part->gone = 0;
	part->writing = part->cached = false;
	pass->at += size;
	return true;
}

void part_step(const struct copy *copy, struct part *part, struct step *ret_step)
{
	const struct side *side = part->writing ? &copy->to : copy->pass->from;
	size_t done = part->writing ? part->gone : part->got, end = part->size;

	if (side->direct < 0)
		part->cached = true;
	if (!part->cached)
		end = (size_t)round_up(end, copy->align);
	if (part->writing && done == 0)
		memset((char *)part->buffer.base + part->size, 0, end - part->size);
	*ret_step = (struct step){.fd = part->cached ? side->cached : side->direct,
		.write = part->writing,
		.start = done,
		.size = end - done,
		.offset = part->offset + done};
}

static void sum_up(const struct copy *copy, const struct part *part)
{
	copy->pass->sums[part->offset / copy->buffer_size] =
		XXH3_64bits(part->buffer.base, part->size);
}

static int advance(struct copy *copy, struct part *part, size_t bytes)
{
	size_t *done = part->writing ? &part->gone : &part->got;
	size_t left = part->size - *done;

	bytes = bytes < left ? bytes : left; /* what was filled up does not count */
	*done += bytes;
	atomic_fetch_add_explicit(part->writing ? &copy->bytes_written : &copy->bytes_read, bytes,
		memory_order_relaxed);
	if (*done < part->size) {
		copy->pass->short_ones++;
		return 1;
	}
	part->cached = false;
	if (!part->writing && copy->pass->writes) {
		part->writing = true;
		return 1;
	}
	if (!part->writing)
		sum_up(copy, part);
	return 0;
}

int part_done(struct copy *copy, struct part *part, int result)
{
	struct pass *pass = copy->pass;

	*(part->writing ? &pass->writes_done : &pass->reads) += 1;
	if (result == -EINTR || result == -EAGAIN)
		return 1;
	if (result == -EINVAL && !part->cached) {
		part->cached = true;
		pass->cached_ones++;
		return 1;
	}
	if (result == 0) /* the file became shorter; no room that the kernel would tell of */
		return part->writing ? -ENOSPC : -ESTALE;
	return result < 0 ? result : advance(copy, part, (size_t)result);
}
