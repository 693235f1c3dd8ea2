"""Reads the file of a reverse delta (`delta_format`), and trusts nothing in it."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from mirrorback.errors import Damaged
from mirrorback.model import SIZE_LIMIT, Digest, Segments
from mirrorback.store import delta_commands
from mirrorback.store import delta_format as form
from mirrorback.store.content import CHUNK, read_up_to
from mirrorback.store.delta_frames import Content, Frames, read

FEW_SEGMENTS = 1 << 12  # 96 KiB
FRAMES_KEPT = 8  # decoded, of each reader: 256 KiB


class DeltaReader:
    """An open reverse delta.

    For several threads at once, all of it.  The file is read by `pread` only; the descriptor
    stays the caller's, and open as long as this is used.  In memory are 2 bytes for each
    32 KiB of plaintext and the few frames last used; where the index had to be rebuilt, 17
    bytes for each segment as well.
    """

    old_size: int  # bytes
    old_digest: Digest | None  # None where the index was rebuilt
    base_size: int | None  # the same
    base_digest: Digest | None  # the same
    rebuilt: bool  # whether the index was lost and rebuilt
    # `length` bytes of plaintext from `offset`: the content of a LITERAL segment.  Raises
    # OSError, Damaged where a frame it needs is, and ValueError where there is no such range.
    literal: Callable[[int, int], bytes]
    # The frames of these numbers, rising, decoded; none are kept.  Raises OSError, Damaged.
    frames: Callable[[Sequence[int]], list[Content]]

    def __init__(self, fd: int, *, scan: bool = False, kept: int = FRAMES_KEPT) -> None:
        """Open by the index at the file's end.  With `scan`, an index that is lost is rebuilt
        from the frames, which reads all of the file.  `kept` is how many decoded frames stay
        in memory.

        Raises OSError, and Damaged where there is no whole index (without `scan`), or it
        tells what cannot be; then no more memory was used than the file is long."""
        self._fd = fd
        self._source: _Indexed | _Scanned
        file_size = os.fstat(fd).st_size
        try:
            self._source = _Indexed(fd, file_size)
        except Damaged:
            if not scan:
                raise
            self._source = _Scanned(fd, file_size)
        index = self._source.index
        self.rebuilt = index is None
        self.old_size = self._source.old_size
        self.old_digest = None if index is None else index.old_digest
        self.base_size = None if index is None else index.base_size
        self.base_digest = None if index is None else index.base_digest
        self._frames = Frames(fd, self._source.lengths, self._source.plain_size, kept)
        self.literal = self._frames.plain
        self.frames = self._frames.some

    @property
    def plain_size(self) -> int:
        """The bytes of plaintext."""
        return self._frames.plain_size

    @property
    def segments(self) -> Segments:
        """The map, checked: every range can be read, if the base has `base_size` bytes.  Read
        from the file each time, for it takes 24 bytes a segment: keep it, or let it go.  (Of
        a small one, which has been decoded to be checked, that is kept.)
        Raises OSError, and Damaged where the file has changed."""
        if self._source.few is not None:
            return self._source.few
        rows, at = self._source.rows, 0
        length, kind, offset = (np.empty(rows, np.int64) for _ in range(3))
        for block in self._source.blocks():
            some = slice(at, at + len(block.length))
            length[some], kind[some], offset[some] = block
            at = some.stop
        return Segments(length, kind, offset)

    def check(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """Decode everything and compare the commands with the index.  The bytes read are
        told to `progress`.  Raises OSError and Damaged."""
        parser = delta_commands.Parser()
        rows = form.Rows()
        blocks = self._source.blocks()
        for plain, taken in self._frames.all():
            for row in parser.feed(plain):
                rows.add(*row)
                if len(rows) == form.BLOCK:
                    _compare(rows, next(blocks, None))
            progress(taken)
        if not parser.ended:
            raise Damaged("the delta has no end")
        if len(rows):
            _compare(rows, next(blocks, None))
        if next(blocks, None) is not None:
            raise Damaged("the delta has fewer commands than its index says")


def _compare(rows: form.Rows, expected: Segments | None) -> None:
    found = rows.block(0)
    if expected is None or not all(map(np.array_equal, found, expected)):
        raise Damaged("the delta's commands are not those that its index tells of")
    rows.clear()


class _Indexed:
    """The segments and frames that the index tells of."""

    def __init__(self, fd: int, file_size: int) -> None:
        """Open the index and check all of it, a block at a time.  Raises Damaged, OSError."""
        self._fd = fd
        last = read_up_to(fd, form.CLOSING, max(file_size - form.CLOSING, 0))
        self.index, length, checksum = form.opened(last, file_size)
        self._start = file_size - length
        self._check_head(length)
        self._check_sum(file_size, checksum)
        self.rows, self.old_size = self.index.segments, self.index.old_size
        self.plain_size = self.index.plain_size
        self.few: Segments | None = None
        total = 0
        for block in self.blocks():
            total += block.total()
            self.few = block if self.rows <= min(FEW_SEGMENTS, form.BLOCK) else None
        if total != self.old_size:
            raise Damaged("the delta's index makes a file of another size than it says")
        self.lengths = self._frame_lengths()

    def blocks(self) -> Iterator[Segments]:
        """The segments, some at a time, each checked.  Raises Damaged and OSError."""
        place = self._start
        end = place + self.index.segment_bytes
        offsets = form.Offsets()
        for rows in _parts(self.index.segments):
            data, place = self._packed(place, end)
            block = form.unpacked_segments(data, rows, offsets)
            fault = block.fault(self.index.base_size, self.plain_size)
            if fault is not None:
                raise Damaged(f"the delta has {fault}")
            yield block

    def _check_head(self, length: int) -> None:
        head = read(self._fd, form.SKIPPABLE.size, self._start - form.SKIPPABLE.size)
        if head != form.SKIPPABLE.pack(form.SKIPPABLE_MAGIC, length):
            raise Damaged("the delta's index does not begin where it says")

    def _check_sum(self, file_size: int, checksum: bytes) -> None:
        digest = blake3()
        end = file_size - form.CLOSING + form.CHECKED
        for place in range(self._start, end, CHUNK):
            digest.update(read(self._fd, min(CHUNK, end - place), place))
        if digest.digest() != checksum:
            raise Damaged("the delta's index is damaged")

    def _frame_lengths(self) -> NDArray[np.uint16]:
        lengths = np.empty(self.index.frames, np.uint16)
        place = self._start + self.index.segment_bytes
        end = place + self.index.frame_bytes
        at = 0
        for rows in _parts(len(lengths)):
            data, place = self._packed(place, end)
            (lengths[at : at + rows],) = form.unpacked(data, rows, "<u2")
            at += rows
        if lengths.sum(dtype=np.int64) != self._start - form.SKIPPABLE.size:
            raise Damaged("the delta's frames do not end where its index begins")
        return lengths

    def _packed(self, place: int, end: int) -> tuple[bytes, int]:
        """What is packed at a place in the index, and where the next is."""
        data, place = form.packed_length(read(self._fd, 4, place)), place + 4
        if data > end - place:
            raise Damaged("the delta's index is too short for what it tells of")
        return read(self._fd, data, place), place + data


class _Scanned:
    """The segments and frames that the frames themselves tell of, found by decoding all."""

    index = None
    few = None

    def __init__(self, fd: int, file_size: int) -> None:
        """Read the whole file, a frame at a time.  Raises Damaged and OSError."""
        self._found = form.Rows()
        lengths = array("H")
        parser = delta_commands.Parser()
        most = form.SCANNED_FEW + form.SCANNED_A_BYTE * file_size
        place = 0
        while not parser.ended:
            data = read_up_to(fd, form.FRAME_MOST, place)
            length = form.frame_length(data)
            if length is None or parser.size % form.FRAME:
                raise Damaged("the delta has lost its index, and its end")
            lengths.append(length)
            place += length
            for row in parser.feed(form.decoded(data[:length], None)):
                self._found.add(*row)
            if len(self._found) > most:
                raise Damaged("the delta has more commands than a file of its size can have")
        self.lengths = np.array(lengths, np.uint16)
        self.rows, self.plain_size = len(self._found), parser.size
        self.old_size = sum(block.total() for block in self.blocks())
        if self.old_size >= SIZE_LIMIT:
            raise Damaged("the delta makes a file of an impossible size")

    def blocks(self) -> Iterator[Segments]:
        """The segments, some at a time, each checked.  Raises Damaged."""
        for block in self._found.blocks():
            fault = block.fault((1 << 63) - 1, self.plain_size)
            if fault is not None:
                raise Damaged(f"the delta has {fault}")
            yield block


def _parts(rows: int) -> Iterator[int]:
    """The rows of each block."""
    for at in range(0, rows, form.BLOCK):
        yield min(form.BLOCK, rows - at)
