/* SPDX-License-Identifier: MIT */
/*
 * memslot/buffers.h - fixed-size buffers for I/O, guarded while the kernel owns them.
 *
 *   area (a slot of a pool):  [ buffer 0 | buffer 1 | .. ]      one entry of each ring's table
 *
 * A buffer is out from acquire until its last reference and its last operation are gone, whichever
 * comes later: releasing one that the kernel still reads or writes is legal, and harmless. A byte
 * budget bounds what is out; who finds it spent waits, first come first served. With io_uring the
 * buffers are registered (fixed) where the kernel lets us, and work without where it does not. One
 * pool is one trust domain: a buffer shows what was in it last, unless ZERO is given.
 *
 * Common keys:
 * Units:   bytes. Buffers are equal, a power of two; the budget counts whole buffers out.
 * Owner:   the caller owns pools until close, buffers until release, rings until detach.
 * Threads: buffers: every call from any thread. ring and group: on the ring's own thread, one at a
 *          time; a ring made with IORING_SETUP_SINGLE_ISSUER answers -EEXIST to any other thread.
 * Fork:    before the first attach a child's copy works if no other thread was in a call; waiters
 *          are forgotten. From then on the pool is dead in a child: its memory is not there, every
 *          call answers -ESTALE, and close frees the bookkeeping.
 * Memory:  after create, areas come from the slot pool as they are needed; nothing else is allocated.
 * Errors:  -EINVAL for NULL; -ESTALE dead in this child, or a buffer that is not out: released
 *          already, or of another pool.
 * Since:   0.1
 * Source:  io_uring(7), io_uring_register(2); J. Bonwick, J. Adams, Magazines and Vmem, 2001
 */
#ifndef MEMSLOT_BUFFERS_H
#define MEMSLOT_BUFFERS_H

#include <memslot/base.h>
#include <memslot/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* liburing's; this header does not need it. */
struct io_uring;
struct io_uring_sqe;
struct io_uring_cqe;

struct memslot_buffers;
struct memslot_ring;
struct memslot_group;

/* Adjacent buffers, acquired together. A plain value: copy it, send it to another thread.
 * base    of the first; buffer i is at base + i * size
 * size    of one
 * handle  names this acquisition, and no earlier one
 * index   of the first
 * count   how many */
struct memslot_buffer {
	void *base;
	size_t size;
	uint64_t handle;
	uint32_t index;
	uint32_t count;
};

/*
 * flags        MEMSLOT_BUFFERS_*
 * buffer_size  a power of two, 512 to 16 MiB; default 16 KiB. Buffers are aligned to it, up to a page
 * budget       bytes that may be out; default 64 MiB; MEMSLOT_UNLIMITED
 * pool         where areas come from, each a slot (of which it uses up to 1 GiB); it must outlive
 *              the buffers. NULL: one of its own
 */
struct memslot_buffers_opts {
	uint32_t size, flags;
	uint64_t buffer_size, budget;
	struct memslot_pool *pool;
};

/* Clear buffers before anybody else can have them. */
#define MEMSLOT_BUFFERS_ZERO (1u << 0)

/*
 * Waiting without blocking. The struct is the caller's and stays where it is until the event came or
 * the wait was cancelled.
 *   event_fd  an eventfd(2): 1 is added when the wait is over
 *   count     as for acquire
 *   buffer    written before the event; base NULL: the wait failed, memslot_buffers_wait_cancel says
 *             why
 *   state     the pool's
 */
struct memslot_buffer_waiter {
	uint32_t size, flags;
	int32_t event_fd;
	uint32_t count;
	struct memslot_buffer buffer;
	void *state[6];
};

/*
 * live, live_bytes  buffers out; those in groups included
 * budget            now
 * high_water        most bytes that were out at once, to within what magazines hold
 * idle_bytes        of areas, not out
 * waiters, waits    waiting now; that ever had to wait
 * wait_ns           how long they did, those that are over
 * in_flight         operations that the kernel has not completed
 * quarantined       buffers never to be used again: their ring was closed with operations pending
 * plain_fallbacks   tables and areas that a ring could not register: operations there are plain
 * magazines         buffers that threads keep at hand, a part of idle_bytes
 */
