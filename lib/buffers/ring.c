/* SPDX-License-Identifier: MIT */
/*
 * ring.c - rings are attached and detached; the only file that knows liburing, and what it knows is
 * where a ring keeps its descriptor and flags.
 *
 * Invariant: the application owns its ring: nothing is ever taken from its completion queue or put
 * into its submission queue, and nobody but its own thread calls the kernel for it. From the first
 * attach on children do not have the areas (MADV_DONTFORK), and the pool is dead there: a child's
 * fixed read on an inherited ring would write the parent's page (INVARIANTS 20). Detach ends when
 * every operation has passed memslot_ring_complete, except for a ring that was closed: exit cancels
 * nothing while a child has the descriptor, so what was pending there may be written for ever, and
 * is quarantined.
 */
#include "buffers/buffers.h"

#include "base/feature.h"
#include "base/opts.h"
#include "base/uring.h"

#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>

#define MARK 0x6d73u

/* --- attach --- */

static int identity(int fd, uint64_t *ret_device, uint64_t *ret_inode)
{
	struct stat status;
	int error = ms_os_stat(fd, &status);

	if (!error) {
		*ret_device = status.st_dev;
		*ret_inode = status.st_ino;
	}
	return error;
}

bool ms_ring_alive(const struct memslot_ring *ring)
{
	uint64_t device, inode;

	return identity(ring->fd, &device, &inode) == 0 && device == ring->device &&
	       inode == ring->inode;
}

static int allocate(struct memslot_ring **ret_ring)
{
	size_t head = (sizeof **ret_ring + 63) & ~(size_t)63;
	size_t bytes = head + MS_OPS_MAX * sizeof(struct ms_op);
	void *memory;
	int error = ms_os_reserve(NULL, bytes, PROT_READ | PROT_WRITE, &memory);

	if (error)
		return error;
	*ret_ring = memory;
	(*ret_ring)->bytes = bytes;
	(*ret_ring)->ops = (struct ms_op *)((unsigned char *)memory + head);
	(*ret_ring)->op_free = MS_OP_NONE;
	return 0;
}

/* A call that does nothing: is it a ring, and ours to call? What else it may be refused for, by a
 * sandbox or an old kernel, is no error: operations will be plain. */
static int ask(int fd)
{
	struct io_uring_probe probe = {.last_op = 0};
	int answer;

	if (!ms_feature(MS_FEATURE_IO_URING))
		return 0;
	answer = ms_os_uring_register(fd, IORING_REGISTER_PROBE, &probe, 0);
	return answer == -EBADF || answer == -EOPNOTSUPP || answer == -EEXIST ? answer : 0;
}

static int describe(struct memslot_ring *ring, const struct io_uring *uring, uint64_t mark)
{
	int error;

	ring->fd = uring->ring_fd;
	ring->single = uring->flags & IORING_SETUP_SINGLE_ISSUER;
	ring->thread = ms_counter_thread();
	ring->mark = mark ? mark : MARK;
	ring->token = ring->mark << 48 | (ms_os_random() & MS_OP_TOKEN_GENERATION);
	ring->zero_copy = ms_feature(MS_FEATURE_URING_SEND_ZC);
	error = identity(ring->fd, &ring->device, &ring->inode);
	return error ? error : ask(ring->fd);
}

/* From children: all areas, or none. */
static int hide_all(struct memslot_buffers *buffers)
{
	int error = 0;
	uint32_t i;

	for (i = 0; i < MS_AREAS_MAX && !error; i++) {
		if (buffers->areas[i].buffers)
			error = ms_areas_hide(buffers, &buffers->areas[i], true);
	}
	while (error && i--) {
		if (buffers->areas[i].buffers)
			(void)ms_areas_hide(buffers, &buffers->areas[i], false);
	}
	return error;
}

