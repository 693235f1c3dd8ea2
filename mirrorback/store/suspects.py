"""Which files of the dated folders are reverse deltas of ours, and over what.

A reverse delta stands as NAME.rdiff.zst in dated folders only, with no NAME beside it, and tells
in its index the digests of what it makes and of what it is over: only where that is found, and
proven by its digest, it becomes a version of NAME.  Everything else is a file of its own name.

Whoever imports this imports numpy and zstandard: only where files of such names are at hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mirrorback.errors import Damaged
from mirrorback.model import Digest
from mirrorback.store import content, delta_commands, delta_format
from mirrorback.store.anew import NewCatalog
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.repository import DELTA_SUFFIX

CANDIDATES = 64  # files of the right size that are read for a delta, whatever their names
LOST = "is a damaged reverse delta; it is kept as a file of this name"
BASELESS = (
    "is a reverse delta, and the newer version that it needs is not there, or damaged;"
    " it is kept as a file of this name"
)

Opener = Callable[[int, int, bytes], int]  # snapshot, directory, name: a descriptor
Told = Callable[[int, int, bytes, str], None]  # the same, and what is wrong


class _Shown(NamedTuple):
    """A run of an object."""

    dir: int
    name: bytes
    first: int
    last: int


class _Delta(NamedTuple):
    """What a delta says of itself."""

    old_size: int
    old_digest: Digest
    base_size: int
    base_digest: Digest
    stored: int


class Judge:
    """Decides on all suspects of a new catalog."""

    def __init__(self, new: NewCatalog, opener: Opener, told: Told) -> None:
        self._new = new
        self._opener = opener
        self._told = told
        self._made: dict[Digest, int] = {}  # by what they make: objects that are deltas
        self.count = 0

    def run(self) -> None:
        """Decide, the newest first: others may be over it.  Raises OSError."""
        rows = self._new.db.execute(
            "SELECT s.object, max(r.last) FROM runs.suspect s JOIN runs.run r"
            " ON r.object = s.object GROUP BY s.object ORDER BY max(r.last) DESC, s.object"
        ).fetchall()
        for number, last in rows:
            shown = self._runs(number)
            if last < self._new.snapshots and self._may_be(shown):
                self._judge(number, shown)

    def _judge(self, number: int, shown: list[_Shown]) -> None:
        newest = shown[-1]
        try:
            delta = self._read(newest)
        except (Damaged, OSError):
            self._told(newest.last, newest.dir, newest.name, LOST)
            return
        if delta is None:
            return
        base = self._base(delta, newest)
        if base is None:
            self._told(newest.last, newest.dir, newest.name, BASELESS)
            return
        self._new.becomes_delta(
            number, len(DELTA_SUFFIX), delta.old_size, delta.old_digest, base, delta.stored
        )
        self._made.setdefault(delta.old_digest, number)
        self.count += 1

    def _runs(self, number: int) -> list[_Shown]:
        rows = self._new.db.execute(
            "SELECT dir, name, first, last FROM runs.run WHERE object = ? ORDER BY last, id",
            (number,),
        )
        return [_Shown._make(row) for row in rows]

    def _may_be(self, shown: list[_Shown]) -> bool:
        """Whether all names are those of deltas, and nothing stands beside them."""
        for run in shown:
            if not run.name.endswith(DELTA_SUFFIX) or run.name == DELTA_SUFFIX:
                return False
            beside = self._new.db.execute(
                "SELECT 1 FROM runs.run WHERE dir = ? AND name = ? AND last >= ? AND first <= ?"
                " LIMIT 1",
                (run.dir, _plain(run.name), run.first, run.last),
            ).fetchone()
            if beside is not None:
                return False
        return True

    def _read(self, run: _Shown) -> _Delta | None:
        """What a file says; None where it is no delta of ours.  Raises Damaged, OSError."""
        fd = self._opener(run.last, run.dir, run.name)
        try:
            size = os.fstat(fd).st_size
            try:
                reader = DeltaReader(fd)
            except Damaged:
                if _looks_like_ours(fd, size):
                    raise
                return None
            if reader.old_digest is None or reader.base_size is None or reader.base_digest is None:
                return None
            sizes = (reader.old_size, reader.old_digest, reader.base_size, reader.base_digest)
            return _Delta(*sizes, size)
        finally:
            os.close(fd)

    def _base(self, delta: _Delta, newest: _Shown) -> int | None:
        """The object that a delta is over: another delta, the next file of its name, or any."""
        found = self._made.get(delta.base_digest)
        if found is not None:
            return found
        tried: set[int] = set()
        for number, place in self._candidates(delta.base_size, newest):
            if number in tried:
                continue
            tried.add(number)
            if len(tried) > CANDIDATES:
                break
            if self._is(number, place, delta.base_digest):
                return number
        return None

    def _candidates(self, size: int, newest: _Shown) -> Iterator[tuple[int, _Shown]]:
        for where, values in (
            ("r.dir = ? AND r.name = ?", (newest.dir, _plain(newest.name))),
            ("r.first <= ? AND r.last >= ?", (newest.last + 1, newest.last + 1)),
            ("r.last > ? AND r.id > ?", (newest.last, 0)),
        ):
            rows = self._new.db.execute(
                "SELECT r.object, r.dir, r.name, r.first, r.last FROM runs.run r"
                " JOIN object o ON o.id = r.object"
                " WHERE r.kind = 1 AND o.size = ? AND o.drive = 0 AND r.last > ?"
                f" AND {where} ORDER BY r.first LIMIT {2 * CANDIDATES}",
                (size, newest.last, *values),
            ).fetchall()
            for number, *run in rows:
                yield number, _Shown._make(run)

    def _is(self, number: int, place: _Shown, wanted: Digest) -> bool:
        """Whether a file has a digest, by reading it."""
        known = self._new.digest_of(number)
        if known is not None and known.sparse == wanted.sparse:
            return known == wanted
        try:
            fd = self._opener(place.last, place.dir, place.name)
        except OSError:
            return False
        try:
            found = content.digest_of(fd, os.fstat(fd), wanted.sparse)
        except OSError:
            return False
        finally:
            os.close(fd)
        # Once read, it need not be read again: of two forms either tells the content.
        self._new.learn(number, found)
        return found == wanted


def _plain(name: bytes) -> bytes:
    return name[: -len(DELTA_SUFFIX)]


def _looks_like_ours(fd: int, size: int) -> bool:
    """Whether a file that is no whole delta was one."""
    if content.read_up_to(fd, 8, max(0, size - 8)) == b"mbrdelta":
        return True
    data = content.read_up_to(fd, delta_format.FRAME_MOST, 0)
    length = delta_format.frame_length(data)
    if length is None:
        return False
    try:
        return delta_format.decoded(data[:length], None).startswith(delta_commands.MAGIC)
    except Damaged:
        return False
