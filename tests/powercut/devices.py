"""Loop devices and mounts made by system calls, many in a second, that go with their process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS = 0x20000  # CLONE_NEWNS
_READ_ONLY = 1  # MS_RDONLY
_BIND = 0x1000  # MS_BIND
_PRIVATE = 0x44000  # MS_REC | MS_PRIVATE
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A  # linux/loop.h
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONFIG = struct.Struct("<IIQQQQQIIII")  # loop_config, with the first fields of loop_info64
_CONFIG_SIZE = 304
_FORGET = 0x50009405  # BTRFS_IOC_FORGET_DEV
_PR_SET_PDEATHSIG = 1
PATIENCE_S = 20
_PART = 1 << 20  # bytes


@dataclass(frozen=True)
class Kind:
    """A kind of file system, and how it is made and mounted."""

    name: str
    type: str
    size: int
    make: tuple[str, ...]
    options: str = ""


_EXT4 = ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")
# As small as they can be.  Images that were copied have the same UUID: xfs is told.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("ext4", "ext4", 64 << 20, _EXT4),
        Kind("ext4-noauto", "ext4", 64 << 20, _EXT4, "noauto_da_alloc"),
        Kind(
            "xfs", "xfs", 96 << 20,
            ("mkfs.xfs", "-q", "-f", "-K", "--unsupported", "-l", "size=8m"), "nouuid",
        ),
        Kind("btrfs", "btrfs", 128 << 20, ("mkfs.btrfs", "-q", "-f", "-K")),
    )
}  # fmt: skip


def die_with_parent() -> None:
    """Let this process be killed when its parent has ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def own_mounts() -> None:
    """What this process and its children mount from now on, nobody else sees; it is gone when
    they are.  Raises OSError."""
    _check(_LIBC.unshare(_NEWNS), "unshare")
    _check(_LIBC.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None), "mount")


@contextlib.contextmanager
def bound(folder: Path, point: Path) -> Iterator[None]:
    """A folder shown at another place, too.  Raises OSError."""
    arguments = (os.fsencode(folder), os.fsencode(point), None, ctypes.c_ulong(_BIND), None)
    _check(_LIBC.mount(*arguments), "bind")
    try:
        yield
    finally:
        _unmount(point)


def make(kind: Kind, image: Path) -> None:
    """A new file system in an image."""
    with image.open("wb") as file:
        file.truncate(kind.size)
    done = subprocess.run([*kind.make, image], capture_output=True, text=True)
    assert done.returncode == 0, (kind.make[0], done.stderr)


def _check(failed: int, what: str) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _attach(file: Path, *, direct: bool) -> tuple[str, int]:
    """A loop device upon a file: its path, and a descriptor of it.  It frees itself when that
    is closed and nothing is mounted."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    backing = os.open(file, os.O_RDWR)
    flags = _AUTOCLEAR | (_DIRECT_IO if direct else 0)
    config = _CONFIG.pack(backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags).ljust(_CONFIG_SIZE, b"\0")
    try:
        for _attempt in range(100):
            path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
                return path, device
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another process has taken it first
                    raise
        raise OSError(errno.EBUSY, "no free loop device")
    finally:
        os.close(backing)
        os.close(control)


@contextlib.contextmanager
def mounted(
    kind: Kind, file: Path, point: Path, *, direct: bool = False, read_only: bool = False
) -> Iterator[Path]:
    """The file system in a file, mounted; `direct` past the page cache of the file's own.
    Raises OSError where it cannot be mounted."""
    point.mkdir(parents=True, exist_ok=True)
    path, device = _attach(file, direct=direct)
    try:
        arguments = (
            path.encode(),
            os.fsencode(point),
            kind.type.encode(),
            ctypes.c_ulong(read_only),
        )
        _check(_LIBC.mount(*arguments, kind.options.encode()), f"mount {kind.name}")
    finally:
        os.close(device)
    try:
        yield point
    finally:
        _unmount(point)
        if kind.type == "btrfs":
            _forget(path)


def _unmount(point: Path) -> None:
    began = time.monotonic()
    while _LIBC.umount2(os.fsencode(point), 0):
        if ctypes.get_errno() == errno.EINVAL:  # somebody has done so
            return
        busy = ctypes.get_errno() == errno.EBUSY
        if not busy or time.monotonic() - began > PATIENCE_S:
            _check(1, "umount")
        time.sleep(0.01)


def _forget(path: str) -> None:
    """btrfs remembers the devices that it has seen, and would take an earlier state of one for
    a stale one."""
    control = os.open("/dev/btrfs-control", os.O_RDWR)
    try:
        argument = bytearray(struct.pack("<q4088s", 0, path.encode()))
        with contextlib.suppress(OSError):  # it has forgotten it already
            fcntl.ioctl(control, _FORGET, argument)
    finally:
        os.close(control)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image without its holes, to a new file."""
    target.unlink(missing_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                part = os.pread(old.fileno(), min(end - at, _PART), at)
                at += os.pwrite(new.fileno(), part, at)
