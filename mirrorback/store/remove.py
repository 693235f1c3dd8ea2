"""Removing whole trees, in threads, by directory descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Protocol

from mirrorback.store import tree
from mirrorback.store.workers import work_through

THREADS = 2
_COUNTING = threading.Lock()


class Sparing(Protocol):
    """Takes out of directories that are being removed what is to stay."""

    def below(self, directory: int | None) -> dict[bytes, int]:
        """The numbers of the directories in a directory, by name, as far as there are any."""

    def spare(
        self, fd: int, path: bytes, directory: int | None, files: Set[bytes], folders: Set[bytes]
    ) -> Set[bytes]:
        """Of the names found in an open directory, those that were taken away."""


@dataclass(slots=True)
class _Folder:
    """A directory on its way out: removed when nothing is left in it."""

    path: bytes
    parent: _Folder | None
    number: int | None = None  # by which what spares knows it
    left: int = 0


def remove_tree(
    dir_fd: int,
    name: bytes,
    *,
    threads: int = THREADS,
    progress: Callable[[int], None] = lambda count: None,
    sparing: tuple[Sparing, int] | None = None,
) -> None:
    """Remove `name` in an open directory and all below it; nothing where it is not.

    Symlinks are removed, never followed.  `progress` is told how many files went.  `sparing`
    is asked about every directory, and comes with the number of the first.
    Raises OSError; whatever is left then can be removed by another call.
    """
    try:
        top = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=dir_fd)
        top = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=dir_fd)
        return
    spares, number = sparing or (None, None)
    try:

        def process(folder: _Folder, cursor: tree.Cursor, push: Callable[..., None]) -> None:
            fd = cursor.open(folder.path)
            files, below = _listed(fd)
            numbers: dict[bytes, int] = {}
            if spares is not None:
                taken = spares.spare(fd, folder.path, folder.number, {*files}, {*below})
                if taken:
                    files, below = (
                        [n for n in names if n not in taken] for names in (files, below)
                    )
                numbers = spares.below(folder.number) if below else {}
            progress(_empty(fd, files, below))
            if below:
                folder.left = len(below)
                push(*(_Folder(tree.join(folder.path, n), folder, numbers.get(n)) for n in below))
            else:
                _end(folder, cursor)

        work_through(
            [_Folder(b"", None, number)],
            process,
            threads=threads,
            tools=lambda: tree.Cursor(top),
            put_away=tree.Cursor.close,
        )
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _listed(fd: int) -> tuple[list[bytes], list[bytes]]:
    """What is in an open directory: all that is not one, and directories."""
    files: list[bytes] = []
    below: list[bytes] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            found = below if entry.is_dir(follow_symlinks=False) else files
            found.append(os.fsencode(entry.name))
    return files, below


def _empty(fd: int, files: list[bytes], below: list[bytes]) -> int:
    """Remove files, and let directories be opened; how many went."""
    count = 0
    if os.geteuid() != 0:
        for name in below:
            with contextlib.suppress(OSError):
                os.chmod(name, 0o700, dir_fd=fd)
    for name in files:
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            continue
        except PermissionError:
            os.fchmod(fd, 0o700)
            os.unlink(name, dir_fd=fd)
        count += 1
    return count


def _end(folder: _Folder, cursor: tree.Cursor) -> None:
    """Remove an emptied folder, and its parents as far as they are empty now."""
    at: _Folder | None = folder
    while at is not None and at.parent is not None:
        parent, name = tree.parent_of(at.path)
        os.rmdir(name, dir_fd=cursor.open(parent))
        at = at.parent
        with _COUNTING:
            at.left -= 1
            if at.left:
                return
