"""What came of building an entry, spooled for the catalog's transaction."""

from __future__ import annotations

import enum
from collections.abc import Callable

from mirrorback.engine.tally import Tally
from mirrorback.errors import Trouble
from mirrorback.model import ChangeKind, Digest, Metadata
from mirrorback.plan import compare
from mirrorback.store import live, node, reading, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.copier import Copied
from mirrorback.store.difference import Difference
from mirrorback.store.spool import Spool

UNSETTLED_CTIME = -1  # recorded for a file that may change without its times showing it
Where = tuple[bytes, bytes]  # folder and name in the new snapshot


class Placed(enum.Enum):
    """How an entry came to stand in the new snapshot."""

    DONE = "done"
    UNSETTLED = "unsettled"  # may change within the clock's grain
    TORN = "torn"  # changed while being read
    KEPT = "kept"  # as it was before, stale
    NOT_HELD = "not held"  # the drive cannot hold such a thing


class Recorder:
    """Spools objects and entries.  For several threads."""

    def __init__(
        self,
        catalog: Catalog,
        spool: Spool,
        not_kept: node.NotKept,
        tally: Tally,
        settled: Callable[[int, int, int], bool] = compare.settled,
    ) -> None:
        """`settled` is that of the source."""
        self._settled = settled
        self._catalog = catalog
        self._spool = spool
        self._not_kept = not_kept
        self._tally = tally
        self.leaders: set[int] = set()  # differences whose object others follow
        self.led: dict[int, tuple[Where, int]] = {}  # by leader: where, and which object
        self.new_absent: set[int] = set()  # new objects that the drive does not hold

    def absent(self, number: int) -> bool:
        """Whether an object is in the catalog only, since the drive cannot hold it."""
        if number in self.new_absent:
            return True
        with self._catalog.lock:
            row = self._catalog.db.execute(
                "SELECT drive FROM main.object WHERE id = ? AND kind != 1", (number,)
            ).fetchone()
        return row is not None and row[0] == schema.ABSENT

    def take_new(
        self, differences: list[Difference], results: list[Copied | Trouble]
    ) -> list[tuple[Difference, Copied | Trouble]]:
        """Record, all at once, those copies of new files of which nothing else is to be
        said; returns the others."""
        plain: list[tuple[int, bytes, Copied]] = []
        others = []
        for difference, copied in zip(differences, results, strict=True):
            if (
                isinstance(copied, Copied)
                and difference.entry is None
                and difference.moved is None
                and difference.old_lineage is None
                and difference.id not in self.leaders
                and not copied.torn
                and not copied.missed
                and self._settled(copied.mtime, copied.ctime, copied.read_at)
            ):
                plain.append((difference.dir, difference.name, copied))
            else:
                others.append((difference, copied))
        if plain:
            self._spool.new_files(plain)
            self._tally.placed(ChangeKind.ADDED, len(plain))
        return others

    def take(
        self, folder: bytes, difference: Difference, copied: Copied, *, lead: int | None = None
    ) -> Placed:
        """Record a file that has been copied."""
        if copied.missed:
            self._not_kept.add(copied.missed)
        return self.seen(folder, difference, copied.seen, lead=lead)

    def seen(
        self,
        folder: bytes,
        difference: Difference,
        seen: reading.Seen,
        *,
        held: bool = True,
        lead: int | None = None,
        number: int | None = None,
    ) -> Placed:
        """Record an entry made from the source as it was seen; `number` is its object's, a new
        one where none is given."""
        settled = not seen.torn and self._settled(seen.metadata.mtime, seen.ctime, seen.read_at)
        source = (seen.ino, seen.ctime if settled else UNSETTLED_CTIME, seen.nlink)
        metadata, digest = seen.metadata, seen.digest
        self.new(folder, difference, metadata, digest, source, held=held, lead=lead, number=number)
        if not held:
            return Placed.NOT_HELD
        if seen.torn:
            return Placed.TORN
        return Placed.DONE if settled else Placed.UNSETTLED

    def new(
        self,
        folder: bytes,
        difference: Difference,
        metadata: Metadata,
        digest: Digest | None,
        source: tuple[int, int, int],
        *,
        held: bool = True,
        lead: int | None = None,
        number: int | None = None,
    ) -> None:
        """Record an entry and the new object it shows; `source` is ino, ctime and nlink
        there, `held` off says that the drive cannot hold it, `lead` names the difference
        in whose place it leads a hard-link group."""
        if number is None:
            number = self._spool.new_id("object")
        self._spool.object(
            number, metadata, digest, source, schema.WHOLE if held else schema.ABSENT
        )
        if not held:
            self.new_absent.add(number)
        self.record(difference, number)
        leader = difference.id if lead is None else lead
        if leader in self.leaders:
            self.led[leader] = ((folder, difference.name), number)

    def record(self, difference: Difference, number: int, stale: int = 0) -> None:
        """Spool the entry that a difference has become; it shows object `number`."""
        entry = self._spool.new_id("entry")
        from_dir = from_name = None
        if difference.moved is not None:
            from_dir, from_name = live.place(self._catalog, difference.moved)
        if difference.entry is not None:
            self._spool.add("closed", difference.entry)
        lineage = difference.old_lineage if difference.old_lineage is not None else entry
        self._spool.add(
            "entry",
            entry,
            difference.dir,
            difference.name,
            int(difference.kind),
            None,  # the snapshot's number, known when it is recorded
            None,
            number,
            lineage,
            from_dir,
            from_name,
            stale,
        )

    def refresh(self, number: int, difference: Difference) -> None:
        """An object goes on; what the source's inode says of itself is new."""
        ctime = difference.ctime if difference.settled else UNSETTLED_CTIME
        self._spool.add("refresh", number, difference.ino, ctime, difference.nlink)
