"""What `verify` looks at, and in which order: tasks of some directories each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mirrorback.engine.history import History
from mirrorback.engine.jobs import Job, Range
from mirrorback.model import Kind
from mirrorback.plan.verifying import Budget, Everything, Part, Sample, Share, Slice
from mirrorback.store import schema, standing, verified
from mirrorback.store.standing import Spanning, Wanted, WantedFolder

MOST_ROWS = 1000  # of the catalog, in one task
MOST_BYTES = 64 << 20  # to be read in one, but for a larger file
TOGETHER = 2000  # objects chosen in one go, to be read by directories
ALL_SNAPSHOTS: tuple[Range, ...] = ((0, None),)


@dataclass(frozen=True, slots=True)
class Task:
    """Directories to be looked at fast, and objects to be looked at closely."""

    jobs: Sequence[Job]
    closely: Sequence[int]


class Agenda:
    """Makes the tasks, all of them from the catalog, as they are wanted."""

    def __init__(
        self, history: History, part: Part, spanning: Spanning, chance: random.Random, now: int
    ) -> None:
        """`now`, in ns since 1970, is the time under which this run is remembered."""
        self._history = history
        self._catalog = history.catalog
        self._part = part
        self._spanning = spanning
        self._chance = chance
        self._now = now

    def expected(self, files: int, size: int) -> tuple[int | None, int | None]:
        """Of so many files and bytes in all, how many will be read, where that is known."""
        if isinstance(self._part, Everything):
            return files, size
        return None, None

    def tasks(self) -> Iterator[Task]:
        """What is to be done, one after the other."""
        if isinstance(self._part, Everything):
            yield from _together(self._all())
            return
        for chosen in self._chosen():
            yield from _together(self._of(chosen))

    # --- everything, by directories -------------------------------------------------------

    def _all(self) -> Iterator[_Piece]:
        last = 0
        while numbers := standing.directories(self._catalog, last, MOST_ROWS):
            last = numbers[-1]
            entries = standing.entries(self._catalog, numbers)
            folders = standing.folders(self._catalog, numbers)
            for number in numbers:
                yield from self._cut(number, entries[number], folders[number], ALL_SNAPSHOTS, None)

    # --- some objects ------------------------------------------------------------------------

    def _chosen(self) -> Iterator[list[int]]:
        """Objects to be looked at, some at a time."""
        if isinstance(self._part, Budget):
            yield from self._longest_unverified()
            return
        total = verified.count(self._catalog)
        sample = None
        if isinstance(self._part, Share):
            sample = Sample(self._part.count(total), total, self._chance)
        chosen: list[int] = []
        last = 0
        while numbers := verified.after(self._catalog, last, TOGETHER):
            last = numbers[-1]
            if sample is not None:
                chosen += [number for number in numbers if sample.takes()]
            elif isinstance(self._part, Slice):
                chosen += filter(self._part.holds, numbers)
            if len(chosen) >= TOGETHER:
                yield chosen
                chosen = []
        if chosen:
            yield chosen

    def _longest_unverified(self) -> Iterator[list[int]]:
        """All that was never read back, then the rest, the oldest first; not what this run
        has remembered itself."""
        last = 0
        while numbers := verified.never(self._catalog, last, TOGETHER):
            yield numbers
            last = numbers[-1]
        time = verified.next_time(self._catalog, None)
        while time is not None and time < self._now:
            last = 0
            while numbers := verified.at(self._catalog, time, last, TOGETHER):
                yield numbers
                last = numbers[-1]
            time = verified.next_time(self._catalog, time)

    def _of(self, objects: list[int]) -> Iterator[_Piece]:
        """What is to be done with some objects: of folders the listing, of all else the content."""
        listed: dict[int, list[Range]] = {}
        for _object, directory, first, end in standing.folders_of(self._catalog, objects):
            listed.setdefault(directory, []).append((first, end))
        homes: dict[int, tuple[int, Wanted]] = {}
        for directory, row in standing.places(self._catalog, objects):
            known = homes.get(row.object)
            if row.kind != Kind.DIRECTORY and (known is None or _newer(row, known[1])):
                homes[row.object] = (directory, row)
        reading: dict[int, list[Wanted]] = {}
        for directory, row in homes.values():
            reading.setdefault(directory, []).append(row)
        numbers = sorted(listed.keys() | reading.keys())
        folders = standing.folders(self._catalog, numbers)
        for number in numbers:
            rows = reading.get(number, [])
            read = frozenset(row.object for row in rows)
            if number in listed:
                rows = standing.entries(self._catalog, [number])[number]
            yield from self._cut(number, rows, folders[number], tuple(listed.get(number, ())), read)

    # --- one directory ---------------------------------------------------------------------

    def _cut(
        self,
        directory: int,
        rows: list[Wanted],
        folder: list[WantedFolder],
        listed: tuple[Range, ...],
        chosen: frozenset[int] | None,
    ) -> Iterator[_Piece]:
        """What is to be done in one directory: its listing, and reading what of it is chosen
        (None is all), not too much at once."""
        if not rows and not folder:
            return
        path = self._catalog_path(directory)
        reading: dict[int, Wanted] = {}
        closely: list[int] = []
        for row in rows:
            if row.kind == Kind.DIRECTORY or row.drive == schema.ABSENT or row.object in reading:
                continue
            if row.object not in chosen if chosen is not None else not self._first_time(row):
                continue
            reading[row.object] = row
        for number in [n for n, row in reading.items() if row.drive != schema.WHOLE]:
            del reading[number]
            closely.append(number)
        parts = list(_parts(reading)) or [frozenset[int]()]
        spanning = frozenset(row.object for row in rows if row.object in self._spanning)
        sizes = [sum(reading[number].size for number in part) for part in parts]
        yield _Piece(Job(path, rows, folder, listed, parts[0], spanning), closely, sizes[0])
        for part, size in zip(parts[1:], sizes[1:], strict=True):
            some = [row for row in rows if row.object in part]
            yield _Piece(Job(path, some, folder, (), part, frozenset()), [], size)

    def _catalog_path(self, directory: int) -> bytes:
        with self._catalog.lock:
            return self._history.folder_path(directory)

    def _first_time(self, row: Wanted) -> bool:
        return self._spanning.first_time(row.object)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is to be done in one directory, at once."""

    job: Job
    closely: Sequence[int]
    size: int  # bytes to be read


