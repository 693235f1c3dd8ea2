"""Delete: remove chosen snapshots, and free what only they held."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from mirrorback.engine.events import Events, Phase
from mirrorback.engine.history import History
from mirrorback.engine.space import Space
from mirrorback.errors import NoSpace, NotInHistory, Refused, UsageError
from mirrorback.model import Snapshot
from mirrorback.store import past, publish, repository
from mirrorback.store.catalog import Catalog, translated
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

    Killed at any point, the next command that takes the lock goes on with it.
    Raises Refused for the mirror and for what is pinned, NotInHistory, Locked.
    """
    if not snapshots:
        raise UsageError("name the snapshots to delete; `mirrorback snapshots` lists them")
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(repository)))
        try:
            if dry_run:
                return _fates_of(repo, snapshots, now)
            lock = Lock.take(repo.inner)
            try:
                return _delete(repo, snapshots, now, events)
            finally:
                lock.release()
        finally:
            repo.close()


def _fates_of(repo: Repository, names: Sequence[str], now: datetime) -> list[Fate]:
    with contextlib.closing(Catalog.open(repo.inner_path(CATALOG))) as catalog, translated():
        chosen = _in_order(_chosen(catalog, names))
        return _fates(History(repo, catalog, now, b"/"), chosen)


def _delete(repo: Repository, names: Sequence[str], now: datetime, events: Events) -> list[Fate]:
    with contextlib.closing(Catalog.open(repo.inner_path(CATALOG), write=True)) as catalog:
        with translated():
            chosen = _chosen(catalog, names)
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
    chosen = _in_order(chosen)
    with translated(), _rebasing(repo, catalog, now) as rebased:
        events.phase(Phase.RECOVER)
        room = _recovered(repo, catalog)
        left = {snapshot.id for snapshot in catalog.snapshots()}
        fates = _fates(History(repo, catalog, now, b"/"), chosen)
        events.phase(Phase.DELETE, sum(snapshot.files for snapshot in chosen))
        for snapshot in chosen:
            if snapshot.id in left:
                publish.remove_snapshot(
                    repo,
                    catalog,
                    snapshot.id,
                    snapshot.name,
                    rebased(snapshot.id),
                    lambda count: events.advance(count),
                )
        if not room:
            publish.recover(repo, catalog)
    return fates


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


def _chosen(catalog: Catalog, names: Sequence[str]) -> list[Snapshot]:
    """The snapshots of these names, each once.  Raises Refused, NotInHistory."""
    known = {snapshot.name: snapshot for snapshot in catalog.snapshots()}
    chosen: dict[str, Snapshot] = {}
    for typed in names:
        name = os.path.basename(typed.rstrip("/")) or typed
        snapshot = known.get(name)
        if name in ("current", "latest", "now") or (snapshot and snapshot.current):
            raise Refused(f"{name} is the mirror, which always stays; there is no option for that")
        if snapshot is None:
            raise NotInHistory(f"there is no snapshot {typed!r}; `mirrorback snapshots` lists them")
        if snapshot.pinned is not None:
            raise Refused(f"{name} is pinned ({snapshot.pinned}): `mirrorback unpin` it first")
        chosen[name] = snapshot
    return list(chosen.values())


def _in_order(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """As they are removed: deltas need what is newer."""
    return sorted(snapshots, key=lambda one: one.id)


def _fates(history: History, chosen: Sequence[Snapshot]) -> list[Fate]:
    """What the removal of each frees, when they are removed in this order."""
    freed = Space(history).one_by_one([[snapshot.id] for snapshot in chosen])
    reasons = ("named on the command line",)
    return [
        Fate(snapshot.name, False, reasons, max(0, one.bytes))
        for snapshot, one in zip(chosen, freed, strict=True)
    ]
