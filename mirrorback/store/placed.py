"""Whether a dated folder is still the snapshot's own, and what in it is not: people move, replace
and fill folders.

Nothing is removed as a snapshot that does not look like it, and what someone else has put into
one is set aside, not removed.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import threading
from collections.abc import Iterator, Set

from mirrorback.errors import Refused
from mirrorback.model import Kind
from mirrorback.store import mounts, past, schema, settings, system, tree
from mirrorback.store.catalog import ROOT_DIR, Catalog
from mirrorback.store.past import PastRow
from mirrorback.store.repository import CURRENT, DELTA_SUFFIX, INNER, Repository

COARSE_NS = 2_000_000_000  # no drive's times are coarser
ASIDE = b".set-aside"
NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)
NO_FOLDER = (errno.ENOENT, *NOT_A_FOLDER)
# In one row: between two rows other threads would go on, and this one wait for them.
_JOINED = "CAST(group_concat(CAST(name AS TEXT), '/') FILTER (WHERE kind {} 2) AS BLOB)"
_NAMES = (
    f"SELECT {_JOINED.format('!=')}, {_JOINED.format('=')} FROM entry"
    " WHERE dir = ? AND first <= ? AND (last IS NULL OR last >= ?)"
)
MOST = 1000  # names that are tried for what is set aside


class Place(enum.Enum):
    """What stands at the name of a snapshot's dated folder."""

    OURS = "its folder"
    MISSING = "nothing"
    FOREIGN = "something else"


def at(repo: Repository, catalog: Catalog, number: int, name: str) -> Place:
    """What stands at the name of a dated folder.  Its inode number alone does not tell: in a
    copied repository it is another, and a drive gives numbers out again.  So something in it
    has to be as the snapshot has it; a folder with nothing in it is taken for ours, too.
    Raises OSError."""
    root = _root(catalog, number)
    try:
        fd = os.open(os.fsencode(name), tree.DIRECTORY_FLAGS, dir_fd=repo.fd)
    except FileNotFoundError:
        return Place.MISSING
    except PermissionError:  # its owner, too, may not read it: the number has to do
        same = repo.root_number(repo.fd, os.fsencode(name)) == root
        return Place.OURS if same else Place.FOREIGN
    except OSError as error:
        if error.errno not in NOT_A_FOLDER:
            raise
        return Place.FOREIGN
    try:
        same = system.inode_number(os.fstat(fd).st_ino) == root
        like = _is_like(fd, catalog, number, same_number=same)
        return Place.OURS if like else Place.FOREIGN
    finally:
        os.close(fd)


def _root(catalog: Catalog, number: int) -> int:
    row = catalog.db.execute("SELECT root FROM snapshot WHERE id = ?", (number,)).fetchone()
    root: int = row[0]
    return root


def _is_like(fd: int, catalog: Catalog, number: int, *, same_number: bool) -> bool:
    if same_number and not past.any_entries(catalog, ROOT_DIR, number):
        return True
    empty = True
    with os.scandir(fd) as entries:
        for entry in entries:  # most of the time the first will do
            empty = False
            name = os.fsencode(entry.name)
            row = past.entry(catalog, ROOT_DIR, name, number)
            if row is None and name.endswith(DELTA_SUFFIX):
                row = past.entry(catalog, ROOT_DIR, name.removesuffix(DELTA_SUFFIX), number)
            if row is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                st = entry.stat(follow_symlinks=False)
                if _shows(st, row, exactly=not same_number):
                    return True
    return empty


def _shows(st: os.stat_result, row: PastRow, *, exactly: bool) -> bool:
    """Whether an inode may be a version; a delta has the time of what it is of."""
    metadata = row.metadata
    if Kind.of_mode(st.st_mode) is not metadata.kind:
        return False
    return not exactly or abs(st.st_mtime_ns - metadata.mtime) < COARSE_NS


