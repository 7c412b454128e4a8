/* SPDX-License-Identifier: MIT */
/*
 * preload.h - libmemslot-preload.so, and who in this room does what.
 *
 *   calls.c     the libc names: pass through, or    clean.c     zeros again, closed again
 *   request.c   mmap of a reservation, and into     maps.c      what the kernel says is mapped
 *   live.c      calls on a reservation in use       section.c   signals, lock, who is inside
 *   leave.c     giving a range back to the kernel   child.c     forks
 *   registry.c  ranges by address                   config.c    the environment
 *   idle.c      slots by shape, budgets             tally.c     the statistics page
 *
 * A reservation is always the kernel's own mapping, made by the program's own mmap. What we add is
 * that a whole munmap of it is not carried out: the range is cleaned, closed and kept, and the next
 * mmap of the same shape gets it. So whatever we do not understand has one answer: carry out what
 * was put off (ms_leave), forget the range, and let the kernel answer the program.
 *
 * Neither pool nor slot are used: a slot's protections, advice and locks belong to the library
 * (INVARIANTS 29), a reservation's to the program, which opens it where it likes. What is shared is
 * base: scan, features, fork epoch.
 *
 * Nothing here calls malloc or stdio, nor looks up symbols: calls are made by syscall(2).
 */
#ifndef MS_PRELOAD_H
#define MS_PRELOAD_H

#include "base/os.h"

#include <stdatomic.h>

#include <memslot/preload.h>

#define MS_PRELOAD_RANGES 8192u /* reservations known at a time; more are simply not ours */
#define MS_NONE UINT32_MAX

/* --- ranges --- */

enum ms_range_state {
	MS_RANGE_FREE, /* of the table: no range */
	MS_RANGE_LIVE, /* the program's */
	MS_RANGE_WORK, /* the program's, and a call on it is running: whoever made it so owns it */
	MS_RANGE_IDLE, /* unmapped, says the program; on a list of idle.c */
	MS_RANGE_BUSY, /* the same, being cleaned or handed out by its owner */
};

#define MS_ASKED_DONTFORK 1u
#define MS_ASKED_HUGE 2u

/* Written by the owner of a WORK or BUSY range, lists under the lock. */
struct ms_range {
	_Atomic(uint32_t) state;
	uint32_t shape;
	uint32_t next, prev;  /* idle.c */
	uint64_t start, end;  /* as the kernel has it */
	uint64_t head, tail;  /* as the program has it: what lies outside it has unmapped */
	uint64_t open, shut;  /* what the program has opened, one run; open == shut: nothing */
	uint64_t left, right; /* lazy: still open from the tenant before; until the first opening */
	uint64_t low, high;   /* no page outside can be resident; low == high: none is */
	uint64_t late, until; /* of the run before: written while it was cleaned? not looked at */
	uint64_t resident;    /* bytes, while idle */
	uint64_t born_ns;
	uint64_t stamp;	  /* idle.c: when it became idle */
	uint32_t asked;	  /* advice of this tenant */
	uint32_t applied; /* advice that the kernel has for the whole range */
	uint32_t cleans;
	bool opened, closed; /* by this tenant, at some time */
};

/* --- config.c --- */
enum ms_mode { MS_MODE_STRICT, MS_MODE_LAZY, MS_MODE_OBSERVE };
enum ms_thp { MS_THP_AUTO, MS_THP_KEEP, MS_THP_REFUSE };

struct ms_config {
	enum ms_mode mode;
	enum ms_thp thp;
	uint64_t slots;	 /* idle at most; UINT64_MAX: as many as the program keeps alive */
	uint64_t keep;	 /* resident bytes in an idle slot, at most */
	uint64_t budget; /* the same in all of them together */
	uint64_t min;	 /* smaller reservations are none */
};
extern MS_HIDDEN struct ms_config ms_config;
/* Read MEMSLOT_PRELOAD. False: stand aside (the value is not understood, or says off). */
MS_HIDDEN bool ms_config_read(char **environment);

/* --- section.c --- */
extern MS_HIDDEN _Atomic(bool) ms_section_on; /* false: every call goes to the kernel */

struct ms_section {
	uint64_t mask;
	int error; /* errno */
};
/* Begin to look at ranges: signals wait. False: nothing to do for us now, forward the call. */
MS_HIDDEN bool ms_section_enter(struct ms_section *section);
MS_HIDDEN void ms_section_leave(const struct ms_section *section);
/* Lists and index; never held while a range is waited for, or over a call into the kernel. */
MS_HIDDEN void ms_section_lock(void);
MS_HIDDEN void ms_section_unlock(void);
/* Does a thread of another process hold it? Else it is free from now on. */
MS_HIDDEN bool ms_section_lost(void);
MS_HIDDEN void ms_section_unlock_child(void);
/* For good. */
MS_HIDDEN void ms_section_off(uint64_t why);

