"""The catalog's rows of the mirror, as the survey and the build read them."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from mirrorback.errors import Damaged
from mirrorback.model import KIND_OF_FORMAT, Digest, Kind, Metadata, Owner
from mirrorback.store import encoding, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.node import Dress
from mirrorback.store.together import AMONG, slots
from mirrorback.store.tree import Row

METADATA = (
    "o.kind, o.mode, w.uid, w.gid, w.user, w.grp, o.mtime, o.size, o.rdev, o.target, a.value,"
    " o.flags, o.btime"
)
OBJECT_JOIN = (
    " JOIN object o ON o.id = e.object JOIN owner w ON w.id = o.owner"
    " LEFT JOIN attributes a ON a.digest = o.attributes"
)


class LiveRow(NamedTuple):
    """An entry of the mirror with what the source said of it last."""

    name: bytes
    entry: int
    object: int
    kind: int
    lineage: int
    stale: int
    ino: int
    mode: int  # without S_IFMT
    size: int
    mtime: int
    ctime: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    digest: bytes | None
    sparse: int


_LIVE = (
    "SELECT e.name, e.id, e.object, e.kind, e.lineage, e.stale, o.ino, o.mode, o.size, o.mtime,"
    " o.ctime, w.uid, w.gid, o.nlink, o.rdev, o.digest, o.sparse"
    " FROM entry e JOIN object o ON o.id = e.object JOIN owner w ON w.id = o.owner"
    " WHERE e.dir = ? AND e.last IS NULL"
)


def metadata_of(columns: tuple[object, ...]) -> Metadata:
    """The metadata in the columns named by `METADATA`.  Raises Damaged."""
    kind, mode, uid, gid, user, grp, mtime, size, rdev, target, value, flags, btime = columns
    if any(type(number) is not int for number in (mode, uid, gid, size, rdev, flags)):
        raise Damaged("the catalog holds numbers that are none: run `mirrorback verify`")
    try:
        return Metadata(
            kind=Kind(kind),  # type: ignore[arg-type]
            mode=mode,  # type: ignore[arg-type]
            owner=Owner(uid, gid, user, grp),  # type: ignore[arg-type]
            mtime=encoding.unpack_time(mtime),  # type: ignore[arg-type]
            size=size,  # type: ignore[arg-type]
            rdev=rdev,  # type: ignore[arg-type]
            target=target,  # type: ignore[arg-type]
            xattrs=encoding.unpack_xattrs(value),  # type: ignore[arg-type]
            flags=flags,  # type: ignore[arg-type]
            btime=btime,  # type: ignore[arg-type]
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise Damaged("the catalog holds values that cannot be: run `mirrorback verify`") from error


def digest_of(value: bytes | None, sparse: int) -> Digest | None:
    """The digest in its two columns."""
    return None if value is None else Digest(value, bool(sparse))


def rows(catalog: Catalog, directory: int) -> dict[bytes, LiveRow]:
    """The mirror's entries in one directory, by name."""
    with catalog.lock:
        found = catalog.db.execute(_LIVE, (directory,)).fetchall()
    return {row[0]: _live_row(row) for row in found}


def rows_besides(catalog: Catalog, directory: int, same: Set[Row]) -> dict[bytes, LiveRow]:
    """The mirror's entries in one directory without those that `same_files` has found."""
    if not same:
        return rows(catalog, directory)
    held = names(catalog, [directory], 0)[directory]
    rest = held.without({row[0].encode() for row in same}).all
    if len(rest) > FEW:
        found = rows(catalog, directory)
        return {name: found[name] for name in rest}
    with catalog.lock:
        few = [
            catalog.db.execute(_LIVE + " AND e.name = ?", (directory, name)).fetchone()
            for name in rest
        ]
    return {row[0]: _live_row(row) for row in few}


def same_files(catalog: Catalog, directory: int, rows: Iterable[Row]) -> Set[Row]:
    """Those of the source's rows that are regular files of which the catalog says the very
    same, found without a look at each.  May miss some."""
    if sys.getfilesystemencoding() != "utf-8":
        return frozenset()  # names of rows are in another encoding than SQLite's
    try:
        with catalog.lock:
            found = catalog.db.execute(_FILES, (directory,)).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        return frozenset()  # a name that is not UTF-8
    return set(found).intersection(rows)


