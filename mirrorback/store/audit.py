"""What the catalog says against itself: its structure, the checks of its rows, and whether
rows agree with each other."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator

from mirrorback.errors import Damaged, DriveError, Locked, MirrorbackError, NotInHistory, UsageError
from mirrorback.store import encoding, schema, soundness
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR, Catalog, Outdated, damaged, translated
from mirrorback.store.catalog_errors import Exhausted
from mirrorback.store.sealing import Seal

_MOST_OWNERS = (1 << 32) - 2


def _no_numbers(*columns: str) -> str:
    return " OR ".join(f"typeof({column}) != 'integer'" for column in columns)


# What is counted, and words that follow the number.
_NEWEST = "(SELECT coalesce(max(id), 0) FROM snapshot)"
_CONTRADICTIONS = (
    (
        "entries show an object that is not there, or is something else",
        "FROM entry e LEFT JOIN object o ON o.id = e.object WHERE o.id IS NULL OR o.kind != e.kind",
    ),
    (
        "entries stand in a directory that is not there",
        f"FROM entry WHERE dir != {ABOVE_ROOT} AND dir NOT IN (SELECT id FROM directory)",
    ),
    (
        "entries have a name that cannot be",
        f"FROM entry WHERE typeof(name) != 'blob' OR (dir = {ABOVE_ROOT}) != (name = x'')"
        " OR name IN (x'2e', x'2e2e') OR instr(name, x'2f') OR instr(name, x'00')",
    ),
    (
        "entries are shown by snapshots that cannot be",
        f"FROM entry WHERE first < 1 OR first > {_NEWEST} OR first > last OR last >= {_NEWEST}",
    ),
    (
        "entries have the name of another, in the same snapshots",
        "FROM (SELECT first, max(coalesce(last, 1 << 62)) OVER (PARTITION BY dir, name"
        " ORDER BY first, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before"
        " FROM entry) WHERE first <= before",
    ),
    (
        "directories have no place",
        f"FROM directory WHERE CASE id WHEN {ROOT_DIR} THEN parent != {ABOVE_ROOT}"
        " ELSE parent >= id OR parent NOT IN (SELECT id FROM directory) END",
    ),
    (
        "directories are missing that must be there",
        f"FROM (SELECT 1) WHERE NOT EXISTS (SELECT 1 FROM directory WHERE id = {ROOT_DIR})",
    ),
    (
        "directories have a name that cannot be",
        f"FROM directory WHERE typeof(name) != 'blob' OR (id = {ROOT_DIR}) != (name = x'')"
        " OR name IN (x'2e', x'2e2e') OR instr(name, x'2f') OR instr(name, x'00')",
    ),
    (
        "folders have no number",
        f"FROM entry e WHERE kind = 2 AND last IS NULL AND dir != {ABOVE_ROOT} AND NOT EXISTS"
        " (SELECT 1 FROM directory d WHERE d.parent = e.dir AND d.name = e.name)",
    ),
    (
        "objects have an owner that is not there",
        "FROM object WHERE owner NOT IN (SELECT id FROM owner)",
    ),
    (
        "objects have attributes that are not there",
        "FROM object WHERE attributes IS NOT NULL"
        " AND attributes NOT IN (SELECT digest FROM attributes)",
    ),
    (
        "objects are reverse deltas over nothing",
        f"FROM object WHERE drive = {schema.DELTA} AND id NOT IN (SELECT object FROM delta)",
    ),
    (
        # (What one is over may have been lost, with a folder: its own content is missed then.)
        "reverse deltas belong to nothing",
        "FROM delta d LEFT JOIN object o ON o.id = d.object"
        f" WHERE coalesce(o.drive, -1) != {schema.DELTA} OR {_no_numbers('base', 'stored')}",
    ),
    (
        "unfinished changes belong to nothing",
        "FROM replacing r WHERE object NOT IN (SELECT id FROM object)"
        " OR (patched IS NOT NULL AND patched NOT IN (SELECT id FROM object))",
    ),
    (
        "snapshots are in no state that is known",
        "FROM snapshot WHERE state NOT IN (0, 1, 2)",
    ),
    (
        "snapshots have a time that cannot be",
        f"FROM snapshot WHERE {_no_numbers('time', 'offset', 'root', 'files', 'bytes')}"
        " OR abs(offset) > 86400 OR typeof(pinned) NOT IN ('text', 'null')",
    ),
    (
        "owners have a number that cannot be",
        f"FROM owner WHERE {_no_numbers('uid', 'gid')} OR uid NOT BETWEEN 0 AND {_MOST_OWNERS}"
        f" OR gid NOT BETWEEN 0 AND {_MOST_OWNERS}"
        " OR typeof(user) NOT IN ('text', 'null') OR typeof(grp) NOT IN ('text', 'null')",
    ),
    (
        "objects have a value that cannot be",
        f"FROM object WHERE {_no_numbers('kind', 'mode', 'size', 'rdev', 'flags', 'sparse')}"
        f" OR {_no_numbers('drive', 'ino', 'nlink')} OR kind NOT BETWEEN 1 AND 7"
        f" OR mode NOT BETWEEN 0 AND 4095 OR size < 0 OR rdev < 0"
        " OR drive NOT BETWEEN 0 AND 3 OR (digest NOTNULL AND"
        "  (typeof(digest) != 'blob' OR length(digest) != 32))"
        " OR (kind = 3) != coalesce(typeof(target) = 'blob' AND length(target) AND NOT"
        "  instr(target, x'00'), 0)"
        " OR NOT (typeof(mtime) = 'integer' OR (typeof(mtime) = 'blob' AND length(mtime) = 16))",
    ),
    (
        "entries have a number that is none",
        f"FROM entry WHERE {_no_numbers('dir', 'kind', 'first', 'object', 'lineage', 'stale')}"
        " OR typeof(last) NOT IN ('integer', 'null')"
        " OR typeof(from_dir) NOT IN ('integer', 'null')"
        " OR typeof(from_name) NOT IN ('blob', 'null')",
    ),
)


# What values that cannot be lead to.
CONFUSED = (TypeError, ValueError, LookupError, OverflowError, AttributeError)
# Failures that speak for themselves, whatever the catalog is like.
_OF_THE_DRIVE = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)


def faults(catalog: Catalog) -> Iterator[str]:
    """What is wrong with an open catalog that can be read, each as a sentence without its
    end; nothing where all is well.  Raises the catalog's errors."""
    wrong = list(_wrong_rows(catalog.db))
    yield from wrong
    if not wrong:  # else what follows says the same once more
        yield from _contradictions(catalog.db)


