"""Files that share their bytes, as far as systems differ in that (the rest is in `system`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from typing import NamedTuple

from mirrorback.store import system, xattrs

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_ZFS_MAGIC = 0x2FC12FC1
_ZFS_CLONES = "/sys/module/zfs/parameters/zfs_bclone_enabled"


class NewFile(NamedTuple):
    """An empty file: a descriptor to write by, and what it is named in an open folder."""

    fd: int
    folder: int
    name: bytes


def clone_file(src_fd: int, new: NewFile) -> bool:
    """Let a new file share all bytes of an open one: by FICLONE; on ZFS by copy_file_range,
    where its block cloning is switched on; on macOS by clonefile(2), which makes a file: that
    takes the name, and the descriptor is its own then.  False where impossible.  Raises OSError.

    On macOS it has only been tried against a made-up C library."""
    if system.CLONES_BY_NAME:
        return _clone_by_name(src_fd, new)
    if not system.LINUX:
        return False
    try:
        fcntl.ioctl(new.fd, _FICLONE, src_fd)
    except OSError as error:
        if error.errno not in system.CANNOT:
            raise
        return _clones_blocks(src_fd) and _copy_in_kernel(src_fd, new.fd)
    return True


def _clone_by_name(src_fd: int, new: NewFile) -> bool:
    """A clone has mode and attributes of what it was made from: it loses them."""
    folder, clone = new.folder, b".clone-%d-%d" % (os.getpid(), new.fd)
    try:
        if not system.clone_new(src_fd, folder, clone):
            return False
    except FileExistsError:
        return False  # a name that somebody's file has
    try:
        os.chmod(clone, 0o600, dir_fd=folder)
        fd = os.open(clone, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            xattrs.write(fd, ())
            os.rename(clone, new.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.dup2(fd, new.fd, inheritable=False)
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(clone, dir_fd=folder)
        raise
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
