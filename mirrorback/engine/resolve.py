"""From differences to a plan: moves, hard links, and what each will cost.

Reads the spool that the survey filled, and the source where only its content
can tell; writes the decisions back into the spool.  Nothing is written to the
drive's snapshots here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from mirrorback.engine import revisable
from mirrorback.engine.grafting import Grafter
from mirrorback.engine.inspection import Inspector
from mirrorback.engine.linking import Linker
from mirrorback.engine.revisable import LargeFiles
from mirrorback.engine.source import Source
from mirrorback.engine.suspects import NONE, Suspects
from mirrorback.engine.unseen import Unseen
from mirrorback.model import Kind
from mirrorback.store import encoding, live, reading
from mirrorback.store.catalog import Catalog
from mirrorback.store.difference import Action, Difference, Gone
from mirrorback.store.learnt import UNSEEN_INO
from mirrorback.store.schema import added
from mirrorback.store.spool import Spool

CANDIDATES = 16  # gone files of one size and time that are tried for a new one

# A path that shows another inode than before, or was not there.
_ARRIVED = "(c.entry IS NULL OR c.old_ino IS NOT c.ino OR c.old_kind != c.kind)"

# Without content, and known from the drive only: see `learnt`.
_UNSEEN_LOST = f"ino = {UNSEEN_INO} AND kind != 2 AND size * (kind = 1) = 0"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan will write, and what it takes away."""

    bytes: int  # of new files
    revised: int  # of large files that are read, to store what has changed of them
    shared: int  # of these, what a drive with reflinks does not write
    files: int  # new inodes that are not folders
    rows: int
    removed: int  # files that go
    changed: int  # files whose content is replaced
    kept: int = 0  # files that stay, though the folder they moved with cannot be read


