"""Large files of the mirror that still wait for their changes, where no catalog tells which.

A publication that was cut after its commit leaves the changes in `redo/`, as a delta that makes
the new file of the old one, and gives the digests of both.  The file is found by these.  It gets
the changes in a new file, in its place: history may still show the old one.

Whoever imports this imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from mirrorback.errors import Damaged
from mirrorback.model import Digest
from mirrorback.store import content, durable, node, system, tree
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.repository import CURRENT, DELTA_SUFFIX, REDO, Repository

Reader = Callable[[int, DeltaReader], Iterator[tuple[int, bytes]]]


def waiting(repo: Repository) -> list[bytes]:
    """The names in `redo/` of changes that may not be in their files."""
    redo = repo.open_inner(REDO)
    try:
        return sorted(n for n in map(os.fsencode, os.listdir(redo)) if n.endswith(b".redo"))
    finally:
        os.close(redo)


def complete(
    repo: Repository,
    changes: list[bytes],
    dated: list[bytes],
    changed: Reader,
    lost: Callable[[bytes], None],
) -> None:
    """Give the mirror's files these changes, where they have them not, or not all.  `dated` are
    the names of all other snapshots' folders.  `changed` reads an open file through a delta;
    `lost` is told the changes for which there is no file.  Raises OSError."""
    redo = repo.open_inner(REDO)
    top = os.open(CURRENT, tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
    try:
        for name in changes:
            fd = os.open(name, system.READ_SAFELY, dir_fd=redo)
            try:
                if not _give(repo, top, redo, fd, dated, changed):
                    lost(name)
            except Damaged:
                lost(name)
            finally:
                os.close(fd)
        system.sync_filesystem(repo.fd)
    finally:
        os.close(top)
        os.close(redo)


def _give(
    repo: Repository, top: int, redo: int, fd: int, dated: list[bytes], changed: Reader
) -> bool:
    """Find the file of one delta, and give it what it makes; False where there is none."""
    delta = DeltaReader(fd)
    old, new = delta.base_digest, delta.old_digest
    assert old is not None and new is not None and delta.base_size is not None
    sizes = sorted((delta.base_size, delta.old_size))
    with contextlib.closing(tree.Cursor(top)) as cursor:
        for path in _of_size(cursor, sizes[0], sizes[1]):
            parent, name = tree.parent_of(path)
            folder = cursor.open(parent)
            try:
                file = os.open(name, system.READ_SAFELY, dir_fd=folder)
            except OSError:
                continue
            try:
                st = os.fstat(file)
                if content.digest_of(file, st, new.sparse) == new:
                    return True
                if not _makes(changed(file, delta), delta.old_size, new):
                    continue
                if content.digest_of(file, st, old.sparse) == old:
                    _withdraw(repo, dated, path, redo)
                mtime = os.fstat(folder).st_mtime_ns
                _write(redo, file, fd, changed(file, delta), folder, name)
                node.set_times(folder, mtime)
                return True
            finally:
                os.close(file)
    return False


def _of_size(cursor: tree.Cursor, least: int, most: int) -> list[bytes]:
    """Files of the mirror of such a size, a name each."""
    found: dict[int, bytes] = {}
    for path, fd in tree.walk(cursor):
        with os.scandir(fd) as entries:
            for entry in entries:
                st = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(st.st_mode) and least <= st.st_size <= most:
                    found.setdefault(st.st_ino, tree.join(path, os.fsencode(entry.name)))
    return sorted(found.values())


def _makes(pieces: Iterator[tuple[int, bytes]], size: int, digest: Digest) -> bool:
    hashing = content.hasher(digest.sparse)
    try:
        for offset, data in pieces:
            hashing.feed(offset, data)
    except Damaged:
        return False
    return hashing.finish(size) == digest


def _write(
    redo: int, old: int, delta: int, pieces: Iterator[tuple[int, bytes]], folder: int, name: bytes
) -> None:
    """A file of its own for the mirror: with all metadata of the former, and the time that its
    changes were given."""
    st = os.fstat(old)
    with durable.scratch(redo, b"copy") as fd:
        end = 0
        for offset, data in pieces:
            content.write_sparsely(fd, data, offset)
            end = offset + len(data)
        os.ftruncate(fd, end)
        metadata = node.read_open(old, st, folder, name)
        node.Dresser().dress_open(fd, metadata)
        node.set_times(fd, os.fstat(delta).st_mtime_ns)
        os.fsync(fd)
        os.rename(b"copy", name, src_dir_fd=redo, dst_dir_fd=folder)


def _withdraw(repo: Repository, dated: list[bytes], path: bytes, redo: int) -> None:
    """Where a dated folder shows both the old file, which is whole after all, and its delta,
    take that away."""
    undo = set()
    for one in os.listdir(redo):
        if one.endswith(".undo"):
            undo.add(os.stat(one, dir_fd=redo, follow_symlinks=False).st_ino)
    parent, name = tree.parent_of(path)
    for snapshot in dated:
        top = os.open(snapshot, tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
        try:
            with contextlib.closing(tree.Cursor(top)) as cursor, contextlib.suppress(OSError):
                folder = cursor.open(parent)
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                delta = os.stat(name + DELTA_SUFFIX, dir_fd=folder, follow_symlinks=False)
                if delta.st_ino in undo:
                    mtime = os.fstat(folder).st_mtime_ns
                    os.unlink(name + DELTA_SUFFIX, dir_fd=folder)
                    node.set_times(folder, mtime)
        finally:
            os.close(top)
