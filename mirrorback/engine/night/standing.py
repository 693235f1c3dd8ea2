"""Status: when was each configured backup last made, and is it overdue."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mirrorback.engine.history import History
from mirrorback.engine.night import diary
from mirrorback.engine.night.configuration import Configured, repository_of
from mirrorback.engine.night.diary import Page, moment
from mirrorback.errors import MirrorbackError
from mirrorback.model import Snapshot
from mirrorback.plan import guards, overdue

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pinned:
    """A snapshot that a mass change has pinned, with what happened."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """How one backup stands.  Times are aware; None where there is none."""

    name: str
    last_success: datetime | None  # the last snapshot
    last_check: datetime | None  # the last time that nothing new was found
    last_result: str | None
    message: str | None
    next_run: datetime | None
    overdue: bool
    pinned: tuple[Pinned, ...]
    absent: str | None  # why the drive could not be asked, where that is so


def status(backups: Iterable[Configured], now: datetime, where: str | None) -> list[Status]:
    """How backups stand, by their repositories and, where their drives are away, by the
    diary in the folder `where`, if there is one.  `now` is aware, in local time."""
    return [_one(backup, now, where) for backup in backups]


def _one(backup: Configured, now: datetime, where: str | None) -> Status:
    page = Page(backup.name) if where is None else diary.read(where, backup.name)
    page = page.of(backup.repository_id)
    absent, found = None, None
    try:
        with History.open(repository_of(backup), now) as history:
            page = page.of(history.repo.settings.id)
            snapshots = history.snapshots()
            found = _taken(snapshots, now), _checked(history, snapshots, now)
            pinned = _pinned(snapshots)
    except MirrorbackError as error:
        pinned = tuple(Pinned(name, guards.MASS_CHANGE) for name in page.pinned)
        absent = str(error)
    taken, checked = found or (None, None)
    success = overdue.newest((moment(page.last_success, now), taken), now)
    check = overdue.newest((moment(page.last_check, now), checked), now)
    last = overdue.newest((success, check), now)
    return Status(
        name=backup.name,
        last_success=success,
        last_check=check,
        last_result=page.last_result,
        message=page.message,
        next_run=None if backup.schedule is None else backup.schedule.after(now),
        overdue=overdue.is_overdue(backup, last, now),
        pinned=pinned,
        absent=absent,
    )


def _pinned(snapshots: Iterable[Snapshot]) -> tuple[Pinned, ...]:
    return tuple(
        Pinned(one.name, one.pinned)
        for one in snapshots
        if one.pinned is not None and guards.holds_thinning(one.pinned)
    )


def _taken(snapshots: list[Snapshot], now: datetime) -> datetime | None:
    return _instant(snapshots[-1].time, now) if snapshots else None


def _checked(history: History, snapshots: list[Snapshot], now: datetime) -> datetime | None:
    """When the source was last found as the newest snapshot has it; by a clock that was set back
    since the snapshot, it may seem to be before that."""
    found = history.catalog.property("checked")
    if not isinstance(found, int) or not snapshots or found == snapshots[-1].time:
        return None
    return _instant(found, now)


def _instant(ns: int, now: datetime) -> datetime | None:
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(ns // SECOND, now.tzinfo)
    return None
