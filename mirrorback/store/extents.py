"""Extents: which bytes of the drive a file lies on, and which of them other files lie on too.

By FIEMAP (Documentation/filesystems/fiemap.rst in Linux, linux/fiemap.h).  Only on file systems
with reflinks is there anything to be asked: elsewhere no two inodes share a block.
"""

from __future__ import annotations

import errno
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from mirrorback.store import btrfs, system

if TYPE_CHECKING:  # only where several versions share parts of each other
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.int64]

# Of the file systems that Linux has: those that share blocks and tell so, and those that do not
# share.  Of all others, such as zfs and nfs, nobody knows from here.
TELLING = frozenset({"xfs", "btrfs", "bcachefs", "ocfs2"})
UNSHARED = frozenset(
    {"ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "tmpfs", "ramfs", "hfsplus"}
    | {"ntfs", "ntfs3", "fuseblk", "vfat", "exfat", "udf"}
)

_FIEMAP = 0xC020660B  # _IOWR('f', 11, struct fiemap)
_HEAD = struct.Struct("=QQIIII")  # start, length, flags, mapped, count, reserved
_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_AT_ONCE = 512  # extents
_WHOLE = (1 << 64) - 1
_LAST, _UNKNOWN, _DELALLOC, _ENCODED = 0x1, 0x2, 0x4, 0x8
_INLINE, _SHARED = 0x200, 0x2000
_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EBADR, errno.ENOSYS)
MOST = 1 << 22  # extents of one file that are looked at


@dataclass(slots=True)
class Layout:
    """Where a file lies."""

    own: int = 0  # bytes that nothing but this file refers to
    shared: bytes = b""  # the ranges that others refer to as well, or this one twice: begin and
    # end of each, 64 bits, on the device
    estimated: bool = False  # more or less may be given back with it


class _Mapped(NamedTuple):
    """What FIEMAP says of a file."""

    inline: int  # bytes that lie among the metadata, in no block of their own
    shared_bytes: int  # of its own content, as far as other extents refer to the same
    shared: array[int]  # begin and end of each such range on the device
    unsure: bool  # not on the drive yet, or too much to be looked at
    encoded: bool  # compressed: lengths are of what it was before


def layout(fd: int, taken: int, fstype: str) -> Layout | None:
    """Where an open file lies, which takes so many bytes by its inode; None where the system
    does not say.  Raises OSError."""
    if not system.LINUX:
        return None
    mapped = _fiemap(fd)
    if mapped is None:
        return None
    if fstype == "btrfs":
        found = btrfs.extents(fd, MOST)
        if found is not None and not mapped.unsure:
            return _of_btrfs(found, mapped.shared)
    # What the inode counts besides data, such as the tree of extents, goes with it.
    own = mapped.inline or max(0, taken - mapped.shared_bytes)
    # There an extent may be larger than all that anyone refers to of it.
    parts = fstype == "btrfs" and bool(mapped.shared)
    return Layout(own, mapped.shared.tobytes(), mapped.unsure or mapped.encoded or parts)


def _of_btrfs(found: btrfs.Extents, pieces: array[int]) -> Layout:
    """Whole extents, which are shared where a piece of them is."""
    begins = sorted(zip(pieces[::2], pieces[1::2], strict=True))
    own, shared, at = found.inline, array("q"), 0
    for begin, end in found.whole:
        while at < len(begins) and begins[at][1] <= begin:
            at += 1
        if at < len(begins) and begins[at][0] < end:
            shared.extend((begin, end))
        else:
            own += end - begin
    return Layout(own, shared.tobytes())


def _fiemap(fd: int) -> _Mapped | None:
    import fcntl

    inline = shared_bytes = at = 0
    shared = array("q")
    unsure = encoded = False
    buffer = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
    while True:
        _HEAD.pack_into(buffer, 0, at, _WHOLE - at, 0, 0, _AT_ONCE, 0)
        try:
            fcntl.ioctl(fd, _FIEMAP, buffer)
        except OSError as error:
            if error.errno in _CANNOT:
                return None
            raise
        count = _HEAD.unpack_from(buffer)[3]
        last = count == 0
        end = _HEAD.size + count * _EXTENT.size
        for logical, physical, length, flags in _EXTENT.iter_unpack(buffer[_HEAD.size : end]):
            at = logical + length
            last = bool(flags & _LAST)
            encoded |= bool(flags & _ENCODED)
            if flags & _INLINE:
                inline += length
            elif flags & _DELALLOC or (flags & _UNKNOWN and not physical):
                unsure = True
            elif flags & _SHARED:
                shared_bytes += length
                # The place of a compressed one is that of all of it.
                shared.extend((physical, physical + (1 if flags & _ENCODED else length)))
        if len(shared) > 2 * MOST:
            unsure = last = True
        if last:
            return _Mapped(inline, shared_bytes, shared, unsure, encoded)


@dataclass
class Overlay:
    """How many files lie on each byte of the drive, counted no further than to 2.

    Memory goes with the number of places where that changes, however many files there are.
    """

    _at: Column | None = field(default=None, repr=False)  # where it changes, rising
    _count: Column | None = field(default=None, repr=False)  # from there on

    def add(self, ranges: bytes) -> None:
        """Lay a file's shared ranges (see `Layout`) over what there is."""
        import numpy as np

        ends = np.frombuffer(ranges, dtype=np.int64).reshape(-1, 2)
        steps = [np.ones(len(ends), np.int64), -np.ones(len(ends), np.int64)]
        places = [ends[:, 0], ends[:, 1]]
        if self._at is not None and self._count is not None:
            places.append(self._at)
            steps.append(np.diff(self._count, prepend=0))
        where, which = np.unique(np.concatenate(places), return_inverse=True)
        change = np.zeros(len(where), np.int64)
        np.add.at(change, which, np.concatenate(steps))
        count = np.minimum(np.cumsum(change), 2)
        kept = np.diff(count, prepend=0) != 0
        self._at, self._count = where[kept], count[kept]

    def covered(self, least: int, without: Overlay | None = None) -> int:
        """Bytes on which at least so many files (1 or 2) lie, and no file of another overlay."""
        import numpy as np

        if self._at is None or self._count is None:
            return 0
        if without is None or without._at is None or without._count is None:
            lengths = np.diff(self._at)
            return int(lengths[self._count[:-1] >= least].sum())
        where = np.union1d(self._at, without._at)
        mine = _counts(self._at, self._count, where) >= least
        free = _counts(without._at, without._count, where) == 0
        return int(np.diff(where)[(mine & free)[:-1]].sum())


def _counts(at: Column, count: Column, where: Column) -> Column:
    """A step function's values at some places."""
    import numpy as np

    found = np.searchsorted(at, where, "right")
    return np.concatenate([np.zeros(1, np.int64), count])[found]


def overlaid(files: Iterable[bytes]) -> Overlay:
    """An overlay of some files' shared ranges."""
    made = Overlay()
    for ranges in files:
        made.add(ranges)
    return made
