"""Whether a backup is overdue."""

from __future__ import annotations

from datetime import datetime, timedelta

from mirrorback.plan import calendar_event
from mirrorback.plan.configuration import Configured

USUAL = timedelta(days=3)


def limit(backup: Configured, now: datetime) -> timedelta:
    """How long a backup may not have happened: as configured, else three days, or twice the
    time between two runs where that is more."""
    if backup.overdue_after is not None:
        return backup.overdue_after
    between = None if backup.schedule is None else calendar_event.interval(backup.schedule, now)
    return USUAL if between is None else max(USUAL, 2 * between)


def is_overdue(backup: Configured, last: datetime | None, now: datetime) -> bool:
    """Whether the last time that the mirror was known to be the source's state, if there was
    one, is too long ago.  A time to come, by a clock that was set back since, is none."""
    if last is None or last > now + timedelta(days=1):
        return True
    return now - last > limit(backup, now)
