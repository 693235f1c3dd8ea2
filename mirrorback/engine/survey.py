"""The survey: the source, a directory at a time, against the catalog.

A directory whose entries give the same fingerprint as in the last backup has
not changed; nothing else of it is looked at.  Everything else is compared row
by row, and what differs goes to the spool.  Nothing is written to the drive's
snapshots here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Set
from dataclasses import dataclass, field

from mirrorback.engine.events import Events
from mirrorback.engine.listing import Listing, Same
from mirrorback.engine.source import Source
from mirrorback.engine.suspects import NONE, Suspects
from mirrorback.engine.unseen import Unseen
from mirrorback.engine.walking import Folder, Walk
from mirrorback.errors import Trouble
from mirrorback.model import KIND_OF_FORMAT, Kind
from mirrorback.plan import compare
from mirrorback.store import learnt, live, reading, system, tree
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR, Catalog
from mirrorback.store.difference import Action, Difference, Gone
from mirrorback.store.live import LiveRow
from mirrorback.store.nameable import Nameable
from mirrorback.store.spool import Spool

DIRECTORY = stat.S_IFDIR
FILE = stat.S_IFREG
LARGE_ENOUGH_FOR_HOLES = 1 << 20
MANY = 2000  # directories in the mirror


@dataclass(slots=True)
class Counts:
    """What the survey has seen."""

    files: int = 0  # all that is not a directory
    dirs: int = 0
    bytes: int = 0
    stale: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Reading:
    """What becomes of the directory being looked at."""

    folder: Folder
    fd: int
    began: int  # ns since 1970, before it was listed
    trusted: bool = True  # its fingerprint may stand for it the next time
    below: list[Folder] = field(default_factory=list)


class Survey:
    """One survey.  `run` fills the spool and returns the counts."""

    def __init__(
        self,
        source: Source,
        catalog: Catalog,
        spool: Spool,
        events: Events,
        unseen: Unseen,
        *,
        checksum: bool,
        suspects: Suspects = NONE,
        names: Nameable | None = None,
    ) -> None:
        """`names` says what the drive can hold; without, nothing is written to it."""
        self._source = source
        self._unseen = unseen
        self._catalog = catalog
        self._spool = spool
        self._events = events
        self._checksum = checksum
        self._suspects = suspects
        self._names = names
        self._counts = Counts()
        many = catalog.most_directories() >= MANY
        self._walk = Walk(source, compare_all=checksum, many=many)

    def run(self) -> Counts:
        """Look at the whole source.  Raises the drive's errors; the source's are
        told to the events and counted."""
        self._root()
        with contextlib.closing(tree.Cursor(self._source.fd)) as cursor:
            for folder, found in self._walk.visits(cursor):
                self._met(folder, found, cursor)
        return self._counts

    def _root(self) -> None:
        """The source's own entry stands above the root directory."""
        st = os.fstat(self._source.fd)
        row = (
            "",
            system.inode_number(st.st_ino),
            st.st_mode,
            0,
            st.st_mtime_ns,
            st.st_ctime_ns,
            st.st_uid,
            st.st_gid,
            st.st_nlink,
            0,
        )
        old = live.rows(self._catalog, ABOVE_ROOT).get(b"")
        top = Folder(b"", ABOVE_ROOT, old is not None)
        reading_ = _Reading(top, self._source.fd, self._source.began())
        if old is None:
            self._new(reading_, row, b"", st.st_dev, None)
        elif not live.unchanged(row, old):
            self._altered_other(reading_, row, st.st_dev, old)
        fingerprint = self._catalog.db.execute(
            "SELECT fingerprint FROM directory WHERE id = ?", (ROOT_DIR,)
        ).fetchone()[0]
        if ROOT_DIR in self._suspects.folders:
            fingerprint = None
        self._walk.add(Folder(b"", ROOT_DIR, old is not None, fingerprint))

    def _met(self, folder: Folder, found: Same | Listing | Trouble, cursor: tree.Cursor) -> None:
        """Take in what was found of a directory."""
        if isinstance(found, Trouble):
            self._unreadable(folder, found)
            return
        self._source.shut(folder.path, found.foreign)
        if isinstance(found, Same):
            self._same(folder, found)
            return
        try:
            with reading.troubles:
                fd = cursor.open(folder.path)
        except Trouble as trouble:
            self._unreadable(folder, trouble)
            return
        if self._names is not None:
            found = found.nameable(self._names)
        self._counts.dirs += 1
        looked = _Reading(folder, fd, found.began, trusted=not found.failed)
        self._compare(looked, found)
        new = found.fingerprint if looked.trusted else None
        if new != folder.fingerprint:
            self._spool.add("fingerprint", folder.id, new)
        self._walk.add(*looked.below)

    def _same(self, folder: Folder, found: Same) -> None:
        """Nothing in this directory has changed; only those below it are visited."""
        files, size, folders, _foreign = found
        self._counts.dirs += 1
        self._counts.files += files
        self._counts.bytes += size
        self._events.advance(files, size)
        if folders:
            known = self._suspects.looked_at(live.children(self._catalog, folder.id))
            for name in folders:
                raw = os.fsencode(name)
                number, fingerprint = known[raw]
                path = tree.join(folder.path, raw)
                if self._source.entered(path):
                    self._walk.add(Folder(path, number, True, fingerprint))
                else:
                    self._counts.dirs += 1
                    if any(live.count_below(self._catalog, number)):
                        self._spool.gone_below(number)

    def _compare(self, looked: _Reading, found: Listing) -> None:
        folder = looked.folder
        _began, rows, foreign, failed, _fingerprint = found
        olds: dict[bytes, LiveRow] = {}
        if folder.known:
            same = self._same_files(folder, rows)
            rows = [row for row in rows if row not in same]
            olds = live.rows_besides(self._catalog, folder.id, same)
        known = self._suspects.looked_at(live.children(self._catalog, folder.id))
        device = self._source.device
        for row in rows:
            name = os.fsencode(row[0])
            old = olds.pop(name, None)
            dev = foreign.get(row[0], device)
            directory = row[2] & 0o170000 == DIRECTORY
            if old is None or (old.kind == Kind.DIRECTORY) != directory:
                self._new(looked, row, name, dev, old)
                if old is not None and old.kind == Kind.DIRECTORY:
                    self._spool.gone_below(known[name][0])
            elif live.unchanged(row, old) and not (self._checksum and old.kind == Kind.FILE):
                if old.object in self._suspects.objects:
                    difference = self._difference(looked, row, dev, old)
                    self._spool.change(difference._replace(same_content=1, same_metadata=1))
                elif old.stale:
                    self._spool.add("stale", old.entry, 0)
            elif row[2] & 0o170000 == FILE and old.kind == Kind.FILE:
                self._altered_file(looked, row, dev, old)
            else:
                self._altered_other(looked, row, dev, old)
            if directory:
                self._descend(looked, name, known.get(name), old)
            else:
                self._counts.files += 1
                self._counts.bytes += row[3]
                self._events.advance(1, row[3])
        for raw, reason in ((os.fsencode(name), reason) for name, reason in failed):
            self._error(tree.join(folder.path, raw), reason)
            old = olds.pop(raw, None)
            if old is not None:
                self._keep(old, known)
        for name, old in olds.items():
            self._gone(folder.id, old, replaced=False)
            if old.kind == Kind.DIRECTORY:
                self._spool.gone_below(known[name][0])
                self._spool.add("fingerprint", known[name][0], None)

    def _same_files(self, folder: Folder, rows: list[tree.Row]) -> Set[tree.Row]:
        """Count those of the files that have not changed, as far as that is seen at once."""
        if self._checksum or folder.id in self._suspects.folders:
            return frozenset()
        same = live.same_files(self._catalog, folder.id, rows)
        size = sum(row[3] for row in same)
        self._counts.files += len(same)
        self._counts.bytes += size
        self._events.advance(len(same), size)
        return same

    def _descend(
        self,
        looked: _Reading,
        name: bytes,
        known: tuple[int, bytes | None] | None,
        old: LiveRow | None,
    ) -> None:
        path = tree.join(looked.folder.path, name)
        was_there = old is not None and old.kind == Kind.DIRECTORY
        if known is None:
            known = (self._spool.new_id("directory"), None)
            self._spool.add("directory", known[0], looked.folder.id, name)
        if self._source.entered(path):
            looked.below.append(Folder(path, known[0], was_there, known[1] if was_there else None))
        else:
            self._counts.dirs += 1
            if was_there:
                self._spool.gone_below(known[0])

    # --- one entry ---------------------------------------------------------------

    def _difference(
        self, looked: _Reading, row: tree.Row, dev: int, old: LiveRow | None
    ) -> Difference:
        kind = KIND_OF_FORMAT[row[2] & 0o170000]
        return Difference(
            id=self._spool.next_change(),
            dir=looked.folder.id,
            name=os.fsencode(row[0]),
            kind=kind,
            ino=row[1],
            dev=dev,
            mode=row[2] & 0o7777,
            size=row[3],
            mtime=row[4],
            ctime=row[5],
            uid=row[6],
            gid=row[7],
            nlink=row[8],
            rdev=row[9],
            entry=old.entry if old else None,
            object=old.object if old else None,
            old_kind=old.kind if old else None,
            old_ino=old.ino if old else None,
            old_nlink=old.nlink if old else None,
            old_lineage=old.lineage if old else None,
            allocated=_allocated(looked.fd, row) if kind is Kind.FILE else 0,
            action=Action.DIRECTORY if kind is Kind.DIRECTORY else Action.COPY,
        )

    def _new(
        self, looked: _Reading, row: tree.Row, name: bytes, dev: int, old: LiveRow | None
    ) -> None:
        """A path that was not there, or was a directory and is none (or the reverse)."""
        if old is None:
            kind = KIND_OF_FORMAT[row[2] & 0o170000]
            allocated = _allocated(looked.fd, row) if kind is Kind.FILE else 0
            self._spool.arrival(looked.folder.id, name, kind, dev, row, allocated)
        else:
            self._spool.change(self._difference(looked, row, dev, old))
            self._gone(looked.folder.id, old, replaced=True)
        # The file may have been written at any moment since the listing began.
        recent = looked.began - compare.WHOLE_SECONDS
        if (row[4] >= recent or row[5] >= recent) and not (
            self._source.settled(row[4], row[5], looked.began)
            and self._source.settled(row[4], row[5], time.time_ns())
        ):
            looked.trusted = False

    def _altered_file(self, looked: _Reading, row: tree.Row, dev: int, old: LiveRow) -> None:
        """A regular file whose stat differs from the catalog's."""
        difference = self._difference(looked, row, dev, old)
        if row[1] != old.ino:
            self._gone(looked.folder.id, old, replaced=True)
        look = compare.look_at_file(
            size=(row[3], old.size),
            mtime=(row[4], old.mtime),
            ctime=(row[5], old.ctime),
            ino=(row[1], old.ino),
            nlink=(row[8], old.nlink),
            checksum=self._checksum,
        )
        if look is compare.Look.DIFFERENT:
            looked.trusted &= self._source.settled(row[4], row[5], time.time_ns())
            self._spool.change(difference._replace(same_content=0))
            return
        try:
            seen = reading.digest_file(looked.fd, difference.name, bool(old.sparse), _untold)
        except Trouble as trouble:
            self._error(tree.join(looked.folder.path, difference.name), trouble.reason)
            looked.trusted = False
            self._counts.stale += 1
            self._spool.change(difference._replace(action=Action.KEEP))
            return
        looked.trusted &= self._finish_look(difference, seen, old)

    def _altered_other(self, looked: _Reading, row: tree.Row, dev: int, old: LiveRow) -> None:
        """A directory, symlink, fifo, socket or device whose stat differs."""
        difference = self._difference(looked, row, dev, old)
        directory = difference.kind == Kind.DIRECTORY
        if row[1] != old.ino or difference.kind != old.kind:
            self._gone(looked.folder.id, old, replaced=True)
        if difference.kind == Kind.FILE:
            self._spool.change(difference._replace(same_content=0))
            looked.trusted = False
            return
        try:
            seen = reading.look(looked.fd, difference.name, row[2])
        except Trouble as trouble:
            self._error(tree.join(looked.folder.path, difference.name), trouble.reason)
            looked.trusted = False
            keep = Action.DIRECTORY if directory else Action.KEEP
            self._counts.stale += not directory
            self._spool.change(difference._replace(action=keep))
            return
        looked.trusted &= self._finish_look(difference, seen, old)

    def _finish_look(self, difference: Difference, seen: reading.Seen, old: LiveRow) -> bool:
        """Spool an entry that was read; whether its state may be trusted the next time."""
        before, digest = live.object_row(self._catalog, old.object)
        if old.ctime == learnt.UNSEEN_CTIME:
            before, digest = self._unseen.met(old.object, seen)
        metadata = seen.metadata
        same_kind = before.kind is metadata.kind
        same_content = same_kind and seen.digest == digest and before.target == metadata.target
        same_content = same_content and before.rdev == metadata.rdev
        same_metadata = same_content and before.same_as(metadata)
        settled = not seen.torn and self._source.settled(metadata.mtime, seen.ctime, seen.read_at)
        action = difference.action
        if same_metadata and difference.kind != Kind.DIRECTORY:
            action = Action.REUSE
        elif same_content and difference.kind == Kind.FILE:
            action = Action.CLONE
        if old.object in self._suspects.objects:
            action = difference.action
        self._spool.change(
            difference._replace(
                # What was read last counts, not what the listing said before.
                ino=seen.ino,
                mode=metadata.mode,
                size=metadata.size,
                mtime=metadata.mtime,
                ctime=seen.ctime,
                uid=metadata.owner.uid,
                gid=metadata.owner.gid,
                nlink=seen.nlink,
                same_content=int(same_content),
                same_metadata=int(same_metadata),
                digest=seen.digest.value if seen.digest else None,
                sparse=int(seen.digest.sparse) if seen.digest else 0,
                settled=int(settled),
                action=action,
                use=old.object if action in (Action.REUSE, Action.CLONE) else None,
            ).seen(metadata)
        )
        return settled

    def _gone(self, directory: int, old: LiveRow, *, replaced: bool) -> None:
        self._spool.gone(
            Gone(
                entry=old.entry,
                dir=directory,
                name=old.name,
                kind=old.kind,
                object=old.object,
                lineage=old.lineage,
                ino=old.ino,
                size=old.size,
                mtime=old.mtime,
                replaced=int(replaced),
            )
        )

    # --- trouble -------------------------------------------------------------------

    def _unreadable(self, folder: Folder, trouble: Trouble) -> None:
        """A directory that cannot be read keeps what the mirror has of it."""
        self._counts.dirs += 1
        self._error(folder.path, trouble.reason)
        if folder.known:
            files, dirs, _size = live.count_below(self._catalog, folder.id)
            self._counts.stale += files
            self._counts.dirs += dirs
        else:
            self._spool.add("unread", folder.id)
        if folder.fingerprint is not None:
            self._spool.add("fingerprint", folder.id, None)

    def _keep(self, old: LiveRow, known: dict[bytes, tuple[int, bytes | None]]) -> None:
        """An entry that cannot even be examined stays in the mirror, stale."""
        self._spool.add("stale", old.entry, 1)
        if old.kind == Kind.DIRECTORY:
            files, dirs, _size = live.count_below(self._catalog, known[old.name][0])
            self._counts.stale += files
            self._counts.dirs += dirs + 1
        else:
            self._counts.stale += 1

    def _error(self, path: bytes, reason: str) -> None:
        self._counts.errors += 1
        self._events.error(reason, path)


def _untold(count: int) -> None:
    """Bytes read to compare are no progress: nobody knows how many there will be."""


def _allocated(fd: int, row: tree.Row) -> int:
    """The bytes that a file takes; of large ones without their holes."""
    size = row[3]
    if size < LARGE_ENOUGH_FOR_HOLES:
        return size
    try:
        return min(size, os.stat(row[0], dir_fd=fd, follow_symlinks=False).st_blocks * 512)
    except OSError:
        return size
