"""Space: what the drive has more when snapshots go, by what their files really take of it.

Counted are the blocks of each inode of which all names go, once, without those that an inode
that stays lies on too; the folders of the snapshots; less what deltas grow by that cannot do
without them.  The catalog says what goes, and only that is looked at on the drive.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import NamedTuple

from mirrorback.engine.history import History
from mirrorback.engine.places import Places, shown_in, span_in
from mirrorback.engine.scale import SECTOR, Scale
from mirrorback.store import extents, usage
from mirrorback.store.catalog import translated
from mirrorback.store.repository import drive_errors
from mirrorback.store.usage import Named


class Freed(NamedTuple):
    """What a deletion frees: bytes on the drive."""

    bytes: int  # all of it
    content: int = 0  # of the files and so on that nothing else holds
    folders: int = 0  # of the snapshots' own folders
    growth: int = 0  # of deltas that have to be written anew: not freed
    estimated: bool = False  # something in it is not known exactly
    content_estimated: bool = False  # something in `content` is not


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


@dataclass
class _Known:
    """What of the catalog is asked for again and again, as long as nobody writes to it."""

    existing: list[int]  # snapshots, oldest first
    leaving: list[int]
    deltas: dict[int, tuple[int, int]]
    split: list[int]
    folders: dict[int, int] = field(default_factory=dict)  # of a snapshot: bytes of its folders


class Space:
    """The space of an open repository, as it is when asked.  For one thread."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._catalog = history.catalog
        self._places = Places(history)
        self._scale = Scale(history, self._places)
        self._last: _Known | None = None
        self._last_at: tuple[int, int] | None = None

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
        """Bytes of the folders of each of some snapshots (ids).  Raises likewise."""
        try:
            with drive_errors(), translated():
                return self._folder_bytes(self._known(), snapshots)
        finally:
            self._places.close()

    def each(self, snapshots: Sequence[int]) -> list[Freed]:
        """What the deletion of each of some snapshots (ids) frees, when all others stay.  Raises
        likewise."""
        self.folders(snapshots)  # all at once
        return [self.freed([snapshot]) for snapshot in snapshots]

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
        known = self._known()
        order: dict[int, int] = {}
        for number, step in enumerate(steps):
            order.update({snapshot: number for snapshot in step if snapshot not in order})
        going = [snapshot for snapshot in known.existing if snapshot in order]
        found = _Sum.empty(len(steps))
        if going:
            self._count_objects(found, known, going, order)
            if folders:
                for snapshot, size in zip(going, self._folder_bytes(known, going), strict=True):
                    found.folders[order[snapshot]] += size
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

    def _known(self) -> _Known:
        stamp = self._catalog.stamp()
        if self._last is None or stamp is None or stamp != self._last_at:
            catalog = self._catalog
            self._last = _Known(
                usage.existing(catalog),
                usage.leaving(catalog),
                usage.deltas(catalog),
                usage.split(catalog),
            )
            self._last_at = stamp
        return self._last

    # --- objects -------------------------------------------------------------------

    def _count_objects(
        self, found: _Sum, known: _Known, going: Sequence[int], order: dict[int, int]
    ) -> None:
        leaving, deltas = known.leaving, known.deltas
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
        if known.split:
            self._count_split(found, known, going, order, set(objects.numbers))
        self._count_shared(found, several)

    def _count_split(
        self,
        found: _Sum,
        known: _Known,
        going: Sequence[int],
        order: dict[int, int],
        counted: Collection[int],
    ) -> None:
        """Of objects that lie on several inodes some inodes may go, and others stay."""
        numbers = [number for number in known.split if number not in counted]
        for one in usage.details(self._catalog, usage.numbered(self._catalog, numbers)):
            for step, size in self._scale.inodes(one, going, known.leaving, order):
                found.content[step] += size

    def _count_shared(
        self, found: _Sum, several: Sequence[tuple[int, list[tuple[int, int, bytes]]]]
    ) -> None:
        """Add the ranges that only versions lie on which go, more than one of them: with the
        last of them."""
        if not several:
            return
        known = usage.objects_of_lineages(self._catalog, [lineage for lineage, _ in several])
        for lineage, shared in several:
            ours = {number for _step, number, _ranges in shared}
            staying = self._scale.layouts(_beside(known.get(lineage, []), ours))
            going = [(step, ranges) for step, _number, ranges in shared if ranges not in staying]
            counted = Counter(ranges for _step, ranges in going)
            all_that_go = extents.overlaid(
                ranges for ranges, times in counted.items() for _ in range(min(times, 2))
            )
            without, seen = extents.overlaid(staying), set[bytes]()
            free = all_that_go.covered(2, without)
            last_first = sorted(going, key=lambda one: -one[0])
            for step, group in groupby(last_first, key=lambda one: one[0]):
                new = {ranges for _step, ranges in group} - seen
                seen |= new
                for ranges in new:
                    without.add(ranges)
                before = all_that_go.covered(2, without)  # what is free without this step
                found.content[step] += free - before
                free = before

    # --- folders -------------------------------------------------------------------

    def _folder_bytes(self, known: _Known, snapshots: Sequence[int]) -> list[int]:
        """Each snapshot has folders of its own; those of one version are equally large in all."""
        new = {*snapshots} - known.folders.keys()
        known.folders.update(dict.fromkeys(new, 0))
        asked = sorted(filter(self._places.has, new))
        if asked:
            change = [0] * (len(asked) + 1)
            for named in usage.folders(self._catalog):
                begin, end = span_in(named, asked)
                if begin < end:
                    size = self._folder_size(named, asked[begin:end])
                    change[begin] += size
                    change[end] -= size
            known.folders.update(zip(asked, accumulate(change), strict=False))
        return [known.folders[snapshot] for snapshot in snapshots]

    def _folder_size(self, named: Named, shown: Sequence[int]) -> int:
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
