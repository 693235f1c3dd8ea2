"""What the parts of a repository that are no snapshots take of the drive."""

from __future__ import annotations

import os
import stat

from mirrorback.store import tree
from mirrorback.store.repository import Repository

SECTOR = 512


def parts(repo: Repository) -> dict[bytes, int]:
    """Bytes of each name in `.mirrorback`, without files that a snapshot shows, too.
    Raises OSError."""
    found = {}
    for name in sorted(map(os.fsencode, os.listdir(repo.inner))):
        size = _taken(repo.inner, name)
        if size is not None:
            found[name] = size
    return found


def _taken(folder: int, name: bytes) -> int | None:
    """Bytes of a file, or a folder and all in it; None where it has gone meanwhile."""
    try:
        st = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(st.st_mode):
            return st.st_blocks * SECTOR if st.st_nlink == 1 else 0
        top = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    cursor = tree.Cursor(top)
    total = 0
    try:
        for _path, fd in tree.walk(cursor):
            total += os.fstat(fd).st_blocks * SECTOR
            with os.scandir(fd) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        total += _alone(entry)
    finally:
        cursor.close()
        os.close(top)
    return total


def _alone(entry: os.DirEntry[str]) -> int:
    try:
        st = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0  # a run that is at work has removed it
    return st.st_blocks * SECTOR if st.st_nlink == 1 else 0
