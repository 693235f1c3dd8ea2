"""Reading a version's content back, and comparing it with its digest."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mirrorback.engine.history import History
from mirrorback.engine.open_version import OpenVersion, open_version
from mirrorback.errors import Damaged, DriveError, NotInHistory
from mirrorback.model import Digest, Kind, Snapshot
from mirrorback.store import content, settings, system, tree
from mirrorback.store.past import PastRow

AHEAD_FROM = 8 << 20  # bytes of a file that is read with a thread ahead


def cat(history: History, path: bytes, when_: str | None, out: BinaryIO) -> None:
    """Write a file's content to `out`; its digest is checked on the way.
    Raises NotInHistory, Damaged."""
    found, snapshot = history.find_path(path, when_)
    row = history.entry(found, snapshot)
    if row.metadata.kind is not Kind.FILE:
        raise NotInHistory(
            f"{settings.escape(found)} is not a file but a {row.metadata.kind.label}"
        )
    with (
        history.held(snapshot),
        contextlib.closing(open_version(history, row, snapshot)) as version,
    ):
        read_through(found, row, version, lambda _offset, data: out.write(data))


@contextlib.contextmanager
def opened_at(
    cursor: tree.Cursor, path: bytes, row: PastRow, snapshot: Snapshot
) -> Iterator[tuple[int, os.stat_result]]:
    """The file on the drive that holds a version, by a cursor in the snapshot's folder.
    Raises Damaged where there is none of its size."""
    shown = settings.escape(path)
    parent, name = tree.parent_of(path)
    try:
        fd = os.open(name, system.READ_SAFELY, dir_fd=cursor.open(parent))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{shown} is missing from the folder of {snapshot.name}") from error
    except OSError as error:
        raise DriveError(f"{shown} cannot be read: {error.strerror}") from error
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode) or st.st_size != row.metadata.size:
            raise Damaged(f"{shown} in {snapshot.name} is not what was backed up")
        yield fd, st
    finally:
        os.close(fd)


def checked(
    path: bytes,
    row: PastRow,
    fd: int,
    st: os.stat_result,
    write: Callable[[int, bytes], object],
) -> None:
    """Hand a version's content to `write` (offset, data), holes left out.  Raises
    Damaged at the end where the digest is wrong."""
    hashing = content.hasher(row.digest is None or row.digest.sparse)
    for offset, data in content.pieces(fd, st):
        hashing.feed(offset, data)
        write(offset, data)
    _require(path, row, hashing.finish(st.st_size))


def read_through(
    path: bytes,
    row: PastRow,
    version: OpenVersion,
    write: Callable[[int, bytes], object],
) -> None:
    """Hand all of an open version's content to `write` (offset, data).  Raises Damaged at
    the end where the digest is wrong, and at once where no end would come."""
    if version.size > content.MOST_ZEROS:
        raise Damaged(f"{settings.escape(path)} is longer than can be read from end to end")
    hashing = content.hasher(bool(row.digest and row.digest.sparse))
    for at, data in _pieces(version):
        hashing.feed(at, data)
        write(at, data)
    _require(path, row, hashing.finish(version.size))


def _pieces(version: OpenVersion) -> Iterator[tuple[int, bytes]]:
    """All content, as (offset, data).  Of a large file the next piece is made while one is
    used: through deltas that is work for a processor."""
    if version.size <= AHEAD_FROM:
        at = 0
        while data := version.pread(at, content.CHUNK):
            yield at, data
            at += len(data)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as other:
        at = 0
        waiting = other.submit(version.pread, at, content.CHUNK)
        while data := waiting.result():
            waiting = other.submit(version.pread, at + len(data), content.CHUNK)
            yield at, data
            at += len(data)


def _require(path: bytes, row: PastRow, digest: Digest) -> None:
    if row.digest is not None and digest != row.digest:
        raise Damaged(
            f"{settings.escape(path)} is damaged on the drive: its content is not what was"
            " backed up; `mirrorback verify` tells which snapshots show it"
        )
