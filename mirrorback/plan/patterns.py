"""Globs over names and paths in history."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from mirrorback.errors import UsageError


def compile_glob(pattern: str, ignore_case: bool) -> Callable[[bytes], bool]:
    """A test for paths: of the last component, or of the whole path where the
    pattern holds a slash.

    `*` and `?` stop at a slash, `**` does not; `[a-z]` and `[!a-z]` are sets and
    a backslash takes the next character as it is.  A leading slash is the
    source's root.  Raises UsageError.
    """
    if not pattern:
        raise UsageError("the pattern is empty: use * to find everything")
    whole = "/" in pattern
    text = pattern.strip("/") if whole else pattern
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    try:
        expression = re.compile(_translate(text), flags)
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} cannot be understood: {error}") from error

    def matches(path: bytes) -> bool:
        subject = path if whole else path.rpartition(b"/")[2]
        return expression.fullmatch(os.fsdecode(subject)) is not None

    return matches


def _translate(pattern: str) -> str:
    """The regular expression of a glob."""
    out = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if pattern.startswith("*/", at):
                out.append("(?:.*/)?")
                at += 2
            elif pattern.startswith("*", at):
                out.append(".*")
                at += 1
            else:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            part, at = _set(pattern, at)
            out.append(part)
        elif char == "\\":
            if at == len(pattern):
                raise UsageError(f"the pattern {pattern!r} ends in a backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _set(pattern: str, at: int) -> tuple[str, int]:
    """A set of characters, from behind its bracket."""
    start = at
    if pattern[at : at + 1] in ("!", "^"):
        at += 1
    end = pattern.find("]", at + 1)
    if end < 0:
        raise UsageError(f"the pattern {pattern!r} has a [ that is not closed")
    negate = "^" if pattern[start : start + 1] in ("!", "^") else ""
    inner = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
    inner = inner.replace("&&", "&\\&").replace("||", "|\\|").replace("~~", "~\\~")
    return f"(?!/)[{negate}{inner.replace(']', chr(92) + ']')}]", end + 1
