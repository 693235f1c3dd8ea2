"""The logs of runs: a folder of files, one for each run, kept for some time."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from datetime import date, datetime, timedelta

from mirrorback.store import content

LOG = b"log"  # the folder in a repository
KEPT = timedelta(days=90)
LIMIT = 4 << 20  # bytes of one log
LEFT_FOR_LAST = 8 << 10  # bytes of these, for its last line
_FULL = "[the log is full]"
_NAME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})-[0-9]{6}(?:-[0-9]{1,3})?\.log", re.ASCII)


class Log:
    """The log of one run; a drive that fails does not take the run with it.  For several
    threads."""

    def __init__(self, fd: int | None, limit: int = LIMIT) -> None:
        self._fd = fd
        self._limit = limit
        self._at = 0
        self._full = False
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, folder: int, now: datetime, limit: int = LIMIT) -> Log:
        """A new log in an open folder, named by the moment, of `limit` bytes at most; nothing is
        written where that is impossible."""
        with contextlib.suppress(OSError):
            return cls(_new(folder, now), limit)
        return cls(None)

    def line(self, moment: datetime, text: str, *, last: bool = False) -> None:
        """Write a line, which holds no control characters.  Of what does not fit, only the
        `last` one is written."""
        with self._lock:
            if self._full and not last:
                return
            data = _line(moment, text)
            if self._at + len(data) > self._limit - LEFT_FOR_LAST and not last:
                data, self._full = _line(moment, _FULL), True
            self._write(data[:LEFT_FOR_LAST] if last else data)

    def _write(self, data: bytes) -> None:
        if self._fd is None:
            return
        try:
            content.write_all(self._fd, data, self._at)
            self._at += len(data)
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def end(self) -> None:
        """Close it."""
        with self._lock:
            self._close()


def _line(moment: datetime, text: str) -> bytes:
    return f"{moment:%Y-%m-%d %H:%M:%S} {text}\n".encode("utf-8", "backslashreplace")


def _new(folder: int, now: datetime) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    for number in range(1, 1000):
        name = f"{now:%Y-%m-%d-%H%M%S}" + (f"-{number}" if number > 1 else "") + ".log"
        with contextlib.suppress(FileExistsError):
            return os.open(name, flags, 0o600, dir_fd=folder)
    raise FileExistsError(name)


def forget_old(folder: int, today: date) -> None:
    """Remove the logs of runs more than 90 days ago.  Those of days to come stay: a clock may
    have been set back.  Raises OSError."""
    for name in names(folder):
        match = _NAME.fullmatch(name)
        assert match is not None
        with contextlib.suppress(ValueError, FileNotFoundError):
            if date(int(match[1]), int(match[2]), int(match[3])) < today - KEPT:
                os.unlink(name, dir_fd=folder)


def names(folder: int) -> list[str]:
    """The logs in an open folder, by their names.  Raises OSError."""
    return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))


def read(folder: int, name: str, most: int = LIMIT) -> bytes:
    """A log: all of it, or its last `most` bytes.  Raises OSError, also where it is no file."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return os.pread(fd, most, max(0, st.st_size - most))
    finally:
        os.close(fd)
