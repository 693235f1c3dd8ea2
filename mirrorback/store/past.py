"""The catalog's rows of every snapshot, as the history commands read them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Set
from typing import NamedTuple

from mirrorback.model import Digest, Kind, Metadata
from mirrorback.store import live, usage
from mirrorback.store.catalog import ABOVE_ROOT, DELETING, ROOT_DIR, Catalog, damaged

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


def any_entries(catalog: Catalog, directory: int, snapshot: int) -> bool:
    """Whether there is something in one directory of a snapshot."""
    found = catalog.db.execute(
        f"SELECT 1 FROM entry e WHERE e.dir = ?{_AT} LIMIT 1", (directory, snapshot, snapshot)
    )
    return found.fetchone() is not None


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
    """The id of a directory in a directory.  Raises Damaged."""
    if directory == ABOVE_ROOT:
        return ROOT_DIR
    row = catalog.db.execute(
        "SELECT id FROM directory WHERE parent = ? AND name = ?", (directory, name)
    ).fetchone()
    if row is None:
        return None
    if not isinstance(row[0], int) or row[0] <= directory:  # parents are always older: no cycles
        raise damaged()
    return row[0]


def names(
    catalog: Catalog, directory: int, prefix: bytes, snapshot: int | None, most: int
) -> list[tuple[bytes, bool]]:
    """Names in a directory that begin with `prefix`, by name, and whether each is, or was, a
    directory: in a snapshot, or where that is None in any; `most` of them at most."""
    at = "" if snapshot is None else _AT
    rows = catalog.db.execute(
        "SELECT name, MAX(kind = 2) FROM entry e WHERE e.dir = ? AND substr(e.name, 1, ?) = ?"
        f"{at} GROUP BY name ORDER BY name LIMIT ?",
        (directory, len(prefix), prefix, *([] if snapshot is None else [snapshot] * 2), most),
    )
    return [(name, bool(folder)) for name, folder in rows.fetchall()]


def showing(catalog: Catalog, number: int) -> list[PastRow]:
    """Every entry that shows an object, oldest first."""
    rows = catalog.db.execute(
        f"SELECT {_COLUMNS}{_FROM} WHERE e.object = ? ORDER BY e.first, e.id", (number,)
    ).fetchall()
    return [_row(row) for row in rows]


def twins(catalog: Catalog, digest: Digest, number: int) -> list[int]:
    """Other objects with the same content.  The first question makes an index of its own: where
    much is damaged, there are many."""
    db = catalog.db
    if db.execute("SELECT 1 FROM temp.sqlite_schema WHERE name = 'twin'").fetchone() is None:
        db.execute(
            "CREATE TEMP TABLE twin (digest BLOB, sparse INTEGER, id INTEGER,"
            " PRIMARY KEY (digest, sparse, id)) WITHOUT ROWID"
        )
        db.execute(
            "INSERT INTO temp.twin SELECT digest, sparse, id FROM object"
            " WHERE digest IS NOT NULL ORDER BY digest, sparse, id"
        )
    rows = db.execute(
        "SELECT t.id FROM temp.twin t JOIN object o ON o.id = t.id WHERE t.digest = ?"
        " AND t.sparse = ? AND t.id != ? AND o.digest = t.digest ORDER BY t.id",
        (digest.value, int(digest.sparse), number),
    ).fetchall()
    return [row[0] for row in rows]


def alike(catalog: Catalog, number: int, most: int) -> list[int]:
    """Other objects, no more than so many, that are of the same kind and content, as far as
    that is known."""
    _metadata, digest = live.object_row(catalog, number)
    if digest is not None:
        return twins(catalog, digest, number)[:most]
    rows = catalog.db.execute(
        "SELECT o.id FROM object o JOIN object i ON i.id = ?1 AND o.kind = i.kind"
        " AND o.size = i.size AND o.rdev = i.rdev AND o.target IS i.target AND o.digest IS NULL"
        " WHERE o.id != i.id LIMIT ?2",
        (number, most),
    ).fetchall()
    return [row[0] for row in rows]


def marked(catalog: Catalog) -> list[tuple[int, str]]:
    """The objects with which something is wrong, and what: directories, parents first, then
    all else, newest first."""
    return catalog.db.execute(
        "SELECT v.object, v.problem FROM verified v JOIN object o ON o.id = v.object"
        " WHERE v.problem IS NOT NULL"
        " ORDER BY o.kind != 2, CASE WHEN o.kind = 2 THEN o.id ELSE -o.id END"
    ).fetchall()


def only_in(catalog: Catalog, snapshots: Collection[int]) -> set[int]:
    """The objects that only these snapshots show."""
    return set(usage.going(catalog, snapshots).numbers)


def any_deltas(catalog: Catalog) -> bool:
    """Whether some object is a delta."""
    return catalog.db.execute("SELECT 1 FROM delta LIMIT 1").fetchone() is not None


def dependents(catalog: Catalog, objects: Set[int]) -> list[tuple[int, int]]:
    """Deltas, not themselves among some objects, that are over one of these: each with what
    it is over."""
    rows = catalog.db.execute("SELECT object, base FROM delta ORDER BY object")
    return [(number, base) for number, base in rows if base in objects and number not in objects]


def longest_chain(catalog: Catalog, number: int) -> int:
    """How many deltas the longest chain over an object has."""
    row = catalog.db.execute(
        "WITH RECURSIVE over(object, depth) AS (VALUES (?, 0) UNION ALL"
        " SELECT d.object, o.depth + 1 FROM delta d JOIN over o ON d.base = o.object"
        "  WHERE o.depth < 1000) SELECT max(depth) FROM over",
        (number,),
    ).fetchone()
    depth: int = row[0]
    return depth


def overlaps(catalog: Catalog, row: PastRow, name: bytes) -> bool:
    """Whether something of a name stood beside an entry in some snapshot."""
    last = (1 << 62) if row.last is None else row.last
    found = catalog.db.execute(
        "SELECT 1 FROM entry WHERE dir = ? AND name = ? AND first <= ?"
        " AND (last IS NULL OR last >= ?) LIMIT 1",
        (row.dir, name, last, row.first),
    ).fetchone()
    return found is not None


def links_of(catalog: Catalog, number: int) -> int:
    """How many names the snapshots give an object."""
    row = catalog.db.execute(
        "SELECT count(*) FROM entry e JOIN snapshot s ON s.id >= e.first"
        " AND s.id <= coalesce(e.last, s.id) WHERE e.object = ? AND s.state != ?",
        (number, DELETING),
    ).fetchone()
    count: int = row[0]
    return count


class Holding(NamedTuple):
    """How the drive holds an object."""

    drive: int  # `schema.WHOLE` and so on
    base: int | None  # of a delta: the object it is over
    given: bool  # its file may still lie in `redo`, not yet in all folders
    patched: bool  # changes that lie in `redo` may not all be in its file yet
    live: bool  # the mirror shows it


def holding(catalog: Catalog, number: int) -> Holding | None:
    """How an object is held; None where there is none."""
    row = catalog.db.execute(
        "SELECT o.drive, d.base, r.object IS NOT NULL,"
        " EXISTS (SELECT 1 FROM replacing p WHERE p.patched = o.id),"
        " EXISTS (SELECT 1 FROM entry e WHERE e.object = o.id AND e.last IS NULL)"
        " FROM object o LEFT JOIN delta d ON d.object = o.id"
        " LEFT JOIN replacing r ON r.object = o.id WHERE o.id = ?",
        (number,),
    ).fetchone()
    return row and Holding(row[0], row[1], bool(row[2]), bool(row[3]), bool(row[4]))
