/* SPDX-License-Identifier: MIT */
/*
 * os.c - the only file that talks to the kernel.
 *
 * Invariant: every call is made by syscall(2) and counted; every result is 0, a count or -errno;
 * nothing here knows what a slot is. Faults are injected here in the build for tests.
 */
#define _GNU_SOURCE
#include "os.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#define SYS_io_uring_register 427
#endif
#define PAGEMAP_SCAN _IOWR('f', 16, struct ms_pm_scan_arg)
#define PROCMAP_QUERY _IOWR('f', 17, struct ms_map_query)
#define FD_CEILING 1024 /* more would make the table of descriptors large, and each fork slow */
#define PIDFD_SELF_THREAD (-10000) /* its address space is the process's */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

_Static_assert(sizeof(void *) == 8 && sizeof(long) == 8, "64-bit Linux only");

__thread uint64_t ms_os_calls;

#ifdef MS_INJECT
struct ms_os_inject ms_os_inject;
_Atomic(uint64_t) ms_os_inject_blocks;

static bool inject_hit(long number)
{
	struct ms_os_inject *inject = &ms_os_inject;

	if (inject->at == 0 || (inject->only && inject->only != number))
		return false;
	inject->seen++;
	return inject->for_good ? inject->seen >= inject->at : inject->seen == inject->at;
}

/* What a partial failure leaves behind: half of the range is done. */
static void inject_half(long number, long address, long size, long advice)
{
	long half = (long)ms_round_down((uint64_t)size / 2);

	if (ms_os_inject.partial && number == SYS_madvise && half)
		syscall(number, address, half, advice);
}
#endif

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
	long result;

	ms_os_calls++;
#ifdef MS_INJECT
	bool hit = inject_hit(number);
	if (hit && !ms_os_inject.hook) {
		inject_half(number, a, b, c);
		return -ms_os_inject.error;
	}
#endif
	result = syscall(number, a, b, c, d, e, f);
	result = result == -1 ? -errno : result;
#ifdef MS_INJECT
	if (hit)
		ms_os_inject.hook(ms_os_inject.argument);
#endif
	return result;
}

#define call(number, a, b, c) call6(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define call4(number, a, b, c, d) call6(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static long map(void *address, size_t size, int prot, int flags, int fd, uint64_t offset)
{
	return call6(SYS_mmap, (long)address, (long)size, prot, flags, fd, (long)offset);
}

/* --- address space --- */

int ms_os_reserve(void *at, size_t size, int prot, void **ret_address)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED_NOREPLACE : 0);
	long got = map(at, size, prot, flags, -1, 0);

	if (got < 0 && got > -4096)
		return (int)got;
	if (at && (void *)got != at) {
		ms_os_unmap((void *)got, size);
		return -EEXIST;
	}
	*ret_address = (void *)got;
	return 0;
}

int ms_os_unmap(void *address, size_t size)
{
	return (int)call(SYS_munmap, address, size, 0);
}

int ms_os_apply(void *address, size_t size, const struct ms_os_attrs *attrs)
{
	int error = 0;

	if (attrs->dontfork)
		error = ms_os_advise(address, size, MADV_DONTFORK);
	if (!error && attrs->dontdump)
		error = ms_os_advise(address, size, MADV_DONTDUMP);
	if (!error && attrs->hugepage)
		(void)ms_os_advise(address, size, MADV_HUGEPAGE); /* a wish */
	if (!error) /* KSM may put the zero page where a tenant wrote zeros: scans would miss it */
		(void)ms_os_advise(address, size, MADV_UNMERGEABLE);
	if (!error && attrs->name)
		(void)ms_os_name(address, size, attrs->name); /* decoration */
	if (!error && attrs->nohugepage && ms_os_advise(address, size, MADV_NOHUGEPAGE))
		error = -ENODATA;
	return error;
}

int ms_os_map_over(void *address, size_t size, int prot, int fd, uint64_t offset,
	const struct ms_os_attrs *attrs)
{
	int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);
	long got = map(address, size, prot, flags, fd, offset);

	if (got < 0 && got > -4096)
		return (int)got;
	return ms_os_apply(address, size, attrs);
}

