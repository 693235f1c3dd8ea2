"""A new catalog in the place of the old one, which is kept aside."""

from __future__ import annotations

import contextlib
import os

from mirrorback.store import sealing, supersede
from mirrorback.store.connection import BESIDE
from mirrorback.store.repository import CATALOG, Repository

NEW = CATALOG + b".new"
NEW_SEAL = sealing.name_for(NEW)


def take_place(repo: Repository, stamp: str) -> bytes | None:
    """Make `catalog.db.new` the catalog, in one rename; the name under which the old one is
    kept, if there was one.  Raises OSError."""
    supersede.drop_signatures(repo)  # they go by the numbers of the old one
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NEW + b"-journal", dir_fd=repo.inner)
    fd = os.open(NEW, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=repo.inner)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    kept = _keep(repo, CATALOG, stamp)
    os.fsync(repo.inner)
    # Without a seal each of the two is checked; with that of the other it would be refused.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(sealing.NAME, dir_fd=repo.inner)
    os.rename(NEW, CATALOG, src_dir_fd=repo.inner, dst_dir_fd=repo.inner)
    with contextlib.suppress(FileNotFoundError):  # the drive had no room for it
        os.rename(NEW_SEAL, sealing.NAME, src_dir_fd=repo.inner, dst_dir_fd=repo.inner)
    os.fsync(repo.inner)
    return kept


def discard(inner: int) -> None:
    """Remove what an attempt to make a new one has left.  Raises OSError."""
    for name in (NEW, NEW + b"-journal", NEW_SEAL, NEW_SEAL + b".new"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=inner)


def keep_settings(repo_inner: int, stamp: str) -> None:
    """Keep damaged settings aside.  Raises OSError."""
    for name in _names(b"repository.toml", stamp):
        with contextlib.suppress(FileExistsError):
            _link_or_rename(repo_inner, b"repository.toml", name)
            return


def _keep(repo: Repository, name: bytes, stamp: str) -> bytes | None:
    if not os.path.lexists(repo.inner_path(name)):
        # What is left of one that is gone must not become part of the new one.
        for suffix in BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.rename(
                    name + suffix,
                    b"%s.before-rebuild-%s%s" % (name, stamp.encode(), suffix),
                    src_dir_fd=repo.inner,
                    dst_dir_fd=repo.inner,
                )
        return None
    for kept in _names(name, stamp):
        with contextlib.suppress(FileExistsError):
            _link_or_rename(repo.inner, name, kept)
            break
    for suffix in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.rename(name + suffix, kept + suffix, src_dir_fd=repo.inner, dst_dir_fd=repo.inner)
    return kept


def _names(name: bytes, stamp: str) -> list[bytes]:
    base = b"%s.before-rebuild-%s" % (name, stamp.encode())
    return [base, *(b"%s-%d" % (base, number) for number in range(2, 1000))]


def _link_or_rename(folder: int, name: bytes, kept: bytes) -> None:
    """Give a file a second name, or what is no file another one.  Raises FileExistsError."""
    try:
        os.link(name, kept, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except (PermissionError, IsADirectoryError):
        if os.path.lexists(b"/proc/self/fd/%d/%s" % (folder, kept)):
            raise FileExistsError from None
        os.rename(name, kept, src_dir_fd=folder, dst_dir_fd=folder)