FEW = 8  # entries that are faster asked for one by one
_FILES = (
    f"SELECT CAST(e.name AS TEXT), o.ino, {Kind.FILE.format_bits} | o.mode, o.size, o.mtime,"
    " o.ctime, w.uid, w.gid, o.nlink, 0"
    " FROM entry e JOIN object o ON o.id = e.object JOIN owner w ON w.id = o.owner"
    f" WHERE e.dir = ? AND e.last IS NULL AND e.kind = {int(Kind.FILE)} AND NOT e.stale"
)


def _live_row(columns: tuple) -> LiveRow:  # type: ignore[type-arg]
    row = LiveRow._make(columns)
    return (
        row if isinstance(row.mtime, int) else row._replace(mtime=encoding.unpack_time(row.mtime))
    )


class Names(NamedTuple):
    """The names in a directory of the mirror."""

    total: int
    folders: list[bytes]
    others: bytes  # joined by slashes: a million need not be looked at each by itself

    @property
    def all(self) -> list[bytes]:
        """Each of them."""
        return self.folders + list(filter(None, self.others.split(b"/")))

    def without(self, names: Set[bytes]) -> Names:
        """All but these."""
        folders = [name for name in self.folders if name not in names]
        others = [name for name in self.others.split(b"/") if name and name not in names]
        return Names(len(folders) + len(others), folders, b"/".join(others))


NO_NAMES = Names(0, [], b"")


def names(catalog: Catalog, directories: Sequence[int], most: int) -> dict[int, Names]:
    """What the mirror has in some directories, by id in ascending order: of as many as
    hold `most` names together, of one at least."""
    found: dict[int, Names] = {}
    total, end = 0, None
    with catalog.lock:
        cursor = catalog.db.execute(_NAMES, slots(directories))
        for number, count, folders, others in cursor:
            total += count
            if total > most and found:
                end = number
                break
            found[number] = Names(count, folders.split(b"/") if folders else [], others or b"")
        cursor.close()
    return {
        number: found.get(number, NO_NAMES)
        for number in sorted(directories)
        if end is None or number < end
    }


# A blob's bytes are joined as they are, whatever they would be as text.
_JOINED = "CAST(group_concat(name, '/') FILTER (WHERE kind {} 2) AS BLOB)"
_NAMES = (
    f"SELECT dir, count(*), {_JOINED.format('=')}, {_JOINED.format('!=')} FROM main.entry"
    f" WHERE last IS NULL AND {AMONG} GROUP BY dir ORDER BY dir"
)


def shown_at(catalog: Catalog, directory: int, name: bytes) -> tuple[int, int]:
    """Object and entry that the mirror shows at a name."""
    with catalog.lock:
        row: tuple[int, int] = catalog.db.execute(
            "SELECT object, id FROM entry WHERE dir = ? AND name = ? AND last IS NULL",
            (directory, name),
        ).fetchone()
    return row


def children(catalog: Catalog, directory: int) -> dict[bytes, tuple[int, bytes | None]]:
    """Id and fingerprint of the known directories in a directory, by name.  Some
    may not be in the mirror; those have no fingerprint."""
    with catalog.lock:
        found = catalog.db.execute(
            "SELECT name, id, fingerprint FROM directory WHERE parent = ?", (directory,)
        ).fetchall()
    return {row[0]: (row[1], row[2]) for row in found}


def dresses(catalog: Catalog, directory: int) -> dict[bytes, tuple[int, Dress]]:
    """Of the mirror's directories in one directory, by name: the id, and what each is
    dressed with.  Raises Damaged."""
    with catalog.lock:
        found = catalog.db.execute(_DRESSES, (directory,)).fetchall()
    return {
        name: (
            number,
            Dress(mode, uid, gid, encoding.unpack_time(mtime), encoding.unpack_xattrs(value)),
        )
        for name, number, mode, uid, gid, mtime, value in found
    }


