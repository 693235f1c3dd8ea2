"""A version of a large file, read whole or through deltas, while other runs change the drive.

Whoever imports this imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from mirrorback.engine.open_version import OpenVersion, open_in, open_whole, path_of, told
from mirrorback.engine.past_file import PastFile
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Snapshot
from mirrorback.plan import large
from mirrorback.store import past, schema, settings, system
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.past import Holding, PastRow
from mirrorback.store.repository import REDO, redo_name, undo_name

if TYPE_CHECKING:
    from mirrorback.engine.history import History


class Large:
    """A version of a large file.  The whole file that it is read from may be given the next
    version's changes meanwhile; by then the catalog has another way to it.  So it is asked
    after each look whether the way is still the same: only then is what was read right."""

    def __init__(self, history: History, row: PastRow, snapshot: Snapshot) -> None:
        self._history = history
        self._row = row
        self._snapshot = snapshot
        self._way = _Way.find(history, row.object)
        self._version = self._open()

    @property
    def size(self) -> int:
        """See `OpenVersion`."""
        return self._row.metadata.size

    def pread(self, offset: int, size: int) -> bytes:
        """See `OpenVersion`."""
        while True:
            version = self._version
            try:
                data = version.pread(offset, size)
            except Damaged:
                if self._way.holds(self._history):
                    raise
            else:
                if self._way.holds(self._history):
                    return data
            self._renew(version)

    def close(self) -> None:
        """See `OpenVersion`."""
        self._version.close()

    def _renew(self, former: OpenVersion) -> None:
        with self._history.catalog.lock:
            if self._version is former:
                self._way = _Way.find(self._history, self._row.object)
                self._version = self._open()
                former.close()

    def _open(self) -> OpenVersion:
        while True:
            try:
                return self._way.open(self._history, self._row, self._snapshot)
            except Damaged:
                if self._way.holds(self._history):
                    raise
                self._way = _Way.find(self._history, self._row.object)


class _Way:
    """Which files an object is read from, as the catalog has it at a moment."""

    def __init__(self, chain: list[int], base: int, held: Holding) -> None:
        self._chain = chain  # objects that are deltas, each over the next
        self._base = base  # the object that is whole
        self._held = held

    @classmethod
    def find(cls, history: History, number: int) -> _Way:
        """The way to an object.  Raises Damaged where there is none."""
        chain: list[int] = []
        with history.catalog.lock:
            held = past.holding(history.catalog, number)
            while held is not None and held.drive == schema.DELTA:
                chain.append(number)
                if held.base is None or len(chain) > 2 * large.LONGEST_CHAIN:
                    break
                number = held.base
                held = past.holding(history.catalog, number)
        if held is None or held.drive == schema.DELTA:
            raise Damaged(
                "the catalog does not tell what a delta starts from; `mirrorback rebuild` makes"
                " a new catalog from the folders"
            )
        return cls(chain, number, held)

    def holds(self, history: History) -> bool:
        """Whether what is read from these files is still right."""
        if not self._held.live:
            return True  # history's files do not change
        with history.catalog.lock:
            now = past.holding(history.catalog, self._base)
        return now is not None and now.drive != schema.DELTA

    def open(self, history: History, row: PastRow, snapshot: Snapshot) -> OpenVersion:
        """Open all of them.  Raises Damaged, DriveError."""
        if not self._chain and not self._held.patched:
            return open_whole(history, row, snapshot)
        path = path_of(history, row)
        with contextlib.ExitStack() as opened, told(path, snapshot):
            fds = [open_object(history, number, delta=True) for number in self._chain]
            for fd in fds:
                opened.callback(os.close, fd)
            base = open_object(history, self._base, delta=False)
            opened.callback(os.close, base)
            if not fds:
                # What is wanted is still to be made of the mirror's file.
                redo = _open_redo(history, redo_name(self._base))
                if redo is None:  # it has been made
                    return open_whole(history, row, snapshot)
                opened.callback(os.close, redo)
                fds.append(redo)
            readers = [DeltaReader(fd) for fd in fds]
            file = PastFile(base, readers, changing=self._held.patched)
            if file.size != row.metadata.size:
                raise Damaged(
                    f"the delta of {settings.escape(path)} in {snapshot.name} is that of another"
                    " version"
                )
            return _Delta(path, file, opened.pop_all())


class _Delta:
    """A version that is read through deltas."""

    def __init__(self, path: bytes, file: PastFile, opened: contextlib.ExitStack) -> None:
        self._path = path
        self._file = file
        self._opened = opened

    @property
    def size(self) -> int:
        return self._file.size

    def pread(self, offset: int, size: int) -> bytes:
        try:
            return self._file.pread(offset, size)
        except OSError as error:
            raise DriveError(
                f"{settings.escape(self._path)} cannot be read: {error.strerror}"
            ) from error

    def close(self) -> None:
        self._opened.close()


def _open_redo(history: History, name: bytes) -> int | None:
    redo = history.repo.open_inner(REDO)
    try:
        return system.open_quietly(name, os.O_RDONLY, redo)
    except FileNotFoundError:
        return None
    finally:
        os.close(redo)


def open_object(history: History, number: int, *, delta: bool) -> int:
    """A descriptor of the file of an object, wherever it is shown: of its delta, or of what
    is whole.  Raises OSError."""
    with history.catalog.lock:
        held = past.holding(history.catalog, number)
        rows = past.showing(history.catalog, number)
    if delta and held is not None and held.given:
        waiting = _open_redo(history, undo_name(number))
        if waiting is not None:
            return waiting
    missing: OSError = FileNotFoundError(errno.ENOENT, "no snapshot shows it")
    for row in reversed(rows):
        path = path_of(history, row) + (large.SUFFIX if delta else b"")
        for snapshot in reversed(history.refreshed()):
            if not row.shown_in(snapshot.id):
                continue
            try:
                return open_in(history, path, snapshot)
            except FileNotFoundError as error:
                missing = error
    raise missing
