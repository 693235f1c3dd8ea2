"""Folders that are missing, and what they should hold."""

from __future__ import annotations

from mirrorback.engine.dated import Dated
from mirrorback.engine.history import History
from mirrorback.model import Kind
from mirrorback.store import past, tree
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR


def below_missing(
    history: History,
    dated: Dated,
    snapshot: int,
    directory: int,
    folder: bytes,
    walked: set[tuple[int, int]],
) -> list[int]:
    """The objects that a snapshot shows below the topmost folder that is missing on the way to
    a directory, none where none is.  `walked` holds the folders that were looked at before, by
    snapshot and number, and gets these.  Raises OSError, Damaged."""
    if directory == ABOVE_ROOT or (snapshot, directory) in walked:
        return []
    where = next((s for s in history.snapshots() if s.id == snapshot), None)
    if where is None or snapshot not in dated.tops:
        return []
    at, number = b"", 1
    for name in tree.split(folder):
        row = past.entry(history.catalog, number, name, snapshot)
        below = past.child(history.catalog, number, name)
        at = tree.join(at, name)
        if row is None or below is None:
            return []
        number = below
        with dated.opened(where, at) as fd:
            if fd is None:
                return [row.object, *_below(history, snapshot, number, walked)]
    return []


def all_shown(history: History, snapshot: int) -> list[int]:
    """The objects that a snapshot shows below its root.  Raises Damaged."""
    return _below(history, snapshot, ROOT_DIR, set())


def _below(
    history: History, snapshot: int, directory: int, walked: set[tuple[int, int]]
) -> list[int]:
    found = []
    todo = [directory]
    while todo:
        at = todo.pop()
        if (snapshot, at) in walked:
            continue
        walked.add((snapshot, at))
        for row in past.entries(history.catalog, at, snapshot):
            found.append(row.object)
            if row.metadata.kind is Kind.DIRECTORY:
                number = past.child(history.catalog, at, row.name)
                if number is not None:
                    todo.append(number)
    return found
