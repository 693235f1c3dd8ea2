"""Space: what the drive has more when snapshots go, by what their files really take of it.

Counted are the blocks of each inode of which all names go, once, without those that an inode
that stays lies on too; the folders of the snapshots; less what deltas grow by that cannot do
without them.  The catalog says what goes, and only that is looked at on the drive.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from mirrorback.engine.history import History
from mirrorback.engine.places import Places, file_name, shown_in
from mirrorback.model import Kind
from mirrorback.store import extents, schema, system, usage
from mirrorback.store.catalog import translated
from mirrorback.store.extents import Layout, Overlay
from mirrorback.store.repository import drive_errors
from mirrorback.store.usage import Named, Objects, Stored

SECTOR = 512  # bytes, the unit of st_blocks
BLOCK = 4096  # bytes; what small files and deltas are rounded up to, where they are not looked at
LAYOUTS_KEPT = 1 << 24  # bytes of files' layouts that are remembered


class Freed(NamedTuple):
    """What a deletion frees: bytes on the drive."""

    bytes: int  # all of it
    content: int = 0  # of the files and so on that nothing else holds
    folders: int = 0  # of the snapshots' own folders
    growth: int = 0  # of deltas that have to be written anew: not freed
    estimated: bool = False  # something in it is not known exactly
    content_estimated: bool = False  # something in `content` is not


class Weight(NamedTuple):
    """What an object takes: bytes that are its own, and ranges that others may lie on too."""

    own: int
    shared: bytes = b""  # as in `extents.Layout`
    estimated: bool = False


NOTHING = Weight(0)


@dataclass
class _Sum:
    """What is freed by each of some deletions, one after the other."""

    content: list[int]
    folders: list[int]
    growth: list[int]
    unsure: list[bool]  # of the content
    rewritten: list[bool]  # whether deltas grow, or shrink
    blocks: dict[int, int] = field(default_factory=dict)  # of whole files that deltas are over
    step: dict[int, int] = field(default_factory=dict)  # when deltas and what they are over go

    @classmethod
    def empty(cls, count: int) -> _Sum:
        """Nothing, so many times."""
        zeros, no = [0] * count, [False] * count
        return cls(zeros.copy(), zeros.copy(), zeros.copy(), no.copy(), no.copy())


class Space:
    """The space of an open repository, as it is when asked.  For one thread."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._catalog = history.catalog
        self._places = Places(history)
        self._scale = Scale(history, self._places)
        self._folders: list[usage.Named] = []
        self._folder_blocks: dict[usage.Named, int] = {}
        self._folders_of: tuple[int, ...] = ()

    def frees(self, snapshots: Collection[int]) -> int:
        """Bytes that the drive has more when these snapshots (ids) are deleted together; never
        below 0.  Raises DriveError and the catalog's errors."""
        return max(0, self.freed(snapshots).bytes)

    def freed(self, snapshots: Collection[int]) -> Freed:
        """The same with its parts, and without that bound."""
        return self.one_by_one([snapshots])[0]

    def exclusive(self, snapshot: int) -> int:
        """Bytes of the files and so on that only one snapshot (an id), which may be the mirror,
        holds; folders do not count.  Raises likewise."""
        return self.mirror(snapshot).content

    def mirror(self, snapshot: int) -> Freed:
        """The same, with whether it is an estimate."""
        return self._ask([[snapshot]], folders=False)[0]

    def folders(self, snapshots: Sequence[int]) -> list[int]:
        """Bytes of the folders of each of some snapshots (ids, rising).  Raises likewise."""
        found = _Sum.empty(len(snapshots))
        try:
            with drive_errors(), translated():
                order = {snapshot: at for at, snapshot in enumerate(snapshots)}
                self._count_folders(found, snapshots, order)
        finally:
            self._places.close()
        return found.folders

    def one_by_one(self, steps: Sequence[Collection[int]]) -> list[Freed]:
        """What each deletion frees when they are done in this order; those of snapshots (ids)
        that are not there free nothing.  All at once is much faster than asking for each."""
        return self._ask(steps, folders=True)

    def _ask(self, steps: Sequence[Collection[int]], *, folders: bool) -> list[Freed]:
        try:
            with drive_errors(), translated():
                return self._ask_drive(steps, folders)
        finally:
            self._places.close()

    def _ask_drive(self, steps: Sequence[Collection[int]], folders: bool) -> list[Freed]:
        known = usage.existing(self._catalog)
        order: dict[int, int] = {}
        for number, step in enumerate(steps):
            order.update({snapshot: number for snapshot in step if snapshot not in order})
        going = [snapshot for snapshot in known if snapshot in order]
        found = _Sum.empty(len(steps))
        if going:
            self._count_objects(found, going, order)
            if folders:
                self._count_folders(found, going, order)
            self._count_growth(found, len(steps))
        return [
            Freed(content + folder - growth, content, folder, growth, unsure or rewritten, unsure)
            for content, folder, growth, unsure, rewritten in zip(
                found.content,
                found.folders,
                found.growth,
                found.unsure,
                found.rewritten,
                strict=True,
            )
        ]

    # --- objects -------------------------------------------------------------------

    def _count_objects(self, found: _Sum, going: Sequence[int], order: dict[int, int]) -> None:
        leaving = usage.leaving(self._catalog)
        deltas = usage.deltas(self._catalog)
        bases = {base for base, _stored in deltas.values()}
        objects = usage.going(self._catalog, order.keys())
        several: list[tuple[int, list[tuple[int, int, bytes]]]] = []
        last = len(found.content) - 1
        for lineage, group in groupby(
            usage.details(self._catalog, objects), key=lambda one: one.lineage
        ):
            shared = []
            for one in group:
                shown = {s for named in one.names for s in shown_in(named, going)}
                if not shown:
                    continue  # only snapshots that are leaving already show it
                step = max(order[s] for s in shown) if last else 0
                weight = self._scale.of_going(one, going, leaving)
                found.content[step] += weight.own
                found.unsure[step] |= weight.estimated
                if weight.shared:
                    shared.append((step, one.number, weight.shared))
                if one.number in bases or one.number in deltas:
                    found.step[one.number] = step
                    found.blocks[one.number] = weight.own + _length(weight.shared)
            if len(shared) > 1:
                several.append((lineage, shared))
        self._count_split(found, going, order, leaving, set(objects.numbers))
        self._count_shared(found, several)

    def _count_split(
        self,
        found: _Sum,
        going: Sequence[int],
        order: dict[int, int],
        leaving: Sequence[int],
        counted: Collection[int],
    ) -> None:
        """Of objects that lie on several inodes some inodes may go, and others stay."""
        numbers = [n for n in usage.split(self._catalog, schema.SPLIT) if n not in counted]
        for one in usage.details(self._catalog, usage.numbered(self._catalog, numbers)):
            for step, size in self._scale.inodes(one, going, leaving, order):
                found.content[step] += size

    def _count_shared(
        self, found: _Sum, several: Sequence[tuple[int, list[tuple[int, int, bytes]]]]
    ) -> None:
        """Add the ranges that only versions lie on which go: where more than one does."""
        if not several:
            return
        known = usage.objects_of_lineages(self._catalog, [lineage for lineage, _ in several])
        for lineage, shared in several:
            ours = {number for _step, number, _ranges in shared}
            staying = self._scale.layouts(_beside(known.get(lineage, []), ours))
            without: Overlay | None = None
            before, laid, seen = 0, Overlay(), Counter[bytes]()
            for step, _number, ranges in sorted(shared):
                seen[ranges] += 1
                if ranges in staying or seen[ranges] > 2:
                    continue  # nothing of it goes; nothing is new
                if without is None:
                    without = extents.overlaid(staying)
                laid.add(ranges)
                covered = laid.covered(2, without)
                found.content[step] += covered - before
                before = covered

    # --- folders -------------------------------------------------------------------

    def _count_folders(self, found: _Sum, going: Sequence[int], order: dict[int, int]) -> None:
        """Each snapshot has folders of its own; those of one version are equally large in all."""
        known = tuple(usage.existing(self._catalog))
        if known != self._folders_of:
            self._folders, self._folders_of = usage.folders(self._catalog), known
            self._folder_blocks.clear()
        for named in self._folders:
            shown = shown_in(named, going)
            if not shown:
                continue
            size = self._folder_blocks.get(named)
            if size is None:
                size = self._folder_blocks[named] = self._folder_size(named, shown)
            for snapshot in shown:
                found.folders[order[snapshot]] += size

    def _folder_size(self, named: usage.Named, shown: Sequence[int]) -> int:
        for snapshot in reversed(shown):
            with contextlib.suppress(PermissionError):
                st = self._places.stat(snapshot, named.dir, named.name)
                if st is not None:
                    return st.st_blocks * SECTOR
        return 0

    # --- deltas --------------------------------------------------------------------

    def _count_growth(self, found: _Sum, count: int) -> None:
        """What deltas over those that go become larger by, as `rebase` writes them anew."""
        if not found.step:
            return
        from mirrorback.engine.regrowth import Regrowth

        growing = Regrowth(self._history, found.step, found.blocks)
        before = 0
        for step in range(count):
            growth, rewritten = growing.after(step)
            found.growth[step] = growth - before
            found.rewritten[step] = rewritten
            before = growth

    # --- what is held ----------------------------------------------------------------

    def held(
        self,
        objects: Objects,
        told: Callable[[Stored, int], None] = lambda stored, size: None,
        least: int = 0,
    ) -> tuple[int, bool]:
        """Bytes that objects take on the drive together, whoever else does as well, and whether
        that is an estimate.  `told` hears for each what it adds, oldest of a lineage first.
        Of whole files below `least` bytes the size is taken, rounded up to blocks."""
        try:
            with drive_errors(), translated():
                return self._held(objects, told, least)
        finally:
            self._places.close()

    def _held(
        self, objects: Objects, told: Callable[[Stored, int], None], least: int
    ) -> tuple[int, bool]:
        known = usage.existing(self._catalog)
        total, estimated = 0, False
        details = usage.details(self._catalog, objects)
        for _lineage, group in groupby(details, key=lambda one: one.lineage):
            before, laid = 0, Overlay()
            seen: set[bytes] = set()
            for one in group:
                if one.size < least and one.drive == schema.WHOLE:
                    size, unsure = -(-one.size // BLOCK) * BLOCK, bool(one.size)
                else:
                    weight = self._scale.of_held(one, known)
                    size, unsure = weight.own, weight.estimated
                    if weight.shared and weight.shared not in seen:
                        seen.add(weight.shared)
                        laid.add(weight.shared)
                        covered = laid.covered(1)
                        size += covered - before
                        before = covered
                total += size
                estimated |= unsure
                told(one, size)
        return total, estimated


def _length(ranges: bytes) -> int:
    numbers = memoryview(ranges).cast("q")
    return sum(numbers[1::2]) - sum(numbers[::2])


def _beside(known: Sequence[int], ours: Collection[int]) -> list[int]:
    """Of a lineage's versions those that stay, next to one that goes: only a version's
    neighbours have their blocks from it, or it from them."""
    return [
        number
        for at, number in enumerate(known)
        if number not in ours
        and any(other in ours for other in (*known[max(0, at - 1) : at], *known[at + 1 : at + 2]))
    ]


class Scale:
    """Weighs objects by the inodes they lie on."""

    def __init__(self, history: History, places: Places) -> None:
        self._history = history
        self._places = places
        mount = system.mount_of(history.repo.path)
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