struct memslot_buffers_stats {
	uint32_t size, reserved;
	uint64_t live, live_bytes, budget, high_water, idle_bytes, waiters, waits, wait_ns,
		in_flight, quarantined, plain_fallbacks, magazines;
};

/* mark: the top 16 bits of user_data by which completions of ours are told; default 0x6d73. The
 * application's own operations must not bear it (pointers never do). */
struct memslot_ring_opts {
	uint32_t size, flags;
	uint64_t mark;
};

/* count: buffers at most in the group, a power of two up to 32768; default 64 */
struct memslot_group_opts {
	uint32_t size, flags;
	uint64_t count;
};

/*
 * available  buffers that the kernel may choose from
 * in_hand    buffers that it chose, not released yet
 * window     how many are kept available
 * enobufs    operations that found none
 */
struct memslot_group_stats {
	uint32_t size, reserved;
	uint64_t available, in_hand, window, enobufs;
};

/*
 * flags      MEMSLOT_COMPLETION_*; 0: housekeeping, nothing to see
 * user_data  what prep was given
 * result     the kernel's
 * bytes      valid in buffer: where the operation started, plus its result if that is positive, to
 *            the buffer's end at most (MSG_TRUNC). The start to continue a short one at
 * buffer     the operation's, or the one SELECTED; else base NULL
 */
struct memslot_completion {
	uint32_t size, flags;
	uint64_t user_data;
	int32_t result;
	uint32_t reserved;
	uint64_t bytes;
	struct memslot_buffer buffer;
};

/* user_data is what prep was given. Not set: housekeeping (NOP of unprep, late NOTIF, tags). */
#define MEMSLOT_COMPLETION_OURS (1u << 0)
/* The operation is over, its guard gone. A zero-copy send completes twice: with its result, and then
 * TERMINAL and NOTIF, with 0; a plain one, or one that failed, once. */
#define MEMSLOT_COMPLETION_TERMINAL (1u << 1)
/* A multishot ended that the application may want again: prepare it anew. */
#define MEMSLOT_COMPLETION_REARM (1u << 2)
/* The kernel chose buffer from a group: it is the application's now, and goes back by
 * memslot_buffers_release, also after the group is gone. */
#define MEMSLOT_COMPLETION_SELECTED (1u << 3)

/* The kernel has let go of the buffer of a zero-copy send whose result came before; TERMINAL. */
#define MEMSLOT_COMPLETION_NOTIF (1u << 4)

/* For group_prep_*: one operation, many completions. */
#define MEMSLOT_GROUP_MULTISHOT (1u << 0)

/* --- buffers --- */

/*
 * Make a pool of buffers. It has no memory yet.
 *   opts         NULL: defaults
 *   ret_buffers  the pool, the caller's
 * Cost:   a few mappings of address space.
 * Errors: -EINVAL buffer_size no power of two or out of range, budget below one buffer, unknown
 *         flag; -EMSGSIZE a buffer does not fit into the slots of pool; -E2BIG options from a newer
 *         header; -ENOMEM
 */
int memslot_buffers_create(
	const struct memslot_buffers_opts *opts, struct memslot_buffers **ret_buffers);

/*
 * End a pool. First of all acquire and wait answer -ESHUTDOWN, for good, and waiters get it. Then it
 * waits until every buffer is back, and frees everything. NULL: 0, nothing happens.
 *   timeout_ns       how long to wait; 0: not at all; MEMSLOT_UNLIMITED: for ever
 *   ret_outstanding  how many buffers are out; may be NULL; written with -ETIMEDOUT
 * Areas with a quarantined buffer are never given back: the kernel may still write there.
 * Errors: -EBUSY a ring is attached: nothing changed; -ETIMEDOUT buffers are out: nothing freed,
 *         release works, try again; -ENOMEM an area could not be given back: try again
 */
