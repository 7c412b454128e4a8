#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The surface holds together: headers = version map = exported symbols = man pages = README.

usage: surface.py SOURCE_ROOT BUILD_ROOT [LIBRARY [CC...]]     (TAP on standard output)

How errors are matched. The header gives each function an `Errors:` key, and may give common codes
in the `Errors:` key of its opening comment. In a page, a code counts where it is the tag of a
paragraph of ERRORS (.TP); below `.SS f(), g()` it speaks for f and g, otherwise for every function
of the page. For each function: codes of its own key <= codes of the page <= those and the common
ones; `Errors: none` means no code at all. Each common code must be on some page of its header.
"""
import functools
import os
import pathlib
import re
import shutil
import sys
import tempfile

import roff
import tap

SECTIONS = ("NAME", "LIBRARY", "SYNOPSIS", "DESCRIPTION", "RETURN VALUE", "ERRORS", "ATTRIBUTES",
            "VERSIONS", "NOTES", "EXAMPLES", "SEE ALSO")
WARN = ["-Wall", "-Wextra", "-Werror"]
CODE = re.compile(r"-E[A-Z0-9]+")

source, build, cc = None, None, None


# --- the headers ---

@functools.lru_cache
def headers():
    return sorted((source / "include").rglob("*.h"))


def comment_text(comment):
    """The words of a C comment, without its frame."""
    body = comment.removeprefix("/*").removesuffix("*/")
    return "\n".join(re.sub(r"^\s*\* ?", "", line) for line in body.splitlines())


def errors_key(text):
    """What `Errors:` says in a comment, None where there is no such key."""
    found = re.search(r"\bErrors:\s*(.*?)(?=\n[A-Z][a-z]+:|\n\s*\n|\Z)", text, re.S)
    return found.group(1) if found else None


COMMENT = r"/\*(?:[^*]|\*(?!/))*\*/"
CONTRACT = re.compile(rf"({COMMENT})\n([^;{{}}#/]*?\b(memslot_\w+)\([^;{{}}]*\));")


@functools.lru_cache
def contracts():
    """{function: (declaration, own Errors key, common codes)} for all headers."""
    found = {}
    for header in headers():
        text = header.read_text()
        common = errors_key(comment_text(re.findall(COMMENT, text)[1])) or ""
        for comment, declaration, name in CONTRACT.findall(text):
            own = errors_key(comment_text(comment))
            found[name] = (squeeze(declaration), own, set(CODE.findall(common)))
    return found


def squeeze(code):
    """One line, single spaces, none beside punctuation."""
    return re.sub(r"\s*([(),*;{}])\s*", r"\1", " ".join(code.split()))


def strip_comments(text):
    return re.sub(COMMENT, " ", text)


def declared():
    """Every function that the headers declare, with a contract or without."""
    status, text = tap.command([*cc, "-E", "-P", "-I", source / "include", "-x", "c",
                                source / "include" / "memslot.h"])
    assert status == 0, text
    while re.search(r"\{[^{}]*\}", text):
        text = re.sub(r"\{[^{}]*\}", " ", text)
    return set(re.findall(r"\b(memslot_\w+)\s*\(", text))


def difference(what, left, other, right):
    return ([f"{name}: in {what}, not in {other}" for name in sorted(left - right)] +
            [f"{name}: in {other}, not in {what}" for name in sorted(right - left)])


# --- the pages ---

@functools.lru_cache
def pages():
    """{file name: sections} of the pages of functions."""
    return {path.name: roff.sections(path.read_text())
            for path in sorted((source / "man").glob("*.3"))}


def page_functions():
    return [name for page in pages().values() for name in roff.names(page)]


# --- the tests ---

def headers_and_map():
    text = strip_comments((source / "lib" / "memslot.map").read_text())
    exported = set(re.findall(r"\b(memslot_\w+);", text.split("local:")[0]))
    return difference("the headers", declared(), "the map", exported)


def headers_and_library():
    status, text = tap.command(["nm", "-D", "--defined-only", library()])
    symbols = {line.split()[2].split("@")[0] for line in text.splitlines() if " A " not in line}
    return (tap.wrong(status, text, "nm") or
            difference("the headers", declared(), "the library", symbols))


def library():
    return build / "lib" / "libmemslot.so"


def headers_and_pages():
    functions = page_functions()
    twice = {name for name in functions if functions.count(name) > 1}
    return (difference("the headers", declared(), "the pages", set(functions)) +
            [f"{name}: on two pages" for name in sorted(twice)])


def contracts_complete():
    missing = declared() - set(contracts())
    return ([f"{name}: no comment in the header" for name in sorted(missing)] +
            [f"{name}: no Errors key" for name, (_, own, _) in contracts().items() if own is None])


def page_sections():
    problems = []
    for name, page in pages().items():
        if tuple(page) != SECTIONS:
            problems.append(f"{name}: has {', '.join(page)}")
        if roff.names(page)[0] != name.removesuffix(".3"):
            problems.append(f"{name}: NAME begins with {roff.names(page)[0]}")
    return problems


def all_pages():
    """(path, plain text) of every page, those that are not of functions too."""
    for path in sorted((source / "man").glob("*.[1-9]")):
        yield path, roff.plain(path.read_text().splitlines())


def references_lead_somewhere():
    """Each memslot...(N) in a page is a page or an alias."""
    known = {path.name for path, _ in all_pages()} | {f"{name}.3" for name in page_functions()}
    return [f"{path.name}: {name}({number})" for path, text in all_pages()
            for name, number in re.findall(r"\b(memslot[\w-]*)\((\d)\)", text)
            if f"{name}.{number}" not in known]


def pages_name_the_version():
    """The heading of a page names the release that it describes."""
    text = (source / "include" / "memslot" / "base.h").read_text()
    major, minor = re.findall(r"#define MEMSLOT_VERSION_M\w+ (\d+)", text)
    heading = re.compile(rf'^\.TH .*"libmemslot {major}\.{minor}"', re.M)
    return [path.name for path, _ in all_pages() if not heading.search(path.read_text())]


def aliases_generated():
    """Each further name of a page is an alias in the build folder, and nothing else is."""
    wanted = {f"{name}.3": f".so man3/{file}" for file, page in pages().items()
              for name in roff.names(page) if f"{name}.3" != file}
    found = {path.name: path.read_text().strip() for path in (build / "man").glob("*.3")}
    return difference("NAME", set(wanted.items()), "the aliases", set(found.items()))


def error_sets():
    problems, seen = [], {}
    for file, page in pages().items():
        for name, listed in roff.errors(page).items():
            _, own, common = contracts().get(name, ("", "", set()))
            seen.setdefault(frozenset(common), set()).update(listed)
            must = set(CODE.findall(own or ""))
            may = set() if (own or "").startswith("none") else must | common
            problems += [f"{file}: {name}: {code} missing" for code in sorted(must - listed)]
            problems += [f"{file}: {name}: {code} not in header" for code in sorted(listed - may)]
    for common, listed in seen.items():
        problems += [f"common {code}: on no page" for code in sorted(common - listed)]
    return problems


def defined_structs(text):
    """{struct name: fields, squeezed} in C text."""
    return {name: squeeze(body) for name, body in
            re.findall(r"struct (memslot_\w+) \{([^{}]*)\}", strip_comments(text))}


def structs_shown():
    """A struct that a page shows is the header's, and every public struct is shown."""
    wanted = defined_structs("\n".join(header.read_text() for header in headers()))
    shown, problems = set(), []
    for path in sorted((source / "man").glob("*.[37]")):
        page = roff.sections(path.read_text())
        for block in (b for lines in page.values() for b in roff.blocks(lines)):
            for name, body in defined_structs(block).items():
                shown.add(name)
                if body != wanted.get(name):
                    problems.append(f"{path.name}: struct {name} differs from the header")
    return problems + [f"struct {name}: on no page" for name in sorted(set(wanted) - shown)]


