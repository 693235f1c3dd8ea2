"""Verify: read back every object, and compare it with what was once recorded."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from datetime import datetime
from queue import Full, Queue

from mirrorback.engine import check_catalog, check_files
from mirrorback.engine.contents import is_given, read_through
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Kind, Problem, Snapshot
from mirrorback.store import content, past, schema, system, tree
from mirrorback.store.catalog import translated
from mirrorback.store.past import PastRow
from mirrorback.store.repository import DELTA_SUFFIX, drive_errors

THREADS = 2
DAMAGED = "content is not what was backed up"
MISSING = "missing"
DEPENDS = "cannot be rebuilt: a newer version, on which its delta depends, is damaged"
WRONG_KIND = "is something else than was backed up"
WRONG_SIZE = "size is not what was backed up"
WRONG_TARGET = "symlink target is not what was backed up"


def verify(repository: str, now: datetime, events: Events) -> Iterator[Problem]:
    """Read every object of a repository once, and the catalog; yield what is wrong.

    Nothing is yielded where all is well.  Raises MirrorbackError: Damaged where
    the catalog itself cannot be read.
    """
    system.raise_descriptor_limit()
    with drive_errors(), translated(), History.open(repository, now) as history:
        yield from check_catalog.check(history)
        yield from check_files.check(history)
        yield from _Objects(history, events).run()


class _Objects:
    """Reads the objects in a few threads; the results are yielded by one."""

    def __init__(self, history: History, events: Events) -> None:
        self._history = history
        self._events = events
        self._snapshots = history.snapshots()
        self._todo: Queue[int | None] = Queue(maxsize=256)
        self._found: Queue[Problem | BaseException | None] = Queue()
        self._stop = threading.Event()

    def run(self) -> Iterator[Problem]:
        """Yield what is wrong with objects, as it is found."""
        if not self._snapshots:
            return
        db = self._history.catalog.db
        files, size = db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM object WHERE kind = 1"
        ).fetchone()
        self._events.phase(Phase.VERIFY, files, size)
        count = 1 if system.is_rotational(self._history.repository) else THREADS
        crew = [threading.Thread(target=self._read, daemon=True) for _ in range(count)]
        feeder = threading.Thread(target=self._feed, args=(count,), daemon=True)
        for thread in (*crew, feeder):
            thread.start()
        ended = 0
        try:
            while ended < count:
                found = self._found.get()
                if found is None:
                    ended += 1
                elif isinstance(found, BaseException):
                    raise found
                else:
                    yield found
        finally:
            self._stop.set()
            while feeder.is_alive():  # it may wait for room
                while not self._todo.empty():
                    self._todo.get_nowait()
                feeder.join(0.01)
            for _thread in crew:
                with contextlib.suppress(Full):  # then there is something to take
                    self._todo.put_nowait(None)
            for thread in crew:
                thread.join()

    def _feed(self, readers: int) -> None:
        try:
            with translated():
                last = 0
                while not self._stop.is_set():
                    with self._history.catalog.lock:
                        rows = past.objects_after(self._history.catalog, last, 1000)
                    for number in rows:
                        if self._stop.is_set():
                            return
                        self._todo.put(number)
                    if not rows:
                        break
                    last = rows[-1]
        except BaseException as error:
            self._found.put(error)
        for _ in range(readers):
            self._todo.put(None)

    def _read(self) -> None:
        folders = _Folders(self._history)
        try:
            with translated(), drive_errors():
                while not self._stop.is_set() and (number := self._todo.get()) is not None:
                    for problem in self._object(number, folders):
                        self._found.put(problem)
        except BaseException as error:
            self._found.put(error)
        finally:
            folders.close()
            self._found.put(None)

    def _object(self, number: int, folders: _Folders) -> Iterator[Problem]:
        """Read one object where it is shown last; where it is split over inodes, each."""
        with self._history.catalog.lock:
            rows = past.showing(self._history.catalog, number)
        if not rows or rows[0].drive == schema.ABSENT:
            return  # (none: a snapshot was deleted meanwhile)
        seen: set[tuple[int, int]] = set()
        for row in reversed(rows):
            snapshot = self._last_shown(row)
            if snapshot is None:
                continue
            problem = self._check(row, snapshot, folders, seen)
            if problem is not None:
                if self._moved_on(folders):
                    # Another run has renamed folders under our feet.
                    yield from self._object(number, folders)
                    return
                yield self._tell(row, rows, snapshot, problem)
            if rows[0].drive != schema.SPLIT:
                break
        if rows[0].metadata.kind is Kind.FILE:
            self._events.advance(1)

    def _moved_on(self, folders: _Folders) -> bool:
        """Whether there are other snapshots now than those that `folders` know."""
        with self._history.catalog.lock:
            now = self._history.refreshed()
            self._snapshots = now
        return folders.renew(now)

    def _check(
        self, row: PastRow, snapshot: Snapshot, folders: _Folders, seen: set[tuple[int, int]]
    ) -> str | None:
        """What is wrong with the object under one of its names; None where nothing is."""
        try:
            folder = folders.open(snapshot, self._folder(row))
            if row.drive == schema.DELTA:
                return self._read_delta(row, snapshot, folder)
            st = os.stat(row.name or b".", dir_fd=folder, follow_symlinks=False)
            if (st.st_dev, st.st_ino) in seen:
                return None
            seen.add((st.st_dev, st.st_ino))
            if Kind.of_mode(st.st_mode) is not row.metadata.kind:
                return WRONG_KIND
            if row.metadata.kind is Kind.SYMLINK:
                same = os.readlink(row.name, dir_fd=folder) == row.metadata.target
                return None if same else WRONG_TARGET
            if row.metadata.kind is not Kind.FILE:
                return None
            problem = self._read_file(row, folder)
            if problem in (WRONG_SIZE, DAMAGED):
                # A run may just be changing it, or have been cut short at that.
                return self._read_through(row, snapshot) and problem
            return problem
        except (FileNotFoundError, NotADirectoryError):
            return MISSING
        except OSError as error:
            return f"cannot be read: {(error.strerror or str(error)).lower()}"

    def _read_file(self, row: PastRow, folder: int) -> str | None:
        fd = os.open(row.name, system.READ_SAFELY, dir_fd=folder)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                return WRONG_KIND
            if st.st_size != row.metadata.size:
                return WRONG_SIZE
            if row.digest is None:
                return None
            found = content.digest_of(fd, st, row.digest.sparse, self._passed)
            return None if found == row.digest else DAMAGED
        finally:
            os.close(fd)

    def _read_delta(self, row: PastRow, snapshot: Snapshot, folder: int) -> str | None:
        from mirrorback.store.delta_reader import DeltaReader

        try:
            fd = os.open(row.name + DELTA_SUFFIX, system.READ_SAFELY, dir_fd=folder)
        except FileNotFoundError:
            if not is_given(self._history, row):
                raise
            return self._read_through(row, snapshot)  # it is on its way there
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return WRONG_KIND
            DeltaReader(fd).check()
        except Damaged as error:
            return str(error)
        finally:
            os.close(fd)
        return self._read_through(row, snapshot) and DEPENDS

    def _read_through(self, row: PastRow, snapshot: Snapshot) -> str | None:
        """What is wrong with a large version, however it is read."""

        def passed(_offset: int, data: bytes) -> None:
            self._passed(len(data))

        try:
            with contextlib.closing(open_version(self._history, row, snapshot)) as version:
                read_through(row.name, row, version, passed)
        except Damaged:
            return DAMAGED
        except DriveError as error:
            return f"cannot be read: {error}"
        return None

    def _passed(self, count: int) -> None:
        self._events.advance(0, count)

    def _folder(self, row: PastRow) -> bytes:
        with self._history.catalog.lock:
            path = self._history.folder_path(row.dir)
        for name in (*tree.split(path), row.name):
            self._history.require_name(name)
        return path

    def _last_shown(self, row: PastRow) -> Snapshot | None:
        return next((s for s in reversed(self._snapshots) if row.shown_in(s.id)), None)

    def _tell(self, row: PastRow, rows: list[PastRow], snapshot: Snapshot, problem: str) -> Problem:
        path = tree.join(self._folder(row), row.name)
        suffix = DELTA_SUFFIX if row.drive == schema.DELTA else b""
        shown = tuple(s.name for s in self._snapshots if any(r.shown_in(s.id) for r in rows))
        return Problem(
            path=path,
            snapshots=shown,
            problem=problem,
            location=os.path.join(self._history.location(snapshot), path) + suffix,
            repairable=self._repairable(row, path),
        )

    def _repairable(self, row: PastRow, path: bytes) -> bool:
        """Whether the same content is elsewhere: in another object, or unchanged in
        the source."""
        if row.digest is None:
            return False
        with self._history.catalog.lock:
            if past.twins(self._history.catalog, row.digest, row.object):
                return True
            if row.last is not None:
                return False
            ctime = past.source_ctime(self._history.catalog, row.object)
        try:
            st = os.lstat(os.path.join(self._history.source, path))
        except (OSError, ValueError):
            return False
        same = (st.st_size, st.st_mtime_ns) == (row.metadata.size, row.metadata.mtime)
        return same and st.st_ctime_ns == ctime


class _Folders:
    """Cursors in the folders of the snapshots, for one thread."""

    KEPT = 8

    def __init__(self, history: History) -> None:
        self._history = history
        self._open: dict[int, tuple[int, tree.Cursor]] = {}
        self._snapshots = history.snapshots()

    def renew(self, snapshots: list[Snapshot]) -> bool:
        """Forget what is open where these snapshots are others than before; whether
        they are."""
        if snapshots == self._snapshots:
            return False
        self.close()
        self._snapshots = snapshots
        return True

    def open(self, snapshot: Snapshot, path: bytes) -> int:
        """A descriptor of a directory of a snapshot, good until the next call.
        Raises OSError."""
        if snapshot.id not in self._open:
            if len(self._open) >= self.KEPT:
                self._shut(next(iter(self._open)))
            with self._history.catalog.lock:
                where, name = self._history.repo.place(self._history.catalog, snapshot)
            top = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=where)
            self._open[snapshot.id] = top, tree.Cursor(top)
        return self._open[snapshot.id][1].open(path)

    def close(self) -> None:
        """Close what is open."""
        for number in list(self._open):
            self._shut(number)

    def _shut(self, number: int) -> None:
        top, cursor = self._open.pop(number)
        cursor.close()
        os.close(top)
