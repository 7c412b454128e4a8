/* SPDX-License-Identifier: MIT */
/*
 * os.h - every system call that the library makes, and what each promises.
 *
 * All return 0 (or a count) or -errno. Memory calls are made by syscall(2), so that an interposed
 * mmap, our own preload's included, is not called back (INVARIANTS 28).
 */
#ifndef MS_OS_H
#define MS_OS_H

#include "util.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Distribution headers may be older than the kernel. */
#define MS_MADV_POPULATE_WRITE 23
#define MS_MADV_DONTNEED_LOCKED 24
#define MS_MADV_GUARD_INSTALL 102
#define MS_MADV_GUARD_REMOVE 103

#define MS_PAGE_IS_FILE (1u << 2)
#define MS_PAGE_IS_PRESENT (1u << 3)
#define MS_PAGE_IS_SWAPPED (1u << 4)
#define MS_PAGE_IS_PFNZERO (1u << 5)
#define MS_PAGE_IS_GUARD (1u << 8)

/* struct page_region and struct pm_scan_arg of <linux/fs.h> since Linux 6.7. */
struct ms_page_region {
	uint64_t start, end, categories;
};

struct ms_pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
		category_mask, category_anyof_mask, return_mask;
};

/* struct procmap_query of <linux/fs.h> since Linux 6.11. */
struct ms_map_query {
	uint64_t size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size,
		vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};

#define MS_MAP_READABLE (1u << 0)
#define MS_MAP_WRITABLE (1u << 1)
#define MS_MAP_EXECUTABLE (1u << 2)
#define MS_MAP_SHARED (1u << 3)

/* What has to be true again after something was mapped over a slot (INVARIANTS 13). */
struct ms_os_attrs {
	bool nohugepage, hugepage, dontfork, dontdump;
	const char *name; /* shown in /proc/PID/maps; best effort */
};

/* System calls made by this thread: the difference is what a piece of work cost. */
extern MS_HIDDEN __thread uint64_t ms_os_calls __attribute__((tls_model("initial-exec")));

/* --- address space --- */

/* Private anonymous memory without a commitment. `at` not NULL: exactly there, or -EEXIST (nothing
 * is ever replaced; kernels before 4.17 take `at` for a hint: then -EEXIST too). */
MS_HIDDEN int ms_os_reserve(void *at, size_t size, int prot, void **ret_address);
MS_HIDDEN int ms_os_unmap(void *address, size_t size);
/*
 * Map over a part of a slot: zeros (fd -1) or a file, private, and re-apply everything that a new
 * mapping lacks. The only function that does so. On failure the range may be mapped anew without
 * its attributes: the caller's slot is unknown. -ENODATA: everything but NOHUGEPAGE worked, so the
 * fault counter proves nothing for this slot.
 */
MS_HIDDEN int ms_os_map_over(void *address, size_t size, int prot, int fd, uint64_t offset,
	const struct ms_os_attrs *attrs);
/* Apply attributes to a mapping of ours; as above. */
MS_HIDDEN int ms_os_apply(void *address, size_t size, const struct ms_os_attrs *attrs);
/* A shared mapping of a file. */
MS_HIDDEN int ms_os_map_shared(int fd, uint64_t offset, size_t size, int prot, void **ret_address);
MS_HIDDEN int ms_os_map_private(int fd, size_t size, int prot, void **ret_address);
/* mprotect: takes the address-space lock for writing, may split mappings (-ENOMEM at the limit). */
MS_HIDDEN int ms_os_protect(void *address, size_t size, int prot);
/* madvise as it is: may do a part of the work and fail. */
MS_HIDDEN int ms_os_advise(void *address, size_t size, int advice);
/* Guard markers: every access faults, contents are gone, no new mapping is made. Locked memory is
 * unlocked first where it must be. */
MS_HIDDEN int ms_os_guard(void *address, size_t size);
MS_HIDDEN int ms_os_unguard(void *address, size_t size);
MS_HIDDEN int ms_os_populate(void *address, size_t size);
/* Can the kernel read these 8 bytes? 0 or -EFAULT; touches nothing else. */
MS_HIDDEN int ms_os_probe_read(const void *address);

/* --- heap memory: for images and errors' sake only; slots take their bookkeeping by mmap --- */
MS_HIDDEN void *ms_os_alloc(size_t size); /* zeroed; NULL */
MS_HIDDEN void ms_os_free(void *memory);

/* --- files --- */
MS_HIDDEN int ms_os_open(const char *path, int flags, unsigned mode); /* O_CLOEXEC added */
MS_HIDDEN int ms_os_close(int fd);
MS_HIDDEN int ms_os_dup(int fd);	 /* close-on-exec */
MS_HIDDEN int ms_os_access_mode(int fd); /* O_RDONLY, O_WRONLY, O_RDWR, or O_PATH's */
MS_HIDDEN int ms_os_stat(int fd, struct stat *ret_stat);
MS_HIDDEN int64_t ms_os_seek(int fd, int64_t offset, int whence);
/* Whole length or error; -EIO when the file ends before; -EFBIG, and no signal, for what would
 * exceed RLIMIT_FSIZE. */
