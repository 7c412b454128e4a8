/* SPDX-License-Identifier: MIT */
/*
 * tool.h - what the parts of the memslot command share.
 *
 * Exit statuses: 0 done, 1 a file is not good or the work failed, 2 the command line is wrong, 3 a
 * slot showed a byte that it must not show.
 */
#ifndef MEMSLOT_TOOL_H
#define MEMSLOT_TOOL_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memslot_image;

enum { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_WRONG_BYTE };

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* The subcommands; argv[0] is the subcommand's own full name. */
int command_info(int argc, char **argv);
int command_image(int argc, char **argv);
int command_churn(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_host(int argc, char **argv);
int command_lua(int argc, char **argv);
int command_duk(int argc, char **argv);
int command_ranges(int argc, char **argv);
int command_buffers(int argc, char **argv);
int command_serve(int argc, char **argv);
int command_load(int argc, char **argv);
int command_copy(int argc, char **argv);
int command_run(int argc, char **argv);
int command_engines(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_trace(int argc, char **argv);

/* "memslot: " and a message on stderr; error is 0 or a negative errno value to explain. */
void complain(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The command line is wrong: say so, and where to read about it; exits with EXIT_USAGE. */
void refuse(const struct argp_state *state, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
/* What an errno value means for an image file, in the words of this tool. */
const char *explain(int error);

/* "64", "64K", "4M", "1G", "1T", "4MiB", 0x hexadecimal, never octal: bytes. 0 or -EINVAL. */
int parse_size(const char *text, uint64_t *ret_size);
/* A whole number within [low, high], decimal or 0x hexadecimal, or -EINVAL. */
int parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number);
/* Is the word one of the list's, which are separated by commas? */
bool list_has(const char *list, const char *word);
/* "4 MiB", "1.5 KiB", "123 bytes": at most one decimal; the buffer is returned. */
const char *format_size(uint64_t size, char *buffer, size_t room);
/* An image file, or an image of the contents of any other file: one reference. 0 or -errno. */
int open_image(const char *path, struct memslot_image **ret_image);
/* What memslot image show tells. */
json_t *describe_image(const char *path, const struct memslot_image *image);
void print_image(const json_t *object);
/* The stretches of the file that hold data; the rest is holes. */
json_t *file_stretches(int fd);
/*
 * A note that is text (UTF-8 without NUL) becomes "note", of any other "note_base64" and
 * "note_bytes" are set. NULL: none, "note" is null.
 */
void set_note(json_t *object, const void *note, size_t size);
void print_size(const char *label, const json_t *value);
/* Text is quoted, so that nothing in it passes for words of ours or commands to the terminal. */
void print_note(const json_t *object);
void print_stretches(const json_t *stretches);
/* The first line of a small file such as those in /proc, without its newline; false: unknown. */
bool read_line(const char *path, char *buffer, size_t room);
size_t page_size(void);
uint64_t clock_ns(void);
/* Columns of the terminal that stdout is, or 100. */
unsigned terminal_width(void);

/*
 * Run work(context) in a thread and show how far it is on stderr. `expected` bytes are read or
 * written in all, at most; 0: unknown. Returns what work returned.
 */
int run_with_progress(
	bool show, const char *what, uint64_t expected, int (*work)(void *context), void *context);
/* The same, but count(context) says how far it is; false: nobody knows. */
int run_with_counts(bool show, const char *what, uint64_t expected, int (*work)(void *context),
	bool (*count)(void *context, uint64_t *ret_read, uint64_t *ret_written), void *context);

#endif
