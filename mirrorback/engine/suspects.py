"""What of the mirror must not be used again: objects that `verify` has marked as damaged.

A backup links none of them into the new snapshot, nor clones or revises it: it takes the
source's file anew, though that is unchanged.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from mirrorback.model import Digest, Kind, Metadata
from mirrorback.store import content, live, system, tree
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.repository import CURRENT, Repository
from mirrorback.store.schema import SPLIT

COARSE = 2_000_000_000  # ns: no drive rounds times more than that


@dataclass(frozen=True, slots=True)
class Suspects:
    """Objects of the mirror, and the directories in which it shows them."""

    objects: frozenset[int] = frozenset()
    folders: frozenset[int] = frozenset()

    @classmethod
    def of(cls, repo: Repository, catalog: Catalog) -> Suspects:
        """Those of a repository.  A mark may stand for a name in a dated folder, while the
        mirror's file is sound: those few that are marked are looked at, and read.  Raises
        OSError, Damaged."""
        with catalog.lock:
            marked = catalog.db.execute(
                "SELECT v.object, e.dir, e.name, o.drive FROM verified v"
                " JOIN entry e ON e.object = v.object AND e.last IS NULL"
                " JOIN object o ON o.id = v.object"
                f" WHERE v.problem IS NOT NULL AND e.kind != {int(Kind.DIRECTORY)}"
            ).fetchall()
        if not marked:
            return NONE
        places: dict[int, list[tuple[int, bytes]]] = {}
        drives = {}
        for number, directory, name, drive in marked:
            places.setdefault(number, []).append((directory, name))
            drives[number] = drive
        objects = {
            number
            for number, where in places.items()
            if not _is_sound(repo, catalog, number, where, split=drives[number] == SPLIT)
        }
        folders = {directory for number in objects for directory, _name in places[number]}
        return cls(frozenset(objects), frozenset(folders))

    def looked_at(
        self, known: dict[bytes, tuple[int, bytes | None]]
    ) -> dict[bytes, tuple[int, bytes | None]]:
        """Directories by name, with id and fingerprint: without that of those which show
        something damaged, so that these are looked at."""
        if not self.folders:
            return known
        return {
            name: (number, None if number in self.folders else fingerprint)
            for name, (number, fingerprint) in known.items()
        }


NONE = Suspects()


def _is_sound(
    repo: Repository,
    catalog: Catalog,
    number: int,
    places: list[tuple[int, bytes]],
    *,
    split: bool,
) -> bool:
    """Whether the mirror shows an object in all its places as it was backed up."""
    metadata, digest = live.object_row(catalog, number)
    try:
        top = os.open(CURRENT, tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
    except OSError:
        return False
    cursor = tree.Cursor(top)
    seen: set[int] = set()
    try:
        for directory, name in places:
            with catalog.lock:
                path = b"" if directory == ABOVE_ROOT else catalog.directory_path(directory)
            folder = cursor.open(path)
            st = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if st.st_ino not in seen and not _looks_right(folder, name, st, metadata, digest):
                return False
            seen.add(st.st_ino)
    except OSError:
        return False
    finally:
        cursor.close()
        os.close(top)
    return split or len(seen) == 1


def _looks_right(
    folder: int, name: bytes, st: os.stat_result, metadata: Metadata, digest: Digest | None
) -> bool:
    if Kind.of_mode(st.st_mode) is not metadata.kind:
        return False
    if metadata.kind is Kind.SYMLINK:
        return os.readlink(name, dir_fd=folder) == metadata.target
    owner = (metadata.owner.uid, metadata.owner.gid)
    owned = os.geteuid() != 0 or (st.st_uid, st.st_gid) == owner
    timely = abs(st.st_mtime_ns - metadata.mtime) < COARSE
    if not owned or not timely or stat.S_IMODE(st.st_mode) != metadata.mode:
        return False
    if metadata.kind is not Kind.FILE:
        return metadata.kind not in (Kind.CHAR, Kind.BLOCK) or st.st_rdev == metadata.rdev
    if st.st_size != metadata.size or digest is None:
        return False
    fd = os.open(name, system.READ_SAFELY, dir_fd=folder)
    try:
        system.drop_cache(fd, 0, 0)  # what is on the drive counts
        return content.digest_of(fd, st, digest.sparse) == digest
    finally:
        os.close(fd)
