"""Folders that several runs write to: whose unfinished files may be cleared away.

An flock on the folder itself, which the kernel lets go of when its holder dies.
Nobody ever waits for one: another program may hold it for as long as it likes.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator


@contextlib.contextmanager
def together(fd: int) -> Iterator[bool]:
    """Hold an open folder, as others may too; whether that works here and now.
    Meanwhile nobody has it alone."""
    with _held(fd, fcntl.LOCK_SH) as held:
        yield held


@contextlib.contextmanager
def alone(fd: int) -> Iterator[bool]:
    """Hold an open folder, if nobody else does; whether that is so."""
    with _held(fd, fcntl.LOCK_EX) as held:
        yield held


@contextlib.contextmanager
def _held(fd: int, how: int) -> Iterator[bool]:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError:  # held by another, or a drive without such locks
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
