"""The scale: what an object takes of the drive, by the inodes that it lies on."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mirrorback.engine.history import History
from mirrorback.engine.places import Places, file_name, shown_in
from mirrorback.model import Kind
from mirrorback.store import extents, mounts, schema, usage
from mirrorback.store.extents import Layout
from mirrorback.store.usage import Named, Stored

SECTOR = 512  # bytes, the unit of st_blocks
BLOCK = 4096  # bytes; what is rounded up to where an inode is not looked at


class Weight(NamedTuple):
    """What an object takes: bytes that are its own, and ranges that others may lie on too."""

    own: int
    shared: bytes = b""  # as in `extents.Layout`
    estimated: bool = False


NOTHING = Weight(0)


class Scale:
    """Weighs objects by the inodes they lie on."""

    def __init__(self, history: History, places: Places) -> None:
        self._history = history
        self._places = places
        mount = mounts.mount_of(history.repo.path)
        kind = mount.fstype if mount else ""
        self._fstype = kind
        self._telling = kind in extents.TELLING
        self._unsure = not self._telling and kind not in extents.UNSHARED

    def of_going(self, one: Stored, going: Sequence[int], leaving: Sequence[int]) -> Weight:
        """What an object of which all names go takes with it."""
        if one.drive == schema.ABSENT:
            return NOTHING
        place = self._first_place(one, going)
        if isinstance(place, Weight):
            return place
        snapshot, named, st = place
        names = sum(len(shown_in(n, going)) + len(shown_in(n, leaving)) for n in one.names)
        if st.st_nlink != names:  # on several inodes, or with names that nobody knows of
            order = dict.fromkeys(going, 0)
            return Weight(sum(size for _, size in self.inodes(one, going, leaving, order)))
        return self._weight(one, snapshot, named, st)

    def of_held(self, one: Stored, known: Sequence[int]) -> Weight:
        """What an object takes, wherever it is shown."""
        if one.drive == schema.ABSENT:
            return NOTHING
        if one.drive == schema.SPLIT:
            order = dict.fromkeys(known, 0)
            return Weight(sum(size for _, size in self.inodes(one, known, (), order, some=True)))
        place = self._first_place(one, known)
        return place if isinstance(place, Weight) else self._weight(one, *place)

    def inodes(
        self,
        one: Stored,
        going: Sequence[int],
        leaving: Sequence[int],
        order: dict[int, int],
        *,
        some: bool = False,
    ) -> Iterator[tuple[int, int]]:
        """The inodes of an object, of which all names go (with `some`: some): the step in which
        the last does, by `order`, and the bytes."""
        names: Counter[tuple[int, int]] = Counter()
        last: dict[tuple[int, int], tuple[int, os.stat_result]] = {}
        for named in one.names:
            for snapshot in sorted({*shown_in(named, going), *shown_in(named, leaving)}):
                st = self._stat(one, snapshot, named)
                if st is None:
                    continue
                inode = (st.st_dev, st.st_ino)
                names[inode] += 1
                step = max(order.get(snapshot, 0), last[inode][0] if inode in last else 0)
                last[inode] = step, st
        for inode, (step, st) in last.items():
            if some or names[inode] >= st.st_nlink:
                yield step, st.st_blocks * SECTOR

    def layouts(self, numbers: Sequence[int]) -> set[bytes]:
        """The shared ranges of some objects, where they can be had."""
        known = usage.existing(self._history.catalog)
        objects = usage.numbered(self._history.catalog, numbers)
        found = (self.of_held(one, known) for one in usage.details(self._history.catalog, objects))
        return {weight.shared for weight in found} - {b""}

    def _first_place(
        self, one: Stored, snapshots: Sequence[int]
    ) -> Weight | tuple[int, Named, os.stat_result]:
        """Where an object lies, or what is known of it where it does not."""
        for named in one.names:
            for snapshot in reversed(shown_in(named, snapshots)):
                try:
                    st = self._stat(one, snapshot, named)
                except PermissionError:
                    size = one.size if one.stored is None else one.stored
                    return Weight(-(-size // BLOCK) * BLOCK, estimated=True)
                if st is not None:
                    return snapshot, named, st
        return NOTHING

    def _stat(self, one: Stored, snapshot: int, named: Named) -> os.stat_result | None:
        return self._places.stat(snapshot, named.dir, file_name(one, named))

    def _weight(self, one: Stored, snapshot: int, named: Named, st: os.stat_result) -> Weight:
        taken = st.st_blocks * SECTOR
        if not taken or not stat.S_ISREG(st.st_mode) or one.kind != Kind.FILE:
            return Weight(taken)
        if not self._telling:
            return Weight(taken, estimated=self._unsure)
        layout = self._layout(one, snapshot, named, taken)
        if layout is None:
            return Weight(taken, estimated=True)
        return Weight(layout.own, layout.shared, layout.estimated)

    def _layout(self, one: Stored, snapshot: int, named: Named, taken: int) -> Layout | None:
        try:
            fd = self._places.open(snapshot, named.dir, file_name(one, named))
        except (PermissionError, FileNotFoundError):
            return None
        try:
            return extents.layout(fd, taken, self._fstype)
        finally:
            os.close(fd)
