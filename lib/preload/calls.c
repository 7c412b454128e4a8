/* SPDX-License-Identifier: MIT */
/*
 * calls.c - the names of the C library that we stand in for.
 *
 * Invariant: a call that has nothing to do with a range is the kernel's own, after a few loads and
 * compares; errno is set as the C library does it. Nothing is looked up: what the C library adds to
 * these calls is done here (msync is a cancellation point). Works before the constructor has run:
 * then there are no ranges, and every call is the kernel's.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* both names of each pair, and none stands for the other */
#include "preload.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

#define forward(number, a, b, c) ms_os_forward(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static long answer(long result)
{
	if (MS_LIKELY(result >= 0 || result < -4095))
		return result;
	errno = (int)-result;
	return -1;
}

/* An offset means nothing, but the kernel refuses one inside a page. */
static bool is_reservation(size_t size, int prot, int flags, off_t offset)
{
	return prot == PROT_NONE && (flags & ~MAP_NORESERVE) == (MAP_PRIVATE | MAP_ANONYMOUS) &&
	       size >= ms_config.min && ms_page_aligned((uint64_t)offset) &&
	       atomic_load_explicit(&ms_section_on, memory_order_relaxed);
}

/* Calls whose range leaves, whatever they say. */
static void disturb(const void *address, size_t size, unsigned reason)
{
	if (ms_registry_touches(address, size))
		ms_live_other(address, size, reason, false);
}

/* Calls that change nothing: a range in use stays. */
static void ask(const void *address, size_t size)
{
	if (ms_registry_touches(address, size))
		ms_live_other(address, size, MEMSLOT_PRELOAD_PARTIAL, true);
}

/* Mappings or address space have run out: what idle slots take is the program's. */
static bool make_room(void)
{
	struct ms_section section;
	bool made;

	if (!atomic_load_explicit(&ms_registry_high, memory_order_relaxed) ||
		!ms_section_enter(&section))
		return false;
	made = ms_leave_idle();
	ms_section_leave(&section);
	return made;
}

/* Somewhere: may it lie where we think that a range is? That was unmapped past us then. */
static long placed(void *address, size_t size, int prot, int flags, int fd, off_t offset)
{
	struct ms_section section;
	long got;

	if (MS_UNLIKELY(address != NULL)) /* a hint at what was unmapped: the place is free */
		ask(address, size);
	got = ms_os_forward(SYS_mmap, (long)address, (long)size, prot, flags, fd, (long)offset);
	if (MS_UNLIKELY(got == -ENOMEM) && make_room())
		got = ms_os_forward(
			SYS_mmap, (long)address, (long)size, prot, flags, fd, (long)offset);
	if (ms_registry_touches((void *)got, size) && ms_section_enter(&section)) {
		ms_request_placed(got, size);
		ms_section_leave(&section);
	}
	return got;
}

static void *map(void *address, size_t size, int prot, int flags, int fd, off_t offset)
{
	long got;

	if (is_reservation(size, prot, flags, offset))
		got = ms_request(address, size, flags, fd, offset);
	else if (!(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)))
		got = placed(address, size, prot, flags, fd, offset);
	else if (ms_registry_touches(address, size))
		got = ms_request_fixed(address, size, prot, flags, fd, offset);
	else
		got = ms_os_forward(
			SYS_mmap, (long)address, (long)size, prot, flags, fd, (long)offset);
	return (void *)answer(got);
}

MS_EXPORT void *mmap(void *address, size_t size, int prot, int flags, int fd, off_t offset)
{
	return map(address, size, prot, flags, fd, offset);
}

MS_EXPORT void *mmap64(void *address, size_t size, int prot, int flags, int fd, off64_t offset)
{
	return map(address, size, prot, flags, fd, offset);
}

MS_EXPORT int munmap(void *address, size_t size)
{
	if (ms_registry_touches(address, size))
		return (int)answer(ms_live_unmap(address, size));
	return (int)answer(forward(SYS_munmap, address, size, 0));
}

static long protect(void *address, size_t size, int prot)
{
	long result;

	if (ms_registry_touches(address, size))
		return ms_live_protect(address, size, prot);
	result = forward(SYS_mprotect, address, size, prot);
	/* Or something is not mapped there: then nothing is different the second time. */
	if (MS_UNLIKELY(result == -ENOMEM) && make_room())
		result = forward(SYS_mprotect, address, size, prot);
	return result;
}

MS_EXPORT int mprotect(void *address, size_t size, int prot)
{
	return (int)answer(protect(address, size, prot));
}

static long advise(void *address, size_t size, int advice)
{
	if (ms_registry_touches(address, size))
		return ms_live_advise(address, size, advice);
	return forward(SYS_madvise, address, size, advice);
}

MS_EXPORT int madvise(void *address, size_t size, int advice)
{
	return (int)answer(advise(address, size, advice));
}

MS_EXPORT int posix_madvise(void *address, size_t size, int advice)
{
	if (advice == POSIX_MADV_DONTNEED)
		return 0; /* the C library ignores it: it must not destroy */
	return (int)-advise(address, size, advice);
}

