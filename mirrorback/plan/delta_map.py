"""Maps of reverse deltas: which bytes of an old version stand where, through a chain of deltas.

A delta's map (`model.Segments`) lists an old version's bytes as ranges of the next newer
version and of the delta's own data.  Composing replaces a range of the next version by what
that version's own map says of it, until only literals and ranges of a whole file are left.

Whoever imports this imports numpy: only where large files are at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirrorback.errors import Damaged
from mirrorback.model import COPY, SIZE_LIMIT, Segments

Column = NDArray[np.int64]

_FEW = 1 << 20  # pieces that any chain may come to
_SHARED = 16  # times that an average segment may be copied beyond that
_ROWS = 1 << 14  # pieces that are looked at together


class Composed(NamedTuple):
    """What a version is made of, over a whole chain.

    `source` i is the data of the i-th delta of the chain, and `offset` a place in its
    plaintext; `source` one higher than the last delta's is the whole file at the chain's end.
    `bounds` has a number more than the others: where each piece begins, and the size.
    """

    length: Column
    source: Column
    offset: Column
    bounds: Column

    @property
    def size(self) -> int:
        """The version's size in bytes."""
        return int(self.bounds[-1])

    def rows(self, start: int, end: int) -> Iterator[tuple[Column, Column, Column]]:
        """What bytes [start, end) are made of, in order: columns of lengths, sources and
        offsets, some pieces at a time.  Raises ValueError where the range is not within the
        version."""
        if not 0 <= start <= end <= self.size:
            raise ValueError(f"no range of {self.size} bytes: {start} to {end}")
        if start == end:
            return
        first = int(np.searchsorted(self.bounds, start, "right")) - 1
        stop = int(np.searchsorted(self.bounds, end, "left"))
        for at in range(first, stop, _ROWS):
            some = slice(at, min(at + _ROWS, stop))
            begin, length = self.bounds[:-1][some], self.length[some]
            skipped = np.maximum(start - begin, 0)
            wanted = np.minimum(length, end - begin) - skipped
            yield wanted, self.source[some], self.offset[some] + skipped

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The same one piece at a time, as (length, source, offset)."""
        for columns in self.rows(start, end):
            yield from zip(*(column.tolist() for column in columns), strict=True)


def validate(segments: Segments, old_size: int, base_size: int, plain_size: int) -> None:
    """Raise Damaged unless the map makes a file of `old_size` bytes out of ranges that lie
    in a base of `base_size` and a plaintext of `plain_size` bytes."""
    for size in (old_size, base_size, plain_size):
        if not 0 <= size < SIZE_LIMIT:
            raise Damaged(f"the delta has an impossible size: {size} bytes")
    fault = segments.fault(base_size, plain_size)
    if fault is not None:
        raise Damaged(f"the delta has {fault}")
    if segments.total() != old_size:
        raise Damaged(f"the delta makes {segments.total()} bytes, not {old_size}")


def compose(chain: Iterable[Segments], limit: int | None = None) -> Composed:
    """Compose the maps of a chain of deltas, each valid by itself.

    The first is the version wanted, each next one the base of the one before, the last over
    a whole file.  No more than `limit` pieces are made at a time; the default is far from
    what copies that do not overlap can come to (as many as the maps have segments).
    Neighbours are composed first, then what they came to, and so on: the work is the number
    of segments times the logarithm of the chain's length.

    Raises Damaged where a map reaches beyond the next one's end, or there are more pieces:
    a few maps of copies that overlap could make endlessly many.
    """
    parts: list[tuple[int, Composed]] = []  # with the deltas in each, fewer and fewer
    seen, most, number = 0, 0, -1
    for number, segments in enumerate(chain):
        seen += len(segments.length)
        most = _FEW + _SHARED * seen if limit is None else limit
        count, newest = 1, _alone(segments, number)
        while parts and parts[-1][0] == count:
            newest = _joined(parts.pop()[1], newest, number + 1 - count, most)
            count *= 2
        parts.append((count, newest))
    if not parts:
        raise ValueError("a chain has at least one delta")
    count, composed = parts.pop()
    while parts:
        more, older = parts.pop()
        composed = _joined(older, composed, number + 1 - count, most)
        count += more
    return composed


def beneath(segments: Segments, number: int, newer: Composed | None, seen: int) -> Composed:
    """The map of the `number`th delta of a chain over that of the next newer version, all the
    way to the whole file; None where it is the newest itself.  For all versions of a chain, one
    after the other from the newest on.  `source` counts from the chain's beginning in all.
    `seen` is how many segments these deltas have together.

    Raises Damaged as `compose` does."""
    alone = _alone(segments, number)
    if newer is None:
        return alone
    return merge(_joined(alone, newer, number + 1, _FEW + _SHARED * seen))


def merge(composed: Composed) -> Composed:
    """The same with pieces joined that follow each other where they come from, too."""
    length, source, offset, bounds = composed
    if not len(length):
        return composed
    first = np.ones(len(length), bool)
    first[1:] = (source[1:] != source[:-1]) | (offset[1:] != offset[:-1] + length[:-1])
    (index,) = np.nonzero(first)
    begins = bounds[:-1][index]
    ends = np.append(begins[1:], bounds[-1])
    return Composed(ends - begins, source[index], offset[index], np.append(begins, bounds[-1]))


def _alone(segments: Segments, number: int) -> Composed:
    """The map of one delta, the `number`th of a chain."""
    source = np.where(segments.kind == COPY, number + 1, number)
    return Composed(segments.length, source, segments.offset, _bounds(segments.length))


def _joined(older: Composed, newer: Composed, middle: int, most: int) -> Composed:
    """A part of a chain and the one behind it as one; `middle` is the source of the ranges
    that are to be looked up there."""
    (copied,) = np.nonzero(older.source == middle)
    begin = older.offset[copied]
    end = begin + older.length[copied]
    if len(end) and int(end.max()) > newer.size:
        raise Damaged("the delta reaches beyond the end of the next newer version")
    # One row for every piece that a range touches, one for everything else.
    first = np.zeros_like(older.length)
    first[copied] = np.searchsorted(newer.bounds, begin, "right") - 1
    count = np.ones_like(older.length)
    count[copied] = np.searchsorted(newer.bounds, end, "left") - first[copied]
    total = int(count.sum())
    if total > most:
        raise Damaged(f"the deltas split their version into too many pieces: {total} at least")
    owner = np.repeat(np.arange(len(count)), count)
    length, source, offset = older.length[owner], older.source[owner], older.offset[owner]
    (rows,) = np.nonzero(source == middle)
    index = (np.arange(total) + np.repeat(first - (np.cumsum(count) - count), count))[rows]
    begins = newer.bounds[:-1][index]
    wanted = offset[rows]
    at = np.maximum(begins, wanted)
    length[rows] = np.minimum(newer.bounds[1:][index], wanted + length[rows]) - at
    source[rows] = newer.source[index]
    offset[rows] = newer.offset[index] + (at - begins)
    return Composed(length, source, offset, _bounds(length))


def _bounds(length: Column) -> Column:
    """Where each begins, and the end of the last."""
    bounds = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=bounds[1:])
    return bounds
