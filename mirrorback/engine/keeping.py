"""What a restore takes away: kept beside what it wrote, or gone for good."""

from __future__ import annotations

import os

from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.model import Kind
from mirrorback.store import past, tree


class Keeping:
    """Decides what may go for good: where that is wanted at all, only what some
    snapshot holds at the same path, with all that is below it.  For several threads."""

    def __init__(self, history: History, events: Events, *, all_of_it: bool) -> None:
        self.stamp = history.stamp()
        self._catalog = history.catalog
        self._events = events
        self._all_of_it = all_of_it

    def keeps(self, folder: int, path: bytes, st: os.stat_result) -> bool:
        """Whether what stands at a path, in the open `folder`, is kept aside.  It is told
        where that was not wanted."""
        if self._all_of_it:
            return True
        if self._is_held(path, st) and (
            Kind.of_mode(st.st_mode) is not Kind.DIRECTORY or self._holds_all(folder, path)
        ):
            return False
        self._events.warning("is in no snapshot, or something in it: --no-keep spares it", path)
        return True

    def _is_held(self, path: bytes, st: os.stat_result) -> bool:
        kind = Kind.of_mode(st.st_mode)
        with self._catalog.lock:
            place = past.find_directory(self._catalog, path)
            return place is not None and past.is_held(self._catalog, *place, kind)

    def _holds_all(self, folder: int, path: bytes) -> bool:
        """Whether snapshots hold everything below a directory, as far as one can see."""
        _parent, name = tree.parent_of(path)
        try:
            top = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=folder)
        except OSError:
            return False
        cursor = tree.Cursor(top)
        try:
            return self._all_held(cursor, path)
        except OSError:
            return False
        finally:
            cursor.close()
            os.close(top)

    def _all_held(self, cursor: tree.Cursor, path: bytes) -> bool:
        todo = [b""]
        while todo:
            at = todo.pop()
            with os.scandir(cursor.open(at)) as entries:
                for entry in entries:
                    below = tree.join(at, os.fsencode(entry.name))
                    st = entry.stat(follow_symlinks=False)
                    if not self._is_held(tree.join(path, below), st):
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(below)
        return True
