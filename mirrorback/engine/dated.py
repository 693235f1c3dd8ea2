"""The folders of the snapshots as they are on the drive: which are there, which somebody has
removed or renamed, and which are none of ours."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator

from mirrorback.engine.history import History
from mirrorback.engine.jobs import Top
from mirrorback.model import Problem, Snapshot
from mirrorback.plan.likeness import Holds
from mirrorback.store import mend, mounts, owners, past, schema, tree
from mirrorback.store.catalog import FOLDER_NAME, ROOT_DIR
from mirrorback.store.repository import CURRENT, INNER

# File systems that hold modes, owners and attributes of users as Linux has them.
_HOLD_ALL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "nilfs2")
)
NEAR = 64  # directories that a thread keeps open
KEPT_OPEN = 512  # folders; the others are opened by their names each time
GONE = "the folder of this snapshot is missing"
NO_FOLDER = "is no folder, but what stands in the place of one"
RENAMED = "the folder of this snapshot was renamed to {}; give it its name back"
UNKNOWN = "looks like the folder of a snapshot, but is none"


_LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


Near = tuple[int, bytes]  # a snapshot, and the path of a directory in it


class _Nearby(threading.local):
    """Directories that a thread keeps open: the next look is likely into the same ones."""

    def __init__(self) -> None:
        self.folders: dict[Near, int] = {}


class Dated:
    """The folders of all snapshots, open.  To be closed."""

    def __init__(self, history: History) -> None:
        """Raises OSError."""
        self._history = history
        self._lock = threading.Lock()
        self._near = _Nearby()
        self._opened: list[dict[Near, int]] = []  # of all threads
        self.tops: dict[int, Top] = {}  # by snapshot, of those that are there
        self.problems: list[Problem] = []
        self.renamed: set[int] = set()
        self.certain: set[int] = set()  # of these, those that are so beyond doubt
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the folders."""
        for near in self._opened:
            for fd in near.values():
                os.close(fd)
            near.clear()
        for top in self.tops.values():
            if top.fd is not None:
                os.close(top.fd)
        self.tops.clear()

    def plain(self) -> bool:
        """Whether listings on this drive tell the true inode numbers: those of some FUSE file
        systems do not."""
        repo = self._history.repo
        with os.scandir(repo.fd) as entries:
            found = {os.fsencode(entry.name): entry.inode() for entry in entries}
        st = os.stat(INNER, dir_fd=repo.fd, follow_symlinks=False)
        return found.get(INNER) == st.st_ino

    def holds(self) -> Holds:
        """What the drive can hold, as far as that shows without writing."""
        repo = self._history.repo
        st = os.fstat(repo.fd)
        mount = mounts.mount_of(repo.path)
        all_of_it = mount is not None and mount.fstype in _HOLD_ALL
        root = st.st_uid == os.geteuid() == 0 and owners.has_all()
        return Holds(modes=all_of_it, owners=all_of_it and root, uid=st.st_uid, gid=st.st_gid)

    def location(self, snapshot: Snapshot, path: bytes) -> bytes:
        """The absolute path of something in a snapshot's folder."""
        top = self.tops.get(snapshot.id)
        if top is not None and snapshot.id in self.renamed:
            folder = os.path.join(self._history.repository, top.name)
        else:
            with self._history.catalog.lock:
                folder = self._history.location(snapshot)
        return os.path.join(folder, path) if path else folder

    def open(self, snapshot: Snapshot) -> int:
        """A descriptor of a snapshot's folder, for the caller to close.  Raises OSError."""
        top = self.tops[snapshot.id]
        if top.fd is not None:
            return os.dup(top.fd)
        return os.open(top.name, tree.DIRECTORY_FLAGS, dir_fd=self._history.repo.fd)

    @contextlib.contextmanager
    def opened(self, snapshot: Snapshot, path: bytes) -> Iterator[int | None]:
        """A descriptor of a directory in a snapshot's folder, good until the next one is opened
        by the same thread; None where either is missing.  Raises OSError."""
        near = self._near.folders
        fd = near.get((snapshot.id, path))
        if fd is None:
            fd = self._try_open(snapshot, path)
            if fd is not None:
                self._remember(near, snapshot.id, path, fd)
        yield fd

    def _try_open(self, snapshot: Snapshot, path: bytes) -> int | None:
        if snapshot.id not in self.tops:
            return None
        try:
            top = self.open(snapshot)
            cursor = tree.Cursor(top)
            try:
                return os.dup(cursor.open(path))
            finally:
                cursor.close()
                os.close(top)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            return None

    def _remember(self, near: dict[Near, int], number: int, path: bytes, fd: int) -> None:
        if len(near) >= NEAR:
            for key in [key for key in near if key[1] != path] or list(near)[:1]:
                os.close(near.pop(key))
        with self._lock:
            if not near:
                self._opened.append(near)
        near[number, path] = fd

    def leave_out(self, number: int) -> None:
        """Take the folder of a snapshot for one that is missing."""
        top = self.tops.pop(number)
        if top.fd is not None:
            os.close(top.fd)

    def _open(self) -> None:
        history = self._history
        snapshots = list(reversed(history.snapshots()))
        lost = []
        for snapshot in snapshots:
            try:
                with history.catalog.lock:
                    fd = history.repo.open_folder(history.catalog, snapshot.id)
            except FileNotFoundError:
                lost.append(snapshot)
                continue
            except NotADirectoryError:
                self._tell(snapshot, NO_FOLDER, repairable=not snapshot.current)
                continue
            self._keep(snapshot, fd, CURRENT if snapshot.current else _folder(snapshot))
        self._find(lost)

    def _keep(self, snapshot: Snapshot, fd: int, name: bytes) -> None:
        newest = self._history.snapshots()[-2:]  # these may get other names
        if len(self.tops) >= KEPT_OPEN and snapshot not in newest:
            os.close(fd)
            self.tops[snapshot.id] = Top(None, name)
        else:
            self.tops[snapshot.id] = Top(fd, name)

    def _find(self, lost: list[Snapshot]) -> None:
        """Look for the folders that are not where they should be, by their inode numbers, and
        for those that only look like some."""
        history = self._history
        there = {s.id for s in history.refreshed()}  # others may have been deleted just now
        with history.catalog.lock:
            roots = {number: root for number, _name, _state, root in history.catalog.folders()}
            rows = history.catalog.db.execute("SELECT name FROM snapshot").fetchall()
        known = {os.fsencode(name) for (name,) in rows}
        strange = self._strange(known)
        for snapshot in lost:
            if snapshot.id not in there:
                continue
            root = roots.get(snapshot.id)
            name = next(
                (n for n, inode in strange.items() if inode == root and self._fits(n, snapshot)),
                None,
            )
            if name is None:
                self._tell(snapshot, GONE, repairable=not snapshot.current)
                continue
            del strange[name]
            fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=history.repo.fd)
            self.renamed.add(snapshot.id)
            self._keep(snapshot, fd, name)
            sure = self._fits(name, snapshot, surely=True)
            if sure:
                self.certain.add(snapshot.id)
            self._tell(snapshot, RENAMED.format(os.fsdecode(name)), repairable=sure)
        for name in sorted(strange):
            if FOLDER_NAME.fullmatch(os.fsdecode(name)):
                where = os.path.join(history.repository, name)
                self.problems.append(Problem(name, (), UNKNOWN, where, False))

    def _fits(self, name: bytes, snapshot: Snapshot, *, surely: bool = False) -> bool:
        """Whether a folder may be that of a snapshot, by half of the names in it: its inode
        number may have been used anew.  It is one `surely` by all of them."""
        catalog = self._history.catalog
        with catalog.lock:
            rows = past.entries(catalog, ROOT_DIR, snapshot.id)
        wanted = {mend.drive_name(row) for row in rows if row.drive != schema.ABSENT}
        fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=self._history.repo.fd)
        try:
            found = set(map(os.fsencode, os.listdir(fd)))
        finally:
            os.close(fd)
        if surely:
            return bool(wanted) and wanted <= found
        return 2 * len(wanted & found) >= len(wanted)

    def _strange(self, known: set[bytes]) -> dict[bytes, int]:
        """Folders in the repository that are no snapshot's, with their inode numbers."""
        found = {}
        with os.scandir(self._history.repo.fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if name in known or name in (CURRENT, INNER):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found[name] = entry.stat(follow_symlinks=False).st_ino
        return found

    def _tell(self, snapshot: Snapshot, what: str, *, repairable: bool = False) -> None:
        where = self.location(snapshot, b"")
        self.problems.append(Problem(b"", (snapshot.name,), what, where, repairable))


def _folder(snapshot: Snapshot) -> bytes:
    return os.fsencode(snapshot.name)
