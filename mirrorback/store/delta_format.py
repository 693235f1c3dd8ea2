"""The file of a reverse delta: zstd frames and an index (see docs/delta-format.md).

The plaintext (`delta_commands`) is cut every 32 KiB, and each piece is a zstd frame (RFC 8878)
with its size and a checksum.  Behind them one skippable frame holds the index: the segments in
columns, the frames' sizes, and last, at the end of the file, a part of fixed size.

All of it is little endian.  Whoever imports this imports numpy and zstandard: only where large
files are at hand.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from mirrorback.errors import Damaged
from mirrorback.model import LITERAL, SIZE_LIMIT, Digest, Segments
from mirrorback.store import delta_commands

FRAME = 1 << 15  # bytes of plaintext in a frame; only the last has fewer
FRAME_MOST = FRAME + 64  # bytes that a frame takes at most
FRAME_LEAST = 12  # ... and at least: magic, header, a block, checksum
PLAIN_LIMIT = 1 << 43  # bytes of plaintext in a file
SEGMENT_LIMIT = 1 << 27  # so that an index that does not compress is below 4 GiB
SEGMENTS_A_BYTE = 8  # an index has a byte for each so many segments, or is filled up
SCANNED_FEW = 1 << 20  # segments that any file may be scanned for, ...
SCANNED_A_BYTE = 64  # ... and so many more for each byte of it
BLOCK = 1 << 16  # rows of the index that are compressed together

SKIPPABLE = struct.Struct("<II")  # of a skippable frame: magic, and bytes that follow
SKIPPABLE_MAGIC = 0x184D2A50
VERSION = 1

_CLOSING = struct.Struct("<32s32sQQQQIIHHI")  # then the checksum and the magic
_CHECKSUM = 32
_MAGIC = b"mbrdelta"
CLOSING = _CLOSING.size + _CHECKSUM + len(_MAGIC)
CHECKED = CLOSING - _CHECKSUM - len(_MAGIC)  # of its bytes the checksum covers so many

_OLD_SPARSE, _BASE_SPARSE = 1, 2
_ZSTD_MAGIC = 0xFD2FB528
_LENGTH = struct.Struct("<I")
Column = NDArray[np.int64]


# --- frames -----------------------------------------------------------------------------------


def compressor(level: int) -> zstandard.ZstdCompressor:
    """What makes frames: with the size and a checksum of their content."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


def frame_length(data: bytes) -> int | None:
    """The bytes that the zstd frame at the beginning of `data` takes, read from its header
    and its blocks' headers (RFC 8878, 3.1.1); None where no whole frame is there."""
    if len(data) < FRAME_LEAST or _LENGTH.unpack_from(data)[0] != _ZSTD_MAGIC:
        return None
    descriptor = data[4]
    single = descriptor >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
    while at + 3 <= len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        repeated = header >> 1 & 3 == 1
        at += 3 + (1 if repeated else header >> 3)
        if header & 1:
            at += 4 * (descriptor >> 2 & 1)
            return at if at <= len(data) else None
    return None


class _Decompressors:
    """Those that no thread uses: making one takes longer than a frame does.  (A thread of
    libfuse is a new one to Python at each call, so that it cannot keep its own.)"""

    def __init__(self) -> None:
        self._idle: list[zstandard.ZstdDecompressor] = []

    def content(self, data: bytes | memoryview) -> bytes:
        """The content of one frame.  Raises ZstdError."""
        try:
            found = self._idle.pop()
        except IndexError:
            found = zstandard.ZstdDecompressor()
        try:
            return found.decompress(data, allow_extra_data=False)
        finally:
            self._idle.append(found)


_DECOMPRESSORS = _Decompressors()


# A frame of FRAME bytes as one raw block: magic, descriptor, size, the block's header.
_STORED = struct.pack("<IBH", _ZSTD_MAGIC, 0x64, FRAME - 256) + (FRAME << 3 | 1).to_bytes(
    3, "little"
)
_STORED_LENGTH = len(_STORED) + FRAME + 4


