"""Opening a repository whose settings may be lost: they are made anew for its source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime

from mirrorback.engine.create import DELTA_MIN_SIZE, LARGE_FILES
from mirrorback.engine.source import require_source
from mirrorback.errors import Damaged, NoRepository, UsageError
from mirrorback.store import replaced, settings, tree
from mirrorback.store.catalog import FOLDER_NAME
from mirrorback.store.repository import CURRENT, INNER, Repository, new_id
from mirrorback.store.settings import Settings


@contextlib.contextmanager
def reopened(
    repository: str, source: str | None, now: datetime, *, dry_run: bool
) -> Iterator[Repository]:
    """An open repository.  Where its settings are lost or damaged they are made anew for
    `source`; a dry run writes none.  Raises NoRepository, Damaged, UsageError."""
    path = os.path.abspath(os.fsencode(repository))
    try:
        repo = Repository.open(path)
    except (NoRepository, Damaged) as error:
        if not _looks_like_one(path):
            raise
        if source is None:
            raise type(error)(
                f"{error}.  There are snapshots: with --source DIR, the folder that was backed up,"
                " new settings are made"
            ) from error
        repo = _with_new_settings(path, source, now, dry_run=dry_run)
    else:
        if source is not None:
            repo.close()
            raise UsageError(
                "--source is for a repository whose settings are lost; those of this one are sound"
            )
    try:
        yield repo
    finally:
        repo.close()


def _looks_like_one(path: bytes) -> bool:
    """Whether there are snapshots."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    shown = [n for n in names if n == CURRENT or FOLDER_NAME.fullmatch(os.fsdecode(n))]
    return any(os.path.isdir(os.path.join(path, name)) for name in shown)


def _with_new_settings(path: bytes, source: str, now: datetime, *, dry_run: bool) -> Repository:
    require_source(source)
    fd = tree.open_root(path)
    try:
        if not dry_run:
            with contextlib.suppress(FileExistsError):
                os.mkdir(INNER, 0o700, dir_fd=fd)
        inner = os.open(INNER, tree.DIRECTORY_FLAGS, dir_fd=fd)
        new = Settings(
            id=new_id(),
            source=os.path.realpath(os.fsencode(source)),
            host=settings.local_host(),
            created=now.isoformat(timespec="seconds"),
            delta_min_size=DELTA_MIN_SIZE,
            large_files=LARGE_FILES,
            mode=0o700,  # what it was made with is lost, and what it has by now may be a mistake
        )
        if not dry_run:
            with contextlib.suppress(FileNotFoundError):
                replaced.keep_settings(inner, f"{now:%Y-%m-%d-%H%M%S}")
            settings.write(inner, new)
    except BaseException:
        os.close(fd)
        raise
    return Repository(os.path.realpath(path), fd, inner, new)
