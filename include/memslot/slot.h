/* SPDX-License-Identifier: MIT */
/*
 * memslot/slot.h - one resettable range of memory.
 *
 *   [ guard_before | 0 .. size, readable and writable .. | .. capacity .. reserve | guard_after ]
 *
 * A slot shows an image (or zeros) and takes whatever is written to it; a reset puts every written
 * byte back. One byte of a previous tenant seen by the next is the worst bug this library could
 * have: whatever is not known for certain is looked up or thrown away.
 *
 * Common keys:
 * Units:   bytes. size and capacity are rounded up to whole pages.
 * Owner:   the caller owns the slot from create to destroy; its mappings, protections, locks and
 *          advice are the library's: no mmap, mprotect, madvise or munmap on them by anybody else.
 * Threads: a slot is used by one thread at a time; different slots are independent. hold, unhold
 *          and unconfine may be called from any thread. While a call on a slot runs, nobody may
 *          write to it, signal handlers included: what they write below the edge is put back at
 *          the next reset, but not what a lowered edge hides in that moment.
 * Fork:    a child's copy works (raw clone(2) included), except that of a slot made with DONTFORK
 *          or held at the fork: there every int call but destroy answers -ESTALE. A slot that
 *          another thread was changing at the fork is unknown in the child (see Errors).
 * Errors:  -EINVAL for NULL; -ESTALE for every int call but instantiate, reset, destroy, unhold and
 *          stats once the slot is *unknown*: after a reset, instantiate, resize or discard failed
 *          midway. Its contents are undefined then, but never another tenant's; instantiate and
 *          reset remake it. The kernel's own errors where a system call fails.
 * Since:   0.1
 */
#ifndef MEMSLOT_SLOT_H
#define MEMSLOT_SLOT_H

#include <memslot/base.h>
#include <memslot/image.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memslot_slot;

/*
 * reserve       address space from the slot's start, at least capacity; default capacity.
 *               [capacity, reserve) is inaccessible
 * guard_before  inaccessible bytes in front; default none
 * guard_after   inaccessible bytes behind reserve; default 64 KiB; MEMSLOT_NONE: none
 * copy_budget   bytes that a reset may keep resident and copy; default 16 MiB; MEMSLOT_NONE: always
 *               drop; MEMSLOT_UNLIMITED. Never exceeded below the edge, except by a pinned slot
 * base_address  where the slot has to start, page aligned; NULL: anywhere. Taken: -EADDRNOTAVAIL
 * reset_method  MEMSLOT_RESET_*; default AUTO
 * on_reset      the last step of every instantiate and in-hand reset, on the calling thread; 0 or
 *               more is success, a negative return fails that call with it and leaves the slot
 *               unknown. It may call anything on its slot but reset, instantiate, resize, discard,
 *               checkpoint and destroy (-EBUSY)
 * context       handed to on_reset
 */
struct memslot_slot_opts {
	uint32_t size, flags;
	uint64_t reserve, guard_before, guard_after, copy_budget;
	void *base_address;
	uint32_t reset_method, reserved;
	int (*on_reset)(struct memslot_slot *slot, void *context);
	void *context;
};

/* Up to capacity the edge is not enforced by page protection: for users with their own bounds
 * checks. Nothing changes protection on resize; what leaves by shrinking reads pristine at once.
 * Bytes beyond the size are no error: reset puts them back, written lists them, and capture and
 * checkpoint keep them, so that the image may end beyond the size. */
#define MEMSLOT_SLOT_NO_EDGE (1u << 0)
/* Transparent huge pages; excludes the fault counter (see CONFINED). */
#define MEMSLOT_SLOT_HUGEPAGE (1u << 1)
/* The first instantiate and each remake prefault [0, size), up to copy_budget, and scan. */
#define MEMSLOT_SLOT_POPULATE (1u << 2)
/* The slot does not exist in children. */
#define MEMSLOT_SLOT_DONTFORK (1u << 3)
/* The slot is left out of core dumps. */
#define MEMSLOT_SLOT_DONTDUMP (1u << 4)
/*
 * A promise: from hand-out (the return of instantiate or reset) to reset, every access is made by
 * the thread that will reset the slot: its own instructions and signal handlers, and system calls
 * that it makes and that finish before reset (read, preadv, recvmsg). Not covered, so forbidden
 * without a hold: io_uring and libaio in any form, other threads, coroutines that may move between
 * threads, vfork children, other processes, KVM vCPUs, devices; and mlock, mlockall,
 * MADV_POPULATE_WRITE or mremap by anybody. Breaking it shows one tenant's bytes to another.
 * What it buys: the thread's own fault counter proves that no new page was written, and a reset
 * needs one getrusage(2) instead of a scan of the page tables.
 */
