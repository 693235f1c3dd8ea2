"""A chart of columns for a terminal: numbers over time, in characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

HEIGHT = 8  # lines
WIDEST = 6  # characters of a column
LEAST = 20  # characters, below which there is no room for a chart


class Style(NamedTuple):
    """The characters: parts of one from empty to full, the axis, its corner and its line."""

    parts: str
    axis: str
    corner: str
    line: str


BLOCKS = Style(" ▁▂▃▄▅▆▇█", "┤", "└", "─")
ASCII = Style(" .:#", "|", "+", "-")


def style() -> Style:
    """What standard output can show."""
    try:
        "".join(BLOCKS).encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def most(width: int, top: str) -> int:
    """How many columns fit, beside an axis with this label at its top."""
    return max(0, width - len(top) - 2)


def columns(
    values: Sequence[int], ends: tuple[str, str], top: str, width: int, shown: Style
) -> list[str]:
    """Lines at most `width` wide with a column for each value, the highest as high as all.

    `ends` stand below the first column and the last, `top` beside the highest; all are ASCII.
    Values below 0 are shown as 0.  No more values than `most` says."""
    room = most(width, top)
    highest = max(values, default=0)
    if highest <= 0 or room < LEAST or len(values) > room:
        return []
    each = max(1, min(WIDEST, room // len(values)))
    gap = 1 if each > 2 else 0
    heights = [max(0, value) * HEIGHT * _full(shown) // highest for value in values]
    heights = [
        max(1, high) if value > 0 else 0 for high, value in zip(heights, values, strict=True)
    ]
    lines = []
    for level in reversed(range(HEIGHT)):
        label = top if level == HEIGHT - 1 else ""
        cells = (_part(high, level, shown) * (each - gap) + " " * gap for high in heights)
        lines.append(f"{label:>{len(top)}} {shown.axis}{''.join(cells)}".rstrip(" "))
    across = each * len(values)
    lines.append(f"{'0':>{len(top)}} {shown.corner}{shown.line * across}")
    first, last = ends
    space = across - len(first) - len(last)
    below = first + " " * space + last if space > 0 else first if len(first) <= room else ""
    lines.append(" " * (len(top) + 2) + below)
    return lines


def _full(shown: Style) -> int:
    return len(shown.parts) - 1


def _part(high: int, level: int, shown: Style) -> str:
    """The character of a column on a level."""
    return shown.parts[min(max(high - level * _full(shown), 0), _full(shown))]
