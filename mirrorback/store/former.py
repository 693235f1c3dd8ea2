"""What the catalog that is to be replaced still is, and what can be taken from it."""

from __future__ import annotations

import sqlite3
import struct
from typing import NamedTuple

from mirrorback.errors import Damaged, DriveError, Locked
from mirrorback.store import schema
from mirrorback.store.catalog import DELETING, FOLDER_NAME, PENDING, Catalog, translated
from mirrorback.store.repository import CATALOG, Repository

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
    """The old catalog.  `fault` says what is wrong with it, None where its own checks hold."""

    fault: str | None
    newer: bool = False  # than this program knows
    pending: bool = False  # a publication or a removal was cut
    snapshots: tuple[FormerRow, ...] = ()


def examine(repo: Repository) -> Former:
    """Look at the catalog as it is; what a killed run has left of a commit is rolled back.
    Raises Locked."""
    path = repo.inner_path(CATALOG)
    if _is_newer(path):
        return Former("it has a newer format than this mirrorback knows", newer=True)
    try:
        catalog = Catalog.open(path)
    except Locked:
        raise
    except (Damaged, DriveError, OSError) as error:
        return Former(str(error))
    try:
        with translated():
            fault = _fault(catalog)
            rows = tuple(_rows(catalog)) if fault is None else ()
            pending = catalog.db.execute(
                "SELECT 1 FROM snapshot WHERE state IN (?, ?)", (PENDING, DELETING)
            ).fetchone()
    except Locked:
        raise
    except (Damaged, DriveError, sqlite3.Error, UnicodeDecodeError) as error:
        return Former(str(error))
    finally:
        catalog.close()
    return Former(fault, False, pending is not None, rows)


def _is_newer(path: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError:
        return False
    if len(head) < 100 or not head.startswith(_HEADER):
        return False
    (version,) = struct.unpack_from(">I", head, _VERSION_AT)
    (application,) = struct.unpack_from(">I", head, _APPLICATION_AT)
    return bool(application == schema.APPLICATION_ID and schema.FORMAT < version < 1000)


def _fault(catalog: Catalog) -> str | None:
    answer = catalog.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if answer != "ok":
        return f"it is damaged: {answer}"
    checked = (("object", schema.OBJECT), ("entry", schema.ENTRY), ("delta", schema.DELTA_ROW))
    for table, columns in checked:
        bad = catalog.db.execute(
            f"SELECT count(*) FROM {table} WHERE digest_of_row != row_check({', '.join(columns)})"
        ).fetchone()[0]
        if bad:
            return f"{bad} rows of its table {table} are damaged"
    return None


def _rows(catalog: Catalog) -> list[FormerRow]:
    rows = catalog.db.execute(
        "SELECT id, name, time, offset, incomplete, pinned FROM snapshot WHERE state != ?"
        " ORDER BY id",
        (DELETING,),
    )
    return [
        FormerRow(number, name, time, offset, bool(incomplete), pinned)
        for number, name, time, offset, incomplete, pinned in rows
        if isinstance(name, str)
        and FOLDER_NAME.fullmatch(name)
        and isinstance(time, int)
        and isinstance(offset, int)
        and abs(offset) < 86_400
        and (pinned is None or isinstance(pinned, str))
    ]


def agrees(former: Former, dated: set[str], mirror: bool) -> bool:
    """Whether the folders are those of the catalog's snapshots."""
    names = [row.name for row in former.snapshots]
    return set(names[:-1]) == dated and bool(names) == mirror
