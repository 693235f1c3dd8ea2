"""From differences to a plan: moves, hard links, and what each will cost.

Reads the spool that the survey filled, and the source where only its content
can tell; writes the decisions back into the spool.  Nothing is written to the
drive's snapshots here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from mirrorback.engine.source import Source
from mirrorback.errors import Trouble
from mirrorback.model import Change, ChangeKind, Kind
from mirrorback.plan import compare, links
from mirrorback.store import encoding, live, reading, system, tree
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.spool import Action, Difference, Gone, Spool

CANDIDATES = 16  # gone files of one size and time that are tried for a new one

# A path that shows another inode than before, or was not there.
_ARRIVED = "(c.entry IS NULL OR c.old_ino IS NOT c.ino OR c.old_kind != c.kind)"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan will write, and what it takes away."""

    bytes: int  # of new files
    shared: int  # of these, what a drive with reflinks does not write
    files: int  # new inodes that are not folders
    rows: int
    removed: int  # files that go
    changed: int  # files whose content is replaced


def verdict(difference: Difference) -> ChangeKind | None:
    """How a planned entry differs from the snapshot before."""
    if difference.action == Action.KEEP:
        return None
    return compare.verdict(
        existed=difference.entry is not None,
        same_kind=difference.old_kind == difference.kind,
        moved=difference.moved is not None,
        same_content=difference.same_content != 0,
        same_metadata=difference.same_metadata != 0,
        same_links=difference.verdict is None,
    )


def planned(catalog: Catalog, spool: Spool) -> Iterator[Change]:
    """Every path that differs from the mirror, as far as it is planned."""
    for difference in spool.changes("1"):
        kind = verdict(difference)
        if kind is None or (
            # A folder's time stamp alone is no change worth telling.
            kind is ChangeKind.METADATA and _time_alone(catalog, difference)
        ):
            continue
        before = None
        if difference.moved is not None:
            directory, name = live.place(catalog, difference.moved)
            before = tree.join(catalog.directory_path(directory), name)
        path = tree.join(_directory(spool, difference.dir), difference.name)
        yield Change(path, kind, before)
    lost = "SELECT entry, dir, name FROM spool.gone WHERE NOT replaced AND moved_to IS NULL"
    for _entry, directory, name in spool.select(f"{lost} AND entry > ? ORDER BY entry"):
        yield Change(
            tree.join(_directory(spool, directory), name),
            ChangeKind.REMOVED,
        )


def _directory(spool: Spool, directory: int) -> bytes:
    return b"" if directory == ABOVE_ROOT else spool.directory_path(directory)


def _time_alone(catalog: Catalog, difference: Difference) -> bool:
    if difference.kind != Kind.DIRECTORY or difference.object is None:
        return False
    before, _digest = live.object_row(catalog, difference.object)
    return before.same_as(dataclasses.replace(difference.metadata, mtime=before.mtime))


def nothing_new(spool: Spool) -> bool:
    """Whether a resolved spool holds no difference that a snapshot could show."""
    return not spool.fetch(
        "SELECT 1 FROM spool.change WHERE NOT ("
        f" (action = {Action.REUSE} AND use IS object AND moved IS NULL)"
        f" OR action = {Action.KEEP}"
        f" OR (action = {Action.DIRECTORY} AND old_kind IS kind AND same_metadata IS NOT 0"
        "  AND moved IS NULL))"
        " UNION ALL SELECT 1 FROM spool.gone WHERE NOT replaced LIMIT 1"
    )


