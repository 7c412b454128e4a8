#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A system call of the preload's own fails, the first, the second, ...: every rule still holds.

usage: preload_failures.py RULES PRELOAD     (TAP on standard output)

PRELOAD is built with fault injection (preload_inject.c). What the program itself asks for is
forwarded and never fails by injection; what the rule sees must be what it sees plainly.
"""
import errno
import os
import pathlib
import random
import subprocess
import sys

import tap

# Numbers on x86-64 and elsewhere; None: none such.
NUMBERS = {"x86_64": {"lseek": 8, "mmap": 9, "mprotect": 10, "ioctl": 16, "madvise": 28,
                      "openat": 257, "fcntl": 72},
           "aarch64": {"lseek": 62, "mmap": 222, "mprotect": 226, "ioctl": 29, "madvise": 233,
                       "openat": 56, "fcntl": 25}}
RULES = ["a_smaller_successor_is_guarded", "what_is_closed_keeps_its_bytes", "growth_reads_zero",
         "trims_are_unmapped", "memory_may_be_committed_by_mapping_over", "mapping_over_gives_zeros",
         "ranges_kept_from_children_are_not_inherited", "raw_calls_may_open_more"]
rules, preload = None, None


def run(rule, **more):
    done = subprocess.run([rules, rule], env={**os.environ, **more}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=120,
                          check=False)
    return [*done.stdout.splitlines(), f"exit status {done.returncode}"]


def sweep(name, number, seed):
    """Each of the first calls, some later ones, and from some call on all of them."""
    chance, problems = random.Random(f"{seed} {name}"), []
    for rule in RULES:
        plain = run(rule)
        # 16: advice of the tenant before that cannot be taken back
        places = [1, 2, 3, 16, *chance.sample(range(4, 60), 4), *chance.sample(range(60, 400), 3)]
        for at in places:
            fail = f"{number},{at},{errno.ENOMEM if at % 3 else errno.EINVAL},{int(at % 4 == 0)}"
            ours = run(rule, LD_PRELOAD=preload, MEMSLOT_TEST_FAIL=fail)
            if ours != plain:
                line = next((f"{left} | {right}" for left, right in zip(plain, ours)
                             if left != right), "more or fewer lines")
                problems.append(f"{rule} with MEMSLOT_TEST_FAIL={fail}: plainly | ours: {line}")
    return [f"seed {seed}", *problems] if problems else []


def main(arguments):
    global rules, preload
    rules, preload = (str(pathlib.Path(path).resolve()) for path in arguments[:2])
    numbers = NUMBERS.get(os.uname().machine)
    seed = os.environ.get("MEMSLOT_TEST_SEED") or "20240817"
    print(f"seed {seed}", file=sys.stderr)
    if numbers is None:
        print("1..0 # SKIP system calls have other numbers here")
        return 0
    return tap.run([(f"{name} fails", lambda name=name, number=number: sweep(name, number, seed))
                    for name, number in numbers.items()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
