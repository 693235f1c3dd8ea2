"""The source: what belongs to it, and where the walk stops."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

from mirrorback.errors import Refused, SourceError
from mirrorback.plan.selection import Selection, is_cache_tag
from mirrorback.store import settings, system, tree
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
    ) -> None:
        self.path = path
        self.fd = fd
        st = os.fstat(fd)
        self.device = st.st_dev
        self._selection = selection
        self._markers = selection.marker_names()
        self._repository = repository
        self._one_file_system = one_file_system
        self._mounts = _below(path, system.mount_points()) if one_file_system else frozenset()
        self._views = _below(path, system.mount_points(VIEW))
        self._shut: set[bytes] = set()

    @classmethod
    def open(
        cls, path: bytes, repo: Repository, selection: Selection, *, one_file_system: bool
    ) -> Source:
        """Open a source.  Raises SourceError where it is none, Refused where it
        lies in the repository."""
        try:
            fd = tree.open_root(path)
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
        return cls(real, fd, selection, repository=repo.identity(), one_file_system=one_file_system)

    @property
    def description(self) -> tuple[Any, ...]:
        """All that `described` needs to make the same source in another process; it can be
        marshalled."""
        return self.path, self._selection.rules, self._repository, self._one_file_system

    @classmethod
    def described(cls, fd: int, description: tuple[Any, ...]) -> Source:
        """The source of a description, open already."""
        path, rules, repository, one_file_system = description
        return cls(
            path, fd, Selection(*rules), repository=repository, one_file_system=one_file_system
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
        if self._views:
            chosen = [row for row in chosen if not self.is_view(path, row[0])]
        if not self._selection.everything:
            chosen = [row for row in chosen if not self._left_out(path, fd, row)]
        return chosen

    def is_view(self, path: bytes, name: str) -> bool:
        """Whether an entry of a directory is a mounted view of a repository: history, no part
        of the source, and to other users, root too, not even to be examined."""
        return tree.join(path, os.fsencode(name)) in self._views

    def shut(self, path: bytes, foreign: Iterable[str]) -> None:
        """Note what in a directory lies on another file system: with `one_file_system` it
        is shown empty, and not entered."""
        if self._one_file_system:
            self._shut.update(tree.join(path, os.fsencode(name)) for name in foreign)

    def entered(self, path: bytes) -> bool:
        """Whether a directory's own content belongs to the backup."""
        if not self._one_file_system:
            return True
        if path in self._shut:
            self._shut.discard(path)
            return False
        return path not in self._mounts

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
            return stat.S_ISREG(os.fstat(tag).st_mode) and is_cache_tag(os.read(tag, 64))
        except OSError:
            return False
        finally:
            os.close(tag)


def _below(path: bytes, mounts: frozenset[bytes]) -> frozenset[bytes]:
    """Those mounts that lie below a path, relative to it."""
    top = path.rstrip(b"/") + b"/"
    return frozenset(mount[len(top) :] for mount in mounts if mount.startswith(top))
