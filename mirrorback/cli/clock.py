"""The clock and the local zone: the only place where either is read."""

from __future__ import annotations

import io
import os
import struct
import time
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

LOCALTIME = "/etc/localtime"


def now() -> datetime:
    """This moment in the local zone, whose rules the result carries."""
    return datetime.now(zone())


def ticks() -> float:
    """Seconds of a clock that nobody sets; only differences mean anything."""
    return time.monotonic()


@cache
def zone() -> ZoneInfo:
    """The local zone as the C library finds it: `TZ`, else /etc/localtime, else UTC."""
    name = os.environ.get("TZ")
    if name is None:
        return _of_file(LOCALTIME) or _utc()
    name = name.removeprefix(":")
    if name.startswith("/"):
        return _of_file(name) or _utc()
    return _of_name(name) or _of_rule(name) or _utc()


def _utc() -> ZoneInfo:
    zone = _of_rule("UTC0")
    assert zone is not None
    return zone


def _of_file(path: str) -> ZoneInfo | None:
    try:
        with open(path, "rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError, struct.error):
        return None


def _of_name(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, KeyError):  # no such zone; a name with .. in it
        return None


def _of_rule(rule: str) -> ZoneInfo | None:
    """The zone of a POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.

    zoneinfo takes such rules from the foot of a TZif file (RFC 9636) only, so it
    is given one without transitions.
    """
    if not rule or not rule.isascii() or not rule.isprintable():
        return None
    header = b"TZif2" + bytes(15)
    old = header + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    try:
        return ZoneInfo.from_file(io.BytesIO(old + old + b"\n" + rule.encode() + b"\n"), key=rule)
    except (ValueError, struct.error):
        return None
