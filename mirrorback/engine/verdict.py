"""What `verify` has to say of an object that was looked at closely."""

from __future__ import annotations

from dataclasses import dataclass, field

from mirrorback.engine.dated import Dated
from mirrorback.engine.examine import Examined, Examiner
from mirrorback.engine.faults import Fault, Harm
from mirrorback.engine.history import History
from mirrorback.engine.outlook import Outlook
from mirrorback.engine.read_back import ReadBack, Shown
from mirrorback.model import Problem, Snapshot
from mirrorback.store import mend, past, tree


@dataclass(slots=True)
class Verdict:
    """What came of an object; `problem` is what is remembered of it, if it was `seen`."""

    problems: list[Problem] = field(default_factory=list)
    problem: str | None = None
    seen: bool = True


class Judge:
    """Passes verdicts.  For several threads."""

    def __init__(
        self,
        history: History,
        dated: Dated,
        read_back: ReadBack,
        examiner: Examiner,
        outlook: Outlook,
    ) -> None:
        self._history = history
        self._dated = dated
        self._read_back = read_back
        self._examiner = examiner
        self._outlook = outlook

    def examine(self, number: int, comes_to: bool | None = None) -> Verdict:
        """Look at all names of an object that the drive should hold, and read each of its
        inodes; `comes_to` as for `Examiner.look`.  Raises the catalog's errors."""
        found = self._examiner.look(number, comes_to=comes_to)
        if found is None or not found.names:
            return Verdict(seen=False)  # perhaps only folders show it that are gone
        wrong = found.wrong()
        if not wrong:
            return Verdict()
        words = "; ".join(dict.fromkeys(fault.words for _shown, fault in wrong))
        if found.sound is not None:  # else what is missing with its folder is lost as well
            wrong = [(shown, fault) for shown, fault in wrong if not shown.silent]
        return Verdict(self._problems(found, wrong), words)

    def folder(self, number: int, path: bytes, snapshot: Snapshot) -> str | None:
        """What is wrong with a directory itself, in one snapshot.  One that is missing with
        the directory above is not told."""
        catalog = self._history.catalog
        with catalog.lock:
            rows = [r for r in past.showing(catalog, number) if r.shown_in(snapshot.id)]
        fault = self._read_back.folder_fault(rows[0], path, snapshot) if rows else None
        if fault is None:
            return None
        if fault.harm is Harm.MISSING and path:
            with self._dated.opened(snapshot, tree.parent_of(path)[0]) as above:
                if above is None:
                    return None
        return fault.words

    def _problems(self, found: Examined, wrong: list[tuple[Shown, Fault]]) -> list[Problem]:
        """A line for each path and fault, with all snapshots."""
        lines: dict[tuple[bytes, str], list[Shown]] = {}
        for shown, fault in wrong:
            lines.setdefault((shown.source_path, fault.words), []).append(shown)
        if not lines:
            return []
        repairable = self._outlook.of(found) is not None
        return [
            self._problem(path, words, shown, repairable) for (path, words), shown in lines.items()
        ]

    def _problem(self, path: bytes, words: str, shown: list[Shown], repairable: bool) -> Problem:
        names = {one.snapshot.id: one.snapshot.name for one in shown}
        newest = shown[0]
        where = self._dated.location(newest.snapshot, newest.folder)
        name = mend.drive_name(newest.row)
        return Problem(
            path=path,
            snapshots=tuple(names[number] for number in sorted(names)),
            problem=words,
            location=where + b"/" + name if name else where,
            repairable=repairable,
        )
