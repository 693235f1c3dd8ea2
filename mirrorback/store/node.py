"""Inodes: reading all that is kept of one, and giving it to another."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from mirrorback.errors import Trouble
from mirrorback.model import KIND_OF_FORMAT, Kind, Metadata
from mirrorback.store import owners, system, xattrs

# What a drive answers to say that it does not hold such a thing at all.
CANNOT = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES}
)

EXCHANGED = "something else has its name by now: left alone"
_BITS = stat.S_ISUID | stat.S_ISGID


def read_open(fd: int, st: os.stat_result, dir_fd: int, name: bytes) -> Metadata:
    """The metadata of an open file or directory.  `dir_fd` and `name` say where
    it stands, which only the time of birth needs.  Raises OSError."""
    kind = KIND_OF_FORMAT[stat.S_IFMT(st.st_mode)]
    return Metadata(
        kind=kind,
        mode=stat.S_IMODE(st.st_mode),
        owner=owners.named(st.st_uid, st.st_gid),
        mtime=st.st_mtime_ns,
        size=st.st_size if kind is Kind.FILE else 0,
        xattrs=xattrs.read(fd),
        flags=system.inode_flags(fd),
        btime=system.birth_time(fd, b""),
    )


def read_other(st: os.stat_result, dir_fd: int, name: bytes) -> Metadata:
    """The metadata of a symlink, fifo, socket or device.  Raises OSError."""
    kind = KIND_OF_FORMAT[stat.S_IFMT(st.st_mode)]
    device = kind in (Kind.CHAR, Kind.BLOCK)
    return Metadata(
        kind=kind,
        # A symlink's own mode means nothing and cannot be set.
        mode=0o777 if kind is Kind.SYMLINK else stat.S_IMODE(st.st_mode),
        owner=owners.named(st.st_uid, st.st_gid),
        mtime=st.st_mtime_ns,
        rdev=st.st_rdev if device else 0,
        target=os.readlink(name, dir_fd=dir_fd) if kind is Kind.SYMLINK else None,
        xattrs=xattrs.read_at(dir_fd, name),
        btime=system.birth_time(dir_fd, name),
    )


class NotKept:
    """Counts what the drive could not hold.  For several threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, what: Iterable[str]) -> None:
        """Count one entry under each of these words."""
        with self._lock:
            self._counts.update(what)

    def counts(self) -> dict[str, int]:
        """What could not be held, by how many entries it was missed."""
        with self._lock:
            return dict(sorted(self._counts.items()))


class Dress(NamedTuple):
    """What an inode is given; of values that can be marshalled."""

    mode: int  # without S_IFMT
    uid: int
    gid: int
    mtime: int
    xattrs: xattrs.Attributes

    @classmethod
    def of(cls, metadata: Metadata) -> Dress:
        """That of an entry."""
        m = metadata
        return cls(m.mode, m.owner.uid, m.owner.gid, m.mtime, m.xattrs)


