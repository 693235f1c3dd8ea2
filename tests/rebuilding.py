"""A catalog taken away and made anew, and what a repository tells before and after."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from runs import Heard, Nights

from mirrorback.engine.rebuild import RebuildOptions, Rebuilt, rebuild

CATALOG = ".mirrorback/catalog.db"


def rebuilt(nights: Nights, *, lose: bool = True, **options: Any) -> Rebuilt:
    """Make a new catalog; the old one is lost before."""
    if lose:
        (nights.repository / CATALOG).unlink()
    nights.heard = Heard()
    return rebuild(str(nights.repository), RebuildOptions(**options), nights.now, nights.heard)


def told(nights: Nights, *, digests: bool = False) -> dict[str, Any]:
    """What the history commands say of every snapshot, as far as folders can tell it."""
    with nights.history() as history:
        snapshots = history.snapshots()
        return {
            "snapshots": [(s.name, s.time, s.offset, s.files, s.bytes) for s in snapshots],
            "entries": {
                snapshot.name: [
                    (
                        entry.path,
                        entry.metadata.kind,
                        entry.metadata.mode,
                        entry.metadata.owner,
                        entry.metadata.mtime,
                        entry.metadata.size,
                        entry.metadata.rdev,
                        entry.metadata.target,
                        entry.metadata.xattrs,
                        entry.stored,
                        entry.digest if digests else None,
                    )
                    for entry in history.listing(None, snapshot.name, recursive=True)
                ]
                for snapshot in snapshots
            },
        }


def versions(nights: Nights, path: bytes) -> list[tuple[object, ...]]:
    """The versions of a path."""
    with nights.history() as history:
        return [
            (v.first.name, v.last.name, v.metadata.mtime, v.location, v.stored, v.moved_from)
            for v in history.versions(path, follow=True)
        ]


def changes(nights: Nights) -> list[list[tuple[object, ...]]]:
    """What `diff` tells of each two neighbours, and of the oldest and the newest."""
    with nights.history() as history:
        names = [snapshot.name for snapshot in history.snapshots()]
        pairs = [*itertools.pairwise(names), (names[0], names[-1])]
        return [[(c.path, c.change, c.from_path) for c in history.diff(*pair)] for pair in pairs]


def inodes(top: Path) -> set[int]:
    """Inode numbers of all that is no folder in a repository."""
    return {p.lstat().st_ino for p in top.rglob("*") if p.is_symlink() or not p.is_dir()}
