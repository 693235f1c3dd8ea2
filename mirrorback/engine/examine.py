"""Looking at one object again: under all its names, in all folders that should show it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mirrorback.engine.contents import read_through
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version, path_of
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Digest, Kind, Metadata, Snapshot
from mirrorback.store import content, mend, node, past, schema, system, tree, xattrs
from mirrorback.store.past import PastRow
from mirrorback.store.repository import REDO, TRASH, Repository

MISSING = "missing"
WRONG_KIND = "is something else than was backed up"
WRONG_CONTENT = "content is not what was backed up"
WRONG_TARGET = "symlink target is not what was backed up"
WRONG_METADATA = "permissions, owner, attributes or time are not what was backed up"
WRONG_LINKS = "is not hard-linked as it was"
DEPENDS = "cannot be rebuilt: a newer version, on which its delta depends, is damaged"
COARSE = 2_000_000_000  # ns: no drive rounds times more than that
MOST_TWINS = 2000  # objects of the same content that are looked at for a shared inode
PROBE = b"probe"
_LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Shown(NamedTuple):
    """One name of an object in one folder, and what stands there."""

    row: PastRow
    snapshot: Snapshot
    folder: bytes
    name: bytes  # as on the drive
    inode: tuple[int, int] | None  # None: nothing is there
    mode: int  # with S_IFMT
    mtime: int

    @property
    def path(self) -> bytes:
        """The path on the drive, within the snapshot's folder."""
        return tree.join(self.folder, self.name)


@dataclass
class Examined:
    """What was found of an object."""

    number: int
    rows: list[PastRow]
    names: list[Shown] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)  # snapshots whose whole folder is missing
    sound: tuple[int, int] | None = None  # the inode that all names should show
    others: set[tuple[int, int]] = field(default_factory=set)  # sound too, of a split object
    bytes_right: Shown | None = None  # an inode with the right content, but not ours or undressed
    faults: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def metadata(self) -> Metadata:
        """That of the object."""
        return self.rows[-1].metadata

    @property
    def digest(self) -> Digest | None:
        """That of the object."""
        return self.rows[-1].digest

    @property
    def drive(self) -> int:
        """How the catalog says it is held."""
        return self.rows[-1].drive

    def wrong(self) -> list[tuple[Shown, str]]:
        """The names that do not show what they should, and what is wrong with each."""
        found = []
        for shown in self.names:
            if shown.inode is None:
                found.append((shown, MISSING))
            elif shown.inode != self.sound and shown.inode not in self.others:
                found.append((shown, self.faults.get(shown.inode, WRONG_LINKS)))
        return found


