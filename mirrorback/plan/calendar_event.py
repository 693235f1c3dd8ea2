"""When a schedule comes: calendar expressions as systemd has them, and a few plainer ones.

The grammar is that of systemd.time(7), section "Calendar Events", without fractions of a second,
zones other than UTC, and lists and steps of days from the end of a month; besides, `daily 02:00`,
`weekly sun 03:00`, `monthly 04:00`.
"""

from __future__ import annotations

import calendar
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from mirrorback.errors import UsageError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY_OF = {name.lower(): n for names in (DAYS, _LONG_DAYS) for n, name in enumerate(names)}
_WORDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
}
_WORDS |= {"annually": _WORDS["yearly"], "semi-annually": _WORDS["semiannually"]}
_WITH_TIME = ("daily", "weekly", "monthly", "quarterly", "semiannually", "yearly")
_DATE = re.compile(r"(?:([^-~:]+)-)?([^-~:]+)([-~])([^-~:]+)", re.ASCII)
_PART = re.compile(r"([0-9]{1,4})(?:\.\.([0-9]{1,4}))?(?:/([0-9]{1,4}))?", re.ASCII)
_CLOCK = re.compile(r"[0-9*.,/]+(?::[0-9*.,/]+){1,2}", re.ASCII)
YEARS_AHEAD = 40  # what has not come by then never comes: leap days on a given weekday take 28

FORMS = "give `daily 02:00`, `weekly sun 03:00`, `hourly`, or a calendar expression of systemd"


class Range(NamedTuple):
    """Numbers from `start` on, each `step`; to `stop`, or as far as there are any; `step` None:
    with a `stop` each, without one only `start`."""

    start: int
    stop: int | None = None
    step: int | None = None

    def holds(self, value: int) -> bool:
        """Whether a number is one of them."""
        if self.stop is None and self.step is None:
            return value == self.start
        if value < self.start or (self.stop is not None and value > self.stop):
            return False
        return (value - self.start) % (self.step or 1) == 0


Numbers = tuple[Range, ...]  # none: all
_ALL: Numbers = ()


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """A set of points in time, by the calendar and the clock of a zone."""

    weekdays: frozenset[int]  # Monday is 0; none: all
    years: Numbers
    months: Numbers
    days: Numbers
    from_end: bool  # the days count from the end of the month, the last is 1
    hours: Numbers
    minutes: Numbers
    seconds: Numbers
    utc: bool

    def on(self, day: date) -> bool:
        """Whether it comes on a day."""
        last = calendar.monthrange(day.year, day.month)[1]
        number = last - day.day + 1 if self.from_end else day.day
        return (
            (not self.weekdays or day.weekday() in self.weekdays)
            and _holds(self.years, day.year)
            and _holds(self.months, day.month)
            and _holds(self.days, number)
        )

    def times(self) -> Iterator[tuple[int, int, int]]:
        """Hour, minute and second of each time of such a day, in order."""
        return itertools.product(
            _values(self.hours, 0, 23), _values(self.minutes, 0, 59), _values(self.seconds, 0, 59)
        )

    def after(self, moment: datetime) -> datetime | None:
        """The first time after an aware moment, in its zone; None where none comes within
        40 years.  What the clocks leave out comes when they have gone on."""
        zone = moment.tzinfo
        local = moment.astimezone(UTC) if self.utc else moment
        for day in self._days(local):
            for hour, minute, second in self.times():
                found = datetime(day.year, day.month, day.day, hour, minute, second)
                # An hour that the clocks show twice counts once, the first time.
                instant = found.replace(tzinfo=local.tzinfo).astimezone(UTC)
                if instant > moment:
                    return instant.astimezone(zone)
        return None

    def _days(self, moment: datetime) -> Iterator[date]:
        """The days on which it comes, from the day before a moment on."""
        begin = moment.date() - timedelta(days=1)
        for year in range(begin.year, min(begin.year + YEARS_AHEAD, date.max.year)):
            if not _holds(self.years, year):
                continue
            for month in _values(self.months, 1, 12):
                for number in range(1, calendar.monthrange(year, month)[1] + 1):
                    day = date(year, month, number)
                    if day >= begin and self.on(day):
                        yield day

    def text(self) -> str:
        """The expression as systemd itself would write it."""
        weekdays = ",".join(
            DAYS[first]
            if first == last
            else f"{DAYS[first]}{'..' if last - first > 1 else ','}{DAYS[last]}"
            for first, last in _runs(sorted(self.weekdays))
        )
        day = "~" if self.from_end else "-"
        when = (
            f"{_text(self.years, 4)}-{_text(self.months, 2)}{day}{_text(self.days, 2)}"
            f" {_text(self.hours, 2)}:{_text(self.minutes, 2)}:{_text(self.seconds, 2)}"
        )
        return " ".join(filter(None, (weekdays, when, "UTC" if self.utc else "")))


def parse(text: str) -> CalendarEvent:
    """Read a schedule.  Raises UsageError where it cannot be understood."""
    words = _in_full(text.split())
    utc = bool(words) and words[-1].upper() == "UTC"
    if utc:
        words.pop()
    try:
        if not words:
            raise ValueError(text)
        weekdays: frozenset[int] = frozenset()
        if words and words[0][0].isalpha():
            weekdays = _weekdays(words.pop(0))
        when = words.pop(0) if words and not _CLOCK.fullmatch(words[0]) else "*-*-*"
        clock = words.pop(0) if words else "00:00:00"
        if words:
            raise ValueError(text)
        years, months, days, from_end = _date(when)
        hours, minutes, seconds = _clock(clock)
    except ValueError as error:
        raise UsageError(f"{text!r} is no schedule: {FORMS}") from error
    return CalendarEvent(weekdays, years, months, days, from_end, hours, minutes, seconds, utc)


