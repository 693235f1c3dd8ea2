"""What a mounted repository shows: `current` and every dated folder, from the catalog.

A snapshot never changes, so that what was read of one holds as long as it exists.  What
may change is which snapshots there are: that is looked at again every half second, and
between two questions nothing of the catalog is held, lest a backup could not commit.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from mirrorback.engine.history import History
from mirrorback.engine.open_version import OpenVersion, open_version
from mirrorback.errors import Damaged, Locked
from mirrorback.model import Kind, Metadata, Owner, Snapshot
from mirrorback.plan.paths import CURRENT
from mirrorback.store import in_use, past, tree
from mirrorback.store.catalog import ABOVE_ROOT, Unfinished, translated
from mirrorback.store.past import PastRow

T = TypeVar("T")

FRESH_S = 0.5  # for so long the list of snapshots is taken for granted
BREATH_S = 0.02  # between two attempts at a catalog that is being written
ROWS_KEPT = 200_000  # entries of folders that are kept, about 100 MB
PATHS_KEPT = 50_000  # folders whose numbers are kept
TOP_MODE = 0o555
_FOLDER_BIT = 1 << 62  # inode numbers of folders; their snapshot stands above this many bits:
_FOLDER_BITS = 36


@dataclass(frozen=True, slots=True)
class Node:
    """What the view shows at a path."""

    inode: int
    links: int
    metadata: Metadata
    row: PastRow | None = None  # none for the view's own top
    snapshot: Snapshot | None = None

    @property
    def content(self) -> tuple[int, int]:
        """Another one at the same path has other content."""
        assert self.row is not None
        return self.row.object, self.row.first  # ids of objects may be used again


@dataclass(slots=True)
class _Folder:
    """A directory of a snapshot; the counts are read when first asked for."""

    rows: dict[bytes, PastRow]
    counts: tuple[dict[int, int], dict[bytes, tuple[int, int]]] | None = field(default=None)


class View:
    """Answers by path below the mount point, b"" being the mount point.  For several threads.

    Where something is not there, FileNotFoundError and its kind are raised; Damaged and
    DriveError as everywhere.  A catalog that another process is writing is waited for.
    """

    def __init__(self, history: History, clock: Callable[[], float] = time.monotonic) -> None:
        """`history` is open and remains the caller's, who leaves its catalog to the view;
        `clock` tells seconds."""
        self._history = history
        self._catalog = history.catalog
        self._clock = clock
        self._lock = threading.Lock()  # of what is kept here; never held while waiting
        self._folders: OrderedDict[tuple[int, int], _Folder] = OrderedDict()
        self._kept = 0
        self._numbers: OrderedDict[bytes, int] = OrderedDict()
        self._snapshots: list[Snapshot] = []
        self._tops: dict[bytes, Snapshot] = {}
        self._looked = float("-inf")
        self._changed = float("-inf")  # when other snapshots were seen last
        self._catalog.never_wait()
        self._ask(self._refresh)

    # --- what there is ----------------------------------------------------------------

    def look(self, path: bytes) -> Node:
        """What is at a path."""
        snapshot, below = self._split(path)
        if snapshot is None:
            return self._top()
        parent, name = tree.parent_of(below)
        number = self._number(parent) if below else ABOVE_ROOT
        folder = self._folder(snapshot, number)
        row = folder.rows.get(name)
        if row is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        links, subfolders = self._counts(folder, snapshot, number)
        if row.metadata.kind is Kind.DIRECTORY:
            own, count = subfolders.get(name, (0, 0))
            return Node(_folder_inode(snapshot, own), 2 + count, row.metadata, row, snapshot)
        return Node(row.object, links.get(row.object, 1), row.metadata, row, snapshot)

    def names(self, path: bytes) -> Iterator[tuple[bytes, Kind, int]]:
        """What a folder holds: name, kind, inode number."""
        snapshot, below = self._split(path)
        if snapshot is None:
            for name, shown in list(self._tops.items()):
                yield name, Kind.DIRECTORY, _folder_inode(shown, self._number(b""))
            return
        self._require_folder(snapshot, below)
        number = self._number(below)
        folder = self._folder(snapshot, number)
        _links, subfolders = self._counts(folder, snapshot, number)
        for name, row in folder.rows.items():
            kind = row.metadata.kind
            if kind is Kind.DIRECTORY:
                inode = _folder_inode(snapshot, subfolders.get(name, (0, 0))[0])
            else:
                inode = row.object
            yield name, kind, inode

    def open(self, node: Node) -> OpenVersion:
        """The content of a file that `look` found; it reads on when its snapshot goes."""
        if node.row is None or node.snapshot is None or node.metadata.kind is Kind.DIRECTORY:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if node.metadata.kind is not Kind.FILE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        row, snapshot = node.row, node.snapshot
        try:
            return self._patiently(
                lambda: open_version(self._history, row, snapshot, self._patiently)
            )
        except Damaged:
            self._ask(self._refresh)
            if all(one.id != snapshot.id for one in self._snapshots):
                # It was removed under our hands.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise

    def hold(self, snapshot: int) -> int | None:
        """A descriptor that keeps a snapshot from being removed until it is closed; None where
        there is no way to hold it.  Raises FileNotFoundError where it is gone."""
        try:
            return self._ask(lambda: in_use.hold(self._history.repo, self._catalog, snapshot))
        except OSError:
            # Without its folder, or where that cannot be opened, what the catalog tells remains.
            if any(row[0] == snapshot for row in self._ask(self._catalog.folders)):
                return None
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def room(self) -> os.statvfs_result:
        """What the drive says of its room.  Raises OSError."""
        return os.fstatvfs(self._history.repo.fd)

    def settled(self, seconds: float) -> bool:
        """Whether for so long all snapshots have been what they are."""
        return self._clock() - self._changed > seconds

    # --- snapshots ----------------------------------------------------------------------

    def _split(self, path: bytes) -> tuple[Snapshot | None, bytes]:
        """The snapshot that a path lies in, None for the top, and the path in it."""
        self._look_again()
        if not path:
            return None, b""
        top, _, below = path.partition(b"/")
        snapshot = self._tops.get(top)
        if snapshot is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return snapshot, below

    def _look_again(self) -> None:
        """See which snapshots there are, if that is due and nobody has to be waited for."""
        if self._clock() - self._looked < FRESH_S or not self._catalog.lock.acquire(blocking=False):
            return
        try:
            self._refresh_if_due()
        finally:
            self._catalog.lock.release()

    def _refresh_if_due(self) -> None:
        if self._clock() - self._looked < FRESH_S:
            return
        try:
            with translated():
                self._refresh()
        except (Locked, Unfinished):
            self._looked = self._clock()  # what is known will do for another while

    def _refresh(self) -> None:
        snapshots = self._history.refreshed()
        self._looked = self._clock()
        if snapshots == self._snapshots:
            return
        if self._snapshots:
            self._changed = self._looked
        tops = {os.fsencode(s.name): s for s in snapshots if not s.current}
        if snapshots:
            tops = {CURRENT: snapshots[-1]} | tops
        self._snapshots, self._tops = snapshots, tops
        self._forget({s.id for s in snapshots})

    def _forget(self, left: set[int]) -> None:
        with self._lock:
            for key in [key for key in self._folders if key[0] not in left]:
                self._kept -= len(self._folders.pop(key).rows)

    def _top(self) -> Node:
        newest = self._snapshots[-1].time if self._snapshots else 0
        owner = Owner(os.geteuid(), os.getegid())
        metadata = Metadata(Kind.DIRECTORY, TOP_MODE, owner, newest)
        return Node(_FOLDER_BIT, 2 + len(self._tops), metadata)

    # --- folders ------------------------------------------------------------------------

    def _number(self, path: bytes) -> int:
        """The number of a directory by its path in the source, which all snapshots share."""
        with self._lock:
            if path in self._numbers:
                self._numbers.move_to_end(path)
                return self._numbers[path]
        number = self._ask(lambda: self._catalog.directory_id(path))
        if number is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with self._lock:
            self._numbers[path] = number
            if len(self._numbers) > PATHS_KEPT:
                self._numbers.popitem(last=False)
        return number

    def _require_folder(self, snapshot: Snapshot, path: bytes) -> None:
        parent, name = tree.parent_of(path)
        number = self._number(parent) if path else ABOVE_ROOT
        row = self._folder(snapshot, number).rows.get(name)
        if row is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if row.metadata.kind is not Kind.DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _folder(self, snapshot: Snapshot, number: int) -> _Folder:
        """A directory of a snapshot, read at once: most that look at one thing in it look at
        the rest."""
        key = (snapshot.id, number)
        return self._known(key) or self._ask(lambda: self._read(key))

    def _known(self, key: tuple[int, int]) -> _Folder | None:
        with self._lock:
            folder = self._folders.get(key)
            if folder is not None:
                self._folders.move_to_end(key)
            return folder

    def _read(self, key: tuple[int, int]) -> _Folder:
        known = self._known(key)  # by another thread, for which we have waited
        if known is not None:
            return known
        snapshot, number = key
        rows = {row.name: row for row in past.entries(self._catalog, number, snapshot)}
        if number != ABOVE_ROOT:
            for name in rows:
                self._history.require_name(name)
        folder = _Folder(rows)
        with self._lock:
            self._folders[key] = folder
            self._kept += len(rows)
            while self._kept > ROWS_KEPT and len(self._folders) > 1:
                self._kept -= len(self._folders.popitem(last=False)[1].rows)
        return folder

    def _counts(
        self, folder: _Folder, snapshot: Snapshot, number: int
    ) -> tuple[dict[int, int], dict[bytes, tuple[int, int]]]:
        """Links of what has several in this snapshot, and numbers and subfolders of folders."""
        if folder.counts is None:

            def counts() -> tuple[dict[int, int], dict[bytes, tuple[int, int]]]:
                return (
                    past.links(self._catalog, number, snapshot.id),
                    past.subfolders(self._catalog, number, snapshot.id),
                )

            folder.counts = self._ask(counts)
        return folder.counts

    # --- the catalog ----------------------------------------------------------------------

    def _ask(self, question: Callable[[], T]) -> T:
        """Put a question to the catalog, which other threads share."""

        def alone() -> T:
            with self._catalog.lock, translated():
                answer = question()
                self._refresh_if_due()  # others see it locked, and leave that to us
                return answer

        return self._patiently(alone)

    def _patiently(self, question: Callable[[], T]) -> T:
        """Ask until it is answered: a commit takes as long as the drive takes."""
        mended = False
        while True:
            try:
                return question()
            except Locked:
                time.sleep(BREATH_S)
            except Unfinished:
                if mended:
                    raise
                mended = True
                self._mend()

    def _mend(self) -> None:
        try:
            self._catalog.mend()
        except Locked:
            pass  # so somebody is at it


def _folder_inode(snapshot: Snapshot, number: int) -> int:
    """Folders are their snapshot's own: programs take those of one number for the same."""
    return _FOLDER_BIT | snapshot.id << _FOLDER_BITS | number
