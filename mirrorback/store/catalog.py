"""The catalog: an SQLite file that knows every version of every path.

Opened here; its rows are read by `store.history` and `store.live`, and written
by `store.record`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Owner, Snapshot
from mirrorback.store import schema
from mirrorback.store.catalog_errors import READ_ONLY as READ_ONLY
from mirrorback.store.catalog_errors import Outdated as Outdated
from mirrorback.store.catalog_errors import Unfinished as Unfinished
from mirrorback.store.catalog_errors import Unopened as Unopened
from mirrorback.store.catalog_errors import damaged as damaged
from mirrorback.store.catalog_errors import translated as translated
from mirrorback.store.connection import WAIT_S, connect, connected
from mirrorback.store.sealing import Seal, SealedFile
from mirrorback.store.soundness import structure_fault

FOLDER_NAME = re.compile(r"[0-9]{4,5}-[0-9]{2}-[0-9]{2}-[0-9]{6}(-[0-9]{1,6})?", re.ASCII)
PUBLISHED, PENDING, DELETING = 0, 1, 2  # states of a snapshot

ROOT_DIR = 1  # the source itself in `directory`
ABOVE_ROOT = 0  # where the entry of the source itself stands


def _rolled_back(path: bytes) -> tuple[sqlite3.Connection, int]:
    """A connection to a catalog in which a commit was cut short, which is undone first.  Raises
    Unfinished where that may not be written to."""
    try:
        return connected(path, "rw")
    except sqlite3.OperationalError as error:
        if not getattr(error, "sqlite_errorname", "").startswith(READ_ONLY):
            raise
        raise Unfinished(
            "a run was cut short while it wrote the catalog, which can only be read now: let it be"
            " written (mount the drive with -o rw, or be who made the backup), and run this again;"
            " all folders are as they were"
        ) from error


class Catalog:
    """An open catalog.  One connection; `lock` guards it where threads share it."""

    def __init__(self, path: bytes, connection: sqlite3.Connection) -> None:
        self.path = path
        self.db = connection
        self.lock = threading.RLock()
        self._identity = _identity(path)
        self._file: SealedFile | None = None
        self._unsealed = False  # this connection has written
        self._directories: dict[int, bytes] = {}
        self._snapshots: list[Snapshot] = []
        self._snapshots_at: tuple[int, int] | None = None
        self._folders: list[tuple[int, str, int, int]] = []
        self._folders_at: tuple[int, int] | None = None

    @classmethod
    def create(cls, path: bytes) -> Catalog:
        """Make a new, empty catalog.  Raises FileExistsError, OSError."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        catalog = cls(path, connect(path, "rw"))
        catalog._unsealed = True
        with translated():
            db = catalog.db
            db.execute(f"PRAGMA page_size = {schema.PAGE_SIZE}")
            db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {schema.FORMAT}")
            db.executescript(schema.CATALOG)
            db.executescript(schema.triggers())
            db.execute(
                "INSERT INTO directory (id, parent, name) VALUES (?, ?, ?)",
                (ROOT_DIR, ABOVE_ROOT, b""),
            )
        return catalog

    @classmethod
    def open(cls, path: bytes, *, write: bool = False) -> Catalog:
        """Open an existing catalog; who is to `write` holds the repository's lock.  Raises
        Damaged, DriveError, Locked."""
        try:
            if os.stat(path).st_size == 0:
                raise damaged()
        except FileNotFoundError:
            raise Damaged(
                "the catalog (.mirrorback/catalog.db) is gone; all files are still readable as"
                " folders, and `mirrorback rebuild` makes a new catalog from them"
            ) from None
        with translated():
            try:
                db, version = connected(path, "rw" if write else "ro")
            except sqlite3.OperationalError as error:
                # A run was killed in a commit: only a writer may roll it back.
                if write or not getattr(error, "sqlite_errorname", "").startswith(READ_ONLY):
                    raise
                db, version = _rolled_back(path)
            except UnicodeDecodeError as error:  # what SQLite says quotes the damaged schema
                raise damaged() from error
        catalog = cls(path, db)
        try:
            catalog._require(version, write=write)
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _require(self, version: int, *, write: bool) -> None:
        """Raises Damaged for a catalog that must not be read, or not be written to, and
        DriveError for one of a newer format."""
        if write or version > schema.FORMAT:
            self._require_sound()
        if version > schema.FORMAT:
            raise DriveError(
                f"the catalog has format {version}; this mirrorback knows up to {schema.FORMAT}:"
                " use a newer one"
            )
        if version != schema.FORMAT:
            raise damaged()
        if write:
            with translated():
                self.db.executescript(schema.triggers())

    def close(self) -> None:
        """Close the file; if it was written to, it is sealed first.  On a drive that is full
        or failing it is not, and none the worse for that."""
        with self.lock:
            try:
                self.reseal()
            finally:
                self.db.close()
                if self._file is not None:
                    self._file.close()
                    self._file = None

    # --- the seal -----------------------------------------------------------------

    @property
    def file(self) -> SealedFile:
        """The file itself, to be used inside of `held` or `transaction`.  Raises OSError."""
        if self._file is None:
            self._file = SealedFile(self.path)
        return self._file

    def reseal(self) -> None:
        """Seal the file as it is, if it was written to, as `close` would: what that takes of the
        drive is taken then.  A transaction that is open is rolled back."""
        with self.lock:
            if self._unsealed:
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._seal()
                self._unsealed = False

    def _seal(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.db.execute("PRAGMA busy_timeout = 0")  # whoever writes now will seal it
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self.file.write()
            finally:
                self.db.execute("ROLLBACK")
        finally:
            self.db.execute(f"PRAGMA busy_timeout = {WAIT_S * 1000:.0f}")

    def seal(self) -> Seal:
        """What the catalog's seal says of it.  No transaction is open.  Raises OSError, the
        errors of the catalog, and Damaged where it is the seal that is damaged."""
        with self.held():
            return self.file.compare()

    def seal_or_absent(self) -> Seal:
        """The same, where a seal that is itself damaged says nothing."""
        with self.held():
            try:
                return self.file.compare()
            except Damaged:
                return Seal.ABSENT

    def _require_sound(self) -> None:
        """Raises Damaged for a file that is not what was last written, or, where a run was
        killed and nobody knows what that was, is in disorder.  It is not written to: then
        nobody could tell any more."""
        with translated():
            seal = self.seal_or_absent()
            if seal is Seal.BROKEN or (seal is Seal.ABSENT and self._is_in_disorder()):
                raise damaged()

    def _is_in_disorder(self) -> bool:
        with self.held():
            return self.file.header_fault() or structure_fault(self.db) is not None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is durable when it ends, or none of it happened."""
        with self.lock, translated():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self._unsealed = True
                self.file.remove()  # each time: another connection may have sealed meanwhile
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The state of this moment for a great many queries: by itself each would lock the
        file and look for a journal.  Others may read meanwhile, nobody may write."""
        with self.lock, translated():
            self.db.execute("BEGIN")
        try:
            self.db.execute("SELECT 1 FROM main.sqlite_schema").fetchall()  # now it is held
            yield
        except BaseException:
            self._end("ROLLBACK")
            raise
        else:
            self._end("COMMIT")

    def _end(self, how: str) -> None:
        with self.lock, translated():
            if self.db.in_transaction:
                self.db.execute(how)

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Outside of `held` for a moment, for what may not be done inside."""
        with self.lock:
            held = self.db.in_transaction
            if held:
                self.db.execute("COMMIT")
            yield
            if held:
                self.db.execute("BEGIN")

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Outside of `held` for a while in which no other thread is at work in it: what is done
        then may have threads of its own, which find `lock` free."""
        held = self.db.in_transaction
        self._end("COMMIT")
        yield
        if held:
            with self.lock, translated():
                self.db.execute("BEGIN")

    def mend(self) -> None:
        """Roll back what a run that was killed has left of a commit, as `open` does.  Raises
        Locked, DriveError."""
        with translated():
            connected(self.path, "rw", known=True)[0].close()

    def never_wait(self) -> None:
        """From now on a catalog that another process holds is Locked at once: who waits then
        does so without `lock`, and keeps no other thread waiting."""
        with self.lock, translated():
            self.db.execute("PRAGMA busy_timeout = 0")

    def require_in_place(self) -> None:
        """Raises Outdated where another catalog has taken this one's place: what is read here
        will tell of no change any more.  Raises OSError."""
        if _identity(self.path) != self._identity:
            raise Outdated

    # --- properties and snapshots ---------------------------------------------

    def property(self, key: str) -> Any:
        """A remembered value, None where there is none."""
        row = self.db.execute("SELECT value FROM property WHERE key = ?", (key,)).fetchone()
        return row and row[0]

    def snapshots(self) -> list[Snapshot]:
        """All snapshots that exist, oldest first; the last is the mirror."""
        stamp = self.stamp()
        if stamp is None or stamp != self._snapshots_at:
            self._snapshots = self._read_snapshots()
            self._snapshots_at = stamp
        return self._snapshots.copy()

    def _read_snapshots(self) -> list[Snapshot]:
        rows = self.db.execute(
            "SELECT id, name, time, offset, incomplete, pinned, files, bytes FROM snapshot"
            " WHERE state != ? ORDER BY id",
            (DELETING,),
        ).fetchall()
        if any(type(row[at]) is not int for row in rows for at in (2, 3, 6, 7)):
            raise damaged()
        return [
            Snapshot(
                id=row[0],
                name=_folder_name(row[1]),
                time=row[2],
                offset=row[3],
                current=number == len(rows),
                incomplete=bool(row[4]),
                pinned=row[5],
                files=row[6],
                bytes=row[7],
            )
            for number, row in enumerate(rows, 1)
        ]

    def in_state(self, state: int) -> list[tuple[int, str, int]]:
        """Id, folder name and root inode number of the snapshots in a state, oldest first."""
        rows = self.db.execute(
            "SELECT id, name, root FROM snapshot WHERE state = ? ORDER BY id", (state,)
        )
        return [(number, _folder_name(name), root) for number, name, root in rows]

    def folders(self) -> list[tuple[int, str, int, int]]:
        """Id, folder name, state and root inode number of the snapshots that exist, oldest
        first."""
        stamp = self.stamp()
        if stamp is None or stamp != self._folders_at:
            rows = self.db.execute(
                "SELECT id, name, state, root FROM snapshot WHERE state != ? ORDER BY id",
                (DELETING,),
            ).fetchall()
            self._folders = [(row[0], _folder_name(row[1]), row[2], row[3]) for row in rows]
            self._folders_at = stamp
        return self._folders

    def stamp(self) -> tuple[int, int] | None:
        """What changes with every commit, of this process or another; None where nothing is
        committed yet."""
        if self.db.in_transaction:
            return None
        self.require_in_place()
        version = self.db.execute("PRAGMA data_version").fetchone()[0]
        return version, self.db.total_changes

    def owners(self) -> dict[Owner, int]:
        """Every owner that objects name, with its id."""
        rows = self.db.execute("SELECT id, uid, gid, user, grp FROM owner")
        return {Owner(row[1], row[2], row[3], row[4]): row[0] for row in rows}

    # --- directories ------------------------------------------------------------

    def most_directories(self) -> int:
        """No more directories than this are known, and most of the time no fewer."""
        return int(self.db.execute("SELECT max(id) FROM directory").fetchone()[0] or 0)

    def directory_id(self, path: bytes) -> int | None:
        """The id of a directory that is, or was at some time, at this path."""
        found = ROOT_DIR
        for name in path.split(b"/") if path else []:
            row = self.db.execute(
                "SELECT id FROM directory WHERE parent = ? AND name = ?", (found, name)
            ).fetchone()
            if row is None:
                return None
            found = row[0]
        return found

    def directory_path(self, directory: int) -> bytes:
        """The path of a directory.  Raises Damaged where the rows make no path."""
        known = self._directories
        names: list[bytes] = []
        parent, at = ROOT_DIR, directory
        while at != ROOT_DIR and at not in known:
            row = self.db.execute(
                "SELECT parent, name FROM directory WHERE id = ?", (at,)
            ).fetchone()
            # Parents are always older: no cycles.
            if row is None or row[0] >= at or _bad_name(row[1]):
                raise damaged()
            names.append(row[1])
            at = row[0]
            if len(names) == 1:
                parent = at
        head = known.get(at)
        names.extend([head] if head else [])
        path = b"/".join(reversed(names))
        if at != directory:
            if len(known) > 50_000:
                known.clear()
            known[directory] = path
            if parent != ROOT_DIR:  # what stands beside it is often the next
                known[parent] = b"/".join(reversed(names[1:]))
        return path


def _identity(path: bytes) -> tuple[int, int] | None:
    """Which file has a name, None where there is none."""
    try:
        st = os.stat(path)
    except FileNotFoundError:
        return None
    return st.st_dev, st.st_ino


def _folder_name(name: object) -> str:
    """A snapshot's name as the catalog has it, if it is one: it is used as a path."""
    if not isinstance(name, str) or not FOLDER_NAME.fullmatch(name):
        raise damaged()
    return name


def _bad_name(name: bytes) -> bool:
    return (
        not isinstance(name, bytes) or name in (b"", b".", b"..") or b"/" in name or b"\0" in name
    )
