"""Describes an old file in terms of a newer one: what is copied from it, and what is not in it.

Both files are compared at the same offset, a window at a time.  Where half of a block
differs, its content is looked for elsewhere: where the last stretches had moved to, then
nearby, then through an index of content-defined chunks of the newer file, made only then.
From there on the files are compared at that shift, until track is lost again.  So most of
the work is comparing memory, and chunks are cut where content has moved far or is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mirrorback.store import chunks
from mirrorback.store.chunks import ChunkIndex
from mirrorback.store.differing import GAP, Data, Ranges, differing
from mirrorback.store.large import LargeFile

Progress = Callable[[int], None]


class Sink(Protocol):
    """Takes the pieces of the old file, in its order."""

    def copy(self, offset: int, length: int) -> None:
        """`length` bytes that stand at `offset` in the newer file."""

    def literal(self, data: bytes) -> None:
        """These bytes."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the encoder goes by; lengths in bytes."""

    block: int = 64 << 10  # that is looked for elsewhere when half of it differs
    window: int = 256 << 10  # compared at once: a multiple of `block`
    chunk: int | None = None  # average; None is as fits the newer file
    slots: int = chunks.SLOTS  # of the index of chunks
    # Of the newer file this much is indexed at once, and for every byte that was found
    # nowhere so many more: reading it again should not cost more than it may spare.
    at_once: int = 512 << 20
    for_a_byte: int = 64


DEFAULT = Tuning()
_SHIFTS = 4  # that are tried: of those lately used, and of those the index names
_NEEDLE = 64  # bytes that are searched for nearby,
_NEEDLES_AT = (0, 128, 512, 2048, 8192, 32768)  # taken from the lost data at these places
_HOLES = 1000  # of the newer file that are looked at for a large one


class _Match(NamedTuple):
    equal: int  # bytes of the span that are the same at this shift
    start: int  # where in the span the first long stretch of them begins
    shift: int  # offset in the newer file less that in the old one


class _TooMuch(Exception):
    pass


def encode(
    old_fd: int,
    new_fd: int,
    sink: Sink,
    *,
    limit: int,
    progress: Progress,
    tuning: Tuning = DEFAULT,
) -> bool:
    """Describe the old file to `sink`, as it was when this began, from one end to the other.

    Returns False, as soon as that is known, where literals of more than `limit` bytes would
    be needed; what the sink got until then is of no use.  `progress` is told the bytes of
    the old file that are done.  Both descriptors are read with pread, and their own offsets
    are moved where there are holes.  A file that changes meanwhile gives a wrong
    description, but no other error.  Memory: a few windows, and 16 bytes for each slot of
    the index.  Raises OSError.
    """
    old, new = LargeFile(old_fd, tuning.window), LargeFile(new_fd, tuning.window)
    try:
        _Encoder(old, new, sink, limit, progress, tuning).run()
    except _TooMuch:
        return False
    finally:
        old.done()
        new.done()
    return True


