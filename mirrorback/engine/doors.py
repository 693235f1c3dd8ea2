"""Telling that a repository is open to others than was asked for when it was made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from mirrorback.engine.events import Events
from mirrorback.model import Finding, Level, Owner
from mirrorback.store import doors, settings
from mirrorback.store.repository import Repository

_WHY = "others may read what files were before they became private"


def warn(repo: Repository, events: Events, meant: int | None = None) -> None:
    """Warn where others may enter a repository, which is `meant` to have these permissions, by
    default those it was made with.  Its inner folder is shut.  A drive that holds no permissions
    is left to `doctor`: nothing can be done there night by night.  Raises OSError."""
    shut = doors.shut_inner(repo)
    door = doors.look(repo, meant)
    path = shlex.quote(settings.escape(repo.path))
    if door.loose and shut:
        wanted = repo.settings.mode if meant is None else meant
        events.warning(
            f"the repository has permissions {door.mode:04o}, not {wanted:04o}: {_WHY};"
            f" `chmod {wanted:04o} {path}`, or back up with --mode {door.mode:04o} if it is meant"
        )
    if door.listed:
        events.warning(
            f"an access control list lets others into the repository: {_WHY}; `setfacl -b {path}`"
        )
    if door.foreign and doors.holds_owners(repo):
        events.warning(
            f"the repository belongs to {_named(door.owner)}, who may read and replace what is in"
            f" it: `chown {os.geteuid()} {path}`, or back up as that user"
        )


def findings(repo: Repository) -> Iterator[Finding]:
    """What there is to say of it, for `doctor`.  Raises OSError."""
    door = doors.look(repo)
    found, subject = f"{door.mode:04o}", "permissions of the repository"
    if door.loose:
        follows = f"{_WHY}; chmod {repo.settings.mode:04o} it"
        yield Finding(subject, Level.WARNING, found, follows)
    elif door.listed:
        follows = f"{_WHY}; setfacl -b it"
        yield Finding(subject, Level.WARNING, f"{found} and an access control list", follows)
    else:
        yield Finding(subject, Level.GOOD, found, "as meant")
    if door.foreign:
        yield Finding(
            "owner of the repository",
            Level.WARNING,
            _named(door.owner),
            "may read and replace all that is backed up",
        )


def _named(owner: Owner) -> str:
    return f"{owner.user} ({owner.uid})" if owner.user else f"user {owner.uid}"
