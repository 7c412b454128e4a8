#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What mmap promises holds under the preload: each rule is run plainly and under it, and compared.

usage: preload.py RULES MEMSLOT [--trust-engine]     (TAP on standard output)

RULES is tests/preload_rules.c, MEMSLOT the command. A rule must also have been answered from slots,
or it would prove nothing. With --trust-engine only those rules are run that still hold then.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import tap

# What is noticed only where the kernel tells what is mapped.
ASKING = {"raw_calls_may_close", "raw_calls_may_map_over", "freed_ranges_may_be_mapped_past_us",
          "what_is_not_open_may_be_moved"}
# What a trusted engine does not do: look at what it has not opened, or has unmapped; call past us.
STRICT = {
    "nothing_is_accessible_until_it_is_opened", "use_after_unmap_faults", "memory_may_be_read_only",
    "two_runs_may_be_open", "a_guard_may_lie_in_front", "sizes_are_rounded_to_pages",
    "parts_may_be_unmapped", "an_unmap_may_span_two", "trims_are_unmapped",
    "memory_may_be_committed_by_mapping_over", "mapping_over_gives_zeros",
    "files_may_be_mapped_inside", "a_heap_is_never_taken", "mremap_moves_and_resizes", "odd_unmaps_are_answered",
    "fixed_without_replacing",
    "freed_ranges_are_not_there", "trimmed_parts_are_not_there", "live_ranges_answer",
    "advice_is_not_inherited", "names_are_not_inherited", "locks_are_not_inherited",
    "code_is_not_inherited", "keys_are_not_inherited", "advice_of_others_is_not_inherited",
    "a_fork_copies", "a_raw_clone_copies", "another_thread_may_unmap", "fault_handlers_may_map",
    "raw_calls_may_open_more", "raw_calls_may_close", "raw_calls_may_unmap",
    "raw_calls_may_map_over", "freed_ranges_may_be_mapped_past_us", "descriptors_may_be_closed",
    "pages_may_be_swapped", "random_lives", "writes_end_with_the_unmap",
}
rules, memslot, options = None, None, []


def run(command, environment):
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300,
                          stdin=subprocess.DEVNULL, check=False)
    return [*done.stdout.splitlines(), f"exit status {done.returncode}"]


def difference(plain, ours):
    """The first line that differs, with what led to it."""
    for number, (left, right) in enumerate(zip(plain, ours)):
        if left != right:
            return [f"line {number}:", *(f"  {line}" for line in plain[max(number - 4, 0):number]),
                    f"  plainly:           {left}", f"  under the preload: {right}"]
    return [f"{len(plain)} lines plainly, {len(ours)} under the preload", *ours[-3:]]


def feature(name):
    status, text = tap.command([memslot, "info", "--json"])
    assert status == 0, text
    return next(row["present"] for row in json.loads(text)["features"] if row["name"] == name)


@contextlib.contextmanager
def swap():
    """Some swap, where root may make it."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(bytes(32 << 20))
        file.flush()
        os.chmod(file.name, 0o600)
        made = shutil.which("mkswap") and shutil.which("swapon") and os.geteuid() == 0 and \
            tap.command(["mkswap", file.name])[0] == 0 and \
            tap.command(["swapon", file.name])[0] == 0
        if not made:
            raise tap.Skip("no swap to be had")
        try:
            yield
        finally:
            tap.command(["swapoff", file.name])


def rule(name, seed):
    if name in ASKING and not feature("procmap_query"):
        raise tap.Skip("the kernel does not tell what is mapped")
    with swap() if name == "pages_may_be_swapped" else contextlib.nullcontext():
        return compare(name, seed)


def reference(name, environment):
    """What the kernel answers. A run that broke off is no answer: it is asked again."""
    for _ in range(3):
        lines = run([rules, name], environment)
        if lines[-1] == "exit status 0":
            break
    return lines


def compare(name, seed):
    environment = {**os.environ, "MEMSLOT_TEST_SEED": str(seed)}
    if environment.get("MEMSLOT_DISABLE"): # one of many runs
        environment.setdefault("MEMSLOT_TEST_ROUNDS", "0.2")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "stats.json"
        plain = reference(name, environment)
        ours = run([memslot, "run", *options, f"--stats=json:{path}", "--", rules, name], environment)
        stats = json.loads(path.read_text())
    problems = [] if plain == ours else [f"seed {seed}", *difference(plain, ours)]
    if not stats["hits"] and not stats["off"]:
        problems.append(f"no slot was used: {stats}")
    return problems


def main(arguments):
    global rules, memslot
    rules, memslot = arguments[:2]
    options.extend(arguments[2:])
    names = subprocess.run([rules], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if unknown := STRICT - set(names):
        sys.exit(f"no such rules: {unknown}")
    if options:
        names = [name for name in names if name not in STRICT]
    seed = int(os.environ.get("MEMSLOT_TEST_SEED") or "20240817", 0)
    print(f"seed {seed}", file=sys.stderr)
    return tap.run([(name, lambda name=name: rule(name, seed)) for name in names])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
