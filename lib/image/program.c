/* SPDX-License-Identifier: MIT */
/*
 * program.c - what identifies the program that an image points into.
 *
 * Invariant: two processes agree on an object only if the same build of it lies at the same
 * address, and on the machine only if libc and libm choose the same functions there: heaps keep
 * addresses of functions. Objects that no pointer leads into may come and go. The kernel's own
 * object (vdso) is left out: another kernel has another one.
 *
 * A record from a file is compared and never followed. Nothing here locks but the loader's list.
 */
#define _GNU_SOURCE
#include "image/program.h"

#include "base/os.h"
#include "image/image.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <xxhash.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

/* --- objects --- */

/* The build-id among the notes of a segment, mixed into hash; false: there is none. */
static bool mix_build_id(const struct dl_phdr_info *info, const ElfW(Phdr) * header, uint64_t *hash)
{
	size_t align = header->p_align > 4 ? 8 : 4, at = 0;
	const char *notes = (const char *)(info->dlpi_addr + header->p_vaddr);

	while (header->p_memsz - at >= sizeof(ElfW(Nhdr))) {
		const ElfW(Nhdr) *note = (const ElfW(Nhdr) *)(const void *)(notes + at);
		size_t name = at + sizeof *note;
		size_t id = (name + note->n_namesz + align - 1) & ~(align - 1);
		size_t next = (id + note->n_descsz + align - 1) & ~(align - 1);
		if (next > header->p_memsz)
			return false;
		if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
			memcmp(notes + name, "GNU", 4) == 0) {
			*hash = XXH3_64bits_withSeed(notes + id, note->n_descsz, *hash);
			return true;
		}
		at = next;
	}
	return false;
}

/* What a build without a build-id has: everything in it that does not change. */
static uint64_t mix_contents(const struct dl_phdr_info *info, uint64_t hash)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		if (header->p_type == PT_LOAD && (header->p_flags & (PF_R | PF_W)) == PF_R)
			hash = XXH3_64bits_withSeed(
				(const void *)(info->dlpi_addr + header->p_vaddr), header->p_filesz,
				hash);
	}
	return hash;
}

/* The address of its first page; all its pages go with it. */
static uint64_t first_address(const struct dl_phdr_info *info)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_LOAD) /* sorted */
			return ms_round_down(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	}
	return info->dlpi_addr;
}

bool ms_program_describe(const struct dl_phdr_info *info, struct ms_program_object *ret_object)
{
	uint64_t hash = 0;
	bool found = false;

	if (info->dlpi_addr && info->dlpi_addr == getauxval(AT_SYSINFO_EHDR))
		return false;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		if (header->p_type == PT_LOAD)
			hash = XXH3_64bits_withSeed(&header->p_memsz, sizeof header->p_memsz, hash);
		if (header->p_type == PT_NOTE && !found)
			found = mix_build_id(info, header, &hash);
	}
	*ret_object = (struct ms_program_object){
		first_address(info), found ? hash : mix_contents(info, hash)};
	return true;
}

/* --- the machine --- */

#ifdef __x86_64__
static uint64_t mix_leaves(uint64_t hash)
{
	/* Features, and what of the registers the kernel lets us use. */
	static const unsigned leaves[][2] = {
		{0, 0}, {1, 0}, {7, 0}, {7, 1}, {0xd, 0}, {0x80000001, 0}};

	for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
		unsigned word[4] = {0};
		(void)__get_cpuid_count(
			leaves[i][0], leaves[i][1], &word[0], &word[1], &word[2], &word[3]);
		if (leaves[i][0] == 1)
			word[1] &=
				0xffff; /* the rest names the processor that we are on just now */
		hash = XXH3_64bits_withSeed(word, sizeof word, hash);
	}
	return hash;
}
#else
static uint64_t mix_leaves(uint64_t hash)
{
	return hash; /* the features are in AT_HWCAP */
}
#endif

uint64_t ms_program_machine(void)
{
	static _Atomic(uint64_t) known; /* two threads may find the same out at once */
	uint64_t hash = atomic_load_explicit(&known, memory_order_relaxed);

	if (hash == 0) {
		const unsigned long words[] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
		const char *tunables = getenv("GLIBC_TUNABLES");
		hash = mix_leaves(XXH3_64bits(words, sizeof words));
		if (tunables)
			hash = XXH3_64bits_withSeed(tunables, strlen(tunables), hash);
		atomic_store_explicit(&known, hash, memory_order_relaxed);
	}
	return hash;
}

/* --- the same? --- */

struct comparison {
	const struct ms_program *program;
	uint64_t found;
};

static int compare_object(struct dl_phdr_info *info, size_t size, void *context)
{
	struct comparison *comparison = context;
	const struct ms_program *program = comparison->program;
	uint64_t address = first_address(info);
	struct ms_program_object here;

	(void)size;
	for (uint64_t i = 0; i < program->count; i++) {
		if (program->objects[i].address != address)
			continue;
		if (!ms_program_describe(info, &here) || here.build != program->objects[i].build)
			return 1;
		comparison->found++;
	}
	return 0;
}

int ms_program_check(const struct memslot_image *image)
{
	struct comparison comparison = {.program = image->program};

	/* Whoever looked recorded the executable at least. */
	if (!image->program || !image->program->count ||
		image->program->machine != ms_program_machine() ||
		dl_iterate_phdr(compare_object, &comparison) ||
		comparison.found != image->program->count)
		return -ESTALE;
	return 0;
}

int ms_program_inherit(struct memslot_image *image, const struct memslot_image *from)
{
	size_t size = from->program ? ms_program_size(from->program->count) : 0;
	struct ms_program *program = size ? ms_os_alloc(size) : NULL;

	if (size && !program)
		return -ENOMEM;
	if (program)
		memcpy(program, from->program, size);
	ms_os_free(image->program);
	image->program = program;
	return 0;
}
