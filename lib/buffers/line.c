/* SPDX-License-Identifier: MIT */
/*
 * line.c - who waits for buffers, first come first served.
 *
 * Invariant: whoever makes a buffer free serves the line before anybody else can have it, in one
 * step under the lock: the state changes before the notification, and nobody is forgotten
 * (INVARIANTS 31). The line orders credits: who stands before others gets its share of the budget
 * first, and those behind what remains. Who has its credits, but finds no adjacent buffers, keeps
 * both its place and its share while the next are looked at; an area is added for it if there is a
 * slot. Blocked threads sleep on a word of their own. Events are written without the lock, and
 * counted until they are, so that cancel and close do not return before.
 */
#include "buffers/buffers.h"

#include "base/opts.h"

#include <errno.h>

_Static_assert(
	sizeof(struct ms_in_line) <= sizeof((struct memslot_buffer_waiter){0}.state), "room");

static struct ms_in_line *state_of(struct memslot_buffer_waiter *waiter)
{
	return (struct ms_in_line *)waiter->state;
}

static void add(struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter)
{
	struct ms_in_line *state = state_of(waiter);

	*state = (struct ms_in_line){
		.prev = buffers->last, .buffers = buffers, .epoch = ms_fork_epoch()};
	atomic_store(&state->word, MS_LINE_WAITING);
	*(state->prev ? &state_of(state->prev)->next : &buffers->first) = waiter;
	buffers->last = waiter;
	buffers->waiters++;
	ms_buffers_set_room(buffers);
	ms_hand_collect(buffers);
}

static void take_out(struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter)
{
	struct ms_in_line *state = state_of(waiter);

	*(state->next ? &state_of(state->next)->prev : &buffers->last) = state->prev;
	*(state->prev ? &state_of(state->prev)->next : &buffers->first) = state->next;
	buffers->waiters--;
	ms_buffers_set_room(buffers);
	if (state->late)
		buffers->wait_ns += ms_os_clock_ns() - state->since_ns;
}

/* It was not served at once. */
static void count_wait(struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter)
{
	state_of(waiter)->late = 1;
	state_of(waiter)->since_ns = ms_os_clock_ns();
	buffers->waits++;
}

/* Out of the line, and woken; the lock is left meanwhile. The waiter may be gone as soon as its
 * word has changed, one with an event as soon as the lock is left. */
static void finish(
	struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter, uint32_t how)
{
	struct ms_in_line *state = state_of(waiter);
	bool asleep = state->late;
	int fd = waiter->event_fd;

	take_out(buffers, waiter);
	atomic_store(&state->word, how);
	if (fd < 0 && !asleep)
		return; /* its own thread is about to look */
	buffers->inside++;
	atomic_fetch_add(&buffers->notifying, fd >= 0);
	ms_lock_release(&buffers->lock);
	if (fd < 0) {
		ms_os_futex_wake(&state->word);
	} else {
		ms_os_signal_event(fd);
		atomic_fetch_sub(&buffers->notifying, 1);
	}
	ms_lock_take(&buffers->lock);
	buffers->inside--;
}

/* The first who can have what it wants has it; else NULL, and how many the first wants who has its
 * credits. */
static struct memslot_buffer_waiter *next(struct memslot_buffers *buffers, uint32_t *ret_want)
{
	uint64_t credits = buffers->budget > buffers->used ? buffers->budget - buffers->used : 0;
	struct memslot_buffer_waiter *waiter = buffers->first;

	*ret_want = 0;
	for (; waiter && waiter->count <= credits; waiter = state_of(waiter)->next) {
		if (ms_hand_out(buffers, waiter->count, &waiter->buffer))
			return waiter;
		credits -= waiter->count;
		*ret_want = *ret_want ? *ret_want : waiter->count;
	}
	return NULL;
}

/* The lock is left meanwhile. */
static void let_others(struct memslot_buffers *buffers)
{
	buffers->inside++;
	ms_lock_release(&buffers->lock);
	ms_os_yield();
	ms_lock_take(&buffers->lock);
	buffers->inside--;
}

/* `patient`: also who needs what another thread is just adding. */
static void serve(struct memslot_buffers *buffers, bool patient)
{
	while (buffers->first) {
		uint32_t want;
		struct memslot_buffer_waiter *waiter = next(buffers, &want);
		bool grown;
		if (waiter) {
			finish(buffers, waiter, MS_LINE_SERVED);
			continue;
		}
		if (!want || (buffers->growing && !patient))
			return; /* who is growing comes here after it */
		if (buffers->growing) {
			let_others(buffers);
			continue;
		}
		buffers->growing = true;
		grown = ms_areas_grow(buffers, want);
		buffers->growing = false;
		if (!grown)
			return;
	}
}

void ms_line_serve(struct memslot_buffers *buffers)
{
	serve(buffers, false);
}

static int refusal(const struct memslot_buffers *buffers, uint32_t count)
{
	if (buffers->closed)
		return -ESHUTDOWN;
	return count > ms_min(buffers->most, buffers->budget) ? -EMSGSIZE : 0;
}

void ms_line_fail(struct memslot_buffers *buffers)
{
	struct memslot_buffer_waiter *waiter = buffers->first;

	while (waiter) {
		int error = refusal(buffers, waiter->count);
		if (error) {
			waiter->buffer.base = NULL;
			finish(buffers, waiter,
				error == -ESHUTDOWN ? MS_LINE_SHUT : MS_LINE_TOO_LARGE);
			waiter = buffers->first; /* the lock was left */
		} else {
			waiter = state_of(waiter)->next;
		}
	}
}

