"""What should stand in the folders of all snapshots, a directory at a time."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mirrorback.store import schema
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.live import OBJECT_JOIN


class Wanted(NamedTuple):
    """An entry of a directory, with what its inode should be; of values that can be
    marshalled."""

    name: bytes
    object: int
    first: int
    last: int | None
    kind: int
    drive: int
    mode: int
    uid: int
    gid: int
    mtime: int | bytes  # as `encoding.pack_time` gives it
    size: int
    rdev: int
    target: bytes | None
    attributes: bytes | None  # as `encoding.pack_xattrs` gives them
    digest: bytes | None
    sparse: int


class WantedFolder(NamedTuple):
    """What a directory itself should be over some snapshots; likewise."""

    object: int
    first: int
    last: int | None
    mode: int
    uid: int
    gid: int
    attributes: bytes | None


_ENTRY = (
    "SELECT e.dir, e.name, e.object, e.first, e.last, e.kind, o.drive, o.mode, w.uid, w.gid,"
    " o.mtime, o.size, o.rdev, o.target, a.value, o.digest, o.sparse"
    f" FROM entry e {OBJECT_JOIN}"
)
_AMONG = "IN (SELECT value FROM json_each(?))"


def directories(catalog: Catalog, last: int, most: int) -> list[int]:
    """The next directories by number, of as many as have `most` entries together, of one at
    least; none where there are no more."""
    found: list[int] = []
    total = 0
    with catalog.lock:
        cursor = catalog.db.execute(
            "SELECT d.id, (SELECT count(*) FROM entry e WHERE e.dir = d.id) FROM directory d"
            " WHERE d.id > ? ORDER BY d.id LIMIT ?",
            (last, most),
        )
        for number, count in cursor:
            total += count
            if found and total > most:
                break
            found.append(number)
        cursor.close()
    return found


def entries(catalog: Catalog, numbers: Sequence[int]) -> dict[int, list[Wanted]]:
    """All entries ever of some directories."""
    found: dict[int, list[Wanted]] = {number: [] for number in numbers}
    for number, row in _rows(catalog, f"e.dir {_AMONG}", numbers):
        found[number].append(row)
    return found


def places(catalog: Catalog, objects: Sequence[int]) -> Iterator[tuple[int, Wanted]]:
    """Every entry that shows one of some objects, with its directory."""
    yield from _rows(catalog, f"e.object {_AMONG}", objects)


def _rows(catalog: Catalog, where: str, numbers: Sequence[int]) -> list[tuple[int, Wanted]]:
    with catalog.lock:
        rows = catalog.db.execute(f"{_ENTRY} WHERE {where}", (json.dumps(list(numbers)),))
        return [(row[0], Wanted._make(row[1:])) for row in rows]


def folders(catalog: Catalog, numbers: Sequence[int]) -> dict[int, list[WantedFolder]]:
    """What some directories should be themselves, in all snapshots."""
    found: dict[int, list[WantedFolder]] = {number: [] for number in numbers}
    with catalog.lock:
        rows = catalog.db.execute(
            "SELECT d.id, e.object, e.first, e.last, o.mode, w.uid, w.gid, a.value"
            " FROM directory d JOIN entry e ON e.dir = d.parent AND e.name = d.name"
            f" AND e.kind = 2 {OBJECT_JOIN} WHERE d.id {_AMONG}",
            (json.dumps(list(numbers)),),
        ).fetchall()
    for number, *columns in rows:
        found[number].append(WantedFolder._make(columns))
    return found


def folders_of(catalog: Catalog, objects: Sequence[int]) -> list[tuple[int, int, int, int | None]]:
    """Of those of some objects that are directories: object, number of the directory, first
    and last snapshot."""
    with catalog.lock:
        return catalog.db.execute(
            "SELECT e.object, d.id, e.first, e.last FROM entry e"
            " JOIN directory d ON d.parent = e.dir AND d.name = e.name"
            f" WHERE e.kind = 2 AND e.object {_AMONG}",
            (json.dumps(list(objects)),),
        ).fetchall()


def unsettled(catalog: Catalog) -> set[int]:
    """Objects that a run is giving another form, or was when it was cut short."""
    with catalog.lock:
        rows = catalog.db.execute("SELECT object, patched FROM replacing").fetchall()
    return {number for row in rows for number in row if number is not None}


def totals(catalog: Catalog) -> tuple[int, int]:
    """Objects that are no folders, and the bytes in them."""
    with catalog.lock:
        row = catalog.db.execute(
            f"SELECT count(*), {schema.added('CASE WHEN kind = 1 THEN size ELSE 0 END')}"
            " FROM object WHERE kind != 2 AND drive != 2"
        ).fetchone()
    return row[0], row[1]


class Spanning:
    """The objects that more than one directory shows: 16 bytes of memory for each."""

    def __init__(self, catalog: Catalog) -> None:
        with catalog.lock:
            rows = catalog.db.execute(
                "SELECT object FROM entry WHERE kind != 2 AND dir != ?"
                " GROUP BY object HAVING min(dir) != max(dir) ORDER BY object",
                (ABOVE_ROOT,),
            )
            self._objects = array("q", (row[0] for row in rows))
        self._inodes = array("Q", bytes(8 * len(self._objects)))
        self._given = bytearray(len(self._objects))

    def __contains__(self, number: int) -> bool:
        return self._index(number) is not None

    def first_time(self, number: int) -> bool:
        """Whether this is asked of an object for the first time."""
        index = self._index(number)
        if index is None:
            return True
        before, self._given[index] = self._given[index], 1
        return not before

    def agrees(self, number: int, inode: int) -> bool:
        """Whether an object has this inode number wherever that was asked so far."""
        index = self._index(number)
        if index is None:
            return True
        if not self._inodes[index]:
            self._inodes[index] = inode
        return self._inodes[index] == inode

    def _index(self, number: int) -> int | None:
        index = bisect_left(self._objects, number)
        found = index < len(self._objects) and self._objects[index] == number
        return index if found else None