def constants_named():
    """Every public constant is on some page."""
    text = strip_comments("\n".join(header.read_text() for header in headers()))
    wanted = set(re.findall(r"#define (MEMSLOT_\w+)[( ]\S", text))
    for body in re.findall(r"enum \{([^{}]*)\}", text):
        wanted.update(re.findall(r"MEMSLOT_\w+", body))
    known = "\n".join(path.read_text() for path in (source / "man").glob("*.[37]"))
    return [f"{name}: on no page" for name in sorted(wanted)
            if not re.search(rf"\b{name}\b", known)]


def declarations(text):
    return {name: squeeze(whole) for whole, name in
            re.findall(r"([^;#>]*?\b(memslot_\w+)\([^;]*\));", text)}


def synopsis(page):
    """SYNOPSIS declares what NAME names, word for word as the header, and compiles with it."""
    text = roff.plain(page["SYNOPSIS"])
    found = declarations(re.sub(r"#.*", "", text))
    problems = difference("NAME", set(roff.names(page)), "SYNOPSIS", set(found))
    problems += [f"{name}: {line}\n#   header: {contracts()[name][0]}"
                 for name, line in found.items() if line != contracts()[name][0]]
    return problems + syntax(cc, ["-std=c11", "-x", "c"], text)


def syntax(compiler, flags, text):
    """Does it compile?"""
    status, output = tap.command([*compiler, *flags, *WARN, "-fsyntax-only", "-I",
                                  source / "include", "-"], input=text)
    return tap.wrong(status, output, " ".join(compiler))


