"""Mending on the drive: what is damaged is set apart, what is right takes all its names.

The right file of an object lies in `redo/`, and beside it a list of the inodes that the object
must not show any more; each of these has a name in `damaged/`.  `give` goes through all names
in all folders, makes those folders anew that are missing, and leaves alone what is neither
missing, nor on the list, nor of another kind.  It can be done again, and does nothing where all
is done.  The order of this is in `publish`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from mirrorback.errors import Damaged
from mirrorback.model import Kind, Metadata, Snapshot
from mirrorback.store import content, live, node, past, schema, settings, system, tree, xattrs
from mirrorback.store.catalog import ABOVE_ROOT, ROOT_DIR, Catalog
from mirrorback.store.past import PastRow
from mirrorback.store.repository import (
    CURRENT,
    DAMAGED,
    DELTA_SUFFIX,
    REDO,
    TRASH,
    Repository,
    bad_name,
    undo_name,
)
from mirrorback.store.supersede import Replacing, duplicate, restore_time, writable

LONGEST = 180  # bytes of a path within a name in `damaged/`
MADE = b"made"  # in the trash: a folder before it has its place
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EISDIR})


def look(name: bytes, folder: int) -> os.stat_result | None:
    """What stands at a name in an open folder; None where nothing does.  Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # with the suffix of a delta
            raise
        return None


def drive_name(row: PastRow) -> bytes:
    """The name under which the drive shows an entry in its folder."""
    return row.name + DELTA_SUFFIX if row.drive == schema.DELTA else row.name


# --- setting apart ----------------------------------------------------------------------


def set_apart(repo: Repository, folder: int, name: bytes, snapshot: str, path: bytes) -> bytes:
    """Give what stands at a name in an open folder a name in `damaged/` that tells where it
    stood: in the folder of a snapshot, at a path.  It keeps the name it has, unless the drive
    can give it no second one.  Returns the path of the new one in `.mirrorback`.
    Raises OSError."""
    apart = repo.open_inner(DAMAGED)
    try:
        st = os.stat(name, dir_fd=folder, follow_symlinks=False)
        wanted = _telling(snapshot, path)
        for number in range(1, 100_000):
            new = wanted if number == 1 else b"%s~%d" % (wanted, number)
            there = look(new, apart)
            if there is None:
                _second_name(folder, name, st, apart, new)
            if there is None or (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino):
                return DAMAGED + b"/" + new
    finally:
        os.close(apart)
    raise FileExistsError(errno.EEXIST, "too many files of this name have been set apart", wanted)


def _telling(snapshot: str, path: bytes) -> bytes:
    """A name that tells a path: whole, or its last part, or where it stood only."""
    for part in (path, tree.parent_of(path)[1]):
        told = settings.escape(part).replace("/", "%2F").encode()
        if len(told) <= LONGEST:
            return os.fsencode(snapshot) + b"," + told
    return os.fsencode(snapshot)


def _second_name(folder: int, name: bytes, st: os.stat_result, apart: int, new: bytes) -> None:
    if not stat.S_ISDIR(st.st_mode):
        try:
            os.link(name, new, src_dir_fd=folder, dst_dir_fd=apart, follow_symlinks=False)
            return
        except OSError as error:
            if error.errno == errno.EMLINK and stat.S_ISREG(st.st_mode):
                _copy(folder, name, apart, new)
                return
            if error.errno not in _NO_LINKS:
                raise
    system.rename_new(folder, name, apart, new)


def _copy(folder: int, name: bytes, apart: int, new: bytes) -> None:
    """Another file like one that has all the links that the drive allows."""
    old = os.open(name, system.READ_SAFELY, dir_fd=folder)
    try:
        st = os.fstat(old)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(new, flags, 0o600, dir_fd=apart)
        try:
            for offset, data in content.pieces(old, st):
                content.write_all(fd, data, offset)
            os.ftruncate(fd, st.st_size)
            node.Dresser().dress_open(fd, node.read_open(old, st, folder, name))
        finally:
            os.close(fd)
    finally:
        os.close(old)


