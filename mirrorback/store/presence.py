"""Whether the drive is still there: a pulled one answers nothing, and what it does not give must
not be told as damage."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Iterator

from mirrorback.errors import Damaged, DriveError
from mirrorback.store import system
from mirrorback.store.repository import CATALOG, RESERVE, Repository

_PAGE = 4096  # bytes that are asked for
_PLACES = 3  # in each file: any one may be a bad sector
_GONE = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ENXIO", "ENODEV", "ENOTCONN", "ESHUTDOWN", "ESTALE", "EREMOTEIO")
    if hasattr(errno, name)
)


def may_be_gone(error: OSError) -> bool:
    """Whether an error is one that a drive which is gone leads to, among other things."""
    return error.errno in _GONE


def is_gone(repo: Repository) -> bool:
    """Whether the drive of an open repository gives no bytes at all.  Some are read past the page
    cache, which may hold much of a drive that is gone; False also where that cannot be done."""
    failed = False
    for name in (os.path.join(RESERVE, b"0"), CATALOG):
        for _place in range(_PLACES):
            answer = _answers(repo.inner, name)
            if answer is None:
                break
            if answer:
                return False
            failed = True
    return failed


def require(repo: Repository) -> None:
    """Raises DriveError where the drive is gone."""
    if is_gone(repo):
        raise DriveError(
            "the drive does not answer any more: see that it is plugged in, mount it again, and"
            " run this again"
        )


@contextlib.contextmanager
def felt(repo: Repository) -> Iterator[None]:
    """Where damage ends a command, and the drive is gone, raise DriveError for that."""
    try:
        yield
    except Damaged:
        require(repo)
        raise


def _answers(folder: int, name: bytes) -> bool | None:
    """Whether some bytes of a file can be read; None where that cannot be known."""
    try:
        fd = _opened(folder, name)
        try:
            pages = os.fstat(fd).st_size // _PAGE
            if not pages:
                return None
            system.drop_cache(fd, 0, 0)
            with mmap.mmap(-1, _PAGE) as page:  # aligned, as reading past the cache wants it
                os.preadv(fd, [page], secrets.randbelow(pages) * _PAGE)
        finally:
            os.close(fd)
    except OSError as error:
        return False if may_be_gone(error) else None
    return True


def _opened(folder: int, name: bytes) -> int:
    try:
        return os.open(name, system.READ_SAFELY | getattr(os, "O_DIRECT", 0), dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(name, system.READ_SAFELY, dir_fd=folder)
