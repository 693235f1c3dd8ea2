"""What comes of the work of `verify`: from what was seen to problems, and what is remembered."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from mirrorback.engine.dated import Dated
from mirrorback.engine.history import History
from mirrorback.engine.jobs import Found, Job
from mirrorback.engine.outlook import undressed_from
from mirrorback.engine.verdict import Judge
from mirrorback.errors import Damaged
from mirrorback.model import Kind, Problem, Snapshot
from mirrorback.store import standing, tree
from mirrorback.store.repository import DELTA_SUFFIX

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


@dataclass(slots=True)
class Result:
    """What came of a task."""

    problems: list[Problem] = field(default_factory=list)
    results: dict[int, str | None] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)  # that nobody knew


class Findings:
    """Takes what was seen.  For several threads."""

    def __init__(
        self,
        history: History,
        dated: Dated,
        judge: Judge,
        spanning: standing.Spanning,
        outcome: Outcome,
    ) -> None:
        self._history = history
        self._dated = dated
        self._judge = judge
        self._spanning = spanning
        self._outcome = outcome
        self.tolerant = False  # of a catalog whose damage has been told
        self._lock = threading.Lock()
        self._examined: set[int] = set()
        self._wrong_folders: set[int] = set()
        self._inodes: dict[int, int] = {}  # of objects with links nobody accounted for so far

    def take(
        self, job: Job, shown: dict[int, list[Snapshot]], found: Found, result: Result
    ) -> None:
        """Take what was found in one directory, `shown` by the object that it is itself in
        these snapshots.  Raises the catalog's errors."""
        doubtful = set(found.doubtful)
        doubtful.update(*found.shared)
        with self._lock:
            doubtful |= self._compared(found.inodes)
        undressed = [one for one in found.undressed if one[0] not in doubtful]
        for number in job.read - doubtful:
            if number not in self._examined:
                result.results[number] = None
        result.digests.update(one for one in found.learnt if one[0] not in doubtful)
        for number in sorted(doubtful):
            self.examine(number, result)
        by_id = {s.id: s for snapshots in shown.values() for s in snapshots}
        if undressed:
            self._undressed(job, dict(undressed), result, by_id)
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

    def examine(self, number: int, result: Result, comes_to: bool | None = None) -> None:
        """Look closely at an object, once; `comes_to` as for `Judge.examine`."""
        with self._lock:
            if number in self._examined:
                return
            self._examined.add(number)
        try:
            verdict = self._judge.examine(number, comes_to)
        except Damaged:
            if self.tolerant:
                return  # the catalog's rows, as has been told
            raise
        result.problems += verdict.problems
        if verdict.seen:
            result.results[number] = verdict.problem

    def _undressed(
        self, job: Job, words: dict[int, str], result: Result, by_id: dict[int, Snapshot]
    ) -> None:
        """Objects that are all they should be but for metadata, wherever they are shown; there
        may be a great many, and no closer look tells more of them."""
        names: dict[tuple[bytes, int], list[int]] = {}
        repairable: dict[int, bool] = {}
        for row in job.rows:
            if row.object in words:
                snapshots = [n for n in by_id if row.first <= n and (row.last or n) >= n]
                names.setdefault((row.name, row.object), []).extend(snapshots)
                origin = undressed_from(Kind(row.kind), provable=True)  # nobody else has a name
                repairable[row.object] = origin is not None
        with self._lock:
            fresh = words.keys() - self._examined
            self._examined |= fresh
        for (name, number), snapshots in names.items():
            if number not in fresh or not snapshots:
                continue
            path = tree.join(job.path, name)
            shown = tuple(by_id[n].name for n in sorted(snapshots))
            where = self._dated.location(by_id[max(snapshots)], path)
            result.problems.append(Problem(path, shown, words[number], where, repairable[number]))
            result.results[number] = words[number]

    def _folders(
        self,
        job: Job,
        shown: dict[int, list[Snapshot]],
        found: Found,
        result: Result,
        by_id: dict[int, Snapshot],
    ) -> None:
        """The directory itself."""
        wrong: dict[str, list[int]] = {}
        bad: set[int] = set()
        for number, snapshot in found.folders:
            words = self._judge.folder(number, job.path, by_id[snapshot])
            if words is not None:
                wrong.setdefault(words, []).append(snapshot)
                result.results[number] = words
                bad.add(number)
        with self._lock:  # one that was moved is in several places
            self._wrong_folders |= bad
            for number in shown.keys() - self._wrong_folders:
                result.results[number] = None
        for words, snapshots in wrong.items():
            newest = by_id[max(snapshots)]
            names = tuple(by_id[number].name for number in sorted(snapshots))
            where = self._dated.location(newest, job.path)
            result.problems.append(Problem(job.path, names, words, where, True))

    def _foreign(self, job: Job, found: Found, result: Result, by_id: dict[int, Snapshot]) -> None:
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


def _is_dropping(name: bytes) -> bool:
    text = os.fsdecode(name)
    return text in DROPPINGS or text.startswith(DROPPING_PREFIXES)