def write_bad(redo: int, number: int, inodes: Iterable[int]) -> None:
    """Write the list of the inodes that an object must not show any more into the open
    `redo/`.  Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(bad_name(number), dir_fd=redo)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(bad_name(number), flags, 0o600, dir_fd=redo)
    try:
        content.write_all(fd, b"".join(b"%d\n" % inode for inode in sorted(inodes)), 0)
    finally:
        os.close(fd)


def _read_bad(redo: int, number: int) -> frozenset[int]:
    try:
        fd = os.open(bad_name(number), system.READ_SAFELY, dir_fd=redo)
    except FileNotFoundError:
        return frozenset()
    with open(fd, "rb") as file:
        return frozenset(int(line) for line in file if line.strip().isdigit())


# --- giving -----------------------------------------------------------------------------


def give(repo: Repository, catalog: Catalog, what: Replacing) -> bool:
    """Let the file of an object in `redo/` have all names that show something damaged, or
    nothing; whether that took more inodes than one.  Raises OSError, Damaged, DriveError."""
    redo = repo.open_inner(REDO)
    try:
        if look(undo_name(what.object), redo) is None:
            return False  # all was done
        giving = _Giving(repo, catalog, what, redo)
        for row, snapshot, folder in everywhere(repo, catalog, what.object):
            with writable(folder, snapshot):
                giving.one(row, snapshot, folder)
            restore_time(catalog, row.dir, snapshot, folder)
        return giving.split
    finally:
        os.close(redo)


class _Giving:
    """The names of one object."""

    def __init__(self, repo: Repository, catalog: Catalog, what: Replacing, redo: int) -> None:
        self._repo = repo
        self._catalog = catalog
        self._what = what
        self._redo = redo
        self._new = undo_name(what.object)
        self._bad = _read_bad(redo, what.object)
        self._metadata, _digest = live.object_row(catalog, what.object)
        self.split = False

    def one(self, row: PastRow, snapshot: Snapshot, folder: int) -> None:
        """One name in one open folder."""
        delta = row.name + DELTA_SUFFIX
        name, former = (delta, row.name) if self._what.form == schema.DELTA else (row.name, delta)
        new = os.stat(self._new, dir_fd=self._redo, follow_symlinks=False)
        there = look(name, folder)
        if there is not None and stat.S_IFMT(there.st_mode) != stat.S_IFMT(new.st_mode):
            set_apart(self._repo, folder, name, snapshot.name, self._path(row))
            if look(name, folder) is not None:  # it has a second name: this one is free
                os.unlink(name, dir_fd=folder)
            there = None
        if there is None or (there.st_ino in self._bad and there.st_ino != new.st_ino):
            self._put(folder, name)
        elif there.st_ino != new.st_ino and self._what.form == schema.WHOLE:
            self.split = True  # a sound inode that has all the links that the drive allows
        before = look(former, folder)
        if before is not None and before.st_ino in self._bad:
            os.unlink(former, dir_fd=folder)

    def _path(self, row: PastRow) -> bytes:
        folder = b"" if row.dir == ABOVE_ROOT else self._catalog.directory_path(row.dir)
        return tree.join(folder, row.name)

    def _put(self, folder: int, name: bytes) -> None:
        link = self._new + b".link"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link, dir_fd=self._redo)
        try:
            self._link(link)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._take_over()
            self._link(link)
        os.rename(link, name, src_dir_fd=self._redo, dst_dir_fd=folder)

    def _link(self, link: bytes) -> None:
        try:
            os.link(
                self._new,
                link,
                src_dir_fd=self._redo,
                dst_dir_fd=self._redo,
                follow_symlinks=False,
            )
        except OSError as error:
            full = error.errno == errno.EMLINK
            if self._metadata.kind is Kind.FILE or not (full or error.errno in _NO_LINKS):
                raise
            make_other(self._redo, link, self._metadata)  # the drive links only files, or so many
            self.split = self.split or full

    def _take_over(self) -> None:
        """Let another file like the one in `redo/`, which has all the links that the drive
        allows, take its place there."""
        second = self._new + b".second"
        duplicate(self._redo, self._new, second)
        fd = os.open(second, system.READ_SAFELY, dir_fd=self._redo)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(second, self._new, src_dir_fd=self._redo, dst_dir_fd=self._redo)
        self.split = True


def make_other(folder: int, name: bytes, metadata: Metadata) -> None:
    """A symlink, fifo, socket or device with its metadata.  Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    node.make_other(folder, name, metadata)
    node.Dresser().dress_named(folder, name, metadata)


