"""Who reads a snapshot: it is not removed meanwhile.

A reader holds a shared flock(2) on a descriptor of the snapshot's folder; a removal takes an
exclusive one before it commits.  The lock is the inode's, so that it goes with the mirror when
that becomes a dated folder; it needs no file and no right to write; and the kernel drops it with
its holder.  On a file system that has no such locks all go on without: what is open reads on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

from mirrorback.errors import Locked
from mirrorback.store import tree
from mirrorback.store.catalog import Catalog
from mirrorback.store.repository import Repository

BREATH_S = 0.05  # between two attempts
# A folder that is not there, or that nobody like us can read.
_UNREADABLE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM)


class InUse(Locked):
    """A snapshot that was to be removed is being read."""


def hold(repo: Repository, catalog: Catalog, number: int) -> int:
    """A descriptor of the folder of a snapshot, by its id; until it is closed the snapshot is
    not removed.  Raises Locked while it is being removed, FileNotFoundError where it, or its
    folder, is not there, OSError, and the catalog's errors."""
    fd = repo.open_folder(catalog, number)
    try:
        if not _locked(fd, fcntl.LOCK_SH):
            raise Locked("the snapshot is just being removed")
        # Only now is it sure that no removal has come between.
        if all(row[0] != number for row in catalog.folders()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def alone(repo: Repository, name: str, patience: float = 0.0) -> Iterator[None]:
    """Nobody reads the dated folder `name` while this lasts, nor begins to; readers are waited
    for, so many seconds.  Raises InUse, OSError."""
    try:
        fd = os.open(os.fsencode(name), tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        yield
        return
    try:
        until = time.monotonic() + patience
        while not _locked(fd, fcntl.LOCK_EX):
            if time.monotonic() >= until:
                raise InUse(
                    f"{name} is being read (restore or mount); it was left: run again later"
                )
            time.sleep(BREATH_S)
        yield
    finally:
        os.close(fd)


def _locked(fd: int, how: int) -> bool:
    """Whether nobody else has a lock that forbids this one; it is held then, where the file
    system knows such locks."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
