/* SPDX-License-Identifier: MIT */
/*
 * print.c - a fingerprint of the running program: what pointers in a heap may lead to.
 *
 * Invariant: two processes have the same only if every object is loaded from the same build at the
 * same address, and libc and libm choose the same functions (processor, GLIBC_TUNABLES): heaps keep
 * the addresses of functions. The kernel's own object (vdso) is left out: nobody keeps pointers to
 * it.
 */
#define _GNU_SOURCE
#include "heap/heap.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <xxhash.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

/* The build-id note of a loaded object; objects without one are told apart by name and size. */
static void add_notes(XXH3_state_t *state, const struct dl_phdr_info *info)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		if (header->p_type == PT_NOTE)
			XXH3_128bits_update(state,
				(const void *)(info->dlpi_addr + header->p_vaddr), header->p_memsz);
		if (header->p_type == PT_LOAD)
			XXH3_128bits_update(state, &header->p_memsz, sizeof header->p_memsz);
	}
}

static int add_object(struct dl_phdr_info *info, size_t size, void *state)
{
	(void)size;
	if (info->dlpi_addr == getauxval(AT_SYSINFO_EHDR))
		return 0;
	XXH3_128bits_update(state, info->dlpi_name, strlen(info->dlpi_name));
	XXH3_128bits_update(state, &info->dlpi_addr, sizeof info->dlpi_addr);
	add_notes(state, info);
	return 0;
}

static void add_processor(XXH3_state_t *state)
{
	unsigned long words[] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
	const char *tunables = getenv("GLIBC_TUNABLES");

	XXH3_128bits_update(state, words, sizeof words);
	if (tunables)
		XXH3_128bits_update(state, tunables, strlen(tunables));
#ifdef __x86_64__
	unsigned leaf[4];
	if (__get_cpuid(1, &leaf[0], &leaf[1], &leaf[2], &leaf[3])) {
		leaf[1] &= 0xffff; /* the rest names the processor that we are on just now */
		XXH3_128bits_update(state, leaf, sizeof leaf);
	}
	if (__get_cpuid_count(7, 0, &leaf[0], &leaf[1], &leaf[2], &leaf[3]))
		XXH3_128bits_update(state, leaf, sizeof leaf);
#endif
}

int ms_print_program(uint64_t ret_print[2])
{
	XXH3_state_t *state = XXH3_createState();
	XXH128_hash_t hash;

	if (!state)
		return -ENOMEM;
	XXH3_128bits_reset(state);
	dl_iterate_phdr(add_object, state);
	add_processor(state);
	hash = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	ret_print[0] = hash.low64;
	ret_print[1] = hash.high64;
	return 0;
}
