"""Files that share their bytes, as far as systems differ in that (the rest is in `system`)."""

from __future__ import annotations

import fcntl
import os
import struct

from mirrorback.store import system

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_ZFS_MAGIC = 0x2FC12FC1
_ZFS_CLONES = "/sys/module/zfs/parameters/zfs_bclone_enabled"


def clone_file(src_fd: int, dst_fd: int) -> bool:
    """Let an empty file share all bytes of another: by FICLONE, on ZFS by copy_file_range,
    where its block cloning is switched on.  False where impossible.  Raises OSError."""
    if not system.LINUX:
        return False
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError as error:
        if error.errno not in system.CANNOT:
            raise
        return _clones_blocks(src_fd) and _copy_in_kernel(src_fd, dst_fd)
    return True


def clone_range(src_fd: int, offset: int, length: int, dst_fd: int, at: int) -> bool:
    """Let a range of a file share the bytes of another's (FICLONERANGE), all of it whole
    blocks; False where impossible.  Raises OSError."""
    if not system.LINUX:
        return False
    try:
        fcntl.ioctl(dst_fd, _FICLONERANGE, struct.pack("=qQQQ", src_fd, offset, length, at))
    except OSError as error:
        if error.errno in system.CANNOT:
            return False
        raise
    return True


def _clones_blocks(fd: int) -> bool:
    """Whether copy_file_range shares blocks on the file system of `fd` (OpenZFS 2.2 and later,
    zfs(4), zfs_bclone_enabled)."""
    if system.file_system_number(fd) != _ZFS_MAGIC:
        return False
    try:
        with open(_ZFS_CLONES, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _copy_in_kernel(src_fd: int, dst_fd: int) -> bool:
    size, at = os.fstat(src_fd).st_size, 0
    while at < size:
        done = os.copy_file_range(src_fd, dst_fd, size - at, at, at)
        if not done:
            break  # it has become shorter
        at += done
    return at == size
