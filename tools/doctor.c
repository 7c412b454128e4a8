/* SPDX-License-Identifier: MIT */
/*
 * doctor.c - memslot doctor: would `memslot run` work for a program, and why not?
 *
 * Invariant: the program is not run: its file is read, and the files of the libraries that the
 * dynamic linker says it would load. Each line of the answer is a finding; what stands in the way
 * makes the exit status 1.
 */
#define _GNU_SOURCE
#include "run.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <memslot.h>

struct file {
	const unsigned char *bytes;
	size_t size;
};

struct findings {
	bool stop;  /* something stands in the way */
	bool maps;  /* mmap is imported somewhere */
	bool loads; /* so is dlopen: nobody knows what else will be */
	bool sanitizer;
};

static void say(const char *answer, const char *format, va_list rest)
{
	printf("%-6s ", answer);
	vprintf(format, rest);
	putchar('\n');
}

__attribute__((format(printf, 3, 4))) static void find(
	struct findings *findings, bool good, const char *format, ...)
{
	va_list rest;

	va_start(rest, format);
	say(good ? "yes" : "no", format, rest);
	va_end(rest);
	findings->stop = findings->stop || !good;
}

/* What decides nothing. */
__attribute__((format(printf, 2, 3))) static void note(const char *answer, const char *format, ...)
{
	va_list rest;

	va_start(rest, format);
	say(answer, format, rest);
	va_end(rest);
}

/* --- files --- */

static int open_file(const char *path, struct file *ret_file)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO has no end */
	struct stat state;
	void *bytes = MAP_FAILED;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &state) == 0 && state.st_size > 0)
		bytes = mmap(NULL, (size_t)state.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (bytes == MAP_FAILED)
		return -ENOEXEC;
	*ret_file = (struct file){bytes, (size_t)state.st_size};
	return 0;
}

static void close_file(const struct file *file)
{
	munmap((void *)(uintptr_t)file->bytes, file->size);
}

/* A part of a file, or NULL where it does not have it. */
static const void *part(const struct file *file, uint64_t at, uint64_t size)
{
	if (at > file->size || size > file->size - at || at % 8)
		return NULL;
	return file->bytes + at;
}

static const Elf64_Ehdr *elf_header(const struct file *file)
{
	const Elf64_Ehdr *header = part(file, 0, sizeof *header);

	if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
		header->e_ident[EI_CLASS] != ELFCLASS64)
		return NULL;
	return header;
}

static bool has_interpreter(const struct file *file)
{
	const Elf64_Ehdr *header = elf_header(file);

	for (unsigned i = 0; i < header->e_phnum; i++) {
		const Elf64_Phdr *segment =
			part(file, header->e_phoff + i * sizeof *segment, sizeof *segment);
		if (segment && segment->p_type == PT_INTERP)
			return true;
	}
	return false;
}

/* Which undefined names does its dynamic symbol table have? */
static void look_at_names(const struct file *file, const Elf64_Shdr *table, const Elf64_Shdr *names,
	struct findings *findings)
{
	for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= table->sh_size; at += sizeof(Elf64_Sym)) {
		const Elf64_Sym *symbol = part(file, table->sh_offset + at, sizeof *symbol);
		uint64_t where = names->sh_offset + (symbol ? symbol->st_name : 0);
		const char *name;

		if (!symbol || names->sh_offset > file->size)
			return; /* the file ends before */
		if (where + 16 > file->size || symbol->st_shndx != SHN_UNDEF)
			continue;
		name = (const char *)file->bytes + where;
		if (strcmp(name, "mmap") == 0 || strcmp(name, "mmap64") == 0)
			findings->maps = true;
		if (strcmp(name, "dlopen") == 0)
			findings->loads = true;
		if (strcmp(name, "__asan_init") == 0 || strcmp(name, "__tsan_init") == 0 ||
			strcmp(name, "__msan_init") == 0)
			findings->sanitizer = true;
	}
}

static void look_at_imports(const struct file *file, struct findings *findings)
{
	const Elf64_Ehdr *header = elf_header(file);

	for (unsigned i = 0; header && i < header->e_shnum; i++) {
		const Elf64_Shdr *table =
			part(file, header->e_shoff + i * sizeof *table, sizeof *table);
		const Elf64_Shdr *names;
		if (!table || table->sh_type != SHT_DYNSYM)
			continue;
		names = part(file, header->e_shoff + table->sh_link * sizeof *names, sizeof *names);
		if (names)
			look_at_names(file, table, names, findings);
	}
}

/* The libraries, as the dynamic linker tells them instead of running the program. */
static void look_at_libraries(const char *path, struct findings *findings)
{
	char line[2 * PATH_MAX], *start, *end;
	struct file file;
	FILE *list;

	if (setenv("LD_TRACE_LOADED_OBJECTS", "1", 1) || setenv("MEMSLOT_DOCTOR", path, 1))
		return;
	list = popen("exec \"$MEMSLOT_DOCTOR\"", "re");
	while (list && fgets(line, sizeof line, list)) {
		start = strchr(line, '/');
		end = start ? strstr(start, " (") : NULL;
		if (!end)
			continue;
		*end = 0;
		/* The C library's own calls do not go by its names. */
		if (strstr(start, "/libc.so.") || strstr(start, "/ld-linux") ||
			open_file(start, &file))
			continue;
		look_at_imports(&file, findings);
		close_file(&file);
	}
	if (list)
		pclose(list);
	unsetenv("LD_TRACE_LOADED_OBJECTS");
}

/* --- findings --- */