/* --- blocking --- */

uint64_t ms_line_until(uint64_t timeout_ns)
{
	uint64_t until;

	if (timeout_ns == 0 || timeout_ns == MEMSLOT_NONE)
		return 0;
	if (timeout_ns == MEMSLOT_UNLIMITED ||
		__builtin_add_overflow(ms_os_clock_ns(), timeout_ns, &until))
		return UINT64_MAX;
	return until;
}

static int answer(const struct ms_in_line *state)
{
	switch (atomic_load(&state->word)) {
	case MS_LINE_SERVED:
		return 0;
	case MS_LINE_TOO_LARGE:
		return -EMSGSIZE;
	case MS_LINE_SHUT:
		return -ESHUTDOWN;
	default:
		return -EAGAIN;
	}
}

/* Sleep until it is out of the line; -EAGAIN: the time is over. In a child nobody waits. */
static int block(
	struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter, uint64_t until_ns)
{
	struct ms_in_line *state = state_of(waiter);
	int error = 0;

	ms_lock_release(&buffers->lock);
	while (atomic_load(&state->word) == MS_LINE_WAITING && error != -ETIMEDOUT &&
		state->epoch == ms_fork_epoch())
		error = ms_os_futex_wait(&state->word, MS_LINE_WAITING, until_ns);
	if (state->epoch != ms_fork_epoch())
		return -ESTALE;
	ms_lock_take(&buffers->lock);
	error = answer(state);
	if (error == -EAGAIN) {
		take_out(buffers, waiter);
		ms_line_serve(buffers); /* those behind may have room now */
	}
	return error;
}

int ms_line_acquire(struct memslot_buffers *buffers, uint32_t count, uint64_t timeout_ns,
	struct memslot_buffer *ret_buffer)
{
	struct memslot_buffer_waiter waiter = {.event_fd = -1, .count = count};
	uint64_t until_ns = ms_line_until(timeout_ns);
	int error;

	ms_lock_take(&buffers->lock);
	error = refusal(buffers, count);
	if (!error && !buffers->first && ms_hand_out(buffers, count, ret_buffer)) {
		if (count == 1)
			ms_hand_stock(buffers);
	} else if (!error) {
		buffers->inside++;
		add(buffers, &waiter);
		serve(buffers, true);
		error = answer(state_of(&waiter));
		if (error == -EAGAIN && until_ns) {
			count_wait(buffers, &waiter);
			error = block(buffers, &waiter, until_ns);
			if (error == -ESTALE)
				return error; /* a child's: the lock is not taken */
			error = error == -EAGAIN ? -ETIMEDOUT : error;
		} else if (error == -EAGAIN) {
			take_out(buffers, &waiter);
		}
		if (!error)
			*ret_buffer = waiter.buffer;
		buffers->inside--;
	}
	ms_lock_release(&buffers->lock);
	return error;
}

/* --- without blocking --- */

/* In some pool's line. */
static bool is_queued(struct memslot_buffer_waiter *waiter)
{
	const struct ms_in_line *state = state_of(waiter);

	return state->buffers && state->epoch == ms_fork_epoch() &&
	       atomic_load(&state->word) == MS_LINE_WAITING;
}

/* The same for one that may have been served, and be gone. */
static bool is_in_line(const struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter)
{
	struct memslot_buffer_waiter *at = buffers->last;

	while (at && at != waiter)
		at = state_of(at)->prev;
	return at;
}

/* A descriptor that was forgotten is 0, of something else. */
static bool is_eventfd(int fd)
{
	struct stat state;

	return fd >= 0 && ms_os_stat(fd, &state) == 0 && (state.st_mode & S_IFMT) == 0;
}

MS_EXPORT int memslot_buffers_wait(
	struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter)
{
	struct memslot_buffer_waiter taken;
	int error;

	if (!buffers || !waiter)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken, 0, waiter);
	if (!error)
		error = ms_buffers_usable(buffers);
	if (!error && (taken.count == 0 || !is_eventfd(taken.event_fd)))
		error = -EINVAL;
	if (error)
		return error;
	ms_lock_take(&buffers->lock);
	error = is_queued(waiter) ? -EALREADY : refusal(buffers, taken.count);
	if (!error) {
		buffers->inside++;
		add(buffers, waiter);
		serve(buffers, true);
		if (is_in_line(buffers, waiter))
			count_wait(buffers, waiter);
		buffers->inside--;
	}
	ms_lock_release(&buffers->lock);
	return error;
}

MS_EXPORT int memslot_buffers_wait_cancel(
	struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter)
{
	struct ms_in_line *state;
	int error;

	if (!buffers || !waiter)
		return -EINVAL;
	if (ms_buffers_usable(buffers))
		return -ESTALE;
	ms_lock_take(&buffers->lock);
	state = state_of(waiter);
	if (state->buffers == buffers && is_queued(waiter)) {
		take_out(buffers, waiter);
		state->buffers = NULL;
		error = 0;
	} else if (state->buffers == buffers && state->epoch == ms_fork_epoch()) {
		error = answer(state) ? answer(state) : -EALREADY;
	} else { /* never here, or forgotten in this child */
		error = -EINVAL;
	}
	buffers->inside++;
	ms_lock_release(&buffers->lock);
	while (error != -EINVAL && error && atomic_load(&buffers->notifying))
		ms_os_yield();
	ms_lock_take(&buffers->lock);
	if (error == 0) /* those behind may have room now */
		ms_line_serve(buffers);
	buffers->inside--;
	ms_lock_release(&buffers->lock);
	return error;
}
