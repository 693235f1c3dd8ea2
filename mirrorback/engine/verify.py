"""Verify: read back every object, and compare it with what was once recorded."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta

from mirrorback.engine import check_files
from mirrorback.engine.check_catalog import CatalogFindings
from mirrorback.engine.dated import Dated
from mirrorback.engine.events import Events
from mirrorback.engine.examine import Examiner
from mirrorback.engine.findings import Outcome
from mirrorback.engine.history import History
from mirrorback.engine.outlook import Outlook
from mirrorback.engine.read_back import ReadBack
from mirrorback.engine.remedy import Remedies
from mirrorback.engine.review import Hours, Review
from mirrorback.engine.verdict import Judge
from mirrorback.errors import Damaged
from mirrorback.model import Problem
from mirrorback.plan.likeness import Holds
from mirrorback.plan.verifying import ALL, Budget, Part, parse_part
from mirrorback.store import presence, system
from mirrorback.store.audit import CONFUSED
from mirrorback.store.catalog import translated
from mirrorback.store.repository import drive_errors
from mirrorback.store.verified import Memory

__all__ = ["ALL", "Outcome", "parse_part", "verify"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def verify(
    repository: str,
    now: datetime,
    events: Events,
    part: Part = ALL,
    *,
    clock: Callable[[], float] = time.monotonic,
    chance: random.Random | None = None,
    outcome: Outcome | None = None,
    repository_id: str | None = None,
) -> Iterator[Problem]:
    """Compare what is on the drive with what should be there, and read a part of it back; yield
    what is wrong.  The catalog is looked at in full each time.

    `now` is aware; `clock` gives seconds, for a budget; `chance` chooses a share.  What was
    done is put into `outcome`.  Nothing is yielded where all is well.  Raises MirrorbackError:
    Damaged where the catalog itself cannot be read, Refused where the repository is not that of
    `repository_id`.
    """
    began = clock()
    system.raise_descriptor_limit()
    outcome = Outcome() if outcome is None else outcome
    chance = random.Random() if chance is None else chance
    with drive_errors(), translated(), History.open(repository, now) as history:
        history.repo.require_id(repository_id)
        hours = Hours(clock, began + part.seconds if isinstance(part, Budget) else None)
        problems = _problems(history, now, events, part, hours, chance, outcome)
        with contextlib.closing(problems):
            for problem in problems:
                presence.require(history.repo)  # of a drive that is gone all would be damaged
                yield problem


def _problems(
    history: History,
    now: datetime,
    events: Events,
    part: Part,
    hours: Hours,
    chance: random.Random,
    outcome: Outcome,
) -> Generator[Problem, None, None]:
    findings = CatalogFindings(history)
    yield from findings.problems()
    if not findings.readable:
        outcome.remembered = False
        return
    try:
        yield from (fault.problem(history) for fault in check_files.check(history))
        if not history.snapshots():
            return
        with contextlib.closing(Dated(history)) as dated:
            yield from dated.problems
            memory = Memory(history.repo, (now - _EPOCH) // timedelta(microseconds=1) * 1000)
            memory.disabled = not findings.sound
            holds = dated.holds()
            judge = _judge(history, dated, holds, events)
            yield from Review(
                history, dated, judge, holds, part, memory, events, outcome, hours, chance
            ).run()
            outcome.remembered = not memory.lost
    except (Damaged, *CONFUSED):
        if findings.sound:
            raise
        yield findings.stopped()


def _judge(history: History, dated: Dated, holds: Holds, events: Events) -> Judge:
    def passed(count: int) -> None:
        events.advance(0, count)

    read_back = ReadBack(history, dated, holds, passed)
    examiner = Examiner(history, dated, read_back)
    remedies = Remedies(history, dated, history.source, passed)
    outlook = Outlook(history, examiner, remedies)
    return Judge(history, dated, read_back, examiner, outlook)
