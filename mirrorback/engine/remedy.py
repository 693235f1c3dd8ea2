"""Where right content comes from: the source, or the same content elsewhere in history.

Only the digest decides, over what has been written.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from mirrorback.engine.dated import Dated
from mirrorback.engine.examine import Examined
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version, path_of
from mirrorback.engine.read_back import Shown
from mirrorback.errors import Damaged, DriveError, Trouble
from mirrorback.model import Digest, Snapshot
from mirrorback.plan import guards, large
from mirrorback.store import clones, content, past, probe, reading, schema, system, tree
from mirrorback.store.clones import NewFile
from mirrorback.store.past import PastRow
from mirrorback.store.record import Replaced

MOST_TRIED = 64  # objects of the same content that are read, and files of the source
MOST_TWINS = 1024  # objects of the same content whose names are looked at
LINKS = "links"  # another name of the object is sound
ITSELF, CATALOG, SOURCE, HISTORY, DELTA = "itself", "catalog", "source", "history", "delta"
Passed = Callable[[int], None]


class NoRoom(Exception):
    """There is right content, but no room for these bytes."""

    def __init__(self, size: int, origin: str = "") -> None:
        super().__init__(size)
        self.size = size
        self.origin = origin


class Remedies:
    """Finds content.  `source` is the absolute path of the folder that was backed up."""

    def __init__(self, history: History, dated: Dated, source: bytes, passed: Passed) -> None:
        self._history = history
        self._dated = dated
        self._source = source
        self._passed = passed

    def bring(self, found: Examined, target: NewFile | None) -> str | None:
        """Write the content of a file object into an open, empty file, or only read it through
        where there is none; where it came from, None where it is nowhere.  Raises NoRoom
        before that is written for which there is none, OSError for what the drive does to the
        target."""
        digest, size = found.digest, found.metadata.size
        if digest is None:
            return None
        lacking: NoRoom | None = None
        for origin, fd in self._files(found):
            try:
                if self._take(fd, digest, size, target):
                    return origin
            except NoRoom as error:
                lacking = NoRoom(error.size, origin)
            finally:
                os.close(fd)
        if self._through_deltas(found, digest, target):
            return DELTA
        if lacking is not None:
            raise lacking
        return None

    def require_room(self, size: int) -> None:
        """Raises NoRoom where the drive has not so many bytes to spare."""
        free, _inodes = probe.free_space(self._history.repo.fd)
        if size + guards.MARGIN > free:
            raise NoRoom(size)

    def _files(self, found: Examined) -> Iterator[tuple[str, int]]:
        """Descriptors of files that may have the content, for the caller to close."""
        size = found.metadata.size
        if not size:
            yield CATALOG, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if found.bytes_right is not None and found.drive != schema.DELTA:
            fd = self._opened(found.bytes_right)
            if fd is not None:
                yield ITSELF, fd
        digest = found.digest
        assert digest is not None
        twins = self._twins(digest, found.number)
        yield from ((SOURCE, fd) for fd in self._of_source([found.rows, *twins], size))
        whole = (rows for rows in twins if rows and rows[0].drive in (schema.WHOLE, schema.SPLIT))
        yield from ((HISTORY, fd) for fd in self._of_history(whole))

    def _twins(self, digest: Digest, number: int) -> list[list[PastRow]]:
        """What shows each other object of the same content, of the first few."""
        catalog = self._history.catalog
        found = []
        with catalog.lock:
            for twin in past.twins(catalog, digest, number)[:MOST_TWINS]:
                with contextlib.suppress(Damaged):  # in the catalog: it is no help then
                    found.append(past.showing(catalog, twin))
        return found

    def _of_source(self, objects: list[list[PastRow]], size: int) -> Iterator[int]:
        """Files of the source that are as long, at the paths where the content was."""
        try:
            top = tree.open_root(self._source)
        except OSError:
            return
        cursor = tree.Cursor(top)
        tried: set[bytes] = set()
        try:
            for row in (row for rows in objects for row in reversed(rows)):
                path = path_of(self._history, row)
                if path in tried or len(tried) >= MOST_TRIED:
                    continue
                tried.add(path)
                parent, name = tree.parent_of(path)
                try:
                    fd = reading.open_file(cursor.open(parent), name)
                except (OSError, Trouble):
                    continue
                if os.fstat(fd).st_size == size:
                    yield fd
                else:
                    os.close(fd)
        finally:
            cursor.close()
            os.close(top)

    def _of_history(self, objects: Iterator[list[PastRow]]) -> Iterator[int]:
        """The inodes of other objects, each once."""
        tried: set[tuple[int, int]] = set()
        for row, snapshot in self._places(objects):
            if len(tried) >= MOST_TRIED:
                return
            folder, _name = tree.parent_of(path_of(self._history, row))
            fd = self._opened(Shown(row, snapshot, folder, row.name))
            if fd is None:
                continue
            st = os.fstat(fd)
            if (st.st_dev, st.st_ino) in tried:
                os.close(fd)
                continue
            tried.add((st.st_dev, st.st_ino))
            yield fd

    def _places(self, objects: Iterator[list[PastRow]]) -> Iterator[tuple[PastRow, Snapshot]]:
        snapshots = list(reversed(self._history.snapshots()))
        for rows in objects:
            for row in reversed(rows):
                for snapshot in snapshots:
                    if row.shown_in(snapshot.id):
                        yield row, snapshot

    def _opened(self, shown: Shown) -> int | None:
        with self._dated.opened(shown.snapshot, shown.folder) as folder:
            if folder is None:
                return None
            try:
                fd = system.open_quietly(shown.name, os.O_RDONLY, folder)
            except OSError:
                return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    # --- taking it ---------------------------------------------------------------------

    def _take(self, fd: int, digest: Digest, size: int, target: NewFile | None) -> bool:
        """Whether a file has the content; it is in the target then."""
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            st = os.stat_result((st.st_mode, 0, 0, 1, 0, 0, 0, 0, 0, 0))  # /dev/null: empty
        if target is not None:
            os.ftruncate(target.fd, 0)
        if target is not None and size:
            if clones.clone_file(fd, target):
                held = os.fstat(target.fd)
                same = held.st_size == size
                return same and _digest(target.fd, held, digest, self._passed) == digest
            try:
                self.require_room(min(size, st.st_blocks * 512))
            except NoRoom:
                if not self._take(fd, digest, size, None):
                    return False
                raise
        hashing = content.hasher(digest.sparse)
        try:
            for offset, data in _reads(fd, st) if size else ():
                hashing.feed(offset, data)
                self._passed(len(data))
                if target is not None:
                    content.write_all(target.fd, data, offset)
        except Trouble:
            return False
        if target is not None:
            os.ftruncate(target.fd, size)
        return hashing.finish(size) == digest

    def _through_deltas(self, found: Examined, digest: Digest, target: NewFile | None) -> bool:
        """The same from versions that are rebuilt."""
        twins = self._twins(digest, found.number)
        deltas = (rows for rows in twins if rows and rows[0].drive == schema.DELTA)
        tried: set[int] = set()
        for row, snapshot in self._places(deltas):
            if row.object in tried or len(tried) >= MOST_TRIED:
                continue
            tried.add(row.object)
            hashing = content.hasher(digest.sparse)
            if target is not None:
                os.ftruncate(target.fd, 0)
                try:
                    self.require_room(found.metadata.size)
                except NoRoom as error:
                    raise NoRoom(error.size, DELTA) from None
            with contextlib.suppress(Damaged, DriveError):
                with contextlib.closing(open_version(self._history, row, snapshot)) as version:
                    size = version.size
                    for at in range(0, size, content.CHUNK):
                        data = version.pread(at, content.CHUNK)
                        hashing.feed(at, data)
                        self._passed(len(data))
                        if target is not None:
                            content.write_sparsely(target.fd, data, at)
                if target is not None:
                    os.ftruncate(target.fd, size)
                if hashing.finish(size) == digest:
                    return True
        return False

    def copy_delta(self, found: Examined, target: NewFile) -> int:
        """Write the delta whose bytes are right into an open, empty file; its size.  Raises
        OSError, Damaged."""
        from mirrorback.store.delta_reader import DeltaReader

        assert found.bytes_right is not None
        fd = self._opened(found.bytes_right)
        if fd is None:
            raise Damaged("a reverse delta has gone meanwhile: run again")
        try:
            st = os.fstat(fd)
            if not clones.clone_file(fd, target):
                for offset, data in content.pieces(fd, st):
                    content.write_all(target.fd, data, offset)
        finally:
            os.close(fd)
        DeltaReader(target.fd).check()
        return st.st_size

    def as_delta(self, found: Examined, whole: int, target: int) -> Replaced | None:
        """Write the content of an open file as the reverse delta that it was; None where that
        is not worth it, or what it is over is not whole and sound.  Raises OSError."""
        from mirrorback.engine.open_large import open_object
        from mirrorback.engine.past_file import PastFile
        from mirrorback.store.delta_reader import DeltaReader
        from mirrorback.store.delta_writer import DeltaWriter
        from mirrorback.store.encoder import encode

        catalog, digest = self._history.catalog, found.digest
        held = past.holding(catalog, found.number)
        if held is None or held.base is None or digest is None:
            return None
        over = past.holding(catalog, held.base)
        rows = past.showing(catalog, held.base)
        if over is None or over.drive != schema.WHOLE or not rows or rows[0].digest is None:
            return None
        size, base = found.metadata.size, rows[0]
        assert base.digest is not None
        with contextlib.ExitStack() as stack:
            try:
                fd = open_object(self._history, held.base, delta=False)
                stack.callback(os.close, fd)
                st = os.fstat(fd)
                if st.st_size != base.metadata.size:
                    return None
                if _digest(fd, st, base.digest, self._passed) != base.digest:
                    return None
            except (OSError, Damaged, DriveError):
                return None
            writer = DeltaWriter(target)
            limit = large.delta_limit(size)
            if not encode(whole, fd, writer, limit=limit, progress=self._passed):
                return None
            writer.finish(size, digest, st.st_size, base.digest)
            hashing = content.hasher(digest.sparse)
            for offset, data in PastFile(fd, [DeltaReader(target)]).pieces():
                hashing.feed(offset, data)
            if hashing.finish(size) != digest:
                return None
        return Replaced(found.number, held.base, os.fstat(target).st_size)


def _digest(fd: int, st: os.stat_result, digest: Digest, passed: Passed) -> Digest:
    return content.digest_of(fd, st, digest.sparse, passed)


def _reads(fd: int, st: os.stat_result) -> Iterator[tuple[int, bytes]]:
    """The pieces of a file.  Raises Trouble where it cannot be read."""
    with reading.troubles:
        parts = content.pieces(fd, st)
    while True:
        with reading.troubles:
            part = next(parts, None)
        if part is None:
            return
        yield part
