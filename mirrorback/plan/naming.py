"""Names of dated folders."""

from __future__ import annotations

import itertools
from collections.abc import Container
from datetime import datetime


def folder_name(now: datetime, taken: Container[str]) -> str:
    """YYYY-MM-DD-HHMMSS in the zone of `now`, with -2, -3 ... where that is taken."""
    name = f"{now.year:04}-{now:%m-%d-%H%M%S}"
    if name not in taken:
        return name
    return next(n for i in itertools.count(2) if (n := f"{name}-{i}") not in taken)
