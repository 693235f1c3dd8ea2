"""Btrfs's own account of a file's extents, which tells two things that FIEMAP does not: what a
compressed one takes, and how far an extent goes of which the file shows only a part.  An extent
is given back when nobody refers to any part of it.

By BTRFS_IOC_TREE_SEARCH, which only root may ask (linux/btrfs.h, linux/btrfs_tree.h).
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

_SEARCH = 0xD0009411  # _IOWR(0x94, 17, struct btrfs_ioctl_search_args)
_ARGS = 4096  # bytes of that
_KEY = struct.Struct("=7Q4I4Q")
_HEADER = struct.Struct("=3Q2I")  # transid, objectid, offset, type, len
_EXTENT_DATA = 108
_MOST = (1 << 64) - 1
_TYPE = 20  # where in a btrfs_file_extent_item it is told
_DATA = 21  # where the data of an inline one begins
_PLACE = struct.Struct("<QQQQ")  # disk_bytenr, disk_num_bytes, offset, num_bytes
_INLINE = 0
_CANNOT = (errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP)


class Extents(NamedTuple):
    """The extents that a file refers to, each once, rising: begin and end; and the bytes that
    it has among the metadata."""

    whole: list[tuple[int, int]]
    inline: int


def extents(fd: int, most: int) -> Extents | None:
    """Those of an open file; None where we may not ask, and where there are more than `most`
    of them.  Raises OSError."""
    import fcntl

    inode = os.fstat(fd).st_ino
    found: set[tuple[int, int]] = set()
    inline = at = 0
    while len(found) <= most:
        args = bytearray(_ARGS)
        key = (0, inode, inode, at, _MOST, 0, _MOST, _EXTENT_DATA, _EXTENT_DATA, 1 << 12, 0)
        _KEY.pack_into(args, 0, *key, 0, 0, 0, 0)
        try:
            fcntl.ioctl(fd, _SEARCH, args)
        except OSError as error:
            if error.errno in _CANNOT:
                return None
            raise
        count = _KEY.unpack_from(args)[9]
        place = _KEY.size
        for _ in range(count):
            _transid, _inode, at, _type, length = _HEADER.unpack_from(args, place)
            item = args[place + _HEADER.size : place + _HEADER.size + length]
            place += _HEADER.size + length
            if item[_TYPE] == _INLINE:
                inline += length - _DATA
            elif len(item) >= _DATA + _PLACE.size:
                begin, size, _offset, _bytes = _PLACE.unpack_from(item, _DATA)
                if begin:  # else it is a hole
                    found.add((begin, begin + size))
        if not count or at == _MOST:
            return Extents(sorted(found), inline)
        at += 1
    return None
