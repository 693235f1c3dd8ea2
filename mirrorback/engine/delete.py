"""Delete: remove chosen snapshots, and free what only they held."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from mirrorback.engine import removable
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.history import History
from mirrorback.errors import NoSpace, Refused, UsageError
from mirrorback.model import Snapshot
from mirrorback.store import past, publish, repository
from mirrorback.store.catalog import Catalog, translated
from mirrorback.store.in_use import InUse
from mirrorback.store.lock import Lock
from mirrorback.store.record import Replaced
from mirrorback.store.repository import CATALOG, Repository, drive_errors


@dataclass(frozen=True)
class Fate:
    """What becomes of a snapshot, why, and how many bytes that frees."""

    name: str
    keep: bool
    reasons: tuple[str, ...]
    frees: int


def delete(
    repository: str,
    snapshots: Sequence[str],
    *,
    dry_run: bool,
    now: datetime,
    events: Events,
) -> list[Fate]:
    """Remove snapshots by their names; the space is free when it returns.

    Killed at any point, the next command that takes the lock goes on with it.  One that is
    being read stays, and its fate says so.  Raises Refused for the mirror, for what is pinned,
    and for what is not the snapshot's folder; NotInHistory, Locked; then nothing was removed.
    """
    if not snapshots:
        raise UsageError("name the snapshots to delete; `mirrorback snapshots` lists them")
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(repository)))
        try:
            if dry_run:
                return _fates(repo, snapshots)
            lock = Lock.take(repo.inner)
            try:
                return _delete(repo, snapshots, now, events)
            finally:
                lock.release()
        finally:
            repo.close()


def _fates(repo: Repository, names: Sequence[str]) -> list[Fate]:
    with contextlib.closing(Catalog.open(repo.inner_path(CATALOG))) as catalog, translated():
        return [_would(repo, catalog, snapshot) for snapshot in _chosen(repo, catalog, names)]


def _would(repo: Repository, catalog: Catalog, snapshot: Snapshot) -> Fate:
    try:
        removable.require_unread(repo, snapshot)
    except InUse as error:
        return _left(snapshot, error)
    return _fate(catalog, snapshot)


def _delete(repo: Repository, names: Sequence[str], now: datetime, events: Events) -> list[Fate]:
    with contextlib.closing(Catalog.open(repo.inner_path(CATALOG), write=True)) as catalog:
        with translated():
            chosen = _chosen(repo, catalog, names)
        try:
            return _remove(repo, catalog, chosen, now, events)
        except (NoSpace, OSError):
            # A drive that is full to the last byte: that is what the reserve is for.
            repository.give_up_reserve(repo.inner)
            return _remove(repo, catalog, chosen, now, events)
        finally:
            repository.make_reserve(repo.inner)


def _remove(
    repo: Repository, catalog: Catalog, chosen: Sequence[Snapshot], now: datetime, events: Events
) -> list[Fate]:
    fates = []
    with translated(), _rebasing(repo, catalog, now) as rebased:
        events.phase(Phase.RECOVER)
        room = _recovered(repo, catalog)
        left = {snapshot.id for snapshot in catalog.snapshots()}
        events.phase(Phase.DELETE, sum(snapshot.files for snapshot in chosen))
        for snapshot in sorted(chosen, key=lambda one: one.id):  # deltas need what is newer
            fate = _fate(catalog, snapshot)
            if snapshot.id in left:
                try:
                    _remove_one(repo, catalog, snapshot, rebased, events)
                except (InUse, Refused) as error:
                    events.warning(str(error))
                    fate = _left(snapshot, error)
            fates.append(fate)
        if not room:
            publish.recover(repo, catalog)
    return fates


def _remove_one(
    repo: Repository,
    catalog: Catalog,
    snapshot: Snapshot,
    rebased: Callable[[int], list[Replaced]],
    events: Events,
    patience: float = removable.PATIENCE_S,
) -> None:
    """Remove one snapshot.  Raises InUse where it is being read still after so many seconds,
    Refused where something else stands in the place of its folder."""
    about = removable.require_folder(repo, catalog, snapshot)
    removable.require_unread(repo, snapshot, patience)
    spared = publish.remove_snapshot(
        repo,
        catalog,
        snapshot.id,
        snapshot.name,
        rebased(snapshot.id),
        lambda count: events.advance(count),
    )
    removable.tell(events, snapshot, about, spared)


def _recovered(repo: Repository, catalog: Catalog) -> bool:
    """Complete what an earlier run has begun; False where nothing but room is missing for
    that, which removing snapshots makes."""
    try:
        publish.recover(repo, catalog)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if not publish.waits_for_room(repo, catalog):
            raise
        return False
    return True


@contextlib.contextmanager
def _rebasing(
    repo: Repository, catalog: Catalog, now: datetime
) -> Iterator[Callable[[int], list[Replaced]]]:
    """What writes anew the deltas that cannot do without a snapshot (`rebase`)."""
    history = History(repo, catalog, now, b"/")

    def rebased(snapshot: int) -> list[Replaced]:
        if not past.any_deltas(catalog):
            return []
        from mirrorback.engine.rebase import rebase

        history.refreshed()
        return rebase(history, snapshot)

    try:
        yield rebased
    finally:
        history.let_go()


def _chosen(repo: Repository, catalog: Catalog, names: Sequence[str]) -> list[Snapshot]:
    """The snapshots of these names, each once.  Raises Refused, NotInHistory."""
    chosen = removable.named(repo, catalog, names)
    removable.require(repo, catalog, chosen)
    return chosen


def _fate(catalog: Catalog, snapshot: Snapshot) -> Fate:
    return Fate(
        snapshot.name, False, ("named on the command line",), past.freed_by(catalog, snapshot.id)
    )


def _left(snapshot: Snapshot, error: InUse | Refused) -> Fate:
    return Fate(snapshot.name, True, (str(error),), 0)
