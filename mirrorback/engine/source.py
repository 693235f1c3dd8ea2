"""The source: what belongs to it, and where the walk stops."""

from __future__ import annotations

import bisect
import os
import stat
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from mirrorback.errors import Refused, SourceError
from mirrorback.plan import compare
from mirrorback.plan.selection import Selection, is_cache_tag
from mirrorback.store import content, frozen, mounts, settings, subvolume, system, tree
from mirrorback.store.repository import Repository

VIEW = "fuse.mirrorback"  # the type of a mounted view, as mountinfo has it
CACHE_TAG = b"CACHEDIR.TAG"


def require_source(source: str) -> None:
    """Raise SourceError where there is no such folder: before anything is made on the
    drive for its sake."""
    if not os.path.isdir(source):
        what = "is not a folder" if os.path.lexists(source) else "is not there"
        shown = settings.escape(os.fsencode(source))
        raise SourceError(f"the source {shown} {what}: give the folder to back up")


class Freeze(NamedTuple):
    """A source's snapshot: its open folder, -1 where none was made since the run is dry; the
    device number of what it is of; and the moments between which it was made, ns since 1970,
    0 where it was not."""

    fd: int
    device: int
    since: int
    until: int

    def settled(self, mtime: int, ctime: int, now: int) -> bool:
        """As `compare.settled`, where `now` is when the snapshot was read."""
        if not self.since:
            return compare.settled(mtime, ctime, now)
        return compare.settled(mtime, ctime, self.until, self.since)


