"""What the catalog knows of space: which objects stand and fall with snapshots, and their names.

Every query is short and ends at once, for who holds the catalog keeps a backup from its commit.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from mirrorback.model import Kind
from mirrorback.store import schema
from mirrorback.store.catalog import DELETING, Catalog

AT_ONCE = 500  # objects
FOLDERS_AT_ONCE = 5000
_FOLDER = int(Kind.DIRECTORY)


class Named(NamedTuple):
    """A name of an object, over the snapshots in which it stands; `last` None is the mirror."""

    dir: int
    name: bytes
    first: int
    last: int | None


class Stored(NamedTuple):
    """An object that is no folder."""

    number: int
    lineage: int
    kind: int
    drive: int  # `schema.WHOLE` and so on
    size: int  # bytes of the content
    stored: int | None  # bytes of the delta, where it is one
    base: int | None  # the object that this one is over
    names: tuple[Named, ...]


class Objects(NamedTuple):
    """Objects by number, each with a lineage of its entries; those of one lineage stand
    together, oldest first."""

    numbers: array[int]
    lineages: array[int]


def existing(catalog: Catalog) -> list[int]:
    """The ids of all snapshots, oldest first; the last is the mirror."""
    return [snapshot.id for snapshot in catalog.snapshots()]


def snapshots_are_sound(catalog: Catalog) -> bool:
    """Whether all that is said of snapshots is what was written, by the checks of these rows."""
    wrong = f"digest_of_row IS NOT {schema.check(schema.SNAPSHOT)}"
    return catalog.db.execute(f"SELECT 1 FROM snapshot WHERE {wrong} LIMIT 1").fetchone() is None


def going(catalog: Catalog, snapshots: Collection[int]) -> Objects:
    """The objects that are no folders and that some of these snapshots show, and no others."""
    rows = catalog.db.execute(
        _SHOWN + " SELECT object, min(lineage), count(*) FROM shown WHERE kind != ?2"
        " GROUP BY object HAVING count(*) ="
        "  (SELECT count(*) FROM entry o WHERE o.object = shown.object) ORDER BY 2, 1",
        (_runs(existing(catalog), snapshots), _FOLDER),
    )
    return _objects(rows)


def everything(catalog: Catalog, least: int) -> Objects:
    """All objects that are no folders; of whole files those of `least` bytes at least."""
    return _objects(
        catalog.db.execute(
            "SELECT o.id, min(e.lineage) FROM object o CROSS JOIN entry e ON e.object = o.id"
            f" WHERE o.kind != ? AND NOT ({_SMALL}) GROUP BY o.id ORDER BY 2, 1",
            (_FOLDER, least),
        )
    )


_SMALL = f"o.kind = {int(Kind.FILE)} AND o.drive = {schema.WHOLE} AND o.size < ?"


def small(catalog: Catalog, least: int, block: int) -> list[tuple[int, int]]:
    """The whole files below `least` bytes: the snapshots (ids) in which some came first, each
    with their bytes together, of each file those of the blocks that it needs at most."""
    rows = catalog.db.execute(
        f"SELECT came, {schema.added('(size + ?1 - 1) / ?1 * ?1')}"
        " FROM (SELECT min(e.first) AS came, o.size AS size FROM object o"
        " CROSS JOIN entry e ON e.object = o.id"
        f" WHERE {_SMALL.replace('?', '?2')} GROUP BY o.id) GROUP BY came ORDER BY came",
        (block, least),
    )
    return rows.fetchall()


def objects(catalog: Catalog) -> int:
    """How many objects there are, folders included."""
    count: int = catalog.db.execute("SELECT count(*) FROM object").fetchone()[0]
    return count


# Entries shown between the snapshots on either side of a run that goes; after the mirror comes
# none, and its entries have no `last`.
_SHOWN = (
    "WITH run(low, high) AS (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')"
    "  FROM json_each(?1)), shown(object, lineage, kind) AS ("
    "  SELECT e.object, e.lineage, e.kind FROM run CROSS JOIN entry e"
    "   ON e.last > run.low AND e.last < run.high AND e.first > run.low"
    "  UNION ALL SELECT e.object, e.lineage, e.kind FROM run CROSS JOIN entry e"
    "   ON run.high IS NULL AND e.first > run.low)"
)


def _runs(known: Sequence[int], snapshots: Collection[int]) -> str:
    """The neighbours of each unbroken run of some snapshots, as JSON; 0 and null at the ends."""
    runs: list[tuple[int, int | None]] = []
    low, inside = 0, False
    for number in known:
        if number in snapshots:
            inside = True
            continue
        if inside:
            runs.append((low, number))
        low, inside = number, False
    if inside:
        runs.append((low, None))
    return json.dumps(runs)


def _objects(rows: Iterator[tuple[int, ...]]) -> Objects:
    numbers, lineages = array("q"), array("q")
    for row in rows:
        numbers.append(row[0])
        lineages.append(row[1])
    return Objects(numbers, lineages)


def details(catalog: Catalog, objects: Objects) -> Iterator[Stored]:
    """All of some objects, in their order; what has gone meanwhile is left out."""
    for at in range(0, len(objects.numbers), AT_ONCE):
        numbers = objects.numbers[at : at + AT_ONCE]
        lineages = objects.lineages[at : at + AT_ONCE]
        with catalog.lock:
            found = _rows(catalog, numbers.tolist())
        for number, lineage in zip(numbers, lineages, strict=True):
            if number in found:
                kind, drive, size, stored, base, names = found[number]
                yield Stored(number, lineage, kind, drive, size, stored, base, tuple(names))


def _rows(
    catalog: Catalog, numbers: list[int]
) -> dict[int, tuple[int, int, int, int | None, int | None, list[Named]]]:
    rows = catalog.db.execute(
        "SELECT o.id, o.kind, o.drive, o.size, d.stored, d.base, e.dir, e.name, e.first, e.last"
        " FROM json_each(?) j JOIN object o ON o.id = j.value JOIN entry e ON e.object = o.id"
        " LEFT JOIN delta d ON d.object = o.id",
        (json.dumps(numbers),),
    ).fetchall()
    found: dict[int, tuple[int, int, int, int | None, int | None, list[Named]]] = {}
    for number, kind, drive, size, stored, base, *named in rows:
        if number not in found:
            found[number] = (kind, drive, size, stored, base, [])
        found[number][-1].append(Named(*named))
    return found


def objects_of_lineages(catalog: Catalog, lineages: Collection[int]) -> dict[int, list[int]]:
    """All objects of some lineages, each by number, oldest first.  Reads all entries."""
    rows = catalog.db.execute(
        "SELECT DISTINCT lineage, object FROM entry"
        " WHERE lineage IN (SELECT value FROM json_each(?)) ORDER BY lineage, object",
        (json.dumps(list(lineages)),),
    ).fetchall()
    found: dict[int, list[int]] = {}
    for lineage, number in rows:
        found.setdefault(lineage, []).append(number)
    return found


def split(catalog: Catalog) -> list[int]:
    """The objects that lie on several inodes, by number.  Reads all objects."""
    rows = catalog.db.execute("SELECT id FROM object WHERE drive = ? ORDER BY id", (schema.SPLIT,))
    return [row[0] for row in rows]


def numbered(catalog: Catalog, numbers: Sequence[int]) -> Objects:
    """Some objects by their numbers, as `details` takes them; their lineages are their own."""
    return Objects(array("q", numbers), array("q", numbers))


def folders(catalog: Catalog) -> Iterator[Named]:
    """Every folder's entries: the source itself comes as a name in nothing."""
    low = 0
    while low is not None:
        with catalog.lock:
            above = catalog.db.execute(
                "SELECT id FROM directory WHERE id >= ? ORDER BY id LIMIT 1 OFFSET ?",
                (low, FOLDERS_AT_ONCE),
            ).fetchone()
            high = above and above[0]
            rows = catalog.db.execute(
                "SELECT e.dir, e.name, e.first, e.last FROM directory d NOT INDEXED"
                " CROSS JOIN entry e ON e.dir = d.parent AND e.name = d.name AND e.kind = ?1"
                " WHERE d.id >= ?2 AND (?3 IS NULL OR d.id < ?3) ORDER BY d.parent, e.first",
                (_FOLDER, low, high),
            ).fetchall()
        yield from (Named(*row) for row in rows)
        low = high