def renamed_to(repo: Repository, catalog: Catalog, number: int) -> bytes | None:
    """The name in the repository that someone has given the folder of a snapshot; None where
    none has its inode number.  Raises OSError."""
    root = _root(catalog, number)
    known = {os.fsencode(name) for (name,) in catalog.db.execute("SELECT name FROM snapshot")}
    with os.scandir(repo.fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if system.inode_number(entry.inode()) != root or name in known | {CURRENT, INNER}:
                continue
            if entry.is_dir(follow_symlinks=False):
                return name
    return None


def require_unmounted(repo: Repository, path: bytes) -> None:
    """Raises Refused where something is mounted in a folder of the repository, or at it: it has
    other files, perhaps of the same names, and is not to be removed with the folder."""
    top = os.path.join(repo.path, path)
    for point in mounts.mount_points():
        if point == top or point.startswith(top + b"/"):
            raise Refused(
                f"something is mounted at {settings.escape(point)}, which is to be removed:"
                " unmount it, and run again"
            )


class Sparing:
    """What is not to be removed with a snapshot's folder: names that the catalog does not know
    there.  `NAME.set-aside/` in the repository takes them, each under its own path.  For
    several threads."""

    def __init__(
        self, repo: Repository, catalog: Catalog, number: int, name: str, *, again: bool = False
    ) -> None:
        """Of the folder `name`, that of a snapshot (its id); `again` after an attempt that was
        cut, whose `earlier` such folder there may be.  Raises OSError."""
        self._repo = repo
        self._catalog = catalog
        self._number = number
        self._name = os.fsencode(name)
        self._lock = threading.Lock()
        # What becomes whole elsewhere in this removal; in the folder it is still a delta.
        rows = catalog.db.execute(
            "SELECT object FROM replacing WHERE removal = ? AND form != ?", (number, schema.DELTA)
        )
        self._whole = {row[0] for row in rows}
        self.first: bytes | None = None  # of what was set aside: where it is, in the repository
        self.count = 0
        self.earlier = self._found() if again else None  # by its name in the repository

    def _found(self) -> bytes | None:
        """The folder that holds what was set aside of this one, if there is any."""
        for name in self._names():
            try:
                st = os.stat(name, dir_fd=self._repo.fd, follow_symlinks=False)
            except FileNotFoundError:
                return None
            if Kind.of_mode(st.st_mode) is Kind.DIRECTORY:
                return name
        return None

    def _names(self) -> Iterator[bytes]:
        """Those that it may have, in the order in which they are tried."""
        for number in range(1, MOST):
            yield self._name + ASIDE + (b"" if number == 1 else b"-%d" % number)

    def below(self, directory: int | None) -> dict[bytes, int]:
        """The numbers of the directories in a directory, by name."""
        if directory is None:
            return {}
        with self._catalog.lock:
            rows = self._catalog.db.execute(
                "SELECT name, id FROM directory WHERE parent = ?", (directory,)
            )
            return dict(rows.fetchall())

    def spare(
        self, fd: int, path: bytes, directory: int | None, files: Set[bytes], folders: Set[bytes]
    ) -> Set[bytes]:
        """Set aside what is not ours of the names found in an open directory of the folder;
        which they were.  Raises OSError."""
        known_files, known_folders = self._known(directory)
        if files <= known_files and folders <= known_folders:
            return frozenset()
        others = (files - known_files) | (folders - known_folders)
        for name in files:
            stem = name.removesuffix(DELTA_SUFFIX)
            if stem != name and stem in known_files and name not in known_files:
                row = self._entry(directory, stem)
                if row is not None and row.drive == schema.DELTA:
                    others = (others - {name}) | (files & {stem})  # beside it: someone's own
                elif row is not None and row.object in self._whole and stem not in files:
                    others -= {name}
        if others:
            others -= _aliases(fd, others, (known_files | known_folders) - files - folders)
        for name in sorted(others):
            self._set_aside(fd, path, name)
        return others

    def _known(self, directory: int | None) -> tuple[set[bytes], set[bytes]]:
        """The names of files and of directories that the snapshot has in a directory."""
        if directory is None:
            return set(), set()
        with self._catalog.lock:
            row = self._catalog.db.execute(_NAMES, (directory, self._number, self._number))
            files, folders = row.fetchone()
        return set(files.split(b"/") if files else ()), set(folders.split(b"/") if folders else ())

    def _entry(self, directory: int | None, name: bytes) -> PastRow | None:
        assert directory is not None
        with self._catalog.lock:
            return past.entry(self._catalog, directory, name, self._number)

    def _set_aside(self, fd: int, path: bytes, name: bytes) -> None:
        with self._lock:
            top, shown = self._open_aside()
            cursor = tree.Cursor(top)
            try:
                at = b""
                for part in tree.split(path):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=cursor.open(at))
                    at = tree.join(at, part)
                new = _move(fd, name, cursor.open(path))
            finally:
                cursor.close()
                os.close(top)
            self.count += 1
            self.first = self.first or tree.join(tree.join(shown, path), new)

    def _open_aside(self) -> tuple[int, bytes]:
        """The folder for all that is set aside of this one, and its name."""
        for name in self._names():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._repo.fd)
            try:
                return os.open(name, tree.DIRECTORY_FLAGS, dir_fd=self._repo.fd), name
            except OSError as error:
                if error.errno not in NOT_A_FOLDER:
                    raise
        raise FileExistsError(errno.EEXIST, "there is too much of that name", self._name + ASIDE)


def _aliases(fd: int, names: Set[bytes], missing: Set[bytes]) -> set[bytes]:
    """Those of some names that are one of the missing, as the drive writes it."""
    found = {_inode(fd, name) for name in missing} - {None}
    return {name for name in names if found and _inode(fd, name) in found}


def _inode(fd: int, name: bytes) -> tuple[int, int] | None:
    try:
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    return st.st_dev, st.st_ino


def _move(fd: int, name: bytes, into: int) -> bytes:
    """Rename into another directory, under another name where there is one; that name."""
    for number in range(1, MOST):
        new = name if number == 1 else b"%s-%d" % (name[:240], number)
        try:
            _rename(fd, name, into, new)
        except FileExistsError:
            continue
        return new
    raise FileExistsError(errno.EEXIST, "there is too much of that name", name)


def _rename(fd: int, name: bytes, into: int, new: bytes) -> None:
    try:
        system.rename_new(fd, name, into, new)
    except PermissionError:
        # To move a folder that shuts its owner out it has to be opened for a moment.
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if Kind.of_mode(st.st_mode) is not Kind.DIRECTORY:
            os.fchmod(fd, 0o700)  # it is being removed
            system.rename_new(fd, name, into, new)
            return
        os.fchmod(fd, 0o700)
        os.chmod(name, 0o700, dir_fd=fd)
        system.rename_new(fd, name, into, new)
        os.chmod(new, st.st_mode & 0o7777, dir_fd=into)
