"""The tables of the catalog, and of the spool that a backup fills beside it."""

from __future__ import annotations

FORMAT = 1
APPLICATION_ID = 0x6D626B31  # "mbk1"
LARGEST = (1 << 63) - 1  # that a column holds


def added(expression: str) -> str:
    """SQL for the sum of sizes in bytes, 0 of none: exact below 8 PiB.  `sum` fails where files
    that are mostly holes come to more than a column holds, for which this gives LARGEST."""
    return f"CAST(total({expression}) AS INTEGER)"


def held(size: int) -> int:
    """A number of bytes as a column can hold it."""
    return max(0, min(size, LARGEST))


PAGE_SIZE = 8192  # bytes: a night reads nearly all of the catalog, and writes at many places
WHOLE, SPLIT, ABSENT, DELTA = 0, 1, 2, 3

# Every row but those of `attributes`, which are named by their digest, has a check over its
# other columns (`encoding.row_check`) in its last, `digest_of_row`.

PROPERTY = ("key", "value")

SNAPSHOT = (
    "id",
    "name",
    "time",
    "offset",
    "state",
    "root",
    "incomplete",
    "pinned",
    "files",
    "bytes",
)

DIRECTORY = ("id", "parent", "name", "fingerprint")

OWNER = ("id", "uid", "gid", "user", "grp")

# `first` and `last` are snapshot ids, both included; `last` is NULL in the mirror.
# They may name snapshots that have been deleted since.  `lineage` is the id of
# the first entry of a line: one name through changes and moves.
ENTRY = (
    "id",
    "dir",
    "name",
    "kind",
    "first",
    "last",
    "object",
    "lineage",
    "from_dir",
    "from_name",
    "stale",
)

# `drive` says how the drive holds an object: WHOLE, SPLIT over several inodes
# where it allows no more links, not at all (ABSENT, such as a device without
# root), or as a reverse delta (DELTA).  `ino`, `ctime` and `nlink` are the source's,
# as of the last backup that saw it.
OBJECT = (
    "id",
    "kind",
    "mode",
    "owner",
    "mtime",
    "size",
    "rdev",
    "target",
    "attributes",
    "flags",
    "btime",
    "digest",
    "sparse",
    "drive",
    "ino",
    "ctime",
    "nlink",
)

# `base` is the object that an object's delta is over, `stored` the delta's size in bytes.
DELTA_ROW = ("object", "base", "stored")

# What is still to be done of an object after a commit: it is a delta now, or whole again
# (`form`), and its file lies in `redo/`.  `patched` is the object whose file, so far the
# object's own, is to get the changes that lie there too; NULL where it has a file of its own.
# `removal` is the snapshot whose removal asks for it, NULL where a publication does, and
# MENDING where a repair does.
REPLACING = ("object", "form", "patched", "removal")
MENDING = 0

# When an object was last read back (`time` as in `snapshot`), and what was wrong with it then
# (`problem`, NULL where it was well).  No row: never.
VERIFIED = ("object", "time", "problem")

CATALOG = """
CREATE TABLE property (
    key TEXT PRIMARY KEY, value, digest_of_row INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, time INTEGER NOT NULL,
    offset INTEGER NOT NULL, state INTEGER NOT NULL, root INTEGER NOT NULL,
    incomplete INTEGER NOT NULL, pinned TEXT, files INTEGER NOT NULL, bytes INTEGER NOT NULL,
    digest_of_row INTEGER NOT NULL DEFAULT 0);
CREATE TABLE directory (
    id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, fingerprint BLOB,
    digest_of_row INTEGER NOT NULL DEFAULT 0, UNIQUE (parent, name));
CREATE TABLE owner (
    id INTEGER PRIMARY KEY, uid INTEGER NOT NULL, gid INTEGER NOT NULL, user TEXT, grp TEXT,
    digest_of_row INTEGER NOT NULL DEFAULT 0);
CREATE TABLE attributes (digest BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE object (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, mode INTEGER NOT NULL, owner INTEGER NOT NULL,
    mtime INTEGER NOT NULL, size INTEGER NOT NULL, rdev INTEGER NOT NULL, target BLOB,
    attributes BLOB, flags INTEGER NOT NULL, btime INTEGER, digest BLOB, sparse INTEGER NOT NULL,
    drive INTEGER NOT NULL, ino INTEGER NOT NULL, ctime INTEGER NOT NULL, nlink INTEGER NOT NULL,
    digest_of_row INTEGER NOT NULL);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, dir INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER, object INTEGER NOT NULL, lineage INTEGER NOT NULL,
    from_dir INTEGER, from_name BLOB, stale INTEGER NOT NULL, digest_of_row INTEGER NOT NULL);
CREATE TABLE delta (
    object INTEGER PRIMARY KEY, base INTEGER NOT NULL, stored INTEGER NOT NULL,
    digest_of_row INTEGER NOT NULL);
CREATE TABLE replacing (
    object INTEGER PRIMARY KEY, form INTEGER NOT NULL, patched INTEGER, removal INTEGER,
    digest_of_row INTEGER NOT NULL DEFAULT 0);
CREATE TABLE verified (
    object INTEGER PRIMARY KEY, time INTEGER NOT NULL, problem TEXT,
    digest_of_row INTEGER NOT NULL DEFAULT 0);
CREATE INDEX entry_place ON entry (dir, name, kind, last);
CREATE INDEX entry_object ON entry (object);
CREATE INDEX entry_first ON entry (first);
CREATE INDEX entry_last ON entry (last) WHERE last IS NOT NULL;
CREATE INDEX delta_base ON delta (base);
CREATE INDEX object_linked ON object (ino) WHERE nlink > 1;
CREATE INDEX verified_damaged ON verified (object) WHERE problem IS NOT NULL;
"""

