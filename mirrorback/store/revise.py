"""Reading a large file of the source once, and telling where it is not as the mirror's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mirrorback.model import Digest
from mirrorback.store import content, reading, signature, system
from mirrorback.store.signature import BLOCK, NOTHING, Signature, SignatureWriter

_PIECE = content.CHUNK  # bytes read in one go, a multiple of BLOCK
_ZEROS = bytes(_PIECE)


class Altered(Exception):
    """The mirror's file is not what was once written there."""


class TooMuch(Exception):
    """More has changed than a sink is ready to take."""


@dataclass(frozen=True, slots=True)
class Older:
    """The mirror's file: open, with its size in bytes, and its signature, if there is one."""

    fd: int
    size: int
    signature: Signature | None


class Sink(Protocol):
    """Takes the differences."""

    def changed(self, offset: int, old: bytes, new: bytes) -> None:
        """From `offset` on the old file has, or may have, other bytes than the new one; called
        with rising offsets.  One of them is shorter where its file ends there."""


def revise(
    fd: int,
    st: os.stat_result,
    old: Older,
    sink: Sink,
    sign: SignatureWriter,
    progress: reading.Progress,
    *,
    sparse: bool,
) -> Digest:
    """Read an open file of the source, `st.st_size` bytes of it; its digest in the form wanted.

    Blocks of 64 KiB that are not what the old file's signature says, or what it holds where
    there is none, go to `sink`, all others are the same.  A file that becomes shorter meanwhile
    is taken to go on with zeros.  Raises Trouble for the source, OSError for the drive, and
    Altered where a block of the old file cannot be read, or is not what its signature says.
    """
    size = st.st_size
    hashing = content.hasher(sparse)
    guard = content.CacheGuard(fd, size)
    for start, end in _pieces(fd, size, old):
        data = _read(fd, start, min(end, size) - start)
        if data != _ZEROS[: len(data)]:
            hashing.feed(start, data)
        progress(len(data))
        for at in range(start, end, BLOCK):
            block = data[at - start : at - start + BLOCK]
            _compare(old, at, block, sink, sign)
        guard.passed(end)
    guard.done()
    return hashing.finish(size)


def _compare(old: Older, at: int, block: bytes, sink: Sink, sign: SignatureWriter) -> None:
    number = at // BLOCK
    digest = NOTHING if block == _ZEROS[: len(block)] else signature.digest_of_block(block)
    if digest != NOTHING:
        sign.add(number, digest)
    length = max(0, min(BLOCK, old.size - at))
    if old.signature is None:
        before = _read_old(old, at, length)
        if before != block:
            sink.changed(at, before, block)
        return
    known = old.signature.block(number)
    if length == len(block) and known == digest:
        return
    if known == NOTHING or not length:
        before = bytes(length)
    else:
        before = _read_old(old, at, length)
        if signature.digest_of_block(before) != known:
            raise Altered
    if before != block:
        sink.changed(at, before, block)


def _read_old(old: Older, at: int, length: int) -> bytes:
    try:
        data = content.read_up_to(old.fd, length, at) if length else b""
    except OSError as error:  # a bad sector, say: it is no base for anything
        raise Altered from error
    if len(data) != length:
        raise Altered
    return data


def _read(fd: int, start: int, length: int) -> bytes:
    """So many bytes, zeros where the file has ended meanwhile."""
    parts: list[bytes] = []
    missing = length
    while missing > 0:
        with reading.troubles:
            data = os.pread(fd, missing, start + length - missing)
        if not data:
            data = bytes(missing)
        parts.append(data)
        missing -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _pieces(fd: int, size: int, old: Older) -> Iterator[tuple[int, int]]:
    """The (start, end) of all that is not a hole in both files, rising, in whole pieces but at
    the end of the longer file."""
    longest = max(size, old.size)
    mine = _whole_pieces(_ranges_of_source(fd, size))
    theirs = _whole_pieces(system.data_ranges(old.fd, old.size))
    at = 0
    one, other = next(mine, None), next(theirs, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] <= other[0]):
            assert one is not None
            (start, end), one = one, next(mine, None)
        else:
            (start, end), other = other, next(theirs, None)
        for piece in range(max(start, at), end, _PIECE):
            yield piece, min(piece + _PIECE, longest)
        at = max(at, end)


def _ranges_of_source(fd: int, size: int) -> Iterator[tuple[int, int]]:
    ranges = system.data_ranges(fd, size)
    while True:
        with reading.troubles:
            found = next(ranges, None)
        if found is None:
            return
        yield found


def _whole_pieces(ranges: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in ranges:
        yield start - start % _PIECE, end + -end % _PIECE