MS_HIDDEN int ms_os_read_at(int fd, void *to, size_t size, uint64_t offset);
/* As pread(2): how much, 0 at the end, or -errno. */
MS_HIDDEN int64_t ms_os_read_some(int fd, void *to, size_t size, uint64_t offset);
MS_HIDDEN int ms_os_write_at(int fd, const void *from, size_t size, uint64_t offset);
MS_HIDDEN int ms_os_truncate(int fd, uint64_t size);
MS_HIDDEN int ms_os_punch(int fd, uint64_t offset, uint64_t size); /* make a hole */
MS_HIDDEN int ms_os_allocate(
	int fd, uint64_t offset, uint64_t size); /* fill holes, keep the rest */
MS_HIDDEN int ms_os_sync(int fd);
MS_HIDDEN int ms_os_rename(const char *from, const char *to);
MS_HIDDEN int ms_os_unlink(const char *path);
/* A fresh file beside `path` (O_EXCL, mode 0600); its name, of room bytes, is written to ret_name.
 */
MS_HIDDEN int ms_os_temporary(const char *path, char *ret_name, size_t room);
/* Anonymous memory file, sealable where the kernel can. */
MS_HIDDEN int ms_os_memfd(const char *name);
/* After this nobody can change or shrink it. */
MS_HIDDEN int ms_os_seal(int fd);
/* The largest file this process may write; exceeding it would raise SIGXFSZ. */
MS_HIDDEN uint64_t ms_os_file_limit(void);

/* --- the process --- */
MS_HIDDEN int ms_os_scan(int fd, struct ms_pm_scan_arg *arg); /* regions filled, or -errno */
MS_HIDDEN int ms_os_thread_faults(uint64_t *ret_faults);      /* minor + major, this thread's */
MS_HIDDEN int ms_os_pid(void);
MS_HIDDEN uint64_t ms_os_clock_ns(void);
MS_HIDDEN uint64_t ms_os_random(void); /* hard to guess, where the kernel helps */
MS_HIDDEN int ms_os_name(void *address, size_t size, const char *name);
MS_HIDDEN int ms_os_pkey_probe(void);
/* A smallest ring: its descriptor. */
MS_HIDDEN int ms_os_uring_setup(void);
MS_HIDDEN int ms_os_uring_register(int fd, unsigned what, void *argument, unsigned count);
MS_HIDDEN int ms_os_process_madvise_self(void *address, size_t size, int advice);
/* Many ranges, together below 2 GiB, in one call: how many bytes, from the first range on, are done;
 * or -errno, and nobody knows. */
MS_HIDDEN int64_t ms_os_advise_many(const struct iovec *ranges, size_t count, int advice);
MS_HIDDEN void ms_os_yield(void);
/* Wait while *word is `expected`, until a moment of CLOCK_MONOTONIC (UINT64_MAX: for ever). 0,
 * -EAGAIN it was not, -EINTR, -ETIMEDOUT. */
MS_HIDDEN int ms_os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t until_ns);
/* Wake one who waits there. The word may be gone by now. */
MS_HIDDEN void ms_os_futex_wake(_Atomic(uint32_t) *word);
/* Add 1 to an eventfd. */
MS_HIDDEN void ms_os_signal_event(int fd);
/* Of the second level, of one core. */
MS_HIDDEN size_t ms_os_cache_size(void);
/* A number out of a file of /proc, or `otherwise`. */
MS_HIDDEN uint64_t ms_os_proc_number(const char *path, uint64_t otherwise);
MS_HIDDEN uint64_t ms_os_address_space_limit(void);
/* The mapping that holds `address`, of the process whose /proc/PID/maps is open as fd. */
MS_HIDDEN int ms_os_query_map(int fd, uint64_t address, struct ms_map_query *ret_query);
/* A descriptor moves out of the program's way, as high as the limit allows (a large table of
 * descriptors would make every fork slow): the new one, or the old where that fails. */
MS_HIDDEN int ms_os_raise_fd(int fd);
/* Before there are threads: the table of descriptors has room for such a one. With threads the kernel
 * waits for a grace period when it grows (15 ms). */
MS_HIDDEN void ms_os_widen_fds(void);

/* --- on behalf of somebody else: the preload's callers --- */
/* The program's own call, as it is: its result or -errno. Neither counted nor injected. */
MS_HIDDEN long ms_os_forward(long number, long a, long b, long c, long d, long e, long f);
/* Block all signals that can wait: not those that a fault raises, for with them blocked it would
 * kill the program past its own handler. */
MS_HIDDEN void ms_os_block_signals(uint64_t *ret_mask);
MS_HIDDEN void ms_os_restore_signals(uint64_t mask);

#ifdef MS_INJECT
/*
 * Fault injection, in the build for tests only: the call number `at` (1, 2, ...) after arming fails
 * with `error`; `partial`: an madvise does the first half of its range before it fails. With a hook
 * it does not fail: the hook runs after it, as a signal handler or another thread would.
 */
struct ms_os_inject {
	uint64_t at, seen;
	int error;
	bool partial;
	bool for_good; /* also every later call of the same number */
	long only;     /* only this system call number counts; 0: all, MS_INJECT_ALLOC: memory */
	void (*hook)(void *argument);
	void *argument;
	bool clock_stopped; /* the clock stands still: what is learnt from times is no chance */
};
#define MS_INJECT_ALLOC (-1L)
extern struct ms_os_inject ms_os_inject;
extern _Atomic(uint64_t) ms_os_inject_blocks; /* of ms_os_alloc, not freed yet */
#endif

#endif
