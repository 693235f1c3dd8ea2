"""Cuts a use case at its calls, one after another, and looks at what is left.

Run as a program with `cut.so` preloaded:

    points.py SCENARIO FOLDER STEP FAULT...

For each fault (`cutting.Fault.read`) it strikes at call 1 + i, 1 + i + STEP, and so on to the
last, i its place among them.  `SCENARIO@PERCENT` follows a use case that was killed after so much
of its calls.  Prints how many points were tried.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash.cutting import DAMAGED, INCOMPLETE, KILLED, NAMES, READS, SHORT, Ended, Fault, in_child
from crash.scenario import AfterCut, Scenario
from crash.scenarios import scenarios
from trees import require_same

import mirrorback

FAILED = {1, 12}  # what a drive that fails may end with


def codes(fault: Fault) -> set[int]:
    """The exit codes that a fault may lead to."""
    if fault.kills:
        return {0, KILLED}
    if fault.error == SHORT:
        return {0}
    if fault.where == "source":
        return {0, 1, INCOMPLETE}
    return {0, *FAILED, *([DAMAGED] if fault.kinds & READS else [])}


class Points:
    """The points of one scenario, whose state is made once."""

    def __init__(self, kind: type[Scenario], folder: Path) -> None:
        self._kind = kind
        self._top, self._template = folder / "run", folder / "template"
        self._made = kind(self._top)
        self._made.nights.source.mkdir(parents=True)
        self._made.prepare()
        subprocess.run(["cp", "-a", self._top, self._template], check=True)
        self._restored().measure()

    def _restored(self) -> Scenario:
        """The scenario, and its state once more."""
        shutil.rmtree(self._top)
        subprocess.run(["cp", "-a", self._template, self._top], check=True)
        return copy.deepcopy(self._made)

    def tried(self, fault: Fault, first: int, step: int) -> int:
        """Try every so many; how many there were."""
        tried, at = 0, first
        while True:
            tried += 1
            if not self._point(fault, at).call:
                return tried
            at += step

    def _point(self, fault: Fault, at: int) -> Ended:
        scenario = self._restored()
        scenario.begin()
        if fault.kinds == NAMES:
            scenario.allow_split()
        ended = in_child(scenario.run, at, fault, self._top)
        try:
            assert ended.code in codes(fault)
            scenario.require_said(ended)
            scenario.code = ended.code
            if ended.code == 0 and scenario.is_a_night:
                scenario.nights.now += timedelta(days=1)
                require_same(
                    scenario.seen(scenario.nights.source), scenario.seen(scenario.nights.current)
                )
            if ended.code == 0 and fault.kills:
                scenario.require_done()
            scenario.after()
        except BaseException:
            print(f"{self._kind.__name__}: {fault} at call {at}: {ended}", file=sys.stderr)
            raise
        return ended


def load_all() -> None:
    """Import the whole program now: each process is to begin with it."""
    for module in pkgutil.walk_packages(mirrorback.__path__, "mirrorback."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> None:
    chosen, folder, step, *faults = sys.argv[1:]
    name, _at, percent = chosen.partition("@")
    kind = scenarios()[name]
    if percent:
        assert issubclass(kind, AfterCut)
        kind = type(chosen, (kind,), {"percent": int(percent)})
    load_all()
    points = Points(kind, Path(folder))
    read = [Fault.read(text) for text in faults]
    print(sum(points.tried(fault, 1 + i, int(step)) for i, fault in enumerate(read)))


if __name__ == "__main__":
    main()
