"""When the snapshots of dated folders were taken, where only their names tell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

_NAME = re.compile(r"(\d{4,5})-(\d\d)-(\d\d)-(\d\d)(\d\d)(\d\d)(?:-(\d{1,6}))?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Dated(NamedTuple):
    """A name with the instant it means."""

    name: str
    time: int  # ns since 1970 UTC
    offset: int  # of local time from UTC then, in seconds


def dated(name: str, zone: tzinfo, born: int | None = None) -> Dated | None:
    """The instant that a folder's name means in `zone`; None where it names no date.

    An hour that clocks went through twice is taken to be its first time, unless the name has
    a -2 behind it, or the folder was `born` (ns; None where nobody knows) after the second
    time had come, and within a day of it."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    *parts, again = found.groups()
    try:
        local = datetime(*map(int, parts), tzinfo=zone)  # type: ignore[misc, arg-type]
        first, second = (_instant(local.replace(fold=fold)) for fold in (0, 1))
    except (ValueError, OverflowError):
        return None
    later = again is not None
    if born is not None and second > first:
        later |= 0 <= born - second < 86_400_000_000_000
    local = local.replace(fold=int(later))
    offset = local.utcoffset() or timedelta()
    return Dated(name, second if later else first, int(offset.total_seconds()))


def in_order(found: Iterable[Dated]) -> list[Dated]:
    """Snapshots from the oldest to the newest, as far as their times tell."""
    return sorted(found, key=lambda one: (one.time, _number(one.name), one.name))


def _number(name: str) -> int:
    parts = name.split("-")
    return int(parts[4]) if len(parts) > 4 else 1


def _instant(local: datetime) -> int:
    return (local.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1) * 1000
