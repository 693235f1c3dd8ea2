"""The names in one directory, in one snapshot after the other, compared with what should be
there: the inode numbers that listings tell are enough for that."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mirrorback.engine.jobs import Found, Job, Range
from mirrorback.errors import Damaged
from mirrorback.model import Kind
from mirrorback.store import schema
from mirrorback.store.repository import DELTA_SUFFIX
from mirrorback.store.standing import Wanted, WantedFolder

if TYPE_CHECKING:
    from mirrorback.engine.structure import Checker

_DIRECTORY = int(Kind.DIRECTORY)


class Names:
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
                    # It may be read under a name in another directory, and be sound there.
                    self._doubtful.add(row.object)
                    continue
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

    def is_one(self, number: int, links: int) -> bool:
        """Whether an object that has so many links is one inode that is its own: for those
        that no other directory shows, if all their names were looked at."""
        return (
            number in self._known
            and number not in self._job.spanning
            and links <= self._names[number]
        )

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


def within(snapshot: int, ranges: Sequence[Range]) -> bool:
    """Whether a snapshot is among some, which are given by the first and last of each run."""
    return any(first <= snapshot and (last is None or last >= snapshot) for first, last in ranges)