_DRESSES = (
    "SELECT e.name, d.id, o.mode, w.uid, w.gid, o.mtime, a.value"
    f" FROM entry e JOIN directory d ON d.parent = e.dir AND d.name = e.name {OBJECT_JOIN}"
    " WHERE e.dir = ? AND e.last IS NULL AND e.kind = 2"
)


def find_object(catalog: Catalog, number: int) -> tuple[Metadata, Digest | None] | None:
    """What is kept of one object; None where there is none.  Raises Damaged."""
    with catalog.lock:
        row = catalog.db.execute(
            f"SELECT {METADATA}, o.digest, o.sparse FROM object o"
            " JOIN owner w ON w.id = o.owner LEFT JOIN attributes a ON a.digest = o.attributes"
            " WHERE o.id = ?",
            (number,),
        ).fetchone()
    return row and (metadata_of(row[:-2]), digest_of(row[-2], row[-1]))


def object_row(catalog: Catalog, number: int) -> tuple[Metadata, Digest | None]:
    """What is kept of an object that there must be.  Raises Damaged."""
    found = find_object(catalog, number)
    if found is None:
        raise Damaged(f"the catalog has lost object {number}: run `mirrorback verify`")
    return found


def place(catalog: Catalog, entry: int) -> tuple[int, bytes]:
    """Directory and name of an entry."""
    with catalog.lock:
        row: tuple[int, bytes] = catalog.db.execute(
            "SELECT dir, name FROM entry WHERE id = ?", (entry,)
        ).fetchone()
    return row


def places_of(catalog: Catalog, number: int) -> list[int]:
    """The mirror's entries that show an object."""
    with catalog.lock:
        found = catalog.db.execute(
            "SELECT id FROM entry WHERE object = ? AND last IS NULL", (number,)
        ).fetchall()
    return [row[0] for row in found]


def any_linked(catalog: Catalog) -> bool:
    """Whether the catalog knows any inode with more than one link."""
    with catalog.lock:
        row = catalog.db.execute("SELECT 1 FROM object WHERE nlink > 1 LIMIT 1").fetchone()
    return row is not None


def linked_object(catalog: Catalog, ino: int) -> list[int]:
    """Objects of the mirror that had this source inode and more than one link."""
    with catalog.lock:
        found = catalog.db.execute(
            "SELECT o.id FROM object o WHERE o.ino = ? AND o.nlink > 1 AND EXISTS"
            " (SELECT 1 FROM entry e WHERE e.object = o.id AND e.last IS NULL)",
            (ino,),
        ).fetchall()
    return [row[0] for row in found]


def count_below(catalog: Catalog, directory: int) -> tuple[int, int, int]:
    """Files (all that is not a directory), directories and bytes of the mirror below a
    directory."""
    with catalog.lock:
        row = catalog.db.execute(
            "WITH RECURSIVE below(id) AS (VALUES (?) UNION ALL"
            " SELECT d.id FROM directory d JOIN below b ON d.parent = b.id AND d.id > b.id)"
            " SELECT coalesce(sum(e.kind != 2), 0), coalesce(sum(e.kind = 2), 0),"
            f" {schema.added('CASE WHEN e.kind = 1 THEN o.size ELSE 0 END')}"
            " FROM below b JOIN entry e ON e.dir = b.id AND e.last IS NULL"
            " JOIN object o ON o.id = e.object",
            (directory,),
        ).fetchone()
    return row[0], row[1], row[2]


def unchanged(row: Row, old: LiveRow) -> bool:
    """Whether the source says the same of an entry as the last time."""
    kind = KIND_OF_FORMAT[row[2] & 0o170000]
    if kind != old.kind:
        return False
    if kind is Kind.SYMLINK:
        mode_same = True
    else:
        mode_same = row[2] & 0o7777 == old.mode
    return (
        mode_same
        and row[5] == old.ctime
        and row[4] == old.mtime
        and row[1] == old.ino
        and row[6] == old.uid
        and row[7] == old.gid
        and (kind is Kind.DIRECTORY or row[8] == old.nlink)
        and (kind is not Kind.FILE or row[3] == old.size)
        and (kind not in (Kind.CHAR, Kind.BLOCK) or row[9] == old.rdev)
    )
