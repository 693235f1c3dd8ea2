"""How attributes are packed into the catalog, and how its rows are checked."""

from __future__ import annotations

import marshal
import struct
import zlib

from blake3 import blake3

from mirrorback.errors import Damaged

_HEADER = struct.Struct("<HI")


def pack_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """For each attribute: length of name (2 bytes) and value (4 bytes, both
    little endian), name, value.  b"" for none."""
    return b"".join(_HEADER.pack(len(n), len(v)) + n + v for n, v in xattrs)


def attributes_key(packed: bytes) -> bytes:
    """The digest by which packed attributes are named: BLAKE3, 16 bytes."""
    key: bytes = blake3(packed).digest(16)
    return key


def unpack_xattrs(packed: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    """The inverse of `pack_xattrs`; None is no attribute.  Raises Damaged."""
    found = []
    at, packed = 0, packed or b""
    while at < len(packed):
        if at + _HEADER.size > len(packed):
            raise Damaged("the catalog holds attributes that cannot be read")
        name_length, value_length = _HEADER.unpack_from(packed, at)
        at += _HEADER.size
        end = at + name_length + value_length
        if end > len(packed):
            raise Damaged("the catalog holds attributes that cannot be read")
        found.append((packed[at : at + name_length], packed[at + name_length : end]))
        at = end
    return tuple(found)


def pack_time(time: int) -> int | bytes:
    """A time in ns as a column holds it: SQLite's integers end in the year 2262, what
    lies beyond is 16 bytes, big endian."""
    if -(1 << 63) <= time < 1 << 63:
        return time
    return time.to_bytes(16, "big", signed=True)


def unpack_time(column: int | bytes) -> int:
    """The inverse of `pack_time`."""
    return column if isinstance(column, int) else int.from_bytes(column, "big", signed=True)


def row_check(*columns: int | str | bytes | None) -> int:
    """A CRC-32 over the columns of a row: finds any single flipped bit, which
    SQLite itself does not.  Kept in the row's last column."""
    return zlib.crc32(marshal.dumps(columns, 2))
