"""Where a restore writes to: nothing there is trusted, and little of it touched."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator

from mirrorback.engine.keeping import Keeping
from mirrorback.errors import DriveError, Refused, Trouble
from mirrorback.model import Kind
from mirrorback.plan import restoring
from mirrorback.store import hold, mounts, remove, settings, system, tree

TEMPORARY = b".mirrorback-%s.tmp"  # while its folder is held
UNHELD = b".mirrorback-%s.new"  # where it cannot be, for another restore to keep its hands off
LEFT = re.compile(rb"\.mirrorback-[0-9a-f]{16}\.tmp")

Identity = tuple[int, int]  # device and inode number


def identity(st: os.stat_result) -> Identity:
    """What tells an inode from all others."""
    return st.st_dev, st.st_ino


def places_to_keep(top: int, repository: bytes) -> tuple[frozenset[Identity], frozenset[Identity]]:
    """Of the tree below an open directory: what other file systems are mounted on, and
    all that no restore may move or remove, which is these, the repository, and
    whatever holds one of them."""
    real = os.path.realpath(system.path_of(top, b"")).rstrip(b"/") + b"/"
    points = [point for point in mounts.mount_points() if point.startswith(real)]
    kept: set[bytes] = set()
    for path in (*points, repository):
        while len(path) > 1:
            kept.add(path)
            path = os.path.dirname(path)
    return _identities(points), _identities(kept)


def _identities(paths: Iterable[bytes]) -> frozenset[Identity]:
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found.add(identity(os.stat(path)))
    return frozenset(found)


def open_top(top: bytes, repository: bytes, make: int | None) -> tuple[int | None, bool]:
    """A descriptor of the directory to restore into, which is made with the mode `make` where
    there is none: None where that is not to be; and whether it is empty.  Raises Refused,
    DriveError."""
    if (os.path.realpath(top) + b"/").startswith(repository.rstrip(b"/") + b"/"):
        raise Refused("the target lies inside the repository: give a folder elsewhere")
    try:
        fd = tree.open_own(top, make)
        return fd, not os.listdir(fd)
    except FileNotFoundError:
        if make is not None:
            raise
        return None, True
    except OSError as error:
        shown = settings.escape(os.path.abspath(top))
        raise DriveError(f"{shown} cannot be made: {error.strerror}") from error


class Target:
    """The directory into which is restored; one cursor, for one thread.

    Every step below it is O_NOFOLLOW: a symlink that someone has planted in
    the way is replaced or refused, and leads nowhere.
    """

    def __init__(
        self, top: int, keeping: Keeping, guarded: frozenset[Identity] = frozenset()
    ) -> None:
        """`top` is an open directory; `keeping` says what is kept aside; `guarded`
        are device and inode number of folders that stay."""
        self._top = top
        self._guarded = guarded
        self._cursor = tree.Cursor(top)
        self._glance = tree.Cursor(top)  # for looking elsewhere meanwhile
        self._keeping = keeping
        self.kept_aside = 0

    def close(self) -> None:
        """Close what is open."""
        self._cursor.close()
        self._glance.close()

    def folder(self, path: bytes) -> int:
        """A descriptor of a directory, good until the next call.  Raises Trouble."""
        try:
            return self._cursor.open(path)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Trouble("something that is no folder stands in the way") from error
            raise Trouble(
                (error.strerror or str(error)).lower(), vanished=error.errno == errno.ENOENT
            ) from error

    def look(self, folder: int, name: bytes) -> os.stat_result | None:
        """What stands at a name, None where nothing does."""
        try:
            return os.stat(name or b".", dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names_among(self, paths: Iterable[bytes], st: os.stat_result) -> int:
        """How many of these paths are names of an inode.  What `folder` gave stays good."""
        count = 0
        for path in paths:
            parent, name = tree.parent_of(path)
            with contextlib.suppress(OSError):
                found = self.look(self._glance.open(parent), name)
                count += found is not None and os.path.samestat(found, st)
        return count

    @contextlib.contextmanager
    def temporary(self, folder: int) -> Iterator[bytes]:
        """A name for something unfinished; it is gone afterwards, unless it was
        renamed."""
        with hold.together(folder) as held:
            name = (TEMPORARY if held else UNHELD) % secrets.token_hex(8).encode()
            try:
                yield name
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)

    def clear_left(self, folder: int, names: Collection[bytes]) -> None:
        """Remove what a restore that was killed has left unfinished in an open folder,
        unless a restore is at work there.  `names` are none of that.  Raises OSError."""
        if not self._left(folder, names):
            return
        with hold.alone(folder) as held:
            for name in self._left(folder, names) if held else ():
                os.unlink(name, dir_fd=folder)

    @staticmethod
    def _left(folder: int, names: Collection[bytes]) -> list[bytes]:
        with os.scandir(folder) as entries:
            return [
                name
                for entry in entries
                if LEFT.fullmatch(name := os.fsencode(entry.name))
                and name not in names
                and (entry.is_symlink() or entry.is_file(follow_symlinks=False))
            ]

    def put(self, folder: int, temporary: bytes, path: bytes) -> None:
        """Give what is finished its name, the last of `path`, in its open folder; what
        stood there is kept aside, or goes."""
        _parent, name = tree.parent_of(path)
        self.clear(folder, path)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def is_guarded(self, st: os.stat_result) -> bool:
        """Whether it must not be moved or removed."""
        return identity(st) in self._guarded

    def clear(self, folder: int, path: bytes) -> None:
        """Move what stands at a path, in its open folder, out of the way, if anything does."""
        _parent, name = tree.parent_of(path)
        st = self.look(folder, name)
        if st is None:
            return
        if self.is_guarded(st):
            raise Trouble("holds the repository or a mounted file system: left alone")
        if self._keeping.keeps(folder, path, st):
            self._keep_aside(folder, name, st)
        elif stat.S_ISDIR(st.st_mode):
            remove.remove_tree(folder, name, threads=1)
        else:
            with self._unlocked(folder, name, st):
                os.unlink(name, dir_fd=folder)

    def _keep_aside(self, folder: int, name: bytes, st: os.stat_result) -> None:
        for number in range(1, 10_000):
            aside = restoring.aside_name(name, self._keeping.stamp, number)
            try:
                with self._unlocked(folder, name, st):
                    system.rename_new(folder, name, folder, aside)
            except FileExistsError:
                continue
            self.kept_aside += 1
            return
        raise Trouble("too many things are kept aside here already")

    @contextlib.contextmanager
    def _unlocked(self, folder: int, name: bytes, st: os.stat_result) -> Iterator[None]:
        """Take immutable and append-only flags off for as long as it needs."""
        if not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)) or os.geteuid() != 0:
            yield
            return
        fd = system.open_quietly(name, os.O_RDONLY, folder)
        try:
            flags = system.inode_flags(fd)
            if flags:
                system.set_inode_flags(fd, 0)
            yield
            if flags:
                with contextlib.suppress(OSError):
                    system.set_inode_flags(fd, flags)
        finally:
            os.close(fd)

    def make_folder(self, folder: int, path: bytes) -> bool:
        """Make a directory where there is none, in its open folder; whether it is new.
        What else stands there is moved out of the way."""
        _parent, name = tree.parent_of(path)
        st = self.look(folder, name)
        if st is not None and Kind.of_mode(st.st_mode) is Kind.DIRECTORY:
            return False
        self.clear(folder, path)
        os.mkdir(name, 0o700, dir_fd=folder)
        return True

    def others(self, folder: int, names: set[bytes]) -> list[bytes]:
        """What a directory holds besides these names and what was kept aside."""
        found = [os.fsencode(name) for name in os.listdir(folder)]
        return [name for name in found if name not in names and not restoring.is_aside(name)]
