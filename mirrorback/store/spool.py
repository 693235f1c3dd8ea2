"""The spool: what a backup has found and made, on disk until it is recorded.

It lies beside the catalog and is attached to it, so that moves are found and
results taken over by SQL, however many there are.  It is made with the first
difference: a night without changes writes none.  Only the lock's holder uses
it, and it is worth nothing after a crash.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mirrorback.model import Digest, Kind, Metadata, Owner
from mirrorback.store import encoding, owners, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.copier import Copied
from mirrorback.store.difference import Action, Difference, Gone
from mirrorback.store.together import by_directory
from mirrorback.store.tree import Row
from mirrorback.store.xattrs import Attributes

BATCH = 2000


_CHANGE_COLUMNS = ", ".join(Difference._fields)
_CHANGE_MARKS = ", ".join("?" * len(Difference._fields))
_REPLACE = (
    f"UPDATE spool.change SET {', '.join(f'{c} = ?' for c in Difference._fields[1:])} WHERE id = ?"
)
_GONE_MARKS = ", ".join("?" * len(Gone._fields))


_ARRIVAL = (*Difference._fields[:14], "allocated", "action")
_ARRIVE = (
    f"INSERT INTO spool.change ({', '.join(_ARRIVAL)}) VALUES ({', '.join('?' * len(_ARRIVAL))})"
)
FAR = 1 << 62  # ns: times beyond are packed


class Spool:
    """The spool of one run.  Its methods may be called from several threads."""

    def __init__(self, catalog: Catalog, path: bytes) -> None:
        self._catalog = catalog
        self._db = catalog.db
        self._lock = catalog.lock
        self.path = path
        self.used = False
        self._changes: list[tuple[Any, ...]] = []
        self._arrivals: list[tuple[Any, ...]] = []
        self._gone: list[Gone] = []
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._waiting = 0
        self._change_ids = itertools.count(1)
        self._owners = catalog.owners()
        self._owners_known = len(self._owners)
        self._next = {
            table: (self._db.execute(f"SELECT max(id) FROM main.{table}").fetchone()[0] or 0) + 1
            for table in ("object", "entry", "directory")
        }

    # --- filling it -------------------------------------------------------------

    def next_change(self) -> int:
        """A number for a new difference."""
        return next(self._change_ids)

    def new_id(self, table: str) -> int:
        """A number for a new object, entry or directory."""
        with self._lock:
            number = self._next[table]
            self._next[table] = number + 1
            return number

    def owner(self, owner: Owner) -> int:
        """The id of an owner, a new one where it is new."""
        with self._lock:
            return self._owners.setdefault(owner, len(self._owners) + 1)

    def change(self, difference: Difference) -> None:
        """Add a difference."""
        with self._lock:
            self._changes.append(difference.columns())
            self._count()

    def arrival(
        self, directory: int, name: bytes, kind: Kind, dev: int, row: Row, allocated: int
    ) -> None:
        """Add a difference for a path that the mirror does not have, as it was listed.
        A first backup has a million of them."""
        _name, ino, mode, size, mtime, ctime, uid, gid, nlink, rdev = row
        if not -FAR < mtime < FAR:
            mtime = encoding.pack_time(mtime)  # type: ignore[assignment]
        action = Action.DIRECTORY if kind is Kind.DIRECTORY else Action.COPY
        with self._lock:
            self._arrivals.append(
                (
                    next(self._change_ids),
                    directory,
                    name,
                    int(kind),
                    ino,
                    dev,
                    mode & 0o7777,
                    size,
                    mtime,
                    ctime,
                    uid,
                    gid,
                    nlink,
                    rdev,
                    allocated,
                    action,
                )
            )
            self._count()

    def gone(self, gone: Gone) -> None:
        """Add an entry that is gone or replaced."""
        with self._lock:
            self._gone.append(gone._replace(mtime=encoding.pack_time(gone.mtime)))  # type: ignore[arg-type]
            self._count()

    def add(self, table: str, *row: Any) -> None:
        """Add a row to one of the result tables; an earlier one with its key gives way."""
        with self._lock:
            self._rows.setdefault(table, []).append(row)
            self._count()

    def new_files(self, files: Sequence[tuple[int, bytes, Copied]]) -> None:
        """Add regular files that are new: each the directory, the name, and what was copied.
        A first backup has a million of them."""
        with self._lock:
            number, entry = self._next["object"], self._next["entry"]
            self._next["object"] += len(files)
            self._next["entry"] += len(files)
            objects = self._rows.setdefault("object", [])
            entries = self._rows.setdefault("entry", [])
            for directory, name, c in files:
                mtime = c.mtime if -FAR < c.mtime < FAR else encoding.pack_time(c.mtime)
                attributes = self.attributes(c.xattrs) if c.xattrs else None
                owner = self.owner(owners.named(c.uid, c.gid))
                objects.append(
                    (
                        *(number, 1, c.mode, owner, mtime, c.size, 0, None, attributes),
                        *(c.flags, c.btime, c.digest, c.sparse, schema.WHOLE),
                        *(c.ino, c.ctime, c.nlink),
                    )
                )
                entries.append(
                    (entry, directory, name, 1, None, None, number, entry, None, None, 0)
                )
                number += 1
                entry += 1
            self._count(2 * len(files))

    def attributes(self, xattrs: Attributes) -> bytes | None:
        """Store extended attributes; the key an object names them by, None for none."""
        if not xattrs:
            return None
        packed = encoding.pack_xattrs(xattrs)
        key = encoding.attributes_key(packed)
        self.add("attributes", key, packed)
        return key

    def object(
        self,
        number: int,
        metadata: Metadata,
        digest: Digest | None,
        source: tuple[int, int, int],
        drive: int = schema.WHOLE,
    ) -> None:
        """Add a new object; `source` is ino, ctime and nlink there."""
        self.add(
            "object",
            number,
            int(metadata.kind),
            metadata.mode,
            self.owner(metadata.owner),
            encoding.pack_time(metadata.mtime),
            metadata.size,
            metadata.rdev,
            metadata.target,
            self.attributes(metadata.xattrs),
            metadata.flags,
            metadata.btime,
            digest.value if digest else None,
            int(digest.sparse) if digest else 0,
            drive,
            *source,
        )

    def gone_below(self, directory: int) -> None:
        """Add everything the mirror has below a directory as gone."""
        self.flush()
        self._open()
        with self._lock:
            self._db.execute(
                "INSERT INTO spool.gone"
                " WITH RECURSIVE below(id) AS (VALUES (?) UNION ALL"
                "  SELECT d.id FROM main.directory d JOIN below b"
                "   ON d.parent = b.id AND d.id > b.id)"
                " SELECT e.id, e.dir, e.name, e.kind, e.object, e.lineage, o.ino, o.size, o.mtime,"
                "  0, NULL FROM below b JOIN main.entry e ON e.dir = b.id AND e.last IS NULL"
                "  JOIN main.object o ON o.id = e.object",
                (directory,),
            )
            self._db.execute(
                "INSERT OR REPLACE INTO spool.fingerprint"
                " WITH RECURSIVE below(id) AS (VALUES (?) UNION ALL"
                "  SELECT d.id FROM main.directory d JOIN below b"
                "   ON d.parent = b.id AND d.id > b.id)"
                " SELECT b.id, NULL FROM below b JOIN main.directory d ON d.id = b.id"
                "  WHERE d.fingerprint IS NOT NULL",
                (directory,),
            )

    def update(self, sql: str, parameters: tuple[Any, ...] = ()) -> None:
        """Run a statement on what has been filled in so far."""
        self.flush()
        if self.used:
            with self._lock:
                self._db.execute(sql, parameters)

    def replace(self, differences: Iterable[Difference]) -> None:
        """Put differences in the place of those that have their numbers."""
        self.flush()
        rows = ((*d.columns()[1:], d.id) for d in differences)
        if self.used:
            with self._lock, self._batch():
                self._db.executemany(_REPLACE, rows)

    # --- reading it ---------------------------------------------------------------

    def select(self, sql: str, parameters: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, a batch in memory at a time.  The query must name
        a key order that goes on: it is run again behind the last row, so it has
        to take `:after` (an integer, at first -1) and give that key first."""
        self.flush()
        after: Any = -1
        while self.used:
            with self._lock:
                rows = self._db.execute(f"{sql} LIMIT {BATCH}", (*parameters, after)).fetchall()
            yield from rows
            if len(rows) < BATCH:
                return
            after = rows[-1][0]

    def changes(self, where: str, parameters: tuple[Any, ...] = ()) -> Iterator[Difference]:
        """Differences by a condition, in the order of their numbers."""
        sql = f"SELECT {_CHANGE_COLUMNS} FROM spool.change WHERE ({where}) AND id > ? ORDER BY id"
        for row in self.select(sql, parameters):
            yield Difference.of_columns(row)

    def changes_in(self, directories: Sequence[int], most: int) -> dict[int, list[Difference]]:
        """The differences of some directories, as in `together.by_directory`."""
        if not self.used:
            return {number: [] for number in directories}
        select = f"SELECT dir, {_CHANGE_COLUMNS} FROM spool.change WHERE"
        found = by_directory(self._catalog, select, directories, most)
        return {n: [Difference.of_columns(row) for row in rows] for n, rows in found.items()}

    def gone_in(self, directories: Sequence[int], most: int) -> dict[int, frozenset[bytes]]:
        """The names that some directories have lost, as in `together.by_directory`."""
        if not self.used:
            return {number: frozenset() for number in directories}
        select = "SELECT dir, name FROM spool.gone WHERE NOT replaced AND"
        found = by_directory(self._catalog, select, directories, most)
        return {number: frozenset(row[0] for row in rows) for number, rows in found.items()}

    def directory_id(self, parent: int, name: bytes) -> int:
        """The number of a directory that this run has met first.  The survey is over."""
        with self._lock:
            row = self._db.execute(
                "SELECT id FROM spool.directory WHERE parent = ? AND name = ?", (parent, name)
            ).fetchone()
        return int(row[0])

    def fetch(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a small query."""
        self.flush()
        if not self.used:
            return []
        with self._lock:
            return self._db.execute(sql, parameters).fetchall()

    def directory_path(self, directory: int) -> bytes:
        """The path of a directory, new ones included."""
        names: list[bytes] = []
        with self._lock:
            while self.used:
                row = self._db.execute(
                    "SELECT parent, name FROM spool.directory WHERE id = ?", (directory,)
                ).fetchone()
                if row is None:
                    break
                directory, name = row
                names.append(name)
            top = self._catalog.directory_path(directory)
        return b"/".join([top, *reversed(names)] if top else list(reversed(names)))

    def new_owners(self) -> list[tuple[int, int, int, str | None, str | None]]:
        """The owners that the catalog does not have yet."""
        with self._lock:
            return [
                (number, o.uid, o.gid, o.user, o.group)
                for o, number in self._owners.items()
                if number > self._owners_known
            ]

    # --- the file -------------------------------------------------------------------

    def flush(self) -> None:
        """Write what waits in memory."""
        with self._lock:
            if not self._waiting:
                return
            self._open()
            with self._batch():
                self._db.executemany(
                    f"INSERT INTO spool.change VALUES ({_CHANGE_MARKS})", self._changes
                )
                self._db.executemany(_ARRIVE, self._arrivals)
                self._db.executemany(f"INSERT INTO spool.gone VALUES ({_GONE_MARKS})", self._gone)
                for table, rows in self._rows.items():
                    marks = ", ".join("?" * len(rows[0]))
                    self._db.executemany(
                        f"INSERT OR REPLACE INTO spool.{table} VALUES ({marks})", rows
                    )
            self._changes.clear()
            self._arrivals.clear()
            self._gone.clear()
            self._rows.clear()
            self._waiting = 0

    def close(self) -> None:
        """Detach the spool and remove its file."""
        with self._lock:
            if self.used:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._db.execute("DETACH spool")
                self.used = False
        discard(self.path)

    def _count(self, rows: int = 1) -> None:
        self._waiting += rows
        if self._waiting >= BATCH:
            self.flush()

    def _open(self) -> None:
        if self.used:
            return
        discard(self.path)
        with self._catalog.let_go():
            # As a URI, since the path may be any bytes.
            self._db.execute("ATTACH ? AS spool", ("file:" + urllib.parse.quote(self.path),))
            self._db.execute("PRAGMA spool.journal_mode = OFF")
            self._db.execute("PRAGMA spool.synchronous = OFF")
            self._db.execute("PRAGMA spool.locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA spool.cache_size = -16000")
        self.used = True
        with self._batch():
            for statement in schema.SPOOL.split(";"):
                self._db.execute(statement)

    @contextlib.contextmanager
    def _batch(self) -> Iterator[sqlite3.Connection]:
        if self._db.in_transaction:
            yield self._db
            return
        self._db.execute("BEGIN")
        try:
            yield self._db
        finally:
            # Nothing to roll back to: the spool keeps no journal.
            if self._db.in_transaction:
                self._db.execute("COMMIT")


def discard(path: bytes) -> None:
    """Remove what an earlier run may have left of a spool."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
