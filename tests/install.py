#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What `meson install` installs is whole: a C and a C++ program are built against it and run.

usage: install.py SOURCE_ROOT BUILD_ROOT [LIBRARY [CC...]]     (TAP on standard output)

Installs into a temporary folder (DESTDIR), compares the files there with what the source says there
should be, and builds tests/install/program.c and .cpp with what pkg-config answers about that folder.
"""
import os
import pathlib
import shutil
import sys
import tempfile

import roff
import tap

source, build, cc = None, None, None
staging, prefix = None, None  # the DESTDIR; where the prefix is inside it
WARN = ["-Wall", "-Wextra", "-Werror", "-pedantic"]


def option(name):
    return tap.build_option(build, name)


def meson():
    found = os.environ.get("MESON") or shutil.which("meson")
    return [found] if found else [sys.executable, "-m", "mesonbuild.mesonmain"]


def installs():
    """Quietly, without building anything and without asking for rights."""
    status, output = tap.command([*meson(), "install", "-C", build, "--no-rebuild", "--quiet",
                                  "--destdir", staging])
    return tap.wrong(status, output, "meson install")


def installed():
    """Every file and link below the prefix, as relative paths."""
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*")
            if path.is_symlink() or path.is_file()}


# --- what should be there ---

def headers():
    folder = source / "include"
    return {f"{option('includedir')}/{path.relative_to(folder)}" for path in folder.rglob("*.h")}


def version():
    return tap.introspect(build, "projectinfo")["version"]


def libraries():
    """The shared object, the name that programs are linked to, and the one that linkers look for."""
    _, minor, patch = version().split(".")
    folder = option("libdir")
    return {f"{folder}/libmemslot.so", f"{folder}/libmemslot.so.0",
            f"{folder}/libmemslot.so.0.{minor}.{patch}",
            f"{folder}/pkgconfig/libmemslot.pc"} | preload()


def preload():
    if option("b_sanitize") != "none":
        return set()
    return {f"{option('libdir')}/libmemslot-preload.so"}


def man_pages():
    """Pages, and an alias for each further name that a page has."""
    pages = list((source / "man").glob("*.[1-9]"))
    if not option("tools"):
        pages = [path for path in pages if path.suffix != ".1"]
    names = {path.name for path in pages}
    for path in (path for path in pages if path.suffix == ".3"):
        names |= {f"{name}.3" for name in roff.names(roff.sections(path.read_text()))}
    return {f"{option('mandir')}/man{name[-1]}/{name}" for name in names}


def the_command():
    if not option("tools"):
        return set()
    completion = {f"{option('datadir')}/bash-completion/completions/memslot"}
    return {f"{option('bindir')}/memslot"} | completion


def files_are_right():
    wanted, found = headers() | libraries() | man_pages() | the_command(), installed()
    return ([f"missing: {name}" for name in sorted(wanted - found)] +
            [f"not expected: {name}" for name in sorted(found - wanted)])


def links_are_right():
    """libmemslot.so -> libmemslot.so.0 -> the shared object, whose soname is the middle one."""
    folder = prefix / option("libdir")
    status, output = tap.command(["readelf", "-d", folder / "libmemslot.so"])
    problems = tap.wrong(status, output, "readelf")
    if "soname: [libmemslot.so.0]" not in output:
        problems.append("the soname is not libmemslot.so.0")
    if (folder / "libmemslot.so").resolve() != (folder / "libmemslot.so.0").resolve():
        problems.append("libmemslot.so and libmemslot.so.0 are different files")
    return problems


def aliases_lead_to_pages():
    folder = prefix / option("mandir")
    problems = []
    for page in folder.rglob("*.3"):
        first = page.read_text().splitlines()[0]
        if first.startswith(".so ") and not (folder / first[4:]).is_file():
            problems.append(f"{page.name}: {first}")
    return problems


# --- using it ---

def pkg_config(*questions):
    """The answer, for files in the staging folder; -I and -L are turned to it."""
    environment = {**os.environ, "PKG_CONFIG_SYSROOT_DIR": str(staging),
                   "PKG_CONFIG_PATH": str(prefix / option("libdir") / "pkgconfig")}
    program = os.environ.get("PKG_CONFIG", "pkg-config")
    if not shutil.which(program):
        raise tap.Skip("no pkg-config")
    status, output = tap.command([program, *questions, "libmemslot"], env=environment)
    assert status == 0, output
    return output.split()


def pkg_config_knows_the_version():
    found = pkg_config("--modversion")
    return [] if found == [version()] else [f"pkg-config says {found}, Meson {version()}"]


def builds_and_runs(compiler, standard, name):
    program = pathlib.Path(staging) / name.replace(".", "_")
    flags = [f"-std={standard}", *WARN, *tap.sanitizer_flags(build)]
    status, output = tap.command([*compiler, *flags, source / "tests" / "install" / name,
                                  "-o", program, *pkg_config("--cflags", "--libs")])
    if status:
        return tap.wrong(status, output, " ".join(compiler))
    status, output = tap.command([program], env=run_environment())
    return tap.wrong(status, output, name)


def run_environment():
    return {**os.environ, "LD_LIBRARY_PATH": str(prefix / option("libdir"))}


def c_program():
    return builds_and_runs(cc, "c99", "program.c")


def cxx_program():
    return builds_and_runs(tap.cxx_of(cc), "c++11", "program.cpp")


def command_runs():
    if not option("tools"):
        raise tap.Skip("built without the command")
    status, output = tap.command([prefix / option("bindir") / "memslot", "--version"],
                                 env=run_environment())
    if status == 0 and version() not in output:
        return [f"it says {output.strip()}"]
    return tap.wrong(status, output, "memslot --version")


def main(arguments):
    global source, build, cc, staging, prefix
    if len(arguments) < 2:
        sys.exit(__doc__.split("\n\n")[1])
    source, build = (pathlib.Path(path).resolve() for path in arguments[:2])
    cc = arguments[3:] or tap.compiler(build)
    with tempfile.TemporaryDirectory(prefix="memslot-") as folder:
        staging = pathlib.Path(folder)
        prefix = staging / option("prefix").lstrip("/")
        return tap.run([
            ("meson install works", installs),
            ("the installed files are the right ones", files_are_right),
            ("the shared object has its names", links_are_right),
            ("every alias leads to a page", aliases_lead_to_pages),
            ("pkg-config knows the version", pkg_config_knows_the_version),
            ("a C program is built against it and runs", c_program),
            ("a C++ program is built against it and runs", cxx_program),
            ("the memslot command runs", command_runs),
        ])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
