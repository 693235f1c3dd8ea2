"""A large open file that is read here and there: its holes, and its place in the page cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mirrorback.store import system
from mirrorback.store.content import CacheGuard, read_up_to

_ZEROS = bytes(1 << 20)


class LargeFile:
    """A file as long as it was when this was made: what has been cut off since reads as
    zeros.  The descriptor is read with pread; where the file has holes, its own offset
    moves as well.  All methods raise OSError."""

    def __init__(self, fd: int, window: int = 0) -> None:
        """For an open regular file; `window` is the usual length of a `look`."""
        st = os.fstat(fd)
        self.size = st.st_size
        self.sparse = st.st_blocks * 512 < st.st_size
        self.data = min(st.st_blocks * 512, st.st_size)  # bytes that are no hole, about
        self._fd = fd
        self._guard = CacheGuard(fd, st.st_size)
        self._window = bytearray(window)
        self._stretch = (0, 0)  # known to be data
        self._hole = (0, 0)  # known to be one

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; zeros beyond the end.  Holes are not read."""
        if length <= self.hole(offset):
            return _ZEROS[:length] if length <= len(_ZEROS) else bytes(length)
        return read_up_to(self._fd, length, offset).ljust(length, b"\0")

    def look(self, offset: int, length: int) -> bytes | bytearray:
        """As `read`, but what comes back is only good until the next look: memory is not
        got from the system, and given back to it, for every window."""
        if length != len(self._window) or length <= self.hole(offset):
            return self.read(offset, length)
        got = os.preadv(self._fd, [self._window], offset)
        if got < length:
            self._window[got:] = self.read(offset + got, length - got)
        return self._window

    def hole(self, offset: int) -> int:
        """The length of the hole from `offset` on; 0 where there is data, and outside."""
        if not self.sparse or not 0 <= offset < self.size:
            return 0
        if not self._stretch[0] <= offset < self._stretch[1]:
            if not self._hole[0] <= offset < self._hole[1]:
                self._stretch = system.next_data(self._fd, offset, self.size)
                self._hole = (offset, self._stretch[0])
            return self._hole[1] - offset
        return 0

    def largest_hole(self, looks: int) -> tuple[int, int]:
        """The (offset, length) of the largest of the first `looks` holes; length 0 if none."""
        best, at = (0, 0), 0
        while self.sparse and at < self.size and looks:
            start, end = system.next_data(self._fd, at, self.size)
            if start - at > best[1]:
                best = at, start - at
            at = max(end, at + 1)
            looks -= 1
        return best

    def pieces_with_data(self, length: int) -> Iterator[int]:
        """The numbers of the pieces of `length` bytes in which there is data, rising."""
        if not self.sparse:
            yield from range(-(-self.size // length))
            return
        at = 0
        while at < self.size:
            start, _ = system.next_data(self._fd, at, self.size)
            if start >= self.size:
                return
            yield start // length
            at = (start // length + 1) * length

    def passed(self, offset: int) -> None:
        """What lies before `offset` is hardly read again: the page cache may forget it."""
        self._guard.passed(offset)

    def let_go(self, offset: int, length: int) -> None:
        """A range that was read out of turn may be forgotten."""
        self._guard.let_go(offset, length)

    def done(self) -> None:
        """All that was read may be forgotten."""
        self._guard.let_go(0, 0)
