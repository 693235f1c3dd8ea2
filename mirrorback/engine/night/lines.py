"""On which lines of a configuration something stands."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mirrorback.plan.configuration import Path

DEPTH = 3  # of the keys in a backup's table


def lines_of(text: str, paths: Sequence[Path]) -> list[int]:
    """The lines on which keys or tables stand, counted from 1, in the order of `paths`.

    tomlkit keeps a document as it was typed, so each value is changed into a mark, and the marks
    looked for in the text that comes out.
    """
    found = _marked(text, paths)
    if len(found) == len(paths):
        return [found[number] for number in range(len(paths))]
    headers = _headers(text, paths)
    return [
        found[number] if number in found else headers.get(path, headers.get(path[:1], 1))
        for number, path in enumerate(paths)
    ]


def _marked(text: str, paths: Sequence[Path]) -> dict[int, int]:
    """The line of each path, by its place among them, where that can be told by marks."""
    import tomlkit

    try:
        document = tomlkit.parse(text)
    except (ValueError, RecursionError):  # it takes less nesting than tomllib
        return {}
    word = "here"
    while word in text:
        word += "-or-here"
    lost: dict[int, int] = {}  # lines that a value took beyond that of its mark
    first: dict[Path, int] = {}
    for number, path in enumerate(paths):
        if first.setdefault(path, number) != number:
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):
            lost[number] = _mark(document, path, f"{word} {number}")
    found: dict[int, int] = {}
    gone = 0
    for line, shown in enumerate(tomlkit.dumps(document).splitlines(), 1):
        for match in re.finditer(f"{word} ([0-9]+)", shown, re.ASCII):
            if (number := int(match[1])) in lost:
                found[number] = line + gone
                gone += lost[number]
    same = {number: found[first[path]] for number, path in enumerate(paths) if first[path] in found}
    return found | same


def _mark(document: Any, path: Path, mark: str) -> int:
    """Put a mark in the place of a value that is no table; the line breaks in that."""
    from tomlkit.items import AoT, Item

    at = document
    for key in path[:-1]:
        at = at[key]
    value = at[path[-1]]
    if isinstance(value, (Mapping, AoT)):
        raise ValueError(path)
    at[path[-1]] = mark
    return value.as_string().count("\n") if isinstance(value, Item) else 0


def _headers(text: str, paths: Iterable[Path]) -> dict[Path, int]:
    """The first line that leads to each path, or to where it begins: of tables the header."""
    wanted = {way for path in paths for way in (path, path[:1])}
    found: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
            for path in _led_to(tomllib.loads(line)):
                if path in wanted:
                    found.setdefault(path, number)
    return found


def _led_to(table: Any, path: Path = ()) -> Iterable[Path]:
    """All that a line leads to, as deep as mistakes are."""
    if len(path) == DEPTH:
        return
    if isinstance(table, list):
        table = table[0] if table else None
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield (*path, key)
            yield from _led_to(value, (*path, key))
