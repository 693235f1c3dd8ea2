"""What may be removed, as people name it, and what they have done to its folders meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mirrorback.engine.events import Events
from mirrorback.errors import NotInHistory, Refused
from mirrorback.model import Snapshot
from mirrorback.plan import retention
from mirrorback.store import in_use, past, placed, publish, settings
from mirrorback.store.catalog import Catalog
from mirrorback.store.placed import Place
from mirrorback.store.repository import CURRENT, Repository

MIRROR = (os.fsdecode(CURRENT), "latest", "now")  # what the mirror is called besides its name
PATIENCE_S = 5.0  # a mount holds what was looked at for some seconds


def named(repo: Repository, catalog: Catalog, names: Sequence[str]) -> list[Snapshot]:
    """The snapshots that are named, or whose folders are, each once.  Raises NotInHistory."""
    snapshots = catalog.snapshots()
    known = {snapshot.name: snapshot for snapshot in snapshots}
    known |= {name: snapshot for name in MIRROR for snapshot in snapshots[-1:]}
    chosen: dict[int, Snapshot] = {}
    for typed in names:
        folder, name = os.path.split(typed.rstrip("/"))
        if folder and not _is_folder(folder, repo):
            raise NotInHistory(
                f"{typed!r} is not in the repository: give names as `mirrorback snapshots` lists"
                " them"
            )
        if name not in known:
            raise NotInHistory(f"there is no snapshot {typed!r}; `mirrorback snapshots` lists them")
        chosen[known[name].id] = known[name]
    return list(chosen.values())


def _is_folder(path: str, repo: Repository) -> bool:
    try:
        return os.path.samefile(path, repo.path)
    except (OSError, ValueError):
        return False


def require(repo: Repository, catalog: Catalog, chosen: Sequence[Snapshot]) -> None:
    """Raises Refused where one of these is the mirror, or is pinned, or the last complete one
    before an incomplete one that stays, or someone has put something else in the place of its
    folder."""
    needed = retention.needed_by(catalog.snapshots(), {snapshot.id for snapshot in chosen})
    for snapshot in chosen:
        if snapshot.current:
            raise Refused(
                f"{snapshot.name} is the mirror, which always stays; there is no option for that"
            )
        if snapshot.pinned is not None:
            raise Refused(
                f"{snapshot.name} is pinned ({snapshot.pinned}): `mirrorback unpin` it first"
            )
        if snapshot.id in needed:
            incomplete = needed[snapshot.id]
            way = (
                "make a complete backup, then delete both"
                if incomplete.current
                else f"delete {incomplete.name} with it"
            )
            raise Refused(
                f"{snapshot.name} is the last complete snapshot before {incomplete.name}, in which"
                f" something could not be read: {way}"
            )
    for snapshot in chosen:
        require_folder(repo, catalog, snapshot)


def require_folder(repo: Repository, catalog: Catalog, snapshot: Snapshot) -> str | None:
    """What is to be told of a snapshot's folder that is not there.  Raises Refused where it
    has to be brought back first, something else stands in its place, or is mounted in it."""
    placed.require_unmounted(repo, os.fsencode(snapshot.name))
    place = placed.at(repo, catalog, snapshot.id, snapshot.name)
    if place is Place.OURS:
        return None
    renamed = placed.renamed_to(repo, catalog, snapshot.id)
    if place is Place.FOREIGN:
        raise Refused(
            f"what stands at {snapshot.name} is not the folder of that snapshot: move it away"
            + (f", and {settings.escape(renamed)} back to its name" if renamed else "")
        )
    if renamed is None:
        return f"its folder {snapshot.name} was not there any more"
    if past.dependents(catalog, past.only_in(catalog, [snapshot.id])):
        raise Refused(
            f"the folder of {snapshot.name} was renamed to {settings.escape(renamed)}, and large"
            f" files in other snapshots need what is in it: rename it back to {snapshot.name}"
        )
    return (
        f"its folder was renamed to {settings.escape(renamed)}, which is left as it is:"
        " no snapshot from now on"
    )


def require_unread(repo: Repository, snapshot: Snapshot, patience: float = 0.0) -> None:
    """Raises InUse where a snapshot is still being read after so many seconds."""
    with in_use.alone(repo, snapshot.name, patience):
        pass


def teller(events: Events) -> publish.Tell:
    """What tells what people have put into a folder that is removed."""

    def tell(name: str, spared: placed.Sparing) -> None:
        if spared.earlier is not None:
            # Nobody may have heard of it then, and how many they were is not known.
            events.warning(
                f"the removal of {name}, which had been cut short, is complete; what in its folder"
                " came from no backup is set aside, not deleted",
                spared.earlier,
            )
        elif spared.first is not None:
            events.warning(
                f"{spared.count:,} in the folder of {name} came from no backup: set aside,"
                " not deleted; the first",
                spared.first,
            )

    return tell
