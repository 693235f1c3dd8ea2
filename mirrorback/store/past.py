"""The catalog's rows of every snapshot, as the history commands read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mirrorback.model import Digest, Kind, Metadata
from mirrorback.store import live
from mirrorback.store.catalog import ABOVE_ROOT, DELETING, ROOT_DIR, Catalog

_COLUMNS = (
    "e.id, e.dir, e.name, e.first, e.last, e.object, e.lineage, e.from_dir, e.from_name, e.stale,"
    f" o.digest, o.sparse, o.drive, {live.METADATA}"
)
_FROM = f" FROM entry e {live.OBJECT_JOIN}"
_AT = " AND e.first <= ? AND (e.last IS NULL OR e.last >= ?)"


class PastRow(NamedTuple):
    """An entry over the snapshots in which it stands; `last` None is the mirror."""

    entry: int
    dir: int
    name: bytes
    first: int
    last: int | None
    object: int
    lineage: int
    from_dir: int | None
    from_name: bytes | None
    stale: int
    digest: Digest | None
    drive: int
    metadata: Metadata

    def shown_in(self, snapshot: int) -> bool:
        """Whether a snapshot shows this entry."""
        return self.first <= snapshot and (self.last is None or self.last >= snapshot)


def _row(columns: tuple) -> PastRow:  # type: ignore[type-arg]
    digest = live.digest_of(columns[10], columns[11])
    return PastRow._make((*columns[:10], digest, columns[12], live.metadata_of(columns[13:])))


def root(catalog: Catalog, snapshot: int) -> PastRow | None:
    """The entry of the source itself in a snapshot."""
    return entry(catalog, ABOVE_ROOT, b"", snapshot)


def entry(catalog: Catalog, directory: int, name: bytes, snapshot: int) -> PastRow | None:
    """One name of a directory in a snapshot."""
    row = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.dir = ? AND e.name = ?{_AT}",
        (directory, name, snapshot, snapshot),
    ).fetchone()
    return row and _row(row)


def entries(catalog: Catalog, directory: int, snapshot: int) -> list[PastRow]:
    """Everything in one directory of a snapshot, by name."""
    rows = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.dir = ?{_AT} ORDER BY e.name",
        (directory, snapshot, snapshot),
    ).fetchall()
    return [_row(row) for row in rows]


def runs(catalog: Catalog, directory: int, name: bytes) -> list[PastRow]:
    """Every version of one name, oldest first."""
    rows = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.dir = ? AND e.name = ? ORDER BY e.first, e.id",
        (directory, name),
    ).fetchall()
    return [_row(row) for row in rows]


def is_held(catalog: Catalog, directory: int, name: bytes, kind: Kind) -> bool:
    """Whether some snapshot shows something of a kind under one name of a directory."""
    row = catalog.db.execute(
        "SELECT 1 FROM entry e WHERE e.dir = ? AND e.name = ? AND e.kind = ? AND EXISTS"
        " (SELECT 1 FROM snapshot s WHERE s.id >= e.first AND s.id <= coalesce(e.last, s.id)"
        "  AND s.state != ?) LIMIT 1",
        (directory, name, int(kind), DELETING),
    ).fetchone()
    return row is not None


def of_lineages(catalog: Catalog, newest: Mapping[int, int]) -> list[PastRow]:
    """Entries of some lineages, oldest first: of each those older than the entry given
    for it, wherever they stood.  Reads a large part of the entries."""
    rows = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.id >= ? AND e.id < ?"
        " AND e.lineage IN (SELECT value FROM json_each(?)) ORDER BY e.first, e.id",
        (min(newest), max(newest.values()), json.dumps(list(newest))),
    ).fetchall()
    return [row for row in map(_row, rows) if row.entry < newest[row.lineage]]


def all_names(catalog: Catalog) -> Iterator[tuple[int, int, bytes]]:
    """Entry, directory and name of every version there is."""
    yield from catalog.db.execute(
        "SELECT id, dir, name FROM entry WHERE dir != ? ORDER BY dir, name, first", (ABOVE_ROOT,)
    )


def by_id(catalog: Catalog, number: int) -> PastRow:
    """One entry."""
    return _row(
        catalog.db.execute(f"SELECT {_COLUMNS}{_FROM} WHERE e.id = ?", (number,)).fetchone()
    )


def between(catalog: Catalog, old: int, new: int) -> tuple[list[PastRow], list[PastRow]]:
    """What `old` shows and `new` does not, and the reverse (`old` < `new`)."""
    ended = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.last >= ? AND e.last < ? AND e.first <= ?",
        (old, new, old),
    ).fetchall()
    begun = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.first > ? AND e.first <= ?"
        " AND (e.last IS NULL OR e.last >= ?)",
        (old, new, new),
    ).fetchall()
    return [_row(row) for row in ended], [_row(row) for row in begun]


def shared_objects(catalog: Catalog, old: int, new: int) -> list[int]:
    """Objects under more than one name, of which some name came or went between
    two snapshots."""
    rows = catalog.db.execute(
        "SELECT object FROM entry WHERE object IN"
        " (SELECT object FROM entry WHERE last >= ?1 AND last < ?2 AND kind != 2"
        " UNION SELECT object FROM entry WHERE first > ?1 AND first <= ?2 AND kind != 2)"
        " GROUP BY object HAVING count(DISTINCT lineage) > 1",
        (old, new),
    ).fetchall()
    return [row[0] for row in rows]


def shared_in(catalog: Catalog, snapshot: int) -> set[int]:
    """Objects that a snapshot shows under more than one name."""
    rows = catalog.db.execute(
        "SELECT object FROM entry e WHERE kind != 2" + _AT + " GROUP BY object HAVING count(*) > 1",
        (snapshot, snapshot),
    )
    return {row[0] for row in rows}


def sharing(catalog: Catalog, number: int, snapshot: int) -> list[tuple[int, int, int, bytes]]:
    """Entry, lineage, directory and name of all that show an object in a snapshot."""
    return catalog.db.execute(
        "SELECT e.id, e.lineage, e.dir, e.name FROM entry e WHERE e.object = ?" + _AT,
        (number, snapshot, snapshot),
    ).fetchall()


def links(catalog: Catalog, directory: int, snapshot: int) -> dict[int, int]:
    """Of the objects in a directory of a snapshot those that it shows under more than one
    name, here or elsewhere, and under how many."""
    rows = catalog.db.execute(
        "SELECT e.object, count(*) FROM entry e WHERE e.kind != 2" + _AT + " AND e.object IN"
        " (SELECT i.object FROM entry i WHERE i.dir = ? AND i.kind != 2 AND i.first <= ?"
        "  AND (i.last IS NULL OR i.last >= ?))"
        " GROUP BY e.object HAVING count(*) > 1",
        (snapshot, snapshot, directory, snapshot, snapshot),
    )
    return dict(rows.fetchall())


def subfolders(catalog: Catalog, directory: int, snapshot: int) -> dict[bytes, tuple[int, int]]:
    """The directories in a directory by name, with the id of each, and how many
    directories it holds in a snapshot; also those that the snapshot does not show."""
    rows = catalog.db.execute(
        "SELECT d.name, d.id, count(e.id) FROM directory d LEFT JOIN entry e"
        " ON e.dir = d.id AND e.kind = 2" + _AT + " WHERE d.parent = ? GROUP BY d.id",
        (snapshot, snapshot, directory),
    )
    return {name: (number, count) for name, number, count in rows.fetchall()}


def find_directory(catalog: Catalog, path: bytes) -> tuple[int, bytes] | None:
    """Directory and name under which entries of a path stand, None where that
    directory never was."""
    if not path:
        return ABOVE_ROOT, b""
    head, _, name = path.rpartition(b"/")
    parent = catalog.directory_id(head)
    return None if parent is None else (parent, name)


def child(catalog: Catalog, directory: int, name: bytes) -> int | None:
    """The id of a directory in a directory."""
    if directory == ABOVE_ROOT:
        return ROOT_DIR
    row = catalog.db.execute(
        "SELECT id FROM directory WHERE parent = ? AND name = ?", (directory, name)
    ).fetchone()
    return None if row is None else int(row[0])


def objects_after(catalog: Catalog, last: int, count: int) -> list[int]:
    """The next objects by number that have something to read back."""
    rows = catalog.db.execute(
        "SELECT id FROM object WHERE id > ? AND kind != ? ORDER BY id LIMIT ?",
        (last, Kind.DIRECTORY, count),
    ).fetchall()
    return [row[0] for row in rows]


def showing(catalog: Catalog, number: int) -> list[PastRow]:
    """Every entry that shows an object, oldest first."""
    rows = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.object = ? ORDER BY e.first, e.id", (number,)
    ).fetchall()
    return [_row(row) for row in rows]


def twins(catalog: Catalog, digest: Digest, number: int) -> list[int]:
    """Other objects with the same content."""
    rows = catalog.db.execute(
        "SELECT id FROM object WHERE digest = ? AND sparse = ? AND id != ?",
        (digest.value, int(digest.sparse), number),
    ).fetchall()
    return [row[0] for row in rows]


def source_ctime(catalog: Catalog, number: int) -> int:
    """The ctime that the source's inode had when an object was last seen there."""
    row = catalog.db.execute("SELECT ctime FROM object WHERE id = ?", (number,)).fetchone()
    ctime: int = row[0]
    return ctime


def freed_by(catalog: Catalog, snapshot: int) -> int:
    """Bytes of the files that only one snapshot shows."""
    before, after = catalog.db.execute(
        "SELECT (SELECT coalesce(max(id), 0) FROM snapshot WHERE id < ?1 AND state != 2),"
        " (SELECT min(id) FROM snapshot WHERE id > ?1 AND state != 2)",
        (snapshot,),
    ).fetchone()
    row = catalog.db.execute(
        "SELECT coalesce(sum(size), 0) FROM object o WHERE o.kind = 1 AND o.id IN"
        " (SELECT e.object FROM entry e WHERE e.first > ?1 AND e.first <= ?2"
        "  AND e.last >= ?2 AND e.last < ?3)"
        " AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.object = o.id"
        "  AND NOT (e.first > ?1 AND e.first <= ?2 AND e.last IS NOT NULL AND e.last >= ?2"
        "  AND e.last < ?3))",
        (before, snapshot, after),
    ).fetchone()
    freed: int = row[0]
    return freed
