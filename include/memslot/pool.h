/* SPDX-License-Identifier: MIT */
/*
 * memslot/pool.h - many equal slots in a few reservations, shared by threads.
 *
 *   [ guard_before | slot 0 | guard_after | slot 1 | guard_after | .. | slot count - 1 | guard_after ]
 *
 * acquire hands out a slot that shows an image, release takes it back and resets it. An idle slot
 * is *warm* when it still shows the image of its last use (zeros count as one): the next acquire of
 * the same image and affinity key gets the most recently used of those and has nothing to do. The
 * rest is *cold*. A slot is one object for the pool's life, found by its index.
 *
 * Common keys:
 * Units:   bytes, unless a name says otherwise.
 * Owner:   slots are the pool's; between acquire and release the caller uses one like a slot of its
 *          own (memslot/slot.h), but for destroy (-EINVAL). On a slot that is not out base, capacity
 *          and index stay true and unhold is legal; the rest is the caller's error.
 * Threads: every call from any thread. One lock, held for a few instructions, never during a system
 *          call on a slot. No callback of the user's runs inside it.
 * Fork:    works in the child, fork(2) by a threaded process included: slots that other threads had
 *          out stay out; one that a call of another thread was changing is quarantined; waiters are
 *          forgotten; held slots are quarantined for good. After a raw clone(2) of a threaded process
 *          only locate and stats are promised. A pool made with DONTFORK is dead in a child: every
 *          call but locate, stats and destroy answers -ESTALE, and destroy unmaps no slot.
 * Memory:  after create nothing is allocated.
 * Errors:  -EINVAL for NULL; -ESTALE a pool that is dead in this child.
 * Since:   0.1
 * Source:  the pooling allocators of WebAssembly engines; B. W. Lampson, Hints for Computer System
 *          Design, 1983 (batch, keep warm); futex(2), process_madvise(2)
 */
#ifndef MEMSLOT_POOL_H
#define MEMSLOT_POOL_H

#include <memslot/base.h>
#include <memslot/image.h>
#include <memslot/slot.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memslot_pool;

/*
 * flags             MEMSLOT_SLOT_* for every slot, MEMSLOT_POOL_*; CONFINED: for every hand-out
 * reserve, guard_before, guard_after, copy_budget, reset_method, on_reset, context
 *                   as in memslot_slot_opts; guard_before once for each reservation
 * idle_budget       bytes that warm slots may keep resident together; default 256 MiB; MEMSLOT_NONE:
 *                   none; MEMSLOT_UNLIMITED. Images copied into slots stay, and it may be exceeded by
 *                   one slot for each thread in release
 * max_warm          idle slots that may be warm before acquire reuses one of them for another image
 *                   instead of a cold one; default unlimited; MEMSLOT_NONE: 0
 * drop_batch_bytes  queued drops are flushed when they come to so many bytes; default 64 MiB
 * drop_batch_count  or to so many slots; default 32; 1: no queue
 * max_age_ms        memslot_pool_maintain makes slots cold that were idle for so long; default: never
 * base_address      where the pool has to start, guard_before included; NULL: anywhere
 */
struct memslot_pool_opts {
	uint32_t size, flags;
	uint64_t reserve, guard_before, guard_after, copy_budget, idle_budget, max_warm,
		drop_batch_bytes, drop_batch_count, max_age_ms;
	uint32_t reset_method, reserved;
	int (*on_reset)(struct memslot_slot *slot, void *context);
	void *context;
	void *base_address;
};

/* At each hand-out compare every private page with what it should show; a slot that differs is
 * quarantined and counted. For tests and for hosts that would rather be slow than sorry. */
#define MEMSLOT_POOL_VERIFY (1u << 16)

/*
 * flags         MEMSLOT_SLOT_CONFINED: the promise, for this hand-out; MEMSLOT_ACQUIRE_COLD
 * timeout_ns    how long to wait for a slot; 0: not at all; MEMSLOT_UNLIMITED: for ever
 * affinity_key  resident pages are reused only under the same key: which pages are resident is a
 *               side channel between tenants
 */
struct memslot_acquire_opts {
	uint32_t size, flags;
	uint64_t timeout_ns, affinity_key;
};

/* A cold slot, else a warm one after everything resident in it was dropped. */
#define MEMSLOT_ACQUIRE_COLD (1u << 24)

/*
 * Waiting without blocking. The struct is the caller's and stays where it is until it was served or
 * cancelled.
 *   event_fd   an eventfd(2): 1 is added when `slot` is the caller's
 *   image, slot_size, opts
 *              as for acquire; timeout_ns is not looked at
 *   slot       written before the event
 *   state      the pool's
 */
