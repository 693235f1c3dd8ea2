"""On which line of a configuration something stands."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Mapping
from typing import Any

from mirrorback.plan.configuration import Path

_MARK = "mirrorback was here"


def line_of(text: str, path: Path) -> int:
    """The line on which a key or a table stands, counted from 1.

    tomlkit keeps a document as it was typed, so the value is changed into a mark, and the mark
    looked for in the text that comes out.
    """
    import tomlkit

    document = tomlkit.parse(text)
    at: Any = document
    try:
        for key in path[:-1]:
            at = at[key]
        value = at[path[-1]]
        if isinstance(value, Mapping):
            return _header(text, path)
        at[path[-1]] = _MARK
        lines = tomlkit.dumps(document).splitlines()
        return next(n for n, line in enumerate(lines, 1) if _MARK in line)
    except (KeyError, StopIteration, TypeError, ValueError):
        return _header(text, path)


def _header(text: str, path: Path) -> int:
    """The line of a table's header, or of the first key that leads to it."""
    for wanted in (path, path[:1]):
        for number, line in enumerate(text.splitlines(), 1):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                if _leads(tomllib.loads(line), wanted):
                    return number
    return 1


def _leads(table: Any, path: Path) -> bool:
    for key in path:
        if isinstance(table, list):
            table = table[0]
        if not isinstance(table, Mapping) or key not in table:
            return False
        table = table[key]
    return True
