/* SPDX-License-Identifier: MIT */
/* memslot.h - everything: see memslot(7). */
#ifndef MEMSLOT_H
#define MEMSLOT_H

#include <memslot/base.h>
#include <memslot/image.h>
#include <memslot/slot.h>
#include <memslot/pool.h>
#include <memslot/ranges.h>
#include <memslot/heap.h>
#include <memslot/buffers.h>
#include <memslot/preload.h>

#endif
