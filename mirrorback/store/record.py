"""The catalog's transactions: what a backup has spooled becomes history."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mirrorback.store import schema
from mirrorback.store.catalog import DELETING, PENDING, PUBLISHED, Catalog
from mirrorback.store.schema import check as _check
from mirrorback.store.schema import check_after as _recheck
from mirrorback.store.spool import Spool

_VERIFIED = f"({', '.join(schema.VERIFIED)})"


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """What is to be said of a snapshot besides what the spool holds."""

    name: str
    time: int
    offset: int
    root: int  # inode number of its folder on the drive
    incomplete: bool
    pin_previous: str | None = None  # why the one before it is to stay; else as it was


def snapshot(
    catalog: Catalog,
    spool: Spool,
    new: NewSnapshot,
    mirror: int | None,
    before_commit: Callable[[], None],
) -> int:
    """Record the spooled state as the newest snapshot, its folders still to be
    published.  Durable when it returns: this is the commit point of a backup.

    `mirror` is the inode number of the mirror's folder as it is now; that of
    its own backup does not hold in a repository that was copied.  `before_commit`
    is called when all is written but the commit.  Returns the snapshot's id."""
    spool.flush()
    with catalog.transaction() as db:
        previous = db.execute(
            "SELECT id, files, bytes FROM snapshot WHERE state != ? ORDER BY id DESC LIMIT 1",
            (DELETING,),
        ).fetchone()
        newest = db.execute("SELECT coalesce(max(id), 0) FROM snapshot").fetchone()[0]
        number: int = newest + 1
        files, size = _totals(db, spool, previous)
        if previous is not None and mirror is not None:
            db.execute("UPDATE snapshot SET root = ? WHERE id = ?", (mirror, previous[0]))
        if new.pin_previous is not None and previous is not None:
            db.execute(
                "UPDATE snapshot SET pinned = ? WHERE id = ?",
                (new.pin_previous, previous[0]),
            )
        db.execute(
            f"INSERT INTO snapshot ({', '.join(schema.SNAPSHOT)})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)",
            (
                number,
                new.name,
                new.time,
                new.offset,
                PENDING,
                new.root,
                int(new.incomplete),
                files,
                size,
            ),
        )
        _take_over(db, spool, number, previous[0] if previous else 0)
        _remember(db, "checked", new.time)
        before_commit()
    return number


def pin(catalog: Catalog, pins: Mapping[int, str | None]) -> None:
    """Pin snapshots, by their ids, with the reasons given, or with None no longer: all of them,
    durably, or none."""
    with catalog.transaction() as db:
        db.executemany(
            "UPDATE snapshot SET pinned = ? WHERE id = ?",
            [(reason, number) for number, reason in pins.items()],
        )


def published(catalog: Catalog, number: int) -> None:
    """Note that a snapshot's folders are where they belong."""
    with catalog.transaction() as db:
        db.execute("UPDATE snapshot SET state = ? WHERE id = ?", (PUBLISHED, number))
        db.execute("DELETE FROM replacing WHERE removal IS NULL")


def checked(catalog: Catalog, spool: Spool, now: int) -> None:
    """Note that the source was looked at and showed nothing new."""
    spool.flush()
    with catalog.transaction() as db:
        if spool.used:
            _take_attributes(db, spool)
            _update_rows(db)
        _remember(db, "checked", now)


@dataclass(frozen=True, slots=True)
class Replaced:
    """An object whose file has been written anew, into `redo/`: a delta of `stored` bytes over
    another base, or without one all of it."""

    object: int
    base: int | None
    stored: int = 0


def deleting(catalog: Catalog, number: int, replaced: Iterable[Replaced]) -> None:
    """Take a snapshot out of every list; its folder is still to be removed, and before that
    what depends on it to be replaced."""
    with catalog.transaction() as db:
        for new in replaced:
            form = _reform(db, new)
            values = (new.object, form, number)
            db.execute(
                "INSERT INTO replacing (object, form, patched, removal) VALUES (?, ?, NULL, ?)",
                values,
            )
        db.execute("UPDATE snapshot SET state = ? WHERE id = ?", (DELETING, number))


def stays_whole(catalog: Catalog, number: int) -> None:
    """Note that an object is no delta, though a backup was to give it one."""
    with catalog.transaction() as db:
        _reform(db, Replaced(number, None))
        db.execute(
            "UPDATE replacing SET form = ? WHERE object = ? AND removal IS NULL",
            (schema.WHOLE, number),
        )


def _reform(db: sqlite3.Connection, new: Replaced) -> int:
    """Let an object be held as it has been written anew; the form."""
    form = schema.WHOLE if new.base is None else schema.DELTA
    db.execute("DELETE FROM delta WHERE object = ?", (new.object,))
    if new.base is not None:
        db.execute(
            "INSERT INTO delta VALUES (?1, ?2, ?3, row_check(?1, ?2, ?3))",
            (new.object, new.base, new.stored),
        )
    _set_drive(db, new.object, form)
    return form


def _set_drive(db: sqlite3.Connection, number: int, drive: int) -> None:
    db.execute(
        f"UPDATE object SET drive = ?1, digest_of_row = {_recheck(schema.OBJECT, drive='?1')}"
        " WHERE id = ?2",
        (drive, number),
    )


