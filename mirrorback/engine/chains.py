"""Reading all versions of a chain of reverse deltas in one go.

One after the other, each would be read through all that are newer: the work would grow with the
square of the chain's length.  Here the whole file at its end is read once, a piece at a time,
and what a version has at the place of that piece is what the next newer one has there, or is
put together by their composed maps, of frames that are decoded once.

Whoever imports this imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mirrorback.engine.history import History
from mirrorback.engine.open_large import chain_of, open_object
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Digest
from mirrorback.plan import delta_map
from mirrorback.plan.delta_map import Column, Composed
from mirrorback.store import content, live, past, schema
from mirrorback.store.content import CHUNK, Hasher
from mirrorback.store.delta_gather import Gatherer
from mirrorback.store.delta_reader import DeltaReader

MOST_PIECES = 1 << 21  # of all maps that are in memory together: 64 MiB
Rows = list[tuple[Column, Column, Column]]


@dataclass(slots=True)
class _Level:
    """A version that is being read."""

    number: int  # of the object
    map: Composed
    digest: Digest
    hashing: Hasher


class Chains:
    """Reads chains.  For several threads."""

    def __init__(
        self, history: History, passed: Callable[[int], None], over: Callable[[], bool]
    ) -> None:
        """`passed` is told the bytes that were read; when it is `over`, nobody waits for more."""
        self._history = history
        self._passed = passed
        self._over = over

    def read(self, numbers: Sequence[int]) -> dict[int, bool]:
        """Of some objects those that are deltas, others of whose chain are among them, too: by
        number, whether each comes to the content that it should have.  Where that could not be
        told, as while a run changes the file, it is left out.  Raises the catalog's errors."""
        told: dict[int, bool] = {}
        wanted = set(numbers)
        ways = []
        for number in numbers:
            with contextlib.suppress(Damaged):  # it will be told where it is looked at alone
                if self._is_delta(number):
                    ways.append(chain_of(self._history, number))
        ways.sort(key=lambda way: len(way[0]), reverse=True)
        for chain, base, held in ways:
            some = wanted.intersection(chain)
            if held.patched or len(some) < 2 or chain[0] not in wanted:
                continue
            wanted -= some
            found = self._read(chain, base, some)
            with self._history.catalog.lock:
                now = past.holding(self._history.catalog, base)
            same = now == held
            told.update((number, right) for number, right in found.items() if right or same)
        return told

    def _is_delta(self, number: int) -> bool:
        with self._history.catalog.lock:
            held = past.holding(self._history.catalog, number)
        return held is not None and held.drive == schema.DELTA and not held.given

    def _read(self, chain: list[int], base: int, wanted: set[int]) -> dict[int, bool]:
        """Those of a chain, the oldest first, that are wanted, as far as they can be read."""
        told: dict[int, bool] = {}
        with contextlib.ExitStack() as stack, contextlib.suppress(Damaged, DriveError, OSError):
            whole = open_object(self._history, base, delta=False)
            stack.callback(os.close, whole)
            readers: list[DeltaReader] = []
            with contextlib.suppress(Damaged, DriveError, OSError):
                for number in reversed(chain):
                    fd = open_object(self._history, number, delta=True)
                    stack.callback(os.close, fd)
                    readers.append(DeltaReader(fd))
            readers.reverse()
            gatherer = Gatherer(whole, readers)
            for levels in self._levels(chain[len(chain) - len(readers) :], readers, wanted):
                told.update(self._together(levels, gatherer))
        return told

    def _levels(
        self, chain: list[int], readers: Sequence[DeltaReader], wanted: set[int]
    ) -> Iterator[list[_Level]]:
        """The versions that are to be read together, the newest first; `chain` is the part of
        it, whose deltas are open, the oldest first."""
        levels: list[_Level] = []
        composed: Composed | None = None
        pieces = seen = 0
        for index in range(len(chain) - 1, -1, -1):
            segments = readers[index].segments
            seen += len(segments.length)
            try:
                composed = delta_map.beneath(segments, index, composed, seen)
            except Damaged:
                break  # neither this nor what is older can be read
            if chain[index] not in wanted:
                continue
            level = self._level(chain[index], composed)
            if level is None:
                continue
            pieces += len(composed.length)
            if levels and pieces > MOST_PIECES:
                yield levels
                levels, pieces = [], len(composed.length)
            levels.append(level)
        if levels:
            yield levels

    def _level(self, number: int, composed: Composed) -> _Level | None:
        metadata, digest = live.object_row(self._history.catalog, number)
        if digest is None or composed.size != metadata.size:
            return None
        return _Level(number, composed, digest, content.hasher(digest.sparse))

    def _together(self, levels: list[_Level], gatherer: Gatherer) -> dict[int, bool]:
        most = max(level.map.size for level in levels)
        reading = list(levels)
        for at in range(0, most, CHUNK):
            if self._over():
                return {}
            rows: Rows = []
            data = b""
            for level in list(reading):
                end = min(at + CHUNK, level.map.size)
                if at >= end:
                    continue
                its_own = list(level.map.rows(at, end))
                if not _same(its_own, rows):
                    try:
                        data = b"".join(gatherer.gather(*columns) for columns in its_own)
                    except (Damaged, OSError):
                        reading.remove(level)  # to be looked at alone
                        rows = []
                        continue
                    rows = its_own
                level.hashing.feed(at, data)
                self._passed(len(data))
        return {
            level.number: level.hashing.finish(level.map.size) == level.digest for level in reading
        }


def _same(one: Rows, other: Rows) -> bool:
    """Whether two versions are made of the same bytes at some place."""
    return len(one) == len(other) and all(
        np.array_equal(mine, theirs)
        for left, right in zip(one, other, strict=True)
        for mine, theirs in zip(left, right, strict=True)
    )
