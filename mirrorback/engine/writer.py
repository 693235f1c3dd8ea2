"""Writing single entries of a restore: bytes from the drive, checked, and all metadata."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from mirrorback.engine.contents import checked, opened_at, read_through
from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version
from mirrorback.engine.target import Target
from mirrorback.errors import Damaged, Trouble
from mirrorback.model import Kind, Metadata, Snapshot
from mirrorback.store import content, node, past, system, tree, xattrs
from mirrorback.store.past import PastRow
from mirrorback.store.schema import DELTA
from mirrorback.store.workers import Abandoned


class Writer:
    """Writes entries of one snapshot into a target.  For several threads."""

    def __init__(
        self, history: History, snapshot: Snapshot, events: Events, *, owner: bool
    ) -> None:
        self._history = history
        self._snapshot = snapshot
        self._events = events
        self._dresser = node.Dresser(owner=owner)
        self._lock = threading.Lock()
        self.not_kept = node.NotKept()
        self.bytes_written = 0
        self.stopped = False  # nobody wants the rest any more

    def has_content(
        self, into: int, row: PastRow, st: os.stat_result, origin: tree.Cursor, path: bytes
    ) -> bool:
        """Whether what stands at the entry's name, which is what `st` tells of, has the content
        it should have; `origin` walks the snapshot's folder.  Raises Damaged, Trouble, OSError."""
        kind = row.metadata.kind
        if kind is Kind.SYMLINK:
            return os.readlink(row.name, dir_fd=into) == row.metadata.target
        if kind is not Kind.FILE:
            return True
        with _opened(into, row.name, st) as fd:
            wanted = row.digest
            if wanted is None:  # nobody has read it since the catalog was made anew
                with opened_at(origin, path, row, self._snapshot) as (old, found):
                    wanted = content.digest_of(old, found, content.wants_sparse(found))
            return content.digest_of(fd, os.fstat(fd), wanted.sparse) == wanted

    def adjust(self, into: int, row: PastRow, st: os.stat_result) -> None:
        """Set the metadata of an entry whose content is right: of what `st` tells of, and of
        nothing that was put in its place since.  Raises Trouble, OSError."""
        if row.metadata.kind is not Kind.FILE:
            missed = self._dresser.dress_named(into, row.name, row.metadata, st)
        else:
            with _opened(into, row.name, st) as fd:
                if node.read_open(fd, os.fstat(fd), into, row.name).same_as(row.metadata):
                    return
                if system.inode_flags(fd):
                    system.set_inode_flags(fd, 0)
                missed = self._dresser.dress_open(fd, row.metadata, fresh=False)
                missed += self.set_flags(fd, row.metadata)
        if missed:
            self.not_kept.add(missed)

    def make(
        self, origin: tree.Cursor, target: Target, path: bytes, into: int, row: PastRow
    ) -> None:
        """Write an entry under a temporary name, and put it in place.  `origin` walks the
        snapshot's folder.  Raises Damaged, Trouble, OSError."""
        with target.temporary(into) as name:
            if row.metadata.kind is not Kind.FILE:
                self._make_other(into, name, row.metadata)
                target.put(into, name, path)
                return
            fd = os.open(
                name,
                os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=into,
            )
            try:
                self._copy(origin, path, fd, row)
                xattrs.write(fd, ())  # an access control list the folder handed down
                missed = self._dresser.dress_open(fd, row.metadata)
                target.put(into, name, path)
                missed += self.set_flags(fd, row.metadata)
                if missed:
                    self.not_kept.add(missed)
            finally:
                os.close(fd)

    def _copy(self, origin: tree.Cursor, path: bytes, fd: int, row: PastRow) -> None:
        def write(offset: int, data: bytes) -> None:
            content.write_all(fd, data, offset)
            self._passed(len(data))

        def write_sparsely(offset: int, data: bytes) -> None:
            content.write_sparsely(fd, data, offset)
            self._passed(len(data))

        if row.drive != DELTA:
            changed = False
            try:
                with opened_at(origin, path, row, self._snapshot) as (old, st):
                    try:
                        checked(path, row, old, st, write)
                    except Damaged:
                        changed = os.fstat(old).st_ctime_ns != st.st_ctime_ns
                        raise
                    if os.fstat(fd).st_size != st.st_size:
                        os.ftruncate(fd, st.st_size)
                return
            except Damaged:
                if not changed and not self._is_changing(row):
                    raise
                os.ftruncate(fd, 0)
        with contextlib.closing(open_version(self._history, row, self._snapshot)) as version:
            read_through(path, row, version, write_sparsely)
            os.ftruncate(fd, version.size)

    def _is_changing(self, row: PastRow) -> bool:
        """Whether a backup may have changed the file that holds a version, or is about to."""
        with self._history.catalog.lock:
            held = past.holding(self._history.catalog, row.object)
        return held is not None and (held.drive == DELTA or held.given or held.patched)

    def _passed(self, count: int) -> None:
        self._events.advance(0, count)
        with self._lock:
            self.bytes_written += count
        if self.stopped:
            raise Abandoned

    def _make_other(self, into: int, name: bytes, metadata: Metadata) -> None:
        try:
            node.make_other(into, name, metadata)
        except OSError as error:
            if error.errno not in node.CANNOT:
                raise
            self.not_kept.add([metadata.kind.label + "s"])
            raise Trouble("cannot be made here: " + (error.strerror or "").lower()) from error
        missed = self._dresser.dress_named(into, name, metadata)
        if missed:
            self.not_kept.add(missed)

    def dress_folder(self, fd: int, metadata: Metadata) -> None:
        """Give an open folder its metadata."""
        self.not_kept.add(self._dresser.dress_open(fd, metadata, fresh=False))

    def set_flags(self, fd: int, metadata: Metadata) -> list[str]:
        """Set inode flags; what could not be set, as `node.NotKept` counts it."""
        if not metadata.flags:
            return []
        try:
            system.set_inode_flags(fd, metadata.flags)
        except OSError:
            return ["inode flags"]
        return []


@contextlib.contextmanager
def _opened(folder: int, name: bytes, st: os.stat_result) -> Iterator[int]:
    """A descriptor of a known file.  Raises Trouble where another has its name by now, OSError."""
    fd = system.open_quietly(name, os.O_RDONLY, folder)
    try:
        if not os.path.samestat(os.fstat(fd), st):
            raise Trouble(node.EXCHANGED)
        yield fd
    finally:
        os.close(fd)
