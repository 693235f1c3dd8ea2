"""The build: the new snapshot in `incoming/`, links for what stays, copies for the rest.

Directories are the units of work, spread over a few threads.  An object that
a published snapshot shows is only ever linked, never opened for writing.  What
was done is spooled; nothing of it exists until it is published.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from mirrorback.engine import planned
from mirrorback.engine.bench import Bench
from mirrorback.engine.events import Events
from mirrorback.engine.place import Placed, Placer
from mirrorback.engine.source import Source
from mirrorback.engine.tally import Tally
from mirrorback.errors import Trouble
from mirrorback.model import Kind, Metadata
from mirrorback.store import live, node, reading, tree, xattrs
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR, Catalog
from mirrorback.store.copier import Copied, Roots
from mirrorback.store.difference import Action, Difference
from mirrorback.store.helper import Helper
from mirrorback.store.repository import CURRENT, INCOMING, TRASH, Repository
from mirrorback.store.spool import Spool
from mirrorback.store.workers import work_through

HELPERS_FROM = 3000  # files to copy: below, starting processes costs more than it gains
AT_ONCE = 256  # files copied before what came of them is recorded


@dataclass(frozen=True, slots=True)
class Crew:
    """How many threads decide, link and record, and how many processes copy for them
    (none: the threads themselves do)."""

    threads: int
    helpers: int = 0


@dataclass(frozen=True, slots=True)
class _Folder:
    """A directory to fill: made already, still without its own metadata."""

    path: bytes
    id: int
    known: bool  # the mirror has a directory here
    metadata: Metadata


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
        self._placer = Placer(catalog, spool, self._dresser, not_kept, self.tally)

    def run(self, crew: Crew) -> int:
        """Build all of it.  Returns the inode number of the new root.  Raises OSError
        for what the drive does."""
        os.mkdir(INCOMING, 0o700, dir_fd=self._repo.inner)
        incoming = os.open(INCOMING, tree.DIRECTORY_FLAGS, dir_fd=self._repo.inner)
        current = self._open_current()
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
        helpers = [Helper(roots) for _ in range(crew.helpers)]
        turns = itertools.cycle(helpers)

        def tools() -> Bench:
            return Bench(roots, next(turns, None))

        def stop() -> None:
            self.tally.stopped = True
            for helper in helpers:
                helper.close()

        try:
            self._find_followers()
            first = self._root(tools())
            work_through(
                [first],
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
                path = os.path.join(TRASH, name)
                found.append(os.open(path, tree.DIRECTORY_FLAGS, dir_fd=self._repo.inner))
        return tuple(found)

    # --- directories -----------------------------------------------------------------

    def _root(self, bench: Bench) -> _Folder:
        changes = self._spool.changes_in(ABOVE_ROOT)
        try:
            if changes:
                metadata = self._folder_changed(bench, -1, changes[0])
                known = changes[0].entry is not None
            else:
                metadata = live.directory_metadata(self._catalog, ABOVE_ROOT)[b""]
                known = True
            return _Folder(b"", ROOT_DIR, known, metadata)
        finally:
            bench.close()

    def _fill(self, folder: _Folder, bench: Bench, push: Callable[..., None]) -> None:
        """Make everything that a directory holds, then give it its own metadata."""
        into = bench.incoming.open(folder.path)
        changes = self._spool.changes_in(folder.id)
        touched = {d.name for d in changes}
        names = live.names(self._catalog, folder.id) if folder.known else []
        if names and self._any_gone:
            touched |= self._spool.gone_in(folder.id)
        folders = [n[0] for n in names if n[1] == Kind.DIRECTORY and n[0] not in touched]
        self._link_all(folder, bench, into, names, touched)
        below = self._known_folders(folder, into, folders)
        if changes:
            below += self._make_changes(folder, bench, into, changes)
        self._dress(into, folder.metadata)
        push(*below)

    def _link_all(
        self,
        folder: _Folder,
        bench: Bench,
        into: int,
        names: list[tuple[bytes, int]],
        touched: set[bytes],
    ) -> None:
        """Link what has not changed."""
        if not names:
            return
        try:
            origin = bench.mirror(folder.path)
        except OSError:
            origin = -1  # each name will fail, and be looked at
        count = 0
        link = os.link
        for name, kind in names:
            if kind == Kind.DIRECTORY or name in touched:
                continue
            try:
                link(name, name, src_dir_fd=origin, dst_dir_fd=into, follow_symlinks=False)
            except OSError as error:
                self._unlinkable(folder, bench, into, name, error)
            count += 1
        self._events.advance(count)

    def _unlinkable(
        self,
        folder: _Folder,
        bench: Bench,
        into: int,
        name: bytes,
        error: OSError,
    ) -> None:
        """An unchanged entry that cannot be linked from the mirror."""
        number, entry = live.shown_at(self._catalog, folder.id, name)
        if self._placer.absent(number):
            return
        path = tree.join(folder.path, name)
        if error.errno == errno.EMLINK:
            origin = bench.mirror(folder.path), name
            self._placer.split(bench, (folder.path, name), into, number, origin)
            return
        if error.errno not in (errno.ENOENT, errno.EBADF, errno.EPERM, errno.ENOTDIR):
            raise error
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

    def _known_folders(self, folder: _Folder, into: int, names: list[bytes]) -> list[_Folder]:
        """Make the directories that were there before and have not changed."""
        if not names:
            return []
        known = live.children(self._catalog, folder.id)
        metadata = live.directory_metadata(self._catalog, folder.id)
        for name in names:
            os.mkdir(name, 0o700, dir_fd=into)
        return [
            _Folder(tree.join(folder.path, name), known[name][0], True, metadata[name])
            for name in names
        ]

    def _dress(self, fd: int, metadata: Metadata) -> None:
        missed = self._dresser.dress_open(fd, metadata)
        if missed:
            self._not_kept.add(missed)

    # --- what differs ------------------------------------------------------------------

    def _make_changes(
        self, folder: _Folder, bench: Bench, into: int, changes: list[Difference]
    ) -> list[_Folder]:
        below = []
        files = []
        # By inode number, as the source's head would like it.
        for difference in sorted(changes, key=lambda d: d.ino):
            if difference.action == Action.DIRECTORY:
                below.append(self._make_folder(folder, bench, into, difference))
            elif difference.action == Action.COPY and difference.kind == Kind.FILE:
                files.append(difference)
            elif difference.action != Action.FOLLOW:
                self._make(folder, bench, into, difference)
        for at in range(0, len(files), AT_ONCE):
            some = files[at : at + AT_ONCE]
            copied = bench.copier.copy(folder.path, [d.name for d in some], self.tally.copied)
            for difference, result in zip(some, copied, strict=True):
                self._make(folder, bench, into, difference, result)
        return below

    def _make_folder(
        self, folder: _Folder, bench: Bench, into: int, difference: Difference
    ) -> _Folder:
        path = tree.join(folder.path, difference.name)
        os.mkdir(difference.name, 0o700, dir_fd=into)
        known = difference.old_kind == Kind.DIRECTORY
        number = self._folder_number(folder.id, difference.name)
        metadata = self._folder_changed(bench, folder.id, difference)
        return _Folder(path, number, known, metadata)

    def _folder_number(self, parent: int, name: bytes) -> int:
        found = live.children(self._catalog, parent).get(name)
        if found is not None:
            return found[0]
        return self._spool.directory_id(parent, name)

    def _folder_changed(self, bench: Bench, parent: int, difference: Difference) -> Metadata:
        """Spool a directory's own change; the metadata it shall have."""
        metadata = difference.metadata
        if not difference.inspected:
            metadata = self._inspect_folder(bench, parent, difference)
        if difference.same_metadata:
            assert difference.object is not None
            self._placer.refresh(difference.object, difference)
            return metadata
        if (
            difference.entry is not None
            and difference.same_metadata is None
            and (difference.old_kind == Kind.DIRECTORY)
        ):
            # It could not be read: what was known of it stays.
            assert difference.object is not None
            self._spool.add("stale", difference.entry, 1)
            return live.object_row(self._catalog, difference.object)[0]
        number = self._spool.new_id("object")
        source = (difference.ino, difference.ctime, difference.nlink)
        self._spool.object(number, metadata, None, source)
        self._placer.record(difference, number)
        return metadata

    def _inspect_folder(self, bench: Bench, parent: int, difference: Difference) -> Metadata:
        """Attributes of a new directory, as it is now; times as the survey saw them."""
        try:
            seen = reading.look(
                self._source_folder(bench, parent),
                difference.name,
                Kind.DIRECTORY.format_bits,
            )
        except Trouble:
            return difference.metadata
        return difference.seen(seen.metadata).metadata

    def _source_folder(self, bench: Bench, directory: int) -> int:
        if directory in (-1, ABOVE_ROOT):
            return self._source.fd
        with reading.troubles:
            return bench.source.open(self._spool.directory_path(directory))

    def _make(
        self,
        folder: _Folder,
        bench: Bench,
        into: int,
        difference: Difference,
        copied: Copied | Trouble | None = None,
    ) -> None:
        """Make one entry that is not a directory; trouble of the source is told."""
        path = tree.join(folder.path, difference.name)
        try:
            placed = self._placer.place(bench, folder.path, into, difference, copied)
        except Trouble as trouble:
            self._trouble(folder, bench, into, difference, trouble)
            return
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
        self._events.advance(1)

    def _trouble(
        self,
        folder: _Folder,
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
        self._placer.leaders = {row[0] for row in rows}

    def _follow(self, bench: Bench) -> None:
        """Give new hard-linked inodes their other names."""
        try:
            followers = self._spool.changes(f"action = {Action.FOLLOW}")
            for difference in followers:
                path = self._spool.directory_path(difference.dir)
                folder = _Folder(path, difference.dir, True, difference.metadata)
                into = bench.incoming.open(path)
                times = os.fstat(into)
                self._make(folder, bench, into, difference)
                node.set_times(bench.incoming.open(path), times.st_mtime_ns)
        finally:
            bench.close()