#define MEMSLOT_SLOT_CONFINED (1u << 5)
/* Images checkpointed or captured from it carry its base address, as they do, without this flag,
 * when it shows a bound image. */
#define MEMSLOT_SLOT_BOUND (1u << 6)

/* How a reset puts the bytes back. Forced ones are for tests and benches; they fall back where
 * safety forbids them, and stats tell. */
enum {
	MEMSLOT_RESET_AUTO,    /* whatever is cheapest: learnt from what the slot does */
	MEMSLOT_RESET_RESTORE, /* copy the retained pages; no scan where the fault counter allows it */
	MEMSLOT_RESET_SCAN,    /* ask the kernel which pages were written (PAGEMAP_SCAN), copy them */
	MEMSLOT_RESET_DROP     /* MADV_DONTNEED: the next touch faults the page in again */
};

enum { MEMSLOT_HOLD_IO = 1, MEMSLOT_HOLD_PIN = 2 };

/* `size` bytes at `offset` from the slot's base. */
struct memslot_run {
	uint64_t offset, size;
};

/*
 * Counts since create. Never scans: private_pages is as of the last reset. The resets that
 * instantiate begins with are counted too; one of a slot that nobody could have touched (size 0 so
 * far) counts as known, unless the slot always drops.
 * resets_known      resets by copying the retained pages, proven by the fault counter alone
 * resets_scan       resets by scan and copy
 * resets_drop       resets by dropping everything
 * copy_fallbacks    ranges that could not be dropped (locked pages) and were copied instead
 * syscalls          system calls made on behalf of this slot
 * faults            page faults seen by the fault counter between hand-out and reset, where read
 * bytes_restored    bytes copied or cleared
 * bytes_dropped     bytes of address ranges dropped
 * scan_failures     scans that failed at run time
 * remakes           times the slot was mapped anew
 * private_pages     pages the process owned at the last reset, as far as that reset looked
 * retained_pages    pages that resets keep resident, hidden ones beyond the edge included
 * last_method       MEMSLOT_RESET_RESTORE, SCAN or DROP: what the last reset did; 0: none yet
 */
struct memslot_slot_stats {
	uint32_t size, reserved;
	uint64_t resets_known, resets_scan, resets_drop, copy_fallbacks, syscalls, faults,
		bytes_restored, bytes_dropped, scan_failures, remakes, private_pages, retained_pages,
		last_method;
};

/*
 * Make a slot: no image, size 0. It shows zeros: resize, reset and capture work on it as it is.
 *   capacity  the largest size it will have; 0 is legal
 *   opts      NULL: defaults
 *   ret_slot  the slot, the caller's
 * Cost:   2-6 system calls; address space only, no memory.
 * Errors: -EINVAL NULL, unknown flag, unknown reset_method, base_address not page aligned, reserved
 *         not 0; -EMSGSIZE sizes that overflow, reserve below capacity; -EADDRNOTAVAIL base_address
 *         is taken or cannot be had; -E2BIG options from a newer header; -ENOMEM
 * Source: mmap(2), MADV_GUARD_INSTALL in madvise(2)
 */
int memslot_slot_create(size_t capacity, const struct memslot_slot_opts *opts,
		struct memslot_slot **ret_slot);

/*
 * Unmap and free a slot. NULL: 0, nothing happens.
 * Errors: -EBUSY held or pinned, or called from on_reset: nothing changed; -EINVAL a pool's slot
 */
int memslot_slot_destroy(struct memslot_slot *slot);

