"""The frames of a reverse delta's file: any range of its plaintext, by decoding little."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mirrorback.errors import Damaged
from mirrorback.store import delta_format as form
from mirrorback.store.content import read_up_to

Content = bytes | memoryview

_FEW = 1 << 12  # frames
_READ = 32  # frames by one read: 1 MiB
_TOGETHER = 512  # frames between two places that are kept


class Frames:
    """Where the frames of a file are, and their content.

    For several threads at once: what is read is read at a place (pread), and the few frames
    that are kept are changed under a lock.
    """

    def __init__(self, fd: int, lengths: NDArray[np.uint16], plain_size: int, kept: int) -> None:
        """The frames of an open file, from its beginning on, with the bytes that each takes;
        `kept` is how many are kept decoded.  Takes 2 bytes for each."""
        self._fd = fd
        self._lengths = lengths
        starts = np.arange(0, len(lengths), _TOGETHER)
        sums = np.add.reduceat(lengths, starts, dtype=np.int64) if len(lengths) else starts
        self._places = np.append(np.zeros(1, np.int64), np.cumsum(sums))
        self._few: list[int] | None = None  # where each frame is, of a small delta
        if len(lengths) <= _FEW:
            self._few = [0, *np.cumsum(lengths, dtype=np.int64).tolist()]
        self.plain_size = plain_size
        self._kept = kept
        self._decoded: dict[int, bytes] = {}
        self._lock = threading.Lock()

    @property
    def end(self) -> int:
        """Where in the file the last frame ends."""
        return int(self._places[-1])

    def plain(self, offset: int, length: int) -> bytes:
        """A range of the plaintext.  Raises Damaged, OSError, and ValueError where there is
        no such range."""
        first = offset // form.FRAME
        begin = offset - first * form.FRAME
        ready = self._decoded.get(first)  # as nearly always, where many are read in order
        if ready is not None and 0 <= length <= len(ready) - begin:
            return ready[begin : begin + length]
        if offset < 0 or length < 0 or offset + length > self.plain_size:
            raise ValueError(f"no range of {self.plain_size} bytes: {length} from {offset}")
        if not length:
            return b""
        last = (offset + length - 1) // form.FRAME
        if first == last:
            return self._frame(first)[begin : begin + length]
        data = b"".join(map(self._frame, range(first, last + 1)))
        return data[begin : begin + length]

    def some(self, numbers: Sequence[int]) -> list[Content]:
        """Frames by their numbers, which rise, neighbours by one read; none are kept.  Raises
        Damaged and OSError."""
        if len(numbers) == 1:
            return [self._single(numbers[0])]
        found: list[Content] = []
        at = 0
        while at < len(numbers):
            first = numbers[at]
            count = 1
            while numbers[at : at + count + 1][-1] == first + count and count < _READ:
                count += 1
            found += self._decode(first, count)
            at += count
        return found

    def all(self) -> Iterator[tuple[bytes, int]]:
        """All plaintext, a frame at a time, and the bytes each takes in the file; none are
        kept.  Raises Damaged and OSError."""
        for number in range(len(self._lengths)):
            yield bytes(self._decode(number, 1)[0]), int(self._lengths[number])

    def _frame(self, number: int) -> bytes:
        data = self._decoded.get(number)
        if data is not None:
            return data
        data = bytes(self._decode(number, 1)[0])
        with self._lock:
            self._decoded[number] = data
            while len(self._decoded) > self._kept:
                del self._decoded[next(iter(self._decoded))]  # the one that came first
        return data

    def _single(self, number: int) -> Content:
        """A frame; one that did not compress is not copied.  Called for each frame of a chain
        of deltas that is read, and short for that."""
        begin, end = self._ends(number, 1)
        data = os.pread(self._fd, end - begin, begin)
        if len(data) < end - begin:
            data = read(self._fd, end - begin, begin)
        content = form.stored(data)
        size = min(form.FRAME, self.plain_size - number * form.FRAME)
        return form.decoded(data, size) if content is None or size < form.FRAME else content

    def _decode(self, number: int, count: int) -> list[Content]:
        """Neighbouring frames."""
        if count == 1:
            return [self._single(number)]
        ends = self._ends(number, count)
        view = memoryview(read(self._fd, ends[-1] - ends[0], ends[0]))
        return [
            form.decoded(view[begin - ends[0] : end - ends[0]], self._size(number + nth))
            for nth, (begin, end) in enumerate(itertools.pairwise(ends))
        ]

    def _size(self, number: int) -> int:
        return min(form.FRAME, self.plain_size - number * form.FRAME)

    def _ends(self, number: int, count: int) -> list[int]:
        """Where neighbouring frames begin, and where the last of them ends."""
        if self._few is not None:
            return self._few[number : number + count + 1]
        group = number // _TOGETHER
        before = self._lengths[group * _TOGETHER : number].sum(dtype=np.int64)
        place = int(self._places[group]) + int(before)
        lengths = self._lengths[number : number + count].tolist()
        return list(itertools.accumulate(lengths, initial=place))


def read(fd: int, length: int, place: int) -> bytes:
    """So many bytes of an open file.  Raises Damaged where it ends before, and OSError."""
    data = read_up_to(fd, length, place)
    if len(data) < length:
        raise Damaged("the delta's file ends too early")
    return data