class Examiner:
    """Looks at objects.  With `probing` the drive is asked how it holds metadata, by a file of
    our own; else what it may round or not hold passes."""

    def __init__(self, history: History, passed: Callable[[int], None], *, probing: bool) -> None:
        self._history = history
        self._passed = passed
        self._probing = probing

    def look(self, number: int) -> Examined | None:
        """Everything that can be said of an object; None where no snapshot shows it.  Raises
        OSError for what the drive does besides, Damaged for a broken catalog."""
        rows = past.showing(self._history.catalog, number)
        if not rows:
            return None
        found = Examined(number, rows)
        for shown in self._names(rows, found.absent):
            found.names.append(shown)
        if rows[0].drive == schema.ABSENT:
            found.names.clear()
        elif found.metadata.kind is not Kind.DIRECTORY:
            self._judge(found)
        return found

    def _names(self, rows: list[PastRow], absent: set[str]) -> Iterator[Shown]:
        snapshots = self._history.refreshed()
        for row in rows:
            folder, _name = tree.parent_of(path_of(self._history, row)) if row.name else (b"", b"")
            for snapshot in snapshots:
                if not row.shown_in(snapshot.id):
                    continue
                name = mend.drive_name(row)
                with opened(self._history.repo, snapshot, folder) as fd:
                    if isinstance(fd, Absent):
                        absent.add(snapshot.name)
                        continue
                    st = None if fd is None else mend.look(name or b".", fd)
                inode = None if st is None else (st.st_dev, st.st_ino)
                mode, mtime = (st.st_mode, st.st_mtime_ns) if st else (0, 0)
                yield Shown(row, snapshot, folder, name, inode, mode, mtime)

    # --- inodes ------------------------------------------------------------------------

    def _judge(self, found: Examined) -> None:
        """Tell sound inodes from others, and choose the one that all names should show."""
        counts = Counter(shown.inode for shown in found.names if shown.inode is not None)
        first = {shown.inode: shown for shown in reversed(found.names)}
        sound = []
        for inode, count in counts.most_common():
            fault = self._fault(found, first[inode])
            if fault is None and self._is_anothers(found, first[inode], count):
                fault = WRONG_LINKS
            if fault is None:
                sound.append(inode)
                continue
            found.faults[inode] = fault
            if fault in (WRONG_METADATA, WRONG_LINKS) and found.bytes_right is None:
                found.bytes_right = first[inode]
        if sound:
            found.sound = sound[0]
            if found.drive == schema.SPLIT:
                found.others.update(sound[1:])

    def _fault(self, found: Examined, shown: Shown) -> str | None:
        metadata = found.metadata
        if Kind.of_mode(shown.mode) is not metadata.kind:
            return WRONG_KIND
        with opened(self._history.repo, shown.snapshot, shown.folder) as folder:
            if folder is None or isinstance(folder, Absent):
                return MISSING
            try:
                if metadata.kind is Kind.FILE:
                    return self._fault_of_file(found, shown, folder)
                st = os.stat(shown.name, dir_fd=folder, follow_symlinks=False)
                held = node.read_other(st, folder, shown.name)
            except OSError as error:
                if error.errno in _LOST:
                    return MISSING
                return f"cannot be read: {(error.strerror or str(error)).lower()}"
        if held.target != metadata.target or held.rdev != metadata.rdev:
            return WRONG_TARGET
        return None if self._holds(held, metadata) else WRONG_METADATA

    def _fault_of_file(self, found: Examined, shown: Shown, folder: int) -> str | None:
        fd = os.open(shown.name, system.READ_SAFELY, dir_fd=folder)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                return WRONG_KIND
            system.drop_cache(fd, 0, 0)  # what is on the drive counts
            if found.drive == schema.DELTA:
                fault = self._fault_of_delta(found, shown, fd)
            elif st.st_size != found.metadata.size:
                fault = WRONG_CONTENT
            elif found.digest is None:
                fault = None
            else:
                read = content.digest_of(fd, st, found.digest.sparse, self._passed)
                fault = None if read == found.digest else WRONG_CONTENT
            if fault is None and not self._holds(
                node.read_open(fd, st, folder, shown.name), found.metadata
            ):
                fault = WRONG_METADATA
            return fault
        finally:
            os.close(fd)

    def _fault_of_delta(self, found: Examined, shown: Shown, fd: int) -> str | None:
        from mirrorback.store.delta_reader import DeltaReader

        try:
            reader = DeltaReader(fd)
            reader.check()
        except Damaged as error:
            return str(error)
        if reader.old_size != found.metadata.size or reader.old_digest != found.digest:
            return "is the reverse delta of another version"
        try:
            with contextlib.closing(
                open_version(self._history, shown.row, shown.snapshot)
            ) as version:
                read_through(shown.path, shown.row, version, self._told)
        except (Damaged, DriveError):
            return DEPENDS
        return None

    def _told(self, _offset: int, data: bytes) -> None:
        self._passed(len(data))

    def _is_anothers(self, found: Examined, shown: Shown, count: int) -> bool:
        """Whether an inode that would do belongs to another object of the same content: one
        that shows it under more names."""
        if found.digest is None or found.drive == schema.DELTA:
            return False
        with opened(self._history.repo, shown.snapshot, shown.folder) as folder:
            if folder is None or isinstance(folder, Absent):
                return False
            if os.stat(shown.name, dir_fd=folder, follow_symlinks=False).st_nlink <= count:
                return False
        twins = past.twins(self._history.catalog, found.digest, found.number)
        for twin in twins[:MOST_TWINS]:
            rows = past.showing(self._history.catalog, twin)
            if not rows or rows[0].drive in (schema.DELTA, schema.ABSENT):
                continue
            theirs = sum(one.inode == shown.inode for one in self._names(rows, set()))
            if theirs > count or (theirs == count and twin < found.number):
                return True
        return False

    # --- metadata ----------------------------------------------------------------------

    def folder_holds(self, fd: int, metadata: Metadata) -> bool:
        """Whether an open folder has the metadata that it should have."""
        return self._holds(node.read_open(fd, os.fstat(fd), fd, b""), metadata)

    def _holds(self, found: Metadata, wanted: Metadata) -> bool:
        """Whether an inode has the metadata of an object, as the drive can hold it."""
        if _same(found, wanted, wanted):
            return True
        if self._probing:
            return _same(found, wanted, _as_held(self._history.repo, wanted))
        return found.mode == wanted.mode and abs(found.mtime - wanted.mtime) < COARSE


