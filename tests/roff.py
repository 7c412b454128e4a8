# SPDX-License-Identifier: MIT
"""As much of man(7) as our pages use: sections, names, plain text, examples.

A page is a dict: section heading -> list of source lines.
"""
import re
import shlex

FONT_MACROS = ("B", "I", "R", "BI", "BR", "IB", "IR", "RB", "RI", "SB", "SM")
ESCAPES = {r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(dq": '"', r"\(ha": "^", r"\(ti": "~",
           r"\(ga": "`", r"\(rs": "\\", r"\&": "", r"\ ": " ", r"\|": ""}
ESCAPE = re.compile(r"\\f(?:\(..|\[[^]]*\]|.)|\\\(..|\\.")


def unescape(text):
    """Roff escapes to plain characters; fonts are dropped."""
    def plain(match):
        found = match.group()
        return "" if found.startswith(r"\f") else ESCAPES[found]
    return ESCAPE.sub(plain, text)


def sections(text):
    """Source of a page -> {heading: [lines]}."""
    found, lines = {}, None
    for line in text.splitlines():
        if line.startswith(".SH "):
            lines = found.setdefault(line[4:].strip().strip('"'), [])
        elif lines is not None and not line.startswith('.\\"'):
            lines.append(line)
    return found


def words(line):
    """The arguments of a macro line."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.quotes, lexer.commenters = True, "", '"', ""
    return list(lexer)


def plain(lines):
    """Source lines -> plain text, a line for each; macros that only lay out are blank lines."""
    text = []
    for line in lines:
        macro, _, rest = line[1:].partition(" ")
        if not line.startswith((".", "'")):
            text.append(unescape(line))
        elif macro in FONT_MACROS:
            joint = " " if len(macro) == 1 or macro in ("SB", "SM") else ""
            text.append(unescape(joint.join(words(rest))))
        else:
            text.append("")
    return "\n".join(text)


def blocks(lines):
    """What stands between .EX and .EE, as plain text, one string a block."""
    found, block = [], None
    for line in lines:
        if line == ".EX":
            block = []
        elif line == ".EE":
            found.append("\n".join(block) + "\n")
            block = None
        elif block is not None:
            block.append(unescape(line))
    return found


def names(page):
    """The names before the dash of NAME."""
    text = " ".join(plain(page["NAME"]).split())
    return [name.strip() for name in text.split(" - ")[0].split(",")]


def errors(page):
    """ERRORS -> {function: set of "-E..."}; a paragraph before any .SS speaks for all of NAME."""
    found = {name: set() for name in names(page)}
    group, tagged = list(found), False
    for line in page["ERRORS"]:
        if line.startswith(".SS "):
            group = [part.strip(" ()") for part in unescape(line[4:]).strip('"').split(",")]
        elif line == ".TP" or line == ".TQ":
            tagged = True
        elif tagged:
            tagged = False
            codes = re.findall(r"-E[A-Z0-9]+", plain([line]))
            for function in group:
                found.setdefault(function, set()).update(codes)
    return found
