"""Hard links: which names of the new snapshot share an inode."""

from __future__ import annotations

from collections.abc import Iterator

from mirrorback.engine.inspection import Inspector
from mirrorback.model import ChangeKind, Kind
from mirrorback.plan import links
from mirrorback.store import live
from mirrorback.store.catalog import Catalog
from mirrorback.store.difference import Action, Difference
from mirrorback.store.spool import Spool


class Linker:
    """Settles the hard-link groups of one spool."""

    def __init__(self, catalog: Catalog, spool: Spool, inspector: Inspector) -> None:
        self._catalog = catalog
        self._spool = spool
        self._inspector = inspector
        self._names = _Names(catalog, spool)
        self._any_linked = True

    def run(self) -> None:
        """Give all names of one source inode one object, and no two inodes the same."""
        where = (
            f"kind != 2 AND action != {Action.KEEP} AND (nlink > 1 OR old_nlink > 1 OR use IN"
            " (SELECT id FROM main.object WHERE nlink > 1))"
        )
        differences = {d.id: d for d in self._spool.changes(where)}
        if not differences:
            return
        self._any_linked = live.any_linked(self._catalog)
        members = [self._member(difference) for difference in differences.values()]
        wanted = {m.candidate for m in members if m.candidate is not None}
        settled: list[Difference] = []
        for group in links.assign(members, self._names.held(wanted)):
            settled += self._settle(group, differences)
        self._spool.replace(settled)

    def _member(self, difference: Difference) -> links.Member:
        candidate, own = difference.use if difference.same_metadata else None, False
        if candidate is None and difference.nlink > 1 and self._any_linked:
            # A new name of an inode whose other names have not changed, or will say; or one that
            # could not be read when they did.
            candidate = self._of_same_inode(difference)
            own = candidate is not None
        elif candidate is not None:
            own = self._names.inode(candidate) == difference.ino
        goes_on = difference.entry is not None or difference.moved is not None
        before: frozenset[int] = frozenset()
        if goes_on:
            earlier = self._object_before(difference)
            before = self._names.lineages(earlier) if earlier is not None else frozenset()
        return links.Member(
            id=difference.id,
            inode=(difference.dev, difference.ino),
            candidate=candidate,
            own=own,
            lineage=difference.old_lineage if goes_on else None,
            before=before,
        )

    def _of_same_inode(self, difference: Difference) -> int | None:
        """The object that names which have not changed show of the very inode that this name
        shows.  Inode numbers may be the same on two file systems."""
        for number in live.linked_object(self._catalog, difference.ino):
            for directory, name in self._names.kept_places(number):
                found = self._inspector.identity(directory, name)
                if found == (difference.dev, difference.ino) and self._equals(difference, number):
                    return number
        return None

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
        seen = self._inspector.seen(difference, digest.sparse if digest else None)
        return seen is not None and seen.digest == digest and known.same_as(seen.metadata)

    def _settle(
        self, group: links.Group, differences: dict[int, Difference]
    ) -> Iterator[Difference]:
        """The members of a group that are decided otherwise now."""
        others: frozenset[int] = frozenset()
        if group.object is not None and self._names.is_held(group.object):
            others = self._names.kept_lineages(group.object)
        relinked = {member.id for member in group.relinked(others)}
        leader = group.leader.id
        for member in group.members:
            before = difference = differences[member.id]
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
            if difference is not before:
                yield difference


class _Names:
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

    def kept_places(self, number: int) -> list[tuple[int, bytes]]:
        """Directory and name of those that stay as they are."""
        kept = [entry for entry, _lineage, stays in self._of(number) if stays]
        return [live.place(self._catalog, entry) for entry in kept]

    def is_held(self, number: int) -> bool:
        """Whether an unchanged name shows the object."""
        return any(stays for _entry, _lineage, stays in self._of(number))

    def held(self, numbers: set[int]) -> dict[int, int]:
        """Of these objects, those that unchanged names show, with their source inode."""
        return {number: self.inode(number) for number in numbers if self.is_held(number)}
