"""A version of a large file, read whole or through deltas, while other runs change the drive.

Whoever imports this imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from typing import TYPE_CHECKING, NamedTuple

from mirrorback.engine.open_version import Ask, OpenVersion, Whole, open_in, path_of, told
from mirrorback.engine.past_file import PastFile
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Snapshot
from mirrorback.plan import large
from mirrorback.store import past, schema, settings, system
from mirrorback.store.catalog import translated
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.past import Holding, PastRow
from mirrorback.store.repository import REDO, redo_name, undo_name

if TYPE_CHECKING:
    from mirrorback.engine.history import History


class LargeVersion:
    """A version of a large file.  The whole file that it is read from may be given the next
    version's changes meanwhile; by then the catalog has another way to it.  So it is asked
    after each look whether the way is still the same: only then is what was read right.

    What was opened stays open, for deltas may be removed from the drive while they are read.
    """

    def __init__(self, history: History, row: PastRow, snapshot: Snapshot, ask: Ask) -> None:
        self._ask = ask
        self._history = history
        self._row = row
        self._path = path_of(history, row)
        self._snapshot = snapshot
        self._opened = contextlib.ExitStack()
        self._lock = threading.Lock()
        with self._opened:  # closes where it fails
            self._way = self._find(row.object, ())
            self._opened = self._opened.pop_all()

    @property
    def size(self) -> int:
        """See `OpenVersion`."""
        return self._row.metadata.size

    def pread(self, offset: int, size: int) -> bytes:
        """See `OpenVersion`."""
        while True:
            way = self._way
            try:
                data = way.file.pread(offset, size)
            except Damaged:
                if self._holds(way):
                    raise
            except OSError as error:
                shown = settings.escape(self._path)
                raise DriveError(f"{shown} cannot be read: {error.strerror}") from error
            else:
                if self._holds(way):
                    return data
            self._renew(way)

    def close(self) -> None:
        """See `OpenVersion`."""
        self._opened.close()

    def _holds(self, way: _Way) -> bool:
        return self._ask(lambda: way.holds(self._history))

    def _renew(self, way: _Way) -> None:
        with self._lock:
            if self._way is way:
                self._way = self._ask(lambda: self._find(way.base, way.deltas))

    def _find(self, number: int, deltas: tuple[int, ...]) -> _Way:
        """The way to what the open deltas lead to, an object.  Raises Damaged, DriveError."""
        while True:
            chain, base, held = chain_of(self._history, number)
            try:
                with translated(), told(self._path, self._snapshot):
                    return self._open(chain, base, held, deltas)
            except Damaged:
                if chain_of(self._history, number) == (chain, base, held):
                    raise

    def _open(self, chain: list[int], base: int, held: Holding, deltas: tuple[int, ...]) -> _Way:
        fds = list(deltas)
        for number in chain:
            fds.append(self._keep(open_object(self._history, number, delta=True)))
        whole = self._keep(open_object(self._history, base, delta=False))
        past_base = tuple(fds)
        if held.patched and not fds:
            # What is wanted is still to be made of the mirror's file.
            redo = _open_redo(self._history, redo_name(base))
            if redo is not None:  # else it has been made
                fds.append(self._keep(redo))
        file: OpenVersion | PastFile
        if fds:
            readers = [DeltaReader(fd) for fd in fds]
            file = PastFile(whole, readers, changing=held.patched)
        else:
            file = Whole(whole, os.fstat(whole).st_size, self._path)
        if file.size != self.size:
            raise Damaged(
                f"{settings.escape(self._path)} in {self._snapshot.name} is not what was backed up;"
                " `mirrorback verify` looks at all"
            )
        return _Way(past_base, base, held, file)

    def _keep(self, fd: int) -> int:
        self._opened.callback(os.close, fd)
        return fd


class _Way(NamedTuple):
    """How a version is read: through open deltas, over an object that is whole."""

    deltas: tuple[int, ...]
    base: int
    held: Holding
    file: OpenVersion | PastFile

    def holds(self, history: History) -> bool:
        """Whether what is read so is still right."""
        if not self.held.live:
            return True  # history's files do not change
        with history.catalog.lock, translated():
            history.catalog.require_in_place()
            now = past.holding(history.catalog, self.base)
        return now is not None and now.drive != schema.DELTA


def chain_of(history: History, number: int) -> tuple[list[int], int, Holding]:
    """The deltas from an object on, and the whole object at their end, with how that is held.
    Raises Damaged where there is none."""
    chain: list[int] = []
    with history.catalog.lock, translated():
        held = past.holding(history.catalog, number)
        while held is not None and held.drive == schema.DELTA:
            chain.append(number)
            if held.base is None or len(chain) > 2 * large.LONGEST_CHAIN:
                break
            number = held.base
            held = past.holding(history.catalog, number)
    if held is None or held.drive == schema.DELTA:
        raise Damaged(
            "the catalog does not tell what a delta starts from; `mirrorback rebuild` makes a new"
            " catalog from the folders"
        )
    return chain, number, held


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
    snapshots = list(reversed(history.refreshed()))
    missing: OSError = FileNotFoundError(errno.ENOENT, "no snapshot shows it")
    for row in reversed(rows):
        path = path_of(history, row) + (large.SUFFIX if delta else b"")
        for snapshot in snapshots:
            if not row.shown_in(snapshot.id):
                continue
            try:
                fd = open_in(history, path, snapshot)
            except FileNotFoundError as error:
                missing = error
                continue
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
            raise Damaged(
                f"{settings.escape(path)} in {snapshot.name} is something else than was backed up"
            )
    raise missing
