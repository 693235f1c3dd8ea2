"""Signatures: digests of the blocks of the mirror's large files, in `signatures/`.

They say which blocks of a changed file are new, so that the drive is read only there.  A file
of its own for each object: a header, 16 bytes for each block of 64 KiB (the first of its
BLAKE3; zeros for a block that lies in a hole, so that the signature has a hole there too), and
the sparse digest of both.  One that is missing or damaged costs a read of the drive, no more.
"""

from __future__ import annotations

import os
import struct

from blake3 import blake3

from mirrorback.model import Digest
from mirrorback.store import content, system

BLOCK = content.BLOCK  # bytes
WIDTH = 16  # bytes of a block's digest
NOTHING = bytes(WIDTH)  # the digest of a hole
_MAGIC = b"mbksig1\n"
_HEADER = struct.Struct("<8sIBxxxQ32s8x")  # magic, block, sparse form, size, file digest
_TRAILER = 32
_AT_ONCE = 4096  # digests written or read in one go


class SignatureWriter:
    """Signs content given in pieces of rising offset, holes left out, into an empty file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._blocks = content.Blocks(lambda number, data: self.add(number, digest_of_block(data)))
        self._digests = bytearray()
        self._first = 0  # number of the first block in `_digests`
        self.feed = self._blocks.feed

    def add(self, number: int, digest: bytes) -> None:
        """Take the digest of a block that is known, the number higher than those before.
        Raises OSError."""
        if number != self._first + len(self._digests) // WIDTH:
            self._flush()
            self._first = number
        self._digests += digest
        if len(self._digests) >= _AT_ONCE * WIDTH:
            self._flush()

    def finish(self, size: int, digest: Digest) -> None:
        """End the signature of a file of `size` bytes with this digest.  Raises OSError."""
        self._blocks.end(size)
        self._flush()
        head = _HEADER.pack(_MAGIC, BLOCK, digest.sparse, size, digest.value)
        end = _HEADER.size + _blocks(size) * WIDTH
        os.ftruncate(self._fd, end)
        content.write_all(self._fd, head, 0)
        content.write_all(self._fd, _sum(self._fd, end), end)

    def _flush(self) -> None:
        if self._digests:
            at = _HEADER.size + self._first * WIDTH
            content.write_all(self._fd, bytes(self._digests), at)
            self._first += len(self._digests) // WIDTH
            self._digests.clear()


class Signature:
    """An open signature.  Not for several threads at once."""

    def __init__(self, fd: int, blocks: int) -> None:
        self._fd = fd
        self._blocks = blocks
        self._first = 0
        self._digests = b""

    @classmethod
    def open(cls, folder: int, name: bytes, size: int, digest: Digest) -> Signature | None:
        """The signature of a file of `size` bytes with this digest; None where it is missing,
        damaged, or that of another."""
        try:
            fd = os.open(name, system.READ_SAFELY, dir_fd=folder)
        except OSError:
            return None
        try:
            if _is_for(fd, size, digest):
                return cls(fd, _blocks(size))
        except OSError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def block(self, number: int) -> bytes:
        """The digest of a block; `NOTHING` for one in a hole.  Raises OSError."""
        if not 0 <= number < self._blocks:
            return b""
        at = (number - self._first) * WIDTH
        if not 0 <= at < len(self._digests):
            self._first, at = number, 0
            count = min(_AT_ONCE, self._blocks - number) * WIDTH
            self._digests = content.read_up_to(self._fd, count, _HEADER.size + number * WIDTH)
        return self._digests[at : at + WIDTH]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def digest_of_block(data: bytes) -> bytes:
    """The digest of a block, which may be a short one at the file's end."""
    return blake3(data).digest(WIDTH)


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _is_for(fd: int, size: int, digest: Digest) -> bool:
    end = _HEADER.size + _blocks(size) * WIDTH
    if os.fstat(fd).st_size != end + _TRAILER:
        return False
    head = content.read_up_to(fd, _HEADER.size, 0)
    if head != _HEADER.pack(_MAGIC, BLOCK, digest.sparse, size, digest.value):
        return False
    return content.read_up_to(fd, _TRAILER, end) == _sum(fd, end)


def _sum(fd: int, end: int) -> bytes:
    """The sparse digest of the first `end` bytes."""
    hashing = content.hasher(True)
    st = os.fstat(fd)
    for offset, data in content.pieces(fd, st):
        if offset < end:
            hashing.feed(offset, data[: end - offset])
    return hashing.finish(end).value
