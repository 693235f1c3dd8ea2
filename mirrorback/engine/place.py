"""Placing one entry in `incoming/`: linked, copied, cloned, or made anew."""

from __future__ import annotations

import errno
import os
import stat
import threading

from mirrorback.engine.bench import Bench
from mirrorback.engine.large import Large
from mirrorback.engine.recording import UNSETTLED_CTIME, Placed, Recorder, Where
from mirrorback.engine.revision import Spot
from mirrorback.engine.tally import Tally
from mirrorback.errors import Trouble
from mirrorback.model import Digest, Kind, Metadata
from mirrorback.store import clones, content, learnt, live, node, reading, system
from mirrorback.store.catalog import ABOVE_ROOT, Catalog
from mirrorback.store.clones import NewFile
from mirrorback.store.copier import NEW_FILE, Work
from mirrorback.store.difference import Action, Difference
from mirrorback.store.spool import Spool

LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # not where it should be


class Placer:
    """Carries out the action of a difference, and has recorded what came of it."""

    def __init__(
        self,
        catalog: Catalog,
        spool: Spool,
        dresser: node.Dresser,
        not_kept: node.NotKept,
        tally: Tally,
        recorder: Recorder,
        large: Large,
    ) -> None:
        self._catalog = catalog
        self._spool = spool
        self._dresser = dresser
        self._not_kept = not_kept
        self._tally = tally
        self._recorder = recorder
        self._large = large
        self._lock = threading.Lock()
        self._second: dict[int, Where] = {}  # by object: the inode that took over

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
            case Action.REVISE:
                return self._revise(bench, folder, into, difference)
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

    # --- linking what the drive has ---------------------------------------------------

    def _reuse(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """Link an object of the mirror, from its place before."""
        number = difference.use
        assert number is not None
        if not self._recorder.absent(number) and not self._link(
            bench, folder, into, difference, number
        ):
            return self._copy(bench, folder, into, difference)
        goes_on = difference.object == number and difference.moved is None
        if goes_on and difference.entry is not None:
            self._spool.add("stale", difference.entry, 0)
        else:
            self._recorder.record(difference, number)
        self._recorder.refresh(number, difference)
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
        old = os.open(origin[1], system.READ_SAFELY, dir_fd=origin[0])
        try:
            new = os.open(name, NEW_FILE, 0o600, dir_fd=into)
            try:
                self._fill_from(old, st, NewFile(new, into, name), None)
                self._dress(new, node.read_open(old, st, *origin))
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _follow(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """Another name of an inode that this build has made."""
        leader = difference.leader
        assert leader is not None
        led = self._recorder.led.get(leader)
        if led is None:  # the leader could not be read: this name leads the rest
            return self._copy(bench, folder, into, difference, lead=leader)
        where, number = led
        if number not in self._recorder.new_absent and not self._link_built(
            bench, where, into, difference.name
        ):
            self._duplicate((bench.built(where[0]), where[1]), into, difference.name)
            self._recorder.led[leader] = ((folder, difference.name), number)
            self._spool.add("split", number)
        self._recorder.record(difference, number)
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
        if not self._recorder.absent(difference.object) and not self._link(
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
        if not self._recorder.absent(number) and not self._link(
            bench, folder, into, difference, number
        ):
            return False
        self._recorder.record(difference, number, stale=1)
        return True

    def _keep_apart(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> None:
        """The same, where the object goes on under another name: an inode of its own."""
        assert difference.object is not None
        metadata, digest = learnt.object_row(self._catalog, self._spool, difference.object)
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
        self._recorder.record(was, number, stale=1)

    # --- new inodes ----------------------------------------------------------------------

    def _clone(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """A new inode whose bytes the mirror has: content from there, all else anew."""
        number = difference.use if difference.use is not None else difference.object
        assert number is not None
        _known, digest = learnt.object_row(self._catalog, self._spool, number)
        try:
            origin, name = self._origin(bench, folder, difference, number)
            old = os.open(name, system.READ_SAFELY, dir_fd=origin)
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
                if not self._fill_from(old, st, NewFile(new, into, difference.name), digest):
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
        self._recorder.new(folder, difference, metadata, digest, source)
        return Placed.DONE if difference.settled else Placed.UNSETTLED

    def _revise(self, bench: Bench, folder: bytes, into: int, difference: Difference) -> Placed:
        """A new version of a large file."""
        spot = Spot(bench, folder, into, difference)
        assert difference.use is not None
        try:
            origin = self._origin(bench, folder, difference, difference.use)
        except OSError as error:
            if error.errno not in LOST:
                raise
            return self._large.copy(spot)
        return self._large.revise(spot, origin)

    def _fill_from(self, old: int, st: os.stat_result, new: NewFile, digest: Digest | None) -> bool:
        """Give a new file the bytes of one on the drive, shared where the drive can; False
        where they are not what their digest says."""
        if clones.clone_file(old, new):
            return True
        hashing = content.hasher(digest.sparse) if digest else None
        for offset, data in content.pieces(old, st):
            content.write_all(new.fd, data, offset)
            self._tally.written(len(data))
            if hashing is not None:
                hashing.feed(offset, data)
        os.ftruncate(new.fd, st.st_size)
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
        if self._large.wants(difference):
            return self._large.copy(Spot(bench, folder, into, difference), lead)
        if difference.kind == Kind.FILE:
            work = Work(folder, copies=[difference.name])
            copied = bench.filler.fill([work], self._tally.copied)[0].copied[0]
            if isinstance(copied, Trouble):
                raise copied
            return self._recorder.take(folder, difference, copied, lead=lead)
        with reading.troubles:
            origin = bench.source.open(folder)
        seen = reading.look(origin, difference.name, Kind(difference.kind).format_bits)
        held = self._make_other(into, difference.name, seen.metadata)
        return self._recorder.seen(folder, difference, seen, held=held, lead=lead)

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
