"""The build: the new snapshot in `incoming/`, links for what stays, copies for the rest.

Directories are the units of work, spread over a few threads.  An object that
a published snapshot shows is only ever linked, never opened for writing.  What
was done is spooled; nothing of it exists until it is published.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirrorback.engine import planned
from mirrorback.engine.bench import Bench
from mirrorback.engine.events import Events
from mirrorback.engine.folders import Folder, Folders
from mirrorback.engine.large import Large
from mirrorback.engine.place import Placer
from mirrorback.engine.recording import Placed, Recorder
from mirrorback.engine.revisable import LargeFiles
from mirrorback.engine.revision import Kit
from mirrorback.engine.source import Source
from mirrorback.engine.tally import Tally
from mirrorback.errors import Trouble
from mirrorback.model import Kind
from mirrorback.store import live, node, tree, xattrs
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR, Catalog
from mirrorback.store.copier import Filled, Roots, Work
from mirrorback.store.difference import Action, Difference
from mirrorback.store.helper import Helpers
from mirrorback.store.repository import CURRENT, INCOMING, REDO, SIGNATURES, Repository
from mirrorback.store.spool import Spool
from mirrorback.store.together import SLOTS
from mirrorback.store.workers import work_through

AT_ONCE = 256  # files copied before what came of them is recorded
TOGETHER = SLOTS  # folders ordered in one go
MOST_ROWS = 2000  # of the catalog, or of the spool, for these folders in memory
ENOUGH = 8 << 20  # bytes to copy that are enough for one go
A_LINK = 1 << 10  # bytes whose copying is as much work


@dataclass(frozen=True, slots=True)
class Crew:
    """How many threads decide and record, and how many processes link and copy for them
    (none: the threads themselves do)."""

    threads: int
    helpers: int = 0


@dataclass(frozen=True, slots=True)
class _Order:
    """The work of one directory, and the differences that its copies are of."""

    folder: Folder
    work: Work
    links: int
    copies: list[Difference]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a directory of the mirror held, and what has become of it."""

    names: live.Names
    changes: list[Difference]
    gone: frozenset[bytes]


