"""Points in time as people name them."""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo

from mirrorback.errors import NotInHistory, UsageError
from mirrorback.model import Snapshot

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGO = re.compile(r"([0-9]{1,9})([mhdwMyB])", re.ASCII)
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", re.ASCII)
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2}(?::[0-9]{2})?)?",
    re.ASCII,
)
_FORMS = (
    "give `latest`, a snapshot's name, 2026-11-22, 2026-11-22T14:30, or how long ago: 90m 12h 3d 2w"
    " 6M 1y, or 3B for three backups"
)
SECOND = 1_000_000_000
FAR = 1 << 80  # ns since 1970, or before: later and earlier than any snapshot


def resolve(text: str, snapshots: Sequence[Snapshot], now: datetime) -> Snapshot:
    """The snapshot that `text` means (see the manual, WHEN).

    `snapshots` are oldest first, the last is the mirror; `now` is aware and
    its zone is the local one.  Raises NotInHistory, which names the oldest
    there is, and UsageError where it cannot be understood.
    """
    if not snapshots:
        raise NotInHistory("there is no snapshot yet: make a backup first")
    if text in ("latest", "now"):
        return snapshots[-1]
    for snapshot in snapshots:
        if snapshot.name == text:
            return snapshot
    back = _AGO.fullmatch(text)
    if back is not None and back[2] == "B":
        index = len(snapshots) - 1 - int(back[1])
        if index < 0:
            raise _too_old(f"there are not {back[1]} backups before the mirror", snapshots)
        return snapshots[index]
    before = end(text, now)
    for snapshot in reversed(snapshots):
        if snapshot.time < before:
            return snapshot
    raise _too_old(f"there is no snapshot as old as {text}", snapshots)


def _too_old(what: str, snapshots: Sequence[Snapshot]) -> NotInHistory:
    return NotInHistory(f"{what}; the oldest is {snapshots[0].name}")


def end(text: str, now: datetime) -> int:
    """The instant (ns since 1970) before which something has to be taken to be meant by a time.
    Raises UsageError where it is none."""
    back = _AGO.fullmatch(text)
    try:
        if back is not None and back[2] != "B":
            return _before(int(back[1]), back[2], now)
        match = _DATE.fullmatch(text)
        if match is not None:
            day = date(int(match[1]), int(match[2]), int(match[3]))
            return _midnight_after(day, now)
        match = _TIME.fullmatch(text)
        if match is not None:
            return _time_given(match, now)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time there is: {_FORMS}") from error
    raise UsageError(f"{text!r} is not a time: {_FORMS}")


def _before(count: int, unit: str, now: datetime) -> int:
    try:
        return _instant(_ago(count, unit, now)) + 1
    except (ValueError, OverflowError):
        return -FAR  # before the calendar begins


def _ago(count: int, unit: str, now: datetime) -> datetime:
    """That long before now; days and longer by the local calendar and clock."""
    if unit == "m":
        return now.astimezone(UTC) - timedelta(minutes=count)
    if unit == "h":
        return now.astimezone(UTC) - timedelta(hours=count)
    if unit in "dw":
        days = count * (7 if unit == "w" else 1)
        return (now - timedelta(days=days)).replace(fold=now.fold if days == 0 else 1)
    months = now.year * 12 + now.month - 1 - count * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    if year < 1:
        raise OverflowError(year)
    last = calendar.monthrange(year, month + 1)[1]
    return now.replace(year=year, month=month + 1, day=min(now.day, last))


def _midnight_after(day: date, now: datetime) -> int:
    if day == date.max:
        return FAR
    after = day + timedelta(days=1)
    return _instant(datetime(after.year, after.month, after.day, tzinfo=now.tzinfo))


def _time_given(match: re.Match[str], now: datetime) -> int:
    """The end of the minute, second or fraction that was given.  In an hour that
    the clocks show twice the later one is meant, since the newest counts."""
    year, month, day, hour, minute = (int(match[i]) for i in range(1, 6))
    second = int(match[6] or 0)
    zone = now.tzinfo if match[8] is None else _zone(match[8])
    moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    # In an hour that the clocks leave out, the first reading is the later instant.
    start = max(_instant(moment), _instant(moment.replace(fold=1)))
    if match[6] is None:
        return start + 60 * SECOND
    if match[7] is None:
        return start + SECOND
    return start + int(match[7].ljust(9, "0")) + 1


def _zone(text: str) -> tzinfo | None:
    return datetime.fromisoformat("2000-01-01T00:00:00" + text).tzinfo


def _instant(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
