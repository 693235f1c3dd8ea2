"""Looks at what snapshots' folders hold, name by name: nothing is opened but what is asked for."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from mirrorback.engine.history import History
from mirrorback.errors import NotInHistory
from mirrorback.model import Snapshot
from mirrorback.store import schema, system, tree
from mirrorback.store.repository import DELTA_SUFFIX
from mirrorback.store.usage import Named, Stored

KEPT = 32  # folders of snapshots that are open at a time


class Places:
    """The folders of a repository's snapshots.  For one thread; close it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._snapshots: dict[int, Snapshot] = {}
        self._open: OrderedDict[int, tuple[int, tree.Cursor]] = OrderedDict()
        self._missing: set[int] = set()
        self._last: tuple[int, int] | None = None  # snapshot and directory asked for last
        self._last_fd = -1

    def close(self) -> None:
        """Close what is open, and forget what was missing; it can be used again."""
        while self._open:
            self._shut(next(iter(self._open)))
        self._last = None
        self._missing.clear()
        self._snapshots.clear()
        self._history.let_go()

    def has(self, snapshot: int) -> bool:
        """Whether a snapshot's folder is there.  Raises OSError."""
        try:
            self._folder(snapshot, b"")
        except FileNotFoundError:
            return False
        return True

    def stat(self, snapshot: int, directory: int, name: bytes) -> os.stat_result | None:
        """What a snapshot's folder has at a place; None where there is nothing.  Raises
        OSError."""
        try:
            if not directory and not name:
                self._last = None
                return os.fstat(self._folder(snapshot, b""))
            folder = self._directory(snapshot, directory)
            self._history.require_name(name)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, snapshot: int, directory: int, name: bytes) -> int:
        """A descriptor of the file at such a place, for the caller to close.  Raises OSError."""
        folder = self._directory(snapshot, directory)
        return system.open_quietly(name, os.O_RDONLY, folder)

    def _directory(self, snapshot: int, number: int) -> int:
        """A descriptor of a directory, good until another is asked for: most of the time it is
        that of the last time."""
        if self._last != (snapshot, number):
            self._last = None
            self._last_fd = self._folder(snapshot, self._history.folder_path(number))
            self._last = snapshot, number
        return self._last_fd

    def _folder(self, snapshot: int, path: bytes) -> int:
        if snapshot not in self._open:
            if len(self._open) >= KEPT:
                self._shut(next(iter(self._open)))
            top = self._top(snapshot)
            self._open[snapshot] = top, tree.Cursor(top)
        self._open.move_to_end(snapshot)
        top, cursor = self._open[snapshot]
        return cursor.open(path) if path else top

    def _top(self, snapshot: int) -> int:
        """Raises FileNotFoundError where a snapshot, or its folder, is not there."""
        if not self._snapshots:
            self._snapshots = {known.id: known for known in self._history.snapshots()}
        if snapshot in self._missing or snapshot not in self._snapshots:
            raise FileNotFoundError
        try:
            return self._history.top(self._snapshots[snapshot])
        except (FileNotFoundError, NotADirectoryError, NotInHistory):
            self._missing.add(snapshot)
            raise FileNotFoundError from None

    def _shut(self, snapshot: int) -> None:
        top, cursor = self._open.pop(snapshot)
        cursor.close()
        os.close(top)


def file_name(found: Stored, named: Named) -> bytes:
    """The name that the file of an object has on the drive, where the source's is this."""
    return named.name + DELTA_SUFFIX if found.drive == schema.DELTA else named.name


def shown_in(named: Named, snapshots: Sequence[int]) -> Sequence[int]:
    """Those of some snapshots, in rising order, in which a name stands."""
    begin, end = span_in(named, snapshots)
    return snapshots[begin:end]


def span_in(named: Named, snapshots: Sequence[int]) -> tuple[int, int]:
    """Where those begin and end among them."""
    end = len(snapshots) if named.last is None else bisect_right(snapshots, named.last)
    return bisect_left(snapshots, named.first), end
