/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - malloc, realloc, free over runs and blocks.
 *
 * Invariant: a pointer is believed only after the maps, the run's own map or the node have
 * confirmed that a live object begins there; everything else is misuse: counted, told, ignored.
 */
#include "heap/heap.h"

#include <string.h>

/* Where a live object lies. */
struct object {
	struct ms_small small; /* run is NULL: a block */
	uint32_t number;       /* in the run */
	struct ms_block block;
	size_t bytes;
};

static bool find(const struct memslot_heap *heap, const void *ptr, struct object *ret_object)
{
	size_t offset = (size_t)((const unsigned char *)ptr - heap->base);

	if (!ms_heap_ready(heap) || (const unsigned char *)ptr < heap->base + heap->data ||
		offset % MS_HEAP_UNIT || offset >= ms_heap_committed(heap))
		return false;
	if (ms_small_at(heap, offset, &ret_object->small)) {
		ret_object->number = ms_small_object(heap, &ret_object->small, offset);
		ret_object->bytes = ms_heap_class_bytes(ret_object->small.class);
		return ret_object->number != MS_HEAP_NONE;
	}
	ret_object->small.run = NULL;
	if (!ms_blocks_at(heap, offset, &ret_object->block))
		return false;
	ret_object->bytes = ms_block_bytes(&ret_object->block);
	return true;
}

static void misuse(struct memslot_heap *heap, const void *ptr)
{
	heap->misuse++;
	if (heap->on_misuse)
		heap->on_misuse(heap, ptr, heap->context);
}

static void *alloc(struct memslot_heap *heap, size_t size, size_t align, size_t *ret_used)
{
	*ret_used = SIZE_MAX;
	if (MS_UNLIKELY(!ms_heap_ready(heap)))
		return NULL;
	if (size <= MS_HEAP_SMALL_MAX && align <= MS_HEAP_UNIT)
		return ms_small_alloc(heap, size);
	return ms_blocks_alloc(heap, size, align, ret_used);
}

MS_EXPORT void *memslot_heap_alloc(struct memslot_heap *heap, size_t size, size_t align)
{
	size_t used;

	if (!heap || (align & (align - 1)))
		return NULL;
	return alloc(heap, size, align, &used);
}

MS_EXPORT void *memslot_heap_alloc_zeroed(struct memslot_heap *heap, size_t count, size_t size)
{
	size_t bytes, used;
	void *ptr;

	if (!heap || __builtin_mul_overflow(count, size, &bytes))
		return NULL;
	ptr = alloc(heap, bytes, 0, &used);
	if (ptr)
		memset(ptr, 0, ms_min(bytes, used));
	return ptr;
}

static void release(struct memslot_heap *heap, const struct object *object)
{
	if (object->small.run)
		ms_small_free(heap, &object->small, object->number);
	else
		ms_blocks_free(heap, &object->block);
}

MS_EXPORT void memslot_heap_free(struct memslot_heap *heap, void *ptr)
{
	struct object object;

	if (!heap || !ptr)
		return;
	if (find(heap, ptr, &object))
		release(heap, &object);
	else
		misuse(heap, ptr);
}

MS_EXPORT void *memslot_heap_realloc(struct memslot_heap *heap, void *ptr, size_t size)
{
	struct object object;
	size_t used;
	void *moved;

	if (!heap)
		return NULL;
	if (!ptr)
		return alloc(heap, size, 0, &used);
	if (!find(heap, ptr, &object)) {
		misuse(heap, ptr);
		return NULL;
	}
	if (size == 0) {
		release(heap, &object);
		return NULL;
	}
	if (object.small.run
			? size <= object.bytes
			: size > MS_HEAP_SMALL_MAX && ms_blocks_resize(heap, &object.block, size))
		return ptr;
	moved = alloc(heap, size, 0, &used);
	if (!moved) /* a smaller one fits where it is: interpreters rely on it */
		return size <= object.bytes ? ptr : NULL;
	memmove(moved, ptr, ms_min(size, object.bytes));
	if (find(heap, ptr, &object)) /* else the two were one, by nonsense, and it is gone */
		release(heap, &object);
	return moved;
}

MS_EXPORT size_t memslot_heap_usable_size(const struct memslot_heap *heap, const void *ptr)
{
	struct object object;

	return heap && ptr && find(heap, ptr, &object) ? object.bytes : 0;
}