/*
 * Make the slot show an image: the image's bytes, zeros around them, [0, size) accessible. Does
 * only what differs from what the slot shows; what was written before is put back first. After a
 * failure (on_reset's too) the last image and size that succeeded stay the target of reset.
 *   image  NULL: zeros. The slot takes a reference
 *   size   of the accessible part: at least the image's end, at most capacity; 0 is legal
 * Cost:   same image and size: a reset. Another mapped image: one mmap(2) an extent.
 * Errors: -EMSGSIZE size beyond capacity, image beyond size; -EADDRNOTAVAIL a bound image at another
 *         address; -EBUSY held, pinned with another image, a lower size or while unknown, or called
 *         from on_reset; -ESTALE dead in this child; on_reset's own
 */
int memslot_slot_instantiate(struct memslot_slot *slot, struct memslot_image *image, size_t size);

/*
 * Move the edge. Bytes gained read as zero; bytes lost are gone at once.
 *   size  at least the image's end, at most capacity
 * Cost:   one system call up, one or two down; none without an edge (NO_EDGE) going up.
 * Errors: -EMSGSIZE beyond capacity, or below the image's end; -EBUSY called from on_reset, or held
 *         or pinned when it shrinks; -ESTALE unknown
 */
int memslot_slot_resize(struct memslot_slot *slot, size_t size);

/*
 * Contents and size as just after instantiate (or checkpoint). The slot stays usable.
 * Cost:   steady state of a confined slot: one getrusage(2) and a copy of the retained pages;
 *         otherwise one scan; or one madvise(2) and the faults of the next run.
 * Errors: -EBUSY held, pinned while the edge would go down or while unknown, or called from
 *         on_reset; -ESTALE dead in this child; on_reset's own
 * Source: PAGEMAP_SCAN in ioctl_pagemap_scan(2), getrusage(2), madvise(2)
 */
int memslot_slot_reset(struct memslot_slot *slot);

/*
 * Pages wholly inside the range become pristine, and their memory is given back.
 *   offset, size  inside the slot's size; size 0 is 0
 * Cost:   one madvise(2), and a fault at the next touch of each page.
 * Errors: -EINVAL beyond the slot's size; -EBUSY held, pinned, or called from on_reset; -ENOSPC it
 *         would split an exempt range and there are 256 already; -ESTALE unknown
 */
int memslot_slot_discard(struct memslot_slot *slot, size_t offset, size_t size);

/*
 * What the slot holds now, and its size, is what reset comes back to. Older images can still be
 * instantiated. A failure leaves the bytes as they were and the old image as the target. Size 0
 * gives an image of no bytes.
 *   ret_image  one reference to the new image, the caller's; NULL: not wanted
 * Cost:   one copy of what differs from zero, one mmap(2) an extent. Bound slots only: another pass
 *         over the copy, a compare a word, and reading /proc/self/maps (memslot_image_stats).
 * Errors: -EBUSY held, pinned, or called from on_reset; -EFBIG over RLIMIT_FSIZE; -ESTALE unknown
 */
int memslot_slot_checkpoint(struct memslot_slot *slot, struct memslot_image **ret_image);

/*
 * An image of what the slot holds, image pages not written included. The slot is not changed.
 * Size 0 gives an image of no bytes.
 *   opts       note, MEMSLOT_IMAGE_STRICT; NULL: none
 *   ret_image  one reference, the caller's
 * Cost:   one copy of what differs from zero; of bound slots, or with STRICT, also as checkpoint.
 * Errors: -EBUSY under HOLD_IO; -EINVAL slot_offset or other flags; -EFBIG over RLIMIT_FSIZE;
 *         -ENOTUNIQ STRICT, and there are pointers out of the slot; -EOPNOTSUPP STRICT where they
 *         cannot be counted; -ESTALE unknown; -E2BIG options from a newer header
 */
int memslot_slot_capture(struct memslot_slot *slot, const struct memslot_image_opts *opts,
		struct memslot_image **ret_image);

/*
 * Say that the kernel will touch the slot's pages, before the first operation is submitted.
 *   kind  MEMSLOT_HOLD_IO: operations in flight (io_uring, libaio, O_DIRECT by other threads,
 *         vmsplice, MSG_ZEROCOPY and SEND_ZC until their notification): reset, instantiate,
 *         checkpoint, capture, shrinking, discard and destroy answer -EBUSY until unhold.
 *         MEMSLOT_HOLD_PIN: pages registered with a ring, one hold for each ring: reset, and
 *         instantiate of the same image with no lower edge, copy in place; the rest is -EBUSY.
 * Holds count. A kernel read needs a hold as much as a kernel write does: resetting in place under
 * a send in flight sends the next tenant's bytes to the previous tenant's peer.
 * Threads: any.
 * Errors: -EINVAL another kind; -EBUSY once a reset, instantiate, checkpoint, discard, shrink or
 *         destroy has begun; -EMSGSIZE too many; -ESTALE dead in this child, or unknown
 */
