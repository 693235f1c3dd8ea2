"""Listing one directory of the source, as the survey wants it: here, or in a scout.

A scout is a process that lists directories ahead of the survey, since Python's threads
would wait for each other.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from blake3 import blake3

from mirrorback.engine.source import Source
from mirrorback.errors import Trouble
from mirrorback.model import Kind
from mirrorback.store import reading, tree
from mirrorback.store.nameable import Nameable
from mirrorback.store.process import Process, Tell, serve

MOST_LEVELS = 4_000  # below the source; a tree that goes deeper may have no end
_DIRECTORY = Kind.DIRECTORY.format_bits
_FILE = Kind.FILE.format_bits


class Same(NamedTuple):
    """A directory that is what its fingerprint says."""

    files: int  # all that is not a directory
    bytes: int
    folders: list[str]
    foreign: list[str]  # of what it holds, what lies on another file system


class Listing(NamedTuple):
    """A directory to be compared."""

    began: int  # ns since 1970, before it was listed
    rows: list[tree.Row]  # what is to be backed up
    foreign: dict[str, int]  # device numbers of what lies on another file system
    failed: list[tuple[str, str]]  # what could not be examined, and why
    fingerprint: bytes | None

    def nameable(self, names: Nameable) -> Listing:
        """The same with what the drive has no name for among what failed."""
        refused = [row[0] for row in self.rows if not names.holds(os.fsencode(row[0]))]
        if not refused:
            return self
        shut = set(refused)
        rows = [row for row in self.rows if row[0] not in shut]
        failed = self.failed + [(name, "has a name that the drive cannot hold") for name in refused]
        return self._replace(rows=rows, failed=failed)


class Wanted(NamedTuple):
    """A directory to be listed, and the fingerprint that it had; None is compared anyway."""

    path: bytes
    fingerprint: bytes | None


def look(source: Source, cursor: tree.Cursor, wanted: Wanted) -> Same | Listing:
    """List a directory.  Raises Trouble."""
    if wanted.path.count(b"/") >= MOST_LEVELS:
        raise Trouble(f"lies more than {MOST_LEVELS:,} folders deep, and is not entered")
    began = source.began()
    with reading.troubles:
        fd = cursor.open(wanted.path)
        rows, foreign, failed = tree.scan(fd, source.device)
    rows = source.select(wanted.path, fd, rows, foreign)
    rows, foreign = source.split(wanted.path, rows, foreign)
    failed = [one for one in failed if not source.is_view(wanted.path, one[0])]
    if failed:
        return Listing(began, rows, foreign, failed, None)
    fingerprint = blake3(marshal.dumps(rows, 2)).digest(16)
    if fingerprint == wanted.fingerprint:
        return _same(rows, foreign)
    return Listing(began, rows, foreign, [], fingerprint)


def _same(rows: list[tree.Row], foreign: dict[str, int]) -> Same:
    size = files = 0
    folders = []
    for row in rows:
        kind = row[2] & 0o170000
        if kind == _DIRECTORY:
            folders.append(row[0])
        else:
            files += 1
            if kind == _FILE:
                size += row[3]
    return Same(files, size, folders, list(foreign))


class Scout:
    """A process that lists directories, some at a time."""

    def __init__(self, source: Source) -> None:
        self._process = Process(__name__, [str(source.fd)], [source.fd])
        self._untold: tuple[Any, ...] | None = source.description

    def send(self, wanted: Sequence[Wanted]) -> bool:
        """Have these directories listed; `received` is to be called for them.  False where
        that must wait until earlier ones have been received."""
        if not self._process.ask_ahead((self._untold, [tuple(one) for one in wanted])):
            return False
        self._untold = None
        return True

    def ready(self) -> bool:
        """Whether `received` will not wait."""
        return self._process.answered()

    def received(self) -> list[Same | Listing | Trouble]:
        """What came of each of the directories that were sent."""
        return [_unpack(row) for row in self._process.answer(_ignored)]

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.close()


def _ignored(count: int) -> None:
    """A listing tells no bytes."""


def _pack(found: Same | Listing | Trouble) -> tuple[Any, ...]:
    return (found.reason, found.vanished) if isinstance(found, Trouble) else tuple(found)


def _unpack(row: tuple[Any, ...]) -> Same | Listing | Trouble:
    match len(row):
        case 2:
            return Trouble(row[0], vanished=row[1])
        case 4:
            return Same._make(row)
        case _:
            return Listing._make(row)


def main() -> None:
    """The scout itself; its argument is the descriptor of the source; the first question
    says what belongs to it."""
    fd = int(sys.argv[1])
    source: Source | None = None
    cursor = tree.Cursor(fd)

    def one(wanted: Wanted) -> Same | Listing | Trouble:
        assert source is not None
        try:
            return look(source, cursor, wanted)
        except Trouble as trouble:
            return trouble

    def respond(question: tuple[Any, ...], tell: Tell) -> Any:
        nonlocal source
        description, rows = question
        if description is not None:
            source = Source.described(fd, description)
        return [_pack(one(Wanted._make(row))) for row in rows]

    serve(respond)


if __name__ == "__main__":
    main()