/* Under the lock. */
static int join(struct memslot_buffers *buffers, struct memslot_ring *ring)
{
	unsigned count = 0;
	int error;

	if (buffers->closed)
		return -ESHUTDOWN;
	for (struct memslot_ring *other = buffers->rings; other; other = other->next, count++) {
		if (other->fd == ring->fd && other->inode == ring->inode)
			return -EALREADY;
	}
	if (count >= MS_RINGS_MAX)
		return -ENOSPC;
	error = buffers->attached ? 0 : hide_all(buffers);
	if (error)
		return error;
	buffers->attached = true;
	ring->buffers = buffers;
	ring->next = buffers->rings;
	buffers->rings = ring;
	return 0;
}

MS_EXPORT int memslot_ring_attach(struct memslot_buffers *buffers, struct io_uring *uring,
	const struct memslot_ring_opts *opts, struct memslot_ring **ret_ring)
{
	struct memslot_ring_opts taken;
	struct memslot_ring *ring;
	int error;

	if (!buffers || !uring || !ret_ring)
		return -EINVAL;
	error = ms_opts_take(&taken, sizeof taken, sizeof taken, 0, opts);
	if (!error && taken.mark > UINT16_MAX)
		error = -EINVAL;
	if (!error)
		error = ms_buffers_usable(buffers);
	if (!error)
		error = allocate(&ring);
	if (error)
		return error;
	error = describe(ring, uring, taken.mark);
	if (!error) {
		ms_lock_take(&buffers->lock);
		error = join(buffers, ring);
		ms_lock_release(&buffers->lock);
	}
	if (error) {
		ms_os_unmap(ring, ring->bytes);
		return error;
	}
	ms_table_open(ring);
	*ret_ring = ring;
	return 0;
}

/* --- detach --- */

void ms_ring_cancel(struct memslot_ring *ring, const struct memslot_group *group)
{
	for (uint32_t i = 0; i < ring->op_high && ms_feature(MS_FEATURE_URING_SYNC_CANCEL); i++) {
		struct ms_op *op = &ring->ops[i];
		/* A worker on its way to wait is asked again, until it has come to something. */
		struct io_uring_sync_cancel_reg cancel = {.fd = -1, .timeout.tv_sec = 1};
		int answer;
		if (op->kind != MS_OP_LIVE || op->cancelled || (group && op->group != group))
			continue;
		cancel.addr = op->token;
		answer = ms_os_uring_register(ring->fd, IORING_REGISTER_SYNC_CANCEL, &cancel, 1);
		op->cancelled = answer == 0 || answer == -EALREADY;
	}
}

static void lose_all(struct memslot_ring *ring)
{
	for (uint32_t i = 0; i < ring->op_high; i++) {
		if (ring->ops[i].kind != MS_OP_UNUSED)
			ms_complete_lose(ring, &ring->ops[i]);
	}
}

static void part(struct memslot_ring *ring)
{
	struct memslot_buffers *buffers = ring->buffers;
	struct memslot_ring **at = &buffers->rings;

	ms_lock_take(&buffers->lock);
	while (*at != ring)
		at = &(*at)->next;
	*at = ring->next;
	if (buffers->wants_trim) {
		buffers->inside++;
		buffers->wants_trim = false;
		ms_hand_collect(buffers);
		(void)ms_areas_trim(buffers);
		buffers->inside--;
	}
	ms_lock_release(&buffers->lock);
	ms_os_unmap(ring, ring->bytes);
}

MS_EXPORT int memslot_ring_detach(struct memslot_ring *ring)
{
	bool alive;
	int error;

	if (!ring)
		return 0;
	error = ms_ring_usable(ring);
	if (error)
		return error;
	if (ring->groups)
		return -EBUSY;
	ring->ending = true;
	alive = ms_ring_alive(ring);
	if (atomic_load(&ring->in_flight) && alive) {
		ms_ring_cancel(ring, NULL);
		return -EAGAIN;
	}
	if (!alive)
		lose_all(ring);
	error = ms_table_close(ring, alive);
	if (!error)
		part(ring);
	return error;
}
