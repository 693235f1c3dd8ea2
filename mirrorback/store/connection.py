"""Connections to the catalog's file, all with the same settings."""

from __future__ import annotations

import sqlite3
import urllib.parse

from mirrorback.store import encoding

WAIT_S = 60.0  # for another process that holds the file


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute("SELECT id FROM snapshot LIMIT 1").fetchone()
    return version


def connected(path: bytes, mode: str) -> tuple[sqlite3.Connection, int]:
    """An open connection, as `connect` gives it, and the format of what it is to.  Raises
    what SQLite raises."""
    db = connect(path, mode)
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
    _add_functions(db)
    return db


def _add_functions(db: sqlite3.Connection) -> None:
    db.create_function("row_check", -1, encoding.row_check, deterministic=True)


def connect(path: bytes, mode: str) -> sqlite3.Connection:
    """A connection to the file at `path`; `mode` is `ro` or `rw`, as in SQLite's URIs."""
    uri = "file:" + urllib.parse.quote(path) + "?mode=" + mode
    db = sqlite3.connect(
        uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False
    )
    try:
        # DELETE with EXTRA syncs the folder too: FULL alone lost commits in power cuts.
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA cache_size = -16000")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA mmap_size = 0")
        _add_functions(db)
    except BaseException:
        db.close()
        raise
    return db
