"""Removing whole trees, in threads, by directory descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mirrorback.store import tree
from mirrorback.store.workers import work_through

THREADS = 2
_COUNTING = threading.Lock()


@dataclass(slots=True)
class _Folder:
    """A directory on its way out: removed when nothing is left in it."""

    path: bytes
    parent: _Folder | None
    left: int = 0


def remove_tree(
    dir_fd: int,
    name: bytes,
    *,
    threads: int = THREADS,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Remove `name` in an open directory and all below it; nothing where it is not.

    Symlinks are removed, never followed.  `progress` is told how many files went.
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
    try:

        def process(folder: _Folder, cursor: tree.Cursor, push: Callable[..., None]) -> None:
            fd = cursor.open(folder.path)
            below, count = _empty(fd)
            progress(count)
            if below:
                folder.left = len(below)
                push(*(_Folder(tree.join(folder.path, n), folder) for n in below))
            else:
                _end(folder, cursor)

        work_through(
            [_Folder(b"", None)],
            process,
            threads=threads,
            tools=lambda: tree.Cursor(top),
            put_away=tree.Cursor.close,
        )
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _empty(fd: int) -> tuple[list[bytes], int]:
    """Remove all that is not a directory; the directories, and how many went."""
    below: list[bytes] = []
    count = 0
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, directory in found:
        if directory:
            below.append(os.fsencode(name))
            if os.geteuid() != 0:
                with contextlib.suppress(OSError):
                    os.chmod(name, 0o700, dir_fd=fd)
            continue
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            continue
        except PermissionError:
            os.fchmod(fd, 0o700)
            os.unlink(name, dir_fd=fd)
        count += 1
    return below, count


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
