/* SPDX-License-Identifier: MIT */
/* inspect.h - AUTO's eyes and hands: see inspect.c. */
#ifndef MS_INSPECT_H
#define MS_INSPECT_H

#include "slot/slot.h"

/* Look at a few retained pages before they are restored. */
MS_HIDDEN void ms_inspect_samples(struct memslot_slot *slot);
/* Restore by comparing: learn which pages are still written, evict the cold ones, or give up. */
MS_HIDDEN int ms_inspect(struct memslot_slot *slot, bool scanned, size_t fresh);
/* Drop what was only read, when that makes scans dear. */
MS_HIDDEN int ms_inspect_clean_stretches(struct memslot_slot *slot);

#endif