class Source:
    """An open source directory with the rules of what is taken from it."""

    def __init__(
        self,
        path: bytes,
        fd: int,
        selection: Selection,
        *,
        repository: tuple[int, int],
        one_file_system: bool,
        freeze: Freeze | None = None,
    ) -> None:
        self.path = path
        self.fd = fd
        st = os.fstat(fd)
        self.device = st.st_dev
        self._selection = selection
        self._markers = selection.marker_names()
        self._repository = repository
        # Another subvolume is no part of a snapshot, and is treated as a mount is.
        self._one_file_system = one_file_system or freeze is not None
        self._freeze = freeze
        points = mounts.mount_points() if self._one_file_system else frozenset()
        self._mounts = _below(path, points)
        self.apart: list[bytes] = []  # what a snapshot does not hold of the source
        self.settled = compare.settled if freeze is None else freeze.settled
        self._views = _below(path, mounts.mount_points(VIEW))
        self._shut: set[bytes] = set()

    @classmethod
    def open(
        cls,
        path: bytes,
        repo: Repository,
        selection: Selection,
        *,
        one_file_system: bool,
        freeze: Freeze | None = None,
    ) -> Source:
        """Open a source.  Raises SourceError where it is none, Refused where it
        lies in the repository."""
        try:
            fd = tree.open_root(path) if freeze is None or freeze.fd < 0 else os.dup(freeze.fd)
        except NotADirectoryError:
            raise SourceError("the source is not a folder: give the folder that holds it") from None
        except OSError as error:
            raise SourceError(
                f"the source cannot be read: {(error.strerror or str(error)).lower()}"
            ) from error
        real = os.path.realpath(path)
        if (real + b"/").startswith(repo.path + b"/"):
            os.close(fd)
            raise Refused("the source lies inside the repository; a backup of it would never end")
        identity = repo.identity()
        if freeze is not None and identity[0] == freeze.device:
            identity = os.fstat(fd).st_dev, identity[1]  # as the snapshot has it
        return cls(
            real,
            fd,
            selection,
            repository=identity,
            one_file_system=one_file_system,
            freeze=freeze,
        )

    @property
    def description(self) -> tuple[Any, ...]:
        """All that `described` needs to make the same source in another process; it can be
        marshalled."""
        freeze = None if self._freeze is None else tuple(self._freeze)
        return self.path, self._selection.rules, self._repository, self._one_file_system, freeze

    @classmethod
    def described(cls, fd: int, description: tuple[Any, ...]) -> Source:
        """The source of a description, open already."""
        path, rules, repository, one_file_system, freeze = description
        return cls(
            path,
            fd,
            Selection(*rules),
            repository=repository,
            one_file_system=one_file_system,
            freeze=None if freeze is None else Freeze._make(freeze),
        )

    def close(self) -> None:
        """Close the directory."""
        os.close(self.fd)

    def select(
        self, path: bytes, fd: int, rows: list[tree.Row], foreign: dict[str, int]
    ) -> list[tree.Row]:
        """Of what a directory holds, that which is to be backed up."""
        device, ino = self._repository[0], system.inode_number(self._repository[1])
        chosen = rows
        if any(row[1] == ino for row in rows):
            chosen = [
                row for row in rows if row[1] != ino or foreign.get(row[0], self.device) != device
            ]
        chosen = _without_snapshots(fd, chosen)
        if self._views:
            chosen = [row for row in chosen if not self.is_view(path, row[0])]
        if not self._selection.everything:
            chosen = [row for row in chosen if not self._left_out(path, fd, row)]
        return chosen

    def began(self) -> int:
        """From when on what is read now may have changed: ns since 1970."""
        frozen = self._freeze is not None and self._freeze.since
        return frozen or time.time_ns()

    def split(
        self, path: bytes, rows: list[tree.Row], foreign: dict[str, int]
    ) -> tuple[list[tree.Row], dict[str, int]]:
        """What is to be backed up of a directory, without subvolumes where a snapshot is read,
        which holds empty folders of uncertain time in their place; and what lies elsewhere."""
        if self._freeze is None:
            return rows, foreign
        kept = []
        elsewhere = {}
        for row in rows:
            elsewhere_too = row[0] in foreign or row[1] == subvolume.EMPTY_INODE
            if stat.S_ISDIR(row[2]) and elsewhere_too:
                elsewhere[row[0]] = foreign.get(row[0], self.device)
                if tree.join(path, os.fsencode(row[0])) not in self._mounts:
                    continue
            kept.append(row)
        return kept, elsewhere

    def is_view(self, path: bytes, name: str) -> bool:
        """Whether an entry of a directory is a mounted view of a repository: history, no part
        of the source, and to other users, root too, not even to be examined."""
        return tree.join(path, os.fsencode(name)) in self._views

    def shut(self, path: bytes, foreign: Iterable[str]) -> None:
        """Note what in a directory lies on another file system: with `one_file_system` it
        is shown empty, and not entered."""
        if self._one_file_system:
            paths = [tree.join(path, os.fsencode(name)) for name in foreign]
            self._shut.update(paths)
            if self._freeze is not None:
                self.apart += paths

    def entered(self, path: bytes) -> bool:
        """Whether a directory's own content belongs to the backup."""
        if not self._one_file_system:
            return True
        if path in self._shut:
            self._shut.discard(path)
            return False
        if path not in self._mounts:
            return True
        if self._freeze is not None:
            self.apart.append(path)
        return False

    def _left_out(self, path: bytes, fd: int, row: tree.Row) -> bool:
        name = os.fsencode(row[0])
        directory = stat.S_ISDIR(row[2])
        here = tree.join(path, name)
        if self._selection.excludes(here, directory, row[3], stat.S_ISREG(row[2])):
            return True
        return directory and bool(self._markers) and self._marked(fd, name)

    def _marked(self, fd: int, name: bytes) -> bool:
        """Whether a folder holds a file that keeps it out of backups."""
        try:
            folder = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=fd)
        except OSError:
            return False
        try:
            return any(self._has_marker(folder, marker) for marker in self._markers)
        finally:
            os.close(folder)

    def _has_marker(self, folder: int, marker: bytes) -> bool:
        try:
            if marker != CACHE_TAG or not self._selection.caches:
                os.stat(marker, dir_fd=folder, follow_symlinks=False)
                return True
            tag = system.open_quietly(marker, os.O_RDONLY, folder)
        except OSError:
            return False
        try:
            is_file = stat.S_ISREG(os.fstat(tag).st_mode)
            return is_file and is_cache_tag(content.read_up_to(tag, 64, 0))
        except OSError:
            return False
        finally:
            os.close(tag)


def _without_snapshots(fd: int, rows: list[tree.Row]) -> list[tree.Row]:
    """What a directory holds, without the folder where snapshots of sources are kept."""
    at = bisect.bisect_left(rows, (frozen.FOLDER,))
    if at == len(rows) or not rows[at][0].startswith(frozen.FOLDER):
        return rows
    return [row for row in rows if not frozen.is_folder(fd, row[0], row[2])]


def _below(path: bytes, points: frozenset[bytes]) -> frozenset[bytes]:
    """Those mounts that lie below a path, relative to it."""
    top = path.rstrip(b"/") + b"/"
    return frozenset(mount[len(top) :] for mount in points if mount.startswith(top))
