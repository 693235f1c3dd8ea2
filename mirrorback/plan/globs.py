"""Globs as gitignore(5) has them, as regular expressions over paths."""

from __future__ import annotations

import re

from mirrorback.errors import UsageError

# The named sets of POSIX, as in the C locale.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t-\\r ",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


def compiled(glob: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """An expression whose `fullmatch` takes the paths that a glob means.

    `*` and `?` stop at a slash.  `**` as a whole component is any number of
    folders, at the end everything in one.  `[a-z]`, `[!a-z]`, `[[:alpha:]]` are
    sets; a backslash takes the next character as it is.  Raises UsageError.
    """
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    try:
        return re.compile(_translated(glob), flags)
    except (re.error, OverflowError) as error:
        raise UsageError(f"the pattern {glob!r} cannot be understood: {error}") from error


def _translated(glob: str) -> str:
    out = []
    at = 0
    while at < len(glob):
        char = glob[at]
        begins = at == 0 or glob[at - 1] == "/"
        if char == "*" and begins and glob[at:] == "**":
            out.append(".+" if at else ".*")
            at += 2
        elif char == "*" and begins and glob.startswith("**/", at):
            out.append("(?:.+/)?")
            at += 3
        elif char == "*":
            out.append("[^/]*")
            while glob[at : at + 1] == "*":
                at += 1
        elif char == "?":
            out.append("[^/]")
            at += 1
        elif char == "[":
            part, at = _set(glob, at + 1)
            out.append(part)
        elif char == "\\":
            if at + 1 == len(glob):
                raise UsageError(f"the pattern {glob!r} ends in a backslash")
            out.append(re.escape(glob[at + 1]))
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    return "".join(out)


def _set(glob: str, at: int) -> tuple[str, int]:
    """A set of characters, from behind its bracket, and where it ends."""
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    parts: list[str] = []
    first = True
    while first or glob[at : at + 1] != "]":
        first = False
        if match := re.compile(r"\[:([a-z]*):\]").match(glob, at):
            if match[1] not in _CLASSES:
                raise UsageError(f"the pattern {glob!r} names a set that there is not")
            parts.append(_CLASSES[match[1]])
            at = match.end()
            continue
        low, at = _member(glob, at)
        if glob[at : at + 1] == "-" and glob[at + 1 : at + 2] not in ("]", ""):
            high, at = _member(glob, at + 1)
            if low > high:
                raise UsageError(f"the pattern {glob!r} has a bad character range")
            parts.append(f"{_escaped(low)}-{_escaped(high)}")
        else:
            parts.append(_escaped(low))
    inner = "".join(parts)
    return f"(?!/)[{'^' if negated else ''}{inner}]", at + 1


def _member(glob: str, at: int) -> tuple[str, int]:
    """One character of a set, and what comes after it."""
    if glob[at : at + 1] == "\\":
        at += 1
    if at >= len(glob):
        raise UsageError(f"the pattern {glob!r} has a [ that is not closed")
    return glob[at], at + 1


def _escaped(char: str) -> str:
    """A character in a set, whatever it is."""
    return f"\\U{ord(char):08x}"
