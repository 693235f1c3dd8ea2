"""What a catalog that is made anew takes over from the one in whose place it comes.

The folders do not say what a file's digest was, which inode it had in the source, or when it was
last read back.  The old catalog may be damaged, yet each of its rows has a check: what stood at
the same path in the same snapshot, with the same metadata, by rows that are sound, is believed.
So rot in old versions is still found after a catalog was damaged, and the next backup reads no
more than any other.
"""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mirrorback.store import schema
from mirrorback.store.anew import NewCatalog
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR

BATCH = 2000  # entries that are compared at once
DIGEST_LENGTH = 32  # bytes
_TAKEN = ("digest", "sparse", "flags", "btime", "ino", "ctime", "nlink")
_SAME = ("kind", "mode", "mtime", "size", "rdev", "target", "attributes", "drive")


def _sound(table: str, alias: str) -> str:
    return f"{alias}.digest_of_row = {schema.check(schema.CHECKED[table], f'{alias}.')}"


_DIRECTORIES = f"""
INSERT INTO temp.place WITH RECURSIVE both(new, old) AS (
    VALUES ({ROOT_DIR}, {ROOT_DIR}) UNION ALL
    SELECT n.id, o.id FROM both JOIN main.directory n ON n.parent = both.new
    JOIN old.directory o ON o.parent = both.old AND o.name = n.name AND {_sound("directory", "o")})
SELECT new, old FROM both"""
_ENTRIES = f"""
SELECT x.id, x.digest, x.sparse, y.id, {", ".join(f"y.{c}" for c in _TAKEN)}
FROM main.entry n JOIN main.object x ON x.id = n.object JOIN main.owner v ON v.id = x.owner
JOIN temp.place p ON p.new = n.dir JOIN temp.moment m ON m.new = n.first
CROSS JOIN old.entry o ON o.dir = p.old AND o.name = n.name AND o.kind = n.kind
    AND o.first <= m.old AND coalesce(o.last, m.old) >= m.old
CROSS JOIN old.object y ON y.id = o.object CROSS JOIN old.owner w ON w.id = y.owner
WHERE n.id > ? AND n.id <= ? AND {" AND ".join(f"x.{c} IS y.{c}" for c in _SAME)}
    AND v.uid = w.uid AND v.gid = w.gid
    AND {_sound("entry", "o")} AND {_sound("object", "y")} AND {_sound("owner", "w")}
ORDER BY n.id"""


class _Pair(NamedTuple):
    """An object of the new catalog, and what the old one has at its place."""

    number: int
    digest: bytes | None
    sparse: int
    old: int
    known: tuple[object, ...]  # the columns _TAKEN


def inherit(new: NewCatalog, old: bytes, moments: Mapping[int, int]) -> None:
    """Take over what the catalog at the path `old`, whose pages are sound, still says for
    certain into one that has been finished; `moments` gives the old ids of snapshots by the new
    ones.  What cannot be read is left.  Raises what SQLite raises where the new one cannot be
    written."""
    db = new.db
    db.execute("ATTACH ? AS old", ("file:" + urllib.parse.quote(old) + "?mode=ro",))
    try:
        for columns in ("place (new INTEGER PRIMARY KEY, old)", "moment (new PRIMARY KEY, old)"):
            db.execute(f"CREATE TEMP TABLE {columns}")
        db.execute("CREATE TEMP TABLE taken (old INTEGER PRIMARY KEY, new INTEGER UNIQUE)")
        db.executemany("INSERT INTO temp.moment VALUES (?, ?)", moments.items())
        db.execute("INSERT INTO temp.place VALUES (?, ?)", (ABOVE_ROOT, ABOVE_ROOT))
        with contextlib.suppress(sqlite3.DatabaseError):
            db.execute(_DIRECTORIES)
        for pairs in _pairs(db):
            db.execute("BEGIN")
            for pair in pairs.values():
                _take(db, pair)
            db.execute("COMMIT")
        _take_date(db)
    finally:
        for table in ("place", "moment", "taken"):
            db.execute(f"DROP TABLE IF EXISTS temp.{table}")
        if db.in_transaction:
            db.execute("COMMIT")
        db.execute("DETACH old")


def _pairs(db: sqlite3.Connection) -> Iterator[dict[int, _Pair]]:
    """What is to be compared, some at a time, by the new object's id; a part that cannot be
    read is passed over."""
    end = db.execute("SELECT coalesce(max(id), 0) FROM main.entry").fetchone()[0]
    for start in range(0, end, BATCH):
        try:
            rows = db.execute(_ENTRIES, (start, start + BATCH)).fetchall()
        except sqlite3.DatabaseError:
            continue
        yield {row[0]: _Pair._make((*row[:4], row[4:])) for row in rows if _may_be(row[4:])}


def _may_be(known: tuple[object, ...]) -> bool:
    """Whether values are of the kinds that they should be: a check does not tell who made it."""
    digest, sparse, flags, btime, *numbers = known
    return (
        (digest is None or (isinstance(digest, bytes) and len(digest) == DIGEST_LENGTH))
        and (btime is None or isinstance(btime, int))
        and all(isinstance(number, int) for number in (sparse, flags, *numbers))
    )


def _take(db: sqlite3.Connection, pair: _Pair) -> None:
    """Learn of a new object what the old one knew."""
    if pair.digest is not None and (pair.digest, pair.sparse) != pair.known[:2]:
        return  # a delta tells another
    db.execute("INSERT OR IGNORE INTO temp.taken VALUES (?, ?)", (pair.old, pair.number))
    row = db.execute("SELECT new FROM temp.taken WHERE old = ?", (pair.old,)).fetchone()
    if row is None:
        return  # it was another old object already
    values = dict(zip(_TAKEN, pair.known, strict=True))
    if row[0] != pair.number:
        # Two inodes now: which of them the source's numbers belong to, nobody knows.
        values = {column: values[column] for column in ("digest", "sparse", "flags", "btime")}
    sets = ", ".join(f"{column} = :{column}" for column in values)
    changed = schema.check_after(schema.OBJECT, **{c: f":{c}" for c in values})
    db.execute(
        f"UPDATE main.object SET {sets}, digest_of_row = {changed} WHERE id = :id",
        {**values, "id": pair.number},
    )
    _take_finding(db, pair)


def _take_finding(db: sqlite3.Connection, pair: _Pair) -> None:
    """When an object was last read back, and what was wrong with it then."""
    try:
        row = db.execute(
            "SELECT time, problem FROM old.verified v WHERE object = ?"
            f" AND {_sound('verified', 'v')}",
            (pair.old,),
        ).fetchone()
    except sqlite3.DatabaseError:
        return
    if row is not None and isinstance(row[0], int) and isinstance(row[1], str | None):
        db.execute(
            "INSERT OR IGNORE INTO main.verified (object, time, problem) VALUES (?, ?, ?)",
            (pair.number, *row),
        )


def _take_date(db: sqlite3.Connection) -> None:
    """When the source was last found to be what the mirror is."""
    try:
        row = db.execute(
            "SELECT value FROM old.property p WHERE key = 'checked'"
            f" AND typeof(value) = 'integer' AND {_sound('property', 'p')}"
        ).fetchone()
    except sqlite3.DatabaseError:
        return
    if row is not None:
        db.execute("UPDATE main.property SET value = max(value, ?) WHERE key = 'checked'", row)
