"""A configured backup made by hand: with what is configured, and what was asked for besides."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

from mirrorback.engine import create
from mirrorback.engine.backup import BackupResult, backup
from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.events import Events
from mirrorback.engine.night import entries, outcome
from mirrorback.engine.night.account import Account
from mirrorback.engine.night.configuration import (
    Configuration,
    Configured,
    expanded,
    opened,
    repository_of,
)
from mirrorback.engine.night.options import options
from mirrorback.errors import MirrorbackError, NoRepository, UsageError
from mirrorback.store.lock import Lock
from mirrorback.store.repository import drive_errors

Clock = Callable[[], datetime]


def back_up(
    found: Configuration,
    name: str,
    asked: BackupOptions,
    where: str | None,
    clock: Clock,
    events: Events,
) -> BackupResult:
    """Back up what is configured under a name; its hooks do not run, and nobody is told.  What
    came of it is written into the log, and into the diary in the folder `where`, if there is one.
    With `init` the repository is made where there is none, and its id written into the
    configuration.  Raises MirrorbackError."""
    configured = found.named(name)
    if configured is None:
        found.require_sound()
        raise UsageError(
            f"no backup is configured as {name} in {found.file}; to back up a folder, give SOURCE"
            " and REPO"
        )
    if asked.init and not asked.dry_run:
        configured = _made(found.file, configured, asked, clock(), events)
        asked = dataclasses.replace(asked, init=False)
    source = expanded(configured.source)
    if asked.dry_run:
        chosen = together(options(configured), asked)
        return backup(source, repository_of(configured), chosen, clock(), events)
    with contextlib.closing(opened(configured)) as repo:
        chosen = together(options(configured, repo.settings.id), asked)
        with drive_errors():
            Lock.take(repo.inner).release()  # what another run does is written down by that
        account = Account(name, configured.repository_id, where, clock, events)
        account.begin(configured.source, repo)
        if configured.before is not None or configured.after is not None:
            account.warning(
                "by hand no hooks are run, such as one that dumps a database:"
                f" `mirrorback run {name}` runs them"
            )
        try:
            result = backup(source, os.fsdecode(repo.path), chosen, clock(), account)
        except Exception as error:
            account.end(outcome.failed(name, error))
            raise
        account.end(outcome.made(name, result.summary))
        return result


def together(configured: BackupOptions, asked: BackupOptions) -> BackupOptions:
    """What is configured, and what was asked for: lists are added, of values those asked for
    count, and nothing that is switched on is switched off."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(BackupOptions):
        one, other = getattr(configured, field.name), getattr(asked, field.name)
        if isinstance(one, tuple):
            values[field.name] = one + other
        elif isinstance(one, bool):
            values[field.name] = one or other
        else:
            values[field.name] = one if other is None else other
    return BackupOptions(**values)


def _made(
    file: str, configured: Configured, asked: BackupOptions, now: datetime, events: Events
) -> Configured:
    """Make the repository where there is none; the backup with its id, which is written into the
    configuration."""
    path = expanded(configured.repository)
    if not create.exists(os.path.abspath(os.fsencode(path))):
        if configured.repository_id is not None:
            raise NoRepository(
                f"the repository of {configured.name} is not at {path}: is the drive mounted?  To"
                f" begin anew on another drive, take repository-id out of {file}"
            )
        chosen = together(options(configured), asked)
        create.create(
            path,
            expanded(configured.source),
            now=now,
            force=chosen.force,
            mode=0o700 if chosen.mode is None else chosen.mode,
            delta_min_size=chosen.delta_min_size,
            large_files=chosen.large_files,
        )
    if configured.repository_id is not None:
        return configured
    with contextlib.closing(opened(configured)) as repo:
        identity = repo.settings.id
    try:
        entries.fill_in_id(file, configured, identity, now)
    except MirrorbackError as error:
        events.warning(str(error))  # the backup is worth more than the guard
    return dataclasses.replace(configured, repository_id=identity)
