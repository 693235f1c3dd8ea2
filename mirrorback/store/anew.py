"""A catalog made anew: objects and runs of names as the folders show them become its rows.

A *run* is one name in one directory that shows one inode over an unbroken row of snapshots.
Runs are gathered in an SQLite file of their own, for there are as many as versions; at the end
they are told how they hang together, and become entries.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple

from mirrorback.model import Digest, Kind, Metadata, Owner
from mirrorback.store import encoding, kinship, schema
from mirrorback.store.catalog import ABOVE_ROOT, PUBLISHED, ROOT_DIR, Catalog
from mirrorback.store.learnt import UNSEEN
from mirrorback.store.spool import discard
from mirrorback.store.xattrs import Attributes

BATCH = 5000

_RUNS = """
CREATE TABLE runs.run (
    id INTEGER PRIMARY KEY, dir INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, object INTEGER NOT NULL, folder INTEGER,
    moved INTEGER, before INTEGER, lineage INTEGER, entry INTEGER);
CREATE TABLE runs.inode (ino INTEGER PRIMARY KEY, object INTEGER NOT NULL);
CREATE TABLE runs.suspect (object INTEGER PRIMARY KEY);
"""
_INDEXES = """
CREATE INDEX runs.run_first ON run (first);
CREATE INDEX runs.run_last ON run (last);
CREATE INDEX runs.run_place ON run (dir, name, last);
CREATE INDEX runs.run_object ON run (object, last);
CREATE INDEX runs.run_begun ON run (dir, first);
CREATE INDEX runs.run_folder ON run (folder, first) WHERE folder IS NOT NULL;
CREATE INDEX runs.run_folder_end ON run (folder, last) WHERE folder IS NOT NULL;
CREATE INDEX runs.run_moved ON run (moved) WHERE moved IS NOT NULL;
"""


class SnapshotRow(NamedTuple):
    """What is known of a snapshot besides its content."""

    name: str
    time: int
    offset: int
    root: int
    incomplete: bool = False
    pinned: str | None = None


class NewCatalog:
    """A catalog being made at a path where nobody looks for it.  For one thread."""

    def __init__(self, path: bytes, runs: bytes, snapshots: int) -> None:
        """`runs` is the path for the file of the runs; ids of snapshots are 1 to `snapshots`.
        Raises OSError and SQLite's errors."""
        for left in (path, path + b"-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
        discard(runs)
        self.path = path
        self.snapshots = snapshots
        self._runs_path = runs
        self.catalog = Catalog.create(path)
        self.db = db = self.catalog.db
        # Nobody reads it before it is whole, and then it is synced as one file.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("ATTACH ? AS runs", ("file:" + urllib.parse.quote(runs),))
        db.execute("PRAGMA runs.journal_mode = OFF")
        db.execute("PRAGMA runs.synchronous = OFF")
        db.execute("BEGIN")
        for statement in filter(str.strip, _RUNS.split(";")):
            db.execute(statement)
        self._objects: list[tuple[object, ...]] = []
        self._runs: list[tuple[object, ...]] = []
        self._inodes: list[tuple[int, int]] = []
        self._owners: dict[Owner, int] = {}
        self._attributes: set[bytes] = set()
        self._next_object = self._next_run = 1
        self._next_directory = ROOT_DIR + 1

    def close(self) -> None:
        """Close it; the runs are gone then."""
        self.catalog.close()
        discard(self._runs_path)

    # --- filling it --------------------------------------------------------------------------

    def directory(self, parent: int, name: bytes) -> int:
        """A new directory's id."""
        number = self._next_directory
        self._next_directory += 1
        self.db.execute(
            "INSERT INTO directory (id, parent, name) VALUES (?, ?, ?)", (number, parent, name)
        )
        return number

    def new_object(self, metadata: Metadata, sparse: bool = False) -> int:
        """A new object's id; `sparse` is the form that its digest is to have."""
        number = self._next_object
        self._next_object += 1
        row = (
            number,
            int(metadata.kind),
            metadata.mode,
            self._owner(metadata.owner),
            encoding.pack_time(metadata.mtime),
            metadata.size,
            metadata.rdev,
            metadata.target,
            self._attributes_key(metadata.xattrs),
            metadata.flags,
            metadata.btime,
            None,
            int(sparse),
            schema.WHOLE,
            *UNSEEN,
        )
        self._objects.append((*row, encoding.row_check(*row)))
        self._written()
        return number

    def shown(self, ino: int, number: int) -> None:
        """Note that an inode of the drive holds an object."""
        self._inodes.append((ino, number))

    def object_of(self, ino: int) -> int | None:
        """The object that an inode was noted to hold."""
        self._flush_inodes()
        row = self.db.execute("SELECT object FROM runs.inode WHERE ino = ?", (ino,)).fetchone()
        return row and int(row[0])

    def run(
        self,
        place: tuple[int, bytes],
        kind: Kind,
        first: int,
        last: int,
        number: int,
        folder: int | None = None,
    ) -> None:
        """Add a run: directory and name, the snapshots, the object; of a directory its id."""
        run = self._next_run
        self._next_run += 1
        self._runs.append((run, *place, int(kind), first, last, number, folder))
        self._written()

    def suspect(self, number: int) -> None:
        """Note that an object looks like a reverse delta."""
        self.db.execute("INSERT OR IGNORE INTO runs.suspect VALUES (?)", (number,))

    def _owner(self, owner: Owner) -> int:
        number = self._owners.get(owner)
        if number is None:
            number = self._owners[owner] = len(self._owners) + 1
            self.db.execute(
                "INSERT INTO owner (id, uid, gid, user, grp) VALUES (?, ?, ?, ?, ?)",
                (number, owner.uid, owner.gid, owner.user, owner.group),
            )
        return number

    def _attributes_key(self, xattrs: Attributes) -> bytes | None:
        if not xattrs:
            return None
        packed = encoding.pack_xattrs(xattrs)
        key = encoding.attributes_key(packed)
        if key not in self._attributes:
            if len(self._attributes) > BATCH:
                self._attributes.clear()
            self._attributes.add(key)
            self.db.execute(
                "INSERT OR IGNORE INTO attributes (digest, value) VALUES (?, ?)", (key, packed)
            )
        return key

    def _written(self) -> None:
        if len(self._objects) + len(self._runs) >= BATCH:
            self.flush()

    def _flush_inodes(self) -> None:
        if self._inodes:
            self.db.executemany("INSERT OR IGNORE INTO runs.inode VALUES (?, ?)", self._inodes)
            self._inodes.clear()

    def flush(self) -> None:
        """Write what waits in memory."""
        self._flush_inodes()
        columns = ", ".join(schema.OBJECT)
        marks = ", ".join("?" * (len(schema.OBJECT) + 1))
        self.db.executemany(
            f"INSERT INTO object ({columns}, digest_of_row) VALUES ({marks})", self._objects
        )
        self.db.executemany(
            "INSERT INTO runs.run (id, dir, name, kind, first, last, object, folder)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self._runs,
        )
        self._objects.clear()
        self._runs.clear()

    # --- what looks like deltas --------------------------------------------------------------

    def gathered(self) -> None:
        """All runs are there."""
        self.flush()
        for statement in filter(str.strip, _INDEXES.split(";")):
            self.db.execute(statement)

    def becomes_delta(
        self, number: int, name_of: int, size: int, digest: Digest, base: int, stored: int
    ) -> None:
        """An object is the reverse delta, of `stored` bytes, of a version with this size and
        digest over another object; its names lose their last `name_of` bytes."""
        told = {"size": size, "digest": digest.value, "sparse": int(digest.sparse)}
        self._update(number, drive=schema.DELTA, **told)
        self.db.execute(
            "INSERT INTO delta (object, base, stored, digest_of_row)"
            " VALUES (?1, ?2, ?3, row_check(?1, ?2, ?3))",
            (number, base, stored),
        )
        self.db.execute(
            "UPDATE runs.run SET name = CAST(substr(name, 1, length(name) - ?) AS BLOB)"
            " WHERE object = ?",
            (name_of, number),
        )

    def learn(self, number: int, digest: Digest) -> None:
        """Note an object's digest."""
        self._update(number, digest=digest.value, sparse=int(digest.sparse))

    def digest_of(self, number: int) -> Digest | None:
        """An object's digest, as far as it is known."""
        value, sparse = self.db.execute(
            "SELECT digest, sparse FROM object WHERE id = ?", (number,)
        ).fetchone()
        return None if value is None else Digest(value, bool(sparse))

    def _update(self, number: int, **values: object) -> None:
        sets = ", ".join(f"{column} = :{column}" for column in values)
        self.db.execute(f"UPDATE object SET {sets} WHERE id = :id", {**values, "id": number})
        self._check(number)

    def _check(self, number: int) -> None:
        columns = ", ".join(schema.OBJECT)
        self.db.execute(
            f"UPDATE object SET digest_of_row = row_check({columns}) WHERE id = ?", (number,)
        )

    # --- the end -----------------------------------------------------------------------------

    def finish(self, snapshots: list[SnapshotRow]) -> None:
        """Make entries of the runs, and write the snapshots, oldest first."""
        kinship.settle(self.db, self.snapshots)
        self._links()
        columns = [c for c in schema.ENTRY if c not in ("id", "last", "stale")]
        values = {c: f"r.{c}" for c in columns}
        values |= {"id": "r.entry", "last": "nullif(r.last, :newest)", "stale": "0"}
        values |= {"from_dir": "m.dir", "from_name": "m.name"}
        listed = ", ".join(values[c] for c in schema.ENTRY)
        self.db.execute(
            f"INSERT INTO entry ({', '.join(schema.ENTRY)}, digest_of_row)"
            f" SELECT {listed}, row_check({listed})"
            " FROM runs.run r LEFT JOIN runs.run m ON m.id = r.moved ORDER BY r.entry",
            {"newest": self.snapshots},
        )
        for number, (row, files, size) in enumerate(
            zip(snapshots, *self._totals(), strict=True), 1
        ):
            self.db.execute(
                "INSERT INTO snapshot (id, name, time, offset, state, root, incomplete, pinned,"
                " files, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(number, row.name, row.time, row.offset, PUBLISHED, row.root),
                    *(int(row.incomplete), row.pinned, files, size),
                ),
            )
        if snapshots:
            self.db.execute(
                "INSERT INTO property (key, value) VALUES ('checked', ?)", (snapshots[-1].time,)
            )
        self.db.execute("COMMIT")
        self.db.execute("DETACH runs")

    def _links(self) -> None:
        """How many links the source had, at least, of what the newest names share."""
        self.db.execute(
            "UPDATE object SET nlink = l.links FROM (SELECT object, count(*) AS links FROM"
            " (SELECT object, last, max(last) OVER (PARTITION BY object) AS newest FROM runs.run"
            "  WHERE kind != 2) WHERE last = newest GROUP BY object HAVING count(*) > 1) l"
            " WHERE l.object = object.id"
        )
        columns = ", ".join(schema.OBJECT)
        self.db.execute(f"UPDATE object SET digest_of_row = row_check({columns}) WHERE nlink > 1")

    def _totals(self) -> tuple[list[int], list[int]]:
        """Of each snapshot the number of files, and their bytes."""
        count = size = 0
        files, sizes = [], []
        came, went = self._sums("first"), self._sums("last")
        for number in range(1, self.snapshots + 1):
            count += came.get(number, (0, 0))[0] - went.get(number - 1, (0, 0))[0]
            size += came.get(number, (0, 0))[1] - went.get(number - 1, (0, 0))[1]
            files.append(count)
            sizes.append(schema.held(size))
        return files, sizes

    def _sums(self, column: str) -> dict[int, tuple[int, int]]:
        rows = self.db.execute(
            f"SELECT r.{column}, count(*),"
            f" {schema.added('CASE WHEN o.kind = 1 THEN o.size ELSE 0 END')}"
            " FROM runs.run r JOIN object o ON o.id = r.object WHERE r.kind != 2"
            f" GROUP BY r.{column}"
        )
        return {number: (count, size) for number, count, size in rows}


@contextlib.contextmanager
def new_catalog(path: bytes, runs: bytes, snapshots: int) -> Iterator[NewCatalog]:
    """One that is closed in the end."""
    new = NewCatalog(path, runs, snapshots)
    try:
        yield new
    finally:
        with contextlib.suppress(sqlite3.Error):
            if new.db.in_transaction:
                new.db.execute("ROLLBACK")
        new.close()


ABOVE = (ABOVE_ROOT, b"")  # the place of the source's own entry