# --- folders ----------------------------------------------------------------------------


def everywhere(
    repo: Repository, catalog: Catalog, number: int
) -> Iterator[tuple[PastRow, Snapshot, int]]:
    """Every entry and snapshot that shows an object, with a descriptor of the directory in
    which it belongs, made where it is missing; good until the next step.  Snapshots whose
    whole folder is missing are left out.  Raises OSError, Damaged, DriveError."""
    snapshots = catalog.snapshots()
    for row in past.showing(catalog, number):
        for snapshot in snapshots:
            if not row.shown_in(snapshot.id):
                continue
            top = open_top(repo, snapshot)
            if top is None:
                continue
            cursor = tree.Cursor(top)
            try:
                yield row, snapshot, _made(repo, catalog, cursor, row.dir, snapshot)
            finally:
                cursor.close()
                os.close(top)


def open_top(repo: Repository, snapshot: Snapshot) -> int | None:
    """A descriptor of the folder of a snapshot, all of them having their places; None where
    there is none.  Raises OSError."""
    name = CURRENT if snapshot.current else os.fsencode(snapshot.name)
    try:
        return os.open(name, tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_folder(repo: Repository, catalog: Catalog, row: PastRow, snapshot: Snapshot) -> None:
    """Let a snapshot show a folder, with its metadata, and what it lies in; a folder is that
    snapshot's alone.  Raises OSError, Damaged, DriveError."""
    top = open_top(repo, snapshot)
    if top is None:
        return
    cursor = tree.Cursor(top)
    try:
        number = ROOT_DIR if row.dir == ABOVE_ROOT else past.child(catalog, row.dir, row.name)
        if number is None:
            raise Damaged("the catalog holds a folder that has no number; run `mirrorback rebuild`")
        fd = _made(repo, catalog, cursor, number, snapshot)
        node.Dresser(enterable=True).dress_open(fd, row.metadata, fresh=False)
    finally:
        cursor.close()
        os.close(top)


def make_top(repo: Repository, name: bytes, metadata: Metadata) -> None:
    """Make the folder of a snapshot, with nothing in it.  Raises OSError."""
    _make(repo, repo.fd, name, metadata)


def _made(
    repo: Repository, catalog: Catalog, cursor: tree.Cursor, directory: int, snapshot: Snapshot
) -> int:
    """A descriptor of a directory of a snapshot, made where it is not there."""
    if directory == ABOVE_ROOT:
        return cursor.open(b"")
    path = catalog.directory_path(directory)
    at, number = b"", ROOT_DIR
    for name in tree.split(path):
        parent, up = cursor.open(at), number
        row = past.entry(catalog, up, name, snapshot.id)
        below = past.child(catalog, up, name)
        if row is None or below is None or row.metadata.kind is not Kind.DIRECTORY:
            raise Damaged("the catalog does not know a folder of a file; run `mirrorback rebuild`")
        st = look(name, parent)
        if st is None or not stat.S_ISDIR(st.st_mode):
            with writable(parent, snapshot):
                if st is not None:
                    set_apart(repo, parent, name, snapshot.name, tree.join(at, name))
                    if look(name, parent) is not None:
                        os.unlink(name, dir_fd=parent)
                _make(repo, parent, name, row.metadata)
        restore_time(catalog, up, snapshot, parent)  # a run may have been cut before that
        at, number = tree.join(at, name), below
    return cursor.open(path)


def _make(repo: Repository, parent: int, name: bytes, metadata: Metadata) -> None:
    """A folder, dressed before it gets its name."""
    trash = repo.open_inner(TRASH)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(MADE, dir_fd=trash)
        os.mkdir(MADE, 0o700, dir_fd=trash)
        fd = os.open(MADE, tree.DIRECTORY_FLAGS, dir_fd=trash)
        try:
            os.fchmod(fd, 0o700)
            xattrs.write(fd, ())
            node.Dresser(enterable=True).dress_open(fd, metadata)
            system.rename_new(trash, MADE, parent, name)
            node.set_times(fd, metadata.mtime)
        finally:
            os.close(fd)
    finally:
        os.close(trash)
