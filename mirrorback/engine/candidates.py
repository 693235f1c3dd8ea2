"""Names in history that begin as what was typed, for a shell that completes a path."""

from __future__ import annotations

from mirrorback.engine.history import History
from mirrorback.errors import Damaged
from mirrorback.store import past


def names(
    history: History, folder: bytes, prefix: bytes, at: str | None, *, ever: bool, most: int
) -> list[tuple[bytes, bool]]:
    """The names in a folder of a snapshot that begin so, by name, and whether each is a folder;
    with `ever` those that were in it in any snapshot.  `folder` is a PATH, `at` a WHEN; `most`
    names at most.  Raises NotInHistory, UsageError."""
    path, snapshot = history.find_path(folder, at)
    place = past.find_directory(history.catalog, path)
    number = None if place is None else past.child(history.catalog, *place)
    if number is None:
        return []
    shown = None if ever else snapshot.id
    found = []
    for name, is_folder in past.names(history.catalog, number, prefix, shown, most):
        try:
            history.require_name(name)
        except Damaged:
            continue
        found.append((name, is_folder))
    return found
