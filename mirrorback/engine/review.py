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
from dataclasses import dataclass
from queue import Empty, Full, Queue

from mirrorback.engine.agenda import Agenda, Task
from mirrorback.engine.dated import Dated
from mirrorback.engine.events import Events, Phase
from mirrorback.engine.findings import Findings, Outcome, Result
from mirrorback.engine.history import History
from mirrorback.engine.jobs import Found, Job
from mirrorback.engine.structure import Checker
from mirrorback.engine.structure_helper import Helper
from mirrorback.engine.verdict import Judge
from mirrorback.errors import Damaged
from mirrorback.model import Problem, Snapshot
from mirrorback.plan.likeness import Holds
from mirrorback.plan.verifying import Part
from mirrorback.store import standing, system
from mirrorback.store.catalog import translated
from mirrorback.store.repository import drive_errors
from mirrorback.store.verified import Memory

THREADS = 2  # at least, where the drive has no head to move
MOST_THREADS = 4
WORTH_HELPERS = (2000, 256 << 20)  # objects, or bytes, from which on processes are started
REMEMBER_EVERY = 20_000  # objects
REMEMBER_AFTER_S = 30  # or after so many seconds
MOST_INODES = 200_000  # of those with unknown links, kept in memory to be compared


@dataclass(frozen=True, slots=True)
class Hours:
    """Until when, if that is limited, by a clock that gives seconds."""

    clock: Callable[[], float]
    until: float | None

    def over(self) -> bool:
        """Whether it is time to end."""
        return self.until is not None and self.clock() >= self.until


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
        self._spanning = standing.Spanning(history.catalog)
        self._agenda = Agenda(history, part, self._spanning, chance, memory.time)
        self._todo: Queue[Task | None] = Queue(maxsize=8)
        self._found: Queue[Result | BaseException | None] = Queue(maxsize=256)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._findings = Findings(history, dated, judge, self._spanning, outcome)
        self._findings.tolerant = memory.disabled

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
                self._memory.note(found.results, found.digests)
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

    def _do(self, task: Task, hand: Helper | Checker) -> Result:
        result = Result()
        for job, folder, found in self._checked(task, hand):
            self._findings.take(job, folder, found, result)
            self._count(len(job.read))
        known = self._chains(task.closely)
        for number in task.closely:
            if self._over():
                self._outcome.complete = False
                break
            self._findings.examine(number, result, known.get(number))
            self._count(1)
        return result

    def _chains(self, numbers: Sequence[int]) -> dict[int, bool]:
        if len(numbers) < 2:
            return {}
        from mirrorback.engine.chains import Chains

        return Chains(self._history, self._passed, self._over).read(numbers)

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

    # --- progress ----------------------------------------------------------------------

    def _passed(self, count: int) -> None:
        self._events.advance(0, count)

    def _count(self, files: int) -> None:
        with self._lock:
            self._outcome.files += files
        self._events.advance(files)


def _anything(found: Found) -> bool:
    return bool(found.doubtful or found.undressed or found.foreign or found.folders)
