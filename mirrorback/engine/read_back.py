"""A close look at one inode on the drive: whether it is all that an object should be."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from mirrorback.engine import faults
from mirrorback.engine.contents import read_through
from mirrorback.engine.dated import Dated
from mirrorback.engine.faults import Fault, Harm
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import Kind, Snapshot
from mirrorback.plan import likeness
from mirrorback.plan.likeness import Given, Holds
from mirrorback.store import content, past, schema, system, tree, xattrs
from mirrorback.store.past import PastRow

_IN_CONTENT = (faults.WRONG_SIZE, faults.ROTTEN, faults.EDITED)


class Shown(NamedTuple):
    """One name of an object in the folder of one snapshot, and what stands there."""

    row: PastRow
    snapshot: Snapshot
    folder: bytes  # the path of the directory
    name: bytes  # as on the drive
    inode: tuple[int, int] | None = None  # None: nothing, or nothing that can be looked at
    fault: Fault | None = None  # why
    silent: bool = False  # the directory is missing
    links: int = 0  # names that the inode has
    kind: Kind | None = None

    @property
    def path(self) -> bytes:
        """The path on the drive, within the snapshot's folder."""
        return tree.join(self.folder, self.name)

    @property
    def source_path(self) -> bytes:
        """The same as the source has it."""
        return tree.join(self.folder, self.row.name)


class ReadBack:
    """Looks closely at inodes.  For several threads."""

    def __init__(
        self, history: History, dated: Dated, holds: Holds, passed: Callable[[int], None]
    ) -> None:
        """`passed` is told the bytes that were read."""
        self._history = history
        self._dated = dated
        self._holds = holds
        self._passed = passed

    def fault(self, shown: Shown, *, comes_to: bool | None = None) -> Fault | None:
        """What is wrong with what stands at a name.  A delta is read through all that it is
        over, unless it is known whether it `comes_to` what it should.  Raises the catalog's
        errors."""
        row = shown.row
        if shown.kind is not row.metadata.kind:
            return Fault(faults.WRONG_KIND, Harm.CONTENT)
        try:
            with self._dated.opened(shown.snapshot, shown.folder) as folder:
                if folder is None:
                    return faults.GONE
                if row.metadata.kind is not Kind.FILE:
                    return self._other(folder, shown)
                fd = system.open_quietly(shown.name, os.O_RDONLY, folder)
                try:
                    return self._file(fd, shown, comes_to)
                finally:
                    os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return faults.GONE
        except OSError as error:
            return faults.unreadable(error)

    def _other(self, folder: int, shown: Shown) -> Fault | None:
        st = os.stat(shown.name, dir_fd=folder, follow_symlinks=False)
        wanted = shown.row.metadata
        symlink = wanted.kind is Kind.SYMLINK
        if symlink and os.readlink(shown.name, dir_fd=folder) != wanted.target:
            return Fault(faults.WRONG_TARGET, Harm.CONTENT)
        if wanted.rdev and st.st_rdev != wanted.rdev:
            return Fault(faults.WRONG_DEVICE, Harm.CONTENT)
        return self._dress(st, xattrs.read_at(folder, shown.name), shown.row)

    def _file(self, fd: int, shown: Shown, comes_to: bool | None) -> Fault | None:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            return Fault(faults.WRONG_KIND, Harm.CONTENT)
        system.drop_cache(fd, 0, 0)  # what is on the drive counts
        if shown.row.drive == schema.DELTA:
            fault = self._delta(fd, shown, comes_to)
        else:
            fault = self._whole(fd, st, shown)
        return fault or self._dress(st, xattrs.read(fd), shown.row)

    def _dress(
        self, st: os.stat_result, attributes: likeness.Attributes, row: PastRow
    ) -> Fault | None:
        wanted = row.metadata
        given = Given(wanted.mode, wanted.owner.uid, wanted.owner.gid, wanted.mtime)
        found = Given(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns)
        words = likeness.differences(given, found, wanted.kind, self._holds)
        if not likeness.same_attributes(wanted.xattrs, attributes, self._holds):
            words.append(faults.ATTRIBUTES)
        return Fault("; ".join(words), Harm.DRESS) if words else None

    # --- content -------------------------------------------------------------------------

    def _whole(self, fd: int, st: os.stat_result, shown: Shown) -> Fault | None:
        row = shown.row
        words = self._read_file(row, fd, st)
        if words is None:
            return None
        # A run may just be changing it.
        with self._history.catalog.lock:
            held = past.holding(self._history.catalog, row.object)
        if held is None or held.given or held.patched or held.drive != row.drive:
            return self.read_through(row, shown.snapshot)
        return Fault(words, Harm.CONTENT)

    def _read_file(self, row: PastRow, fd: int, st: os.stat_result) -> str | None:
        if st.st_size != row.metadata.size:
            return faults.WRONG_SIZE
        if row.digest is None:
            return None
        if content.digest_of(fd, st, row.digest.sparse, self._passed) == row.digest:
            return None
        same = likeness.same_time(row.metadata.mtime, st.st_mtime_ns)
        return faults.ROTTEN if same else faults.EDITED

    def _delta(self, fd: int, shown: Shown, comes_to: bool | None) -> Fault | None:
        from mirrorback.store.delta_reader import DeltaReader

        row = shown.row
        try:
            reader = DeltaReader(fd)
            reader.check(self._passed)
        except Damaged as error:
            return Fault(str(error), Harm.CONTENT)
        if (reader.old_size, reader.old_digest) != (row.metadata.size, row.digest):
            return Fault(faults.OTHERS_DELTA, Harm.CONTENT)
        if comes_to is None and shown.snapshot.id in self._dated.renamed:
            return None  # it would be looked for under its own name
        if comes_to is None:
            comes_to = self.read_through(row, shown.snapshot) is None
        return None if comes_to else Fault(faults.DEPENDS, Harm.BASE)

    def read_through(self, row: PastRow, snapshot: Snapshot) -> Fault | None:
        """What is wrong with a version, however it is read.  Raises the catalog's errors."""

        def passed(_offset: int, data: bytes) -> None:
            self._passed(len(data))

        try:
            with contextlib.closing(open_version(self._history, row, snapshot)) as version:
                read_through(row.name, row, version, passed)
        except Damaged:
            return Fault(faults.DAMAGED, Harm.CONTENT)
        except DriveError as error:
            return Fault(f"cannot be read: {error}", Harm.CONTENT)
        return None

    # --- folders -----------------------------------------------------------------------

    def folder_fault(self, row: PastRow, path: bytes, snapshot: Snapshot) -> Fault | None:
        """What is wrong with a directory itself, in one snapshot."""
        parent, name = tree.parent_of(path)
        try:
            with self._dated.opened(snapshot, parent) as above:
                if above is None:
                    return faults.GONE
                st = os.stat(name or b".", dir_fd=above, follow_symlinks=False)
            if not stat.S_ISDIR(st.st_mode):
                return Fault(faults.WRONG_KIND, Harm.CONTENT)
            with self._dated.opened(snapshot, path) as fd:
                return faults.GONE if fd is None else self._dress(st, xattrs.read(fd), row)
        except FileNotFoundError:
            return faults.GONE
        except OSError as error:
            return faults.unreadable(error)