def _parts(reading: dict[int, Wanted]) -> Iterator[frozenset[int]]:
    """The objects in parts of a size that can be read at once, in the order in which they
    were made: on a disk that is near the order in which they lie."""
    part: list[int] = []
    size = 0
    for number in sorted(reading):
        if part and (size + reading[number].size > MOST_BYTES or len(part) >= MOST_ROWS):
            yield frozenset(part)
            part, size = [], 0
        part.append(number)
        size += reading[number].size
    if part:
        yield frozenset(part)


def _together(pieces: Iterable[_Piece]) -> Iterator[Task]:
    """Several directories in a task, as far as that is not much."""
    jobs: list[Job] = []
    closely: list[int] = []
    rows = size = 0
    for piece in pieces:
        if jobs and (rows + len(piece.job.rows) > MOST_ROWS or size + piece.size > MOST_BYTES):
            yield Task(jobs, closely)
            jobs, closely, rows, size = [], [], 0, 0
        jobs.append(piece.job)
        closely += piece.closely
        rows += len(piece.job.rows)
        size += piece.size
    if jobs:
        yield Task(jobs, closely)


def _newer(one: Wanted, other: Wanted) -> bool:
    """Whether an entry stands in newer snapshots than another."""
    ends = [(row.last is None, row.last or 0, row.first) for row in (one, other)]
    return ends[0] > ends[1]
