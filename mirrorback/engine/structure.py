"""Compares one directory of all snapshots with what should be there, and reads what is in it.

This is the fast look: it tells what is exactly as it should be, and names the rest, for
`read_back` to look at closely.  It runs in helper processes, since Python's threads would wait
for each other.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from mirrorback.engine import faults
from mirrorback.engine.jobs import Found, Job, Top
from mirrorback.engine.names import Names, within
from mirrorback.errors import Damaged
from mirrorback.model import Digest, Kind
from mirrorback.plan import likeness
from mirrorback.plan.likeness import Given, Holds
from mirrorback.store import content, encoding, system, tree, xattrs
from mirrorback.store.process import Tell
from mirrorback.store.standing import Wanted, WantedFolder

READ_WHOLE = content.UNCACHE_FROM  # bytes up to which a file is read by one call
_FILE, _DIRECTORY, _SYMLINK = int(Kind.FILE), int(Kind.DIRECTORY), int(Kind.SYMLINK)


@dataclass(slots=True)
class _Reading:
    """What came of reading objects, by their numbers."""

    links: dict[int, int] = field(default_factory=dict)  # of those with the right content
    undressed: dict[int, str] = field(default_factory=dict)  # of these: wrong metadata, in words
    learnt: dict[int, bytes] = field(default_factory=dict)  # digests that nobody knew


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
        found = Found([], [], [], [], [], [], [])
        doubtful: set[int] = set()
        places: dict[int, tuple[int, int, Wanted]] = {}  # by object: snapshot, inode, entry
        listing = Names(self, job, doubtful, found, places)
        listed = [s for s in snapshots if within(s, job.listed)]
        listing.run(listed)
        read = self._read(snapshots, job, places, doubtful, tell)
        whole = len(listed) == len(snapshots)
        listing.tell_inodes(read.links if whole else {})
        for number, words in read.undressed.items():
            if whole and listing.is_one(number, read.links[number]) and number not in doubtful:
                found.undressed.append((number, words))
            else:
                doubtful.add(number)
        found.learnt.extend(read.learnt.items())
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
    ) -> _Reading:
        """Read the objects, each once, those of one snapshot by their inode numbers: on a disk
        that is near the order in which they lie."""
        read = _Reading()
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
                    if row.object not in doubtful and not self._is_right(folder, row, read, tell):
                        doubtful.add(row.object)
            finally:
                os.close(folder)
        return read

    def _is_right(self, folder: int, row: Wanted, read: _Reading, tell: Tell) -> bool:
        """Whether an entry is what it should be, but for metadata; what else there is to say of
        it goes to `read`."""
        try:
            if row.kind == _FILE:
                return self._is_right_file(folder, row, read, tell)
            st = os.stat(row.name, dir_fd=folder, follow_symlinks=False)
            if (
                Kind.of_mode(st.st_mode) == row.kind
                and (row.kind != _SYMLINK or os.readlink(row.name, dir_fd=folder) == row.target)
                and (not row.rdev or st.st_rdev == row.rdev)
            ):
                self._note(st, xattrs.read_at(folder, row.name), row, read)
                return True
        except (OSError, Damaged):
            pass
        return False

    def _is_right_file(self, folder: int, row: Wanted, read: _Reading, tell: Tell) -> bool:
        fd = system.open_quietly(row.name, os.O_RDONLY, folder)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or st.st_size != row.size:
                return False
            attributes = xattrs.read(fd)
            system.drop_cache(fd, 0, 0)  # what is on the drive counts, not what is remembered
            if row.digest is None:
                self._learn(fd, st, row, read, tell)
            elif not self._same_content(fd, st, row, tell):
                return False
            self._note(st, attributes, row, read)
            if row.object in read.undressed:
                read.learnt.pop(row.object, None)  # it may not be what was backed up
        finally:
            os.close(fd)
        return True

    def _note(
        self, st: os.stat_result, attributes: likeness.Attributes, row: Wanted, read: _Reading
    ) -> None:
        words = self._undressed(st, row)
        if not self._same_attributes(row.attributes, attributes):
            words = [*words, faults.ATTRIBUTES]
        read.links[row.object] = st.st_nlink
        if words:
            read.undressed[row.object] = "; ".join(words)

    def _learn(self, fd: int, st: os.stat_result, row: Wanted, read: _Reading, tell: Tell) -> None:
        found = content.digest_of(fd, st, bool(row.sparse), tell)
        after = os.fstat(fd)
        if (after.st_mtime_ns, after.st_ctime_ns) == (st.st_mtime_ns, st.st_ctime_ns):
            read.learnt[row.object] = found.value

    def _same_content(self, fd: int, st: os.stat_result, row: Wanted, tell: Tell) -> bool:
        assert row.digest is not None
        if row.size > READ_WHOLE or row.sparse:
            wanted = Digest(row.digest, bool(row.sparse))
            return content.digest_of(fd, st, wanted.sparse, tell) == wanted
        data = content.read_up_to(fd, row.size + 1, 0)
        tell(len(data))
        whole = len(data) == row.size
        return whole and content.digest_bytes(data, row.size).value == row.digest

    def _undressed(self, st: os.stat_result, row: Wanted) -> Sequence[str]:
        """What of an inode's metadata is wrong, in words."""
        mode = stat.S_IMODE(st.st_mode)
        if (mode, st.st_uid, st.st_gid, st.st_mtime_ns) == row[6:10]:
            return ()
        wanted = Given(row.mode, row.uid, row.gid, encoding.unpack_time(row.mtime))
        found = Given(mode, st.st_uid, st.st_gid, st.st_mtime_ns)
        return likeness.differences(wanted, found, Kind(row.kind), self._holds)

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


def _newest(row: Wanted, rising: Sequence[int]) -> int | None:
    """The newest of some snapshots that shows an entry."""
    end = len(rising) if row.last is None else bisect_right(rising, row.last)
    return rising[end - 1] if end and rising[end - 1] >= row.first else None