int memslot_buffers_close(
	struct memslot_buffers *buffers, uint64_t timeout_ns, uint64_t *ret_outstanding);

/*
 * Take adjacent buffers.
 *   count       how many
 *   timeout_ns  how long to wait; 0: not at all; MEMSLOT_UNLIMITED: for ever
 *   ret_buffer  the buffers
 * Order:  first come first served: who was there before gets its share of the budget first. One that
 *         has its share, but finds no adjacent buffers and no slot for a new area, keeps it, and lets
 *         the next have what remains. A slot that comes free elsewhere is not told of: the next
 *         acquire, release or set_budget finds it.
 * Cost:   one buffer: some nanoseconds, no lock that others want; else the pool's lock; now and then
 *         an area, a slot's hand-out.
 * Errors: -EAGAIN nothing free now, or others wait already; -ETIMEDOUT; -EMSGSIZE can never fit:
 *         beyond the budget, or the size of an area; -ESHUTDOWN close has begun
 */
int memslot_buffers_acquire(struct memslot_buffers *buffers, uint32_t count, uint64_t timeout_ns,
		struct memslot_buffer *ret_buffer);

/*
 * One more reference: release is to be called once more. The caller must have one.
 * Errors: -EMSGSIZE more than 16383
 */
int memslot_buffers_ref(struct memslot_buffers *buffers, const struct memslot_buffer *buffer);

/*
 * Give a reference back. Who gives the last one may do so while operations are in flight: the memory
 * returns when they are over.
 * Cost:   as acquire.
 * Errors: -ESTALE it is not out: released already (unless two race to release the last reference)
 */
int memslot_buffers_release(struct memslot_buffers *buffers, const struct memslot_buffer *buffer);

/*
 * Queue for buffers, behind who waits already. What is there at once comes by the event, too.
 *   waiter  with size, event_fd and count set, the rest zero
 * Errors: -EINVAL event_fd is no eventfd, unknown flags; -EMSGSIZE as acquire; -EALREADY queued, in
 *         any pool; -ESHUTDOWN close has begun; -E2BIG a waiter from a newer header
 */
int memslot_buffers_wait(struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter);

/*
 * Wait no longer.
 * Errors: -EALREADY it was served: the caller owns waiter->buffer; -EMSGSIZE, -ESHUTDOWN it has
 *         failed, and its event come: the budget was lowered, the pool closed; -EINVAL never queued
 *         here
 */
int memslot_buffers_wait_cancel(
	struct memslot_buffers *buffers, struct memslot_buffer_waiter *waiter);

/*
 * Change the budget. When it is not raised areas with no buffer out go back to the slot pool; those
 * that a ring has registered are cleared where they are, and go back when the last ring detaches.
 *   bytes  what is out may be more; waiting requests that no longer fit get -EMSGSIZE
 * Cost:   a slot's reset for each area without buffers out.
 * Errors: -EINVAL below one buffer
 */
int memslot_buffers_set_budget(struct memslot_buffers *buffers, uint64_t bytes);

/*
 * Read the counters.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL `size` below 8
 */
int memslot_buffers_stats(
	const struct memslot_buffers *buffers, struct memslot_buffers_stats *ret_stats);

/* --- rings --- */

/*
 * Let operations of a ring use the buffers. Areas are registered with it, one entry each, now and as
 * they come; a second ring takes over the first one's table where the kernel can. Where registering
 * is refused, or the application has a table of its own, operations are plain: slower, else the same.
 *   ring      the application's, with its submission and completion queues; it stays where it is
 *   opts      NULL: defaults
 *   ret_ring  until detach
 * Cost:   pins the memory of areas: about 0.1 us a page. Later ones at the first operation there.
 * Errors: -EINVAL mark beyond 16 bits, unknown flag; -EALREADY attached; -EEXIST not the ring's
 *         thread; -ENOSPC 64 rings; -ESHUTDOWN close has begun; -E2BIG options from a newer header;
 *         -ENOMEM; what the kernel answers for a ring that is none
 */