struct memslot_slot_waiter {
	uint32_t size, flags;
	int32_t event_fd;
	uint32_t reserved;
	struct memslot_image *image;
	uint64_t slot_size;
	struct memslot_acquire_opts opts;
	struct memslot_slot *slot;
	void *state[6];
};

enum {
	MEMSLOT_AT_GUARD_BEFORE = 1,
	MEMSLOT_AT_INSIDE,	/* [0, size) */
	MEMSLOT_AT_BEYOND_EDGE, /* [size, reserve) */
	MEMSLOT_AT_GUARD_AFTER,
	MEMSLOT_AT_IDLE		/* [0, reserve) of a slot that is not out */
};

/*
 * kind    MEMSLOT_AT_*
 * slot    NULL from the start of release to the end of acquire
 * index   of the slot; of the first one for a guard in front
 * offset  from the slot's base; negative in front
 */
struct memslot_location {
	uint32_t size, kind;
	struct memslot_slot *slot;
	uint64_t index;
	int64_t offset;
};

/*
 * count                 slots that fit, perhaps fewer than asked
 * stride                from one slot to the next
 * address_space         of all reservations
 * vmas                  mappings (vm.max_map_count) when all are out and show the image
 * page_table_bytes      of guards and of slots written whole
 * worst_resident_bytes  every slot written whole
 */
struct memslot_plan {
	uint32_t size, reserved;
	uint64_t count, stride, address_space, vmas, page_table_bytes, worst_resident_bytes;
};

/*
 * slots              sums over all slots, as of their last release; private_pages and last_method 0
 * capacity_count     slots there are
 * live               out, or on their way in or out. Those in flush, trim, forget or maintain are in
 *                    none of these
 * idle_warm, idle_cold
 * held               released while held
 * queued             waiting to be dropped together
 * quarantined        failed to reset, or lost in a fork
 * waiters, waits     waiting now; that ever had to wait
 * resident_bytes     kept by idle slots
 * image_bytes        of the images that warm slots show, once for each affinity key
 * affinity_hits      acquires that found a warm slot of their image and key; bound images not counted
 * exhausted          acquires that ended with -EAGAIN or -ETIMEDOUT
 * verify_failures    see MEMSLOT_POOL_VERIFY
 */
struct memslot_pool_stats {
	uint32_t size, reserved;
	struct memslot_slot_stats slots;
	uint64_t capacity_count, live, idle_warm, idle_cold, held, queued, quarantined, waiters,
		waits, resident_bytes, image_bytes, affinity_hits, exhausted, verify_failures;
};

/*
 * Make a pool. Everything is reserved before it returns, in smaller pieces where one does not fit.
 *   count     slots, 1 to 2^31
 *   capacity  of each, above 0
 *   ret_pool  the pool, the caller's
 * Cost:   a few system calls; small windows: a guard marker for each page of address space.
 * Errors: -EINVAL count or capacity 0, unknown flag, unknown reset_method, reserved not 0,
 *         base_address not page aligned; -EMSGSIZE sizes that overflow, reserve below capacity;
 *         -EADDRNOTAVAIL base_address cannot be had in one piece; -E2BIG options from a newer header;
 *         -ENOMEM
 */
int memslot_pool_create(uint32_t count, size_t capacity, const struct memslot_pool_opts *opts,
		struct memslot_pool **ret_pool);

/*
 * Unmap and free a pool. NULL: 0, nothing happens.
 * Errors: -EBUSY slots are out, held, or in another thread's call, or somebody waits: nothing changed
 */
int memslot_pool_destroy(struct memslot_pool *pool);

/*
 * Take a slot that shows an image: contents, size and protections as after memslot_slot_instantiate.
 * An image that nobody else refers to when its slot is released (a checkpoint's) is let go, and the
 * slot goes cold.
 *   image     NULL: zeros. A bound image gets the one slot at its address
 *   size      at least the image's end, at most capacity
 *   opts      NULL: defaults
 *   ret_slot  the slot, until release
 * Order:  the most recently used warm slot of the same image and key (of the first few, one that this
 *         thread released before others); else a cold one while fewer than max_warm are warm; else the least recently used warm one; else the other kind; else
 *         what the drop queue holds, what was held, and what was quarantined.
 * Cost:   a warm slot of the same size: no system call. Else what instantiate costs.
 * Errors: -EAGAIN no slot now, or others wait already; -ETIMEDOUT; -EMSGSIZE size beyond capacity,
 *         image beyond size; -EADDRNOTAVAIL, -EBUSY no slot at a bound image's address, or it is not
 *         idle; -ENOMEM no more mappings for a mapped image; -E2BIG options from a newer header;
 *         on_reset's own
 */