# The tables with checks.  Of those in KEPT_BY_TRIGGER the rows are few, or seldom change, and
# triggers of the writing connection keep the checks; who writes to the others gives the check.
CHECKED = {
    "property": PROPERTY,
    "snapshot": SNAPSHOT,
    "directory": DIRECTORY,
    "owner": OWNER,
    "object": OBJECT,
    "entry": ENTRY,
    "delta": DELTA_ROW,
    "replacing": REPLACING,
    "verified": VERIFIED,
}
KEPT_BY_TRIGGER = ("property", "snapshot", "directory", "owner", "replacing", "verified")


def check(columns: tuple[str, ...], prefix: str = "", **changed: str) -> str:
    """The SQL that computes a row's check; `changed` columns are taken from elsewhere."""
    return "row_check(" + ", ".join(changed.get(c, prefix + c) for c in columns) + ")"


def check_after(columns: tuple[str, ...], prefix: str = "", **changed: str) -> str:
    """The SQL for the check of a row of which some columns change.  One that was wrong stays
    wrong by as much: damage is not made good by a change beside it."""
    return f"{prefix}digest_of_row + {check(columns, prefix, **changed)} - {check(columns, prefix)}"


def triggers() -> str:
    """The SQL for the triggers, which belong to a connection and not to the file: what a
    file from a drive brings along is never run."""
    statements = ""
    for table in KEPT_BY_TRIGGER:
        columns = CHECKED[table]
        new, old = check(columns, "NEW."), check(columns, "OLD.")
        row = f"{columns[0]} = NEW.{columns[0]}"
        statements += (
            f"CREATE TEMP TRIGGER {table}_came AFTER INSERT ON main.{table}"
            f" BEGIN UPDATE {table} SET digest_of_row = {new} WHERE {row}; END;"
            f"CREATE TEMP TRIGGER {table}_changed AFTER UPDATE OF {', '.join(columns)}"
            f" ON main.{table} BEGIN UPDATE {table}"
            f" SET digest_of_row = OLD.digest_of_row + {new} - {old} WHERE {row}; END;"
        )
    return statements


# What a backup finds (`change`, `gone`) and what it makes of it (the rest, in
# the catalog's own columns, taken over in one transaction).
SPOOL = """
CREATE TABLE spool.change (
    id INTEGER PRIMARY KEY, dir INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,
    ino INTEGER, dev INTEGER, mode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER,
    uid INTEGER, gid INTEGER, nlink INTEGER, rdev INTEGER,
    entry INTEGER, object INTEGER, old_kind INTEGER, old_ino INTEGER, old_nlink INTEGER,
    old_lineage INTEGER,
    same_content INTEGER, same_metadata INTEGER, digest BLOB, sparse INTEGER DEFAULT 0,
    inspected INTEGER NOT NULL DEFAULT 0, target BLOB, xattrs BLOB, flags INTEGER DEFAULT 0,
    btime INTEGER, settled INTEGER NOT NULL DEFAULT 1, allocated INTEGER,
    action INTEGER NOT NULL, use INTEGER, moved INTEGER, leader INTEGER, verdict TEXT);
CREATE INDEX spool.change_place ON change (dir);
CREATE TABLE spool.gone (
    entry INTEGER PRIMARY KEY, dir INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,
    object INTEGER NOT NULL, lineage INTEGER NOT NULL, ino INTEGER, size INTEGER, mtime INTEGER,
    replaced INTEGER NOT NULL, moved_to INTEGER);
CREATE INDEX spool.gone_place ON gone (dir);
CREATE TABLE spool.directory (id INTEGER PRIMARY KEY, parent INTEGER, name BLOB);
CREATE INDEX spool.directory_place ON directory (parent, name);
CREATE TABLE spool.unread (dir INTEGER PRIMARY KEY);
CREATE TABLE spool.fingerprint (dir INTEGER PRIMARY KEY, value BLOB);
CREATE TABLE spool.refresh (
    object INTEGER PRIMARY KEY, ino INTEGER, ctime INTEGER, nlink INTEGER);
CREATE TABLE spool.learnt (
    object INTEGER PRIMARY KEY, mode, owner, mtime, attributes, flags, btime, digest, sparse,
    met);
CREATE TABLE spool.stale (entry INTEGER PRIMARY KEY, stale INTEGER NOT NULL);
CREATE TABLE spool.closed (entry INTEGER PRIMARY KEY);
CREATE TABLE spool.split (object INTEGER PRIMARY KEY);
CREATE TABLE spool.delta (object INTEGER PRIMARY KEY, base, stored);
CREATE TABLE spool.replacing (object INTEGER PRIMARY KEY, form, patched);
CREATE TABLE spool.attributes (digest BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE spool.object (
    id INTEGER PRIMARY KEY, kind, mode, owner, mtime, size, rdev, target, attributes, flags,
    btime, digest, sparse, drive, ino, ctime, nlink);
CREATE TABLE spool.entry (
    id INTEGER PRIMARY KEY, dir, name, kind, first, last, object, lineage, from_dir, from_name,
    stale);
"""