class Resolver:
    """Finds moves and settles hard links for one spool."""

    def __init__(
        self,
        source: Source,
        catalog: Catalog,
        spool: Spool,
        large_files: LargeFiles | None,
        unseen: Unseen,
        suspects: Suspects = NONE,
    ) -> None:
        """Without `large_files` they are taken to be stored as all others."""
        self._unseen = unseen
        self._suspects = suspects.objects
        self._catalog = catalog
        self._spool = spool
        self._large_files = large_files
        self._inspector = Inspector(source, spool)
        self._grafter = Grafter(catalog, spool, source.device)

    def run(self) -> Cost:
        """Decide everything that the survey left open."""
        kept = 0
        try:
            if self._spool.fetch("SELECT 1 FROM spool.gone LIMIT 1"):
                self._prepare()
                self._folders()
                self._by_inode()
                self._by_content()
                self._without_content()
                kept = self._grafter.run()
                self._spool.update(
                    "UPDATE spool.change SET old_lineage = NULL WHERE moved IS NULL AND entry IN"
                    " (SELECT entry FROM spool.gone WHERE replaced AND moved_to IS NOT NULL)"
                )
            self._bar_suspects()
            Linker(self._catalog, self._spool, self._inspector).run()
        finally:
            self._inspector.close()
        if self._large_files is not None:
            revisable.choose(
                self._catalog,
                self._spool,
                self._large_files,
                self._unseen.digest,
                self._suspects,
            )
        return dataclasses.replace(self._cost(), kept=kept)

    def _prepare(self) -> None:
        # Where the path goes on with the same content, its object is not free.
        self._spool.update(
            "DELETE FROM spool.gone WHERE replaced AND entry IN"
            f" (SELECT entry FROM spool.change WHERE action IN ({Action.REUSE}, {Action.KEEP}))"
        )
        self._spool.update("CREATE INDEX spool.gone_ino ON gone (ino, kind)")
        self._spool.update("CREATE INDEX spool.gone_size ON gone (size, mtime) WHERE kind = 1")
        self._spool.update(
            f"CREATE INDEX spool.gone_unseen ON gone (kind, mtime) WHERE {_UNSEEN_LOST}"
        )

    def _bar_suspects(self) -> None:
        """What the mirror has of a damaged object is used for nothing: the source has it."""
        for number in self._suspects:
            self._spool.update(
                f"UPDATE spool.change SET action = {Action.COPY}, use = NULL WHERE use = ?"
                f" AND action IN ({Action.REUSE}, {Action.CLONE})",
                (number,),
            )

    # --- moves ---------------------------------------------------------------------

    def _folders(self) -> None:
        """A directory has moved when a new path shows the inode of a lost one."""
        for difference, gone in self._pairs("c.kind = 2 AND c.dir != 0 AND g.dir != 0"):
            born = self._inspector.birth(difference)
            known = self._known_birth(gone.object)
            if born is not None and known is not None:
                same = born == known
            else:
                same = difference.mtime == encoding.unpack_time(gone.mtime)
            if same:
                self._moved(difference, gone)
                self._grafter.moved(difference, gone)

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
                seen = self._inspector.seen(difference, digest.sparse if digest else None)
            if seen is not None and seen.digest == digest:
                before = known
                if before.target == seen.metadata.target and before.rdev == seen.metadata.rdev:
                    same = before.same_as(seen.metadata)
                    action = Action.REUSE if same else Action.CLONE
                    if difference.kind != Kind.FILE and not same:
                        action = Action.COPY
                    self._moved(difference, gone, action=action, same=(1, int(same)), seen=seen)
                    continue
            born = self._inspector.birth(difference)
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
                seen = self._inspector.seen(difference, digest.sparse if digest else None)
                if seen is None:
                    break
                if gone.ino == UNSEEN_INO:
                    known, digest = self._unseen.met(gone.object, seen)
                if seen.digest == digest:
                    same = known.same_as(seen.metadata)
                    action = Action.REUSE if same else Action.CLONE
                    self._moved(difference, gone, action=action, same=(1, int(same)), seen=seen)
                    break

    def _without_content(self) -> None:
        """A new empty file, symlink, and so on, with the time and metadata of a lost one that
        nobody has seen in the source yet, is that one, if it has its name, or is the only one
        like it."""
        lost = f"{_UNSEEN_LOST} AND kind = ? AND mtime = ? AND moved_to IS NULL"
        where = (
            f"kind != 2 AND size * (kind = 1) = 0 AND action = {Action.COPY} AND moved IS NULL"
            " AND entry IS NULL AND EXISTS (SELECT 1 FROM spool.gone g WHERE g.ino ="
            f" {UNSEEN_INO} AND g.kind != 2 AND g.size * (g.kind = 1) = 0"
            " AND g.kind = change.kind AND g.mtime = change.mtime AND g.moved_to IS NULL)"
        )
        for difference in self._spool.changes(where):
            seen = self._inspector.seen(difference, None)
            if seen is None:
                continue
            rows = self._spool.fetch(
                f"SELECT * FROM spool.gone WHERE {lost} ORDER BY name != ?, entry LIMIT ?",
                (
                    *(difference.kind, encoding.pack_time(difference.mtime)),
                    *(difference.name, CANDIDATES),
                ),
            )
            alike = [
                gone
                for gone in map(Gone._make, rows)
                if self._unseen.may_be(gone.object, seen.metadata)
            ]
            if not alike or (len(alike) > 1 and alike[0].name != difference.name):
                continue
            known, _digest = self._unseen.met(alike[0].object, seen)
            if known.same_as(seen.metadata):
                self._moved(difference, alike[0], action=Action.REUSE, same=(1, 1), seen=seen)

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
            difference = self._inspector.with_seen(difference, seen)
        reuse = action in (Action.REUSE, Action.CLONE)
        difference = difference._replace(
            moved=gone.entry,
            action=difference.action if action is None else action,
            use=gone.object if reuse else None,
            same_content=difference.same_content if same is None else same[0],
            same_metadata=difference.same_metadata if same is None else same[1],
            old_lineage=gone.lineage,
        )
        self._spool.replace([difference])
        self._spool.update(
            "UPDATE spool.gone SET moved_to = ? WHERE entry = ?", (difference.id, gone.entry)
        )

    def _known_birth(self, number: int) -> int | None:
        known, _digest = live.object_row(self._catalog, number)
        return known.btime

    def _cost(self) -> Cost:
        made = f"kind = 1 AND action IN ({Action.COPY}, {Action.CLONE})"
        rows = self._spool.fetch(
            f"SELECT {added(f'CASE WHEN {made} THEN allocated ELSE 0 END')},"
            f" {added(f'CASE WHEN action = {Action.REVISE} THEN size ELSE 0 END')},"
            " coalesce(sum(kind != 2 AND action IN"
            f" ({Action.COPY}, {Action.CLONE}, {Action.REVISE})), 0),"
            f" {added(f'CASE WHEN action = {Action.CLONE} THEN allocated ELSE 0 END')},"
            " count(*), coalesce(sum(kind != 2 AND entry IS NOT NULL AND same_content = 0), 0)"
            " FROM spool.change"
        )
        removed = self._spool.fetch(
            "SELECT count(*) FROM spool.gone WHERE kind != 2 AND NOT replaced AND moved_to IS NULL"
        )
        if not rows:
            return Cost(0, 0, 0, 0, 0, 0, 0)
        size, revised, files, shared, count, changed = rows[0]
        return Cost(size, revised, shared, files, count, removed[0][0], changed)
