"""Patterns over names and paths in history."""

from __future__ import annotations

import os
from collections.abc import Callable

from mirrorback.errors import UsageError
from mirrorback.plan import globs


def compile_glob(pattern: str, ignore_case: bool) -> Callable[[bytes], bool]:
    """A test for paths: of the last component, or of the whole path where the
    pattern holds a slash.  A leading slash is the source's root.  See
    `globs.compiled`.  Raises UsageError."""
    if not pattern:
        raise UsageError("the pattern is empty: use * to find everything")
    whole = "/" in pattern
    expression = globs.compiled(pattern.strip("/") if whole else pattern, ignore_case=ignore_case)

    def matches(path: bytes) -> bool:
        subject = path if whole else path.rpartition(b"/")[2]
        return expression.fullmatch(os.fsdecode(subject)) is not None

    return matches
