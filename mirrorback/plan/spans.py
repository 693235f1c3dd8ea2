"""Spans of time as restic writes them, `2y5m7d3h`, counted back by the calendar."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from mirrorback.errors import UsageError

SECOND = 1_000_000_000
FAR = 1 << 80  # ns since 1970, or before: later and earlier than any snapshot
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PART = re.compile(r"([0-9]{1,12})([ymdh])", re.ASCII)
_MOST = {"y": 1000, "m": 12_000, "d": 366_000, "h": 24 * 366_000}  # a thousand years


def instant(moment: datetime) -> int:
    """An aware moment as nanoseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


@dataclass(frozen=True, slots=True)
class Span:
    """Years, months and days of the calendar, and hours that pass."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{count}{unit}" for count, unit in parts if count)

    def before(self, instant: int, zone: tzinfo) -> int:
        """The instant that is this long before another, both in ns since 1970.

        Years, months and days by the calendar and the clock of `zone`, where months end at
        their last day; then hours as they pass.  Where the clocks show the result twice, or
        leave it out, the earlier instant is meant: more lies within the span.
        """
        whole, rest = divmod(instant, SECOND)
        try:
            moment = (_EPOCH + timedelta(seconds=whole)).astimezone(zone)
            moment = _months_before(moment, 12 * self.years + self.months)
            moment -= timedelta(days=self.days)
            earlier = min(_seconds(moment.replace(fold=0)), _seconds(moment.replace(fold=1)))
        except (ValueError, OverflowError):
            return -FAR  # before the calendar begins
        if not (self.years or self.months or self.days):
            earlier = whole
        return (earlier - 3600 * self.hours) * SECOND + rest


def parse_span(text: str) -> Span:
    """`2y5m7d3h`: years, months, days and hours, each once at most, in any order.
    Raises UsageError, also for no time at all and for more than a thousand years."""
    counts: dict[str, int] = {}
    at = 0
    while match := _PART.match(text, at):
        if match[2] in counts or int(match[1]) > _MOST[match[2]]:
            break
        counts[match[2]] = int(match[1])
        at = match.end()
    if at != len(text) or not any(counts.values()):
        raise UsageError(
            f"{text!r} is no span of time: give years, months, days and hours, such as 2y5m7d3h,"
            " 30d or 6m (m are months), of a thousand years at most"
        )
    return Span(counts.get("y", 0), counts.get("m", 0), counts.get("d", 0), counts.get("h", 0))


def _months_before(moment: datetime, count: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 - count, 12)
    if year < 1:
        raise OverflowError(year)
    last = calendar.monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=min(moment.day, last))


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)
