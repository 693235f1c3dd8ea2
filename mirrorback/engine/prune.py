"""Prune: let snapshots go by a policy, and the oldest until enough of the drive is free."""

from __future__ import annotations

from datetime import datetime

from mirrorback.engine.events import Events
from mirrorback.engine.removal import opened, reading, removing
from mirrorback.engine.thinning import Thinned, thin, wanted_free, would_thin
from mirrorback.errors import UsageError
from mirrorback.plan.retention import Policy


def prune(
    repository: str, policy: Policy | None, *, dry_run: bool, now: datetime, events: Events
) -> Thinned:
    """Apply a policy to a repository; the space is free when it returns.

    `now` is aware, in local time, whose calendar counts.  Killed at any point, the next command
    that takes the lock goes on with what was begun.  Raises UsageError where there is no rule
    at all, Refused while a mass change holds all thinning, Locked, NoSpace where a snapshot
    cannot go for want of room, and the catalog's errors.  That less is free than was asked for is
    told by `Thinned.shortfall`, and that damage keeps a snapshot by `Thinned.damage`.
    """
    if policy is None:
        raise UsageError(
            "name a rule: --keep-last, --keep-hourly, --keep-daily, --keep-weekly, --keep-monthly,"
            " --keep-yearly, --keep-within, --time-machine or --min-free; --keep-none keeps nothing"
        )
    with opened(repository) as repo:
        wanted_free(repo, policy)
        if dry_run:
            with reading(repo) as catalog:
                return would_thin(repo, catalog, policy, now)
        with removing(repo, now, events) as removal:
            removal.recover()
            return thin(removal, policy, now)
