"""Repair: mend what `verify` has marked, from the source, from copies, or from what is known.

Each object is looked at again under all its names.  Where one of its inodes is sound, the other
names are linked to that; else its content is looked for, written anew, proven, and given all
names.  What was there instead is kept in `.mirrorback/damaged`.  An inode that a snapshot shows
is not altered, not even to put permissions right: there will be another with the same bytes;
but for that of a file of which a copy would be too large, or could not be proven
(`Preparing.dress_in_place`).  A folder is one snapshot's alone, and is put right itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from mirrorback.engine import doors, removable, whole_folders
from mirrorback.engine.dated import Dated
from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.mending import Mending, RepairResult
from mirrorback.errors import DriveError, Locked, UsageError
from mirrorback.model import Repair
from mirrorback.store import (
    lock,
    presence,
    publish,
    supersede,
)
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import DELETING, PENDING, Catalog, translated
from mirrorback.store.lock import Lock
from mirrorback.store.repository import CATALOG as CATALOG_NAME
from mirrorback.store.repository import Repository, drive_errors


def repair(
    repository: str, *, dry_run: bool, source: str | None, now: datetime, events: Events
) -> RepairResult:
    """Mend what is marked as damaged in a repository, as far as that can be done; with
    `dry_run` only say how.  `source` stands for the folder that was backed up, where that is
    elsewhere now.  `now` is aware, in local time.

    Killed at any point, the next command that takes the lock ends what was begun.  Raises
    MirrorbackError.
    """
    if source is not None and not os.path.isdir(source):
        raise UsageError(f"--source {source} is not a folder")
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(repository)))
        try:
            with presence.felt(repo), _catalog(repo, events, dry_run=dry_run) as catalog:
                history = History(repo, catalog, now, b"/")
                try:
                    top = repo.settings.source if source is None else os.fsencode(source)
                    with _folders(history, _nanoseconds(now), dry_run=dry_run) as (dated, made):
                        run = Mending(history, dated, os.path.abspath(top), events, dry_run=dry_run)
                        return run.all(_nanoseconds(now), made)
                finally:
                    history.let_go()
        finally:
            repo.close()


def _nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@contextlib.contextmanager
def _folders(history: History, now: int, *, dry_run: bool) -> Iterator[tuple[Dated, list[Repair]]]:
    """The folders of all snapshots, those that were renamed or are gone put right, and what was
    done for that."""
    made: list[Repair] = []
    dated = Dated(history)
    try:
        made += whole_folders.rename_back(history, dated, dry_run=dry_run)
        for number in dated.renamed - dated.certain:  # who knows what they are
            dated.leave_out(number)
        anew = whole_folders.make_anew(history, dated, now, dry_run=dry_run)
        if (made or anew) and not dry_run:
            dated.close()
            dated = Dated(history)
            for number in dated.renamed:
                dated.leave_out(number)
        yield dated, made + anew
    finally:
        dated.close()


@contextlib.contextmanager
def _catalog(repo: Repository, events: Events, *, dry_run: bool) -> Iterator[Catalog]:
    """The catalog of a repository in order: locked, or for a look only one that nobody else
    is changing."""
    if dry_run:
        if lock.held(repo.inner):
            raise Locked("another run holds the repository; wait for it to end")
        catalog = Catalog.open(repo.inner_path(CATALOG_NAME))
        with contextlib.closing(catalog), translated(), blamed(catalog):
            cut = catalog.in_state(PENDING) or catalog.in_state(DELETING)
            if cut or supersede.pending(catalog):
                raise DriveError(
                    "an earlier run was cut short: repair without --dry-run, or a backup,"
                    " ends it first"
                )
            yield catalog
        return
    held = Lock.take(repo.inner)
    try:
        doors.warn(repo, events)
        catalog = Catalog.open(repo.inner_path(CATALOG_NAME), write=True)
        with contextlib.closing(catalog), translated(), blamed(catalog):
            publish.recover(repo, catalog, removable.teller(events))
            yield catalog
    finally:
        held.release()
