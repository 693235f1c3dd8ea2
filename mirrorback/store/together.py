"""Rows of several directories by one query: a query for each costs more than its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirrorback.store.catalog import Catalog

SLOTS = 16  # directories in one query
AMONG = f"dir IN ({', '.join('?' * SLOTS)})"  # the condition that `slots` fills


def slots(directories: Sequence[int]) -> tuple[int, ...]:
    """From one to `SLOTS` ids as the parameters of `AMONG`."""
    return (*directories, *(directories[-1] for _ in range(SLOTS - len(directories))))


def by_directory(
    catalog: Catalog, select: str, directories: Sequence[int], most: int
) -> dict[int, list[tuple[Any, ...]]]:
    """The rows of some directories, by id in ascending order: of as many as have `most`
    rows together, of one at least.

    `select` is a query that goes on with a condition; its first column is `dir`, and the
    rows come without it."""
    ids = sorted(directories)
    several = f"{select} {AMONG} ORDER BY dir LIMIT {most + 1}"
    with catalog.lock:
        rows = catalog.db.execute(several, slots(ids)).fetchall()
        if len(rows) > most:
            last = rows[-1][0]  # perhaps not all of its rows
            ids = [number for number in ids if number < last]
            if not ids:
                ids = [last]
                rows = catalog.db.execute(f"{select} dir = ?", ids).fetchall()
    found: dict[int, list[tuple[Any, ...]]] = {number: [] for number in ids}
    for number, *columns in rows:
        if number in found:
            found[number].append(tuple(columns))
    return found