@contextlib.contextmanager
def blamed(catalog: Catalog) -> Iterator[None]:
    """Where something fails over an open catalog, and that is damaged, raise Damaged instead:
    what the failure itself says would lead astray.  Nothing else is read while the seal holds,
    but for what nobody has foreseen."""
    try:
        yield
    except Exception as error:
        foreseen = isinstance(error, MirrorbackError | OSError) and type(error) is not Exhausted
        if not _may_be_due(error) or not is_damaged(catalog, thoroughly=not foreseen):
            raise
        raise damaged() from error


def _may_be_due(error: Exception) -> bool:
    """Whether a damaged catalog can lead to such a failure, and it does not say so."""
    if isinstance(error, OSError):
        return error.errno not in _OF_THE_DRIVE
    if isinstance(error, Outdated):
        return False
    if isinstance(error, MirrorbackError):
        # The last: the name of a snapshot that is not known is taken for a wrong time.
        may_be = isinstance(error, DriveError | NotInHistory | UsageError)
        return may_be or type(error) is MirrorbackError
    name = getattr(error, "sqlite_errorname", "")
    return not name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR"))


def is_damaged(catalog: Catalog, *, thoroughly: bool = False) -> bool:
    """Whether something is wrong with an open catalog, as far as it can be read now: by its
    seal; by all that can be compared where there is none, or if that is to be done
    `thoroughly`."""
    try:
        with catalog.lock, translated():
            if catalog.db.in_transaction:
                catalog.db.execute("ROLLBACK")
            seal = catalog.seal_or_absent()
            if seal is not Seal.ABSENT and not (seal is Seal.HOLDS and thoroughly):
                return seal is Seal.BROKEN
            return soundness.structure_fault(catalog.db) is not None or any(faults(catalog))
    except (Locked, OSError):
        return False
    except DriveError as error:
        return not isinstance(error.__cause__, sqlite3.OperationalError)
    except (Damaged, *CONFUSED):
        return True


def _wrong_rows(db: sqlite3.Connection) -> Iterator[str]:
    for table, columns in schema.CHECKED.items():
        try:
            bad = db.execute(
                f"SELECT count(*) FROM {table} WHERE digest_of_row IS NOT {schema.check(columns)}"
            ).fetchone()[0]
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") != "SQLITE_ERROR":
                raise
            bad = "some"  # a text that is none: there is nothing to compute a check of
        if bad:
            yield f"{bad} rows of the catalog's table {table} are damaged"
    for digest, value in db.execute("SELECT digest, value FROM attributes"):
        if not isinstance(value, bytes) or encoding.attributes_key(value) != digest:
            yield "attributes in the catalog are damaged"
            return


def _contradictions(db: sqlite3.Connection) -> Iterator[str]:
    for words, source in _CONTRADICTIONS:
        count = db.execute(f"SELECT count(*) {source}").fetchone()[0]
        if count:
            yield f"the catalog contradicts itself: {count} {words}"
    if _has_cycle(dict(db.execute("SELECT object, base FROM delta"))):
        yield "the catalog contradicts itself: a reverse delta is, over others, over itself"


def _has_cycle(base: dict[int, int]) -> bool:
    """Whether going from delta to base comes to no end somewhere."""
    ends: set[int] = set()
    for start in base:
        way: dict[int, None] = {}
        at = start
        while at in base and at not in ends:
            if at in way:
                return True
            way[at] = None
            at = base[at]
        ends.update(way)
    return False
