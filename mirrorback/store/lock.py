"""The lock: one run at a time writes to a repository."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

from mirrorback.errors import Damaged, Locked
from mirrorback.store import content, system

# What has the name may be a pipe.
_TO_TAKE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Lock:
    """An flock on `.mirrorback/lock`: the kernel lets go of it when its holder dies.

    The file's text says who holds it, for the message only.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, folder: int) -> Lock:
        """Take the lock in an open `.mirrorback`.  Raises Locked, Damaged, OSError."""
        fd = os.open(b"lock", _TO_TAKE, 0o600, dir_fd=folder)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                raise Damaged(".mirrorback/lock is no file: move it away")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise Locked(
                "another run holds the repository"
                + (f" ({holder})" if holder.isprintable() and holder else "")
                + "; wait for it to end"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        if st.st_nlink == 1:  # else it may be a file that lies elsewhere, too
            with contextlib.suppress(OSError):  # a full drive must still let us prune
                os.ftruncate(fd, 0)
                content.write_all(fd, b"process %d on %s\n" % (os.getpid(), _host()), 0)
        return cls(fd)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def held(folder: int) -> bool:
    """Whether some process holds the lock now."""
    try:
        fd = os.open(b"lock", system.READ_SAFELY, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _host() -> bytes:
    return os.uname().nodename.encode("ascii", "replace")
