"""Sizes as people type them."""

from __future__ import annotations

import re
from decimal import Decimal

from mirrorback.errors import UsageError

_UNITS = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([A-Z]?)(I?B)?", re.IGNORECASE | re.ASCII)
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