def damaged(catalog: Catalog, number: int, time: int, problem: str) -> None:
    """Note that something is wrong with an object; `time` as in `snapshot`."""
    with catalog.transaction() as db:
        db.execute(
            f"INSERT OR REPLACE INTO verified {_VERIFIED} VALUES (?, ?, ?)", (number, time, problem)
        )


def missing(catalog: Catalog, numbers: Iterable[int], time: int, problem: str) -> None:
    """Note the same of many objects, but for those of which something worse is known."""
    with catalog.transaction() as db:
        db.executemany(
            f"INSERT INTO verified {_VERIFIED} VALUES (?1, ?2, ?3) ON CONFLICT (object)"
            " DO UPDATE SET time = ?2, problem = ?3 WHERE problem IS NULL",
            ((number, time, problem) for number in numbers),
        )


def has_root(catalog: Catalog, number: int, root: int) -> None:
    """Note the inode number that the folder of a snapshot has by now."""
    with catalog.transaction() as db:
        db.execute("UPDATE snapshot SET root = ? WHERE id = ?", (root, number))


def mending(catalog: Catalog, mends: Mapping[int, Replaced | None]) -> None:
    """Note that the files of some objects, which lie in `redo/`, are to take the place of what
    is damaged; where one is held otherwise than before, how."""
    with catalog.transaction() as db:
        for number, new in mends.items():
            if new is not None:
                form = _reform(db, new)
            else:
                row = db.execute("SELECT drive FROM object WHERE id = ?", (number,)).fetchone()
                form = schema.DELTA if row[0] == schema.DELTA else schema.WHOLE
            values = (number, form, schema.MENDING)
            db.execute(
                "INSERT INTO replacing (object, form, patched, removal) VALUES (?, ?, NULL, ?)",
                values,
            )


def mended(catalog: Catalog, mends: Iterable[int], split: Iterable[int]) -> None:
    """Note that these objects have their files, some of them `split` over several inodes."""
    with catalog.transaction() as db:
        for number in split:
            _set_drive(db, number, schema.SPLIT)
        for number in mends:
            where = "object = ? AND removal = ?"
            db.execute(f"DELETE FROM replacing WHERE {where}", (number, schema.MENDING))


def sound(catalog: Catalog, numbers: Iterable[int], time: int) -> None:
    """Note that objects were read back and nothing is wrong with them; `time` as in
    `snapshot`."""
    with catalog.transaction() as db:
        db.executemany(
            f"INSERT OR REPLACE INTO verified {_VERIFIED} VALUES (?, ?, NULL)",
            ((n, time) for n in numbers),
        )


def deleted(catalog: Catalog, number: int) -> None:
    """Forget a snapshot and every version that only it showed."""
    with catalog.transaction() as db:
        before = db.execute(
            "SELECT coalesce(max(id), 0) FROM snapshot WHERE id < ?", (number,)
        ).fetchone()[0]
        after = db.execute("SELECT min(id) FROM snapshot WHERE id > ?", (number,)).fetchone()[0]
        # By the index of `last`: few entries end in a snapshot, but all may begin before it.
        only = "+first > ? AND +first <= ? AND last >= ? AND last < ?"
        bounds = (before, number, number, after)
        db.execute("CREATE TEMP TABLE freed (object INTEGER PRIMARY KEY)")
        db.execute(
            f"INSERT OR IGNORE INTO temp.freed SELECT object FROM entry WHERE {only}", bounds
        )
        db.execute(f"DELETE FROM entry WHERE {only}", bounds)
        _delete_objects(db)
        db.execute(
            "DELETE FROM verified WHERE object IN (SELECT object FROM temp.freed)"
            " AND NOT EXISTS (SELECT 1 FROM object WHERE id = verified.object)"
        )
        db.execute("DELETE FROM replacing WHERE removal = ?", (number,))
        db.execute("DROP TABLE temp.freed")
        db.execute("DELETE FROM snapshot WHERE id = ?", (number,))


def _delete_objects(db: sqlite3.Connection) -> None:
    """Delete those of `freed` that nothing shows; but what a delta is over stays known as long
    as that, even where its file has gone: no other object may get its number."""
    while db.execute(
        "DELETE FROM object WHERE id IN (SELECT object FROM temp.freed)"
        " AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.object = object.id)"
        " AND NOT EXISTS (SELECT 1 FROM delta WHERE delta.base = object.id)"
    ).rowcount:
        gone = "object IN (SELECT object FROM temp.freed) AND object NOT IN (SELECT id FROM object)"
        db.execute(f"INSERT OR IGNORE INTO temp.freed SELECT base FROM delta WHERE {gone}")
        if not db.execute(f"DELETE FROM delta WHERE {gone}").rowcount:
            break


