"""Cuts the power at every flush, and looks at what is left: `make powercut`.

    run.py [--fs KIND]... [--scenario NAME]... [--minutes N] [--cuts N] [--jobs N] ...

Each scenario of `tests/crash` is run on a file system of its own, on a loop device
upon a disk that writes down what is written to it (`disk.py`).  From that the disks are made
which a power cut could have left (`cuts.py`): all before some flush, and any part of what came
after it.  Each is mounted, which replays the file system's journal.  Then it is checked, in a
process of its own, that

  * what a command that ended with 0 has promised, is there; what was there before, is untouched:
    contents, metadata, hard links, by plain reading, and where there are deltas by restoring;
  * the next run ends with 0 without help; after it all is exact, `verify` finds nothing, and
    nothing is left behind.

One cut is one such disk; two that have the same bytes count once.  Some of them are the ground
for another recording, of the run that comes after the cut, which is cut in the same way.

Ends with 0 where all was well, 1 where not, and with a signal or at the end of its time it says
what it has checked until then.  Needs root, /dev/fuse, loop devices, and mkfs of each kind.
Limits: writes that were under way at a flush count as done; a write is torn at 4096 bytes; what
a disk has lost although it said it was flushed is not tried.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest import mock

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads are not copied by a fork
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy  # noqa: F401  (before the fork, for all checks)
from crash.scenario import Scenario
from crash.scenarios import scenarios
from powercut import devices
from powercut.checking import Work, work
from powercut.devices import KINDS, Kind

import mirrorback

SCENARIOS = (
    "First",
    "Night",
    "Week",
    "Large",
    "LargeShared",
    "Delete",
    "DeleteTouched",
    "LargeDelete",
    "Prune",
    "LargePrune",
    "Mixed",
    "MixedPrune",
    "Repair",
    "LargeRepair",
    "Rebuild",
    "Restore",
)
TELL_EVERY_S = 60
MOST_WHOLE = 20  # problems told in all their lines
MOST_JOBS = 16_000  # whose numbers a pipe holds


@dataclass
class Report:
    """What was found until now."""

    cuts: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_recovery: Counter[tuple[str, str]] = field(default_factory=Counter)
    recordings: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def take(self, message: dict[str, object]) -> None:
        """Count what a worker has told."""
        key = (str(message["fs"]), str(message["scenario"]))
        if message["what"] == "recorded":
            self.recordings[key] += 1
        elif message["what"] == "cut":
            self.cuts[key] += 1
            self.in_recovery[key] += bool(message["in_recovery"])
        if message["problem"] is not None:
            self.problems.append(str(message["problem"]))
            known = len(self.problems) > MOST_WHOLE
            told = self.problems[-1].splitlines()[0] if known else self.problems[-1]
            print(f"PROBLEM {told}", flush=True)

    def line(self) -> str:
        """All in one line."""
        seconds = time.monotonic() - self.began
        return (
            f"{self.cuts.total():,} cuts checked, {self.in_recovery.total():,} of them in a"
            f" recovery, in {self.recordings.total():,} recordings: {len(self.problems)} problems;"
            f" {seconds / 60:.1f} minutes, {self.cuts.total() / max(seconds, 0.001):.1f} a second"
        )

    def table(self) -> Iterator[str]:
        """By file system and scenario."""
        kinds = [kind for kind in KINDS if any(one == kind for one, _name in self.cuts)]
        yield f"{'':14}" + "".join(f"{kind:>14}" for kind in kinds)
        for name in SCENARIOS:
            if any((kind, name) in self.cuts for kind in kinds):
                yield f"{name:14}" + "".join(f"{self.cuts[kind, name]:>14,}" for kind in kinds)
        sums = [sum(n for (one, _), n in self.cuts.items() if one == kind) for kind in kinds]
        yield f"{'':14}" + "".join(f"{total:>14,}" for total in sums)


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--fs", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: all")
    parser.add_argument("--minutes", type=float, help="end after so long")
    parser.add_argument("--cuts", type=int, help="end after so many (default: each scenario once)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at the same time")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--subsets", type=int, default=12, help="random cuts between two flushes")
    parser.add_argument("--most", type=int, default=100, help="cuts of one recording")
    parser.add_argument("--recoveries", type=int, default=1, help="of a recording that are cut too")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="where disks are kept")
    parser.add_argument("--keep", type=Path, help="where disks that show a problem go")
    parser.add_argument(
        "--without-sync", action="store_true", help="let syncfs do nothing: finds problems"
    )
    return parser.parse_args()


def jobs(options: argparse.Namespace, folder: Path) -> Iterator[Work]:
    """All recordings, round after round."""
    rounds = 1 if options.cuts is None and options.minutes is None else MOST_JOBS
    for number in range(rounds):
        for name in options.scenario or SCENARIOS:
            kind_of = scenarios()[name]
            for kind in options.fs or KINDS:
                if not kind_of.kinds or kind in kind_of.kinds:
                    yield _job(options, folder, KINDS[kind], kind_of, options.seed + number)


def _job(
    options: argparse.Namespace, folder: Path, kind: Kind, scenario: type[Scenario], seed: int
) -> Work:
    return Work(
        kind, scenario, seed, folder, options.subsets, options.most, options.recoveries,
        options.keep,
    )  # fmt: skip


def main() -> None:
    """Run, and report."""
    options = parsed()
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hear)
    load()
    folder = Path(tempfile.mkdtemp(prefix="powercut-", dir=options.work))
    os.environ["MIRRORBACK_STATE_DIR"] = str(folder / "diary")
    report = Report()
    workers, messages = start(options, folder)
    try:
        follow(options, messages, report, heard)
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for worker in workers:
            os.waitpid(worker, 0)
        _removed(folder)
    for line in report.table():
        print(line)
    print(report.line(), flush=True)
    if report.problems:
        sys.exit(1)
    sys.exit(128 + heard[0] if heard else 0)


def load() -> None:
    """Import the whole program, once for all processes."""
    for module in pkgutil.walk_packages(mirrorback.__path__, "mirrorback."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()


def start(options: argparse.Namespace, folder: Path) -> tuple[list[int], int]:
    """Processes that take jobs by their numbers; these, and where they tell."""
    taking, giving = os.pipe()
    hearing, telling = os.pipe()
    todo = [job for job, _number in zip(jobs(options, folder), range(MOST_JOBS), strict=False)]
    os.write(giving, b"".join(number.to_bytes(4, "little") for number in range(len(todo))))
    os.close(giving)
    workers = []
    for number in range(options.jobs):
        child = os.fork()
        if child == 0:
            os.close(hearing)
            code = 1
            try:
                _work(options, todo, taking, telling, folder / str(number))
                code = 0
            finally:
                os._exit(code)
        workers.append(child)
    os.close(telling)
    os.close(taking)
    return workers, hearing


def _work(
    options: argparse.Namespace, todo: list[Work], taking: int, telling: int, folder: Path
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    devices.die_with_parent()
    devices.own_mounts()
    while word := os.read(taking, 4):
        job = todo[int.from_bytes(word, "little")]
        key = {"fs": job.kind.name, "scenario": job.scenario.__name__}

        def tell(key: dict[str, str] = key, **what: object) -> None:
            os.write(telling, (json.dumps(key | what) + "\n").encode())

        try:
            for result in _results(options, job, folder):
                tell(what="cut", in_recovery=result.in_recovery, problem=result.problem)
            tell(what="recorded", problem=None)
        except Exception:
            tell(what="failed", problem=f"{key} seed {job.seed}: {traceback.format_exc()}")


def _results(options: argparse.Namespace, job: Work, folder: Path) -> Iterator[object]:
    job = Work(**(job.__dict__ | {"folder": folder}))
    if options.without_sync:
        careless = type(job.scenario.__name__, (job.scenario,), {"run": _carelessly(job.scenario)})
        job = Work(**(job.__dict__ | {"scenario": careless}))
    yield from work(job)


def _carelessly(scenario: type[Scenario]) -> object:
    def run(self: Scenario) -> None:
        with mock.patch("mirrorback.store.system.sync_filesystem"):
            scenario.run(self)

    return run


def follow(options: argparse.Namespace, messages: int, report: Report, heard: list[int]) -> None:
    """Listen to the workers, until all is done, it is enough, or a signal comes."""
    until = report.began + 60 * options.minutes if options.minutes else float("inf")
    told, rest = report.began, b""
    while not heard and time.monotonic() < until:
        if options.cuts is not None and report.cuts.total() >= options.cuts:
            return
        if select.select([messages], [], [], 0.2)[0]:
            part = os.read(messages, 1 << 16)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                report.take(json.loads(line))
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            print(report.line(), flush=True)


def _removed(folder: Path) -> None:
    """Remove what was worked in; what lay on mounted disks has gone with their processes."""
    for _attempt in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
