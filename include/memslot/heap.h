/* SPDX-License-Identifier: MIT */
/*
 * memslot/heap.h - malloc inside a slot. Its whole state lies in the slot: a reset rewinds it.
 *
 *   [ state | nodes | maps | runs of small objects, large blocks .. committed | .. capacity ]
 *
 * Boot an interpreter on a heap, checkpoint the slot, and every request starts from there: reset puts
 * heap, objects and free lists back to that moment. The handle lies outside the slot and remembers
 * nothing that a reset rewinds. No boundary against native code that writes into the slot: such code
 * can make the heap hand out nonsense, inside the slot; what the heap reads from the slot it reads once
 * and checks before it follows it, so that it touches nothing outside. The same holds while a call runs:
 * a thread of the guest that writes then may spoil the heap and what the call answers, and touches
 * nothing outside the slot.
 *
 * The handle is for the heap that was made or opened, and for images taken of it; while the slot shows
 * any other image there is no heap, until that one is opened. A file that an image maps
 * (MEMSLOT_IMAGE_MAP_FILE) must not be cut short while its heap is used: the calls read the slot, and
 * where the file has ended that is SIGBUS.
 *
 * Common keys:
 * Units:   bytes.
 * Owner:   the slot is the caller's. Handles end with it: memslot_slot_destroy() and
 *          memslot_pool_release() free them. The heap moves the slot's edge up as it needs; reset takes
 *          it back. Who moves it up beside that gives room to the heap; down: objects are lost.
 * Threads: one at a time.
 * Fork:    a child's copy works, as the slot's.
 * Errors:  -EINVAL for NULL. -ESTALE the slot is unknown, or dead in this child (DONTFORK, held): a
 *          call that returns a pointer then returns NULL, and nothing is touched.
 * Since:   0.1
 * Source:  D. Leijen et al., Mimalloc: Free List Sharding in Action, 2019 (runs of one size);
 *          memslot/ranges.h for the rest
 */
#ifndef MEMSLOT_HEAP_H
#define MEMSLOT_HEAP_H

#include <memslot/base.h>
#include <memslot/slot.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memslot_heap;

/*
 * headroom   committed beyond what is used, so that a request that stays inside moves no edge; default
 *            256 KiB; MEMSLOT_NONE: none
 * on_misuse  told of pointers given to free or realloc that are not live objects of the heap; it may
 *            not call the heap; NULL: they are only counted
 * context    handed to on_misuse
 */
struct memslot_heap_opts {
	uint32_t size, flags;
	uint64_t headroom;
	void (*on_misuse)(struct memslot_heap *heap, const void *ptr, void *context);
	void *context;
};

/*
 * live, live_bytes  objects, as large as they are in the heap
 * committed_bytes   the slot's size
 * misuse            since the handle was made; not rewound
 */
struct memslot_heap_stats {
	uint32_t size, reserved;
	uint64_t live, live_bytes, committed_bytes, misuse;
};

/*
 * Make a heap in a slot, which becomes bound: images of it carry its address. What the slot holds is
 * lost, and on_reset runs before there is a heap; later it may write to objects only. Checkpoint before
 * the first reset: a reset comes back to the last image, and a create, the second one in a slot as
 * well, makes that zeros, with no heap.
 *   slot      its size is set by the heap; a slot has one heap handle for as long as it is out
 *   opts      NULL: defaults, also where an earlier create had others
 *   ret_heap  the handle; the same for each create and open of a slot
 * Errors: -EMSGSIZE the slot is too small for the heap's state, or has 32 GiB or more; -EBUSY held or
 *         pinned; -ENOMEM; -ESTALE the slot is unknown; -E2BIG options from a newer header
 */
int memslot_heap_create(struct memslot_slot *slot, const struct memslot_heap_opts *opts,
		struct memslot_heap **ret_heap);

/*
 * The heap that a slot holds: instantiated from an image of one, or made before. The slot's capacity may
 * be larger than that of the slot it was made in, which stays its limit; the slot's size is the one that
 * the heap left, memslot_image_size() after instantiate, or more. A handle that was had before is good
 * for what it was opened on and for images taken of that; for any other, open it.
 *   ret_heap  the handle, with the last create's on_misuse, unless all handles were closed since
 * Errors: -EUCLEAN there is none, or a damaged one, or the slot is smaller than it; -EADDRNOTAVAIL it was
 *         made at another address; -EMSGSIZE the slot's capacity is smaller than the heap's;
 *         -ESTALE the slot's image leads into another program than this, or it at another address,
 *         or does not say so, since it was not captured; or the slot is unknown; -ENOMEM
 */
int memslot_heap_open(struct memslot_slot *slot, struct memslot_heap **ret_heap);

/*
 * Give a handle back; the last one forgets on_misuse. The heap stays in its slot. Before the slot is
 * destroyed or released to its pool, or not at all: that frees the handle. NULL: nothing happens.
 * Errors: none
 */
void memslot_heap_close(struct memslot_heap *heap);

/*
 * An object.
 *   size   0: a pointer of its own
 *   align  a power of two; 0: 16
 * Returns NULL when there is no room, or align is no power of two.
 * Cost:   up to 512 bytes: a few instructions. Larger: O(1). The edge moves rarely.
 * Errors: none
 */
void *memslot_heap_alloc(struct memslot_heap *heap, size_t size, size_t align);

/*
 * count objects of `size` bytes, zero. Pages that nobody has had are not cleared again; but in a slot
 * with an on_reset, or that had exempt pages, all are.
 * Returns NULL when there is no room or count * size overflows.
 * Errors: none
 */
void *memslot_heap_alloc_zeroed(struct memslot_heap *heap, size_t count, size_t size);

/*
 * Another size, with the contents, in place where that is possible; 16-byte aligned.
 *   ptr   NULL: alloc, also of 0
 *   size  0, with ptr: free, and NULL
 * Returns NULL when there is no room for a larger one, or ptr is no live object: ptr is as it was.
 * Errors: none
 */
void *memslot_heap_realloc(struct memslot_heap *heap, void *ptr, size_t size);

/* Free an object. NULL: nothing happens; other pointers that are no live object: counted. Errors: none */
void memslot_heap_free(struct memslot_heap *heap, void *ptr);

/* How much of an object may be used; 0 for what is no live object. Errors: none */
size_t memslot_heap_usable_size(const struct memslot_heap *heap, const void *ptr);

/* Keep one pointer with the heap: it is rewound, saved and found again with it. Errors: none */
void memslot_heap_set_root(struct memslot_heap *heap, void *root);

/* The pointer kept; NULL where none was set, or the slot holds no heap. Errors: none */
void *memslot_heap_root(const struct memslot_heap *heap);

/*
 * Walk everything.
 * Errors: -EUCLEAN it does not fit together, or is not there; -ESTALE
 */
int memslot_heap_check(const struct memslot_heap *heap);

/*
 * Read the counters.
 *   ret_stats  with `size` set by the caller; filled up to it
 * Errors: -EINVAL `size` below 8; -ESTALE
 */
int memslot_heap_stats(const struct memslot_heap *heap, struct memslot_heap_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
