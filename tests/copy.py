#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""memslot copy: every byte of every kind of file, and what is left when it fails.

usage: copy.py MEMSLOT     (TAP on standard output)
"""
import contextlib
import functools
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

import tap

memslot = None
folder = None  # on a disk, most likely
seed = int(os.environ.get("MEMSLOT_TEST_SEED") or random.randrange(1 << 31))


def copy(source, target, *options, disable="", **more):
    inherited = os.environ.get("MEMSLOT_DISABLE", "")
    env = {**os.environ, "MEMSLOT_DISABLE": ",".join(filter(None, [inherited, disable]))}
    return tap.command([memslot, "copy", *options, source, target], env=env, **more)


def files():
    """Whole, empty, tiny, unaligned, sparse at either end and in the middle."""
    rng = random.Random(seed)
    for size in (0, 1, 511, 4096, 65536, 65537, 3 * 65536 - 1, 1500001):
        yield f"{size}", size, [(0, rng.randbytes(size))]
    yield "hole", 3 << 20, []
    yield "hole in front", 2 << 20, [((2 << 20) - 5000, rng.randbytes(5000))]
    yield "hole behind", (2 << 20) + 77, [(0, rng.randbytes(5000))]
    yield "islands", 4 << 20, [(at, rng.randbytes(9000)) for at in range(100001, 4 << 20, 700001)]


def make_files():
    for name, size, pieces in files():
        with open(folder / name, "wb") as file:
            file.truncate(size)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)


def every_byte(options, disable, where):
    problems = []
    target = where / "copy"
    for name, size, _ in files():
        source = folder / name
        status, output = copy(source, target, "--check", *options, disable=disable)
        problems += tap.wrong(status, output, name)
        if status == 0 and target.read_bytes() != source.read_bytes():
            problems.append(f"{name}: the copy differs, and --check did not see it")
        if status == 0 and "hole" in name and target.stat().st_blocks > size / 2 / 512:
            problems.append(f"{name}: {target.stat().st_blocks} blocks")
    target.unlink(missing_ok=True)
    return problems


def ways(memory):
    rows = [("fixed", [], ""), ("plain", ["--plain"], ""), ("cached", ["--cached"], ""),
            ("small", ["-b", "4K", "-d", "3"], ""), ("large", ["-b", "1M", "-d", "256"], ""),
            ("without uring_fixed", [], "uring_fixed"), ("without io_uring", [], "io_uring"),
            ("plain without io_uring", ["--plain"], "io_uring"), ("without all", [], "all")]
    for name, options, disable in rows:
        yield name, functools.partial(every_byte, options, disable, folder)
        if memory:
            yield (f"{name}, to memory",
                   functools.partial(every_byte, options, disable, pathlib.Path(memory)))


# Before the first write, where room is reserved, and in the middle.
FAILING = [([], ""), (["--cached"], ""), ([], "io_uring"), (["--cached"], "io_uring"),
           (["--cached", "--plain", "-b", "16K"], "")]


def limited(size):
    return functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))


def a_copy_that_fails_leaves_what_was_there():
    problems = []
    target = folder / "target"
    for options, disable in FAILING:
        target.write_text("old")
        before = set(os.listdir(folder))
        status, output = copy(folder / "1500001", target, *options, disable=disable,
                              preexec_fn=limited(1000001))
        if status != 1 or "larger than the limit" not in output or target.read_text() != "old" or \
                set(os.listdir(folder)) != before:
            problems.append(f"{options} without {disable}: {status}: {output}")
    return problems


def unmount(where):
    """The kernel may hold files of a ring for a while after its process has ended: io_uring takes
    rings down by a worker of its own. What stays busy is detached, so that nothing is left."""
    status, output = tap.command(["umount", where])
    deadline = time.monotonic() + 60
    while status and time.monotonic() < deadline:
        time.sleep(0.01)
        status, output = tap.command(["umount", where])
    if status:
        tap.command(["umount", "-l", where])
        raise OSError(output.strip())


@contextlib.contextmanager
def small_disk(where):
    """A file system of 1 MiB that is full in the middle of the copy; root only."""
    where.mkdir()
    status, output = tap.command(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where])
    if status:
        where.rmdir()
        raise tap.Skip(f"cannot mount: {output.strip()}")
    try:
        yield where
    finally:
        unmount(where)
        where.rmdir()


def a_full_disk_is_told():
    problems = []
    with small_disk(folder / "disk") as disk:
        for options, disable in FAILING:
            status, output = copy(folder / "1500001", disk / "copy", *options, disable=disable)
            if status != 1 or "No space" not in output or os.listdir(disk):
                problems.append(f"{options} without {disable}: {status}, {os.listdir(disk)}: {output}")
    return problems


def an_interrupted_copy_leaves_nothing():
    target = folder / "interrupted"
    large = folder / "large"
    with open(large, "wb") as file:
        for _ in range(64):
            file.write(random.randbytes(1 << 20))
    process = subprocess.Popen([memslot, "copy", "-b", "4K", "-d", "1", large, target],
                               stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(folder.glob("interrupted.*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=60)
    large.unlink()
    left = list(folder.glob("interrupted*"))
    if process.returncode == 0:
        raise tap.Skip("it was faster than the signal")
    return [] if process.returncode == 1 and "interrupted" in output and not left else [
        f"{process.returncode}, {left}: {output}"]


def what_cannot_be_copied_is_refused():
    problems = []
    os.link(folder / "1", folder / "again")
    rows = [(folder / "1", folder / "1", 1), (folder / "1", folder / "again", 1),
            (folder / "1", folder, 1), (folder, folder / "x", 1), (folder / "none", folder / "x", 1),
            ("/dev/null", folder / "x", 1), (folder / "1", "/dev/null", 1),
            (folder / "1", folder / "none" / "x", 1)]
    for source, target, wanted in rows:
        status, output = copy(source, target)
        if status != wanted or "memslot:" not in output:
            problems.append(f"{source} {target}: {status}: {output}")
    for options in (["-b", "5000"], ["-b", "2K"], ["-d", "0"], ["-d", "1000"], ["--compare", "--plain"]):
        status, output = copy(folder / "1", folder / "x", *options)
        problems += [] if status == 2 else [f"{options}: {status}: {output}"]
    (folder / "again").unlink()
    return problems + (["something was made"] if (folder / "x").exists() else [])


def the_mode_is_copied():
    source = folder / "mode"
    source.write_text("x")
    problems = []
    for mode in (0o600, 0o444, 0o751):
        source.chmod(mode)
        status, output = copy(source, folder / "mode copy")
        got = (folder / "mode copy").stat().st_mode & 0o7777
        problems += tap.wrong(status, output, f"{mode:o}") + ([] if got == mode else [f"{got:o}"])
    return problems


def both_ways_are_compared_in_one_run():
    status, output = copy(folder / "1500001", folder / "copy", "--compare=3", "--json")
    if status:
        return [output]
    copies = json.loads(output)["copies"]
    ways_seen = [each["plain"] for each in copies]
    good = all(each["reads"] >= 23 and each["writes"] >= 23 for each in copies)
    return [] if ways_seen == [False] * 3 + [True] * 3 and good else [output]


def progress_is_shown_when_asked():
    status, output = copy(folder / "1500001", folder / "copy", "--progress")
    return tap.wrong(status, output, "--progress")


def main():
    global memslot, folder
    memslot = sys.argv[1]
    print(f"seed {seed}", file=sys.stderr)
    random.seed(seed)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as scratch:
        folder = pathlib.Path(scratch)
        make_files()
        tests = [(test.__name__, test) for test in (
            a_copy_that_fails_leaves_what_was_there, a_full_disk_is_told,
            an_interrupted_copy_leaves_nothing, what_cannot_be_copied_is_refused,
            the_mode_is_copied, both_ways_are_compared_in_one_run, progress_is_shown_when_asked)]
        with contextlib.ExitStack() as stack:
            memory = pathlib.Path("/dev/shm")
            other = stack.enter_context(tempfile.TemporaryDirectory(dir=memory)) \
                if memory.is_dir() else None
            return tap.run([*ways(other), *tests])


if __name__ == "__main__":
    sys.exit(main())
