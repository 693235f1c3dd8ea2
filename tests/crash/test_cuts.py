"""Killed or failed at any call: history stays, and the next run needs no help.

By default a sample of the points is tried; MIRRORBACK_CUT_STEP=1 tries them all.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STEP = int(os.environ.get("MIRRORBACK_CUT_STEP", "7"))
LONGEST_S = 3000
SCENARIOS = [
    "First",
    "Night",
    "Delete",
    "DeleteTouched",
    "Prune",
    "Rebuild",
    "Restore",
    "Large",
    "LargeDelete",
    "LargePrune",
    "Mixed",
    "MixedPrune",
    "Repair",
    "LargeRepair",
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that cuts."""
    if os.geteuid() != 0:
        pytest.skip("owners and the reserve are compared as root")
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is needed; .ci/run lists what the tests need"
    made = tmp_path_factory.mktemp("cut") / "cut.so"
    source = HERE / "cut.c"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, "-o", made, source, "-ldl"], check=True)
    return made


def points(library: Path, folder: Path, scenario: str, *numbers: int) -> int:
    done = subprocess.run(
        [sys.executable, HERE / "points.py", scenario, folder, *map(str, numbers)],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return int(done.stdout)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_before_a_call(library: Path, tmp_path: Path, scenario: str) -> None:
    assert points(library, tmp_path, scenario, 1, STEP) > 40 // STEP


def test_a_repair_killed_and_a_night_after_it(library: Path, tmp_path: Path) -> None:
    assert points(library, tmp_path, "RepairThenBackup", 1, 2 * STEP) > 40 // STEP


@pytest.mark.parametrize("percent", [35, 60, 75, 85, 95])
def test_the_recovery_killed_too(library: Path, tmp_path: Path, percent: int) -> None:
    """The night before it was cut after so many of its calls."""
    assert points(library, tmp_path, f"Recovery@{percent}", 1, 3 * STEP) > 10 // STEP


@pytest.mark.parametrize("percent", [60, 75, 85, 92, 97])
def test_the_recovery_of_large_files_killed_too(
    library: Path, tmp_path: Path, percent: int
) -> None:
    assert points(library, tmp_path, f"LargeRecovery@{percent}", 1, 3 * STEP) > 10 // STEP


@pytest.mark.parametrize("percent", [50, 97])
def test_a_rebuild_killed_after_one_that_was(library: Path, tmp_path: Path, percent: int) -> None:
    assert points(library, tmp_path, f"RebuildRecovery@{percent}", 1, 8 * STEP) > 10 // STEP


@pytest.mark.parametrize("night", ["LostNight@60", "LostNight@95", "LostSmallNight@90"])
def test_a_rebuild_killed_after_a_night_that_was(library: Path, tmp_path: Path, night: str) -> None:
    """The catalog has gone with it."""
    assert points(library, tmp_path, night, 1, 8 * STEP) > 10 // STEP


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_rebuild_failing_after_a_night_that_was_killed(
    library: Path, tmp_path: Path, error: int
) -> None:
    assert points(library, tmp_path, "LostNight@95", 1 + error % STEP, 12 * STEP, error, 1) > 1


@pytest.mark.parametrize("percent", [20, 40, 55, 70, 90])
def test_a_removal_killed_and_the_next_one_too(library: Path, tmp_path: Path, percent: int) -> None:
    assert points(library, tmp_path, f"MixedRecovery@{percent}", 1, 3 * STEP) > 10 // STEP


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    ("error", "on"),
    [(errno.ENOSPC, 0), (errno.ENOSPC, 1), (errno.EIO, 0), (errno.EIO, 1), (errno.EROFS, 1)],
)
def test_failing_at_a_call(
    library: Path, tmp_path: Path, scenario: str, error: int, on: int
) -> None:
    assert points(library, tmp_path, scenario, 1 + error % STEP, 4 * STEP, error, on) > 1
