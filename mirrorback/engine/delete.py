"""Delete: remove chosen snapshots, and free what only they held."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mirrorback.engine import removable
from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.removal import Fate, freed_by, opened, reading, removing
from mirrorback.errors import UsageError
from mirrorback.model import Snapshot
from mirrorback.store.catalog import Catalog
from mirrorback.store.in_use import InUse
from mirrorback.store.repository import Repository

NAMED = ("named on the command line",)


def delete(
    repository: str,
    snapshots: Sequence[str],
    *,
    dry_run: bool,
    now: datetime,
    events: Events,
    even_damaged: bool = False,
) -> list[Fate]:
    """Remove snapshots by their names; the space is free when it returns.

    Killed at any point, the next command that takes the lock goes on with it.  One that is
    still being read after some seconds stays, and its fate says so.  Raises Refused for the
    mirror, for what is pinned, and for what is not the snapshot's folder, NotInHistory, Locked:
    then nothing was removed; Damaged where one has to stay for that, when all others are gone.
    `even_damaged` ones go: what versions that cannot be read need of them is set apart.
    """
    if not snapshots:
        raise UsageError("name the snapshots to delete; `mirrorback snapshots` lists them")
    with opened(repository) as repo:
        if dry_run:
            with reading(repo) as catalog:
                return _would(repo, catalog, _chosen(repo, catalog, snapshots), now)
        with removing(
            repo, now, events, removable.PATIENCE_S, even_damaged=even_damaged
        ) as removal:
            removal.recover()
            chosen = _chosen(repo, removal.catalog, snapshots)
            removal.remove(chosen)
            if removal.damage is not None:
                raise removal.damage
            fates = [Fate.of_going(one.name, NAMED, removal.freed.get(one.id)) for one in chosen]
            return removal.told(fates)


def _would(
    repo: Repository, catalog: Catalog, chosen: Sequence[Snapshot], now: datetime
) -> list[Fate]:
    fates = []
    freed = freed_by(History(repo, catalog, now, b"/"), chosen)
    for snapshot, frees in zip(chosen, freed, strict=True):
        try:
            removable.require_unread(repo, snapshot)
        except InUse as error:
            fates.append(Fate(snapshot.name, True, (str(error),)))
        else:
            fates.append(Fate.of_going(snapshot.name, NAMED, frees))
    return fates


def _chosen(repo: Repository, catalog: Catalog, names: Sequence[str]) -> list[Snapshot]:
    """The snapshots of these names, each once.  Raises Refused, NotInHistory."""
    chosen = removable.named(repo, catalog, names)
    removable.require(repo, catalog, chosen)
    return chosen
