"""Reading a resolved plan: how each path will differ from the mirror."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from mirrorback.model import Change, ChangeKind, Kind
from mirrorback.plan import compare
from mirrorback.store import live, tree
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.difference import Action, Difference
from mirrorback.store.spool import Spool


def verdict(difference: Difference) -> ChangeKind | None:
    """How a planned entry differs from the snapshot before."""
    if difference.action == Action.KEEP:
        return None
    return compare.verdict(
        existed=difference.entry is not None,
        same_kind=difference.old_kind == difference.kind,
        moved=difference.moved is not None,
        same_content=difference.same_content != 0,
        same_metadata=difference.same_metadata != 0,
        same_links=difference.verdict is None,
    )


def changes(catalog: Catalog, spool: Spool) -> Iterator[Change]:
    """Every path that differs from the mirror, as far as it is planned."""
    for difference in spool.changes("1"):
        kind = verdict(difference)
        if kind is None or (
            # A folder's time stamp alone is no change worth telling.
            kind is ChangeKind.METADATA and _time_alone(catalog, difference)
        ):
            continue
        before = None
        if difference.moved is not None:
            directory, name = live.place(catalog, difference.moved)
            before = tree.join(_directory(spool, directory), name)
        path = tree.join(_directory(spool, difference.dir), difference.name)
        yield Change(path, kind, before)
    lost = "SELECT entry, dir, name FROM spool.gone WHERE NOT replaced AND moved_to IS NULL"
    for _entry, directory, name in spool.select(f"{lost} AND entry > ? ORDER BY entry"):
        yield Change(
            tree.join(_directory(spool, directory), name),
            ChangeKind.REMOVED,
        )


def _directory(spool: Spool, directory: int) -> bytes:
    return b"" if directory == ABOVE_ROOT else spool.directory_path(directory)


def _time_alone(catalog: Catalog, difference: Difference) -> bool:
    if difference.kind != Kind.DIRECTORY or difference.object is None:
        return False
    before, _digest = live.object_row(catalog, difference.object)
    return before.same_as(dataclasses.replace(difference.metadata, mtime=before.mtime))


def nothing_new(spool: Spool) -> bool:
    """Whether a resolved spool holds no difference that a snapshot could show."""
    return not spool.fetch(
        "SELECT 1 FROM spool.change WHERE NOT ("
        f" (action = {Action.REUSE} AND use IS object AND moved IS NULL)"
        f" OR action = {Action.KEEP}"
        f" OR (action = {Action.DIRECTORY} AND old_kind IS kind AND same_metadata IS NOT 0"
        "  AND moved IS NULL))"
        " UNION ALL SELECT 1 FROM spool.gone WHERE NOT replaced LIMIT 1"
    )


def nothing_came(spool: Spool) -> bool:
    """Whether a build has made nothing that a snapshot could show."""
    return not spool.fetch(
        "SELECT 1 FROM spool.entry UNION ALL SELECT 1 FROM spool.closed"
        " UNION ALL SELECT 1 FROM spool.gone WHERE NOT replaced LIMIT 1"
    )
