"""Spans of time as people type them."""

from __future__ import annotations

import re
from datetime import timedelta

from mirrorback.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """A span of time: 90s, 30m, 12h, 3d, 2w.  Raises UsageError; also for none at all."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a span of time: give one like 30m, 12h, 3d or 2w")
    try:
        span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise UsageError(f"{text!r} is longer than anything lasts") from None
    if not span:
        raise UsageError(f"{text!r} is no time at all")
    return span
