"""Makes tables of what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from log import Figure, Log, Run
from peers import Tool

# What mirrorback may take, as a multiple of what the other takes.
LIMITS = {
    ("unchanged", "rsync"): 0.2,
    ("unchanged", "restic"): 0.3,
    ("unchanged", "borg"): 0.3,
    ("one-percent", "rsync"): 0.5,
    ("one-percent", "cp -al"): 1.3,
    ("first", "rsync"): 1.0,
    ("restore", "cp -a"): 1.3,
    ("verify", "cat"): 1.3,
    ("rebuild", "find -ls"): 4.0,
    ("stats", "du"): 1.0,
    ("delete", "rm -rf"): 1.2,
    ("prune", "rm -rf"): 1.2,
    ("image", "rsync"): 0.8,
    ("image", "rdiff-backup"): 0.25,
    ("oldest", "cp"): 5.0,
}
SECONDS = {"versions": 0.2, "diff": 0.2}  # limits of the history
MEMORY_MB = 100
MEMORY_LARGE_MB = 200
LARGE = 200_000  # files; the larger limit is for more
MEMORY_LARGE_FILES_MB = 256
LARGE_FILE_NIGHTS = ("image", "mailbox", "database", "oldest")
LARGE_MEMORY = "large: "  # how the nights of `large-memory` begin
SUBJECT = "mirrorback"


@dataclass(frozen=True)
class Row:
    """A tool in a night; the ratios are mirrorback's time to this tool's."""

    night: str
    tool: str
    median_s: float | None = None
    min_s: float | None = None
    cpu_s: float | None = None
    ratio: float | None = None
    ratio_of_min: float | None = None
    limit: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class MemoryRow:
    """The most memory that mirrorback has held in a night, over all rounds."""

    night: str
    all_processes_mb: float
    largest_process_mb: float
    limit_mb: int
    verdict: str


class Report:
    """The rows, from the runs."""

    def __init__(self, log: Log, peers: Sequence[Tool], chosen: Sequence[str], files: int) -> None:
        self.runs = log.runs
        self.figures = log.figures
        self._failed = log.failed
        self._peers = peers
        self.rows = [row for night in chosen for row in self._night(night)]
        self.memory = list(self._memory(chosen, files))

    def shape(self) -> dict[str, object]:
        """The rows, for JSON."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "figures": [dataclasses.asdict(figure) for figure in self.figures],
            "memory": [dataclasses.asdict(row) for row in self.memory],
        }

    def text(self) -> str:
        """The tables."""
        parts = []
        if self.rows:
            head = [
                "night",
                "tool",
                "median s",
                "min s",
                "cpu s",
                "ratio",
                "of min",
                "limit",
                "verdict",
            ]
            parts.append(_table(head, [_cells(row) for row in self.rows]))
        if self.figures:
            head = ["large files", "what", "measured", "limit", "unit", "min - max", "verdict"]
            parts.append(_table(head, [_figure_cells(figure) for figure in self.figures]))
        if self.memory:
            head = ["memory", "all processes MB", "largest MB", "limit MB", "verdict"]
            parts.append(_table(head, [_memory_cells(row) for row in self.memory]))
        return "\n\n".join(parts)

    def _night(self, night: str) -> Iterator[Row]:
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.night == night:
                groups.setdefault(run.label, []).append(run)
        subject = groups.get(SUBJECT)
        for label, runs in groups.items():
            if self._failed.get(label) != night:
                yield _row(runs, subject)
        for peer in self._peers:
            if night not in peer.nights:
                continue
            if not peer.installed:
                yield Row(night, peer.label, verdict="not installed")
            elif self._failed.get(peer.label) == night or (
                peer.label in self._failed and peer.label not in groups
            ):
                yield Row(night, peer.label, verdict="failed")

    def _memory(self, chosen: Sequence[str], files: int) -> Iterator[MemoryRow]:
        nights = dict.fromkeys(run.night for run in self.runs if run.label == SUBJECT)
        for night in nights:
            if ("large-memory" if night.startswith(LARGE_MEMORY) else "memory") not in chosen:
                continue
            figures = [r.figures for r in self.runs if (r.night, r.label) == (night, SUBJECT)]
            total = max(one.total for one in figures) / 1e6
            largest = max(one.largest for one in figures) / 1e6
            limit = _memory_limit(night, files)
            verdict = _verdict(max(total, largest), limit)
            yield MemoryRow(night, total, largest, limit, verdict)


def _memory_limit(night: str, files: int) -> int:
    if night.startswith(LARGE_MEMORY) or night in LARGE_FILE_NIGHTS:
        return MEMORY_LARGE_FILES_MB
    return MEMORY_MB if files <= LARGE else MEMORY_LARGE_MB


def _row(runs: Sequence[Run], subject: Sequence[Run] | None) -> Row:
    night, label, kind = runs[0].night, runs[0].label, runs[0].kind
    middle, least = _times(runs)
    cpu = median(run.figures.cpu for run in runs)
    if subject is None:
        most = SECONDS.get(label)
        limit = f"{most} s" if most else ""
        verdict = _verdict(middle, most) if most else ""
        return Row(night, label, middle, least, cpu, limit=limit, verdict=verdict)
    if label == SUBJECT:
        return Row(night, label, middle, least, cpu)
    ours, our_least = _times(subject)
    times = LIMITS.get((night, kind))
    return Row(
        night,
        label,
        middle,
        least,
        cpu,
        ratio=ours / middle,
        ratio_of_min=our_least / least,
        limit=f"{times} x" if times else "",
        verdict=_verdict(ours / middle, times) if times else "",
    )


def _times(runs: Sequence[Run]) -> tuple[float, float]:
    times = [run.figures.wall for run in runs]
    return median(times), min(times)


def _verdict(value: float, limit: float) -> str:
    return "ok" if value <= limit else "over"


def _cells(row: Row) -> list[str]:
    numbers = (row.median_s, row.min_s, row.cpu_s, row.ratio, row.ratio_of_min)
    return [row.night, row.tool, *map(_number, numbers), row.limit, row.verdict]


def _figure_cells(figure: Figure) -> list[str]:
    numbers = [_number(figure.value), _number(figure.limit)]
    spread = f"{min(figure.values):.3f} - {max(figure.values):.3f}"
    verdict = _verdict(figure.value, figure.limit)
    return [figure.night, figure.what, *numbers, figure.unit, spread, verdict]


def _memory_cells(row: MemoryRow) -> list[str]:
    sizes = (row.all_processes_mb, row.largest_process_mb)
    return [row.night, *(f"{size:.0f}" for size in sizes), str(row.limit_mb), row.verdict]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Words to the left, numbers to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    ends = ("s", "ratio", "of min", "measured", "limit", "MB")
    numeric = [cell.endswith(ends) for cell in head]
    numeric[0] = False
    made = []
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        made.append("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in cells).rstrip())
    made.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(made)
