# SPDX-License-Identifier: MIT
"""TAP for the tests written in Python, and how a build was configured.

A test is a function that returns nothing (passed) or a list of lines (what is wrong), and raises
Skip when it cannot run here. run() prints TAP and returns the exit status.
"""
import json
import os
import pathlib
import subprocess
import traceback


class Skip(Exception):
    """This test cannot run here; the reason is the message."""


def command(args, **more):
    """Run a command and return (status, everything it printed)."""
    if "input" not in more:
        more["stdin"] = subprocess.DEVNULL
    done = subprocess.run([str(arg) for arg in args], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=120, check=False, **more)
    return done.returncode, done.stdout


def wrong(status, output, what):
    """The lines that say that a command failed; none when it did not."""
    if status == 0:
        return []
    return [f"{what}: exit status {status}", *output.splitlines()[:40]]


def attempt(test):
    """Run one test: (problems, reason for skipping)."""
    try:
        return test() or [], None
    except Skip as reason:
        return [], str(reason)
    except Exception:  # a broken test is a failed test
        return traceback.format_exc().splitlines(), None


def run(tests):
    """tests: (name, function) pairs."""
    failed = 0
    print("TAP version 13", f"1..{len(tests)}", sep="\n", flush=True)
    for number, (name, test) in enumerate(tests, 1):
        problems, skipped = attempt(test)
        failed += bool(problems)
        verdict = "not ok" if problems else "ok"
        note = f" # SKIP {skipped}" if skipped else ""
        print(f"{verdict} {number} - {name}{note}", flush=True)
        for line in problems:
            print(f"# {line}", flush=True)
    return 1 if failed or not tests else 0


def introspect(build, what):
    """One of the files in which Meson describes a build folder."""
    path = pathlib.Path(build) / "meson-info" / f"intro-{what}.json"
    return json.loads(path.read_text())


def build_option(build, name):
    """The value of an option of the build."""
    return next(o["value"] for o in introspect(build, "buildoptions") if o["name"] == name)


def compiler(build):
    """The C compiler of the build, as a list of words."""
    groups = [group for target in introspect(build, "targets")
              for group in target["target_sources"] if group.get("language") == "c"]
    return groups[0]["compiler"]


def cxx_of(cc):
    """The C++ compiler that belongs to a C compiler."""
    if "CXX" in os.environ:
        return os.environ["CXX"].split()
    swap = {"gcc": "g++", "clang": "clang++", "cc": "c++"}
    folder, name = os.path.split(cc[-1])
    stem, _, version = name.partition("-") if name.split("-")[0] in swap else (name, "", "")
    if stem not in swap:
        raise Skip(f"no C++ compiler known beside {name}")
    return [*cc[:-1], os.path.join(folder, swap[stem] + ("-" + version if version else ""))]


def sanitizer_flags(build):
    """What a program needs to be linked with the library of a sanitizer build."""
    value = build_option(build, "b_sanitize")
    value = value if isinstance(value, str) else ",".join(value)
    return [f"-fsanitize={value}"] if value not in ("", "none") else []
