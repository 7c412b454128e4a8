/* SPDX-License-Identifier: MIT */
/*
 * load_echo.c - memslot load: whatever is sent has to come back, each byte in its place.
 *
 * Invariant: the byte at an offset of a visit is a function of seed, visit and offset, so that a
 * byte of another connection, or of another place, is not taken for the right one.
 */
#include "load.h"

static uint64_t word_at(const struct visit *visit, uint64_t word)
{
	uint64_t x = (visit->load->seed << 32) + (visit->number << 20) + word;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static unsigned char byte_at(const struct visit *visit, uint64_t offset)
{
	return (unsigned char)(word_at(visit, offset / 8) >> 8 * (offset % 8));
}

static int echo_begin(struct visit *visit)
{
	visit->total = visit_draw(visit, 2 * visit->load->bytes + 1);
	visit->load->requests++;
	return 0;
}

static size_t echo_output(struct visit *visit, char *bytes, size_t room)
{
	uint64_t left = visit->total - visit->sent;
	size_t size = 1 + (size_t)visit_draw(visit, visit_draw(visit, 4) ? 4096 : room);

	if (size > left)
		size = (size_t)left;
	if (size > room)
		size = room;
	for (size_t i = 0; i < size; i++)
		bytes[i] = (char)byte_at(visit, visit->sent + i);
	return size;
}

static int echo_input(struct visit *visit, const char *bytes, size_t size)
{
	if (visit->received + size > visit->sent)
		return visit_wrong(visit, EXIT_WRONG_BYTE, "more bytes than were sent",
			visit->received + size, visit->sent);
	for (size_t i = 0; i < size; i++) {
		unsigned char byte = byte_at(visit, visit->received + i);
		if ((unsigned char)bytes[i] != byte)
			return visit_wrong(
				visit, EXIT_WRONG_BYTE, "byte", (unsigned char)bytes[i], byte);
	}
	return 0;
}

static int echo_end(struct visit *visit)
{
	if (visit->received == visit->total)
		return 0;
	return visit_wrong(visit, EXIT_FAILED, "bytes", visit->received, visit->total);
}

static void echo_forget(struct visit *visit)
{
	(void)visit;
}

const struct protocol echo_protocol = {
	"echo", echo_begin, echo_output, echo_input, echo_end, echo_forget};
