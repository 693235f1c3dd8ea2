"""Connections to the catalog's file, all with the same settings.

SQLite believes the files it is given: it follows a symlink, waits for who writes to a pipe, alters
a file that is to have a write-ahead log, and deletes what a journal names as the one above it
(https://sqlite.org/fileformat2.html, 3; `pager_delsuper` of pager.c).  So they are looked at first.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import urllib.parse

from mirrorback.errors import Damaged
from mirrorback.store import content, encoding, schema, system
from mirrorback.store.catalog_errors import damaged
from mirrorback.store.patience import STEPS, Patience
from mirrorback.store.soundness import has_our_schema

WAIT_S = 60.0  # for another process that holds the file
LONGEST = 32 << 20  # bytes of a value that is read
MOST = 96 << 20  # bytes of memory for SQLite: what stands in an index is read whole
BESIDE = (b"-journal", b"-wal", b"-shm")  # SQLite opens these with the file
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # also at the end, after such a name
_HEADER = 100  # bytes
_VERSIONS = slice(18, 20)  # in the header: 1 is a rollback journal, 2 a write-ahead log
_APPLICATION = slice(68, 72)


class _Connection(sqlite3.Connection):
    """One that keeps the file open that was looked at: when a process closes a file, all its
    locks on it end, also those of another connection that is reading
    (https://sqlite.org/howtocorrupt.html, 2.2)."""

    looked_at: int | None = None

    def close(self) -> None:
        super().close()
        if self.looked_at is not None:
            os.close(self.looked_at)
            self.looked_at = None


def require_files(path: bytes) -> int | None:
    """The open catalog, for the caller to close when SQLite has closed it; None where it cannot
    be opened.  Raises Damaged where what SQLite would open as a catalog is no file, or would have
    it touch others; OSError."""
    _require_beside(path)
    fd = _opened(path)
    try:
        journal = _part_of(path + BESIDE[0], -len(_JOURNAL_MAGIC))
        if journal == _JOURNAL_MAGIC:
            raise _moved_away(BESIDE[0], "names other files, which none of ours does")
        head = b"" if fd is None else _part(fd, _HEADER)
        # Where a commit was cut, the journal has the right header.
        ours = head[_VERSIONS] == b"\1\1" and head[_APPLICATION] == _OURS
        if head and not journal and not ours:
            raise damaged()
    except BaseException:
        if fd is not None:
            os.close(fd)
        raise
    return fd


def _require_beside(path: bytes) -> None:
    for beside in (b"", *BESIDE):
        with contextlib.suppress(FileNotFoundError):
            st = os.lstat(path + beside)
            if not stat.S_ISREG(st.st_mode):
                raise _moved_away(beside, "is no file")
            if beside and st.st_nlink > 1:  # root would give it the catalog's owner
                raise _moved_away(beside, "is a hard link")


_OURS = schema.APPLICATION_ID.to_bytes(4, "big")


def _moved_away(beside: bytes, why: str) -> Damaged:
    return Damaged(
        f"the catalog cannot be used: .mirrorback/catalog.db{beside.decode()} {why}; move it away,"
        " and let `mirrorback rebuild` make a new one"
    )


def _opened(path: bytes) -> int | None:
    try:
        return os.open(path, system.READ_SAFELY)
    except OSError:
        return None


def _part_of(path: bytes, count: int) -> bytes:
    """The same of a file that is not open; nothing where there is none."""
    fd = _opened(path)
    if fd is None:
        return b""
    try:
        return _part(fd, count)
    finally:
        os.close(fd)


def _part(fd: int, count: int) -> bytes:
    """So many bytes from the beginning of a file, or, where negative, from its end; nothing
    where there are none, or they cannot be read."""
    with contextlib.suppress(OSError):
        at = 0 if count > 0 else max(0, os.fstat(fd).st_size + count)
        return content.read_up_to(fd, abs(count), at)
    return b""


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version == schema.FORMAT and not has_our_schema(db):
        raise damaged()
    db.execute("SELECT id FROM snapshot LIMIT 1").fetchone()
    return version


def connected(path: bytes, mode: str, *, known: bool = False) -> tuple[sqlite3.Connection, int]:
    """An open connection, as `connect` gives it, and the format of what it is to.  Raises
    Damaged, OSError, and what SQLite raises."""
    db = connect(path, mode, known=known)
    try:
        return db, _version(db)
    except BaseException:
        db.close()
        raise


def connect_to_damaged(path: bytes) -> sqlite3.Connection:
    """A connection that reads the file at `path` as it lies there, past what is wrong with its
    schema; nothing that it gives is to be believed without a check.  Raises what SQLite
    raises."""
    uri = "file:" + urllib.parse.quote(path) + "?mode=ro&immutable=1"
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    # Despite its name this lets one read a schema in which some statements are malformed
    # (https://sqlite.org/pragma.html#pragma_writable_schema).
    db.execute("PRAGMA writable_schema = ON")
    db.execute("PRAGMA trusted_schema = OFF")
    _limit(db)
    _add_functions(db)
    return db


def _limit(db: sqlite3.Connection) -> None:
    """What is only read needs no more memory than this, whatever it says of itself."""
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    db.execute(f"PRAGMA hard_heap_limit = {MOST}")


def _add_functions(db: sqlite3.Connection) -> None:
    db.create_function("row_check", -1, encoding.row_check, deterministic=True)


def connect(path: bytes, mode: str, *, known: bool = False) -> sqlite3.Connection:
    """A connection to the file at `path`; `mode` is `ro` or `rw`, as in SQLite's URIs.  `known`:
    the file was looked at for another connection, which goes on when this one is closed.  Raises
    Damaged, OSError, and what SQLite raises."""
    looked_at = None if known else require_files(path)
    uri = "file:" + urllib.parse.quote(path) + "?mode=" + mode
    try:
        db = sqlite3.connect(
            uri,
            uri=True,
            timeout=WAIT_S,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
    except BaseException:
        if looked_at is not None:
            os.close(looked_at)
        raise
    db.looked_at = looked_at
    try:
        # DELETE with EXTRA syncs the folder too: FULL alone lost commits in power cuts.
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA cache_size = -16000")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA mmap_size = 0")
        if mode == "ro":
            _limit(db)
        db.set_progress_handler(Patience(path).look, STEPS)
        _add_functions(db)
    except BaseException:
        db.close()
        raise
    return db