def _same(found: Metadata, wanted: Metadata, held: Metadata) -> bool:
    """Whether all of an inode is what it should be, or what the drive makes of that."""
    return (
        (wanted.kind is Kind.SYMLINK or found.mode in (wanted.mode, held.mode))
        and found.owner.uid in (wanted.owner.uid, held.owner.uid)
        and found.owner.gid in (wanted.owner.gid, held.owner.gid)
        and found.mtime in (wanted.mtime, held.mtime)
        and found.xattrs in (wanted.xattrs, held.xattrs)
    )


def _as_held(repo: Repository, wanted: Metadata) -> Metadata:
    """What the drive makes of metadata: tried with an entry of our own.  Raises OSError."""
    directory = wanted.kind is Kind.DIRECTORY
    folder = repo.open_inner(TRASH if directory else REDO)
    try:
        _clear(folder)
        if wanted.kind not in (Kind.FILE, Kind.DIRECTORY):
            try:
                mend.make_other(folder, PROBE, wanted)
            except OSError as error:
                if error.errno not in node.CANNOT:
                    raise
                return wanted
            st = os.stat(PROBE, dir_fd=folder, follow_symlinks=False)
            return node.read_other(st, folder, PROBE)
        if directory:
            os.mkdir(PROBE, 0o700, dir_fd=folder)
            fd = os.open(PROBE, tree.DIRECTORY_FLAGS, dir_fd=folder)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(PROBE, flags, 0o600, dir_fd=folder)
        try:
            xattrs.write(fd, ())
            node.Dresser(enterable=True).dress_open(fd, wanted)
            return node.read_open(fd, os.fstat(fd), folder, PROBE)
        finally:
            os.close(fd)
    finally:
        with contextlib.suppress(OSError):
            _clear(folder)
        os.close(folder)


def _clear(folder: int) -> None:
    for remove in (os.unlink, os.rmdir):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            remove(PROBE, dir_fd=folder)


class Absent:
    """Stands for a snapshot whose whole folder is missing."""


@contextlib.contextmanager
def opened(repo: Repository, snapshot: Snapshot, path: bytes) -> Iterator[int | Absent | None]:
    """A descriptor of a folder in a snapshot's; None where it is missing.  Raises OSError."""
    top = mend.open_top(repo, snapshot)
    if top is None:
        yield Absent()
        return
    cursor = tree.Cursor(top)
    try:
        try:
            fd = cursor.open(path)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            yield None
            return
        yield fd
    finally:
        cursor.close()
        os.close(top)


def folder_faults(examiner: Examiner, repo: Repository, found: Examined) -> list[tuple[Shown, str]]:
    """The places of a directory object where it is missing, something else, or has not its
    metadata.  Raises OSError."""
    faults = []
    for shown in found.names:
        if shown.inode is None or not stat.S_ISDIR(shown.mode):
            faults.append((shown, MISSING))
            continue
        with opened(repo, shown.snapshot, shown.path) as fd:
            if fd is None or isinstance(fd, Absent):
                faults.append((shown, MISSING))
            elif not examiner.folder_holds(fd, found.metadata):
                faults.append((shown, WRONG_METADATA))
    return faults
