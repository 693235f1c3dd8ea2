"""Subvolumes of btrfs: what one is, a read-only snapshot of it, and the end of that.

By the kernel's own calls (linux/btrfs.h) on open folders: no program has to be installed, no
path is looked up twice, and errors have numbers.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

from mirrorback.store import system

ROOT_INODE = 256  # of every subvolume's root (BTRFS_FIRST_FREE_OBJECTID)
# Of the empty folder that stands in a snapshot for a subvolume within what was snapshotted.
EMPTY_INODE = 2
_MAGIC = 0x9123683E  # f_type of statfs(2)
_SNAP_DESTROY = 0x5000940F  # _IOW(0x94, 15, struct btrfs_ioctl_vol_args)
_SNAP_CREATE_V2 = 0x50009417  # _IOW(0x94, 23, struct btrfs_ioctl_vol_args_v2)
_GETFLAGS = 0x80089419  # _IOR(0x94, 25, __u64)
_SETFLAGS = 0x4008941A  # _IOW(0x94, 26, __u64)
_GET_SUBVOL_INFO = 0x81F8943C  # _IOR(0x94, 60, struct btrfs_ioctl_get_subvol_info_args)
_RDONLY = 2  # BTRFS_SUBVOL_RDONLY
_ARGS = struct.Struct("=q4088s")  # fd, name
_ARGS_V2 = struct.Struct("=qQQ32s4040s")  # fd, transid, flags, unused, name
_FLAGS = struct.Struct("=Q")
_INFO_SIZE = 504
_INFO = struct.Struct("=Q256sQQQQ16s16s")  # treeid, name, parent, dir, generation, flags, uuids


class Subvolume(NamedTuple):
    """What the file system says of a subvolume."""

    uuid: bytes  # 16 bytes, that no other subvolume has
    parent: bytes  # the uuid of that which it is a snapshot of; zeros where it is none
    read_only: bool


def on_btrfs(fd: int) -> bool:
    """Whether an open file or folder lies on btrfs."""
    return system.LINUX and system.file_system_number(fd) == _MAGIC


def is_root(st: os.stat_result) -> bool:
    """Whether a folder on btrfs is the root of a subvolume."""
    return st.st_ino == ROOT_INODE


def info(fd: int) -> Subvolume:
    """The subvolume of an open file or folder on btrfs (Linux 4.18).  Raises OSError."""
    import fcntl

    data = bytearray(_INFO_SIZE)
    fcntl.ioctl(fd, _GET_SUBVOL_INFO, data)
    _tree, _name, _in, _dir, _generation, flags, uuid, parent = _INFO.unpack_from(data)
    return Subvolume(uuid, parent, bool(flags & 1))  # BTRFS_ROOT_SUBVOL_RDONLY


def snapshot(root: int, folder: int, name: bytes) -> None:
    """Make a read-only snapshot of the subvolume whose root is open, in an open folder of the
    same file system; durable on return.  Raises OSError."""
    import fcntl

    fcntl.ioctl(folder, _SNAP_CREATE_V2, bytearray(_ARGS_V2.pack(root, 0, _RDONLY, b"", name)))


def destroy(folder: int, name: bytes) -> None:
    """Remove a snapshot from an open folder.  Raises OSError."""
    import fcntl

    try:
        fcntl.ioctl(folder, _SNAP_DESTROY, bytearray(_ARGS.pack(0, name)))
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        # To others than root what is read-only cannot be removed either.
        _make_writable(folder, name)
        fcntl.ioctl(folder, _SNAP_DESTROY, bytearray(_ARGS.pack(0, name)))


def _make_writable(folder: int, name: bytes) -> None:
    import fcntl

    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=folder)
    try:
        data = bytearray(_FLAGS.size)
        fcntl.ioctl(fd, _GETFLAGS, data)
        fcntl.ioctl(fd, _SETFLAGS, _FLAGS.pack(_FLAGS.unpack(data)[0] & ~_RDONLY))
    finally:
        os.close(fd)