class Resolver:
    """Finds moves and settles hard links for one spool."""

    def __init__(self, source: Source, catalog: Catalog, spool: Spool) -> None:
        self._source = source
        self._catalog = catalog
        self._spool = spool
        self._cursor = tree.Cursor(source.fd)
        self._last: tuple[tuple[int, int, int, int], reading.Seen | None] | None = None

    def run(self) -> Cost:
        """Decide everything that the survey left open."""
        try:
            if self._spool.fetch("SELECT 1 FROM spool.gone LIMIT 1"):
                self._prepare()
                self._folders()
                self._by_inode()
                self._by_content()
                self._spool.update(
                    "UPDATE spool.change SET old_lineage = NULL WHERE entry IN"
                    " (SELECT entry FROM spool.gone WHERE replaced AND moved_to IS NOT NULL)"
                )
            self._links()
        finally:
            self._cursor.close()
        return self._cost()

    def _prepare(self) -> None:
        # Where the path goes on with the same content, its object is not free.
        self._spool.update(
            "DELETE FROM spool.gone WHERE replaced AND entry IN"
            f" (SELECT entry FROM spool.change WHERE action IN ({Action.REUSE}, {Action.KEEP}))"
        )
        self._spool.update("CREATE INDEX spool.gone_ino ON gone (ino, kind)")
        self._spool.update("CREATE INDEX spool.gone_size ON gone (size, mtime) WHERE kind = 1")

    # --- moves ---------------------------------------------------------------------

    def _folders(self) -> None:
        """A directory has moved when a new path shows the inode of a lost one."""
        for difference, gone in self._pairs("c.kind = 2"):
            born = self._birth(difference)
            known = self._known_birth(gone.object)
            if born is not None and known is not None:
                same = born == known
            else:
                same = difference.mtime == encoding.unpack_time(gone.mtime)
            if same:
                self._moved(difference, gone)

    def _by_inode(self) -> None:
        """A file has moved when a new path shows the inode of a lost one; what is
        the same but for its name needs no reading."""
        where = f"c.kind != 2 AND c.action NOT IN ({Action.KEEP}, {Action.REUSE})"
        for difference, gone in self._pairs(where):
            known, digest = live.object_row(self._catalog, gone.object)
            if self._untouched(difference, gone):
                self._moved(difference, gone, action=Action.REUSE, same=(1, 1))
                continue
            seen = None
            if difference.kind != Kind.FILE or difference.size == gone.size:
                seen = self._seen(difference, digest.sparse if digest else None)
            if seen is not None and seen.digest == digest:
                before = known
                if before.target == seen.metadata.target and before.rdev == seen.metadata.rdev:
                    same = before.same_as(seen.metadata)
                    action = Action.REUSE if same else Action.CLONE
                    if difference.kind != Kind.FILE and not same:
                        action = Action.COPY
                    self._moved(difference, gone, action=action, same=(1, int(same)), seen=seen)
                    continue
            born = self._birth(difference)
            if born is not None and born == known.btime:
                self._moved(difference, gone, action=Action.COPY, same=(0, 0))

    def _by_content(self) -> None:
        """A new file with the size, time and digest of a lost one is that one, even
        if all inodes are new, as in a source restored from elsewhere."""
        where = (
            f"kind = 1 AND action = {Action.COPY} AND moved IS NULL AND entry IS NULL AND size > 0"
            " AND EXISTS (SELECT 1 FROM spool.gone g WHERE g.kind = 1 AND g.size = change.size"
            " AND g.mtime = change.mtime AND g.moved_to IS NULL)"
        )
        for difference in self._spool.changes(where):
            rows = self._spool.fetch(
                "SELECT * FROM spool.gone WHERE kind = 1 AND size = ? AND mtime = ?"
                " AND moved_to IS NULL ORDER BY name != ?, entry LIMIT ?",
                (
                    difference.size,
                    encoding.pack_time(difference.mtime),
                    difference.name,
                    CANDIDATES,
                ),
            )
            for gone in map(Gone._make, rows):
                known, digest = live.object_row(self._catalog, gone.object)
                seen = self._seen(difference, digest.sparse if digest else None)
                if seen is None:
                    break
                if seen.digest == digest:
                    same = known.same_as(seen.metadata)
                    action = Action.REUSE if same else Action.CLONE
                    self._moved(difference, gone, action=action, same=(1, int(same)), seen=seen)
                    break

    def _pairs(self, where: str) -> Iterator[tuple[Difference, Gone]]:
        """New names with the lost names whose inode they show, each at most once."""
        columns = ", ".join(f"c.{name}" for name in Difference._fields)
        lost = ", ".join(f"g.{name}" for name in Gone._fields)
        width = len(Difference._fields)
        sql = (
            f"SELECT {columns}, {lost} FROM spool.change c JOIN spool.gone g"
            f" ON g.ino = c.ino AND g.kind = c.kind WHERE {where} AND {_ARRIVED}"
            " AND g.entry IS NOT c.entry AND c.id > ?"
            " ORDER BY c.id, g.name != c.name, g.entry"
        )
        taken: set[int] = set()
        paired = -1
        # A hard-linked inode has as many rows for each new name as names were lost.
        # The rows of one new name may be cut apart by a batch's end: those that
        # follow in the next batch are of the next name, at worst one link is not
        # seen as moved.
        for row in self._spool.select(sql):
            difference = Difference.of_columns(row[:width])
            gone = Gone._make(row[width:])
            if difference.id == paired or gone.entry in taken:
                continue
            yield difference, gone
            if self._accepted:
                paired = difference.id
                if gone.kind != Kind.DIRECTORY and difference.nlink > 1:
                    taken.add(gone.entry)
                self._accepted = False

    _accepted = False

    def _untouched(self, difference: Difference, gone: Gone) -> bool:
        """Whether not even the inode's ctime has moved: then nothing of it has."""
        if difference.size != gone.size and difference.kind == Kind.FILE:
            return False
        row = self._spool.fetch(
            "SELECT ctime, mtime FROM main.object WHERE id = ?", (gone.object,)
        )[0]
        return row == (difference.ctime, encoding.pack_time(difference.mtime))

    def _moved(
        self,
        difference: Difference,
        gone: Gone,
        *,
        action: int | None = None,
        same: tuple[int, int] | None = None,
        seen: reading.Seen | None = None,
    ) -> None:
        self._accepted = True
        if seen is not None:
            difference = _with(difference, seen)
        reuse = action in (Action.REUSE, Action.CLONE)
        difference = difference._replace(
            moved=gone.entry,
            action=difference.action if action is None else action,
            use=gone.object if reuse else None,
            same_content=difference.same_content if same is None else same[0],
            same_metadata=difference.same_metadata if same is None else same[1],
            old_lineage=gone.lineage,
        )
        self._store(difference)
        self._spool.update(
            "UPDATE spool.gone SET moved_to = ? WHERE entry = ?", (difference.id, gone.entry)
        )

    # --- hard links ------------------------------------------------------------------

    def _links(self) -> None:
        """Give all names of one source inode one object, and no two inodes the same."""
        where = (
            f"kind != 2 AND action != {Action.KEEP} AND (nlink > 1 OR old_nlink > 1 OR use IN"
            " (SELECT id FROM main.object WHERE nlink > 1))"
        )
        differences = {d.id: d for d in self._spool.changes(where)}
        if not differences:
            return
        live_names = _LiveNames(self._catalog, self._spool)
        members = [self._member(d, live_names) for d in differences.values()]
        wanted = {m.candidate for m in members if m.candidate is not None}
        for group in links.assign(members, live_names.held(wanted)):
            self._settle(group, differences, live_names)

    def _member(self, difference: Difference, live_names: _LiveNames) -> links.Member:
        candidate, own = difference.use if difference.same_metadata else None, False
        if candidate is None and difference.entry is None and difference.moved is None:
            # A new name of an inode whose other names have not changed, or will say.
            for number in live.linked_object(self._catalog, difference.ino):
                if live_names.is_held(number) and self._equals(difference, number):
                    candidate = number
        if candidate is not None:
            own = live_names.inode(candidate) == difference.ino
        goes_on = difference.entry is not None or difference.moved is not None
        before: frozenset[int] = frozenset()
        if goes_on:
            earlier = self._object_before(difference)
            before = live_names.lineages(earlier) if earlier is not None else frozenset()
        return links.Member(
            id=difference.id,
            inode=(difference.dev, difference.ino),
            candidate=candidate,
            own=own,
            lineage=difference.old_lineage if goes_on else None,
            before=before,
        )

    def _object_before(self, difference: Difference) -> int | None:
        if difference.moved is None:
            return difference.object
        found = self._spool.fetch(
            "SELECT object FROM spool.gone WHERE entry = ?", (difference.moved,)
        )
        return found[0][0] if found else None

    def _equals(self, difference: Difference, number: int) -> bool:
        known, digest = live.object_row(self._catalog, number)
        if difference.kind != known.kind:
            return False
        seen = self._seen(difference, digest.sparse if digest else None)
        return seen is not None and seen.digest == digest and known.same_as(seen.metadata)

    def _settle(
        self, group: links.Group, differences: dict[int, Difference], live_names: _LiveNames
    ) -> None:
        others: frozenset[int] = frozenset()
        if group.object is not None and live_names.is_held(group.object):
            others = live_names.kept_lineages(group.object)
        relinked = {member.id for member in group.relinked(others)}
        leader = group.leader.id
        for member in group.members:
            difference = differences[member.id]
            if member.id in relinked:
                difference = difference._replace(verdict=ChangeKind.METADATA.value)
            if group.object is not None:
                difference = difference._replace(action=Action.REUSE, use=group.object)
            elif member.id != leader:
                difference = difference._replace(action=Action.FOLLOW, use=None, leader=leader)
            elif difference.action == Action.REUSE:
                # Its object goes to another inode: the bytes are on the drive already.
                again = Action.CLONE if difference.kind == Kind.FILE else Action.COPY
                difference = difference._replace(action=again)
            self._store(difference)

    # --- what only the source can tell -------------------------------------------------

    def _seen(self, difference: Difference, sparse: bool | None) -> reading.Seen | None:
        """Metadata and digest of a source entry; None where it cannot be read now."""
        key = (difference.dev, difference.ino, difference.ctime, int(bool(sparse)))
        if self._last is not None and self._last[0] == key:
            return self._last[1]  # the next name of a hard-linked file, often
        seen: reading.Seen | None
        try:
            fd = self._open(difference.dir)
            if difference.kind == Kind.FILE:
                seen = reading.digest_file(fd, difference.name, sparse, lambda count: None)
            else:
                format_bits = Kind(difference.kind).format_bits
                seen = reading.look(fd, difference.name, format_bits)
        except Trouble:
            seen = None  # the build will meet it again, and tell
        if seen is not None and (seen.torn or seen.ino != difference.ino):
            seen = None
        self._last = (key, seen)
        return seen

    def _birth(self, difference: Difference) -> int | None:
        try:
            return system.birth_time(self._open(difference.dir), difference.name)
        except (Trouble, OSError):
            return None

    def _known_birth(self, number: int) -> int | None:
        known, _digest = live.object_row(self._catalog, number)
        return known.btime

    def _open(self, directory: int) -> int:
        if directory == 0:
            return self._source.fd
        with reading.troubles:
            return self._cursor.open(self._spool.directory_path(directory))

    def _store(self, difference: Difference) -> None:
        columns = ", ".join(f"{name} = ?" for name in Difference._fields[1:])
        self._spool.update(
            f"UPDATE spool.change SET {columns} WHERE id = ?",
            (*difference.columns()[1:], difference.id),
        )

    def _cost(self) -> Cost:
        made = f"kind = 1 AND action IN ({Action.COPY}, {Action.CLONE})"
        rows = self._spool.fetch(
            f"SELECT coalesce(sum(CASE WHEN {made} THEN allocated ELSE 0 END), 0),"
            f" coalesce(sum(kind != 2 AND action IN ({Action.COPY}, {Action.CLONE})), 0),"
            f" coalesce(sum(CASE WHEN action = {Action.CLONE} THEN allocated ELSE 0 END), 0),"
            " count(*), coalesce(sum(kind != 2 AND entry IS NOT NULL AND same_content = 0), 0)"
            " FROM spool.change"
        )
        removed = self._spool.fetch(
            "SELECT count(*) FROM spool.gone WHERE kind != 2 AND NOT replaced AND moved_to IS NULL"
        )
        if not rows:
            return Cost(0, 0, 0, 0, 0, 0)
        size, files, shared, count, changed = rows[0]
        return Cost(size, shared, files, count, removed[0][0], changed)


