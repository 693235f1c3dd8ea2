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
_ROWS = 1 << 14  # pieces that are Python objects at a time


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

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """What bytes [start, end) are made of, as (length, source, offset), in order.
        Raises ValueError where the range is not within the version."""
        if not 0 <= start <= end <= self.size:
            raise ValueError(f"no range of {self.size} bytes: {start} to {end}")
        if start == end:
            return
        first = int(np.searchsorted(self.bounds, start, "right")) - 1
        stop = int(np.searchsorted(self.bounds, end, "left"))
        for at in range(first, stop, _ROWS):
            some = slice(at, min(at + _ROWS, stop))
            for begin, length, source, offset in zip(
                self.bounds[some].tolist(),
                self.length[some].tolist(),
                self.source[some].tolist(),
                self.offset[some].tolist(),
                strict=False,  # there may be a bound more
            ):
                skipped = max(start - begin, 0)
                yield min(length, end - begin) - skipped, source, offset + skipped


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
    a whole file.  They are taken one after another, and not kept.  No more than `limit`
    pieces are made; the default is far from what copies that do not overlap can come to (as
    many as the maps have segments).

    Raises Damaged where a map reaches beyond the next one's end, or there are more pieces:
    a few maps of copies that overlap could make endlessly many.
    """
    wanted: _Ranges | None = None
    settled: list[tuple[_Ranges, int]] = []
    made, seen, number = 0, 0, -1
    for number, segments in enumerate(chain):
        if wanted is None:
            whole = np.array([segments.total()] if len(segments.length) else [], np.int64)
            wanted = _Ranges(np.zeros_like(whole), whole, np.zeros_like(whole))
        seen += len(segments.length)
        most = _FEW + _SHARED * seen if limit is None else limit
        literals, wanted = _looked_up(wanted, segments, most - made)
        settled.append((literals, number))
        made += len(literals.start)
    if wanted is None:
        raise ValueError("a chain has at least one delta")
    return _in_order([*settled, (wanted, number + 1)])


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


class _Ranges(NamedTuple):
    """Ranges of one source, with the place in the old version that each belongs to."""

    start: Column
    length: Column
    offset: Column


def _looked_up(wanted: _Ranges, segments: Segments, most: int) -> tuple[_Ranges, _Ranges]:
    """Ranges of a version as ranges of its delta's literals, and of the delta's base."""
    bounds = _bounds(segments.length)
    end = wanted.offset + wanted.length
    if len(end) and int(end.max()) > int(bounds[-1]):
        raise Damaged("the delta reaches beyond the end of the next newer version")
    first = np.searchsorted(bounds, wanted.offset, "right") - 1
    count = np.searchsorted(bounds, end, "left") - first
    total = int(count.sum())
    if total > most:
        raise Damaged(f"the deltas split their version into too many pieces: {total} at least")
    # One row for every segment that a range touches.
    owner = np.repeat(np.arange(len(count)), count)
    index = np.arange(total) + np.repeat(first - (np.cumsum(count) - count), count)
    begins = bounds[:-1][index]
    at = np.maximum(begins, wanted.offset[owner])
    length = np.minimum(bounds[1:][index], end[owner]) - at
    start = wanted.start[owner] + (at - wanted.offset[owner])
    offset = segments.offset[index] + (at - begins)
    copied = segments.kind[index] == COPY
    literal = ~copied
    return (
        _Ranges(start[literal], length[literal], offset[literal]),
        _Ranges(start[copied], length[copied], offset[copied]),
    )


def _in_order(parts: list[tuple[_Ranges, int]]) -> Composed:
    start = np.concatenate([ranges.start for ranges, _ in parts])
    order = np.argsort(start, kind="stable")
    length = np.concatenate([ranges.length for ranges, _ in parts])[order]
    offset = np.concatenate([ranges.offset for ranges, _ in parts])[order]
    numbers = np.array([number for _, number in parts], np.int64)
    source = np.repeat(numbers, [len(ranges.start) for ranges, _ in parts])[order]
    return Composed(length, source, offset, _bounds(length))


def _bounds(length: Column) -> Column:
    """Where each begins, and the end of the last."""
    bounds = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=bounds[1:])
    return bounds
