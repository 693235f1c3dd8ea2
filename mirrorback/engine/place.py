"""Placing one entry in `incoming/`: linked, copied, cloned, or made anew."""

from __future__ import annotations

import enum
import errno
import os
import stat
import threading

from mirrorback.engine.bench import Bench
from mirrorback.engine.tally import Tally
from mirrorback.errors import Trouble
from mirrorback.model import ChangeKind, Digest, Kind, Metadata
from mirrorback.plan import compare
from mirrorback.store import content, live, node, reading, schema, system
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.copier import NEW_FILE, Copied, Work
from mirrorback.store.difference import Action, Difference
from mirrorback.store.spool import Spool

UNSETTLED_CTIME = -1  # recorded for a file that may change without its times showing it
READ_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # not where it should be
Where = tuple[bytes, bytes]  # folder and name in the new snapshot


class Placed(enum.Enum):
    """How an entry came to stand in the new snapshot."""

    DONE = "done"
    UNSETTLED = "unsettled"  # may change within the clock's grain
    TORN = "torn"  # changed while being read
    KEPT = "kept"  # as it was before, stale
    NOT_HELD = "not held"  # the drive cannot hold such a thing


class Placer:
    """Carries out the action of a difference, and spools what came of it."""

    def __init__(
        self,
        catalog: Catalog,
        spool: Spool,
        dresser: node.Dresser,
        not_kept: node.NotKept,
        tally: Tally,
    ) -> None:
        self._catalog = catalog
        self._spool = spool
        self._dresser = dresser
        self._not_kept = not_kept
        self._tally = tally
        self._lock = threading.Lock()
        self.leaders: set[int] = set()  # differences whose object others follow
        self._led: dict[int, tuple[Where, int]] = {}  # by leader: where, and which object
        self._second: dict[int, Where] = {}  # by object: the inode that took over
        self._absent: set[int] = set()  # new objects that the drive does not hold

    def place(
        self,
        bench: Bench,
        folder: bytes,
        into: int,
        difference: Difference,
    ) -> Placed:
        """Make the entry.  Raises Trouble for the source, OSError for the drive."""
        match difference.action:
            case Action.REUSE:
                return self._reuse(bench, folder, into, difference)
            case Action.CLONE:
                return self._clone(bench, folder, into, difference)
            case Action.FOLLOW:
                return self._follow(bench, folder, into, difference)
            case Action.KEEP:
                if difference.entry is None:
                    self.keep_moved(bench, folder, into, difference)
                else:
                    self.keep(bench, folder, into, difference)
                return Placed.KEPT
            case _:
                return self._copy(bench, folder, into, difference)

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
                and compare.settled(copied.mtime, copied.ctime, copied.read_at)
            ):
                plain.append((difference.dir, difference.name, copied))
            else:
                others.append((difference, copied))
        if plain:
            self._spool.new_files(plain)
            self._tally.placed(ChangeKind.ADDED, len(plain))
        return others

    # --- linking what the drive has ---------------------------------------------------

    def _reuse(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """Link an object of the mirror, from its place before."""
        number = difference.use
        assert number is not None
        if not self.absent(number) and not self._link(bench, folder, into, difference, number):
            return self._copy(bench, folder, into, difference)
        goes_on = difference.object == number and difference.moved is None
        if goes_on and difference.entry is not None:
            self._spool.add("stale", difference.entry, 0)
        else:
            self.record(difference, number)
        self.refresh(number, difference)
        return Placed.DONE if difference.settled else Placed.UNSETTLED

    def _link(
        self, bench: Bench, folder: bytes, into: int, difference: Difference, number: int
    ) -> bool:
        """Link an object; False where someone took it out of the mirror."""
        try:
            origin, name = self._origin(bench, folder, difference, number)
            os.link(
                name, difference.name, src_dir_fd=origin, dst_dir_fd=into, follow_symlinks=False
            )
        except OSError as error:
            if error.errno in LOST:
                return False
            if error.errno != errno.EMLINK:
                raise
            self.split(bench, (folder, difference.name), into, number, (origin, name))
        return True

    def _origin(
        self, bench: Bench, folder: bytes, difference: Difference, number: int
    ) -> tuple[int, bytes]:
        """Directory and name under which the mirror shows an object.  Raises OSError."""
        if difference.moved is None and number == difference.object:
            return bench.mirror(folder), difference.name
        entry = difference.moved
        places = live.places_of(self._catalog, number)
        if entry not in places:
            if not places:
                raise FileNotFoundError(errno.ENOENT, "not in the mirror")
            entry = places[0]
        directory, name = live.place(self._catalog, entry)
        path = b"" if directory == ABOVE_ROOT else self._catalog_path(directory)
        return bench.mirror(path, elsewhere=True), name

    def _catalog_path(self, directory: int) -> bytes:
        with self._catalog.lock:
            return self._catalog.directory_path(directory)

    def absent(self, number: int) -> bool:
        """Whether an object is in the catalog only, since the drive cannot hold it."""
        if number in self._absent:
            return True
        with self._catalog.lock:
            row = self._catalog.db.execute(
                "SELECT drive FROM main.object WHERE id = ? AND kind != 1", (number,)
            ).fetchone()
        return row is not None and row[0] == schema.ABSENT

    def split(
        self, bench: Bench, where: Where, into: int, number: int, origin: tuple[int, bytes]
    ) -> None:
        """An inode has all the links the drive allows: a second one takes over, which
        the catalog knows as the same object."""
        with self._lock:
            second = self._second.get(number)
        if second is None or not self._link_built(bench, second, into, where[1]):
            self._duplicate(origin, into, where[1])
            with self._lock:
                self._second[number] = where
            self._spool.add("split", number)

    def _link_built(self, bench: Bench, origin: Where, into: int, name: bytes) -> bool:
        """Link an entry of the new snapshot; False where its links are used up too."""
        try:
            os.link(
                origin[1],
                name,
                src_dir_fd=bench.built(origin[0]),
                dst_dir_fd=into,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return False
        return True

    def _duplicate(self, origin: tuple[int, bytes], into: int, name: bytes) -> None:
        """A new inode like another on the drive."""
        st = os.stat(origin[1], dir_fd=origin[0], follow_symlinks=False)
        if not stat.S_ISREG(st.st_mode):
            self._make_other(into, name, node.read_other(st, *origin))
            return
        old = os.open(origin[1], os.O_RDONLY | READ_SAFELY, dir_fd=origin[0])
        try:
            new = os.open(name, NEW_FILE, 0o600, dir_fd=into)
            try:
                self._fill_from(old, st, new, None)
                self._dress(new, node.read_open(old, st, *origin))
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _follow(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """Another name of an inode that this build has made."""
        leader = difference.leader
        assert leader is not None
        led = self._led.get(leader)
        if led is None:  # the leader could not be read: this name leads the rest
            return self._copy(bench, folder, into, difference, lead=leader)
        where, number = led
        if number not in self._absent and not self._link_built(bench, where, into, difference.name):
            self._duplicate((bench.built(where[0]), where[1]), into, difference.name)
            self._led[leader] = ((folder, difference.name), number)
            self._spool.add("split", number)
        self.record(difference, number)
        return Placed.DONE

    def keep(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> None:
        """Link what the mirror had at this path, marked as no longer what the source has."""
        assert difference.entry is not None and difference.object is not None
        if self._spool.fetch(
            "SELECT 1 FROM spool.gone WHERE entry = ? AND moved_to IS NOT NULL",
            (difference.entry,),
        ):
            self._keep_apart(bench, folder, into, difference)
            return
        here = difference._replace(moved=None, use=difference.object)
        if not self.absent(difference.object) and not self._link(
            bench, folder, into, here, difference.object
        ):
            # Neither source nor mirror has it: from now on the mirror says so.
            self._spool.add("closed", difference.entry)
            return
        self._spool.add("stale", difference.entry, 1)
        self._spool.update("DELETE FROM spool.gone WHERE entry = ?", (difference.entry,))

    def keep_moved(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> bool:
        """Link what the mirror had under the name from which an entry has moved, marked
        stale; False where it is not there."""
        rows = self._spool.fetch(
            "SELECT object FROM spool.gone WHERE entry = ? AND kind = ?",
            (difference.moved, difference.kind),
        )
        if not rows:
            return False
        number = rows[0][0]
        if not self.absent(number) and not self._link(bench, folder, into, difference, number):
            return False
        self.record(difference, number, stale=1)
        return True

    def _keep_apart(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> None:
        """The same, where the object goes on under another name: an inode of its own."""
        assert difference.object is not None
        metadata, digest = live.object_row(self._catalog, difference.object)
        try:
            origin = bench.mirror(folder), difference.name
            self._duplicate(origin, into, difference.name)
        except OSError as error:
            if error.errno not in LOST:
                raise
            self._spool.add("closed", difference.entry)
            return
        number = self._spool.new_id("object")
        self._spool.object(number, metadata, digest, (0, UNSETTLED_CTIME, 1))
        was = difference._replace(moved=None, old_lineage=None, kind=int(metadata.kind))
        self.record(was, number, stale=1)

    # --- new inodes ----------------------------------------------------------------------

    def _clone(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """A new inode whose bytes the mirror has: content from there, all else anew."""
        number = difference.use if difference.use is not None else difference.object
        assert number is not None
        _known, digest = live.object_row(self._catalog, number)
        try:
            origin, name = self._origin(bench, folder, difference, number)
            old = os.open(name, os.O_RDONLY | READ_SAFELY, dir_fd=origin)
        except OSError as error:
            if error.errno not in LOST:
                raise
            return self._copy(bench, folder, into, difference)
        try:
            st = os.fstat(old)
            if not stat.S_ISREG(st.st_mode) or st.st_size != difference.size:
                return self._copy(bench, folder, into, difference)
            new = os.open(difference.name, NEW_FILE, 0o600, dir_fd=into)
            try:
                if not self._fill_from(old, st, new, digest):
                    os.unlink(difference.name, dir_fd=into)
                    return self._copy(bench, folder, into, difference)
                metadata = difference.metadata
                self._dress(new, metadata)
            finally:
                os.close(new)
        finally:
            os.close(old)
        source = (difference.ino, difference.ctime, difference.nlink)
        if not difference.settled:
            source = (difference.ino, UNSETTLED_CTIME, difference.nlink)
        self._new(folder, difference, metadata, digest, source)
        return Placed.DONE if difference.settled else Placed.UNSETTLED

    def _fill_from(self, old: int, st: os.stat_result, new: int, digest: Digest | None) -> bool:
        """Give a new file the bytes of one on the drive, shared where the drive can;
        False where they are not what their digest says."""
        if system.clone_file(old, new):
            return True
        hashing = content.hasher(digest.sparse) if digest else None
        for offset, data in content.pieces(old, st):
            content.write_all(new, data, offset)
            self._tally.written(len(data))
            if hashing is not None:
                hashing.feed(offset, data)
        os.ftruncate(new, st.st_size)
        return hashing is None or hashing.finish(st.st_size) == digest

    def _copy(
        self,
        bench: Bench,
        folder: bytes,
        into: int,
        difference: Difference,
        *,
        lead: int | None = None,
    ) -> Placed:
        """A new inode, all of it from the source."""
        if difference.kind == Kind.FILE:
            work = Work(folder, copies=[difference.name])
            copied = bench.filler.fill([work], self._tally.copied)[0].copied[0]
            if isinstance(copied, Trouble):
                raise copied
            return self.take(folder, difference, copied, lead=lead)
        with reading.troubles:
            origin = bench.source.open(folder)
        seen = reading.look(origin, difference.name, Kind(difference.kind).format_bits)
        held = self._make_other(into, difference.name, seen.metadata)
        return self._seen(folder, difference, seen, held=held, lead=lead)

    def take(
        self, folder: bytes, difference: Difference, copied: Copied, *, lead: int | None = None
    ) -> Placed:
        """Record a file that has been copied."""
        if copied.missed:
            self._not_kept.add(copied.missed)
        return self._seen(folder, difference, copied.seen, lead=lead)

    def _seen(
        self,
        folder: bytes,
        difference: Difference,
        seen: reading.Seen,
        *,
        held: bool = True,
        lead: int | None = None,
    ) -> Placed:
        """Record an entry made from the source as it was seen."""
        settled = not seen.torn and compare.settled(seen.metadata.mtime, seen.ctime, seen.read_at)
        source = (seen.ino, seen.ctime if settled else UNSETTLED_CTIME, seen.nlink)
        self._new(folder, difference, seen.metadata, seen.digest, source, held=held, lead=lead)
        if not held:
            return Placed.NOT_HELD
        if seen.torn:
            return Placed.TORN
        return Placed.DONE if settled else Placed.UNSETTLED

    def _make_other(self, into: int, name: bytes, metadata: Metadata) -> bool:
        """A symlink, fifo, socket or device; False where the drive cannot hold it."""
        try:
            node.make_other(into, name, metadata)
        except OSError as error:
            if error.errno not in node.CANNOT | {errno.ENAMETOOLONG}:
                raise
            self._not_kept.add([metadata.kind.label + "s"])
            return False
        missed = self._dresser.dress_named(into, name, metadata)
        if missed:
            self._not_kept.add(missed)
        return True

    def _dress(self, fd: int, metadata: Metadata, *, fresh: bool = True) -> None:
        missed = self._dresser.dress_open(fd, metadata, fresh=fresh)
        if missed:
            self._not_kept.add(missed)

    # --- what came of it --------------------------------------------------------------------

    def _new(
        self,
        folder: bytes,
        difference: Difference,
        metadata: Metadata,
        digest: Digest | None,
        source: tuple[int, int, int],
        *,
        held: bool = True,
        lead: int | None = None,
    ) -> None:
        number = self._spool.new_id("object")
        self._spool.object(
            number, metadata, digest, source, schema.WHOLE if held else schema.ABSENT
        )
        if not held:
            self._absent.add(number)
        self.record(difference, number)
        leader = difference.id if lead is None else lead
        if leader in self.leaders:
            self._led[leader] = ((folder, difference.name), number)

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