int memslot_ring_attach(struct memslot_buffers *buffers, struct io_uring *ring,
		const struct memslot_ring_opts *opts, struct memslot_ring **ret_ring);

/*
 * Undo attach. Operations in flight are cancelled; the application submits what it has prepared,
 * passes every CQE to memslot_ring_complete, and calls detach again until it answers 0. Nothing new
 * can be prepared from the first call on. Groups are destroyed before. A ring that was closed by then:
 * buffers with operations pending are quarantined, and detach answers 0. NULL: 0, nothing happens.
 * Cost:   one cancellation for each operation in flight, which waits up to a second for one that a
 *         worker of the kernel is at; unregistering.
 * Errors: -EAGAIN operations are in flight; -EBUSY groups exist; -EEXIST not the ring's thread
 */
int memslot_ring_detach(struct memslot_ring *ring);

/*
 * Prepare an operation: guard the buffer, fill the SQE. Afterwards the application may add
 * IOSQE_IO_LINK, IO_HARDLINK, IO_DRAIN and ASYNC, nothing else; CQE_SKIP_SUCCESS nowhere in a chain
 * that holds one of ours (the guard would never be retired). sqe->user_data may be read, to cancel by
 * it. What is prepared has to be submitted. On failure the SQE becomes a NOP, whose completion is
 * housekeeping: it may be submitted, as an SQE that was taken cannot be given back (except in a child,
 * where the pool is dead, and with ring NULL: then it is untouched).
 *   sqe          as io_uring_get_sqe(3) gives it
 *   fd           of a file; not an index of registered files
 *   start, size  inside the buffers of the acquisition; size above 0
 *   file_offset  as read(2): UINT64_MAX: the file's own position
 *   user_data    any 64 bits
 * Cost:   some nanoseconds, no system call; the first in an area that is not registered yet: that.
 * Errors: -EINVAL not inside the buffer; -ENOSPC a million operations are in flight; -EMSGSIZE more
 *         than 16383 on one buffer; -EBUSY detach has begun; -EEXIST not the ring's thread
 */
int memslot_ring_prep_read(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
		const struct memslot_buffer *buffer, size_t start, size_t size, uint64_t file_offset,
		uint64_t user_data);

/* The same, to write. Errors: as memslot_ring_prep_read: -EINVAL -ENOSPC -EMSGSIZE -EBUSY -EEXIST */
int memslot_ring_prep_write(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
		const struct memslot_buffer *buffer, size_t start, size_t size, uint64_t file_offset,
		uint64_t user_data);

/*
 * The same, to receive from a socket.
 *   msg_flags  of recv(2)
 * Errors: as memslot_ring_prep_read: -EINVAL -ENOSPC -EMSGSIZE -EBUSY -EEXIST
 */
int memslot_ring_prep_recv(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
		const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
		uint64_t user_data);

/*
 * The same, to send.
 *   msg_flags  of send(2), but not MSG_ZEROCOPY: its end is told where no guard can see it
 * Errors: as memslot_ring_prep_read: -EINVAL -ENOSPC -EMSGSIZE -EBUSY -EEXIST; -EINVAL MSG_ZEROCOPY
 */
int memslot_ring_prep_send(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
		const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
		uint64_t user_data);

/*
 * The same, without a copy: the network stack reads the buffer until the TERMINAL completion, which
 * may be long after the result. From registered buffers where there are any; a plain send where the
 * kernel has no SEND_ZC.
 * Errors: as memslot_ring_prep_send: -EINVAL -ENOSPC -EMSGSIZE -EBUSY -EEXIST
 */
int memslot_ring_prep_send_zc(struct memslot_ring *ring, struct io_uring_sqe *sqe, int fd,
		const struct memslot_buffer *buffer, size_t start, size_t size, int msg_flags,
		uint64_t user_data);

