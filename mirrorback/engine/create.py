"""Making a repository, on a drive that is fit for one."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime

from mirrorback.engine import doctor
from mirrorback.engine.source import require_source
from mirrorback.errors import DriveError, Refused, UsageError
from mirrorback.model import Finding
from mirrorback.store import probe, settings
from mirrorback.store.repository import Repository, drive_errors, is_repository, new_id
from mirrorback.store.settings import Settings

DELTA_MIN_SIZE = 32 << 20
LARGE_FILES = "auto"


def exists(path: bytes) -> bool:
    """Whether there is a repository at `path`, sound or not.  Raises DriveError where the drive
    does not say."""
    with drive_errors():
        return is_repository(path)


def create(
    repository: str,
    source: str,
    *,
    now: datetime,
    force: bool = False,
    mode: int = 0o700,
    delta_min_size: int | None = None,
    large_files: str | None = None,
) -> list[Finding]:
    """Make a repository for `source` and tell what the drive can hold.

    Raises Refused where the folder is in use, inside another repository, or the
    drive cannot hold one, SourceError, DriveError.  Nothing is left behind then.
    """
    require_source(source)
    path = os.path.abspath(os.fsencode(repository))
    if not force:
        _require_outside(path)
    with drive_errors(), _folder(path):
        drive = probe.probe(path)
        if not drive.hard_links:
            raise Refused(
                f"the drive ({drive.fstype}) has no hard links, on which every snapshot rests:"
                " format it with ext4, xfs, btrfs, APFS or NTFS"
            )
        if large_files == "reflink" and not drive.reflinks:
            raise UsageError("the drive has no reflinks: use --large-files auto or delta")
        new = Settings(
            id=new_id(),
            source=os.path.realpath(os.fsencode(source)),
            host=settings.local_host(),
            created=now.isoformat(timespec="seconds"),
            delta_min_size=DELTA_MIN_SIZE if delta_min_size is None else delta_min_size,
            large_files=large_files or LARGE_FILES,
            mode=mode,
        )
        Repository.create(path, new, force=force).close()
    return doctor.of_drive(drive)


def _require_outside(path: bytes) -> None:
    """A repository within another would be part of its snapshots.  Raises Refused."""
    at = os.path.realpath(path)
    while at != os.path.dirname(at):
        at = os.path.dirname(at)
        if exists(at):
            raise Refused(
                f"{settings.escape(path)} is inside the repository {settings.escape(at)}:"
                " name a folder outside it, or use --force"
            )


class _folder:  # noqa: N801
    """The folder for the time of the attempt; what had to be made for it goes again
    where that fails."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._made: list[bytes] = []

    def __enter__(self) -> None:
        at = self._path
        if os.path.lexists(at) and not os.path.isdir(at):
            raise DriveError(f"{settings.escape(at)} is not a folder: give the folder to use")
        while not os.path.isdir(at):
            self._made.append(at)
            at = os.path.dirname(at)
        for folder in reversed(self._made):
            os.mkdir(folder, 0o700)

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None:
            for folder in self._made:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