class Build:
    """One build of one snapshot."""

    def __init__(
        self,
        repo: Repository,
        catalog: Catalog,
        spool: Spool,
        source: Source,
        events: Events,
        not_kept: node.NotKept,
        large_files: LargeFiles,
    ) -> None:
        self._repo = repo
        self._catalog = catalog
        self._spool = spool
        self._source = source
        self._events = events
        self._not_kept = not_kept
        self._dresser = node.Dresser(enterable=True)
        lost = "SELECT 1 FROM spool.gone WHERE NOT replaced LIMIT 1"
        self._any_gone = bool(spool.fetch(lost))
        self.tally = Tally(events)
        self._recorder = Recorder(catalog, spool, not_kept, self.tally, source.settled)
        self._kit = Kit(
            catalog,
            spool,
            self.tally,
            not_kept,
            node.Dresser(),
            repo.open_inner(SIGNATURES),
            repo.open_inner(REDO),
        )
        self._large = Large(self._kit, self._recorder, large_files)
        self._placer = Placer(
            catalog, spool, self._dresser, not_kept, self.tally, self._recorder, self._large
        )
        self._folders = Folders(catalog, spool, self._recorder)
        self._has_mirror = False

    def run(self, crew: Crew) -> int:
        """Build all of it.  Returns the inode number of the new root.  Raises OSError
        for what the drive does.  To be called once."""
        with contextlib.closing(self._kit):
            return self._run(crew)

    def _run(self, crew: Crew) -> int:
        os.mkdir(INCOMING, 0o700, dir_fd=self._repo.inner)
        incoming = os.open(INCOMING, tree.DIRECTORY_FLAGS, dir_fd=self._repo.inner)
        current = self._open_current()
        self._has_mirror = current is not None
        salvage = self._open_salvage()
        try:
            # Nothing inside is to inherit a group or an access control list.
            os.fchmod(incoming, 0o700)
            xattrs.write(incoming, ())

            roots = Roots(self._source.fd, current, incoming, salvage)
            self._work(roots, crew)
            return os.fstat(incoming).st_ino
        finally:
            for fd in (incoming, current, *salvage):
                if fd is not None:
                    os.close(fd)

    def _work(self, roots: Roots, crew: Crew) -> None:
        helpers = Helpers(roots, crew.helpers) if crew.helpers else None

        def tools() -> Bench:
            return Bench(roots, helpers)

        def stop() -> None:
            self.tally.stopped = True
            if helpers is not None:
                helpers.close()

        try:
            self._find_followers()
            first = self._root(tools())
            work_through(
                [[first]],
                self._fill,
                threads=crew.threads,
                tools=tools,
                put_away=Bench.close,
                stop=stop,
            )
            self._follow(tools())
        finally:
            stop()

    def _open_current(self) -> int | None:
        try:
            return os.open(CURRENT, tree.DIRECTORY_FLAGS, dir_fd=self._repo.fd)
        except FileNotFoundError:
            return None

    def _open_salvage(self) -> tuple[int, ...]:
        found = []
        for name in self._repo.salvage():
            with contextlib.suppress(OSError):
                found.append(self._repo.open_salvaged(name))
        return tuple(found)

    # --- directories -----------------------------------------------------------------

    def _root(self, bench: Bench) -> Folder:
        changes = self._spool.changes_in([ABOVE_ROOT], 1)[ABOVE_ROOT]
        try:
            if changes:
                dress = node.Dress.of(self._folders.changed(bench, b"", changes[0]))
                known = changes[0].entry is not None
            else:
                dress = live.dresses(self._catalog, ABOVE_ROOT)[b""][1]
                known = True
            return Folder(b"", ROOT_DIR, known, dress)
        finally:
            bench.close()

    def _fill(self, folders: list[Folder], bench: Bench, push: Callable[..., None]) -> None:
        """Make everything that some directories hold, then give them their own metadata."""
        orders: list[_Order] = []
        below: list[Folder] = []
        weight = 0
        folders.sort(key=lambda folder: folder.id)
        found = self._contents(folders)
        for number, folder in enumerate(folders):
            if weight >= ENOUGH or folder.id not in found:
                push(folders[number:])  # others may have a hand free
                break
            order, work = self._order(folder, found[folder.id], bench, below)
            orders.append(order)
            weight += work
        filled = bench.filler.fill([order.work for order in orders], self.tally.copied)
        for order, result in zip(orders, filled, strict=True):
            self._filled(order, bench, result)
        push(*(below[at : at + TOGETHER] for at in range(0, len(below), TOGETHER)))

    def _contents(self, folders: list[Folder]) -> dict[int, _Contents]:
        """What some directories held and what has changed, by id, of as many as there
        should be in memory at once."""
        names = live.names(self._catalog, [folder.id for folder in folders], MOST_ROWS)
        changes = self._spool.changes_in(list(names), MOST_ROWS)
        gone = {number: frozenset[bytes]() for number in changes}
        if self._any_gone:
            gone = self._spool.gone_in(list(changes), MOST_ROWS)
        return {number: _Contents(names[number], changes[number], gone[number]) for number in gone}

    def _order(
        self, folder: Folder, found: _Contents, bench: Bench, below: list[Folder]
    ) -> tuple[_Order, int]:
        """What there is to do in a directory when all that cannot be ordered has been made,
        and how much work it is, in bytes.  The directories in it are added to `below`."""
        changes = found.changes
        names = found.names if folder.known else live.NO_NAMES
        touched = found.gone.union(d.name for d in changes)
        if touched:
            names = names.without(touched)
        below += self._folders.known(folder, names.folders)
        copies, others = self._split(changes)
        if others:
            below += self._make_changes(folder, bench, others)
        work = Work(folder.path, names.folders, names.others)
        while len(copies) > AT_ONCE:
            some, copies = copies[:AT_ONCE], copies[AT_ONCE:]
            order = _Order(folder, work._replace(copies=[d.name for d in some]), 0, some)
            self._filled(order, bench, bench.filler.fill([order.work], self.tally.copied)[0])
            work = Work(folder.path)
        work = work._replace(copies=[d.name for d in copies], dress=folder.dress)
        links = names.total - len(names.folders)
        weight = sum(d.allocated for d in copies) + A_LINK * links
        return _Order(folder, work, links, copies), weight

    def _filled(self, order: _Order, bench: Bench, filled: Filled) -> None:
        """Record what came of an order, and see to what could not be done so."""
        folder = order.folder
        self._events.advance(order.links)
        if filled.missed:
            self._not_kept.add(filled.missed)
        troubled = []
        for difference, result in self._recorder.take_new(order.copies, filled.copied):
            if isinstance(result, Trouble):
                troubled.append((difference, result))
            else:
                placed = self._recorder.take(folder.path, difference, result)
                self._placed(folder, difference, placed)
        if not filled.refused and not troubled:
            return
        with self._undressed(bench, folder.path) as into:
            for name, error in filled.refused:
                self._unlinkable(folder, bench, into, name, error)
            for difference, trouble in troubled:
                self._trouble(folder, bench, into, difference, trouble)

    @contextlib.contextmanager
    def _undressed(self, bench: Bench, path: bytes) -> Iterator[int]:
        """A folder of the new snapshot for a look in again: what is made in it inherits
        neither group nor access control list, and it is left as it was."""
        into = bench.incoming.open(path)
        before = node.read_open(into, os.fstat(into), into, b"")
        os.fchmod(into, 0o700)
        xattrs.write(into, ())
        yield into
        self._dresser.dress_open(bench.incoming.open(path), before, fresh=False)

    def _unlinkable(
        self,
        folder: Folder,
        bench: Bench,
        into: int,
        name: bytes,
        error: int,
    ) -> None:
        """An unchanged entry that cannot be linked from the mirror; `error` is the errno."""
        number, entry = live.shown_at(self._catalog, folder.id, name)
        if self._recorder.absent(number):
            return
        path = tree.join(folder.path, name)
        if error == errno.EMLINK:
            origin = bench.mirror(folder.path), name
            self._placer.split(bench, (folder.path, name), into, number, origin)
            return
        if self._has_mirror:
            self.tally.warn("was missing from the mirror; taken from the source again", path)
        difference = self._from_catalog(folder.id, name, number, entry)
        self._make(folder, bench, into, difference)

    def _from_catalog(self, directory: int, name: bytes, number: int, entry: int) -> Difference:
        """A difference for an entry whose source is as the catalog says."""
        row = live.rows(self._catalog, directory)[name]
        return Difference(
            id=-1,
            dir=directory,
            name=name,
            kind=row.kind,
            ino=row.ino,
            dev=self._source.device,
            mode=row.mode,
            size=row.size,
            mtime=row.mtime,
            ctime=row.ctime,
            uid=row.uid,
            gid=row.gid,
            nlink=row.nlink,
            rdev=row.rdev,
            entry=entry,
            object=number,
            old_kind=row.kind,
            old_lineage=row.lineage,
        )

    def _split(self, changes: list[Difference]) -> tuple[list[Difference], list[Difference]]:
        """The files to be copied, large ones left out, by inode number, as the source's head
        would like it; the rest."""
        copies: list[Difference] = []
        others: list[Difference] = []
        for difference in changes:
            copied = difference.action == Action.COPY and difference.kind == Kind.FILE
            copied = copied and not self._large.wants(difference)
            (copies if copied else others).append(difference)
        copies.sort(key=lambda d: d.ino)
        return copies, others

    # --- what differs ------------------------------------------------------------------

    def _make_changes(
        self, folder: Folder, bench: Bench, changes: list[Difference]
    ) -> list[Folder]:
        into = bench.incoming.open(folder.path)
        folders: list[Difference] = []
        # By inode number, as the source's head would like it.
        for difference in sorted(changes, key=lambda d: d.ino):
            if difference.action == Action.DIRECTORY:
                folders.append(difference)
            elif difference.action != Action.FOLLOW:
                self._make(folder, bench, into, difference)
        return self._folders.make(folder, bench, into, folders) if folders else []

    def _make(
        self,
        folder: Folder,
        bench: Bench,
        into: int,
        difference: Difference,
    ) -> None:
        """Make one entry that is not a directory; trouble of the source is told."""
        try:
            placed = self._placer.place(bench, folder.path, into, difference)
        except Trouble as trouble:
            self._trouble(folder, bench, into, difference, trouble)
            return
        self._placed(folder, difference, placed)

    def _placed(self, folder: Folder, difference: Difference, placed: Placed) -> None:
        """Count an entry that stands in the new snapshot, and tell what is odd about it."""
        path = tree.join(folder.path, difference.name)
        if placed is Placed.KEPT:
            self.tally.kept()
            return
        self.tally.placed(planned.verdict(difference))
        if placed is Placed.TORN:
            self._spool.add("fingerprint", folder.id, None)
            self.tally.warn("changed each time it was read; kept as it was last read", path)
        elif placed is Placed.UNSETTLED:
            self._spool.add("fingerprint", folder.id, None)
        elif placed is Placed.NOT_HELD:
            self.tally.warn("cannot be made on the drive; it is in the catalog only", path)

    def _trouble(
        self,
        folder: Folder,
        bench: Bench,
        into: int,
        difference: Difference,
        trouble: Trouble,
    ) -> None:
        """A source entry could not be read: the version before stays, if there is one."""
        path = tree.join(folder.path, difference.name)
        self._spool.add("fingerprint", folder.id, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(difference.name, dir_fd=into)
        moved = difference.entry is None and difference.moved is not None
        if (
            moved
            and not trouble.vanished
            and self._placer.keep_moved(bench, folder.path, into, difference)
        ):
            self.tally.error(trouble.reason, path)
            self.tally.kept()
            return
        if difference.old_kind is None or difference.old_kind == Kind.DIRECTORY:
            if difference.entry is not None:
                self._spool.add("closed", difference.entry)
            self.tally.lost()
            if trouble.vanished:
                self.tally.warn(trouble.reason, path)
            else:
                self.tally.error(trouble.reason, path)
            return
        self.tally.error(trouble.reason, path)
        self._placer.keep(bench, folder.path, into, difference)
        self.tally.kept()

    # --- hard links made last ---------------------------------------------------------------

    def _find_followers(self) -> None:
        rows = self._spool.fetch(
            "SELECT DISTINCT leader FROM spool.change WHERE leader IS NOT NULL"
        )
        self._recorder.leaders = {row[0] for row in rows}

    def _follow(self, bench: Bench) -> None:
        """Give new hard-linked inodes their other names."""
        try:
            followers = self._spool.changes(f"action = {Action.FOLLOW}")
            for difference in followers:
                path = self._spool.directory_path(difference.dir)
                folder = Folder(path, difference.dir, True, node.Dress.of(difference.metadata))
                with self._undressed(bench, path) as into:
                    self._make(folder, bench, into, difference)
        finally:
            bench.close()