def stored(data: bytes) -> memoryview | None:
    """The content of a zstd frame of FRAME bytes that did not compress, as a part of `data`,
    which spares a copy; None for any other frame, which `decoded` may know.  Raises Damaged
    where its checksum, the lower half of XXH64, is wrong (RFC 8878, 3.1.1)."""
    if len(data) != _STORED_LENGTH or not data.startswith(_STORED):
        return None
    content = memoryview(data)[len(_STORED) : -4]
    if xxhash.xxh64_intdigest(content) & 0xFFFFFFFF != _LENGTH.unpack_from(data, len(data) - 4)[0]:
        raise Damaged("the delta has a damaged frame")
    return content


def decoded(data: bytes | memoryview, size: int | None) -> bytes:
    """The content of one zstd frame, which has to be of `size` bytes; with None, of 1 to
    FRAME bytes.  Takes no more memory than that.  Raises Damaged."""
    try:
        told = zstandard.get_frame_parameters(data)
        fits = 0 < told.content_size <= FRAME if size is None else told.content_size == size
        if not fits or not told.has_checksum or told.dict_id:
            raise Damaged("the delta has a frame that is not of its kind")
        content = _DECOMPRESSORS.content(data)
    except zstandard.ZstdError as error:
        raise Damaged("the delta has a damaged frame") from error
    if len(content) != told.content_size:
        raise Damaged("the delta has a damaged frame")
    return content


# --- the columns of the index -----------------------------------------------------------------


class Rows:
    """Segments gathered one at a time, in 17 bytes each."""

    def __init__(self) -> None:
        self._length, self._kind, self._offset = array("q"), array("b"), array("q")

    def __len__(self) -> int:
        return len(self._length)

    def add(self, length: int, kind: int, offset: int) -> None:
        """Append one; every number fits in 63 bits."""
        self._length.append(length)
        self._kind.append(kind)
        self._offset.append(offset)

    def block(self, at: int) -> Segments:
        """The BLOCK segments from number `at` on, or as many as there are."""
        some = slice(at, at + BLOCK)
        columns = (self._length[some], self._kind[some], self._offset[some])
        return Segments(*(np.array(column, np.int64) for column in columns))

    def blocks(self) -> Iterator[Segments]:
        """All of them, BLOCK at a time."""
        return map(self.block, range(0, len(self), BLOCK))

    def clear(self) -> None:
        """Forget them."""
        for column in (self._length, self._kind, self._offset):
            del column[:]


def packed(compressor: zstandard.ZstdCompressor, *columns: NDArray[Any]) -> bytes:
    """Rows of the index, compressed, behind the length that takes.  Of each column all lowest
    bytes come first, then all second lowest, and so on: most of the higher are alike."""
    planes = [
        np.ascontiguousarray(column).view(np.uint8).reshape(len(column), -1).T.tobytes()
        for column in columns
    ]
    data = compressor.compress(b"".join(planes))
    return _LENGTH.pack(len(data)) + data


def packed_length(data: bytes) -> int:
    """The length that stands before what `packed` compressed."""
    length: int = _LENGTH.unpack(data)[0]
    return length


def unpacked(data: bytes, rows: int, *types: str) -> list[NDArray[Any]]:
    """The columns of `rows` rows, of these numpy types, from what `packed` made without the
    length.  Raises Damaged."""
    sizes = [np.dtype(name).itemsize for name in types]
    content = decoded(data, rows * sum(sizes))
    columns, at = [], 0
    for name, size in zip(types, sizes, strict=True):
        planes = np.frombuffer(content, np.uint8, size * rows, at).reshape(size, rows)
        columns.append(np.ascontiguousarray(planes.T).view(name).reshape(rows))
        at += size * rows
    return columns


class Offsets:
    """Turns the offsets of segments, given in blocks, into numbers that are often alike, and
    back: a COPY's less its place in the old version, a LITERAL's less the end of the one
    before (at first 0)."""

    def __init__(self) -> None:
        self._place = 0
        self._end = 0

    def coded(self, segments: Segments) -> Column:
        """What the index holds for the offsets of the next segments."""
        length, kind, offset = segments
        literal = kind == LITERAL
        coded = offset - self._places(length)
        ends = self._ends(offset[literal] + length[literal])
        coded[literal] = offset[literal] - ends
        return coded

    def plain(self, length: Column, kind: Column, coded: Column) -> Column:
        """The offsets of the next segments.  Impossible numbers may come out of impossible
        ones, and no error."""
        literal = kind == LITERAL
        offset = coded + self._places(length)
        ends = self._end + np.cumsum(coded[literal] + length[literal])
        self._ends(ends)
        offset[literal] = ends - length[literal]
        return offset

    def _places(self, length: Column) -> Column:
        ends = self._place + np.cumsum(length)
        if len(ends):
            self._place = int(ends[-1])
        return ends - length

    def _ends(self, ends: Column) -> Column:
        """For each literal the end of the one before."""
        before = np.append(np.array([self._end], np.int64), ends)
        self._end = int(before[-1])
        return before[:-1]


