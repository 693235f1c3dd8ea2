"""Numbers and times as words: sizes, counts, time stamps, durations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo

SECOND = 1_000_000_000
DAY = 86_400
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int, estimated: bool = False) -> str:
    """Bytes for a person: `1.2 MiB`, `~1.2 MiB`."""
    about = "~" if estimated else ""
    if abs(count) < 1024:
        return f"{about}{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 999.95 or unit == _UNITS[-1]:
            break
    return f"{about}{value:.1f} {unit}"


def number(count: int, one: str, many: str | None = None) -> str:
    """`1 file`, `1,200 files`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def seconds(value: float) -> str:
    """A duration: `0.8 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def span(value: timedelta) -> str:
    """`3d`, `12h`, `30m`: in the largest unit that is exact."""
    total = int(value.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if total % length == 0:
            return f"{total // length}{unit}"
    return f"{total}s"


def iso(ns: int, where: int | tzinfo) -> str:
    """Nanoseconds since 1970 as ISO 8601 with offset and full fraction.

    `where` is the offset from UTC in seconds, or a zone.  Offsets are rounded to
    minutes, which is all ISO 8601 has (local mean times had seconds); the instant
    stays exact.  Years beyond four digits get a sign, in UTC.
    """
    whole, rest = divmod(ns, SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    offset = where if isinstance(where, int) else _offset(whole, where)
    offset = (offset + 30) // 60 * 60
    try:
        zone = timezone(timedelta(seconds=offset))
        moment = _EPOCH.astimezone(zone) + timedelta(seconds=whole)
        text = moment.isoformat()
    except (OverflowError, ValueError):
        return f"{_far(whole)}{fraction}+00:00"
    return text[:19] + fraction + text[19:]


def minute(ns: int, zone: int | tzinfo) -> str:
    """A time stamp for a person, `2026-11-22 14:30`, in local time."""
    text = iso(ns, zone)
    day, _, clock = text.partition("T")
    return f"{day} {clock[:5]}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _offset(whole: int, zone: tzinfo) -> int:
    try:
        moment = (_EPOCH + timedelta(seconds=whole)).astimezone(zone)
    except (OverflowError, ValueError):
        return 0
    return round((moment.utcoffset() or timedelta()).total_seconds())


def _far(whole: int) -> str:
    """Date and time in UTC of a year that datetime does not have (proleptic Gregorian;
    the calendar repeats every 400 years, which are 146,097 days)."""
    days, rest = divmod(whole, DAY)
    cycles, days = divmod(days, 146_097)
    near = datetime(1970, 1, 1) + timedelta(days=days, seconds=rest)
    year = near.year + 400 * cycles
    return f"{'-' if year < 0 else '+'}{abs(year):06d}-{near:%m-%dT%H:%M:%S}"
