"""The work of `verify`: what comes next, who looks at it, what came of it.

One thread asks the catalog and makes tasks; a few take them, each with a helper process where
there is much to do; the one who asked for the results remembers them.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, Full, Queue

from mirrorback.engine.agenda import Agenda, Task
from mirrorback.engine.dated import Dated
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.history import History
from mirrorback.engine.structure import Checker, Found, Job
from mirrorback.engine.structure_helper import Helper
from mirrorback.engine.verdict import Judge
from mirrorback.errors import Damaged
from mirrorback.model import Problem, Snapshot
from mirrorback.plan.likeness import Holds
from mirrorback.plan.verifying import Part
from mirrorback.store import standing, system, tree
from mirrorback.store.catalog import translated
from mirrorback.store.repository import DELTA_SUFFIX, drive_errors
from mirrorback.store.verified import Memory

THREADS = 2  # at least, where the drive has no head to move
MOST_THREADS = 4
WORTH_HELPERS = (2000, 256 << 20)  # objects, or bytes, from which on processes are started
REMEMBER_EVERY = 20_000  # objects
REMEMBER_AFTER_S = 30  # or after so many seconds
MOST_INODES = 200_000  # of those with unknown links, kept in memory to be compared
FOREIGN = "is not in the backup: somebody has put it there"
# What desktops and file systems leave wherever they are: nobody has put it there.
DROPPINGS = frozenset(
    {
        ".DS_Store",
        ".Spotlight-V100",
        ".Trashes",
        ".TemporaryItems",
        ".fseventsd",
        ".directory",
        ".localized",
        "Thumbs.db",
        "desktop.ini",
        "System Volume Information",
        "$RECYCLE.BIN",
        "lost+found",
    }
)
DROPPING_PREFIXES = ("._", ".Trash-", ".fuse_hidden", ".nfs0")


@dataclass(slots=True)
class Outcome:
    """What was done: for whoever wants to tell it at the end."""

    files: int = 0  # objects that are no folders
    total: int = 0  # of them there are
    complete: bool = True  # all that was asked for was read
    remembered: bool = True
    droppings: int = 0  # left by desktops, in the folders
    example: bytes = b""  # one of them


@dataclass(frozen=True, slots=True)
class Hours:
    """Until when, if that is limited, by a clock that gives seconds."""

    clock: Callable[[], float]
    until: float | None

    def over(self) -> bool:
        """Whether it is time to end."""
        return self.until is not None and self.clock() >= self.until


@dataclass(slots=True)
class _Result:
    """What came of a task."""

    problems: list[Problem] = field(default_factory=list)
    results: dict[int, str | None] = field(default_factory=dict)


class Review:
    """Looks at a part of a repository."""

    def __init__(
        self,
        history: History,
        dated: Dated,
        judge: Judge,
        holds: Holds,
        part: Part,
        memory: Memory,
        events: Events,
        outcome: Outcome,
        hours: Hours,
        chance: random.Random,
    ) -> None:
        """`chance` chooses a share."""
        self._history = history
        self._dated = dated
        self._holds = holds
        self._plain = dated.plain()
        self._memory = memory
        self._events = events
        self._outcome = outcome
        self._hours = hours
        self._judge = judge
        self._spanning = standing.Spanning(history.catalog)
        self._agenda = Agenda(history, part, self._spanning, chance, memory.time)
        self._todo: Queue[Task | None] = Queue(maxsize=8)
        self._found: Queue[_Result | BaseException | None] = Queue(maxsize=256)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._examined: set[int] = set()
        self._wrong_folders: set[int] = set()
        self._inodes: dict[int, int] = {}  # of objects with links nobody accounted for so far

    def run(self) -> Iterator[Problem]:
        """Yield what is wrong, as it is found; remember what was read."""
        files, size = standing.totals(self._history.catalog)
        self._outcome.total = files
        expected = self._agenda.expected(files, size)
        self._events.phase(Phase.VERIFY, *expected)
        count = self._crew()
        helpers = files >= WORTH_HELPERS[0] or size >= WORTH_HELPERS[1]
        crew = [
            threading.Thread(target=self._work, args=(helpers,), daemon=True) for _ in range(count)
        ]
        feeder = threading.Thread(target=self._feed, args=(count,), daemon=True)
        for thread in (*crew, feeder):
            thread.start()
        try:
            yield from self._collect(count)
        finally:
            self._stop.set()
            self._join([feeder, *crew])
            self._memory.close()

    def _crew(self) -> int:
        if system.is_rotational(self._history.repository):
            return 1
        return max(THREADS, min(MOST_THREADS, os.cpu_count() or THREADS))

    def _collect(self, count: int) -> Iterator[Problem]:
        ended = 0
        written = self._hours.clock()
        while ended < count:
            found = self._found.get()
            if found is None:
                ended += 1
            elif isinstance(found, BaseException):
                raise found
            else:
                yield from found.problems
                self._memory.note(found.results)
                late = self._hours.clock() - written >= REMEMBER_AFTER_S
                if late or len(self._memory) >= REMEMBER_EVERY:
                    self._memory.flush()
                    written = self._hours.clock()

    def _join(self, threads: list[threading.Thread]) -> None:
        """Let all end, whatever they are waiting for."""
        while any(thread.is_alive() for thread in threads):
            for queue in (self._todo, self._found):
                with contextlib.suppress(Empty):
                    queue.get_nowait()
            with contextlib.suppress(Full):
                self._todo.put_nowait(None)
            for thread in threads:
                thread.join(0.01)

    def _over(self) -> bool:
        return self._stop.is_set() or self._hours.over()

    # --- the threads -----------------------------------------------------------------

    def _feed(self, readers: int) -> None:
        try:
            with translated():
                for task in self._agenda.tasks():
                    if self._over():
                        self._outcome.complete = False
                        break
                    self._todo.put(task)
        except BaseException as error:
            self._found.put(self._translated(error))
        for _ in range(readers):
            self._todo.put(None)

    def _work(self, helpers: bool) -> None:
        hand: Helper | Checker | None = None
        try:
            with translated(), drive_errors():
                while (task := self._todo.get()) is not None:
                    if self._over():
                        self._outcome.complete = False
                        continue
                    if hand is None:
                        hand = self._hand(helpers)
                    self._found.put(self._do(task, hand))
        except BaseException as error:
            self._found.put(self._translated(error))
        finally:
            if isinstance(hand, Helper):
                hand.close()
            self._found.put(None)

    def _translated(self, error: BaseException) -> BaseException:
        """An error of ours for what a damaged catalog, which has been told, may lead to."""
        if self._memory.disabled and isinstance(error, (ValueError, TypeError, RuntimeError)):
            return Damaged(
                "the catalog is too damaged to compare the folders with it; `mirrorback rebuild`"
                " makes a new one from the folders"
            )
        return error

    def _hand(self, helpers: bool) -> Helper | Checker:
        kind = Helper if helpers else Checker
        return kind(self._history.repo.fd, self._dated.tops, self._holds, self._plain)

    # --- a task ------------------------------------------------------------------------

    def _do(self, task: Task, hand: Helper | Checker) -> _Result:
        result = _Result()
        for job, folder, found in self._checked(task, hand):
            self._take(job, folder, found, result)
        for number in task.closely:
            if self._over():
                self._outcome.complete = False
                break
            self._examine(number, result)
            self._count(1)
        return result

    def _checked(
        self, task: Task, hand: Helper | Checker
    ) -> Iterator[tuple[Job, dict[int, list[Snapshot]], Found]]:
        """Each job with what was found, and the snapshots that still were there then."""
        jobs = task.jobs
        while jobs:
            snapshots = self._snapshots()
            ids = [snapshot.id for snapshot in snapshots]
            answers = self._ask(hand, ids, jobs)
            if any(map(_anything, answers)) and self._snapshots() != snapshots:
                continue  # another run has published or removed one meanwhile
            for job, found in zip(jobs, answers, strict=True):
                yield job, self._shown(job, snapshots), found
            return

    def _ask(self, hand: Helper | Checker, ids: list[int], jobs: Sequence[Job]) -> list[Found]:
        if isinstance(hand, Helper):
            return hand.check(ids, jobs, self._passed)
        return [hand.check(ids, job, self._passed) for job in jobs]

    def _snapshots(self) -> list[Snapshot]:
        """Those whose folders are there, the newest first."""
        known = self._dated.tops
        return [s for s in reversed(self._history.refreshed()) if s.id in known]

    @staticmethod
    def _shown(job: Job, snapshots: list[Snapshot]) -> dict[int, list[Snapshot]]:
        """By the object that a directory is: the snapshots in which it was listed."""
        found: dict[int, list[Snapshot]] = {}
        for row in job.folder:
            for snapshot in snapshots:
                if row.first <= snapshot.id and (row.last is None or row.last >= snapshot.id):
                    found.setdefault(row.object, []).append(snapshot)
        return found

    def _take(
        self, job: Job, shown: dict[int, list[Snapshot]], found: Found, result: _Result
    ) -> None:
        doubtful = set(found.doubtful)
        doubtful.update(*found.shared)
        with self._lock:
            doubtful |= self._compared(found.inodes)
        for number in job.read - doubtful:
            if number not in self._examined:
                result.results[number] = None
        self._count(len(job.read))
        for number in sorted(doubtful):
            self._examine(number, result)
        by_id = {s.id: s for snapshots in shown.values() for s in snapshots}
        if job.listed:
            self._folders(job, shown, found, result, by_id)
        self._foreign(job, found, result, by_id)

    def _compared(self, inodes: Sequence[tuple[int, int, bool]]) -> set[int]:
        """Objects whose inodes are not those by which other directories know them, or are
        another's."""
        differing = set()
        for number, inode, more in inodes:
            if not self._spanning.agrees(number, inode):
                differing.add(number)
            if len(self._inodes) < MOST_INODES or inode in self._inodes:
                other = self._inodes.setdefault(inode, number)
                if other != number and more:
                    differing.update((other, number))
        return differing

    def _examine(self, number: int, result: _Result) -> None:
        with self._lock:
            if number in self._examined:
                return
            self._examined.add(number)
        try:
            verdict = self._judge.examine(number)
        except Damaged:
            if self._memory.disabled:
                return  # the catalog's rows, as has been told
            raise
        result.problems += verdict.problems
        if verdict.seen:
            result.results[number] = verdict.problem

    def _folders(
        self,
        job: Job,
        shown: dict[int, list[Snapshot]],
        found: Found,
        result: _Result,
        by_id: dict[int, Snapshot],
    ) -> None:
        """The directory itself."""
        wrong: dict[str, list[int]] = {}
        for number, snapshot in found.folders:
            words = self._judge.folder(number, job.path, by_id[snapshot])
            if words is not None:
                wrong.setdefault(words, []).append(snapshot)
                result.results[number] = words
        with self._lock:  # one that was moved is in several places
            self._wrong_folders.update(result.results.keys() & shown.keys())
            for number in shown.keys() - self._wrong_folders:
                result.results[number] = None
        for words, snapshots in wrong.items():
            newest = by_id[max(snapshots)]
            names = tuple(by_id[number].name for number in sorted(snapshots))
            where = self._dated.location(newest, job.path)
            result.problems.append(Problem(job.path, names, words, where, True))

    def _foreign(self, job: Job, found: Found, result: _Result, by_id: dict[int, Snapshot]) -> None:
        """Names that should not be there."""
        names: dict[bytes, list[int]] = {}
        for name, snapshot in found.foreign:
            names.setdefault(name, []).append(snapshot)
        changing = self._changing(job) if names else frozenset()
        for name, snapshots in names.items():
            path = tree.join(job.path, name)
            if name in changing:
                continue
            if _is_dropping(name):
                self._outcome.droppings += 1
                self._outcome.example = path
                continue
            where = self._dated.location(by_id[max(snapshots)], path)
            shown = tuple(by_id[number].name for number in sorted(snapshots))
            result.problems.append(Problem(path, shown, FOREIGN, where, False))

    def _changing(self, job: Job) -> frozenset[bytes]:
        """The names, old and new, of large files that are just getting another form."""
        objects = standing.unsettled(self._history.catalog)
        names = {row.name for row in job.rows if row.object in objects}
        return frozenset(names | {name + DELTA_SUFFIX for name in names})

    # --- progress ----------------------------------------------------------------------

    def _passed(self, count: int) -> None:
        self._events.advance(0, count)

    def _count(self, files: int) -> None:
        with self._lock:
            self._outcome.files += files
        self._events.advance(files)


def _anything(found: Found) -> bool:
    return bool(found.doubtful or found.foreign or found.folders)


def _is_dropping(name: bytes) -> bool:
    text = os.fsdecode(name)
    return text in DROPPINGS or text.startswith(DROPPING_PREFIXES)
