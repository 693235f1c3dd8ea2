"""Whether a backup is overdue."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from mirrorback.plan.calendar_event import CalendarEvent
from mirrorback.plan.configuration import Configured

USUAL = timedelta(days=3)
ADVANCE = timedelta(days=1)  # by which a clock may be ahead of what it is set to later


def newest(moments: Iterable[datetime | None], now: datetime) -> datetime | None:
    """The last of some times; one to come, by a clock that was set back since, counts only
    where there is no other."""
    known = [moment for moment in moments if moment is not None]
    return max([one for one in known if not is_to_come(one, now)] or known, default=None)


def is_to_come(moment: datetime, now: datetime) -> bool:
    """Whether something noted as past has been noted by a clock that was set back since."""
    return moment > now + ADVANCE


def is_overdue(backup: Configured, last: datetime | None, now: datetime) -> bool:
    """Whether the last time that the mirror was known to be the source's state, if there was
    one, is too long ago: as configured, else three days, and more where its schedule has not
    come twice since.  A time to come is none."""
    if last is None or is_to_come(last, now):
        return True
    if backup.overdue_after is not None:
        return now - last > backup.overdue_after
    return now - last > USUAL and (
        backup.schedule is None or _came_twice(backup.schedule, last, now)
    )


def _came_twice(schedule: CalendarEvent, last: datetime, now: datetime) -> bool:
    """Whether a schedule has come twice since; once, where it comes no more than that."""
    first = schedule.after(last.astimezone(now.tzinfo))
    second = None if first is None else schedule.after(first)
    coming = second or first
    return coming is None or coming <= now
