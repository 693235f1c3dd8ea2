"""Damaged versions of large files, whose snapshots stay, and what a snapshot that goes would take
from them: it is kept in `.mirrorback/damaged`, for whoever knows how to read more of it.
"""

from __future__ import annotations

import os
import stat

from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.rebase import Lost
from mirrorback.model import Snapshot
from mirrorback.store import mend, past, placed, system, tree
from mirrorback.store.repository import INNER


def keep(history: History, snapshot: Snapshot, lost: Lost, events: Events) -> None:
    """Give what a lost object needs of a snapshot names in `.mirrorback/damaged`, durably, and
    tell so; nothing where nothing of it is there.  Can be done again.  Raises OSError."""
    kept = [name for number in lost.needed for name in _set_apart(history, snapshot, number)]
    if not kept:
        return
    system.sync_filesystem(history.repo.fd)
    rows = past.showing(history.catalog, lost.object)
    path = tree.join(history.folder_path(rows[0].dir), rows[0].name) if rows else None
    places = ", ".join(os.fsdecode(tree.join(INNER, name)) for name in kept)  # are escaped
    events.warning(
        f"an older version of a large file is damaged, and cannot be read without {snapshot.name},"
        f" which was to be deleted: what it needs of that is kept as {places}",
        path,
    )


def _set_apart(history: History, snapshot: Snapshot, number: int) -> list[bytes]:
    """The name, in `.mirrorback`, that the file of an object has been given, if there is one."""
    try:
        top = os.open(os.fsencode(snapshot.name), tree.DIRECTORY_FLAGS, dir_fd=history.repo.fd)
    except FileNotFoundError:
        return []
    cursor = tree.Cursor(top)
    try:
        for row in past.showing(history.catalog, number):
            if not row.shown_in(snapshot.id):
                continue
            folder, name = history.folder_path(row.dir), mend.drive_name(row)
            try:
                fd = cursor.open(folder)
            except OSError as error:
                if error.errno not in placed.NO_FOLDER:
                    raise
                continue
            there = mend.look(name, fd)
            if there is not None and stat.S_ISREG(there.st_mode):
                path = tree.join(folder, name)
                return [mend.set_apart(history.repo, fd, name, snapshot.name, path)]
    finally:
        cursor.close()
        os.close(top)
    return []
