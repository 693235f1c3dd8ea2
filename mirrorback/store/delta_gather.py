"""Pieces of several deltas' data and of the whole file that they start from, put together.

Whoever imports this imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mirrorback.errors import Damaged
from mirrorback.store import delta_format as form
from mirrorback.store.content import read_up_to
from mirrorback.store.delta_frames import Content
from mirrorback.store.delta_reader import DeltaReader

_FEW = 4  # pieces of the whole file that are read one by one
_AT_ONCE = 512  # frames that are decoded for one lot of pieces: 16 MiB
_KEPT = 64  # frames that are kept decoded, and two for each delta: 10 MiB for a chain of 128
_NUMBERS = (form.PLAIN_LIMIT // form.FRAME).bit_length() - 1  # bits of a frame's number

Column = NDArray[np.int64]


class Gatherer:
    """Reads what a composed map tells of.

    For several threads at once, but they wait for each other: what one has decoded the next
    one needs, for neighbouring ranges share nearly all their frames.
    """

    def __init__(self, base_fd: int, readers: Sequence[DeltaReader]) -> None:
        """Over the open whole file at the end of a chain of deltas, the wanted version's
        first.  The descriptors stay the caller's."""
        self._base = base_fd
        self._readers = tuple(readers)
        self._kept = _KEPT + 2 * len(self._readers)
        self._decoded: dict[int, Content] = {}  # what was used last stands last
        self._lock = threading.Lock()

    def gather(self, length: Column, source: Column, offset: Column) -> bytes:
        """The content of pieces, one behind the other.  Each is some bytes from an offset on,
        in the plaintext of delta `source`, or, where that is the number of deltas, in the whole
        file; all of them ranges that are there by what the deltas say.

        Takes four times the memory that they have bytes, 200 bytes a piece, and 16 MiB.  Raises
        OSError, and Damaged where a delta is, or the whole file has become shorter."""
        if len(length) == 1 and source[0] == len(self._readers):
            return self._read(int(length[0]), int(offset[0]))
        return b"".join(self._parts(*_cut(length, source, offset, len(self._readers))))

    def _parts(self, length: Column, source: Column, offset: Column) -> list[memoryview]:
        """The content of pieces that lie within a frame each."""
        literal = source < len(self._readers)
        frames = (source[literal] << _NUMBERS) + offset[literal] // form.FRAME
        keys, number = np.unique(frames, return_inverse=True)
        if len(keys) > _AT_ONCE:
            middle = len(length) // 2
            halves = (slice(middle), slice(middle, None))
            first, second = (
                self._parts(length[half], source[half], offset[half]) for half in halves
            )
            return first + second
        which, start = np.empty_like(offset), np.empty_like(offset)
        which[literal], start[literal] = number, offset[literal] % form.FRAME
        read: list[bytes] = []
        copied = ~literal
        if copied.any():  # without the lock: the kernel reads while another thread decodes
            read, which[copied], start[copied] = self._copied(
                length[copied], offset[copied], 2 * int(length.sum())
            )
            which[copied] += len(keys)
        with self._lock:
            data = self._frames(keys.tolist())
        views = [memoryview(content) for content in (*data, *read)]
        return [
            views[piece][begin:stop]
            for piece, begin, stop in zip(
                which.tolist(), start.tolist(), (start + length).tolist(), strict=True
            )
        ]

    def _frames(self, keys: list[int]) -> list[Content]:
        """Decoded frames, by rising keys: the number of the delta, then its own."""
        kept, readers = self._decoded, self._readers
        found = {key: kept.pop(key) for key in keys if key in kept}
        missing = [key for key in keys if key not in found]
        for source, some in itertools.groupby(missing, _NUMBERS.__rrshift__):
            group = list(some)
            before = source << _NUMBERS
            numbers = [key - before for key in group]
            found.update(zip(group, readers[source].frames(numbers), strict=True))
        kept.update(found)
        for key in list(itertools.islice(kept, max(len(kept) - self._kept, 0))):
            del kept[key]
        return [found[key] for key in keys]

    def _copied(
        self, length: Column, offset: Column, most: int
    ) -> tuple[list[bytes], Column, Column]:
        """Ranges of the whole file: what was read, and in which of that each is, and where.
        Several that lie within `most` bytes are read at one go, with what is between them."""
        start, end = int(offset.min()), int((offset + length).max())
        if len(length) >= _FEW and end - start <= most:
            return [self._read(end - start, start)], np.zeros_like(offset), offset - start
        read = list(map(self._read, length.tolist(), offset.tolist()))
        return read, np.arange(len(read)), np.zeros_like(offset)

    def _read(self, length: int, offset: int) -> bytes:
        data = read_up_to(self._base, length, offset)
        if len(data) < length:
            raise Damaged("the file that the deltas start from has become shorter")
        return data


def _cut(
    length: Column, source: Column, offset: Column, whole: int
) -> tuple[Column, Column, Column]:
    """The same pieces, those of deltas cut where frames end."""
    end = offset + length
    first = np.where(source < whole, offset // form.FRAME, 0)
    last = np.where(source < whole, (end - 1) // form.FRAME, 0)
    count = last - first + 1
    total = int(count.sum())
    if total == len(length):
        return length, source, offset
    owner = np.repeat(np.arange(len(length)), count)
    frame = np.arange(total) + np.repeat(first - (np.cumsum(count) - count), count)
    source, literal = source[owner], source[owner] < whole
    begin = np.where(literal, np.maximum(offset[owner], frame * form.FRAME), offset[owner])
    stop = np.where(literal, np.minimum(end[owner], (frame + 1) * form.FRAME), end[owner])
    return stop - begin, source, begin
