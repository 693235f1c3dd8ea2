"""Killed or failed at any call: history stays, and the next run needs no help.

By default a sample of the points is tried, and every point of a few small scenarios;
MIRRORBACK_CUT_STEP=1 tries them all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import mounted

HERE = Path(__file__).parent
STEP = int(os.environ.get("MIRRORBACK_CUT_STEP", "7"))
LONGEST_S = 3000


def each(times: int) -> int:
    """The step of a rarer sample; every point where all are asked for."""
    return 1 if STEP == 1 else times * STEP


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
COMMANDS = ["RunNight", "FirstByCommand", "InitNamed", "Pin", "Schedule", "Verify"]
ERRORS = ["ENOSPC", "ENOSPC+", "EIO", "EIO+", "EROFS+", "EDQUOT", "EINTR"]


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


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where the system has it with attributes: thousands of syncs cost
    nothing there."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", tmp_path])
    try:
        if not done.returncode and not _has_attributes(tmp_path):
            subprocess.run(["umount", tmp_path], check=True)
            done.returncode = 1
        yield tmp_path
    finally:
        if not done.returncode:
            subprocess.run(["umount", "--lazy", tmp_path], check=True)


def _has_attributes(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.one", b"1")
    except OSError:
        return False
    os.removexattr(folder, "user.one")
    return True


def points(library: Path, folder: Path, scenario: str, step: int, *faults: str) -> int:
    """How many points were tried, in all."""
    done = subprocess.run(
        [sys.executable, HERE / "points.py", scenario, folder, str(step), *faults],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return int(done.stdout)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_before_a_call(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, STEP, "kill") > 40 // STEP


@pytest.mark.parametrize("scenario", ["Delete", "Schedule"])
def test_killed_before_every_call(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, 1, "kill") > 20


def test_a_repair_killed_and_a_night_after_it(library: Path, folder: Path) -> None:
    assert points(library, folder, "RepairThenBackup", each(2), "kill") > 40 // STEP


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_files_that_share_blocks(library: Path, folder: Path, kind: str) -> None:
    """Large files by reflink, on a drive that can: such a night killed, and failing."""
    with mounted(kind, folder) as top:
        faults = ("kill", "torn", "short", "ENOSPC+", "EIO")
        assert points(library, top, "LargeShared", each(20), *faults) > len(faults)


@pytest.mark.parametrize("scenario", ["GoneFolder", "GoneFolderThenBackup"])
def test_a_missing_folder_that_is_made_anew(library: Path, folder: Path, scenario: str) -> None:
    faults = ("kill", "torn", "ENOSPC+", "EIO", "EROFS+", "EMLINK", "reads:EIO")
    assert points(library, folder, scenario, each(50), *faults) > len(faults)


@pytest.mark.parametrize("percent", [40, 80])
def test_the_repair_after_it_cut_too(library: Path, folder: Path, percent: int) -> None:
    assert points(library, folder, f"GoneFolderRecovery@{percent}", each(40), "kill", "EIO") > 2


@pytest.mark.parametrize("percent", [35, 60, 75, 85, 95])
def test_the_recovery_killed_too(library: Path, folder: Path, percent: int) -> None:
    """The night before it was cut after so many of its calls."""
    assert points(library, folder, f"Recovery@{percent}", each(3), "kill") > 10 // STEP


@pytest.mark.parametrize("percent", [60, 75, 85, 92, 97])
def test_the_recovery_of_large_files_killed_too(library: Path, folder: Path, percent: int) -> None:
    assert points(library, folder, f"LargeRecovery@{percent}", each(3), "kill") > 10 // STEP


@pytest.mark.parametrize("percent", [50, 97])
def test_a_rebuild_killed_after_one_that_was(library: Path, folder: Path, percent: int) -> None:
    assert points(library, folder, f"RebuildRecovery@{percent}", each(8), "kill") > 10 // STEP


@pytest.mark.parametrize("night", ["LostNight@60", "LostNight@95", "LostSmallNight@90"])
def test_a_rebuild_killed_after_a_night_that_was(library: Path, folder: Path, night: str) -> None:
    """The catalog has gone with it."""
    assert points(library, folder, night, each(8), "kill") > 10 // STEP


@pytest.mark.parametrize("percent", [20, 40, 55, 70, 90])
def test_a_removal_killed_and_the_next_one_too(library: Path, folder: Path, percent: int) -> None:
    assert points(library, folder, f"MixedRecovery@{percent}", each(3), "kill") > 10 // STEP


@pytest.mark.parametrize(
    "scenario",
    ["Recovery@60", "Recovery@95", "LargeRecovery@92", "LargeRecovery@97", "MixedRecovery@55",
     "RebuildRecovery@97", "LostNight@95"],
)  # fmt: skip
def test_what_follows_a_kill_fails(library: Path, folder: Path, scenario: str) -> None:
    faults = ["ENOSPC+", "EIO", "EROFS+", "reads:EIO"]
    assert points(library, folder, scenario, each(24), *faults) > len(faults)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_failing_at_a_call(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, each(9), *ERRORS) > len(ERRORS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_half_of_the_bytes_moved(library: Path, folder: Path, scenario: str) -> None:
    """As a call may do; or as one may have done when the process died."""
    assert points(library, folder, scenario, each(16), "torn", "short", "short+") > 3


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_more_names_for_an_inode(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, each(9), "EMLINK") > 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_drive_cannot_be_read(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, each(32), "reads:EIO", "reads:EIO+") > 2


@pytest.mark.parametrize("scenario", COMMANDS)
def test_a_command_killed_or_failing(library: Path, folder: Path, scenario: str) -> None:
    """What a person sees of it is one line, and the exit code is one of those documented."""
    faults = ["kill", "torn", "EIO", "ENOSPC+", "EROFS+"]
    assert points(library, folder, scenario, each(16), *faults) > len(faults)


@pytest.mark.parametrize("scenario", ["InitSecond", "FillInId"])
def test_a_configuration_that_is_changed(library: Path, folder: Path, scenario: str) -> None:
    """It is as before, or as it is to be, and its comments, mode and owner are as they were."""
    own = ("configuration:kill", "configuration:EIO")
    assert points(library, folder / "1", scenario, 1, *own) > 8
    assert points(library, folder / "2", scenario, each(80), "kill", "torn", "ENOSPC+") > 3


@pytest.mark.parametrize("scenario", ["First", "Night", "Large"])
def test_the_source_cannot_be_read(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, each(4), "source:EIO", "source:EIO+") > 2


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_failing_when_a_file_is_closed(library: Path, folder: Path, scenario: str) -> None:
    assert points(library, folder, scenario, each(9), "closes:EIO", "closes:EIO+") > 2