MS_EXPORT void *mremap(void *address, size_t old_size, size_t size, int flags, ...)
{
	void *target = NULL;
	va_list rest;

	va_start(rest, flags);
	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		target = va_arg(rest, void *);
	va_end(rest);
	disturb(address, old_size ? old_size : 1, MEMSLOT_PRELOAD_MOVED);
	if (size > old_size) /* it may grow in place, into what was unmapped */
		disturb(address, size, MEMSLOT_PRELOAD_MOVED);
	if (flags & MREMAP_FIXED)
		disturb(target, size, MEMSLOT_PRELOAD_MOVED);
	return (void *)answer(ms_os_forward(
		SYS_mremap, (long)address, (long)old_size, (long)size, flags, (long)target, 0));
}

MS_EXPORT int mincore(void *address, size_t size, unsigned char *vector)
{
	ask(address, size);
	return (int)answer(forward(SYS_mincore, address, size, vector));
}

MS_EXPORT int msync(void *address, size_t size, int flags)
{
	long result;

	pthread_testcancel();
	ask(address, size);
	result = answer(forward(SYS_msync, address, size, flags));
	pthread_testcancel();
	return (int)result;
}

MS_EXPORT int mlock(const void *address, size_t size)
{
	disturb(address, size, MEMSLOT_PRELOAD_LOCKED);
	return (int)answer(forward(SYS_mlock, address, size, 0));
}

MS_EXPORT int mlock2(const void *address, size_t size, unsigned flags)
{
	disturb(address, size, MEMSLOT_PRELOAD_LOCKED);
	return (int)answer(forward(SYS_mlock2, address, size, flags));
}

MS_EXPORT int munlock(const void *address, size_t size)
{
	ask(address, size);
	return (int)answer(forward(SYS_munlock, address, size, 0));
}

/* From now on the preload stands aside. */
static void stop(uint64_t why)
{
	struct ms_section section;

	if (!ms_section_enter(&section))
		return;
	ms_child_stop(why);
	ms_section_leave(&section);
}

MS_EXPORT int mlockall(int flags)
{
	stop(MEMSLOT_PRELOAD_OFF_LOCKED);
	return (int)answer(forward(SYS_mlockall, flags, 0, 0));
}

MS_EXPORT int pkey_mprotect(void *address, size_t size, int prot, int key)
{
	if (key == -1)
		return (int)answer(protect(address, size, prot));
	disturb(address, size, MEMSLOT_PRELOAD_PROTECTION);
	return (int)answer(
		ms_os_forward(SYS_pkey_mprotect, (long)address, (long)size, prot, key, 0, 0));
}

MS_EXPORT ssize_t process_madvise(
	int process, const struct iovec *ranges, size_t count, int advice, unsigned flags)
{
	/* Whose memory it is about does not matter: leaving is never wrong. */
	for (size_t i = 0; atomic_load_explicit(&ms_registry_high, memory_order_relaxed) &&
			   i < count && i < 1024;
		i++)
		disturb(ranges[i].iov_base, ranges[i].iov_len, MEMSLOT_PRELOAD_ADVICE);
	return answer(ms_os_forward(
		SYS_process_madvise, process, (long)ranges, (long)count, advice, flags, 0));
}

MS_EXPORT void *shmat(int id, const void *address, int flags)
{
	struct shmid_ds about;

	if (address && forward(SYS_shmctl, id, IPC_STAT, &about) == 0)
		disturb((const void *)ms_round_down((uint64_t)(uintptr_t)address),
			about.shm_segsz + ms_page_size(), MEMSLOT_PRELOAD_MAPPED);
	return (void *)answer(forward(SYS_shmat, id, address, flags));
}

MS_EXPORT int prctl(int option, ...)
{
	long words[4];
	va_list rest;

	va_start(rest, option);
	for (int i = 0; i < 4; i++)
		words[i] = va_arg(rest, long);
	va_end(rest);
	if (option == PR_SET_VMA)
		disturb((void *)words[1], (size_t)words[2], MEMSLOT_PRELOAD_ADVICE);
	return (int)answer(
		ms_os_forward(SYS_prctl, option, words[0], words[1], words[2], words[3], 0));
}

static bool is_finite(const struct rlimit *limit)
{
	return limit && limit->rlim_cur != RLIM_INFINITY;
}

static int limit_of(
	pid_t process, __rlimit_resource_t resource, const struct rlimit *limit, struct rlimit *old)
{
	long result = ms_os_forward(SYS_prlimit64, process, resource, (long)limit, (long)old, 0, 0);

	/* The room that idle slots take is the program's. (Now the kernel has read the limit, too.)
	 */
	if (resource == RLIMIT_AS && result == 0 && is_finite(limit) &&
		(process == 0 || process == ms_os_pid()))
		stop(MEMSLOT_PRELOAD_OFF_LIMIT);
	return (int)answer(result);
}

MS_EXPORT int prlimit(
	pid_t process, __rlimit_resource_t resource, const struct rlimit *limit, struct rlimit *old)
{
	return limit_of(process, resource, limit, old);
}

/* struct rlimit64 is the same where there is 64 bits of everything. */
MS_EXPORT int prlimit64(pid_t process, __rlimit_resource_t resource, const struct rlimit64 *limit,
	struct rlimit64 *old)
{
	return limit_of(process, resource, (const void *)limit, (void *)old);
}

MS_EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return limit_of(0, resource, limit, NULL);
}

MS_EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return limit_of(0, resource, (const void *)limit, NULL);
}
