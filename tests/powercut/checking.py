"""Looks at what cuts have left: what was promised, what was there before, and the next run."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from crash.scenario import Scenario
from powercut import devices
from powercut.children import in_child
from powercut.cuts import Cut
from powercut.devices import Kind
from powercut.recording import DONE, record, record_recovery
from trees import describe, require_same

LONGEST_S = 180  # that all of one cut may take
MOST_TOLD = 4000  # characters
Check = Callable[[Scenario], None]


@dataclass(frozen=True)
class Work:
    """What to do with one recording, and where."""

    kind: Kind
    scenario: type[Scenario]
    seed: int
    folder: Path
    count: int  # random cuts an epoch
    most: int  # cuts of the recording
    recoveries: int  # that are recorded in turn
    keep: Path | None  # where disks go that were not as they must be


@dataclass(frozen=True)
class Result:
    """A cut that was checked; `problem` is None where all was well."""

    in_recovery: bool
    problem: str | None


def work(job: Work) -> Iterator[Result]:
    """Record, cut, check; a result for each cut.  Needs mounts of its own."""
    chance = random.Random(job.seed)
    shutil.rmtree(job.folder, ignore_errors=True)
    scenario = job.scenario(job.folder / "top", job.folder / "drive")
    recording = record(scenario, job.kind, job.folder / "first", chance)
    planned = _some(recording.plan(chance, job.count), job.most, chance)
    cut_short = [at for at, (_number, cut) in enumerate(planned) if DONE not in cut.promised]
    wanted = min(job.recoveries if scenario.recovery_may_be_cut else 0, len(cut_short))
    again = set(chance.sample(cut_short, wanted))
    image = job.folder / "cut"
    for at, (number, cut) in enumerate(recording.states(planned, image)):
        if at in again:
            devices.copy_sparse(image, job.folder / f"again-{at}")
        yield Result(False, _checked(job, scenario, image, _after(cut), f"epoch {number}", cut))
    scenario.nights.now += timedelta(days=2)
    for at in sorted(again):
        yield from _recovery(job, scenario, at, chance)
    shutil.rmtree(job.folder)


def _some(
    planned: list[tuple[int, Cut]], most: int, chance: random.Random
) -> list[tuple[int, Cut]]:
    if most >= len(planned):
        return planned
    return sorted(chance.sample(planned, most), key=lambda one: one[0])


def _recovery(job: Work, scenario: Scenario, at: int, chance: random.Random) -> Iterator[Result]:
    """Cut the run that comes after a cut."""
    folder = job.folder / f"recovery-{at}"
    saved = job.folder / f"again-{at}"
    now = scenario.nights.now
    try:
        recording = record_recovery(scenario, job.kind, folder, saved, chance)
    finally:
        scenario.nights.now = now + timedelta(days=2)
    planned = _some(recording.plan(chance, job.count), max(1, job.most // 4), chance)
    image = job.folder / "cut"
    for number, cut in recording.states(planned, image):
        words = f"recovery after cut {at}, epoch {number}"
        yield Result(True, _checked(job, scenario, image, _after_recovery(cut), words, cut))
    shutil.rmtree(folder)


def _after(cut: Cut) -> Check:
    def check(scenario: Scenario) -> None:
        scenario.promised = [promise for promise in cut.promised if promise != DONE]
        scenario.lenient = DONE not in cut.promised
        if DONE in cut.promised:
            scenario.require_done()
        scenario.after()

    return check


def _after_recovery(cut: Cut) -> Check:
    def check(scenario: Scenario) -> None:
        scenario.lenient = DONE not in cut.promised
        if DONE in cut.promised and scenario.is_a_night:
            require_same(describe(scenario.nights.source), describe(scenario.nights.current))
        scenario.after()

    return check


def _checked(
    job: Work, scenario: Scenario, image: Path, check: Check, where: str, cut: Cut
) -> str | None:
    """What is wrong with a disk; None where nothing is."""
    kept = None
    if job.keep is not None:  # the check writes to it
        kept = image.with_name("kept")
        devices.copy_sparse(image, kept)
    try:
        with devices.mounted(job.kind, image, scenario.place), source_of_its_own(scenario):
            problem = in_child(lambda: check(scenario), LONGEST_S)
    except OSError as error:
        problem = f"the file system: {error}"
    if problem is None:
        return None
    name = f"{job.kind.name} {job.scenario.__name__} seed {job.seed} {where} {cut.words}"
    if kept is not None and job.keep is not None:
        folder = job.keep / name.replace(" ", "_").replace(",", "")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.move(kept, folder / "image")
        subprocess.run(["cp", "-a", scenario.nights.source, folder / "source"], check=True)
    return f"{name}; promised {cut.promised}:\n{problem[-MOST_TOLD:]}"


@contextlib.contextmanager
def source_of_its_own(scenario: Scenario) -> Iterator[None]:
    """A source that may be altered, and is for the next check what it was."""
    shutil.rmtree(scenario.top / "back", ignore_errors=True)
    if not scenario.alters_source:
        yield
        return
    source, copy = scenario.nights.source, scenario.top / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-a", source, copy], check=True)
    with devices.bound(copy, source):
        yield
