"""What the catalog that is to be replaced still is, and what can be taken from it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import struct
from typing import Any, NamedTuple

from mirrorback.errors import Damaged, DriveError, Locked
from mirrorback.store import audit, durable, schema, soundness
from mirrorback.store.audit import CONFUSED
from mirrorback.store.catalog import DELETING, FOLDER_NAME, PENDING, Catalog, translated
from mirrorback.store.connection import connect_to_damaged
from mirrorback.store.repository import CATALOG, Repository
from mirrorback.store.sealing import Seal

_HEADER = b"SQLite format 3\0"
_VERSION_AT, _APPLICATION_AT = 60, 68  # in the header (sqlite.org/fileformat.html, 1.3)


class FormerRow(NamedTuple):
    """A snapshot as the old catalog had it."""

    id: int
    name: str
    time: int
    offset: int
    incomplete: bool
    pinned: str | None


class Former(NamedTuple):
    """The old catalog.  `fault` says what is wrong with it, None where its seal and its checks
    hold; what it says of `snapshots` is as it was once written all the same."""

    fault: str | None
    newer: bool = False  # than this program knows
    pending: bool = False  # a publication or a removal was cut
    snapshots: tuple[FormerRow, ...] = ()
    readable: bool = False  # its pages are sound: other rows can be looked at, too


def examine(repo: Repository) -> Former:
    """Look at the catalog as it is; what a killed run has left of a commit is rolled back.
    Raises Locked."""
    path = repo.inner_path(CATALOG)
    if _is_newer(repo):
        return Former("it has a newer format than this mirrorback knows", newer=True)
    try:
        catalog = Catalog.open(path)
    except Locked:
        raise
    except (Damaged, DriveError, OSError) as error:
        return Former(str(error), snapshots=_salvaged(path))
    rows: tuple[FormerRow, ...] = ()
    readable = False
    try:
        with translated():
            rows = _rows(catalog.db)
            found = soundness.structure_fault(catalog.db)
            readable = found is None or found.readable
            fault = _fault(catalog) if found is None else found.what
            pending = catalog.db.execute(
                "SELECT 1 FROM snapshot WHERE state IN (?, ?)", (PENDING, DELETING)
            ).fetchone()
    except Locked:
        raise
    except (Damaged, DriveError, OSError, *CONFUSED) as error:
        return Former(str(error), snapshots=rows, readable=readable)
    finally:
        catalog.close()
    return Former(fault, False, pending is not None, rows, readable)


def _is_newer(repo: Repository) -> bool:
    try:
        head = durable.read(repo.inner, CATALOG, 100)
    except OSError:
        return False
    if len(head) < 100 or not head.startswith(_HEADER):
        return False
    (version,) = struct.unpack_from(">I", head, _VERSION_AT)
    (application,) = struct.unpack_from(">I", head, _APPLICATION_AT)
    return bool(application == schema.APPLICATION_ID and schema.FORMAT < version < 1000)


def _fault(catalog: Catalog) -> str | None:
    if catalog.seal_or_absent() is Seal.BROKEN:
        return "it is not what was last written, bit for bit"
    return next(audit.faults(catalog), None)


def _salvaged(path: bytes) -> tuple[FormerRow, ...]:
    """What can be read of one that cannot be opened as usual."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return ()
        with contextlib.closing(connect_to_damaged(path)) as db:
            return _rows(db) if _is_table(db) else ()
    except (OSError, sqlite3.Error, *CONFUSED):
        return ()


def _is_table(db: sqlite3.Connection) -> bool:
    """Whether there are snapshots in a table: what else has the name may have no end."""
    found = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'snapshot'").fetchall()
    return [row[0][:13].upper() for row in found] == ["CREATE TABLE "]


def _rows(db: sqlite3.Connection) -> tuple[FormerRow, ...]:
    """The snapshots whose rows are sound, whatever else is not."""
    rows = filter(None, (_sound_row(db, number) for number in _numbers(db)))
    return tuple(
        FormerRow(number, name, time, offset, bool(incomplete), pinned)
        for number, name, time, offset, incomplete, pinned in rows
        if isinstance(name, str)
        and FOLDER_NAME.fullmatch(name)
        and isinstance(time, int)
        and isinstance(offset, int)
        and abs(offset) < 86_400
        and (pinned is None or isinstance(pinned, str))
    )


def _numbers(db: sqlite3.Connection) -> list[int]:
    """The snapshots, oldest first, as far as the table can be walked through."""
    found: list[int] = []
    with contextlib.suppress(sqlite3.Error):
        for (number,) in db.execute("SELECT id FROM snapshot ORDER BY id"):
            if found and number <= found[-1]:
                break  # damaged pages may lead in a circle
            found.append(number)
    return found


def _sound_row(db: sqlite3.Connection, number: int) -> tuple[Any, ...] | None:
    with contextlib.suppress(sqlite3.Error):
        row: tuple[Any, ...] | None = db.execute(
            "SELECT id, name, time, offset, incomplete, pinned FROM snapshot WHERE id = ?"
            f" AND state != ? AND digest_of_row = {schema.check(schema.SNAPSHOT)}",
            (number, DELETING),
        ).fetchone()
        return row
    return None


def agrees(former: Former, dated: set[str], mirror: bool) -> bool:
    """Whether the folders are those of the catalog's snapshots."""
    names = [row.name for row in former.snapshots]
    return set(names[:-1]) == dated and bool(names) == mirror