static int map_file(int fd, uint64_t offset, size_t size, int prot, int flags, void **ret_address)
{
	long got = map(NULL, size, prot, flags, fd, offset);

	if (got < 0 && got > -4096)
		return (int)got;
	*ret_address = (void *)got;
	return 0;
}

int ms_os_map_shared(int fd, uint64_t offset, size_t size, int prot, void **ret_address)
{
	return map_file(fd, offset, size, prot, MAP_SHARED, ret_address);
}

int ms_os_map_private(int fd, size_t size, int prot, void **ret_address)
{
	return map_file(fd, 0, size, prot, MAP_PRIVATE, ret_address);
}

int ms_os_protect(void *address, size_t size, int prot)
{
	return (int)call(SYS_mprotect, address, size, prot);
}

int ms_os_advise(void *address, size_t size, int advice)
{
	return (int)call(SYS_madvise, address, size, advice);
}

int ms_os_guard(void *address, size_t size)
{
	int error = ms_os_advise(address, size, MS_MADV_GUARD_INSTALL);

	/* Locked memory takes no markers: the slot's locks are ours to lift (INVARIANTS 29). */
	if (error == -EINVAL && call(SYS_munlock, address, size, 0) == 0)
		error = ms_os_advise(address, size, MS_MADV_GUARD_INSTALL);
	return error;
}

int ms_os_unguard(void *address, size_t size)
{
	return ms_os_advise(address, size, MS_MADV_GUARD_REMOVE);
}

int ms_os_populate(void *address, size_t size)
{
	return ms_os_advise(address, size, MS_MADV_POPULATE_WRITE);
}

int ms_os_probe_read(const void *address)
{
	/* Blocking no signals: the smallest call that reads 8 bytes of ours, which must be zero. */
	return (int)call4(SYS_rt_sigprocmask, SIG_BLOCK, address, NULL, 8);
}

/* --- heap memory --- */

void *ms_os_alloc(size_t size)
{
	void *memory;

#ifdef MS_INJECT
	if (!ms_os_inject.hook && inject_hit(MS_INJECT_ALLOC))
		return NULL;
#endif
	memory = calloc(1, size);
#ifdef MS_INJECT
	atomic_fetch_add(&ms_os_inject_blocks, memory != NULL);
#endif
	return memory;
}

void ms_os_free(void *memory)
{
#ifdef MS_INJECT
	atomic_fetch_sub(&ms_os_inject_blocks, memory != NULL);
#endif
	free(memory);
}

/* --- files --- */

int ms_os_open(const char *path, int flags, unsigned mode)
{
	long fd;

	do
		fd = call4(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
	while (fd == -EINTR);
	return (int)fd;
}

int ms_os_close(int fd)
{
	return (int)call(SYS_close, fd, 0, 0);
}

int ms_os_dup(int fd)
{
	return (int)call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
}

int ms_os_access_mode(int fd)
{
	long flags = call(SYS_fcntl, fd, F_GETFL, 0);

	return flags < 0 ? (int)flags : (int)(flags & (O_ACCMODE | O_PATH));
}

int ms_os_stat(int fd, struct stat *ret_stat)
{
	return (int)call(SYS_fstat, fd, ret_stat, 0);
}

int64_t ms_os_seek(int fd, int64_t offset, int whence)
{
	return call(SYS_lseek, fd, offset, whence);
}

int ms_os_read_at(int fd, void *to, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		long got = call4(SYS_pread64, fd, (char *)to + done, size - done, offset + done);
		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got ? (int)got : -EIO;
		done += (size_t)got;
	}
	return 0;
}

int64_t ms_os_read_some(int fd, void *to, size_t size, uint64_t offset)
{
	long got;

	do
		got = call4(SYS_pread64, fd, to, size, offset);
	while (got == -EINTR);
	return got;
}

