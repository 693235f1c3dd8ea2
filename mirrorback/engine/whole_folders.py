"""Snapshots whose whole folder is missing, or was given another name by hand.

One that was renamed, beyond doubt, gets its name back.  One that is gone is made anew: its
folder, and a mark on all that it should show, by which a repair gives each its names, from
wherever it still is.  The marks are durable before the folder is there: cut in between, or
later, the next repair goes on.
"""

from __future__ import annotations

import os

from mirrorback.engine import dated
from mirrorback.engine.dated import Dated
from mirrorback.engine.faults import MISSING
from mirrorback.engine.history import History
from mirrorback.engine.missing import all_shown
from mirrorback.model import Repair, Snapshot
from mirrorback.store import mend, past, record, system
from mirrorback.store.repository import CURRENT

NAME, LINKS = "name", "links"


def rename_back(history: History, found: Dated, *, dry_run: bool) -> list[Repair]:
    """Give folders their names back; what was done, or with `dry_run` would be.  Raises
    OSError."""
    repairs = []
    for snapshot in history.snapshots():
        if snapshot.id not in found.certain:
            continue
        name = found.tops[snapshot.id].name
        if not dry_run:
            ours = CURRENT if snapshot.current else os.fsencode(snapshot.name)
            system.rename_new(history.repo.fd, name, history.repo.fd, ours)
            os.fsync(history.repo.fd)
        words = dated.RENAMED.format(os.fsdecode(name))
        repairs.append(_repair(history, snapshot, words, NAME))
    return repairs


def make_anew(history: History, found: Dated, now: int, *, dry_run: bool) -> list[Repair]:
    """Make the dated folders that are gone, with nothing in them so far, and mark all that they
    should show, at `now` in ns since 1970; what was done, or with `dry_run` would be.  Raises
    OSError, Damaged, and the catalog's errors."""
    repairs = []
    for snapshot in gone(history, found):
        if not dry_run:
            _make(history, snapshot, now)
        repairs.append(_repair(history, snapshot, dated.GONE, LINKS))
    return repairs


def gone(history: History, found: Dated) -> list[Snapshot]:
    """The snapshots but for the mirror whose folders are not there, under no name."""
    there = found.tops.keys() | found.renamed
    return [s for s in history.snapshots() if s.id not in there and not s.current]


def _make(history: History, snapshot: Snapshot, now: int) -> None:
    repo, catalog = history.repo, history.catalog
    row = past.root(catalog, snapshot.id)
    if row is None:
        return
    name = os.fsencode(snapshot.name)
    if mend.look(name, repo.fd) is not None:  # no folder
        mend.set_apart(repo, repo.fd, name, snapshot.name, b"")
        if mend.look(name, repo.fd) is not None:
            os.unlink(name, dir_fd=repo.fd)
    record.missing(catalog, [row.object, *all_shown(history, snapshot.id)], now, MISSING)
    mend.make_top(repo, name, row.metadata)
    os.fsync(repo.fd)
    root = repo.root_number(repo.fd, name)
    if root is not None:
        record.has_root(catalog, snapshot.id, root)


def _repair(history: History, snapshot: Snapshot, words: str, origin: str) -> Repair:
    where = history.location(snapshot)
    return Repair(b"", (snapshot.name,), words, where, True, origin, None)