/* 0 or -errno. */
static int find_program(const char *name, char *path)
{
	char copy[PATH_MAX], *rest = copy, *folder;
	const char *list = getenv("PATH");
	struct stat state;

	if (strchr(name, '/')) {
		if (!realpath(name, path) || stat(path, &state))
			return -errno;
		if (S_ISDIR(state.st_mode))
			return -EISDIR;
		return access(path, X_OK) ? -errno : 0;
	}
	snprintf(copy, sizeof copy, "%s", list ? list : "/usr/bin:/bin");
	while ((folder = strsep(&rest, ":"))) {
		char joined[2 * PATH_MAX];
		snprintf(joined, sizeof joined, "%s/%s", *folder ? folder : ".", name);
		if (find_program(joined, path) == 0)
			return 0;
	}
	return -ENOENT;
}

/* A script is its interpreter, whose name comes back; NULL: it is none. */
static const char *interpreter_of(const struct file *file, char *line, size_t room)
{
	char *word, *rest = line;

	if (file->size < 4 || file->bytes[0] != '#' || file->bytes[1] != '!')
		return NULL;
	snprintf(line, room, "%.*s", (int)(file->size < room ? file->size : room) - 2,
		(const char *)file->bytes + 2);
	line[strcspn(line, "\n")] = 0;
	do
		word = strsep(&rest, " \t");
	while (word && !*word);
	if (word && strcmp(word, "/usr/bin/env") == 0)
		word = strsep(&rest, " \t");
	return word;
}

static void examine_program(const char *path, const struct file *file, struct findings *findings)
{
	struct stat state;
	char capability;
	bool raised = stat(path, &state) == 0 && (state.st_mode & (S_ISUID | S_ISGID));

	raised = raised || getxattr(path, "security.capability", &capability, 0) > 0;
	find(findings, !raised,
		raised ? "%s is setuid or has capabilities: no preload is loaded"
		       : "%s is not setuid",
		path);
	find(findings, has_interpreter(file),
		has_interpreter(file) ? "dynamically linked"
				      : "statically linked: no preload is loaded");
	look_at_imports(file, findings);
	if (!findings->stop)
		look_at_libraries(path, findings);
	note(findings->maps ? "yes" : "maybe", "%s",
		findings->maps ? "calls mmap through the C library"
		: findings->loads
			? "does not call mmap itself; what it loads later may"
			: "nothing that it is linked with calls mmap by its name; what it loads or "
			  "runs may");
	find(findings, !findings->sanitizer,
		findings->sanitizer ? "a sanitizer stands in for mmap: it would not start with a "
				      "preload in front"
				    : "no sanitizer");
}

static void examine_machine(struct findings *findings)
{
	struct rlimit limit;
	char text[32] = "", path[PATH_MAX];
	bool finite = getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
	bool strict =
		read_line("/proc/sys/vm/overcommit_memory", text, sizeof text) && text[0] == '2';

	find(findings, find_preload(path, sizeof path) == 0, "libmemslot-preload.so is installed");
	find(findings, !finite,
		finite ? "RLIMIT_AS is finite: slots would use it up" : "RLIMIT_AS is unlimited");
	find(findings, !strict, "vm.overcommit_memory is %s", text[0] ? text : "unknown");
	if (memslot_feature("pagemap_scan") == 1)
		note("yes", "the kernel finds written pages");
	else
		note("no", "no PAGEMAP_SCAN (Linux 6.7), or it is disabled: slots are dropped, "
			   "little to gain");
	if (memslot_feature("procmap_query") == 1)
		note("yes", "the kernel tells what was changed past the preload");
	else
		note("no", "no PROCMAP_QUERY (Linux 6.11), or it is disabled: strict mode only");
}

/* What the kernel would run for it, with its file. 0 or -errno. */
static int find_file(const char *name, char *path, struct file *ret_file)
{
	char line[256];
	const char *interpreter;
	int error = find_program(name, path);

	if (!error)
		error = open_file(path, ret_file);
	if (error) {
		complain(error, "cannot run %s", name);
		return error;
	}
	interpreter = interpreter_of(ret_file, line, sizeof line);
	if (!interpreter)
		return 0;
	printf("       %s is a script, run by %s\n", path, interpreter);
	close_file(ret_file);
	error = find_program(interpreter, path);
	if (!error)
		error = open_file(path, ret_file);
	if (error)
		complain(error, "cannot run %s", interpreter);
	return error;
}

static int examine(const char *name)
{
	struct findings findings = {0};
	struct file file;
	char path[PATH_MAX];

	if (find_file(name, path, &file))
		return EXIT_FAILED;
	if (elf_header(&file))
		examine_program(path, &file, &findings);
	else
		find(&findings, false, "%s is not a program for 64-bit Linux", path);
	close_file(&file);
	examine_machine(&findings);
	printf("verdict: %s\n", findings.stop ? "memslot run would do nothing for it"
					      : "memslot run can work; 'memslot trace' tells what "
						"it would save");
	return findings.stop ? EXIT_FAILED : EXIT_DONE;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	const char **name = state->input;

	switch (key) {
	case ARGP_KEY_ARG: /* arguments of the program do not matter */
		*name = argument;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		refuse(state, "a program is missing");
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_doctor(int argc, char **argv)
{
	static const struct argp argp = {.parser = parse,
		.args_doc = "[--] PROGRAM [ARGUMENT...]",
		.doc = "Tell whether 'memslot run' would work for a program, and why not."};
	const char *name = NULL;

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &name))
		return EXIT_USAGE;
	return examine(name);
}
