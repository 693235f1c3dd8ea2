"""Which entries of the source are backed up."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mirrorback.errors import UsageError
from mirrorback.plan import globs

CACHE_TAG_NAME = b"CACHEDIR.TAG"
# Bryan Ford, Cache Directory Tagging Specification.
CACHE_TAG_HEAD = b"Signature: 8a477f597d28d172789f06886806bc55"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line of a gitignore(5) file."""

    expression: re.Pattern[str]
    negated: bool
    folders_only: bool
    anywhere: bool  # it means names, not paths

    def matches(self, path: str, is_directory: bool) -> bool:
        """Whether it means this very entry (not one above it)."""
        if self.folders_only and not is_directory:
            return False
        subject = path.rpartition("/")[2] if self.anywhere else path
        return self.expression.fullmatch(subject) is not None


class Selection:
    """The rules by which entries are left out.

    Of the patterns that mean an entry the last one counts.  A directory that is
    left out is not descended into, so that what is below it is never asked for;
    libraries that judge whole paths take an entry for meant when one above it
    is, and leave out too much where a pattern brings something back.
    """

    def __init__(
        self,
        exclude: Sequence[str] = (),
        larger_than: int | None = None,
        if_present: Sequence[bytes] = (),
        caches: bool = False,
    ) -> None:
        """`exclude` are gitignore patterns relative to the source; `larger_than` is
        in bytes.  Raises UsageError for a pattern that does not parse."""
        self.rules = tuple(exclude), larger_than, tuple(if_present), caches  # to make it again
        self.caches = caches
        self._larger_than = larger_than
        self._markers = frozenset(if_present) | ({CACHE_TAG_NAME} if caches else frozenset())
        meant = [p for p in exclude if p.strip(" ") and not p.startswith("#")]
        self._rules = [_rule(pattern) for pattern in reversed(meant)]

    @property
    def everything(self) -> bool:
        """Whether nothing is ever left out: the caller need not ask."""
        return not self._rules and self._larger_than is None and not self._markers

    def excludes(self, path: bytes, is_directory: bool, size: int, is_file: bool) -> bool:
        """Whether an entry is left out, by its path and size."""
        if is_file and self._larger_than is not None and size > self._larger_than:
            return True
        text = os.fsdecode(path)
        for rule in self._rules:
            if rule.matches(text, is_directory):
                return not rule.negated
        return False

    def marker_names(self) -> frozenset[bytes]:
        """Names whose presence in a folder may leave that folder out."""
        return self._markers


def is_cache_tag(head: bytes) -> bool:
    """Whether a CACHEDIR.TAG that begins like this is a valid one."""
    return head.startswith(CACHE_TAG_HEAD)


def read_patterns(text: str) -> list[str]:
    """The patterns in a file of them: lines that are neither blank nor comments."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _rule(pattern: str) -> _Rule:
    """The rule of one line.  Raises UsageError."""
    text = re.sub(r"(?<!\\) +\Z", "", pattern)
    negated = text.startswith("!")
    text = text[negated:]
    folders_only = text.endswith("/")
    text = text[:-1] if folders_only else text
    if not text and not folders_only:
        raise UsageError(f"the pattern {pattern!r} means nothing")
    anchored = "/" in text
    return _Rule(
        expression=globs.compiled(text.removeprefix("/")),
        negated=negated,
        folders_only=folders_only,
        anywhere=not anchored,
    )