def _totals(
    db: sqlite3.Connection, spool: Spool, previous: tuple[int, int, int] | None
) -> tuple[int, int]:
    """Number of files and their size in the new snapshot, by what came and went."""
    files, size = (previous[1], previous[2]) if previous else (0, 0)
    if not spool.used:
        return files, size
    size_of = "CASE WHEN kind = 1 THEN size ELSE 0 END"
    sums = f"coalesce(sum(kind != 2), 0), {schema.added(size_of)}"
    gone = db.execute(
        f"SELECT {sums} FROM (SELECT e.kind AS kind, o.size AS size FROM main.entry e"
        " JOIN main.object o ON o.id = e.object WHERE e.id IN"
        " (SELECT entry FROM spool.gone WHERE NOT replaced UNION SELECT entry FROM spool.closed))"
    ).fetchone()
    new = db.execute(
        f"SELECT {sums} FROM (SELECT e.kind AS kind, coalesce(o.size, p.size) AS size"
        " FROM spool.entry e LEFT JOIN main.object o ON o.id = e.object"
        " LEFT JOIN spool.object p ON p.id = e.object)"
    ).fetchone()
    return files - gone[0] + new[0], schema.held(size - gone[1] + new[1])


def _take_over(db: sqlite3.Connection, spool: Spool, number: int, previous: int) -> None:
    _take_attributes(db, spool)
    if not spool.used:
        return
    db.execute(
        "INSERT INTO main.directory (id, parent, name)"
        " SELECT id, parent, name FROM spool.directory ORDER BY id"
    )
    columns = ", ".join(schema.OBJECT)
    db.execute(
        f"INSERT INTO main.object SELECT {columns}, {_check(schema.OBJECT)}"
        " FROM spool.object ORDER BY id"
    )
    db.execute(
        f"UPDATE main.entry SET last = :at, digest_of_row = {_recheck(schema.ENTRY, last=':at')}"
        " WHERE id IN (SELECT entry FROM spool.gone WHERE NOT replaced"
        " UNION SELECT entry FROM spool.closed)",
        {"at": previous},
    )
    columns = ", ".join("?1" if c == "first" else c for c in schema.ENTRY)
    db.execute(
        f"INSERT INTO main.entry SELECT {columns}, {_check(schema.ENTRY, first='?1')}"
        " FROM spool.entry ORDER BY id",
        (number,),
    )
    _take_deltas(db)
    _update_rows(db)


def _take_attributes(db: sqlite3.Connection, spool: Spool) -> None:
    """Owners and extended attributes that objects name."""
    db.executemany(
        "INSERT INTO owner (id, uid, gid, user, grp) VALUES (?, ?, ?, ?, ?)", spool.new_owners()
    )
    if spool.used:
        db.execute(
            "INSERT OR IGNORE INTO main.attributes SELECT digest, value FROM spool.attributes"
        )


def _take_deltas(db: sqlite3.Connection) -> None:
    """Objects that are deltas from now on."""
    db.execute(
        f"UPDATE main.object SET drive = {schema.DELTA},"
        f" digest_of_row = {_recheck(schema.OBJECT, drive=str(schema.DELTA))}"
        " WHERE id IN (SELECT object FROM spool.delta)"
    )
    db.execute(
        "INSERT OR REPLACE INTO main.delta SELECT object, base, stored,"
        f" {_check(schema.DELTA_ROW)} FROM spool.delta"
    )
    db.execute(
        "INSERT INTO main.replacing (object, form, patched)"
        " SELECT object, form, patched FROM spool.replacing"
    )


def _update_rows(db: sqlite3.Connection) -> None:
    """What changes of rows that stay: the source's numbers, marks, fingerprints; what has been
    learnt of objects that nobody had seen in the source."""
    learnt = ("mode", "owner", "mtime", "attributes", "flags", "btime", "digest", "sparse")
    known = {c: f"l.{c}" for c in learnt}
    db.execute(
        f"UPDATE main.object SET {', '.join(f'{c} = l.{c}' for c in learnt)}, digest_of_row ="
        f" {_recheck(schema.OBJECT, 'main.object.', **known)}"
        " FROM spool.learnt l WHERE l.object = main.object.id"
    )
    fresh = {"ino": "r.ino", "ctime": "r.ctime", "nlink": "r.nlink"}
    db.execute(
        "UPDATE main.object SET ino = r.ino, ctime = r.ctime, nlink = r.nlink, digest_of_row ="
        f" {_recheck(schema.OBJECT, 'main.object.', **fresh)}"
        " FROM spool.refresh r WHERE r.object = main.object.id"
    )
    db.execute(
        f"UPDATE main.object SET drive = 1, digest_of_row = {_recheck(schema.OBJECT, drive='1')}"
        " WHERE id IN (SELECT object FROM spool.split)"
    )
    db.execute(
        "UPDATE main.entry SET stale = s.stale, digest_of_row ="
        f" {_recheck(schema.ENTRY, 'main.entry.', stale='s.stale')}"
        " FROM spool.stale s WHERE s.entry = main.entry.id"
    )
    db.execute(
        "UPDATE main.directory SET fingerprint = f.value"
        " FROM spool.fingerprint f WHERE f.dir = main.directory.id"
    )


def _remember(db: sqlite3.Connection, key: str, value: object) -> None:
    db.execute("INSERT OR REPLACE INTO property (key, value) VALUES (?, ?)", (key, value))
