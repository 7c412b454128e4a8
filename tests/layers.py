#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Who may look at whom: a room of lib/ only at rooms below it; only os.c talks to the kernel.

usage: layers.py SOURCE_ROOT     (TAP on standard output)
"""
import pathlib
import re
import sys

import tap

# From the bottom to the top: a room may include headers of itself and of the rooms listed here, and
# the public headers named. A new room is a new line.
ROOMS = {
    "base": ([], ["base"]),
    "image": (["base"], ["base", "image"]),
    "slot": (["base", "image"], ["base", "image", "slot"]),
    "pool": (["base", "image", "slot"], ["base", "image", "slot", "pool"]),
    "ranges": (["base", "image", "slot", "pool"], ["base", "slot", "pool", "ranges"]),
    "preload": (["base"], ["preload"]),
    "heap": (["base", "image", "slot", "ranges"], ["base", "slot", "heap"]),
    "buffers": (["base", "image", "slot", "pool"], ["base", "slot", "pool", "buffers"]),
}
# Public headers: which others they may include; besides, only these of the C library.
PUBLIC = {"base": [], "image": ["base"], "slot": ["base", "image"],
          "pool": ["base", "image", "slot"],
          "ranges": ["base", "pool", "slot"], "heap": ["base", "slot"],
          "buffers": ["base", "pool"],
          "preload": []}
PUBLIC_SYSTEM = {"stddef.h", "stdint.h"}
# The only file that makes system calls, and the only one that may know liburing.
KERNEL = "lib/base/os.c"
RING = "lib/buffers/ring.c"
CALLS = re.compile(r"(?<![\w.>])(mmap|mmap64|munmap|mremap|mprotect|madvise|process_madvise|mlock2?|"
                   r"munlock|memfd_create|ioctl|prctl|pkey_\w+|syscall|getrusage|open|openat|read|"
                   r"write|pread|pwrite|close|fstat|ftruncate|rename|unlink|dup|fcntl|"
                   r"sigaction|signal|pthread_create|printf|fprintf|puts|perror|exit|_exit|abort"
                   r")\s*\(")

root = None


def sources(*folders):
    return sorted(path for folder in folders for path in (root / folder).rglob("*.[ch]"))


def code(path):
    """The text without comments and strings, line numbers kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())
    text = path.read_text()
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", blank, text,
                  flags=re.S)


def includes(path):
    """(line number, "quoted" or "system", name)"""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r"\s*#\s*include\s*([\"<])([^\">]+)[\">]", line)
        if found:
            yield number, "quoted" if found[1] == '"' else "system", found[2]


def where(path, number, message):
    return f"{path.relative_to(root)}:{number}: {message}"


def check_include(path, room, kind, name):
    """What is wrong with an include of a file in a room, or None."""
    below, public = ROOMS[room]
    if name == "liburing.h" and str(path.relative_to(root)) != RING:
        return f"only {RING} may include liburing.h"
    if kind == "system":
        if name == "memslot.h":
            return "the library includes single public headers"
        if name.startswith("memslot/") and name[8:-2] not in public:
            return f"{room} may not include <{name}>"
        return None
    if "/" not in name:
        return None if (path.parent / name).exists() else f"no {name} beside it"
    other = name.split("/")[0]
    if not (root / "lib" / name).exists():
        return f"no lib/{name}"
    if other != room and other not in below:
        return f"{room} may not look at {other}"
    return None


def rooms_look_down_only():
    wrong = []
    for path in sources("lib"):
        parts = path.relative_to(root / "lib").parts
        if len(parts) != 2 or parts[0] not in ROOMS:
            wrong.append(where(path, 1, "in no room that layers.py knows"))
            continue
        for number, kind, name in includes(path):
            problem = check_include(path, parts[0], kind, name)
            if problem:
                wrong.append(where(path, number, problem))
    return wrong


def public_headers_stand_alone():
    wrong = []
    for path in sources("include"):
        for number, _, name in includes(path):
            if path.name == "memslot.h" or name in PUBLIC_SYSTEM:
                continue
            allowed = [f"memslot/{other}.h" for other in PUBLIC.get(path.stem, [])]
            if name not in allowed:
                wrong.append(where(path, number, f"may not include {name}"))
    if not (root / "include/memslot/base.h").exists():
        wrong.append("no public headers found")
    return wrong


def only_os_c_talks_to_the_kernel():
    wrong, own = [], 0
    for path in sources("lib"):
        for number, line in enumerate(code(path).splitlines(), 1):
            found = CALLS.search(line)
            if found and str(path.relative_to(root)) == KERNEL:
                own += 1
            elif found and not re.match(r"\s*MS_(HIDDEN|EXPORT)\b", line):
                wrong.append(where(path, number, f"calls {found[1]}"))
    if own == 0:
        wrong.append(f"{KERNEL} makes no system call: is the pattern still right?")
    return wrong


def os_c_goes_by_syscall():
    """An interposed mmap must not be called back: INVARIANTS 28."""
    text = code(root / KERNEL)
    calls = re.findall(r"(?<![\w.>])(mmap|munmap|mprotect|madvise|memfd_create|ioctl)\s*\(", text)
    return [f"{KERNEL} calls {name}() itself" for name in calls]


def tools_and_examples_use_the_public_headers():
    wrong = []
    for path in sources("tools"):
        for number, kind, name in includes(path):
            if kind == "quoted" and "/" in name:
                wrong.append(where(path, number, f"looks inside the library: {name}"))
    return wrong


def every_file_names_its_licence():
    return [where(path, 1, "no SPDX line") for path in sources("include", "lib", "tests", "tools")
            if "SPDX-License-Identifier: MIT" not in path.read_text()[:200]]


def the_fallback_suites_name_every_feature():
    rows = re.findall(r"^\s*X\(\w+, (\w+)\)", (root / "lib/base/feature.h").read_text(), re.M)
    text = (root / "tests/meson.build").read_text()
    listed = re.findall(r"'(\w+)'", re.search(r"^features = \[(.*?)\]", text, re.M | re.S)[1])
    if not rows:
        return ["no features found in lib/base/feature.h"]
    return [f"{name}: in one list only" for name in sorted({"all", *rows} ^ set(listed))]


def main():
    global root
    root = pathlib.Path(sys.argv[1]).resolve()
    tests = [rooms_look_down_only, public_headers_stand_alone, only_os_c_talks_to_the_kernel,
             os_c_goes_by_syscall, tools_and_examples_use_the_public_headers,
             every_file_names_its_licence, the_fallback_suites_name_every_feature]
    return tap.run([(test.__name__, test) for test in tests])


if __name__ == "__main__":
    sys.exit(main())
