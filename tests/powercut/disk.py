"""A disk that is a file, which writes down what is written to it, and can be pulled.

Run as a program it is a FUSE file system of three files:

    disk.py IMAGE LOG POINT

    disk    the blocks: what is read and written here, goes to IMAGE
    mark    what is written here stands in the log, among the writes to `disk`
    fault   "N E": after N more requests every one ends with the error number E; " " ends that.
            Its size is the number of requests to `disk` until now

A loop device upon `disk` carries the file system under test.  The log is a row of records,
each `<cQQ` (what, offset, length) and, for W and M, so many bytes:

    W  written        Z  discarded, or zeroed        F  flushed        M  a mark

One request is answered after the other, so that their order in the log is that in which the
disk has ended them.  A loop device has no FUA: such a write is one with a flush behind it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = struct.Struct("<cQQ")
PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE = 2, 1, 16  # fallocate(2)
LONGEST_S = 30
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def punch(fd: int, offset: int, length: int) -> None:
    """Let a range of an open image read as zeros.  Raises OSError."""
    call = _LIBC.fallocate64
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, PUNCH_HOLE | KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Disk:
    """What FUSE asks of us."""

    use_ns = True

    def __init__(self, image: str, log: str) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self._left: int | None = None  # requests until it fails
        self._error = 0
        self._count = 0

    def init(self, _path: str) -> None:
        """It is mounted."""

    def getattr(self, path: str, _fh: int | None = None) -> dict[str, int]:
        """The attributes of a name."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path not in ("/disk", "/mark", "/fault"):
            raise OSError(errno.ENOENT, path)
        sizes = {"/disk": os.fstat(self._image).st_size, "/fault": self._count}
        size = sizes.get(path, 0)
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

    def readdir(self, _path: str, _fh: int) -> list[str]:
        """The names."""
        return [".", "..", "disk", "mark", "fault"]

    def truncate(self, path: str, _size: int, _fh: int | None = None) -> None:
        """The disk's size stays."""
        if path == "/disk":
            raise OSError(errno.EPERM, path)

    def read(self, path: str, size: int, offset: int, _fh: int) -> bytes:
        """Some bytes."""
        if path != "/disk":
            return b""
        self._may_fail()
        return os.pread(self._image, size, offset)

    def write(self, path: str, data: bytes, offset: int, _fh: int) -> int:
        """Write to the disk, or what is said to us."""
        if path == "/mark":
            self._note(b"M", 0, len(data), data)
        elif path == "/fault":
            words = data.split()
            self._left = int(words[0]) if words else None
            self._error = int(words[1]) if words else 0
        else:
            self._may_fail()
            done = os.pwrite(self._image, data, offset)
            assert done == len(data), "no room for the image"
            self._note(b"W", offset, len(data), data)
        return len(data)

    def fsync(self, path: str, _data_only: int, _fh: int) -> None:
        """A flush: all that was written before is durable."""
        if path == "/disk":
            self._may_fail()
            self._note(b"F", 0, 0)

    def fallocate(self, path: str, mode: int, offset: int, size: int, _fh: int) -> None:
        """A discard, or zeros written without their bytes."""
        if path != "/disk" or not mode & (PUNCH_HOLE | ZERO_RANGE):
            raise OSError(errno.EOPNOTSUPP, path)
        self._may_fail()
        punch(self._image, offset, size)
        self._note(b"Z", offset, size)

    def _may_fail(self) -> None:
        self._count += 1
        if self._left is None:
            return
        if self._left == 0:
            raise OSError(self._error, os.strerror(self._error))
        self._left -= 1

    def _note(self, what: bytes, offset: int, length: int, data: bytes = b"") -> None:
        record = RECORD.pack(what, offset, length) + data
        assert os.write(self._log, record) == len(record), "no room for the log"


class Served:
    """A disk that is there: the files of its mount point."""

    def __init__(self, point: Path, log: Path) -> None:
        self.block_file = point / "disk"
        self.log = log
        self._point = point

    def mark(self, text: str) -> None:
        """Put a mark into the log."""
        self._say("mark", text)

    def fail(self, error: int, after: int = 0) -> None:
        """Answer every request with an error from now on, or after some more."""
        self._say("fault", f"{after} {error}")

    def recover(self) -> None:
        """Answer again."""
        self._say("fault", " ")

    def requests(self) -> int:
        """How many requests there were."""
        return (self._point / "fault").stat().st_size

    def _say(self, name: str, text: str) -> None:
        fd = os.open(self._point / name, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


@contextlib.contextmanager
def served(image: Path, log: Path, point: Path) -> Iterator[Served]:
    """The disk in an image, served by a process of its own, which ends with this one."""
    point.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, __file__, image, log, point])
    try:
        began = time.monotonic()
        while not (point / "disk").exists():
            assert process.poll() is None, "the disk did not start"
            assert time.monotonic() - began < LONGEST_S, "the disk does not start"
            time.sleep(0.005)
        yield Served(point, log)
    finally:
        subprocess.run(["umount", "--lazy", point], capture_output=True)
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Serve, until it is unmounted."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    image, log, point = sys.argv[1:]
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"
    import mfusepy

    served_disk: Any = type("Served", (Disk, mfusepy.Operations), {})
    mfusepy.FUSE(
        served_disk(image, log),
        point,
        foreground=True,
        nothreads=True,
        attr_timeout=0,
        fsname="mirrorback-disk",
    )


if __name__ == "__main__":
    main()