class _Encoder:
    def __init__(
        self,
        old: LargeFile,
        new: LargeFile,
        sink: Sink,
        limit: int,
        progress: Progress,
        tuning: Tuning,
    ) -> None:
        self._old = old
        self._new = new
        self._sink = sink
        self._room = limit  # bytes that may still be literals
        self._progress = progress
        self._tuning = tuning
        self._average = tuning.chunk or chunks.average_for(new.data, tuning.slots)
        self._least = self._average // 4  # bytes that are worth a new shift
        self._window = tuning.block
        self._at = 0  # in the old file: all before it is done
        self._shift = 0
        self._recent = [0]
        self._lost = 0  # bytes that were found nowhere
        self._astray = False  # what was looked for last was found nowhere
        self._index: ChunkIndex | None = None
        self._zeros: tuple[int, int] | None = None  # the largest hole of the newer file

    def run(self) -> None:
        while self._at < self._old.size:
            if not self._hole():
                self._compare_window()
            self._old.passed(self._at)
            # What was indexed, and lies around, may still be the place of what comes.
            there = self._at + self._shift
            self._new.passed(max(min(self._at, there), there - self._tuning.at_once))

    # --- holes -----------------------------------------------------------------------------

    def _hole(self) -> bool:
        """Pass a hole of the old file without reading, if it is one and that can be done."""
        hole = self._old.hole(self._at)
        if hole < self._tuning.block:
            return False
        there = self._at + self._shift
        same = min(hole, self._new.hole(there))
        if same >= self._tuning.block:
            self._copy(there, same)
            return True
        if self._zeros is None:
            self._zeros = self._new.largest_hole(_HOLES)
        offset, length = self._zeros
        if length >= self._tuning.block:
            self._copy(offset, min(hole, length))
            return True
        if there < self._new.size:
            return False  # zeros may be written there
        self._take_room(hole)
        for at in range(0, hole, self._tuning.window):
            self._literal(self._old.read(self._at, min(self._tuning.window, hole - at)))
        return True

    # --- the same shift as before --------------------------------------------------------------

    def _compare_window(self) -> None:
        """Do a window, or what is before the place in it at which track is lost."""
        data = self._old.look(self._at, min(self._window, self._old.size - self._at))
        ranges = self._differing(data, self._shift)
        length, lost = self._judged(ranges, len(data))
        self._emit(data, ranges, length)
        if lost:
            self._window = self._tuning.block
            self._find()
        else:
            self._window = min(self._window * 2, self._tuning.window)

    def _judged(self, ranges: Ranges, length: int) -> tuple[int, bool]:
        """How much of a window to do, and whether track is lost there."""
        block = self._tuning.block
        lost = _half_differs(ranges, block)
        if lost is not None:
            return lost, True
        # What differs at the end is looked at with what follows; a few bytes behind it may
        # be equal by chance.
        tail = ranges[-1][0] if ranges and ranges[-1][1] > length - GAP else length
        if self._at + length < self._old.size:
            return tail or length, False
        return (tail, True) if length - tail > block // 16 else (length, False)

    def _differing(self, data: Data, shift: int) -> Ranges:
        """Where `data`, which stands at our place in the old file, differs from the newer
        file at this shift; what is outside of that differs."""
        there = self._at + shift
        low = min(max(0, -there), len(data))
        high = max(low, min(len(data), self._new.size - there))
        if low == high:
            return [(0, len(data))]
        if high - low == len(data):
            return differing(data, self._new.look(there, len(data)))
        inner = differing(data[low:high], self._new.read(there + low, high - low))
        ranges = [(low + start, low + end) for start, end in inner]
        return _joined([(0, low), *ranges, (high, len(data))])

    # --- where has it gone? ---------------------------------------------------------------------

    def _find(self) -> None:
        """Go on at the shift at which most of what follows is found; where there is none,
        do a part of it as it is."""
        length = max(self._tuning.block, 8 * self._average)
        data = self._old.read(self._at, min(length, self._old.size - self._at))
        here = self._differing(data, self._shift)
        match = self._match(data, self._shift, here)
        match = self._best(data, [s for s in self._recent if s != self._shift], match)
        end = len(data)
        if match is None or match.equal < end // 4 * 3:
            near = None if self._astray else self._nearby(data)
            match = _better(match, near)
            if near is None and (self._index is not None or end >= self._tuning.block // 2):
                match, end = self._search(data, match)
        self._astray = match is None
        if match is None:
            self._lost += end
            self._emit(data, here, end)
            return
        self._emit(data, here, match.start)
        self._use(match.shift)
        # It has just been compared; so there is progress also where a file keeps changing.
        self._copy(self._at + self._shift, self._least)

    def _nearby(self, data: bytes) -> _Match | None:
        """The first match for pieces of the data that stand not far from where they should:
        most insertions are short, and content that repeats itself has no chunks."""
        there, reach = self._at + self._shift, self._tuning.block
        begin = max(0, there - reach)
        length = min(self._new.size, there + len(data) + reach) - begin
        if length <= 0:
            return None
        around = self._new.read(begin, length)
        for radius in (reach // 16, reach):
            for at in _NEEDLES_AT:
                if at + _NEEDLE > len(data):
                    break
                near = there + at - begin
                low, high = max(0, near - radius), max(0, near + radius)
                place = around.find(data[at : at + _NEEDLE], low, high)
                if place < 0:
                    continue
                shift = begin + place - at - self._at
                match = self._match(data, shift, self._differing(data, shift))
                if match is not None:
                    return match
        return None

    def _search(self, data: bytes, match: _Match | None) -> tuple[_Match | None, int]:
        """The better of `match` and what the index knows; and where the last chunk of the
        data begins, from which on it may be cut in another way with more behind it."""
        index = self._opened_index()
        starts, digests = index.chunker.cut(data)
        while True:
            match = self._best(data, self._voted(starts, index.find(digests)), match)
            if match is not None or not self._widen(index):
                break
        end = starts[-1] if starts[-1] >= len(data) // 2 else len(data)
        return match, end

    def _opened_index(self) -> ChunkIndex:
        if self._index is None:
            self._index = ChunkIndex(self._new, self._average, self._tuning.slots)
            self._index.widen(self._at + self._shift, self._tuning.at_once)
        return self._index

    def _widen(self, index: ChunkIndex) -> bool:
        """Index more of the newer file, if enough was lost to be worth it."""
        amount = self._tuning.at_once + self._tuning.for_a_byte * self._lost - index.indexed
        if amount <= index.indexed // 4:  # rarely, and then much
            return False
        return index.widen(self._at + self._shift, amount, keep=False)

    def _voted(self, starts: list[int], places: list[int | None]) -> list[int]:
        """The shifts at which most chunks were found."""
        pairs = zip(starts, places, strict=True)
        votes = Counter(place - start for start, place in pairs if place is not None)
        return [shift - self._at for shift, _ in votes.most_common(_SHIFTS)]

    def _best(self, data: Data, shifts: Iterable[int], match: _Match | None) -> _Match | None:
        """`match`, or one at another of these shifts that is better."""
        for shift in shifts:
            if match is not None and match.equal == len(data):
                break
            match = _better(match, self._match(data, shift, self._differing(data, shift)))
        return match

    def _match(self, data: Data, shift: int, ranges: Ranges) -> _Match | None:
        """What a shift is worth, given where the data differs at it; None if nothing."""
        start = _first_equal(ranges, len(data), self._least)
        if start is None:
            return None
        return _Match(len(data) - sum(end - begin for begin, end in ranges), start, shift)

    def _use(self, shift: int) -> None:
        self._shift = shift
        if shift in self._recent:
            self._recent.remove(shift)
        self._recent.insert(0, shift)
        if len(self._recent) > _SHIFTS:
            # Files are often in step again: shift 0 stays.
            self._recent.remove(next(old for old in reversed(self._recent) if old))

    # --- what comes out -------------------------------------------------------------------------

    def _emit(self, data: Data, ranges: Ranges, length: int) -> None:
        """Do the first `length` bytes of the data at our shift, given where it differs."""
        at, there, view = 0, self._at + self._shift, memoryview(data)
        for start, end in ranges:
            if start >= length:
                break
            end = min(end, length)
            if start > at:
                self._sink.copy(there + at, start - at)
            self._take_room(end - start)
            self._sink.literal(bytes(view[start:end]))
            at = end
        if length > at:
            self._sink.copy(there + at, length - at)
        self._advance(length)

    def _copy(self, offset: int, length: int) -> None:
        self._sink.copy(offset, length)
        self._advance(length)

    def _literal(self, data: bytes) -> None:
        self._sink.literal(data)
        self._advance(len(data))

    def _take_room(self, length: int) -> None:
        self._room -= length
        if self._room < 0:
            raise _TooMuch

    def _advance(self, length: int) -> None:
        self._at += length
        self._progress(length)


def _better(one: _Match | None, other: _Match | None) -> _Match | None:
    """The match to go on with: what comes before its start is lost, what comes behind its
    end can still be found elsewhere."""
    if one is None or other is None:
        return one or other
    return one if one.equal - 4 * one.start >= other.equal - 4 * other.start else other


def _half_differs(ranges: Ranges, block: int) -> int | None:
    """The start of the range that begins, or reaches into, the first block of which at
    least half differs; None where there is no such block."""
    number, filled, first = -1, 0, 0
    for start, end in ranges:
        for touched in range(start // block, (end - 1) // block + 1):
            if touched != number:
                number, filled, first = touched, 0, start
            filled += min(end, (touched + 1) * block) - max(start, touched * block)
            if filled * 2 >= block:
                return first
    return None


def _first_equal(ranges: Ranges, length: int, least: int) -> int | None:
    """The start of the first `least` bytes that are in no range; None if there are none."""
    at = 0
    for start, end in ranges:
        if start - at >= least:
            return at
        at = end
    return at if length - at >= least else None


def _joined(ranges: Ranges) -> Ranges:
    """The same without empty ranges, and with those that are near each other made one."""
    joined: Ranges = []
    for start, end in ranges:
        if start == end:
            continue
        if joined and start - joined[-1][1] < GAP:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined
