"""Taking turns: locks among runs on this machine, which the kernel drops with their holders.

They spare runs each other's way; nothing rests on them.  Where a file system has no such locks,
all go on without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


def take(folder: int, name: bytes) -> int | None:
    """A descriptor that holds the lock `name` in an open folder, until it is closed; None while
    another process holds it.  Raises OSError where no file can be made."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        pass
    return fd


@contextlib.contextmanager
def alone(folder: int) -> Iterator[None]:
    """For the time of the block, which is short, nobody else who asks for this changes what is
    in an open folder."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
