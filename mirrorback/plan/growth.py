"""Growth: what snapshots have added over time, by periods of the calendar, and where it leads."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

SECOND = 1_000_000_000  # ns
DAY = 86_400 * SECOND
LOOK_BACK = 90 * DAY  # what is older tells little of what comes
LEAST_SPAN = 14 * DAY
LEAST_SNAPSHOTS = 5  # in that time
FARTHEST = 36_525 * DAY  # a hundred years: beyond is not worth a word
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Added:
    """A snapshot, and the bytes that it has added on the drive, of what is still there."""

    name: str
    time: int  # ns since 1970
    offset: int  # of local time from UTC then, in seconds
    added: int


class Period(NamedTuple):
    """A stretch of the calendar: its first day or its snapshot, what was added in it, and what
    there was at its end."""

    label: str
    added: int
    total: int


class Forecast(NamedTuple):
    """Where it leads."""

    per_day: int  # bytes
    full_in: int | None  # ns from now until the drive is full; None where that is far away


def periods(points: Sequence[Added], most: int) -> tuple[str, list[Period]]:
    """What was added, in at most `most` periods: of a snapshot, else a day, week (from Monday),
    month or year in local time, whichever is the shortest; the word for it, and the periods,
    oldest first, with those in which nothing was added.  Of years the newest."""
    if len(points) <= most:
        return "snapshot", _summed([(p.name, p.added) for p in points], 0)
    days = _days(points)
    for unit, (start, after) in _UNITS.items():
        first, last = start(days[0]), start(days[-1])
        if unit != "year" and (last - first).days // _LEAST_DAYS[unit] >= most:
            continue
        sums: dict[date, int] = {}
        for day, point in zip(days, points, strict=True):
            sums[start(day)] = sums.get(start(day), 0) + point.added
        rows, at = [], first
        while at <= last:
            rows.append((_label(unit, at), sums.get(at, 0)))
            if at.year == date.max.year:
                break
            at = after(at)
        if len(rows) <= most or unit == "year":
            before = sum(added for _, added in rows[:-most])
            return unit, _summed(rows[-most:], before)
    raise AssertionError("years fit always")


def forecast(points: Sequence[Added], now: int, free: int) -> Forecast | None:
    """How fast it grows, and when `free` bytes are used up at that rate; None where history is
    too short to say, or grows by nothing.  `now` is in ns since 1970; the first snapshot of
    all, which added everything there was, does not count."""
    if len(points) < 2:
        return None
    begin = max(now - LOOK_BACK, points[0].time)
    counted = [point for point in points[1:] if begin <= point.time <= now]
    if now - begin < LEAST_SPAN or len(counted) < LEAST_SNAPSHOTS:
        return None
    added = sum(point.added for point in counted)
    per_day = added * DAY // (now - begin)
    if per_day <= 0:
        return None
    full_in = max(0, free) * DAY // per_day
    return Forecast(per_day, full_in if full_in <= FARTHEST else None)


def _summed(rows: Sequence[tuple[str, int]], total: int) -> list[Period]:
    found = []
    for label, added in rows:
        total += added
        found.append(Period(label, added, total))
    return found


def _days(points: Sequence[Added]) -> list[date]:
    """The local days of snapshots, never falling: a clock may have been set back."""
    days: list[date] = []
    for point in points:
        number = (point.time // SECOND + point.offset) // 86_400
        day = EPOCH + timedelta(days=min(max(number, _FIRST), _LAST))
        days.append(max(day, days[-1]) if days else day)
    return days


_FIRST, _LAST = (date.min - EPOCH).days + 7, (date.max - EPOCH).days - 366


def _label(unit: str, day: date) -> str:
    return {"month": f"{day:%Y-%m}", "year": f"{day.year:04}"}.get(unit, day.isoformat())


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _next_month(day: date) -> date:
    return day + timedelta(days=calendar.monthrange(day.year, day.month)[1])


_UNITS: dict[str, tuple[Callable[[date], date], Callable[[date], date]]] = {
    "day": (lambda day: day, lambda day: day + timedelta(days=1)),
    "week": (_monday, lambda day: day + timedelta(days=7)),
    "month": (lambda day: day.replace(day=1), _next_month),
    "year": (
        lambda day: day.replace(month=1, day=1),
        lambda day: day.replace(year=day.year + 1),
    ),
}
_LEAST_DAYS = {"day": 1, "week": 7, "month": 32}  # too few for `month`: it is looked at again