/* --- registry.c --- */
extern MS_HIDDEN _Atomic(uint64_t) ms_registry_low, ms_registry_high;
MS_HIDDEN int ms_registry_start(void);
/* The first range that overlaps [start, end), or NULL. Never waits; the answer may be old. */
MS_HIDDEN struct ms_range *ms_registry_find(uint64_t start, uint64_t end);
/* By number. */
MS_HIDDEN struct ms_range *ms_registry_at(uint32_t number);
MS_HIDDEN uint32_t ms_registry_number(const struct ms_range *range);
/* A new range [start, end) in state WORK; NULL: the table is full. Under the lock. */
MS_HIDDEN struct ms_range *ms_registry_add(uint64_t start, uint64_t end);
/* It is smaller now. Under the lock. */
MS_HIDDEN void ms_registry_shrink(struct ms_range *range, uint64_t start, uint64_t end);
/* It is no range any more. Under the lock. */
MS_HIDDEN void ms_registry_remove(struct ms_range *range);
/* The ranges in address order, 0 .. count - 1; the n-th. Under the lock. */
MS_HIDDEN uint32_t ms_registry_count(void);
MS_HIDDEN struct ms_range *ms_registry_nth(uint32_t n);
MS_HIDDEN void ms_registry_clear(void);

/* May [address, address + size) overlap a range? A hint without false negatives. */
static inline bool ms_registry_near(const void *address, size_t size)
{
	uint64_t start = (uint64_t)(uintptr_t)address;

	return start < atomic_load_explicit(&ms_registry_high, memory_order_relaxed) &&
	       start + size > atomic_load_explicit(&ms_registry_low, memory_order_relaxed);
}

static inline bool ms_registry_touches(const void *address, size_t size)
{
	uint64_t start = (uint64_t)(uintptr_t)address;

	return MS_UNLIKELY(ms_registry_near(address, size)) &&
	       ms_registry_find(start, start + size) != NULL;
}

/* Become the owner of the first range that overlaps [start, end): waits for another owner. NULL:
 * there is none (any more). The state that it had goes to ret_state: LIVE (WORK now) or IDLE (BUSY
 * now, on no list). */
MS_HIDDEN struct ms_range *ms_registry_own(
	uint64_t start, uint64_t end, enum ms_range_state *ret_state);
static inline void ms_range_release(struct ms_range *range)
{
	atomic_store_explicit(&range->state, MS_RANGE_LIVE, memory_order_release);
}

/* --- idle.c: all under the lock --- */
/* A shape's number and a reference; MS_NONE: no room. Each range has a reference of its own. */
MS_HIDDEN uint32_t ms_idle_shape(uint64_t size, bool noreserve);
MS_HIDDEN void ms_idle_hold(uint32_t shape);
MS_HIDDEN void ms_idle_drop(uint32_t shape);
MS_HIDDEN bool ms_idle_noreserve(uint32_t shape);
MS_HIDDEN struct memslot_preload_shape *ms_idle_row(uint32_t shape);
/* The slot to hand out, BUSY; NULL. */
MS_HIDDEN struct ms_range *ms_idle_take(uint32_t shape);
MS_HIDDEN void ms_idle_put(struct ms_range *range);
MS_HIDDEN void ms_idle_unlink(struct ms_range *range);
/* One that is too much, BUSY; `all`: any at all. *ret_drop: only its pages are. */
MS_HIDDEN struct ms_range *ms_idle_surplus(bool all, bool *ret_drop);
/* One more, one less in use. */
MS_HIDDEN void ms_idle_born(struct ms_range *range);
MS_HIDDEN void ms_idle_died(struct ms_range *range);
MS_HIDDEN void ms_idle_clear(void);
/* Did opening memory of this shape pay with huge pages? Did its tenants write so little that
 * cleaning does not pay; and is it this one's turn to look whether that is still so? These need no
 * lock. `pages`: found private when it was freed. */
MS_HIDDEN bool ms_idle_wants_huge(uint32_t shape);
MS_HIDDEN bool ms_idle_few(uint32_t shape);
/* Are its ranges never unmapped whole? This one was, or it left while it was used. */
MS_HIDDEN bool ms_idle_hopeless(uint32_t shape);
MS_HIDDEN void ms_idle_ended(uint32_t shape, bool kept);
MS_HIDDEN bool ms_idle_trial(uint32_t shape);
MS_HIDDEN void ms_idle_learn(uint32_t shape, uint64_t pages, uint64_t opened_pages);

