/* SPDX-License-Identifier: MIT */
/*
 * memslot/base.h - version, features, options: what every other header needs.
 *
 * Common keys. Every int function returns 0 or a negative errno value; on failure its outputs are
 * untouched. All sizes are bytes.
 *
 * Threads: every function here may be called from any thread at any time.
 * Fork:    answers stay valid in a child, raw clone(2) included.
 * Since:   0.1
 */
#ifndef MEMSLOT_BASE_H
#define MEMSLOT_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMSLOT_VERSION_MAJOR 0
#define MEMSLOT_VERSION_MINOR 1
#define MEMSLOT_VERSION_PATCH 0

/*
 * In an option of 64 bits: zero is the default that the option's header names, MEMSLOT_NONE means
 * none of it, MEMSLOT_UNLIMITED means no limit.
 */
#define MEMSLOT_NONE UINT64_MAX
#define MEMSLOT_UNLIMITED (UINT64_MAX - 1)

/*
 * Options. Every option struct begins with `uint32_t size; uint32_t flags;`; all-zero but for
 * `size` is the default for ever, and so is a NULL pointer. A size smaller than the first released
 * struct, or an unknown flag: -EINVAL. Non-zero bytes in a tail that this library does not know:
 * -E2BIG (the caller was built against a newer header). Source: openat2(2), clone3(2).
 * MEMSLOT_OPTS needs at least one member under -pedantic; for none, pass NULL. Output structs: {.size =
 * sizeof(struct x)}.
 */
#ifndef __cplusplus
#define MEMSLOT_OPTS(type, ...) ((struct type){.size = sizeof(struct type), __VA_ARGS__})
#endif

/*
 * Clear an option or output struct and set its `size`: what C++ uses instead of MEMSLOT_OPTS.
 *   opts   the struct; NULL is ignored
 *   size   sizeof of it, in bytes, 4 or more (less: nothing happens)
 * Errors: none
 */
void memslot_opts_init(void *opts, size_t size);

/* The version of the library that runs, "major.minor.patch"; static storage. Errors: none */
const char *memslot_version(void);

/*
 * Does this kernel (and build) have a feature, and is it enabled?
 *   name   one of memslot_feature_name()'s
 * Returns 1 present, 0 missing or switched off by MEMSLOT_DISABLE.
 * Cost:   the first question of each feature runs a probe (1-100 us); later ones read a word.
 * Errors: -EINVAL unknown name, or NULL
 * Source: each feature's probe is the smallest real operation that proves it (lib/base/feature.c)
 *
 * MEMSLOT_DISABLE=name,name|all in the environment switches features off, so that every fallback
 * can be tried on every machine. It is read once, with secure_getenv(3). Unknown names in it are
 * ignored here and reported by `memslot info`.
 */
int memslot_feature(const char *name);

/*
 * The names of all features, to list them.
 *   index  0, 1, ...
 * Returns the name (static storage), NULL past the end. Errors: none
 */
const char *memslot_feature_name(uint32_t index);

#ifdef __cplusplus
}
#endif

#endif
