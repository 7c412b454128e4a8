#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The preload under sanitizers: linked into its rules, its entries under names of their own.

usage: preload_linked.py LINKED SANITIZER     (TAP on standard output)

LINKED is tests/preload_rules*.c with lib/preload. Each rule is run standing aside, so the kernel
answers, and with slots, and compared; a report of a sanitizer is a difference. A rule must have been
answered from slots.
"""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import tap

# Threads and what they share; ThreadSanitizer keeps signals back and dislikes forks of threads. That
# memory is mapped anew it does not see, so there is no plain run: what is ordered is so by our lock.
THREADS = ["threads_do_not_meet", "sizes_do_not_mix"]
FINE = ["wrong: 0", "exit status 0"]
# A sanitizer's own memory is in the way of limits and locks, and it takes what it has not freed.
NOT = {"address_space_may_be_limited", "address_space_may_run_out", "mappings_may_run_out",
       "data_may_be_limited", "locks_are_not_inherited", "descriptors_may_be_closed",
       "pages_may_be_swapped", "huge_pages_leave_nothing_behind"}
BYTES, MAGIC, HITS = 16384, 0x31746c73706d656d, 4 * 8
linked = None


def run(rule, words):
    environment = {**os.environ, "MEMSLOT_PRELOAD": words, "MEMSLOT_TEST_SEED": "1",
                   "MEMSLOT_TEST_ROUNDS": "0.1", "ASAN_OPTIONS": "allow_user_segv_handler=1:"
                   "detect_leaks=0:detect_stack_use_after_return=0", "TSAN_OPTIONS": "exitcode=66"}
    done = subprocess.run([linked, rule], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300,
                          stdin=subprocess.DEVNULL, check=False)
    return [*done.stdout.splitlines(), f"exit status {done.returncode}"]


def compare(rule, plain):
    with tempfile.NamedTemporaryFile() as file:
        file.write(struct.pack("Q", MAGIC) + bytes(BYTES - 8))
        file.flush()
        ours = run(rule, f"strict,stats={file.name}")
        hits, = struct.unpack_from("Q", pathlib.Path(file.name).read_bytes(), HITS)
    if plain != ours:
        return next(([f"plainly: {left}", *ours[number:number + 25]]
                     for number, (left, right) in enumerate(zip(plain, ours)) if left != right),
                    ["more or fewer lines", *ours[-3:]])
    return [] if hits else ["no slot was used"]


def main(arguments):
    global linked
    linked = str(pathlib.Path(arguments[0]).resolve())
    names = subprocess.run([linked], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if "thread" in arguments[1]:
        return tap.run([(name, lambda name=name: compare(name, FINE)) for name in THREADS])
    return tap.run([(name, lambda name=name: compare(name, run(name, "aside"))) for name in names
                    if name not in NOT])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
