"""Copying files of the source into the new snapshot, a directory's worth at a time.

It needs neither catalog nor spool, so that other processes can do it as well
(`helper`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mirrorback.errors import Trouble
from mirrorback.store import content, node, reading, tree

Progress = Callable[[int], None]

NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Roots:
    """Open directories: the trees that a build reads and writes."""

    source: int
    mirror: int | None  # None: there is none yet
    incoming: int
    salvage: tuple[int, ...] = ()  # what interrupted runs have left


@dataclass(frozen=True, slots=True)
class Copied:
    """A source file that now stands in the new snapshot."""

    seen: reading.Seen
    missed: list[str]  # what the drive could not hold, as `node.NotKept` counts it


class Copying(Protocol):
    """Whoever copies, here or in another process."""

    def copy(
        self, folder: bytes, names: Sequence[bytes], progress: Progress
    ) -> list[Copied | Trouble]:
        """Copy these regular files of a directory of the source into the new snapshot,
        and report the bytes.  Returns what came of each, in their order; for one
        in trouble, something may be left at its name.  Raises OSError for what
        the drive does."""


class Copier:
    """Copies in the calling thread, and serves no other."""

    def __init__(self, roots: Roots) -> None:
        self._source = tree.Cursor(roots.source)
        self._incoming = tree.Cursor(roots.incoming)
        self._salvage = [tree.Cursor(fd) for fd in roots.salvage]
        self._dresser = node.Dresser()

    def close(self) -> None:
        """Close what is open (not the roots, which belong to the caller)."""
        for cursor in (self._source, self._incoming, *self._salvage):
            cursor.close()

    def copy(
        self, folder: bytes, names: Sequence[bytes], progress: Progress
    ) -> list[Copied | Trouble]:
        """See `Copying.copy`."""
        try:
            with reading.troubles:
                origin = self._source.open(folder)
        except Trouble as trouble:
            return [trouble for _name in names]
        into = self._incoming.open(folder)
        done: list[Copied | Trouble] = []
        for name in names:
            try:
                done.append(self._copy(folder, origin, into, name, progress))
            except Trouble as trouble:
                done.append(trouble)
        return done

    def _copy(
        self, folder: bytes, origin: int, into: int, name: bytes, progress: Progress
    ) -> Copied:
        for cursor in self._salvage:
            copied = self._take_over(cursor, folder, origin, into, name)
            if copied is not None:
                return copied
        whole = reading.read_file(origin, name)
        fd = os.open(name, NEW_FILE, 0o600, dir_fd=into)
        try:
            if whole is None:
                seen = reading.copy_file(origin, name, fd, progress)
            else:
                seen, data = whole
                _write(fd, seen.metadata.size, data, progress)
            return Copied(seen, self._dresser.dress_open(fd, seen.metadata))
        finally:
            os.close(fd)

    def _take_over(
        self, cursor: tree.Cursor, folder: bytes, origin: int, into: int, name: bytes
    ) -> Copied | None:
        """Take over what an interrupted run has copied, if it is what the source has:
        size and time say that it may be, the digests of both that it is."""
        try:
            left = cursor.open(folder)
            fd = os.open(name, _READ_WRITE, dir_fd=left)
        except OSError:
            return None
        try:
            st = os.fstat(fd)
            with reading.troubles:
                now = os.stat(name, dir_fd=origin, follow_symlinks=False)
            same = (st.st_size, st.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
            if not stat.S_ISREG(st.st_mode) or st.st_nlink != 1 or not same:
                return None
            seen = reading.digest_file(origin, name, None, lambda count: None)
            assert seen.digest is not None
            try:
                found = content.digest_of(fd, st, seen.digest.sparse)
            except OSError:
                return None  # the drive has lost it; it will be copied anew
            if found != seen.digest:
                return None
            try:
                os.rename(name, name, src_dir_fd=left, dst_dir_fd=into)
            except PermissionError:
                return None
            return Copied(seen, self._dresser.dress_open(fd, seen.metadata, fresh=False))
        finally:
            os.close(fd)


def _write(fd: int, size: int, data: bytes, progress: Progress) -> None:
    if data:
        content.write_all(fd, data, 0)
        progress(len(data))
    if len(data) < size:
        os.ftruncate(fd, size)  # it became shorter as it was read
