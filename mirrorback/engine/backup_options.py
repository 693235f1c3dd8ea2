"""How a backup is asked for: its options, what they leave out, and which repository they mean."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mirrorback.engine import create
from mirrorback.engine.events import Events
from mirrorback.errors import Refused, UsageError
from mirrorback.plan.retention import Policy
from mirrorback.plan.selection import Selection, read_patterns
from mirrorback.store import settings
from mirrorback.store.repository import Repository


@dataclass(frozen=True)
class BackupOptions:
    """How a backup is to be made; sizes in bytes, patterns as in .gitignore."""

    init: bool = False
    dry_run: bool = False
    checksum: bool = False
    always: bool = False
    allow_empty_source: bool = False
    one_file_system: bool = False
    exclude: tuple[str, ...] = ()
    exclude_from: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_if_present: tuple[str, ...] = ()
    exclude_larger_than: int | None = None
    delta_min_size: int | None = None
    large_files: str | None = None
    force: bool = False
    mode: int | None = None
    source_snapshot: str | None = None  # "btrfs": read one
    policy: Policy | None = None  # by which snapshots go; None: all stay
    repository_id: str | None = None  # of the only repository that is meant


def selected(options: BackupOptions) -> Selection:
    """What is left out.  Raises UsageError where a file of patterns cannot be read."""
    patterns = list(options.exclude)
    for name in options.exclude_from:
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                patterns += read_patterns(file.read())
        except OSError as error:
            raise UsageError(f"--exclude-from {name} cannot be read: {error.strerror}") from error
    return Selection(
        patterns,
        options.exclude_larger_than,
        tuple(os.fsencode(name) for name in options.exclude_if_present),
        options.exclude_caches,
    )


@contextlib.contextmanager
def opened(
    source: str, repository: str, options: BackupOptions, now: datetime
) -> Iterator[Repository]:
    """The repository, made first where that is asked for.  Raises UsageError, Refused where it
    is not the one that is meant, NoRepository, OSError."""
    path = os.path.abspath(os.fsencode(repository))
    inside = os.path.realpath(os.fsencode(source)) + b"/"
    if inside.startswith(os.path.realpath(path).rstrip(b"/") + b"/"):
        raise Refused("the source lies inside the repository; a backup of it would never end")
    if options.init and not create.exists(path):
        if options.dry_run:
            raise UsageError("--dry-run makes no repository: leave out --init, or --dry-run")
        create.create(
            repository,
            source,
            now=now,
            force=options.force,
            mode=0o700 if options.mode is None else options.mode,
            delta_min_size=options.delta_min_size,
            large_files=options.large_files,
        )
    repo = Repository.open(path)
    try:
        repo.require_id(options.repository_id)
        yield repo
    finally:
        repo.close()


def remember(repo: Repository, *, options: BackupOptions, source: bytes, events: Events) -> None:
    """Keep in the repository those options that stay, and where the source is now; another
    place than before is told.  Raises OSError."""
    repo.renew_readme()
    old = repo.settings
    new = dataclasses.replace(
        old,
        source=os.path.realpath(source),
        delta_min_size=(
            old.delta_min_size if options.delta_min_size is None else options.delta_min_size
        ),
        large_files=options.large_files or old.large_files,
        mode=old.mode if options.mode is None else options.mode,
    )
    if new == old:
        return
    if new.source != old.source:
        events.warning(
            f"the source was {settings.escape(old.source)} before; this run goes on from there"
        )
    settings.write(repo.inner, new)
    repo.settings = new
