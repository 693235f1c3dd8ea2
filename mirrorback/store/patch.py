"""The changes of a large file: written into a clone of it, or into deltas both ways.

The *undo* delta rebuilds the old file from the new one and is what history gets.  The *redo*
delta makes the new file of the old one.  All that either copies stands at the same offset in
both files, so the undo delta is right, and the redo delta can be applied, whether the file they
are over has none, some, or all of the changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from mirrorback.errors import Trouble
from mirrorback.store import clones, content, reading, system
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.delta_writer import DeltaWriter
from mirrorback.store.differing import differing
from mirrorback.store.revise import TooMuch

EARLY = 32 << 20  # bytes after which it can be told that a file has changed all over
SHARED_LEAST = 64 << 10  # bytes: smaller extents are not worth it
_ZEROS = bytes(content.CHUNK)


class CloneSink:
    """Writes the changes into a file that shares all bytes of the old one (`revise.Sink`)."""

    def __init__(self, fd: int, limit: int, progress: Callable[[int], None]) -> None:
        """`limit` bytes may differ, more raise TooMuch."""
        self._left = limit
        self._fd = fd
        self._progress = progress

    def changed(self, offset: int, old: bytes, new: bytes) -> None:
        """See `revise.Sink`.  Raises TooMuch, OSError."""
        common = min(len(old), len(new))
        for start, end in differing(old[:common], new[:common]):
            # Whole pages: a drive that shares blocks shares no less.
            start -= start % content.PAGE
            end = min(common, end + -end % content.PAGE)
            self._write(offset + start, new[start:end])
        self._write(offset + common, new[common:])

    def _write(self, offset: int, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch
        write_or_punch(self._fd, offset, data)
        self._progress(len(data))


class ShareSink:
    """Writes a file of the source anew, but lets it share with the file before what it has from
    there, moved by whole blocks (`encoder.Sink` of the source's file in terms of the other)."""

    def __init__(self, before: int, new: int, source: int, progress: Callable[[int], None]) -> None:
        """Of open files: two on one drive, the second empty and for writing; and the source's,
        whose bytes are taken where nothing can be shared."""
        self._before = before
        self._new = new
        self._source = source
        self._progress = progress
        self._block = os.fstatvfs(new).f_bsize
        self._at = 0
        self._failure: OSError | None = None

    def copy(self, offset: int, length: int) -> None:
        """See `encoder.Sink`.  Raises OSError."""
        end = self._at + length
        start = self._at + -self._at % self._block
        stop = end - end % self._block
        shift = offset - self._at
        if (
            shift % self._block
            or stop - start < SHARED_LEAST
            or not self._share(shift, start, stop)
        ):
            start = stop = end
        self._take(self._at, start)
        self._take(stop, end)
        self._at = end

    def literal(self, data: bytes) -> None:
        """See `encoder.Sink`.  Raises OSError."""
        self._write(self._at, data)
        self._at += len(data)

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Tell failures of the source, which are Trouble, from those of the drive, OSError."""
        try:
            with reading.troubles:
                yield
        except Trouble:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _share(self, shift: int, start: int, stop: int) -> bool:
        with self._noted():
            return clones.clone_range(self._before, start + shift, stop - start, self._new, start)

    def _take(self, start: int, end: int) -> None:
        while start < end:
            data = os.pread(self._source, min(content.CHUNK, end - start), start)
            if not data:
                return  # it has become shorter: it will be read again
            self._write(start, data)
            start += len(data)

    def _write(self, offset: int, data: bytes) -> None:
        with self._noted():
            write_or_punch(self._new, offset, data)
        self._progress(len(data))

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = error
            raise


class DeltaSink:
    """Writes the changes as an undo and a redo delta (`revise.Sink`)."""

    def __init__(
        self, undo: DeltaWriter, redo: DeltaWriter, sizes: tuple[int, int], limit: int
    ) -> None:
        """`sizes` of the old and the new file in bytes; `limit` bytes may
        differ, more raise TooMuch."""
        self._undo = undo
        self._redo = redo
        self._old_size, self._new_size = sizes
        self._common = min(sizes)
        self._limit = self._left = limit
        self._at = 0  # all before is told
        self.stored = 0  # bytes of the new file in the redo delta

    def changed(self, offset: int, old: bytes, new: bytes) -> None:
        """See `revise.Sink`.  Raises TooMuch, OSError."""
        common = min(len(old), len(new))
        for start, end in differing(old[:common], new[:common]):
            self._change(offset + start, old[start:end], new[start:end])
        if len(old) != len(new):
            self._change(offset + common, old[common:], new[common:])

    def finish(self) -> None:
        """Tell the rest, up to the ends of both files.  Raises TooMuch, OSError."""
        self._same(self._common)
        self._tail(self._undo, self._old_size)
        self._tail(self._redo, self._new_size)

    def _change(self, offset: int, old: bytes, new: bytes) -> None:
        self._same(min(offset, self._common))
        if offset > self._at:  # a hole before what is told, in the longer file
            self._tail(self._undo if old else self._redo, offset)
        self._spend(max(len(old), len(new)))
        if old:
            self._undo.literal(old)
        if new:
            self._redo.literal(new)
            self.stored += len(new)
        self._at = offset + max(len(old), len(new))

    def _same(self, end: int) -> None:
        if end > self._at:
            for delta in (self._undo, self._redo):
                delta.copy(self._at, end - self._at)
            self._at = end

    def _tail(self, delta: DeltaWriter, end: int) -> None:
        """A hole of one file beyond the other's end."""
        at = max(self._at, self._common)
        self._spend(max(0, end - at))
        while at < end:
            part = min(end - at, len(_ZEROS))
            delta.literal(_ZEROS[:part])
            at += part

    def _spend(self, count: int) -> None:
        self._left -= count
        spent = self._limit - self._left
        # Most of what there was: so will be the rest, as after an insertion in front.
        early = self._at >= EARLY and spent > self._at // 4 * 3
        if self._left < 0 or early:
            raise TooMuch


def apply(redo: DeltaReader, fd: int) -> None:
    """Give an open file the changes in a redo delta; it may have had some of them.
    Raises Damaged where the delta is, OSError."""
    at = 0
    for length, literal, offset in zip(*(column.tolist() for column in redo.segments), strict=True):
        done = 0
        while literal and done < length:
            part = min(length - done, content.CHUNK)
            write_or_punch(fd, at + done, redo.literal(offset + done, part))
            done += part
        at += length
    os.ftruncate(fd, redo.old_size)


def write_or_punch(fd: int, offset: int, data: bytes) -> None:
    """Write, but leave holes where there are whole pages of zeros.  Raises OSError."""
    for start, end, hole in content.page_runs(offset, data):
        if not hole or not system.punch_hole(fd, offset + start, end - start):
            content.write_all(fd, data[start:end], offset + start)
