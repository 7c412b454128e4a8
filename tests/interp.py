#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Interpreters that are booted once: `memslot lua` and `memslot duk` do what they say, and leak nothing.

usage: interp.py MEMSLOT     (TAP on standard output)

The process may have so few descriptors open that a few files left open would be noticed by open(2).
"""
import functools
import json
import os
import resource
import sys
import tempfile

import tap

INTERPRETERS = ["lua", "duk"]
# How many of the requests that misbehave end how.
ENDS = {"deadline", "out_of_memory", "raised", "answered"}
DESCRIPTORS = 64
memslot = None


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


@functools.lru_cache
def run(name, *arguments):
    """(exit status, output); raises Skip where the command was built without the interpreter."""
    status, output = tap.command([memslot, name, "--requests", "60", *arguments],
                                 preexec_fn=few_descriptors)
    if status == 1 and "built without" in output:
        raise tap.Skip(output.strip())
    return status, output


def report(name):
    status, output = run(name, "--json")
    if status:
        raise tap.Skip(f"{name} does not serve")
    return json.loads(output)


def serves(name):
    status, output = run(name, "--json")
    return tap.wrong(status, output, name)


def differences(pairs):
    return [f"{what}: {found}, not {wanted}" for what, found, wanted in pairs if found != wanted]


def leaks_no_files(name):
    """10000 requests, of whose three files one is closed."""
    found = report(name)
    return differences([
        ("requests", found["files"]["requests"], 10000),
        ("opened", found["files"]["opened"], 30000),
        ("left open", found["files"]["left_open"], 20000),
        ("descriptors", found["descriptors"]["after"], found["descriptors"]["before"])])


def rewinds_rogues(name):
    """Some end in every way, and after each the next one is right."""
    rogues = report(name)["rogues"]
    return [f"no request ended so: {end}" for end in ENDS if not rogues[end]] + differences([
        ("right after", rogues["right_after"], sum(rogues[end] for end in ENDS))])


def shares_a_pool(name):
    pool = report(name)["pool"]
    return differences([
        ("slots", pool["slots"], 2 * pool["threads"]), ("boots", pool["boots"], 2 * pool["slots"]),
        ("right after", pool["rogues"]["right_after"], sum(pool["rogues"][end] for end in ENDS)),
        ("left open", pool["files"]["left_open"], 2 * pool["files"]["requests"])]) + [
            f"no {what}" for what in ("requests", "slots") if not pool[what]]


def wrong_answers_are_noticed(name):
    """A script whose answer differs from request to request."""
    script = {"lua": "return tostring({})", "duk": "performance.now()"}[name]
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(script)
        file.flush()
        status, output = run(name, file.name)
    if status != 1 or "a request answered" not in output:
        return [f"exit status {status}", *output.splitlines()]
    return []


def answers_from_a_file(name):
    """--save boots, --open answers in another process what --once does."""
    with tempfile.TemporaryDirectory() as folder:
        status, output = tap.command([memslot, name, "--save", f"{folder}/image", "--json"])
        if "built without" in output or "randomization" in output:
            raise tap.Skip(output.strip())
        if status:
            return tap.wrong(status, output, "--save")
        opened = tap.command([memslot, name, "--open", f"{folder}/image"])
    once = tap.command([memslot, name, "--once"])
    return differences([("--open", opened, once), ("--once", once[0], 0)])


def refuses_foreign_files(name):
    """A file of the other interpreter, one without a heap at another address, and one at the same."""
    other = {"lua": "duk", "duk": "lua"}[name]
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        status, output = tap.command([memslot, other, "--save", f"{folder}/other", "--json"])
        if "built without" in output or "randomization" in output:
            raise tap.Skip(output.strip())
        if status:
            return tap.wrong(status, output, "--save")
        with open(f"{folder}/raw", "wb") as file:
            file.write(b"no heap" * 4096)
        for to, base in (("elsewhere", "0x300000000000"), ("here", "0x200000000000")):
            tap.command([memslot, "image", "build", "--base", base, "-o", f"{folder}/{to}",
                         f"{folder}/raw"])
        for file in ("other", "elsewhere", "here"):
            status, output = tap.command([memslot, name, "--open", f"{folder}/{file}"])
            if "built without" in output:
                raise tap.Skip(output.strip())
            if status != 1 or f"{file}: not a file of 'memslot {name} --save'" not in output:
                wrong += [f"{file}: exit status {status}", *output.splitlines()]
    return wrong


def main():
    global memslot
    memslot = os.path.abspath(sys.argv[1])
    return tap.run([(f"{name} {test.__name__.replace('_', ' ')}", functools.partial(test, name))
                    for name in INTERPRETERS
                    for test in (serves, leaks_no_files, rewinds_rogues, shares_a_pool,
                                 wrong_answers_are_noticed, answers_from_a_file,
                                 refuses_foreign_files)])


if __name__ == "__main__":
    sys.exit(main())