def lua_flags(text):
    """What a program that includes Lua is compiled with: ([], []) without, skipped where it is not."""
    if not re.search(r"^#include <(?:lua5\.4/)?lua\.h>", text, re.M):
        return [], []
    for name in ("lua5.4", "lua-5.4") if shutil.which("pkg-config") else ():
        answers = [tap.command(["pkg-config", option, name]) for option in ("--cflags", "--libs")]
        if all(status == 0 for status, _ in answers):
            return [output.split() for _, output in answers]
    raise tap.Skip("no Lua 5.4")


def run_program(text, what):
    """Compile a C program against the build and run it, also with every feature switched off."""
    lua_cflags, lua_libs = lua_flags(text)
    with tempfile.TemporaryDirectory(prefix="memslot-") as folder:
        program = pathlib.Path(folder) / "example"
        flags = ["-std=gnu11", *WARN, "-O1", "-pthread", *lua_cflags, *tap.sanitizer_flags(build)]
        uring = ["-luring"] if "#include <liburing.h>" in text else []
        status, output = tap.command([*cc, *flags, "-I", source / "include", "-x", "c", "-",
                                      "-o", program, "-L", library().parent, "-lmemslot",
                                      *lua_libs, *uring], input=text)
        problems = tap.wrong(status, output, f"{what}: {' '.join(cc)}")
        for disable in ("", "all") if not problems else ():
            status, output = tap.command([program], cwd=folder, env=run_environment(disable))
            problems += tap.wrong(status, output, f"{what}, MEMSLOT_DISABLE={disable}")
    return problems


def run_environment(disable):
    paths = [str(library().parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths)),
            "MEMSLOT_DISABLE": disable}


def examples(page):
    found = roff.blocks(page["EXAMPLES"])
    if not found:
        return ["no example"]
    return [problem for text in found for problem in run_program(text, roff.names(page)[0])]


def overview_examples(path):
    """The examples of a page that is not of functions, which may have none."""
    found = roff.blocks(roff.sections(path.read_text()).get("EXAMPLES", []))
    return [problem for text in found for problem in run_program(text, path.name)]


def readme_program():
    """The first C block of README.md: 20 lines at most that compile and run."""
    found = re.findall(r"^```c\n(.*?)^```", (source / "README.md").read_text(), re.S | re.M)
    if not found:
        return ["README.md has no C program"]
    length = len(found[0].splitlines())
    return [f"{length} lines"] if length > 20 else run_program(found[0], "README.md")


def page_warnings():
    problems = []
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""}
    if not shutil.which("man"):
        raise tap.Skip("no man(1)")
    for path in (path for path, _ in all_pages()):
        status, output = tap.command(["sh", "-c", 'man --warnings -E UTF-8 -Tutf8 -Z -l "$0" '
                                      ">/dev/null", path], env=environment)
        problems += output.splitlines() or tap.wrong(status, "", path.name)
    return problems


def header_alone(header):
    """A public header compiles by itself, as strict C99 and as C++11."""
    name = header.relative_to(source / "include")
    text = f"#include <{name}>\n#include <{name}>\nint memslot_header_alone;\n"
    problems = syntax(cc, ["-std=c99", "-pedantic", "-Wundef", "-x", "c"], text)
    return problems + syntax(tap.cxx_of(cc), ["-std=c++11", "-pedantic", "-Wundef", "-x", "c++"],
                             text)


def tests():
    yield "headers and version map name the same functions", headers_and_map
    yield "headers and library export the same functions", headers_and_library
    yield "headers and man pages name the same functions", headers_and_pages
    yield "every function of the headers has its contract", contracts_complete
    yield "every page has its sections", page_sections
    yield "every further name of a page has its alias", aliases_generated
    yield "every reference to a page leads to one", references_lead_somewhere
    yield "every page names the version", pages_name_the_version
    yield "pages and headers give the same errors", error_sets
    yield "pages show the structs of the headers", structs_shown
    yield "every public constant is on a page", constants_named
    yield "man --warnings is silent", page_warnings
    yield "the program of README.md runs", readme_program
    for header in headers():
        yield f"{header.name} compiles alone", functools.partial(header_alone, header)
    for name, page in pages().items():
        yield f"{name}: SYNOPSIS is the header's", functools.partial(synopsis, page)
        yield f"{name}: EXAMPLES run", functools.partial(examples, page)
    for path in sorted((source / "man").glob("*.7")):
        yield f"{path.name}: EXAMPLES run", functools.partial(overview_examples, path)


def main(arguments):
    global source, build, cc
    if len(arguments) < 2:
        sys.exit(__doc__.split("\n\n")[1])
    source, build = (pathlib.Path(path).resolve() for path in arguments[:2])
    cc = arguments[3:] or tap.compiler(build)
    return tap.run(list(tests()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