class _LiveNames:
    """The mirror's names of hard-linked objects, and which of them stay as they are."""

    def __init__(self, catalog: Catalog, spool: Spool) -> None:
        self._catalog = catalog
        self._spool = spool
        self._names: dict[int, list[tuple[int, int, bool]]] = {}

    def _of(self, number: int) -> list[tuple[int, int, bool]]:
        """(entry, lineage, whether it stays) of each name of an object."""
        if number not in self._names:
            rows = self._spool.fetch(
                "SELECT e.id, e.lineage, NOT EXISTS (SELECT 1 FROM spool.gone g WHERE g.entry ="
                " e.id) AND NOT EXISTS (SELECT 1 FROM spool.change c WHERE c.entry = e.id"
                " AND c.dir = e.dir)"
                " FROM main.entry e WHERE e.object = ? AND e.last IS NULL",
                (number,),
            )
            self._names[number] = [(r[0], r[1], bool(r[2])) for r in rows]
        return self._names[number]

    def inode(self, number: int) -> int:
        """The source inode that an object was the last time."""
        rows = self._spool.fetch("SELECT ino FROM main.object WHERE id = ?", (number,))
        return int(rows[0][0])

    def lineages(self, number: int) -> frozenset[int]:
        """Those that shared an object."""
        return frozenset(lineage for _entry, lineage, _stays in self._of(number))

    def kept_lineages(self, number: int) -> frozenset[int]:
        """Those of them that stay as they are."""
        return frozenset(lineage for _entry, lineage, stays in self._of(number) if stays)

    def is_held(self, number: int) -> bool:
        """Whether an unchanged name shows the object."""
        return any(stays for _entry, _lineage, stays in self._of(number))

    def held(self, numbers: set[int]) -> dict[int, int]:
        """Of these objects, those that unchanged names show, with their source inode."""
        return {number: self.inode(number) for number in numbers if self.is_held(number)}


def _with(difference: Difference, seen: reading.Seen) -> Difference:
    """A difference with what has been read of the entry since."""
    metadata = seen.metadata
    settled = compare.settled(metadata.mtime, seen.ctime, seen.read_at)
    return difference._replace(
        mode=metadata.mode,
        size=metadata.size if difference.kind == Kind.FILE else difference.size,
        mtime=metadata.mtime,
        ctime=seen.ctime,
        uid=metadata.owner.uid,
        gid=metadata.owner.gid,
        nlink=seen.nlink,
        digest=seen.digest.value if seen.digest else None,
        sparse=int(seen.digest.sparse) if seen.digest else 0,
        settled=int(settled),
    ).seen(metadata)