/*
 * Prepared, but not wanted: the SQE becomes a NOP, with its flags and user_data, so that chains hold.
 * The guard stays until the NOP's CQE has passed memslot_ring_complete. Only before submission, and
 * never with IORING_SETUP_SQPOLL after the queue's tail was moved.
 * Errors: -ENOENT not prepared here; -EEXIST not the ring's thread
 */
int memslot_ring_unprep(struct memslot_ring *ring, struct io_uring_sqe *sqe);

/*
 * Every CQE of the ring goes through here: ours retire their guards.
 *   cqe             not marked as seen yet
 *   ret_completion  with `size` set by the caller; filled up to it
 * Cost:   some nanoseconds; a group is filled up from this thread's buffers.
 * Errors: -ENOENT not ours: nothing was touched; -EINVAL `size` below 8; -EEXIST not the ring's
 *         thread
 */
int memslot_ring_complete(struct memslot_ring *ring, const struct io_uring_cqe *cqe,
		struct memslot_completion *ret_completion);

/* --- groups: the kernel chooses the buffer when data is there --- */

/*
 * Provide buffers to a ring under a group number. Few are kept available (a window that fits well
 * into the second cache), the ones used last; when that was too few (-ENOBUFS) twice as many, up to
 * `count`. Buffers available or in hand are out, and count against the budget: an idle group keeps
 * what is available, and how many are in hand is bounded by the budget alone. Where the kernel has no
 * provided-buffer rings, each operation takes its buffer when it is prepared.
 *   group      a number that the application does not use otherwise
 *   opts       NULL: defaults
 *   ret_group  until destroy
 * Errors: -EINVAL count no power of two or beyond 32768, unknown flag; -EEXIST the number is used, or
 *         not the ring's thread; -ENOSPC 256 groups have buffers out; -EBUSY detach has begun; -E2BIG
 *         options from a newer header; -ENOMEM
 */
int memslot_ring_group_create(struct memslot_ring *ring, uint16_t group,
		const struct memslot_group_opts *opts, struct memslot_group **ret_group);

/*
 * Prepare a receive into whatever buffer of the group is next. As memslot_ring_prep_recv. Where the
 * kernel has no multishot receive, one completion comes, with REARM.
 *   flags  MEMSLOT_GROUP_MULTISHOT
 * Errors: -EAGAIN the budget is spent and no buffer available: try again after a release or a
 *         TERMINAL completion; or memslot_buffers_wait, and release the waiter's buffer first;
 *         -EINVAL unknown flag; -ENOSPC, -EBUSY, -EEXIST as memslot_ring_prep_read
 */
int memslot_ring_group_prep_recv(struct memslot_group *group, struct io_uring_sqe *sqe, int fd,
		uint32_t flags, int msg_flags, uint64_t user_data);

/*
 * Prepare a read: of pipes, terminals, files.
 *   flags        MEMSLOT_GROUP_MULTISHOT: of what can be polled, at file_offset UINT64_MAX
 * Errors: -EOPNOTSUPP the kernel has no multishot read; -EINVAL unknown flag, MULTISHOT at an offset;
 *         -EAGAIN, -ENOSPC, -EBUSY, -EEXIST as memslot_ring_group_prep_recv
 */
int memslot_ring_group_prep_read(struct memslot_group *group, struct io_uring_sqe *sqe, int fd,
		uint32_t flags, uint64_t file_offset, uint64_t user_data);

/*
 * Read the counters.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL `size` below 8; -EEXIST not the ring's thread
 */
int memslot_ring_group_stats(
	const struct memslot_group *group, struct memslot_group_stats *ret_stats);

/*
 * End a group: its operations in flight are cancelled, nothing new can be prepared from the first call
 * on. The application passes the CQEs to memslot_ring_complete, and calls destroy again until it
 * answers 0. Buffers in hand stay the application's. NULL: 0, nothing happens.
 * Cost:   as memslot_ring_detach.
 * Errors: -EBUSY an operation of the group has not had its last CQE; -EEXIST not the ring's thread
 */
int memslot_ring_group_destroy(struct memslot_group *group);

#ifdef __cplusplus
}
#endif

#endif
