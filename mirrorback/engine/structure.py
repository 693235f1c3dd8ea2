"""Compares one directory of all snapshots with what should be there, and reads what is in it.

This is the fast look: it tells what is exactly as it should be, and names the rest, for
`read_back` to look at closely.  It runs in helper processes, since Python's threads would wait
for each other.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from mirrorback.errors import Damaged
from mirrorback.model import Digest, Kind
from mirrorback.plan import likeness
from mirrorback.plan.likeness import Given, Holds
from mirrorback.store import content, encoding, schema, system, tree, xattrs
from mirrorback.store.process import Tell
from mirrorback.store.repository import DELTA_SUFFIX
from mirrorback.store.standing import Wanted, WantedFolder

READ_WHOLE = content.UNCACHE_FROM  # bytes up to which a file is read by one call
_FILE, _DIRECTORY, _SYMLINK = int(Kind.FILE), int(Kind.DIRECTORY), int(Kind.SYMLINK)
Range = tuple[int, int | None]  # the first and the last of some snapshots


class Job(NamedTuple):
    """A directory to be looked at; of values that can be marshalled."""

    path: bytes
    rows: Sequence[Wanted]  # what stands there; at least what is to be read
    folder: Sequence[WantedFolder]  # what it is itself
    listed: Sequence[Range]  # in which snapshots it is to be listed
    read: frozenset[int]  # objects to be read back
    spanning: frozenset[int]  # objects that other directories show, too


class Found(NamedTuple):
    """What was seen in one."""

    doubtful: list[int]  # objects that may not be what they should be
    foreign: list[tuple[bytes, int]]  # names that should not be there, and in which snapshot
    folders: list[tuple[int, int]]  # the same of itself: the object, in which snapshot
    inodes: list[tuple[int, int, bool]]  # of objects: the number, and whether it has a link
    #                                      that this directory does not account for
    shared: list[tuple[int, int]]  # objects that are two, in one inode


class Top(NamedTuple):
    """The folder of a snapshot: open, or by its name in the repository."""

    fd: int | None
    name: bytes


class Checker:
    """Does such jobs.  Not for several threads."""

    def __init__(self, repository: int, tops: dict[int, Top], holds: Holds, plain: bool) -> None:
        """`repository` is open.  `plain`: a listing tells the true inode numbers."""
        self._repository = repository
        self._tops = tops
        self._holds = holds
        self._plain = plain

    def check(self, snapshots: Sequence[int], job: Job, tell: Tell) -> Found:
        """Look at a directory in those of its snapshots that there are, newest first."""
        found = Found([], [], [], [], [])
        doubtful: set[int] = set()
        places: dict[int, tuple[int, int, Wanted]] = {}  # by object: snapshot, inode, entry
        listing = _Listing(self, job, doubtful, found, places)
        listed = [s for s in snapshots if _within(s, job.listed)]
        listing.run(listed)
        links = self._read(snapshots, job, places, doubtful, tell)
        listing.tell_inodes(links if len(listed) == len(snapshots) else {})
        found.doubtful.extend(doubtful)
        return found

    # --- reading ---------------------------------------------------------------------

    def _read(
        self,
        snapshots: Sequence[int],
        job: Job,
        places: dict[int, tuple[int, int, Wanted]],
        doubtful: set[int],
        tell: Tell,
    ) -> dict[int, int]:
        """Read the objects, each once, those of one snapshot by their inode numbers: on a disk
        that is near the order in which they lie.  Returns how many links each has."""
        links: dict[int, int] = {}
        where: dict[int, list[tuple[int, int, Wanted]]] = {}
        rising = snapshots[::-1]
        for row in job.rows:
            if row.object not in job.read or row.kind == _DIRECTORY:
                continue
            place = places.get(row.object)
            if place is None:
                newest = _newest(row, rising)
                if newest is None:
                    doubtful.add(row.object)
                    continue
                place = (newest, 0, row)
                places[row.object] = place
            elif place[2] is not row:
                continue
            where.setdefault(place[0], []).append((place[1], row.object, row))
        for snapshot in sorted(where, reverse=True):
            rows = where[snapshot]
            rows.sort(key=lambda one: one[:2])
            try:
                folder = self.open(snapshot, job.path)
            except OSError:
                doubtful.update(row.object for _inode, _number, row in rows)
                continue
            try:
                for _inode, _number, row in rows:
                    if row.object not in doubtful:
                        links[row.object] = self._links(folder, row, tell)
                        if not links[row.object]:
                            doubtful.add(row.object)
            finally:
                os.close(folder)
        return links

    def _links(self, folder: int, row: Wanted, tell: Tell) -> int:
        """How many links an entry has that is all it should be; 0 where it is not."""
        try:
            if row.kind == _FILE:
                return self._links_of_file(folder, row, tell)
            st = os.stat(row.name, dir_fd=folder, follow_symlinks=False)
            if (
                Kind.of_mode(st.st_mode) == row.kind
                and self._dressed(st, row)
                and (row.kind != _SYMLINK or os.readlink(row.name, dir_fd=folder) == row.target)
                and (not row.rdev or st.st_rdev == row.rdev)
                and self._same_attributes(row.attributes, xattrs.read_at(folder, row.name))
            ):
                return st.st_nlink
        except (OSError, Damaged):
            pass
        return 0

    def _links_of_file(self, folder: int, row: Wanted, tell: Tell) -> int:
        fd = system.open_quietly(row.name, os.O_RDONLY, folder)
        try:
            st = os.fstat(fd)
            if (
                stat.S_ISREG(st.st_mode)
                and st.st_size == row.size
                and self._dressed(st, row)
                and self._same_attributes(row.attributes, xattrs.read(fd))
                and (row.digest is None or self._same_content(fd, st, row, tell))
            ):
                return st.st_nlink
        finally:
            os.close(fd)
        return 0

    def _same_content(self, fd: int, st: os.stat_result, row: Wanted, tell: Tell) -> bool:
        assert row.digest is not None
        if row.size > READ_WHOLE or row.sparse:
            wanted = Digest(row.digest, bool(row.sparse))
            return content.digest_of(fd, st, wanted.sparse, tell) == wanted
        data = os.read(fd, row.size + 1)
        tell(len(data))
        whole = len(data) == row.size
        return whole and content.digest_bytes(data, row.size).value == row.digest

    def _dressed(self, st: os.stat_result, row: Wanted) -> bool:
        mode = stat.S_IMODE(st.st_mode)
        if (mode, st.st_uid, st.st_gid, st.st_mtime_ns) == row[6:10]:
            return True
        wanted = Given(row.mode, row.uid, row.gid, encoding.unpack_time(row.mtime))
        found = Given(mode, st.st_uid, st.st_gid, st.st_mtime_ns)
        return not likeness.differences(wanted, found, Kind(row.kind), self._holds)

    def _same_attributes(self, packed: bytes | None, found: likeness.Attributes) -> bool:
        if packed is None and not found:
            return True
        return likeness.same_attributes(encoding.unpack_xattrs(packed), found, self._holds)

    # --- directories -----------------------------------------------------------------

    def open(self, snapshot: int, path: bytes) -> int:
        """A descriptor of a directory of a snapshot, for the caller to close.  Raises
        OSError."""
        top = self._tops[snapshot]
        fd = top.fd
        if fd is None:
            fd = os.open(top.name, tree.DIRECTORY_FLAGS, dir_fd=self._repository)
        else:
            fd = os.open(b".", tree.DIRECTORY_FLAGS, dir_fd=fd)
        for name in tree.split(path):
            above = fd
            try:
                fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=above)
            finally:
                os.close(above)
        return fd

    def names(self, folder: int) -> tuple[dict[str, int], set[str]]:
        """What an open directory holds: the inode numbers of all but directories, and these."""
        inodes: dict[str, int] = {}
        folders: set[str] = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif self._plain:
                    inodes[entry.name] = entry.inode()
                else:
                    inodes[entry.name] = entry.stat(follow_symlinks=False).st_ino
        return inodes, folders

    def folder_sound(self, fd: int, row: WantedFolder) -> bool:
        """Whether an open directory is itself what it should be, but for its time."""
        st = os.fstat(fd)
        wanted = Given(row.mode, row.uid, row.gid, 0)
        found = Given(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, 0)
        if wanted != found and likeness.differences(wanted, found, Kind.DIRECTORY, self._holds):
            return False
        return self._same_attributes(row.attributes, xattrs.read(fd))


class _Listing:
    """One directory, listed in one snapshot after the other, from the newest on."""

    def __init__(
        self,
        checker: Checker,
        job: Job,
        doubtful: set[int],
        found: Found,
        places: dict[int, tuple[int, int, Wanted]],
    ) -> None:
        self._checker = checker
        self._job = job
        self._doubtful = doubtful
        self._found = found
        self._places = places
        self._objects: dict[str, int] = {}  # what should stand there now, but for folders
        self._inodes: dict[str, int] = {}  # the same, as far as it is known which
        self._folders: set[str] = set()
        self._loose: dict[str, int] = {}  # objects that may have several inodes
        self._known: dict[int, int] = {}  # by object
        self._names: dict[int, int] = {}  # by object: how many should show it here

    def run(self, snapshots: Sequence[int]) -> None:
        """Compare it in these."""
        arriving, leaving = self._schedule(snapshots)
        for index, snapshot in enumerate(snapshots):
            self._arrive(arriving.get(index, ()))
            itself = next((f for f in self._job.folder if _shown(f, snapshot)), None)
            if itself is not None:
                self._look(snapshot, itself, arriving.get(index, ()))
            self._leave(leaving.get(index, ()))

    def _schedule(
        self, snapshots: Sequence[int]
    ) -> tuple[dict[int, list[Wanted]], dict[int, list[Wanted]]]:
        """With which snapshot each row comes, and after which it goes."""
        arriving: dict[int, list[Wanted]] = {}
        leaving: dict[int, list[Wanted]] = {}
        rising = snapshots[::-1]
        count = len(rising)
        for row in self._job.rows if count else ():
            begin = bisect_left(rising, row.first)
            end = count if row.last is None else bisect_right(rising, row.last)
            if begin >= end or row.drive == schema.ABSENT:
                continue
            arriving.setdefault(count - end, []).append(row)
            leaving.setdefault(count - begin - 1, []).append(row)
            self._names[row.object] = self._names.get(row.object, 0) + end - begin
        return arriving, leaving

    def _arrive(self, rows: Sequence[Wanted]) -> None:
        for row in rows:
            name = _shown_name(row)
            if row.kind == _DIRECTORY:
                self._folders.add(name)
            elif row.drive == schema.WHOLE:
                self._objects[name] = row.object
            else:
                self._loose[name] = row.object

    def _leave(self, rows: Sequence[Wanted]) -> None:
        for row in rows:
            name = _shown_name(row)
            if row.kind == _DIRECTORY:
                self._folders.discard(name)
            else:
                self._objects.pop(name, None)
                self._inodes.pop(name, None)
                self._loose.pop(name, None)

    def _look(self, snapshot: int, itself: WantedFolder, new: Sequence[Wanted]) -> None:
        try:
            fd = self._checker.open(snapshot, self._job.path)
        except OSError:
            self._gone(snapshot, itself)
            return
        try:
            if not self._checker.folder_sound(fd, itself):
                self._found.folders.append((itself.object, snapshot))
            inodes, folders = self._checker.names(fd)
        except (OSError, Damaged):
            self._gone(snapshot, itself)
            return
        finally:
            os.close(fd)
        self._learn(snapshot, inodes, new)
        for name, number in self._loose.items():
            if inodes.pop(name, None) is None:
                self._doubtful.add(number)
        if inodes != self._inodes or folders != self._folders:
            self._differ(snapshot, inodes, folders)

    def _gone(self, snapshot: int, itself: WantedFolder) -> None:
        """It cannot be listed, nor can anything in it be read."""
        self._found.folders.append((itself.object, snapshot))
        self._doubtful.update(self._objects.values())
        self._doubtful.update(self._loose.values())

    def _learn(self, snapshot: int, inodes: dict[str, int], new: Sequence[Wanted]) -> None:
        """Take the inode numbers of objects that are met for the first time as theirs."""
        for row in new:
            if row.drive != schema.WHOLE or row.kind == _DIRECTORY:
                continue
            name = _shown_name(row)
            inode = self._known.get(row.object)
            if inode is None:
                inode = inodes.get(name)
                if inode is None:
                    continue  # as `_differ` will tell
                self._known[row.object] = inode
                self._places[row.object] = (snapshot, inode, row)
            self._inodes[name] = inode

    def _differ(self, snapshot: int, inodes: dict[str, int], folders: set[str]) -> None:
        for name, number in self._objects.items():
            if name not in inodes or inodes[name] != self._inodes.get(name):
                self._doubtful.add(number)
        wanted = self._objects.keys() | self._loose.keys() | self._folders
        for name in (inodes.keys() | folders) - wanted:
            self._found.foreign.append((os.fsencode(name), snapshot))

    def tell_inodes(self, links: dict[int, int]) -> None:
        """Tell what others have to compare, and what is one inode and should be two; `links`
        of objects, where all their names here were looked at."""
        owners: dict[int, int] = {}
        for number, inode in self._known.items():
            other = owners.setdefault(inode, number)
            if other != number:
                self._found.shared.append((other, number))
            more = links.get(number, 0) > self._names[number]
            if more or number in self._job.spanning:
                self._found.inodes.append((number, inode, more))


def _shown_name(row: Wanted) -> str:
    name = row.name + DELTA_SUFFIX if row.drive == schema.DELTA else row.name
    return os.fsdecode(name)


def _shown(row: Wanted | WantedFolder, snapshot: int) -> bool:
    return row.first <= snapshot and (row.last is None or row.last >= snapshot)


def _within(snapshot: int, ranges: Sequence[Range]) -> bool:
    return any(first <= snapshot and (last is None or last >= snapshot) for first, last in ranges)


def _newest(row: Wanted, rising: Sequence[int]) -> int | None:
    """The newest of some snapshots that shows an entry."""
    end = len(rising) if row.last is None else bisect_right(rising, row.last)
    return rising[end - 1] if end and rising[end - 1] >= row.first else None
