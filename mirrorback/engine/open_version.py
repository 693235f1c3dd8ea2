"""A version's content, to be read at any offset, however the drive holds it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Snapshot
from mirrorback.store import settings, system, tree
from mirrorback.store.catalog import translated
from mirrorback.store.past import PastRow

if TYPE_CHECKING:
    from mirrorback.engine.history import History


class OpenVersion(Protocol):
    """The content of a file as it was.  It reads on whatever becomes of its snapshot;
    several threads may read at once."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def pread(self, offset: int, size: int) -> bytes:
        """So many bytes from an offset on, fewer only at the end.  Raises Damaged, DriveError."""

    def close(self) -> None:
        """Let go of it."""


def open_version(history: History, row: PastRow, snapshot: Snapshot) -> OpenVersion:
    """Open what a snapshot shows as the regular file `row`.  Nothing is followed but
    directories, and nothing is trusted but what is a regular file of the recorded size.
    The content is not compared with its digest.

    Raises Damaged where the drive has no such file, DriveError where it cannot be read, and
    the catalog's errors (Locked while another process writes it).
    """
    with history.catalog.lock, translated():
        folder = history.folder_path(row.dir)
    for name in (*tree.split(folder), row.name):
        history.require_name(name)
    path = tree.join(folder, row.name)
    try:
        fd = _open(history, path, snapshot)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(
            f"{settings.escape(path)} is missing from the folder of {snapshot.name}"
        ) from error
    except OSError as error:
        raise DriveError(f"{settings.escape(path)} cannot be read: {error.strerror}") from error
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode) or st.st_size != row.metadata.size:
            raise Damaged(
                f"{settings.escape(path)} in {snapshot.name} is not what was backed up;"
                " `mirrorback verify` looks at all"
            )
    except BaseException:
        os.close(fd)
        raise
    return _Whole(fd, st.st_size, path)


def _open(history: History, path: bytes, snapshot: Snapshot) -> int:
    parent, name = tree.parent_of(path)
    top = history.top(snapshot)
    cursor = tree.Cursor(top)
    try:
        return system.open_quietly(name, os.O_RDONLY, cursor.open(parent))
    finally:
        cursor.close()
        os.close(top)


class _Whole:
    """A version that lies on the drive as a file of its own."""

    def __init__(self, fd: int, size: int, path: bytes) -> None:
        self._fd = fd
        self._size = size
        self._path = path

    @property
    def size(self) -> int:
        return self._size

    def pread(self, offset: int, size: int) -> bytes:
        wanted = min(size, self._size - offset)
        if wanted <= 0:
            return b""
        try:
            data = os.pread(self._fd, wanted, offset)
            while len(data) < wanted:
                more = os.pread(self._fd, wanted - len(data), offset + len(data))
                if not more:
                    raise Damaged(f"{settings.escape(self._path)} has become shorter on the drive")
                data += more
        except OSError as error:
            raise DriveError(
                f"{settings.escape(self._path)} cannot be read: {error.strerror}"
            ) from error
        return data

    def close(self) -> None:
        os.close(self._fd)