int memslot_slot_hold(struct memslot_slot *slot, uint32_t kind);

/*
 * End one hold.
 * Threads: any.
 * Errors: -EINVAL another kind, or not held so; -ESTALE dead in this child
 */
int memslot_slot_unhold(struct memslot_slot *slot, uint32_t kind);

/*
 * Withdraw the promise of CONFINED until the next hand-out by instantiate: call it before another
 * thread touches the slot.
 * Threads: any. Errors: none
 */
void memslot_slot_unconfine(struct memslot_slot *slot);

/*
 * Change the protection of whole pages. No part of contents or checkpoints: reset, instantiate and
 * shrinking lift it; discard, capture and checkpoint lift it and put it back.
 *   offset, size  page multiples inside the slot's size; size 0 is 0
 *   prot          PROT_NONE or any of PROT_READ, PROT_WRITE, PROT_EXEC
 * Cost:   one mprotect(2), which takes the lock of the address space for writing; each reset lifts
 *         each separate range with another one.
 * Errors: -EINVAL not whole pages, beyond the slot's size, other bits; -ENOSPC more than 256
 *         separate ranges; -ESTALE unknown
 */
int memslot_slot_protect(struct memslot_slot *slot, size_t offset, size_t size, uint32_t prot);

/*
 * Pages that in-hand resets leave alone: coverage maps, results. Ended by instantiate, discard and
 * checkpoint (also one that fails midway), and for pages that resize or reset leaves beyond the edge.
 *   offset, size  page multiples inside the slot's size; size 0 is 0
 * Cost:   none: an entry in a table.
 * Errors: -EINVAL not whole pages, beyond the slot's size; -ENOSPC more than 256 separate ranges;
 *         -ESTALE unknown
 */
int memslot_slot_exempt(struct memslot_slot *slot, size_t offset, size_t size);

/*
 * The dirty list: sorted, disjoint runs of pages up to the edge that may differ from the image.
 * Pages retained by earlier resets are listed too, exempt ones included; where the kernel has no
 * scan, one run of all. Changes nothing.
 *   runs       room for count of them; may be NULL when count is 0
 *   ret_count  how many there are: written also with -ENOSPC
 * Cost:   one scan.
 * Errors: -ENOSPC count is too small; -ESTALE unknown
 */
int memslot_slot_written(struct memslot_slot *slot, struct memslot_run *runs, size_t count,
		size_t *ret_count);

/* Where the slot starts. The same for its whole life. NULL for NULL. Errors: none */
void *memslot_slot_base(const struct memslot_slot *slot);

/* How much is accessible now, page-rounded. Errors: none */
size_t memslot_slot_size(const struct memslot_slot *slot);

/* The largest size it can have, page-rounded. Errors: none */
size_t memslot_slot_capacity(const struct memslot_slot *slot);

/* The image it shows, borrowed: valid until the next instantiate, checkpoint or destroy. NULL:
 * zeros. Errors: none */
struct memslot_image *memslot_slot_image(const struct memslot_slot *slot);

/* Its number in its pool, from 0; 0 for a slot of its own. The same for its whole life.
 * Errors: none */
uint32_t memslot_slot_index(const struct memslot_slot *slot);

/* A number for this hand-out of a pool's slot, new at each; 0 for a slot of its own.
 * Errors: none */
uint64_t memslot_slot_ticket(const struct memslot_slot *slot);

/* Keep a pointer of the caller's with the slot. Errors: none */
void memslot_slot_set_user(struct memslot_slot *slot, void *user);

/* The pointer kept. Errors: none */
void *memslot_slot_user(const struct memslot_slot *slot);

/*
 * Read the counters.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL NULL, or `size` below 8; -ESTALE dead in this child
 */
int memslot_slot_stats(const struct memslot_slot *slot, struct memslot_slot_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
