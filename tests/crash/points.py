"""Cuts a use case at its calls, one after another, and looks at what is left.

Run as a program with `cut.so` preloaded:

    points.py SCENARIO FOLDER FROM STEP [ERROR [ON]]

Without ERROR the process is killed before its n-th call, for n = FROM, FROM + STEP,
and so on to the last; with one that call fails with it, and all after it with ON.
Prints the number of points that were tried.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash import scenarios
from crash.cutting import in_child
from crash.scenarios import (
    CHOSEN,
    LargeRecovery,
    LostNight,
    MixedRecovery,
    RebuildRecovery,
    Recovery,
    Scenario,
)
from trees import describe, require_same

ALLOWED_CODES = {1, 12}


def restored(template: Path, top: Path) -> None:
    """The state that a scenario has made, once more."""
    if top.exists():
        shutil.rmtree(top)
    subprocess.run(["cp", "-a", template, top], check=True)


def points(kind: type[Scenario], folder: Path, first: int, step: int, error: int, on: int) -> int:
    """Try every point; how many there were."""
    top = folder / "run"
    shutil.rmtree(top, ignore_errors=True)
    made = kind(top)
    made.nights.source.mkdir(parents=True)
    made.prepare()
    template = folder / "template"
    shutil.rmtree(template, ignore_errors=True)
    subprocess.run(["cp", "-a", top, template], check=True)
    restored(template, top)
    kind(top).measure()
    tried = 0
    at = first
    while True:
        restored(template, top)
        scenario = kind(top)
        scenario.then = dict(made.then)
        scenario.nights.now = made.nights.now
        scenario.__dict__.update({k: v for k, v in made.__dict__.items() if k in CHOSEN})
        scenario.begin()
        code, calls = in_child(scenario.run, at, error, on)
        if error:
            assert code == 0 or code in ALLOWED_CODES, (at, code)
        else:
            assert code in (0, 128 + 9), (at, code)
        try:
            if code == 0 and scenario.is_a_night:
                scenario.nights.now += timedelta(days=1)
                require_same(describe(scenario.nights.source), describe(scenario.nights.current))
            if code == 0 and not error:
                scenario.require_done()
            scenario.after()
        except BaseException:
            print(f"at call {at} of {kind.__name__}, which ended with {code}", file=sys.stderr)
            raise
        tried += 1
        if code == 0 and calls and calls < at:
            return tried
        at += step


def main() -> None:
    name, folder, *numbers = sys.argv[1:]
    first, step, error, on = [*map(int, numbers), 0, 0][:4]
    kind: type[Scenario] = getattr(scenarios, name.split("@")[0])
    if "@" in name:
        for one in (Recovery, LargeRecovery, MixedRecovery, RebuildRecovery, LostNight):
            one.percent = int(name.split("@")[1])
    print(points(kind, Path(folder), first, step, error, on))


if __name__ == "__main__":
    main()
