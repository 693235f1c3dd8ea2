"""Delete: remove chosen snapshots, and free what only they held."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from mirrorback.engine.events import Events
from mirrorback.engine.removal import Fate, freed_by, opened, reading, removing
from mirrorback.errors import NotInHistory, Refused, UsageError
from mirrorback.model import Snapshot
from mirrorback.store.catalog import Catalog

NAMED = ("named on the command line",)


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
    with opened(repository) as repo:
        if dry_run:
            with reading(repo) as catalog:
                chosen = _chosen(catalog, snapshots)
                return [
                    Fate(snapshot.name, False, NAMED, frees)
                    for snapshot, frees in zip(chosen, freed_by(catalog, chosen), strict=True)
                ]
        with removing(repo, now, events) as removal:
            removal.recover()
            chosen = _chosen(removal.catalog, snapshots)
            freed = removal.remove(chosen)
        return [Fate(one.name, False, NAMED, freed[one.id]) for one in chosen]


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
