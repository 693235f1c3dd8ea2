"""Walking trees by directory descriptors: any depth, any name, no symlink followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import AnyStr

from mirrorback.errors import Refused
from mirrorback.store import settings, system

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_ENTRIES = 10_000_000  # of one directory; a listing that goes on may have no end
# To go through a directory it need not be readable.
_PASSING = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)  # the latter of a symlink, without O_PATH
KEPT_OPEN = 96  # descriptors a cursor keeps of its chain, however deep it is

# One scanned entry: name, ino, mode, size, mtime, ctime, uid, gid, nlink, rdev.
# A plain tuple: a million are made a night, and most are only digested.
Row = tuple[str, int, int, int, int, int, int, int, int, int]


def split(path: bytes) -> list[bytes]:
    """The components of a relative path; none for the root."""
    return path.split(b"/") if path else []


def join(parent: bytes, name: bytes) -> bytes:
    """The relative path of `name` in `parent`."""
    return parent + b"/" + name if parent else name


def parent_of(path: bytes) -> tuple[bytes, bytes]:
    """The relative path of the folder that holds `path`, and the last component."""
    head, _, name = path.rpartition(b"/")
    return head, name


def open_root(path: bytes) -> int:
    """Open the directory at which a tree starts (symlinks on the way to it are
    the person's own and are followed).  Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def make_private(path: AnyStr, mode: int = 0o700) -> None:
    """Make a folder where there is none, and those above it that are missing, all of them 0700,
    or with another mode, whatever the umask gives away.  Raises OSError."""
    if os.path.isdir(path):
        return
    make_private(os.path.dirname(os.path.abspath(path)), mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:  # made meanwhile, or something else stands there
        if not os.path.isdir(path):
            raise


def open_own(path: bytes, make: int | None) -> int:
    """The same for a path on which no symlink is followed that someone else may have planted:
    for root none of another owner, else none that is not of its folder's owner (as Linux does it
    with fs.protected_symlinks).  Directories that are missing are made, the last one with the
    mode `make`, if that is wanted.  Raises OSError, Refused."""
    todo = path.split(b"/")[::-1]
    fd = os.open(b"/" if path.startswith(b"/") else b".", _PASSING)
    followed = 0
    try:
        while todo:
            name = todo.pop()
            if not name:
                continue
            try:
                step = os.open(name, _PASSING, dir_fd=fd)
            except FileNotFoundError:
                if make is None:
                    raise
                os.mkdir(name, 0o777 if any(todo) else make, dir_fd=fd)
                todo.append(name)
                continue
            except OSError as error:
                if error.errno not in _NO_DIRECTORY:
                    raise
                target = _own_link(fd, name, path)
                followed += 1
                if followed > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                todo += target.split(b"/")[::-1]
                step = os.open(b"/" if target.startswith(b"/") else b".", _PASSING, dir_fd=fd)
            os.close(fd)
            fd = step
        return os.open(b".", DIRECTORY_FLAGS, dir_fd=fd)
    finally:
        os.close(fd)


def _own_link(fd: int, name: bytes, path: bytes) -> bytes:
    """Where a symlink leads.  Raises Refused where it is someone else's, NotADirectoryError."""
    st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if not stat.S_ISLNK(st.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    user = os.geteuid()
    if st.st_uid not in (0, user) and (user == 0 or st.st_uid != os.fstat(fd).st_uid):
        raise Refused(
            f"{settings.escape(name)} in {settings.escape(path)} is a symlink of another user's:"
            " give the folder that it leads to"
        )
    return os.readlink(name, dir_fd=fd)


class Cursor:
    """Opens directories below one root, one after another.

    The chain of the last one stays open, so that going to a sibling or a child
    costs one system call.  Each step is O_NOFOLLOW: a symlink where a
    directory was expected is an error, wherever it points.  Not for several
    threads; each has its own.
    """

    def __init__(self, root: int, kept: int = KEPT_OPEN) -> None:
        """`kept` is how many descriptors stay open at most."""
        self._root = root
        self._kept = kept
        self._names: list[bytes] = []
        self._fds: list[int | None] = []

    def open(self, path: bytes) -> int:
        """A descriptor of the directory `path`, good until the next call.  Raises OSError."""
        names = split(path)
        common = 0
        for ours, theirs in zip(self._names, names, strict=False):
            if ours != theirs:
                break
            common += 1
        self._cut(common)
        while common and self._fds[common - 1] is None:
            common -= 1
        self._cut(common)
        fd = self._fds[-1] if self._fds else self._root
        assert fd is not None
        for name in names[common:]:
            fd = _open_directory(name, fd)
            self._names.append(name)
            self._fds.append(fd)
            if len(self._fds) > self._kept:
                self._let_go(len(self._fds) - self._kept // 2)
        return fd

    def close(self) -> None:
        """Close what is open (not the root, which belongs to the caller)."""
        self._cut(0)

    def _cut(self, length: int) -> None:
        while len(self._fds) > length:
            fd = self._fds.pop()
            self._names.pop()
            if fd is not None:
                os.close(fd)

    def _let_go(self, index: int) -> None:
        """Close a descriptor in the middle of a very long chain."""
        fd = self._fds[index]
        if fd is not None:
            os.close(fd)
            self._fds[index] = None


def _open_directory(name: bytes, dir_fd: int) -> int:
    try:
        return os.open(name, DIRECTORY_FLAGS | system.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=dir_fd)


def scan(fd: int, device: int) -> tuple[list[Row], dict[str, int], list[tuple[str, str]]]:
    """Read one open directory.

    Returns its entries sorted by name, the device numbers of those that are
    not on `device`, and the entries that could not be examined with the
    reason.  Entries that vanish meanwhile are left out, and a name that is listed twice,
    as where it was renamed meanwhile, comes once.  Raises OSError where the directory
    cannot be read to its end.
    """
    rows: list[Row] = []
    append = rows.append
    foreign: dict[str, int] = {}
    failed: list[tuple[str, str]] = []
    with os.scandir(fd) as entries:
        for entry in islice(entries, MOST_ENTRIES + 1):
            name = entry.name
            try:
                st = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.append((name, (error.strerror or "").lower()))
                continue
            append(
                (
                    name,
                    ino if (ino := st.st_ino) < 1 << 63 else system.inode_number(ino),
                    st.st_mode,
                    st.st_size,
                    st.st_mtime_ns,
                    st.st_ctime_ns,
                    st.st_uid,
                    st.st_gid,
                    st.st_nlink,
                    st.st_rdev,
                )
            )
            if st.st_dev != device:
                foreign[name] = st.st_dev
    if len(rows) > MOST_ENTRIES:
        raise OSError(errno.EOVERFLOW, f"lists more than {MOST_ENTRIES:,} entries")
    rows.sort()
    if len({row[0] for row in rows}) != len(rows):
        rows = list({row[0]: row for row in rows}.values())
    return rows, foreign, failed


def walk(cursor: Cursor, top: bytes = b"") -> Iterator[tuple[bytes, int]]:
    """Every directory from `top` down, parents first, with a descriptor that is
    good until the next step.  Directories that vanish or cannot be entered are
    left out."""
    stack = [top]
    while stack:
        path = stack.pop()
        try:
            fd = cursor.open(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                continue
            raise
        yield path, fd
        with os.scandir(cursor.open(path)) as entries:
            stack.extend(
                join(path, os.fsencode(entry.name))
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
            )
