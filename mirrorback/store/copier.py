"""Filling directories of the new snapshot: links to the mirror's files, copies of the source's.

It needs neither catalog nor spool, so that other processes can do it as well
(`helper`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mirrorback.errors import Trouble
from mirrorback.model import Digest, Kind, Metadata
from mirrorback.store import content, node, owners, reading, system, tree

Progress = Callable[[int], None]

NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
# What says that a name cannot be linked from where it should be, and nothing of the drive.
UNLINKABLE = frozenset({errno.EMLINK, errno.ENOENT, errno.EBADF, errno.EPERM, errno.ENOTDIR})
_READ_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Roots:
    """Open directories: the trees that a build reads and writes."""

    source: int
    mirror: int | None  # None: there is none yet
    incoming: int
    salvage: tuple[int, ...] = ()  # what interrupted runs have left


class Copied(NamedTuple):
    """A source file that now stands in the new snapshot.  Flat, and of values that can be
    marshalled: a million are made a night."""

    mode: int  # without S_IFMT
    uid: int
    gid: int
    mtime: int
    size: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    flags: int
    btime: int | None
    digest: bytes
    sparse: bool  # the form of the digest
    ino: int
    ctime: int
    nlink: int
    read_at: int  # ns since 1970, before the first byte was read
    torn: bool  # it changed each time it was read
    missed: list[str]  # what the drive could not hold, as `node.NotKept` counts it

    @classmethod
    def of(cls, seen: reading.Seen, missed: list[str]) -> Copied:
        """A file that was copied as it was seen."""
        m, digest = seen.metadata, seen.digest
        assert digest is not None
        return cls(
            m.mode,
            m.owner.uid,
            m.owner.gid,
            m.mtime,
            m.size,
            m.xattrs,
            m.flags,
            m.btime,
            digest.value,
            digest.sparse,
            seen.ino,
            seen.ctime,
            seen.nlink,
            seen.read_at,
            seen.torn,
            missed,
        )

    @property
    def seen(self) -> reading.Seen:
        """The source file as it was read."""
        metadata = Metadata(
            kind=Kind.FILE,
            mode=self.mode,
            owner=owners.named(self.uid, self.gid),
            mtime=self.mtime,
            size=self.size,
            xattrs=self.xattrs,
            flags=self.flags,
            btime=self.btime,
        )
        digest = Digest(self.digest, self.sparse)
        rest = self.ino, self.ctime, self.nlink, self.read_at, self.torn
        return reading.Seen(metadata, digest, *rest)


class Work(NamedTuple):
    """What a directory of the new snapshot, which is there, is to be given, in this order."""

    path: bytes
    folders: Sequence[bytes] = ()  # to be made
    links: bytes = b""  # names to link from the mirror's directory of that path, with slashes
    copies: Sequence[bytes] = ()  # regular files to copy from the source's
    dress: node.Dress | None = None  # its own metadata; None: something else is still to come


class Filled(NamedTuple):
    """What came of filling a directory."""

    refused: list[tuple[bytes, int]]  # names that could not be linked, with the errno
    copied: list[Copied | Trouble]  # in the order of `Work.copies`
    missed: list[str]  # of its own metadata, as `node.NotKept` counts it


class Filling(Protocol):
    """Whoever fills directories, here or in another process."""

    def fill(self, works: Sequence[Work], progress: Progress) -> list[Filled]:
        """Do the work of some directories, one after the other, and report the bytes copied.
        For a copy in trouble, something may be left at its name.  Raises OSError for what
        the drive does."""


class Copier:
    """Fills directories in the calling thread, and serves no other."""

    def __init__(self, roots: Roots) -> None:
        self.source = tree.Cursor(roots.source)
        self.mirror = tree.Cursor(roots.mirror) if roots.mirror is not None else None
        self.incoming = tree.Cursor(roots.incoming)
        self._salvage = [tree.Cursor(fd) for fd in roots.salvage]
        self._dresser = node.Dresser(enterable=True)

    def close(self) -> None:
        """Close what is open (not the roots, which belong to the caller)."""
        for cursor in (self.source, self.mirror, self.incoming, *self._salvage):
            if cursor is not None:
                cursor.close()

    def unlink_salvaged(self, folder: bytes, name: bytes, inode: int) -> None:
        """Remove a name from what interrupted runs have left, where it is one of `inode`."""
        for cursor in self._salvage:
            with contextlib.suppress(OSError):
                left = cursor.open(folder)
                if os.stat(name, dir_fd=left, follow_symlinks=False).st_ino == inode:
                    os.unlink(name, dir_fd=left)

    def fill(self, works: Sequence[Work], progress: Progress) -> list[Filled]:
        """See `Filling.fill`."""
        return [self._fill(work, progress) for work in works]

    def _fill(self, work: Work, progress: Progress) -> Filled:
        path, folders, links, copies, dress = work
        into = self.incoming.open(path)
        for name in folders:
            os.mkdir(name, 0o700, dir_fd=into)
        refused = self._link(path, into, links.split(b"/")) if links else []
        copied = self._copy_all(path, into, copies, progress) if copies else []
        missed = [] if dress is None else self._dresser.dress(into, dress, directory=True)
        return Filled(refused, copied, missed)

    def _link(self, folder: bytes, into: int, names: Sequence[bytes]) -> list[tuple[bytes, int]]:
        try:
            origin = self.mirror.open(folder) if self.mirror is not None else -1
        except OSError:
            origin = -1  # each name will be refused
        link, refused = os.link, []
        for name in names:
            try:
                link(name, name, src_dir_fd=origin, dst_dir_fd=into, follow_symlinks=False)
            except OSError as error:
                if error.errno not in UNLINKABLE:
                    raise
                refused.append((name, error.errno))
        return refused

    def _copy_all(
        self, folder: bytes, into: int, names: Sequence[bytes], progress: Progress
    ) -> list[Copied | Trouble]:
        try:
            with reading.troubles:
                origin = self.source.open(folder)
        except Trouble as trouble:
            return [trouble for _name in names]
        done: list[Copied | Trouble] = []
        for name in names:
            try:
                done.append(self._copy(folder, origin, into, name, progress))
            except Trouble as trouble:
                done.append(trouble.alone())
        return done

    def _copy(
        self, folder: bytes, origin: int, into: int, name: bytes, progress: Progress
    ) -> Copied:
        for cursor in self._salvage:
            copied = self._take_over(cursor, folder, origin, into, name)
            if copied is not None:
                return copied
        small = reading.read_file(origin, name)
        fd = os.open(name, NEW_FILE, 0o600, dir_fd=into)
        try:
            if small is not None:
                return self._write(fd, small, progress)
            seen = reading.copy_file(origin, name, fd, progress)
            return Copied.of(seen, self._dresser.dress_open(fd, seen.metadata))
        finally:
            os.close(fd)

    def _write(self, fd: int, small: reading.Small, progress: Progress) -> Copied:
        st, attributes, flags, btime, read_at, torn, data = small
        mode, uid, gid, mtime = st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns
        size = st.st_size
        if data:
            content.write_all(fd, data, 0)
            progress(len(data))
        if len(data) < size:
            os.ftruncate(fd, size)  # it became shorter as it was read
        missed = self._dresser.dress(fd, node.Dress(mode, uid, gid, mtime, attributes))
        ino = system.inode_number(st.st_ino)
        digest = content.digest_bytes(data, size).value
        return Copied(
            mode,
            uid,
            gid,
            mtime,
            size,
            attributes,
            flags,
            btime,
            digest,
            False,
            ino,
            st.st_ctime_ns,
            st.st_nlink,
            read_at,
            torn,
            missed,
        )

    def _take_over(
        self, cursor: tree.Cursor, folder: bytes, origin: int, into: int, name: bytes
    ) -> Copied | None:
        """Take over what an interrupted run has copied, if it is what the source has:
        size and time say that it may be, the digests of both that it is."""
        try:
            left = cursor.open(folder)
            fd = os.open(name, _READ_WRITE, dir_fd=left)
        except OSError:
            return None
        try:
            st = os.fstat(fd)
            with reading.troubles:
                now = os.stat(name, dir_fd=origin, follow_symlinks=False)
            same = (st.st_size, st.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
            if not stat.S_ISREG(st.st_mode) or st.st_nlink != 1 or not same:
                return None
            seen = reading.digest_file(origin, name, None, lambda count: None)
            assert seen.digest is not None
            # What counts is on the drive: after a sync that failed, memory may hold what is not.
            system.drop_cache(fd, 0, 0)
            try:
                found = content.digest_of(fd, st, seen.digest.sparse)
            except OSError:
                return None  # the drive has lost it; it will be copied anew
            if found != seen.digest:
                return None
            try:
                os.rename(name, name, src_dir_fd=left, dst_dir_fd=into)
            except PermissionError:
                return None
            return Copied.of(seen, self._dresser.dress_open(fd, seen.metadata, fresh=False))
        finally:
            os.close(fd)
