"""A version's content, to be read at any offset, however the drive holds it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Snapshot
from mirrorback.store import content, past, schema, settings, system, tree
from mirrorback.store.catalog import translated
from mirrorback.store.past import PastRow

if TYPE_CHECKING:
    from mirrorback.engine.history import History


# Bytes from which on a file may become a large one, and be changed, while it is read.
STEADY_FROM = 1 << 16
T = TypeVar("T")


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


class Ask(Protocol):
    """How the catalog is asked, when another process may hold it."""

    def __call__(self, question: Callable[[], T]) -> T:
        """The answer to a question."""


def at_once(question: Callable[[], T]) -> T:
    """Ask as the connection does: it waits, but not for ever."""
    return question()


def open_version(
    history: History, row: PastRow, snapshot: Snapshot, ask: Ask = at_once
) -> OpenVersion:
    """Open what a snapshot shows as the regular file `row`.  Nothing is followed but
    directories, and nothing is trusted but what is a regular file of the recorded size.
    The content is not compared with its digest.  `ask` is used later, while it is read.

    Raises Damaged where the drive has no such file, DriveError where it cannot be read, and
    the catalog's errors (Locked while another process writes it).
    """
    least = min(history.repo.settings.delta_min_size, STEADY_FROM)
    if row.metadata.size < least and row.drive != schema.DELTA:
        try:
            return open_whole(history, row, snapshot)
        except Damaged:
            with history.catalog.lock, translated():
                held = past.holding(history.catalog, row.object)
            if held is None or held.drive != schema.DELTA:
                raise  # it has not become a delta meanwhile
    from mirrorback.engine.open_large import LargeVersion

    with translated():
        return LargeVersion(history, row, snapshot, ask)


def open_whole(history: History, row: PastRow, snapshot: Snapshot) -> OpenVersion:
    """The same where the file lies there whole, and nobody writes to it.  Raises likewise."""
    path = path_of(history, row)
    with told(path, snapshot):
        fd = open_in(history, path, snapshot)
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
    return Whole(fd, st.st_size, path)


def path_of(history: History, row: PastRow) -> bytes:
    """The path of an entry, proven to be one.  Raises Damaged."""
    with history.catalog.lock, translated():
        folder = history.folder_path(row.dir)
    for name in (*tree.split(folder), row.name):
        history.require_name(name)
    return tree.join(folder, row.name)


@contextlib.contextmanager
def told(path: bytes, snapshot: Snapshot) -> Iterator[None]:
    """Tell what could not be opened."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(
            f"{settings.escape(path)} is missing from the folder of {snapshot.name}"
        ) from error
    except OSError as error:
        raise DriveError(f"{settings.escape(path)} cannot be read: {error.strerror}") from error


def open_in(history: History, path: bytes, snapshot: Snapshot) -> int:
    """A descriptor of a file in the folder of a snapshot.  Raises OSError."""
    parent, name = tree.parent_of(path)
    top = history.top(snapshot)
    cursor = tree.Cursor(top)
    try:
        return system.open_quietly(name, os.O_RDONLY, cursor.open(parent))
    finally:
        cursor.close()
        os.close(top)


class Whole:
    """A version that lies on the drive as a file of its own."""

    def __init__(self, fd: int, size: int, path: bytes) -> None:
        """It will close the descriptor of a file of `size` bytes; `path` is told."""
        self._fd = fd
        self._size = size
        self._path = path

    @property
    def size(self) -> int:
        """See `OpenVersion`."""
        return self._size

    def pread(self, offset: int, size: int) -> bytes:
        """See `OpenVersion`."""
        wanted = min(size, self._size - offset)
        if wanted <= 0:
            return b""
        try:
            data = content.read_up_to(self._fd, wanted, offset)
        except OSError as error:
            raise DriveError(
                f"{settings.escape(self._path)} cannot be read: {error.strerror}"
            ) from error
        if len(data) < wanted:
            raise Damaged(f"{settings.escape(self._path)} has become shorter on the drive")
        return data

    def close(self) -> None:
        """See `OpenVersion`."""
        os.close(self._fd)
