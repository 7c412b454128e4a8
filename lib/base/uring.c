/* SPDX-License-Identifier: MIT */
/*
 * uring.c - io_uring as far as the library needs it: registering, and the probes for it.
 *
 * Invariant: nothing here submits an operation. Registration goes by io_uring_register(2) itself,
 * so that a kernel newer than liburing is used for what it can do, and the library links nothing
 * for it.
 */
#include "uring.h"

#include "os.h"

#include <errno.h>
#include <sys/mman.h>

#define OPERATIONS 64

int ms_uring_sparse(int fd, unsigned count)
{
	struct io_uring_rsrc_register table = {.nr = count, .flags = IORING_RSRC_REGISTER_SPARSE};

	return ms_os_uring_register(fd, IORING_REGISTER_BUFFERS2, &table, sizeof table);
}

int ms_uring_update(int fd, unsigned entry, void *base, size_t size)
{
	struct iovec memory = {base, size};
	struct io_uring_rsrc_update2 update = {
		.offset = entry, .data = (uint64_t)(uintptr_t)&memory, .nr = 1};
	int done = ms_os_uring_register(fd, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof update);

	return done == 1 ? 0 : done < 0 ? done : -EFAULT;
}

/* --- probes --- */

/* Run a check on a new ring. */
static bool with_ring(bool (*check)(int fd, unsigned argument), unsigned argument)
{
	int fd = ms_os_uring_setup();
	bool yes;

	if (fd < 0)
		return false;
	yes = check(fd, argument);
	ms_os_close(fd);
	return yes;
}

static bool has_table(int fd, unsigned argument)
{
	return ms_uring_sparse(fd, argument) == 0 && ms_uring_update(fd, 0, NULL, 0) == 0;
}

bool ms_uring_has_fixed(void)
{
	return with_ring(has_table, 1);
}

static bool clones_from(int fd, unsigned source)
{
	struct ms_uring_clone clone = {.src_fd = source};

	return ms_os_uring_register(fd, MS_URING_CLONE_BUFFERS, &clone, 1) == 0;
}

static bool clones(int fd, unsigned argument)
{
	return has_table(fd, argument) && with_ring(clones_from, (unsigned)fd);
}

bool ms_uring_has_clone(void)
{
	return with_ring(clones, 1);
}

static bool has_groups(int fd, unsigned entries)
{
	struct io_uring_buf_reg group = {.ring_entries = entries};
	void *page;
	bool yes;

	if (ms_os_reserve(NULL, ms_page_size(), PROT_READ | PROT_WRITE, &page))
		return false;
	group.ring_addr = (uint64_t)(uintptr_t)page;
	yes = ms_os_uring_register(fd, IORING_REGISTER_PBUF_RING, &group, 1) == 0 &&
	      ms_os_uring_register(fd, IORING_UNREGISTER_PBUF_RING, &group, 1) == 0;
	ms_os_unmap(page, ms_page_size());
	return yes;
}

bool ms_uring_has_groups(void)
{
	return with_ring(has_groups, 1);
}

static bool cancels(int fd, unsigned argument)
{
	struct io_uring_sync_cancel_reg cancel = {.addr = argument, .fd = -1};

	return ms_os_uring_register(fd, IORING_REGISTER_SYNC_CANCEL, &cancel, 1) == -ENOENT;
}

bool ms_uring_has_sync_cancel(void)
{
	return with_ring(cancels, 1);
}

static bool knows_operation(int fd, unsigned operation)
{
	union {
		struct io_uring_probe head;
		unsigned char room[sizeof(struct io_uring_probe) +
				   OPERATIONS * sizeof(struct io_uring_probe_op)];
	} probe = {.room = {0}};

	return ms_os_uring_register(fd, IORING_REGISTER_PROBE, &probe, OPERATIONS) == 0 &&
	       operation <= probe.head.last_op &&
	       (probe.head.ops[operation].flags & IO_URING_OP_SUPPORTED);
}

bool ms_uring_has_operation(unsigned operation)
{
	return with_ring(knows_operation, operation);
}