def deltas(catalog: Catalog) -> dict[int, tuple[int, int]]:
    """All deltas: what each is over, and its bytes."""
    rows = catalog.db.execute("SELECT object, base, stored FROM delta")
    return {number: (base, stored) for number, base, stored in rows}


def sizes(catalog: Catalog, numbers: Sequence[int]) -> dict[int, int]:
    """The bytes of some objects' content."""
    rows = catalog.db.execute(
        "SELECT id, size FROM object WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    )
    return dict(rows.fetchall())


def leaving(catalog: Catalog) -> list[int]:
    """The ids of snapshots whose removal has begun: their folders may still be there."""
    return [number for number, _name, _root in catalog.in_state(DELETING)]


class Kept(NamedTuple):
    """A path, with the number of its versions."""

    dir: int
    name: bytes
    versions: int


def most_changed(catalog: Catalog, count: int) -> list[Kept]:
    """The files and so on (no folders) with the most versions, at least two."""
    rows = catalog.db.execute(
        "SELECT dir, name, count(*) FROM entry WHERE kind != ? GROUP BY dir, name"
        " HAVING count(*) > 1 ORDER BY 3 DESC, dir, name LIMIT ?",
        (_FOLDER, count),
    )
    return [Kept(*row) for row in rows.fetchall()]


def largest(catalog: Catalog, count: int) -> list[Kept]:
    """The files of which all versions together take the most bytes: by their sizes, holes and
    shared parts not considered."""
    rows = catalog.db.execute(
        "SELECT e.dir, e.name, count(*) FROM entry e JOIN object o ON o.id = e.object"
        " LEFT JOIN delta d ON d.object = o.id WHERE e.kind = ?"
        " GROUP BY e.dir, e.name ORDER BY total(coalesce(d.stored, o.size)) DESC, e.dir, e.name"
        " LIMIT ?",
        (int(Kind.FILE), count),
    )
    return [Kept(*row) for row in rows.fetchall()]


def objects_at(catalog: Catalog, directory: int, name: bytes) -> Objects:
    """The objects, no folders, that have stood at one path."""
    return _objects(
        catalog.db.execute(
            "SELECT object, min(lineage) FROM entry WHERE dir = ? AND name = ? AND kind != ?"
            " GROUP BY object ORDER BY 2, 1",
            (directory, name, _FOLDER),
        )
    )


def versions(catalog: Catalog) -> int:
    """How many versions of files and so on (no folders) there are."""
    row = catalog.db.execute("SELECT count(*) FROM entry WHERE kind != ?", (_FOLDER,)).fetchone()
    count: int = row[0]
    return count
