"""Reading the source: every entry as it is, or a `Trouble` that says why not.

What is read may change, vanish or turn into something else at any moment.
Files are opened without following symlinks and without waiting for a writer,
and accepted only when they are what they were expected to be.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from mirrorback.errors import Trouble
from mirrorback.model import Digest, Metadata
from mirrorback.store import content, node, system, xattrs
from mirrorback.store.signature import SignatureWriter

ATTEMPTS = 3
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """A source entry as it was read."""

    metadata: Metadata
    digest: Digest | None
    ino: int
    ctime: int
    nlink: int
    read_at: int  # ns since 1970, before the first byte was read
    torn: bool = False  # it changed each time it was read


class Small(NamedTuple):
    """A regular file that one read has taken.  Flat: a million are made a night."""

    st: os.stat_result
    xattrs: tuple[tuple[bytes, bytes], ...]
    flags: int
    btime: int | None
    read_at: int  # ns since 1970, before the first byte was read
    torn: bool
    data: bytes  # trailing zeros may be missing


class _Troubles:
    """Turns an OSError of the source into a Trouble.  One object serves all threads:
    a million files pass through it."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, FileNotFoundError):
            raise Trouble("vanished while being read", vanished=True) from None
        if isinstance(error, OSError):
            raise Trouble((error.strerror or str(error)).lower()) from error


troubles = _Troubles()


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Writing what was read: that no file of the drive may be so large is no failure of it, but
    a Trouble of the one file."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise Trouble("is larger than a file may be on the drive") from error


def open_file(dir_fd: int, name: bytes) -> int:
    """A descriptor of a regular file of the source.  Raises Trouble."""
    with troubles:
        fd = system.open_quietly(name, os.O_RDONLY, dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Trouble("is no longer a regular file", vanished=True)
    return fd


def look(dir_fd: int, name: bytes, mode: int) -> Seen:
    """All that is kept of an entry that is not a regular file; `mode` names its kind.
    Raises Trouble."""
    now = time.time_ns()
    with troubles:
        if stat.S_ISDIR(mode):
            fd = system.open_quietly(name or b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd)
            try:
                st = os.fstat(fd)
                metadata = node.read_open(fd, st, dir_fd, name)
            finally:
                os.close(fd)
        else:
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if stat.S_IFMT(st.st_mode) != stat.S_IFMT(mode):
                raise Trouble("turned into something else while being read", vanished=True)
            metadata = node.read_other(st, dir_fd, name)
    ino = system.inode_number(st.st_ino)
    return Seen(metadata, None, ino, st.st_ctime_ns, st.st_nlink, now)


def digest_file(dir_fd: int, name: bytes, sparse: bool | None, progress: Progress) -> Seen:
    """Metadata and digest of a regular file, in the form of digest wanted (None: as
    fits the file).  Raises Trouble."""
    fd = open_file(dir_fd, name)

    def read(st: os.stat_result) -> Digest:
        form = content.wants_sparse(st) if sparse is None else sparse
        with troubles:
            return content.digest_of(fd, st, form, progress)

    try:
        return read_settled(fd, dir_fd, name, read)
    finally:
        os.close(fd)


def read_file(dir_fd: int, name: bytes) -> Small | None:
    """A regular file that one read can take; None for one that is large or has holes.
    Raises Trouble.  A million files pass through it, which is why it does all in one place.
    """
    with troubles:
        fd = system.open_quietly(name, os.O_RDONLY, dir_fd)
        try:
            for attempt in range(1, ATTEMPTS + 1):
                now = time.time_ns()
                st = os.fstat(fd)
                if not stat.S_ISREG(st.st_mode):
                    raise Trouble("is no longer a regular file", vanished=True)
                size = st.st_size
                if size > content.CHUNK or st.st_blocks * 512 < size:
                    return None
                data = content.read_up_to(fd, size, 0) if size else b""
                attributes = xattrs.read(fd)
                flags, btime = system.inode_flags(fd), system.birth_time(fd, b"")
                torn = _state(st) != _state(os.fstat(fd))
                if not torn or attempt == ATTEMPTS:
                    break
        finally:
            os.close(fd)
    return Small(st, attributes, flags, btime, now, torn, data)


def copy_file(
    dir_fd: int, name: bytes, target: int, progress: Progress, *, sign: int | None = None
) -> Seen:
    """Copy a regular file's content, holes kept, into the empty open file `target`,
    with its digest taken on the way, and its signature in the empty open file `sign`.

    Raises Trouble for what the source does, OSError for what the drive does.
    """
    fd = open_file(dir_fd, name)

    def copy(st: os.stat_result) -> Digest:
        os.ftruncate(target, 0)
        if sign is None:
            return _copy(fd, target, st, progress)
        os.ftruncate(sign, 0)
        signing = SignatureWriter(sign)
        digest = _copy(fd, target, st, progress, signing.feed)
        signing.finish(st.st_size, digest)
        return digest

    try:
        with taken():
            return read_settled(fd, dir_fd, name, copy)
    finally:
        os.close(fd)


def _copy(
    fd: int,
    target: int,
    st: os.stat_result,
    progress: Progress,
    also: Callable[[int, bytes], None] = lambda offset, data: None,
) -> Digest:
    hashing = content.hasher(content.wants_sparse(st))
    guard = content.CacheGuard(fd, st.st_size)
    end = 0
    parts = content.pieces(fd, st)
    while True:
        with troubles:
            part = next(parts, None)
        if part is None:
            break
        offset, data = part
        hashing.feed(offset, data)
        also(offset, data)
        content.write_all(target, data, offset)
        end = offset + len(data)
        guard.passed(end)
        progress(len(data))
    guard.done()
    if end != st.st_size:
        os.ftruncate(target, st.st_size)
    return hashing.finish(st.st_size)


def read_settled(
    fd: int, dir_fd: int, name: bytes, read: Callable[[os.stat_result], Digest]
) -> Seen:
    """Have an open file of the source read until it is the same before and after, three times
    at most.  Raises Trouble."""
    for attempt in range(1, ATTEMPTS + 1):
        now = time.time_ns()
        with troubles:
            st = os.fstat(fd)
        digest = read(st)
        with troubles:
            metadata = node.read_open(fd, st, dir_fd, name)
            after = os.fstat(fd)
        same = _state(st) == _state(after)
        if same or attempt == ATTEMPTS:
            break
    return Seen(
        metadata,
        digest,
        system.inode_number(st.st_ino),
        st.st_ctime_ns,
        st.st_nlink,
        now,
        torn=not same,
    )


def _state(st: os.stat_result) -> tuple[int, int, int]:
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns
