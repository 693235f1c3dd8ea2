"""The logs of runs in a repository: a file for each, kept for some time."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import date, datetime, timedelta

from mirrorback.store import content
from mirrorback.store.repository import Repository

LOG = b"log"
KEPT = timedelta(days=90)
LIMIT = 4 << 20  # bytes of one log, and of what is read of one
_NAME = re.compile(rb"([0-9]{4})-([0-9]{2})-([0-9]{2})-[0-9]{6}(?:-[0-9]+)?\.log")


class Log:
    """The log of one run; a drive that fails does not take the run with it."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._at = 0

    @classmethod
    def begin(cls, repo: Repository, now: datetime) -> Log:
        """A new log, named by the moment; nothing is written where that is impossible."""
        with contextlib.suppress(OSError):
            folder = repo.open_inner(LOG)
            try:
                return cls(_new(folder, now))
            finally:
                os.close(folder)
        return cls(None)

    def line(self, moment: datetime, text: str) -> None:
        """Write a line, which holds no control characters."""
        data = f"{moment:%Y-%m-%d %H:%M:%S} {text}\n".encode("utf-8", "backslashreplace")
        if self._fd is None or self._at + len(data) > LIMIT:
            return
        try:
            content.write_all(self._fd, data, self._at)
            self._at += len(data)
        except OSError:
            self.end()

    def end(self) -> None:
        """Close it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _new(folder: int, now: datetime) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    for number in range(1, 1000):
        name = f"{now:%Y-%m-%d-%H%M%S}" + (f"-{number}" if number > 1 else "") + ".log"
        with contextlib.suppress(FileExistsError):
            return os.open(name, flags, 0o600, dir_fd=folder)
    raise FileExistsError(name)


def forget_old(repo: Repository, today: date) -> None:
    """Remove the logs of runs more than 90 days ago.  Those of days to come stay: a clock may
    have been set back.  Raises OSError."""
    folder = repo.open_inner(LOG)
    try:
        for name in _names(folder):
            match = _NAME.fullmatch(name)
            with contextlib.suppress(ValueError, FileNotFoundError):
                assert match is not None
                day = date(int(match[1]), int(match[2]), int(match[3]))
                if day < today - KEPT:
                    os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _names(folder: int) -> list[bytes]:
    """The logs, oldest first."""
    found = (os.fsencode(name) for name in os.listdir(folder))
    return sorted(name for name in found if _NAME.fullmatch(name))