def packed_segments(
    compressor: zstandard.ZstdCompressor, segments: Segments, offsets: Offsets
) -> bytes:
    """The next up to BLOCK segments as they stand in the index."""
    return packed(
        compressor,
        segments.length.astype("<i8", copy=False),
        segments.kind.astype(np.uint8),
        offsets.coded(segments).astype("<i8", copy=False),
    )


def unpacked_segments(data: bytes, rows: int, offsets: Offsets) -> Segments:
    """The next `rows` segments, still to be checked for `Segments.fault`.  Raises Damaged."""
    length, kind, coded = unpacked(data, rows, "<i8", "u1", "<i8")
    wide = kind.astype(np.int64)
    return Segments(length, wide, offsets.plain(length, wide, coded))


# --- the part at the end ----------------------------------------------------------------------


class Index(NamedTuple):
    """What the index tells besides segments and frames."""

    old_size: int
    old_digest: Digest
    base_size: int
    base_digest: Digest
    plain_size: int  # bytes of plaintext in all frames
    segments: int  # their number
    segment_bytes: int  # what they take in the index
    frame_bytes: int  # what the sizes of the frames take, behind them

    @property
    def frames(self) -> int:
        """The number of frames."""
        return -(-self.plain_size // FRAME)


def closing(index: Index, length: int) -> bytes:
    """The part at the end without its checksum; `length` is that of the whole index."""
    forms = _OLD_SPARSE * index.old_digest.sparse | _BASE_SPARSE * index.base_digest.sparse
    return _CLOSING.pack(
        index.old_digest.value,
        index.base_digest.value,
        index.old_size,
        index.base_size,
        index.plain_size,
        index.segments,
        index.segment_bytes,
        index.frame_bytes,
        forms,
        VERSION,
        length,
    )


def ending(checksum: bytes) -> bytes:
    """The last bytes of the file."""
    return checksum + _MAGIC


def opened(data: bytes, file_size: int) -> tuple[Index, int, bytes]:
    """What the last CLOSING bytes of a file of `file_size` bytes say: the index, its length
    in bytes with them, and the checksum it should have.  Raises Damaged where there is no
    index, or it tells what cannot be in a file of that size."""
    if len(data) != CLOSING or not data.endswith(_MAGIC):
        raise Damaged("the delta has no index")
    *told, forms, version, length = _CLOSING.unpack_from(data)
    if version != VERSION:
        raise Damaged(f"the delta's index has version {version}, which is not known")
    old, base, old_size, base_size, plain_size, *rest = told
    index = Index(
        old_size,
        Digest(old, bool(forms & _OLD_SPARSE)),
        base_size,
        Digest(base, bool(forms & _BASE_SPARSE)),
        plain_size,
        *rest,
    )
    frames_end = file_size - SKIPPABLE.size - length
    possible = (
        index.segment_bytes + index.frame_bytes <= length - CLOSING
        and max(old_size, base_size) < SIZE_LIMIT
        and len(delta_commands.MAGIC + delta_commands.END) <= plain_size < PLAIN_LIMIT
        and FRAME_LEAST * index.frames <= frames_end <= FRAME_MOST * index.frames
        and index.segments < SEGMENT_LIMIT
        and index.segments <= SEGMENTS_A_BYTE * length
        and index.segments * delta_commands.SHORTEST <= plain_size
        and forms <= _OLD_SPARSE | _BASE_SPARSE
    )
    if not possible:
        raise Damaged("the delta's index tells of sizes that do not fit the file")
    return index, length, data[CHECKED : CHECKED + _CHECKSUM]
