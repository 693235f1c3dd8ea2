"""Reading all snapshots' folders, a directory at a time in each of them, from the oldest on.

What is compared is the inode number that a directory's listing gives, so that of what did not
change nothing else is asked.  An inode is examined once, where it is met first.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mirrorback.model import KIND_OF_FORMAT, Kind, Metadata
from mirrorback.store import content, owners, system, tree, xattrs
from mirrorback.store.anew import ABOVE, NewCatalog
from mirrorback.store.catalog import ROOT_DIR
from mirrorback.store.repository import DELTA_SUFFIX

Ranges = list[tuple[int, int]]  # of snapshots, first and last, in order
Trouble = Callable[[int, bytes, str], None]  # told a snapshot, a path, and what is wrong
Number = Callable[["os.DirEntry[str]"], int]
SUFFIX = os.fsdecode(DELTA_SUFFIX)
KEPT_OPEN = 8  # descriptors of each snapshot's folder
SPARED = 200  # descriptors for all else


@dataclass(slots=True)
class _Folder:
    """A directory that some snapshots show."""

    path: bytes
    id: int
    place: tuple[int, bytes]  # directory and name of its entry
    ranges: Ranges


@dataclass(slots=True)
class _Below:
    """The directories in a directory."""

    ranges: dict[str, Ranges] = field(default_factory=dict)

    def add(self, name: str, snapshot: int) -> None:
        """One is there in a snapshot, which is not older than those before."""
        found = self.ranges.setdefault(name, [])
        if found and found[-1][1] == snapshot - 1:
            found[-1] = (found[-1][0], snapshot)
        else:
            found.append((snapshot, snapshot))


class Gatherer:
    """Reads the folders into a new catalog.  For one thread."""

    def __init__(
        self,
        tops: Sequence[Callable[[], int]],
        new: NewCatalog,
        trouble: Trouble,
        progress: Callable[[int], None],
        number: Number,
    ) -> None:
        """`tops` open the folders of the snapshots, oldest first.  `progress` is told how
        many names were read; `number` tells the inode of a listed name."""
        self._tops = tops
        self._new = new
        self._trouble = trouble
        self._progress = progress
        self.number = number
        self._most = max(2, (system.raise_descriptor_limit() - SPARED) // (KEPT_OPEN + 1))
        self._cursors: dict[int, tuple[int, tree.Cursor]] = {}
        self._known: dict[int, int] = {}  # objects by inode, of the directory being read

    def run(self) -> None:
        """Read everything.  Raises OSError where the drive as a whole fails."""
        try:
            if not self._tops:
                return
            stack = [_Folder(b"", ROOT_DIR, ABOVE, [(1, len(self._tops))])]
            while stack:
                stack += self._read(stack.pop())
        finally:
            for top, cursor in self._cursors.values():
                cursor.close()
                os.close(top)
            self._cursors.clear()

    def _read(self, folder: _Folder) -> list[_Folder]:
        """One directory in all snapshots; the directories in it."""
        own = _Own(self._new, folder)
        runs = _Runs(self, folder.id)
        self._known.clear()
        for snapshot in (s for first, last in folder.ranges for s in range(first, last + 1)):
            try:
                fd = self._open(snapshot, folder.path)
                st = os.fstat(fd)
                own.seen(snapshot, st, _of(st, xattrs.read(fd), None))
                with os.scandir(fd) as entries:
                    listed = {entry.name: entry for entry in entries}
            except OSError as error:
                self.told(snapshot, folder.path, error)
                continue
            runs.next(snapshot, fd, folder.path, listed)
            self._progress(len(listed))
        own.end()
        below = runs.end()
        return [
            _Folder(
                tree.join(folder.path, raw),
                self._new.directory(folder.id, raw),
                (folder.id, raw),
                ranges,
            )
            for name, ranges in below.ranges.items()
            for raw in (os.fsencode(name),)
        ]

    def _open(self, snapshot: int, path: bytes) -> int:
        found = self._cursors.pop(snapshot, None)
        if found is None:
            if len(self._cursors) >= self._most:
                top, cursor = self._cursors.pop(next(iter(self._cursors)))
                cursor.close()
                os.close(top)
            top = self._tops[snapshot - 1]()
            found = top, tree.Cursor(top, kept=KEPT_OPEN)
        self._cursors[snapshot] = found  # the last to be given up
        return found[1].open(path)

    def told(self, snapshot: int, path: bytes, error: OSError) -> None:
        """Something cannot be examined."""
        self._trouble(snapshot, path, (error.strerror or str(error)).lower())

    def object(self, fd: int, entry: os.DirEntry[str]) -> tuple[int, Kind] | None:
        """The object that a name shows, and its kind.  Raises OSError."""
        ino = system.inode_number(self.number(entry))
        number = self._known.get(ino)
        if number is None:
            number = self._new.object_of(ino)
        if number is not None:
            self._known[ino] = number
            return number, _kind(entry)
        st = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
        kind = KIND_OF_FORMAT.get(stat.S_IFMT(st.st_mode))
        if kind is None:
            return None
        name = os.fsencode(entry.name)
        target = os.readlink(name, dir_fd=fd) if kind is Kind.SYMLINK else None
        metadata = _of(st, xattrs.read_at(fd, name), target)
        sparse = kind is Kind.FILE and content.wants_sparse(st)
        number = self._known[ino] = self._new.new_object(metadata, sparse)
        self._new.shown(ino, number)
        if kind is Kind.FILE and entry.name.endswith(SUFFIX) and len(entry.name) > len(SUFFIX):
            self._new.suspect(number)
        return number, kind


class _Own:
    """The entry of a directory itself: a new version where its metadata are others."""

    def __init__(self, new: NewCatalog, folder: _Folder) -> None:
        self._new = new
        self._folder = folder
        self._first = self._last = 0
        self._metadata: Metadata | None = None
        self._object = 0

    def seen(self, snapshot: int, st: os.stat_result, metadata: Metadata) -> None:
        """It is so in a snapshot."""
        if metadata != self._metadata:
            self.end()
            self._metadata = metadata
            self._object = self._new.new_object(metadata)
            self._first = snapshot
        elif self._last != snapshot - 1:
            self.end()
            self._first = snapshot
        self._last = snapshot

    def end(self) -> None:
        """It is so no longer."""
        if self._first:
            self._new.run(
                self._folder.place,
                Kind.DIRECTORY,
                self._first,
                self._last,
                self._object,
                self._folder.id,
            )
        self._first = 0


@dataclass(slots=True)
class _Run:
    first: int
    object: int
    kind: Kind


class _Runs:
    """The names in one directory, over the snapshots that have it."""

    def __init__(self, gatherer: Gatherer, directory: int) -> None:
        self._gatherer = gatherer
        self._new = gatherer._new
        self._directory = directory
        self._snapshot = 0
        self._inodes: dict[str, int] = {}
        self._open: dict[str, _Run] = {}
        self._below = _Below()

    def next(
        self, snapshot: int, fd: int, path: bytes, listed: dict[str, os.DirEntry[str]]
    ) -> None:
        """What the next snapshot lists."""
        number = self._gatherer.number
        if snapshot != self._snapshot + 1:
            self._close(list(self._open))
            self._inodes = {}
        inodes = {name: number(entry) for name, entry in listed.items()}
        if inodes != self._inodes:
            # Directories are among what differs each time.
            self._close([n for n, _ino in self._inodes.items() - inodes.items() if n in self._open])
            for name, _ino in inodes.items() - self._inodes.items():
                self._begin(snapshot, fd, path, listed[name])
        self._inodes = inodes
        self._snapshot = snapshot

    def _begin(self, snapshot: int, fd: int, path: bytes, entry: os.DirEntry[str]) -> None:
        if entry.is_dir(follow_symlinks=False):
            self._below.add(entry.name, snapshot)
            return
        try:
            found = self._gatherer.object(fd, entry)
        except OSError as error:
            name = os.fsencode(entry.name)
            self._gatherer.told(snapshot, tree.join(path, name), error)
            return
        if found is not None:
            self._open[entry.name] = _Run(snapshot, *found)

    def _close(self, names: Sequence[str]) -> None:
        for name in names:
            run = self._open.pop(name)
            place = (self._directory, os.fsencode(name))
            self._new.run(place, run.kind, run.first, self._snapshot, run.object)

    def end(self) -> _Below:
        """That was the last; the directories in this one."""
        self._close(list(self._open))
        return self._below


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_file(follow_symlinks=False):
        return Kind.FILE
    if entry.is_symlink():
        return Kind.SYMLINK
    return KIND_OF_FORMAT[stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)]


def _of(st: os.stat_result, attributes: xattrs.Attributes, target: bytes | None) -> Metadata:
    """The metadata of an inode of the drive.  It has no flags of the source's, and its birth is
    its own."""
    kind = KIND_OF_FORMAT[stat.S_IFMT(st.st_mode)]
    return Metadata(
        kind=kind,
        mode=0o777 if kind is Kind.SYMLINK else stat.S_IMODE(st.st_mode),
        owner=owners.named(st.st_uid, st.st_gid),
        mtime=st.st_mtime_ns,
        size=st.st_size if kind is Kind.FILE else 0,
        rdev=st.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
        target=target,
        xattrs=attributes,
    )


def numbers(opened: Callable[[], int]) -> Number:
    """How inodes are to be told apart: by the numbers in listings, where these are the ones that
    `stat` tells, as far as the first names in a folder show."""
    fd = opened()
    try:
        with contextlib.closing(os.scandir(fd)) as entries:
            for entry, _count in zip(entries, range(100), strict=False):
                if entry.is_dir(follow_symlinks=False):
                    continue  # another file system may be mounted there
                if entry.inode() != _by_stat(entry):
                    return _by_stat
    finally:
        os.close(fd)
    return os.DirEntry.inode


def _by_stat(entry: os.DirEntry[str]) -> int:
    return entry.stat(follow_symlinks=False).st_ino


class ShownFiles:
    """Opens single files of the snapshots.  For one thread."""

    def __init__(self, tops: Sequence[Callable[[], int]], new: NewCatalog) -> None:
        self._tops = tops
        self._new = new
        self._at: tuple[int, int, tree.Cursor] | None = None

    def path(self, directory: int) -> bytes:
        """That of a directory, by its id."""
        return b"" if directory == ABOVE[0] else self._new.catalog.directory_path(directory)

    def open(self, snapshot: int, directory: int, name: bytes) -> int:
        """A descriptor of what a snapshot shows as a file, for the caller to close.  Raises
        OSError."""
        if self._at is None or self._at[0] != snapshot:
            self.close()
            top = self._tops[snapshot - 1]()
            self._at = snapshot, top, tree.Cursor(top)
        folder = self._at[2].open(self.path(directory))
        return os.open(name, system.READ_SAFELY, dir_fd=folder)

    def close(self) -> None:
        """Close what is open."""
        if self._at is not None:
            self._at[2].close()
            os.close(self._at[1])
            self._at = None
