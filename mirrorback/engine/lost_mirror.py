"""A mirror whose folder someone has moved away, renamed or removed."""

from __future__ import annotations

import os
from dataclasses import replace

from mirrorback.engine.events import Events
from mirrorback.engine.resolve import Cost
from mirrorback.model import Snapshot
from mirrorback.store import placed, settings, system
from mirrorback.store.catalog import PENDING, Catalog
from mirrorback.store.placed import Place
from mirrorback.store.repository import CURRENT, Repository

MISSING = "the mirror's folder, current, is missing from the repository"


def is_lost(repo: Repository, catalog: Catalog) -> bool:
    """Whether there is a mirror, but no folder of it.  Right also while another run publishes,
    which may be without one for a moment.  Raises OSError and the catalog's errors."""
    return (
        not os.access(CURRENT, os.F_OK, dir_fd=repo.fd, follow_symlinks=False)
        and bool(catalog.folders())
        and not catalog.in_state(PENDING)
        and not os.access(CURRENT, os.F_OK, dir_fd=repo.fd, follow_symlinks=False)
    )


def told(repo: Repository, catalog: Catalog) -> str:
    """That it is, and what to do, for one line."""
    renamed = _renamed(repo, catalog, catalog.snapshots()[-1])
    if renamed is None:
        return f"{MISSING}: the next backup makes a new one from the source"
    return f"{MISSING}: it was renamed to {settings.escape(renamed)}; rename it back"


def _renamed(repo: Repository, catalog: Catalog, mirror: Snapshot) -> bytes | None:
    """The name in the repository that someone has given the mirror."""
    name = placed.renamed_to(repo, catalog, mirror.id)
    if name is None or placed.at(repo, catalog, mirror.id, os.fsdecode(name)) is not Place.OURS:
        return None
    return name


def bring_back(repo: Repository, catalog: Catalog, events: Events) -> bool:
    """Before a backup, by the only writer: give a mirror that was renamed its name again.
    Returns whether it is lost: then another has to be made.  Either is told.  Raises OSError."""
    if not is_lost(repo, catalog):
        return False
    mirror = catalog.snapshots()[-1]
    name = _renamed(repo, catalog, mirror)
    if name is not None:
        system.rename_new(repo.fd, name, repo.fd, CURRENT)
        os.fsync(repo.fd)
        events.warning(
            f"the mirror's folder, current, had been renamed to {settings.escape(name)}: it was"
            " renamed back"
        )
        return False
    events.warning(
        f"{MISSING}: a new one is made from the source; snapshot {mirror.name}, which it was, has"
        " no folder any more, and `mirrorback delete` forgets it"
    )
    return True


def with_mirror(cost: Cost, mirror: Snapshot) -> Cost:
    """A plan's cost, when all of the mirror is copied again."""
    return replace(cost, bytes=cost.bytes + mirror.bytes, files=cost.files + mirror.files)
