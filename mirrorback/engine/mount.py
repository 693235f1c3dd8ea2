"""Mount: all snapshots as folders, served until they are unmounted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import datetime

from mirrorback.engine import fuse
from mirrorback.engine.history import History
from mirrorback.engine.view import View
from mirrorback.errors import MirrorbackError, Refused
from mirrorback.store import mounts, settings, system
from mirrorback.store.catalog import translated


def prepare(repository: str, point: str, now: datetime) -> tuple[str, bytes]:
    """What can be seen before anything is mounted: the absolute paths of the repository and
    of the mount point.

    Raises NoRepository, Damaged; MirrorbackError where the mount point is missing, no
    folder, not empty, or a mount already; Refused where it lies in the repository; NoFuse.
    """
    fuse.require()
    repository = os.path.abspath(repository)
    typed = os.fsencode(os.path.abspath(point))
    with History.open(repository, now, b"/") as history:
        where = _folder(typed)
        if _within(where, history.repository):
            raise Refused(
                f"{settings.escape(typed)} lies in the repository: mount it somewhere else;"
                " there is no option for that"
            )
        _require_free(where)
    return repository, where


def serve(
    repository: str,
    point: bytes,
    now: datetime,
    *,
    allow_other: bool,
    ready: Callable[[], None],
    tell: Callable[[str], None],
) -> None:
    """Mount a repository at `point`, both as `prepare` gave them, and answer until it is
    unmounted or a signal comes.  `ready` is called when it can be used, `tell` with trouble
    while it is.  Raises MirrorbackError."""
    system.raise_descriptor_limit()
    system.keep_freed_memory()
    import mirrorback.engine.open_large  # noqa: F401  before somebody waits for it

    with History.open(repository, now, b"/") as history, translated():
        fuse.serve(View(history), point, allow_other=allow_other, ready=ready, tell=tell)


def unmounting(point: bytes) -> str:
    """The command that ends a mount, for a person."""
    command = "umount" if os.geteuid() == 0 else "fusermount3 -u"
    return f"{command} {settings.escape(point)}"


def _folder(typed: bytes) -> bytes:
    """The folder to mount on, without symlinks."""
    shown = settings.escape(typed)
    try:
        real = os.path.realpath(typed, strict=True)
        os.listdir(real)
    except FileNotFoundError:
        raise MirrorbackError(f"{shown} is not there: make the folder first") from None
    except NotADirectoryError:
        raise MirrorbackError(f"{shown} is not a folder: give one to mount on") from None
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MirrorbackError(
                f"{shown} is a mount whose server is gone: `{unmounting(typed)}`, then try again"
            ) from error
        reason = (error.strerror or "").lower()
        raise MirrorbackError(f"{shown} cannot be mounted on: {reason}") from error
    return real


def _require_free(where: bytes) -> None:
    shown = settings.escape(where)
    if where in mounts.mount_points():
        raise MirrorbackError(
            f"{shown} is a mount already: `{unmounting(where)}` first, or give another folder"
        )
    if os.listdir(where):
        raise MirrorbackError(f"{shown} is not empty: give an empty folder")


def _within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
