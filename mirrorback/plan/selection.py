"""Which entries of the source are backed up."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mirrorback.errors import UsageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

CACHE_TAG_NAME = b"CACHEDIR.TAG"
# Bryan Ford, Cache Directory Tagging Specification.
CACHE_TAG_HEAD = b"Signature: 8a477f597d28d172789f06886806bc55"


class Selection:
    """The rules by which entries are left out.

    A directory that is left out is not descended into, so that what is below
    it need not be asked for.
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
        self.caches = caches
        self._larger_than = larger_than
        self._markers = frozenset(if_present) | ({CACHE_TAG_NAME} if caches else frozenset())
        self._spec = _compile(exclude) if exclude else None

    @property
    def everything(self) -> bool:
        """Whether nothing is ever left out: the caller need not ask."""
        return self._spec is None and self._larger_than is None and not self._markers

    def excludes(self, path: bytes, is_directory: bool, size: int, is_file: bool) -> bool:
        """Whether an entry is left out, by its path and size."""
        if is_file and self._larger_than is not None and size > self._larger_than:
            return True
        if self._spec is None:
            return False
        text = os.fsdecode(path)
        return self._spec.match_file(text + "/" if is_directory else text)

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


def _compile(patterns: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except (ValueError, re.error) as error:
            raise UsageError(f"the pattern {pattern!r} cannot be understood: {error}") from error
    return GitIgnoreSpec.from_lines(patterns)