def _in_full(words: Sequence[str]) -> list[str]:
    """`daily 02:00` and single words as the expressions that they stand for."""
    if not words or words[0].lower() not in _WORDS:
        return list(words)
    word, *rest = words
    meant = _WORDS[word.lower()].split()
    if word.lower() not in _WITH_TIME:
        return [*meant, *rest]
    if word.lower() == "weekly" and rest and rest[0][0].isalpha() and rest[0].upper() != "UTC":
        meant[0] = rest.pop(0)
    if rest and _CLOCK.fullmatch(rest[0]):
        meant[-1] = rest.pop(0)
    return [*meant, *rest]


def _weekdays(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.rstrip(",").split(","):
        first, _dots, last = part.replace("-", "..").partition("..")
        begin = _day_of(first)
        end = _day_of(last) if last else begin
        if end < begin:
            raise ValueError(part)
        found |= set(range(begin, end + 1))
    return frozenset() if len(found) == 7 else frozenset(found)


def _day_of(name: str) -> int:
    if name.lower() not in _DAY_OF:
        raise ValueError(name)
    return _DAY_OF[name.lower()]


def _date(text: str) -> tuple[Numbers, Numbers, Numbers, bool]:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    years = _numbers(match[1] or "*", 1970, 2199, two_digits=True)
    from_end = match[3] == "~" and match[4] != "*"
    days = _numbers(match[4], 1, 28 if from_end else 31)
    if from_end and (len(days) != 1 or days[0].step is not None):
        raise ValueError(text)
    return years, _numbers(match[2], 1, 12), days, from_end


def _clock(text: str) -> tuple[Numbers, Numbers, Numbers]:
    parts = [*text.split(":"), "0"][:3]
    if len(parts) < 3:
        raise ValueError(text)
    return _numbers(parts[0], 0, 23), _numbers(parts[1], 0, 59), _numbers(parts[2], 0, 59)


def _numbers(text: str, least: int, most: int, *, two_digits: bool = False) -> Numbers:
    if text == "*":
        return _ALL
    return tuple(_range(part, least, most, two_digits) for part in text.split(","))


def _range(part: str, least: int, most: int, two_digits: bool) -> Range:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(part)
    start, stop = (None if match[n] is None else int(match[n]) for n in (1, 2))
    step = None if match[3] is None else int(match[3])
    if two_digits:
        start, stop = (_century(year) for year in (start, stop))
    if start is None or not least <= start <= most or step == 0:
        raise ValueError(part)
    if not start <= (start + (step or 0) if stop is None else stop) <= most:
        raise ValueError(part)
    return Range(start) if stop == start else Range(start, stop, step)


def _century(year: int | None) -> int | None:
    if year is None or year >= 100:
        return year
    return year + (2000 if year < 70 else 1900)


def _holds(numbers: Numbers, value: int) -> bool:
    return not numbers or any(one.holds(value) for one in numbers)


def _values(numbers: Numbers, least: int, most: int) -> list[int]:
    return [value for value in range(least, most + 1) if _holds(numbers, value)]


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The unbroken runs in sorted numbers: first and last of each."""
    for _key, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _place, number in group]
        yield run[0], run[-1]


def _text(numbers: Numbers, width: int) -> str:
    parts = []
    for one in numbers:
        part = f"{one.start:0{width}}"
        if one.stop is not None:
            part += f"..{one.stop:0{width}}"
        parts.append(part if one.step is None else f"{part}/{one.step}")
    return ",".join(parts) or "*"


def cron_fields(event: CalendarEvent) -> str | None:
    """The five fields of cron(5) whose times are those of an event; None where cron cannot say
    it."""
    if event.years or event.from_end or event.utc or _values(event.seconds, 0, 59) != [0]:
        return None
    if event.days and event.weekdays:
        return None  # cron would take either
    fields = (
        _list(event.minutes, 0, 59),
        _list(event.hours, 0, 23),
        _list(event.days, 1, 31),
        _list(event.months, 1, 12),
        ",".join(str((day + 1) % 7) for day in sorted(event.weekdays)) or "*",
    )
    return " ".join(fields)


def _list(numbers: Numbers, least: int, most: int) -> str:
    return ",".join(map(str, _values(numbers, least, most))) if numbers else "*"


MOST_INTERVALS = 500


def launchd_intervals(event: CalendarEvent) -> list[dict[str, int]] | None:
    """The event as StartCalendarInterval of launchd.plist(5); None where launchd cannot say it,
    or only in more than 500 parts."""
    if event.years or event.from_end or event.utc or _values(event.seconds, 0, 59) != [0]:
        return None
    if event.days and event.weekdays:
        return None  # launchd would take either
    choices = {
        "Month": _values(event.months, 1, 12) if event.months else None,
        "Day": _values(event.days, 1, 31) if event.days else None,
        "Weekday": [(day + 1) % 7 for day in sorted(event.weekdays)] or None,
        "Hour": _values(event.hours, 0, 23) if event.hours else None,
        "Minute": _values(event.minutes, 0, 59) if event.minutes else None,
    }
    given = {key: values for key, values in choices.items() if values is not None}
    found = [dict(zip(given, chosen, strict=True)) for chosen in itertools.product(*given.values())]
    return found if len(found) <= MOST_INTERVALS else None


def interval(event: CalendarEvent, moment: datetime) -> timedelta | None:
    """The time between the next two times after a moment; None where it comes no two times."""
    first = event.after(moment)
    second = None if first is None else event.after(first)
    return None if first is None or second is None else second - first