class Dresser:
    """Gives inodes their owner, mode, attributes and times, in the order in
    which none of these undoes another: chown clears setuid bits and
    capabilities, everything moves the times.

    Each method returns what could not be given, in words that `NotKept` counts.
    """

    def __init__(self, *, owner: bool = True, enterable: bool = False) -> None:
        """`owner` off leaves ownership alone.  `enterable` keeps directories
        open to a process that is not root, which must come back to them, and rename
        them, for which Linux asks the permission to write."""
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._owner = owner
        self._least = 0o700 if enterable and self._uid != 0 else 0

    def dress_open(self, fd: int, metadata: Metadata, *, fresh: bool = True) -> list[str]:
        """An open file or directory; `fresh` when this process has just made it."""
        directory = metadata.kind is Kind.DIRECTORY
        return self.dress(fd, Dress.of(metadata), directory=directory, fresh=fresh)

    def dress(
        self, fd: int, what: Dress, *, directory: bool = False, fresh: bool = True
    ) -> list[str]:
        """The same by plain values."""
        missed = []
        mode, uid, gid, mtime, attributes = what
        if directory and mode | self._least != mode:
            mode |= self._least
            missed.append("permissions")
        if self._owner and not (fresh and (uid, gid) == (self._uid, self._gid)):
            missed += self._chown(fd, uid, gid)
        if "ownership" in missed or (not directory and mode & _BITS and self._spared(fd, uid, gid)):
            # For another owner it would be a gift: to that one, or to who wrote the content.
            mode &= ~_BITS
        try:
            os.fchmod(fd, mode)
        except OSError as error:
            _unless_cannot(error)
            missed.append("permissions")
        if attributes or not fresh:
            missed += _words(xattrs.write(fd, attributes))
        if not set_times(fd, mtime):
            missed.append("times")
        return missed

    def dress_named(
        self, dir_fd: int, name: bytes, metadata: Metadata, known: os.stat_result | None = None
    ) -> list[str]:
        """A symlink, fifo, socket or device: the one that is `known`, or else one that this
        process has just made.  Raises OSError, and Trouble where its name is another's by now:
        a hard link to what lies elsewhere, perhaps."""
        with system.held_itself(dir_fd, name) as (place, st):
            if Kind.of_mode(st.st_mode) is not metadata.kind or not (
                st.st_nlink <= 1 if known is None else os.path.samestat(st, known)
            ):
                raise Trouble(EXCHANGED)
            missed = []
            if self._owner:
                missed += self._chown(place, metadata.owner.uid, metadata.owner.gid)
            if metadata.kind is not Kind.SYMLINK:
                try:
                    os.chmod(place, metadata.mode)
                except OSError as error:
                    _unless_cannot(error)
                    missed.append("permissions")
            if metadata.xattrs:
                missed += _words(xattrs.write_at(place, metadata.xattrs))
            if not set_times(place, metadata.mtime):
                missed.append("times")
        return missed

    def _spared(self, fd: int, uid: int, gid: int) -> bool:
        """Whether an inode keeps another owner than it should have, since that is left alone."""
        st = os.fstat(fd)
        return not self._owner and (st.st_uid, st.st_gid) != (uid, gid)

    def _chown(self, target: int | bytes, uid: int, gid: int) -> list[str]:
        if self._uid != 0 and uid != self._uid:
            uid = -1
        missed = ["ownership"] if uid == -1 else []
        try:
            os.chown(target, uid, gid)
        except OSError as error:
            _unless_cannot(error)
            missed = ["ownership"]
        return missed


def set_times(target: int | bytes, mtime: int, dir_fd: int | None = None) -> bool:
    """Set mtime (and atime) of a descriptor, of a name in `dir_fd`, or without that of what is
    held at a place (`system.held_itself`), in ns; False where it cannot be held at all.  What
    the file system merely rounds counts as held."""
    try:
        if isinstance(target, int) or dir_fd is None:
            os.utime(target, ns=(mtime, mtime))
        else:
            os.utime(target, ns=(mtime, mtime), dir_fd=dir_fd, follow_symlinks=False)
    except OverflowError:
        return False
    except OSError as error:
        _unless_cannot(error)
        return False
    return True


def make_other(dir_fd: int, name: bytes, metadata: Metadata) -> None:
    """Create a symlink, fifo, socket or device.  Raises OSError (PermissionError
    for a device without root)."""
    if metadata.kind is Kind.SYMLINK:
        assert metadata.target is not None
        os.symlink(metadata.target, name, dir_fd=dir_fd)
    else:
        os.mknod(name, 0o600 | metadata.kind.format_bits, metadata.rdev, dir_fd=dir_fd)


def _unless_cannot(error: OSError) -> None:
    if error.errno not in CANNOT:
        raise error


def _words(refused: Iterable[bytes]) -> list[str]:
    return sorted(
        {
            "access control lists"
            if name.startswith(b"system.posix_acl")
            else "capabilities"
            if name == b"security.capability"
            else "extended attributes"
            for name in refused
        }
    )