/* --- maps.c --- */
/* Is all of [start, end) private anonymous memory with exactly this protection? 0, -EUCLEAN: no,
 * -EOPNOTSUPP: the kernel does not tell. */
MS_HIDDEN int ms_maps_uniform(uint64_t start, uint64_t end, int prot);

/* --- clean.c --- */
/* An owned range is as a new mapping again, but for resident zeros up to the budget (and in lazy
 * mode but for what is still open). Or -errno: give it back. */
MS_HIDDEN int ms_clean(struct ms_range *range);
/* The tenant has just opened [start, end): whatever another thread has written there while it was
 * cleaned goes. And what lies where it has opened nothing. */
MS_HIDDEN int ms_clean_late(struct ms_range *range, uint64_t start, uint64_t end);
MS_HIDDEN void ms_clean_unseen(const struct ms_range *range);
/* Give back all its pages. */
MS_HIDDEN int ms_clean_drop(struct ms_range *range);
/* How many pages of the range are private. */
MS_HIDDEN uint64_t ms_clean_count(const struct ms_range *range);

/* --- leave.c --- */
/* What was put off is carried out, and the range is none of ours; it was in `state`. Returns what
 * the last munmap said. MEMSLOT_PRELOAD_REASONS: no reason to count. */
MS_HIDDEN int ms_leave(struct ms_range *range, enum ms_range_state state, unsigned reason);
/* All ranges that overlap. */
MS_HIDDEN void ms_leave_all(uint64_t start, uint64_t end, unsigned reason);
/* Idle slots go; true: there was one. */
MS_HIDDEN bool ms_leave_idle(void);
/* Those that are too much go. */
MS_HIDDEN void ms_leave_surplus(void);
/* The range shows something that is not ours: forget it, touch nothing. */
MS_HIDDEN void ms_leave_foreign(struct ms_range *range);
/* Close what is still open from the tenant before; take back advice that this one has not given. */
MS_HIDDEN int ms_leave_settle(struct ms_range *range);

/* --- request.c --- */
/* mmap(NULL or hint, size, PROT_NONE, private and anonymous): the address, or -errno. */
MS_HIDDEN long ms_request(void *hint, size_t size, int flags, int fd, long offset);
/* mmap with MAP_FIXED or MAP_FIXED_NOREPLACE that touches a range. */
MS_HIDDEN long ms_request_fixed(
	void *address, size_t size, int prot, int flags, int fd, long offset);
/* A mapping that the kernel has placed: where it overlaps ranges, they are gone. */
MS_HIDDEN void ms_request_placed(long address, size_t size);

/* --- live.c: calls that touch a range; result or -errno --- */
MS_HIDDEN long ms_live_unmap(void *address, size_t size);
MS_HIDDEN long ms_live_protect(void *address, size_t size, int prot);
/* The program opens memory of an owned range: kernel and run agree afterwards. */
MS_HIDDEN long ms_live_open(struct ms_range *range, uint64_t start, uint64_t end);
MS_HIDDEN long ms_live_advise(void *address, size_t size, int advice);
/* Anything else: `inside`: the kernel may answer for what the program has there. */
MS_HIDDEN void ms_live_other(const void *address, size_t size, unsigned reason, bool inside);

/* --- child.c --- */
/* Everything goes back to the kernel, for good. */
MS_HIDDEN void ms_child_stop(uint64_t why);
/* Does this kernel have huge pages to advise? */
MS_HIDDEN bool ms_child_knows_huge(void);
/* At the first request: what does this kernel do? False: stand aside. */
MS_HIDDEN bool ms_child_ready(void);
/* Are the ranges this process's? Puts them right. */
MS_HIDDEN void ms_child_check(void);

/* --- tally.c --- */
extern MS_HIDDEN struct memslot_preload_stats *ms_tally;
MS_HIDDEN void ms_tally_start(const char *path);
static inline void ms_tally_add(uint64_t *number, uint64_t amount)
{
	__atomic_fetch_add(number, amount, __ATOMIC_RELAXED);
}
MS_HIDDEN void ms_tally_max(uint64_t *number, uint64_t value);
/* The page's row of a shape; NULL: no room. */
MS_HIDDEN struct memslot_preload_shape *ms_tally_shape(uint64_t key);

#endif
