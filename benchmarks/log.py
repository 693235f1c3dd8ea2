"""Runs commands one after the other, each on disks at rest, and keeps what was measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from drive import written
from measure import Command, Figures, run, sync


@dataclass(frozen=True)
class Run:
    """One run of one tool; `kind` is what limits go by."""

    night: str
    label: str
    kind: str
    round: int
    figures: Figures
    written: int | None  # bytes, by the drive's device with the sync; None where that is not known


@dataclass(frozen=True)
class Figure:
    """What was found in each round, that is no time; the median should not be above `limit`."""

    night: str
    what: str
    values: Sequence[float]
    limit: float
    unit: str

    @property
    def value(self) -> float:
        """The one that counts."""
        return median(self.values)


class Log:
    """What was measured: `runs`, `figures`, and in `failed` the label of a tool and the night."""

    def __init__(self, drive: Path, work: Path) -> None:
        self.runs: list[Run] = []
        self.figures: list[Figure] = []
        self.failed: dict[str, str] = {}
        self.drive = drive
        self.work = work

    def run(
        self,
        night: str,
        label: str,
        command: Command,
        number: int,
        kind: str = "",
        *,
        after: Sequence[Path],
    ) -> Run:
        """Measure one run, and a sync of `after`; whatever was written before is on the disks
        by then.  Raises Failed."""
        sync([self.drive, self.work])
        before = written(self.drive)
        figures = run(command, after)
        now = written(self.drive)
        count = None if before is None or now is None else now - before
        done = Run(night, label, kind or label, number, figures, count)
        self.runs.append(done)
        say(f"{night}, round {number + 1}: {label} {figures.wall:.2f} s")
        return done

    def figure(
        self, night: str, what: str, values: Sequence[float], limit: float, unit: str
    ) -> None:
        """Keep what was found."""
        self.figures.append(Figure(night, what, values, limit, unit))
        say(f"{night}: {what} {', '.join(f'{value:.3f}' for value in values)} {unit}")


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
