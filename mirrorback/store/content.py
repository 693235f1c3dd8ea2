"""File content: reading it with its holes, digesting it, writing it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol

from blake3 import blake3

from mirrorback.errors import Damaged
from mirrorback.model import Digest
from mirrorback.store import system

CHUNK = 1 << 20
BLOCK = 1 << 16  # unit of the sparse digest
SPARSE_FROM = 1 << 30  # bytes of hole from which the sparse digest is used
# Bytes of hole under a plain digest: it was read where there was none, in half a day or more.
MOST_ZEROS = 1 << 46
UNCACHE_FROM = 1 << 20  # files from this size on leave the page cache as they found it
PAGE = 4096  # what a hole is made of
_ZEROS = bytes(CHUNK)
_ZERO_PAGE = bytes(PAGE)


class Hasher(Protocol):
    """Digests content given in pieces of rising offset; what lies between is zeros."""

    def feed(self, offset: int, data: bytes) -> None:
        """Take the bytes that stand at `offset`."""

    def finish(self, size: int) -> Digest:
        """The digest of a file of `size` bytes."""


class PlainHasher:
    """BLAKE3 of the bytes, holes read as zeros.  Raises Damaged for a hole without end."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._at = 0

    def feed(self, offset: int, data: bytes) -> None:
        """Take the bytes that stand at `offset`."""
        if offset > self._at:
            self._zeros(offset - self._at)
        self._hash.update(data)
        self._at = offset + len(data)

    def finish(self, size: int) -> Digest:
        """The digest of a file of `size` bytes."""
        if size > self._at:
            self._zeros(size - self._at)
        return Digest(self._hash.digest())

    def _zeros(self, count: int) -> None:
        if count > MOST_ZEROS:
            raise Damaged(f"a hole of {count} bytes is in no file that was read from end to end")
        for _ in range(count // CHUNK):
            self._hash.update(_ZEROS)
        self._hash.update(_ZEROS[: count % CHUNK])


class Blocks:
    """Cuts content, given in pieces of rising offset, into blocks of 64 KiB.  Those of which
    nothing was given lie in a hole, and are left out."""

    def __init__(self, take: Callable[[int, bytes], None]) -> None:
        """`take` gets each block, with its number; what was not given of it is zeros."""
        self._take = take
        self._number = 0  # of the block that is being filled
        self._block = bytearray()

    def feed(self, offset: int, data: bytes) -> None:
        """Take the bytes that stand at `offset`."""
        at = 0
        while at < len(data):
            number, within = divmod(offset + at, BLOCK)
            if number != self._number:
                self.end()
                self._number = number
            if not within and len(data) - at >= BLOCK:
                self._take(number, data[at : at + BLOCK])
                at += BLOCK
                continue
            if within > len(self._block):
                self._block.extend(bytes(within - len(self._block)))
            part = data[at : at + BLOCK - within]
            self._block += part
            at += len(part)

    def end(self, size: int | None = None) -> None:
        """No more will be given of the last block; with `size` the file's, whose end it is."""
        if self._block:
            length = BLOCK if size is None else min(BLOCK, size - self._number * BLOCK)
            self._block.extend(bytes(max(0, length - len(self._block))))
            self._take(self._number, bytes(self._block))
            self._block.clear()


class SparseHasher:
    """The digest for huge holes (see `model.Digest`): blocks of zeros cost nothing."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._blocks = Blocks(self._take)
        self.feed = self._blocks.feed

    def finish(self, size: int) -> Digest:
        """The digest of a file of `size` bytes."""
        self._blocks.end()
        self._hash.update(size.to_bytes(8, "little"))
        return Digest(self._hash.digest(), sparse=True)

    def _take(self, number: int, block: bytes) -> None:
        # Trailing zeros are dropped, so that it does not matter whether they were read.
        block = block.rstrip(b"\0")
        if block:
            self._hash.update(number.to_bytes(8, "little"))
            self._hash.update(len(block).to_bytes(4, "little"))
            self._hash.update(block)


def hasher(sparse: bool) -> Hasher:
    """A new hasher of the form wanted."""
    return SparseHasher() if sparse else PlainHasher()


def digest_bytes(data: bytes, size: int) -> Digest:
    """The plain digest of a file of `size` bytes that begins with `data` and goes on
    with zeros."""
    if len(data) == size:
        return Digest(blake3(data).digest())
    hashing = PlainHasher()
    hashing.feed(0, data)
    return hashing.finish(size)


def wants_sparse(st: os.stat_result) -> bool:
    """Whether a file has so much hole that its zeros should not be hashed."""
    return st.st_size - st.st_blocks * 512 >= SPARSE_FROM


def pieces(fd: int, st: os.stat_result) -> Iterator[tuple[int, bytes]]:
    """The content of an open file up to `st.st_size` bytes, as (offset, data),
    holes left out.  Ends early where the file has become shorter."""
    size = st.st_size
    if st.st_blocks * 512 >= size:
        yield from _read_range(fd, 0, size)
        return
    for start, end in system.data_ranges(fd, size):
        yield from _read_range(fd, start, end)


def _read_range(fd: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    while start < end:
        data = os.pread(fd, min(CHUNK, end - start), start)
        if not data:
            return
        yield start, data
        start += len(data)


class CacheGuard:
    """Reads a file without pushing other data out of the page cache: what was
    not cached before is let go again."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._drop = False
        if size > CHUNK // 16:
            system.read_once_hint(fd)
            if size >= UNCACHE_FROM:
                self._drop = system.cached_pages(fd) == 0
        self._dropped = 0

    def passed(self, offset: int) -> None:
        """Everything before `offset` has been read and is not needed any more."""
        if self._drop and offset - self._dropped >= 8 * CHUNK:
            system.drop_cache(self._fd, self._dropped, offset - self._dropped)
            self._dropped = offset

    def let_go(self, offset: int, length: int) -> None:
        """A range that was read out of turn is not needed any more; length 0 is to the end."""
        if self._drop:
            system.drop_cache(self._fd, offset, length)

    def done(self) -> None:
        """The file has been read."""
        if self._drop:
            system.drop_cache(self._fd, self._dropped, 0)


def digest_of(
    fd: int,
    st: os.stat_result,
    sparse: bool,
    progress: Callable[[int], None] = lambda count: None,
) -> Digest:
    """Read an open file and return its digest in the form wanted.  Raises OSError."""
    hashing = hasher(sparse)
    guard = CacheGuard(fd, st.st_size)
    for offset, data in pieces(fd, st):
        hashing.feed(offset, data)
        guard.passed(offset)
        progress(len(data))
    guard.done()
    return hashing.finish(st.st_size)


def page_runs(offset: int, data: bytes) -> Iterator[tuple[int, int, bool]]:
    """The data that stands at an offset in runs (start, end, hole): whole pages of zeros, of
    which a hole can be made, and all else."""
    at = 0
    while at < len(data):
        zeros = data.find(_ZERO_PAGE, at)  # the first that may be one
        start = len(data) if zeros < 0 else zeros + -(offset + zeros) % PAGE
        end = start
        while data[end : end + PAGE] == _ZERO_PAGE:
            end += PAGE
        if end == start and start < len(data):
            start = end = min(start + PAGE, len(data))
        if at < start:
            yield at, start, False
        if start < end:
            yield start, end, True
        at = end


def read_up_to(fd: int, length: int, offset: int) -> bytes:
    """So many bytes of an open file, however many calls it takes: fewer only where it ends.
    Raises OSError."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def write_sparsely(fd: int, data: bytes, offset: int) -> None:
    """Write into an open file that has nothing there yet; whole pages of zeros are left out,
    and are holes if the file has, or gets, the size for it.  Raises OSError."""
    for start, end, hole in page_runs(offset, data):
        if not hole:
            write_all(fd, data[start:end], offset + start)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls it takes.  Raises OSError."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)
