"""Statistics: what takes the space, what deleting would free, and how it grows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mirrorback.engine.held import Held
from mirrorback.engine.history import History
from mirrorback.engine.scale import BLOCK
from mirrorback.engine.space import Space
from mirrorback.model import Snapshot
from mirrorback.plan import growth, ranges
from mirrorback.plan.growth import Added, Forecast, Period, periods
from mirrorback.store import occupied, probe, schema, tree, usage
from mirrorback.store.catalog import translated
from mirrorback.store.repository import CATALOG, drive_errors
from mirrorback.store.usage import Kept, Stored

__all__ = ["Added", "Forecast", "Heavy", "Overview", "Share", "Statistics"]
__all__ += ["Period", "Together", "Totals", "periods"]

MANY = 100_000  # objects: of more, small files are not looked at one by one
SMALL = 1 << 16  # bytes
MORE = 5  # times as many paths are weighed as are shown: sizes alone do not tell
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Share:
    """A snapshot's share of the drive, in bytes."""

    snapshot: Snapshot
    exclusive: int  # files that only it holds
    frees: int | None  # by its deletion; None for the mirror, which is never deleted
    exclusive_estimated: bool
    frees_estimated: bool


@dataclass(frozen=True, slots=True)
class Together:
    """What deleting some snapshots together frees."""

    snapshots: tuple[Snapshot, ...]
    frees: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class Heavy:
    """A path, with all its versions: their number, and the bytes that they take together."""

    path: bytes
    versions: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole repository, in bytes where nothing else is said."""

    snapshots: int  # how many
    versions: int  # of all paths that are no folders, how many
    logical: int  # the sizes of all snapshots together
    files: int  # on the drive
    folders: int  # on the drive
    catalog: int
    rest: dict[bytes, int]  # of what else is in `.mirrorback`, by name
    free: int  # on the drive, for this user
    estimated: bool

    @property
    def drive(self) -> int:
        """All that the repository takes on the drive."""
        return self.files + self.folders + self.catalog + sum(self.rest.values())

    @property
    def ratio(self) -> float | None:
        """How many times as much the snapshots would take as copies; None of nothing."""
        return self.logical / self.drive if self.logical and self.drive else None


@dataclass(frozen=True, slots=True)
class Overview:
    """All about the whole."""

    totals: Totals
    growth: list[Added]
    forecast: Forecast | None
    largest: list[Heavy]
    most_changed: list[Heavy]


class Statistics:
    """Questions about the space of an open repository, which is only read.

    Each raises DriveError and the catalog's errors."""

    def __init__(self, history: History, now: datetime) -> None:
        self._history = history
        self._now = now
        self._space = Space(history)
        self._held = Held(history)

    def chosen(self, words: Sequence[str]) -> list[Snapshot]:
        """The snapshots that words mean (see `plan.ranges`), oldest first; all where there are
        none.  Raises NotInHistory, UsageError."""
        known = self._history.snapshots()
        return ranges.chosen(words, known, self._now) if words else known

    def shares(self, snapshots: Sequence[Snapshot]) -> list[Share]:
        """The share of each."""
        older = [snapshot for snapshot in snapshots if not snapshot.current]
        freed = self._space.each([snapshot.id for snapshot in older])
        shares = [
            Share(snapshot, one.content, max(0, one.bytes), one.content_estimated, one.estimated)
            for snapshot, one in zip(older, freed, strict=True)
        ]
        for mirror in snapshots[len(older) :]:
            held = self._space.mirror(mirror.id)
            shares.append(Share(mirror, held.content, None, held.content_estimated, False))
        return shares

    def together(self, snapshots: Sequence[Snapshot]) -> Together:
        """What their deletion frees."""
        freed = self._space.freed([snapshot.id for snapshot in snapshots])
        return Together(tuple(snapshots), max(0, freed.bytes), freed.estimated)

    def overview(self, count: int) -> Overview:
        """All about the whole; of the paths so many."""
        with drive_errors(), translated():
            catalog = self._history.catalog
            known = self._history.refreshed()
            grown = _Growing(known)
            files, estimated = self._files(grown)
            folders = self._space.folders([snapshot.id for snapshot in known])
            rest = occupied.parts(self._history.repo)
            totals = Totals(
                snapshots=len(known),
                versions=usage.versions(catalog),
                logical=sum(snapshot.bytes for snapshot in known),
                files=files,
                folders=sum(folders),
                catalog=rest.pop(CATALOG, 0),
                rest=rest,
                free=probe.free_space(self._history.repo.fd)[0],
                estimated=estimated,
            )
            points = [
                Added(s.name, s.time, s.offset, added + folder)
                for s, added, folder in zip(known, grown.added(), folders, strict=True)
            ]
            now = (self._now - EPOCH) // timedelta(microseconds=1) * 1000
            heavy = [self._heavy(one) for one in usage.largest(catalog, MORE * count)]
            changed = [self._heavy(one) for one in usage.most_changed(catalog, count)]
            return Overview(
                totals,
                points,
                growth.forecast(points, now, totals.free),
                sorted(heavy, key=lambda one: (-one.bytes, one.path))[:count],
                changed,
            )

    def _files(self, grown: _Growing) -> tuple[int, bool]:
        """Bytes of all files and so on, and whether that is an estimate."""
        catalog = self._history.catalog
        least = SMALL if usage.objects(catalog) > MANY else 0
        small = usage.small(catalog, least, BLOCK) if least else []
        for first, size in small:
            grown.add(first, size)
        files, estimated = self._held.by(usage.everything(catalog, least), grown.told)
        return files + sum(size for _first, size in small), estimated or bool(small)

    def _heavy(self, one: Kept) -> Heavy:
        objects = usage.objects_at(self._history.catalog, one.dir, one.name)
        path = tree.join(self._history.folder_path(one.dir), one.name)
        return Heavy(path, one.versions, self._held.by(objects)[0])


class _Growing:
    """Finds out which snapshot has added what.

    A large file's version was whole until the next came: that one is taken to have added what
    the delta takes now."""

    def __init__(self, known: Sequence[Snapshot]) -> None:
        self._ids = [snapshot.id for snapshot in known]
        self._added = [0] * len(known)
        self._deltas: list[tuple[int, Stored, int]] = []
        self._large: dict[int, tuple[int, int, int]] = {}  # where it began, its size, and taken

    def told(self, one: Stored, taken: int) -> None:
        """An object adds so many bytes."""
        at = self.add(min(named.first for named in one.names), taken)
        if at is None:
            return
        if one.drive == schema.DELTA:
            self._deltas.append((at, one, taken))
        if one.drive == schema.DELTA or one.size >= SMALL:
            self._large[one.number] = at, one.size, taken

    def add(self, first: int, taken: int) -> int | None:
        """Something that first came in a snapshot (an id) adds so many bytes; at which place,
        None where only one that is leaving shows it."""
        at = bisect_left(self._ids, first)
        if at == len(self._ids):
            return None
        self._added[at] += taken
        return at

    def added(self) -> list[int]:
        """What each snapshot has added, oldest first."""
        bases = {one.number: one.base for _at, one, _taken in self._deltas}
        found = self._added.copy()
        for at, one, taken in self._deltas:
            end, steps = one.base, 0
            while end in bases and steps <= len(bases):
                end, steps = bases[end], steps + 1
            if one.base not in self._large or end not in self._large:
                continue
            _began, size, whole = self._large[end or 0]
            was = whole * one.size // size if size else whole  # while it was whole
            found[at] += was - taken
            found[self._large[one.base][0]] -= was - taken
        return found