int memslot_pool_acquire(struct memslot_pool *pool, struct memslot_image *image, size_t size,
		const struct memslot_acquire_opts *opts, struct memslot_slot **ret_slot);

/*
 * Give a slot back, from any thread. 0: the slot is the pool's again, whatever its reset did.
 * Cost:   a reset; or nothing, and a share of one process_madvise(2) for many slots.
 * Errors: -EINVAL not a slot of this pool; -ESTALE not out, or not yet (on_reset of an acquire); -EBUSY
 *         another call on the slot is running (on_reset of one in hand)
 */
int memslot_pool_release(struct memslot_pool *pool, struct memslot_slot *slot);

/*
 * The same, and -ESTALE when that hand-out is over: tells a late second release apart, which a
 * pointer cannot.
 *   ticket  memslot_slot_ticket() during the hand-out
 * Errors: as memslot_pool_release
 */
int memslot_pool_release_ticket(struct memslot_pool *pool, struct memslot_slot *slot, uint64_t ticket);

/*
 * Queue for a slot, behind who waits already. The slot that comes is out, but *unknown* until its
 * owner calls memslot_slot_instantiate, with any image and size that fit; if that fails it stays out.
 *   waiter  with size, event_fd, image, slot_size and opts set, the rest zero
 * Errors: -EINVAL no event_fd, a bound image, unknown flags; -EMSGSIZE size beyond capacity, image
 *         beyond size; -EALREADY queued already; -E2BIG a waiter from a newer header
 */
int memslot_pool_wait(struct memslot_pool *pool, struct memslot_slot_waiter *waiter);

/*
 * Wait no longer.
 * Errors: -EALREADY it was served: the caller owns waiter->slot; -EINVAL never queued here
 */
int memslot_pool_wait_cancel(struct memslot_pool *pool, struct memslot_slot_waiter *waiter);

/*
 * Make cold slots warm: they show the image, under key 0; POPULATE slots are prefaulted too.
 *   count      how many at most
 *   ret_count  how many; may be NULL. Also written when an error ended it early
 * Errors: -EINVAL a bound image; -EMSGSIZE as acquire; what instantiate answers
 */
int memslot_pool_prewarm(struct memslot_pool *pool, struct memslot_image *image, size_t size,
		uint32_t count, uint32_t *ret_count);

/*
 * No idle slot shows the image any more when this returns, and slots that are out with it go cold
 * when they come back. Later acquires are not affected.
 *   image    NULL: slots of zeros
 *   ret_out  how many are out, on their way, or held; may be NULL
 * Errors: none of its own
 */
int memslot_pool_forget(struct memslot_pool *pool, struct memslot_image *image, uint32_t *ret_out);

/*
 * Drop what is queued, and remake what is quarantined.
 * Errors: none of its own
 */
int memslot_pool_flush(struct memslot_pool *pool);

/*
 * Give memory of idle slots back, least recently used first; they stay warm.
 *   resident_target  bytes that they may keep
 *   ret_resident     bytes that they keep now; may be NULL
 * Errors: none of its own
 */
int memslot_pool_trim(struct memslot_pool *pool, size_t resident_target, size_t *ret_resident);

/*
 * What timers would do: slots idle for longer than max_age_ms become cold, queued drops are flushed,
 * slots no longer held and quarantined ones are remade.
 * Errors: none of its own
 */
int memslot_pool_maintain(struct memslot_pool *pool);

/*
 * What lies at an address?
 *   ret_location  with `size` set by the caller; filled up to it
 * Threads: any, and signal handlers: no lock, no system call.
 * Errors: -ENOENT no slot of this pool; -EINVAL NULL, or `size` below 8
 */
int memslot_pool_locate(const struct memslot_pool *pool, const void *address,
		struct memslot_location *ret_location);

/*
 * Read the counters.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL NULL, or `size` below 8
 */
int memslot_pool_stats(const struct memslot_pool *pool, struct memslot_pool_stats *ret_stats);

/*
 * The bill before creation; creates nothing.
 *   image     that all slots would show; NULL: zeros
 *   ret_plan  with `size` set by the caller; filled up to it
 * Errors: as memslot_pool_create, and -EMSGSIZE image beyond capacity
 */
int memslot_pool_plan(uint32_t count, size_t capacity, const struct memslot_image *image,
		const struct memslot_pool_opts *opts, struct memslot_plan *ret_plan);

#ifdef __cplusplus
}
#endif

#endif
