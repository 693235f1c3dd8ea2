"""What a drive can hold, found out by trying it in a private folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirrorback.store import clones, mounts, remove, system, tree, xattrs
from mirrorback.store.clones import NewFile

_TIMES = (-(2**31) * 10**9, 2**32 * 10**9)  # 1901 and 2106: what 32 bits of seconds end at
_GRAIN_TEST = 1_000_000_000 * 10**9 + 123_456_789
# An access control list as the kernel keeps it: version 2; owner rwx, user 1 r--,
# group r--, mask r--, others none (linux/posix_acl_xattr.h).
_ACL = struct.pack(
    "<I" + "HHI" * 5,
    2,
    1,
    7,
    2**32 - 1,
    2,
    4,
    1,
    4,
    4,
    2**32 - 1,
    16,
    4,
    2**32 - 1,
    32,
    0,
    2**32 - 1,
)


PREFIX = b".mirrorback-probe-"
_SETTLE_S, _SETTLING = 0.02, 50


@dataclass(frozen=True, slots=True)
class Drive:
    """What was found out of a file system."""

    hard_links: bool
    reflinks: bool
    symlinks: bool
    long_symlinks: bool  # of 4095 bytes
    fifos: bool
    devices: bool
    xattrs: bool
    acls: bool
    owners: bool
    modes: bool
    name_max: int  # bytes
    any_bytes: bool  # names that are not UTF-8
    case_sensitive: bool
    time_grain: int  # ns
    all_times: bool  # from 1901 to 2106 and beyond
    exchange: bool
    holes: bool
    free: int
    total: int
    free_inodes: int | None
    total_inodes: int | None
    fstype: str
    options: frozenset[str]
    rotational: bool


def free_space(fd: int) -> tuple[int, int | None]:
    """Bytes and inodes that this user may still take; inodes None where the file
    system does not count them.  Raises OSError."""
    st = os.fstatvfs(fd)
    return st.f_bavail * st.f_frsize, st.f_favail if st.f_files else None


def settled_free_space(fd: int) -> int:
    """Bytes that this user may still take, when what was removed before is free: file systems
    free it some time later, at a sync or in the background.  Raises OSError."""
    system.sync_filesystem(fd)
    free, _inodes = free_space(fd)
    for _ in range(_SETTLING):
        time.sleep(_SETTLE_S)
        before = free
        free, _inodes = free_space(fd)
        if free <= before:
            break
    return free


def total_space(fd: int) -> int:
    """The size of a drive, in bytes.  Raises OSError."""
    st = os.fstatvfs(fd)
    return st.f_blocks * st.f_frsize


def clean(fd: int) -> None:
    """Remove what a probe that was killed has left in an open folder.  Raises OSError."""
    for name in map(os.fsencode, os.listdir(fd)):
        if name.startswith(PREFIX):
            remove.remove_tree(fd, name, threads=1)


def probe(folder: bytes) -> Drive:
    """Try what the file system of `folder` can hold; nothing is left behind.  Raises OSError."""
    top = tree.open_root(folder)
    name = PREFIX + secrets.token_hex(4).encode()
    try:
        os.mkdir(name, 0o700, dir_fd=top)
        try:
            fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=top)
            try:
                return _try_all(folder, fd)
            finally:
                os.close(fd)
        finally:
            remove.remove_tree(top, name, threads=1)
    finally:
        os.close(top)


def _try_all(folder: bytes, fd: int) -> Drive:
    with _file(fd, b"file") as file:
        os.write(file, b"x" * 4096)
    st = os.fstatvfs(fd)
    mount = mounts.mount_of(folder)
    return Drive(
        hard_links=_works(lambda: os.link(b"file", b"link", src_dir_fd=fd, dst_dir_fd=fd)),
        reflinks=_reflinks(fd),
        symlinks=_works(lambda: os.symlink(b"x", b"symlink", dir_fd=fd)),
        long_symlinks=_works(lambda: os.symlink(b"a/" * 2047 + b"b", b"long", dir_fd=fd)),
        fifos=_works(lambda: os.mkfifo(b"fifo", dir_fd=fd)),
        devices=_works(lambda: os.mknod(b"null", stat.S_IFCHR | 0o600, 0x103, dir_fd=fd)),
        xattrs=_attribute(fd, b"user.probe", b"x"),
        acls=_attribute(fd, b"system.posix_acl_access", _ACL),
        owners=_owners(fd),
        modes=_modes(fd),
        name_max=st.f_namemax,
        any_bytes=_works(lambda: _touch(fd, b"\xff\xfe")) and b"\xff\xfe" in _names(fd),
        case_sensitive=_works(lambda: _touch(fd, b"Case")) and _works(lambda: _touch(fd, b"case")),
        time_grain=_grain(fd),
        all_times=all(_keeps_time(fd, time) for time in _TIMES),
        exchange=_exchange(fd),
        holes=_holes(fd),
        free=st.f_bavail * st.f_frsize,
        total=st.f_blocks * st.f_frsize,
        free_inodes=st.f_favail if st.f_files else None,
        total_inodes=st.f_files or None,
        fstype=mount.fstype if mount else "",
        options=mount.options if mount else frozenset(),
        rotational=system.is_rotational(folder),
    )


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise
        return False
    return True


@contextlib.contextmanager
def _file(fd: int, name: bytes) -> Iterator[int]:
    file = os.open(name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        yield file
    finally:
        os.close(file)


def _touch(fd: int, name: bytes) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=fd))


def _names(fd: int) -> set[bytes]:
    return {os.fsencode(name) for name in os.listdir(fd)}


def _reflinks(fd: int) -> bool:
    with _file(fd, b"file") as old, _file(fd, b"clone") as new:
        return clones.clone_file(old, NewFile(new, fd, b"clone"))


def _attribute(fd: int, name: bytes, value: bytes) -> bool:
    with _file(fd, b"attributes") as file:
        return not xattrs.write(file, ((name, value),)) and (name, value) in xattrs.read(file)


def _owners(fd: int) -> bool:
    """Whether root may give files away here; another user never may."""
    if os.geteuid() != 0:
        return False
    with _file(fd, b"owned") as file:
        if not _works(lambda: os.fchown(file, 12345, 12346)):
            return False
        st = os.fstat(file)
        return (st.st_uid, st.st_gid) == (12345, 12346)


def _modes(fd: int) -> bool:
    with _file(fd, b"mode") as file:
        if not _works(lambda: os.fchmod(file, 0o4751)):
            return False
        return stat.S_IMODE(os.fstat(file).st_mode) == 0o4751


def _grain(fd: int) -> int:
    with _file(fd, b"time") as file:
        os.utime(file, ns=(_GRAIN_TEST, _GRAIN_TEST))
        kept = os.fstat(file).st_mtime_ns
    for grain in (1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000):
        if kept == _GRAIN_TEST - _GRAIN_TEST % grain:
            return grain
    return 2_000_000_000


def _keeps_time(fd: int, time: int) -> bool:
    with _file(fd, b"time") as file:
        if not _works(lambda: os.utime(file, ns=(time, time))):
            return False
        return os.fstat(file).st_mtime_ns == time


def _exchange(fd: int) -> bool:
    os.mkdir(b"one", dir_fd=fd)
    os.mkdir(b"two", dir_fd=fd)
    return system.exchange(fd, b"one", fd, b"two")


def _holes(fd: int) -> bool:
    with _file(fd, b"hole") as file:
        os.ftruncate(file, 1 << 20)
        return os.fstat(file).st_blocks * 512 < 1 << 19
