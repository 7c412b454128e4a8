#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Linkage is legible: nm over the objects and the library.

    memslot_*       exported                     default visibility
    ms_<file>_*     shared between files         hidden; <file>: its own, or a header of its room
    no prefix       static

usage: symbols.py SOURCE_ROOT LIBRARY STATIC_LIBRARY     (TAP on standard output)
"""
import pathlib
import re
import sys

import tap

root, library, archive = None, None, None


def objects():
    """{object file name: {symbol: (binding, visibility, defined)}}, by readelf."""
    status, output = tap.command(["readelf", "--wide", "--symbols", archive])
    if status:
        raise RuntimeError(output)
    found, current = {}, None
    for line in output.splitlines():
        # a thin archive's members are told in brackets, a real one's in parentheses
        head = re.match(r"File: .*[\[(](?:.*/)?([^/\[\]()]+)[\])]$", line)
        if head:
            current = found.setdefault(head[1], {})
        row = line.split()
        if current is not None and len(row) >= 8 and row[0].endswith(":") and row[0][:-1].isdigit():
            current[row[7]] = (row[4], row[5], row[6] != "UND")
    return found


def shared_symbols():
    """(object, source file stem, symbol, visibility) of everything that is not static."""
    for name, symbols in objects().items():
        stem = re.sub(r"\.c\.o$", "", name).split("_")[-1] if "_" in name else name[:-2]
        for symbol, (binding, visibility, defined) in symbols.items():
            if binding != "LOCAL" and defined and re.match(r"[A-Za-z]", symbol):
                yield name, stem, symbol, visibility


def rooms():
    """{source stem: the stems of all files of its room}"""
    table = {}
    for folder in (root / "lib").iterdir():
        if folder.is_dir():
            stems = {path.stem for path in folder.glob("*.[ch]")}
            for stem in stems:
                table.setdefault(stem, set()).update(stems | {folder.name})
    return table


def objects_are_found():
    named = {name for name, *_ in shared_symbols()}
    sources = list((root / "lib").rglob("*.c"))
    return [] if len(named) >= len(sources) * 3 // 4 else [f"only {len(named)} objects in {archive}"]


def every_shared_name_has_its_prefix():
    wrong, table = [], rooms()
    for name, stem, symbol, _ in shared_symbols():
        if symbol.startswith("memslot_"):
            continue
        owners = table.get(stem, {stem})
        if not any(symbol == f"ms_{owner}" or symbol.startswith(f"ms_{owner}_") for owner in owners):
            wrong.append(f"{name}: {symbol} is neither memslot_* nor ms_<file>_*")
    return wrong


def visibility_follows_the_prefix():
    wrong = []
    for name, _, symbol, visibility in shared_symbols():
        want = "DEFAULT" if symbol.startswith("memslot_") else "HIDDEN"
        # What only the build for tests has is open to the tests.
        if visibility != want and not symbol.startswith("ms_os_inject"):
            wrong.append(f"{name}: {symbol} is {visibility}, not {want}")
    return wrong


def the_library_exports_memslot_names_only():
    status, output = tap.command(["nm", "-D", "--defined-only", library])
    names = [line.split()[-1].split("@")[0] for line in output.splitlines()]
    if status or not names:
        return [f"nm says nothing of {library}", *output.splitlines()]
    return [f"exports {name}" for name in names
            if not name.startswith("memslot_") and not name.startswith("LIBMEMSLOT_")]


def the_tests_hooks_are_not_in_the_library():
    _, output = tap.command(["nm", library])
    return [line for line in output.splitlines() if "inject" in line]


def main():
    global root, library, archive
    root = pathlib.Path(sys.argv[1]).resolve()
    library, archive = sys.argv[2], sys.argv[3]
    tests = [objects_are_found, every_shared_name_has_its_prefix, visibility_follows_the_prefix,
             the_library_exports_memslot_names_only, the_tests_hooks_are_not_in_the_library]
    return tap.run([(test.__name__, test) for test in tests])


if __name__ == "__main__":
    sys.exit(main())
