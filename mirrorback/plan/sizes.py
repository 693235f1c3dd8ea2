"""Sizes as people type them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from mirrorback.errors import UsageError

_UNITS = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([A-Z]?)(I?B)?", re.IGNORECASE | re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%", re.ASCII)
LARGEST = (1 << 63) - 1


def parse_size(text: str) -> int:
    """A size in bytes: 512, 32M, 1.5G, 10KiB, 1GB; all units are powers of 1024,
    as in restic.  Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else "?"
    if match is None or unit not in _UNITS or (match[3] and unit in ("", "B")):
        raise UsageError(f"{text!r} is not a size: give a number, or one like 32M or 1.5G")
    size = int(Decimal(match[1]) * 1024 ** _UNITS[unit])
    if size > LARGEST:
        raise UsageError(f"{text!r} is larger than any file")
    return size


@dataclass(frozen=True, slots=True)
class Room:
    """So much of a drive: bytes, or a share of it."""

    bytes: int | None = None
    percent: Decimal | None = None

    def of(self, total: int) -> int:
        """In bytes, of a drive of `total` bytes."""
        if self.percent is not None:
            return int(total * self.percent / 100)
        return self.bytes or 0

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent is not None else f"{self.bytes:,} bytes"


def parse_room(text: str) -> Room:
    """SIZE or PERCENT: 50G, 10%, 2.5%.  Raises UsageError, also for nothing at all, and for
    100 % or more."""
    match = _PERCENT.fullmatch(text.strip())
    if match is not None:
        percent = Decimal(match[1])
        if not 0 < percent < 100:
            raise UsageError(f"{text!r}: give more than 0% and less than 100% of the drive")
        return Room(percent=percent)
    try:
        size = parse_size(text)
    except UsageError:
        raise UsageError(
            f"{text!r} is neither a size nor a share of the drive: give one like 50G or 10%"
        ) from None
    if size == 0:
        raise UsageError(f"{text!r}: give more than nothing, such as 50G or 10%")
    return Room(bytes=size)