static uint64_t limit_of(int resource)
{
	struct rlimit limit;

	if (call4(SYS_prlimit64, 0, resource, NULL, &limit) < 0)
		return UINT64_MAX;
	return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

uint64_t ms_os_file_limit(void)
{
	return limit_of(RLIMIT_FSIZE);
}

uint64_t ms_os_address_space_limit(void)
{
	return limit_of(RLIMIT_AS);
}

/* Beyond RLIMIT_FSIZE the kernel would raise SIGXFSZ, which ends the process (INVARIANTS 25). */
static bool beyond_limit(uint64_t offset, uint64_t size)
{
	uint64_t limit = ms_os_file_limit();

	return size > limit || offset > limit - size;
}

int ms_os_write_at(int fd, const void *from, size_t size, uint64_t offset)
{
	size_t done = 0;

	if (beyond_limit(offset, size))
		return -EFBIG;
	while (done < size) {
		long got = call4(
			SYS_pwrite64, fd, (const char *)from + done, size - done, offset + done);
		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got ? (int)got : -EIO;
		done += (size_t)got;
	}
	return 0;
}

int ms_os_truncate(int fd, uint64_t size)
{
	long error;

	if (beyond_limit(0, size))
		return -EFBIG;
	do
		error = call(SYS_ftruncate, fd, size, 0);
	while (error == -EINTR);
	return (int)error;
}

int ms_os_punch(int fd, uint64_t offset, uint64_t size)
{
	return (int)call4(
		SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

int ms_os_allocate(int fd, uint64_t offset, uint64_t size)
{
	long error;

	do
		error = call4(SYS_fallocate, fd, 0, offset, size);
	while (error == -EINTR);
	return (int)error;
}

int ms_os_sync(int fd)
{
	long error;

	do
		error = call(SYS_fsync, fd, 0, 0);
	while (error == -EINTR);
	return (int)error;
}

int ms_os_rename(const char *from, const char *to)
{
	return (int)call4(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int ms_os_unlink(const char *path)
{
	return (int)call(SYS_unlinkat, AT_FDCWD, path, 0);
}

int ms_os_temporary(const char *path, char *ret_name, size_t room)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
	size_t length = strlen(path);
	int fd = -EEXIST;

	if (length + 9 > room)
		return -ENAMETOOLONG;
	memcpy(ret_name, path, length);
	memcpy(ret_name + length, ".XXXXXXX", 9);
	for (int tries = 0; fd == -EEXIST && tries < 100; tries++) {
		uint64_t random = ms_os_random();
		for (size_t i = 0; i < 7; i++)
			ret_name[length + 1 + i] = letters[random >> (5 * i + 20) & 31];
		fd = ms_os_open(ret_name, O_RDWR | O_CREAT | O_EXCL, 0600);
	}
	return fd;
}

int ms_os_memfd(const char *name)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	long fd = call(SYS_memfd_create, name, flags | MFD_NOEXEC_SEAL, 0);

	/* Linux before 6.3 does not know the flag; some later ones insist on it. */
	return (int)(fd == -EINVAL ? call(SYS_memfd_create, name, flags, 0) : fd);
}

int ms_os_seal(int fd)
{
	return (int)call(SYS_fcntl, fd, F_ADD_SEALS,
		F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}

/* --- the process --- */

int ms_os_scan(int fd, struct ms_pm_scan_arg *arg)
{
	return (int)call(SYS_ioctl, fd, PAGEMAP_SCAN, arg);
}

int ms_os_thread_faults(uint64_t *ret_faults)
{
	struct rusage usage;
	long error = call(SYS_getrusage, RUSAGE_THREAD, &usage, 0);

	if (error)
		return (int)error;
	*ret_faults = (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
	return 0;
}

int ms_os_pid(void)
{
	return (int)call(SYS_getpid, 0, 0, 0);
}

uint64_t ms_os_clock_ns(void)
{
	struct timespec now;

#ifdef MS_INJECT
	if (ms_os_inject.clock_stopped)
		return 1;
#endif
	clock_gettime(CLOCK_MONOTONIC, &now); /* vDSO: cannot fail, no system call */
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t ms_os_random(void)
{
	uint64_t value = 0;

	if (call(SYS_getrandom, &value, sizeof value, GRND_NONBLOCK) != (long)sizeof value)
		value = ms_os_clock_ns() * 0x9e3779b97f4a7c15u + (uintptr_t)&value;
	return value;
}

int ms_os_name(void *address, size_t size, const char *name)
{
	return (int)call6(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)address, (long)size,
		(long)name, 0);
}

int ms_os_pkey_probe(void)
{
	long key = call(SYS_pkey_alloc, 0, 0, 0);

	return key < 0 ? (int)key : (int)call(SYS_pkey_free, key, 0, 0);
}

int ms_os_uring_setup(void)
{
	char params[256] = {0}; /* struct io_uring_params: 120 bytes */

	return (int)call(SYS_io_uring_setup, 1, params, 0);
}

int ms_os_uring_register(int fd, unsigned what, void *argument, unsigned count)
{
	return (int)call4(SYS_io_uring_register, fd, what, argument, count);
}

int ms_os_process_madvise_self(void *address, size_t size, int advice)
{
	struct iovec range = {.iov_base = address, .iov_len = size};
	long done = call6(SYS_process_madvise, PIDFD_SELF_THREAD, (long)&range, 1, advice, 0, 0);

	if (done < 0)
		return (int)done;
	return (size_t)done == size ? 0 : -EAGAIN;
}

int64_t ms_os_advise_many(const struct iovec *ranges, size_t count, int advice)
{
	return call6(
		SYS_process_madvise, PIDFD_SELF_THREAD, (long)ranges, (long)count, advice, 0, 0);
}

int ms_os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t until_ns)
{
	struct timespec until = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};

	return (int)call6(SYS_futex, (long)word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
		until_ns == UINT64_MAX ? 0 : (long)&until, 0, (long)FUTEX_BITSET_MATCH_ANY);
}

void ms_os_futex_wake(_Atomic(uint32_t) *word)
{
	call(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

void ms_os_signal_event(int fd)
{
	uint64_t one = 1;

	call(SYS_write, fd, &one, sizeof one);
}

size_t ms_os_cache_size(void)
{
	long size = sysconf(_SC_LEVEL2_CACHE_SIZE); /* no system call */

	return size > 0 ? (size_t)size : 1u << 20;
}

uint64_t ms_os_proc_number(const char *path, uint64_t otherwise)
{
	char text[32] = "";
	int fd = ms_os_open(path, O_RDONLY, 0);
	uint64_t number;
	char *end;

	if (fd < 0)
		return otherwise;
	call(SYS_read, fd, text, sizeof text - 1);
	ms_os_close(fd);
	number = strtoull(text, &end, 10);
	return end == text ? otherwise : number;
}

void ms_os_yield(void)
{
	call(SYS_sched_yield, 0, 0, 0);
}

int ms_os_query_map(int fd, uint64_t address, struct ms_map_query *ret_query)
{
	*ret_query = (struct ms_map_query){.size = sizeof *ret_query, .query_addr = address};
	return (int)call(SYS_ioctl, fd, PROCMAP_QUERY, ret_query);
}

int ms_os_raise_fd(int fd)
{
	uint64_t limit = ms_min(limit_of(RLIMIT_NOFILE), FD_CEILING);
	long high = -EMFILE;

	/* We have two: both below the ceiling, or the table would grow for the second again. */
	for (uint64_t step = 2; high < 0 && step <= 128 && step < limit; step *= 8)
		high = call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, limit - step);
	if (high < 0)
		return fd;
	ms_os_close(fd);
	return (int)high;
}

void ms_os_widen_fds(void)
{
	uint64_t limit = ms_min(limit_of(RLIMIT_NOFILE), FD_CEILING);
	long high =
		limit > 2 ? call(SYS_fcntl, STDERR_FILENO, F_DUPFD_CLOEXEC, limit - 2) : -EMFILE;

	if (high >= 0)
		ms_os_close((int)high);
}

long ms_os_forward(long number, long a, long b, long c, long d, long e, long f)
{
	long result = syscall(number, a, b, c, d, e, f);

	return result == -1 ? -errno : result;
}

#define BIT(signal) (1ull << ((signal)-1))
void ms_os_block_signals(uint64_t *ret_mask)
{
	uint64_t mask = ~(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP) |
			  BIT(SIGSYS));

	call4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, ret_mask, sizeof mask);
}

void ms_os_restore_signals(uint64_t mask)
{
	call4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
}
